"""What one more board pose would tell: from the information it adds to what an adjustment already knows.

With Sigma the covariance of the shared parameters and S the information that a new view adds after the board's own pose
is eliminated, `S = J^T (1 - Q Q^T) J` with Q an orthonormal basis of the derivatives by that pose, the covariance
afterwards is `Sigma (1 + S Sigma)^-1` (Bayes' rule for normal distributions; Barfoot, State Estimation for Robotics,
2017, section 3.1). Nothing has to be measured for it: to first order S depends on where the board is held only.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.bundle import BundleProblem, BundleSolution, Place
from depthcell.calib.adjustment.bundle_blocks import Block, CornerBlock, Key, TileBlock, wave_terms
from depthcell.calib.adjustment.lens import lens_vector
from depthcell.calib.cell import POSE_NAMES, CellCamera, DisparityNoise, lens_names
from depthcell.calib.certify.uncertaintymap import Volume, sees
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.calib.propagation import point_jacobian
from depthcell.calib.target.board import MARKER_KINDS, Board
from depthcell.calib.target.boardview import BoardView, DepthTiles
from depthcell.errors import DepthcellError

GRID = (4, 4, 3)
"""Points of the work volume at which the uncertainty is looked at."""
LEAST_FEATURES = 8
LEAST_FACING = 0.35
"""Cosine of the angle of incidence at which a board is still read, 70 degrees."""
BORDER_PX = 6.0
_NEW: Place = (0, -1)


@dataclass(frozen=True, slots=True, eq=False)
class Advice:
    """Where to hold the board next.

    Attributes:
        sentence: what to do, or that enough is known.
        stream: the camera that the sentence is told from.
        T_cell_board: where the board should be.
        streams: all that would see it.
        now_mm, then_mm: root mean square over the work volume of the largest standard uncertainty of a point, from the
            calibration alone: now, and with this pose.
        enough: no pose is worth asking for.
        tried: how many poses were judged.
    """

    sentence: str
    stream: str
    T_cell_board: RigidTransform
    streams: tuple[str, ...]
    now_mm: float
    then_mm: float
    enough: bool
    tried: int


@dataclass(frozen=True, slots=True, eq=False)
class Knowledge:
    """What an adjustment knows, in parameters scaled to unit standard uncertainty.

    Attributes:
        problem, solution: the adjustment.
        names: place in the arrays of each parameter that is known with an uncertainty.
        covariance: (P, P), scaled.
        u: (P,) standard uncertainties that scale them.
        effect: (N, 3, P) metres, motion of what the cell measures at N points of the work volume, all cameras that see
            it combined, per standard uncertainty of each parameter.
        points_cell: (N, 3) metres, those points.
        habits: per serial, median uncertainty of the depth tiles that it gave so far, and how many a view gave.
    """

    problem: BundleProblem
    solution: BundleSolution
    names: Mapping[str, int]
    covariance: NDArray[np.float64]
    u: NDArray[np.float64]
    effect: NDArray[np.float64]
    points_cell: NDArray[np.float64]
    habits: Mapping[str, tuple[float, int]]

    @property
    def criterion_mm2(self) -> NDArray[np.float64]:
        """(P, P), symmetric; its product with a covariance, summed, is the mean variance of the points in mm².

        The variance of a point is that along x, y and z together; advice makes the mean small (I-optimal design).
        """
        flat = self.effect.reshape(-1, len(self.names))
        return np.asarray(1e6 / len(self.effect) * flat.T @ flat, np.float64)

    def after(self, information: NDArray[np.float64]) -> NDArray[np.float64]:
        """Covariance (P, P) once information (P, P) is added."""
        whole = np.eye(len(self.names)) + information @ self.covariance
        return np.asarray(np.linalg.solve(whole.T, self.covariance.T).T, np.float64)

    def u_mm(self, covariance: NDArray[np.float64]) -> NDArray[np.float64]:
        """Largest standard uncertainty at each point, from the calibration alone, (N,) mm."""
        spread = np.einsum("nip,pq,njq->nij", self.effect, covariance, self.effect, optimize=True)
        return np.asarray(1e3 * np.sqrt(np.linalg.eigvalsh(spread)[:, -1]))


def knowledge_of(problem: BundleProblem, solution: BundleSolution, volume: Volume) -> Knowledge:
    """What an adjustment knows, and what that means in a volume.

    Raises:
        DepthcellError: no camera sees any of the volume.
    """
    variance = np.diag(solution.covariance)
    open_ones = np.flatnonzero(variance > 0)
    names = {solution.parameter_names[place]: number for number, place in enumerate(open_ones)}
    u = np.sqrt(variance[open_ones])
    covariance = solution.covariance[np.ix_(open_ones, open_ones)] / np.outer(u, u)
    points_cell = volume.grid(GRID).reshape(-1, 3)
    effect, seen = _effect(problem, solution, names, points_cell)
    if not seen.any():
        raise DepthcellError("guidance: no camera sees any of the work volume; look at where it lies")
    habits = {serial: _tile_habit(problem, serial) for serial in baselines(problem)}
    return Knowledge(problem, solution, names, covariance, u, effect[seen] * u, points_cell[seen], habits)


def _effect(
    problem: BundleProblem, solution: BundleSolution, names: Mapping[str, int], points_cell: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Motion of the combined measurement (N, 3, P), cameras weighing with their inverse variance, and who is seen."""
    effect, total = np.zeros((len(points_cell), 3, len(names))), np.zeros(len(points_cell))
    for serial, baseline_m in baselines(problem).items():
        camera = _camera(solution, serial, baseline_m)
        seen = sees(camera, points_cell, BORDER_PX)
        points_cam = camera.T_cell_depth.inverse() @ points_cell[seen]
        slopes = point_jacobian(camera, camera.depth.project(points_cam), points_cam[:, 2])
        trace = np.einsum("nip,pq,niq->n", slopes, camera.covariance, slopes, optimize=True)
        weight = 1 / np.maximum(trace, 1e-20)
        total[seen] += weight
        for column, name in enumerate(camera.parameter_names):
            place = names.get(f"depth:{serial}.{name}")
            if place is not None:
                effect[seen, :, place] += weight[:, None] * slopes[:, :, column]
    seen = total > 0
    effect[seen] /= total[seen, None, None]
    return effect, seen


def baselines(problem: BundleProblem) -> dict[str, float]:
    """Of all cameras with a depth stream; 50 mm where nobody needed it, which only says how near is too near."""
    serials = [stream.removeprefix("depth:") for stream in problem.streams if stream.startswith("depth:")]
    return {serial: problem.baselines_m.get(serial, 0.05) for serial in serials}


def _camera(solution: BundleSolution, serial: str, baseline_m: float) -> CellCamera:
    stream = f"depth:{serial}"
    lens, correction = solution.streams[stream], solution.corrections.get(serial, DepthCorrection())
    names = [f"{stream}.{name}" for name in (*POSE_NAMES, *lens_names(lens), *correction.parameter_names)]
    pose, noise = solution.T_cell_stream[stream], DisparityNoise(0.0, 0.0, 0.0)
    covariance = solution.covariance_of(names)
    return CellCamera(serial, "", lens, None, pose, covariance, None, baseline_m, noise, correction)


def visible_features(board: Board, lens: Intrinsics, T_cam_board: RigidTransform) -> NDArray[np.int64]:
    """Ids of a board's features that a camera would find; none if it would not read the board.

    A board is read from its face, at up to 70 degrees of incidence, if 8 features are in the image; one without markers
    only as a whole.
    """
    points_cam = T_cam_board @ board.points_board
    middle = points_cam.mean(axis=0)
    none = np.zeros(0, np.int64)
    if points_cam[:, 2].min() <= 0 or T_cam_board.rotation[:, 2] @ middle < LEAST_FACING * np.linalg.norm(middle):
        return none
    pixels = lens.project(points_cam)
    limit = (lens.width_px - 1 - BORDER_PX, lens.height_px - 1 - BORDER_PX)
    ids = np.flatnonzero(((pixels >= BORDER_PX) & (pixels <= limit)).all(axis=1)).astype(np.int64)
    whole = board.kind in MARKER_KINDS or len(ids) == len(points_cam)
    return ids if whole and len(ids) >= LEAST_FEATURES else none


def new_information(
    known: Knowledge, T_cell_board: RigidTransform, board: int = 0
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Information (P, P) that a board held there adds, and the streams that would see it."""
    rows, by_place, streams = [], [], []
    for block, weight, common in _blocks(known, T_cell_board, board):
        values = [_values(known.solution, key) for key in block.keys]
        bases = {key: _base(known.solution, key, T_cell_board) for key in block.keys if key[0] in ("pose", "place")}
        found = block.evaluate(values, bases)
        if found is None:
            continue
        width = block.count * block.width
        shared = np.zeros((width, len(known.names)))
        for key, slopes in zip(block.keys, found.jacobians, strict=True):
            flat = slopes.reshape(width, -1) * weight
            if key[0] == "place":
                by_place.append(_whitened(flat, common))
            else:
                _scatter(shared, flat, known, _names(known.solution, key))
        rows.append(_whitened(shared, common))
        if isinstance(block, CornerBlock):
            streams.append(block.group)
    if not rows:
        return np.zeros((len(known.names), len(known.names))), ()
    whole, basis = np.concatenate(rows), np.linalg.qr(np.concatenate(by_place))[0]
    whole = whole - basis @ (basis.T @ whole)
    return np.asarray(whole.T @ whole, np.float64), tuple(streams)


def _blocks(known: Knowledge, T_cell_board: RigidTransform, board: int) -> Iterable[tuple[Block, float, float]]:
    """Corners, and depth where the camera had any before; with the weight of a row, and the variance ratio shared."""
    problem, solution, shape = known.problem, known.solution, known.problem.boards[board]
    for stream, lens in solution.streams.items():
        T_stream_board = solution.T_cell_stream[stream].inverse() @ T_cell_board
        ids = visible_features(shape, lens, T_stream_board)
        if not len(ids):
            continue
        pixels = lens.project(T_stream_board @ shape.points_board[ids])
        view = BoardView(stream, _NEW[1], board, ids, pixels, solution.sigma_px[stream])
        yield CornerBlock(view, shape), 1.0, 0.0
        serial = stream.removeprefix("depth:")
        sigma_px, count = known.habits.get(serial, (1.0, 0))
        if count == 0:
            continue
        chosen = np.unique(np.linspace(0, len(ids) - 1, count).round().astype(int))
        z_m = (T_stream_board @ shape.points_board[ids[chosen]])[:, 2]
        focal_baseline_m = lens.fx_px * problem.baselines_m[serial]
        sigma = np.full(len(chosen), sigma_px)
        tiles = DepthTiles(
            serial, _NEW[1], board, pixels[chosen], np.asarray(focal_baseline_m / z_m, np.float64), sigma
        )
        factor = max(solution.depth_factors.get(serial, 1.0), 1e-6)
        common = (solution.depth_common_px.get(serial, 0.0) / (sigma_px * factor)) ** 2
        wave = wave_terms(tiles, lens, _wave_shape(solution, serial))
        yield TileBlock(tiles, shape, focal_baseline_m, wave), 1 / factor, common


def _tile_habit(problem: BundleProblem, serial: str) -> tuple[float, int]:
    """Median uncertainty and number of the tiles that this camera gave so far; none without depth."""
    mine = [tiles for tiles in problem.depth if tiles.serial == serial]
    if not mine:
        return 1.0, 0
    count = int(np.median([len(tiles.disparity_px) for tiles in mine]))
    return float(np.median(np.concatenate([tiles.sigma_px for tiles in mine]))), count


def _wave_shape(solution: BundleSolution, serial: str) -> tuple[int, int]:
    wave = solution.corrections[serial].wave_px
    return (len(wave), len(wave[0])) if wave else (0, 0)


def _whitened(rows: NDArray[np.float64], common: float) -> NDArray[np.float64]:
    """Rows of unit variance that also share an error of variance `common`, made independent."""
    if common <= 0 or not len(rows):
        return rows
    shrink = 1 - 1 / np.sqrt(1 + len(rows) * common)
    return np.asarray(rows - shrink * rows.mean(axis=0), np.float64)


def _scatter(shared: NDArray[np.float64], flat: NDArray[np.float64], known: Knowledge, names: Sequence[str]) -> None:
    columns = [column for column, name in enumerate(names) if name in known.names]
    places = [known.names[names[column]] for column in columns]
    shared[:, places] = flat[:, columns] * known.u[places]


def _values(solution: BundleSolution, key: Key) -> NDArray[np.float64]:
    kind, whose = key
    if kind == "lens":
        lens: NDArray[np.float64] = lens_vector(solution.streams[str(whose)])
        return lens
    if kind in ("pose", "place"):
        return np.zeros(6)
    if kind == "warp":
        return np.asarray(solution.warp_m[int(str(whose))], np.float64)
    if kind == "scale":
        return np.array([solution.board_scale[int(str(whose))]])
    correction = solution.corrections[str(whose)]
    waves = [value for row in correction.wave_px for value in row][1:]
    return np.array([correction.scale, correction.disparity_offset_px, correction.curvature_px, *waves])


def _base(solution: BundleSolution, key: Key, T_cell_board: RigidTransform) -> RigidTransform:
    return T_cell_board if key[0] == "place" else solution.T_cell_stream[str(key[1])]


def _names(solution: BundleSolution, key: Key) -> tuple[str, ...]:
    kind, whose = key
    if kind == "lens":
        return tuple(f"{whose}.{name}" for name in lens_names(solution.streams[str(whose)]))
    if kind == "pose":
        return tuple(f"{whose}.{name}" for name in POSE_NAMES)
    if kind == "warp":
        return f"board:{whose}.warp_x_m", f"board:{whose}.warp_y_m"
    if kind == "scale":
        return (f"board:{whose}.scale",)
    return tuple(f"depth:{whose}.{name}" for name in solution.corrections[str(whose)].parameter_names)
