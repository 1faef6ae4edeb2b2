"""A resting part's averaged views in a distance field, for its mesh."""

from collections.abc import Sequence

import numpy as np

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.track import PartPose
from depthcell.fusion.tsdf import Tsdf
from depthcell.fusion.tsdf_blocks import LIMIT_BYTES, VoxelBox
from depthcell.fusion.tsdf_sight import sight_of
from depthcell.fusion.view import View


def field_of_views(views: Sequence[View], cell: Cell, voxel_m: float, limit_bytes: int = LIMIT_BYTES) -> Tsdf:
    """The views of one resting part as a field in the frame "cell", in the smallest box that holds their points.

    Args:
        views: averaged over time.
        cell: of their cameras.
        voxel_m: edge of a voxel.
        limit_bytes: of memory.

    Raises:
        DepthcellError: (`NOT_MEASURED`) no view has a valid pixel; or the box does not fit into the memory.
    """
    seeing = [view for view in views if view.valid.any()]
    if not seeing:
        raise DepthcellError("mesh: no camera measured anything; check the recording", Reason.NOT_MEASURED)
    points = np.concatenate([view.points_cell[view.valid] for view in seeing])
    sigma_m = max(float(np.median(view.random_sigma_m[view.valid])) for view in seeing)
    truncation_m = max(2 * voxel_m, 1.74 * voxel_m + 4 * sigma_m)
    lower_m, upper_m = (corner.astype(np.float64) for corner in (points.min(axis=0), points.max(axis=0)))
    box = VoxelBox(lower_m - truncation_m, upper_m + truncation_m, voxel_m)
    pose = PartPose(RigidTransform.identity("cell", "part"), np.zeros((6, 6)), np.zeros((6, 6)))
    field = Tsdf(box, [view.serial for view in seeing], truncation_m, limit_bytes)
    for number, view in enumerate(seeing):
        sight, seen = sight_of(view, number, cell.camera(view.serial), pose, is_new_look=True)
        field.add(sight, seen.points)
    return field
