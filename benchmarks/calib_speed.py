"""Time of a whole calibration's adjustment, beside a plain dense least-squares solver, and how it grows with the cell.

Run `.venv/bin/python benchmarks/calib_speed.py`; data: `benchmarks/results/calib_speed.json`. Every time is of one
process of one thread; start, outlier rounds, weights and full covariance are part of ours.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: small matrices only lose by more threads

import time
from typing import Any

import numpy as np
import scipy.optimize
from harness import Goal, Peer, Report, Timing, timing_of

from depthcell.calib.adjustment.bundle import BundleProblem, BundleSettings, BundleSolution, solve_bundle
from depthcell.calib.adjustment.bundle_adjustment import Adjustment
from depthcell.calib.adjustment.synthetic_rig import D415_LIKE, RigSettings, synthetic_rig

GOAL_S = 60.0


def rig(cameras: int, instants: int) -> BundleProblem:
    """A simulated cell with infrared, colour and depth of every camera."""
    settings = RigSettings(cameras=cameras, instants=instants, spread_m=0.05, tilt_rad=0.7, color=D415_LIKE)
    return synthetic_rig(settings, np.random.default_rng(cameras * 1000 + instants))[0]


def timed(problem: BundleProblem, repetitions: int) -> tuple[Timing, Timing, BundleSolution]:
    """Our wall-clock and processor time, and the solution."""
    wall, processor = [], []
    solution = solve_bundle(problem)
    for _ in range(repetitions):
        start, work = time.perf_counter(), time.process_time()
        solution = solve_bundle(problem)
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - work)
    return timing_of(wall), timing_of(processor), solution


def dense(problem: BundleProblem) -> tuple[float, float, float]:
    """The same least squares once, weights as stated, by scipy's trust region on a dense Jacobian of our derivatives.

    Returns wall-clock seconds, processor seconds and half the sum of squares reached.
    """
    adjustment = Adjustment(problem, BundleSettings())
    keys = [*adjustment.shared_keys(), *(("place", place) for place in adjustment.place_keys())]
    ends = np.cumsum([0, *(len(adjustment.values[key]) for key in keys)])
    column = {key: slice(ends[number], ends[number + 1]) for number, key in enumerate(keys)}
    rows = np.cumsum([0, *(block.count * block.width for block in adjustment.blocks)])

    def evaluate(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        residuals, jacobian = np.zeros(rows[-1]), np.zeros((rows[-1], ends[-1]))
        for number, block in enumerate(adjustment.blocks):
            values = [x[column[key]] if key in column else adjustment.values[key] for key in block.keys]
            found = block.evaluate(values, adjustment.bases)
            assert found is not None
            here = slice(rows[number], rows[number + 1])
            residuals[here] = found.residuals.ravel()
            for key, part in zip(block.keys, found.jacobians, strict=True):
                if key in column:
                    jacobian[here, column[key]] = part.reshape(rows[number + 1] - rows[number], -1)
        return residuals, jacobian

    start, work = time.perf_counter(), time.process_time()
    x0 = np.concatenate([adjustment.values[key] for key in keys])
    solver: Any = scipy.optimize.least_squares  # it ships no types
    found = solver(lambda x: evaluate(x)[0], x0, lambda x: evaluate(x)[1], method="trf", x_scale="jac")
    return time.perf_counter() - start, time.process_time() - work, float(found.cost)


def once(problem: BundleProblem) -> tuple[float, float, float]:
    """Our solver doing no more than `dense` does: the same weights, no rounds, no covariance."""
    start, work = time.perf_counter(), time.process_time()
    adjustment = Adjustment(problem, BundleSettings())
    adjustment.solve()
    seconds, processor = time.perf_counter() - start, time.process_time() - work
    cost = 0.0
    for block in adjustment.blocks:
        found = block.evaluate([adjustment.values[key] for key in block.keys], adjustment.bases)
        assert found is not None
        cost += float(np.square(found.residuals).sum()) / 2
    return seconds, processor, cost


def main() -> None:
    """The goal, its growth, and the peer on a cell that it can do."""
    report = Report("calib_speed")
    reference = 0.0
    for cameras, instants in ((4, 60), (8, 60), (4, 120)):
        problem = rig(cameras, instants)
        wall, processor, solution = timed(problem, 3)
        reference = reference or processor.median_s
        report.add(
            f"{cameras} cameras with infrared, colour, depth, {instants} places of the board: all rounds, covariance",
            wall,
            Goal(seconds=GOAL_S * cameras * instants / 240),
            views=len(problem.views),
            depth_views=len(problem.depth),
            corners=sum(len(view.ids) for view in problem.views),
            shared_parameters=len(solution.parameter_names),
            poses=len(solution.places),
            rounds=solution.rounds,
            processor_median_s=round(processor.median_s, 2),
            processor_time_over_that_of_4_cameras_60_places=round(processor.median_s / reference, 2),
        )
    for cameras, instants in ((4, 15), (4, 30)):
        problem = rig(cameras, instants)
        ours, theirs = once(problem), dense(problem)
        report.add(
            f"{cameras} cameras, {instants} places: least squares alone, same residuals, derivatives and weights",
            timing_of([ours[0]]),
            Goal(ratio=3.0),
            Peer("scipy.optimize.least_squares, trust region, dense", timing_of([theirs[0]])),
            our_processor_s=round(ours[1], 2),
            peer_processor_s=round(theirs[1], 2),
            our_cost=round(ours[2], 4),
            peer_cost=round(theirs[2], 4),
        )
    report.write()


if __name__ == "__main__":
    main()
