"""Defects of simulated parts: what the truth says is what the mesh does, by independent computation."""

from functools import cache

import numpy as np
import pytest

from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.simulator.defects import Damage, Defect, DefectKind, Site, apply_defect
from depthcell.acquisition.simulator.partmesh import PartMesh, open_edge_count
from depthcell.acquisition.simulator.parts import Part, PartKind, build_part
from depthcell.acquisition.simulator.placement import SIZES, Placer
from depthcell.errors import DepthcellError

EYES = np.array([[0.07, 0.02, 0.15], [-0.06, 0.05, 0.15], [-0.01, -0.07, 0.15]])
LOCAL = [
    DefectKind.DENT,
    DefectKind.BUMP,
    DefectKind.MISSING_MATERIAL,
    DefectKind.EXCESS_MATERIAL,
    DefectKind.BURR,
    DefectKind.POROSITY,
]
BLEMISHES = [kind for kind in DefectKind if kind.is_surface]


@cache
def placed(part_kind: PartKind, kind: DefectKind, seed: int = 3) -> tuple[Part, Defect, Damage]:
    part = build_part(part_kind)
    defect = Placer(part, EYES).plan(kind, (), np.random.default_rng(seed))
    return part, defect, apply_defect(part, part.mesh, defect)


def hits(mesh: PartMesh, site: Site, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Height of the surface over the tangent plane at points (N, 3) of it, metres, and cosine of its slope there."""
    o3d, above_m = open3d(), 0.02
    scene = o3d.t.geometry.RaycastingScene()
    triangles = o3d.core.Tensor(mesh.triangles.astype(np.uint32))
    scene.add_triangles(o3d.core.Tensor(mesh.vertices_m.astype(np.float32)), triangles)
    start = points + above_m * site.normal
    rays = np.concatenate((start, np.broadcast_to(-site.normal, start.shape)), axis=1).astype(np.float32)
    found = scene.cast_rays(o3d.core.Tensor(rays))
    return above_m - found["t_hit"].numpy(), np.abs(found["primitive_normals"].numpy() @ site.normal)


def depth_along(mesh: PartMesh, site: Site, points: np.ndarray) -> np.ndarray:
    return hits(mesh, site, points)[0]


def quadrature(part: Part, defect: Defect, cells: int = 700) -> tuple[float, float]:
    """Integral of the weight over the tangent plane and of the covered surface above it, mm²: the slow, plain twin."""
    along = np.linspace(-1.02 * defect.size_m, 1.02 * defect.size_m, cells)
    u, v = (grid.reshape(-1, 1) for grid in np.meshgrid(along, along))
    points = defect.site.centre_m + u * defect.site.tangent + v * defect.site.bitangent
    cell_mm2 = (along[1] - along[0]) ** 2 * 1e6
    _, cosine = hits(part.mesh, defect.site, points)
    covered_mm2 = (defect.covers(points) / np.maximum(cosine, 0.1)).sum() * cell_mm2
    return float(defect.weight(points).sum() * cell_mm2), float(covered_mm2)


@pytest.mark.parametrize("part_kind", [PartKind.BRACKET, PartKind.SHAFT])
@pytest.mark.parametrize("kind", LOCAL)
def test_truth_is_what_the_mesh_does(part_kind: PartKind, kind: DefectKind) -> None:
    part, defect, damage = placed(part_kind, kind)
    assert open_edge_count(damage.mesh) == 0
    weight_mm2, covered_mm2 = quadrature(part, defect)
    assert damage.depth_mm == pytest.approx(defect.depth_m * 1e3, rel=0.02)
    assert damage.volume_mm3 == pytest.approx(weight_mm2 * defect.depth_m * 1e3, rel=0.02)
    assert damage.area_mm2 == pytest.approx(covered_mm2, rel=0.02)
    change_mm3 = (damage.mesh.volume_m3 - part.mesh.volume_m3) * 1e9
    assert damage.volume_mm3 == pytest.approx(change_mm3, rel=1e-6)
    low, high = sorted(SIZES[kind].depth_mm)
    assert low <= defect.depth_m * 1e3 <= high


@pytest.mark.parametrize("kind", LOCAL)
def test_a_ray_measures_the_depth_that_the_truth_says(kind: DefectKind) -> None:
    part, defect, damage = placed(PartKind.BRACKET, kind)
    rng = np.random.default_rng(0)
    u, v = rng.uniform(-defect.size_m, defect.size_m, (2, 60_000))
    site = defect.site
    points = site.centre_m + u[:, None] * site.tangent + v[:, None] * site.bitangent
    change_m = depth_along(damage.mesh, site, points) - depth_along(part.mesh, site, points)
    np.testing.assert_allclose(change_m, defect.depth_m * defect.weight(points), atol=8e-5)
    assert damage.depth_mm == pytest.approx(change_m[np.argmax(np.abs(change_m))] * 1e3, rel=0.02)
    assert not change_m[~defect.covers(points)].any() or np.abs(change_m[~defect.covers(points)]).max() < 8e-5


def test_a_dent_has_the_volume_of_the_formula() -> None:
    _, defect, damage = placed(PartKind.BRACKET, DefectKind.DENT)
    radius_mm = defect.size_m * 1e3
    assert damage.volume_mm3 == pytest.approx(np.pi * radius_mm**2 / 3 * defect.depth_m * 1e3, rel=0.01)
    assert damage.area_mm2 == pytest.approx(np.pi * radius_mm**2, rel=0.02)


def test_the_perfect_mesh_stays_perfect() -> None:
    part = build_part(PartKind.SHEET)
    before = part.mesh.vertices_m.copy()
    defect = Placer(part, EYES).plan(DefectKind.DENT, (), np.random.default_rng(1))
    apply_defect(part, part.mesh, defect)
    np.testing.assert_array_equal(part.mesh.vertices_m, before)


def test_a_warp_is_what_a_rigid_alignment_leaves() -> None:
    part, _, damage = placed(PartKind.BRACKET, DefectKind.WARP)
    assert damage.depth_mm is not None
    assert damage.volume_mm3 is None
    assert 0.8 <= abs(damage.depth_mm) <= 1.6
    assert open_edge_count(damage.mesh) == 0
    rng = np.random.default_rng(0)
    points = np.column_stack(
        (rng.uniform(-0.047, 0.047, 20_000), rng.uniform(-0.031, 0.031, 20_000), np.full(20_000, 0.0))
    )
    up = Site(np.zeros(3), np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0]))
    reference_m, actual_m = (
        np.nan_to_num(depth_along(mesh, up, points), neginf=-1.0) for mesh in (part.mesh, damage.mesh)
    )
    # Off the bores, and off the walls, where the bend shifts an edge under the ray.
    seen = (reference_m > 0.005) & (np.abs(actual_m - reference_m) < 0.003)
    change_m = (actual_m - reference_m)[seen]
    basis = np.column_stack((np.ones(seen.sum()), points[seen, :2]))
    plane, *_ = np.linalg.lstsq(basis, change_m, rcond=None)
    assert np.abs(basis @ plane).max() < 0.15 * abs(damage.depth_mm) / 1e3
    assert np.abs(change_m).max() == pytest.approx(abs(damage.depth_mm) / 1e3, rel=0.1)


def test_a_missing_bore_is_a_full_one() -> None:
    part, defect, damage = placed(PartKind.BRACKET, DefectKind.MISSING_BORE)
    assert defect.bore in part.bores
    assert damage.depth_mm == pytest.approx(defect.site.centre_m[2] * 1e3, rel=0.01)
    inside = defect.site.centre_m + np.array([[0.0, 0.0, 0.0], [0.003, 0.0, 0.0]])
    np.testing.assert_allclose(depth_along(damage.mesh, defect.site, inside), 0.0, atol=1e-6)
    assert (depth_along(part.mesh, defect.site, inside) < -0.005).all()


@pytest.mark.parametrize("kind", BLEMISHES)
def test_a_blemish_has_colour_and_area_and_no_depth(kind: DefectKind) -> None:
    part, defect, damage = placed(PartKind.BRACKET, kind)
    assert damage.mesh is part.mesh
    assert (damage.depth_mm, damage.volume_mm3) == (None, None)
    assert defect.tint_rgb is not None
    _, covered_mm2 = quadrature(part, defect)
    assert damage.area_mm2 == pytest.approx(covered_mm2, rel=0.02)


def test_a_blemish_on_a_curved_face_is_larger_than_its_shadow() -> None:
    part, defect, damage = placed(PartKind.SHAFT, DefectKind.STAIN)
    _, covered_mm2 = quadrature(part, defect)
    assert damage.area_mm2 == pytest.approx(covered_mm2, rel=0.02)
    along = np.linspace(-defect.size_m, defect.size_m, 700)
    u, v = np.meshgrid(along, along)
    plane = defect.site.centre_m + u[..., None] * defect.site.tangent + v[..., None] * defect.site.bitangent
    shadow_mm2 = defect.covers(plane).sum() * (along[1] - along[0]) ** 2 * 1e6
    assert shadow_mm2 < damage.area_mm2 < 1.15 * shadow_mm2


@pytest.mark.parametrize("part_kind", list(PartKind))
def test_places_are_smooth_seen_and_apart(part_kind: PartKind) -> None:
    part, rng = build_part(part_kind), np.random.default_rng(5)
    placer = Placer(part, EYES)
    taken: list[Defect] = []
    for kind in (DefectKind.DENT, DefectKind.STAIN, DefectKind.BUMP):
        taken.append(placer.plan(kind, taken, rng))
    for defect in taken:
        angle = np.linspace(0, 2 * np.pi, 40)[:, None]
        site = defect.site
        rim = site.centre_m + defect.size_m * (np.cos(angle) * site.tangent + np.sin(angle) * site.bitangent)
        allowed_m = 2e-4 + defect.size_m**2 / (2 * 0.013)
        assert np.abs(depth_along(part.mesh, site, rim)).max() < allowed_m
        others = [np.linalg.norm(site.centre_m - o.site.centre_m) - o.size_m for o in taken if o is not defect]
        assert min(others) > defect.size_m


def test_no_place_is_said_and_not_forced() -> None:
    box = open3d().geometry.TriangleMesh.create_box(0.006, 0.006, 0.006)
    mesh = PartMesh(np.asarray(box.vertices).copy(), np.asarray(box.triangles).astype(np.int32))
    tiny = Part("tiny", mesh, (), build_part(PartKind.SHAFT).finish, None)
    with pytest.raises(DepthcellError, match=r"tiny: no smooth place of .* for a dent; choose other --defects"):
        Placer(tiny, EYES).plan(DefectKind.DENT, (), np.random.default_rng(0))
    with pytest.raises(DepthcellError, match="has no bore that could be missing"):
        Placer(tiny, EYES).plan(DefectKind.MISSING_BORE, (), np.random.default_rng(0))


def test_the_check_of_truth_sees_a_wrong_depth() -> None:
    """Negative control: a mesh displaced by 5 % too little fails the comparison above."""
    part, defect, damage = placed(PartKind.BRACKET, DefectKind.DENT)
    moved = (
        damage.mesh.vertices_m
        - 0.05 * defect.depth_m * defect.weight(damage.mesh.vertices_m)[:, None] * defect.site.normal
    )
    change_mm3 = (damage.mesh.with_vertices(moved).volume_m3 - part.mesh.volume_m3) * 1e9
    assert change_mm3 != pytest.approx(damage.volume_mm3, rel=0.02)
