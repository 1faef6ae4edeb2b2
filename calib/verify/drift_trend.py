"""A camera that still warms up, or was bumped meanwhile: the depth of a resting scene over time."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.calib.conformity import COVERAGE_FACTOR
from depthcell.errors import DepthcellError

FEWEST_FRAMES = 8
SIGNIFICANT = 4.0
"""Sizes of slope or jump over their standard uncertainty from which on they are taken for real."""


@dataclass(frozen=True, slots=True)
class DepthTrend:
    """How the depth of a resting scene goes, as a share of itself.

    Attributes:
        serial: the camera.
        slope_per_min, u_slope_per_min: straight line over time, and its standard uncertainty.
        jump, u_jump: largest step between two frames that a line does not explain.
        jump_at_s: when, from the first frame.
        span_s: time covered.
        negligible_per_min, negligible_jump: below which nobody minds.
    """

    serial: str
    slope_per_min: float
    u_slope_per_min: float
    jump: float
    u_jump: float
    jump_at_s: float
    span_s: float
    negligible_per_min: float
    negligible_jump: float

    @property
    def jumped(self) -> bool:
        """Whether something moved suddenly."""
        return abs(self.jump) > max(SIGNIFICANT * self.u_jump, self.negligible_jump)

    @property
    def is_running(self) -> bool:
        """Whether depth still runs away, as while warming up."""
        real = abs(self.slope_per_min) > SIGNIFICANT * self.u_slope_per_min
        return not self.jumped and real and abs(self.slope_per_min) > self.negligible_per_min

    @property
    def in_words(self) -> str:
        """For a person."""
        if self.jumped:
            u = COVERAGE_FACTOR * self.u_jump
            return (
                f"camera {self.serial}: depth jumped by {self.jump:+.2e} ± {u:.1e} of itself after "
                f"{self.jump_at_s:.1f} s: camera or scene was bumped; record again, then check the cell"
            )
        u = COVERAGE_FACTOR * self.u_slope_per_min
        text = f"camera {self.serial}: depth runs by {self.slope_per_min:+.1e} ± {u:.1e} of itself a minute"
        return f"{text}: it still warms up; wait, then check again" if self.is_running else f"{text}, which is steady"


def depth_trend(
    serial: str, times_s: FloatArray, depths: FloatArray, negligible_per_min: float, negligible_jump: float
) -> DepthTrend:
    """Slope and largest step of a series.

    The slope is that of least squares; its uncertainty takes the residuals' correlation from one frame to the next, r,
    into account by a factor `sqrt((1 + r) / (1 - r))` (a first-order autoregressive process). A step at frame k is the
    difference of the means before and after it, less what the line through either side's own frames makes of the time
    between them; the k that leaves the smallest sum of squares is taken, and it counts as a jump only where a step
    alone explains the series better than a line alone.

    Args:
        serial: the camera.
        times_s: (N,) ascending.
        depths: (N,) the scene's depth over that of the first frames.
        negligible_per_min: slope, a share a minute, that nobody minds.
        negligible_jump: step, as a share, that nobody minds.

    Raises:
        DepthcellError: too few frames.
    """
    if len(times_s) < FEWEST_FRAMES:
        raise DepthcellError(
            f"camera {serial}: {len(times_s)} frames tell no trend, {FEWEST_FRAMES} are needed; record a minute"
        )
    minutes = np.asarray(times_s, dtype=np.float64) / 60
    minutes = minutes - minutes.mean()
    values = np.asarray(depths, dtype=np.float64)
    slope = float(minutes @ values / (minutes @ minutes))
    left = values - values.mean() - slope * minutes
    u_slope = _spread(left, 2) * _stretch(left) / math.sqrt(float(minutes @ minutes))
    place, squares = _best_step(values)
    step = float(values[place:].mean() - values[:place].mean())
    after = np.where(np.arange(len(values)) < place, values[:place].mean(), values[place:].mean())
    u_step = _spread(values - after, 3) * _stretch(values - after) * math.sqrt(1 / place + 1 / (len(values) - place))
    explains = squares < float(left @ left)
    return DepthTrend(
        serial=serial,
        slope_per_min=slope,
        u_slope_per_min=u_slope,
        jump=step if explains else 0.0,
        u_jump=u_step,
        jump_at_s=float(times_s[place] - times_s[0]),
        span_s=float(times_s[-1] - times_s[0]),
        negligible_per_min=negligible_per_min,
        negligible_jump=negligible_jump,
    )


def _best_step(values: NDArray[np.float64]) -> tuple[int, float]:
    """First frame after the step that leaves the smallest sum of squares, two frames from either end, and that sum."""
    count = len(values)
    places = np.arange(2, count - 1)
    sums, squares = np.cumsum(values), np.cumsum(values**2)
    before = squares[places - 1] - sums[places - 1] ** 2 / places
    after = (squares[-1] - squares[places - 1]) - (sums[-1] - sums[places - 1]) ** 2 / (count - places)
    best = int(np.argmin(before + after))
    return int(places[best]), float((before + after)[best])


def _spread(left: NDArray[np.float64], used: int) -> float:
    return math.sqrt(float(left @ left) / max(len(left) - used, 1))


def _stretch(left: NDArray[np.float64]) -> float:
    """Factor on an uncertainty for residuals that go on from frame to frame."""
    square = float(left @ left)
    again = float(left[1:] @ left[:-1]) / square if square > 0 else 0.0
    again = min(max(again, 0.0), 0.95)
    return math.sqrt((1 + again) / (1 - again))
