"""What a scalar's standard uncertainty is made of: noise, calibration, the pose of the part, and what else is stated.

Noise and calibration act on the points, calibration also on the pose, and these two act together: a camera that reads
everything 0.1 mm too high lifts a face, and the part with it, so that the face's height in the frame of the part is
hardly touched. Both therefore go into one sum before it is squared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray
from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError
from depthcell.fusion.influence import Influence
from depthcell.fusion.noisecorrelation import noise_variance
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.scan import Scan
from depthcell.fusion.uncertainty import calibration_jacobian

NOISE, CALIBRATION, POSE = "noise", "calibration", "pose of the part"
ALL_SINGLY = 2000
"""Up to so many points, what calibration does is worked out at each."""
BLOCKS = 24
"""With more, points are taken together in blocks, so many along the part's longest side."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """One source of uncertainty: its name, and the standard uncertainty from it alone, in the scalar's unit."""

    source: str
    u: float


@dataclass(frozen=True, slots=True)
class Budget:
    """Independent contributions to one scalar's standard uncertainty."""

    rows: tuple[Contribution, ...]

    @property
    def u(self) -> float:
        """Combined standard uncertainty: root sum of squares (GUM 5.1.2)."""
        return math.sqrt(sum(row.u**2 for row in self.rows))

    def share(self, row: Contribution) -> float:
        """A row's share of the combined variance."""
        return row.u**2 / self.u**2 if self.u > 0 else 0.0


def uncertainty_budget(
    influence: Influence, scan: Scan, noise_u: float | None = None, extra: Sequence[tuple[str, float]] = ()
) -> Budget:
    """Propagate what the cloud, the alignment and the cell state through the sensitivities of a scalar.

    With g and p its sensitivities to points and pose:

    - noise: `sum g_i g_j s_i s_j rho_ij`, see `noisecorrelation.noise_variance`;
    - calibration: `(G + p A) Theta (G + p A)^T` (GUM 5.2.2, in matrix form JCGM 102, 6.2.1.3) with Theta the joint
      covariance of all cameras' parameters, G what they do by the points (`calibration_gradient`) and A what they do to
      the pose (`Alignment.calibration_gain`). Where the alignment does not say, its systematic covariance is added as
      if it were independent;
    - pose: `p C p^T` with C the alignment's random covariance. That the pose was found by some of the same points is
      left out: a point's noise moves its surface and the part alike, so that what is stated is rather too much. On 200
      simulated brackets the height of the face that holds most of the points scattered by 0.6 of what was stated, that
      of a rib and the place of a bore by 0.8 to 1.0.

    Args:
        influence: sensitivities of the scalar.
        scan: what was measured.
        noise_u: in place of the first row, for a scalar on which noise does not act to first order.
        extra: further sources, independent, as (name, standard uncertainty).

    Raises:
        DepthcellError: a stated uncertainty is negative or not finite; the influence names points the cloud lacks.
    """
    _check(influence, scan, noise_u, extra)
    if noise_u is None:
        noise_u = math.sqrt(noise_variance(scan.cloud, scan.cell, influence.points, influence.gradient))
    pose = influence.pose
    rows = (
        Contribution(NOISE, noise_u),
        Contribution(CALIBRATION, math.sqrt(_calibration_variance(influence, scan))),
        Contribution(POSE, math.sqrt(max(float(pose @ scan.alignment.random_covariance @ pose), 0.0))),
        *(Contribution(name, u) for name, u in extra),
    )
    return Budget(rows)


def calibration_gradient(
    cloud: PartCloud, cell: Cell, points: NDArray[np.intp], gradient: FloatArray
) -> NDArray[np.float64]:
    """Change (P,) of `sum g_i e_i` per unit of each row of the cell's joint covariance, by the points alone.

    A unit of a parameter of camera k lifts point i by `q_ik n_i . J_ik`, with q the camera's share and J from
    `propagation.point_jacobian`; so the sum changes by `sum g_i q_ik n_i . J_ik`. J is smooth over a part: many points
    are taken together in blocks, those of positive and of negative g apart, each at its middle weighted by `|g q|`,
    which leaves a second-order error of `(block / distance)² / 8`.

    Args:
        cloud: the points.
        cell: of its cameras.
        points: (K,) indices into the cloud.
        gradient: (K,) g.
    """
    if not len(points):
        return np.zeros(len(cell.joint_covariance))
    block, count = _blocks(cloud.points_cell[points], np.asarray(gradient))
    weight, normals_cell = np.asarray(gradient, np.float64), cloud.normals_cell[points]
    lifts = calibration_lifts(cloud, cell, points, weight[:, None] * normals_cell, block, count)
    return np.asarray(lifts.sum(axis=0))


def calibration_lifts(
    cloud: PartCloud,
    cell: Cell,
    points: NDArray[np.intp],
    pulls_cell: NDArray[np.floating],
    block: NDArray[np.intp],
    count: int,
) -> NDArray[np.float64]:
    """Change (B, P) of `sum over a block of v_i . p_i` per unit of each row of the cell's joint covariance.

    Args:
        cloud: the points.
        cell: of its cameras.
        points: (K,) indices into the cloud.
        pulls_cell: (K, 3) v, frame "cell".
        block: (K,) which of the B blocks each belongs to.
        count: B.
    """
    change = np.zeros((count, len(cell.joint_covariance)))
    places_cell, strength = cloud.points_cell[points], np.linalg.norm(pulls_cell, axis=1)
    for index, serial in enumerate(cloud.serials):
        share = cloud.share[points, index].astype(np.float64)
        size = np.bincount(block, share * strength, count)
        filled = np.flatnonzero(size)
        if not len(filled):
            continue
        middles = _summed(block, (share * strength)[:, None] * places_cell, count)[filled] / size[filled, None]
        pulls = _summed(block, share[:, None] * pulls_cell, count)[filled]
        # Lifts along vectors that are no unit normals are just as linear in them.
        change[filled, cell.rows_of(serial)] = calibration_jacobian(cell.camera(serial), middles, pulls)
    return change


def _calibration_variance(influence: Influence, scan: Scan) -> float:
    change = calibration_gradient(scan.cloud, scan.cell, influence.points, influence.gradient)
    covariance, alignment, variance = scan.cell.joint_covariance, scan.alignment, 0.0
    if alignment.calibration_gain.shape[1] == len(covariance):
        change = change + influence.pose @ alignment.calibration_gain
    else:
        variance = float(influence.pose @ alignment.systematic_covariance @ influence.pose)
    return max(variance + float(change @ covariance @ change), 0.0)


def _blocks(places: NDArray[np.float64], gradient: NDArray[np.floating]) -> tuple[NDArray[np.intp], int]:
    """Which block each point belongs to, and how many there are."""
    if len(places) <= ALL_SINGLY:
        return np.arange(len(places)), len(places)
    low = places.min(axis=0)
    side = max(float(np.ptp(places, axis=0).max()) / BLOCKS, 1e-9)
    x, y, z = ((places - low) / side).astype(np.intp).T
    key = ((x * (BLOCKS + 1) + y) * (BLOCKS + 1) + z) * 2 + (gradient > 0)
    return np.asarray(key, dtype=np.intp), int(key.max()) + 1


def _summed(block: NDArray[np.intp], values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Sums (count, 3) of vectors (K, 3) by block."""
    return np.asarray(np.stack([np.bincount(block, column, count) for column in values.T], axis=1), dtype=np.float64)


def _check(influence: Influence, scan: Scan, noise_u: float | None, extra: Sequence[tuple[str, float]]) -> None:
    if len(influence.points) and not 0 <= influence.points[0] <= influence.points[-1] < len(scan.cloud):
        raise DepthcellError(f"budget: the influence names points beyond the {len(scan.cloud)} of the cloud")
    for name, u in ((NOISE, 0.0 if noise_u is None else noise_u), *extra):
        if not (math.isfinite(u) and u >= 0):
            raise DepthcellError(f"budget: '{name}' must be a standard uncertainty of zero or more, got {u}")
