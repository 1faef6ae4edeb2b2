"""Datums in order of precedence (ISO 5459): where the part lies once its measured datums lie on the nominal ones.

The primary datum holds what it can of the part's six degrees of freedom (a plane 3, an axis 4, a centre 3), the
secondary what of the rest it can, and so on. What a datum of lower precedence would have liked otherwise stays off
nominal: that is the part's error against the system.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.association.places import place_of
from depthcell.fusion.datums.datum import Datum
from depthcell.fusion.influence import Influence
from depthcell.fusion.motion import Basis

HOLDS = 1e-3
"""A datum holds a motion of 1 m at the datums if its element then moves by at least this much."""
STILL_M = 1e-12
MOST_STEPS = 30


@dataclass(frozen=True, slots=True, eq=False)
class DatumFrame:
    """The frame "datum": coordinates as on the drawing, laid through the measured datums.

    Attributes:
        T_datum_part: carries what was measured, in the frame "part" of the alignment, into it; near identity.
        points: (K,) intp, strictly ascending, of the cloud.
        gain: (6, K) twist of `T_datum_part`, in the convention of `RigidTransform.perturbed`, per metre that each point
            moves along its normal.
        remaining: (6, 6) what is left, as a twist of the points in the frame "datum", of such a twist of all points:
            zero where the datums hold all six degrees of freedom. Along free motions the alignment was kept, which is
            told to first order in how far it was off.
        held: degrees of freedom that each level took, in order.
        free_directions: motions that no datum holds, in words.
    """

    T_datum_part: RigidTransform
    points: NDArray[np.intp]
    gain: NDArray[np.float64]
    remaining: NDArray[np.float64]
    held: tuple[int, ...]
    free_directions: tuple[str, ...]

    def influence(self, by_twist: FloatArray) -> Influence:
        """Of a scalar that changes by `by_twist` (6,) per twist of `T_datum_part`; the alignment's part is left out."""
        return Influence(self.points, np.asarray(by_twist @ self.gain, dtype=np.float64), np.zeros(6))

    def needed(self, purpose: str) -> "DatumFrame":
        """The same, where nothing may be free.

        Raises:
            DepthcellError: (`NOT_MEASURED`) a motion stays free; the message names it.
        """
        if self.free_directions:
            free = "; ".join(self.free_directions)
            raise DepthcellError(f"{purpose}: the datums leave free: {free}; add a datum", Reason.NOT_MEASURED)
        return self


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    """Datums of the same precedence, as rows of `misplaced + per_twist x = 0`."""

    datums: tuple[Datum, ...]

    def misplaced(self, T_datum_part: RigidTransform) -> NDArray[np.float64]:
        return np.concatenate([datum.misplaced(T_datum_part) for datum in self.datums])

    def per_twist(self, T_datum_part: RigidTransform | None) -> NDArray[np.float64]:
        return np.vstack([datum.per_twist(T_datum_part) for datum in self.datums])

    def weights(self, T_datum_part: RigidTransform) -> NDArray[np.float64]:
        """Square root of the rows' weights, as the points hold them: what moves a datum by 1 m answers with about 1."""
        return np.asarray(block_diag(*(datum.weight(T_datum_part) for datum in self.datums)))


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    """How a motion (6,), in the basis, answers to the rows of all levels: `-sum over k of answers[k] rows[k]`.

    Attributes:
        answers: (6, Q) of each level.
        rows: (Q, 6) of each level, change of its rows per motion.
        free: (6, F) orthonormal, what no level holds.
        held: degrees of freedom of each level.
    """

    answers: tuple[NDArray[np.float64], ...]
    rows: tuple[NDArray[np.float64], ...]
    free: NDArray[np.float64]
    held: tuple[int, ...]


def datum_frame(levels: Sequence[Sequence[Datum]]) -> DatumFrame:
    """The frame of datums by precedence.

    With rows `c_k + C_k x = 0` for the motion x that brings datum k onto nominal, each level is solved in the motions
    Z that those before it left free: y minimises `|W^1/2 (c_k + C_k (x + Z y))|²` over what it holds of y, W the
    inverse covariance of the datum's coordinates. To first order that is the association with the orientation and
    place held by the higher datums that ISO 5459 asks of a secondary and tertiary datum, by least squares.

    Args:
        levels: of datums in order of precedence; several in one level are a common datum, and all in one level are a
            best fit of the features.

    Raises:
        DepthcellError: no datum; (`NOT_MEASURED`) a level holds nothing that was still free; (`ALIGNMENT_FAILED`) the
            part lies too far off.
    """
    every = [datum for level in levels for datum in level]
    if not every:
        raise DepthcellError("datum system: no datum; name at least one")
    basis = _basis(every)
    stages = [_Level(tuple(level)) for level in levels]
    held = _answered(stages, basis, None, None).held
    pose = RigidTransform.identity("datum", "part")
    for _ in range(MOST_STEPS):
        answer = _answered(stages, basis, pose, held)
        motion = -sum(a @ stage.misplaced(pose) for a, stage in zip(answer.answers, stages, strict=True))
        if np.abs(motion).max() < STILL_M:
            return _frame(pose, stages, answer, basis)
        pose = pose.perturbed(basis.twist @ motion)
    labels = ", ".join(datum.label for datum in every)
    raise DepthcellError(f"datum system {labels}: the part lies too far off nominal", Reason.ALIGNMENT_FAILED)


def _answered(
    stages: Sequence[_Level], basis: Basis, pose: RigidTransform | None, held: tuple[int, ...] | None
) -> _Answer:
    """Solve level by level, keeping how the motion answers to each level's rows.

    What a level holds is decided where all is nominal (`pose` and `held` None): a measured part is never quite square.
    """
    answers: list[NDArray[np.float64]] = []
    ranks, free = [], np.eye(6)
    all_rows = tuple(stage.per_twist(pose) @ basis.twist for stage in stages)
    for number, (stage, rows) in enumerate(zip(stages, all_rows, strict=True)):
        weights = stage.weights(pose or RigidTransform.identity("datum", "part"))
        left, values, right = np.linalg.svd(weights @ rows @ free, full_matrices=True)
        rank = int(np.count_nonzero(values > HOLDS)) if held is None else held[number]
        if rank == 0:
            labels = ", ".join(datum.label for datum in stage.datums)
            raise DepthcellError(f"datum {labels} holds nothing that was still free; leave it out", Reason.NOT_MEASURED)
        solve = free @ right[:rank].T @ (left[:, :rank] / values[:rank]).T @ weights
        # what the levels before did moves this level's rows, and is made up for
        answers = [before - solve @ rows @ before for before in answers]
        answers.append(solve)
        ranks.append(rank)
        free = free @ right[rank:].T
    return _Answer(tuple(answers), all_rows, free, tuple(ranks))


def _frame(pose: RigidTransform, stages: Sequence[_Level], answer: _Answer, basis: Basis) -> DatumFrame:
    points, gains, remaining = [], [], np.eye(6)
    inverse = np.linalg.inv(basis.twist)
    for answers, rows, stage in zip(answer.answers, answer.rows, stages, strict=True):
        remaining -= basis.twist @ answers @ rows @ inverse
        begin = 0
        for datum in stage.datums:
            per_point = datum.per_point(pose)
            gains.append(-basis.twist @ answers[:, begin : begin + len(per_point)] @ per_point)
            points.append(datum.points)
            begin += len(per_point)
    unique, place = np.unique(np.concatenate(points), return_inverse=True)
    gain = np.zeros((6, len(unique)))
    np.add.at(gain.T, place, np.hstack(gains).T)
    words = tuple(basis.in_words(motion) for motion in named_motions(answer.free))
    return DatumFrame(pose, unique.astype(np.intp), gain, remaining, answer.held, words)


def named_motions(free: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F, 6): the free motions, pure shifts apart from turns, as a person would list them."""
    if free.shape[1] == 0:
        return np.zeros((0, 6))
    _, values, right = np.linalg.svd(free[:3])
    turning = int(np.count_nonzero(values > 1e-6))
    motions = (free @ right.T).T
    turns, shifts = motions[:turning], motions[turning:]
    # a shift along with a turn that is free by itself is not part of it
    return np.vstack((turns - (turns @ shifts.T) @ shifts, shifts))


def _basis(datums: Sequence[Datum]) -> Basis:
    places = np.array([place_of(datum.nominal)[0] for datum in datums])
    middle = places.mean(axis=0)
    spread_m = np.array([datum.spread_m for datum in datums])
    return Basis(middle, float(np.sqrt(np.mean(np.square(places - middle).sum(axis=1) + np.square(spread_m)))))
