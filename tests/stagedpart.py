"""A small station for tests: a plate with a bore under three cameras, ray-cast, with noise in disparity, in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.frameset import CameraFrame, ColorImage, DepthImage, FrameSet
from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.partfolder import PartFolder
from depthcell.acquisition.simulator.partmesh import PartMesh, save_stl
from depthcell.acquisition.simulator.rig import looking_at
from depthcell.acquisition.simulator.scene import Scene, SurfaceView
from depthcell.acquisition.simulator.stereo import correlated_noise
from depthcell.acquisition.simulator.terraces import Terrace, circle, flat, rectangle, terraced_solid
from depthcell.acquisition.synchronizer import SyncSettings
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell, CellCamera, DisparityNoise
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.fuse import PartAccumulator
from depthcell.inspect.golden import Golden, GoodPart, golden_of
from depthcell.inspect.inspection import Inspector
from depthcell.inspect.observation import Observer
from depthcell.inspect.recipe import Recipe

SERIALS = ("1001", "1002", "1003")
TOP_MM, BORE_MM, BORE_AT_MM = 8.0, 12.0, (12.0, 0.0)
LIFT_M = 0.010
NOISE = DisparityNoise(temporal_px=0.05, fixed_px=0.02, correlation_px=3.0)
GOOD_PARTS = 6

RECIPE = f"""
schema_version = 1
name = "plate"
[cell]
file = "cell.json"
cameras = ["1001", "1002", "1003"]
[reference]
mesh = "plate.stl"
golden = "golden.npz"
[pose]
translation_mm = [0, 0, {LIFT_M * 1e3}]
max_shift_mm = 3.0
[region]
min_mm = [-28, -21, 2]
max_mm = [28, 21, 14]
min_coverage = 0.8
[surface]
tolerance_mm = 0.5
min_area_mm2 = 9.0
[color]
[[bore]]
name = "bore A"
position_mm = [{BORE_AT_MM[0]}, {BORE_AT_MM[1]}, {TOP_MM}]
diameter_mm = {BORE_MM}
tolerance_mm = 1.0
"""


@dataclass(frozen=True)
class Part:
    """What is on the station. Lengths in mm, places (x, y) on the plate's top.

    Attributes:
        seed: of noise, texture and pose.
        dent: (x, y, radius, depth), positive depth into the material.
        stain: (x, y, radius) of a dark spot.
        scratch: (x, y, length) of a bright line along y, 0.5 mm wide.
        bore: whether it was drilled.
        hole: (x, y, radius) where no camera measures depth.
        shift: of the part.
        bumped: (serial, mm) a camera that stands higher than its cell says.
    """

    seed: int = 0
    dent: tuple[float, float, float, float] | None = None
    stain: tuple[float, float, float] | None = None
    scratch: tuple[float, float, float] | None = None
    bore: bool = True
    hole: tuple[float, float, float] | None = None
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    bumped: tuple[str, float] | None = None


def plate_mesh(*, bore: bool = True) -> PartMesh:
    """The perfect part."""
    outline = Terrace(rectangle((0.0, 0.0), (50.0, 36.0), corner_mm=2.0), flat(TOP_MM))
    drilled = [Terrace(circle(BORE_AT_MM, BORE_MM), None)] if bore else []
    return terraced_solid([outline, *drilled], spacing_mm=0.8)


def plate_camera(serial: str, azimuth_deg: float) -> CellCamera:
    """A D405 16 cm away, tilted by 30 degrees."""
    azimuth, tilt = np.radians((azimuth_deg, 30.0))
    target = np.array([0.0, 0.0, LIFT_M + TOP_MM / 1e3])
    outward = np.array([np.sin(tilt) * np.cos(azimuth), np.sin(tilt) * np.sin(azimuth), np.cos(tilt)])
    intrinsics = Intrinsics(240, 180, 430.0, 430.0, 119.5, 89.5)
    return CellCamera(
        serial=serial,
        model="Intel RealSense D405",
        depth=intrinsics,
        color=intrinsics,
        T_cell_depth=looking_at(serial, target, target + 0.16 * outward),
        covariance=np.diag([1e-4**2] * 3 + [3e-5**2] * 3),
        T_color_depth=RigidTransform.identity(f"color:{serial}", f"depth:{serial}"),
        baseline_m=0.018,
        noise=NOISE,
    )


def plate_cell() -> Cell:
    """Three cameras around the plate."""
    cameras = {serial: plate_camera(serial, 20.0 + 120.0 * number) for number, serial in enumerate(SERIALS)}
    return Cell("plate cell", cameras, "2026-01-02T03:04:05Z")


def framesets(part: Part, cell: Cell, frames: int = 4) -> list[FrameSet]:
    """What the cameras record of a part."""
    rng = np.random.default_rng(part.seed)
    T_cell_part = _pose(part, rng)
    scene = Scene(_dented(plate_mesh(bore=part.bore), part), T_cell_part)
    texture = rng.normal(0.0, 3.0, 4096)
    per_camera = {s: _recorded(part, scene, T_cell_part, cell.camera(s), texture, frames, rng) for s in cell.cameras}
    return [FrameSet({s: shots[i] for s, shots in per_camera.items()}, tuple(per_camera)) for i in range(frames)]


def _pose(part: Part, rng: np.random.Generator) -> RigidTransform:
    shift_m = np.array(part.shift) / 1e3 + rng.normal(0, 1.5e-4, 3) + (0, 0, LIFT_M)
    return RigidTransform.from_rotation_vector("cell", "part", rng.normal(0, 2e-3, 3), shift_m)


def _dented(mesh: PartMesh, part: Part) -> PartMesh:
    if part.dent is None:
        return mesh
    x, y, radius, depth = (value / 1e3 for value in part.dent)
    away = np.hypot(mesh.vertices_m[:, 0] - x, mesh.vertices_m[:, 1] - y) / radius
    sunk = depth * np.clip(1 - away**2, 0, None) ** 2 * (mesh.vertices_m[:, 2] > TOP_MM / 1e3 - 1e-6)
    return mesh.with_vertices(mesh.vertices_m - sunk[:, None] * (0.0, 0.0, 1.0))


def _recorded(
    part: Part,
    scene: Scene,
    T_cell_part: RigidTransform,
    camera: CellCamera,
    texture: NDArray[np.float64],
    frames: int,
    rng: np.random.Generator,
) -> list[CameraFrame]:
    stands = camera.T_cell_depth
    if part.bumped is not None and part.bumped[0] == camera.serial:
        stands = stands.perturbed(np.array([0, 0, 0, 0, 0, part.bumped[1] / 1e3]))
    view = scene.view(stands, camera.depth)
    points_mm = np.nan_to_num(T_cell_part.inverse() @ view.points_cell) * 1e3
    shape = view.depth_m.shape
    disparity_px = camera.disparity_px(view.depth_m) + NOISE.fixed_px * correlated_noise(shape, 3.0, rng)
    if part.hole is not None:
        disparity_px[np.hypot(points_mm[..., 0] - part.hole[0], points_mm[..., 1] - part.hole[1]) < part.hole[2]] = (
            np.nan
        )
    rgb = _colored(part, view, np.asarray(points_mm, dtype=np.float64), texture)
    shots = []
    for number in range(frames):
        noisy_px = disparity_px + NOISE.temporal_px * correlated_noise(shape, 3.0, rng)
        depth_m = (camera.depth.fx_px * camera.baseline_m / noisy_px).astype(np.float32)
        depth = DepthImage(depth_m, camera.depth, 1e-4, camera.baseline_m, number, number)
        color = ColorImage(
            np.clip(rgb + rng.normal(0, 1.0, rgb.shape), 0, 255).astype(np.uint8), camera.depth, number, 1
        )
        shots.append(CameraFrame(camera.serial, camera.model, depth, color, camera.T_color_depth))
    return shots


def _colored(
    part: Part, view: SurfaceView, points_mm: NDArray[np.float64], texture: NDArray[np.float64]
) -> NDArray[np.float64]:
    x, y, _ = np.moveaxis(points_mm, -1, 0)
    mottle = texture[(np.floor(x / 0.7).astype(int) * 61 + np.floor(y / 0.7).astype(int) * 127) % len(texture)]
    gray = np.where(view.on_part, 140.0 + 40.0 * view.normals_cell[..., 2] - 20.0, 40.0) + mottle
    if part.stain is not None:
        gray = np.where(np.hypot(x - part.stain[0], y - part.stain[1]) < part.stain[2], 0.6 * gray, gray)
    if part.scratch is not None:
        on_it = (np.abs(x - part.scratch[0]) < 0.25) & (np.abs(y - part.scratch[1]) < part.scratch[2] / 2)
        gray = np.where(on_it, 1.3 * gray, gray)
    return np.asarray(gray[..., None] * np.array([1.0, 0.98, 1.02]))


@dataclass(frozen=True, slots=True)
class StagedFolder(PartFolder):
    """A part folder whose recordings are in memory; `damage` is raised after the last set."""

    sets: tuple[FrameSet, ...] = ()
    damage: str = ""

    @property
    def sha256(self) -> str:
        return "5" * 64

    def framesets(
        self,
        expected: Sequence[str] | None = None,  # noqa: ARG002 - as every part folder has it
        settings: SyncSettings | None = None,  # noqa: ARG002
    ) -> Iterator[FrameSet]:
        yield from self.sets
        if self.damage:
            raise DepthcellError(self.damage, Reason.RECORDING_DAMAGED)


def recorded(part: Part, cell: Cell, *, without: tuple[str, ...] = (), damage: str = "") -> StagedFolder:
    """A part folder; cameras in `without` gave nothing."""
    sets = [
        replace(one, frames={s: frame for s, frame in one.frames.items() if s not in without})
        for one in framesets(part, cell)
    ]
    return StagedFolder(f"seed_{part.seed}", (), tuple(sets), damage)


@dataclass(frozen=True)
class Stage:
    """The station with its files in `folder`, golden parts learnt."""

    folder: Path
    cell: Cell

    @classmethod
    def set_up(cls, folder: Path) -> "Stage":
        cell = plate_cell()
        save_stl(folder / "plate.stl", plate_mesh())
        cell.save(folder / "cell.json")
        (folder / "recipe.toml").write_text(RECIPE)
        stage = cls(folder, Cell.load(folder / "cell.json"))
        stage.golden.save(folder / "golden.npz")
        return stage

    @cached_property
    def recipe(self) -> Recipe:
        return Recipe.load(self.folder / "recipe.toml")

    @cached_property
    def observer(self) -> Observer:
        return Observer(self.recipe, self.cell)

    @cached_property
    def golden(self) -> Golden:
        seen = [self.observer.observe(self.absorbed(Part(900 + number)).fuse()) for number in range(GOOD_PARTS)]
        return golden_of([GoodPart.of(one, str(number)) for number, one in enumerate(seen)], self.observer)

    @cached_property
    def inspector(self) -> Inspector:
        return Inspector.load(self.recipe, self.cell)

    def absorbed(self, part: Part) -> PartAccumulator:
        accumulator = self.observer.accumulator()
        for frameset in framesets(part, self.cell):
            accumulator.add(frameset)
        return accumulator
