"""How wide is a surface's zone in truth, if what was measured is its form and noise on top?

Noise only ever widens a zone, so that the width of the measured points is too large, by several times on a perfect
surface. Here points are pooled to cells (`areal`), and forms that may lie behind them are drawn (`formdraws`; JCGM
101:2008, clause 7: a distribution propagated by draws). The value is the width of their mean, the form that is left
when noise is taken off as Wiener's filter does. Its uncertainty is the spread of the draws' widths, and by how much
these are wider in the mean: what noise still does to a maximum.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from depthcell.calib.cell import Cell
from depthcell.fusion.budget import calibration_lifts
from depthcell.fusion.partcloud import PartCloud
from depthcell.inspect.gauges.areal import Cells, pooled
from depthcell.inspect.gauges.formdraws import Form
from depthcell.inspect.gauges.zone import Width, farthest, narrowest, peak_to_valley

LAWSON_STEPS = 60
SEED = 20261125
THINNED, SHOWN = 4000, 260
"""Of so many points taken evenly, so many spread ones show the form."""
DIRECTIONS = np.stack(np.meshgrid(*[(-1.0, 0.0, 1.0)] * 3), axis=-1).reshape(-1, 3)
REACHED = 0.85
"""Sides of a cell from its middle within which it tells of the form; points of a cell lie within 0.7 of it."""
NEEDED_EVIDENCE = 2.0
"""Below, there may be no form at all."""
NEEDED_OFF = 0.05
"""Chance of as large an offset or lean by errors alone, above which there may be none."""


class ZoneCriterion(StrEnum):
    """What the width of a zone is.

    MINIMUM: the least of `max - min` over all motions that are free (ISO 1101 "C"); without motions that of the
        residuals as they are. LEAST_SQUARES: `max - min` once the motions have made the squares least ("G").
        FARTHEST: twice the largest residual, after motions that make the squares least.
    """

    MINIMUM = "minimum zone"
    LEAST_SQUARES = "least squares"
    FARTHEST = "farthest"


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredZone:
    """Points whose zone is looked for.

    Attributes:
        cloud: holds the points' noise.
        cell: of its cameras.
        points: (K,) indices into the cloud.
        residual_m: (K,) signed distance of each from the element, or from one at a constant distance of it.
        normals_cell: (K, 3) of the element at the points, unit length, frame "cell".
    """

    cloud: PartCloud
    cell: Cell
    points: NDArray[np.intp]
    residual_m: NDArray[np.float64]
    normals_cell: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ZoneEstimate:
    """A zone's width without what noise adds to it.

    Attributes:
        value_m: the width.
        noise_u_m: its standard uncertainty from noise, calibration's bending included.
        least_u_m: what its whole standard uncertainty must be at least: the spread of the draws where what calibration,
            datums and pose do along the held motions is drawn as well, and half of the value where there may be no form
            and no motion at all, so that `value_m - 2 least_u_m` is zero.
        bias_m: what noise had added to the width of the pooled points.
        gradient: (K,) change of the width per metre that each of the points is lifted, where all are lifted together
            along the motions; what lifts neighbours otherwise is in `noise_u_m`.
        side_m: of the cells that points were pooled to: form finer than about two of them is not seen.
        note: how, in words.
    """

    value_m: float
    noise_u_m: float
    least_u_m: float
    bias_m: float
    gradient: NDArray[np.float64]
    side_m: float
    note: str


def estimate_zone(
    zone: MeasuredZone,
    motions: NDArray[np.float64],
    criterion: ZoneCriterion,
    kept: NDArray[np.float64],
    shifts: NDArray[np.float64] | None = None,
) -> ZoneEstimate:
    """Width of the zone about points, and its uncertainty from noise and from what calibration does to form.

    Calibration lifts cameras against each other and bends what each sees, which looks like form and widens a zone as
    noise does: so it counts as noise between cells, with its covariance by `budget.calibration_lifts`. What it does
    along the motions it does to datums and pose too; that part is left to the gradient, and where it is not small
    against the width, to `shifts`.

    Args:
        zone: the points.
        motions: (P, K) what a unit of each motion that is free adds to the residuals; (0, K) for a zone that is held. A
            change of all residuals alike need not be among them: it leaves a width, and is free for FARTHEST only if it
            is named.
        criterion: what the width is.
        kept: (M, K) the same for motions that are held though the surface as a whole may well be off along them, such
            as leans against a datum; (0, K) without. They are taken as measured, without leaning on the form's
            smoothness.
        shifts: (1 + M, 1 + M) covariance of a change of all residuals alike and along `kept`, from what is not noise of
            the points: calibration, datums, pose; None where there is none.

    Raises:
        DepthcellError: (`NOT_MEASURED`) too few points to tell form from noise.
    """
    told = np.vstack((motions, kept))
    lift_m = zone.residual_m - np.median(zone.residual_m)
    feet = zone.cloud.points_cell[zone.points] - lift_m[:, None] * zone.normals_cell
    cells = pooled(zone.cloud, zone.points, feet, zone.residual_m, told)
    cells = replace(cells, covariance=cells.covariance + _bending(zone, cells))
    shown = _spread(feet, np.linalg.norm(feet - cells.places[cells.cell], axis=1) <= REACHED * cells.side_m)
    form = Form.seen(cells, feet[shown], told[:, shown])
    free = motions[:, shown]
    widths_m = zone_widths(form.lifts_m, free, criterion)
    width = _width(form.lifts_m.mean(axis=0), free, criterion)
    noise_u_m = _spread_of(widths_m, width.width_m)
    least_u_m = noise_u_m
    if shifts is not None:
        rng = np.random.default_rng(SEED)
        moved = _normal_draws(shifts, len(form.lifts_m), rng) @ _with_constant_as_is(kept[:, shown])
        least_u_m = _spread_of(zone_widths(form.lifts_m + moved, free, criterion), width.width_m)
    if form.evidence < NEEDED_EVIDENCE and not _is_off(cells, len(motions), criterion, shifts):
        least_u_m = max(least_u_m, width.width_m / 2)
    raw_m = _width(cells.lift_m, cells.motions[: len(motions)], criterion).width_m
    along = np.linalg.qr(_with_constant(told).T)[0]
    return ZoneEstimate(
        value_m=width.width_m,
        noise_u_m=noise_u_m,
        least_u_m=least_u_m,
        bias_m=raw_m - width.width_m,
        gradient=along @ (along[shown].T @ width.gradient),
        side_m=cells.side_m,
        note=f"form of {len(cells.lift_m)} cells of {cells.side_m * 1e3:.2g} mm, their noise taken off",
    )


def _spread_of(widths_m: NDArray[np.float64], value_m: float) -> float:
    """Standard uncertainty of a value among draws: their spread, and by how much they are larger in the mean."""
    return float(np.hypot(widths_m.std(), widths_m.mean() - value_m))


def _normal_draws(covariance: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(count, S) from a normal distribution about zero."""
    scale = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    return np.asarray(rng.standard_normal((count, len(scale))) * np.sqrt(np.maximum(values, 0)) @ vectors.T * scale)


def _is_off(cells: Cells, free: int, criterion: ZoneCriterion, shifts: NDArray[np.float64] | None) -> bool:
    """Whether the surface as a whole is off along what is held, beyond noise and beyond what `shifts` explain.

    By chi-square of the cells' generalised least-squares coefficients under their covariance, as if there were no form.
    """
    held = _with_constant_as_is(cells.motions[free:])
    rows = np.vstack((held, cells.motions[:free]))
    looked_at = np.arange(0 if criterion is ZoneCriterion.FARTHEST else 1, len(held))
    if not len(looked_at):
        return False
    weighed = np.linalg.solve(cells.covariance, rows.T).T
    gain = np.linalg.solve(weighed @ rows.T, weighed)
    covariance = gain @ cells.covariance @ gain.T
    covariance[: len(held), : len(held)] += 0.0 if shifts is None else shifts
    off = (gain @ cells.lift_m)[looked_at]
    square = float(off @ np.linalg.solve(covariance[np.ix_(looked_at, looked_at)], off))
    return bool(chdtrc(len(looked_at), square) < NEEDED_OFF)


def _bending(zone: MeasuredZone, cells: Cells) -> NDArray[np.float64]:
    """(C, C) covariance of the cells from calibration, without what lies along the constant and the motions."""
    count = np.bincount(cells.cell, minlength=len(cells.lift_m))
    pulls = zone.normals_cell / count[cells.cell, None]
    lifts = calibration_lifts(zone.cloud, zone.cell, zone.points, pulls, cells.cell, len(count))
    along = np.linalg.qr(_with_constant(cells.motions).T)[0]
    lifts = lifts - along @ (along.T @ lifts)
    return np.asarray(lifts @ zone.cell.joint_covariance @ lifts.T)


def _width(lift_m: NDArray[np.float64], free: NDArray[np.float64], criterion: ZoneCriterion) -> Width:
    """Width of one zone and its gradient."""
    match criterion:
        case ZoneCriterion.MINIMUM:
            return narrowest(lift_m, free)
        case ZoneCriterion.LEAST_SQUARES:
            return peak_to_valley(lift_m, free)
        case ZoneCriterion.FARTHEST:
            q = np.linalg.qr(free.T)[0]
            width = farthest(lift_m - q @ (q.T @ lift_m))
            return Width(width.width_m, width.gradient - q @ (q.T @ width.gradient), width.motion)


def zone_widths(
    lifts_m: NDArray[np.float64], free: NDArray[np.float64], criterion: ZoneCriterion
) -> NDArray[np.float64]:
    """(D,) width of the zone about each of (D, E) lifts, where motions `free` (P, E) are."""
    if criterion is ZoneCriterion.MINIMUM and len(free):
        return _minimum_widths(lifts_m, free)
    if len(free):
        q = np.linalg.qr(free.T if criterion is ZoneCriterion.FARTHEST else _with_constant(free).T)[0]
        lifts_m = lifts_m - (lifts_m @ q) @ q.T
    widths = 2 * np.abs(lifts_m).max(axis=1) if criterion is ZoneCriterion.FARTHEST else np.ptp(lifts_m, axis=1)
    return np.asarray(widths, dtype=np.float64)


def _minimum_widths(lifts_m: NDArray[np.float64], free: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chebyshev approximation of many lifts at once by Lawson's weights: `w <- w |r|`, then least squares again.

    C. L. Lawson, Contributions to the Theory of Linear Least Maximum Approximation, UCLA 1961. The narrowest zone seen
    on the way counts; it is wider than a linear programme's by 1 % at most, see `tests/test_formnoise.py`.
    """
    span = _with_constant(free)
    products = (span[:, None] * span[None]).reshape(-1, lifts_m.shape[1])
    weight = np.full(lifts_m.shape, 1.0 / lifts_m.shape[1])
    least = np.full(len(lifts_m), np.inf)
    for _ in range(LAWSON_STEPS):
        normal = (weight @ products.T).reshape(len(lifts_m), len(span), len(span))
        pull = (weight * lifts_m) @ span.T
        left = lifts_m - np.linalg.solve(normal + 1e-12 * np.eye(len(span)), pull[..., None])[..., 0] @ span
        least = np.minimum(least, np.ptp(left, axis=1))
        weight = weight * np.abs(left)
        weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-300)
    return least


def _with_constant_as_is(kept: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.vstack((np.ones((1, kept.shape[1])), kept))


def _with_constant(free: NDArray[np.float64]) -> NDArray[np.float64]:
    scale = np.maximum(np.sqrt(np.mean(np.square(free), axis=1, keepdims=True)), 1e-12)
    return np.vstack((np.ones((1, free.shape[1])), free / scale))


def _spread(places: NDArray[np.float64], seen: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Points (E,) evenly spread over a surface: its outermost, then each the farthest from those before.

    Of those that are `seen` (K,) alone: what lies beyond the cells would be a guess.
    """
    numbers = np.flatnonzero(seen)
    places = places[numbers]
    axes = np.linalg.eigh(np.cov((places - places.mean(axis=0)).T))[1]
    along = places @ axes @ DIRECTIONS.T
    outermost = np.unique(along.argmax(axis=0))
    some = np.union1d(outermost, np.arange(0, len(places), max(1, len(places) // THINNED)))
    at = places[some]
    chosen = list(np.searchsorted(some, outermost))
    distance = np.square(at[:, None] - at[chosen]).sum(axis=2).min(axis=1)
    while len(chosen) < min(SHOWN, len(at)):
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.square(at - at[chosen[-1]]).sum(axis=1))
    return np.asarray(numbers[some[chosen]], dtype=np.intp)
