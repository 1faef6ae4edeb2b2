"""From truths and verdicts to detection capability: what was hit, at which size, and what that proves.

**Size** is what a drawing would limit: for a defect of shape the largest displacement along the surface's normal
(`depth_mm`), for one in colour and for a missing bore the diameter of the circle of its area.

**A hit** is a defect on which a finding lies that makes the part NOK by itself, on a part that is NOK. A finding lies
on the defect that it is nearest to, in units of that one's reach: the radius of the circle of its area and
`comparison.PLACE_TOLERANCE_MM` more. A warp has no place and takes what lies on no other. CANNOT-TELL is no hit: the
line would hold the part back without knowing why.

**The response** â is the depth that such a finding states, whether it makes the part NOK or not. What was not reported
is censored where a finding begins: the recipe's significance times the standard uncertainty of the mean over its
smallest area, as the part's own verdict has it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import root_scalar

from depthcell.acquisition.simulator.truth import DefectTruth
from depthcell.errors import DepthcellError
from depthcell.inspect.comparison import PLACE_TOLERANCE_MM, Comparison, reach_mm
from depthcell.inspect.decision import GUARD_FACTOR, decide
from depthcell.inspect.pod import Floats, PodCurve, ResponseFit, exact_interval, fit_hit_miss, fit_response
from depthcell.inspect.pod_result import CurvePoints, Detected, KindCapability, Noise, PodStudy, Response, Share
from depthcell.inspect.verdict import Decision, Finding, Verdict

NEEDED_HITS, NEEDED_RESPONSES = 60, 40
"""Defects that MIL-HDBK-1823A (2009) asks for, with hits and misses alone and with measured responses."""

NEEDED_GOOD, FALSE_CALLS = 20, 0.01
"""Good parts from which noise is told, and the share of them that a threshold set by it may reject."""

CURVE_POINTS = 60
POORLY_STRAIGHT = 0.01
CRITERION = (
    "a finding that makes the part NOK lies on the defect: its centre within the radius of the circle of the defect's "
    f"area and {PLACE_TOLERANCE_MM:g} mm more"
)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One defect and what was found on it. `reporting_mm`: see the module."""

    defect: DefectTruth
    hit: bool
    reported: bool
    response_mm: float | None
    u_mm: float | None
    reporting_mm: float


def size_mm(defect: DefectTruth) -> float:
    """Its size, see the module."""
    if defect.depth_mm is None or defect.kind == "missing_bore":
        return 2 * math.sqrt(defect.area_mm2 / math.pi)
    return abs(defect.depth_mm)


def study_of(compared: Sequence[Comparison], tolerance_mm: float, significance: float) -> PodStudy:
    """Detection capability from parts that were inspected.

    Args:
        compared: each part's truth and verdict.
        tolerance_mm: of the recipe's surface check.
        significance: the same.

    Raises:
        DepthcellError: there is no defect among them.
    """
    seen: list[_Seen] = []
    elsewhere = 0
    for one in compared:
        found, astray = _matched(one, tolerance_mm, significance)
        seen += found
        elsewhere += astray
    if not seen:
        raise DepthcellError("pod: no part of the run has a defect; simulate it with --defect-rate above 0")
    good = [one.verdict for one in compared if one.truth.good]
    noise = _noise(good)
    kinds = {kind: [one for one in seen if one.defect.kind == kind] for kind in sorted({s.defect.kind for s in seen})}
    return PodStudy(
        parts=len(compared),
        defects=len(seen),
        tolerance_mm=tolerance_mm,
        criterion=CRITERION,
        kinds={kind: _capability(kind, ones, tolerance_mm, noise) for kind, ones in kinds.items()},
        classes=_by_class(seen),
        false_calls=_share_of(good, Decision.NOK),
        held_back=_share_of(good, Decision.CANNOT_TELL),
        findings_elsewhere=elsewhere,
        noise=noise,
    )


def _by_class(seen: Sequence[_Seen]) -> dict[str, Share]:
    hits: dict[str, list[bool]] = {}
    for one in seen:
        hits.setdefault(one.defect.defect_class, []).append(one.hit)
    return {name: Share.of(sum(hits[name]), len(hits[name])) for name in sorted(hits)}


def _share_of(good: Sequence[Verdict], decision: Decision) -> Share | None:
    return Share.of(sum(verdict.verdict is decision for verdict in good), len(good)) if good else None


def _matched(one: Comparison, tolerance_mm: float, significance: float) -> tuple[list[_Seen], int]:
    """Each defect with its findings, and how many findings that make the part NOK lie on none."""
    lying: dict[int, list[Finding]] = {number: [] for number in range(len(one.truth.defects))}
    elsewhere = 0
    for finding in one.verdict.findings:
        away = [_away(finding, defect) for defect in one.truth.defects]
        if away and min(away) <= 1.0:
            lying[away.index(min(away))].append(finding)
        elif _makes_nok(finding, one.verdict, tolerance_mm):
            elsewhere += 1
    seen = []
    for number, defect in enumerate(one.truth.defects):
        on_it = lying[number]
        response = _response(on_it, defect)
        seen.append(
            _Seen(
                defect=defect,
                hit=any(_makes_nok(finding, one.verdict, tolerance_mm) for finding in on_it),
                reported=bool(on_it),
                response_mm=None if response is None else abs(response[0]),
                u_mm=None if response is None else response[1],
                reporting_mm=_reporting_mm(one.verdict, defect, tolerance_mm, significance),
            )
        )
    return seen, elsewhere


def _away(finding: Finding, defect: DefectTruth) -> float:
    """Distance over the defect's reach. A warp has no place: what lies on no other defect is taken to be its doing."""
    if defect.kind == "warp":
        return 1.0
    return math.dist(finding.position_mm.value, defect.position_mm) / reach_mm(defect)


def _makes_nok(finding: Finding, verdict: Verdict, tolerance_mm: float) -> bool:
    """Whether this finding alone rejects the part, see `judgement`: by colour, model, or depth beyond its guard."""
    if verdict.verdict is not Decision.NOK:
        return False
    by_itself = "color" in finding.source or "model" in finding.source
    if finding.depth_mm is None or by_itself or finding.kind == "missing_bore":
        return True
    return decide(abs(finding.depth_mm.value), finding.depth_mm.u, None, tolerance_mm) is Decision.NOK


def _response(findings: Sequence[Finding], defect: DefectTruth) -> tuple[float, float] | None:
    """Depth and its standard uncertainty, the largest of those findings that deviate the way the defect does."""
    if defect.depth_mm is None or defect.kind == "missing_bore":
        return None
    depths = [(f.depth_mm.value, f.depth_mm.u) for f in findings if f.depth_mm is not None]
    same = [(value, u) for value, u in depths if value * defect.depth_mm > 0]
    return max(same, key=lambda depth: abs(depth[0]), default=None)


def _reporting_mm(verdict: Verdict, defect: DefectTruth, tolerance_mm: float, significance: float) -> float:
    name = f"largest deviation {'outwards' if (defect.depth_mm or 0.0) > 0 else 'inwards'}"
    u = next((m.u for m in verdict.measurements if m.name == name), None)
    return tolerance_mm if not u else significance * u


def _noise(good: Sequence[Verdict]) -> Noise | None:
    """From the measurements of the largest deviation, which every verdict holds."""
    values = np.array(
        [
            abs(measurement.value)
            for verdict in good
            for measurement in verdict.measurements
            if measurement.name.startswith("largest deviation") and measurement.value is not None
        ]
    )
    if len(good) < NEEDED_GOOD or not len(values) or np.ptp(values) == 0:
        return None
    location, scale = _gumbel(values)
    # Neither direction may exceed it: F(t)² = 1 - FALSE_CALLS with F(t) = exp(-exp(-(t - location) / scale)).
    threshold = location - scale * math.log(-math.log(1 - FALSE_CALLS) / 2)
    return Noise(len(values), location, scale, threshold)


def _gumbel(values: Floats) -> tuple[float, float]:
    """Location and scale of the largest likelihood: scale = mean(v) - Σ v w / Σ w with w = exp(-v / scale)."""

    def excess(scale: float) -> float:
        weight = np.exp(-(values - values.min()) / scale)
        return float(values.mean() - (values * weight).sum() / weight.sum() - scale)

    spread = float(values.std())
    scale = float(root_scalar(excess, bracket=(1e-3 * spread, 10 * spread)).root)
    return float(values.min() - scale * np.log(np.exp(-(values - values.min()) / scale).mean())), scale


def _capability(kind: str, seen: Sequence[_Seen], tolerance_mm: float, noise: Noise | None) -> KindCapability:
    sizes = np.array([size_mm(one.defect) for one in seen])
    hit = np.array([one.hit for one in seen])
    is_depth = kind != "missing_bore" and seen[0].defect.depth_mm is not None
    reported = sum(one.reported for one in seen)
    return KindCapability(
        kind=kind,
        size="largest displacement along the normal" if is_depth else "diameter of the circle of its area",
        smallest_mm=float(sizes.min()),
        largest_mm=float(sizes.max()),
        hits=Share.of(int(hit.sum()), len(seen)),
        reported=Share.of(reported, len(seen)),
        hit_miss=_by_hits(sizes, hit),
        response=_by_response(sizes, seen, tolerance_mm, noise) if is_depth else None,
        sizes_mm=_rounded(sizes),
        hit=tuple(hit.tolist()),
        responses_mm=tuple(one.response_mm for one in seen),
    )


def _by_hits(sizes: Floats, hit: Floats) -> Detected:
    n, hits = len(hit), int(hit.sum())
    low, high = exact_interval(hits, n)
    if hits == n:
        why = f"all {n} from {sizes.min():.2f} mm up were hit: at least {low:.0%} of such (95 %), and a90 lies below"
        return Detected(n, None, None, None, why, None)
    if hits == 0:
        why = f"none of {n} up to {sizes.max():.2f} mm was hit: at most {high:.0%} of such (95 %)"
        return Detected(n, None, None, None, why, None)
    if n < 3 or np.ptp(sizes) == 0:
        return Detected(n, None, None, None, f"{n} defects of one size show no curve", None)
    return _detected(fit_hit_miss(sizes, hit.astype(np.bool_)), sizes, n, NEEDED_HITS, "hits and misses")


def _by_response(sizes: Floats, seen: Sequence[_Seen], tolerance_mm: float, noise: Noise | None) -> Response | None:
    responses = np.array([np.nan if one.response_mm is None else one.response_mm for one in seen])
    known = [one.u_mm for one in seen if one.u_mm is not None]
    if len(known) < 4 or np.ptp(sizes) == 0 or np.nanmax(responses) == np.nanmin(responses):
        return None
    fit: ResponseFit = fit_response(sizes, responses, np.array([one.reporting_mm for one in seen]))
    decision_mm = tolerance_mm + GUARD_FACTOR * float(np.median(known))

    def at(threshold_mm: float) -> Detected:
        found = _detected(fit.curve(threshold_mm), sizes, len(sizes), NEEDED_RESPONSES, "responses")
        if fit.curvature_p >= POORLY_STRAIGHT:
            return found
        why = f"responses do not follow a line (p = {fit.curvature_p:.1g})"
        return Detected(found.n, found.a50_mm, found.a90_mm, None, found.undetermined or why, found.curve)

    return Response(
        n=len(seen),
        measured=len(known),
        scale=fit.scale.value,
        intercept=fit.intercept,
        slope=fit.slope,
        sigma=fit.sigma,
        curvature_p=fit.curvature_p,
        decision_mm=decision_mm,
        at_decision=at(decision_mm),
        at_noise=None if noise is None else at(noise.threshold_mm),
    )


def _detected(curve: PodCurve, sizes: Floats, n: int, needed: int, what: str) -> Detected:
    """The three sizes, or why they cannot be had."""
    grid = np.geomspace(sizes.min(), sizes.max(), CURVE_POINTS)
    points = CurvePoints(_rounded(grid), _rounded(curve.pod(grid)), _rounded(curve.lower(grid)))
    if not curve.is_rising:
        why = f"{n} defects do not prove that larger ones are detected more often"
        return Detected(n, None, None, None, why, points)
    a50, a90, bound = curve.size_mm(0.5), curve.size_mm(0.9), curve.size_bound_mm(0.9)
    lack = _lack(n, needed, what, (a90, bound), sizes)
    return Detected(
        n,
        a50 if sizes.min() <= a50 <= sizes.max() else None,
        a90 if sizes.min() <= a90 <= sizes.max() else None,
        bound if lack is None else None,
        lack,
        points,
    )


def _rounded(values: Floats) -> tuple[float, ...]:
    """As finely as anybody draws them."""
    return tuple(np.round(values, 5).tolist())


def _lack(n: int, needed: int, what: str, found_mm: tuple[float, float], sizes: Floats) -> str | None:
    """Why a90/95 cannot be stated; None if it can."""
    a90, bound = found_mm
    if n < needed:
        return f"{n} defects; a bound from {what} needs {needed}"
    if bound > sizes.max():
        return f"a90/95 would lie beyond {sizes.max():.2f} mm, the largest of {n} defects tested"
    if a90 < sizes.min():
        return f"a90 lies below {sizes.min():.2f} mm, the smallest of {n} defects tested"
    return None
