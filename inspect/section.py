"""What all sections of a recipe share: they are frozen, refuse unknown fields, and speak millimetres and degrees."""

import math
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Name = Annotated[str, Field(min_length=1, max_length=80)]
Vector = tuple[Finite, Finite, Finite]


class Section(BaseModel):
    """One table of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def checked_direction(direction: Vector) -> Vector:
    """A direction as people write it, refused where it has no length."""
    if math.hypot(*direction) < 1e-9:
        raise ValueError("must not be of zero length; give a direction such as [0, 0, 1]")
    return direction


def unit_vector(direction: Vector) -> NDArray[np.float64]:
    """(3,) of unit length."""
    return np.array(direction, dtype=np.float64) / math.hypot(*direction)


def metres(vector_mm: Vector) -> NDArray[np.float64]:
    """(3,) millimetres as metres."""
    return np.array(vector_mm, dtype=np.float64) / 1000.0
