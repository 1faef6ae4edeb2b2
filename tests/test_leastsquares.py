"""Least-squares elements: exact geometry, an independent optimiser, outliers, sensitivities, refusals."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy.spatial.transform import Rotation

from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.association.changes import change, moved
from depthcell.fusion.association.elements import Associated, Circle, Cylinder, Element, Line, Plane, Sphere, across
from depthcell.fusion.association.leastsquares import fit_circle, fit_cylinder, fit_line, fit_plane, fit_sphere
from depthcell.fusion.association.misfit import Surface, misfit

KINDS = ("plane", "line", "circle", "cylinder", "sphere")
ROUND = ("circle", "cylinder", "sphere")
Cloud = tuple[np.ndarray, np.ndarray]


def surface_points(kind: str, rng: np.random.Generator, count: int = 200, side: float = -1.0) -> Cloud:
    """Points and outward normals of a surface at the origin, along z; `side` -1 for a bore or a dimple."""
    turn, height = rng.uniform(0, 2 * np.pi, count), rng.uniform(-0.01, 0.01, count)
    away = np.stack((np.cos(turn), np.sin(turn), np.zeros(count)), axis=1)
    up = np.array([0.0, 0.0, 1.0])
    match kind:
        case "plane":
            return rng.uniform(-1, 1, (count, 3)) * np.array([0.05, 0.03, 0.0]), np.tile(up, (count, 1))
        case "line":
            return rng.uniform(-1, 1, (count, 3)) * np.array([0.05, 0.0005, 0.0]), np.tile(up, (count, 1))
        case "sphere":
            away = rng.normal(size=(count, 3))
            away /= np.linalg.norm(away, axis=1)[:, None]
            return 0.006 * away, side * away
        case _:
            flat = 0.1 if kind == "circle" else 1.0
            return 0.006 * away + flat * height[:, None] * up, side * away


def nominal(kind: str) -> Element:
    z, x, zero = np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0]), np.zeros(3)
    elements: dict[str, Element] = {
        "plane": Plane(zero, z),
        "line": Line(zero, x),
        "circle": Circle(zero, z, 0.006),
        "cylinder": Cylinder(zero, z, 0.006),
        "sphere": Sphere(zero, 0.006),
    }
    return elements[kind]


def fitted(kind: str, cloud: Cloud, sigma_m: np.ndarray | None = None, robust: bool = True) -> Associated:
    points, normals = cloud
    start = nominal(kind)
    if isinstance(start, Cylinder):
        lean = np.array([0.0, 0.0, 0.02, -0.01, 0.0])
        return fit_cylinder(points, normals, sigma_m, moved(start, lean), robust=robust)
    if isinstance(start, Circle):
        return fit_circle(points, normals, start.axis, sigma_m, start, robust=robust)
    if isinstance(start, Sphere):
        return fit_sphere(points, normals, sigma_m, start, robust=robust)
    if isinstance(start, Line):
        return fit_line(points, normals, start.direction, np.array([0.0, 0.0, 1.0]), sigma_m, robust=robust)
    return fit_plane(points, normals, sigma_m, robust=robust)


def noisy(cloud: Cloud, lift_m: np.ndarray) -> Cloud:
    return cloud[0] + lift_m[:, None] * cloud[1], cloud[1]


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10_000), robust=st.booleans())
@settings(max_examples=15, deadline=None)
def test_exact_points_give_the_element_within_a_nanometre(kind: str, seed: int, robust: bool) -> None:
    rng = np.random.default_rng(seed)
    points, normals = surface_points(kind, rng, 60)
    offset = rng.uniform(-1, 1, 3) * 1e-3
    found = fitted(kind, (points + offset, normals), robust=robust)
    local = change(found.element, nominal(kind))
    along = offset - (offset @ np.eye(3)[2]) * np.eye(3)[2]
    expected = {
        "plane": np.array([offset[2], 0, 0]),
        "line": np.array([offset @ across(np.eye(3)[0])[1], 0.0]),
        "circle": np.array([*(np.array(across(np.eye(3)[2])) @ along), 0.0]),
        "cylinder": np.array([*(np.array(across(np.eye(3)[2])) @ along), 0.0, 0.0, 0.0]),
        "sphere": np.array([*offset, 0.0]),
    }[kind]
    np.testing.assert_allclose(local[[1, 3]] if kind == "line" else local, expected, atol=1e-9)
    assert found.form_m < 1e-9
    assert found.outliers == 0
    assert len(found.used) == 60


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_a_turned_plane_turns_the_fit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cloud = noisy(surface_points("plane", rng), rng.normal(0, 2e-5, 200))
    turned = Rotation.from_rotvec(rng.normal(size=3)).as_matrix()
    first, second = fit_plane(*cloud, None), fit_plane(cloud[0] @ turned.T, cloud[1] @ turned.T, None)
    assert isinstance(first.element, Plane)
    assert isinstance(second.element, Plane)
    np.testing.assert_allclose(second.element.normal, turned @ first.element.normal, atol=1e-9)
    np.testing.assert_allclose(second.residual_m, first.residual_m, atol=1e-10)


def total_least_squares(kind: str, cloud: Cloud, sigma_m: np.ndarray) -> np.ndarray:
    """Slow twin: `scipy.optimize.least_squares` with derivatives by differences, in local coordinates of nominal."""
    start = nominal(kind)
    size = {"plane": 3, "cylinder": 5, "sphere": 4}[kind]

    def residual(local: np.ndarray) -> np.ndarray:
        surface = moved(start, local)
        assert isinstance(surface, Surface)
        return np.asarray(misfit(surface, cloud[0], -1.0).residual_m / sigma_m)

    settings_ = {"jac": "3-point", "xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15}
    solved = optimize.least_squares(residual, np.zeros(size), **settings_)  # type: ignore[operator]
    return np.asarray(solved.x)


@pytest.mark.parametrize("kind", ["plane", "cylinder", "sphere"])
def test_weighted_fit_is_that_of_an_independent_optimiser(kind: str) -> None:
    rng = np.random.default_rng(7)
    sigma_m = rng.uniform(1.5e-5, 3e-5, 200)
    cloud = noisy(surface_points(kind, rng), rng.normal(0, 1, 200) * sigma_m)
    found = change(fitted(kind, cloud, sigma_m, robust=False).element, nominal(kind))
    np.testing.assert_allclose(found, total_least_squares(kind, cloud, sigma_m), atol=2e-9)


def test_plane_is_across_the_least_scatter() -> None:
    rng = np.random.default_rng(2)
    cloud = noisy(surface_points("plane", rng), rng.normal(0, 5e-4, 200))
    found = fit_plane(*cloud, None, robust=False).element
    assert isinstance(found, Plane)
    across_it = np.linalg.svd(cloud[0] - cloud[0].mean(axis=0))[2][2]
    assert abs(across_it @ found.normal) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(found.point, cloud[0].mean(axis=0), atol=1e-12)


@pytest.mark.parametrize("kind", ROUND)
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_residuals_are_positive_out_of_the_material(kind: str, side: float) -> None:
    rng = np.random.default_rng(3)
    cloud = surface_points(kind, rng, 200, side)
    lift_m = rng.normal(0, 2e-5, 200)
    found = fitted(kind, noisy(cloud, lift_m))
    assert np.corrcoef(found.residual_m, lift_m[found.used])[0, 1] > 0.9
    grown = fitted(kind, noisy(cloud, np.full(200, 1e-4)))
    assert not isinstance(grown.element, Plane | Line)
    assert grown.element.radius_m == pytest.approx(0.006 + side * 1e-4, abs=1e-9)


@pytest.mark.parametrize("robust", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_gain_is_what_perturbed_points_do(kind: str, robust: bool) -> None:
    """Monte Carlo: points moved along their measured normals, which lean off the surface's; the fit done again."""
    rng = np.random.default_rng(11)
    count = 400
    points, normals = noisy(surface_points(kind, rng, count), rng.normal(0, 1e-6, count))
    leant = normals + 0.2 * rng.normal(size=(count, 3))
    leant /= np.linalg.norm(leant, axis=1)[:, None]
    sigma_m = np.full(count, 2e-6)
    found = fitted(kind, (points, leant), sigma_m, robust)
    for _ in range(5):
        lift_m = rng.normal(0, 1e-9, count)
        again = fitted(kind, noisy((points, leant), lift_m), sigma_m, robust)
        local, expected = change(again.element, found.element), found.gain @ lift_m[found.used]
        told = np.abs(found.gain).max(axis=1) > 0
        scale = np.linalg.norm(found.gain, axis=1) * 1e-9
        assert (np.abs(local - expected)[told] < 0.02 * scale[told]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_scatter_over_many_clouds_is_that_of_the_gain(kind: str) -> None:
    """GUM supplement 1 in small: 200 clouds, noise of 20 um, weights by it; standard deviations within 17 %."""
    rng = np.random.default_rng(13)
    cloud, sigma_m = surface_points(kind, rng), np.full(200, 2e-5)
    locals_ = [
        change(fitted(kind, noisy(cloud, rng.normal(0, 2e-5, 200)), sigma_m).element, nominal(kind)) for _ in range(200)
    ]
    u = np.linalg.norm(fitted(kind, cloud, sigma_m).gain, axis=1) * 2e-5
    told = u > 0
    np.testing.assert_allclose(np.std(locals_, axis=0)[told], u[told], rtol=0.17)


@pytest.mark.parametrize("kind", KINDS)
def test_outliers_are_left_out_and_counted(kind: str) -> None:
    rng = np.random.default_rng(17)
    lift_m = rng.normal(0, 2e-5, 200)
    lift_m[:30] += rng.uniform(5e-4, 2e-3, 30)
    cloud = noisy(surface_points(kind, rng), lift_m)
    for sigma_m in (None, np.full(200, 2e-5)):
        robust, plain = fitted(kind, cloud, sigma_m), fitted(kind, cloud, sigma_m, robust=False)
        assert robust.outliers >= 30
        assert robust.outliers + len(robust.used) == 200
        assert not np.isin(np.arange(30), robust.used).any()
        assert plain.outliers == 0
        off = [np.abs(change(found.element, nominal(kind))).max() for found in (robust, plain)]
        assert off[0] < 0.35 * off[1]


def test_a_few_sure_points_do_not_take_over() -> None:
    rng = np.random.default_rng(19)
    points, normals = surface_points("plane", rng)
    points[:3, 2] += 5e-5
    sigma_m = np.full(200, 5e-5)
    sigma_m[:3] = 1e-8
    found = fit_plane(points, normals, sigma_m, robust=False).element
    assert isinstance(found, Plane)
    assert found.distance(points[3:]).mean() == pytest.approx(0, abs=1e-5)


@given(turn=st.floats(-0.15, 0.15), shift=st.floats(-2e-3, 2e-3), growth=st.floats(-2e-3, 2e-3))
@settings(max_examples=25, deadline=None)
def test_a_rough_start_is_enough(turn: float, shift: float, growth: float) -> None:
    cloud = surface_points("cylinder", np.random.default_rng(1))
    start = moved(nominal("cylinder"), np.array([shift, -shift, turn, turn, growth]))
    assert isinstance(start, Cylinder)
    found = fit_cylinder(*cloud, None, start)
    np.testing.assert_allclose(change(found.element, nominal("cylinder")), 0, atol=1e-8)


def test_the_axis_points_as_the_start_does() -> None:
    cloud = surface_points("cylinder", np.random.default_rng(1))
    for way in (1.0, -1.0):
        axis = np.array([0.05, 0.0, way])
        found = fit_cylinder(*cloud, None, Cylinder(np.zeros(3), axis / np.linalg.norm(axis), 0.006)).element
        assert isinstance(found, Cylinder)
        assert found.axis[2] == pytest.approx(way)


@pytest.mark.parametrize(
    ("fit", "words"),
    [
        (lambda p, n: fit_plane(p[:2], n[:2], None), "plane: 2 points, needs at least 3"),
        (lambda p, n: fit_plane(p * np.array([1.0, 0, 0]), n, None), "plane: the points lie on a line"),
        (lambda p, n: fit_line(p * 0, n, np.eye(3)[0], np.eye(3)[2]), "line: the points lie at one place"),
        (lambda p, n: fit_sphere(p[:3], n[:3], None, Sphere(np.zeros(3), 1.0)), "sphere: 3 points"),
    ],
)
def test_what_points_do_not_determine_is_refused(fit: Callable[[np.ndarray, np.ndarray], object], words: str) -> None:
    points, normals = surface_points("plane", np.random.default_rng(1))
    with pytest.raises(DepthcellError, match=words) as refusal:
        fit(points, normals)
    assert refusal.value.reason is Reason.NOT_MEASURED


def test_short_arcs_are_refused() -> None:
    turn = np.linspace(-0.01, 0.01, 50)
    away = np.stack((np.cos(turn), np.sin(turn), np.zeros(50)), axis=1)
    circle = Circle(np.zeros(3), np.array([0.0, 0.0, 1.0]), 0.006)
    with pytest.raises(DepthcellError, match="circle: the points cover too short an arc"):
        fit_circle(0.006 * away, -away, circle.axis, None, circle)
    points = 0.006 * away + np.linspace(0, 0.01, 50)[:, None] * np.array([0.0, 0.0, 1.0])
    with pytest.raises(DepthcellError, match="cylinder: "):
        fit_cylinder(points, -away, None, Cylinder(circle.centre, circle.axis, 0.006))


def test_shapes_that_do_not_fit_are_refused() -> None:
    points, normals = surface_points("plane", np.random.default_rng(1))
    with pytest.raises(DepthcellError, match="needs points and normals"):
        fit_plane(points, normals[:-1], None)
    with pytest.raises(DepthcellError, match="sigma_m must be 200 positive values"):
        fit_plane(points, normals, np.zeros(200))
