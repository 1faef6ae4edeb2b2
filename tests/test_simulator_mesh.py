"""Meshes of simulated parts: closed, of the size the drawing says, read back from files, refined without a crack."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.simulator.partmesh import (
    PartMesh,
    load_part_mesh,
    open_edge_count,
    refined_in_ball,
    refined_where,
    save_stl,
)
from depthcell.acquisition.simulator.parts import PartKind, build_part, load_part
from depthcell.errors import DepthcellError

CORNER = 4 - np.pi  # a square corner less its rounding, over radius²


def cube(side_m: float = 0.02) -> PartMesh:
    box = open3d().geometry.TriangleMesh.create_box(side_m, side_m, side_m)
    return PartMesh(np.asarray(box.vertices).copy(), np.asarray(box.triangles).astype(np.int32))


@pytest.mark.parametrize("kind", list(PartKind))
def test_each_part_is_closed_and_of_the_size_of_a_hand(kind: PartKind) -> None:
    part = build_part(kind)
    assert open_edge_count(part.mesh) == 0
    assert part.mesh.volume_m3 > 0
    extent_mm = (part.mesh.max_m - part.mesh.min_m) * 1e3
    assert 60 <= extent_mm.max() <= 125
    assert abs(part.mesh.min_m[2]) < 1e-5  # it rests on its foot


def test_bracket_has_the_volume_of_its_drawing() -> None:
    plate = (96 * 64 - CORNER * 25) * 12
    rib, boss = (84 * 6 - CORNER) * 10, np.pi * 15**2 * 5
    pocket = (18 * 34 - CORNER * 16) * 4
    bores = np.pi * 7**2 * 17 + 2 * np.pi * 4.5**2 * 12
    expected_mm3 = plate + rib + boss - pocket - bores
    assert build_part(PartKind.BRACKET).mesh.volume_m3 * 1e9 == pytest.approx(expected_mm3, rel=5e-4)


def test_shaft_has_the_volume_of_its_drawing() -> None:
    def cone(length: float, r: float, s: float) -> float:
        return np.pi * length * (r * r + r * s + s * s) / 3

    cylinders = np.pi * (28 * 15**2 + 34 * 20**2 + 5 * 17.5**2 + 25 * 20**2 + 24 * 14**2)
    expected_mm3 = cylinders + cone(2, 13, 15) + cone(2, 14, 12)
    assert build_part(PartKind.SHAFT).mesh.volume_m3 * 1e9 == pytest.approx(expected_mm3, rel=2e-3)


@pytest.mark.parametrize("kind", [PartKind.BRACKET, PartKind.FLANGE, PartKind.SHEET])
def test_an_undrilled_bore_adds_its_cylinder(kind: PartKind) -> None:
    part = build_part(kind)
    for bore in part.bores:
        undrilled = part.mesh_without(bore)
        assert open_edge_count(undrilled) == 0
        added_mm3 = (undrilled.volume_m3 - part.mesh.volume_m3) * 1e9
        cylinder_mm3 = np.pi * (bore.diameter_mm / 2) ** 2 * bore.position_mm[2]
        assert added_mm3 == pytest.approx(cylinder_mm3, rel=6e-3), bore.name


def test_normals_point_out_of_the_material() -> None:
    vectors = build_part(PartKind.FLANGE).mesh.face_vectors_m2()
    np.testing.assert_allclose(vectors.sum(axis=0), 0, atol=1e-12)  # true of every closed surface
    upward_mm2 = vectors[vectors[:, 2] > 0][:, 2].sum() * 1e6
    bores_mm2 = np.pi * (13**2 + 6 * 4.5**2)
    assert upward_mm2 == pytest.approx(np.pi * 50**2 - bores_mm2, rel=1e-3)


def test_the_count_of_open_edges_sees_a_hole_and_a_turned_triangle() -> None:
    mesh = cube()
    assert open_edge_count(mesh) == 0
    assert open_edge_count(PartMesh(mesh.vertices_m, mesh.triangles[1:])) == 3
    turned = mesh.triangles.copy()
    turned[0] = turned[0][::-1]
    assert open_edge_count(PartMesh(mesh.vertices_m, turned)) > 0


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(*[st.floats(-0.002, 0.022)] * 3),
    st.floats(0.001, 0.012),
    st.floats(0.0008, 0.004),
)
def test_refinement_changes_the_triangles_and_not_the_surface(
    centre_m: tuple[float, float, float], radius_m: float, edge_m: float
) -> None:
    mesh, centre = cube(), np.array(centre_m)
    fine = refined_in_ball(mesh, centre, radius_m, edge_m)
    assert open_edge_count(fine) == 0
    assert fine.volume_m3 == pytest.approx(mesh.volume_m3, rel=1e-12)
    areas = [np.linalg.norm(m.face_vectors_m2(), axis=1) for m in (mesh, fine)]
    assert areas[1].sum() == pytest.approx(areas[0].sum(), rel=1e-12)
    assert areas[1].min() > 0
    start, end = (fine.vertices_m[fine.triangles[:, list(pair)]] for pair in ((0, 1, 2), (1, 2, 0)))
    inside = np.linalg.norm(start - centre, axis=-1) < radius_m
    assert (np.linalg.norm(end - start, axis=-1)[inside] <= edge_m).all()


def test_refinement_of_a_region_ends_and_reaches_its_border() -> None:
    def inside(points_m: np.ndarray) -> np.ndarray:
        return np.asarray(np.linalg.norm(points_m - (0.01, 0.01, 0.02), axis=-1) < 0.006)

    coarse = refined_in_ball(cube(), np.array([0.01, 0.01, 0.02]), 0.007, 0.003)
    fine = refined_where(coarse, inside, 0.0003)
    assert open_edge_count(fine) == 0
    start, end = (fine.vertices_m[fine.triangles[:, list(pair)]] for pair in ((0, 1, 2), (1, 2, 0)))
    assert (np.linalg.norm(end - start, axis=-1)[inside(start)] <= 0.0003).all()


@pytest.mark.parametrize("suffix", [".stl", ".ply", ".obj"])
@pytest.mark.parametrize(("unit", "scale"), [("mm", 1e-3), ("m", 1.0), ("inch", 0.0254)])
def test_a_mesh_comes_back_from_its_file(tmp_path: Path, suffix: str, unit: str, scale: float) -> None:
    path = tmp_path / f"cube{suffix}"
    box = open3d().geometry.TriangleMesh.create_box(0.02 / scale, 0.02 / scale, 0.02 / scale)
    box.compute_vertex_normals()
    open3d().io.write_triangle_mesh(str(path), box)
    mesh = load_part_mesh(path, unit)
    assert mesh.volume_m3 == pytest.approx(0.02**3, rel=1e-5)
    assert len(mesh.vertices_m) == 8  # the corners of an STL, written three times, are one again


def test_our_own_stl_comes_back_in_single_precision(tmp_path: Path) -> None:
    part = build_part(PartKind.BRACKET)
    save_stl(tmp_path / "bracket.stl", part.mesh)
    again = load_part(str(tmp_path / "bracket.stl"))
    assert (again.name, again.kind, again.bores) == ("bracket", None, ())
    assert len(again.mesh.triangles) == len(part.mesh.triangles)
    assert again.mesh.volume_m3 == pytest.approx(part.mesh.volume_m3, rel=1e-6)


def test_what_is_no_closed_mesh_is_refused_by_name(tmp_path: Path) -> None:
    holed = tmp_path / "holed.stl"
    save_stl(holed, PartMesh(cube().vertices_m, cube().triangles[1:]))
    with pytest.raises(DepthcellError, match=r"holed\.stl: not closed, 3 open"):
        load_part_mesh(holed)
    (tmp_path / "torn.stl").write_bytes(b"solid nothing\n")
    with pytest.raises(DepthcellError, match=r"torn\.stl: holds no triangle"):
        load_part_mesh(tmp_path / "torn.stl")
    with pytest.raises(DepthcellError, match="no such file"):
        load_part_mesh(tmp_path / "absent.stl")
    with pytest.raises(DepthcellError, match=r"unknown kind of file; give one of \.stl"):
        load_part_mesh(tmp_path / "part.step")
    with pytest.raises(DepthcellError, match="--mesh-unit furlong: unknown; choose one of mm, m, inch"):
        load_part_mesh(holed, "furlong")
    with pytest.raises(DepthcellError, match="--part brackett: unknown; choose bracket, flange, sheet, shaft, weld"):
        load_part("brackett")
