"""Thickness of a wall that was seen from both sides."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.fusion.association.elements import across
from depthcell.fusion.influence import Influence
from depthcell.fusion.noisecorrelation import noise_variance
from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.extraction import FEWEST, points_in_box, why_unseen
from depthcell.inspect.gauges.reading import Drawn, Quantity, Reading, not_measured
from depthcell.inspect.gaugesections import ThicknessGauge
from depthcell.inspect.section import unit_vector

FACING = math.cos(math.radians(40.0))
"""A point belongs to a side when its normal is within 40 degrees of the direction, or of its opposite."""
LENGTHS_PER_CELL = 2.5
"""Side of the cells that both sides are averaged over, in correlation lengths of the noise."""
POINTS_APART = 3.0
"""The least side, in distances between neighbouring points: about nine points to a cell."""
FEWEST_IN_CELL = 4


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """Points of one side: (K,) indices into the cloud, the cell each falls in, and its height along the direction.

    `lift` (K,) is the change of the height, at a fixed place across, per metre along the point's normal.
    """

    points: NDArray[np.intp]
    cell: NDArray[np.intp]
    height_m: NDArray[np.float64]
    lift: NDArray[np.float64]


def measure_thickness(section: ThicknessGauge, scan: Scan) -> Reading:
    """Thickness along `direction`: height of the near side over the far side, cell by cell.

    Cells are squares across the direction in which both sides have points; a cell's thickness is the difference of the
    mean heights. "mean" is that of all cells. "smallest" is the least of them after they were drawn towards their mean
    so far that their scatter is what their noise does not explain (empirical Bayes; Louis, Journal of the American
    Statistical Association 79 (1984) 393): the least of many noisy values would be too small.

    Raises:
        DepthcellError: (`NOT_MEASURED`) a side was not seen, or the two have no cell in common.
    """
    inside = points_in_box(section.min_mm, section.max_mm, scan.points_part)
    if len(inside) == 0:
        raise not_measured(section.name, why_unseen(section.min_mm, section.max_mm, scan))
    direction = unit_vector(section.direction)
    near, far = _sides(section.name, inside, direction, scan)
    count_near, count_far = (np.bincount(side.cell, minlength=_cells(near, far)) for side in (near, far))
    both = np.flatnonzero((count_near >= FEWEST_IN_CELL) & (count_far >= FEWEST_IN_CELL)).tolist()
    if len(both) == 0:
        raise not_measured(section.name, "its two sides were seen, but nowhere opposite to each other")
    values_m = np.array([_mean_height(near, cell) - _mean_height(far, cell) for cell in both])
    influences = [_influence(near, far, cell) for cell in both]
    mean_m = float(values_m.mean())
    overall = _mean_influence(near, far, both)
    shown = (_drawn("near side", near, both), _drawn("far side", far, both))
    note = f"{section.statistic} of {len(both)} cells"
    if section.statistic == "mean" or len(both) == 1:
        return Reading(mean_m, Quantity.LENGTH, overall, shown, note)
    noise2_m2 = np.array([noise_variance(scan.cloud, scan.cell, i.points, i.gradient) for i in influences])
    scatter_m2 = float(values_m.var(ddof=1))
    keep = math.sqrt(max(0.0, 1.0 - float(noise2_m2.mean()) / scatter_m2)) if scatter_m2 > 0 else 0.0
    place = int(np.argmin(values_m))
    value_m = mean_m + keep * (values_m[place] - mean_m)
    noise_u_m = math.hypot(keep * math.sqrt(noise2_m2[place]), (1 - keep) * float(values_m.std(ddof=1)))
    influence = overall.scaled(1 - keep) + influences[place].scaled(keep)
    note += f", each drawn to their mean by {1 - keep:.0%} for its noise"
    return Reading(value_m, Quantity.LENGTH, influence, shown, note, noise_u=noise_u_m)


def _sides(gauge: str, inside: NDArray[np.intp], direction: FloatArray, scan: Scan) -> tuple[_Side, _Side]:
    facing = scan.normals_part[inside] @ direction
    chosen = {"near": inside[facing > FACING], "far": inside[facing < -FACING]}
    for name, points in chosen.items():
        if len(points) < FEWEST:
            towards = "along" if name == "near" else "against"
            raise not_measured(
                gauge,
                f"{len(points)} points of the {name} side (facing {towards} direction), needs {FEWEST}: no camera saw "
                "that side of the wall; thickness needs both",
            )
    plane = np.stack(across(direction), axis=1)
    noise_m = LENGTHS_PER_CELL * float(np.median(scan.cloud.correlation_m[inside]))
    side_m = max(noise_m, *(POINTS_APART * _spacing(scan.points_part[points] @ plane) for points in chosen.values()))
    placed = {
        name: np.floor(scan.points_part[points] @ plane / side_m).astype(np.int64) for name, points in chosen.items()
    }
    _, cell = np.unique(np.concatenate(list(placed.values())), axis=0, return_inverse=True)
    cells = np.split(cell.ravel().astype(np.intp), [len(chosen["near"])])
    near, far = (
        _Side(
            points,
            own,
            scan.points_part[points] @ direction,
            1.0 / (scan.normals_part[points] @ direction),
        )
        for points, own in zip(chosen.values(), cells, strict=True)
    )
    return near, far


def _spacing(places: FloatArray) -> float:
    """Distance of neighbouring points (K, 2), from the area that they cover."""
    return math.sqrt(float(np.prod(np.ptp(places, axis=0))) / len(places))


def _cells(near: _Side, far: _Side) -> int:
    return int(max(near.cell.max(), far.cell.max())) + 1


def _mean_height(side: _Side, cell: int) -> float:
    return float(side.height_m[side.cell == cell].mean())


def _influence(near: _Side, far: _Side, cell: int) -> Influence:
    parts = []
    for side, sign in ((near, 1.0), (far, -1.0)):
        own = side.cell == cell
        parts.append(Influence.of(side.points[own], sign * side.lift[own] / own.sum()))
    return parts[0] + parts[1]


def _mean_influence(near: _Side, far: _Side, both: list[int]) -> Influence:
    parts = []
    for side, sign in ((near, 1.0), (far, -1.0)):
        own = np.isin(side.cell, both)
        count = np.bincount(side.cell)[side.cell[own]]
        parts.append(Influence.of(side.points[own], sign * side.lift[own] / count / len(both)))
    return parts[0] + parts[1]


def _drawn(name: str, side: _Side, both: list[int]) -> Drawn:
    return Drawn(name, np.sort(side.points[np.isin(side.cell, both)]))
