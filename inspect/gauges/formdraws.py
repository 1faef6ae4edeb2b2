"""What form a surface may have, given the means of its cells and their noise: draws from a posterior distribution.

The form is taken for a normal random function, smooth over some length, of unknown size: geostatistics' universal
kriging (Cressie, Statistics for Spatial Data, 1993, 3.4), with size and length not fixed but weighed by how likely they
make what was measured.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from depthcell.errors import DepthcellError, Reason
from depthcell.inspect.gauges.areal import Cells

DRAWS = 400
SIZES = 60
"""Sizes of the form that are tried, from far below the noise to far above what was measured."""
SMOOTHNESS = (0.12, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Lengths over which the form is alike, in root mean square distances between the cells."""
SCALES = 2.0
"""The smaller, the more lengths a form has at once: with a single one, intervals of large faces were too narrow."""
ROWS_APART = 0.25
"""Root mean square distance of the cells from their middle along an axis, in cells' sides, below which they are one row
across it: two rows have 0.5."""
FEWEST_OVER = 5
"""So many cells more than motions are needed."""
SEED = 20260105
"""Of the draws: the same cells give the same figures."""


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """What a surface may look like, given its cells.

    Attributes:
        lifts_m: (D, E) draws of its lift at E places.
        evidence: logarithm of how much likelier the cells are with the best form than with none.
    """

    lifts_m: NDArray[np.float64]
    evidence: float

    @classmethod
    def seen(cls, cells: Cells, places: NDArray[np.float64], motions: NDArray[np.float64]) -> "Form":
        """Bayes' rule on cells `m = B c + f + e`.

        B is the constant and the motions, any c as likely as another; f normal with covariance `t² K_l`, K_l being
        `(1 + (d / l)² / a)^-a` with a = `SCALES`, a mixture of `exp(-(d / l')²)` over many lengths l' (Rasmussen and
        Williams, Gaussian Processes for Machine Learning, 2006, 4.2.1); e the cells' noise. Sizes t are as likely
        beforehand as each other (Gelman, Bayesian Analysis 1 (2006) 515, section 3), lengths l those of `SMOOTHNESS`.
        Given both, f is drawn by Matheron's rule: a draw of form and noise from before, moved by what it lacks to the
        cells as measured. Across a strip or a ring that is no wider than a cell nothing tells of the form, and none is
        drawn.

        Args:
            cells: as pooled.
            places: (E, 3) metres, where the form is asked for.
            motions: (P, E) there.

        Raises:
            DepthcellError: (`NOT_MEASURED`) too few cells.
        """
        smooth = np.vstack((np.ones((1, len(cells.lift_m))), _scaled(cells.motions, cells.motions)))
        if len(cells.lift_m) < len(smooth) + FEWEST_OVER:
            why = f"zone: {len(cells.lift_m)} cells of {cells.side_m * 1e3:.2g} mm are too few to tell form from noise"
            raise DepthcellError(why, Reason.NOT_MEASURED)
        seen = _Seen.of(cells, smooth)
        sizes_m = seen.sizes_m
        everywhere = np.vstack((cells.places, places)) @ _told_apart(cells)
        kernels = [_Kernel.of(length, everywhere, seen) for length in SMOOTHNESS]
        logs = np.array([[kernel.log_likelihood(size, seen) for size in sizes_m] for kernel in kernels])
        chance = (np.exp(logs - logs.max()) * sizes_m).ravel()
        rng = np.random.default_rng(SEED)
        chosen = rng.choice(chance.size, DRAWS, p=chance / chance.sum())
        smooth_there = np.vstack((np.ones((1, len(places))), _scaled(motions, cells.motions)))
        lifts_m = np.empty((DRAWS, len(places)))
        for number, kernel in enumerate(kernels):
            mine = np.flatnonzero(chosen // SIZES == number)
            if len(mine):
                forms, amounts = kernel.drawn(sizes_m[chosen[mine] % SIZES], seen, rng)
                lifts_m[mine] = forms + amounts @ smooth_there
        return cls(lifts_m, float(logs.max() - logs[0, 0]))


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """The cells less the motions, in units of their noise.

    Attributes:
        cells: as measured.
        smooth: (B, C) the motions.
        basis: (C, C - B) orthonormal, what they leave.
        factor: Cholesky's, of the noise's covariance in that basis.
        whitened: (C - B,) the cells there.
    """

    cells: Cells
    smooth: NDArray[np.float64]
    basis: NDArray[np.float64]
    factor: NDArray[np.float64]
    whitened: NDArray[np.float64]

    @classmethod
    def of(cls, cells: Cells, smooth: NDArray[np.float64]) -> "_Seen":
        basis = np.linalg.qr(smooth.T, mode="complete")[0][:, len(smooth) :]
        factor = np.asarray(np.linalg.cholesky(basis.T @ cells.covariance @ basis), dtype=np.float64)
        return cls(cells, smooth, basis, factor, _forward(factor, basis.T @ cells.lift_m))

    @property
    def sizes_m(self) -> NDArray[np.float64]:
        """Sizes of form that come into question."""
        noise_m = float(np.sqrt(np.mean(np.square(self.factor).sum(axis=1))))
        measured_m = float(np.sqrt(np.mean(np.square(self.basis.T @ self.cells.lift_m))))
        return np.geomspace(noise_m / 100, 5 * max(noise_m, measured_m), SIZES)


@dataclass(frozen=True, slots=True, eq=False)
class _Kernel:
    """Covariance of forms of one smoothness and of size 1, over cells and other places.

    Attributes:
        everywhere: (C + E, C + E).
        values, vectors: of the whitened (C - B, C - B) part that the motions leave.
    """

    everywhere: NDArray[np.float64]
    values: NDArray[np.float64]
    vectors: NDArray[np.float64]

    @classmethod
    def of(cls, length: float, everywhere: NDArray[np.float64], seen: _Seen) -> "_Kernel":
        count = len(seen.cells.lift_m)
        spread_m2 = 2 * float(np.var(everywhere[:count], axis=0).sum())
        local = everywhere - everywhere.mean(axis=0)
        square = np.square(local).sum(axis=1)
        apart2 = np.maximum(square[:, None] + square[None] - 2 * local @ local.T, 0)
        covariance = (1 + apart2 / (SCALES * length**2 * spread_m2)) ** -SCALES
        left = seen.basis.T @ covariance[:count, :count] @ seen.basis
        scale = len(left) / float(np.trace(left))
        values, vectors = np.linalg.eigh(_forward(seen.factor, _forward(seen.factor, left * scale).T))
        return cls(covariance * scale, np.maximum(values, 0), vectors)

    def log_likelihood(self, size_m: float, seen: _Seen) -> float:
        variance = 1 + size_m**2 * self.values
        return -0.5 * float((np.log(variance) + np.square(self.vectors.T @ seen.whitened) / variance).sum())

    def drawn(
        self, sizes_m: NDArray[np.float64], seen: _Seen, rng: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(D, E) forms at the other places, and (D, B) amounts of the motions, one for each size."""
        cells, count = seen.cells, len(seen.cells.lift_m)
        jitter = 1e-9 * float(np.trace(self.everywhere)) / len(self.everywhere)
        root = np.linalg.cholesky(self.everywhere + jitter * np.eye(len(self.everywhere)))
        before = sizes_m[:, None] * (rng.standard_normal((len(sizes_m), len(root))) @ root.T)
        noise = rng.standard_normal((len(sizes_m), count)) @ np.linalg.cholesky(cells.covariance).T
        lacking = cells.lift_m - before[:, :count] - noise
        whitened = _forward(seen.factor, seen.basis.T @ lacking.T).T @ self.vectors
        whitened /= 1 + np.square(sizes_m)[:, None] * self.values
        weights = _backward(seen.factor, (whitened @ self.vectors.T).T).T @ seen.basis.T
        moved = before + np.square(sizes_m)[:, None] * (weights @ self.everywhere[:count])
        left = cells.lift_m - moved[:, :count] - (noise + weights @ cells.covariance)
        return moved[:, count:], left @ np.linalg.pinv(seen.smooth)


def _told_apart(cells: Cells) -> NDArray[np.float64]:
    """(3, A) axes along which there is more than one row of cells; at least one."""
    values, axes = np.linalg.eigh(np.cov(cells.places.T, bias=True))
    several = values > (ROWS_APART * cells.side_m) ** 2
    several[-1] = True
    return np.asarray(axes[:, several], dtype=np.float64)


def _forward(factor: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(solve_triangular(factor, right, lower=True))


def _backward(factor: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(solve_triangular(factor.T, right, lower=False))


def _scaled(motions: NDArray[np.float64], like: NDArray[np.float64]) -> NDArray[np.float64]:
    """Motions (P, N) in units in which those of `like` (P, C) lift by 1 in the mean."""
    return np.asarray(motions / np.maximum(np.sqrt(np.mean(np.square(like), axis=1, keepdims=True)), 1e-12))
