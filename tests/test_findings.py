"""Regions and findings on scores made by hand: what hangs together, how large it is, and what it is called."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stagedpart import plate_mesh

from depthcell.fusion.reference import Reference
from depthcell.inspect.color_check import ColorScore
from depthcell.inspect.deviation import DeviationScales
from depthcell.inspect.naming import color_kind, joined, region_shape, shape_kind
from depthcell.inspect.patch_regions import PatchRegion, grown, multiscale_regions, shape_regions
from depthcell.inspect.pooling import neighbourhood_mean
from depthcell.inspect.shape_check import ShapeScore
from depthcell.inspect.surface import Surface

U_M = 5e-5


@pytest.fixture(scope="module")
def scales() -> DeviationScales:
    mesh = plate_mesh(bore=False)
    reference = Reference(mesh.vertices_m, mesh.triangles)
    surface = Surface.build(reference, np.array([-0.028, -0.021, 0.002]), np.array([0.028, 0.021, 0.014]), 4e-6)
    return DeviationScales(surface, 4e-6)


def on_top(scales: DeviationScales) -> np.ndarray:
    return np.asarray(scales.surface.normals_part[:, 2] > 0.9)


def away_m(scales: DeviationScales, x_m: float, y_m: float) -> np.ndarray:
    away = np.hypot(scales.surface.points_part[:, 0] - x_m, scales.surface.points_part[:, 1] - y_m)
    return np.where(on_top(scales), away, 1.0)


def bowl(scales: DeviationScales, x_m: float, y_m: float, radius_m: float, depth_m: float) -> np.ndarray:
    return np.asarray(depth_m * np.clip(1 - (away_m(scales, x_m, y_m) / radius_m) ** 2, 0, None) ** 2)


def scored(scales: DeviationScales, excess_m: np.ndarray, seed: int = 0, noise: float = 1.0) -> ShapeScore:
    """Averages of a given excess with noise that is independent from scale to scale."""
    rng = np.random.default_rng(seed)
    u_m = np.stack([np.full(len(excess_m), U_M / (1 + number)) for number in range(len(scales.radii_m))])
    means = np.stack([neighbourhood_mean(near, excess_m) for near in scales.neighbours])
    return ShapeScore(means + noise * u_m * rng.normal(size=u_m.shape).clip(-3.5, 3.5), u_m)


def regions_of(scales: DeviationScales, excess_m: np.ndarray, seed: int = 0) -> list[PatchRegion]:
    return shape_regions(scored(scales, excess_m, seed), scales, significance=5.0, min_area_m2=4e-6)


@given(st.integers(0, 1000))
def test_noise_alone_makes_no_region(scales: DeviationScales, seed: int) -> None:
    assert regions_of(scales, np.zeros(len(scales.surface)), seed) == []


@settings(max_examples=25)
@given(st.floats(-0.015, 0.015), st.floats(-0.010, 0.010), st.floats(0.003, 0.006), st.floats(0.5e-3, 2e-3))
def test_dent_is_one_region_at_its_place(
    scales: DeviationScales, x_m: float, y_m: float, radius_m: float, depth_m: float
) -> None:
    excess_m = bowl(scales, x_m, y_m, radius_m, -depth_m)
    found = regions_of(scales, excess_m)
    assert len(found) == 1
    shape = region_shape(found[0], scales.surface, excess_m)
    assert np.hypot(shape.centre_m[0] - x_m, shape.centre_m[1] - y_m) < 7e-4
    # It is outlined on means over 2 mm, which reach out of it by half of that.
    assert 0.4 * np.pi * radius_m**2 < shape.area_m2 < np.pi * (radius_m + 0.001) ** 2
    assert shape.slenderness < 2.0
    assert found[0].significance > 5


def test_dent_and_bump_beside_each_other_stay_apart(scales: DeviationScales) -> None:
    excess_m = bowl(scales, -0.006, 0.0, 0.005, -1e-3) + bowl(scales, 0.006, 0.0, 0.005, 1e-3)
    found = regions_of(scales, excess_m)
    assert len(found) == 2
    assert not np.intersect1d(found[0].patches, found[1].patches).size


def test_faint_but_wide_deviation_is_found_on_the_coarse_scale_only(scales: DeviationScales) -> None:
    excess_m = np.where(away_m(scales, 0.0, 0.0) < 0.008, 2.0 * U_M, 0.0)
    significance = np.nan_to_num(scored(scales, excess_m, noise=0.2).significance)
    assert len(multiscale_regions(significance, scales, 5.0)) == 1
    significance[-1] = 0.0
    assert multiscale_regions(significance, scales, 5.0) == []


def test_region_smaller_than_the_smallest_area_is_left_out(scales: DeviationScales) -> None:
    excess_m = np.zeros(len(scales.surface))
    excess_m[np.argmin(away_m(scales, 0.0, 0.0))] = 5e-3
    score = scored(scales, excess_m)
    assert shape_regions(score, scales, 5.0, min_area_m2=1e-6)
    assert shape_regions(score, scales, 5.0, min_area_m2=4e-5) == []


def test_growing_keeps_components_with_a_seed(scales: DeviationScales) -> None:
    member = (away_m(scales, -0.01, 0.0) < 0.002) | (away_m(scales, 0.01, 0.0) < 0.002)
    seeds = np.zeros(len(scales.surface), bool)
    seeds[np.argmin(away_m(scales, 0.01, 0.0))] = True
    found = grown(np.where(seeds, 9.0, 1.0), seeds, member, scales.touching)
    assert len(found) == 1
    assert found[0].significance == 9.0
    assert (scales.surface.points_part[found[0].patches, 0] > 0).all()
    assert grown(np.ones(len(member)), np.zeros_like(seeds), member, scales.touching) == []


def test_names_follow_the_geometry(scales: DeviationScales) -> None:
    surface = scales.surface
    along, across = surface.points_part[:, 0] / 0.008, surface.points_part[:, 1] / 0.0015
    ridge = np.where(on_top(scales), 1.5e-3 * np.clip(1 - along**4, 0, None) * np.clip(1 - across**2, 0, None), 0.0)
    plateau = np.where(away_m(scales, 0.0, 0.0) < 0.005, 1e-3, 0.0)
    places = (
        (0, 0, -2e-3),
        (0.004, 0.001, -8e-4),
        (-0.003, 0.003, -8e-4),
        (0.001, -0.004, -8e-4),
        (-0.003, -0.003, -8e-4),
    )
    pits = np.sum([bowl(scales, x, y, 0.0016, depth) for x, y, depth in places], axis=0)
    bent = np.where(on_top(scales), 1.2e-3 * (surface.points_part[:, 0] / 0.025) ** 2, 0.0)
    for excess_m, expected in (
        (bowl(scales, 0.0, 0.0, 0.006, -1e-3), "dent"),
        (bowl(scales, 0.0, 0.0, 0.006, 1e-3), "bump"),
        (plateau, "excess_material"),
        (-plateau, "missing_material"),
        (ridge, "burr"),
        (bent, "warp"),
        (pits, "porosity"),
    ):
        found = joined(regions_of(scales, excess_m), surface, excess_m)
        largest = max(found, key=lambda region: len(region.patches))
        shape = region_shape(largest, surface, excess_m)
        measured_m = scored(scales, excess_m).excess_m[0]
        outwards = expected in {"bump", "excess_material", "burr"}
        assert shape_kind(shape, largest, measured_m, scales, outwards=outwards) == expected


def test_pits_close_together_become_one_region_and_distant_ones_do_not(scales: DeviationScales) -> None:
    excess_m = -np.ones(len(scales.surface))
    pits = [PatchRegion(np.flatnonzero(away_m(scales, x, 0.0) < 0.001), 6.0) for x in (0.0, 0.005, 0.018)]
    merged = joined(pits, scales.surface, excess_m)
    assert sorted(len(region.patches) for region in merged) == sorted(
        (len(pits[0].patches) + len(pits[1].patches), len(pits[2].patches))
    )
    apart = joined(pits, scales.surface, -excess_m)  # bumps are no pits
    assert len(apart) == 3


@pytest.mark.parametrize(
    ("difference", "slender", "expected"),
    [
        ((-20.0, 0.5, 1.0), False, "stain"),
        ((-15.0, 18.0, 22.0), False, "rust"),
        ((-3.0, 3.0, 20.0), False, "discolouration"),
        ((15.0, 0.0, 0.0), True, "scratch"),
    ],
)
def test_colours_are_named(
    scales: DeviationScales, difference: tuple[float, float, float], *, slender: bool, expected: str
) -> None:
    across = np.abs(scales.surface.points_part[:, 1])
    inside = on_top(scales) & (across < 0.0008) if slender else away_m(scales, 0.0, 0.0) < 0.004
    region = PatchRegion(np.flatnonzero(inside), 9.0)
    count = len(scales.surface)
    lab = np.where(inside[:, None], np.array(difference), 0.0).astype(np.float32)
    score = ColorScore(np.ones((1, count), np.float32), np.ones((count, 2), np.float32), lab)
    shape = region_shape(region, scales.surface, np.ones(count))
    assert color_kind(shape, score, region) == expected
