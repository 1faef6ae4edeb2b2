"""From points in a zone to a reading: its width without what noise adds, and how it answers to points, datums, pose."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from depthcell.fusion.budget import uncertainty_budget
from depthcell.fusion.influence import Influence
from depthcell.fusion.noisecorrelation import noise_variance
from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.formnoise import MeasuredZone, ZoneCriterion, ZoneEstimate, estimate_zone
from depthcell.inspect.gauges.nearzero import NEAR_ZERO, joint_covariance, noise_covariance
from depthcell.inspect.gauges.reading import Drawn, Quantity, Reading
from depthcell.inspect.gauges.surfacepoints import Excursion, excursion_of
from depthcell.inspect.gauges.zone import Width, farthest, narrowest, peak_to_valley

Others = Callable[[NDArray[np.float64]], Influence]

QUIET_M = 5e-8
"""Points whose noise is below this are taken as they are: what it adds to a zone is below a micrometre."""


@dataclass(frozen=True, eq=False)
class Zoned:
    """Points in a zone.

    Attributes:
        scan: the part.
        points: (K,) intp, ascending, in the cloud.
        residual_m: (K,) of each, along the surface's normal.
        normals: (K, 3) the surface's, frame "part".
        motions: (P, K) what a unit of each motion that the criterion may use adds to the residuals.
        criterion: what the width is.
        kept: (M, K) the same of motions that are held, along which the surface as a whole may well be off.
        others: what else moves a sum of the residuals with weights (K,): datums, and the pose; None where nothing does.
    """

    scan: Scan
    points: NDArray[np.intp]
    residual_m: NDArray[np.float64]
    normals: NDArray[np.float64]
    motions: NDArray[np.float64]
    criterion: ZoneCriterion
    kept: NDArray[np.float64] | None = None
    others: Others | None = None

    def without(self, points: NDArray[np.intp]) -> "Zoned":
        """Of the other points."""
        rest = ~np.isin(self.points, points, assume_unique=True)
        kept = None if self.kept is None else self.kept[:, rest]
        others = None if self.others is None else partial(_of_all, others=self.others, rest=rest)
        return replace(
            self,
            points=self.points[rest],
            residual_m=self.residual_m[rest],
            normals=self.normals[rest],
            motions=self.motions[:, rest],
            kept=kept,
            others=others,
        )

    @cached_property
    def found(self) -> ZoneEstimate | None:
        """Without what noise adds; None where noise is below `QUIET_M`."""
        if float(np.max(self.scan.cloud.random_sigma_m[self.points])) < QUIET_M:
            return None
        normals_cell = self.scan.T_cell_part.rotate(np.asarray(self.normals, dtype=np.float64))
        zone = MeasuredZone(
            self.scan.cloud, self.scan.cell, self.points, self.residual_m, np.asarray(normals_cell, dtype=np.float64)
        )
        kept = np.zeros((0, len(self.points))) if self.kept is None else self.kept
        return estimate_zone(zone, self.motions, self.criterion, kept, self._shifts(kept))

    def _shifts(self, kept: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """(1 + M, 1 + M) covariance of a change of all residuals alike and along `kept`, without the points' noise."""
        if self.others is None:
            return None
        gains = np.linalg.pinv(np.vstack((np.ones((1, len(self.points))), kept)).T)
        others = [self.others(gain) for gain in gains]
        whole = [self.by_points(gain) + other for gain, other in zip(gains, others, strict=True)]
        return joint_covariance(whole, self.scan) + noise_covariance(others, self.scan)

    def by_points(self, gradient: NDArray[np.float64]) -> Influence:
        """Of a sum of the residuals with weights (K,), by the points alone."""
        cosine = np.einsum("ij,ij->i", self.scan.normals_part[self.points], self.normals)
        return Influence.of(self.points, gradient * cosine)

    @cached_property
    def width(self) -> Width:
        """Of the zone, and how it answers to the points: to single ones where they are exact, else to whole cells."""
        if self.found is not None:
            return Width(self.found.value_m, self.found.gradient, np.zeros(len(self.motions)))
        match self.criterion:
            case ZoneCriterion.MINIMUM:
                return narrowest(self.residual_m, self.motions)
            case ZoneCriterion.LEAST_SQUARES:
                return peak_to_valley(self.residual_m, self.motions)
            case ZoneCriterion.FARTHEST:
                return farthest(self.residual_m)


def _of_all(weights: NDArray[np.float64], others: Others, rest: NDArray[np.bool_]) -> Influence:
    """Of weights of the rest alone."""
    whole = np.zeros(len(rest))
    whole[rest] = weights
    return others(whole)


def zone_reading(zoned: Zoned, drawn: tuple[Drawn, ...], how: str) -> Reading:
    """The width of a zone as a reading.

    Calibration and pose act by what touches the zone. Noise does not act to first order: it widens. Its part
    comes from `formnoise`, where it is more than `QUIET_M`; that of datums, which are means over many points, is first
    order and stands beside it. Where all this is not small against the width, the first order says too little, and a
    row more makes up for it (`ZoneEstimate.least_u_m`). What stands out of the form in a place smaller than the cells
    that noise is averaged over is taken apart, and widens the zone as far as it reaches.

    Args:
        zoned: the points and how their zone is measured.
        drawn: what to show.
        how: the criterion and the features, in words.
    """
    if zoned.found is None:
        return Reading(zoned.width.width_m, Quantity.LENGTH, _influence(zoned), drawn, how)
    scan = zoned.scan
    standing_out = excursion_of(scan, zoned.points, zoned.residual_m, zoned.motions)
    form = zoned if standing_out is None else zoned.without(standing_out.points)
    if form.found is None:
        raise ValueError("zone_reading: a form without noise beside points with noise")
    influence, noise_u = _influence(form), form.found.noise_u_m
    others = form.others(form.width.gradient) if form.others is not None else Influence.none()
    held_u = math.sqrt(noise_variance(scan.cloud, scan.cell, others.points, others.gradient))
    extra: tuple[tuple[str, float], ...] = (("noise of the datums", held_u),) if len(others.points) else ()
    lacking = form.found.least_u_m**2 - uncertainty_budget(influence, scan, noise_u, extra).u ** 2
    if lacking > 0:
        extra = (*extra, (NEAR_ZERO, math.sqrt(lacking)))
    how = f"{how}; {form.found.note}"
    reading = Reading(form.width.width_m, Quantity.LENGTH, influence, drawn, how, noise_u=noise_u, extra_u=extra)
    return reading if standing_out is None else _widened(reading, standing_out, zoned)


def _influence(zoned: Zoned) -> Influence:
    own = zoned.by_points(zoned.width.gradient)
    return own if zoned.others is None else own + zoned.others(zoned.width.gradient)


def _widened(reading: Reading, standing_out: Excursion, zoned: Zoned) -> Reading:
    """The form's zone lies half of its width to each side; where something reaches farther, the zone does.

    How far it reaches was read from few points: their noise is added.
    """
    half_m = reading.value / 2
    above_m, below_m = max(half_m, standing_out.above_m), max(half_m, standing_out.below_m)
    value_m = 2 * max(above_m, below_m) if zoned.criterion is ZoneCriterion.FARTHEST else above_m + below_m
    sigma_m = float(np.median(zoned.scan.cloud.random_sigma_m[standing_out.points]))
    note = f"{reading.note}; {len(standing_out.points)} points stand out of it"
    return replace(reading, value=value_m, noise_u=math.hypot(reading.noise_u or 0.0, sigma_m), note=note)
