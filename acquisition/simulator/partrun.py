"""One simulated part, from chance to files: what each camera records of it, and the truth beside it."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.actualpart import ActualPart, draw_part
from depthcell.acquisition.simulator.appearance import PLATE, color_frame, exposed, sampled, shaded
from depthcell.acquisition.simulator.cameras import SystematicError
from depthcell.acquisition.simulator.defects import Damage, Defect, DefectKind
from depthcell.acquisition.simulator.recordingwriter import WrittenDevice, WrittenFrame, write_recording
from depthcell.acquisition.simulator.rig import StationCamera
from depthcell.acquisition.simulator.scene import Scene, SurfaceView
from depthcell.acquisition.simulator.station import Station, StationPlan, Stream, build_station
from depthcell.acquisition.simulator.stereo import StereoView, frame_counts, matched
from depthcell.acquisition.simulator.truth import CameraTruth, DefectTruth, PartTruth, Pose

FRAME_INTERVAL_NS = 33_333_000
CLOCK_JITTER_US = 20
TAKT_S = 2.0
STARTS_S = {Stream.GOLDEN: 1200.0, Stream.LINE: 1800.0}
"""Time since the cameras were switched on; they are still warming up a little."""
CLOUD_STRIDE_PX = 3
EXPOSURE_US, GAIN_LEVEL = 8500, 16
BLEMISH_SPECULAR = 0.3
"""What a stain, rust or a scratch leaves of the highlight."""
BLINDING_MIRROR = 0.9
CLOUD_FILE, TRUTH_FILE, MASK_FOLDER = "truth_cloud.ply", "truth.json", "masks"


@dataclass(frozen=True, slots=True)
class PartTask:
    """One part to make.

    Attributes:
        stream: line or golden.
        number: from 1.
        folder: where its files go.
        defects: kinds that it gets; none for a good part.
    """

    stream: Stream
    number: int
    folder: Path
    defects: tuple[DefectKind, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Shot:
    """One camera looking at one part."""

    station: Station
    part: ActualPart
    scene: Scene
    camera: StationCamera
    error: SystematicError
    start_s: float


def simulate_part(plan: StationPlan, task: PartTask) -> PartTruth:
    """Make one part's folder, whole or not at all. The same plan and task give the same frames, in any process."""
    station = build_station(plan)
    partial = task.folder.with_name(f"{task.folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        part = draw_part(station, task.defects, plan.generator(task.stream, task.number, 0))
        truth = _record_part(station, task, part, partial)
        truth.save(partial / TRUTH_FILE)
        partial.replace(task.folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return truth


def _record_part(station: Station, task: PartTask, part: ActualPart, folder: Path) -> PartTruth:
    scene = Scene(part.mesh, part.T_cell_part)
    start_s = STARTS_S[task.stream] + TAKT_S * task.number
    temperature_c = station.drift.temperature_c(start_s)
    masks: list[dict[str, str]] = [{} for _ in part.defects]
    clouds, cameras = [], []
    for number, camera in enumerate(station.cameras):
        error = replace(camera.error, scale=camera.error.scale * station.drift.scale(temperature_c))
        shot = _Shot(station, part, scene, camera, error, start_s)
        view = scene.view(camera.T_cell_depth, camera.model.depth_intrinsics)
        frames = _frames(shot, view, station.plan.generator(task.stream, task.number, 1, number))
        write_recording(folder / f"{camera.serial}.db3", written_device(camera), frames)
        for index, (defect, _) in enumerate(part.defects):
            name = f"{MASK_FOLDER}/{camera.serial}_{index}.png"
            covered = view.on_part & defect.covers(np.nan_to_num(part.nominal_points(view.points_cell)))
            if _write_mask(folder / name, covered):
                masks[index][camera.serial] = name
        clouds.append(_cloud(view))
        cameras.append(_camera_truth(shot, temperature_c))
    _write_cloud(folder / CLOUD_FILE, np.concatenate(clouds))
    return PartTruth(
        schema_version=1,
        part_id=task.folder.name,
        part=station.part.name,
        good=not part.defects,
        seed=station.plan.seed,
        T_cell_part=Pose.of(part.T_cell_part),
        size_scale=_three(part.size_scale),
        defects=tuple(_defect_truth(*pair, part, mask) for pair, mask in zip(part.defects, masks, strict=True)),
        cameras=tuple(cameras),
        cloud=CLOUD_FILE,
    )


def written_device(camera: StationCamera) -> WrittenDevice:
    """What the camera writes about itself, the factory's belief about its colour camera included."""
    model = camera.model
    return WrittenDevice(
        camera.serial,
        model.name,
        model.depth_intrinsics,
        model.color_intrinsics,
        model.factory_T_color_depth(camera.serial),
        model.units_m,
        model.baseline_m,
        color_from_left=model.color_focal_px is None,
        options={"exposure": float(EXPOSURE_US), "gain": float(GAIN_LEVEL)},
    )


def _frames(shot: _Shot, view: SurfaceView, rng: np.random.Generator) -> list[WrittenFrame]:
    plan, camera = shot.station.plan, shot.camera
    mean_counts, is_blinded = _colors(shot, view, rng)
    seen_by_right = shot.scene.sees(view, camera.right_imager_cell)
    stereo_view = StereoView(view.depth_m, seen_by_right, view.cosine, is_blinded)
    still = matched(stereo_view, camera.model, shot.error, plan.noise, rng)
    frames = []
    for number in range(plan.frames):
        depth_counts = frame_counts(still, camera.model, plan.noise, rng)
        rgb = color_frame(mean_counts, shot.station.sensor, rng)
        jitter_ns = 1000 * int(rng.integers(-CLOCK_JITTER_US, CLOCK_JITTER_US + 1))
        timestamp_ns = round(shot.start_s * 1e9) + number * FRAME_INTERVAL_NS + jitter_ns
        metadata = {"actual_exposure": EXPOSURE_US, "gain_level": GAIN_LEVEL}
        delay_ns = camera.model.color_delay_ns
        frames.append(WrittenFrame(depth_counts, rgb, timestamp_ns, number, delay_ns, metadata))
    return frames


def _colors(shot: _Shot, view: SurfaceView, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Mean colour image in counts, and where a highlight blinds the stereo pair, on the depth image's grid."""
    camera, finish = shot.camera, shot.station.part.finish
    sensor = replace(shot.station.sensor, gain=shot.station.sensor.gain * (1 + rng.normal(0, 0.01)))
    if camera.model.color_focal_px is None:
        diffuse, highlight = _light(shot, view)
        is_blinded = highlight + diffuse.mean(axis=-1) > 1.0 / sensor.gain
    else:
        T_cell_color = camera.T_cell_depth @ camera.T_color_depth.inverse()
        diffuse, highlight = _light(shot, shot.scene.view(T_cell_color, camera.model.color_intrinsics))
        # The camera's own projector stands beside the lens and is mirrored where the surface faces it.
        mirror = finish.specular * (finish.gloss + 8) / 8 * view.cosine**finish.gloss
        is_blinded = view.on_part & (mirror > BLINDING_MIRROR)
    return exposed(diffuse + highlight[..., None], sensor), is_blinded


def _light(shot: _Shot, view: SurfaceView) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Diffuse light (H, W, 3) and highlight (H, W) of part and plate, blemishes included."""
    points_part = shot.part.nominal_points(view.points_cell)
    albedo = np.empty((*view.depth_m.shape, 3), dtype=np.float32)
    gloss = np.empty((*view.depth_m.shape, 2), dtype=np.float32)
    for finish, tile, points, where in (
        (PLATE, shot.station.plate_tile, view.points_cell, ~view.on_part),
        (shot.station.part.finish, shot.part.tile, points_part, view.on_part),
    ):
        albedo[where] = sampled(tile, points)[where][:, None] * np.asarray(finish.albedo_rgb, dtype=np.float32)
        gloss[where] = (finish.specular, finish.gloss)
    for defect, _ in shot.part.defects:
        if (tint := defect.tint_rgb) is not None:
            weight = (defect.weight(np.nan_to_num(points_part)) * view.on_part).astype(np.float32)
            albedo += weight[..., None] * (np.asarray(tint, dtype=np.float32) - albedo)
            gloss[..., 0] *= 1 - (1 - BLEMISH_SPECULAR) * weight
    lit = shot.scene.sees(view, np.asarray(shot.part.lamp.position_m))
    return shaded(view, albedo, gloss, shot.part.lamp, lit)


def _write_mask(path: Path, mask: NDArray[np.bool_]) -> bool:
    """Write a mask, unless it is empty."""
    if not mask.any():
        return False
    path.parent.mkdir(exist_ok=True)
    _, png = cv2.imencode(".png", mask.astype(np.uint8) * 255)
    path.write_bytes(png.tobytes())
    return True


def _cloud(view: SurfaceView) -> NDArray[np.float32]:
    """(N, 6) points and normals of the part as one camera would measure it without any error, frame "cell"."""
    step = slice(None, None, CLOUD_STRIDE_PX)
    both = np.concatenate((view.points_cell, view.normals_cell), axis=-1)[step, step]
    return both[view.on_part[step, step]]


def _write_cloud(path: Path, cloud: NDArray[np.float32]) -> None:
    """Binary PLY in metres."""
    fields = "".join(f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz"))
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(cloud)}\n{fields}end_header\n"
    path.write_bytes(header.encode() + np.ascontiguousarray(cloud, dtype="<f4").tobytes())


def _camera_truth(shot: _Shot, temperature_c: float) -> CameraTruth:
    camera = shot.camera
    return CameraTruth(
        serial=camera.serial,
        T_cell_depth=Pose.of(camera.T_cell_depth),
        T_color_depth=Pose.of(camera.T_color_depth),
        scale=shot.error.scale,
        disparity_offset_px=shot.error.disparity_offset_px,
        temperature_c=temperature_c,
    )


def _defect_truth(defect: Defect, damage: Damage, part: ActualPart, masks: dict[str, str]) -> DefectTruth:
    return DefectTruth(
        kind=defect.kind.value,
        defect_class="surface" if defect.kind.is_surface else "volumetric",
        position_mm=_three(defect.site.centre_m * part.size_scale * 1e3),
        depth_mm=damage.depth_mm,
        area_mm2=damage.area_mm2,
        volume_mm3=damage.volume_mm3,
        masks=masks,
    )


def _three(values: Iterable[float]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
