"""What is wrong with a camera's depth, from boards whose place is known: a `DepthCorrection` and its covariance.

With the true disparity `d_t = f B / z` at a tile from the board's pose, a correction that fits says
`d_read = s (1 + a (T - T_ref)) d_t - offset - curvature (d_read / 126)² - W(x, y)`, linear in all that is sought.
The error of a tile has three parts: its own noise, the pose's error, which moves all tiles of a view together, and what
else they share (the sensor's lasting errors, a pose's error beyond what is stated). Generalised least squares (A. C.
Aitken, Proceedings of the Royal Society of Edinburgh 55 (1936) 42) weighs by the covariance of all three.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.depth.depth_normal import AllViews, ViewProblem
from depthcell.calib.depthcorrection import FULL_DISPARITY_PX, DepthCorrection
from depthcell.calib.propagation import wave_terms
from depthcell.calib.target.boardview import DepthTiles
from depthcell.errors import DepthcellError


@dataclass(frozen=True, slots=True, eq=False)
class BoardDepth:
    """A view's tiles, and where the board truly was.

    Attributes:
        tiles: as read.
        T_depth_board: pose of the board in the depth stream's frame.
        covariance: (6, 6) of it, in the convention of `RigidTransform.perturbed`; None takes it for exact, and what it
            errs shows up in `BiasFit.view_px`.
        temperature_c: of the camera; None where nobody knows.
        height_m: the board's shape, its z in metres at x, y (N, 2) on the board; None for a plane.
    """

    tiles: DepthTiles
    T_depth_board: RigidTransform
    covariance: NDArray[np.float64] | None = None
    temperature_c: float | None = None
    height_m: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None

    def __post_init__(self) -> None:
        frame = f"depth:{self.tiles.serial}"
        if self.T_depth_board.target != frame:
            raise DepthcellError(f"view {self.tiles.instant}: the board's pose must lead to {frame}")
        if self.covariance is not None and self.covariance.shape != (6, 6):
            raise DepthcellError(f"view {self.tiles.instant}: the pose's covariance must be 6x6")


@dataclass(frozen=True, slots=True)
class Order:
    """Which terms a correction has beside scale and offset.

    Attributes:
        curvature: whether disparity may be bent.
        wave: rows and columns of the wave's table; (0, 0) for none.
    """

    curvature: bool
    wave: tuple[int, int]

    @property
    def in_words(self) -> str:
        """For a table."""
        parts = ["scale, offset", *(["curvature"] if self.curvature else [])]
        return ", ".join([*parts, f"wave {self.wave[0]}x{self.wave[1]}"] if self.wave[0] else parts)

    @property
    def terms(self) -> int:
        """How many it estimates."""
        return 2 + self.curvature + max(self.wave[0] * self.wave[1] - 1, 0)


ORDERS = (Order(True, (0, 0)), Order(True, (2, 2)), Order(True, (3, 4)), Order(True, (4, 5)))
"""Those that cross-validation chooses from, the simpler first. All have the curvature: left out where it is small but
there, it would be taken for exactly zero, while its prior lets it be uncertain."""
STEPS = 16
"""Values of the views' own standard deviation over which the solution is averaged."""
UNLIKELY = 12.0
"""A value whose loss is larger by this is exp(-6) times as likely as the best."""


@dataclass(frozen=True, slots=True)
class BiasSettings:
    """How a correction is fitted.

    Attributes:
        orders: to choose from, the simpler first; a single one is taken as it is.
        scale_u, offset_u_px, curvature_u_px, wave_u_px: standard uncertainties of the terms before any measurement,
            wide. Where boards stood at one distance only, scale and offset cannot be told apart; the covariance then
            says so, while one of them left out would be taken for exact.
        per_k_u: likewise of the scale's relative change per kelvin.
        min_kelvin: range of temperatures from which that is sought.
        min_views: fewer are refused.
    """

    orders: tuple[Order, ...] = ORDERS
    scale_u: float = 0.05
    offset_u_px: float = 2.0
    curvature_u_px: float = 2.0
    wave_u_px: float = 0.5
    per_k_u: float = 3e-4
    min_kelvin: float = 4.0
    min_views: int = 5


@dataclass(frozen=True, slots=True, eq=False)
class BiasFit:
    """A depth correction and how well it is known.

    Attributes:
        correction: to put into the cell.
        covariance: (K, K) over `correction.parameter_names`; zero for a curvature that was not sought.
        scale_per_k_u: standard uncertainty of the change with temperature; 0 where it was not sought.
        order: which terms were chosen.
        scores: what each order lost on views left out, minus twice the logarithm of the likelihood per view.
        tile_px: standard deviation that tiles have beyond what they state.
        view_px: standard deviation that all tiles of a view share beyond the pose's covariance, root mean square over
            its likely values.
    """

    correction: DepthCorrection
    covariance: NDArray[np.float64]
    scale_per_k_u: float
    order: Order
    scores: Mapping[Order, float]
    tile_px: float
    view_px: float


def fit_correction(
    views: Sequence[BoardDepth], intrinsics: Intrinsics, baseline_m: float, settings: BiasSettings | None = None
) -> BiasFit:
    """The correction that the boards ask for.

    The two standard deviations that nobody states (`tile_px`, `view_px`) are those of greatest restricted likelihood
    (H. D. Patterson and R. Thompson, Biometrika 58 (1971) 545). A few dozen views tell the second one poorly, so the
    solution is averaged over its values, all being as likely beforehand (A. Gelman, Bayesian Analysis 1 (2006) 515). Of
    the orders, the one with the least loss on views left out one by one is taken, each as the others foresee it, their
    uncertainty included.

    Args:
        views: of one camera; several distances tell scale from offset, places all over the image tell the wave.
        intrinsics: of the depth stream, as the cell will hold them.
        baseline_m: likewise.
        settings: orders and priors.

    Raises:
        DepthcellError: there are too few views, or they are of several cameras.
    """
    settings = settings or BiasSettings()
    if len(views) < settings.min_views:
        raise DepthcellError(
            f"depth correction: {len(views)} views with depth, {settings.min_views} are needed; "
            "hold the board at more places"
        )
    if len({view.tiles.serial for view in views}) > 1:
        raise DepthcellError("depth correction: views of several cameras; fit one at a time")
    problem = _Problem.of(views, intrinsics, baseline_m, settings)
    # Each order with its own spreads: under those of the fullest, simple ones would seem worse than they are.
    spreads = {order: problem.spreads(problem.columns(order)) for order in settings.orders}
    losses = {order: problem.normal(*spreads[order]).left_out(problem.columns(order)) for order in settings.orders}
    order = min(losses, key=lambda each: float(losses[each].sum()))
    # What the chosen order leaves unexplained counts as spread.
    tile_px, likeliest_px = spreads[order]
    solution, view_px = problem.averaged(problem.columns(order), tile_px, likeliest_px)
    scores = {each: float(loss.mean()) for each, loss in losses.items()}
    return _as_fit(problem, order, solution, (tile_px, view_px), scores)


def depth_errors_m(
    view: BoardDepth, intrinsics: Intrinsics, baseline_m: float, correction: DepthCorrection
) -> NDArray[np.float64]:
    """Corrected depth less true depth of a view's tiles, (M,) metres."""
    focal_baseline_m = intrinsics.fx_px * baseline_m
    tiles = view.tiles
    corrected_px = tiles.disparity_px + correction.added_px(intrinsics, tiles.disparity_px, tiles.pixels)
    true_px, _ = _true_disparity_px(view, intrinsics, focal_baseline_m)
    scale = correction.scale_at(view.temperature_c)
    return np.asarray(scale * focal_baseline_m / corrected_px - focal_baseline_m / true_px)


def _true_disparity_px(
    view: BoardDepth, intrinsics: Intrinsics, focal_baseline_m: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Disparity (M,) at which the tiles should be read, and its slope (M, 6) with the board's pose.

    A ray r meets the plane `n · p = n · t` at `1 / z = n · r / n · t`. A small motion (omega, tau) turns n by
    `omega x n`, leaves `n · t` but for `n · tau`, and so changes `1 / z` by
    `omega · (n x r) / n · t - (1 / z) n · tau / n · t`.
    """
    ideal = intrinsics.normalized(view.tiles.pixels)
    rays = np.column_stack((ideal, np.ones(len(ideal))))
    normal, origin_m = view.T_depth_board.rotation[:, 2], view.T_depth_board.translation_m
    away_m: float | NDArray[np.float64] = float(normal @ origin_m)
    inverse_z = rays @ normal / away_m
    if view.height_m is not None:
        points_board = view.T_depth_board.inverse() @ (rays / inverse_z[:, None])
        away_m = away_m + view.height_m(points_board[:, :2].astype(np.float64))
        inverse_z = rays @ normal / away_m
    if not (inverse_z > 0).all():
        raise DepthcellError(f"view {view.tiles.instant}: the board lies behind the camera; check its pose")
    distance_m = np.broadcast_to(away_m, inverse_z.shape)[:, None]
    slope = np.column_stack((np.cross(normal, rays) / distance_m, -inverse_z[:, None] * normal / distance_m))
    return focal_baseline_m * inverse_z, focal_baseline_m * slope


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """All views in terms of everything that may be sought.

    Columns of a design: scale, offset, curvature, change with temperature, then the terms of the largest wave.
    """

    views: tuple[ViewProblem, ...]
    prior: NDArray[np.float64]
    wave: tuple[int, int]
    reference_c: float | None
    has_temperature: bool

    @classmethod
    def of(
        cls, views: Sequence[BoardDepth], intrinsics: Intrinsics, baseline_m: float, settings: BiasSettings
    ) -> "_Problem":
        wave = max((order.wave for order in settings.orders), key=lambda shape: shape[0] * shape[1])
        told = [view.temperature_c for view in views if view.temperature_c is not None]
        reference_c = float(np.mean(told)) if len(told) == len(views) else None
        waves = max(wave[0] * wave[1] - 1, 0)
        u = [settings.scale_u, settings.offset_u_px, settings.curvature_u_px, settings.per_k_u]
        return cls(
            views=tuple(_as_view(view, intrinsics, baseline_m, wave, reference_c) for view in views),
            prior=np.array([*u, *[settings.wave_u_px] * waves]) ** -2.0,
            wave=wave,
            reference_c=reference_c,
            has_temperature=reference_c is not None and max(told) - min(told) >= settings.min_kelvin,
        )

    def columns(self, order: Order) -> NDArray[np.intp]:
        """Numbers of the terms of an order; its wave's are those of the upper left of the largest table."""
        rows, columns = order.wave
        wave = [4 + i * self.wave[1] + j - 1 for i in range(rows) for j in range(columns) if (i, j) != (0, 0)]
        chosen = [0, 1, *([2] if order.curvature else []), *([3] if self.has_temperature else []), *wave]
        return np.array(chosen, dtype=np.intp)

    def normal(self, tile_px: float, view_px: float) -> AllViews:
        """Normal equations under these standard deviations that nobody states."""
        return AllViews(tuple(view.weighed(tile_px, view_px) for view in self.views), self.prior)

    def spreads(self, columns: NDArray[np.intp]) -> tuple[float, float]:
        """Standard deviations of tile and view, in pixels, of greatest restricted likelihood."""
        stated_px = float(np.sqrt(np.median(np.concatenate([view.variance_px2 for view in self.views]))))

        def loss(logarithms: NDArray[np.float64]) -> float:
            tile_px, view_px = np.exp(np.clip(logarithms, np.log(1e-3 * stated_px), np.log(1e3 * stated_px)))
            return self.normal(float(tile_px), float(view_px)).loss(columns)

        start = np.log([0.3 * stated_px, stated_px])
        options = {"xatol": 0.02, "fatol": 0.01, "initial_simplex": start + np.array([[0, 0], [1.5, 0], [0, 1.5]])}
        found = minimize(loss, start, method="Nelder-Mead", options=options).x
        tile_px, view_px = np.exp(np.clip(found, np.log(1e-3 * stated_px), np.log(1e3 * stated_px)))
        return float(tile_px), float(view_px)

    def averaged(
        self, columns: NDArray[np.intp], tile_px: float, likeliest_px: float
    ) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], float]:
        """Solution and covariance over all values of the views' own standard deviation, and its root mean square."""
        least = self.normal(tile_px, likeliest_px).loss(columns)
        highest_px = max(likeliest_px, 0.1 * tile_px, 1e-4)
        while self.normal(tile_px, highest_px).loss(columns) < least + UNLIKELY:
            highest_px *= 1.5
        values_px = (np.arange(STEPS) + 0.5) / STEPS * highest_px
        normals = [self.normal(tile_px, value_px) for value_px in values_px]
        weight = np.exp(-0.5 * (np.array([normal.loss(columns) for normal in normals]) - least))
        weight /= weight.sum()
        changes, covariances = (np.array(each) for each in zip(*(n.solved(columns) for n in normals), strict=True))
        change = weight @ changes
        off = changes - change
        covariance = np.einsum("k,kij->ij", weight, covariances) + np.einsum("k,ki,kj->ij", weight, off, off)
        return (change, covariance), float(np.sqrt(weight @ np.square(values_px)))


def _as_view(
    view: BoardDepth, intrinsics: Intrinsics, baseline_m: float, wave: tuple[int, int], reference_c: float | None
) -> ViewProblem:
    tiles = view.tiles
    true_px, slope = _true_disparity_px(view, intrinsics, intrinsics.fx_px * baseline_m)
    warmer_k = 0.0 if reference_c is None or view.temperature_c is None else view.temperature_c - reference_c
    waves = -wave_terms(intrinsics, tiles.pixels, wave) if wave[0] else np.zeros((len(true_px), 0))
    # Each tile's noise must not reach its own coefficient: over many tiles that adds up to a bias of the curvature.
    plane = np.column_stack((np.ones(len(true_px)), tiles.pixels))
    smooth_px = plane @ np.linalg.lstsq(plane, tiles.disparity_px, rcond=None)[0]
    bent = -np.square(smooth_px / FULL_DISPARITY_PX)
    design = np.column_stack((true_px, -np.ones(len(true_px)), bent, warmer_k * true_px, waves))
    shared = np.zeros((len(true_px), 0))
    if view.covariance is not None:
        values, vectors = np.linalg.eigh(view.covariance)
        shared = slope @ (vectors * np.sqrt(np.maximum(values, 0)))
    return ViewProblem(tiles.disparity_px - true_px, design, np.square(tiles.sigma_px), shared)


def _as_fit(
    problem: _Problem,
    order: Order,
    solution: tuple[NDArray[np.float64], NDArray[np.float64]],
    spreads: tuple[float, float],
    scores: Mapping[Order, float],
) -> BiasFit:
    columns, (change, covariance) = problem.columns(order), solution
    by_column = dict(zip(columns.tolist(), change.tolist(), strict=True))
    scale = 1 + by_column[0]
    wave = np.zeros(order.wave[0] * order.wave[1])
    wave[1:] = change[len(columns) - max(len(wave) - 1, 0) :] if len(wave) else 0
    correction = DepthCorrection(
        scale=scale,
        disparity_offset_px=by_column[1],
        curvature_px=by_column.get(2, 0.0),
        wave_px=tuple(map(tuple, wave.reshape(order.wave).tolist())),
        scale_per_k=by_column.get(3, 0.0) / scale,
        reference_c=problem.reference_c,
    )
    # Of the columns, those that a cell's covariance is of: all but the change with temperature.
    sought = np.flatnonzero(columns != 3)
    places = np.concatenate((columns[columns < 3], 3 + np.arange((columns > 3).sum())))
    full = np.zeros((len(correction.parameter_names),) * 2)
    full[np.ix_(places, places)] = covariance[np.ix_(sought, sought)]
    per_k = np.flatnonzero(columns == 3)
    per_k_u = float(np.sqrt(covariance[per_k[0], per_k[0]])) / scale if len(per_k) else 0.0
    return BiasFit(correction, full, per_k_u, order, dict(scores), *spreads)
