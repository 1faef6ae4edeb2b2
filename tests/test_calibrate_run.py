"""A calibration from the command line, from recordings to a sealed cell, a certificate and its first verification."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from depthcell import cli
from depthcell.acquisition.simulator.calibrationcell import CalibrationPlan
from depthcell.acquisition.simulator.calibrationtruth import CalibrationTruth
from depthcell.acquisition.simulator.targetbodies import Target
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell
from depthcell.calib.certify.certificate import verify_certificate
from depthcell.calib.seal import fingerprint, station_public_key
from depthcell.calib.simulated_run import CalibrationSettings, simulate_calibration

SPEC = "charuco:9x6:30mm"
PLAN = CalibrationPlan("D415", cameras=2, seed=3, places=12, frames=1, artefact_frames=4)
Call = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True)
class Bench:
    """A run that was calibrated, and what the command said."""

    run: Path
    cell_file: Path
    certificate: Path
    said: dict[str, object]

    @property
    def cell(self) -> Cell:
        return Cell.load(self.cell_file)

    @property
    def truth(self) -> CalibrationTruth:
        return CalibrationTruth.load(self.run / "truth.json")


def called(capture: Callable[[], tuple[str, str]], *words: str | Path) -> tuple[int, str, str]:
    capture()
    with pytest.raises(SystemExit) as left:
        cli.main([str(word) for word in words])
    out, err = capture()
    assert isinstance(left.value.code, int)
    return left.value.code, out, err


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    return lambda *words: called(capfd.readouterr, *words)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Recorded and calibrated once."""
    folder = tmp_path_factory.mktemp("bench")
    run, cell, certificate = folder / "run", folder / "cell.json", folder / "cell.pdf"
    simulate_calibration(PLAN, CalibrationSettings(SPEC, None, (Target.BOARD, Target.PLATE)), run, lambda _: None)
    words = ["calibrate", run, "--board", SPEC, "--out", cell, "--certificate", certificate, "--jobs", "1", "--json"]
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda text="", **_: said.append(str(text)))  # capfd lives for one test only
        with pytest.raises(SystemExit) as left:
            cli.main([str(word) for word in words])
    assert left.value.code == 0
    return Bench(run, cell, certificate, json.loads(said[-1]))


def test_the_cell_is_right_within_what_it_says(bench: Bench) -> None:
    for serial, camera in bench.cell.cameras.items():
        true = bench.truth.camera(serial).depth
        for name in ("fx_px", "fy_px", "cx_px", "cy_px"):
            assert abs(getattr(camera.depth, name) - getattr(true, name)) < 4 * camera.u(name), (serial, name)


def test_the_cameras_stand_where_they_do_within_what_the_joint_covariance_says(bench: Bench) -> None:
    """Pose of the second in the first, which no choice of the cell's frame changes; by finite differences."""
    cell = bench.cell
    assert cell.covariance is not None
    first, second = cell.cameras.values()
    poses = [first.T_cell_depth, second.T_cell_depth]
    true = [bench.truth.camera(s).T_cell_depth.transform("cell", f"depth:{s}") for s in cell.cameras]
    at = [0, len(first.parameter_names)]
    indices = [*range(at[0], at[0] + 6), *range(at[1], at[1] + 6)]
    covariance = cell.covariance[np.ix_(indices, indices)]
    assert np.abs(covariance[:6, 6:]).max() > 0

    def place_m(twists: np.ndarray) -> np.ndarray:
        moved: list[RigidTransform] = [T.perturbed(twists[6 * k : 6 * k + 6]) for k, T in enumerate(poses)]
        return np.asarray((moved[0].inverse() @ moved[1]).translation_m)

    steps = 1e-6 * np.eye(12)
    jacobian = np.stack([(place_m(step) - place_m(-step)) / 2e-6 for step in steps], axis=1)
    u_m = np.sqrt(np.diag(jacobian @ covariance @ jacobian.T))
    off_m = place_m(np.zeros(12)) - (true[0].inverse() @ true[1]).translation_m
    assert (np.abs(off_m) < 4 * u_m).all(), (off_m, u_m)
    assert u_m.max() < 5e-4


def test_json_says_what_the_files_hold(bench: Bench) -> None:
    assert bench.said["cell_sha256"] == bench.cell.sha256
    assert bench.said["suspected"] == []
    assert bench.said["certificate"] == str(bench.certificate)
    for camera in bench.said["cameras"]:  # type: ignore[attr-defined]
        assert camera["fx_px"] == bench.cell.camera(camera["serial"]).depth.fx_px
    streams = {stream["stream"]: stream for stream in bench.said["streams"]}  # type: ignore[attr-defined]
    assert set(streams) == {f"{kind}:{serial}" for kind in ("depth", "color") for serial in bench.cell.cameras}
    assert all(stream["held_out_rms_px"] < 0.2 for stream in streams.values())
    for depth in bench.said["depth"]:  # type: ignore[attr-defined]
        assert abs(depth["bias_after_mm"]) < 0.5 * abs(depth["bias_before_mm"])


def test_certificate_and_cell_are_signed_and_a_changed_one_is_not(bench: Bench, tmp_path: Path, call: Call) -> None:
    assert verify_certificate(bench.certificate) == fingerprint(station_public_key())
    said = {bench.certificate: "unchanged since it was signed", bench.cell_file: "sealed and unchanged"}
    for path, words in said.items():
        code, out, _ = call("calibrate", "check", path)
        assert code == 0
        assert words in out
    changed = tmp_path / "cell.json"
    changed.write_text(bench.cell_file.read_text().replace('"scale": 0.', '"scale": 1.').replace('"run"', '"other"'))
    code, _, err = call("calibrate", "check", changed)
    assert code == 2
    assert err.count("\n") == 1


def test_the_plate_verifies_the_cell(bench: Bench, tmp_path: Path, call: Call) -> None:
    code, out, _ = call("verify", "--cell", bench.cell_file, bench.run / "plate", "--out", tmp_path / "v", "--json")
    result = json.loads(out)
    assert code == 0, out
    assert result["passed"] is True
    assert (tmp_path / "v" / "verification.png").is_file()


def test_the_guide_says_what_would_help(bench: Bench, tmp_path: Path, call: Call) -> None:
    words = ("calibrate", "guide", bench.run, "--board", SPEC, "--out", tmp_path / "guide.png", "--jobs", "1", "--json")
    code, out, _ = call(*words)
    told = json.loads(out)
    assert code == 0
    assert told["sentence"]
    assert 0 < told["then_mm"] <= told["now_mm"]
    assert (tmp_path / "guide.png").stat().st_size > 10_000
