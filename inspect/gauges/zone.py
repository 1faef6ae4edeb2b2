"""The narrowest zone that holds points whose residuals may still be changed by some motions (ISO 1101).

With residuals `r` from where the motions were linearised and `J` what a unit of each motion adds to them, the width is

    min over c of  max(r + J^T c) - min(r + J^T c)

a linear programme in `c` and the zone's two borders. Its dual weights say how the width answers to each point: they add
up to one on either border.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog  # type: ignore[attr-defined]

from depthcell.errors import DepthcellError, Reason

FIRST_POINTS = 60
"""The programme starts on so many of the points, taken evenly, and takes in those that it leaves outside."""
MOST_ROUNDS = 60
OUTSIDE = 1e-9
"""Share of the first width by which a point may stand out of the zone found."""
MOST_ADDED = 20


@dataclass(frozen=True, slots=True, eq=False)
class Width:
    """A zone's width.

    Attributes:
        width_m: of the zone.
        gradient: (K,) change of the width per metre that each residual grows.
        motion: (P,) the motions taken.
    """

    width_m: float
    gradient: NDArray[np.float64]
    motion: NDArray[np.float64]


def narrowest(residual_m: NDArray[np.float64], motions: NDArray[np.float64]) -> Width:
    """The narrowest zone.

    Args:
        residual_m: (K,) metres.
        motions: (P, K) what a unit of each motion adds to the residuals; (0, K) for a zone that is held.

    Raises:
        DepthcellError: (`NOT_MEASURED`) the motions are not determined by the points.
    """
    high, low = int(np.argmax(residual_m)), int(np.argmin(residual_m))
    scale_m = float(residual_m[high] - residual_m[low])
    if len(motions) == 0 or scale_m == 0:
        gradient = np.zeros(len(residual_m))
        gradient[high] += 1.0
        gradient[low] -= 1.0
        return Width(scale_m, gradient, np.zeros(len(motions)))
    levers = np.sqrt(np.mean(np.square(motions), axis=1))
    found = _narrowest(residual_m / scale_m, motions / levers[:, None], {high, low})
    return Width(found.width_m * scale_m, found.gradient, found.motion * scale_m / levers)


def _narrowest(residual: NDArray[np.float64], motions: NDArray[np.float64], chosen: set[int]) -> Width:
    """Solve on some of the points, take in those that stand out the most, until none does."""
    count = len(residual)
    chosen |= set(np.linspace(0, count - 1, min(count, FIRST_POINTS)).astype(int).tolist())
    for _ in range(MOST_ROUNDS):
        places = np.array(sorted(chosen))
        borders, motion, weight = _programme(residual[places], motions[:, places])
        moved = residual + motion @ motions
        outside = np.maximum(moved - borders[1], borders[0] - moved)
        worst = np.argsort(outside)[-MOST_ADDED:]
        added = {int(place) for place in worst if outside[place] > OUTSIDE} - chosen
        if not added:
            gradient = np.zeros(count)
            gradient[places] = weight
            return Width(float(np.ptp(moved)), gradient, motion)
        chosen |= added
    raise DepthcellError("minimum zone: the points do not settle it", Reason.NOT_MEASURED)


def _programme(
    residual: NDArray[np.float64], motions: NDArray[np.float64]
) -> tuple[tuple[float, float], NDArray[np.float64], NDArray[np.float64]]:
    """Borders, motion, and the weight of each point, by scipy's HiGHS."""
    count, free = len(residual), len(motions)
    zero, one = np.zeros((count, 1)), np.ones((count, 1))
    limits = np.block([[motions.T, zero, -one], [-motions.T, one, zero]])
    cost = np.concatenate((np.zeros(free), [-1.0, 1.0]))
    bounds = np.concatenate((-residual, residual))
    solved = linprog(cost, A_ub=limits, b_ub=bounds, bounds=(None, None), method="highs-ds")
    if solved.status != 0:
        raise DepthcellError(f"minimum zone: {solved.message}", Reason.NOT_MEASURED)
    weight = np.asarray(solved.ineqlin.marginals)
    return (
        (float(solved.x[free]), float(solved.x[free + 1])),
        np.asarray(solved.x[:free]),
        -weight[:count] + weight[count:],
    )


def farthest(residual_m: NDArray[np.float64]) -> Width:
    """The zone that is held and lies on both sides of its middle alike: twice the largest residual."""
    place = int(np.argmax(np.abs(residual_m)))
    gradient = np.zeros(len(residual_m))
    gradient[place] = 2.0 * np.sign(residual_m[place])
    return Width(2.0 * abs(float(residual_m[place])), gradient, np.zeros(0))


def peak_to_valley(residual_m: NDArray[np.float64], motions: NDArray[np.float64]) -> Width:
    """The zone about the least-squares element: the span once `motions` (P, K) have made the squares least.

    With `H = I - J^T (J J^T)^-1 J` it is `max(H r) - min(H r)`; its gradient is that of the extremes, times H.
    """
    q, _ = np.linalg.qr(motions.T)
    left = residual_m - q @ (q.T @ residual_m)
    width = narrowest(left, np.zeros((0, len(left))))
    return Width(width.width_m, width.gradient - q @ (q.T @ width.gradient), width.motion)
