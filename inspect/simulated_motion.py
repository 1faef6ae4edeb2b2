"""A simulated part that moves: one part's folder with encoder and track, and the cell to fuse it with."""

from pathlib import Path

from depthcell.acquisition.simulator.movingrun import Motion, simulate_motion
from depthcell.acquisition.simulator.station import StationPlan, build_station
from depthcell.errors import DepthcellError
from depthcell.inspect.simulated_cell import calibrated_cell
from depthcell.inspect.simulated_station import CELL_FILE

PART_FOLDER = "part_0001"


def parse_motion(text: str) -> Motion:
    """A motion from its kind and speed, such as `conveyor:60` (mm/s) or `turntable:20` (degrees per second).

    Raises:
        DepthcellError: it is written in another way, or has no speed.
    """
    kind, _, speed = text.partition(":")
    try:
        number = float(speed)
    except ValueError as error:
        message = f"--motion {text}: write conveyor:60 (mm/s) or turntable:20 (degrees per second)"
        raise DepthcellError(message) from error
    match kind:
        case "conveyor" | "turntable":
            return Motion(kind, number)
        case _:
            raise DepthcellError(f"--motion {text}: {kind} is unknown; choose conveyor or turntable")


def simulate_moving_part(plan: StationPlan, motion: Motion, out: Path) -> Path:
    """Record one good part in motion and return its folder; the cell lies above it, as for parts at rest.

    Raises:
        DepthcellError: the plan asks for what cannot be had, or the part's folder or a cell is there already.
    """
    folder = out / PART_FOLDER
    for path in (folder, out / CELL_FILE):
        if path.exists():
            raise DepthcellError(f"--out {out}: holds {path.name} already; name a new folder")
    simulate_motion(plan, motion, folder)
    calibrated_cell(build_station(plan)).save(out / CELL_FILE)
    return folder
