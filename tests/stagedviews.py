"""The staged plate as a model sees it: small canonical views, and parts laid into them."""

from stagedpart import SERIALS, Part, Stage

from depthcell.inspect.observation import Observation
from depthcell.models.network.partinput import PartInput
from depthcell.models.views.canonical import CanonicalViews, build_canonical
from depthcell.models.views.imaging import ImagingSettings, part_input

SIDE_PX = 64


def views_of(stage: Stage, side_px: int = SIDE_PX) -> CanonicalViews:
    region = stage.recipe.region
    pose = stage.recipe.pose.T_cell_part
    bounds = (region.min_m, region.max_m)
    return build_canonical(stage.observer.reference, pose, stage.cell, SERIALS, side_px, bounds)


def observed(stage: Stage, part: Part) -> Observation:
    return stage.observer.observe(stage.absorbed(part).fuse())


def seen_as(stage: Stage, part: Part, views: CanonicalViews, part_id: str | None = None) -> PartInput:
    found = observed(stage, part)
    return part_input(
        part_id or f"seed_{part.seed}",
        found.fused,
        found.alignment.T_cell_part,
        stage.observer.reference,
        views,
        stage.cell,
        ImagingSettings(points=1024),
    )
