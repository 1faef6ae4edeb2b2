"""Our calibration beside mrcal 2.2 on the same corners of OpenCV's chessboard pairs: focal length, held out, stereo.

Needs Debian's package `mrcal` and the pictures (`--data`, OpenCV's samples/data: left01.jpg ... right14.jpg).
Run `.venv/bin/python benchmarks/calib_opencv.py`; data: `benchmarks/results/calib_opencv.json`.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: small matrices only lose by more threads

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from harness import Goal, Peer, Report, timing_of
from numpy.typing import NDArray
from scipy.optimize import least_squares

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.bundle import BundleProblem, BundleSolution, solve_bundle
from depthcell.calib.adjustment.bundle_blocks import BoardShape
from depthcell.calib.adjustment.bundle_problem import BundleSettings
from depthcell.calib.solving.rig_lens import start_intrinsics
from depthcell.calib.solving.rig_start import RigInput, start_rig
from depthcell.calib.solving.validation import twist_jacobian
from depthcell.calib.target.board import Board
from depthcell.calib.target.boardview import BoardView
from depthcell.calib.target.detect import detect
from depthcell.errors import DepthcellError

BOARD = Board.parse("chessboard:9x6:25mm")
NUMBERS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14)
SIZE_PX = (640, 480)
FOLDS = 5
TIGHTER_U = 0.3
"""`lens_u` where a fold's views leave coefficients open under the default of 1: docs/decisions/0008."""
MODELS = {"LENSMODEL_OPENCV5": Distortion.BROWN_CONRADY, "LENSMODEL_OPENCV8": Distortion.RATIONAL}
READ_MODELS = """
import json, mrcal, sys
out = []
for path in sys.argv[1:]:
    model = mrcal.cameramodel(path)
    warp = model.optimization_inputs()["calobject_warp"]
    out.append([model.intrinsics()[1].tolist(), model.extrinsics_rt_fromref().tolist(), list(warp)])
print(json.dumps(out))
"""


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """One side's calibration: lenses by side ("left", "right"), bends of the board in m, right in left, seconds."""

    lenses: dict[str, Intrinsics]
    warp_m: NDArray[np.float64]
    T_left_right: RigidTransform | None
    seconds: float


def corners_of(data: Path, by: str) -> list[BoardView]:
    """Corners of all pictures, by our detector or by OpenCV's."""
    views = []
    for side in ("left", "right"):
        for number in NUMBERS:
            grey = cv2.imread(str(data / f"{side}{number:02d}.jpg"), cv2.IMREAD_GRAYSCALE)
            if grey is None:
                raise SystemExit(f"{data}: has no {side}{number:02d}.jpg; name OpenCV's samples/data with --data")
            if by == "ours":
                found = detect(BOARD, np.asarray(grey, np.uint8))
                ids, pixels, sigma_px = found.ids, found.pixels, found.sigma_px
            else:
                _, rough = cv2.findChessboardCorners(grey, (BOARD.columns, BOARD.rows))
                stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 60, 1e-4)
                pixels = cv2.cornerSubPix(grey, rough, (5, 5), (-1, -1), stop)[:, 0].astype(np.float64)
                ids, sigma_px = np.arange(len(pixels)), 0.1
            views.append(BoardView(f"color:{side}", number, 0, ids, pixels, sigma_px))
    return views


def by_us(
    views: Sequence[BoardView], model: Distortion, lens_u: float = BundleSettings().lens_u
) -> tuple[Result, BundleSolution]:
    """Our adjustment, started from nothing but the corners; `lens_u` as in `BundleSettings`."""
    begin = time.perf_counter()
    streams = sorted({view.stream for view in views})
    lenses = {s: start_intrinsics([view for view in views if view.stream == s], (BOARD,), SIZE_PX) for s in streams}
    start = start_rig(RigInput((BOARD,), tuple(views), lenses))
    solution = solve_bundle(
        BundleProblem(
            boards=(BOARD,),
            views=start.views,
            streams={stream: as_model(lens, model) for stream, lens in lenses.items()},
            T_cell_stream=start.T_cell_stream,
            T_cell_board=start.T_cell_board,
            origin=start.origin,
        ),
        BundleSettings(lens_u=lens_u),
    )
    seconds = time.perf_counter() - begin
    poses = solution.T_cell_stream
    right = poses["color:left"].inverse() @ poses["color:right"] if len(poses) == 2 else None
    found = {stream.removeprefix("color:"): lens for stream, lens in solution.streams.items()}
    return Result(found, solution.warp_m[0], right, seconds), solution


def as_model(lens: Intrinsics, model: Distortion) -> Intrinsics:
    """A five-coefficient lens written as `model`, the further coefficients zero."""
    more = model.coefficient_count - len(lens.coefficients)
    focal_center = (lens.fx_px, lens.fy_px, lens.cx_px, lens.cy_px)
    return Intrinsics(*SIZE_PX, *focal_center, model, (*lens.coefficients, *([0.0] * more)))


def _lens(values: Sequence[float], model: Distortion) -> Intrinsics:
    fx_px, fy_px, cx_px, cy_px = values[:4]
    return Intrinsics(*SIZE_PX, fx_px, fy_px, cx_px, cy_px, model, tuple(values[4:]))


def by_mrcal(views: Sequence[BoardView], name: str) -> Result:
    """`mrcal-calibrate-cameras` on the same corners; its seconds hold the start of its process."""
    sides = sorted({view.stream.removeprefix("color:") for view in views})
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        lines = ["# filename x y level"]
        for view in views:
            picture = f"{view.stream.removeprefix('color:')}{view.instant:02d}.jpg"
            (place / picture).touch()
            order = dict(zip(view.ids.tolist(), view.pixels, strict=True))
            lines += [
                f"{picture} {order[k][0]:.6f} {order[k][1]:.6f} 0" if k in order else f"{picture} - - -"
                for k in range(len(BOARD.points_board))
            ]
        (place / "corners.vnl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        arguments = ["--corners-cache", "corners.vnl", "--lensmodel", name, "--focal", "530", "--imagersize"]
        arguments += [
            *map(str, SIZE_PX),
            "--object-spacing",
            str(BOARD.pitch_m),
            "--object-width-n",
            str(BOARD.columns),
        ]
        arguments += ["--object-height-n", str(BOARD.rows), "--outdir", ".", *(f"{side}*.jpg" for side in sides)]
        begin = time.perf_counter()
        subprocess.run(["mrcal-calibrate-cameras", *arguments], cwd=place, check=True, capture_output=True)
        seconds = time.perf_counter() - begin
        models = [f"camera-{number}.cameramodel" for number in range(len(sides))]
        text = subprocess.run(
            ["/usr/bin/python3", "-c", READ_MODELS, *models], cwd=place, check=True, capture_output=True, text=True
        ).stdout
    read = json.loads(text)
    lenses = {side: _lens(values, MODELS[name]) for side, (values, _, _) in zip(sides, read, strict=True)}
    right = None
    if len(sides) == 2:
        turn, shift = np.array(read[1][1][:3]), np.array(read[1][1][3:])
        right = RigidTransform.from_rotation_vector("color:right", "color:left", turn, shift).inverse()
    return Result(lenses, np.array(read[0][2]), right, seconds)


def held_out_px(result: Result, side: str, views: Sequence[BoardView]) -> list[NDArray[np.float64]]:
    """Residuals of views that took no part, only the board's pose refitted: the same judge for both sides."""
    lens, shape = result.lenses[side], BoardShape(BOARD)
    out = []
    for view in views:
        points = shape.points_board(BOARD.points_board[view.ids, :2], result.warp_m, 1.0)
        bent = np.array(lens.coefficients)
        _, turn, shift = cv2.solvePnP(points, view.pixels, lens.matrix, bent)
        near = RigidTransform.from_rotation_vector(
            "cam", "board", turn.astype(np.float64).ravel(), shift.astype(np.float64).ravel()
        )

        def residuals(
            twist: NDArray[np.float64],
            points: NDArray[np.float64] = points,
            near: RigidTransform = near,
            view: BoardView = view,
        ) -> NDArray[np.float64]:
            return (lens.project(near.perturbed(twist) @ points) - view.pixels).ravel()

        out.append(least_squares(residuals, np.zeros(6), method="lm").fun)  # type: ignore[operator]
    return out


def rms(parts: Sequence[NDArray[np.float64]]) -> float:
    """Root mean square of one coordinate."""
    return float(np.sqrt(np.mean(np.concatenate(parts) ** 2)))


def baseline_u_m(solution: BundleSolution) -> float:
    """Standard uncertainty of the distance of the two cameras (GUM 5.2.2)."""
    streams = ("color:left", "color:right")
    centres = [solution.T_cell_stream[stream].translation_m for stream in streams]
    unit = (centres[1] - centres[0]) / np.linalg.norm(centres[1] - centres[0])
    slope = np.concatenate([sign * unit @ twist_jacobian(c[None])[0] for sign, c in zip((-1, 1), centres, strict=True)])
    twist = ("rx_rad", "ry_rad", "rz_rad", "tx_m", "ty_m", "tz_m")
    covariance = solution.covariance_of([f"{stream}.{name}" for stream in streams for name in twist])
    return float(np.sqrt(slope @ covariance @ slope))


def focal(report: Report, views: Sequence[BoardView], corners: str) -> None:
    """Left camera alone, all views: focal lengths side by side."""
    for name, model in MODELS.items():
        ours, solution = by_us(views, model)
        peer = by_mrcal(views, name)
        apart_px = ours.lenses["left"].fx_px - peer.lenses["left"].fx_px
        goal = Goal(words="fx within 0.35 px of mrcal's", reached=abs(apart_px) <= 0.35)
        report.add(
            f"left camera, 13 views, {model}, corners by {corners}",
            timing_of([ours.seconds]),
            goal if model is Distortion.BROWN_CONRADY else Goal(words="none, for comparison", reached=True),
            Peer(f"mrcal-calibrate-cameras {name}", timing_of([peer.seconds])),
            fx_px=round(ours.lenses["left"].fx_px, 3),
            u_fx_px=round(solution.u("color:left.fx_px"), 3),
            mrcal_fx_px=round(peer.lenses["left"].fx_px, 3),
            apart_px=round(apart_px, 3),
            cx_cy_px=[round(v, 2) for v in (ours.lenses["left"].cx_px, ours.lenses["left"].cy_px)],
            mrcal_cx_cy_px=[round(v, 2) for v in (peer.lenses["left"].cx_px, peer.lenses["left"].cy_px)],
            warp_mm=[round(1e3 * v, 3) for v in ours.warp_m.tolist()],
            mrcal_warp_mm=[round(1e3 * v, 3) for v in peer.warp_m.tolist()],
            outliers=solution.outliers["color:left"],
        )


def fitted_folds(views: Sequence[BoardView], model: Distortion) -> tuple[list[Result], float]:
    """Ours without each fold in turn, and the `lens_u` used: the default unless a fold is refused with it.

    Ten views do not tell eight coefficients apart. mrcal holds them by a penalty; here so do we, all folds alike.
    """
    rests = [[view for number, view in enumerate(views) if number % FOLDS != fold] for fold in range(FOLDS)]
    try:
        return [by_us(rest, model)[0] for rest in rests], BundleSettings().lens_u
    except DepthcellError as refusal:
        print(f"{refusal}; now with a prior of {TIGHTER_U:g}")
        return [by_us(rest, model, TIGHTER_U)[0] for rest in rests], TIGHTER_U


def held_out(report: Report, views: Sequence[BoardView], side: str, corners: str) -> None:
    """Every fifth view held out in turn, both sides fitted to the same rest and judged by the same judge."""
    for name, model in MODELS.items():
        mine, theirs, peer_seconds = [], [], []
        fitted, lens_u = fitted_folds(views, model)
        for fold, ours in enumerate(fitted):
            peer = by_mrcal([view for number, view in enumerate(views) if number % FOLDS != fold], name)
            peer_seconds.append(peer.seconds)
            mine += held_out_px(ours, side, views[fold::FOLDS])
            theirs += held_out_px(peer, side, views[fold::FOLDS])
        squares = np.array([np.mean(a**2) - np.mean(b**2) for a, b in zip(mine, theirs, strict=True)])
        report.add(
            f"{side} camera, held-out views in {FOLDS} folds, {model}, corners by {corners}",
            timing_of([ours.seconds for ours in fitted]),
            Goal(words="RMS no worse than mrcal's by more than 1 %", reached=rms(mine) <= 1.01 * rms(theirs)),
            Peer(f"mrcal-calibrate-cameras {name}", timing_of(peer_seconds)),
            held_out_rms_px=round(rms(mine), 4),
            mrcal_held_out_rms_px=round(rms(theirs), 4),
            mean_square_apart_px2=float(f"{squares.mean():.2g}"),
            its_standard_error_px2=float(f"{squares.std(ddof=1) / np.sqrt(len(squares)):.2g}"),
            lens_u=lens_u,
            refused_with_the_default=lens_u != BundleSettings().lens_u,
        )


def stereo(report: Report, views: Sequence[BoardView], corners: str) -> None:
    """Both cameras at once: their distance, with our interval."""
    ours, solution = by_us(views, Distortion.BROWN_CONRADY)
    peer = by_mrcal(views, "LENSMODEL_OPENCV5")
    if ours.T_left_right is None or peer.T_left_right is None:
        raise SystemExit("stereo: only one camera was solved")
    mine_mm, theirs_mm = (1e3 * float(np.linalg.norm(T.translation_m)) for T in (ours.T_left_right, peer.T_left_right))
    report.add(
        f"both cameras, 13 pairs, corners by {corners}",
        timing_of([ours.seconds]),
        Goal(words="baseline 83.2 ± 0.2 mm", reached=abs(mine_mm - 83.2) <= 0.2),
        Peer("mrcal-calibrate-cameras LENSMODEL_OPENCV5", timing_of([peer.seconds])),
        baseline_mm=round(mine_mm, 3),
        u_baseline_mm=round(1e3 * baseline_u_m(solution), 3),
        interval_95_mm=[round(mine_mm + k * 1.96e3 * baseline_u_m(solution), 3) for k in (-1, 1)],
        mrcal_baseline_mm=round(theirs_mm, 3),
        rms_px=round(
            rms([rows[good].ravel() for rows, good in zip(solution.residuals_px, solution.inliers, strict=True)]), 4
        ),
        outliers=sum(solution.outliers.values()),
    )


def main() -> None:
    """Both sets of corners, each side in the same run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path(__file__).parents[1] / ".." / "shared" / "data" / "calib_opencv"
    )
    data = parser.parse_args().data
    if shutil.which("mrcal-calibrate-cameras") is None:
        raise SystemExit("mrcal is not installed: apt-get install mrcal, or `make bench-calib`")
    report = Report("calib_opencv")
    for corners in ("OpenCV", "ours"):
        views = corners_of(data, corners)
        left = [view for view in views if view.stream == "color:left"]
        focal(report, left, corners)
        held_out(report, left, "left", corners)
        held_out(report, [view for view in views if view.stream == "color:right"], "right", corners)
        stereo(report, views, corners)
    report.write()


if __name__ == "__main__":
    main()
