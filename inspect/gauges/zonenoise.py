"""From points in a zone to a reading: its width without what noise adds, and how it answers to points, datums, pose."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.fusion.influence import Influence
from depthcell.fusion.noisecorrelation import noise_variance
from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.formnoise import ZoneCriterion, estimate_zone
from depthcell.inspect.gauges.reading import Drawn, Quantity, Reading
from depthcell.inspect.gauges.zone import Width, farthest, narrowest, peak_to_valley

QUIET_M = 5e-8
"""Points whose noise is below this are taken as they are: what it adds to a zone is below a micrometre."""


@dataclass(frozen=True, slots=True, eq=False)
class Zoned:
    """Points in a zone.

    Attributes:
        points: (K,) intp, ascending, in the cloud.
        residual_m: (K,) of each, along the surface's normal.
        normals: (K, 3) the surface's, frame "part".
        motions: (P, K) what a unit of each motion that the criterion may use adds to the residuals.
        criterion: what the width is.
        kept: (M, K) the same of motions that are held, along which the surface as a whole may well be off.
    """

    points: NDArray[np.intp]
    residual_m: NDArray[np.float64]
    normals: NDArray[np.float64]
    motions: NDArray[np.float64]
    criterion: ZoneCriterion
    kept: NDArray[np.float64] | None = None

    @property
    def width(self) -> Width:
        """Of the zone about the points as they are."""
        match self.criterion:
            case ZoneCriterion.MINIMUM:
                return narrowest(self.residual_m, self.motions)
            case ZoneCriterion.LEAST_SQUARES:
                return peak_to_valley(self.residual_m, self.motions)
            case ZoneCriterion.FARTHEST:
                return farthest(self.residual_m)


def zone_reading(
    zoned: Zoned, scan: Scan, drawn: tuple[Drawn, ...], how: str, others: Influence | None = None
) -> Reading:
    """The width of a zone as a reading.

    Calibration and pose act by the points that touch the zone. Noise does not act to first order: it widens. Its part
    comes from `formnoise`, where it is more than `QUIET_M`; that of datums, which are means over many points, is first
    order and stands beside it.

    Args:
        zoned: the points and how their zone is measured.
        scan: the part.
        drawn: what to show.
        how: the criterion and the features, in words.
        others: what else moves the residuals: datums, and the pose.
    """
    width = zoned.width
    cosine = np.einsum("ij,ij->i", scan.normals_part[zoned.points], zoned.normals)
    influence = Influence.of(zoned.points, width.gradient * cosine)
    others = others or Influence.none()
    whole = influence + others
    if float(np.max(scan.cloud.random_sigma_m[zoned.points])) < QUIET_M:
        return Reading(width.width_m, Quantity.LENGTH, whole, drawn, how)
    found = estimate_zone(scan.cloud, zoned.points, zoned.residual_m, zoned.motions, zoned.criterion, zoned.kept)
    held_u = math.sqrt(noise_variance(scan.cloud, scan.cell, others.points, others.gradient))
    extra = (("noise of the datums", held_u),) if len(others.points) else ()
    note = f"{how}; {found.note}"
    return Reading(found.value_m, Quantity.LENGTH, whole, drawn, note, noise_u=found.noise_u_m, extra_u=extra)
