"""The distance field: against a plain loop over all voxels, its variances against draws, memory, holes, free space."""

import numpy as np
import pytest
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.simulator.rig import looking_at
from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError
from depthcell.fusion.tsdf import MEAN, Sight, Tsdf
from depthcell.fusion.tsdf_blocks import BLOCK_VOXELS, BlockPool, VoxelBox, block_bytes, volume_bytes
from depthcell.fusion.tsdf_surface import cut_faces, mesh_of, surface_of, voxel_sigmas_m

LENS = Intrinsics(120, 100, 150.0, 150.0, 59.5, 49.5)
RADIUS_M = 0.02
SIGMA_M = 1e-4


def sphere_sight(
    T_cell_cam: RigidTransform, *, noise_m: float = 0.0, rng: np.random.Generator | None = None, shift_m: float = 0.0
) -> tuple[Sight, NDArray[np.float32]]:
    """Exact depth of a sphere about the origin, moved along its normals by noise of each pixel and by `shift_m`."""
    rays = T_cell_cam.rotate(LENS.rays().reshape(-1, 3).astype(np.float64))
    origin = T_cell_cam.translation_m
    a, b, c = (rays * rays).sum(1), rays @ origin, origin @ origin - RADIUS_M**2
    root = b * b - a * c
    hit = np.flatnonzero(root > 0.15 * a * RADIUS_M**2)  # the square of the cosine of incidence is root / (a R²)
    depth = (-b[hit] - np.sqrt(root[hit])) / a[hit]
    points = origin + rays[hit] * depth[:, None]
    normals = points / np.linalg.norm(points, axis=1, keepdims=True)
    noise = np.zeros(len(hit)) if rng is None else rng.normal(0, noise_m, len(hit))
    points = points + normals * (noise + shift_m)[:, None]
    return sight_at(T_cell_cam, hit, points, normals), points.astype(np.float32)


def sight_at(
    T_cell_cam: RigidTransform, pixel: NDArray[np.intp], points: NDArray[np.float64], normals: NDArray[np.float64]
) -> Sight:
    planes = np.zeros((len(pixel), 9), np.float32)
    planes[:, :3] = normals
    planes[:, 3] = np.einsum("ij,ij->i", normals, points)
    planes[:, 4] = 1 / SIGMA_M**2
    planes[:, 5] = planes[:, 4]
    row = np.full(LENS.height_px * LENS.width_px, -1, np.int32)
    row[pixel] = np.arange(len(pixel))
    T_cam_part = RigidTransform("cam", "part", T_cell_cam.rotation, T_cell_cam.translation_m)
    T_cam_part = RigidTransform("part", "cam", T_cam_part.rotation, T_cam_part.translation_m).inverse()
    return Sight(0, T_cam_part, LENS, row.reshape(LENS.height_px, LENS.width_px), planes, is_new_look=True)


def eyes(count: int) -> list[RigidTransform]:
    angle = 2.4 * np.arange(count)
    height = np.linspace(-0.8, 0.8, count)
    around = np.sqrt(1 - height**2)
    places = 0.09 * np.stack((around * np.cos(angle), around * np.sin(angle), height), axis=1)
    return [looking_at("1", np.zeros(3), place) for place in places]


def sphere_box(voxel_m: float, half_m: float = 0.026) -> VoxelBox:
    return VoxelBox(np.full(3, -half_m), np.full(3, half_m), voxel_m)


def test_only_blocks_near_the_surface_take_memory_and_the_bound_is_exact() -> None:
    box = sphere_box(5e-4, half_m=0.04)
    field = Tsdf(box, ["1"], 1.5e-3)
    assert volume_bytes(box, 1) == box.blocks * block_bytes(1) + 4 * box.blocks
    arrays = (field.pool.values, field.pool.seen, field.pool.free)
    assert sum(array.nbytes for array in arrays) == box.blocks * (block_bytes(1) - 4)
    for eye in eyes(6):
        field.add(*sphere_sight(eye))
    assert 0.02 * volume_bytes(box, 1) < field.pool.bytes_used < 0.25 * volume_bytes(box, 1)


def test_a_volume_that_does_not_fit_is_refused_by_name() -> None:
    huge = VoxelBox(np.zeros(3), np.array([2.0, 1.0, 1.0]), 1e-3)
    with pytest.raises(
        DepthcellError, match=r"volume of 2000 x 1000 x 1000 mm at voxels of 1 mm: .* allowed are 64 MiB"
    ):
        volume_bytes(huge, 1, 64 << 20)
    assert volume_bytes(VoxelBox(huge.lower_m, huge.upper_m, 10e-3), 1, 64 << 20) <= 64 << 20


def test_a_surface_that_outgrows_the_limit_is_refused_by_name() -> None:
    box = sphere_box(5e-4)
    faces_mb = volume_bytes(box, 1)
    limit = int(faces_mb * 0.9)
    pool = BlockPool(box, 1, limit)
    everything = np.stack(np.meshgrid(*[np.linspace(-0.0259, 0.0259, 40)] * 3), axis=-1).reshape(-1, 3)
    with pytest.raises(DepthcellError, match=r"volume of 52 x 52 x 52 mm at voxels of 0.5 mm: .*enlarge the voxel"):
        pool.slots(pool.touched(everything))
    assert len(BlockPool(box, 1).slots(pool.touched(everything))) == box.blocks


@pytest.mark.parametrize(
    ("low", "high", "voxel", "message"),
    [
        ([0, 0, 0], [1, 1, np.nan], 0.1, "finite"),
        ([0, 0, 0], [1, 1, 1], -1.0, "edge must be positive"),
        ([0, 0, 0], [1, 1, 1], np.nan, "edge must be positive"),
        ([0, 0, 0], [1, 1, 0.1], 0.1, "thinner than two voxels"),
        ([0, 0, 0], [1, -1, 1], 0.1, "thinner than two voxels"),
    ],
)
def test_a_box_that_is_none_is_refused(low: list[float], high: list[float], voxel: float, message: str) -> None:
    with pytest.raises(DepthcellError, match=message):
        VoxelBox(np.array(low), np.array(high), voxel)
    with pytest.raises(DepthcellError, match=r"less than 1.7 voxels"):
        Tsdf(sphere_box(1e-3), ["1"], 1.6e-3)


def test_blocks_give_what_a_plain_loop_over_all_voxels_gives() -> None:
    """The slow twin visits every voxel of the box for every frame."""
    box, truncation_m = sphere_box(2e-3, half_m=0.024), 4e-3
    field, rng = Tsdf(box, ["1"], truncation_m), np.random.default_rng(2)
    side = box.shape_blocks[0] * 8
    mean, count, free = np.zeros((side,) * 3), np.zeros((side,) * 3), np.zeros((side,) * 3)
    for eye in eyes(3):
        sight, points = sphere_sight(eye, noise_m=SIGMA_M, rng=rng)
        field.add(sight, points)
        for voxel in np.ndindex(mean.shape):
            centre = box.lower_m + (np.array(voxel) + 0.5) * box.voxel_m
            pixel = np.rint(LENS.project(sight.T_cam_part @ centre)).astype(int)
            if not ((pixel >= 0) & (pixel < (LENS.width_px, LENS.height_px))).all():
                continue
            plane = sight.row[pixel[1], pixel[0]]
            if plane < 0:
                continue
            distance_m = sight.planes[plane, :3] @ centre - sight.planes[plane, 3]
            free[voxel] += distance_m > truncation_m
            if abs(distance_m) <= truncation_m:
                count[voxel] += 1
                mean[voxel] += (distance_m - mean[voxel]) / count[voxel]
    rows = field.pool.rows_of_voxels(np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1))
    held = rows >= 0
    assert (count > 0).sum() > 2000
    close = (count > 0) & (np.abs(mean) < 2e-3)
    assert held[close].all()
    same = field.pool.seen[rows[held]] == count[held]
    # Half a pixel may be rounded to either side, and a block's outskirts wait until the surface comes near.
    assert same.mean() > 0.995
    assert (field.pool.seen[rows[close]] == count[close]).mean() > 0.995
    np.testing.assert_array_equal(field.pool.free[rows[close]] > 0, free[close] > 0)
    agree = np.flatnonzero(same)
    apart_m = np.abs(field.pool.values[MEAN, rows[held][agree]] - mean[held][agree])
    assert np.mean(apart_m < 2e-6) > 0.99
    assert apart_m.max() < 8 * SIGMA_M


def test_points_and_mesh_of_a_sphere_lie_on_it() -> None:
    field = Tsdf(sphere_box(1e-3), ["1"], 2e-3)
    for eye in eyes(10):
        field.add(*sphere_sight(eye))
    surface, mesh = surface_of(field), mesh_of(field)
    radii_m = np.linalg.norm(surface.points_part, axis=1)
    assert len(radii_m) > 3000
    assert np.abs(radii_m - RADIUS_M).max() < 4e-5
    facing = np.einsum("ij,ij->i", surface.normals_part, surface.points_part / radii_m[:, None])
    assert facing.min() > np.cos(np.radians(3))
    assert np.abs(np.linalg.norm(mesh.vertices_m, axis=1) - RADIUS_M).max() < 1e-4
    corners = mesh.vertices_m[mesh.triangles]
    outward = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.einsum("ij,ij->i", outward, corners.mean(axis=1)) > -1e-15).all()
    volume_m3 = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert volume_m3 == pytest.approx(4 / 3 * np.pi * RADIUS_M**3, rel=0.01)
    assert len(mesh.random_sigma_m) == len(mesh.vertices_m)
    assert (mesh.random_sigma_m > 0).all()
    assert not cut_faces(field, surface.points_part)
    cut = Tsdf(VoxelBox(np.array([-0.03, -0.03, -0.03]), np.array([0.01, 0.03, 0.03]), 1e-3), ["1"], 2e-3)
    for eye in eyes(10):
        cut.add(*sphere_sight(eye))
    assert cut_faces(cut, surface_of(cut).points_part) == ["+x"]


def test_a_hole_stays_a_hole_in_points_and_mesh() -> None:
    field = Tsdf(sphere_box(1e-3), ["1"], 2e-3)
    hole = np.array([0.0, 0.0, RADIUS_M])
    for eye in eyes(10):
        sight, points = sphere_sight(eye)
        lost = np.flatnonzero(np.linalg.norm(points - hole, axis=1) < 0.006)
        row = sight.row.copy()
        row[np.isin(row, lost)] = -1
        kept = Sight(0, sight.T_cam_part, LENS, row, sight.planes, is_new_look=True)
        field.add(kept, points)
    for places in (surface_of(field).points_part, mesh_of(field).vertices_m):
        assert np.linalg.norm(places - hole, axis=1).min() > 0.004
        assert np.linalg.norm(places + hole, axis=1).min() < 0.001


def test_a_ghost_that_others_see_through_is_no_surface() -> None:
    eye = eyes(5)[2]
    ghost, ghost_points = sphere_sight(eye, shift_m=5e-3)
    for through, expected in ((1, True), (4, False)):
        field = Tsdf(sphere_box(1e-3, half_m=0.03), ["1"], 2e-3)
        for _ in range(2):
            field.add(ghost, ghost_points)
        for _ in range(through):
            field.add(*sphere_sight(eye))
        radii_m = np.linalg.norm(surface_of(field).points_part, axis=1)
        assert (np.abs(radii_m - RADIUS_M - 5e-3) < 1e-3).any() == expected
        assert (np.abs(radii_m - RADIUS_M) < 1e-3).any()


def test_both_sides_of_a_sheet_do_not_mix() -> None:
    """Of a sheet thinner than the layer, one side may be missing, but none is moved."""
    field, half_m = Tsdf(VoxelBox(np.full(3, -0.012), np.full(3, 0.012), 1e-3), ["1"], 2e-3), 0.75e-3
    for sign in (1.0, -1.0):
        T_cell_cam = looking_at("1", np.zeros(3), np.array([0.0, 0.0, sign * 0.08]))
        rays = T_cell_cam.rotate(LENS.rays().reshape(-1, 3).astype(np.float64))
        points = T_cell_cam.translation_m + rays * (sign * half_m - sign * 0.08) / rays[:, 2:]
        normals = np.tile([0.0, 0.0, sign], (len(points), 1))
        field.add(sight_at(T_cell_cam, np.arange(len(points)), points, normals), points.astype(np.float32))
    height_m = surface_of(field).points_part[:, 2]
    assert len(height_m) > 300
    np.testing.assert_allclose(np.abs(height_m), half_m, atol=1e-6)
    assert (height_m > 0).any()


def test_stated_variances_are_those_of_draws() -> None:
    """A wall, six frames in three looks and three instants of two cameras; each kind of error drawn anew many times."""
    rng, draws = np.random.default_rng(8), 300
    sigmas = {"new": 3e-5, "look": 4e-5, "pose": 5e-5, "shared": 6e-5}
    T_cell_cam = looking_at("1", np.zeros(3), np.array([0.0, 0.0, 0.08]))
    base, _ = sphere_sight(T_cell_cam)
    rays = T_cell_cam.rotate(LENS.rays().reshape(-1, 3).astype(np.float64))
    wall = T_cell_cam.translation_m - rays * 0.08 / rays[:, 2:]
    pixel, normals = np.arange(len(wall)), np.tile([0.0, 0.0, 1.0], (len(wall), 1))
    box = VoxelBox(np.array([-0.002, -0.002, -0.004]), np.array([0.002, 0.002, 0.004]), 1e-3)
    plan = [(0, True, True), (1, True, False), (0, False, True), (1, True, False), (0, True, True), (1, False, False)]
    found, stated = [], np.zeros(2)
    for _ in range(draws):
        field, shared, pose = Tsdf(box, ["1", "2"], 3e-3), rng.normal(0, sigmas["shared"], 2), 0.0
        look: dict[int, float] = {}
        for camera, is_new_look, is_new_instant in plan:
            pose = rng.normal(0, sigmas["pose"]) if is_new_instant else pose
            look[camera] = rng.normal(0, sigmas["look"]) if is_new_look else look[camera]
            error_m = rng.normal(0, sigmas["new"]) + look[camera] + pose + shared[camera]
            points = wall + normals * error_m
            sight = sight_at(T_cell_cam, pixel, points, normals)
            weight = 1 / (sigmas["new"] ** 2 + sigmas["look"] ** 2 + sigmas["pose"] ** 2)
            sight.planes[:, 4:] = weight * np.array(
                [1, weight * sigmas["new"] ** 2, sigmas["look"], sigmas["pose"], sigmas["shared"]]
            )
            field.add(
                Sight(camera, sight.T_cam_part, LENS, sight.row, sight.planes, is_new_look, is_new_instant),
                points.astype(np.float32),
            )
        row = field.pool.rows_of_voxels(np.array([2, 2, 4]))
        found.append(field.pool.values[MEAN, row] - 0.5e-3)
        random_sigma_m, systematic_sigma_m = voxel_sigmas_m(field, np.array([row]))
        stated += np.square([random_sigma_m[0], systematic_sigma_m[0]]) / draws
    assert base.planes.shape[1] == 9
    new, look_m2, pose_m2, shared_m2 = (value**2 for value in sigmas.values())
    assert stated[1] == pytest.approx(3 * 4 * pose_m2 / 36 + 2 * 9 * shared_m2 / 36, rel=1e-4)
    # camera 0 has looks of two frames and of one, camera 1 of one, then of two
    by_hand = 6 * new / 36 + (4 + 1 + 1 + 4) * look_m2 / 36 + stated[1]
    assert stated.sum() == pytest.approx(by_hand, rel=0.05)  # kappa scales the new part by the scatter seen
    assert np.var(found) == pytest.approx(stated.sum(), rel=4 * np.sqrt(2 / draws))


def test_scatter_beyond_the_weights_widens_the_stated_noise() -> None:
    for factor, low, high in ((1.0, 0.85, 1.15), (3.0, 2.0, 3.1)):
        field, rng = Tsdf(sphere_box(1e-3), ["1"], 2e-3), np.random.default_rng(5)
        for _ in range(12):
            field.add(*sphere_sight(eyes(5)[2], noise_m=factor * SIGMA_M, rng=rng))
        rows = np.flatnonzero(field.pool.seen[: field.pool.used * BLOCK_VOXELS] == 12)
        ratio = np.median(voxel_sigmas_m(field, rows)[0]) / (SIGMA_M / np.sqrt(12))
        assert low < ratio < high


def test_planes_of_another_width_are_refused() -> None:
    sight, _ = sphere_sight(eyes(2)[0])
    with pytest.raises(DepthcellError, match=r"planes need shape \(N, 9\)"):
        Sight(0, sight.T_cam_part, LENS, sight.row, sight.planes[:, :5], is_new_look=True)
