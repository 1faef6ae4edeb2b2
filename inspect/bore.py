"""Is the bore there, and how wide is it? Presence from what covers its mouth, diameter from points on its wall.

A bore is there when its rim was measured and nothing covers the mouth; a surface that closed it would have been
measured as its rim was. The diameter is that of the least-squares circle through the points of the wall, seen along the
nominal axis. Points near the rim, where near and far are mixed, are left out by fusion already.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.calib.correlated_fit import Fit, evenly, fit_linear, noise_covariance
from depthcell.fusion.partcloud import PartCloud
from depthcell.inspect.decision import COVERAGE_FACTOR, Judged, decide
from depthcell.inspect.observation import Observation
from depthcell.inspect.recipe import BoreSection
from depthcell.inspect.verdict import Decision, Measurement

COVER_RADIUS = 0.6
"""Share of the radius within which nothing may cover an open mouth; beyond it edges fatten inwards."""

COVER_REACH = 0.5
"""Height above and below the mouth, in radii, that counts as covering it."""

GRID_CELLS = 9
RIM = (1.15, 1.6)
"""Ring around the mouth, in radii, that must have been measured."""

SECTORS = 12
CLOSED, OPEN = 0.5, 0.15
"""Covered share of the mouth from which on it is closed, and up to which it is open."""

SEEN_RIM = 0.6
"""Share of the rim's sectors that must have been measured."""

WALL = 0.3
"""Points within this share of the radius from the nominal wall, and looking inwards, are taken for the wall."""

BELOW_MOUTH_M = 5e-4
INWARDS = -0.6
MIN_WALL_POINTS = 40
MIN_WALL_SECTORS = 4
OFF_CENTRE = 0.08
"""A circle whose centre lies farther from the nominal one, in radii, was drawn through other things than the wall."""

FIT_ROUNDS = 3
WINDOW_SHARE = 0.05
"""Share of the matching window's effect at edges that is left on a wall away from its rim."""

OUTLIER = 3.5
"""Residual over its scatter from which on a point is not of the wall."""


@dataclass(frozen=True, slots=True, eq=False)
class _Local:
    """The cloud about one bore, in its own cylinder coordinates."""

    cloud: PartCloud
    points_part: NDArray[np.float64]
    across: NDArray[np.float64]
    height_m: NDArray[np.float64]
    inwards: NDArray[np.float64]

    @property
    def radius_m(self) -> NDArray[np.float64]:
        return np.asarray(np.hypot(*self.across.T))

    @property
    def sector(self) -> NDArray[np.intp]:
        turn = np.arctan2(self.across[:, 1], self.across[:, 0]) / (2 * math.pi) % 1.0
        return np.minimum((turn * SECTORS).astype(np.intp), SECTORS - 1)


@dataclass(frozen=True, slots=True)
class BoreCheck:
    """The outcome for one bore: what goes into the verdict, and what decides."""

    measurement: Measurement
    judged: Judged
    is_missing: bool


def check_bore(bore: BoreSection, observation: Observation, window_u_m: float) -> BoreCheck:
    """Judge one bore.

    Args:
        bore: as the recipe wants it.
        observation: the part.
        window_u_m: standard uncertainty that the matching window adds where a surface ends.
    """
    local = _about(bore, observation)
    rim, covered = _rim_seen(local, bore), _covered_share(local, bore)
    if covered >= CLOSED:
        text = f"{bore.name} is missing: {covered:.0%} of its mouth is closed"
        return _outcome(bore, None, Decision.NOK, text, is_missing=True)
    if rim < SEEN_RIM:
        text = f"{bore.name} was not seen: only {rim:.0%} of its rim was measured"
        return _outcome(bore, None, Decision.CANNOT_TELL, text)
    if covered > OPEN:
        text = f"{bore.name} may be obstructed: {covered:.0%} of its mouth is covered"
        return _outcome(bore, None, Decision.CANNOT_TELL, text)
    return _judged_diameter(bore, _diameter(local, bore, window_u_m))


@dataclass(frozen=True, slots=True)
class _Diameter:
    value_mm: float
    u_mm: float
    points: int
    sectors: int
    serials: tuple[str, ...]


def _judged_diameter(bore: BoreSection, diameter: _Diameter | None) -> BoreCheck:
    if diameter is None:
        decision = Decision.OK if bore.tolerance_mm is None else Decision.CANNOT_TELL
        return _outcome(
            bore,
            None,
            decision,
            f"{bore.name} is open; too little of its wall was seen where it should be for a diameter",
        )
    lower, upper = bore.limits_mm
    decision = decide(diameter.value_mm, diameter.u_mm, lower, upper)
    said = f"{bore.name}: diameter {diameter.value_mm:.2f} ± {COVERAGE_FACTOR * diameter.u_mm:.2f} mm"
    if bore.tolerance_mm is None:
        return _outcome(bore, diameter, Decision.OK, f"{said}; the recipe states no tolerance for it")
    limits = f"{bore.diameter_mm:g} ± {bore.tolerance_mm:g} mm"
    words = {
        Decision.OK: f"{said}, wanted {limits}",
        Decision.NOK: f"{said} is out of {limits}",
        Decision.CANNOT_TELL: f"{said} cannot be decided against {limits}",
    }
    return _outcome(bore, diameter, decision, words[decision])


def _outcome(
    bore: BoreSection, diameter: _Diameter | None, decision: Decision, text: str, *, is_missing: bool = False
) -> BoreCheck:
    lower, upper = bore.limits_mm
    provenance = text
    if diameter is not None:
        provenance = (
            f"least-squares circle through {diameter.points} wall points in {diameter.sectors} of {SECTORS} sectors, "
            f"cameras {', '.join(diameter.serials)}"
        )
    measurement = Measurement(
        name=f"{bore.name} diameter",
        value=None if diameter is None else diameter.value_mm,
        u=None if diameter is None else diameter.u_mm,
        unit="mm",
        lower=lower,
        upper=upper,
        decision=decision,
        provenance=provenance,
    )
    off = 0.0 if diameter is None or bore.tolerance_mm is None else abs(diameter.value_mm - bore.diameter_mm)
    severity = 10.0 if is_missing else off / (bore.tolerance_mm or 1.0)
    return BoreCheck(measurement, Judged(decision, text, severity), is_missing)


def _about(bore: BoreSection, observation: Observation) -> _Local:
    """Points within twice the radius of the axis and a diameter or so of the mouth."""
    cloud = observation.fused.cloud
    offset = observation.deviation.points.points_part - bore.position_m
    height_m = np.einsum("ij,j->i", offset, bore.direction)
    around = np.einsum("ij,ij->i", offset, offset) - height_m**2
    near = np.flatnonzero((around < (2 * bore.radius_m) ** 2) & (np.abs(height_m) < 6 * bore.radius_m))
    offset, height_m = offset[near], height_m[near]
    radial = offset - height_m[:, None] * bore.direction
    first = np.cross(bore.direction, np.eye(3)[np.argmin(np.abs(bore.direction))])
    first /= np.linalg.norm(first)
    axes = np.stack((first, np.cross(bore.direction, first)), axis=1)
    normals = observation.alignment.T_cell_part.inverse().rotate(cloud.normals_cell[near].astype(np.float64))
    inwards = np.einsum("ij,ij->i", normals, radial) / np.maximum(np.linalg.norm(radial, axis=1), 1e-9)
    return _Local(cloud[near], offset, np.asarray(radial @ axes, dtype=np.float64), height_m, inwards)


def _rim_seen(local: _Local, bore: BoreSection) -> float:
    """Share of the sectors around the mouth that hold points at its height."""
    inner, outer = RIM[0] * bore.radius_m, RIM[1] * bore.radius_m
    rim = (local.radius_m > inner) & (local.radius_m < outer) & (np.abs(local.height_m) < COVER_REACH * bore.radius_m)
    return len(np.unique(local.sector[rim])) / SECTORS


def _covered_share(local: _Local, bore: BoreSection) -> float:
    """Share of the mouth's inner disc that holds points near its height, on a grid of squares."""
    reach_m = COVER_RADIUS * bore.radius_m
    inside = (local.radius_m < reach_m) & (np.abs(local.height_m) < COVER_REACH * bore.radius_m)
    edges = np.linspace(-reach_m, reach_m, GRID_CELLS + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    squares = np.hypot(*np.meshgrid(middle, middle)) < reach_m
    first_m, second_m = local.across[inside].T
    count, _, _ = np.histogram2d(first_m, second_m, bins=(edges, edges))
    return float((count[squares] > 0).mean())


def _diameter(local: _Local, bore: BoreSection, window_u_m: float) -> _Diameter | None:
    """Least-squares circle through the wall; None where too little of it was seen, or something else."""
    on_wall = np.abs(local.radius_m - bore.radius_m) < WALL * bore.radius_m
    on_wall &= (local.height_m < -BELOW_MOUTH_M) & (local.inwards < INWARDS)
    wall = np.flatnonzero(on_wall)
    circle = np.array([0.0, 0.0, bore.radius_m])
    chosen, fit = wall, None
    for _ in range(FIT_ROUNDS):
        if len(wall) < MIN_WALL_POINTS or len(np.unique(local.sector[wall])) < MIN_WALL_SECTORS:
            return None
        chosen = wall[evenly(len(wall))]
        fit = _circle_step(local, chosen, circle)
        circle = circle + fit.parameters
        residual = np.abs(np.hypot(*(local.across[wall] - circle[:2]).T) - circle[2])
        wall = wall[residual < OUTLIER * max(float(np.median(residual)) / 0.6745, 1e-5)]
    if fit is None:
        return None
    if float(np.hypot(*circle[:2])) > OFF_CENTRE * bore.radius_m:
        return None
    share = local.cloud.share[wall].mean(axis=0)
    serials = tuple(serial for serial, part in zip(local.cloud.serials, share, strict=True) if part > 0.05)
    u_m = _radius_u_m(local, chosen, fit, window_u_m)
    sectors = len(np.unique(local.sector[wall]))
    return _Diameter(2e3 * float(circle[2]), 2e3 * u_m, len(wall), sectors, serials)


def _circle_step(local: _Local, chosen: NDArray[np.intp], circle: FloatArray) -> Fit:
    """One Gauss-Newton step of (centre, radius): distance from the centre less radius, linearised."""
    offset = local.across[chosen] - circle[:2]
    distance_m = np.hypot(*offset.T)
    design = np.column_stack((offset / distance_m[:, None], np.ones(len(chosen))))
    sigma_m = local.cloud.random_sigma_m[chosen].astype(np.float64)
    correlation_m = local.cloud.correlation_m[chosen].astype(np.float64)
    covariance = noise_covariance(local.points_part[chosen], sigma_m, correlation_m)
    return fit_linear(design, distance_m - circle[2], covariance)


def _radius_u_m(local: _Local, chosen: NDArray[np.intp], fit: Fit, window_u_m: float) -> float:
    """Noise, calibration and the matching window in quadrature.

    Calibration shifts all points of a camera together. What is left of the window's effect shifts those that a camera
    has in one sector together; on a short arc both weigh more than on a full circle, by the fit's own gain.
    """
    camera, sector = local.cloud.camera[chosen].astype(np.intp), local.sector[chosen]
    gain = fit.gain[2]
    systematic_m = local.cloud.systematic_sigma_m[chosen].astype(np.float64)
    by_camera_m = np.bincount(camera, gain * systematic_m)
    by_sector = np.bincount(camera * SECTORS + sector, gain)
    variance = float(fit.covariance[2, 2] + np.square(by_camera_m).sum())
    return math.sqrt(variance + float(np.square(by_sector).sum()) * (WINDOW_SHARE * window_u_m) ** 2)
