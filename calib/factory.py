"""A cell of one camera, from what the recording itself says: enough to fuse a recording nobody has calibrated."""

from depthcell.acquisition.frameset import CameraFrame
from depthcell.calib.cell import Cell


def factory_cell(frame: CameraFrame) -> Cell:
    """The cell of one uncalibrated camera, which sits at the cell's origin.

    Raises:
        DepthcellError: the frame has no depth, or neither the recording nor the model's name tells the baseline.
    """
    raise NotImplementedError
