"""Patches of the reference, deviation over neighbourhoods, and whether its uncertainty holds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stagedpart import SERIALS, plate_mesh

from depthcell.acquisition.simulator.partmesh import PartMesh
from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError
from depthcell.fusion.align import Alignment
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.reference import Reference
from depthcell.inspect.coverage import coverage, largest_gap
from depthcell.inspect.deviation import DeviationScales, compare, mean_correlation
from depthcell.inspect.pooling import neighbourhood_max, neighbourhood_mean, steadied_variance
from depthcell.inspect.shape_check import ShapeScore
from depthcell.inspect.surface import REACH_M, PatchGrid, Surface

LOWER, UPPER = np.array([-0.028, -0.021, 0.002]), np.array([0.028, 0.021, 0.014])
AREA_M2 = 9e-6


@pytest.fixture(scope="module")
def reference() -> Reference:
    mesh = plate_mesh()
    return Reference(mesh.vertices_m, mesh.triangles)


@pytest.fixture(scope="module")
def surface(reference: Reference) -> Surface:
    return Surface.build(reference, LOWER, UPPER, AREA_M2)


@pytest.fixture(scope="module")
def scales(surface: Surface) -> DeviationScales:
    return DeviationScales(surface, AREA_M2)


def aligned(covariance: np.ndarray | None = None) -> Alignment:
    zero = np.zeros((6, 6))
    pose = RigidTransform.identity("cell", "part")
    return Alignment(pose, zero if covariance is None else covariance, zero, 0.0, 1.0, 1000, 3, 0.0, "", ())


def cloud_of(points: np.ndarray, normals: np.ndarray, sigma_m: float = 5e-5, correlation_m: float = 1e-3) -> PartCloud:
    count = len(points)
    return PartCloud(
        points_cell=points,
        normals_cell=normals.astype(np.float32),
        colors=np.zeros((count, 3), np.uint8),
        random_sigma_m=np.full(count, sigma_m, np.float32),
        systematic_sigma_m=np.full(count, 2e-5, np.float32),
        correlation_m=np.full(count, correlation_m, np.float32),
        camera=np.zeros(count, np.uint8),
        pixel=np.zeros((count, 2), np.int32),
        share=np.ones((count, 1), np.float32),
        serials=SERIALS[:1],
    )


def top_points(step_m: float = 4e-4) -> np.ndarray:
    """Points on the plate's top, away from its rim and its bore."""
    x, y = np.meshgrid(np.arange(-0.023, 0.023, step_m), np.arange(-0.016, 0.016, step_m))
    points = np.stack((x.ravel(), y.ravel(), np.full(x.size, 0.008)), axis=1)
    return np.asarray(points[np.hypot(points[:, 0] - 0.012, points[:, 1]) > 0.007])


UP = np.array([0.0, 0.0, 1.0])


def test_patches_tile_the_surface_in_the_box(surface: Surface, reference: Reference) -> None:
    assert np.abs(reference.exact_signed_distance(surface.points_part)).max() < 1e-6
    assert (surface.points_part >= LOWER).all()
    assert (surface.points_part <= UPPER).all()
    top = surface.normals_part[:, 2] > 0.99
    bore_m2, corners_m2 = np.pi * 0.006**2, (4 - np.pi) * 0.002**2
    assert surface.area_m2[top].sum() == pytest.approx(0.050 * 0.036 - bore_m2 - corners_m2, rel=0.02)


def test_patches_near_edges_are_known(surface: Surface) -> None:
    top = surface.normals_part[:, 2] > 0.99
    to_rim = np.minimum(0.025 - np.abs(surface.points_part[:, 0]), 0.018 - np.abs(surface.points_part[:, 1]))
    to_bore = np.abs(np.hypot(surface.points_part[:, 0] - 0.012, surface.points_part[:, 1]) - 0.006)
    assert surface.near_edge[top & (to_rim < 1e-3)].mean() > 0.9
    assert not surface.near_edge[top & (to_rim > 4e-3) & (to_bore > 4e-3)].any()


def test_box_beside_the_part_is_refused(reference: Reference) -> None:
    with pytest.raises(DepthcellError, match=r"correct region\.min_mm and max_mm"):
        Surface.build(reference, LOWER + 1.0, UPPER + 1.0, AREA_M2)


def test_identity_tells_surfaces_apart(surface: Surface, reference: Reference) -> None:
    assert surface.identity == Surface.build(reference, LOWER, UPPER, AREA_M2).identity
    assert surface.identity != Surface.build(reference, LOWER + 0.001, UPPER, AREA_M2).identity
    mesh = plate_mesh(bore=False)
    other = Reference(mesh.vertices_m, mesh.triangles)
    assert surface.identity != Surface.build(other, LOWER, UPPER, AREA_M2).identity


def test_neighbours_are_symmetric_and_do_not_reach_round_an_edge(surface: Surface) -> None:
    near = surface.neighbours(0.002)
    assert (near != near.T).nnz == 0
    assert (near.diagonal() == 1).all()
    rows, columns = near.nonzero()
    assert np.linalg.norm(surface.points_part[rows] - surface.points_part[columns], axis=1).max() <= 0.002
    assert np.einsum("ij,ij->i", surface.normals_part[rows], surface.normals_part[columns]).min() > 0.5


def test_grid_looks_up_what_a_search_finds(surface: Surface, reference: Reference) -> None:
    grid = PatchGrid(surface, reference)
    places = np.concatenate((reference.surface_samples(3e-4).points_part, surface.points_part, [[0.2, 0.0, 0.0]]))
    found, nearest = grid.nearest(places), surface.nearest(places)
    assert found[-1] == nearest[-1] == -1
    near = np.linalg.norm(places[:-1] - surface.points_part[found[:-1]], axis=1)
    best = np.linalg.norm(places[:-1] - surface.points_part[nearest[:-1]], axis=1)
    assert near[best < REACH_M].max() < 2.5 * surface.spacing_m or (near - best).max() < 1.8 * surface.spacing_m
    assert (near - best).mean() < 0.1 * surface.spacing_m


@given(st.floats(-0.003, 0.003))
def test_deviation_is_signed_outwards(reference: Reference, surface: Surface, offset_m: float) -> None:
    points = np.array([[-0.010, 0.0, 0.008 + offset_m]])
    compared = compare(cloud_of(points, UP[None]), aligned(), reference, surface, PatchGridOnce.of(surface, reference))
    assert compared.deviation_m[0] == pytest.approx(offset_m, abs=2e-5)
    assert surface.normals_part[compared.patch[0], 2] > 0.9


class PatchGridOnce:
    """The grid is the same for all examples of a property."""

    _grid: PatchGrid | None = None

    @classmethod
    def of(cls, surface: Surface, reference: Reference) -> PatchGrid:
        cls._grid = cls._grid or PatchGrid(surface, reference)
        return cls._grid


def test_dent_deeper_than_half_a_thin_wall_is_measured_from_its_own_face() -> None:
    """The nearest face of a sheet of 1 mm that is bent by 0.8 mm is the wrong one; the point's normal tells."""
    box = sheet_of_one_millimetre()
    reference = Reference(box.vertices_m, box.triangles)
    surface = Surface.build(reference, np.array([-0.1, -0.1, -0.1]), np.array([0.1, 0.1, 0.1]), AREA_M2)
    points = np.array([[0.0, 0.0, 0.0002], [0.0, 0.0, 0.0002]])
    normals = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    compared = compare(cloud_of(points, normals), aligned(), reference, surface, PatchGrid(surface, reference))
    np.testing.assert_allclose(compared.deviation_m, [-0.0008, -0.0002], atol=2e-5)
    assert surface.normals_part[compared.patch[0], 2] > 0.9
    assert surface.normals_part[compared.patch[1], 2] < -0.9


def sheet_of_one_millimetre() -> PartMesh:
    from depthcell.acquisition.simulator.terraces import Terrace, flat, rectangle, terraced_solid

    return terraced_solid([Terrace(rectangle((0.0, 0.0), (30.0, 20.0), corner_mm=1.0), flat(1.0))], spacing_mm=1.0)


def test_rim_that_was_spread_out_beside_a_wall_says_nothing_about_the_wall(
    reference: Reference, surface: Surface
) -> None:
    beside_wall = np.array([[0.0255, 0.0, 0.0079], [0.0290, 0.0, 0.0079], [0.0252, 0.0, 0.005]])
    normals = np.array([UP, UP, [1.0, 0.0, 0.0]])
    patch = compare(cloud_of(beside_wall, normals), aligned(), reference, surface, PatchGrid(surface, reference)).patch
    assert patch[0] == -1  # within the window's width of the rim
    assert patch[1] >= 0  # too far out for the window: something is there
    assert patch[2] >= 0  # looks as the wall does


def correlated_field(points: np.ndarray, length_m: float, rng: np.random.Generator) -> np.ndarray:
    """Unit noise that correlates as exp(-(d / l)²), by random Fourier features (A. Rahimi, B. Recht, NIPS 2007)."""
    waves = rng.normal(0, np.sqrt(2) / length_m, (300, 2))
    phases = rng.uniform(0, 2 * np.pi, 300)
    return np.asarray(np.sqrt(2 / 300) * np.cos(points[:, :2] @ waves.T + phases).sum(axis=1))


def test_uncertainty_of_means_holds_under_correlated_noise(
    reference: Reference, surface: Surface, scales: DeviationScales
) -> None:
    """Scores of a perfect part have unit spread at every scale; without the correlation they would not."""
    rng, points, grid = np.random.default_rng(5), top_points(), PatchGrid(surface, reference)
    sigma_m, correlation_m = 6e-5, 1.2e-3
    scores: list[list[np.ndarray]] = [[] for _ in scales.radii_m]
    naive: list[np.ndarray] = []
    for _ in range(30):
        noisy = points + sigma_m * correlated_field(points, correlation_m, rng)[:, None] * UP
        cloud = cloud_of(noisy, np.broadcast_to(UP, noisy.shape), sigma_m, correlation_m)
        mapped = scales.map(cloud, compare(cloud, aligned(), reference, surface, grid), aligned())
        for number, scale in enumerate(mapped.scales):
            scores[number].append(scale.mean_m / scale.random_u_m)
        count = scales.neighbours[-1] @ mapped.count
        naive.append(mapped.scales[-1].mean_m / (sigma_m / np.sqrt(np.maximum(count, 1))))
    for one in scores:
        assert np.nanstd(np.concatenate(one)) == pytest.approx(1.0, abs=0.15)
    assert np.nanstd(np.concatenate(naive)) > 4.0


def test_mean_correlation_of_a_disc_agrees_with_pairs_of_points() -> None:
    rng = np.random.default_rng(2)
    for length_m, radius_m in ((1e-3, 1e-3), (1e-3, 3e-3), (2e-3, 1e-3)):
        turn, away = rng.uniform(0, 2 * np.pi, (2, 40_000)), radius_m * np.sqrt(rng.uniform(0, 1, (2, 40_000)))
        places = np.stack((away * np.cos(turn), away * np.sin(turn)), axis=-1)
        actual = np.exp(-((places[0] - places[1]) ** 2).sum(axis=1) / length_m**2).mean()
        assert mean_correlation(np.array(length_m), radius_m) == pytest.approx(actual, rel=0.2)


def test_pose_uncertainty_is_not_averaged_away(reference: Reference, surface: Surface, scales: DeviationScales) -> None:
    alignment = aligned(np.diag([0, 0, 0, 0, 0, 3e-5**2]))
    points = top_points()
    cloud = cloud_of(points, np.broadcast_to(UP, points.shape), sigma_m=1e-6)
    mapped = scales.map(cloud, compare(cloud, alignment, reference, surface, PatchGrid(surface, reference)), alignment)
    top = (surface.normals_part[:, 2] > 0.99) & np.isfinite(mapped.scales[-1].mean_m)
    np.testing.assert_allclose(mapped.scales[-1].random_u_m[top], 3e-5, rtol=0.02)


def test_neighbourhood_with_too_few_points_has_no_mean(
    reference: Reference, surface: Surface, scales: DeviationScales
) -> None:
    points = top_points()
    half = points[points[:, 0] < 0]
    cloud = cloud_of(half, np.broadcast_to(UP, half.shape))
    mapped = scales.map(cloud, compare(cloud, aligned(), reference, surface, PatchGrid(surface, reference)), aligned())
    unseen = surface.points_part[:, 0] > scales.radii_m[-1]
    for scale in mapped.scales:
        assert not np.isfinite(scale.mean_m[unseen]).any()


def test_coverage_counts_what_was_measured_well_enough(
    reference: Reference, surface: Surface, scales: DeviationScales
) -> None:
    expected = surface.normals_part[:, 2] > 0.99
    u_m = np.full((len(scales.radii_m), len(surface)), 5e-5)
    u_m[:, surface.points_part[:, 0] > 0] = 2e-4
    u_m[:, surface.points_part[:, 1] > 0.009] = np.nan
    score = ShapeScore(np.zeros_like(u_m), u_m)
    found = coverage(expected, score, scales, tolerance_m=5e-4, significance=5.0)
    area = surface.area_m2 * expected
    assert found.measured == pytest.approx(area[surface.points_part[:, 1] <= 0.009].sum() / area.sum())
    left = (surface.points_part[:, 1] <= 0.009) & (surface.points_part[:, 0] <= 0)
    assert found.capable == pytest.approx(area[left].sum() / area.sum())
    assert coverage(np.zeros_like(expected), score, scales, 5e-4, 5.0).capable == 0.0


def test_largest_gap_is_found_where_it_is(reference: Reference, surface: Surface, scales: DeviationScales) -> None:
    points = top_points()
    points = points[np.hypot(points[:, 0] + 0.010, points[:, 1] - 0.004) > 0.004]
    cloud = cloud_of(points, np.broadcast_to(UP, points.shape))
    mapped = scales.map(cloud, compare(cloud, aligned(), reference, surface, PatchGrid(surface, reference)), aligned())
    inner = (surface.normals_part[:, 2] > 0.99) & ~surface.near_edge
    inner &= (np.abs(surface.points_part[:, 0]) < 0.021) & (np.abs(surface.points_part[:, 1]) < 0.014)
    gap = largest_gap(inner, mapped, scales)
    # The finest mean still reaches a patch into the hole.
    assert np.pi * 0.003**2 < gap.area_m2 < np.pi * 0.004**2
    np.testing.assert_allclose(gap.centre_m[:2], [-0.010, 0.004], atol=5e-4)
    assert largest_gap(np.zeros(len(surface), bool), mapped, scales).area_m2 == 0.0


def test_neighbourhood_means_leave_unseen_patches_out(surface: Surface) -> None:
    near = surface.neighbours(0.002)
    values = np.random.default_rng(1).normal(size=(len(surface), 2))
    values[::3, 0] = np.nan
    means, largest = neighbourhood_mean(near, values), neighbourhood_max(near, np.abs(values[:, 1]))
    for patch in (0, 50, len(surface) - 1):
        among = near.indices[near.indptr[patch] : near.indptr[patch + 1]]
        known = values[among][np.isfinite(values[among, 0])]
        np.testing.assert_allclose(means[patch], known.mean(axis=0) if len(known) else [np.nan, np.nan])
        assert largest[patch] == np.abs(values[among, 1]).max()


def test_variance_of_few_parts_is_steadied_but_never_below_the_neighbourhood(surface: Surface) -> None:
    rng, near = np.random.default_rng(3), surface.neighbours(0.004)
    samples = rng.normal(0, 2.0, (6, len(surface)))
    samples[:, 7] *= 20
    variance = steadied_variance(samples, near)
    others = near[[7]].toarray()[0] == 0
    assert np.std(variance[others]) < 0.5 * np.std(samples.var(axis=0, ddof=1)[others])
    assert np.median(variance[others]) == pytest.approx(4.0, rel=0.2)
    assert variance[7] > 100
