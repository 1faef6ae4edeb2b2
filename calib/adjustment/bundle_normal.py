"""Normal equations of an adjustment at its solution: what the data determine, and how well.

With shared parameters s (lenses, cameras, boards, depth) and one pose b per place, the normal matrix is an arrow: poses
meet only shared parameters, never each other. So the covariance of s is the inverse of the Schur complement
`S = N_ss - sum_b N_sb N_bb^-1 N_bs`, and that of a pose `N_bb^-1 + W C_ss W^T` with `W = N_bb^-1 N_bs`: block
inversion, as in Triggs et al., Bundle Adjustment - A Modern Synthesis, LNCS 1883 (2000) 298. The work grows with the
number of views, not its cube.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import brentq

from depthcell.calib.adjustment.bundle_adjustment import Adjustment
from depthcell.calib.adjustment.bundle_problem import Place
from depthcell.errors import DepthcellError, Reason

SINGULAR = 1e-13
"""Eigenvalue of a normal matrix scaled to a unit diagonal below which a direction counts as lost."""


@dataclass(frozen=True, slots=True, eq=False)
class Information:
    """Covariance of everything that was estimated, and how much of each group of residuals went into it.

    Attributes:
        covariance: (P, P) of the shared parameters.
        place_covariance: (B, 6, 6) of the poses, in the order of `places`.
        place_cross: (B, 6, P), covariance of each pose with the shared parameters.
        places: which pose is which.
        square_sum: per group, sum of squares of its residuals, in units of the stated sigma, outliers left out.
        redundancy: per group, degrees of freedom left in it: its residuals less the parameters that they paid for.
        common: per group of blocks whose rows may share an error, what is known of it.
    """

    covariance: NDArray[np.float64]
    place_covariance: NDArray[np.float64]
    place_cross: NDArray[np.float64]
    places: tuple[Place, ...]
    square_sum: Mapping[str, float]
    redundancy: Mapping[str, float]
    common: Mapping[str, "CommonError"]

    def factor(self, group: str, least: float) -> float:
        """Root of the group's variance component, square sum over redundancy; 1 where fewer than 10 degrees are left.

        With correct weights a group's square sum has its variance times its redundancy as expectation, since residuals
        have the covariance `V - J C J^T`; so the estimator is unbiased where it settles.
        """
        if self.redundancy[group] < 10:
            return 1.0
        return max(float(np.sqrt(self.square_sum[group] / self.redundancy[group])), least)


@dataclass(frozen=True, slots=True, eq=False)
class CommonError:
    """How much the blocks of a group move as a whole, B blocks with anything left in them.

    Attributes:
        square: (B,), square of each block's mean residual, which without a common error has unit variance.
        size: (B,), 1 / px²: with one of standard deviation tau that variance is `1 + tau² size`.
        redundancy: degrees of freedom left in these means.
    """

    square: NDArray[np.float64]
    size: NDArray[np.float64]
    redundancy: float

    def tau_px(self) -> float:
        """Standard deviation for which the squares are as large as their redundancy says; 0 if they already are less.

        A variance component by moments. With fewer than 3 degrees of freedom it is not estimated, and 0.
        """
        if self.redundancy < 3 or self.square.sum() <= self.redundancy:
            return 0.0
        top = float(self.square.sum() / self.size.min())

        def excess(variance: float) -> float:
            return float((self.square / (1 + variance * self.size)).sum()) - self.redundancy

        found: float = brentq(excess, 0.0, top, full_output=False)  # pyright: ignore[reportAssignmentType]
        return float(np.sqrt(found))


@dataclass(frozen=True, slots=True, eq=False)
class _Share:
    """What one block adds: its normal matrix over `columns` of shared parameters, then the place's 6.

    `squares` (in units of the stated sigma) and `rows` are those of its group. Where rows may share an error, the part
    of `normal` that belongs to their mean is `mean_normal`, and `mean` holds its square and size as in `CommonError`.
    """

    group: str
    columns: NDArray[np.intp]
    place: int | None
    normal: NDArray[np.float64]
    squares: float
    rows: int
    mean_normal: NDArray[np.float64] | None = None
    mean: tuple[float, float] = (0.0, 0.0)


def information_of(adjustment: Adjustment) -> Information:
    """The covariance at the adjustment's present parameters and weights.

    Raises:
        DepthcellError: the data do not determine something; the message names it.
    """
    slices, size = _columns(adjustment)
    places = adjustment.place_keys()
    number_of = {place: number for number, place in enumerate(places)}
    shared, cross = np.zeros((size, size)), np.zeros((len(places), 6, size))
    own = np.zeros((len(places), 6, 6))
    shares = [_share(adjustment, number, slices, number_of) for number in range(len(adjustment.blocks))]
    for share in shares:
        inner = len(share.columns)
        shared[np.ix_(share.columns, share.columns)] += share.normal[:inner, :inner]
        if share.place is not None:
            cross[share.place][:, share.columns] += share.normal[inner:, :inner]
            own[share.place] += share.normal[inner:, inner:]
    own_inverse = _inverted_places(own, places)
    weights = own_inverse @ cross
    complement = shared - cross.reshape(-1, size).T @ weights.reshape(-1, size)
    covariance = _inverted(complement, adjustment.shared_names())
    place_cross = -weights @ covariance
    place_covariance = own_inverse - place_cross @ weights.transpose(0, 2, 1)
    squares, redundancy, common = _tally(shares, covariance, place_cross, place_covariance)
    return Information(covariance, place_covariance, place_cross, tuple(places), squares, redundancy, common)


def _tally(
    shares: list[_Share], covariance: NDArray[np.float64], cross: NDArray[np.float64], own: NDArray[np.float64]
) -> tuple[dict[str, float], dict[str, float], dict[str, CommonError]]:
    """Per group: sum of squares, redundancy, and what its blocks share."""
    squares: dict[str, float] = {}
    redundancy: dict[str, float] = {}
    means: dict[str, list[tuple[float, float, float]]] = {}
    for share in shares:
        local = _local(share, covariance, cross, own)
        paid = float((local * share.normal).sum())
        if share.mean_normal is not None:
            paid_by_mean = float((local * share.mean_normal).sum())
            means.setdefault(share.group, []).append((*share.mean, 1 - paid_by_mean))
            paid -= paid_by_mean
        squares[share.group] = squares.get(share.group, 0.0) + share.squares
        redundancy[share.group] = redundancy.get(share.group, 0.0) + share.rows - paid
    table = {group: np.array(rows) for group, rows in means.items()}
    common = {group: CommonError(rows[:, 0], rows[:, 1], float(rows[:, 2].sum())) for group, rows in table.items()}
    return squares, redundancy, common


def _columns(adjustment: Adjustment) -> tuple[dict[object, NDArray[np.intp]], int]:
    slices: dict[object, NDArray[np.intp]] = {}
    size = 0
    for key in adjustment.shared_keys():
        slices[key] = np.arange(size, size + len(adjustment.values[key]))
        size += len(adjustment.values[key])
    return slices, size


def _share(
    adjustment: Adjustment,
    number: int,
    slices: Mapping[object, NDArray[np.intp]],
    number_of: Mapping[Place, int],
) -> _Share:
    """What one block adds at the present parameters."""
    block, weights = adjustment.blocks[number], adjustment.weights[number]
    found = block.evaluate([adjustment.values[key] for key in block.keys], adjustment.bases)
    if found is None:
        raise DepthcellError(f"adjustment: a board ended up behind {block.group}", Reason.CELL_INVALID)
    weighted = adjustment.weighted(number, found)
    parts, columns, place, last = [], [np.zeros(0, np.intp)], None, []
    for key, jacobian in zip(block.keys, weighted.jacobians, strict=True):
        if key in slices:
            parts.append(jacobian)
            columns.append(slices[key])
        elif key[0] == "place" and key not in adjustment.fixed:
            place, last = number_of[key[1]], [jacobian]  # type: ignore[index]
    stacked = np.concatenate([*parts, *last], axis=2)
    flat = stacked.reshape(-1, stacked.shape[2])
    kept = weights > 0
    rows, squares = int(kept.sum()) * block.width, float(np.square(found.residuals[kept]).sum())
    share = _Share(block.group, np.concatenate(columns), place, flat.T @ flat, squares, rows)
    if block.common is None or rows == 0:
        return share
    act = weights * block.common
    size = float(act @ act)
    mean, mean_row = act @ weighted.residuals[:, 0] / np.sqrt(size), act @ stacked[:, 0] / np.sqrt(size)
    rest = np.square(weighted.residuals).sum() - mean**2  # of the rows about their mean, which no common error moves
    spread = adjustment.common_px.get(block.group, 0.0) ** 2 * size
    return replace(
        share,
        squares=float(rest / weights.max() ** 2),
        rows=rows - 1,
        mean_normal=np.outer(mean_row, mean_row),
        mean=(float(mean**2 * (1 + spread)), size),
    )


def _local(
    share: _Share, covariance: NDArray[np.float64], cross: NDArray[np.float64], own: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Covariance of the parameters that a block meets, in the order of its normal matrix."""
    inner = len(share.columns)
    local = np.empty_like(share.normal)
    local[:inner, :inner] = covariance[np.ix_(share.columns, share.columns)]
    if share.place is not None:
        local[inner:, :inner] = cross[share.place][:, share.columns]
        local[:inner, inner:] = local[inner:, :inner].T
        local[inner:, inner:] = own[share.place]
    return local


def _inverted_places(own: NDArray[np.float64], places: list[Place]) -> NDArray[np.float64]:
    """Inverses of the poses' own normal matrices, each scaled to a unit diagonal first."""
    if not len(own):
        return own
    scale = 1 / np.sqrt(np.maximum(np.einsum("bii->bi", own), 1e-300))
    scaled = own * scale[:, :, None] * scale[:, None, :]
    least = np.linalg.eigvalsh(scaled)[:, 0]
    if least.min() < SINGULAR:
        board, instant = places[int(least.argmin())]
        raise DepthcellError(
            f"adjustment: too few corners to place board {board} of view {instant}; leave this view out",
            Reason.CELL_INVALID,
        )
    return np.asarray(np.linalg.inv(scaled) * scale[:, :, None] * scale[:, None, :])


def _inverted(complement: NDArray[np.float64], names: list[str]) -> NDArray[np.float64]:
    """Inverse of the Schur complement.

    Raises:
        DepthcellError: it is singular; the message names the parameters that share the lost direction.
    """
    scale = 1 / np.sqrt(np.maximum(np.diag(complement), 1e-300))
    scaled = complement * np.outer(scale, scale)
    try:
        half = solve_triangular(np.linalg.cholesky(scaled), np.eye(len(scaled)), lower=True) * scale
        lost_any = (
            np.square(half / scale).sum() > 1 / SINGULAR
        )  # the trace of the inverse: at least 1 / least eigenvalue
    except np.linalg.LinAlgError:
        half, lost_any = np.empty(0), True
    if lost_any:
        direction = np.linalg.eigh(scaled)[1][:, 0]
        strongest = np.argsort(-np.abs(direction))[:4]
        lost = ", ".join(names[place] for place in strongest if abs(direction[place]) > 0.1)
        raise DepthcellError(
            f"adjustment: the views do not determine {lost}; add views of the board tilted by 20 to 40 degrees about "
            "both axes and at different distances, seen by two cameras at a time, or hold that lens",
            Reason.CELL_INVALID,
        )
    return np.asarray(half.T @ half)
