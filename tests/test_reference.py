"""The reference: its distance field against exact distances, and every mesh it must refuse."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from depthcell.acquisition.simulator.partmesh import PartMesh, save_stl
from depthcell.acquisition.simulator.parts import load_part
from depthcell.errors import DepthcellError
from depthcell.fusion import distancefield
from depthcell.fusion.reference import Reference

BOX_M = np.array([0.06, 0.04, 0.02])


def box(size_m: np.ndarray = BOX_M) -> PartMesh:
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * size_m
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    triangles = [(a, b, c) for a, b, c, _ in quads] + [(a, c, d) for a, _, c, d in quads]
    return PartMesh(corners, np.array(triangles, np.int32))


def box_distance_m(points: np.ndarray) -> np.ndarray:
    """Signed distance from the box, by formula."""
    beyond = np.abs(points - BOX_M / 2) - BOX_M / 2
    return np.asarray(np.linalg.norm(np.maximum(beyond, 0), axis=1) + np.minimum(beyond.max(axis=1), 0))


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(distancefield, "NODES", 400_000)
        yield


@pytest.fixture(scope="module")
def cube() -> Reference:
    mesh = box()
    return Reference(mesh.vertices_m, mesh.triangles)


@pytest.fixture(scope="module")
def bracket() -> Reference:
    mesh = load_part("bracket").mesh
    return Reference(mesh.vertices_m, mesh.triangles)


def test_distances_of_a_box_are_those_of_its_formula(cube: Reference) -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform(-0.009, BOX_M + 0.009, (20_000, 3))
    expected, found = box_distance_m(points), cube.signed_distance(points)
    # Away from edges and from the middle of the box, where its faces take over from each other, the field is linear.
    depth_below = np.sort(BOX_M / 2 - np.abs(points - BOX_M / 2), axis=1)  # below each pair of faces, nearest first
    flat = (np.abs(expected) < 0.003) & (depth_below[:, 1] - np.abs(depth_below[:, 0]) > 3 * cube.spacing_m)
    assert flat.sum() > 3000
    assert np.abs(found - expected)[flat].max() < 2e-6
    near = np.abs(expected) < 0.003
    assert np.abs(found - expected)[near].max() < 0.4 * cube.spacing_m
    assert ((found > 0) == (expected > 0))[np.abs(expected) > 0.3 * cube.spacing_m].all()


def test_exact_distances_are_exact(cube: Reference) -> None:
    points = np.random.default_rng(2).uniform(-0.02, BOX_M + 0.02, (5000, 3))
    np.testing.assert_allclose(cube.exact_signed_distance(points), box_distance_m(points), atol=1e-7)


def test_near_a_real_part_the_field_is_as_good_as_stated(bracket: Reference) -> None:
    rng = np.random.default_rng(3)
    samples = bracket.surface_samples(0.001)
    points = samples.points_part + rng.normal(0, 3e-4, samples.points_part.shape)
    error_m = np.abs(bracket.signed_distance(points) - bracket.exact_signed_distance(points))
    assert np.median(error_m) < 1e-6
    assert np.quantile(error_m, 0.99) < 0.25 * bracket.spacing_m
    assert error_m.max() < 0.4 * bracket.spacing_m


def test_the_gradient_is_the_slope_of_the_distance(bracket: Reference) -> None:
    rng = np.random.default_rng(4)
    samples = bracket.surface_samples(0.002)
    points = samples.points_part + rng.normal(0, 5e-4, samples.points_part.shape)
    distance_m, gradient = bracket.signed_distance_and_gradient(points)
    np.testing.assert_array_equal(distance_m, bracket.signed_distance(points))
    step_m = 1e-7
    for axis in range(3):
        shifted = points + step_m * np.eye(3)[axis]
        slope = (bracket.signed_distance(shifted) - distance_m) / step_m
        assert np.quantile(np.abs(slope - gradient[:, axis]), 0.98) < 0.02
    length = np.linalg.norm(gradient, axis=1)
    assert np.quantile(np.abs(length - 1), 0.7) < 1e-3
    outward = np.einsum("ij,ij->i", gradient, samples.normals_part)
    assert np.mean(outward > 0.9) > 0.85


def test_far_away_it_overstates_and_never_understates(cube: Reference) -> None:
    points = np.random.default_rng(5).uniform(-0.2, 0.2, (5000, 3))
    far = box_distance_m(points) > 0.03
    assert far.any()
    excess_m = cube.signed_distance(points[far]) - box_distance_m(points[far])
    assert excess_m.min() > -1e-4
    assert excess_m.max() < 0.02


def test_samples_cover_the_surface_evenly(bracket: Reference) -> None:
    samples = bracket.surface_samples(0.001)
    a, b, c = np.moveaxis(bracket.vertices_part[bracket.triangles], 1, 0)
    area_m2 = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    assert samples.area_m2.sum() == pytest.approx(area_m2, rel=1e-6)
    assert len(samples.points_part) == pytest.approx(area_m2 / 1e-6, rel=0.01)
    assert np.abs(bracket.exact_signed_distance(samples.points_part)).max() < 1e-6
    # The top's share of the samples is its share of the area.
    share = np.mean(samples.normals_part[:, 2] > 0.9)
    up = np.cross(b - a, c - a)
    expected = up[up[:, 2] > 0.9 * np.linalg.norm(up, axis=1)]
    assert share == pytest.approx(np.linalg.norm(expected, axis=1).sum() / 2 / area_m2, rel=0.02)
    np.testing.assert_array_equal(samples.points_part, bracket.surface_samples(0.001).points_part)


def test_a_camera_sees_what_faces_it_and_is_not_hidden() -> None:
    low, tall = box(), box(np.array([0.02, 0.04, 0.06]))
    shifted = PartMesh(tall.vertices_m + np.array([0.061, 0, 0]), tall.triangles + len(low.vertices_m))
    both = Reference(
        np.concatenate((low.vertices_m, shifted.vertices_m)), np.concatenate((low.triangles, shifted.triangles))
    )
    points = np.array([[0.03, 0.02, 0.02], [0.03, 0.02, 0.0], [0.055, 0.02, 0.02], [0.07, 0.02, 0.06]])
    normals = np.array([[0, 0, 1.0], [0, 0, -1.0], [0, 0, 1.0], [0, 0, 1.0]])
    assert both.visible(points, normals, np.array([0.0, 0.02, 0.3])).tolist() == [True, False, True, True]
    # From the far side, the tall block hides the low one's top near it.
    assert both.visible(points, normals, np.array([0.3, 0.02, 0.09])).tolist() == [False, False, False, True]


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1e-3), ("m", 1.0), ("inch", 0.0254)])
def test_a_file_is_read_in_its_unit(tmp_path: Path, unit: str, factor: float) -> None:
    mesh = box(np.array([0.06, 0.04, 0.02]) / factor)  # numbers as they stand in the file
    path = tmp_path / "box.stl"
    save_stl(path, PartMesh(mesh.vertices_m * 1e-3, mesh.triangles))  # writes numbers in mm
    reference = Reference.load(path, unit)
    lower, upper = reference.bounds_part
    np.testing.assert_allclose(upper - lower, BOX_M, rtol=1e-6)
    assert reference.sha256 == Reference.load(path, unit).sha256


def test_unusable_meshes_are_refused_by_name(tmp_path: Path) -> None:
    mesh = box()
    path = tmp_path / "part.stl"
    save_stl(path, mesh)
    with pytest.raises(DepthcellError, match=r"part\.stl: is 6e\+04 mm large if its numbers are in m"):
        Reference.load(path, "m")
    save_stl(path, PartMesh(mesh.vertices_m, mesh.triangles[:-1]))
    with pytest.raises(DepthcellError, match=r"part\.stl: 3 open edges, the first at \("):
        Reference.load(path, "mm")
    path.write_bytes(b"")
    with pytest.raises(DepthcellError, match=r"part\.stl"):
        Reference.load(path, "mm")
    with pytest.raises(DepthcellError, match="no such file"):
        Reference.load(tmp_path / "absent.stl", "mm")
    with pytest.raises(DepthcellError, match="unknown kind"):
        Reference.load(tmp_path / "part.iges", "mm")
    with pytest.raises(DepthcellError, match="does not say its unit; write mesh_unit"):
        Reference.load(path, None)


def test_the_field_is_kept_and_a_damaged_one_is_built_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(distancefield, "WORTH_KEEPING_S", 0.0)
    monkeypatch.setattr(distancefield, "NODES", 30_000)
    mesh, asked = box(), []
    exact = Reference.exact_signed_distance

    def counted(self: Reference, points: np.ndarray) -> np.ndarray:
        asked.append(len(points))
        return exact(self, points)

    monkeypatch.setattr(Reference, "exact_signed_distance", counted)
    points = np.random.default_rng(6).uniform(0, BOX_M, (100, 3))
    first = Reference(mesh.vertices_m, mesh.triangles).signed_distance(points)
    built = len(asked)
    np.testing.assert_array_equal(Reference(mesh.vertices_m, mesh.triangles).signed_distance(points), first)
    assert len(asked) == built  # from the cache
    (kept,) = (tmp_path / "depthcell").iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    np.testing.assert_array_equal(Reference(mesh.vertices_m, mesh.triangles).signed_distance(points), first)
    assert len(asked) > built
    bigger = Reference(mesh.vertices_m * 1.1, mesh.triangles)
    assert bigger.signed_distance(points).min() < first.min()  # another mesh, another field


def test_without_a_place_to_keep_it_the_field_still_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "depthcell").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(distancefield, "WORTH_KEEPING_S", 0.0)
    monkeypatch.setattr(distancefield, "NODES", 30_000)
    mesh = box()
    assert Reference(mesh.vertices_m, mesh.triangles).signed_distance(BOX_M[None] / 2)[0] < 0
