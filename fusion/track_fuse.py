"""Frames of a moving part, or of a moving camera, become one part: each where its track says, all in one field."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.frameset import CameraFrame, FrameSet
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell, CellCamera
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.fuse import TEMPERATURES
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.region import Region, Window, image_window
from depthcell.fusion.temporal import average_depth
from depthcell.fusion.track import PartPose, Track
from depthcell.fusion.track_time import instant_ns
from depthcell.fusion.tsdf import Tsdf
from depthcell.fusion.tsdf_blocks import LIMIT_BYTES, VoxelBox, volume_bytes
from depthcell.fusion.tsdf_refine import IMPROBABLE, refined, spaced
from depthcell.fusion.tsdf_sight import Looks, SeenPoints, sight_of
from depthcell.fusion.tsdf_surface import SurfacePoints, cut_faces, surface_of
from depthcell.fusion.uncertainty import pose_variance_m2
from depthcell.fusion.view import View, ViewSettings, build_view
from depthcell.processes import default_jobs

AHEAD = 2
"""Frame sets whose views are built while one is taken into the field."""
WINDOW_STEP_PX = 32
"""Windows are widened to multiples of this, so that what is worked out per window serves several frames."""
INTERPOLATION_VOXELS2 = 2 / 3
"""Square of the correlation that interpolating between voxels adds, see `_correlation_m`."""


@dataclass(frozen=True, slots=True)
class MotionSettings:
    """How frames of a moving part become a part.

    Attributes:
        voxel_m: edge of a voxel.
        truncation_m: half the layer around the surface; None: two voxels, or 1.74 voxels and four standard deviations
            of a frame where that is more.
        least_frames: that must have seen a place; one that only one saw may be a ghost.
        limit_bytes: of memory.
        is_refined: whether each frame's pose is refined on the surface so far.
        edge_margin_px, normal_radii_px, max_incidence_rad: as in `FusionSettings`.
    """

    voxel_m: float = 1e-3
    truncation_m: float | None = None
    least_frames: int = 2
    limit_bytes: int = LIMIT_BYTES
    is_refined: bool = False
    edge_margin_px: int = 3
    normal_radii_px: tuple[int, int] = (6, 3)
    max_incidence_rad: float = math.radians(75.0)

    def view(self, region: Region) -> ViewSettings:
        """Of one frame, whose part lies in `region`."""
        return ViewSettings(region, self.edge_margin_px, self.normal_radii_px, self.max_incidence_rad)


@dataclass(frozen=True, slots=True, eq=False)
class FusedMotion:
    """One part as all cameras saw it while it moved.

    Attributes:
        cloud: in the cell, the part being at `T_cell_part`; without colour, `pixel` is -1 where the camera that counts
            most does not see the point at that pose.
        T_cell_part: the reference pose: the track's at the asked instant, or where refined frames put the part then.
        field: the distance field, in the frame "part".
        missing: serial numbers of the cell's cameras that gave no depth.
        frames: depth frames that showed some of the part.
        least_frames: that must have seen a place for it to be in the cloud.
        bytes_stated, bytes_used: of memory: the bound set aside, and what was written to.
        warnings: what a person should know, in words.
    """

    cloud: PartCloud
    T_cell_part: RigidTransform
    field: Tsdf
    missing: tuple[str, ...]
    frames: int
    least_frames: int
    bytes_stated: int
    bytes_used: int
    warnings: tuple[str, ...]

    def warned(self, words: str) -> "FusedMotion":
        """The same with one more warning."""
        return replace(self, warnings=(*self.warnings, words))


@dataclass(frozen=True, slots=True, eq=False)
class _Instant:
    """One depth frame, and where the part was."""

    frame: CameraFrame
    number: int
    camera: CellCamera
    pose: PartPose


class MotionAccumulator:
    """Absorbs frame sets of a moving part as they arrive; `fuse` takes the part out.

    Args:
        cell: the cameras.
        track: of the part.
        box_m: lower and upper corner (3,) of the box that holds the part and nothing else, metres, frame "part".
        reference_ns: instant of the reference pose, on the cameras' clock.
        settings: voxel, memory, refinement.

    Raises:
        DepthcellError: the box does not fit into the memory, or the track does not hold the reference.
    """

    def __init__(
        self,
        cell: Cell,
        track: Track,
        box_m: tuple[NDArray[np.float64], NDArray[np.float64]],
        reference_ns: int,
        settings: MotionSettings | None = None,
    ) -> None:
        self._cell, self._track = cell, track
        self._settings = settings or MotionSettings()
        self._box = VoxelBox(*box_m, self._settings.voxel_m)
        self._T_cell_reference = track.pose(reference_ns)
        self._own_covariance = track.part_pose(reference_ns, self._T_cell_reference).own_covariance
        self._bytes = volume_bytes(self._box, len(cell.cameras), self._settings.limit_bytes)
        self._field: Tsdf | None = None
        part_box = Region(RigidTransform.identity("cell", "part"), self._box.lower_m, self._box.upper_m)
        self._looks = [Looks(camera, part_box) for camera in cell.cameras.values()]
        self._count = _Count()
        self._settlings: list[RigidTransform] = []

    def add_all(self, framesets: Iterable[FrameSet], absorbed: Callable[[], None] | None = None) -> None:
        """Absorb frame sets in the order of their time; views are built some sets ahead, on the other cores.

        Raises:
            DepthcellError: a frame lies outside the track, is not of this cell, or the memory's limit is reached.
        """
        # One core takes views into the field; more threads than are left would only keep it waiting.
        with ThreadPoolExecutor(max(1, default_jobs() - 1)) as pool:
            waiting: deque[list[tuple[_Instant, Future[View | None]]]] = deque()
            for frameset in framesets:
                waiting.append([(instant, pool.submit(self._view, instant)) for instant in self._instants(frameset)])
                if len(waiting) > AHEAD:
                    self._take(waiting.popleft())
                (absorbed or _nothing)()
            for coming in waiting:
                self._take(coming)

    def fuse(self) -> FusedMotion:
        """The part as seen so far.

        Raises:
            DepthcellError: (`NOT_MEASURED`) no frame held any depth within the box.
        """
        if self._field is None:
            raise DepthcellError(
                f"track {self._track.name}: {self._count.frames} depth frames, none with any depth of the part within "
                f"its {self._box.in_words}; check track, time offset and volume",
                Reason.NOT_MEASURED,
            )
        surface = surface_of(self._field, self._least_frames)
        return FusedMotion(
            cloud=self._cloud(self._field, surface),
            T_cell_part=self._settled(),
            field=self._field,
            missing=tuple(s for s in self._cell.cameras if s not in self._count.serials),
            frames=self._count.seeing,
            least_frames=self._least_frames,
            bytes_stated=self._bytes,
            bytes_used=self._field.pool.bytes_used,
            warnings=tuple(self._warnings(cut_faces(self._field, surface.points_part))),
        )

    def _instants(self, frameset: FrameSet) -> Iterator[_Instant]:
        numbers = {serial: number for number, serial in enumerate(self._cell.cameras)}
        poses: dict[int, PartPose] = {}
        for serial, frame in frameset.frames.items():
            camera = self._cell.camera(serial)
            if frame.depth is None:
                self._count.without_depth += 1
                continue
            self._count.frames += 1
            self._count.serials.add(serial)
            taken_ns = instant_ns(frameset, frame)
            if taken_ns not in poses:
                poses[taken_ns] = self._track.part_pose(taken_ns, self._T_cell_reference)
            yield _Instant(frame, numbers[serial], camera, poses[taken_ns])

    def _view(self, instant: _Instant) -> View | None:
        """What the frame shows of the part; None where the box is out of its sight."""
        depth, camera, settings = instant.frame.depth, instant.camera, self._settings
        assert depth is not None  # noqa: S101 - `_instants` left those out; tells the type checker
        _check_size(instant)
        region = Region(instant.pose.T_cell_part, self._box.lower_m, self._box.upper_m)
        reach_px = max(settings.normal_radii_px) + settings.edge_margin_px + 1
        window = image_window(region, camera.depth, camera.T_cell_depth.inverse(), reach_px)
        if window is None:
            return None
        told = next((instant.frame.metadata[n] for n in TEMPERATURES if n in instant.frame.metadata), None)
        mean = average_depth([depth], _widened(window, camera))
        return build_view(camera, mean, None, settings.view(region), None if told is None else float(told))

    def _take(self, coming: list[tuple[_Instant, Future[View | None]]]) -> None:
        """Take the views of one frame set into the field."""
        views = [(instant, view) for instant, future in coming if (view := future.result()) is not None]
        views = [(instant, view) for instant, view in views if view.valid.any()]
        self._count.blind += len(coming) - len(views)
        if not views:
            return
        if self._field is None:
            truncation_m = self._truncation_m(views[0][1])
            self._field = Tsdf(self._box, tuple(self._cell.cameras), truncation_m, self._settings.limit_bytes)
        poses = [instant.pose for instant, _ in views]
        if self._settings.is_refined:
            poses = self._refined(self._field, views)
        for place, ((instant, view), pose) in enumerate(zip(views, poses, strict=True)):
            is_new_look = self._looks[instant.number].is_new(pose.T_cell_part)
            flags = {"is_new_look": is_new_look, "is_new_instant": place == 0}
            sight, seen = sight_of(view, instant.number, instant.camera, pose, **flags)
            self._field.add(sight, seen.points)
            self._count.seeing += 1
            self._count.correlation(instant.number, view)

    def _refined(self, field: Tsdf, views: list[tuple[_Instant, View]]) -> list[PartPose]:
        """Poses on the surface so far, which lies where the first frame set put it, see `_settled`."""
        priors = [instant.pose for instant, _ in views]
        if not self._settlings:
            self._settlings.append(RigidTransform.identity("part", "part"))
            return [replace(prior, own_covariance=np.zeros((6, 6))) for prior in priors]
        T_cell_first = priors[0].T_cell_part
        parts, sigmas_m = [], []
        for (instant, view), prior in zip(views, priors, strict=True):
            seen = SeenPoints.of(view)
            chosen = spaced(seen, view.valid.shape, instant.camera.noise.correlation_px)
            some = SeenPoints(seen.pixel[chosen], seen.points[chosen], seen.normals[chosen])
            parts.append(some.moved(T_cell_first @ prior.T_cell_part.inverse()))
            sigmas_m.append(view.random_sigma_m.ravel()[some.pixel])
        # The field lies where the first set put it, whose pose errs as much as this one's.
        prior = replace(priors[0], own_covariance=2 * priors[0].own_covariance)
        apart = np.mean([_apart(instant.camera, view) for instant, view in views], axis=0)
        found = refined(field, _together(parts), np.concatenate(sigmas_m), prior, apart)
        moved = found.pose.T_cell_part @ T_cell_first.inverse()
        self._settlings.append(T_cell_first.inverse() @ found.pose.T_cell_part)
        self._count.improbable += found.distance2 > IMPROBABLE
        left = found.pose.own_covariance
        return [replace(prior, T_cell_part=moved @ prior.T_cell_part, own_covariance=left) for prior in priors]

    def _settled(self) -> RigidTransform:
        """The reference pose, for a surface that lies where the refined frames put it.

        The refined poses hang together, but as a whole they lie where the track had the first frame set. Each says how
        far that is off its own place on the track; the mean of what they say errs least.
        """
        if not self._settlings:
            return self._T_cell_reference
        turn, shift_m = (
            np.mean([getattr(one, name) for one in self._settlings], axis=0)
            for name in ("rotation_vector_rad", "translation_m")
        )
        return self._T_cell_reference @ RigidTransform.from_rotation_vector("part", "part", turn, shift_m)

    def _truncation_m(self, view: View) -> float:
        if self._settings.truncation_m is not None:
            return self._settings.truncation_m
        sigma_m = float(np.median(view.random_sigma_m[view.valid]))
        return max(2.0 * self._settings.voxel_m, 1.74 * self._settings.voxel_m + 4 * sigma_m)

    @property
    def _least_frames(self) -> int:
        return min(self._settings.least_frames, self._count.seeing)

    def _cloud(self, field: Tsdf, surface: SurfacePoints) -> PartCloud:
        T_cell_part = self._settled()
        points_cell = np.asarray(T_cell_part @ surface.points_part, dtype=np.float64)
        normals_cell = np.asarray(T_cell_part.rotate(surface.normals_part), dtype=np.float32)
        systematic_m2 = np.square(surface.systematic_sigma_m)
        if self._settlings:
            whole = self._own_covariance / len(self._settlings)
            systematic_m2 = systematic_m2 + pose_variance_m2(points_cell, normals_cell, whole)
        camera = np.argmax(surface.share, axis=1).astype(np.uint8)
        return PartCloud(
            points_cell=points_cell,
            normals_cell=normals_cell,
            colors=np.zeros((len(camera), 3), np.uint8),
            random_sigma_m=surface.random_sigma_m,
            systematic_sigma_m=np.sqrt(systematic_m2).astype(np.float32),
            correlation_m=self._correlation_m()[camera],
            share=surface.share,
            camera=camera,
            pixel=_pixels(points_cell, camera, tuple(self._cell.cameras.values())),
            serials=field.serials,
        )

    def _correlation_m(self) -> NDArray[np.float32]:
        """Of each camera's points, (K,): its noise laid on the surface, and what interpolation adds.

        A Gaussian correlation `exp(-(r / l)²)` comes of a filter of variance l² / 4. Interpolating between voxels of
        edge h filters once more, by a triangle of variance h² / 6, so `l² + 2/3 h²` is the square of the whole.
        """
        own_m = np.array([self._count.correlations.get(number, 0.0) for number in range(len(self._cell.cameras))])
        whole_m2 = np.square(own_m) + INTERPOLATION_VOXELS2 * self._settings.voxel_m**2
        return np.asarray(np.sqrt(whole_m2), dtype=np.float32)

    def _warnings(self, faces: list[str]) -> Iterator[str]:
        count = self._count
        for serial in self._cell.cameras:
            if serial not in count.serials:
                yield f"camera {serial}: gave no depth"
        if count.without_depth:
            yield f"{count.without_depth} frames hold no depth"
        if count.blind:
            yield f"{count.blind} of {count.frames} depth frames show nothing of the part within its volume"
        if faces:
            yield f"the surface runs out of the volume at {', '.join(faces)}; enlarge it if the part goes on there"
        u = self._track.uncertainty
        if not (u.translation_m or u.rotation_rad):
            yield f"track {self._track.name}: states no uncertainty, its poses are taken as exact"
        if count.improbable:
            yield (
                f"track {self._track.name}: {count.improbable} of {len(self._settlings)} refined poses lie farther off "
                "it than it states; check its direction, counts and time offset"
            )


@dataclass(slots=True)
class _Count:
    """What was absorbed."""

    frames: int = 0
    seeing: int = 0
    blind: int = 0
    without_depth: int = 0
    improbable: int = 0
    serials: set[str] = field(default_factory=set)
    correlations: dict[int, float] = field(default_factory=dict)

    def correlation(self, number: int, view: View) -> None:
        """Keep the widest correlation of the camera's views."""
        median_m = float(np.median(view.correlation_m[view.valid]))
        self.correlations[number] = max(median_m, self.correlations.get(number, 0.0))


def _apart(camera: CellCamera, view: View) -> NDArray[np.float64]:
    """Covariance (6, 6) of how far a camera's calibration may shift what it sees from what other cameras see."""
    median_m2 = float(np.median(np.square(view.systematic_sigma_m[view.valid])))
    return np.asarray(camera.pose_covariance + np.diag([0.0] * 3 + [median_m2] * 3))


def _together(parts: list[SeenPoints]) -> SeenPoints:
    return SeenPoints(*(np.concatenate([getattr(part, name) for part in parts]) for name in SeenPoints.__slots__))


def _nothing() -> None:
    pass


def _check_size(instant: _Instant) -> None:
    depth, stated = instant.frame.depth, instant.camera.depth
    if depth is not None and depth.depth_m.shape != (stated.height_px, stated.width_px):
        recorded = f"{depth.intrinsics.width_px} x {depth.intrinsics.height_px}"
        raise DepthcellError(
            f"camera {instant.camera.serial}: depth images are {recorded}, the cell states "
            f"{stated.width_px} x {stated.height_px}; calibrate the cell at the size it records",
            Reason.CELL_INVALID,
        )


def _widened(window: Window, camera: CellCamera) -> Window:
    step = WINDOW_STEP_PX
    return Window(
        window.top // step * step,
        min(-(-window.bottom // step) * step, camera.depth.height_px),
        window.left // step * step,
        min(-(-window.right // step) * step, camera.depth.width_px),
    )


def _pixels(
    points_cell: NDArray[np.float64], camera: NDArray[np.uint8], cameras: tuple[CellCamera, ...]
) -> NDArray[np.int32]:
    pixel = np.full((len(points_cell), 2), -1, np.int32)
    for number, one in enumerate(cameras):
        own = np.flatnonzero(camera == number)
        places = np.rint(one.depth.project(one.T_cell_depth.inverse() @ points_cell[own]))
        inside = (places >= 0).all(axis=1) & (places < (one.depth.width_px, one.depth.height_px)).all(axis=1)
        pixel[own[inside]] = places[inside][:, ::-1]
    return pixel
