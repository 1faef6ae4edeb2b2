"""From an observed part to what a model sees of it: the same canonical views in training and in inspection."""

from depthcell.acquisition.transform import RigidTransform
from depthcell.fusion.fuse import FusedPart
from depthcell.inspect.observation import Observer
from depthcell.models.artifact import ModelIdentity
from depthcell.models.network.partinput import PartInput
from depthcell.models.views.canonical import CanonicalViews, build_canonical
from depthcell.models.views.imaging import part_input


def canonical_views(observer: Observer) -> CanonicalViews:
    """What the recipe's cameras see of the perfect part in its nominal pose, within the recipe's region.

    Raises:
        DepthcellError: a camera does not see the part.
    """
    recipe = observer.recipe
    return build_canonical(
        observer.reference,
        recipe.pose.T_cell_part,
        observer.cell,
        recipe.cell.cameras,
        bounds_part=(recipe.region.min_m, recipe.region.max_m),
    )


def observed_input(
    fused: FusedPart, T_cell_part: RigidTransform, observer: Observer, views: CanonicalViews, part_id: str
) -> PartInput:
    """What a model sees of a part that was fused and aligned.

    Raises:
        DepthcellError: nothing was measured on the part.
    """
    return part_input(part_id, fused, T_cell_part, observer.reference, views, observer.cell)


def identity_of(observer: Observer, views: CanonicalViews) -> ModelIdentity:
    """What a model must have been trained for to judge parts by this recipe in this cell."""
    return ModelIdentity(views.sha256, observer.recipe.name, observer.cell.name, tuple(views.serials))
