"""What the acquisition room hands on: the images of all cameras of a cell at one instant."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError


@dataclass(frozen=True, slots=True, eq=False)
class DepthImage:
    """One depth frame.

    Attributes:
        depth_m: (H, W) float32, z in metres, NaN where the sensor measured nothing; never 0, inf or negative.
        intrinsics: of the depth stream.
        units_m: metres per count of the sensor's 16-bit value.
        baseline_m: distance of the stereo pair, None where the recording does not say.
        timestamp_ns: hardware clock of the camera, nanoseconds.
        number: the camera's own frame counter.
    """

    depth_m: NDArray[np.float32]
    intrinsics: Intrinsics
    units_m: float
    baseline_m: float | None
    timestamp_ns: int
    number: int

    def __post_init__(self) -> None:
        _check_image("depth_m", self.depth_m, (self.intrinsics.height_px, self.intrinsics.width_px), np.float32)
        # NaN compares false with everything, so only measured pixels are judged here.
        if (self.depth_m <= 0).any() or np.isinf(self.depth_m).any():
            raise DepthcellError("depth_m: holds zero, negative or infinite depth; 'not measured' is NaN")

    @classmethod
    def from_counts(
        cls,
        counts: NDArray[np.uint16],
        intrinsics: Intrinsics,
        units_m: float,
        *,
        baseline_m: float | None = None,
        timestamp_ns: int = 0,
        number: int = 0,
    ) -> "DepthImage":
        """From the sensor's Z16 image, (H, W) uint16, 0 where nothing was measured."""
        depth_m = counts.astype(np.float32) * np.float32(units_m)
        depth_m[counts == 0] = np.nan
        return cls(depth_m, intrinsics, units_m, baseline_m, timestamp_ns, number)


@dataclass(frozen=True, slots=True, eq=False)
class ColorImage:
    """One colour frame: `rgb` (H, W, 3) uint8 in the order red, green, blue."""

    rgb: NDArray[np.uint8]
    intrinsics: Intrinsics
    timestamp_ns: int
    number: int

    def __post_init__(self) -> None:
        _check_image("rgb", self.rgb, (self.intrinsics.height_px, self.intrinsics.width_px, 3), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class InfraredImage:
    """One frame of the left infrared imager, rectified, on the depth image's grid: `intensity` (H, W) uint8."""

    intensity: NDArray[np.uint8]
    intrinsics: Intrinsics
    timestamp_ns: int
    number: int

    def __post_init__(self) -> None:
        _check_image("intensity", self.intensity, (self.intrinsics.height_px, self.intrinsics.width_px), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class CameraFrame:
    """What one camera gave at one instant; at least one of `depth`, `color` and `infrared`.

    Attributes:
        serial: the device's serial number, the key by which a `Cell` knows it.
        model: as the device names itself, e.g. "Intel RealSense D405".
        infrared: of the left imager, whose frame is "depth:<serial>"; a calibration sees its targets through it.
        T_color_depth: factory extrinsics; frames are "color:<serial>" and "depth:<serial>".
        metadata: the frame's own metadata as the SDK names it (exposure, gain, temperatures ...).
    """

    serial: str
    model: str
    depth: DepthImage | None
    color: ColorImage | None
    T_color_depth: RigidTransform | None = None
    metadata: Mapping[str, int | float] = field(default_factory=lambda: MappingProxyType({}))
    infrared: InfraredImage | None = None

    def __post_init__(self) -> None:
        if self.depth is None and self.color is None and self.infrared is None:
            raise DepthcellError(f"camera {self.serial}: a frame needs a depth, colour or infrared image")

    @property
    def timestamp_ns(self) -> int:
        """Of the depth image; of the infrared or else the colour image where there is no depth."""
        image = self.depth or self.infrared or self.color
        assert image is not None  # noqa: S101 - guaranteed by __post_init__; tells the type checker
        return image.timestamp_ns


@dataclass(frozen=True, slots=True, eq=False)
class FrameSet:
    """All cameras of a cell at one instant.

    Attributes:
        frames: serial number -> frame, in the order of `expected`.
        expected: serial numbers that should be there; those that are not are `missing`, never dropped in silence.
        timestamp_ns: of the set, on the common clock of the synchroniser.
        spread_ns: largest difference of two frames' times on that clock.
    """

    frames: Mapping[str, CameraFrame]
    expected: tuple[str, ...]
    timestamp_ns: int = 0
    spread_ns: int = 0

    def __post_init__(self) -> None:
        unknown = [serial for serial in self.frames if serial not in self.expected]
        if unknown:
            raise DepthcellError(f"frame set: camera {unknown[0]} is not among the expected {', '.join(self.expected)}")

    @property
    def missing(self) -> tuple[str, ...]:
        """Serial numbers of expected cameras that gave nothing."""
        return tuple(serial for serial in self.expected if serial not in self.frames)

    @property
    def is_complete(self) -> bool:
        """Whether every expected camera gave a frame."""
        return not self.missing


def _check_image(name: str, image: NDArray[np.generic], shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    if image.shape != shape or image.dtype != dtype:
        raise DepthcellError(f"{name}: needs shape {shape} {dtype.__name__}, got {image.shape} {image.dtype}")
