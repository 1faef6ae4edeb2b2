"""What a RealSense recording says, freed from how its format says it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from backports import zstd
from numpy.typing import NDArray
from rosbags.serde import SerdeError

from depthcell.acquisition.damage import DamageError
from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.pixelformat import Layout, Pixels
from depthcell.acquisition.rosmessage import RosMessage
from depthcell.errors import DepthcellError, Reason

Payload = bytes | memoryview


@dataclass(frozen=True, slots=True, eq=False)
class StreamPose:
    """Where a stream's camera is, against the reference of its group.

    Attributes:
        rotation: (3, 3); a point p of the reference becomes `rotation @ p + translation_m` in the stream's frame.
        translation_m: (3,) metres.
    """

    rotation: NDArray[np.float64]
    translation_m: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ImageMessage:
    """An image, with what its own message says of it; what is None stands in the metadata that follow.

    Attributes:
        pixels, units_m, timestamp_ns, number: as in `RecordedFrame`.
    """

    pixels: Pixels
    units_m: float | None = None
    timestamp_ns: int | None = None
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Imager:
    """Size of a stream's images, and its intrinsics; None where the device did not know them."""

    width_px: int
    height_px: int
    intrinsics: Intrinsics | None


class Dialect(Protocol):
    """How one format spells its messages. Payloads are read within `payload_of`.

    Attributes:
        has_single_metadata: whether a frame's metadata are one message; else they go on until another follows.
        has_packed_images: whether images are packed one by one, so that unpacking several at once pays.
    """

    has_single_metadata: bool
    has_packed_images: bool

    def version(self, payload: Payload) -> int:
        """Version of the SDK's recording format."""
        ...

    def pairs(self, payload: Payload) -> dict[str, str]:
        """Names and values, as of the device, a sensor or a frame's metadata."""
        ...

    def option(self, payload: Payload) -> float:
        """Value of an option."""
        ...

    def stream_info(self, payload: Payload) -> tuple[str, int]:
        """Name of a stream's pixel format, and its frame rate."""
        ...

    def imager(self, payload: Payload) -> Imager:
        """Image size and intrinsics of a stream."""
        ...

    def pose(self, payload: Payload) -> StreamPose:
        """Factory extrinsics of a stream."""
        ...

    def image(self, payload: Payload, packing: str, layout: Layout) -> ImageMessage:
        """An image of a stream with this layout; `packing` is the topic's detail."""
        ...


@contextmanager
def payload_of(message: RosMessage) -> Iterator[None]:
    """Turn what reading a damaged payload raises into a `DamageError` that says where the message is.

    A `DepthcellError` with another reason than bad input means what it says, and passes.
    """
    try:
        yield
    except DepthcellError as error:
        if error.reason is not Reason.BAD_INPUT:
            raise
        raise DamageError(message.offset, f"{message.topic}: {error}") from error
    except (ValueError, ArithmeticError, LookupError, SerdeError, zstd.ZstdError) as error:
        raise DamageError(message.offset, f"{message.topic}: {error}") from error


_MODELS = {
    "None": Distortion.NONE,
    "Brown Conrady": Distortion.BROWN_CONRADY,
    "Modified Brown Conrady": Distortion.MODIFIED_BROWN_CONRADY,
    "Inverse Brown Conrady": Distortion.INVERSE_BROWN_CONRADY,
}


@dataclass(frozen=True, slots=True)
class Lens:
    """A lens as the SDK writes it down (librealsense `rs2_intrinsics`); all zero where it knew nothing."""

    width_px: int
    height_px: int
    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    model: str
    coefficients: tuple[float, ...]

    def imager(self) -> Imager:
        """The same in depthcell's terms.

        Raises:
            DepthcellError: the model is one that cannot be computed with, or a number is impossible.
        """
        if self.fx_px == 0 and self.fy_px == 0:
            return Imager(self.width_px, self.height_px, None)
        # Without coefficients all models are the same, whatever they are called.
        model = _MODELS.get(self.model, None if any(self.coefficients) else Distortion.NONE)
        if model is None or len(self.coefficients) != 5:
            raise DepthcellError(
                f"lens model '{self.model}' with {len(self.coefficients)} coefficients cannot be computed with; "
                "record another stream",
                Reason.RECORDING_UNSUPPORTED,
            )
        k1, k2, p1, p2, k3 = self.coefficients
        intrinsics = Intrinsics(
            self.width_px, self.height_px, self.fx_px, self.fy_px, self.cx_px, self.cy_px, model, (k1, k2, p1, p2, k3)
        )
        return Imager(self.width_px, self.height_px, intrinsics)


def nearest_rotation(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation nearest to a (3, 3) matrix that was rounded when it was written down.

    Raises:
        ValueError: it is further from a rotation than rounding explains.
    """
    left, _, right = np.linalg.svd(matrix)
    rotation: NDArray[np.float64] = left @ right
    if np.abs(rotation - matrix).max() > 1e-4 or np.linalg.det(rotation) < 0:
        raise ValueError("the extrinsics hold no rotation")
    return rotation


def raw_pixels(image: Any, layout: Layout) -> Pixels:
    """Pixels of a sensor_msgs/Image.

    Raises:
        ValueError: it does not have this layout.
    """
    if (image.width, image.height) != (layout.width_px, layout.height_px):
        raise ValueError(f"an image of {image.width} x {image.height}")
    if not layout.format.is_named(image.encoding) or image.is_bigendian:
        raise ValueError(f"an image in {image.encoding}, not {layout.format}")
    return layout.from_raw(memoryview(image.data), image.step)
