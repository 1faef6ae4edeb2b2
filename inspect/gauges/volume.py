"""Volume of material that is missing or in excess against the reference: its deviation summed over its surface."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from depthcell.acquisition.transform import FloatArray
from depthcell.fusion.influence import Influence
from depthcell.fusion.reference import Reference, SurfaceSamples
from depthcell.fusion.scan import Scan
from depthcell.inspect.deviation import mean_correlation
from depthcell.inspect.gauges.extraction import points_in_box, why_unseen
from depthcell.inspect.gauges.reading import Drawn, Quantity, Reading, not_measured
from depthcell.inspect.gauges.response import normal_pose_slope
from depthcell.inspect.gaugesections import VolumeGauge

LENGTHS_PER_PATCH = 2.0
"""Spacing of the patches in correlation lengths of the noise."""
FINEST_M = 5e-4
SIGNIFICANT = 3.0
"""A patch counts when it deviates by more than so many standard uncertainties: noise alone would add up otherwise."""
MIN_SEEN = 0.7
"""Share of what the cameras can see of the surface in the box that must have been measured."""
NEAR = 1.5
"""A point belongs to the nearest patch within so many spacings of its foot on the reference."""


def measure_volume(section: VolumeGauge, scan: Scan) -> Reading:
    """Volume between the measured surface and the reference, where it lies below ("missing") or above ("excess").

    `V = sum over patches of A_k |d_k|`: A_k the area of reference that patch k stands for, d_k the mean deviation of
    its points. Patches count that deviate by more than `threshold_mm`, and by more than three standard uncertainties of
    their mean; the others add nothing. On a reference of small curvature (deviation far below its radius) that is the
    volume between both surfaces.

    Raises:
        DepthcellError: (`NOT_MEASURED`) no reference, no surface in the box, or too little of it was seen.
    """
    if scan.reference is None:
        raise not_measured(section.name, "a volume is measured from the reference, and there is none; name one")
    points = points_in_box(section.min_mm, section.max_mm, scan.points_part)
    if len(points) == 0:
        raise not_measured(section.name, why_unseen(section.min_mm, section.max_mm, scan))
    spacing_m = max(LENGTHS_PER_PATCH * float(np.median(scan.cloud.correlation_m[points])), FINEST_M)
    patches = _patches(section, scan, scan.reference, spacing_m)
    lift_m, outward = scan.reference.signed_distance_and_gradient(scan.points_part[points])
    feet = scan.points_part[points] - lift_m[:, None] * outward
    nearest = KDTree(patches.points_part).query(feet, distance_upper_bound=NEAR * spacing_m)
    away_m, patch = np.asarray(nearest[0]), np.asarray(nearest[1], dtype=np.intp)
    facing = np.einsum("ij,ij->i", outward, scan.normals_part[points])
    kept = np.isfinite(away_m) & (facing > 0)
    points, lift_m, patch = points[kept], lift_m[kept], patch[kept]

    count = np.bincount(patch, minlength=len(patches.area_m2))
    seen = float(patches.area_m2[count > 0].sum() / patches.area_m2.sum())
    if seen < MIN_SEEN:
        raise not_measured(
            section.name, f"only {seen:.0%} of the surface in its box was measured, needs {MIN_SEEN:.0%}"
        )
    sign = -1.0 if section.of == "missing" else 1.0
    mean_m, u_m = _means(scan, points, lift_m, patch, count, spacing_m)
    limit_m = np.maximum(section.threshold_mm / 1e3, SIGNIFICANT * u_m)
    counted = (count > 0) & (sign * mean_m > limit_m)
    area_m2 = patches.area_m2.astype(np.float64)
    used = counted[patch]
    weight_m2 = sign * area_m2[patch[used]] / count[patch[used]]
    influence = Influence.of(
        points[used],
        weight_m2 * facing[kept][used],
        normal_pose_slope(points[used], weight_m2, outward[kept][used], scan),
    )
    volume_m3 = float((area_m2 * sign * mean_m)[counted].sum())
    note = (
        f"{int(counted.sum())} of {int((count > 0).sum())} patches of {spacing_m * 1e3:.2g} mm, {seen:.0%} of the "
        f"surface seen; smaller deviations than {float(np.median(limit_m[count > 0])) * 1e3:.2g} mm do not count"
    )
    shown = Drawn(section.of, points[used], lift_m=lift_m[used])
    choice = ("choice of the patches", _choice_u(area_m2, mean_m, limit_m, u_m, count > 0))
    return Reading(volume_m3, Quantity.VOLUME, influence, (shown,), note, extra_u=(choice,))


def _patches(section: VolumeGauge, scan: Scan, reference: Reference, spacing_m: float) -> SurfaceSamples:
    """Places of the reference in the box that a camera can see."""
    samples = reference.surface_samples(spacing_m)
    inside = points_in_box(section.min_mm, section.max_mm, samples.points_part)
    at, normals = samples.points_part[inside], samples.normals_part[inside]
    T_part_cell = scan.T_cell_part.inverse()
    in_sight = np.zeros(len(inside), np.bool_)
    for serial in scan.cloud.serials:
        camera_part = T_part_cell @ scan.cell.camera(serial).T_cell_depth.translation_m
        in_sight |= reference.visible(at, normals, np.asarray(camera_part))
    if not in_sight.any():
        raise not_measured(section.name, "no camera can see any surface of the reference in its box")
    return SurfaceSamples(at[in_sight], normals[in_sight], samples.area_m2[inside][in_sight])


def _means(
    scan: Scan,
    points: NDArray[np.intp],
    lift_m: FloatArray,
    patch: NDArray[np.intp],
    count: NDArray[np.intp],
    spacing_m: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean deviation of each patch (0 without points) and its standard uncertainty from noise (see `deviation`)."""
    many = np.maximum(count, 1)
    mean_m = np.bincount(patch, lift_m, len(count)) / many
    sigma2_m2 = np.bincount(patch, scan.cloud.random_sigma_m[points].astype(np.float64) ** 2, len(count)) / many
    length_m = np.bincount(patch, scan.cloud.correlation_m[points], len(count)) / many
    alike = mean_correlation(length_m, spacing_m / math.sqrt(math.pi))
    return mean_m, np.sqrt(sigma2_m2 * (1 + (many - 1) * alike) / many)


def _choice_u(
    area_m2: NDArray[np.float64],
    mean_m: NDArray[np.float64],
    limit_m: NDArray[np.float64],
    u_m: NDArray[np.float64],
    seen: NDArray[np.bool_],
) -> float:
    """Standard uncertainty from patches so near to the limit that noise decides whether they count.

    Each is a coin (GUM 4.3.7: half of its volume, standard deviation of two equal values). Where there is none, one
    patch at the limit stands for what would not have been seen.
    """
    undecided = seen & (np.abs(np.abs(mean_m) - limit_m) < u_m)
    if not undecided.any():
        return float(np.median((area_m2 * limit_m)[seen])) / 2
    return float(np.sqrt(np.square(area_m2 * limit_m)[undecided].sum())) / 2
