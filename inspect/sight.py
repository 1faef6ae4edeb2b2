"""What the cameras of a cell can see of a perfect part in its nominal pose, patch by patch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.calib.cell import Cell
from depthcell.fusion.reference import Reference
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.surface import Surface

GRAZING = math.cos(math.radians(75.0))
"""Cosine of incidence below which fusion drops a point."""

STEEP = 0.6
"""Cosine of incidence below which a surface is seen, but shifted sideways by more than it can be measured."""

EDGE_WIDTH = 1.5
"""Width of the matching window's effect at an edge, in correlation lengths of the noise that the window makes."""


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """What can be seen of K patches.

    Attributes:
        visible: serial number -> (K,) bool, patches that this depth camera sees at all.
        in_color: serial number -> (K,) bool, patches that its colour camera sees; without entry for one without colour.
        well_seen: (K,) bool, patches that some camera sees steeply enough and away from every edge and outline.
        window_u_m: standard uncertainty of a surface's place where that is not so: at edges the matching window of a
            stereo camera shifts it sideways by up to `EDGE_WIDTH` correlation lengths (rectangular, GUM 4.3.7).
    """

    visible: Mapping[str, NDArray[np.bool_]]
    in_color: Mapping[str, NDArray[np.bool_]]
    well_seen: NDArray[np.bool_]
    window_u_m: float

    @classmethod
    def of(cls, surface: Surface, reference: Reference, recipe: Recipe, cell: Cell) -> "Sight":
        """Work out what the recipe's cameras can see."""
        near = surface.neighbours(2 * surface.spacing_m)
        visible, in_color, well_seen, window_m = {}, {}, np.zeros(len(surface), dtype=bool), 0.0
        for serial in recipe.cell.cameras:
            camera = cell.camera(serial)
            T_depth_part = camera.T_cell_depth.inverse() @ recipe.pose.T_cell_part
            sees, cosine = _seen(surface, reference, camera.depth, T_depth_part)
            visible[serial] = sees & (cosine > GRAZING)
            if camera.color is not None and camera.T_color_depth is not None:
                in_image, slant = _seen(surface, reference, camera.color, camera.T_color_depth @ T_depth_part)
                in_color[serial] = in_image & (slant > GRAZING)
            # Next to a patch that is hidden or steep lies an outline, where near and far are mixed.
            well_seen |= near @ (~(sees & (cosine > STEEP))).astype(float) == 0
            distance_m = float(np.linalg.norm(T_depth_part @ surface.points_part.mean(axis=0)))
            window_m = max(window_m, EDGE_WIDTH * camera.noise.correlation_px * distance_m / camera.depth.fx_px)
        return cls(
            MappingProxyType(visible),
            MappingProxyType(in_color),
            well_seen & ~surface.near_edge,
            window_m / math.sqrt(3),
        )


def _seen(
    surface: Surface, reference: Reference, intrinsics: Intrinsics, T_cam_part: RigidTransform
) -> tuple[NDArray[np.bool_], FloatArray]:
    """Which patches lie in the image with nothing in between, and the cosine of incidence of each."""
    eye_part = T_cam_part.inverse().translation_m
    to_eye = eye_part - surface.points_part
    cosine = np.einsum("ij,ij->i", to_eye, surface.normals_part) / np.linalg.norm(to_eye, axis=1)
    pixels = intrinsics.project(T_cam_part @ surface.points_part)
    with np.errstate(invalid="ignore"):
        in_image = ((pixels >= 0) & (pixels <= (intrinsics.width_px - 1, intrinsics.height_px - 1))).all(axis=1)
    return in_image & reference.visible(surface.points_part, surface.normals_part, eye_part), cosine
