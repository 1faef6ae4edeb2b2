"""One part as seen: where it lies, how its shape deviates and what colour it has, patch by patch, not yet judged.

Good parts and parts to be judged are observed by the same steps, so that one can be compared with the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.align import Alignment, AlignmentSettings, align
from depthcell.fusion.fuse import FusedPart, FusionSettings, PartAccumulator
from depthcell.fusion.reference import Reference
from depthcell.fusion.region import Region
from depthcell.inspect.color_check import ViewColor, sample_view
from depthcell.inspect.deviation import DeviationMap, DeviationScales, compare
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.surface import Surface


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


class Observer:
    """Observes parts by one recipe in one cell. Everything that does not depend on the part is prepared once.

    Attributes:
        recipe: what the part must be.
        cell: what sees it.
        reference: the perfect part.
        surface: its patches within the recipe's region.
        scales: averages over them.
        visible: serial number -> (K,) bool, patches that this camera can see on a perfect part in its nominal pose.
    """

    def __init__(self, recipe: Recipe, cell: Cell) -> None:
        """Prepare the reference and what each camera can see of it.

        Raises:
            DepthcellError: the recipe does not fit the cell, or the mesh or the region is not usable.
        """
        self.recipe, self.cell = recipe, cell
        for serial in recipe.cell.cameras:
            if serial not in cell.cameras:
                known = ", ".join(cell.cameras)
                raise DepthcellError(
                    f"recipe '{recipe.name}': cell.cameras names {serial}, but cell '{cell.name}' has only {known}",
                    Reason.RECIPE_INVALID,
                )
        self.reference = Reference.load(recipe.mesh_path, recipe.reference.mesh_unit)
        lower, upper = recipe.region.min_m, recipe.region.max_m
        self.surface = Surface.build(self.reference, lower, upper, recipe.surface.min_area_m2)
        self.scales = DeviationScales(self.surface, recipe.surface.min_area_m2)
        region = Region(recipe.pose.T_cell_part, lower, upper)
        self._fusion = FusionSettings(region=region)
        self._alignment = AlignmentSettings(capture_m=recipe.pose.max_shift_m, capture_rad=recipe.pose.max_turn_rad)
        self.visible = MappingProxyType({serial: self._visible(serial) for serial in recipe.cell.cameras})

    @property
    def expected(self) -> NDArray[np.bool_]:
        """(K,) patches that at least one required camera can see."""
        return np.logical_or.reduce(list(self.visible.values()))

    def accumulator(self) -> PartAccumulator:
        """A fresh accumulator for the frames of one part, set to the recipe's region."""
        return PartAccumulator(self.cell, self._fusion)

    def observe(self, fused: FusedPart) -> Observation:
        """Find the part, compare its shape, look up its colours.

        Raises:
            DepthcellError: the part could not be aligned.
        """
        alignment = align(fused.cloud, self.reference, self.recipe.pose.T_cell_part, self.cell, self._alignment)
        points = compare(fused.cloud, alignment, self.reference, self.surface)
        deviation = self.scales.map(fused.cloud, points, alignment)
        return Observation(fused, alignment, deviation, self._colors(fused, alignment))

    def _colors(self, fused: FusedPart, alignment: Alignment) -> dict[str, ViewColor]:
        return {
            view.serial: sample_view(
                view, self._T_depth_part(view.serial, alignment.T_cell_part), self.surface, self.visible[view.serial]
            )
            for view in fused.views
            if view.serial in self.visible and view.colored.any()
        }

    def _T_depth_part(self, serial: str, T_cell_part: RigidTransform) -> RigidTransform:  # noqa: N802
        return self.cell.camera(serial).T_cell_depth.inverse() @ T_cell_part

    def _visible(self, serial: str) -> NDArray[np.bool_]:
        camera = self.cell.camera(serial)
        T_part_depth = self._T_depth_part(serial, self.recipe.pose.T_cell_part).inverse()
        eye_part = T_part_depth.translation_m
        points, normals = self.surface.points_part, self.surface.normals_part
        pixels = camera.depth.project(T_part_depth.inverse() @ points)
        with np.errstate(invalid="ignore"):
            in_image = (pixels >= 0).all(axis=1)
            in_image &= (pixels <= (camera.depth.width_px - 1, camera.depth.height_px - 1)).all(axis=1)
        to_eye = eye_part - points
        cosine = np.einsum("ij,ij->i", to_eye, normals) / np.linalg.norm(to_eye, axis=1)
        steep_enough = cosine > np.cos(self._fusion.max_incidence_rad)
        return in_image & steep_enough & self.reference.visible(points, normals, eye_part)
