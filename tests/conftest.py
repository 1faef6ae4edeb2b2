"""What several test files share: verdicts, and an inspected part with known defects, both made by hand."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from depthcell.acquisition.frameset import CameraFrame, ColorImage, DepthImage, FrameSet
from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell, CellCamera, DisparityNoise
from depthcell.fusion.align import Alignment
from depthcell.fusion.fuse import FusedPart, FusionSettings, fuse
from depthcell.fusion.region import Region
from depthcell.inspect.inspection import Inspection
from depthcell.inspect.verdict import (
    Decision,
    Finding,
    Measurement,
    Position,
    Provenance,
    Quantity,
    Verdict,
    sealed,
)

# A machine under load is slow, not wrong: no property fails for its time.
settings.register_profile("house", deadline=None)
settings.load_profile("house")

MakeVerdict = Callable[..., Verdict]
SERIALS = ("405000001", "405000002")
DENT_M = np.array([0.010, 0.005])
STAIN_M = np.array([-0.018, -0.008])


@pytest.fixture(scope="session", autouse=True)
def key_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep this station's keys out of the tests, and the tests' out of the station's; subprocesses inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("depthcell_home")
        patch.setenv("DEPTHCELL_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def make_verdict() -> MakeVerdict:
    """A function that gives a sealed verdict: a rejected part with a dent, a stain and a bore, or a good one."""
    return verdict_on


@pytest.fixture(scope="session")
def plate_cell() -> Cell:
    """Two cameras 0.3 m from a plate, one straight above it and one tilted by 30 degrees."""
    return Cell("plate cell", {camera.serial: camera for camera in map(plate_camera, SERIALS)}, "2026-01-02T03:04:05Z")


@pytest.fixture(scope="session")
def inspected_plate(plate_cell: Cell) -> Inspection:
    """A plate of 60 x 40 mm with a dent of 0.8 mm and a dark stain, seen by two cameras without noise."""
    frames = {serial: plate_frame(plate_cell.camera(serial)) for serial in SERIALS}
    part_box = RigidTransform.identity("cell", "part")
    region = Region(part_box, np.array([-0.04, -0.03, -0.01]), np.array([0.04, 0.03, 0.01]))
    fused = fuse([FrameSet(frames, SERIALS)], plate_cell, FusionSettings(region=region))
    return judged_by_hand(fused)


def verdict_on(sequence: int = 1, decision: Decision = Decision.NOK) -> Verdict:
    dent = Finding(
        kind="dent",
        depth_mm=Quantity(-0.82, 0.09),
        area_mm2=Quantity(41.5, 2.1),
        volume_mm3=Quantity(-17.3, 1.8),
        position_mm=Position((10.0, 5.0, 0.0), (0.2, 0.2, 0.1)),
        sigma=9.1,
        source="depth",
        cameras=SERIALS,
        text="dent 0.82 ± 0.09 mm deep on 42 mm², 9.1 sigma",
    )
    stain = Finding(
        kind="stain",
        depth_mm=None,
        area_mm2=Quantity(12.0, 1.0),
        volume_mm3=None,
        position_mm=Position((-18.0, -8.0, 0.0), (0.3, 0.3, 0.1)),
        sigma=7.5,
        source="color",
        cameras=SERIALS[:1],
        text="stain on 12 mm², darker than good parts by 7.5 sigma",
    )
    bore = Measurement(
        name="bore A",
        value=12.07,
        u=0.04,
        unit="mm",
        lower=11.7,
        upper=12.3,
        decision=Decision.OK,
        provenance="circle through 412 rim points of 3 cameras",
    )
    rejected = decision is Decision.NOK
    return sealed(
        Verdict(
            schema_version=1,
            verdict=decision,
            part_id=f"part_{sequence:03d}",
            trigger_id=f"trigger-{sequence}",
            sequence=sequence,
            findings=(dent, stain) if rejected else (),
            measurements=(bore,),
            reasons=(dent.text, stain.text) if rejected else ("every check is within its tolerance",),
            timings_ms={"fuse": 41.2, "align": 12.9, "total": 54.1},
            issued_at="2026-03-04T05:06:07.891Z",
            provenance=Provenance("1" * 64, "2" * 64, "3" * 64, None, "depthcell 0.1.0"),
        )
    )


def plate_camera(serial: str) -> CellCamera:
    """The second camera is the first, turned by 30 degrees about the cell's x axis."""
    depth_frame, color_frame = f"depth:{serial}", f"color:{serial}"
    looking_down = RigidTransform("cell", depth_frame, np.diag([1.0, -1.0, -1.0]), np.array([0.0, 0.0, 0.3]))
    tilt_rad = np.radians([0.0 if serial == SERIALS[0] else 30.0, 0.0, 0.0])
    tilted = RigidTransform.from_rotation_vector("cell", "cell", tilt_rad, np.zeros(3)) @ looking_down
    intrinsics = Intrinsics(320, 240, 430.0, 430.0, 159.5, 119.5)
    return CellCamera(
        serial=serial,
        model="Intel RealSense D405",
        depth=intrinsics,
        color=intrinsics,
        T_cell_depth=tilted,
        covariance=np.eye(6) * 1e-10,
        T_color_depth=RigidTransform.identity(color_frame, depth_frame),
        baseline_m=0.018,
        noise=DisparityNoise(0.05, 0.01, 2.0),
    )


def plate_frame(camera: CellCamera) -> CameraFrame:
    """Depth by intersecting each ray with the plate's surface, and its colour there."""
    origin = camera.T_cell_depth.translation_m
    rays = camera.T_cell_depth.rotate(camera.depth.rays().astype(np.float64))
    depth_m = -origin[2] / rays[..., 2]
    for _ in range(4):
        depth_m = (plate_height_m((origin + rays * depth_m[..., None])[..., :2]) - origin[2]) / rays[..., 2]
    points_cell = origin + rays * depth_m[..., None]
    stained = np.hypot(*(points_cell[..., :2] - STAIN_M).transpose(2, 0, 1)) < 0.002
    rgb = np.where(stained[..., None], 60, np.array([150, 155, 165])).astype(np.uint8)
    return CameraFrame(
        serial=camera.serial,
        model=camera.model,
        depth=DepthImage(depth_m.astype(np.float32), camera.depth, 1e-4, camera.baseline_m, 0, 1),
        color=ColorImage(rgb, camera.depth, 0, 1),
        T_color_depth=camera.T_color_depth,
    )


def plate_height_m(xy_m: NDArray[np.float64]) -> NDArray[np.float64]:
    on_plate = (np.abs(xy_m) < (0.03, 0.02)).all(axis=-1)
    dent_m = -0.0008 * np.exp(-((xy_m - DENT_M) ** 2).sum(axis=-1) / 0.004**2)
    return np.where(on_plate, dent_m, -0.02)


def judged_by_hand(fused: FusedPart) -> Inspection:
    points_m = fused.cloud.points_cell
    deviation_m = points_m[:, 2].astype(np.float32)
    stain = np.hypot(*(points_m[:, :2] - STAIN_M).T) < 0.002
    return Inspection(
        verdict=verdict_on(4),
        fused=fused,
        alignment=Alignment(
            T_cell_part=RigidTransform.identity("cell", "part"),
            random_covariance=np.eye(6) * 1e-10,
            systematic_covariance=np.eye(6) * 1e-10,
            rms_m=1e-5,
            inlier_fraction=1.0,
            points_used=1000,
            iterations=5,
            weakest_sigma_m=1e-5,
            weakest_direction="along x",
            free_directions=(),
        ),
        deviation_m=deviation_m,
        significance=(np.abs(deviation_m) / fused.cloud.sigma_m).astype(np.float32),
        color_score=np.where(stain, 7.5, 0.5).astype(np.float32),
        finding_points=(np.flatnonzero(deviation_m < -0.0002), np.flatnonzero(stain)),
    )
