"""Regions become findings: how deep, how large and where, each with its uncertainty, and what to call it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.inspect.color_check import ColorScore
from depthcell.inspect.correlated_fit import evenly, fit_linear, noise_covariance
from depthcell.inspect.decision import COVERAGE_FACTOR
from depthcell.inspect.deviation import DeviationScales, mean_correlation
from depthcell.inspect.naming import Shape, color_kind, region_shape, shape_kind
from depthcell.inspect.observation import Observation
from depthcell.inspect.patch_regions import GROWING, PatchRegion
from depthcell.inspect.recipe import BoreSection
from depthcell.inspect.shape_check import ShapeScore
from depthcell.inspect.verdict import Finding, Position, Quantity

FIT_SHARE = 0.45
"""Radius of the patch of surface that is fitted about an extreme, in radii of the region."""

FIT_RADIUS_M = (0.002, 0.006)
"""Limits of that radius."""

RESOLUTION_SHARE = 0.5
"""Uncertainty of the correction for the matching window, as a share of it."""

CAMERA_SHARE = 0.05
"""A camera saw a finding if it weighs most in at least this share of its points."""

MM = 1e3


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What a part's findings are measured on.

    Attributes:
        observation: the part.
        scales: averages over the surface.
        shape: its shape against good parts.
        good_mean_m: (K,) deviation that good parts have, 0 where unknown.
        colors: serial number -> its colour against good parts.
    """

    observation: Observation
    scales: DeviationScales
    shape: ShapeScore
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
    depth = _extreme(region, evidence)
    kind = shape_kind(shape, evidence.shape.excess_m[0], region, surface)
    points = _points_of(region, evidence.observation)
    cameras = _cameras_in_depth(points, evidence.observation)
    area = _quantity(*_area_mm2(region, shape, evidence), digits=1)
    text = (
        f"{_words(kind)} {abs(depth.value):.2f} ± "
        f"{COVERAGE_FACTOR * depth.u:.2f} mm {'deep' if depth.value < 0 else 'high'}, {area.value:.0f} mm², "
        f"{region.significance:.0f} sigma, seen in depth{' and colour' if in_color else ''} by {_listed(cameras)}"
    )
    finding = Finding(
        kind=kind,
        depth_mm=depth,
        area_mm2=area,
        volume_mm3=_volume(region, evidence),
        position_mm=_position(region, shape, evidence),
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
    depth = _quantity(
        evidence.observation.deviation.points.deviation_m[farthest] * MM, float(cloud.sigma_m[farthest]) * MM
    )
    region = PatchRegion(_within(bore, surface.points_part, 1.3), abs(depth.value) / max(depth.u, 1e-9))
    area_mm2 = math.pi * (bore.diameter_mm / 2) ** 2
    area = _quantity(area_mm2, math.pi * bore.diameter_mm * surface.spacing_m * MM / math.sqrt(12), digits=1)
    cameras = _cameras_in_depth(points, evidence.observation)
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
        text=f"missing bore ({bore.name}), {area.value:.0f} mm² closed, seen in depth by {_listed(cameras)}",
    )
    return Found(finding, region, points)


def _within(bore: BoreSection, points_part: FloatArray, radii: float) -> NDArray[np.intp]:
    """Indices of points about a bore's mouth, up to so many radii from its axis."""
    offset = points_part - bore.position_m
    height_m = offset @ bore.direction
    distance_m = np.linalg.norm(offset - height_m[:, None] * bore.direction, axis=1)
    return np.flatnonzero((distance_m < radii * bore.radius_m) & (np.abs(height_m) < bore.radius_m))


def color_finding(region: PatchRegion, evidence: Evidence, significance: float) -> Found:
    """Measure and name one region of different colour."""
    surface = evidence.scales.surface
    scores = {serial: np.nan_to_num(score.largest[region.patches]) for serial, score in evidence.colors.items()}
    cameras = tuple(serial for serial, score in scores.items() if score.max() >= significance)
    cameras = cameras or (max(scores, key=lambda serial: float(scores[serial].max())),)
    best = evidence.colors[max(scores, key=lambda serial: float(scores[serial].max()))]
    shape = region_shape(region, surface, best.largest)
    kind = color_kind(shape, best, region)
    area = _quantity(shape.area_m2 * MM**2, _outline_u_m2(shape, surface.spacing_m) * MM**2, digits=1)
    text = (
        f"{_words(kind)} {area.value:.0f} ± {COVERAGE_FACTOR * area.u:.0f} mm², {shape.length_m * MM:.0f} mm long, "
        f"{region.significance:.0f} sigma, seen in colour by {_listed(cameras)}"
    )
    finding = Finding(
        kind=kind,
        depth_mm=None,
        area_mm2=area,
        volume_mm3=None,
        position_mm=_position(region, shape, evidence),
        sigma=round(region.significance, 1),
        source="color",
        cameras=cameras,
        text=text,
    )
    return Found(finding, region, _points_of(region, evidence.observation))


def _extreme(region: PatchRegion, evidence: Evidence) -> Quantity:
    """Signed deviation at the region's extreme, mm.

    The place is that of the largest mean over a couple of millimetres, so that it is not picked for its noise. There a
    quadric is fitted to the single points by generalised least squares; its stationary value is the extreme. The
    matching window that makes neighbours' noise alike (a Gaussian of variance l²/4 per axis gives noise that correlates
    as exp(-d²/l²)) has flattened the shape by l²/8 times its Laplacian, which is put back.
    """
    surface, score = evidence.scales.surface, evidence.shape
    coarse = min(1, len(score.excess_m) - 1)
    ranked = np.nan_to_num(np.abs(score.excess_m[coarse][region.patches]))
    peak = int(region.patches[np.argmax(ranked)])
    radius_m = float(np.clip(FIT_SHARE * math.sqrt(_area_m2(region, surface) / math.pi), *FIT_RADIUS_M))
    fitted = _fitted_extreme(peak, radius_m, evidence)
    shared_m = _shared_u_m(peak, evidence)
    if fitted is None:
        fine = int(np.argmax(np.isfinite(score.excess_m[:, peak])))
        return _quantity(score.excess_m[fine, peak] * MM, score.u_m[fine, peak] * MM)
    return _quantity(fitted[0] * MM, math.hypot(fitted[1], shared_m) * MM)


def _fitted_extreme(peak: int, radius_m: float, evidence: Evidence) -> tuple[float, float] | None:
    """Stationary value near a patch and its uncertainty from noise and resolution, metres; None with too few points."""
    surface, cloud = evidence.scales.surface, evidence.observation.fused.cloud
    patch, deviation_m = evidence.observation.deviation.points.patch, evidence.observation.deviation.points.deviation_m
    centre = surface.points_part[peak]
    near_patch = np.linalg.norm(surface.points_part - centre, axis=1) < radius_m
    near_patch &= surface.normals_part @ surface.normals_part[peak] > 0.7
    candidates = np.flatnonzero(near_patch[patch] & (patch >= 0))
    if len(candidates) < 24:
        return None
    chosen = candidates[evenly(len(candidates))]
    points = evidence.observation.deviation.points.points_part[chosen]
    u, v = ((points - centre) @ _tangents(surface.normals_part[peak])).T
    design = np.column_stack((np.ones(len(u)), u, v, u * u, u * v, v * v))
    correlation_m = cloud.correlation_m[chosen].astype(np.float64)
    covariance = noise_covariance(points, cloud.random_sigma_m[chosen].astype(np.float64), correlation_m)
    excess_m = deviation_m[chosen] - evidence.good_mean_m[patch[chosen]]
    try:
        fit = fit_linear(design, excess_m, covariance)
    except np.linalg.LinAlgError:
        return None
    at = _stationary(fit.parameters, limit_m=radius_m / 3)
    sharpened = np.array([1.0, *at, at[0] ** 2, at[0] * at[1], at[1] ** 2])
    restored = np.zeros(6)
    restored[[3, 5]] = -2.0 * float(np.median(correlation_m)) ** 2 / 8.0
    correction_m = float(restored @ fit.parameters)
    combined = sharpened + restored
    variance = float(combined @ fit.covariance @ combined)
    return float(combined @ fit.parameters), math.hypot(math.sqrt(variance), RESOLUTION_SHARE * correction_m)


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


def _area_mm2(region: PatchRegion, shape: Shape, evidence: Evidence) -> tuple[float, float]:
    """Area and its uncertainty: where the outline runs depends on the threshold, by half a step of significance."""
    significance = np.nan_to_num(np.abs(evidence.shape.significance[0][region.patches]))
    area_m2 = evidence.scales.surface.area_m2[region.patches]
    doubtful_m2 = float(area_m2[significance < GROWING + 1.0].sum())
    u_m2 = math.hypot(doubtful_m2 / math.sqrt(12), _outline_u_m2(shape, evidence.scales.surface.spacing_m))
    return shape.area_m2 * MM**2, u_m2 * MM**2


def _outline_u_m2(shape: Shape, spacing_m: float) -> float:
    """Area that an outline through patches leaves open: each border patch by a rectangular share (GUM 4.3.7)."""
    border_patches = max(2.0 * (shape.length_m + shape.width_m) / spacing_m, 4.0)
    return spacing_m**2 * math.sqrt(border_patches / 12.0) + spacing_m * shape.width_m / math.sqrt(12)


def _volume(region: PatchRegion, evidence: Evidence) -> Quantity:
    """Integral of the deviation over the region; noise is alike over its correlation length, all else everywhere."""
    surface = evidence.scales.surface
    area_m2, excess_m = surface.area_m2[region.patches], evidence.shape.excess_m[0][region.patches]
    seen = np.isfinite(excess_m)
    if not seen.any():
        return Quantity(0.0, 0.0)
    volume_m3 = float((area_m2 * excess_m)[seen].sum() * area_m2.sum() / area_m2[seen].sum())
    noise_m = float(np.sqrt(np.mean(evidence.shape.u_m[0][region.patches][seen] ** 2)))
    correlation_m = float(np.median(evidence.observation.fused.cloud.correlation_m))
    alike = float(mean_correlation(np.array(correlation_m), math.sqrt(area_m2.sum() / math.pi)))
    middle = int(region.patches[seen][np.argmax(np.abs(excess_m[seen]))])
    u_m = math.hypot(noise_m * math.sqrt(min(alike + 1.0 / seen.sum(), 1.0)), _shared_u_m(middle, evidence))
    return _quantity(volume_m3 * MM**3, u_m * float(area_m2.sum()) * MM**3, digits=2)


def _position(region: PatchRegion, shape: Shape, evidence: Evidence) -> Position:
    """Centre of the region, frame "part", mm; uncertain by its outline and by where the part lies."""
    pose_m2 = np.diag(evidence.observation.alignment.covariance)[3:]
    outline_m = math.hypot(shape.length_m, shape.width_m) / math.sqrt(12 * max(len(region.patches), 1))
    u_mm = np.sqrt(pose_m2 + outline_m**2 + evidence.scales.surface.spacing_m**2 / 12) * MM
    x, y, z = (round(float(value), 3) + 0.0 for value in shape.centre_m * MM)
    ux, uy, uz = (round(float(value), 3) for value in u_mm)
    return Position((x, y, z), (ux, uy, uz))


def _points_of(region: PatchRegion, observation: Observation) -> NDArray[np.intp]:
    within = np.zeros(len(observation.deviation.count) + 1, dtype=bool)
    within[region.patches] = True
    return np.flatnonzero(within[observation.deviation.points.patch])


def _cameras_in_depth(points: NDArray[np.intp], observation: Observation) -> tuple[str, ...]:
    cloud = observation.fused.cloud
    if not len(points):
        return ()
    share = np.bincount(cloud.camera[points], minlength=len(cloud.serials)) / len(points)
    return tuple(serial for serial, part in zip(cloud.serials, share, strict=True) if part >= CAMERA_SHARE)


def _area_m2(region: PatchRegion, surface: Any) -> float:
    return float(surface.area_m2[region.patches].sum())


def _tangents(normal: FloatArray) -> NDArray[np.float64]:
    """(3, 2) two unit vectors across a normal."""
    first = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal))])
    first /= np.linalg.norm(first)
    return np.stack((first, np.cross(normal, first)), axis=1)


def _quantity(value: float, u: float, digits: int = 4) -> Quantity:
    return Quantity(round(float(value), digits) + 0.0, round(float(u), digits))


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _listed(serials: tuple[str, ...]) -> str:
    if len(serials) < 2:
        return f"camera {serials[0]}" if serials else "no camera of its own"
    return f"cameras {', '.join(serials[:-1])} and {serials[-1]}"
