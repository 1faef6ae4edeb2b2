"""What to record next, from what has been recorded so far."""

from collections.abc import Sequence
from pathlib import Path

from depthcell.calib.board_recordings import board_recordings, serials_of
from depthcell.calib.calibrate_run import centred_on, recording_of
from depthcell.calib.certify.certificate_fill import work_volume
from depthcell.calib.factory import NOISE
from depthcell.calib.guiding.guidance import GuidanceSettings
from depthcell.calib.guiding.guidance_information import Advice
from depthcell.calib.guiding.guidance_recording import guide_recording
from depthcell.calib.observation import Observation, observe
from depthcell.calib.target.board import Board


def advise_from(
    source: Path,
    boards: Sequence[Board],
    volume_mm: tuple[float, float, float] | None,
    picture: Path,
    jobs: int = 1,
) -> Advice:
    """Look at the recordings made so far, and say which place of the board comes next.

    Args:
        source: folder of recordings, as `observe` takes it.
        boards: that were shown.
        volume_mm: work volume, see `work_volume`.
        picture: PNG to write.
        jobs: processes that look for boards.

    Raises:
        DepthcellError: the recordings cannot be used, or show too little to say anything; the message names what is
            missing.
    """
    noise = dict.fromkeys(serials_of(board_recordings(source)), NOISE)
    return advise_on(observe(source, boards, noise, jobs), volume_mm, picture)


def advise_on(
    observation: Observation,
    volume_mm: tuple[float, float, float] | None,
    picture: Path,
    settings: GuidanceSettings | None = None,
) -> Advice:
    """Say which place of the board comes next after what was seen so far.

    Args:
        observation: what was seen.
        volume_mm: work volume, see `work_volume`.
        picture: PNG to write.
        settings: which poses are tried, and when enough is known.

    Raises:
        DepthcellError: too little was seen; the message names what is missing.
    """
    board = observation.boards[0]
    volume = work_volume(board, volume_mm)
    return guide_recording(recording_of(observation), volume, picture, centred_on(board), settings)
