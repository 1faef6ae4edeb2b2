"""Why a part was judged as it was: for each finding what was seen, what a good part shows there, and the reasons."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from depthcell.errors import DepthcellError, Reason
from depthcell.inspect.inspection import Inspection
from depthcell.inspect.judgingmodel import JudgingModel, ModelOpinion
from depthcell.inspect.learning.modelreasons import ModelReasons
from depthcell.inspect.verdict import Finding, Verdict
from depthcell.models.explanation.examples import healed
from depthcell.models.explanation.faithfulness import (
    Faithfulness,
    measure_faithfulness,
    most_faithful,
    random_saliency,
)
from depthcell.models.explanation.findingfeatures import FindingFeatures, best_view, describe_place
from depthcell.models.explanation.saliency import Saliency, Score, map_saliency, occlusion
from depthcell.models.network.partinput import PartInput
from depthcell.models.views.canonical import CanonicalViews

FEWEST_POINTS = 3
"""Points of a finding from which on they say where it lies."""

REACH_M = 0.005
"""What lies farther from all that a camera sees is not in its view."""


@dataclass(frozen=True, slots=True, eq=False)
class ExplainedFinding:
    """One finding.

    Attributes:
        finding: of the verdict.
        view: number of the view that shows most of it.
        mask: (S, S) its pixels in that view.
        features: what a metrologist would state of it; None where that view shows too little.
        reason: the decision tree's sentence; None without features or a tree.
        saliency_share: share of all saliency that lies on the finding, in all views.
    """

    finding: Finding
    view: int
    mask: NDArray[np.bool_]
    features: FindingFeatures | None
    reason: str | None
    saliency_share: float


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """One part.

    Attributes:
        verdict: on it, the model's check included.
        opinion: what the model says.
        part: what the model saw.
        good: the same part as it would look were it like the most similar good one.
        good_id: that part.
        saliency: the most faithful one.
        faithfulness: of every saliency, the random control last; empty where the model takes the part to be no worse
            than the good one.
        findings: in the order of the verdict.
    """

    verdict: Verdict
    opinion: ModelOpinion
    part: PartInput
    good: PartInput
    good_id: str
    saliency: Saliency
    faithfulness: tuple[Faithfulness, ...]
    findings: tuple[ExplainedFinding, ...]


def explain_part(
    inspection: Inspection, part: PartInput, model: JudgingModel, reasons: ModelReasons, views: CanonicalViews
) -> Explanation:
    """Explain the verdict on one part.

    Args:
        inspection: of the part, the model's check included.
        part: what the model saw of it.
        model: that judged.
        reasons: what was kept with the model to explain by.
        views: what the pixels are.

    Raises:
        DepthcellError: the good parts kept with the model have other views.
    """
    number = reasons.examples.nearest(part)
    good = healed(part, reasons.examples.images(number))
    opinion = model.judge(part)

    def score(parts: Sequence[PartInput]) -> NDArray[np.float64]:
        return np.array([model.judge(one).part_score for one in parts])

    saliency, faithfulness = _most_faithful(_saliencies(part, good, model, opinion, score), part, good, score)
    findings = tuple(
        _explained(finding, _mask(finding, points, views), part, good, saliency, reasons, views)
        for finding, points in zip(inspection.verdict.findings, _finding_places(inspection), strict=True)
    )
    return Explanation(
        inspection.verdict, opinion, part, good, reasons.examples.part_ids[number], saliency, faithfulness, findings
    )


def check_explainable(inspection: Inspection, path: Path) -> None:
    """Raise DepthcellError where a part was not even found, so that the model never saw it."""
    if inspection.fused is None or inspection.alignment is None:
        why = inspection.verdict.reasons[0]
        raise DepthcellError(
            f"part {inspection.verdict.part_id} of {path}: the model never saw it ({why})", Reason.NOT_MEASURED
        )


def _saliencies(
    part: PartInput, good: PartInput, model: JudgingModel, opinion: ModelOpinion, score: Score
) -> list[Saliency]:
    ways = [map_saliency(part, opinion.pixel_probability, opinion.point_probability), occlusion(part, good, score)]
    network = getattr(model, "network", None)
    if network is not None:
        from depthcell.models.explanation.gradients import integrated_gradients  # noqa: PLC0415 - needs torch

        ways.append(integrated_gradients(network, part, good))
    return ways


def _most_faithful(
    ways: Sequence[Saliency], part: PartInput, good: PartInput, score: Score
) -> tuple[Saliency, tuple[Faithfulness, ...]]:
    """The saliency to show, and the measure of all; the model's own map where nothing can be measured."""
    measured = [measure_faithfulness(part, good, way, score) for way in (*ways, random_saliency(part))]
    told = [one for one in measured if one is not None]
    if len(told) < len(measured):
        return ways[0], ()
    best = most_faithful(told[:-1])
    return next(way for way in ways if way.name == best.name), tuple(told)


def _explained(
    finding: Finding,
    masks: NDArray[np.bool_],
    part: PartInput,
    good: PartInput,
    saliency: Saliency,
    reasons: ModelReasons,
    views: CanonicalViews,
) -> ExplainedFinding:
    view = best_view(masks, views)
    features = describe_place(part, good.images, views, view, masks[view])
    reason = None if features is None or reasons.tree is None else reasons.tree.sentence(features)
    total = float(saliency.pixels.sum())
    share = float(saliency.pixels[masks].sum()) / total if total > 0 else 0.0
    return ExplainedFinding(finding, view, masks[view], features, reason, share)


def _finding_places(inspection: Inspection) -> list[NDArray[np.float64]]:
    """For each finding its points (n, 3), frame "part"; none where nothing was measured on it."""
    if inspection.fused is None or inspection.alignment is None:
        return []
    T_part_cell = inspection.alignment.T_cell_part.inverse()
    cloud = inspection.fused.cloud.points_cell
    return [np.asarray(T_part_cell @ cloud[points], dtype=np.float64) for points in inspection.finding_points]


def _mask(finding: Finding, places_part: NDArray[np.float64], views: CanonicalViews) -> NDArray[np.bool_]:
    """(V, S, S) pixels of a finding: nearest to its points, and between them; without any, in the circle of its area.

    A deep place lies far from where a good part's surface is, so points are laid on it by nearness, however far.
    """
    mask = np.zeros_like(views.expected)
    centre_part = np.array(finding.position_mm.value) / 1e3
    for view in range(len(views.serials)):
        expected = views.expected[view]
        pixels_part = views.points_part[view][expected].astype(np.float64)
        if len(places_part) < FEWEST_POINTS:
            radius_m = np.sqrt(finding.area_mm2.value / np.pi) / 1e3
            mask[view][expected] = np.linalg.norm(pixels_part - centre_part, axis=1) <= radius_m
            continue
        distance_m, nearest = KDTree(pixels_part).query(places_part)
        inside = np.zeros(len(pixels_part), dtype=bool)
        inside[np.asarray(nearest)[np.asarray(distance_m) < REACH_M]] = True
        mask[view][expected] = inside
        # Points lie farther apart than pixels.
        apart_m = float(np.median(np.asarray(KDTree(places_part).query(places_part, 2)[0])[:, 1]))
        size_px = 2 * int(np.ceil(apart_m / float(views.pixel_m[view]))) + 1
        element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size_px, size_px))
        mask[view] = (cv2.morphologyEx(mask[view].astype(np.uint8), cv2.MORPH_CLOSE, element) > 0) & expected
    return mask
