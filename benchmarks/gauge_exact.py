"""Each gauge on exact geometry: how far its value is from what the surfaces were made to be, the worst of many parts.

Sizes, offsets, leans and the part's place in the cell are drawn at random. Zones of rough surfaces, whose width no
construction tells, are compared with an independent optimiser (scipy's BFGS on a smooth maximum, made sharper in steps,
then Nelder-Mead): there the error is the width that we found over the least that it found.
Goal: within 1 um.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from harness import Goal, Report, timing_of
from pydantic import TypeAdapter
from scipy.optimize import minimize

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.simulator.rig import looking_at
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell, CellCamera, DisparityNoise
from depthcell.fusion.association.elements import Cylinder, Plane
from depthcell.fusion.association.misfit import misfit
from depthcell.fusion.scan import Scan
from depthcell.inspect.featuresections import DatumSection, FeatureSection
from depthcell.inspect.gauges.extraction import Features
from depthcell.inspect.gauges.gauging import measure_gauge
from depthcell.inspect.gaugesections import GaugeSection
from depthcell.inspect.ideal_scan import Measured, Patch, ball, face, ideal_scan, tube

PARTS, SEED = 40, 20
WITHIN_UM = 1.0
FEATURE: TypeAdapter[FeatureSection] = TypeAdapter(FeatureSection)
GAUGE: TypeAdapter[GaugeSection] = TypeAdapter(GaugeSection)

Section = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Case:
    """One gauge on one part.

    Attributes:
        what: the gauge, in words.
        scan: the part.
        features: of the recipe.
        gauge: of the recipe.
        truth: in the gauge's SI unit; radians are counted as lengths over 100 mm.
    """

    what: str
    scan: Scan
    features: Sequence[Section]
    gauge: Section
    truth: float
    datums: Mapping[str, str] = field(default_factory=dict)


def cell() -> Cell:
    """One camera that looks down."""
    eye, target = np.array([0.0, 0.0, 0.4]), np.zeros(3)
    camera = CellCamera(
        serial="1001",
        model="Intel RealSense D405",
        depth=Intrinsics(848, 480, 430.0, 430.0, 423.5, 239.5),
        color=None,
        T_cell_depth=looking_at("1001", target, eye),
        covariance=np.diag([1e-4**2] * 3 + [3e-5**2] * 3),
        T_color_depth=None,
        baseline_m=0.018,
        noise=DisparityNoise(temporal_px=0.05, fixed_px=0.02, correlation_px=3.0),
    )
    return Cell("ideal", {"1001": camera}, "2026-01-02T03:04:05Z")


CELL = cell()


def placed(patches: Sequence[Patch], rng: np.random.Generator) -> Scan:
    """Somewhere in the cell, found there exactly."""
    T_cell_part = RigidTransform.from_rotation_vector("cell", "part", rng.normal(0, 1.0, 3), rng.normal(0, 0.1, 3))
    return ideal_scan(patches, CELL, Measured(T_cell_part=T_cell_part))


def flat(name: str, normal: Sequence[float], at_mm: Sequence[float], half_mm: Sequence[float]) -> Section:
    """A face in a box about a place."""
    low, high = np.array(at_mm) - half_mm, np.array(at_mm) + half_mm
    box = {"min_mm": low.tolist(), "max_mm": high.tolist(), "point_mm": list(at_mm)}
    return {"name": name, "kind": "plane", "normal": list(normal), **box}


def wall(
    name: str, kind: str, at_mm: Sequence[float], diameter_mm: float, half_mm: float, side: str = "outside"
) -> Section:
    """A cylinder, circle or sphere in a box about its middle."""
    half = np.array([diameter_mm / 2 + 3, diameter_mm / 2 + 3, half_mm])
    box = {"min_mm": (np.array(at_mm) - half).tolist(), "max_mm": (np.array(at_mm) + half).tolist()}
    axis = {} if kind == "sphere" else {"axis": [0, 0, 1]}
    return (
        {"name": name, "kind": kind, "position_mm": list(at_mm), "diameter_mm": diameter_mm, "side": side} | axis | box
    )


def size_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Distances, step, angle, diameters."""
    step_mm, lean = rng.uniform(-8, 8), rng.uniform(0, 3)
    tilted = (math.sin(lean), 0.0, math.cos(lean))
    bore_mm, ball_mm, apart = rng.uniform(6, 30), rng.uniform(8, 25), rng.uniform(-2, 2, 2)
    patches = [
        face((0, 0, 0), (0, 0, 1), (30, 30)),
        face((60, 0, step_mm), (0, 0, 1), (20, 20)),
        face((0, 90, 0), tilted, (20, 20)),
        tube((100 + apart[0], apart[1], 0), (0, 0, 1), bore_mm, 10, inside=True),
        tube((100, 60, 0), (0, 0, 1), bore_mm, 10),
        ball((-60, 0, 3), ball_mm),
        ball((-60, 50, 0), ball_mm),
    ]
    boxes = [
        flat("base", (0, 0, 1), (0, 0, 0), (16, 16, 4)),
        flat("step", (0, 0, 1), (60, 0, step_mm), (11, 11, 4)),
        flat("tilted", tilted, (0, 90, 0), (16, 16, 16)),
        wall("bore", "cylinder", (100, 0, 0), bore_mm, 7, "inside"),
        wall("ring", "circle", (100, 0, 0), bore_mm, 2, "inside"),
        wall("post", "cylinder", (100, 60, 0), bore_mm, 7),
        wall("ball", "sphere", (-60, 0, 3), ball_mm, 20),
        wall("bead", "sphere", (-60, 50, 0), ball_mm, 20),
    ]
    scan = placed(patches, rng)

    def case(what: str, truth: float, **gauge: object) -> Case:
        return Case(what, scan, boxes, gauge, truth)

    axes_m = math.hypot(apart[0], 60 - apart[1]) / 1e3
    yield case("distance of planes", abs(step_mm) / 1e3, kind="distance", between=["base", "step"])
    yield case("distance of axes", axes_m, kind="distance", between=["bore", "post"])
    yield case("distance of a plane and a centre", 3e-3, kind="distance", between=["base", "ball"])
    yield case("distance of centres", math.hypot(50, 3) / 1e3, kind="distance", between=["ball", "bead"])
    yield case("step height", step_mm / 1e3, kind="step_height", over="base", feature="step")
    yield case("angle of planes (over 100 mm)", lean, kind="angle", between=["base", "tilted"])
    for name in ("bore", "ring", "post"):
        for criterion in ("least squares", "maximum inscribed", "minimum circumscribed"):
            what = f"diameter, {criterion}"
            yield case(what, bore_mm / 1e3, kind="diameter", feature=name, criterion=criterion)
    yield case("diameter of a sphere", ball_mm / 1e3, kind="diameter", feature="ball")
    yield case("coordinate", 0.1 + apart[0] / 1e3, kind="coordinate", feature="bore", direction=[1, 0, 0])


def form_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Forms whose narrowest zone is known by symmetry."""
    form_m, lobes = rng.uniform(1e-6, 3e-4), int(rng.integers(3, 9))
    saddle = face((0, 0, 0), (0, 0, 1), (30, 30))
    x, y = (saddle.points[:, :2] / 0.015).T
    strip = face((0, 60, 0), (0, 0, 1), (30, 2), spacing_mm=0.5)
    lobed = tube((60, 0, 0), (0, 0, 1), 20, 1, rows=3, columns=12 * lobes)
    turn = np.arctan2(lobed.points[:, 1], lobed.points[:, 0] - 0.06)
    barrel = tube((60, 60, 0), (0, 0, 1), 20, 20, rows=21)
    patches = [
        saddle.lifted(form_m * (x**2 - y**2)),
        strip.lifted(form_m * (strip.points[:, 0] / 0.015) ** 2),
        lobed.lifted(form_m * np.cos(lobes * turn)),
        barrel.lifted(form_m * (1 - (barrel.points[:, 2] / 0.010) ** 2)),
    ]
    line = {"name": "line", "kind": "line", "position_mm": [0, 60, 0], "direction": [1, 0, 0], "normal": [0, 0, 1]}
    boxes = [
        flat("saddle", (0, 0, 1), (0, 0, 0), (16, 16, 4)),
        {**line, "min_mm": [-16, 58, -4], "max_mm": [16, 62, 4]},
        wall("ring", "circle", (60, 0, 0), 20, 2),
        wall("barrel", "cylinder", (60, 60, 0), 20, 12),
    ]
    scan = placed(patches, rng)
    yield Case("flatness", scan, boxes, {"kind": "flatness", "feature": "saddle"}, 2 * form_m)
    yield Case("straightness", scan, boxes, {"kind": "straightness", "feature": "line"}, form_m)
    yield Case("roundness", scan, boxes, {"kind": "roundness", "feature": "ring"}, 2 * form_m)
    yield Case("cylindricity", scan, boxes, {"kind": "cylindricity", "feature": "barrel"}, form_m)
    yield Case("straightness of a median line", scan, boxes, {"kind": "straightness", "feature": "barrel"}, 0.0)


def datum_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Orientation, position and run-out against datums."""
    lean, off = rng.uniform(-0.02, 0.02), rng.uniform(-0.4, 0.4, 3)
    side = face((36, 0, -12), (1, 0, 0), (10, 24))
    leaning = face((0, -60, 0), (math.sin(lean), 0, math.cos(lean)), (20, 20))
    upright = face((-60, -60, 0), (math.cos(lean), 0, math.sin(lean)), (20, 20))
    shaft = tube((60, 60, 0), (math.sin(lean), 0, math.cos(lean)), 16, 12)
    patches = [
        face((0, 0, 0), (0, 0, 1), (30, 30)),
        side,
        face((0, 36, -12), (0, 1, 0), (24, 10)),
        leaning,
        upright,
        shaft,
        tube((5 + off[0], 4 + off[1], -10), (0, 0, 1), 12, 8, inside=True),
        ball((-60 + off[0], off[1], off[2]), 20),
        tube((-60, 60, 0), (0, 0, 1), 20, 12),
        tube((-60 + off[0], 60 + off[1], 14), (0, 0, 1), 16, 8, columns=360),
    ]
    # the eccentric shaft's own columns need not stand on the line of centres: what they reach is the truth
    eccentric = np.hypot(*(patches[-1].points[:, :2] - np.array([-0.060, 0.060])).T)
    boxes = [
        flat("base", (0, 0, 1), (0, 0, 0), (16, 16, 3)),
        flat("side", (1, 0, 0), (36, 0, -12), (3, 16, 16)),
        flat("end", (0, 1, 0), (0, 36, -12), (16, 3, 16)),
        flat("leaning", (0, 0, 1), (0, -60, 0), (11, 11, 3)),
        flat("upright", (1, 0, 0), (-60, -60, 0), (3, 11, 11)),
        wall("shaft", "cylinder", (60, 60, 0), 16, 9),
        wall("bore", "cylinder", (5, 4, -10), 12, 5, "inside"),
        wall("ball", "sphere", (-60, 0, 0), 20, 14),
        wall("post", "cylinder", (-60, 60, 0), 20, 7),
        wall("pin", "cylinder", (-60, 60, 14), 16, 5),
    ]
    scan, datums = placed(patches, rng), {"A": "base", "B": "side", "C": "end", "D": "post"}

    def case(what: str, truth: float, **gauge: object) -> Case:
        return Case(what, scan, boxes, gauge, truth, datums)

    extent = float(np.ptp(leaning.points[:, 2]))
    tall = float(np.ptp(upright.points[:, 0]))
    length_m = 0.012 * abs(math.sin(lean))
    three = ["A", "B", "C"]
    yield case("parallelism of planes", extent, kind="parallelism", feature="leaning", datum="A")
    yield case("perpendicularity of planes", tall, kind="perpendicularity", feature="upright", datum="A")
    angled = {"kind": "angularity", "feature": "leaning", "datum": "A", "angle_deg": math.degrees(abs(lean))}
    yield case("angularity of planes", 0.0, **angled)
    yield case("perpendicularity of an axis", length_m, kind="perpendicularity", feature="shaft", datum="A")
    yield case("parallelism of axes", length_m, kind="parallelism", feature="shaft", datum="D")
    yield case("position of an axis", 2e-3 * math.hypot(*off[:2]), kind="position", feature="bore", datums=three)
    yield case("position of a centre", 2e-3 * float(np.linalg.norm(off)), kind="position", feature="ball", datums=three)
    yield case("run-out, circular", float(np.ptp(eccentric)), kind="runout", feature="pin", datum="D")
    yield case("run-out, total", float(np.ptp(eccentric)), kind="runout", feature="pin", datum="D", scope="total")


def rough_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Rough surfaces: the least width that another optimiser finds."""
    patches = [face((0, 0, 0), (0, 0, 1), (30, 20)), tube((60, 0, 0), (0, 0, 1), 20, 12, rows=9, columns=48)]
    patches = [patch.lifted(5e-5 * rng.standard_normal(len(patch.points))) for patch in patches]
    boxes = [flat("face", (0, 0, 1), (0, 0, 0), (16, 16, 4)), wall("wall", "cylinder", (60, 0, 0), 20, 8)]
    scan = placed(patches, rng)
    plane, cylinder = (
        Plane(np.zeros(3), np.array([0.0, 0, 1])),
        Cylinder(np.array([0.06, 0, 0]), np.array([0.0, 0, 1]), 0.01),
    )
    height, rows = patches[0].points[:, 2], misfit(plane, patches[0].points).jacobian[1:]
    truth_m = least_width(lambda c: height + c @ rows, 2, 0.02)
    yield Case("flatness, rough", scan, boxes, {"kind": "flatness", "feature": "face"}, truth_m)
    truth_m = least_width(lambda c: away(patches[1].points - cylinder.point, c), 4, 0.006)
    yield Case("cylindricity, rough", scan, boxes, {"kind": "cylindricity", "feature": "wall"}, truth_m)


def away(points: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Distances from an axis shifted and leant by c (4,), exactly: by the cross product."""
    axis = np.array([c[2], c[3], 1.0])
    crossed = np.cross(points - np.array([c[0], c[1], 0.0]), axis)
    return np.asarray(np.linalg.norm(crossed, axis=1) / np.linalg.norm(axis))


def least_width(residual: Callable[[np.ndarray], np.ndarray], freedoms: int, lever_m: float) -> float:
    """The least span of residuals that scipy finds over so many shifts and leans, metres."""
    unit_m = 1e-4
    scales = (
        np.array([unit_m] * 2 + [unit_m / lever_m] * 2)[-freedoms:] if freedoms == 4 else np.full(2, unit_m / lever_m)
    )

    def soft(c: np.ndarray, sharp: float) -> float:
        lift = residual(c * scales) / unit_m * sharp
        return float(np.logaddexp.reduce(lift) + np.logaddexp.reduce(-lift)) / sharp

    def span(c: np.ndarray) -> float:
        return float(np.ptp(residual(c * scales))) / unit_m

    at = np.zeros(freedoms)
    for sharp in (5.0, 20.0, 100.0, 500.0):
        at = minimize(soft, at, args=(sharp,), method="BFGS").x
    options = {"xatol": 1e-8, "fatol": 1e-8, "maxiter": 8000, "maxfev": 8000}
    for _ in range(3):
        at = minimize(span, at, method="Nelder-Mead", options=options).x
    return span(at) * unit_m


def main() -> None:
    """Measure all, print and write."""
    report, rng = Report("gauge_exact"), np.random.default_rng(SEED)
    errors_um: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    sources = [(size_cases, PARTS), (form_cases, PARTS), (datum_cases, PARTS), (rough_cases, PARTS // 2)]
    for source, parts in sources:
        for _ in range(parts):
            for case in source(rng):
                labels = [DatumSection(label=label, feature=name) for label, name in case.datums.items()]
                features = Features(case.scan, [FEATURE.validate_python(one) for one in case.features], labels)
                section = GAUGE.validate_python({"name": case.what, **case.gauge})
                start = time.perf_counter()
                reading = measure_gauge(section, case.scan, features)
                seconds.setdefault(case.what, []).append(time.perf_counter() - start)
                scale = 1e5 if case.gauge["kind"] == "angle" else 1e6
                errors_um.setdefault(case.what, []).append((reading.value - case.truth) * scale)
    for what, errors in errors_um.items():
        worst = float(max(errors, key=abs))
        goal = Goal(words=f"within {WITHIN_UM:g} um; of angles, over 100 mm", reached=abs(worst) <= WITHIN_UM)
        report.add(what, timing_of(seconds[what]), goal, worst_um=float(f"{worst:.3g}"), n=len(errors))
    report.write()


if __name__ == "__main__":
    main()
