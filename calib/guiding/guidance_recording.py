"""Guidance from what has been recorded so far, with nothing known but what the devices say of themselves."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.bundle import BundleProblem
from depthcell.calib.certify.uncertaintymap import Volume
from depthcell.calib.guiding.guidance import GuidanceSettings, guide
from depthcell.calib.guiding.guidance_information import Advice
from depthcell.calib.solving.rig import RigRecording
from depthcell.calib.solving.rig_lens import as_supported, start_intrinsics
from depthcell.calib.solving.rig_start import RigInput, RigStart, start_rig
from depthcell.calib.target.boardview import DepthTiles
from depthcell.errors import DepthcellError

TOO_LITTLE = "guidance: too little data to advise on yet"


def guide_recording(
    recording: RigRecording,
    volume: Volume | None = None,
    picture: Path | None = None,
    T_cell_origin: RigidTransform | None = None,
    settings: GuidanceSettings | None = None,
) -> Advice:
    """Say which board pose to record next.

    Args:
        recording: what was seen so far.
        volume: where parts will lie, in the frame that `T_cell_origin` gives; None takes the box around the boards.
        picture: file to draw the advice in, PNG.
        T_cell_origin: pose of the board that defines the cell, as in `rig.SolveSettings`.
        settings: which poses to try.

    Raises:
        DepthcellError: there is too little data to advise on; the message names what is missing.
    """
    blind = sorted(set(recording.factory) - {view.stream for view in recording.views})
    if blind:
        raise DepthcellError(f"{TOO_LITTLE}: {', '.join(blind)} saw no board; hold the board before it")
    lenses = {stream: as_supported(lens) for stream, lens in recording.factory.items()}
    for stream, size_px in recording.sizes_px.items():
        views = [view for view in recording.views if view.stream == stream]
        if stream not in lenses and views:
            lenses[stream] = start_intrinsics(views, recording.boards, size_px)
    try:
        start = start_rig(
            RigInput(recording.boards, recording.views, lenses, recording.T_color_depth), None, T_cell_origin
        )
        problem = _problem(recording, start, lenses)
    except DepthcellError as error:
        raise DepthcellError(f"{TOO_LITTLE}: {error}") from error
    return guide(problem, volume, picture, settings)


def _problem(recording: RigRecording, start: RigStart, lenses: dict[str, Intrinsics]) -> BundleProblem:
    streams = {view.stream for view in start.views}
    places = {view.place for view in start.views}
    known = [tiles for tiles in recording.depth if f"depth:{tiles.serial}" in streams and tiles.place in places]
    return BundleProblem(
        boards=recording.boards,
        views=start.views,
        streams={stream: lenses[stream] for stream in lenses if stream in streams},
        T_cell_stream={stream: pose for stream, pose in start.T_cell_stream.items() if stream in streams},
        T_cell_board={place: start.T_cell_board[place] for place in places},
        origin=start.origin,
        depth=_recounted(recording, lenses, known),
        baselines_m={serial: b for serial, b in recording.baselines_m.items() if f"depth:{serial}" in streams},
        board_scale_u=1e-4,
    )


def _recounted(
    recording: RigRecording, lenses: dict[str, Intrinsics], known: Sequence[DepthTiles]
) -> tuple[DepthTiles, ...]:
    """Disparities as the start's focal lengths count them, which differ where a lens model was converted."""
    found = []
    for tiles in known:
        ratio = lenses[f"depth:{tiles.serial}"].fx_px / recording.factory[f"depth:{tiles.serial}"].fx_px
        found.append(replace(tiles, disparity_px=tiles.disparity_px * ratio, sigma_px=tiles.sigma_px * ratio))
    return tuple(found)
