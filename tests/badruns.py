"""Simulated runs that differ in what goes wrong: what looks the same in two of them is rendered once."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from depthcell.acquisition.simulator import targetrun
from depthcell.acquisition.simulator.calibrationcell import CalibrationPlan, Faults
from depthcell.acquisition.simulator.calibrationtruth import CalibrationTruth
from depthcell.acquisition.simulator.recordingwriter import write_recording
from depthcell.acquisition.simulator.targetbodies import Target
from depthcell.acquisition.simulator.targetrun import Session
from depthcell.calib import simulated_run
from depthcell.calib.calibrate_run import Calibrated, calibrate
from depthcell.calib.calibrate_run import CalibrationPlan as Asked
from depthcell.calib.simulated_run import CalibrationSettings, simulate_calibration
from depthcell.calib.target.board import Board

SPEC = "charuco:9x6:30mm"
SERIALS = ("415000001", "415000002", "415000003")
PLACES = 14
images_of = targetrun._images_of


class Studio:
    """Where runs are made."""

    def __init__(self, folder: Path, seed: int = 3) -> None:
        self.folder = folder
        self.seed = seed
        self._rendered: dict[object, list[object]] = {}

    def run(
        self,
        name: str,
        faults: Faults | None = None,
        places: int = PLACES,
        cameras: int = 2,
        printed: str | None = None,
    ) -> Path:
        """A run with genuine recordings of the board, told to be `SPEC`, whatever was `printed`."""
        out = self.folder / name
        if not (out / "truth.json").exists():
            plan = CalibrationPlan("D415", cameras, self.seed, places, frames=1, faults=faults or Faults())
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(targetrun, "_images_of", lambda *what: self._once(printed, *what))
                simulate_calibration(plan, CalibrationSettings(SPEC, printed, (Target.BOARD,)), out, lambda _: None)
        return out

    def exchange_labels(self, name: str, cameras: int = 2) -> Path:
        """A sound run in which each of the first two cameras' images carry the other's serial and factory values."""
        out, plan = self.run(name, cameras=cameras), CalibrationPlan("D415", cameras, self.seed, PLACES, frames=1)
        session = simulated_run._session(plan, CalibrationSettings(SPEC, None, (Target.BOARD,)), Target.BOARD)
        for camera, other in ((0, 1), (1, 0)):
            device = targetrun.written_device(session, other)
            path = out / "board" / f"{device.serial}.db3"
            path.unlink()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(targetrun, "_images_of", lambda *what: self._once(None, *what))
                write_recording(path, device, tuple(targetrun._frames(session, camera)))
        return out

    def _once(
        self, printed: str | None, session: Session, camera: int, pose: int, rng: np.random.Generator
    ) -> Iterator[object]:
        faults = session.faults
        key = (
            (printed, faults.mirrored, faults.board_factor, pose in faults.blurred, pose in faults.overexposed),
            (len(session.cell.cameras), camera, pose, session.poses[pose].matrix.tobytes()),
            targetrun._pose_of(session, camera, pose).matrix.tobytes(),
        )
        if key not in self._rendered:
            self._rendered[key] = list(images_of(session, camera, pose, rng))
        yield from self._rendered[key]


def calibrated(run: Path) -> Calibrated:
    return calibrate(Asked(run, (Board.parse(SPEC),), "bench"))


def worst_deviations(result: Calibrated, run: Path) -> dict[str, float]:
    """How far the cell is from the truth, the largest of each kind, in standard uncertainties.

    Poses are taken of all cameras in the first one, which does not depend on where the cell's origin is.
    """
    truth, cell = CalibrationTruth.load(run / "truth.json"), result.cell
    lens = [
        abs(getattr(camera.depth, name) - getattr(truth.camera(serial).depth, name)) / camera.u(name)
        for serial, camera in cell.cameras.items()
        for name in ("fx_px", "fy_px", "cx_px", "cy_px")
    ]
    first, *others = cell.cameras
    off_m = []
    for serial in others:
        T_first_other = cell.camera(first).T_cell_depth.inverse() @ cell.camera(serial).T_cell_depth
        true = [truth.camera(name).T_cell_depth.transform("cell", f"depth:{name}") for name in (first, serial)]
        off_m.append(float(np.linalg.norm(T_first_other.translation_m - (true[0].inverse() @ true[1]).translation_m)))
    return {"lens": max(lens), "place_m": max(off_m, default=0.0)}
