"""Datums in order of precedence (ISO 5459): where the part lies once its measured datums lie on the nominal ones.

The primary datum holds what it can of the part's six degrees of freedom (a plane 3, an axis 4, a centre 3), the
secondary what of the rest it can, and so on. What a datum of lower precedence would have liked otherwise stays off
nominal: that is the part's error against the system.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.association.relations import place_of
from depthcell.fusion.datums.datum import Datum
from depthcell.fusion.influence import Influence
from depthcell.fusion.motion import Basis
from depthcell.fusion.scan import Scan

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
            zero where the datums hold all six degrees of freedom. Along free motions the alignment was kept.
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
    """Datums of the same precedence, as rows of `wanted + per_twist x = 0`, weighed."""

    datums: tuple[Datum, ...]
    weights: NDArray[np.float64]
    per_twist: NDArray[np.float64]

    @classmethod
    def of(cls, datums: Sequence[Datum], basis: Basis) -> "_Level":
        """Rows weighed as the points hold them, so that a datum turned as a whole by 1 m answers with about 1."""
        blocks = [datum.weight for datum in datums]
        per_twist = np.vstack([datum.per_twist() for datum in datums]) @ basis.twist
        return cls(tuple(datums), _diagonal(blocks), per_twist)

    def misplaced(self, T_datum_part: RigidTransform) -> NDArray[np.float64]:
        return np.concatenate([datum.misplaced(T_datum_part) for datum in self.datums])


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    """How the motion (6,), in the basis, answers to the rows of all levels: `sum over k of -answers[k] rows[k]`."""

    answers: tuple[NDArray[np.float64], ...]
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
    stages = [_Level.of(level, basis) for level in levels]
    answer = _answered(stages)
    pose = RigidTransform.identity("datum", "part")
    for _ in range(MOST_STEPS):
        motion = -sum(a @ stage.misplaced(pose) for a, stage in zip(answer.answers, stages, strict=True))
        pose = pose.perturbed(basis.twist @ motion)
        if np.abs(motion).max() < STILL_M:
            return _frame(pose, stages, answer, basis)
    labels = ", ".join(datum.label for datum in every)
    raise DepthcellError(f"datum system {labels}: the part lies too far off nominal", Reason.ALIGNMENT_FAILED)


def aligned_by_datums(scan: Scan, datums: Sequence[Datum]) -> tuple[NDArray[np.float64], DatumFrame]:
    """The scan's points (N, 3) in the frame of single datums A | B | C, in order, and the frame."""
    frame = datum_frame([[datum] for datum in datums])
    return np.asarray(frame.T_datum_part @ scan.points_part, dtype=np.float64), frame


def _answered(stages: Sequence[_Level]) -> _Answer:
    """Solve level by level, keeping how the motion answers to each level's rows."""
    answers: list[NDArray[np.float64]] = []
    held, free = [], np.eye(6)
    for stage in stages:
        seen = stage.weights @ stage.per_twist @ free
        left, values, right = np.linalg.svd(seen, full_matrices=True)
        rank = int(np.count_nonzero(values > HOLDS))
        if rank == 0:
            labels = ", ".join(datum.label for datum in stage.datums)
            raise DepthcellError(f"datum {labels} holds nothing that was still free; leave it out", Reason.NOT_MEASURED)
        solve = free @ right[:rank].T @ (left[:, :rank] / values[:rank]).T @ stage.weights
        # what the levels before did moves this level's rows, and is made up for
        answers = [before - solve @ stage.per_twist @ before for before in answers]
        answers.append(solve)
        held.append(rank)
        free = free @ right[rank:].T
    return _Answer(tuple(answers), free, tuple(held))


def _frame(pose: RigidTransform, stages: Sequence[_Level], answer: _Answer, basis: Basis) -> DatumFrame:
    points, gains, remaining = [], [], np.eye(6)
    inverse = np.linalg.inv(basis.twist)
    for answers, stage in zip(answer.answers, stages, strict=True):
        rows = basis.twist @ answers
        remaining -= rows @ stage.per_twist @ inverse
        begin = 0
        for datum in stage.datums:
            per_point = datum.per_point(pose)
            gains.append(-rows[:, begin : begin + len(per_point)] @ per_point)
            points.append(datum.points)
            begin += len(per_point)
    unique, place = np.unique(np.concatenate(points), return_inverse=True)
    gain = np.zeros((6, len(unique)))
    np.add.at(gain.T, place, np.hstack(gains).T)
    words = tuple(basis.in_words(motion) for motion in _named(answer.free))
    return DatumFrame(pose, unique.astype(np.intp), gain, remaining, answer.held, words)


def _named(free: NDArray[np.float64]) -> NDArray[np.float64]:
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


def _diagonal(blocks: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    size = sum(len(block) for block in blocks)
    matrix = np.zeros((size, size))
    begin = 0
    for block in blocks:
        matrix[begin : begin + len(block), begin : begin + len(block)] = block
        begin += len(block)
    return matrix
