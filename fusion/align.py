"""Where the part lies: the fixture's nominal pose, refined on the cloud, with its covariance."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.reference import Reference


@dataclass(frozen=True, slots=True)
class AlignmentSettings:
    """How hard to look, and what to refuse.

    Attributes:
        capture_m: points farther than this from the nominal surface take no part at the start; also the largest motion.
        capture_rad: the largest rotation away from nominal.
        min_inliers: fraction of the cloud that must lie on the reference in the end.
        min_points: points that must take part.
    """

    capture_m: float = 0.010
    capture_rad: float = 0.175
    min_inliers: float = 0.5
    min_points: int = 300


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """The refined pose of the part.

    Attributes:
        T_cell_part: refined.
        covariance: (6, 6) of `T_cell_part` in the convention of `RigidTransform.perturbed`, random and systematic.
        rms_m: root mean square distance of the inliers from the reference.
        inlier_fraction: share of the cloud that lies on the reference within noise.
        points_used: points the last step worked on.
        iterations: steps taken.
        weakest_sigma_m: standard uncertainty of the least certain motion, at the part, in metres.
        weakest_direction: in words.
        free_directions: motions that the surface does not determine, in words; there the nominal pose was kept.
    """

    T_cell_part: RigidTransform
    covariance: NDArray[np.float64]
    rms_m: float
    inlier_fraction: float
    points_used: int
    iterations: int
    weakest_sigma_m: float
    weakest_direction: str
    free_directions: tuple[str, ...]


def align(
    cloud: PartCloud,
    reference: Reference,
    T_cell_part: RigidTransform,
    cell: Cell,
    settings: AlignmentSettings | None = None,
) -> Alignment:
    """Refine the nominal pose so that the cloud lies on the reference.

    Raises:
        DepthcellError: (`ALIGNMENT_FAILED`) too few points near the reference, or the pose ran away.
    """
    raise NotImplementedError
