"""One part as seen: where it lies, how its shape deviates and what colour it has, patch by patch, not yet judged.

Good parts and parts to be judged are observed by the same steps, so that one can be compared with the other.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.align import Alignment, AlignmentSettings, align
from depthcell.fusion.fuse import FusedPart, FusionSettings, PartAccumulator
from depthcell.fusion.meshcheck import check_unit
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.reference import Reference
from depthcell.fusion.region import Region
from depthcell.fusion.uncertainty import pose_variance_m2
from depthcell.fusion.view import View
from depthcell.inspect.deviation import DeviationMap, DeviationScales, compare
from depthcell.inspect.presence_check import PresenceCheck
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.sight import Sight
from depthcell.inspect.surface import PatchGrid, Surface
from depthcell.inspect.view_color import ViewColor, sample_view

EDGE_MARGIN_PX = 4
"""Pixels left out on both sides of a depth jump: half a matching window, and as much again by which it fattens."""

NEGLIGIBLE = 0.1
"""Share of the tolerance that parts may differ by without anybody minding."""


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """One part as seen.

    Attributes:
        fused: the part in the cell.
        alignment: where it lies.
        deviation: its shape against the reference.
        colors: serial number -> the colours of its patches, for each camera that gave colour.
    """

    fused: FusedPart
    alignment: Alignment
    deviation: DeviationMap
    colors: Mapping[str, ViewColor]

    def slip_m(self, surface: Surface) -> NDArray[np.float64]:
        """(K,) standard uncertainty of where each patch lies along the surface, from the alignment's noise.

        A small motion xi = (omega, t) moves p by omega x p + t; of its variance, what lies along the normal shifts the
        surface out and the rest slips it. Large where the shape leaves a motion free, as along a prismatic part.
        """
        points = self.alignment.T_cell_part @ surface.points_part
        normals = self.alignment.T_cell_part.rotate(surface.normals_part)
        along = pose_variance_m2(points, normals, self.alignment.random_covariance)
        total = sum(
            pose_variance_m2(points, np.broadcast_to(axis, points.shape), self.alignment.random_covariance)
            for axis in np.eye(3)
        )
        slip_m: NDArray[np.float64] = np.sqrt(np.maximum(total - along, 0.0))
        return slip_m


class Observer:
    """Observes parts by one recipe in one cell. Everything that does not depend on the part is prepared once.

    Attributes:
        recipe: what the part must be.
        cell: what sees it: the recipe's cameras alone.
        reference: the perfect part.
        surface: its patches within the recipe's region.
        grid: which of them a place belongs to.
        scales: averages over them.
        sight: what the cameras can see of them.
    """

    def __init__(self, recipe: Recipe, cell: Cell) -> None:
        """Prepare the reference and what each camera can see of it.

        Raises:
            DepthcellError: the recipe does not fit the cell, or the mesh or the region is not usable.
        """
        self.recipe = recipe
        for serial in recipe.cell.cameras:
            if serial not in cell.cameras:
                known = ", ".join(cell.cameras)
                raise DepthcellError(
                    f"recipe '{recipe.name}': cell.cameras names {serial}, but cell '{cell.name}' has only {known}",
                    Reason.RECIPE_INVALID,
                )
        # A cell may have cameras that this part does not need.
        self.cell = Cell(cell.name, {serial: cell.camera(serial) for serial in recipe.cell.cameras}, cell.calibrated_at)
        section = recipe.reference
        self.reference = Reference.load(recipe.mesh_path, section.stated_unit, section.mesh_chord_mm / 1e3)
        lower, upper = recipe.region.min_m, recipe.region.max_m
        extent_m = float(np.ptp(self.reference.vertices_part, axis=0).max())
        check_unit(extent_m, float((upper - lower).max()), f"recipe '{recipe.name}': reference.mesh")
        self.surface = Surface.build(self.reference, lower, upper, recipe.surface.min_area_m2)
        self.grid = PatchGrid(self.surface, self.reference)
        self.scales = DeviationScales(self.surface, recipe.surface.min_area_m2)
        region = Region(recipe.pose.T_cell_part, lower, upper)
        self._fusion = FusionSettings(region=region, edge_margin_px=EDGE_MARGIN_PX)
        self._alignment = AlignmentSettings(
            capture_m=recipe.pose.max_shift_m,
            capture_rad=recipe.pose.max_turn_rad,
            form_m=recipe.pose.form_mm / 1000.0,
            allowed=recipe.pose.allowed_motions,
        )
        self._presence = PresenceCheck(recipe, self.cell, self.reference, self._alignment)
        self.sight = Sight.of(self.surface, self.reference, recipe, cell)

    @property
    def negligible_m(self) -> float:
        """Deviation that nobody minds, metres."""
        return NEGLIGIBLE * self.recipe.surface.tolerance_m

    def accumulator(self) -> PartAccumulator:
        """A fresh accumulator for the frames of one part, set to the recipe's region."""
        return PartAccumulator(self.cell, self._fusion)

    def observe(self, fused: FusedPart) -> Observation:
        """Find the part, compare its shape, look up its colours.

        Raises:
            DepthcellError: the part could not be aligned, or is not what lies there; the message says what does.
        """
        alignment = self._aligned(fused.cloud)
        with ThreadPoolExecutor() as pool:
            # Colour is looked up beside, one camera a thread; each result depends on its own inputs alone.
            colors = pool.map(partial(self._color, T_cell_part=alignment.T_cell_part), fused.views)
            points = compare(fused.cloud, alignment, self.reference, self.surface, self.grid)
            deviation = self.scales.map(fused.cloud, points, alignment)
            seen = {view.serial: color for view, color in zip(fused.views, colors, strict=True) if color is not None}
        return Observation(fused, alignment, deviation, seen)

    def _aligned(self, cloud: PartCloud) -> Alignment:
        """Where the part lies; where that fails, or much is left unexplained, what lies there is named."""
        try:
            alignment = align(cloud, self.reference, self.recipe.pose.T_cell_part, self.cell, self._alignment)
        except DepthcellError as failure:
            raise self._presence.named(failure, cloud) from failure
        self._presence.check(alignment, cloud)
        return alignment

    def _color(self, view: View, T_cell_part: RigidTransform) -> ViewColor | None:
        camera = self.cell.camera(view.serial)
        if view.color_image is None or camera.color is None or camera.T_color_depth is None:
            return None
        return sample_view(
            view.color_image.rgb,
            view.color_image.window.intrinsics(camera.color),
            camera.T_color_depth @ camera.T_cell_depth.inverse() @ T_cell_part,
            self.surface,
            self.sight.in_color[view.serial],
        )
