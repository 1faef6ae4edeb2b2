"""Whether the stated uncertainties hold: errors against the truth of a simulated rig, over what was stated for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.adjustment.bundle import BundleProblem, BundleSolution
from depthcell.calib.adjustment.bundle_covariance import cell_camera
from depthcell.calib.adjustment.synthetic_rig import RigTruth, true_depth_read_m
from depthcell.calib.cell import POSE_NAMES, CellCamera, DisparityNoise
from depthcell.calib.propagation import point_covariance

QUIET = DisparityNoise(0.0, 0.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class RigErrors:
    """What a solution is off by, (N,) each, and the standard uncertainty that it stated.

    Attributes:
        error: by kind ("focal_px", "rotation_rad", "translation_m", "point_m"): estimate minus truth.
        u: likewise, as stated.
        pose_chi2: per camera, (C,), of all six pose errors together; chi-squared with 6 degrees of freedom.
    """

    error: Mapping[str, NDArray[np.float64]]
    u: Mapping[str, NDArray[np.float64]]
    pose_chi2: NDArray[np.float64]

    def covered(self, kind: str, level: float = 0.95) -> NDArray[np.bool_]:
        """(N,) which of the errors lie within the stated interval of this level."""
        factor = NormalDist().inv_cdf((1 + level) / 2)
        return np.asarray(np.abs(self.error[kind]) <= factor * self.u[kind])


def rig_errors(
    problem: BundleProblem, truth: RigTruth, solution: BundleSolution, rng: np.random.Generator, points: int = 20
) -> RigErrors:
    """Focal lengths and poses of the depth cameras, and points at the part seen by each, against the truth.

    Points lie where boards stood: on the line from the board's middle at one instant to that at another. Each is read
    without noise, by the true lens and the true depth error, and put into the cell as the solution says.
    """
    error: dict[str, list[float]] = {kind: [] for kind in ("focal_px", "rotation_rad", "translation_m", "point_m")}
    u: dict[str, list[float]] = {kind: [] for kind in error}
    pose_chi2 = []
    for stream, lens in truth.streams.items():
        if not stream.startswith("depth:"):
            continue
        for name in ("fx_px", "fy_px"):
            error["focal_px"].append(getattr(solution.streams[stream], name) - getattr(lens, name))
            u["focal_px"].append(solution.u(f"{stream}.{name}"))
        covariance = solution.covariance_of([f"{stream}.{name}" for name in POSE_NAMES])
        off = motion_between(solution.T_cell_stream[stream], truth.T_cell_stream[stream])
        pose_chi2.append(float(off @ np.linalg.solve(covariance, off)))
        sigma = np.sqrt(np.diag(covariance))
        for kind, part in (("rotation_rad", slice(0, 3)), ("translation_m", slice(3, 6))):
            error[kind].extend(-off[part])
            u[kind].extend(sigma[part])
        serial = stream.removeprefix("depth:")
        camera = cell_camera(solution, serial, "simulated", problem.baselines_m[serial], QUIET)
        off_m, u_m = _point_errors(truth, camera, _points(truth, rng, points))
        error["point_m"].extend(off_m)
        u["point_m"].extend(u_m)
    return RigErrors(
        {kind: np.array(values) for kind, values in error.items()},
        {kind: np.array(values) for kind, values in u.items()},
        np.array(pose_chi2),
    )


def motion_between(estimate: RigidTransform, truth: RigidTransform) -> NDArray[np.float64]:
    """Xi (6,) with `truth = estimate.perturbed(xi)`."""
    turn = truth.rotation @ estimate.rotation.T
    rotation = RigidTransform("cell", "cell", turn, np.zeros(3)).rotation_vector_rad
    return np.concatenate((rotation, truth.translation_m - turn @ estimate.translation_m))


def _points(truth: RigTruth, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Points (count, 3) of the work volume, in the cell."""
    middles = np.stack([T.translation_m + T.rotation @ (0.12, 0.075, 0.0) for T in truth.T_cell_board.values()])
    first, second = rng.integers(0, len(middles), (2, count))
    share = rng.uniform(size=(count, 1))
    return np.asarray(share * middles[first] + (1 - share) * middles[second])


def _point_errors(
    truth: RigTruth, camera: CellCamera, points_cell: NDArray[np.float64]
) -> tuple[Sequence[float], Sequence[float]]:
    stream = f"depth:{camera.serial}"
    points_cam = truth.T_cell_stream[stream].inverse() @ points_cell
    pixels = truth.streams[stream].project(points_cam)
    lens = truth.streams[stream]
    seen = (pixels > 0).all(axis=1) & (pixels < (lens.width_px - 1, lens.height_px - 1)).all(axis=1)
    pixels, points_cell = pixels[seen], points_cell[seen]
    read_m = true_depth_read_m(truth, camera.serial, camera.baseline_m, pixels, points_cam[seen, 2])
    z_m = np.asarray(camera.corrected(read_m, pixels), np.float64)
    rays = np.column_stack((camera.depth.normalized(pixels), np.ones(len(z_m))))
    found = camera.T_cell_depth @ (rays * z_m[:, None])
    variance = np.einsum("nii->ni", point_covariance(camera, pixels, z_m))
    return (found - points_cell).ravel().tolist(), np.sqrt(variance).ravel().tolist()
