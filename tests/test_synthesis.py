"""Drawn defects and altered scans: one story in every view and point, labelled exactly, the same for the same seed."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray
from viewedpart import CENTRE_M, step_reference, viewing_cell

from depthcell.acquisition.simulator.defects import DefectKind
from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError
from depthcell.models.network.partinput import CHANNELS, CLASSES, POINT_FEATURES, PartInput
from depthcell.models.synthesis.augment import AugmentSettings, augment
from depthcell.models.synthesis.canvas import GEOMETRY, NORMAL, RGB
from depthcell.models.synthesis.draw import draw_defects
from depthcell.models.synthesis.settings import SIZES, DrawSettings, Sizes
from depthcell.models.synthesis.sites import bores
from depthcell.models.synthesis.stream import SyntheticParts, labelled_good
from depthcell.models.views.canonical import CanonicalViews, build_canonical
from depthcell.models.views.imaging import nearest

SIDE_PX = 96
SIGMA_MM = 0.05
STILL = AugmentSettings(**dict.fromkeys(AugmentSettings.__dataclass_fields__, 0.0))
SHAPES = [kind for kind in DefectKind if kind not in (DefectKind.STAIN, DefectKind.DISCOLOURATION, DefectKind.RUST)]
EVERYWHERE = DefectKind.WARP, DefectKind.MISSING_BORE


@lru_cache(maxsize=1)
def step_views() -> CanonicalViews:
    """Three cameras' views of the block with a bore."""
    T_cell_part = RigidTransform("cell", "part", np.eye(3), CENTRE_M - (0.0, 0.0, 0.02))
    return build_canonical(step_reference(), T_cell_part, viewing_cell(), ["C0", "C1", "C2"], SIDE_PX)


@lru_cache(maxsize=1)
def perfect() -> PartInput:
    """The block as perfect cameras see it, in even grey: no deviation, and points on every third pixel."""
    views = step_views()
    seen = views.expected
    images = np.zeros((3, len(CHANNELS), SIDE_PX, SIDE_PX), np.float32)
    for view, camera in enumerate(views.cameras):
        z_m = (camera.T_depth_part @ np.nan_to_num(views.points_part[view]))[..., 2]
        images[view, 3] = np.where(seen[view], views.z_nominal_m[view] / z_m - 1, 0)
    images[:, RGB] = 0.5 * seen[:, None]
    images[:, NORMAL] = np.where(seen[..., None], views.normals_part, 0).transpose(0, 3, 1, 2)
    images[:, CHANNELS.index("sigma")] = SIGMA_MM * seen
    images[:, CHANNELS.index("measured")] = images[:, CHANNELS.index("colored")] = seen
    at = np.flatnonzero(seen)[::3]
    points, normals = (a.reshape(-1, 3)[at] for a in (views.points_part, views.normals_part))
    features = np.zeros((len(at), len(POINT_FEATURES)), np.float32)
    features[:, :3], features[:, 4], features[:, 5:8], features[:, 8] = normals, SIGMA_MM, 0.5, 1
    pixel = np.full((len(at), 3), -1, np.int32)
    seen_by, place = np.divmod(at, SIDE_PX**2)
    pixel[np.arange(len(at)), seen_by] = place
    return PartInput("perfect", views.serials, images, points, features, nearest(points), pixel)


def drawn(kind: DefectKind, seed: int = 0, **changes: float) -> PartInput:
    """The perfect part with one defect."""
    settings = replace(DrawSettings(hole_share=0.0), **changes)  # type: ignore[arg-type]
    return draw_defects(perfect(), step_views(), np.random.default_rng(seed), settings, [kind])


def same(one: PartInput, other: PartInput) -> bool:
    """Whether all that two parts hold is the same, labels included."""
    assert one.labels is not None
    assert other.labels is not None
    names = ("images", "points_part", "features", "neighbours", "pixel")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names) and all(
        np.array_equal(getattr(one.labels, name), getattr(other.labels, name)) for name in ("pixels", "points")
    )


def wrong(part: PartInput) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Labelled pixels and points."""
    assert part.labels is not None
    return part.labels.pixels > 0, part.labels.points > 0


@pytest.mark.parametrize("kind", list(DefectKind))
def test_every_kind_shows_and_is_labelled_as_what_it_is(kind: DefectKind) -> None:
    seen = 0
    for seed in range(6):
        part = drawn(kind, seed)
        pixels, points = wrong(part)
        assert pixels.any() or points.any()
        seen += bool(pixels.any())
        assert part.labels is not None
        assert set(np.unique(part.labels.pixels[pixels])) | set(np.unique(part.labels.points[points])) == {
            CLASSES.index(kind)
        }
        changed = (part.images != perfect().images).any(axis=1)
        assert changed[pixels].sum() >= 0.95 * pixels.sum()
    assert seen >= 5
    assert perfect().labels is None


@pytest.mark.parametrize("kind", [kind for kind in SHAPES if kind not in EVERYWHERE])
def test_labels_are_where_the_surface_moved_visibly_and_nowhere_else(kind: DefectKind) -> None:
    settings, moved_somewhere = DrawSettings(), 0
    for seed in range(6):
        part = drawn(kind, seed)
        pixels, points = wrong(part)
        kept = part.channel("measured") > 0
        for lift_mm, labelled in (
            (part.channel("deviation")[kept], pixels[kept]),
            (part.feature("deviation"), points),
        ):
            if labelled.any() and kind is not DefectKind.SCRATCH:
                assert np.abs(lift_mm[labelled]).min() > settings.visible_mm
            assert np.abs(lift_mm[~labelled]).max() <= max(
                settings.visible_mm, settings.visible_share * SIZES[kind].depth_mm[1]
            )
        moved_somewhere += int(points.any())
    assert moved_somewhere > 1


@pytest.mark.parametrize("kind", [DefectKind.DENT, DefectKind.STAIN, DefectKind.BURR])
def test_what_lies_away_from_a_defect_stays_as_measured(kind: DefectKind) -> None:
    part = drawn(kind, 3)
    pixels, points = wrong(part)
    changed = (part.images != perfect().images).any(axis=1)
    places = step_views().points_part
    centre = places[pixels].mean(axis=0)
    reach_m = 1.6 * (2 * SIZES[kind].radius_mm[1]) / 1e3
    far = np.linalg.norm(places - centre, axis=-1) > reach_m
    assert far.sum() > 1000
    assert not changed[far].any()
    untouched = np.linalg.norm(perfect().points_part - centre, axis=1) > reach_m
    assert not points[untouched].any()
    assert np.array_equal(part.features[untouched], perfect().features[untouched])


def test_a_point_moves_along_its_normal_by_what_its_deviation_says() -> None:
    for kind, sign in ((DefectKind.DENT, -1), (DefectKind.BUMP, 1)):
        for seed in range(4):
            part = drawn(kind, seed)
            step_m = part.points_part - perfect().points_part
            along_m = np.einsum("ij,ij->i", step_m, perfect().features[:, :3])
            np.testing.assert_allclose(along_m * 1e3, part.feature("deviation"), atol=1e-4)
            np.testing.assert_allclose(np.linalg.norm(step_m, axis=1), np.abs(along_m), atol=1e-7)
            assert (sign * part.feature("deviation") >= 0).all()


def test_two_views_and_the_points_agree_about_a_place() -> None:
    sizes = {DefectKind.DENT: Sizes((8.0, 8.0), (0.5, 0.5))}
    settings = DrawSettings(kinds=(DefectKind.DENT,), sizes=sizes)
    places, compared = step_views().points_part, 0
    for seed in range(8):
        part = draw_defects(perfect(), step_views(), np.random.default_rng(seed), settings, settings.kinds)
        deviation_mm = part.channel("deviation")
        in_view = (part.channel("measured") > 0) & (deviation_mm < -0.1)
        first, second = np.argsort(-in_view.sum(axis=(1, 2)))[:2]
        in_points = part.feature("deviation") < -0.1
        for others, lift_mm in (
            (places[second][in_view[second]], deviation_mm[second][in_view[second]]),
            (perfect().points_part[in_points], part.feature("deviation")[in_points]),
        ):
            if not len(others):
                continue
            away = np.linalg.norm(places[first][in_view[first]][:, None] - others, axis=-1)
            near = away.min(axis=1) < 2e-4
            difference_mm = deviation_mm[first][in_view[first]][near] - lift_mm[away.argmin(axis=1)[near]]
            assert np.abs(difference_mm).max(initial=0) < 0.06
            compared += int(near.sum())
    assert compared > 100


def test_the_depth_of_a_dent_is_where_its_ray_meets_the_moved_surface() -> None:
    part, views = drawn(DefectKind.DENT, 2), step_views()
    checked = 0
    for view, camera in enumerate(views.cameras):
        at = (np.abs(part.channel("deviation")[view]) > 0.05) & (part.channel("measured")[view] > 0)
        z_m = views.z_nominal_m[view] / (1 + part.channel("inverse_depth")[view][at])
        found = camera.T_depth_part.inverse() @ (camera.intrinsics.rays()[at] * z_m[:, None])
        height_m = np.einsum("ij,ij->i", found - views.points_part[view][at], views.normals_part[view][at])
        np.testing.assert_allclose(height_m * 1e3, part.channel("deviation")[view][at], atol=2e-3)
        checked += int(at.sum())
    assert checked > 20


def test_a_bore_that_is_not_there_is_level_with_its_face() -> None:
    assert len(bores(step_views())) >= 1
    part = drawn(DefectKind.MISSING_BORE)
    pixels, _ = wrong(part)
    assert (part.channel("measured")[pixels] == 1).all()
    assert (part.channel("deviation")[pixels] >= 0).all()
    for view, camera in enumerate(step_views().cameras):
        z_m = step_views().z_nominal_m[view] / (1 + part.channel("inverse_depth")[view][pixels[view]])
        found = camera.T_depth_part.inverse() @ (camera.intrinsics.rays()[pixels[view]] * z_m[:, None])
        np.testing.assert_allclose(found[:, 2], 0.010, atol=2e-4)


def test_a_hole_right_through_measures_nothing_and_leaves_no_point() -> None:
    part = draw_defects(
        perfect(), step_views(), np.random.default_rng(5), DrawSettings(hole_share=1.0), [DefectKind.MISSING_MATERIAL]
    )
    pixels, points = wrong(part)
    assert pixels.any()
    assert not points.any()
    assert not part.images[:, GEOMETRY].transpose(0, 2, 3, 1)[pixels].any()
    assert (part.channel("red")[pixels] < 0.1).all()


def test_steep_walls_are_not_measured_but_shallow_ones_are() -> None:
    def lost(depth_mm: float) -> int:
        sizes = {DefectKind.MISSING_MATERIAL: Sizes((4.0, 4.0), (depth_mm, depth_mm))}
        settings = DrawSettings(kinds=(DefectKind.MISSING_MATERIAL,), sizes=sizes, hole_share=0.0)
        part = draw_defects(perfect(), step_views(), np.random.default_rng(8), settings, list(settings.kinds))
        return int((perfect().channel("measured") > part.channel("measured")).sum())

    assert lost(0.05) == 0
    assert lost(4.0) > 10


def test_held_out_kinds_are_never_drawn() -> None:
    held_out = (DefectKind.DENT, DefectKind.RUST, DefectKind.EXCESS_MATERIAL, DefectKind.MISSING_BORE)
    settings, seen = DrawSettings(held_out=held_out, most=3), set[int]()
    for seed in range(60):
        labels = draw_defects(perfect(), step_views(), np.random.default_rng(seed), settings).labels
        assert labels is not None
        assert labels.is_defect
        seen |= set(np.unique(labels.pixels).tolist()) | set(np.unique(labels.points).tolist())
    assert seen == {0, *(CLASSES.index(kind) for kind in settings.drawn)}
    with pytest.raises(DepthcellError, match="every kind is held out"):
        DrawSettings(held_out=tuple(DefectKind))


def test_a_lost_camera_stays_lost() -> None:
    images = perfect().images.copy()
    images[1] = 0
    for kind in DefectKind:
        part = draw_defects(
            replace(perfect(), images=images), step_views(), np.random.default_rng(4), DrawSettings(), [kind]
        )
        assert not part.images[1].any()
        assert not wrong(part)[0][1].any()


def test_nothing_altered_is_nothing_changed_and_some_is() -> None:
    part = drawn(DefectKind.DENT)
    still = augment(part, np.random.default_rng(0), STILL, step_views())
    np.testing.assert_allclose(still.images, part.images, atol=1e-6)
    np.testing.assert_allclose(still.points_part, part.points_part, atol=1e-8)
    altered = augment(part, np.random.default_rng(0), replace(STILL, gain=0.1), step_views())
    assert np.abs(altered.channel("red") - part.channel("red")).max() > 1e-3
    assert np.array_equal(altered.images[:, GEOMETRY], still.images[:, GEOMETRY])
    assert same(drawn(DefectKind.DENT), part)


def test_what_alignment_leaves_moves_pixels_and_points_alike() -> None:
    settings = replace(STILL, turn_rad=2e-3, shift_m=1e-4, scale=1e-3)
    part = augment(perfect(), np.random.default_rng(3), settings, step_views())
    assert np.abs(part.feature("deviation")).max() > 0.02
    for view in range(3):
        shown = part.pixel[:, view] >= 0
        pixels = part.channel("deviation")[view].ravel()[part.pixel[shown, view]]
        np.testing.assert_allclose(pixels, part.feature("deviation")[shown], atol=1e-4)
    blind = augment(perfect(), np.random.default_rng(3), settings)
    assert not blind.channel("deviation").any()
    assert not blind.feature("deviation").any()


def test_added_noise_keeps_to_sigma() -> None:
    share = []
    for seed in range(20):
        part = augment(perfect(), np.random.default_rng(seed), replace(STILL, noise=1.0, normal_noise=0.05))
        measured = part.channel("measured") > 0
        in_pixels = part.channel("deviation")[measured].std() / SIGMA_MM
        assert in_pixels == pytest.approx(part.feature("deviation").std() / SIGMA_MM, rel=0.1)
        share.append(in_pixels)
        np.testing.assert_allclose(np.linalg.norm(part.images[:, NORMAL], axis=1)[measured], 1, atol=1e-5)
        assert not part.channel("deviation")[~measured].any()
    assert 0.3 < np.mean(share) < 0.7
    assert max(share) < 1.1


def test_lost_colour_takes_blemishes_out_of_the_labels_and_leaves_dents() -> None:
    for kind, stays in ((DefectKind.STAIN, False), (DefectKind.DENT, True)):
        part = augment(drawn(kind), np.random.default_rng(0), replace(STILL, drop_color=1.0))
        assert not part.channel("colored").any()
        assert not part.channel("blue").any()
        assert not part.feature("colored").any()
        assert not part.feature("green").any()
        assert part.channel("measured").any()
        assert part.labels is not None
        assert part.labels.is_defect is stays


def test_lost_depth_and_lost_camera_reach_the_points() -> None:
    part = augment(drawn(DefectKind.DENT), np.random.default_rng(0), replace(STILL, drop_depth=1.0))
    assert not part.images[:, GEOMETRY].any()
    assert part.channel("colored").any()
    assert len(part.points_part) == 0
    part = augment(drawn(DefectKind.DENT), np.random.default_rng(0), replace(STILL, drop_camera=1.0))
    assert len(part.lost_cameras) == 1
    lost = part.serials.index(part.lost_cameras[0])
    assert (part.pixel[:, lost] == -1).all()
    assert 0 < len(part.points_part) == int((perfect().pixel[:, lost] == -1).sum())


def test_lost_points_leave_those_that_stay_with_their_own_neighbours() -> None:
    part = augment(drawn(DefectKind.DENT), np.random.default_rng(1), replace(STILL, drop_points=1.0))
    assert part.labels is not None
    assert 10 < len(part.points_part) < len(perfect().points_part)
    assert len(part.labels.points) == len(part.points_part)
    assert np.array_equal(part.neighbours, nearest(part.points_part))


def test_augment_refuses_what_it_cannot_do() -> None:
    with pytest.raises(DepthcellError, match="drop_color must be between 0 and 1"):
        AugmentSettings(drop_color=1.5)
    with pytest.raises(DepthcellError, match="noise must be 0 or more"):
        AugmentSettings(noise=-0.1)
    other = replace(step_views(), serials=("C2", "C1", "C0"))
    with pytest.raises(DepthcellError, match="other views"):
        augment(perfect(), np.random.default_rng(0), None, other)
    with pytest.raises(DepthcellError, match="other views"):
        draw_defects(perfect(), other, np.random.default_rng(0))


def test_the_row_of_parts_is_the_same_for_the_same_seed_and_every_other_one_is_defective() -> None:
    parts = SyntheticParts([perfect()], step_views(), seed=7)
    again, otherwise = (
        SyntheticParts([perfect()], step_views(), seed=7),
        SyntheticParts([perfect()], step_views(), seed=8),
    )
    calm = SyntheticParts([perfect()], step_views(), alter=STILL, seed=7)
    for index in (0, 1, 5, 2):
        assert same(parts.part(index), again.part(index))
        assert not np.array_equal(parts.part(index).images, otherwise.part(index).images)
        labels = calm.part(index).labels
        assert labels is not None
        assert labels.is_defect is bool(index % 2)
    assert same(calm.part(0), augment(labelled_good(perfect()), np.random.default_rng(0), STILL))
    with pytest.raises(DepthcellError, match="no good part"):
        SyntheticParts([], step_views())


def test_sizes_out_of_order_are_refused() -> None:
    with pytest.raises(DepthcellError, match="the smaller first"):
        Sizes((3.0, 1.0))
    with pytest.raises(DepthcellError, match="starts above 0"):
        Sizes((1.0, 3.0), (0.0, 1.0))
    with pytest.raises(DepthcellError, match="no sizes for dent"):
        DrawSettings(kinds=(DefectKind.DENT,), sizes={})
