"""Whether the views determine what is asked of them, told before and after the solution and when there is none."""

import numpy as np

from depthcell.calib.adjustment.bundle_adjustment import Adjustment
from depthcell.calib.adjustment.bundle_normal import Information, information_of
from depthcell.errors import DepthcellError, Reason

REMEDY = (
    "add views of the board tilted by 20 to 40 degrees about both axes and at different distances, or hold this lens"
)
SLACK_AT_START = 3.0
"""Before the solution the noise is what detectors state, which may be several times too rough."""


def check_start(adjustment: Adjustment) -> None:
    """Refuse a start that is impossible, and views that cannot determine a lens.

    Raises:
        DepthcellError: a board lies behind a camera that saw it, or a lens or pose is left open; the message names it.
    """
    adjustment.check_start()
    check_lenses(adjustment, information_of(adjustment), SLACK_AT_START)


def check_lenses(adjustment: Adjustment, information: Information, slack: float = 1.0) -> None:
    """Refuse a lens that the views leave open.

    Raises:
        DepthcellError: a focal length or principal point is more uncertain than `slack` times its limit.
    """
    settings = adjustment.settings
    sigma = dict(zip(adjustment.shared_names(), np.sqrt(np.diag(information.covariance)), strict=True))
    for stream, intrinsics in adjustment.problem.streams.items():
        lens, width_px = adjustment.values["lens", stream], intrinsics.width_px
        limits = {
            "fx_px": settings.focal_limit * lens[0],
            "fy_px": settings.focal_limit * lens[1],
            "cx_px": settings.center_limit * width_px,
            "cy_px": settings.center_limit * width_px,
        }
        for name, limit_px in limits.items():
            u_px = sigma.get(f"{stream}.{name}", 0.0)
            if u_px > slack * limit_px:
                raise DepthcellError(
                    f"adjustment: the views of {stream} leave its {name} open (u = {u_px:.1f} px, at most "
                    f"{limit_px:.1f}); {REMEDY}",
                    Reason.CELL_INVALID,
                )


def solve(adjustment: Adjustment, near: bool = False) -> None:
    """Solve, or say why that cannot be done: because something is not determined, where that is so.

    Raises:
        DepthcellError: the solver did not converge.
    """
    try:
        adjustment.solve(near)
    except DepthcellError:
        check_lenses(adjustment, information_of(adjustment))
        raise
