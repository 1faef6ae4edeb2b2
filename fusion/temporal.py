"""Time first: N frames of a resting part become one mean image and a measured standard deviation per pixel.

B. P. Welford, Technometrics 4 (1962) 419: one pass, no stack of frames, no difference of large numbers. Frames are
absorbed as they arrive, so that nothing but one geometric pass is left to do after the last of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.frameset import ColorImage, DepthImage
from depthcell.calib.cell import CellCamera
from depthcell.fusion.region import Window


@dataclass(frozen=True, slots=True, eq=False)
class MeanDepth:
    """What N frames of one depth camera say about each pixel of its window.

    Attributes:
        mean_m: (H, W) float32, mean depth in metres; NaN where fewer than the asked fraction of frames measured.
        sigma_m: (H, W) float32, sample standard deviation (n - 1) of ONE frame; NaN where fewer than two measured.
        count: (H, W) uint16, frames that measured the pixel.
        frames: frames absorbed.
        units_m: metres per count of the sensor.
        window: which part of the sensor's image this is.
    """

    mean_m: NDArray[np.float32]
    sigma_m: NDArray[np.float32]
    count: NDArray[np.uint16]
    frames: int
    units_m: float
    window: Window


class DepthAccumulator:
    """Takes depth frames one by one: `add` each, then ask for the `mean`."""

    def __init__(self, window: Window | None = None, min_fraction: float = 0.5) -> None:
        raise NotImplementedError

    def add(self, image: DepthImage) -> None:
        """Absorb one frame.

        Raises:
            DepthcellError: its size or depth unit differs from the first frame's.
        """
        raise NotImplementedError

    def mean(self) -> MeanDepth:
        """Mean and sample standard deviation of the frames so far.

        Raises:
            DepthcellError: no frame was added.
        """
        raise NotImplementedError


class ColorAccumulator:
    """Takes colour frames one by one: `add` each, then ask for the `mean_rgb`."""

    def __init__(self, window: Window | None = None) -> None:
        raise NotImplementedError

    def add(self, image: ColorImage) -> None:
        """Absorb one frame."""
        raise NotImplementedError

    def mean_rgb(self) -> NDArray[np.uint8]:
        """Mean colour of the frames so far, (H, W, 3) uint8 of the window."""
        raise NotImplementedError


def average_depth(images: Iterable[DepthImage], window: Window | None = None, min_fraction: float = 0.5) -> MeanDepth:
    """Mean and measured standard deviation per pixel of all `images`, read one at a time.

    Args:
        images: frames of one camera looking at a resting part.
        window: rectangle to keep; None keeps all.
        min_fraction: share of the frames that must have measured a pixel; below it the pixel stays NaN.
    """
    raise NotImplementedError


def frame_sigma_m(mean: MeanDepth, camera: CellCamera) -> NDArray[np.float32]:
    """Standard deviation of one frame per pixel, (H, W) float32: measured scatter, steadied by the noise model."""
    raise NotImplementedError


def random_sigma_m(mean: MeanDepth, camera: CellCamera) -> NDArray[np.float32]:
    """Standard uncertainty of `mean.mean_m` from noise, along the optical axis, (H, W) float32."""
    raise NotImplementedError
