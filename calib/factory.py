"""A cell of one camera, from what the recording itself says: enough to fuse a recording nobody has calibrated."""

from collections.abc import Iterable

import numpy as np

from depthcell.acquisition.frameset import CameraFrame, ColorImage, DepthImage
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell, CellCamera, DisparityNoise, camera_covariance
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.errors import DepthcellError, Reason

BASELINES_M = {"D405": 0.018, "D415": 0.055, "D435": 0.050, "D455": 0.095}
"""Nominal distance of the stereo pair by model (Intel, D400 series data sheet), where a recording has none."""
NOISE = DisparityNoise(temporal_px=0.13, fixed_px=0.03, correlation_px=9.0)
"""Of a D400 camera as it leaves the factory, measured on the wall (0.15 px) and the whiteboard (0.11 px) of the D435
recording in tests/data: noise of one frame, alike over 8 to 12 px. It differs wholly between its two frames, so that
for what stays the best case of the literature is taken, 0.03 px."""
SCALE_U = 0.02
"""Nothing is corrected, but a D435 out of the box was seen to read 19 mm short at 1 m."""
NEVER = "1970-01-01T00:00:00Z"


def factory_cell(frames: Iterable[CameraFrame]) -> Cell:
    """The cell of one uncalibrated camera, which itself is the cell's origin.

    Reads frames until both a depth and a colour image have been seen, or to the end.

    Args:
        frames: of one camera.

    Raises:
        DepthcellError: the frames are of several cameras, hold no depth, or neither they nor the model's name tell the
            baseline.
    """
    camera: CameraFrame | None = None
    depth: DepthImage | None = None
    color: ColorImage | None = None
    T_color_depth: RigidTransform | None = None
    for frame in frames:
        if camera is not None and frame.serial != camera.serial:
            raise DepthcellError(
                f"cameras {camera.serial} and {frame.serial}: how they stand to each other is not in their recordings; "
                "name a cell file with --cell",
                Reason.CELL_INVALID,
            )
        camera, depth, color = frame, depth or frame.depth, color or frame.color
        T_color_depth = T_color_depth or frame.T_color_depth
        if depth is not None and color is not None:
            break
    if camera is None or depth is None:
        raise DepthcellError("recording: holds no depth image; record the depth stream")
    has_color = color is not None and T_color_depth is not None
    return Cell(
        name=f"factory {camera.serial}",
        cameras={
            camera.serial: CellCamera(
                serial=camera.serial,
                model=camera.model,
                depth=depth.intrinsics,
                color=color.intrinsics if color is not None and has_color else None,
                T_cell_depth=RigidTransform.identity("cell", f"depth:{camera.serial}"),
                covariance=camera_covariance(np.zeros((6, 6)), depth.intrinsics, DepthCorrection(), {"scale": SCALE_U}),
                T_color_depth=T_color_depth if has_color else None,
                baseline_m=baseline_of(camera.model, depth.baseline_m),
                noise=NOISE,
            )
        },
        calibrated_at=NEVER,
    )


def baseline_of(model: str, recorded_m: float | None) -> float:
    """The stereo pair's distance as recorded, or else that of the model.

    Raises:
        DepthcellError: neither is known.
    """
    if recorded_m is not None:
        return recorded_m
    for name, baseline_m in BASELINES_M.items():
        if name in model:
            return baseline_m
    known = ", ".join(BASELINES_M)
    raise DepthcellError(
        f"baseline: the recording has none, and model '{model}' is not among {known}; name a cell file with --cell",
        Reason.CELL_INVALID,
    )
