"""Where the part lies: the fixture's nominal pose, refined on the cloud, with its covariance.

Point-to-plane least squares (Chen and Medioni, Image and Vision Computing 10 (1992) 145) on the reference's distance
field: the distance of a point is its residual, the field's gradient the normal, and no neighbour is ever searched.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.motion import Basis, free_motions
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.posefit import TUKEY, Fit, linearised, random_covariance, sharing, systematic_covariance
from depthcell.fusion.reference import Reference

USED_POINTS = 5000
"""As many points, taken evenly, tell as much as all: noise is correlated over several pixels anyway."""
STILL_M = 3e-7
"""A step that moves the part by less than this is the last one."""
MOST_STEPS = 40


@dataclass(frozen=True, slots=True)
class AlignmentSettings:
    """How hard to look, and what to refuse.

    Attributes:
        capture_m: points farther than this from the nominal surface take no part at the start; also the largest shift
            of the part's middle away from nominal.
        capture_rad: the largest rotation away from nominal.
        form_m: how far good parts may differ in form; a point this much off the reference still lies on it.
        min_inliers: fraction of the cloud that must lie on the reference in the end.
        min_points: points that must take part.
    """

    capture_m: float = 0.010
    capture_rad: float = 0.175
    form_m: float = 5e-4
    min_inliers: float = 0.5
    min_points: int = 300


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """The refined pose of the part.

    Attributes:
        T_cell_part: refined.
        random_covariance: (6, 6) from noise, in the convention of `RigidTransform.perturbed`.
        systematic_covariance: (6, 6) from the cell's calibration: the same for every part, so that it drops out where
            parts are compared with each other.
        rms_m: root mean square distance of the inliers from the reference.
        inlier_fraction: share of the points that lie on the reference within noise and `form_m`.
        points_used: points the last step worked on.
        iterations: steps taken.
        weakest_sigma_m: standard uncertainty of the least certain determined motion, at the part.
        weakest_direction: that motion, in words.
        free_directions: motions that the surface does not determine, in words; there the nominal pose was kept.
    """

    T_cell_part: RigidTransform
    random_covariance: NDArray[np.float64]
    systematic_covariance: NDArray[np.float64]
    rms_m: float
    inlier_fraction: float
    points_used: int
    iterations: int
    weakest_sigma_m: float
    weakest_direction: str
    free_directions: tuple[str, ...]

    @property
    def covariance(self) -> NDArray[np.float64]:
        """(6, 6) of `T_cell_part`, random and systematic together (GUM 5.1.2: independent, so they add)."""
        return self.random_covariance + self.systematic_covariance


def align(
    cloud: PartCloud,
    reference: Reference,
    T_cell_part: RigidTransform,
    cell: Cell,
    settings: AlignmentSettings | None = None,
) -> Alignment:
    """Refine the nominal pose so that the cloud lies on the reference.

    Each step weighs points by the inverse of their random variance times Tukey's biweight, whose scale follows the
    residuals from step to step: wide while the part is still off its place, down to the noise in the end, so that a
    defect, or a hand in the picture, does not pull.

    Args:
        cloud: the part, and what lies around it within reach.
        reference: its surface.
        T_cell_part: nominal, from the fixture.
        cell: of which the cloud's cameras are.
        settings: how far to look and what to refuse.

    Raises:
        DepthcellError: (`ALIGNMENT_FAILED`) too few points near the reference, or the pose ran away.
    """
    settings = settings or AlignmentSettings()
    stride = max(1, len(cloud) // USED_POINTS)
    search = _Search(cloud[np.arange(0, len(cloud), stride)], reference, T_cell_part, settings)
    free = search.free_at(T_cell_part)
    pose, first_steps = search.refined(T_cell_part, free)
    # What is free shows best where the part lies; whatever went along it on the way is taken back.
    free = search.free_at(pose)
    pose, steps = search.refined(search.without(pose, free), free)

    basis, fit = search.basis, search.linearised(pose)
    cameras = [cell.camera(serial) for serial in cloud.serials]
    shared = np.array([sharing(camera.noise.correlation_px, stride) for camera in cameras])
    noise = random_covariance(fit, free, shared[search.points.camera[fit.used]])
    calibration = systematic_covariance(fit, free, cell, cloud.serials, search.points.share[fit.used])
    weakest_sigma_m, weakest = _weakest(noise + calibration)
    # Along a free motion nothing was learnt: any value within reach of the nominal one is as likely (GUM 4.3.7).
    noise += free @ free.T * (settings.capture_m**2 / 3)
    rms_m, inlier_fraction = search.judged(fit)
    return Alignment(
        T_cell_part=pose,
        random_covariance=basis.twist @ noise @ basis.twist.T,
        systematic_covariance=basis.twist @ calibration @ basis.twist.T,
        rms_m=rms_m,
        inlier_fraction=inlier_fraction,
        points_used=len(fit.used),
        iterations=first_steps + steps,
        weakest_sigma_m=weakest_sigma_m,
        weakest_direction=basis.in_words(weakest),
        free_directions=tuple(basis.in_words(motion) for motion in free.T),
    )


class _Search:
    """The points, the surface they should lie on, and where to start."""

    def __init__(
        self, points: PartCloud, reference: Reference, nominal: RigidTransform, settings: AlignmentSettings
    ) -> None:
        _need(len(points), settings.min_points, "points in the cloud; check the region and the cameras")
        self.points = points
        self.basis = Basis.around(points.points_cell)
        self._reference, self._nominal, self._settings = reference, nominal, settings

    def linearised(self, pose: RigidTransform) -> Fit:
        """The least-squares problem at a pose."""
        fit = linearised(self.points, self._reference, pose, self.basis, self._settings.capture_m)
        _need(len(fit.used), self._settings.min_points, "points near the reference; check part, mesh and nominal pose")
        return fit

    def free_at(self, pose: RigidTransform) -> NDArray[np.float64]:
        """Motions that the surface seen does not determine, (6, K)."""
        fit = self.linearised(pose)
        on_it = np.flatnonzero(fit.cut < 1)
        jacobian, surface_part = fit.jacobian.take(on_it, axis=0), fit.surface_part.take(on_it, axis=0)
        return free_motions(self.basis, jacobian, surface_part, pose, self._reference)

    def refined(self, pose: RigidTransform, free: NDArray[np.float64]) -> tuple[RigidTransform, int]:
        """The pose at which a step is still, and the number of steps; `free` motions are left alone."""
        steps, step_m = 0, math.inf
        while step_m > STILL_M and steps < MOST_STEPS:
            step = self.linearised(pose).solved(free)
            pose = pose.perturbed(self.basis.twist @ step)
            self._check_capture(pose)
            steps, step_m = steps + 1, float(np.linalg.norm(step))
        return pose, steps

    def without(self, pose: RigidTransform, free: NDArray[np.float64]) -> RigidTransform:
        """The pose with its way from nominal along `free` taken back."""
        moved = self.basis.between(pose, self._nominal)
        return pose.perturbed(self.basis.twist @ (free @ (free.T @ -moved)))

    def judged(self, fit: Fit) -> tuple[float, float]:
        """Root mean square distance of the points that lie on the reference, and their share of all."""
        sigma_m = self.points.sigma_m[fit.used]
        inlier = np.abs(fit.residual_m) < self._settings.form_m + TUKEY * sigma_m
        fraction, needed = float(inlier.sum() / len(self.points)), self._settings.min_inliers
        if fraction < needed:
            raise _failed(f"{fraction:.0%} of the points lie on the reference, {needed:.0%} are needed")
        return float(np.sqrt(np.mean(np.square(fit.residual_m[inlier])))), fraction

    def _check_capture(self, pose: RigidTransform) -> None:
        moved = self.basis.between(pose, self._nominal)
        shift_m, turn_rad = float(np.linalg.norm(moved[3:])), float(np.linalg.norm(moved[:3])) / self.basis.length_m
        limit_m, limit_rad = self._settings.capture_m, self._settings.capture_rad
        if shift_m > limit_m or turn_rad > limit_rad:
            raise _failed(
                f"the pose ran {shift_m * 1e3:.1f} mm and {math.degrees(turn_rad):.1f} degrees away from nominal, "
                f"allowed are {limit_m * 1e3:.1f} mm and {math.degrees(limit_rad):.1f} degrees"
            )


def _weakest(covariance: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    values, vectors = np.linalg.eigh(covariance)
    return math.sqrt(max(float(values[-1]), 0.0)), vectors[:, -1]


def _need(count: int, needed: int, of_what: str) -> None:
    if count < needed:
        raise _failed(f"{count} of at least {needed} {of_what}")


def _failed(why: str) -> DepthcellError:
    return DepthcellError(f"alignment: {why}", Reason.ALIGNMENT_FAILED)
