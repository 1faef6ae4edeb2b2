"""Normal equations of a depth correction, view by view, and what they say of views that were left out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class ViewProblem:
    """One view's linear problem: `values = design @ change + noise`, the change being from no correction at all.

    Attributes:
        values: (M,) disparity as read less the true one.
        design: (M, P) of all terms.
        variance_px2: (M,) stated, of each tile alone.
        shared: (M, R) what one standard deviation of each of the view's common errors moves.
    """

    values: NDArray[np.float64]
    design: NDArray[np.float64]
    variance_px2: NDArray[np.float64]
    shared: NDArray[np.float64]

    def weighed(self, tile_px: float, view_px: float) -> "ViewInformation":
        """Normal equations under `diag(variance + tile²) + shared shared^T + view²` (Woodbury's identity)."""
        weight = 1 / (self.variance_px2 + tile_px**2)
        shared = np.column_stack((self.shared, np.full(len(weight), view_px)))
        both = np.column_stack((self.design, self.values))
        root = np.linalg.cholesky(np.eye(shared.shape[1]) + shared.T @ (weight[:, None] * shared))
        taken = np.linalg.solve(root, shared.T @ (weight[:, None] * both))
        whole = both.T @ (weight[:, None] * both) - taken.T @ taken
        log_volume = float(2 * np.log(np.diag(root)).sum() - np.log(weight).sum())
        return ViewInformation(whole[:-1, :-1], whole[:-1, -1], float(whole[-1, -1]), log_volume)


@dataclass(frozen=True, slots=True, eq=False)
class ViewInformation:
    """Of one view: information (P, P), pull (P,), weighted square of the values, log of their covariance's volume."""

    information: NDArray[np.float64]
    pull: NDArray[np.float64]
    square: float
    log_volume: float


@dataclass(frozen=True, slots=True, eq=False)
class AllViews:
    """Of all views, with the terms' prior precision (P,)."""

    views: tuple[ViewInformation, ...]
    prior: NDArray[np.float64]

    def _sums(self, columns: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        information = np.sum([view.information for view in self.views], axis=0)[np.ix_(columns, columns)]
        pull = np.sum([view.pull for view in self.views], axis=0)[columns]
        return information + np.diag(self.prior[columns]), pull

    def solved(self, columns: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Change of these terms, and its covariance."""
        information, pull = self._sums(columns)
        covariance = np.linalg.inv(information)
        return covariance @ pull, (covariance + covariance.T) / 2

    def loss(self, columns: NDArray[np.intp]) -> float:
        """Minus twice the logarithm of the restricted likelihood, but for a constant."""
        information, pull = self._sums(columns)
        square = sum(view.square for view in self.views) - pull @ np.linalg.solve(information, pull)
        return float(square + sum(view.log_volume for view in self.views) + np.linalg.slogdet(information)[1])

    def left_out(self, columns: NDArray[np.intp]) -> NDArray[np.float64]:
        """What each view loses as the others foresee it, their uncertainty included (V,); same scale as `loss`."""
        information, pull = self._sums(columns)
        losses = []
        for view in self.views:
            own, own_pull = view.information[np.ix_(columns, columns)], view.pull[columns]
            others = information - own
            foreseen = np.linalg.solve(others, pull - own_pull)
            rest = own_pull - own @ foreseen
            square = view.square - 2 * foreseen @ own_pull + foreseen @ own @ foreseen
            square -= rest @ np.linalg.solve(information, rest)
            volume = np.linalg.slogdet(information)[1] - np.linalg.slogdet(others)[1]
            losses.append(square + view.log_volume + volume)
        return np.array(losses)
