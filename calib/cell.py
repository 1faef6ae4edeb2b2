"""What the calibration room hands on: a `Cell`, the cameras of one inspection station and how well each is known."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.errors import DepthcellError, Reason

POSE_NAMES = ("rx_rad", "ry_rad", "rz_rad", "tx_m", "ty_m", "tz_m")
PINHOLE_NAMES = ("fx_px", "fy_px", "cx_px", "cy_px")
NO_CORRECTION = DepthCorrection()
COEFFICIENT_NAMES = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6", "s1", "s2", "s3", "s4")


@dataclass(frozen=True, slots=True)
class DisparityNoise:
    """Noise of a stereo depth camera, stated in the domain where it is constant: disparity, in pixels.

    Attributes:
        temporal_px: standard deviation from frame to frame; averages out as 1/sqrt(frames).
        fixed_px: standard deviation of the pattern that stays while nothing moves; does not average out over frames.
        correlation_px: distance in the image over which the noise correlation falls to 1/e.
        incidence_growth: g in `temporal_px (1 + g tan² theta)`, for a surface whose normal stands at the angle theta
            to the ray; 0 where nobody measured it.
    """

    temporal_px: float
    fixed_px: float
    correlation_px: float
    incidence_growth: float = 0.0

    def __post_init__(self) -> None:
        for name in ("temporal_px", "fixed_px", "correlation_px", "incidence_growth"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise DepthcellError(f"noise.{name}: must be zero or more, got {value}", Reason.CELL_INVALID)


def lens_names(intrinsics: Intrinsics) -> tuple[str, ...]:
    """Parameters of a stream's own geometry: pinhole, and the coefficients where the lens model has any."""
    if intrinsics.distortion is Distortion.NONE:
        return PINHOLE_NAMES
    return *PINHOLE_NAMES, *COEFFICIENT_NAMES[: intrinsics.distortion.coefficient_count]


@dataclass(frozen=True, eq=False)
class CellCamera:
    """One camera of a cell.

    Attributes:
        serial: the device's serial number.
        model: as the device names itself.
        depth: intrinsics of the depth stream.
        color: intrinsics of the colour stream, None for a camera without one.
        T_cell_depth: pose of the depth stream's frame "depth:<serial>" in the frame "cell".
        covariance: (P, P) of `parameter_names`, in the units that these say; the pose's part is in the convention of
            `RigidTransform.perturbed`. A (6, 6) is taken for the pose, all else then being exact.
        T_color_depth: from "depth:<serial>" to "color:<serial>"; None without colour.
        baseline_m: distance of the stereo pair.
        noise: what one frame's depth is worth.
        correction: what is systematically wrong with it.
        color_covariance: (Q, Q) of `color_parameter_names`; None where nobody measured it.
    """

    serial: str
    model: str
    depth: Intrinsics
    color: Intrinsics | None
    T_cell_depth: RigidTransform
    covariance: NDArray[np.float64]
    T_color_depth: RigidTransform | None
    baseline_m: float
    noise: DisparityNoise
    correction: DepthCorrection = NO_CORRECTION
    color_covariance: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        where = f"camera {self.serial}"
        if not self.baseline_m > 0:
            raise DepthcellError(f"{where}: baseline_m must be positive, got {self.baseline_m}", Reason.CELL_INVALID)
        if (self.T_cell_depth.target, self.T_cell_depth.source) != ("cell", f"depth:{self.serial}"):
            raise DepthcellError(
                f"{where}: T_cell_depth must lead from depth:{self.serial} to cell", Reason.CELL_INVALID
            )
        covariance = np.asarray(self.covariance, dtype=np.float64)
        if covariance.shape == (6, 6):
            covariance = np.pad(covariance, (0, len(self.parameter_names) - 6))
        _check_covariance(f"{where}: covariance", covariance, len(self.parameter_names))
        object.__setattr__(self, "covariance", covariance)
        if self.color_covariance is not None:
            size = len(self.color_parameter_names)
            _check_covariance(f"{where}: color_covariance", np.asarray(self.color_covariance), size)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """What `covariance` is of: pose in the cell, lens of the depth stream, depth correction."""
        return *POSE_NAMES, *lens_names(self.depth), *self.correction.parameter_names

    @property
    def color_parameter_names(self) -> tuple[str, ...]:
        """What `color_covariance` is of: pose of the depth stream in the colour camera, and the colour lens."""
        return () if self.color is None else (*POSE_NAMES, *lens_names(self.color))

    @property
    def pose_covariance(self) -> NDArray[np.float64]:
        """(6, 6) of `T_cell_depth`, rad and m."""
        return self.covariance[:6, :6]

    def covariance_of(self, *names: str) -> NDArray[np.float64]:
        """The part of `covariance` that concerns the parameters named, in that order."""
        chosen = [self.parameter_names.index(name) for name in names]
        return self.covariance[np.ix_(chosen, chosen)]

    def u(self, name: str) -> float:
        """Standard uncertainty of one parameter."""
        return float(np.sqrt(self.covariance_of(name)[0, 0]))

    @property
    def focal_baseline_m(self) -> float:
        """Product f B in px m: depth is this over disparity."""
        return self.depth.fx_px * self.baseline_m

    def disparity_px(self, depth_m: FloatArray) -> FloatArray:
        """Disparity in pixels of depths in metres: f B / z."""
        return self.focal_baseline_m / depth_m

    def corrected(
        self, depth_m: FloatArray, pixels: FloatArray | None = None, temperature_c: float | None = None
    ) -> FloatArray:
        """Depth with `correction` applied, in metres; NaN stays NaN.

        Args:
            depth_m: (...) as read.
            pixels: (..., 2) where in the depth image, as (column, row); needed where the correction has a wave.
            temperature_c: of the camera, where it is known.
        """
        if self.correction == NO_CORRECTION:
            return depth_m
        disparity_px = self.focal_baseline_m / depth_m
        disparity_px = disparity_px + self.correction.added_px(self.depth, disparity_px, pixels)
        return (self.correction.scale_at(temperature_c) * self.focal_baseline_m / disparity_px).astype(depth_m.dtype)

    def depth_sigma_m(self, depth_m: FloatArray, disparity_sigma_px: float) -> FloatArray:
        """Standard deviation of depth for one of disparity: sigma_z = z² s / (f B), from z = f B / d to first order."""
        return depth_m**2 * (disparity_sigma_px / self.focal_baseline_m)


def camera_covariance(
    pose: NDArray[np.float64], depth: Intrinsics, correction: DepthCorrection, u: Mapping[str, float]
) -> NDArray[np.float64]:
    """(P, P) for a `CellCamera`: a pose's covariance (6, 6), and independent standard uncertainties `u` by name."""
    names = (*POSE_NAMES, *lens_names(depth), *correction.parameter_names)
    covariance = np.zeros((len(names), len(names)))
    covariance[:6, :6] = pose
    for name, value in u.items():
        place = names.index(name)
        covariance[place, place] = value**2
    return covariance


@dataclass(frozen=True, eq=False)
class Cell:
    """One inspection station: its cameras, in one frame called "cell".

    Attributes:
        name: what people call it.
        cameras: serial number -> camera, in a fixed order.
        calibrated_at: ISO 8601 date and time with zone.
        covariance: joint one of all cameras' parameters, (sum P, sum P) in their order, its diagonal blocks being the
            cameras' own; None where the cameras are independent.
    """

    name: str
    cameras: Mapping[str, CellCamera]
    calibrated_at: str
    covariance: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if not self.cameras:
            raise DepthcellError("cell.cameras: must name at least one camera", Reason.CELL_INVALID)
        if self.covariance is None:
            return
        _check_covariance("cell.covariance", self.covariance, sum(self._sizes))
        for serial, camera in self.cameras.items():
            block = self.covariance[self.rows_of(serial), self.rows_of(serial)]
            if not np.allclose(block, camera.covariance, rtol=1e-6, atol=1e-15):
                raise DepthcellError(f"cell.covariance: its block of camera {serial} differs", Reason.CELL_INVALID)

    @property
    def _sizes(self) -> list[int]:
        return [len(camera.covariance) for camera in self.cameras.values()]

    def rows_of(self, serial: str) -> slice:
        """Rows of one camera's parameters in the joint covariance."""
        place = list(self.cameras).index(serial)
        start = sum(self._sizes[:place])
        return slice(start, start + self._sizes[place])

    @cached_property
    def joint_covariance(self) -> NDArray[np.float64]:
        """(sum P, sum P) of all cameras' parameters, block diagonal where `covariance` is None."""
        if self.covariance is not None:
            return self.covariance
        joint = np.zeros((sum(self._sizes), sum(self._sizes)))
        for serial, camera in self.cameras.items():
            joint[self.rows_of(serial), self.rows_of(serial)] = camera.covariance
        return joint

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
        from depthcell.calib.cellfile import cell_to_json  # noqa: PLC0415 - the file knows the cell, not the reverse

        return cell_to_json(self)  # pyright: ignore[reportArgumentType] - it sees the linked folder by two names

    @property
    def sha256(self) -> str:
        """SHA-256 of `to_json()`, lower-case hexadecimal: the cell's identity in a verdict."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write the cell file, whole or not at all."""
        from depthcell.calib.cellfile import save_cell  # noqa: PLC0415 - as above

        save_cell(self, path)  # pyright: ignore[reportArgumentType] - it sees the linked folder by two names

    @classmethod
    def load(cls, path: Path) -> "Cell":
        """Read a cell file.

        Raises:
            DepthcellError: the file is missing, is no JSON, or a field is wrong; the message names file and field.
        """
        from depthcell.calib.cellfile import load_cell  # noqa: PLC0415 - as above

        return load_cell(path)  # pyright: ignore[reportReturnType] - as above


def _check_covariance(what: str, covariance: NDArray[np.float64], size: int) -> None:
    if covariance.shape != (size, size) or not np.isfinite(covariance).all():
        raise DepthcellError(f"{what} must be {size}x{size} and finite", Reason.CELL_INVALID)
    scale = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    scaled = covariance / np.outer(scale, scale)
    if not np.allclose(scaled, scaled.T, atol=1e-9) or (np.diag(covariance) < 0).any():
        raise DepthcellError(f"{what} must be symmetric, no eigenvalue negative", Reason.CELL_INVALID)
    if np.linalg.eigvalsh(covariance).min() < -1e-15 - 1e-9 * np.abs(np.diag(covariance)).max():
        raise DepthcellError(f"{what} must be symmetric, no eigenvalue negative", Reason.CELL_INVALID)
