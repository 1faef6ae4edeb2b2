"""The surface whose largest residual is least: Chebyshev's problem, by linear programmes on few of the points.

Each step linearises where the last one led and solves `min t, s_j (r_j + J_j . p) <= t` within a trust region (Madsen,
"An algorithm for minimax solution of overdetermined systems of non-linear equations", J. Inst. Maths Applics 16 (1975)
321), with only those points that stand out; whatever the solution leaves outside is taken in. At a corner of the
constraints, where as many points touch as there are unknowns, that converges quadratically; where fewer touch and the
surface's curvature holds the rest, the trust region closes in.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog  # type: ignore[attr-defined]

from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.association.changes import change, moved
from depthcell.fusion.association.elements import Plane
from depthcell.fusion.association.misfit import Freedom, Misfit, Surface, levers, misfit, recentred

TAKEN_IN = 12
"""So many of the points that stand out the most are taken in at a time, on each side."""
SETTLED_M = 1e-11
"""A step that would gain less than this is the last one."""
TOUCHING_M = 1e-9
"""A point this close to the border touches it."""
CLOSEST_M = 1e-9
"""The smallest trust region."""
MOST_STEPS = 200
FARTHEST = 0.3
"""Share of its radius by which a round surface may wander from its start."""
TRUSTED = (0.25, 0.75)
"""Share of the gain promised below which the trust region shrinks, and from which on it grows (Fletcher, Practical
Methods of Optimization, 1987, 5.1)."""


@dataclass(frozen=True, slots=True, eq=False)
class Minimax:
    """Points and what of a surface may change.

    Attributes:
        points: (N, 3) metres.
        side: of a cylinder or a sphere, as `misfit` takes it.
        freedom: the changes looked for.
        signs: whose largest value is made least: of the residual (1,), of its negative (-1,), or of both.
        resized: whether the radius is looked for too.
    """

    points: NDArray[np.float64]
    side: float
    freedom: Freedom
    signs: tuple[float, ...] = (1.0, -1.0)
    resized: bool = True

    def spanned(self, surface: Surface) -> NDArray[np.float64]:
        """(P, F): changes looked for, each moving the surface by about 1 m per unit."""
        directions = self.freedom.directions(surface)
        if not self.resized:
            directions = directions[:, :-1]
        return np.asarray(levers(surface, self.points)[:, None] * directions)

    def rows(self, at: Misfit) -> NDArray[np.float64]:
        """(S, N): what is to be made small."""
        return np.asarray(np.array(self.signs)[:, None] * at.residual_m)

    def bound(self, surface: Surface) -> float:
        """The largest of it."""
        return float(self.rows(misfit(surface, self.points, self.side)).max())


@dataclass(frozen=True, slots=True, eq=False)
class Contact:
    """The solution.

    Attributes:
        surface: best.
        bound_m: the least largest value.
        touching: (A,) intp, the points that touch the border, one of them perhaps on both.
        signs: (A,) on which border.
        weight: (A,) dual weights, none negative, sum 1: change of `bound_m` per metre of the point's own value.
        response: (P, A) change of the surface's local coordinates per metre of the touching points' residuals.
    """

    surface: Surface
    bound_m: float
    touching: NDArray[np.intp]
    signs: NDArray[np.float64]
    weight: NDArray[np.float64]
    response: NDArray[np.float64]


def solve(problem: Minimax, start: Surface) -> Contact:
    """The least bound near a start.

    Raises:
        DepthcellError: (`NOT_MEASURED`) nothing bounds it, such as a circle inscribed in less than half a ring.
    """
    surface, trust = start, max(10 * abs(problem.bound(start)), 1e-5)
    widest = trust
    taken = np.zeros((len(problem.signs), len(problem.points)), dtype=bool)
    for _ in range(MOST_STEPS):
        at = misfit(surface, problem.points, problem.side)
        rows = problem.rows(at)
        taken |= _outstanding(rows)
        spanned = problem.spanned(surface)
        step, promised, _ = _programme(rows, problem, at, spanned, taken, trust)
        trial = problem.freedom.held(moved(surface, spanned @ step))
        reached = problem.rows(misfit(trial, problem.points, problem.side))
        gain, kept = float(rows.max()) - promised, float(rows.max() - reached.max())
        if (gain <= SETTLED_M and reached[~taken].max(initial=-np.inf) <= rows.max()) or trust < CLOSEST_M:
            return _contact(problem, trial if kept >= 0 else surface, taken)
        if reached[taken].max() > rows.max() - TRUSTED[0] * gain:  # it curves more than the step allowed for
            trust = np.abs(step).max() / 3
        elif kept >= TRUSTED[1] * gain:
            trust = min(max(4 * np.abs(step).max(), 4 * CLOSEST_M), widest)
        if kept > 0:
            surface = trial
            _check_near(problem, surface, start)
        taken |= _outstanding(reached)
    raise DepthcellError("minimum zone: it does not settle; do the points determine it?", Reason.NOT_MEASURED)


def _check_near(problem: Minimax, surface: Surface, start: Surface) -> None:
    """An axis or centre that wanders off is held by nothing."""
    if isinstance(start, Plane) or start.radius_m == 0:
        return
    wandered = (change(surface, start) / levers(start, problem.points))[:-1]
    if np.abs(wandered).max() > FARTHEST * start.radius_m:
        raise DepthcellError("minimum zone: the points do not hold it; do they surround it?", Reason.NOT_MEASURED)


def _outstanding(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(S, N): the largest of each row."""
    count = rows.shape[1]
    chosen = np.zeros(rows.shape, dtype=bool)
    best = np.argpartition(rows, max(0, count - TAKEN_IN), axis=1)[:, -TAKEN_IN:]
    np.put_along_axis(chosen, best, True, axis=1)
    return chosen


def _programme(
    rows: NDArray[np.float64],
    problem: Minimax,
    at: Misfit,
    spanned: NDArray[np.float64],
    taken: NDArray[np.bool_],
    trust: float,
) -> tuple[NDArray[np.float64], float, NDArray[np.float64]]:
    """One linear programme: the step (F,), the bound it promises, and the dual weights of the rows taken.

    Lengths are in units of the trust region, so that the solver's tolerances mean the same at any size.
    """
    row, point = np.nonzero(taken)
    slopes = np.array(problem.signs)[row, None] * (spanned.T @ at.jacobian[:, point]).T
    middle = float(rows.max())
    limits = np.hstack((slopes, -np.ones((len(point), 1))))
    cost = np.zeros(limits.shape[1])
    cost[-1] = 1.0
    bounds = [(-1.0, 1.0)] * (len(cost) - 1) + [(None, None)]
    within = (middle - rows[row, point]) / trust
    found = cast(Any, linprog(cost, A_ub=limits, b_ub=within, bounds=bounds, method="highs-ds"))
    if found.status != 0:
        raise DepthcellError(f"minimum zone: {found.message}", Reason.NOT_MEASURED)
    return np.asarray(found.x[:-1]) * trust, middle + float(found.x[-1]) * trust, -np.asarray(found.ineqlin.marginals)


def _contact(problem: Minimax, surface: Surface, taken: NDArray[np.bool_]) -> Contact:
    """What touches, and how the solution answers to it.

    While the same points touch, `s_i (e_i + J_i . p) = t` for each, with e_i the change of its residual: linear
    equations for the changes p and t. Where fewer touch than there are unknowns, the smallest change is taken; where
    more do, that of least squares.
    """
    surface = recentred(surface, problem.points)
    at = misfit(surface, problem.points, problem.side)
    rows, spanned = problem.rows(at), problem.spanned(surface)
    near = rows >= rows.max() - TOUCHING_M
    row, point = np.nonzero(near)
    signs = np.array(problem.signs)[row]
    equations = np.hstack((signs[:, None] * (spanned.T @ at.jacobian[:, point]).T, -np.ones((len(point), 1))))
    response = -(np.linalg.pinv(equations, rcond=1e-6)[:-1] * signs)
    weights = np.zeros(rows.shape)
    weights[taken | near] = _programme(rows, problem, at, spanned, taken | near, 10 * TOUCHING_M)[2]
    return Contact(surface, float(rows.max()), point, signs, weights[row, point], spanned @ response)
