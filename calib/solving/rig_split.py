"""Which instants are kept out of the fit."""

from collections.abc import Sequence

from depthcell.calib.adjustment.bundle_problem import Place
from depthcell.calib.solving.rig_start import tied_groups
from depthcell.calib.target.boardview import BoardView
from depthcell.errors import DepthcellError


def held_out_instants(views: Sequence[BoardView], every: int, origin: Place) -> frozenset[int]:
    """Every `every`-th instant, never the origin's, and none without which the rig would fall apart.

    Raises:
        DepthcellError: `every` is below 2, or nothing could be held out.
    """
    if every < 2:
        raise DepthcellError(f"hold_out_every: must be 2 or more, got {every}; a fit is judged by what it has not seen")
    instants = sorted({view.instant for view in views})
    held_out: set[int] = set()
    whole = len(tied_groups(views))
    for instant in instants[every - 1 :: every]:
        rest = [view for view in views if view.instant not in held_out | {instant}]
        same_streams = {view.stream for view in rest} == {view.stream for view in views}
        if instant != origin[1] and same_streams and len(tied_groups(rest)) == whole:
            held_out.add(instant)
    if not held_out:
        raise DepthcellError(
            f"views: of {len(instants)} instants none can be held out to judge the fit; show the board at more places"
        )
    return frozenset(held_out)
