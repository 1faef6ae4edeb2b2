"""Normal equations of an adjustment at its solution: what the data determine, and how well.

With shared parameters s (lenses, cameras, boards, depth) and one pose b per place, the normal matrix is an arrow: poses
meet only shared parameters, never each other. So the covariance of s is the inverse of the Schur complement
`S = N_ss - sum_b N_sb N_bb^-1 N_bs`, and that of a pose `N_bb^-1 + W C_ss W^T` with `W = N_bb^-1 N_bs` (Triggs et al.,
Bundle Adjustment - A Modern Synthesis, 2000, section 6.1). The work grows with the number of views, not its cube.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.calib.bundle_adjustment import Adjustment
from depthcell.calib.bundle_problem import Place
from depthcell.errors import DepthcellError, Reason

SINGULAR = 1e-13
"""Share of the largest eigenvalue, of the normal matrix scaled to a unit diagonal, below which a direction is lost."""


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
    """

    covariance: NDArray[np.float64]
    place_covariance: NDArray[np.float64]
    place_cross: NDArray[np.float64]
    places: tuple[Place, ...]
    square_sum: Mapping[str, float]
    redundancy: Mapping[str, float]

    def factor(self, group: str, least: float) -> float:
        """Root of the group's variance component, square sum over redundancy; 1 where fewer than 10 degrees are left.

        This is the simplified estimator of Foerstner (1979), as in Luhmann et al., Close-Range Photogrammetry and 3D
        Imaging, section 2.4: repeated until it settles it is the same as Helmert's.
        """
        if self.redundancy[group] < 10:
            return 1.0
        return max(float(np.sqrt(self.square_sum[group] / self.redundancy[group])), least)


@dataclass(frozen=True, slots=True, eq=False)
class _Share:
    """What one block adds: its normal matrix over `columns` of shared parameters, then the place's 6."""

    group: str
    columns: NDArray[np.intp]
    place: int | None
    normal: NDArray[np.float64]


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
    shares: list[_Share] = []
    square_sum: dict[str, float] = {}
    rows: dict[str, int] = {}
    for number, block in enumerate(adjustment.blocks):
        share, squares, count = _share(adjustment, number, slices, number_of)
        shares.append(share)
        square_sum[block.group] = square_sum.get(block.group, 0.0) + squares
        rows[block.group] = rows.get(block.group, 0) + count
        inner = len(share.columns)
        shared[np.ix_(share.columns, share.columns)] += share.normal[:inner, :inner]
        if share.place is not None:
            cross[share.place][:, share.columns] += share.normal[inner:, :inner]
            own[share.place] += share.normal[inner:, inner:]
    own_inverse = _inverted_places(own, places)
    weights = own_inverse @ cross
    complement = shared - cross.reshape(-1, size).T @ weights.reshape(-1, size)
    names = [name for key in adjustment.shared_keys() for name in adjustment.names[key]]
    covariance = _inverted(complement, names)
    place_cross = -weights @ covariance
    place_covariance = own_inverse - place_cross @ weights.transpose(0, 2, 1)
    redundancy = {group: float(count) for group, count in rows.items()}
    for share in shares:
        redundancy[share.group] -= _paid(share, covariance, place_cross, place_covariance)
    return Information(covariance, place_covariance, place_cross, tuple(places), square_sum, redundancy)


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
) -> tuple[_Share, float, int]:
    """One block's share, its square sum in units of the stated sigma, and how many residuals count."""
    block, weights = adjustment.blocks[number], adjustment.weights[number]
    found = block.evaluate([adjustment.values[key] for key in block.keys], adjustment.bases)
    if found is None:
        raise DepthcellError(f"adjustment: a board ended up behind {block.group}", Reason.CELL_INVALID)
    parts, columns, place, last = [], [np.zeros(0, np.intp)], None, []
    for key, jacobian in zip(block.keys, found.jacobians, strict=True):
        if key in slices:
            parts.append(jacobian)
            columns.append(slices[key])
        elif key[0] == "place" and key not in adjustment.fixed:
            place, last = number_of[key[1]], [jacobian]  # type: ignore[index]
    stacked = np.concatenate([*parts, *last], axis=2) * weights[:, None, None]
    flat = stacked.reshape(-1, stacked.shape[2])
    kept = weights > 0
    squares = float(np.square(found.residuals[kept]).sum())
    return _Share(block.group, np.concatenate(columns), place, flat.T @ flat), squares, int(kept.sum()) * block.width


def _paid(
    share: _Share, covariance: NDArray[np.float64], cross: NDArray[np.float64], own: NDArray[np.float64]
) -> float:
    """Parameters that a block's residuals paid for: trace of covariance times its normal matrix."""
    inner = len(share.columns)
    local = np.empty_like(share.normal)
    local[:inner, :inner] = covariance[np.ix_(share.columns, share.columns)]
    if share.place is not None:
        local[inner:, :inner] = cross[share.place][:, share.columns]
        local[:inner, inner:] = local[inner:, :inner].T
        local[inner:, inner:] = own[share.place]
    return float((local * share.normal).sum())


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
    values, vectors = np.linalg.eigh(complement * np.outer(scale, scale))
    if not values[0] > SINGULAR * values[-1]:
        direction = vectors[:, 0]
        strongest = np.argsort(-np.abs(direction))[:4]
        lost = ", ".join(names[place] for place in strongest if abs(direction[place]) > 0.1)
        raise DepthcellError(
            f"adjustment: the views do not determine {lost}; add views of the board tilted by 20 to 40 degrees about "
            "both axes and at different distances, seen by two cameras at a time, or hold that lens",
            Reason.CELL_INVALID,
        )
    root = vectors / np.sqrt(values) * scale[:, None]
    return np.asarray(root @ root.T)
