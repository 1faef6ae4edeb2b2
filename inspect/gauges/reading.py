"""What a gauge hands on: a value in SI units, how it answers to what was measured, and what to draw of it."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.association.elements import Element
from depthcell.fusion.influence import Influence


class Quantity(StrEnum):
    """What is measured; the value names its SI unit, people read mm, deg, mm³."""

    LENGTH = "m"
    ANGLE = "rad"
    VOLUME = "m3"


PEOPLES_UNIT = {Quantity.LENGTH: "mm", Quantity.ANGLE: "deg", Quantity.VOLUME: "mm3"}
PEOPLES_FACTOR = {Quantity.LENGTH: 1e3, Quantity.ANGLE: 180.0 / np.pi, Quantity.VOLUME: 1e9}
"""SI to people's unit."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """What a picture shows of a gauge.

    Attributes:
        name: of the feature, or of the construction.
        points: (K,) intp, indices into the scan's cloud.
        element: the associated element in the frame "part", or None.
        segment_part: (2, 3) metres, the stretch that the value is the length of, frame "part"; None where the value is
            no length between two places.
        curve_part: (M, 2, 3) line pieces of a profile, frame "part"; empty without.
        lift_m: (K,) signed deviation of the points from the element, for colours; empty where none is meant.
    """

    name: str
    points: NDArray[np.intp]
    element: Element | None = None
    segment_part: NDArray[np.float64] | None = None
    curve_part: NDArray[np.float64] | None = None
    lift_m: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One gauge's value and all its uncertainty rests on.

    Attributes:
        value: in the unit of `quantity`.
        quantity: what was measured.
        influence: on points and pose, to first order.
        noise_u: standard uncertainty from noise, same unit, where noise does not act to first order (the width of a
            minimum zone): then it stands in place of what `influence` would give for noise; calibration and pose still
            go by `influence`. None where the first order is right.
        extra_u: standard uncertainties of what lies beyond points and pose, by name, same unit: "sampling",
            "edge of the window" ...; each independent of the others.
        drawn: what to show.
        note: how it came about, in words: "minimum zone over 4213 points, filter 2.5 mm".
    """

    value: float
    quantity: Quantity
    influence: Influence
    drawn: tuple[Drawn, ...]
    note: str
    noise_u: float | None = None
    extra_u: tuple[tuple[str, float], ...] = ()


def not_measured(name: str, why: str) -> DepthcellError:
    """The refusal of a gauge that has nothing to measure: it becomes CANNOT-TELL with this reason, never a number."""
    return DepthcellError(f"{name}: {why}", Reason.NOT_MEASURED)
