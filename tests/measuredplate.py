"""A measured plate for tests: exact points of the reference with noise and a dent, and gauges of every outcome."""

from dataclasses import replace
from functools import cache

import numpy as np
from stagedpart import BORE_AT_MM, BORE_MM, LIFT_M, TOP_MM, plate_cell, plate_mesh

from depthcell.acquisition.transform import RigidTransform
from depthcell.fusion.align import Alignment
from depthcell.fusion.association.elements import Circle, Cylinder, Line, Plane, Sphere
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.reference import Reference
from depthcell.fusion.scan import Scan
from depthcell.inspect.conformance import conformance_probability
from depthcell.inspect.gauges.gauged import BudgetRow, GaugeResult
from depthcell.inspect.gauges.reading import Drawn
from depthcell.inspect.measurement import MeasuredPart, MeasurementFacts
from depthcell.inspect.verdict import Decision, Provenance

DENT_AT_M = np.array([-0.012, 0.006, TOP_MM / 1e3])
DENT_M = 6e-4
NOISE_M = 4e-5
FACTS = MeasurementFacts(
    source="runs/plates",
    recipe_name="plate",
    cell_name="plate cell",
    tolerance_mm=0.5,
    written_at="2026-03-04T05:06:07Z",
    versions={"depthcell": "0.1.0", "numpy": "2.0.0"},
)
BUDGET = (
    BudgetRow("calibration of 1001", 0.040, 0.64),
    BudgetRow("noise", 0.024, 0.2304),
    BudgetRow("pose of the part", 0.018, 0.1296),
)


@cache
def plate_scan(spacing_m: float = 0.0008) -> Scan:
    """The plate from above and the sides, its underside unseen, with a dent that the reference lacks."""
    mesh = plate_mesh()
    reference = Reference(mesh.vertices_m, mesh.triangles)
    samples = reference.surface_samples(spacing_m)
    seen = samples.normals_part[:, 2] > -0.5
    points, normals = samples.points_part[seen], samples.normals_part[seen].astype(np.float64)
    rng = np.random.default_rng(3)
    away = np.linalg.norm(points - DENT_AT_M, axis=1) / 0.005
    lift = rng.normal(0, NOISE_M, len(points)) - DENT_M * np.clip(1 - away**2, 0, None) ** 2
    return Scan.of(_cloud(points + lift[:, None] * normals, normals), alignment(), plate_cell(), reference)


def alignment() -> Alignment:
    """Where the plate lies, well determined."""
    pose = RigidTransform.from_rotation_vector("cell", "part", np.array([0.0, 0.0, 0.1]), np.array([0, 0, LIFT_M]))
    return Alignment(pose, 1e-10 * np.eye(6), 1e-10 * np.eye(6), 4e-5, 1.0, 500, 5, 1e-5, "along z", ())


def _cloud(points_part: np.ndarray, normals_part: np.ndarray) -> PartCloud:
    T_cell_part, count = alignment().T_cell_part, len(points_part)
    share = np.full((count, 3), 1 / 3, dtype=np.float32)
    return PartCloud(
        points_cell=np.asarray(T_cell_part @ points_part, dtype=np.float64),
        normals_cell=T_cell_part.rotate(normals_part).astype(np.float32),
        colors=np.full((count, 3), 128, dtype=np.uint8),
        random_sigma_m=np.full(count, NOISE_M, dtype=np.float32),
        systematic_sigma_m=np.full(count, 2e-5, dtype=np.float32),
        correlation_m=np.full(count, 1e-3, dtype=np.float32),
        share=share,
        camera=np.zeros(count, dtype=np.uint8),
        pixel=np.zeros((count, 2), dtype=np.int32),
        serials=("1001", "1002", "1003"),
    )


def gauge(kind: str, value: float | None, limits: tuple[float | None, float | None], **changes: object) -> GaugeResult:
    """A result of `kind` in millimetres, decided as given or OK."""
    u = None if value is None else 0.05
    conformance = None if value is None else conformance_probability(value, 0.05, limits)
    result = GaugeResult(
        name=str(changes.pop("name", kind.replace("_", " "))),
        kind=kind,
        unit="mm",
        value=value,
        u=u,
        nominal=None,
        lower=limits[0],
        upper=limits[1],
        decision=Decision.OK,
        conformance=conformance,
        budget=() if value is None else BUDGET,
        note="least squares over 812 points" if value is not None else "",
        drawn=(),
        points_used=0 if value is None else 812,
        reason="within its limits",
    )
    return replace(result, **changes)  # type: ignore[arg-type]


def gauges() -> tuple[GaugeResult, ...]:
    """OK, NOK, doubtful, not measured, without limits; lengths, an angle and a volume; every element drawn."""
    scan = plate_scan()
    top = np.flatnonzero(np.abs(scan.points_part[:, 2] - TOP_MM / 1e3) < 3e-4)
    axis = np.array([0.0, 0.0, 1.0])
    at = np.array([BORE_AT_MM[0] / 1e3, BORE_AT_MM[1] / 1e3, TOP_MM / 2e3])
    wall = np.flatnonzero(np.abs(np.hypot(*(scan.points_part - at)[:, :2].T) - BORE_MM / 2e3) < 3e-4)
    plane = Plane(np.array([0.0, 0.0, TOP_MM / 1e3]), axis)
    bore = Cylinder(at, axis, BORE_MM / 2e3)
    depth = np.array([[-0.012, 0.006, TOP_MM / 1e3], [-0.012, 0.006, TOP_MM / 1e3 - DENT_M]])
    ring = Circle(np.array([*at[:2], TOP_MM / 1e3]), axis, BORE_MM / 2e3)
    return (
        gauge("diameter", 12.03, (11.7, 12.3), name="bore A", nominal=12.0, drawn=(Drawn("bore A", wall, bore),)),
        gauge(
            "flatness",
            0.61,
            (None, 0.4),
            name="top, flat & <even>",
            decision=Decision.NOK,
            reason="0.61 mm is above 0.4 mm",
            floor=0.0,
            drawn=(Drawn("top", top, plane, lift_m=scan.points_part[top, 2] - TOP_MM / 1e3),),
        ),
        gauge(
            "step_height",
            0.57,
            (0.4, 0.6),
            nominal=0.5,
            decision=Decision.CANNOT_TELL,
            reason="0.57 ± 0.10 mm lies across the limit of 0.6 mm",
            drawn=(Drawn("depth of the dent", top[:5], None, segment_part=depth),),
        ),
        gauge("angle", 89.97, (89.5, 90.5), unit="deg", nominal=90.0, drawn=(Drawn("edge", top[:9], Line(at, axis)),)),
        gauge(
            "position",
            None,
            (None, 0.2),
            name="position of bore B",
            decision=Decision.CANNOT_TELL,
            reason="bore B wall: no camera saw a point of it",
        ),
        gauge("volume", 12.5, (None, 20.0), unit="mm3", name="volume missing", floor=0.0),
        gauge("roundness", 0.08, (None, None), floor=0.0, drawn=(Drawn("ring", wall, ring),)),
        gauge("distance", 24.7, (24.0, 25.0), nominal=24.5, drawn=(Drawn("ball", wall[:7], Sphere(at, 0.006)),)),
    )


def measured_plate(part_id: str = "plate_001", **changes: object) -> MeasuredPart:
    """The plate, NOK for its dent."""
    scan = plate_scan()
    assert scan.reference is not None
    deviation_m = scan.reference.signed_distance(scan.points_part)
    deviation_m[::50] = np.nan
    part = MeasuredPart(
        part_id=part_id,
        scan=scan,
        results=gauges(),
        deviation_m=deviation_m,
        deviation_u_m=np.full(len(deviation_m), 4.5e-5),
        decision=Decision.NOK,
        reasons=("top, flat & <even>: 0.61 mm is above 0.4 mm", "position of bore B: no camera saw a point of it"),
        provenance=Provenance("1" * 64, "2" * 64, "3" * 64, None, "depthcell 0.1.0"),
        measured_at="2026-03-04T05:06:07Z",
    )
    return replace(part, **changes)  # type: ignore[arg-type]


def missing_plate(part_id: str = "plate_002") -> MeasuredPart:
    """A part that nobody saw: nothing is measured, and nothing is drawn."""
    nothing = tuple(
        replace(g, value=None, u=None, conformance=None, budget=(), note="", drawn=(), points_used=0,
                decision=Decision.CANNOT_TELL, reason="the part is missing")
        for g in gauges()
    )  # fmt: skip
    return measured_plate(
        part_id,
        scan=None,
        results=nothing,
        deviation_m=None,
        deviation_u_m=None,
        decision=Decision.CANNOT_TELL,
        reasons=("the part is missing: no point lies within the region",),
    )
