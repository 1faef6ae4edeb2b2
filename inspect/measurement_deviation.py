"""How a part's surface deviates from the reference, in a few numbers."""

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from depthcell.inspect.verdict import NotNegative


class DeviationRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Signed deviation of the measured points from the reference, positive outside the material.

    Attributes:
        points: whose deviation is known.
        mean_mm: over all of them.
        rms_mm: root of the mean square.
        low_mm, high_mm: 2.5th and 97.5th percentile: 95 of 100 points lie between.
        smallest_mm, largest_mm: of single points, noise included.
    """

    points: Annotated[int, Meta(ge=1)]
    mean_mm: float
    rms_mm: NotNegative
    low_mm: float
    high_mm: float
    smallest_mm: float
    largest_mm: float


def deviation_record(deviation_m: NDArray[np.float64]) -> DeviationRecord | None:
    """The record of signed deviations, NaN where there is none; None where there is none at all."""
    deviation_mm = 1e3 * deviation_m[np.isfinite(deviation_m)]
    if not len(deviation_mm):
        return None
    low, high = np.percentile(deviation_mm, (2.5, 97.5))
    return DeviationRecord(
        points=len(deviation_mm),
        mean_mm=float(deviation_mm.mean()),
        rms_mm=float(np.sqrt(np.mean(deviation_mm**2))),
        low_mm=float(low),
        high_mm=float(high),
        smallest_mm=float(deviation_mm.min()),
        largest_mm=float(deviation_mm.max()),
    )
