"""Pictures of docs/calibrate-a-cell.md, all made from one calibration run.

python -m depthcell.calib.certify.guide_pictures RUN OUT
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from depthcell.acquisition.simulator.cameras import CameraModel
from depthcell.calib.board_recordings import board_recordings, serials_of
from depthcell.calib.calibrate_run import Calibrated, CalibrationPlan, calibrate
from depthcell.calib.certify.certificate_fill import CertificateRequest, part_map
from depthcell.calib.certify.certificate_pictures import depth_bias, stream_evidence
from depthcell.calib.certify.plots import ORANGE, house_style, png_of
from depthcell.calib.certify.plots_maps import draw_depth_bias, draw_uncertainty
from depthcell.calib.certify.plots_views import draw_coverage, draw_poses, draw_residuals
from depthcell.calib.guiding.guide_run import advise_on
from depthcell.calib.observation import Observation
from depthcell.calib.planning.plan import PlannedDefect, PlanRequest
from depthcell.calib.planning.plan_report import write_plan_picture
from depthcell.calib.target.board import Board
from depthcell.calib.target.board_views import frameset_images
from depthcell.calib.target.boardview import BoardView
from depthcell.calib.target.detect import detect, grey_of
from depthcell.errors import DepthcellError
from depthcell.files import written_beside

BOARD = "charuco:9x6:30mm"
PITCH_U = 1e-4
PREFIX = "calibrate_"
DPI = 100
PLAN_WIDTH_PX, NEXT_WIDTH_PX, VERIFIED_WIDTH_PX = 880, 700, 1400
VERIFIED = "ballbar"
EARLY_PLACES = 8
"""So many places are enough to be advised on, and too few to be done."""
PLANNED = PlanRequest(CameraModel.D415, 0.5, 30, PlannedDefect.DENT, 0.010)
LARGEST_BYTES = 150_000
"""A picture of the documentation is no larger."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """An image of the board, and what is found in it."""

    stream: str
    image: NDArray[np.uint8]
    pixels: NDArray[np.float64]


def draw_guide(run: Path, out: Path) -> tuple[Path, ...]:
    """Calibrate `run` and draw every picture of the guide into `out`.

    Raises:
        DepthcellError: the run cannot be calibrated, the cell cannot be verified, or a picture came out too large.
    """
    calibrated = calibrate(CalibrationPlan(run, (Board.parse(BOARD),), run.resolve().name, PITCH_U))
    written = [_written(out / f"{PREFIX}{name}.png", png) for name, png in calibration_pictures(run, calibrated)]
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "drawn.png"
        write_plan_picture(PLANNED, drawn)
        written.append(_written(out / f"{PREFIX}plan.png", shrunk(drawn, PLAN_WIDTH_PX)))
        advise_on(early(calibrated.observation), None, drawn)
        written.append(_written(out / f"{PREFIX}next.png", shrunk(drawn, NEXT_WIDTH_PX)))
    written.append(_written(out / f"{PREFIX}verified.png", verified(run, calibrated)))
    return tuple(written)


def calibration_pictures(run: Path, calibrated: Calibrated) -> Iterator[tuple[str, bytes]]:
    """Name and PNG of what the calibration itself shows; of the streams only those of the left imagers."""
    problem, solution = calibrated.rig.problem, calibrated.rig.bundle
    streams = tuple(one for one in stream_evidence(problem, solution) if one.stream.startswith("depth:"))
    figures = {
        "board": draw_found(shown_boards(run, calibrated.observation)),
        "coverage": draw_coverage(streams),
        "poses": draw_poses(streams),
        "residuals": draw_residuals(streams[:2], columns=1),
        "depth": draw_depth_bias(depth_bias(problem, solution)),
        "uncertainty": draw_uncertainty(part_map(calibrated, CertificateRequest())),
    }
    for name, figure in figures.items():
        yield name, png_of(figure, DPI)


def shown_boards(run: Path, observation: Observation) -> tuple[Shown, ...]:
    """Two images of the first camera's left imager, the board as large as it gets: whole, and cut off."""
    board, serial = observation.boards[0], min(observation.devices)
    views = [view for view in observation.seen.views if view.stream == f"depth:{serial}"]
    whole = [view for view in views if len(view.ids) == len(board.points_board)]
    part = [view for view in views if len(view.ids) < len(board.points_board)]
    if not whole or not part:
        raise DepthcellError(f"{run}: camera {serial} saw no board whole, or none in part; take a longer run")
    chosen = (max(whole, key=_area_px2), max(part, key=_area_px2))
    return tuple(_shown(run, board, view) for view in chosen)


def _area_px2(view: BoardView) -> float:
    """How much of the image the features span."""
    return float(np.prod(np.ptp(view.pixels, axis=0)))


def _shown(run: Path, board: Board, view: BoardView) -> Shown:
    recordings = board_recordings(run)
    for instant, frameset in enumerate(recordings.framesets(serials_of(recordings))):
        if instant == view.instant:
            images = {image.stream: image.image for image in frameset_images(frameset, instant)}
            grey = grey_of(images[view.stream])
            return Shown(view.stream, grey, detect(board, grey).pixels)
    raise DepthcellError(f"{run}: instant {view.instant} is not in the recording any more")


@house_style
def draw_found(boards: tuple[Shown, ...]) -> Figure:
    """Images of the board as a camera takes them, with what is found marked; last, one corner magnified."""
    figure = Figure(figsize=(8.0, 2.1), layout="constrained", facecolor="white")
    grid = figure.subplots(1, len(boards) + 1, width_ratios=[1.6] * len(boards) + [1.0])
    for axes, one in zip(grid, boards, strict=False):
        _image(axes, one, 9.0)
        axes.set_title(f"{one.stream}: {len(one.pixels)} corners")
    first = boards[0]
    column, row = np.round(first.pixels[len(first.pixels) // 2])
    _image(grid[-1], first, 200.0)
    grid[-1].set(xlim=(column - 12.5, column + 12.5), ylim=(row + 12.5, row - 12.5), title="One of them")
    return figure


def _image(axes: Axes, one: Shown, size: float) -> None:
    """`size` is a mark's, in square points; the image is brightened so that its white paper is white."""
    white = float(np.quantile(one.image, 0.995))
    axes.imshow(one.image, cmap="gray", vmin=0, vmax=white)
    axes.scatter(one.pixels[:, 0], one.pixels[:, 1], s=size, marker="+", c=ORANGE, linewidths=1.0)
    axes.set(xticks=[], yticks=[])


def early(observation: Observation, places: int = EARLY_PLACES) -> Observation:
    """The observation as it was after so many places of the board, by the left imagers alone."""
    instants = {place.instant for place in observation.seen.places[:places]}
    seen = observation.seen
    views = tuple(view for view in seen.views if view.instant in instants and view.stream.startswith("depth:"))
    tiles = tuple(one for one in observation.depth if one.instant in instants)
    devices = {
        serial: replace(
            device,
            intrinsics={stream: lens for stream, lens in device.intrinsics.items() if stream.startswith("depth:")},
            T_color_depth=None,
        )
        for serial, device in observation.devices.items()
    }
    seen = replace(seen, views=views, places=seen.places[:places])
    return replace(observation, devices=devices, seen=seen, depth=tiles)


def verified(run: Path, calibrated: Calibrated) -> bytes:
    """What `depthcell verify` draws of the run's ball bar; its room lies above this one, so its command is asked."""
    with tempfile.TemporaryDirectory() as folder:
        cell = Path(folder) / "cell.json"
        calibrated.cell.save(cell)
        verify = ["verify", "--cell", cell, run / VERIFIED, "--out", Path(folder) / "check", "--dry-run"]
        call = [sys.executable, "-m", "depthcell", *map(str, verify)]
        done = subprocess.run(call, capture_output=True, text=True, check=False)  # a cell that fails is shown too
        pictures = sorted((Path(folder) / "check").glob("*.png"))
        if not pictures:
            raise DepthcellError(f"{run / 'plate'}: {done.stderr.strip() or 'no picture was drawn'}")
        return shrunk(pictures[0], VERIFIED_WIDTH_PX)


def shrunk(path: Path, width_px: int) -> bytes:
    """A picture, made narrower where it is wider, as PNG."""
    image = cv2.imread(str(path))
    if image is None:
        raise DepthcellError(f"{path}: is no picture")
    share = width_px / image.shape[1]
    if share < 1:
        image = cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return data.tobytes()


def _written(path: Path, png: bytes) -> Path:
    if len(png) > LARGEST_BYTES:
        raise DepthcellError(f"{path}: {len(png)} bytes, more than {LARGEST_BYTES}; draw less in it")
    with written_beside(path) as partial:
        partial.write_bytes(png)
    return path


def main() -> None:
    """Draw the pictures of the documentation."""
    for path in draw_guide(Path(sys.argv[1]), Path(sys.argv[2])):
        print(path)


if __name__ == "__main__":
    main()
