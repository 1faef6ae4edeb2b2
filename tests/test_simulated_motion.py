"""A moving part as the command line makes it: recorded, fused along its track, once."""

from pathlib import Path

import pytest

from depthcell.acquisition.simulator.station import StationPlan
from depthcell.errors import DepthcellError
from depthcell.fusion.fuse_run import FuseRequest, fuse_to_files
from depthcell.inspect.simulated_motion import parse_motion, simulate_moving_part


def test_a_moving_part_is_recorded_and_fused_along_its_track(tmp_path: Path) -> None:
    plan = StationPlan(part="bracket", camera_model="D405", cameras=1, seed=5, frames=4)
    folder = simulate_moving_part(plan, parse_motion("turntable:20"), tmp_path)
    request = FuseRequest(folder, tmp_path / "part.ply", track_path=folder / "track.toml")
    summary = fuse_to_files(request, lambda: None)
    assert summary["frames"] == 4
    assert isinstance(summary["points"], int)
    assert summary["points"] > 1000
    with pytest.raises(DepthcellError, match="holds part_0001 already"):
        simulate_moving_part(plan, parse_motion("turntable:20"), tmp_path)


def test_a_cell_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "cell.json").write_text("mine")
    plan = StationPlan(part="bracket", camera_model="D405", cameras=1, seed=5, frames=4)
    with pytest.raises(DepthcellError, match=r"holds cell\.json already"):
        simulate_moving_part(plan, parse_motion("conveyor:60"), tmp_path)
    assert (tmp_path / "cell.json").read_text() == "mine"
    assert not (tmp_path / "part_0001").exists()
