"""The running adjustment: parameters as they stand, the blocks that judge them, and Ceres that moves them."""

from collections.abc import Mapping

import numpy as np
import pyceres  # type: ignore[import-not-found] # one compiled file without types
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.bundle_blocks import (
    Block,
    CornerBlock,
    Evaluation,
    Key,
    PriorBlock,
    TileBlock,
    wave_terms,
)
from depthcell.calib.adjustment.bundle_problem import BundleProblem, BundleSettings, Place
from depthcell.calib.adjustment.lens import lens_vector
from depthcell.calib.cell import POSE_NAMES, lens_names
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.errors import DepthcellError, Reason

POSES = ("pose", "place")


class Adjustment:
    """Parameters, blocks and weights of one adjustment; the one mutable thing in it.

    Attributes:
        values: by key, the parameters as they stand; those of poses are motions on top of `bases`.
        bases: by key, poses in the frame "cell".
        fixed: keys that are held.
        blocks: corners in the order of `problem.views`, then depth in that of `problem.depth`, then priors.
        weights: per block, factor on each of its rows: 0 for what is left out.
        common_px: per group, standard deviation of an error that all rows of one block share; see `weighted`.
    """

    def __init__(self, problem: BundleProblem, settings: BundleSettings) -> None:
        self.problem, self.settings = problem, settings
        self.values: dict[Key, NDArray[np.float64]] = {}
        self.bases: dict[Key, RigidTransform] = {}
        self.fixed: set[Key] = {("place", problem.origin)}
        self.names: dict[Key, tuple[str, ...]] = {}
        self._add_streams()
        self._add_boards()
        self.blocks: list[Block] = [CornerBlock(view, problem.boards[view.board]) for view in problem.views]
        self._add_depth()
        self.blocks.extend(self._priors())
        self.weights = [np.ones(block.count) for block in self.blocks]
        self.common_px: dict[str, float] = {}
        self._ceres, self._costs = self._built()

    def _add(self, key: Key, value: NDArray[np.float64], names: tuple[str, ...]) -> None:
        self.values[key], self.names[key] = value, names

    def _add_streams(self) -> None:
        for stream, intrinsics in self.problem.streams.items():
            self.bases["pose", stream] = self.problem.T_cell_stream[stream]
            self._add(("pose", stream), np.zeros(6), tuple(f"{stream}.{name}" for name in POSE_NAMES))
            names = tuple(f"{stream}.{name}" for name in lens_names(intrinsics))
            self._add(("lens", stream), lens_vector(intrinsics), names)
            if stream in self.problem.fixed_intrinsics:
                self.fixed.add(("lens", stream))

    def _add_boards(self) -> None:
        for number in sorted({view.board for view in self.problem.views}):
            warp = (f"board:{number}.warp_x_m", f"board:{number}.warp_y_m")
            self._add(("warp", number), np.zeros(2), warp)
            self._add(("scale", number), np.ones(1), (f"board:{number}.scale",))
            if self.problem.board_scale_u == 0:
                self.fixed.add(("scale", number))
        for place in dict.fromkeys(view.place for view in self.problem.views):
            self.bases["place", place] = self.problem.T_cell_board[place]
            self.values["place", place] = np.zeros(6)

    def _add_depth(self) -> None:
        shape = self.settings.depth.wave_shape
        for tiles in self.problem.depth:
            stream = f"depth:{tiles.serial}"
            intrinsics, key = self.problem.streams[stream], ("depth", tiles.serial)
            wave = wave_terms(tiles, intrinsics, shape)
            focal_baseline_m = intrinsics.fx_px * self.problem.baselines_m[tiles.serial]
            self.blocks.append(TileBlock(tiles, self.problem.boards[tiles.board], focal_baseline_m, wave))
            names = empty_correction(shape).parameter_names
            if key not in self.values:
                self._add(key, np.eye(len(names))[0], tuple(f"{stream}.{name}" for name in names))

    def _priors(self) -> list[PriorBlock]:
        priors = []
        prior = self.settings.depth
        for key, value in self.values.items():
            if key[0] == "warp":
                sigma = np.full(2, self.settings.warp_u_m)
                priors.append(_prior(key, np.zeros(2), sigma))
            elif key[0] == "depth":
                waves = [prior.wave_u_px] * (len(value) - 3)
                sigma = np.array([prior.scale_u, prior.offset_u_px, prior.curvature_u_px, *waves])
                priors.append(_prior(key, np.eye(len(value))[0], sigma))
            elif key[0] == "lens" and len(value) > 4 and key not in self.fixed:
                sigma = self.settings.lens_u / corner_effects(self.problem.streams[str(key[1])])
                matrix = np.concatenate((np.zeros((len(sigma), 4)), np.diag(1 / sigma)), axis=1)
                priors.append(PriorBlock((key,), matrix, np.zeros(len(sigma))))
        scales = [key for key in self.values if key[0] == "scale"]
        return [*priors, _scale_prior(scales, self.problem.board_scale_u)] if self.problem.board_scale_u else priors

    def _built(self) -> "tuple[pyceres.Problem, list[_Cost]]":
        ceres, costs = pyceres.Problem(), []
        for number, block in enumerate(self.blocks):
            cost = _Cost(self, number)
            costs.append(cost)
            ceres.add_residual_block(cost, None, [self.values[key] for key in block.keys])
        for key in self.fixed:
            if ceres.has_parameter_block(self.values[key]):
                ceres.set_parameter_block_constant(self.values[key])
        return ceres, costs

    def weighted(self, number: int, found: Evaluation) -> Evaluation:
        """A block's residuals and derivatives, of unit covariance if all is as stated.

        Rows with weights w of unit variance, and a common error of standard deviation tau that acts on them by a, have
        the covariance `1 + tau² a a^T`; its inverse root is `1 - (1 - 1 / sqrt(1 + tau² a²)) a a^T / a²`.
        """
        weights, block = self.weights[number], self.blocks[number]
        residuals = found.residuals * weights[:, None]
        jacobians = [jacobian * weights[:, None, None] for jacobian in found.jacobians]
        tau_px = self.common_px.get(block.group, 0.0)
        if tau_px == 0 or block.common is None or not weights.any():
            return Evaluation(residuals, jacobians)
        act = weights * block.common
        size = float(act @ act)
        shrink = (1 - 1 / np.sqrt(1 + tau_px**2 * size)) / size
        return Evaluation(
            residuals - shrink * act[:, None] * (act @ residuals),
            [jacobian - shrink * act[:, None, None] * np.tensordot(act, jacobian, 1) for jacobian in jacobians],
        )

    def check_start(self) -> None:
        """Refuse a start in which something cannot be seen as it was.

        Raises:
            DepthcellError: a board lies behind a camera that saw it.
        """
        seen: list[object] = [*self.problem.views, *self.problem.depth]
        for block, what in zip(self.blocks, seen, strict=False):
            if block.evaluate([self.values[key] for key in block.keys], self.bases) is None:
                instant = getattr(what, "instant", "?")
                raise DepthcellError(
                    f"adjustment: to begin with, the board of view {instant} lies behind {block.group}; "
                    "its start pose or the camera's is wrong"
                )

    def solve(self, near: bool = False) -> int:
        """Move the parameters to where the weighted squares are least; returns how many iterations it took.

        With `near` the first step is taken as it is, not shortened, since only weights have changed.

        The start is first folded into `bases`, so that motions are small and mean what the covariance says.

        Raises:
            DepthcellError: the solver did not converge.
        """
        options = pyceres.SolverOptions()
        options.linear_solver_type = pyceres.LinearSolverType.SPARSE_SCHUR
        options.logging_type = pyceres.LoggingType.SILENT
        options.max_num_iterations = self.settings.max_iterations
        options.function_tolerance, options.parameter_tolerance = 1e-10, 1e-11
        options.num_threads = self.settings.threads
        if near:
            options.initial_trust_region_radius = 1e12
        summary = pyceres.SolverSummary()
        pyceres.solve(options, self._ceres, summary)
        if summary.termination_type != pyceres.TerminationType.CONVERGENCE:
            for cost in self._costs:
                if cost.failure is not None:
                    raise cost.failure
            raise DepthcellError(
                f"adjustment: not converged after {summary.num_successful_steps} iterations; the start is too far off, "
                "or views contradict each other",
                Reason.CELL_INVALID,
            )
        self._fold()
        return int(summary.num_successful_steps + summary.num_unsuccessful_steps)

    def _fold(self) -> None:
        """Move the bases by the motions found, and the motions back to zero."""
        for key, base in self.bases.items():
            self.bases[key] = base.perturbed(self.values[key])
            self.values[key][:] = 0.0
        for cost in self._costs:
            cost.forget()

    def close(self) -> None:
        """Let go of Ceres: its objects and ours hold each other, which Python's collector cannot see."""
        self._ceres = None
        self._costs.clear()

    def place_keys(self) -> list[Place]:
        """Places whose pose is estimated."""
        return [key[1] for key in self.values if key[0] == "place" and key not in self.fixed]  # type: ignore[misc]

    def shared_names(self) -> list[str]:
        """Names of the parameters of `shared_keys`, one by one."""
        return [name for key in self.shared_keys() for name in self.names[key]]

    def shared_keys(self) -> list[Key]:
        """All other parameters that are estimated, in the order of the covariance."""
        return [key for key in self.values if key[0] != "place" and key not in self.fixed]


class _Cost(pyceres.CostFunction):  # type: ignore[misc] # as above
    """A block as Ceres wants it; weights are read afresh at each evaluation."""

    def __init__(self, adjustment: Adjustment, number: int) -> None:
        super().__init__()
        self._adjustment, self._number = adjustment, number
        block = adjustment.blocks[number]
        self.failure: DepthcellError | None = None
        self._at: list[bytes] = []
        self._last: Evaluation | None = None
        self.set_num_residuals(block.count * block.width)
        self.set_parameter_block_sizes([len(adjustment.values[key]) for key in block.keys])

    def Evaluate(  # noqa: N802 - Ceres' name
        self,
        parameters: list[NDArray[np.float64]],
        residuals: NDArray[np.float64],
        jacobians: list[NDArray[np.float64] | None] | None,
    ) -> bool:
        """What Ceres asks for; False where the parameters are impossible, so that it takes a shorter step."""
        try:
            found = self._evaluated(parameters)
        except DepthcellError as error:
            self.failure = error
            return False
        if found is None:
            return False
        self.failure = None
        weighted = self._adjustment.weighted(self._number, found)
        residuals[:] = weighted.residuals.ravel()
        for target, jacobian in zip(jacobians or (), weighted.jacobians, strict=False):
            if target is not None:
                target[:] = jacobian.ravel()
        return True

    def _evaluated(self, parameters: list[NDArray[np.float64]]) -> Evaluation | None:
        """The block's answer; Ceres asks for residuals first, and again at the same place for derivatives."""
        at = [values.tobytes() for values in parameters]
        if at != self._at:
            adjustment = self._adjustment
            self._last, self._at = adjustment.blocks[self._number].evaluate(parameters, adjustment.bases), at
        return self._last

    def forget(self) -> None:
        """Poses have new bases, so that what was found before is no longer true."""
        self._at, self._last = [], None


def empty_correction(wave_shape: tuple[int, int]) -> DepthCorrection:
    """A correction that does nothing, with a wave table of this shape."""
    return DepthCorrection(wave_px=((0.0,) * wave_shape[1],) * wave_shape[0] if min(wave_shape) > 0 else ())


def start_focal_baselines(problem: BundleProblem) -> Mapping[str, float]:
    """F B in px m that the depth tiles were counted with, by serial."""
    return {
        serial: problem.streams[f"depth:{serial}"].fx_px * problem.baselines_m[serial]
        for serial in dict.fromkeys(tiles.serial for tiles in problem.depth)
    }


def _prior(key: Key, mean: NDArray[np.float64], sigma: NDArray[np.float64]) -> PriorBlock:
    return PriorBlock((key,), np.diag(1 / sigma), mean / sigma)


def _scale_prior(keys: list[Key], u: float) -> PriorBlock:
    """Boards share the error of whoever printed or measured them, and have their own: both of size u.

    The mean of n boards is therefore never better known than u, and each differs from the mean by u.
    """
    count = len(keys)
    mean = np.full((1, count), 1 / count)
    if count == 1:
        return PriorBlock(tuple(keys), mean / u, np.array([1 / u]))
    own = np.eye(count) - mean
    return PriorBlock(tuple(keys), np.concatenate((mean, own)) / u, np.array([1 / u] + [0.0] * count))


def corner_effects(intrinsics: Intrinsics) -> NDArray[np.float64]:
    """(C,): relative shift in the image's farthest corner per unit of each distortion coefficient."""
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * (intrinsics.width_px - 1, intrinsics.height_px - 1)
    ideal = (corners - (intrinsics.cx_px, intrinsics.cy_px)) / (intrinsics.fx_px, intrinsics.fy_px)
    r = float(np.sqrt(np.square(ideal).sum(axis=1).max()))
    powers = (2, 4, 1, 1, 6, 2, 4, 6, 1, 3, 1, 3)
    return np.array([r**power for power in powers[: intrinsics.distortion.coefficient_count]])
