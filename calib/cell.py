"""What the calibration room hands on: a `Cell`, the cameras of one inspection station and how well each is known."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.errors import DepthcellError, Reason
from depthcell.files import write_text


@dataclass(frozen=True, slots=True)
class DisparityNoise:
    """Noise of a stereo depth camera, stated in the domain where it is constant: disparity, in pixels.

    Attributes:
        temporal_px: standard deviation from frame to frame; averages out as 1/sqrt(frames).
        fixed_px: standard deviation of the pattern that stays while nothing moves; does not average out over frames.
        correlation_px: distance in the image over which the noise correlation falls to 1/e.
    """

    temporal_px: float
    fixed_px: float
    correlation_px: float

    def __post_init__(self) -> None:
        for name in ("temporal_px", "fixed_px", "correlation_px"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise DepthcellError(f"noise.{name}: must be zero or more, got {value}", Reason.CELL_INVALID)


@dataclass(frozen=True, slots=True)
class DepthCorrection:
    """Systematic error of a stereo depth camera and how well it is known: `z = scale f B / (f B / z_read + offset)`.

    Attributes:
        scale, scale_u: factor on depth (baseline, focal length) and its standard uncertainty.
        disparity_offset_px, disparity_offset_u_px: added to disparity (rectification) and its standard uncertainty.
    """

    scale: float = 1.0
    scale_u: float = 0.0
    disparity_offset_px: float = 0.0
    disparity_offset_u_px: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class CellCamera:
    """One camera of a cell.

    Attributes:
        serial: the device's serial number.
        model: as the device names itself.
        depth: intrinsics of the depth stream.
        color: intrinsics of the colour stream, None for a camera without one.
        T_cell_depth: pose of the depth stream's frame "depth:<serial>" in the frame "cell".
        pose_covariance: (6, 6) of `T_cell_depth` in the convention of `RigidTransform.perturbed`, rad and m.
        T_color_depth: from "depth:<serial>" to "color:<serial>"; None without colour.
        baseline_m: distance of the stereo pair.
        noise: what one frame's depth is worth.
        correction: what is systematically wrong with it.
    """

    serial: str
    model: str
    depth: Intrinsics
    color: Intrinsics | None
    T_cell_depth: RigidTransform
    pose_covariance: NDArray[np.float64]
    T_color_depth: RigidTransform | None
    baseline_m: float
    noise: DisparityNoise
    correction: DepthCorrection = DepthCorrection()

    def __post_init__(self) -> None:
        covariance = np.asarray(self.pose_covariance, dtype=np.float64)
        where = f"camera {self.serial}"
        if covariance.shape != (6, 6) or not np.isfinite(covariance).all():
            raise DepthcellError(f"{where}: pose_covariance must be 6x6 and finite", Reason.CELL_INVALID)
        if not np.allclose(covariance, covariance.T) or np.linalg.eigvalsh(covariance).min() < -1e-15:
            raise DepthcellError(
                f"{where}: pose_covariance must be symmetric, no eigenvalue negative", Reason.CELL_INVALID
            )
        if not self.baseline_m > 0:
            raise DepthcellError(f"{where}: baseline_m must be positive, got {self.baseline_m}", Reason.CELL_INVALID)
        if (self.T_cell_depth.target, self.T_cell_depth.source) != ("cell", f"depth:{self.serial}"):
            raise DepthcellError(
                f"{where}: T_cell_depth must lead from depth:{self.serial} to cell", Reason.CELL_INVALID
            )

    def disparity_px(self, depth_m: FloatArray) -> FloatArray:
        """Disparity in pixels of depths in metres: f B / z."""
        return self.depth.fx_px * self.baseline_m / depth_m

    def corrected(self, depth_m: FloatArray) -> FloatArray:
        """Depth with `correction` applied, in metres; NaN stays NaN."""
        if self.correction.scale == 1.0 and self.correction.disparity_offset_px == 0.0:
            return depth_m
        focal_baseline = self.depth.fx_px * self.baseline_m
        disparity_px = focal_baseline / depth_m + self.correction.disparity_offset_px
        return (self.correction.scale * focal_baseline / disparity_px).astype(depth_m.dtype)

    def depth_sigma_m(self, depth_m: FloatArray, disparity_sigma_px: float) -> FloatArray:
        """Standard deviation of depth for one of disparity: sigma_z = z² s / (f B), from z = f B / d to first order."""
        return depth_m**2 * (disparity_sigma_px / (self.depth.fx_px * self.baseline_m))

    def systematic_sigma_m(self, depth_m: FloatArray) -> FloatArray:
        """Standard uncertainty of depth left after `correction`: scale and offset in quadrature (GUM 5.1.2)."""
        scale_part = depth_m * self.correction.scale_u
        offset_part = self.depth_sigma_m(depth_m, self.correction.disparity_offset_u_px)
        return np.sqrt(scale_part**2 + offset_part**2)


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One inspection station: its cameras, in one frame called "cell".

    Attributes:
        name: what people call it.
        cameras: serial number -> camera, in a fixed order.
        calibrated_at: ISO 8601 date and time with zone.
    """

    name: str
    cameras: Mapping[str, CellCamera]
    calibrated_at: str

    def __post_init__(self) -> None:
        if not self.cameras:
            raise DepthcellError("cell.cameras: must name at least one camera", Reason.CELL_INVALID)

    def camera(self, serial: str) -> CellCamera:
        """The camera of this serial number.

        Raises:
            DepthcellError: this cell has no such camera.
        """
        if serial not in self.cameras:
            known = ", ".join(self.cameras)
            raise DepthcellError(f"cell '{self.name}' has no camera {serial}, only {known}", Reason.CELL_INVALID)
        return self.cameras[serial]

    def to_json(self) -> str:
        """The cell as the text of a cell file: sorted and indented, the same bytes for the same cell."""
        return msgspec.json.format(msgspec.json.encode(_to_file(self)), indent=2).decode() + "\n"

    @property
    def sha256(self) -> str:
        """SHA-256 of `to_json()`, lower-case hexadecimal: the cell's identity in a verdict."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the cell file, whole or not at all."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> "Cell":
        """Read a cell file.

        Raises:
            DepthcellError: the file is missing, is no JSON, or a field is wrong; the message names file and field.
        """
        try:
            return _from_file(msgspec.json.decode(path.read_bytes(), type=_CellFile))
        except OSError as error:
            raise DepthcellError(f"cell {path}: cannot be read ({error.strerror})", Reason.CELL_INVALID) from error
        except (msgspec.MsgspecError, DepthcellError) as error:
            raise DepthcellError(f"cell {path}: {error}", Reason.CELL_INVALID) from error


class _Pose(msgspec.Struct, forbid_unknown_fields=True):
    rotation_vector_rad: list[float]
    translation_m: list[float]


class _CameraFile(msgspec.Struct, forbid_unknown_fields=True):
    serial: str
    model: str
    depth: Intrinsics
    color: Intrinsics | None
    T_cell_depth: _Pose
    pose_covariance: list[list[float]]
    T_color_depth: _Pose | None
    baseline_m: float
    noise: DisparityNoise
    correction: DepthCorrection


class _CellFile(msgspec.Struct, forbid_unknown_fields=True):
    schema_version: Literal[1]
    name: str
    calibrated_at: str
    cameras: list[_CameraFile]


def _to_file(cell: Cell) -> _CellFile:
    return _CellFile(
        schema_version=1,
        name=cell.name,
        calibrated_at=cell.calibrated_at,
        cameras=[
            _CameraFile(
                serial=camera.serial,
                model=camera.model,
                depth=camera.depth,
                color=camera.color,
                T_cell_depth=_pose_to_file(camera.T_cell_depth),
                pose_covariance=np.asarray(camera.pose_covariance).tolist(),
                T_color_depth=None if camera.T_color_depth is None else _pose_to_file(camera.T_color_depth),
                baseline_m=camera.baseline_m,
                noise=camera.noise,
                correction=camera.correction,
            )
            for camera in cell.cameras.values()
        ],
    )


def _from_file(content: _CellFile) -> Cell:
    cameras = {}
    for camera in content.cameras:
        if camera.serial in cameras:
            raise DepthcellError(f"cameras: serial number {camera.serial} stands twice", Reason.CELL_INVALID)
        depth_frame, color_frame = f"depth:{camera.serial}", f"color:{camera.serial}"
        color_pose = camera.T_color_depth
        cameras[camera.serial] = CellCamera(
            serial=camera.serial,
            model=camera.model,
            depth=camera.depth,
            color=camera.color,
            T_cell_depth=_pose_from_file("cell", depth_frame, camera.T_cell_depth),
            pose_covariance=np.array(camera.pose_covariance, dtype=np.float64),
            T_color_depth=None if color_pose is None else _pose_from_file(color_frame, depth_frame, color_pose),
            baseline_m=camera.baseline_m,
            noise=camera.noise,
            correction=camera.correction,
        )
    return Cell(content.name, cameras, content.calibrated_at)


def _pose_to_file(transform: RigidTransform) -> _Pose:
    return _Pose(transform.rotation_vector_rad.tolist(), transform.translation_m.tolist())


def _pose_from_file(target: str, source: str, pose: _Pose) -> RigidTransform:
    if len(pose.rotation_vector_rad) != 3 or len(pose.translation_m) != 3:
        raise DepthcellError(f"T_{target}_{source}: rotation_vector_rad and translation_m need three values each")
    return RigidTransform.from_rotation_vector(
        target, source, np.array(pose.rotation_vector_rad), np.array(pose.translation_m)
    )
