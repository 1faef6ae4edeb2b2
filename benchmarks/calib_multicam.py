"""Four webcams and a ChArUco board waved by hand (caliscope's sample): our rig beside the camera array that it ships.

The cameras are not triggered together, so that a moving board stands elsewhere for each. The benchmark measures how
much of what does not fit lies along the board's motion, takes it out with one delay per camera, and states intervals
from a delete-a-group jackknife over instants, since errors of all corners of one view hang together.

Run `.venv/bin/python benchmarks/calib_multicam.py --data FOLDER`; data: `benchmarks/results/calib_multicam.json`.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: small matrices only lose by more threads

import argparse
import csv
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from harness import Goal, Report, timing_of
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.bundle import BundleProblem, BundleSettings, BundleSolution, solve_bundle
from depthcell.calib.solving.rig_start import RigInput, start_rig
from depthcell.calib.target.board import Board
from depthcell.calib.target.boardview import BoardView
from depthcell.calib.target.detect import detect
from depthcell.errors import DepthcellError

BOARD = Board.parse("charuco:4x5:54mm:40.5mm:DICT_4X4_1000:inverted")
CAMERAS = ("0", "1", "2", "3")
SETTINGS = BundleSettings(outlier_level=30.0, max_rounds=200)
"""Whole views are off together, which is no matter of outlying corners."""
GROUPS = 8
ROUNDS = 3


def read_views(folder: Path) -> tuple[list[BoardView], dict[tuple[str, int], float]]:
    """Views of all cameras by sync index, and at which second the host took each frame."""
    finder = cv2.aruco.ArucoDetector(cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_1000))
    with (folder / "timestamps.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    views, seconds = [], {}
    for camera in CAMERAS:
        video = cv2.VideoCapture(str(folder / f"cam_{camera}.mp4"))
        for row in (row for row in rows if row["cam_id"] == camera):
            read, frame = video.read()
            if not read:
                raise SystemExit(f"cam_{camera}.mp4: holds fewer frames than timestamps.csv")
            _, ids, _ = finder.detectMarkers(255 - cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))
            if ids is None or len(ids) < 3:
                continue
            found = detect(BOARD, np.ascontiguousarray(frame[:, :, ::-1]).astype(np.uint8))
            if len(found.ids) >= 6:
                stream, instant = f"color:{camera}", int(row["sync_index"])
                views.append(BoardView(stream, instant, 0, found.ids, found.pixels, found.sigma_px))
                seconds[stream, instant] = float(row["frame_time"])
    return views, seconds


def shipped(path: Path) -> tuple[dict[str, Intrinsics], dict[str, RigidTransform]]:
    """Lenses and `T_camera_world` of the array as shipped."""
    lenses, poses = {}, {}
    for name, camera in tomllib.loads(path.read_text(encoding="utf-8"))["cameras"].items():
        stream, matrix = f"color:{name}", np.array(camera["matrix"])
        width_px, height_px = camera["size"]
        lenses[stream] = Intrinsics(
            width_px,
            height_px,
            float(matrix[0, 0]),
            float(matrix[1, 1]),
            float(matrix[0, 2]),
            float(matrix[1, 2]),
            Distortion.BROWN_CONRADY,
            tuple(camera["distortions"]),
        )
        poses[stream] = RigidTransform(stream, "world", np.array(camera["rotation"]), np.array(camera["translation"]))
    return lenses, poses


def solve(views: Sequence[BoardView], lenses: Mapping[str, Intrinsics]) -> tuple[tuple[BoardView, ...], BundleSolution]:
    """All poses with the shipped lenses held: the clip does not show the board tilted enough to know lenses better."""
    start = start_rig(RigInput((BOARD,), tuple(views), lenses))
    problem = BundleProblem(
        (BOARD,),
        start.views,
        dict(lenses),
        start.T_cell_stream,
        start.T_cell_board,
        start.origin,
        fixed_intrinsics=frozenset(lenses),
    )
    return start.views, solve_bundle(problem, SETTINGS)


def velocities(
    views: Sequence[BoardView], seconds: Mapping[tuple[str, int], float]
) -> dict[tuple[str, int], NDArray[np.float64]]:
    """Velocity of each corner in px/s, (N, 2), mean of differences to the frames before and after; NaN where unseen."""
    known = {(view.stream, view.instant): view for view in views}
    found = {}
    for key, view in known.items():
        parts = []
        for step in (-1, 1):
            other = known.get((view.stream, view.instant + step))
            if other is not None:
                _, mine, theirs = np.intersect1d(view.ids, other.ids, return_indices=True)
                part = np.full((len(view.ids), 2), np.nan)
                gap_s = seconds[other.stream, other.instant] - seconds[key]
                part[mine] = (other.pixels[theirs] - view.pixels[mine]) / gap_s
                parts.append(part)
        if len(parts) == 2 and np.isfinite(parts).all():
            found[key] = np.mean(parts, axis=0)
    return found


def along_motion(
    views: Sequence[BoardView], solution: BundleSolution, speed: Mapping[tuple[str, int], NDArray[np.float64]]
) -> dict[str, tuple[NDArray[np.float64], float]]:
    """Per stream: seconds by which each view seems early or late, and the share of squared residuals this explains."""
    out = {}
    for stream in solution.streams:
        late, explained, whole = [], 0.0, 0.0
        for view, rows in zip(views, solution.residuals_px, strict=True):
            moving = speed.get((view.stream, view.instant))
            if view.stream == stream and moving is not None:
                shift_s = float((rows * moving).sum() / (moving**2).sum())
                late.append(shift_s)
                explained += shift_s * float((rows * moving).sum())
                whole += float((rows**2).sum())
        out[stream] = np.array(late), explained / whole
    return out


def brought_together(
    views: Sequence[BoardView],
    seconds: Mapping[tuple[str, int], float],
    speed: Mapping[tuple[str, int], NDArray[np.float64]],
    delay_s: Mapping[str, float],
) -> list[BoardView]:
    """Corners where they were at the mean time of their instant, each camera's clock being late by `delay_s`."""
    moving = [view for view in views if (view.stream, view.instant) in speed]
    times: dict[int, list[float]] = {}
    for view in moving:
        times.setdefault(view.instant, []).append(seconds[view.stream, view.instant])
    return [
        replace(view, pixels=view.pixels + speed[view.stream, view.instant] * (gap_s + delay_s[view.stream]))
        for view in moving
        for gap_s in [float(np.mean(times[view.instant])) - seconds[view.stream, view.instant]]
    ]


def fit_of_array_px(
    views: Sequence[BoardView], lenses: Mapping[str, Intrinsics], T_camera_world: Mapping[str, RigidTransform]
) -> float:
    """RMS residual of one coordinate under an array of cameras, each instant's board where it fits best."""
    parts = []
    for instant in sorted({view.instant for view in views}):
        seen = [view for view in views if view.instant == instant]
        if len(seen) < 2:
            continue
        first = seen[0]
        lens = lenses[first.stream]
        points = BOARD.points_board[first.ids]
        _, turn, shift = cv2.solvePnP(points, first.pixels, lens.matrix, np.array(lens.coefficients))
        pose = RigidTransform.from_rotation_vector(
            first.stream, "board", turn.astype(np.float64).ravel(), shift.astype(np.float64).ravel()
        )
        near = T_camera_world[first.stream].inverse() @ pose

        def residuals(
            twist: NDArray[np.float64], seen: list[BoardView] = seen, near: RigidTransform = near
        ) -> NDArray[np.float64]:
            board = near.perturbed(twist)
            rows = [
                lenses[view.stream].project(T_camera_world[view.stream] @ (board @ BOARD.points_board[view.ids]))
                - view.pixels
                for view in seen
            ]
            return np.concatenate(rows).ravel()

        parts.append(least_squares(residuals, np.zeros(6)).fun)
    return float(np.sqrt(np.mean(np.concatenate(parts) ** 2)))


def inverted(poses: Mapping[str, RigidTransform]) -> dict[str, RigidTransform]:
    """Poses the other way round."""
    return {stream: T.inverse() for stream, T in poses.items()}


def relative(poses: Mapping[str, RigidTransform], stream: str) -> RigidTransform:
    """Pose of a camera in camera 0."""
    return poses["color:0"].inverse() @ poses[stream]


def twist_between(first: RigidTransform, second: RigidTransform) -> NDArray[np.float64]:
    """(6,) rotation vector in rad and difference of centres in m."""
    turn: NDArray[np.float64] = Rotation.from_matrix(first.rotation @ second.rotation.T).as_rotvec()
    return np.concatenate((turn, first.translation_m - second.translation_m))


def jackknife(
    views: Sequence[BoardView], lenses: Mapping[str, Intrinsics], whole: BundleSolution
) -> dict[str, NDArray[np.float64]]:
    """Covariance (6, 6) of each relative pose: delete-a-group jackknife over blocks of consecutive instants.

    `(G - 1) / G sum (x_g - mean) (x_g - mean)'`, J. Shao and D. Tu, The Jackknife and Bootstrap (1995), 2.3.
    """
    blocks = np.array_split(sorted({view.instant for view in views}), GROUPS)
    samples: dict[str, list[NDArray[np.float64]]] = {f"color:{camera}": [] for camera in CAMERAS[1:]}
    for block in blocks:
        _, part = solve([view for view in views if view.instant not in block], lenses)
        for stream, values in samples.items():
            values.append(twist_between(relative(part.T_cell_stream, stream), relative(whole.T_cell_stream, stream)))
    return {stream: (GROUPS - 1) * np.cov(np.array(values).T, bias=True) for stream, values in samples.items()}


def compare(
    report: Report,
    what: str,
    views: Sequence[BoardView],
    lenses: Mapping[str, Intrinsics],
    poses: Mapping[str, RigidTransform],
    notes: dict[str, object],
) -> BundleSolution:
    """Solve, state intervals, and put the shipped array beside it."""
    begin = time.perf_counter()
    used, solution = solve(views, lenses)
    seconds = time.perf_counter() - begin
    covariance = jackknife(used, lenses, solution)
    rows, inside = {}, 0
    shipped_T = inverted(poses)
    for stream in covariance:
        away = twist_between(relative(solution.T_cell_stream, stream), relative(shipped_T, stream))
        u = np.sqrt(np.diag(covariance[stream]))
        # eight groups leave 7 degrees of freedom, too few for a joint region of 6: each component by itself, Bonferroni
        limit = np.sqrt(chi2.ppf(1 - 0.05 / 6, 1))
        inside += int((np.abs(away) <= limit * u).all())
        rows[f"camera_{stream[-1]}_against_0"] = {
            "distance_mm": round(
                1e3 * float(np.linalg.norm(relative(solution.T_cell_stream, stream).translation_m)), 2
            ),
            "turned_from_shipped_deg": [round(float(value), 3) for value in np.degrees(away[:3])],
            "u_deg": [round(float(value), 3) for value in np.degrees(u[:3])],
            "shifted_from_shipped_mm": [round(float(value), 2) for value in 1e3 * away[3:]],
            "u_mm": [round(float(value), 2) for value in 1e3 * u[3:]],
            "u_mm_if_corners_were_independent": [
                round(1e3 * solution.u(f"{stream}.{name}"), 2) for name in ("tx_m", "ty_m", "tz_m")
            ],
        }
    residuals = {
        stream: [
            rows_.ravel() for view, rows_ in zip(used, solution.residuals_px, strict=True) if view.stream == stream
        ]
        for stream in solution.streams
    }
    report.add(
        what,
        timing_of([seconds]),
        Goal(
            words="all three poses relative to camera 0 within the 95 % region of the shipped array, or said why not",
            reached=inside == 3,
        ),
        None,
        views=len(used),
        residual_rms_px={s: round(float(np.sqrt(np.mean(np.concatenate(r) ** 2))), 3) for s, r in residuals.items()},
        outliers=dict(solution.outliers),
        cameras_that_agree=f"{inside} of 3",
        rms_px_of_our_array=round(fit_of_array_px(used, lenses, inverted(solution.T_cell_stream)), 3),
        rms_px_of_the_shipped_array=round(fit_of_array_px(used, lenses, poses), 3),
        **rows,
        **notes,
    )
    return solution


def main() -> None:
    """As recorded, then with the board's motion taken out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(__file__).parents[1] / ".." / "shared" / "data" / "charuco_multicam" / "charuco_calibration",
    )
    data = parser.parse_args().data
    lenses, poses = shipped(data / "camera_array.toml")
    views, seconds = read_views(data / "calibration" / "extrinsic")
    speed = velocities(views, seconds)
    report = Report("calib_multicam")
    used, first = solve(views, lenses)
    late = along_motion(used, first, speed)
    notes = motion_notes(late, speed)
    compare(report, "as recorded, shipped lenses held", views, lenses, poses, notes)
    delay_s = dict.fromkeys(lenses, 0.0)
    for _ in range(ROUNDS):
        used, solution = solve(brought_together(views, seconds, speed, delay_s), lenses)
        late = along_motion(used, solution, speed)
        delay_s = {stream: delay_s[stream] + float(np.median(late[stream][0])) for stream in lenses}
        delay_s = {stream: value - delay_s["color:0"] for stream, value in delay_s.items()}
    notes = {"delay_ms_against_camera_0": {s: round(1e3 * value, 1) for s, value in delay_s.items()}}
    notes |= motion_notes(late, speed)
    together = brought_together(views, seconds, speed, delay_s)
    compare(report, "board's motion taken out by one delay per camera", together, lenses, poses, notes)
    try:
        start = start_rig(RigInput((BOARD,), tuple(together), lenses))
        solve_bundle(
            BundleProblem((BOARD,), start.views, lenses, start.T_cell_stream, start.T_cell_board, start.origin)
        )
        print("with free lenses: solved")
    except DepthcellError as error:
        print(f"with free lenses: {error}")
    report.write()


def motion_notes(
    late: Mapping[str, tuple[NDArray[np.float64], float]], speed: Mapping[tuple[str, int], NDArray[np.float64]]
) -> dict[str, object]:
    """What the board's motion has to do with what does not fit."""
    pace = [float(np.median(np.linalg.norm(rows, axis=1))) for rows in speed.values()]
    return {
        "median_speed_px_per_s": round(float(np.median(pace)), 1),
        "seems_late_ms_p10_p50_p90": {
            stream: [round(1e3 * float(v), 1) for v in np.quantile(times, (0.1, 0.5, 0.9))]
            for stream, (times, _) in late.items()
        },
        "share_of_squared_residuals_along_motion": {s: round(share, 2) for s, (_, share) in late.items()},
    }


if __name__ == "__main__":
    main()
