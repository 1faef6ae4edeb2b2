"""From one observed part to findings, measurements and the checks that decide: shape, colour, bores, coverage."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from depthcell.inspect.bore import BoreCheck, check_bore
from depthcell.inspect.color_check import ColorScore, score_view
from depthcell.inspect.coverage import Coverage, coverage, largest_gap
from depthcell.inspect.decision import COVERAGE_FACTOR, Judged, decide
from depthcell.inspect.findings import Evidence, Found, color_finding, missing_bore_finding, shape_finding
from depthcell.inspect.gauges.gauged import GaugeResult
from depthcell.inspect.golden import Golden
from depthcell.inspect.naming import joined
from depthcell.inspect.observation import Observation, Observer
from depthcell.inspect.patch_regions import PatchRegion, large_enough, multiscale_regions, shape_regions
from depthcell.inspect.recipe import BoreSection
from depthcell.inspect.shape_check import score_shape
from depthcell.inspect.verdict import Decision, Measurement

SMALLEST_GAP_M2 = 25e-6
"""A hole in the measured surface is passed over up to this area, or up to twice the largest of a good part."""

SHARED = 1 / 3
"""Share of the smaller of two regions from which on they are one defect, seen in shape and in colour."""


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What was found out about one part.

    Attributes:
        checks: what each check says.
        gaps: evidence that is missing, in words.
        found: findings, worst first.
        measurements: in the recipe's order, those of the surface first.
        significance: (K,) of the deviation, signed, the largest of all scales; NaN where not seen.
        color_score: (K,) the largest of all views; NaN where no colour was compared.
        evidence: what the findings were measured on.
        rejecting: how many of `found`, from the first, reject the part by themselves.
        is_doubtful: cameras disagree, or where the part lies is not known, so that even a defect may be none.
    """

    checks: tuple[Judged, ...]
    gaps: tuple[str, ...]
    found: tuple[Found, ...]
    measurements: tuple[Measurement, ...]
    significance: NDArray[np.float64]
    color_score: NDArray[np.float64]
    evidence: Evidence
    rejecting: int
    is_doubtful: bool

    def with_gauges(self, results: Sequence[GaugeResult]) -> "Judgement":
        """With what the recipe's gauges say, after everything else."""
        return replace(
            self,
            checks=(*self.checks, *(result.judged for result in results)),
            measurements=(*self.measurements, *(result.measurement for result in results)),
        )

    def with_check(self, check: Judged, found: Sequence[Found], gaps: Sequence[str]) -> "Judgement":
        """With one more check.

        Args:
            check: what it says of the part; taken with the same doubt as the others.
            found: all findings, those of before included, in their new order.
            gaps: evidence that it misses.
        """
        judged = doubted(check) if self.is_doubtful else check
        return replace(self, checks=(*self.checks, judged), found=tuple(found), gaps=(*self.gaps, *gaps))


def judge(observation: Observation, observer: Observer, golden: Golden | None) -> Judgement:
    """Judge one observed part by the observer's recipe.

    With a camera missing the shape is compared with the reference alone: what good parts look like holds for all
    cameras together.
    """
    evidence, bores = _gathered(observation, observer, golden)
    judged = _judged_findings(evidence, observer, bores)
    section = observer.recipe.surface
    covered = coverage(evidence.expected, evidence.shape, observer.scales, section.tolerance_m, section.significance)
    surface = _surface_measurements(evidence, observer, judged, covered)
    lost = _lost_motions(observation, golden)
    checks = (
        *(check for _, check in judged),
        *(check.judged for _, check in bores if not check.is_missing),
        *_surface_checks(surface, judged, covered, observer),
    )
    is_doubtful = bool(observation.fused.disagreements or lost)
    return Judgement(
        checks=tuple(map(doubted, checks)) if is_doubtful else checks,
        gaps=(*lost, *_gaps(evidence, observer, golden)),
        found=tuple(found for found, _ in judged),
        measurements=(*surface, *(check.measurement for _, check in bores)),
        significance=_largest(evidence.shape.significance),
        color_score=_largest_color(evidence.colors, len(observer.surface)),
        evidence=evidence,
        rejecting=sum(check.decision is Decision.NOK for _, check in judged),
        is_doubtful=is_doubtful,
    )


def _gathered(
    observation: Observation, observer: Observer, golden: Golden | None
) -> tuple[Evidence, list[tuple[BoreSection, BoreCheck]]]:
    """The part compared with good parts, or with the reference alone, and its bores measured."""
    complete = all(serial not in observation.fused.missing for serial in observer.recipe.cell.cameras)
    good = golden.shape if golden is not None and complete else None
    with ThreadPoolExecutor() as pool:
        # Colour is scored beside, one camera a thread; each result depends on its own inputs alone.
        colors = _submitted_colors(pool, observation, observer, golden)
        shape = score_shape(observation.deviation, good, observer.sight, observer.negligible_m)
        bores = [(bore, check_bore(bore, observation, observer.sight.window_u_m)) for bore in observer.recipe.bore]
        scores = {serial: score.result() for serial, score in colors.items()}
    evidence = Evidence(
        observation=observation,
        scales=observer.scales,
        shape=shape,
        expected=observer.sight.well_seen if good is None else good.known,
        good_mean_m=np.zeros(len(observer.surface)) if good is None else np.nan_to_num(good.mean_m[0], copy=True),
        colors=scores,
    )
    return evidence, bores


def doubted(check: Judged) -> Judged:
    """What a check says where cameras disagree, or where the part lies is not known: then even a defect may be none."""
    if check.decision is not Decision.NOK:
        return check
    return replace(check, decision=Decision.CANNOT_TELL, reason=f"{check.reason}; not to be relied on")


def _lost_motions(observation: Observation, golden: Golden | None) -> tuple[str, ...]:
    """Motions that good parts determine and this one does not: it lies beyond reach, or is another part."""
    free = observation.alignment.free_directions
    if golden is None or len(free) <= golden.free_motions:
        return ()
    return (f"where the part lies is not known: {', '.join(free)} is undetermined, unlike on good parts",)


def _submitted_colors(
    pool: ThreadPoolExecutor, observation: Observation, observer: Observer, golden: Golden | None
) -> dict[str, Future[ColorScore]]:
    if golden is None or observer.recipe.color is None:
        return {}
    slip_m = observation.slip_m(observer.surface)
    return {
        serial: pool.submit(score_view, color, golden.colors[serial], observer.scales, slip_m)
        for serial, color in observation.colors.items()
        if serial in golden.colors
    }


def _judged_findings(
    evidence: Evidence, observer: Observer, bores: list[tuple[BoreSection, BoreCheck]]
) -> list[tuple[Found, Judged]]:
    """All findings with what each decides, worst first."""
    recipe, scales = observer.recipe, observer.scales
    shapes = shape_regions(evidence.shape, scales, recipe.surface.significance, recipe.surface.min_area_m2)
    shapes = joined(shapes, scales.surface, evidence.shape.excess_m[0])
    colors = _color_regions(evidence, observer)
    judged = []
    for bore, check in bores:
        if check.is_missing:
            found = missing_bore_finding(bore, evidence)
            shapes = [region for region in shapes if not overlap(region, found.region)]
            colors = [region for region in colors if not overlap(region, found.region)]
            judged.append((found, Judged(Decision.NOK, f"{check.judged.reason}; {found.finding.text}", 100.0)))
    for region in shapes:
        in_color = any(overlap(region, other) for other in colors)
        found = shape_finding(region, evidence, in_color=in_color)
        judged.append((found, _judged_shape(found, observer, in_color=in_color)))
    for region in colors:
        if not any(overlap(region, other) for other in shapes) and recipe.color is not None:
            found = color_finding(region, evidence, recipe.color.significance)
            judged.append((found, Judged(Decision.NOK, found.finding.text, region.significance / 10)))
    order = {Decision.NOK: 0, Decision.CANNOT_TELL: 1, Decision.OK: 2}
    return sorted(judged, key=lambda pair: (order[pair[1].decision], -pair[1].severity))


def _color_regions(evidence: Evidence, observer: Observer) -> list[PatchRegion]:
    section = observer.recipe.color
    if section is None or not evidence.colors:
        return []
    scores = list(evidence.colors.values())
    # The finest row takes the lines too; coarser rows hold the mean colour alone.
    rows = [np.fmax.reduce([score.lab[number] for score in scores]) for number in range(len(scores[0].lab))]
    rows[0] = np.fmax.reduce([rows[0], *(score.lines.max(axis=1) for score in scores)])
    regions = multiscale_regions(np.nan_to_num(np.stack(rows)), observer.scales, section.significance)
    return large_enough(regions, observer.scales, section.min_area_m2)


def _judged_shape(found: Found, observer: Observer, *, in_color: bool) -> Judged:
    depth, tolerance_mm = found.finding.depth_mm, observer.recipe.surface.tolerance_mm
    assert depth is not None  # noqa: S101 - every finding of shape has a depth; tells the type checker
    decision = decide(abs(depth.value), depth.u, None, tolerance_mm)
    if decision is not Decision.NOK and in_color:
        text = f"{found.finding.text}; its depth alone would be {decision}, its colour is not that of good parts"
        return Judged(Decision.NOK, text, 1.0)
    words = {
        Decision.NOK: f"limit {tolerance_mm:g} mm",
        Decision.CANNOT_TELL: f"too close to the limit of {tolerance_mm:g} mm to decide",
        Decision.OK: f"within the limit of {tolerance_mm:g} mm",
    }
    return Judged(decision, f"{found.finding.text}; {words[decision]}", abs(depth.value) / tolerance_mm)


def _surface_measurements(
    evidence: Evidence, observer: Observer, judged: list[tuple[Found, Judged]], covered: Coverage
) -> tuple[Measurement, Measurement, Measurement]:
    """Largest deviation outwards and inwards, and coverage."""
    needed = observer.recipe.region.min_coverage
    enough = Decision.OK if covered.capable >= needed else Decision.CANNOT_TELL
    share = Measurement(
        name="coverage",
        value=round(covered.capable, 4),
        u=0.0,
        unit="1",
        lower=needed,
        upper=None,
        decision=enough,
        provenance=f"share of the surface in view on which {_sensitivity(observer)} would stand out; "
        f"{covered.measured:.1%} was measured at all",
    )
    return (
        _extreme(evidence, observer, judged, enough, +1),
        _extreme(evidence, observer, judged, enough, -1),
        share,
    )


def _extreme(
    evidence: Evidence, observer: Observer, judged: list[tuple[Found, Judged]], enough: Decision, sign: int
) -> Measurement:
    """The largest mean deviation over the smallest area, in one direction.

    The largest of thousands of patches is no random draw, so no guard band can decide it: noise alone makes it several
    standard uncertainties large. What decides is the test for regions, whose findings carry guard bands of their own.
    """
    smallest, tolerance_mm = observer.scales.smallest, observer.recipe.surface.tolerance_mm
    excess_m, u_m = sign * evidence.shape.excess_m[smallest], evidence.shape.u_m[smallest]
    capable = np.nan_to_num(u_m, nan=np.inf) * observer.recipe.surface.significance <= tolerance_mm / 1e3
    decisions = [
        check.decision
        for found, check in judged
        if found.finding.depth_mm is not None and sign * found.finding.depth_mm.value > 0
    ]
    worst = next((d for d in (Decision.NOK, Decision.CANNOT_TELL) if d in decisions), enough)
    place = int(np.argmax(np.where(capable, excess_m, -np.inf))) if capable.any() else None
    return Measurement(
        name=f"largest deviation {'outwards' if sign > 0 else 'inwards'}",
        value=None if place is None else round(float(sign * excess_m[place]) * 1e3, 4) + 0.0,
        u=None if place is None else round(float(u_m[place]) * 1e3, 4),
        unit="mm",
        lower=None if sign > 0 else -tolerance_mm,
        upper=tolerance_mm if sign > 0 else None,
        decision=worst,
        provenance=f"mean over {observer.recipe.surface.min_area_mm2:g} mm², the largest of all places where "
        f"{_sensitivity(observer)} would stand out; decided by the findings",
    )


def _surface_checks(
    surface: tuple[Measurement, Measurement, Measurement],
    judged: list[tuple[Found, Judged]],
    covered: Coverage,
    observer: Observer,
) -> list[Judged]:
    """Coverage, and the words for a surface that shows nothing."""
    needed = observer.recipe.region.min_coverage
    if covered.capable < needed:
        text = (
            f"only {covered.capable:.0%} of the surface in view was measured so well that {_sensitivity(observer)} "
            f"would stand out ({covered.measured:.0%} was measured at all), {needed:.0%} are needed"
        )
        return [Judged(Decision.CANNOT_TELL, text)]
    if any(check.decision is not Decision.OK for _, check in judged):
        return [Judged(Decision.OK, f"{covered.capable:.0%} of the surface in view was seen well enough", -1.0)]
    largest = max(surface[:2], key=lambda m: abs(m.value or 0.0))
    text = (
        f"largest deviation {abs(largest.value or 0.0):.2f} ± {COVERAGE_FACTOR * (largest.u or 0.0):.2f} mm, limit "
        f"{observer.recipe.surface.tolerance_mm:g} mm; on {covered.capable:.0%} of the surface in view "
        f"{_sensitivity(observer)} would have stood out"
    )
    return [Judged(Decision.OK, text, 1.0)]


def _gaps(evidence: Evidence, observer: Observer, golden: Golden | None) -> tuple[str, ...]:
    """Evidence that is missing although the part was found."""
    observation, recipe = evidence.observation, observer.recipe
    fused = observation.fused
    gaps = [f"camera {serial} gave no depth" for serial in recipe.cell.cameras if serial in fused.missing]
    gaps += [f"camera {view.serial} measured nothing of the part" for view in fused.views if not view.valid.any()]
    gaps += [pair.in_words for pair in fused.disagreements]
    if recipe.color is not None:
        gaps += [
            f"camera {serial} gave no colour to compare"
            for serial in recipe.cell.cameras
            if serial not in fused.missing
            and golden is not None
            and (serial not in observation.colors and serial in golden.colors)
        ]
    hole = largest_gap(evidence.expected, observation.deviation, observer.scales)
    allowed_m2 = max(SMALLEST_GAP_M2, 2 * golden.largest_gap_m2 if golden is not None else 0.0)
    if hole.area_m2 > allowed_m2:
        x, y, z = hole.centre_m * 1e3
        gaps.append(
            f"nothing was measured over {hole.area_m2 * 1e6:.0f} mm² about ({x:.0f}, {y:.0f}, {z:.0f}) mm, where a "
            "good part shows its surface"
        )
    return tuple(gaps)


def _sensitivity(observer: Observer) -> str:
    section = observer.recipe.surface
    return f"{section.tolerance_mm:g} mm over {section.min_area_mm2:g} mm²"


def overlap(first: PatchRegion, second: PatchRegion) -> bool:
    """Whether two regions are one defect."""
    common = len(np.intersect1d(first.patches, second.patches, assume_unique=True))
    return common >= SHARED * min(len(first.patches), len(second.patches))


def _largest(significance: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K,) the entry of (S, K) that is largest in size; NaN where all are."""
    best = np.nan_to_num(np.abs(significance), nan=-1.0).argmax(axis=0)
    largest: NDArray[np.float64] = np.take_along_axis(significance, best[None], axis=0)[0]
    return largest


def _largest_color(colors: Mapping[str, ColorScore], patches: int) -> NDArray[np.float64]:
    if not colors:
        return np.full(patches, np.nan)
    return np.asarray(np.fmax.reduce([score.largest for score in colors.values()]), dtype=np.float64)
