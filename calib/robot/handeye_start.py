"""Where a hand-eye calibration starts: is the motion enough, what do the clocks differ by, which solver does best."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.robot.handeye_problem import HandEyeState, Samples, targets
from depthcell.calib.robot.handeye_trajectory import Poses, Trajectory
from depthcell.errors import DepthcellError, Reason

LEAST_TURN_RAD = np.radians(5.0)
"""Root mean square rotation of the hand below which it counts as not having turned at all."""
LEAST_SECOND_TURN_RAD = np.radians(1.0)
"""The same about the second strongest axis; below it the offset along the first cannot be known."""
SOLVERS = {
    "Tsai": cv2.CALIB_HAND_EYE_TSAI,
    "Park": cv2.CALIB_HAND_EYE_PARK,
    "Horaud": cv2.CALIB_HAND_EYE_HORAUD,
    "Andreff": cv2.CALIB_HAND_EYE_ANDREFF,
    "Daniilidis": cv2.CALIB_HAND_EYE_DANIILIDIS,
}
"""OpenCV's closed forms for `A X = X B`."""
WORLD_SOLVERS = {"Shah": cv2.CALIB_ROBOT_WORLD_HAND_EYE_SHAH, "Li": cv2.CALIB_ROBOT_WORLD_HAND_EYE_LI}
"""OpenCV's closed forms for `A X = Z B`."""
ALL = (*SOLVERS, *WORLD_SOLVERS)
QUICK = ("Park", "Shah")
"""Those tried on random sets too: one of each kind, each as good as any of its kind on the recordings tried."""
GRID_S = 0.01
"""Step of the grid on which rates of rotation are compared."""
SUBSETS, SUBSET_SIZE, LARGEST_SET, PROBED = 24, 8, 40, 300


@dataclass(frozen=True, slots=True)
class OffsetGuess:
    """Robot's clock less the camera's by the two rates of rotation, and how well these agree (Pearson, -1 to 1)."""

    offset_s: float
    correlation: float


@dataclass(frozen=True, slots=True, eq=False)
class LinearStart:
    """The best of the closed forms: its state, its name, and its median distance of the target from one place."""

    state: HandEyeState
    solver: str
    scatter_m: float


def check_motion(base_from_hand: NDArray[np.float64]) -> None:
    """Refuse motions from which the mount cannot be known, saying what is missing.

    The hand must turn about two axes that are not parallel (Tsai, Lenz 1989, section III). Axes and angles are the
    principal ones of the rotation vectors from the mean orientation.

    Args:
        base_from_hand: (N, 3, 3) orientations of the hand.
    """
    mean = Rotation.from_matrix(base_from_hand).mean()
    vectors = (mean.inv() * Rotation.from_matrix(base_from_hand)).as_rotvec()
    _, scale, axes = np.linalg.svd(vectors / np.sqrt(len(vectors)), full_matrices=False)
    if scale[0] < LEAST_TURN_RAD:
        wrong = f"the hand turned by {np.degrees(scale[0]):.1f} degrees rms only, it was moved but not turned"
        remedy = "turn it by 30 degrees or more about two different axes"
        raise DepthcellError(f"hand-eye: {wrong}: {remedy}", Reason.BAD_INPUT)
    if scale[1] < LEAST_SECOND_TURN_RAD:
        axis = ", ".join(f"{x:+.2f}" for x in axes[0] * np.sign(axes[0][np.argmax(np.abs(axes[0]))]))
        wrong = f"the hand turned about one axis only, ({axis}) in its own frame"
        remedy = "turn it by 30 degrees or more about an axis across that one too"
        raise DepthcellError(f"hand-eye: {wrong}: {remedy}", Reason.BAD_INPUT)


def check_belonging(arm: NDArray[np.float64], camera: NDArray[np.float64]) -> None:
    """Refuse poses of two recordings: between any two instants, hand and camera must have turned by the same angle.

    Of a rotation and its conjugate the angle is the same, whatever the mount (Tsai, Lenz 1989, lemma 2).

    Args:
        arm: (N, 3, 3) orientations of the hand, either direction.
        camera: (N, 3, 3) orientations of the target in the camera, either direction.
    """
    later = np.roll(np.arange(len(arm)), -(len(arm) // 2))
    angles = [
        np.asarray((Rotation.from_matrix(one) * Rotation.from_matrix(one[later]).inv()).magnitude())
        for one in (arm, camera)
    ]
    usual, off = float(np.median(angles[0])), float(np.median(np.abs(angles[0] - angles[1])))
    if off > 0.3 * usual:
        wrong = f"hand and camera turned by different angles, {np.degrees(off):.1f} of {np.degrees(usual):.1f} degrees"
        remedy = "check that both files are of one recording, in the same order and on clocks of the same origin"
        raise DepthcellError(f"hand-eye: {wrong} in the median: {remedy}", Reason.BAD_INPUT)


def guess_offset(robot: Trajectory, camera: Trajectory, most_s: float) -> OffsetGuess:
    """Time offset at which the two rates of rotation, the same in every frame, agree best.

    Rates over a window of four camera steps, at least 0.1 s, on a grid of 10 ms; the peak of their Pearson correlation
    over -most_s to most_s is refined by a parabola (as in Furrer et al., Evaluation of combined time-offset estimation
    and hand-eye calibration on robotic datasets, FSR 2017).

    Args:
        robot: the hand's trajectory, of either direction.
        camera: the camera's.
        most_s: largest offset looked for.
    """
    window_s = max(0.1, 4 * float(np.median(np.diff(camera.times_s))))
    steps = round(most_s / GRID_S)
    grid = np.arange(camera.times_s[0] + window_s / 2, camera.times_s[-1] - window_s / 2, GRID_S)
    wide = grid[0] + GRID_S * np.arange(-steps, grid.size + steps)
    seen, rates = camera.rate_rad_s(grid, window_s), robot.rate_rad_s(wide, window_s)
    known = (wide >= robot.times_s[0] + window_s / 2) & (wide <= robot.times_s[-1] - window_s / 2)
    scores = np.full(2 * steps + 1, -1.0)
    for lag in range(scores.size):
        inside = known[lag : lag + grid.size]
        if np.count_nonzero(inside) >= 100:
            scores[lag] = _pearson(seen[inside], rates[lag : lag + grid.size][inside])
    best, shift = int(scores.argmax()), 0.0
    if 0 < best < scores.size - 1:
        left, peak, right = scores[best - 1 : best + 2]
        bend = left - 2 * peak + right
        shift = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return OffsetGuess(float(GRID_S * (best + shift - steps)), float(scores[best]))


def _pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
    return float(np.sum(a * b)) / size if size > 0 else -1.0


def best_start(samples: Samples, offsets_s: tuple[float, ...], frames: tuple[str, str, str]) -> LinearStart:
    """The closed form whose target stays most nearly in one place, by the median over up to 300 samples.

    Each of OpenCV's seven is tried on up to 40 poses spread over the recording, and, lest some camera poses be wrong,
    two of them on random sets of 8 (least median of squares, Rousseeuw 1984).

    Args:
        samples: pairs.
        offsets_s: time offsets to try.
        frames: names of the mount's target frame, the camera and the calibration target, such as hand, camera, target.

    Raises:
        DepthcellError: no solver came to a result.
    """
    best: LinearStart | None = None
    probe = samples.take(_spread(len(samples), PROBED))
    for offset_s in offsets_s:
        arm, probed = samples.motion(offset_s).poses, probe.motion(offset_s).poses
        for names, chosen in _subsets(len(samples)):
            for name, matrix in closed_forms(arm.take(chosen), samples.camera.take(chosen), names):
                mount = RigidTransform.from_matrix(frames[0], frames[1], matrix)
                places = targets(probed, probe.camera, mount)
                scatter_m = float(np.median(distances_m(places)))
                if best is None or scatter_m < best.scatter_m:
                    best = LinearStart(HandEyeState(mount, _middle(places, frames), offset_s), name, scatter_m)
    if best is None:
        raise DepthcellError("hand-eye: no linear solver came to a result: record more varied poses", Reason.BAD_INPUT)
    return best


def distances_m(places: Poses) -> NDArray[np.float64]:
    """Distance (N,) of each place of the target from the median place."""
    off: NDArray[np.float64] = np.linalg.norm(places.translation_m - np.median(places.translation_m, axis=0), axis=1)
    return off


def _middle(places: Poses, frames: tuple[str, str, str]) -> RigidTransform:
    """Median place and mean orientation of the better half."""
    off = distances_m(places)
    good = places.take(off <= np.median(off))
    rotation = Rotation.from_matrix(good.rotation).mean().as_matrix()
    fixed = "base" if frames[0] == "hand" else "hand"
    return RigidTransform(fixed, frames[2], rotation, np.median(places.translation_m, axis=0))


def _spread(count: int, most: int) -> NDArray[np.intp]:
    """Up to `most` indices spread evenly over `count`."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.intp))


def _subsets(count: int) -> Iterator[tuple[tuple[str, ...], NDArray[np.intp]]]:
    """Names of solvers, and the pairs that they are given."""
    yield ALL, _spread(count, LARGEST_SET)
    rng = np.random.default_rng(1989)
    if count > SUBSET_SIZE:
        for _ in range(SUBSETS):
            yield QUICK, rng.choice(count, SUBSET_SIZE, replace=False)


def closed_forms(arm: Poses, seen: Poses, names: tuple[str, ...] = ALL) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Name and `X` (4, 4) of each of OpenCV's solvers that came to a finite rotation, from poses A and B."""
    a, b = (list(arm.rotation), list(arm.translation_m)), (list(seen.rotation), list(seen.translation_m))
    back = arm.inverse()
    for name in names:
        try:
            if name in SOLVERS:
                rotation, place = cv2.calibrateHandEye(*a, *b, method=SOLVERS[name])
            else:
                inverse = (list(back.rotation), list(back.translation_m))
                rotation, place = cv2.calibrateRobotWorldHandEye(*b, *inverse, method=WORLD_SOLVERS[name])[2:]
                rotation, place = rotation.T, -rotation.T @ place
        except cv2.error:
            continue
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = rotation, np.ravel(place)
        u, _, v = np.linalg.svd(matrix[:3, :3]) if np.isfinite(matrix).all() else (np.eye(3), None, np.eye(3))
        if np.isfinite(matrix).all() and np.linalg.det(u @ v) > 0:
            matrix[:3, :3] = u @ v
            yield name, matrix
