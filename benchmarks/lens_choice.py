"""Whether 95 % intervals of a calibration hold with the choice of lens models in the loop: simulated, bent boards.

Streams are true OpenCV-5 lenses of different strength, from none on, as a rectified stream is; the choice may take a
poorer or a richer model. Run `.venv/bin/python benchmarks/lens_choice.py [--seeds 20]`; data:
`benchmarks/results/lens_choice.json`.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: small matrices only lose by more threads

import argparse
import time
from collections import Counter
from dataclasses import replace

import numpy as np
from harness import Goal, Report, timing_of
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Distortion
from depthcell.calib.adjustment.bundle_coverage import rig_errors
from depthcell.calib.adjustment.synthetic_rig import D415_LIKE, RigSettings, RigTruth, synthetic_rig
from depthcell.calib.solving.rig import RigRecording, RigSolution, SolveSettings, solve_rig

BAND, COVERAGE_K = (0.93, 0.97), 1.959964
CELL = RigSettings(
    cameras=3,
    instants=25,
    lens=replace(D415_LIKE, distortion=Distortion.BROWN_CONRADY),
    spread_m=0.05,
    tilt_rad=0.7,
    sigma_px=0.03,
    stated_px=0.03,
    warp_u_m=0.2e-3,
    tiles=(4, 3),
)
STRENGTHS = (0.0, 0.003, 0.01, 0.03)
"""Of a lens whose k1 is up to 0.08; a lens of 0.003 is hardly seen, one of 0.03 plainly."""


def solved(settings: RigSettings, seed: int) -> tuple[dict[str, NDArray[np.float64]], RigSolution, float]:
    """One cell calibrated with everything chosen: by kind, errors over stated uncertainty; the solution; seconds."""
    problem, truth = synthetic_rig(settings, np.random.default_rng(seed))
    recording = RigRecording(
        problem.boards, problem.views, problem.streams, depth=problem.depth, baselines_m=problem.baselines_m
    )
    how = SolveSettings(
        origin=(0, 0), T_cell_origin=truth.T_cell_board[0, 0], hold_out_every=8, compare_halves=False, threads=1
    )
    start = time.process_time()
    solution = solve_rig(recording, how)
    seconds = time.process_time() - start
    errors = rig_errors(problem, truth, solution.bundle, np.random.default_rng(seed))
    return (
        {kind: errors.error[kind] / errors.u[kind] for kind in errors.error} | centers(truth, solution),
        solution,
        seconds,
    )


def centers(truth: RigTruth, solution: RigSolution) -> dict[str, NDArray[np.float64]]:
    """Errors of principal points over their uncertainty."""
    off = [
        (getattr(solution.bundle.streams[stream], name) - getattr(lens, name)) / solution.bundle.u(f"{stream}.{name}")
        for stream, lens in truth.streams.items()
        for name in ("cx_px", "cy_px")
    ]
    return {"center_px": np.array(off)}


def main() -> None:
    """One row for each strength of the lenses, and one for all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    report = Report("lens_choice")
    everything: dict[str, list[NDArray[np.float64]]] = {}
    all_seconds: list[float] = []
    for number, strength in enumerate(STRENGTHS):
        found: dict[str, list[NDArray[np.float64]]] = {}
        models: Counter[str] = Counter()
        seconds = []
        for seed in range(seeds):
            off, solution, spent = solved(replace(CELL, distortion=strength), 1000 * number + seed)
            seconds.append(spent)
            for kind, values in off.items():
                found.setdefault(kind, []).append(values)
                everything.setdefault(kind, []).append(values)
            for stream, choice in solution.choices.items():
                models["factory" if stream in solution.kept_factory else choice.intrinsics.distortion.value] += 1
        all_seconds += seconds
        _add(
            report, f"{seeds} cells of 3 cameras, true distortion {strength:g} of a raw lens's", seconds, found, models
        )
    _add(report, f"all {seeds * len(STRENGTHS)} cells together", all_seconds, everything, Counter())
    report.write()


def _add(
    report: Report, what: str, seconds: list[float], found: dict[str, list[NDArray[np.float64]]], models: Counter[str]
) -> None:
    together = {kind: np.concatenate(values) for kind, values in found.items()}
    shares = {kind: round(float(np.mean(np.abs(values) <= COVERAGE_K)), 4) for kind, values in together.items()}
    notes: dict[str, object] = {f"share_within_95_{kind}": share for kind, share in shares.items()}
    spread = {kind: np.std([np.mean(np.abs(v) <= COVERAGE_K) for v in parts], ddof=1) for kind, parts in found.items()}
    notes |= {f"standard_error_{kind}": round(float(spread[kind] / np.sqrt(len(seconds))), 4) for kind in spread}
    notes |= {f"rms_over_u_{kind}": round(float(np.sqrt(np.mean(v**2))), 3) for kind, v in together.items()}
    notes |= {f"n_{kind}": len(values) for kind, values in together.items()}
    if models:
        notes["models_chosen"] = dict(models)
    reached = all(BAND[0] <= share <= BAND[1] for share in shares.values())
    goal = Goal(words="each share within 0.93 to 0.97", reached=reached)
    report.add(what, timing_of(seconds), goal, None, **notes)


if __name__ == "__main__":
    main()
