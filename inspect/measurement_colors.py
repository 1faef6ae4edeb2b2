"""Colours of a signed deviation: blue is missing, red excess, light is nominal, grey was not measured.

Both halves are straight lines in OKLab (B. Ottosson, "A perceptual color space for image processing", 2020), from a
light grey to a dark blue and to a dark red of the same lightness: equal steps of deviation are equal steps of colour.
Blue and red differ for protan and deutan eyes too, and lightness alone tells how far a place is off.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

STEPS = 256
MIDDLE, MISSING, EXCESS = (0.96, 0.0, 0.0), (0.40, -0.03, -0.145), (0.40, 0.115, 0.075)
"""Lightness, green-red and blue-yellow in OKLab."""
UNMEASURED_RGB = (112, 118, 127)
_OKLAB_TO_LMS = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_LMS_TO_LINEAR = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def palette() -> NDArray[np.uint8]:
    """(STEPS, 3) red, green, blue from most missing to most excess."""
    reach = np.linspace(-1.0, 1.0, STEPS)[:, None]
    ends = np.where(reach < 0, np.array(MISSING), np.array(EXCESS))
    return _srgb(np.array(MIDDLE) + np.abs(reach) * (ends - np.array(MIDDLE)))


def deviation_rgb(deviation: NDArray[np.floating[Any]], tolerance: float) -> NDArray[np.uint8]:
    """Red, green, blue (..., 3) of signed deviations (...), the scale reaching to `tolerance`; grey where NaN."""
    known = np.isfinite(deviation)
    place = np.clip(np.where(known, deviation, 0.0) / tolerance, -1.0, 1.0)
    colors: NDArray[np.uint8] = palette()[np.rint((place + 1.0) / 2.0 * (STEPS - 1)).astype(np.intp)]
    colors[~known] = UNMEASURED_RGB
    return colors


def _srgb(oklab: NDArray[np.float64]) -> NDArray[np.uint8]:
    linear = (oklab @ _OKLAB_TO_LMS.T) ** 3 @ _LMS_TO_LINEAR.T
    clipped = np.clip(linear, 0.0, 1.0)
    gamma = np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * gamma), dtype=np.uint8)
