"""The check by a learned model: what it says of a part becomes findings in millimetres, joined with all others.

The model says of each pixel of the canonical views, and of each point, how likely a defect is there. Both are taken to
the patches of the surface, so that its regions are outlined, measured and compared like all others: a defect that shape
or colour shows too is one finding, which then names the model among its sources.
"""

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.errors import DepthcellError
from depthcell.fusion.fuse import FusedPart
from depthcell.inspect.decision import Judged
from depthcell.inspect.findings import Found
from depthcell.inspect.judgement import Judgement
from depthcell.inspect.judgingmodel import JudgingModel, ModelOpinion
from depthcell.inspect.model_findings import DoubtedPlace, merged, model_finding
from depthcell.inspect.modelinput import canonical_views, identity_of, observed_input
from depthcell.inspect.observation import Observer
from depthcell.inspect.patch_regions import PatchRegion, grown
from depthcell.inspect.surface import Surface
from depthcell.inspect.verdict import Decision
from depthcell.models.artifact import refuse_other_identity
from depthcell.models.network.partinput import CLASSES, PartInput

_LOG = logging.getLogger(__name__)

PLACE_LIMIT = 0.5
"""Probability of a defect from which on a place becomes a finding, on a part that the model rejects."""

SEEN_SHARE = 0.5
"""Share of a finding's probability that a camera must give it to have seen it."""

MOST_FINDINGS = 10
"""Regions of a model that become findings, the most likely first."""

NEAR_SPACINGS = 2.0
"""A place belongs to a patch up to so many patch spacings away; what lies farther is outside the recipe's region."""

UNNAMED = "anomaly"


class ModelCheck:
    """Judges observed parts by a learned model. Everything that does not depend on the part is prepared once.

    Attributes:
        model: what judges.
        views: what it sees of a perfect part.
    """

    def __init__(self, model: JudgingModel, observer: Observer, folder: Path) -> None:
        """Prepare the canonical views.

        Args:
            model: what judges.
            observer: of the recipe that the model must have been trained for.
            folder: where the model lies, for messages.

        Raises:
            DepthcellError: the model was trained for another recipe, cell, reference or pose.
        """
        self.model = model
        self.views = canonical_views(observer)
        self._observer = observer
        refuse_other_identity(model.identity, identity_of(observer, self.views), folder)
        self._pixel_patch = _pixel_patches(observer.surface, self.views.points_part, self.views.normals_part)
        self._donor = _donors(observer.surface, self._pixel_patch)

    @classmethod
    def load(cls, folder: Path, observer: Observer) -> "ModelCheck":
        """From the folder that `depthcell train` wrote.

        Raises:
            DepthcellError: it is no whole, trusted model, or one for something else.
        """
        from depthcell.models.trained import TrainedModel  # noqa: PLC0415 - torch takes seconds to load

        return cls(TrainedModel.load(folder), observer, folder)

    def part_input(self, fused: FusedPart, T_cell_part: RigidTransform, part_id: str) -> PartInput:
        """What the model sees of a part that was fused and aligned."""
        return observed_input(fused, T_cell_part, self._observer, self.views, part_id)

    def added_to(self, judgement: Judgement, part_id: str) -> Judgement:
        """What was found out so far, and what the model says.

        A model that fails is evidence that is missing, so that the part is not OK.
        """
        try:
            seen = judgement.evidence.observation
            part = self.part_input(seen.fused, seen.alignment.T_cell_part, part_id)
            return self._judged(judgement, part, self.model.judge(part))
        except DepthcellError as error:
            return _without_model(judgement, str(error))
        except Exception as error:  # an error of ours must not stop the line, nor let a part pass
            _LOG.exception("part %s: model", part_id)
            return _without_model(judgement, f"{type(error).__name__}: {error}")

    def _judged(self, judgement: Judgement, part: PartInput, opinion: ModelOpinion) -> Judgement:
        gaps = [f"model: {what}" for what in opinion.degraded]
        if opinion.is_out_of_distribution:
            gaps.append("model: this part is unlike all that it was trained on; what it says of it does not hold")
        if not opinion.is_anomalous:
            return judgement.with_check(Judged(Decision.OK, _in_words(opinion), -0.5), judgement.found, gaps)
        places = self._places(part, opinion, judgement)
        where = f"; {places[0].finding.text}" if places else ""
        decision = Decision.CANNOT_TELL if opinion.is_out_of_distribution else Decision.NOK
        check = Judged(decision, f"{_in_words(opinion)}{where}", 0.5)
        return judgement.with_check(check, merged(judgement.found, judgement.rejecting, places), gaps)

    def _places(self, part: PartInput, opinion: ModelOpinion, judgement: Judgement) -> list[Found]:
        """Where the model sees defects, most likely first; its likeliest place where none reaches the limit."""
        point_patch = self._point_patches(part)
        largest, mean = self._patch_probabilities(opinion, point_patch)
        limit = min(PLACE_LIMIT, float(largest.max()))
        if limit <= 0.0:
            return []
        likely = largest >= limit
        regions = [
            _outlined(one, mean >= limit) for one in grown(largest, likely, likely, self._observer.scales.touching)
        ]
        regions.sort(key=lambda region: -region.significance)
        significance = self._observer.recipe.surface.significance
        return [
            model_finding(self._place(region, part, opinion, point_patch), judgement.evidence, significance)
            for region in regions[:MOST_FINDINGS]
        ]

    def _place(
        self, region: PatchRegion, part: PartInput, opinion: ModelOpinion, point_patch: NDArray[np.intp]
    ) -> DoubtedPlace:
        # One more than there are patches: number -1, no patch at all, is never inside.
        inside = np.zeros(len(self._observer.surface) + 1, dtype=bool)
        inside[region.patches] = True
        seen = np.where(inside[self._pixel_patch], opinion.pixel_probability, 0.0).max(axis=(1, 2))
        cameras = tuple(
            serial
            for serial, largest in zip(part.serials, seen, strict=True)
            if largest >= SEEN_SHARE * region.significance and serial not in part.lost_cameras
        )
        return DoubtedPlace(region, _kind(inside[point_patch], opinion), cameras)

    def _patch_probabilities(
        self, opinion: ModelOpinion, point_patch: NDArray[np.intp]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(K,) of a defect at each patch, the largest of its pixels and points, and their mean; 0 where there are none.

        The mean is that of the view, or of the points, where it is largest: what one camera alone sees counts in full.
        """
        largest, mean = np.zeros(len(self._observer.surface)), np.zeros(len(self._observer.surface))
        for patch, probability in (
            *zip(self._pixel_patch, opinion.pixel_probability, strict=True),
            (point_patch, opinion.point_probability),
        ):
            on_patch = patch >= 0
            np.maximum.at(largest, patch[on_patch], probability[on_patch])
            total = np.bincount(patch[on_patch], probability[on_patch], len(mean))
            np.maximum(mean, total / np.maximum(np.bincount(patch[on_patch], minlength=len(mean)), 1), out=mean)
        return largest[self._donor], mean[self._donor]

    def _point_patches(self, part: PartInput) -> NDArray[np.intp]:
        """(N,) patch beneath each point; -1 where there is none near."""
        normals_part, deviation_m = part.features[:, :3], part.feature("deviation")[:, None] / 1e3
        places_part = (part.points_part - normals_part * deviation_m).astype(np.float64)
        return _if_near(self._observer.surface, places_part, self._observer.grid.nearest(places_part))


def _pixel_patches(surface: Surface, points_part: FloatArray, normals_part: FloatArray) -> NDArray[np.intp]:
    """(V, S, S) patch of each pixel's place; -1 off the part and outside the region."""
    patch = np.full(points_part.shape[:-1], -1, np.intp)
    on_part = np.isfinite(points_part).all(axis=-1)
    places_part = points_part[on_part].astype(np.float64)
    nearest = surface.nearest_facing(places_part, normals_part[on_part].astype(np.float64))
    patch[on_part] = _if_near(surface, places_part, nearest)
    return patch


def _if_near(surface: Surface, places_part: FloatArray, patch: NDArray[np.intp]) -> NDArray[np.intp]:
    """(N,) the patch of each place (N, 3), -1 where it lies farther than `NEAR_SPACINGS`."""
    distance_m = np.linalg.norm(surface.points_part[patch] - places_part, axis=1)
    return np.where(distance_m <= NEAR_SPACINGS * surface.spacing_m, patch, -1)


def _donors(surface: Surface, pixel_patch: NDArray[np.intp]) -> NDArray[np.intp]:
    """(K,) the nearest patch that a pixel lies on, of a patch between pixels; every other patch itself."""
    donor = np.arange(len(surface))
    has_pixel = np.zeros(len(surface), dtype=bool)
    has_pixel[pixel_patch[pixel_patch >= 0]] = True
    between = np.flatnonzero(~has_pixel)
    covered = np.flatnonzero(has_pixel)
    if not len(between) or not len(covered):
        return donor
    count = min(32, len(surface))
    near = surface.tree.query(surface.points_part[between], k=count)[1].reshape(len(between), count)
    usable = has_pixel[near] & (
        np.linalg.norm(surface.points_part[near] - surface.points_part[between][:, None], axis=2)
        <= NEAR_SPACINGS * surface.spacing_m
    )
    usable &= np.einsum("nkj,nj->nk", surface.normals_part[near], surface.normals_part[between]) > 0.5
    found = usable.any(axis=1)
    donor[between[found]] = near[found, usable[found].argmax(axis=1)]
    return donor


def _outlined(region: PatchRegion, core: NDArray[np.bool_]) -> PatchRegion:
    """Its patches that are likely all over; all of one, such as a scratch, that is narrower than a patch."""
    inner = region.patches[core[region.patches]]
    return PatchRegion(inner if len(inner) else region.patches, region.significance)


def _kind(inside: NDArray[np.bool_], opinion: ModelOpinion) -> str:
    """The class that the points of a place are given most, each weighed by its probability."""
    weight = np.bincount(opinion.point_class[inside], opinion.point_probability[inside], len(CLASSES))
    weight[0] = 0.0
    return CLASSES[int(weight.argmax())] if weight.any() else UNNAMED


def _in_words(opinion: ModelOpinion) -> str:
    side = "above" if opinion.is_anomalous else "within"
    return (
        f"model: score {opinion.part_score:.3g} {side} its limit of {opinion.threshold:.3g}, probability of a defect "
        f"{opinion.part_probability:.3f}"
    )


def _without_model(judgement: Judgement, why: str) -> Judgement:
    check = Judged(Decision.CANNOT_TELL, f"the model could not judge this part: {why}")
    return judgement.with_check(check, judgement.found, ())
