"""Values made of associated elements, and how they answer to the points.

A value is a function of elements. Its slope in each element's local coordinates is taken by central differences at that
very place, and carried on to the points by the element's own gain (GUM 5.1.3, note 2, allows sensitivities by
differences).
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from depthcell.fusion.association.changes import moved
from depthcell.fusion.association.elements import Element
from depthcell.fusion.influence import Influence, combined
from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.extraction import Found

STEP = 1e-6
"""Of local coordinates, m or rad: differences of values below a metre are then good to nine digits."""

Value = Callable[[Sequence[Element]], float]


def answered(value: Value, features: Sequence[Found]) -> tuple[float, Influence]:
    """A value of the features' elements, and its influence by their points alone.

    Args:
        value: takes the elements in order, in the frame "part"; smooth where it is asked.
        features: whose elements.
    """
    elements = [feature.element for feature in features]
    parts = [
        feature.influence(_slope(value, elements, number, len(feature.associated.gain)))
        for number, feature in enumerate(features)
    ]
    return float(value(elements)), combined(parts)


def _slope(value: Value, elements: Sequence[Element], number: int, freedoms: int) -> NDArray[np.float64]:
    """(P,) change of the value per local coordinate of one of the elements."""
    slope = np.zeros(freedoms)
    for k in range(freedoms):
        local = STEP * np.eye(freedoms)[k]
        ends = [_replaced(elements, number, moved(elements[number], sign * local)) for sign in (1.0, -1.0)]
        slope[k] = (value(ends[0]) - value(ends[1])) / (2 * STEP)
    return slope


def normal_pose_slope(
    points: NDArray[np.intp], gradient: NDArray[np.float64], normals_part: NDArray[np.float64], scan: Scan
) -> NDArray[np.float64]:
    """(6,) change per twist of `T_cell_part` of what changes by `gradient` (K,) as points move along `normals_part`.

    Turning the part by w about the cell's origin and shifting it by t moves a point that stays in the cell by
    `-(w x p + t)` against the part.
    """
    normals_cell = scan.T_cell_part.rotate(normals_part)
    lever = np.cross(scan.cloud.points_cell[points], normals_cell)
    return np.asarray(-gradient @ np.hstack((lever, normals_cell)), dtype=np.float64)


def _replaced(elements: Sequence[Element], number: int, element: Element) -> list[Element]:
    return [element if place == number else other for place, other in enumerate(elements)]
