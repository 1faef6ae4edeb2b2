"""Regions become findings: how deep, how large and where, each with its uncertainty, and what to call it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.calib.correlated_fit import evenly, fit_linear, noise_covariance
from depthcell.inspect.color_check import ColorScore
from depthcell.inspect.decision import COVERAGE_FACTOR
from depthcell.inspect.deviation import DeviationScales, mean_correlation
from depthcell.inspect.naming import Shape, color_kind, region_shape, shape_kind
from depthcell.inspect.observation import Observation
from depthcell.inspect.patch_regions import GROWING, PatchRegion
from depthcell.inspect.recipe import BoreSection
from depthcell.inspect.shape_check import ShapeScore
from depthcell.inspect.verdict import Finding, Position, Quantity

BEYOND_CHANCE = 5.0
"""Significance of a single patch, among the some thousands of a part, that is no matter of chance."""

FIT_SHARE = 0.45
"""Radius of the piece of surface that is fitted about an extreme, in half widths of the region."""

FIT_RADIUS_M = (0.001, 0.006)
"""Limits of that radius."""

WINDOW_SHARE = 0.4
"""Variance of what smooths a shape, per axis, over the square of the noise's correlation length. The matching window
alone has 1/4; slanted views and the merging of cameras add to it. 0.3 to 0.6 was measured on simulated dents."""

RESOLUTION_SHARE = 0.5
"""Uncertainty of the correction for the matching window, as a share of it."""

NARROWEST = 1.3
"""A feature's variance over the window's below which it is not resolved, and corrected no further."""

HIDDEN_RINGS = 4
"""How far from a region unmeasured surface may belong to it, in patches."""

CAMERA_SHARE = 0.05
"""A camera saw a finding if it weighs at least this much in its points."""

MM = 1e3


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What a part's findings are measured on.

    Attributes:
        observation: the part.
        scales: averages over the surface.
        shape: its shape against good parts.
        expected: (K,) bool, patches that should be seen.
        good_mean_m: (K,) deviation that good parts have, 0 where unknown.
        colors: serial number -> its colour against good parts.
    """

    observation: Observation
    scales: DeviationScales
    shape: ShapeScore
    expected: NDArray[np.bool_]
    good_mean_m: NDArray[np.float64]
    colors: Mapping[str, ColorScore]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A finding and the points of the cloud that it covers, as indices."""

    finding: Finding
    region: PatchRegion
    points: NDArray[np.intp]


def shape_finding(region: PatchRegion, evidence: Evidence, *, in_color: bool) -> Found:
    """Measure and name one region of deviating shape.

    Args:
        region: its patches.
        evidence: what it is measured on.
        in_color: whether its colour differs from good parts too.
    """
    surface = evidence.scales.surface
    shape = region_shape(region, surface, evidence.shape.excess_m[0])
    depth = _extreme(region, shape, evidence)
    kind = shape_kind(shape, region, evidence.shape.excess_m[0], evidence.scales, outwards=depth.value > 0)
    points = region_points(region, evidence.observation)
    cameras = cameras_in_depth(points, evidence.observation)
    hidden_m2 = _hidden_m2(region, evidence)
    area = _area(region, shape, hidden_m2, evidence)
    text = (
        f"{_words(kind)} {abs(depth.value):.2f} ± "
        f"{COVERAGE_FACTOR * depth.u:.2f} mm {'deep' if depth.value < 0 else 'high'}, {area.value:.0f} mm², "
        f"{region.significance:.0f} sigma, seen in depth{' and colour' if in_color else ''} by {listed(cameras)}"
        f"{f'; {hidden_m2 * MM**2:.0f} mm² beside it not measured' if hidden_m2 > 0 else ''}"
    )
    finding = Finding(
        kind=kind,
        depth_mm=depth,
        area_mm2=area,
        volume_mm3=_volume(region, depth, hidden_m2, evidence),
        position_mm=region_position(region, shape, evidence),
        sigma=round(region.significance, 1),
        source="depth+color" if in_color else "depth",
        cameras=cameras,
        text=text,
    )
    return Found(finding, region, points)


def missing_bore_finding(bore: BoreSection, evidence: Evidence) -> Found:
    """A bore whose mouth is closed. Its depth is how far what closes it lies from the nearest wall of an open one."""
    surface, cloud = evidence.scales.surface, evidence.observation.fused.cloud
    points = _within(bore, evidence.observation.deviation.points.points_part, 1.0)
    deviation_m = evidence.observation.deviation.points.deviation_m[points]
    farthest = points[np.argsort(deviation_m)[int(0.9 * (len(points) - 1))]]
    depth_m = float(evidence.observation.deviation.points.deviation_m[farthest])
    depth = quantity(depth_m * MM, float(cloud.sigma_m[farthest]) * MM)
    region = PatchRegion(_within(bore, surface.points_part, 1.3), abs(depth.value) / max(depth.u, 1e-9))
    area_mm2 = math.pi * (bore.diameter_mm / 2) ** 2
    area = quantity(area_mm2, math.pi * bore.diameter_mm * surface.spacing_m * MM / math.sqrt(12), digits=1)
    cameras = cameras_in_depth(points, evidence.observation)
    pose_u_mm = np.sqrt(np.diag(evidence.observation.alignment.covariance)[3:]) * MM
    x, y, z = (round(float(value), 3) for value in bore.position_mm)
    ux, uy, uz = (round(float(value), 3) for value in pose_u_mm)
    finding = Finding(
        kind="missing_bore",
        depth_mm=depth,
        area_mm2=area,
        volume_mm3=None,
        position_mm=Position((x, y, z), (ux, uy, uz)),
        sigma=round(region.significance, 1),
        source="depth",
        cameras=cameras,
        text=f"missing bore ({bore.name}), {area.value:.0f} mm² closed, seen in depth by {listed(cameras)}",
    )
    return Found(finding, region, points)


def _within(bore: BoreSection, points_part: FloatArray, radii: float) -> NDArray[np.intp]:
    """Indices of points about a bore's mouth, up to so many radii from its axis."""
    offset = points_part - bore.position_m
    height_m = np.einsum("ij,j->i", offset, bore.direction)
    around = np.einsum("ij,ij->i", offset, offset) - height_m**2
    return np.flatnonzero((around < (radii * bore.radius_m) ** 2) & (np.abs(height_m) < bore.radius_m))


def color_finding(region: PatchRegion, evidence: Evidence, significance: float) -> Found:
    """Measure and name one region of different colour."""
    surface = evidence.scales.surface
    scores = {serial: np.nan_to_num(score.largest[region.patches]) for serial, score in evidence.colors.items()}
    cameras = tuple(serial for serial, score in scores.items() if score.max() >= significance)
    cameras = cameras or (max(scores, key=lambda serial: float(scores[serial].max())),)
    best = evidence.colors[max(scores, key=lambda serial: float(scores[serial].max()))]
    region = _inner(region, best)
    shape = region_shape(region, surface, best.largest)
    kind = color_kind(shape, best, region)
    area = quantity(shape.area_m2 * MM**2, outline_u_m2(shape, surface.spacing_m) * MM**2, digits=1)
    text = (
        f"{_words(kind)} {area.value:.0f} ± {COVERAGE_FACTOR * area.u:.0f} mm², {shape.length_m * MM:.0f} mm long, "
        f"{region.significance:.0f} sigma, seen in colour by {listed(cameras)}"
    )
    finding = Finding(
        kind=kind,
        depth_mm=None,
        area_mm2=area,
        volume_mm3=None,
        position_mm=region_position(region, shape, evidence),
        sigma=round(region.significance, 1),
        source="color",
        cameras=cameras,
        text=text,
    )
    return Found(finding, region, region_points(region, evidence.observation))


def _inner(region: PatchRegion, score: ColorScore) -> PatchRegion:
    """The patches of a region that show at least half of its colour difference: where an eye draws the border."""
    difference = np.nan_to_num(np.linalg.norm(score.difference_lab[region.patches], axis=1))
    strong = difference >= 0.5 * np.quantile(difference, 0.9)
    return PatchRegion(region.patches[strong], region.significance)


def _extreme(region: PatchRegion, shape: Shape, evidence: Evidence) -> Quantity:
    """Signed deviation at the region's extreme, mm.

    The place is that of the largest mean over a couple of millimetres, or of a finer one that is beyond chance itself,
    so that it is not picked for its noise. There a quadric is fitted to the single points by generalised least squares;
    its stationary value is the extreme as seen. What the matching window flattened is put back, see `_sharpening`.
    """
    score = evidence.shape
    significance = np.nan_to_num(score.significance[:, region.patches])
    sign = float(np.sign(significance.flat[np.argmax(np.abs(significance))]))
    means_m = np.maximum(np.nan_to_num(sign * score.excess_m[:2, region.patches]), 0.0)
    means_m[:-1][np.nan_to_num(np.abs(score.significance[: len(means_m) - 1, region.patches])) < BEYOND_CHANCE] = 0.0
    scale, place = np.unravel_index(int(np.argmax(means_m)), means_m.shape)
    peak = int(region.patches[place])
    mean_m, u_m = float(score.excess_m[scale, peak]), float(score.u_m[scale, peak])
    radius_m = float(np.clip(FIT_SHARE * shape.width_m / 2, *FIT_RADIUS_M))
    fitted = _fitted_extreme(peak, radius_m, evidence)
    if fitted is None or sign * fitted[0] < sign * mean_m - u_m:
        # An extreme is no smaller than a mean about it: here the surface is no quadric, or hardly seen.
        return quantity(mean_m * MM, u_m * MM)
    return quantity(fitted[0] * MM, math.hypot(fitted[1], _shared_u_m(peak, evidence)) * MM)


def _fitted_extreme(peak: int, radius_m: float, evidence: Evidence) -> tuple[float, float] | None:
    """Extreme near a patch and its uncertainty from noise and resolution, metres; None with too few points."""
    surface, cloud = evidence.scales.surface, evidence.observation.fused.cloud
    seen = evidence.observation.deviation.points
    centre = surface.points_part[peak]
    near_patch = np.linalg.norm(surface.points_part - centre, axis=1) < radius_m
    near_patch &= surface.normals_part @ surface.normals_part[peak] > 0.7
    candidates = np.flatnonzero(near_patch[seen.patch] & (seen.patch >= 0))
    if len(candidates) < 24:
        return None
    chosen = candidates[evenly(len(candidates))]
    u, v = ((seen.points_part[chosen] - centre) @ _tangents(surface.normals_part[peak])).T
    design = np.column_stack((np.ones(len(u)), u, v, u * u, u * v, v * v))
    correlation_m = cloud.correlation_m[chosen].astype(np.float64)
    sigma_m = cloud.random_sigma_m[chosen].astype(np.float64)
    covariance = noise_covariance(seen.points_part[chosen], sigma_m, correlation_m)
    excess_m = seen.deviation_m[chosen] - evidence.good_mean_m[seen.patch[chosen]]
    try:
        fit = fit_linear(design, excess_m, covariance)
    except np.linalg.LinAlgError:
        return None
    at = _stationary(fit.parameters, limit_m=radius_m / 2)
    place = np.array([1.0, *at, at[0] ** 2, at[0] * at[1], at[1] ** 2])
    extreme_m, variance = float(place @ fit.parameters), float(place @ fit.covariance @ place)
    sharper = _sharpening(extreme_m, fit.parameters, float(np.median(correlation_m)))
    return extreme_m * sharper, math.hypot(math.sqrt(variance) * sharper, RESOLUTION_SHARE * (sharper - 1) * extreme_m)


def _sharpening(extreme_m: float, parameters: NDArray[np.float64], correlation_m: float) -> float:
    """Factor by which the true extreme is larger than the one seen through the matching window.

    The window makes neighbours' noise alike, and that tells its size: a Gaussian of variance l²/4 per axis gives noise
    that correlates as exp(-d²/l²). Along each axis of curvature the feature is taken for a Gaussian of its height and
    curvature, of variance s² = height / curvature as seen, which the window w² made out of s² - w². For features much
    wider than the window that is the first-order term, w²/2 times the Laplacian.
    """
    hessian = np.array([[2 * parameters[3], parameters[4]], [parameters[4], 2 * parameters[5]]])
    window_m2 = WINDOW_SHARE * correlation_m**2
    factor = 1.0
    for curvature in np.linalg.eigvalsh(hessian):
        if curvature * extreme_m < 0:
            seen_m2 = max(-extreme_m / float(curvature), NARROWEST * window_m2)
            factor *= math.sqrt(seen_m2 / (seen_m2 - window_m2))
    return factor


def _stationary(parameters: NDArray[np.float64], limit_m: float) -> NDArray[np.float64]:
    """Where a quadric (1, u, v, uu, uv, vv) is stationary, (2,); drawn in to `limit_m`, the origin for a saddle."""
    _, gu, gv, huu, huv, hvv = parameters
    hessian = np.array([[2 * huu, huv], [huv, 2 * hvv]])
    if np.linalg.det(hessian) <= 0:
        return np.zeros(2)
    at: NDArray[np.float64] = -np.linalg.solve(hessian, np.array([gu, gv]))
    distance_m = float(np.hypot(*at))
    return at if distance_m <= limit_m else at * (limit_m / distance_m)


def _shared_u_m(patch: int, evidence: Evidence) -> float:
    """What all points about a patch share (process, alignment, calibration): what is left on the coarsest average."""
    known = evidence.shape.u_m[:, patch]
    return float(np.nanmin(known)) if np.isfinite(known).any() else 0.0


def _area(region: PatchRegion, shape: Shape, hidden_m2: float, evidence: Evidence) -> Quantity:
    """Area: where the outline runs depends on the threshold by half a step of significance, and `hidden_m2` may belong.

    The hidden part is taken by half, with a rectangular distribution from none to all of it (GUM 4.3.8).
    """
    significance = np.nan_to_num(np.abs(evidence.shape.significance[0][region.patches]))
    doubtful_m2 = float(evidence.scales.surface.area_m2[region.patches][significance < GROWING + 1.0].sum())
    outline_m2 = outline_u_m2(shape, evidence.scales.surface.spacing_m)
    u_m2 = math.sqrt(outline_m2**2 + (doubtful_m2**2 + hidden_m2**2) / 12)
    return quantity((shape.area_m2 + hidden_m2 / 2) * MM**2, u_m2 * MM**2, digits=1)


def _hidden_m2(region: PatchRegion, evidence: Evidence) -> float:
    """Area beside a region of which nothing was measured: fusion drops what lies at a jump of depth.

    Only surface that is expected to be seen counts, and of each hole no more than the region itself.
    """
    surface = evidence.scales.surface
    unseen = evidence.expected & ~np.isfinite(evidence.shape.excess_m[0])
    inside = np.zeros(len(surface))
    inside[region.patches] = 1.0
    reached = np.zeros_like(inside)
    front = inside
    for _ in range(HIDDEN_RINGS):
        front = ((evidence.scales.touching @ front) > 0) & unseen & (reached == 0)
        reached[front] = 1.0
        front = front.astype(np.float64)
    return min(float(surface.area_m2 @ reached), float(surface.area_m2 @ inside))


def outline_u_m2(shape: Shape, spacing_m: float) -> float:
    """Area that an outline through patches leaves open: each border patch by a rectangular share (GUM 4.3.7)."""
    border_patches = max(2.0 * (shape.length_m + shape.width_m) / spacing_m, 4.0)
    return spacing_m**2 * math.sqrt(border_patches / 12.0) + spacing_m * shape.width_m / math.sqrt(12)


def _volume(region: PatchRegion, depth: Quantity, hidden_m2: float, evidence: Evidence) -> Quantity:
    """Integral of the deviation over the region. Noise is alike over its correlation length, all else everywhere.

    Over a hidden part the deviation may be anything from none to the extreme (GUM 4.3.8).
    """
    surface = evidence.scales.surface
    area_m2, excess_m = surface.area_m2[region.patches], evidence.shape.excess_m[0][region.patches]
    seen = np.isfinite(excess_m)
    hidden_m3 = (hidden_m2 + float(area_m2[~seen].sum())) * depth.value / MM
    if not seen.any():
        return quantity(hidden_m3 / 2 * MM**3, abs(hidden_m3) / math.sqrt(12) * MM**3, digits=2)
    volume_m3, seen_m2 = float((area_m2 * excess_m)[seen].sum()), float(area_m2[seen].sum())
    noise_m = float(np.sqrt(np.mean(evidence.shape.u_m[0][region.patches][seen] ** 2)))
    correlation_m = float(np.median(evidence.observation.fused.cloud.correlation_m))
    alike = float(mean_correlation(np.array(correlation_m), math.sqrt(seen_m2 / math.pi)))
    middle = int(region.patches[seen][np.argmax(np.abs(excess_m[seen]))])
    mean_u_m = math.hypot(noise_m * math.sqrt(min(alike + 1.0 / seen.sum(), 1.0)), _shared_u_m(middle, evidence))
    u_m3 = math.hypot(mean_u_m * seen_m2, hidden_m3 / math.sqrt(12))
    return quantity((volume_m3 + hidden_m3 / 2) * MM**3, u_m3 * MM**3, digits=2)


def region_position(region: PatchRegion, shape: Shape, evidence: Evidence) -> Position:
    """Centre of the region, frame "part", mm; uncertain by its outline and by where the part lies."""
    pose_m2 = np.diag(evidence.observation.alignment.covariance)[3:]
    outline_m = math.hypot(shape.length_m, shape.width_m) / math.sqrt(12 * max(len(region.patches), 1))
    u_mm = np.sqrt(pose_m2 + outline_m**2 + evidence.scales.surface.spacing_m**2 / 12) * MM
    x, y, z = (round(float(value), 3) + 0.0 for value in shape.centre_m * MM)
    ux, uy, uz = (round(float(value), 3) for value in u_mm)
    return Position((x, y, z), (ux, uy, uz))


def region_points(region: PatchRegion, observation: Observation) -> NDArray[np.intp]:
    """Indices of the points of the cloud that lie on a region."""
    within = np.zeros(len(observation.deviation.count) + 1, dtype=bool)
    within[region.patches] = True
    return np.flatnonzero(within[observation.deviation.points.patch])


def cameras_in_depth(points: NDArray[np.intp], observation: Observation) -> tuple[str, ...]:
    """Serial numbers of the cameras that measured these points."""
    cloud = observation.fused.cloud
    if not len(points):
        return ()
    share = cloud.share[points].mean(axis=0)
    return tuple(serial for serial, part in zip(cloud.serials, share, strict=True) if part >= CAMERA_SHARE)


def _tangents(normal: FloatArray) -> NDArray[np.float64]:
    """(3, 2) two unit vectors across a normal."""
    first = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal))])
    first /= np.linalg.norm(first)
    return np.stack((first, np.cross(normal, first)), axis=1)


def quantity(value: float, u: float, digits: int = 4) -> Quantity:
    """A value and its standard uncertainty, rounded."""
    return Quantity(round(float(value), digits) + 0.0, round(float(u), digits))


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def listed(serials: tuple[str, ...]) -> str:
    """Cameras in words."""
    if len(serials) < 2:
        return f"camera {serials[0]}" if serials else "no camera of its own"
    return f"cameras {', '.join(serials[:-1])} and {serials[-1]}"
