"""Where the part lies: the fixture's nominal pose, refined on the cloud, with its covariance.

Point-to-plane least squares (Chen and Medioni, Image and Vision Computing 10 (1992) 145) on the reference's distance
field: the distance of a point is its residual, the field's gradient the normal, and no neighbour is ever searched.
"""

import math
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.motion import Basis, free_motions, without
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.posefit import (
    TUKEY,
    Fit,
    Sample,
    calibration_gain,
    information_inverse,
    linearised,
    product,
    random_covariance,
    sharing,
)
from depthcell.fusion.reference import Reference
from depthcell.fusion.registration.allowedmotions import AllowedMotions
from depthcell.fusion.registration.weakmotion import CLEARLY, STEP_M, loss_of, places_along, weak_motions

USED_POINTS = 25_000
"""So many points, taken evenly, tell nearly all; fewer leave a turn to the handful on the walls of bores."""
FIRST_POINTS = 1200
"""So many find the way; all that are used then take the last steps."""
FREE_POINTS = 5000
"""About so many tell what is free."""
NEARLY_STILL_M = 2e-5
"""A step of theirs that moves the part by less than this hands over to all."""
STILL_M = 1e-6
"""A step that moves the part by less than this is the last one."""
MOST_STEPS = 40
NOTHING = np.zeros((6, 0))


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
        used_points: about as many points of the cloud are used, taken evenly.
        allowed: which motions are looked for; None for all six.
    """

    capture_m: float = 0.010
    capture_rad: float = 0.175
    form_m: float = 5e-4
    min_inliers: float = 0.5
    min_points: int = 300
    used_points: int = USED_POINTS
    allowed: AllowedMotions | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """The refined pose of the part.

    Attributes:
        T_cell_part: refined.
        random_covariance: (6, 6) from noise, in the convention of `RigidTransform.perturbed`; with what the fixture
            leaves uncertain of motions that were not looked for.
        systematic_covariance: (6, 6) from the cell's calibration: the same for every part, so that it drops out where
            parts are compared with each other.
        rms_m: root mean square distance of the inliers from the reference.
        inlier_fraction: share of the points that lie on the reference within noise and `form_m`.
        points_used: points the last step worked on.
        iterations: steps taken.
        weakest_sigma_m: standard uncertainty of the least certain determined motion, at the part.
        weakest_direction: that motion, in words.
        free_directions: motions that the surface does not determine, in words; there the nominal pose was kept.
        calibration_gain: (6, P) change of the pose per unit of each row of `Cell.joint_covariance`, from which
            `systematic_covariance` comes; a point that rests on the same parameters moves along. (6, 0) where unknown.
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
    calibration_gain: NDArray[np.float64] = field(default_factory=lambda: np.zeros((6, 0)))

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
    stride = max(1, len(cloud) // settings.used_points)
    points = cloud if stride == 1 else cloud[np.arange(0, len(cloud), stride)]
    search = _Search(points, reference, T_cell_part, settings)
    pose, unclear, first_steps = search.approached()
    # What is free shows best where the part lies; whatever went along it on the way is taken back.
    fit = search.linearised(pose)
    free = search.free_at(fit, unclear)
    pose, fit, steps = search.refined(fit, free)

    basis, wanted = search.basis, without(search.allowed, free)
    inverse = information_inverse(fit.information, wanted)
    shared = np.array([sharing(cell.camera(serial).noise.correlation_px, stride) for serial in cloud.serials])
    noise = random_covariance(fit, inverse, shared[fit.sample.cloud.camera])
    gain = calibration_gain(fit, wanted, cell, cloud.serials)
    calibration = gain @ cell.joint_covariance @ gain.T
    weakest_sigma_m, weakest = _weakest(noise + calibration)
    noise += _unknown(fit, inverse, settings)
    # Along a free motion nothing was learnt: any value within reach of the nominal one is as likely (GUM 4.3.7).
    noise += free @ free.T * (settings.capture_m**2 / 3)
    rms_m, inlier_fraction = search.judged(fit)
    return Alignment(
        T_cell_part=pose,
        random_covariance=basis.twist @ noise @ basis.twist.T,
        systematic_covariance=basis.twist @ calibration @ basis.twist.T,
        rms_m=rms_m,
        inlier_fraction=inlier_fraction,
        points_used=int(fit.used.sum()),
        iterations=first_steps + steps,
        weakest_sigma_m=weakest_sigma_m,
        weakest_direction=basis.in_words(weakest),
        free_directions=tuple(basis.in_words(motion) for motion in free.T),
        calibration_gain=basis.twist @ gain,
    )


class _Search:
    """The points, the surface they should lie on, and where to start."""

    def __init__(
        self, points: PartCloud, reference: Reference, nominal: RigidTransform, settings: AlignmentSettings
    ) -> None:
        _need(len(points), settings.min_points, "points in the cloud; check the region and the cameras")
        self.basis = Basis.around(points.points_cell)
        self.allowed = np.eye(6) if settings.allowed is None else settings.allowed.looked_for(self.basis)
        self._sample = Sample.of(points, self.basis)
        self._reference, self._nominal, self._settings = reference, nominal, settings

    def linearised(self, pose: RigidTransform) -> Fit:
        """The least-squares problem of all points at a pose."""
        return self._at(pose, self._sample, 1)

    def approached(self) -> tuple[RigidTransform, NDArray[np.float64], int]:
        """From nominal to nearly the pose, by some of the points; motions found unclear (6, U); the number of steps."""
        count = len(self._sample.cloud)
        thinned = count // FIRST_POINTS
        if thinned < 2:
            return self._nominal, NOTHING, 0
        fit = self._at(self._nominal, self._sample.some(thinned), thinned)
        pose, fit, steps = self._stepped(fit, without(self.allowed, self.free_at(fit)), thinned, NEARLY_STILL_M)
        unclear: list[NDArray[np.float64]] = []
        wanted = without(self.allowed, self.free_at(fit))
        for motion in weak_motions(fit, wanted).T:
            pose, fit, is_clear, more = self._best_along(motion, pose, fit, wanted)
            steps += more
            if not is_clear:
                unclear.append(motion)
        return pose, np.array(unclear).reshape(-1, 6).T, steps

    def _best_along(
        self, motion: NDArray[np.float64], pose: RigidTransform, fit: Fit, wanted: NDArray[np.float64]
    ) -> tuple[RigidTransform, Fit, bool, int]:
        """The likeliest pose along a motion, whether no other is about as likely, and the number of steps."""
        thinned, form_m, steps = len(self._sample.cloud) // len(fit.sample.cloud), self._settings.form_m, 0
        found = [(loss_of(fit, form_m), pose, fit)]
        for place in places_along(fit, motion, self._reference, self._settings.capture_m):
            with suppress(DepthcellError):  # out of reach
                other = self._at(place, fit.sample, thinned)
                there, other, more = self._stepped(other, wanted, thinned, NEARLY_STILL_M)
                found.append((loss_of(other, form_m), there, other))
                steps += more
        found.sort(key=lambda each: each[0])
        loss, pose, fit = found[0]
        apart_m = [abs(float(self.basis.between(there, pose) @ motion)) for _, there, _ in found]
        rivals = [each[0] for each, way_m in zip(found, apart_m, strict=True) if way_m > STEP_M]
        return pose, fit, not rivals or rivals[0] - loss > CLEARLY, steps

    def free_at(self, fit: Fit, unclear: NDArray[np.float64] = NOTHING) -> NDArray[np.float64]:
        """Motions that the surface seen does not determine, (6, K); among them the `unclear` ones, (6, U)."""
        thinned = max(1, len(fit.sample.cloud) // FREE_POINTS)
        on_it = np.flatnonzero(fit.cut[::thinned] < 1) * thinned
        jacobian, cloud, pose = fit.jacobian[:, on_it], fit.sample.cloud, fit.T_cell_part
        surface_cell = cloud.points_cell[on_it] - (fit.residual_m[on_it] * fit.normals[:, on_it]).T
        information = product(jacobian, jacobian) / max(len(on_it), 1)
        surface_part = pose.inverse() @ surface_cell
        form_m = self._settings.form_m
        asked = without(self.allowed, unclear)
        free = free_motions(self.basis, information, surface_part, pose, self._reference, asked, form_m)
        return np.hstack((unclear, free))

    def refined(self, fit: Fit, free: NDArray[np.float64]) -> tuple[RigidTransform, Fit, int]:
        """From a pose nearly right to the one at which a step is still; the problem there, and the number of steps.

        `free` motions are left alone. Their way from nominal is taken back, and so is that of what was not looked for.
        """
        wanted = without(self.allowed, free)
        if wanted.shape[1] < 6:
            moved = self.basis.between(fit.T_cell_part, self._nominal)
            astray = moved - wanted @ (wanted.T @ moved)
            fit = self.linearised(fit.T_cell_part.perturbed(self.basis.twist @ -astray))
        return self._stepped(fit, wanted, 1, STILL_M)

    def judged(self, fit: Fit) -> tuple[float, float]:
        """Root mean square distance of the points that lie on the reference, and their share of all."""
        inlier = fit.used & (np.abs(fit.residual_m) < self._settings.form_m + TUKEY * self._sample.cloud.sigma_m)
        fraction, needed = float(inlier.mean()), self._settings.min_inliers
        if fraction < needed:
            raise _failed(f"{fraction:.0%} of the points lie on the reference, {needed:.0%} are needed")
        return float(np.sqrt(np.mean(np.square(fit.residual_m[inlier])))), fraction

    def _stepped(
        self, fit: Fit, wanted: NDArray[np.float64], thinned: int, still_m: float
    ) -> tuple[RigidTransform, Fit, int]:
        """The pose after the last step, and the problem before it: at a still pose they are one."""
        pose, steps = fit.T_cell_part, 0
        while True:
            step = fit.solved(wanted)
            pose, steps = pose.perturbed(self.basis.twist @ step), steps + 1
            self._check_capture(pose)
            if float(np.linalg.norm(step)) <= still_m or steps == MOST_STEPS:
                return pose, fit, steps
            fit = self._at(pose, fit.sample, thinned)

    def _at(self, pose: RigidTransform, sample: Sample, thinned: int) -> Fit:
        fit = linearised(sample, self._reference, pose, self._settings.capture_m)
        count, few = int(fit.used.sum()) * thinned, self._settings.min_points
        _need(count, few, "points near the reference; check part, mesh and nominal pose")
        return fit

    def _check_capture(self, pose: RigidTransform) -> None:
        moved = self.basis.between(pose, self._nominal)
        shift_m, turn_rad = float(np.linalg.norm(moved[3:])), float(np.linalg.norm(moved[:3])) / self.basis.length_m
        limit_m, limit_rad = self._settings.capture_m, self._settings.capture_rad
        if shift_m > limit_m or turn_rad > limit_rad:
            raise _failed(
                f"the pose ran {shift_m * 1e3:.1f} mm and {math.degrees(turn_rad):.1f} degrees away from nominal, "
                f"allowed are {limit_m * 1e3:.1f} mm and {math.degrees(limit_rad):.1f} degrees"
            )


def _unknown(fit: Fit, inverse: NDArray[np.float64], settings: AlignmentSettings) -> NDArray[np.float64]:
    """Covariance (6, 6) from motions that were not looked for: the fixture's own, and what they do to the others.

    A part that lies off by h in them asks for `A^-1 A h` in the others, A^-1 within what was looked for; what is left
    of the whole error is `(I - A^-1 A) h` (GUM 5.1.2).
    """
    if settings.allowed is None:
        return np.zeros((6, 6))
    left = np.eye(6) - inverse @ fit.information
    return np.asarray(left @ settings.allowed.held_covariance(fit.sample.basis) @ left.T)


def _weakest(covariance: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    values, vectors = np.linalg.eigh(covariance)
    return math.sqrt(max(float(values[-1]), 0.0)), vectors[:, -1]


def _need(count: int, needed: int, of_what: str) -> None:
    if count < needed:
        raise _failed(f"{count} of at least {needed} {of_what}")


def _failed(why: str) -> DepthcellError:
    return DepthcellError(f"alignment: {why}", Reason.ALIGNMENT_FAILED)
