"""Frames of all cameras become one part: time first, then one geometric pass per camera, then one merged cloud."""

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import fmean

from depthcell.acquisition.frameset import CameraFrame, FrameSet
from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.calib.cell import Cell, CellCamera
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.agreement import Disagreement, disagreements
from depthcell.fusion.merge import merge_views
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.region import Region, Window, image_window
from depthcell.fusion.temporal import ColorAccumulator, DepthAccumulator
from depthcell.fusion.view import View, ViewSettings, WindowedColor, build_view

TEMPERATURES = ("Asic Temperature", "Temperature")
"""Names under which a frame's metadata may carry the camera's temperature in °C: the SDK's option, and its own value
`RS2_FRAME_METADATA_TEMPERATURE`; the first that is there is taken."""


@dataclass(frozen=True, slots=True)
class FusionSettings:
    """How frames become a part.

    Attributes:
        region: box that holds the part; None keeps all that was measured.
        min_fraction: share of frames that must have measured a pixel.
        edge_margin_px: pixels dropped on both sides of a depth jump, where the matching window mixes two surfaces.
        normal_radii_px: half sizes of the large and the small window for normals.
        max_incidence_rad: surfaces that a camera sees at a flatter angle are left to the other cameras.
        with_color: whether colour is averaged and projected.
    """

    region: Region | None = None
    min_fraction: float = 0.5
    edge_margin_px: int = 3
    normal_radii_px: tuple[int, int] = (6, 3)
    max_incidence_rad: float = math.radians(75.0)
    with_color: bool = True

    @property
    def view(self) -> ViewSettings:
        """The part of it that concerns one camera."""
        return ViewSettings(self.region, self.edge_margin_px, self.normal_radii_px, self.max_incidence_rad)


@dataclass(frozen=True, slots=True, eq=False)
class FusedPart:
    """One part as all cameras saw it.

    Attributes:
        views: one per camera that gave depth, in the cell's order.
        cloud: all views merged.
        missing: serial numbers of the cell's cameras that gave no depth.
        frames: frame sets that were absorbed.
        disagreements: pairs of cameras that see the same surface apart: the cell was bumped, or is stale.
        warnings: what a person should know, in words, disagreements included.
    """

    views: tuple[View, ...]
    cloud: PartCloud
    missing: tuple[str, ...]
    frames: int
    disagreements: tuple[Disagreement, ...]
    warnings: tuple[str, ...]


class PartAccumulator:
    """Absorbs frame sets as they arrive; `fuse` is all that is left to do after the last one.

    Args:
        cell: the cameras, where they stand and what they are worth.
        settings: what to keep.

    Raises:
        DepthcellError: a camera of the cell does not see into the region.
    """

    def __init__(self, cell: Cell, settings: FusionSettings | None = None) -> None:
        self._cell = cell
        self._settings = settings or FusionSettings()
        self._cameras = {serial: _CameraAccumulator(camera, self._settings) for serial, camera in cell.cameras.items()}
        self.frames = 0

    def add(self, frameset: FrameSet) -> None:
        """Absorb one instant of all cameras.

        Raises:
            DepthcellError: a camera is not of this cell, or its image does not fit the cell's intrinsics.
        """
        for serial, frame in frameset.frames.items():
            self._cell.camera(serial)
            self._cameras[serial].add(frame)
        self.frames += 1

    def fuse(self) -> FusedPart:
        """The part as seen so far.

        Raises:
            DepthcellError: no camera gave any depth.
        """
        seeing = [camera for camera in self._cameras.values() if camera.depth.frames]
        if not seeing:
            raise DepthcellError(f"cell '{self._cell.name}': no camera gave any depth; check the recording")
        with ThreadPoolExecutor(max_workers=len(seeing)) as pool:
            views = tuple(pool.map(_CameraAccumulator.view, seeing))
        missing = tuple(serial for serial, camera in self._cameras.items() if not camera.depth.frames)
        apart = disagreements(views, self._cell)
        return FusedPart(
            views=views,
            cloud=merge_views(views, self._cell),
            missing=missing,
            frames=self.frames,
            disagreements=apart,
            warnings=(*self._warnings(views, missing), *(pair.in_words for pair in apart)),
        )

    def _warnings(self, views: tuple[View, ...], missing: tuple[str, ...]) -> tuple[str, ...]:
        said = [f"camera {serial}: gave no depth" for serial in missing]
        for view in views:
            if view.frames < self.frames:
                said.append(f"camera {view.serial}: gave depth in {view.frames} of {self.frames} frame sets")
            if not view.valid.any():
                said.append(f"camera {view.serial}: measured nothing of the part")
        if self.frames == 1:
            said.append("one frame only: its noise is taken from the cell, not measured")
        return tuple(said)


def fuse(framesets: Iterable[FrameSet], cell: Cell, settings: FusionSettings | None = None) -> FusedPart:
    """All `framesets` of one resting part, averaged over time, placed in the cell and merged.

    Raises:
        DepthcellError: a frame does not belong to this cell, a camera does not see into the region, or there is no
            depth at all.
    """
    part = PartAccumulator(cell, settings)
    for frameset in framesets:
        part.add(frameset)
    return part.fuse()


class _CameraAccumulator:
    """Both streams of one camera, cut to the rectangles that can see the part."""

    def __init__(self, camera: CellCamera, settings: FusionSettings) -> None:
        self._camera = camera
        self._settings = settings
        reach_px = max(settings.normal_radii_px) + settings.edge_margin_px + 1
        T_depth_cell = camera.T_cell_depth.inverse()
        window = image_window(settings.region, camera.depth, T_depth_cell, reach_px)
        if window is None:
            raise DepthcellError(
                f"camera {camera.serial}: does not see into the region; correct the region or the pose in the cell"
            )
        self.depth = DepthAccumulator(window, settings.min_fraction)
        self._color_window: Window | None = None
        if settings.with_color and camera.color is not None and camera.T_color_depth is not None:
            T_color_cell = camera.T_color_depth @ T_depth_cell
            self._color_window = image_window(settings.region, camera.color, T_color_cell, reach_px)
        self._color = ColorAccumulator(self._color_window)
        self._temperatures_c: list[float] = []

    def add(self, frame: CameraFrame) -> None:
        """Absorb what the camera gave at one instant."""
        if frame.depth is not None:
            self._check("depth", frame.depth.intrinsics, self._camera.depth)
            self.depth.add(frame.depth)
            told = next((frame.metadata[name] for name in TEMPERATURES if name in frame.metadata), None)
            self._temperatures_c += [] if told is None else [float(told)]
        if frame.color is not None and self._camera.color is not None and self._color_window is not None:
            self._check("color", frame.color.intrinsics, self._camera.color)
            self._color.add(frame.color)

    def view(self) -> View:
        """The camera's share of the part."""
        color = None
        if self._color_window is not None and self._color.frames:
            color = WindowedColor(self._color.mean_rgb(), self._color_window)
        temperature_c = fmean(self._temperatures_c) if self._temperatures_c else None
        return build_view(self._camera, self.depth.mean(), color, self._settings.view, temperature_c)

    def _check(self, stream: str, recorded: Intrinsics, stated: Intrinsics) -> None:
        if (recorded.width_px, recorded.height_px) != (stated.width_px, stated.height_px):
            raise DepthcellError(
                f"camera {self._camera.serial}: {stream} images are {recorded.width_px} x {recorded.height_px}, the "
                f"cell states {stated.width_px} x {stated.height_px}; calibrate the cell at the size it records",
                Reason.CELL_INVALID,
            )
