"""Canonical views and the store: a pixel means one place of the part, and nothing enters twice or mislabelled."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stagedpart import SERIALS, TOP_MM, Part, Stage, framesets
from stagedviews import SIDE_PX, seen_as, views_of

from depthcell.errors import DepthcellError
from depthcell.models.artifact import ModelIdentity
from depthcell.models.network.partinput import CHANNELS, CLASSES, Labels, PartInput
from depthcell.models.views.canonical import CanonicalViews, build_canonical
from depthcell.models.views.imaging import part_input
from depthcell.models.views.partstore import PartStore, Split, load_part, save_part

DENT = (-10.0, 5.0, 5.0, 1.0)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage.set_up(tmp_path_factory.mktemp("stage"))


@pytest.fixture(scope="module")
def views(stage: Stage) -> CanonicalViews:
    return views_of(stage)


@pytest.fixture(scope="module")
def good(stage: Stage, views: CanonicalViews) -> list[PartInput]:
    return [seen_as(stage, Part(seed), views) for seed in (1, 2, 3)]


def test_each_place_lies_behind_its_own_pixel_and_on_the_part(stage: Stage, views: CanonicalViews) -> None:
    for view, camera in enumerate(views.cameras):
        rows, columns = np.nonzero(views.expected[view])
        assert len(rows) > 100
        places = views.points_part[view][rows, columns]
        pixels = camera.intrinsics.project(camera.T_depth_part @ places.astype(np.float64))
        np.testing.assert_allclose(pixels, np.stack((columns, rows), axis=1), atol=2e-2)
        assert np.abs(stage.observer.reference.exact_signed_distance(places.astype(np.float64))).max() < 2e-6
        assert (views.normals_part[view][rows, columns] @ camera.T_depth_part.rotation[2] < 0.2).all()


def test_identity_changes_with_what_the_views_rest_on(stage: Stage, views: CanonicalViews) -> None:
    assert views_of(stage).sha256 == views.sha256
    assert views_of(stage, 96).sha256 != views.sha256
    pose = stage.recipe.pose.T_cell_part.perturbed(np.array([0, 0, 0, 0, 0, 1e-4]))
    region = stage.recipe.region
    moved = build_canonical(stage.observer.reference, pose, stage.cell, SERIALS, SIDE_PX, (region.min_m, region.max_m))
    assert moved.sha256 != views.sha256


@pytest.mark.parametrize(("serials", "side", "says"), [((), 64, "name each camera once"), (SERIALS, 8, "must be 32")])
def test_views_that_cannot_be_are_refused(stage: Stage, serials: tuple[str, ...], side: int, says: str) -> None:
    with pytest.raises(DepthcellError, match=says):
        build_canonical(stage.observer.reference, stage.recipe.pose.T_cell_part, stage.cell, serials, side)


def test_good_parts_show_no_deviation_wherever_they_lie(good: list[PartInput], views: CanonicalViews) -> None:
    for part in good:
        seen = part.channel("measured") > 0
        assert seen[views.expected].mean() > 0.7
        off = part.channel("deviation")[seen & views.expected]
        assert abs(np.median(off)) < 0.03
        assert np.percentile(np.abs(off), 90) < 0.3
    assert np.abs(good[0].channel("red") - good[1].channel("red"))[views.expected].mean() < 0.06


def test_dent_shows_at_its_own_place_in_every_view_and_in_the_points(
    stage: Stage, views: CanonicalViews, good: list[PartInput]
) -> None:
    part = seen_as(stage, Part(21, dent=DENT), views)
    places_mm = views.points_part * 1e3
    on_top = np.abs(places_mm[..., 2] - TOP_MM) < 0.1
    near = on_top & (np.hypot(places_mm[..., 0] - DENT[0], places_mm[..., 1] - DENT[1]) < 1.5)
    far = on_top & (np.hypot(places_mm[..., 0] - DENT[0], places_mm[..., 1] - DENT[1]) > 7)
    seen = part.channel("measured") > 0
    for view in range(3):
        assert np.median(part.channel("deviation")[view][near[view] & seen[view]]) == pytest.approx(-0.9, abs=0.25)
        assert abs(np.median(part.channel("deviation")[view][far[view] & seen[view]])) < 0.05
    points_mm = part.points_part * 1e3
    inside = (np.hypot(points_mm[:, 0] - DENT[0], points_mm[:, 1] - DENT[1]) < 1.5) & (points_mm[:, 2] > TOP_MM - 2)
    assert inside.sum() > 3
    assert np.median(part.feature("deviation")[inside]) == pytest.approx(-0.9, abs=0.25)
    assert np.abs(np.median(good[0].feature("deviation"))) < 0.05


def test_points_show_where_they_are_seen(views: CanonicalViews, good: list[PartInput]) -> None:
    part = good[0]
    places = views.points_part.reshape(3, -1, 3)
    for view in range(3):
        seen = part.pixel[:, view] >= 0
        assert 0.2 < seen.mean() < 1
        apart = np.linalg.norm(places[view][part.pixel[seen, view]] - part.points_part[seen], axis=1)
        assert np.nanmedian(apart) < 2 * views.pixel_m[view]


def test_camera_that_gave_nothing_is_a_view_of_zeros(stage: Stage, views: CanonicalViews) -> None:
    accumulator = stage.observer.accumulator()
    for one in framesets(Part(5), stage.cell):
        accumulator.add(replace(one, frames={s: f for s, f in one.frames.items() if s != SERIALS[1]}))
    fused = accumulator.fuse()
    found = stage.observer.observe(fused)
    part = part_input("p", fused, found.alignment.T_cell_part, stage.observer.reference, views, stage.cell)
    assert part.lost_cameras == (SERIALS[1],)
    assert not part.images[1].any()
    assert part.images[0].any()


def marked(part: PartInput, kind: str = "dent") -> PartInput:
    pixels = np.zeros(part.images[:, 0].shape, np.uint8)
    pixels[0, 30:34, 30:34] = CLASSES.index(kind)
    return replace(part, labels=Labels(pixels, np.zeros(len(part.points_part), np.uint8)))


def identity(views: CanonicalViews) -> ModelIdentity:
    return ModelIdentity(views.sha256, "plate", "plate cell", views.serials)


def test_store_gives_back_what_was_put_in(tmp_path: Path, views: CanonicalViews, good: list[PartInput]) -> None:
    store = PartStore(tmp_path, identity(views), SIDE_PX)
    store.add(good[0], good=True, recording_sha256="ab")
    store.add(marked(good[1]), good=False)
    again = PartStore.open(tmp_path, identity(views))
    assert [part.part_id for part in again.parts] == ["seed_1", "seed_2"]
    assert again.parts[1].classes == ("dent",)
    found = again.get("seed_1")
    assert found is not None
    assert found.recording_sha256 == "ab"
    for name in ("images", "points_part", "features", "neighbours", "pixel"):
        np.testing.assert_array_equal(getattr(again.load("seed_1"), name), getattr(good[0], name))
    labels = again.load("seed_2").labels
    assert labels is not None
    assert labels.is_defect


def test_store_refuses_doubles_wrong_labels_and_other_views(
    tmp_path: Path, views: CanonicalViews, good: list[PartInput]
) -> None:
    store = PartStore(tmp_path, identity(views), SIDE_PX)
    store.add(good[0], good=True)
    with pytest.raises(DepthcellError, match="seed_1 is there twice"):
        store.add(good[0], good=True)
    with pytest.raises(DepthcellError, match="seed_1 and other hold the same"):
        store.add(replace(good[0], part_id="other"), good=True)
    with pytest.raises(DepthcellError, match="said to be good, but its labels mark dent"):
        store.add(marked(good[1]), good=True)
    empty = replace(good[1], labels=Labels(np.zeros((3, SIDE_PX, SIDE_PX), np.uint8), np.zeros(1024, np.uint8)))
    with pytest.raises(DepthcellError, match="said to be defective, but its labels mark nothing"):
        store.add(empty, good=False)
    with pytest.raises(DepthcellError, match="recipe_name is plate, needed is bracket"):
        PartStore.open(tmp_path, replace(identity(views), recipe_name="bracket"))
    with pytest.raises(DepthcellError, match="no part is of class stain"):
        store.require(["good", "stain"])
    store.add(good[1], good=True)
    other = PartStore(tmp_path / "test", identity(views), SIDE_PX)
    other.add(replace(good[1], part_id="renamed"), good=True)
    with pytest.raises(DepthcellError, match="part renamed is part seed_2 of"):
        store.refuse_shared(other)


def test_same_part_is_the_same_file(tmp_path: Path, good: list[PartInput]) -> None:
    assert len({save_part(tmp_path / f"{number}.safetensors", good[0]) for number in range(8)}) == 1


def test_truncated_or_changed_part_is_refused(tmp_path: Path, good: list[PartInput]) -> None:
    path = tmp_path / "part.safetensors"
    digest = save_part(path, good[0])
    assert load_part(path, digest).part_id == "seed_1"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DepthcellError, match="is truncated or no part"):
        load_part(path)
    with pytest.raises(DepthcellError, match="is not what the index lists"):
        load_part(path, digest)


def test_split_is_by_part_seeded_and_disjoint(tmp_path: Path, views: CanonicalViews, good: list[PartInput]) -> None:
    store = PartStore(tmp_path, identity(views), SIDE_PX)
    rng = np.random.default_rng(0)
    for number in range(10):
        images = good[0].images.copy()
        images[:, CHANNELS.index("sigma")] += rng.random()
        store.add(replace(good[0], part_id=f"p{number}", images=images.astype(np.float32)), good=True)
    split = store.split(3, (0.5, 0.3, 0.2))
    assert split == store.split(3, (0.5, 0.3, 0.2)) != store.split(4, (0.5, 0.3, 0.2))
    assert sorted((*split.train, *split.validation, *split.test)) == [f"p{number}" for number in range(10)]
    with pytest.raises(DepthcellError, match="is named twice"):
        Split(("a",), ("a",), ())
    with pytest.raises(DepthcellError, match="must be 0 or more and make 1"):
        store.split(0, (0.5, 0.5, 0.5))
