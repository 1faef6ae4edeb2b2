"""Clouds and meshes as files, read back by other programs: PLY, PCD, STL by open3d, E57 by pye57."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from depthcell.acquisition.sdk import open3d
from depthcell.errors import DepthcellError
from depthcell.fusion.cloud_file import CLOUD_ENDINGS, CloudColumns, write_cloud
from depthcell.fusion.mesh_file import write_mesh
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.tsdf_surface import SurfaceMesh

PYE57: Any = importlib.import_module("pye57")  # it ships no types
COUNT = 50
SCALARS = ("random_sigma", "systematic_sigma", "correlation", "camera", "row", "column")


def small_cloud() -> PartCloud:
    rng = np.random.default_rng(1)
    normals = rng.normal(size=(COUNT, 3))
    return PartCloud(
        points_cell=rng.uniform(-1, 1, (COUNT, 3)),
        normals_cell=(normals / np.linalg.norm(normals, axis=1, keepdims=True)).astype(np.float32),
        colors=rng.integers(0, 256, (COUNT, 3), dtype=np.uint8),
        random_sigma_m=rng.uniform(1e-5, 1e-3, COUNT).astype(np.float32),
        systematic_sigma_m=rng.uniform(1e-5, 1e-3, COUNT).astype(np.float32),
        correlation_m=rng.uniform(1e-4, 1e-3, COUNT).astype(np.float32),
        share=np.tile(np.array([0.25, 0.75], np.float32), (COUNT, 1)),
        camera=rng.integers(0, 2, COUNT).astype(np.uint8),
        pixel=rng.integers(-1, 400, (COUNT, 2)).astype(np.int32),
        serials=("A", "B"),
    )


def tetrahedron() -> SurfaceMesh:
    vertices_m = np.array([[0, 0, 0], [0.01, 0, 0], [0, 0.01, 0], [0, 0, 0.01]], dtype=np.float64)
    triangles = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], dtype=np.int32)
    sigma_m = np.array([1e-5, 2e-5, 3e-5, 4e-5], np.float32)
    return SurfaceMesh(vertices_m, triangles, sigma_m, 2 * sigma_m)


def assert_scalars(point: Any, cloud: PartCloud) -> None:
    columns = CloudColumns.of(cloud).by_name
    for name in SCALARS:
        np.testing.assert_array_equal(point[name].numpy().ravel(), columns[name])


@pytest.mark.parametrize("ending", [".ply", ".pcd", ".PLY"])
def test_open3d_reads_back_every_column(tmp_path: Path, ending: str) -> None:
    cloud, path = small_cloud(), tmp_path / f"cloud{ending}"
    write_cloud(path, cloud)
    o3d = open3d()
    lower = path.with_suffix(ending.lower())
    path.rename(lower)
    plain = o3d.io.read_point_cloud(str(lower))
    np.testing.assert_allclose(np.asarray(plain.points), cloud.points_cell, atol=1e-7)
    np.testing.assert_allclose(np.asarray(plain.normals), cloud.normals_cell, atol=1e-7)
    np.testing.assert_array_equal(np.rint(np.asarray(plain.colors) * 255), cloud.colors)
    assert_scalars(o3d.t.io.read_point_cloud(str(lower)).point, cloud)
    assert b"camera 1 B\n" in lower.read_bytes()


def test_pye57_reads_the_standard_columns_and_we_the_rest(tmp_path: Path) -> None:
    from depthcell.fusion.e57_file import read_e57_columns

    cloud, path = small_cloud(), tmp_path / "cloud.e57"
    write_cloud(path, cloud)
    with PYE57.E57(str(path)) as file:
        read = file.read_scan_raw(0, ignore_unsupported_fields=True)
        assert "A" in file.data3d[0]["description"].value()
    np.testing.assert_allclose(read["cartesianY"], cloud.points_cell[:, 1], atol=1e-7)
    np.testing.assert_array_equal(read["colorGreen"], cloud.colors[:, 1])
    ours = read_e57_columns(path)
    for name, column in CloudColumns.of(cloud).by_name.items():
        np.testing.assert_array_equal(ours[name], column)


def test_what_is_no_e57_of_ours_is_refused(tmp_path: Path) -> None:
    from depthcell.fusion.e57_file import read_e57_columns

    (tmp_path / "text.e57").write_text("no point cloud")
    with pytest.raises(DepthcellError, match=r"text.e57: cannot be read as E57"):
        read_e57_columns(tmp_path / "text.e57")
    with PYE57.E57(str(tmp_path / "plain.e57"), mode="w") as file:
        file.write_scan_raw({f"cartesian{axis}": np.arange(3.0) for axis in "XYZ"})
    with pytest.raises(DepthcellError, match=r"plain.e57: its points have no element nor:normalX"):
        read_e57_columns(tmp_path / "plain.e57")


@pytest.mark.parametrize("ending", [".ply", ".pcd", ".e57"])
def test_an_empty_cloud_is_a_file_too(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"none{ending}"
    write_cloud(path, small_cloud()[np.zeros(COUNT, np.bool_)])
    assert path.stat().st_size > 100
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_without_pye57_the_refusal_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pye57", None)
    with pytest.raises(DepthcellError, match="pip install pye57"):
        write_cloud(tmp_path / "cloud.e57", small_cloud())
    assert not list(tmp_path.iterdir())


def test_an_unknown_ending_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DepthcellError, match=r"cloud.xyz: its ending '.xyz' .*\.ply, \.pcd, \.e57"):
        write_cloud(tmp_path / "cloud.xyz", small_cloud())
    with pytest.raises(DepthcellError, match=r"part.obj: its ending '.obj' .*\.stl, \.ply"):
        write_mesh(tmp_path / "part.obj", tetrahedron())
    assert not list(tmp_path.iterdir())
    assert set(CLOUD_ENDINGS) == {".ply", ".pcd", ".e57"}


def test_a_mesh_as_stl_says_what_it_lost(tmp_path: Path) -> None:
    mesh, path = tetrahedron(), tmp_path / "part.stl"
    assert write_mesh(path, mesh) == ("part.stl: STL holds no uncertainty; write .ply to keep it",)
    read = open3d().io.read_triangle_mesh(str(path))
    assert len(read.triangles) == 4
    assert read.remove_duplicated_vertices().is_watertight()
    np.testing.assert_allclose(read.get_volume(), 10.0**3 / 6, rtol=1e-6)


def test_a_mesh_as_ply_keeps_its_uncertainty(tmp_path: Path) -> None:
    mesh, path = tetrahedron(), tmp_path / "part.ply"
    assert write_mesh(path, mesh) == ()
    read = open3d().t.io.read_triangle_mesh(str(path))
    np.testing.assert_allclose(read.vertex.positions.numpy(), mesh.vertices_m, atol=1e-9)
    np.testing.assert_array_equal(read.triangle.indices.numpy(), mesh.triangles)
    assert b"property float random_sigma" in path.read_bytes()
    content = path.read_bytes()
    vertices = np.frombuffer(content[content.index(b"end_header\n") + 11 :], "<f4", count=4 * 5).reshape(4, 5)
    np.testing.assert_array_equal(vertices[:, 3], mesh.random_sigma_m)
    np.testing.assert_array_equal(vertices[:, 4], mesh.systematic_sigma_m)
