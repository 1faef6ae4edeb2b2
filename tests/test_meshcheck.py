"""Flaws of a reference mesh: each is made on purpose and refused with its count and place; a sound mesh passes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from stagedpart import RECIPE, plate_cell, plate_mesh

from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.simulator.partmesh import save_stl
from depthcell.acquisition.simulator.parts import PartKind, build_part
from depthcell.errors import DepthcellError
from depthcell.fusion.meshcheck import Flaw, check_mesh, check_unit, first_flaw
from depthcell.inspect.observation import Observer
from depthcell.inspect.recipe import Recipe

Mesh = tuple[NDArray[np.float64], NDArray[np.int64]]


def ball(level: int = 2) -> Mesh:
    """Radius 20 mm."""
    mesh = open3d().geometry.TriangleMesh.create_icosahedron(0.02).subdivide_loop(level)
    return np.asarray(mesh.vertices), np.asarray(mesh.triangles).astype(np.int64)


def hole(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> Mesh:
    return vertices, faces[1:]


def doubled_face(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> Mesh:
    return vertices, np.concatenate((faces, faces[:1]))


def turned_face(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> Mesh:
    return vertices, np.concatenate((faces[:1, ::-1], faces[1:]))


def second_shell(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> Mesh:
    return np.concatenate((vertices, 0.1 * vertices + (0.0, 0.0, 0.1))), np.concatenate((faces, faces + len(vertices)))


def pushed_through(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> Mesh:
    moved = vertices.copy()
    moved[0] = -1.5 * moved[0]
    return moved, faces


@pytest.mark.parametrize("part", list(PartKind))
def test_our_own_parts_are_sound(part: PartKind) -> None:
    mesh = build_part(part).mesh
    assert first_flaw(mesh.vertices_m, mesh.triangles) is None


@pytest.mark.parametrize(
    ("damage", "kind", "count"),
    [
        (hole, Flaw.OPEN, 3),
        (doubled_face, Flaw.NON_MANIFOLD, 3),
        (turned_face, Flaw.TURNED, 3),
        (second_shell, Flaw.SHELLS, 2),
    ],
)
def test_each_flaw_is_counted_and_placed(damage: Callable[..., Mesh], kind: Flaw, count: int) -> None:
    vertices, faces = ball()
    flaw = first_flaw(*damage(vertices, faces))
    assert flaw is not None
    assert (flaw.kind, flaw.count) == (kind, count)
    where_mm = 1e3 * (vertices[faces[0]] if kind is not Flaw.SHELLS else np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.1]]))
    assert np.linalg.norm(where_mm - flaw.place_mm, axis=1).min() < 4.0


def test_a_crossing_is_found_where_it_is() -> None:
    vertices, faces = ball()
    flaw = first_flaw(*pushed_through(vertices, faces))
    assert flaw is not None
    assert flaw.kind is Flaw.CROSSING
    # The spike leaves the ball opposite of where its tip was.
    away_mm = np.array(flaw.place_mm) + 1e3 * vertices[0]
    assert np.linalg.norm(away_mm) < 8.0


@given(seed=st.integers(0, 10_000), share=st.floats(0.0, 0.25))
def test_crossings_agree_with_testing_every_pair(seed: int, share: float) -> None:
    vertices, faces = ball(1)
    rng = np.random.default_rng(seed)
    moved = vertices * (1 + share * rng.standard_normal((len(vertices), 1))) + 0.3 * share * 0.02 * rng.standard_normal(
        vertices.shape
    )
    o3d = open3d()
    slow = o3d.geometry.TriangleMesh(o3d.utility.Vector3dVector(moved), o3d.utility.Vector3iVector(faces))
    assert (first_flaw(moved, faces) is not None) == slow.is_self_intersecting()


def test_walls_that_only_touch_do_not_cross() -> None:
    o3d = open3d()
    low = o3d.geometry.TriangleMesh.create_box(0.02, 0.02, 0.01)
    high = o3d.geometry.TriangleMesh.create_box(0.01, 0.01, 0.01).translate((0.005, 0.005, 0.01))
    vertices = np.concatenate((np.asarray(low.vertices), np.asarray(high.vertices)))
    faces = np.concatenate((np.asarray(low.triangles), np.asarray(high.triangles) + 8)).astype(np.int64)
    flaw = first_flaw(vertices, faces)
    assert flaw is not None
    assert flaw.kind is Flaw.SHELLS  # and not a crossing


def test_the_refusal_says_what_to_do() -> None:
    with pytest.raises(
        DepthcellError, match=r"mesh ball\.stl: 3 open edges, the first at \(.* mm; close it in the CAD program"
    ):
        check_mesh(*hole(*ball()), "mesh ball.stl")


@pytest.mark.parametrize(
    ("extent_m", "words"),
    [(0.096 / 25.4, "may be inches"), (0.096e-3, "may be metres"), (0.0005, "set mesh_unit, or make the region")],
)
def test_a_mesh_too_small_for_its_region_is_in_another_unit(extent_m: float, words: str) -> None:
    with pytest.raises(DepthcellError, match=words):
        check_unit(extent_m, 0.102, "mesh")


def test_a_region_on_a_large_part_is_none_of_that() -> None:
    check_unit(1.0, 0.03, "mesh")
    check_unit(0.096, 0.102, "mesh")


def test_a_recipe_whose_mesh_is_in_inches_is_refused_by_name(tmp_path: Path) -> None:
    mesh = plate_mesh()
    save_stl(tmp_path / "plate.stl", mesh.with_vertices(mesh.vertices_m / 20))  # 2.5 mm, so that its size alone passes
    (tmp_path / "recipe.toml").write_text(RECIPE)
    with pytest.raises(DepthcellError, match=r"recipe 'plate': reference\.mesh: is 2\.5 mm large, .* may be inches"):
        Observer(Recipe.load(tmp_path / "recipe.toml"), plate_cell())
