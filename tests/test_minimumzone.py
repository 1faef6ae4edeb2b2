"""Minimum zones, inscribed and circumscribed elements against enumeration, linear programmes and global search."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import differential_evolution, linprog  # type: ignore[attr-defined]
from scipy.spatial import ConvexHull, Delaunay

from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.association.changes import change
from depthcell.fusion.association.elements import Associated, Circle, Cylinder, Element, Line, Plane, Sphere
from depthcell.fusion.association.leastsquares import fit_circle, fit_cylinder, fit_line, fit_plane, fit_sphere
from depthcell.fusion.association.minimumzone import (
    circumscribed,
    inscribed,
    zone_circle,
    zone_cylinder,
    zone_line,
    zone_plane,
    zone_sphere,
)
from depthcell.fusion.association.orientedzone import Zone, zone_between_planes, zone_within_cylinder

X, Y, Z = np.eye(3)
ZERO = np.zeros(3)
FORM_M = 5e-5
Cloud = tuple[np.ndarray, np.ndarray]
NOMINAL: dict[str, Element] = {
    "plane": Plane(ZERO, Z),
    "line": Line(ZERO, X),
    "circle": Circle(ZERO, Z, 0.006),
    "cylinder": Cylinder(ZERO, Z, 0.006),
    "sphere": Sphere(ZERO, 0.006),
}
NANOMETRE = 1e-9


def cloud_of(kind: str, seed: int, count: int = 40, form_m: float = FORM_M) -> Cloud:
    """Points of a bore, a face or a dimple with waves and noise as form, and their outward normals."""
    rng = np.random.default_rng(seed)
    turn, height = rng.uniform(0, 2 * np.pi, count), rng.uniform(-0.01, 0.01, count)
    away = np.stack((np.cos(turn), np.sin(turn), np.zeros(count)), axis=1)
    wave = form_m * (np.cos(int(rng.integers(2, 5)) * turn + height / 0.004) + rng.normal(0, 0.5, count))
    match kind:
        case "plane" | "line":
            points = rng.uniform(-1, 1, (count, 3)) * np.array([0.05, 0.03, 0.0])
            normals = np.tile(Z, (count, 1))
        case "sphere":
            away = rng.normal(size=(count, 3))
            away /= np.linalg.norm(away, axis=1)[:, None]
            points, normals = 0.006 * away, -away
        case _:
            points, normals = 0.006 * away + height[:, None] * Z, -away
    return points + wave[:, None] * normals, normals


def zoned(kind: str, cloud: Cloud, robust: bool = False) -> Associated:
    start, (points, normals) = NOMINAL[kind], cloud
    match start:
        case Plane():
            return zone_plane(points, normals, None, robust=robust)
        case Line():
            return zone_line(points, normals, X, Z, None, robust=robust)
        case Circle():
            return zone_circle(points, normals, Z, None, start, robust=robust)
        case Cylinder():
            return zone_cylinder(points, normals, None, start, robust=robust)
        case Sphere():
            return zone_sphere(points, normals, None, start, robust=robust)


def fitted(kind: str, cloud: Cloud) -> Associated:
    start, (points, normals) = NOMINAL[kind], cloud
    match start:
        case Plane():
            return fit_plane(points, normals, None, robust=False)
        case Line():
            return fit_line(points, normals, X, Z, None, robust=False)
        case Circle():
            return fit_circle(points, normals, Z, None, start, robust=False)
        case Cylinder():
            return fit_cylinder(points, normals, None, start, robust=False)
        case Sphere():
            return fit_sphere(points, normals, None, start, robust=False)


def gx(kind: str) -> Callable[[Cloud], Associated]:
    return lambda cloud: inscribed(fitted(kind, cloud), *cloud)


def gn(kind: str) -> Callable[[Cloud], Associated]:
    return lambda cloud: circumscribed(fitted(kind, cloud), *cloud)


def width_by_enumeration(points: np.ndarray) -> float:
    """Exact width of a set of points: a face of the hull and a corner, or two edges, touch the narrowest zone."""
    hull = ConvexHull(points)
    corners = points[hull.vertices]
    directions = [hull.equations[:, :3]]
    edges = {tuple(sorted(pair)) for face in hull.simplices for pair in combinations(face.tolist(), 2)}
    along = np.array([points[a] - points[b] for a, b in edges])
    first, second = np.triu_indices(len(along), 1)
    crossed = np.cross(along[first], along[second])
    length = np.linalg.norm(crossed, axis=1)
    keep = length > 1e-12 * np.linalg.norm(along, axis=1).max() ** 2
    directions.append(crossed[keep] / length[keep, None])
    return float(np.ptp(corners @ np.vstack(directions).T, axis=0).min())


@given(seed=st.integers(0, 100_000))
@settings(max_examples=30, deadline=None)
def test_flatness_is_the_width_of_the_hull(seed: int) -> None:
    points, normals = cloud_of("plane", seed, 30)
    found = zone_plane(points, normals, None, robust=False)
    assert found.form_m == pytest.approx(width_by_enumeration(points), abs=NANOMETRE)
    assert found.criterion == "minimum zone"


def test_flatness_of_many_points_is_that_of_one_linear_programme() -> None:
    """`min t, |z - (a x + b y + c)| <= t`; the zone's slope makes it narrower by its cosine, here 1 - 1e-6."""
    points, normals = cloud_of("plane", 4, 3000)
    found = zone_plane(points, normals, None, robust=False)
    table = np.column_stack((points[:, :2], np.ones(3000)))
    limits = np.block([[table, -np.ones((3000, 1))], [-table, -np.ones((3000, 1))]])
    solved = linprog([0, 0, 0, 1], A_ub=limits, b_ub=np.concatenate((points[:, 2], -points[:, 2])), bounds=(None, None))
    assert found.form_m == pytest.approx(2 * solved.fun, abs=NANOMETRE)


@given(seed=st.integers(0, 100_000))
@settings(max_examples=25, deadline=None)
def test_straightness_is_the_width_of_the_flat_hull(seed: int) -> None:
    points, normals = cloud_of("line", seed)
    found = zone_line(points, normals, X, Z, robust=False)
    flat = points[:, [0, 2]]
    across_edges = ConvexHull(flat).equations[:, :2]
    assert found.form_m == pytest.approx(np.ptp(flat @ across_edges.T, axis=0).min(), abs=NANOMETRE)


def circles_through(points: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Circumcircles of all triples and circles over all pairs of points (N, 2)."""
    found = [((a + b) / 2, float(np.linalg.norm(a - b) / 2)) for a, b in combinations(points, 2)]
    for a, b, c in combinations(points, 3):
        rows = 2 * np.array([b - a, c - a])
        if abs(np.linalg.det(rows)) > 1e-14:
            centre = np.linalg.solve(rows, [b @ b - a @ a, c @ c - a @ a])
            found.append((centre, float(np.linalg.norm(a - centre))))
    return found


@given(seed=st.integers(0, 100_000))
@settings(max_examples=8, deadline=None)
def test_inscribed_and_circumscribed_circles_are_those_of_enumeration(seed: int) -> None:
    points, normals = cloud = cloud_of("circle", seed, 20)
    if np.diff(np.sort(np.arctan2(points[:, 1], points[:, 0]))).max() > 2.5:
        return
    flat = points[:, :2]
    outer = [r for c, r in circles_through(flat) if np.linalg.norm(flat - c, axis=1).max() <= r + 1e-12]
    found = circumscribed(fitted("circle", cloud), points, normals).element
    assert isinstance(found, Circle)
    assert found.radius_m == pytest.approx(min(outer), abs=NANOMETRE)
    corners = flat[Delaunay(flat).simplices]
    inner = [r for one in corners for c, r in circles_through(one)[3:] if np.linalg.norm(c) < 0.003]
    found = inscribed(fitted("circle", cloud), points, normals).element
    assert isinstance(found, Circle)
    assert found.radius_m == pytest.approx(max(inner), abs=NANOMETRE)


def least(function: Callable[[np.ndarray], np.ndarray], size: int, reach: float) -> float:
    """The global minimum by differential evolution; each coordinate within `reach`; all candidates at a time."""
    found = differential_evolution(
        function,
        [(-reach, reach)] * size,
        rng=1,
        tol=1e-12,
        atol=0,
        maxiter=600,
        polish=False,
        vectorized=True,
        updating="deferred",
    )
    return float(found.fun)


def away(kind: str, points: np.ndarray, change_of: np.ndarray) -> np.ndarray:
    """(N, S) distances of points (N, 3) from S moved axes or centres (size, S), by textbook formulae.

    Leans are in units of 1 / 10 mm, so that all coordinates are metres.
    """
    if kind == "sphere":
        return np.asarray(np.linalg.norm(points[:, :, None] - change_of[None], axis=1))
    shift = np.stack((change_of[0], change_of[1], np.zeros(change_of.shape[1])))
    q = points[:, :, None] - shift[None]
    if kind == "circle":
        return np.asarray(np.hypot(q[:, 0], q[:, 1]))
    axis = np.stack((100 * change_of[2], 100 * change_of[3], np.ones(change_of.shape[1])))
    crossed = np.cross(q, axis[None], axis=1)
    return np.asarray(np.linalg.norm(crossed, axis=1) / np.linalg.norm(axis, axis=0))


@pytest.mark.parametrize(("kind", "size"), [("circle", 2), ("sphere", 3), ("cylinder", 4)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_round_zones_are_those_of_a_global_search(kind: str, size: int, seed: int) -> None:
    points, _ = cloud = cloud_of(kind, seed)
    widest = 3 * FORM_M
    ring = least(lambda c: np.ptp(away(kind, points, c), axis=0), size, widest)
    assert zoned(kind, cloud).form_m == pytest.approx(ring, abs=1e-8)
    outer = least(lambda c: away(kind, points, c).max(axis=0), size, widest)
    inner = -least(lambda c: -away(kind, points, c).min(axis=0), size, widest)
    for found, radius_m in ((gn(kind)(cloud), outer), (gx(kind)(cloud), inner)):
        assert isinstance(found.element, Circle | Cylinder | Sphere)
        assert found.element.radius_m == pytest.approx(radius_m, abs=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["circle", "cylinder"])
def test_the_best_of_several_places_is_found(kind: str) -> None:
    """60 clouds with waves: none may be wider than the global search finds it by more than a micrometre."""
    size = {"circle": 2, "cylinder": 4}[kind]
    for seed in range(100, 160):
        points, _ = cloud = cloud_of(kind, seed)
        ring = least(lambda c, points=points: np.ptp(away(kind, points, c), axis=0), size, 3 * FORM_M)  # type: ignore[misc]
        assert zoned(kind, cloud).form_m <= ring + 1e-6


def test_two_opposite_points_hold_a_circumscribed_circle() -> None:
    """Fewer touch than there are unknowns: curvature holds the rest."""
    turn = np.array([0.0, np.pi, 1.0, 2.0, 4.0, 5.0])
    radius = np.array([0.0061, 0.0061, 0.0060, 0.0060, 0.0060, 0.0060])
    points = np.stack((radius * np.cos(turn), radius * np.sin(turn), 0 * turn), axis=1)
    normals = points / radius[:, None]
    found = circumscribed(fitted("circle", (points, normals)), points, normals)
    np.testing.assert_allclose(change(found.element, Circle(ZERO, Z, 0.0061)), 0, atol=1e-7)
    assert found.gain[2] @ np.ones(6) == pytest.approx(1)
    np.testing.assert_allclose(found.gain[2, :2], 0.5, atol=1e-6)


@pytest.mark.parametrize("kind", NOMINAL)
def test_the_zone_holds_all_points_and_they_touch_both_sides(kind: str) -> None:
    found = zoned(kind, cloud_of(kind, 3, 300))
    assert found.residual_m.max() == pytest.approx(-found.residual_m.min(), abs=NANOMETRE)
    assert found.form_m == pytest.approx(2 * found.residual_m.max(), abs=NANOMETRE)
    touching = np.flatnonzero(np.abs(found.gain).max(axis=0))
    np.testing.assert_allclose(np.abs(found.residual_m[touching]), found.residual_m.max(), atol=NANOMETRE)
    assert found.form_m <= fitted(kind, cloud_of(kind, 3, 300)).form_m


FITS: dict[str, tuple[str, Callable[[Cloud], Associated]]] = {
    **{f"zone {kind}": (kind, lambda cloud, kind=kind: zoned(kind, cloud)) for kind in NOMINAL},  # type: ignore[misc]
    **{f"inscribed {kind}": (kind, gx(kind)) for kind in ("circle", "cylinder", "sphere")},
    **{f"circumscribed {kind}": (kind, gn(kind)) for kind in ("circle", "cylinder", "sphere")},
}


@pytest.mark.parametrize("name", FITS)
def test_gain_is_what_perturbed_points_do(name: str) -> None:
    """Monte Carlo, with measured normals that lean: small changes, so that the same points keep touching."""
    kind, fit = FITS[name]
    points, normals = cloud_of(kind, 5, 60)
    rng = np.random.default_rng(5)
    normals = normals + 0.2 * rng.normal(size=normals.shape)
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    found = fit((points, normals))
    for _ in range(4):
        lift_m = rng.normal(0, 1e-9, 60)
        local = change(fit((points + lift_m[:, None] * normals, normals)).element, found.element)
        told = np.abs(found.gain).max(axis=1) > 0
        scale = np.linalg.norm(found.gain, axis=1) * 1e-9
        assert (np.abs(local - found.gain @ lift_m)[told] < 0.02 * scale[told]).all()


@pytest.mark.parametrize("name", FITS)
def test_exact_points_have_no_form(name: str) -> None:
    kind, fit = FITS[name]
    found = fit(cloud_of(kind, 6, 200, form_m=0.0))
    assert found.form_m < NANOMETRE
    local = change(found.element, NOMINAL[kind])
    np.testing.assert_allclose(local[[1, 3]] if kind == "line" else local, 0, atol=1e-7)


def test_outliers_do_not_widen_a_robust_zone() -> None:
    points, normals = cloud_of("plane", 8, 300)
    points[:5, 2] += 5e-3
    robust = zone_plane(points, normals, None)
    assert robust.outliers == 5
    clean = zone_plane(points[5:], normals[5:], None, robust=False)
    assert robust.form_m == pytest.approx(clean.form_m, abs=NANOMETRE)
    assert zone_plane(points, normals, None, robust=False).form_m > 3e-3


def test_an_arc_holds_neither_an_inscribed_nor_a_circumscribed_circle() -> None:
    turn = np.linspace(0, 2.5, 60)
    normals = -np.stack((np.cos(turn), np.sin(turn), 0 * turn), axis=1)
    points = -0.006 * normals + 1e-5 * np.cos(9 * turn)[:, None] * normals
    found = fit_circle(points, normals, Z, None, Circle(ZERO, Z, 0.006))
    for size in (inscribed, circumscribed):
        with pytest.raises(DepthcellError, match="143 degrees of the circumference, needs more than 180") as refusal:
            size(found, points, normals)
        assert refusal.value.reason is Reason.NOT_MEASURED
    flat, up = cloud_of("plane", 1)
    with pytest.raises(DepthcellError, match="has no size"):
        inscribed(fit_plane(flat, up, None), flat, up)


def test_what_wanders_off_is_refused() -> None:
    """A half ring far lower than it is wide: its smallest circumscribed cylinder lies across it."""
    rng = np.random.default_rng(27)
    turn, height = rng.uniform(0, 3.5, 30), rng.uniform(-0.002, 0.002, 30)
    normals = np.stack((np.cos(turn), np.sin(turn), 0 * turn), axis=1)
    points = (0.03 + rng.normal(0, 1e-4, 30))[:, None] * normals + height[:, None] * Z
    found = fit_cylinder(points, normals, None, Cylinder(ZERO, Z, 0.03), robust=False)
    with pytest.raises(DepthcellError, match="the points do not hold it") as refusal:
        circumscribed(found, points, normals)
    assert refusal.value.reason is Reason.NOT_MEASURED


def turned_datum(index: int, angle: float) -> np.ndarray:
    """The z axis turned about one of the three by a small angle."""
    return np.asarray(Z + angle * np.cross(np.eye(3)[index], Z))


@given(seed=st.integers(0, 100_000), degrees=st.sampled_from([90.0, 60.0]))
@settings(max_examples=15, deadline=None)
def test_oriented_plane_zone_is_the_best_turn_about_the_datum(seed: int, degrees: float) -> None:
    rng, angle = np.random.default_rng(seed), np.radians(degrees)
    points = np.stack((rng.normal(0, 2e-5, 30), rng.uniform(0, 0.03, 30), rng.uniform(0, 0.02, 30)), axis=1)
    tilt = np.array([[np.sin(angle), 0, np.cos(angle)], [0, 1, 0], [-np.cos(angle), 0, np.sin(angle)]])
    points = points @ tilt.T @ np.diag([1.0, 1.0, -1.0]) if degrees < 90 else points
    normal = np.array([np.sin(angle), 0, np.cos(angle)])
    zone = zone_between_planes(points, Plane(points.mean(axis=0), normal), Z, angle)
    turns = np.linspace(-0.02, 0.02, 4001)
    normals = np.stack((np.sin(angle) * np.cos(turns), np.sin(angle) * np.sin(turns), np.full(4001, np.cos(angle))))
    widths = np.ptp(points @ normals, axis=0)
    assert zone.width_m == pytest.approx(widths.min(), abs=3e-7)
    assert zone.width_m <= widths.min() + NANOMETRE
    assert isinstance(zone.middle, Plane)
    assert zone.middle.normal @ Z == pytest.approx(np.cos(angle), abs=1e-12)


def test_a_parallel_zone_is_the_range_along_the_datum() -> None:
    points, _ = cloud_of("plane", 9, 200)
    datum = np.array([0.01, 0.02, 1.0])
    along = points @ (datum / np.linalg.norm(datum))
    for start in (Z, -Z):
        zone = zone_between_planes(points, Plane(ZERO, start), datum, 0.0)
        assert zone.width_m == pytest.approx(np.ptp(along), abs=NANOMETRE)
        assert set(zone.touching) == {int(np.argmax(along)), int(np.argmin(along))}


def axis_points(seed: int = 2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack((rng.normal(0, 2e-5, 10), rng.normal(0, 2e-5, 10), np.linspace(0, 0.03, 10)), axis=1)


def test_an_axis_zone_is_the_smallest_circle_around_it() -> None:
    points = axis_points()
    zone = zone_within_cylinder(points, Line(ZERO, Z), Z)
    fits = [
        r for c, r in circles_through(points[:, :2]) if np.linalg.norm(points[:, :2] - c, axis=1).max() <= r + 1e-15
    ]
    assert zone.width_m == pytest.approx(2 * min(fits), abs=NANOMETRE)
    ends = zone_within_cylinder(points[[0, -1]], Line(ZERO, Z), Z)
    assert ends.width_m == pytest.approx(np.linalg.norm((points[0] - points[-1])[:2]), abs=NANOMETRE)


def test_a_free_axis_zone_is_no_wider() -> None:
    points = axis_points()
    free, held = (zone_within_cylinder(points, Line(ZERO, Z), datum) for datum in (None, Z))
    assert free.width_m < held.width_m

    def diameter(c: np.ndarray) -> np.ndarray:
        return np.asarray(2 * away("cylinder", points - np.array([0, 0, 0.015]), c).max(axis=0))

    assert free.width_m == pytest.approx(least(diameter, 4, 1e-4), abs=1e-8)


LEANT = np.array([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]])
ZONES: dict[str, Callable[[np.ndarray, np.ndarray], Zone]] = {
    "face square": lambda points, datum: zone_between_planes(
        points[:, [2, 1, 0]] + 5 * points[:, [1, 2, 0]], Plane(ZERO, X), datum, np.pi / 2
    ),
    "face parallel": lambda points, datum: zone_between_planes(points, Plane(ZERO, Z), datum, 0.0),
    "axis square": lambda points, datum: zone_within_cylinder(points, Line(ZERO, Z), datum, 0.0),
    "axis at an angle": lambda points, datum: zone_within_cylinder(
        points @ LEANT.T, Line(ZERO, LEANT @ Z), datum, np.arccos(0.8)
    ),
}


@pytest.mark.parametrize("name", ZONES)
def test_a_zones_width_answers_to_points_and_datum(name: str) -> None:
    make, points = ZONES[name], axis_points(5)
    zone = make(points, Z)
    by_turn = [
        (make(points, turned_datum(k, 1e-7)).width_m - make(points, turned_datum(k, -1e-7)).width_m) / 2e-7
        for k in range(3)
    ]
    np.testing.assert_allclose(zone.turn, by_turn, atol=2e-5)
    np.testing.assert_allclose(zone.pull.sum(axis=0), 0, atol=1e-3)


def test_a_zones_width_answers_to_each_point() -> None:
    points = axis_points(5)
    for zone_of in (ZONES["face parallel"], ZONES["axis square"]):
        zone = zone_of(points, Z)
        for place, index in enumerate(zone.touching):
            for k in range(3):
                step = np.zeros_like(points)
                step[index, k] = 1e-9
                slope = (zone_of(points + step, Z).width_m - zone_of(points - step, Z).width_m) / 2e-9
                assert zone.pull[place, k] == pytest.approx(slope, abs=5e-3)


def test_zones_of_nothing_are_refused() -> None:
    with pytest.raises(DepthcellError, match="no point") as refusal:
        zone_between_planes(np.zeros((0, 3)), Plane(ZERO, Z), Z, 0.0)
    assert refusal.value.reason is Reason.NOT_MEASURED
    with pytest.raises(DepthcellError, match=r"needs points \(N, 3\)"):
        zone_within_cylinder(np.zeros(3), Line(ZERO, Z), Z)
