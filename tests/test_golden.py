"""Statistics of good parts: what they hold, that files come back whole, and are refused where they do not fit."""

import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stagedpart import GOOD_PARTS, SERIALS, Part, Stage, recorded

from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError, Reason
from depthcell.inspect.golden import MIN_PARTS, Golden, fit_golden
from depthcell.inspect.inspection import Inspector
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.shape_check import score_shape


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage.set_up(tmp_path_factory.mktemp("stage"))


def same(first: Golden, second: Golden) -> bool:
    pairs: list[tuple[Any, Any]] = [(first.shape, second.shape)]
    pairs += [(first.colors[serial], second.colors[serial]) for serial in first.colors]
    return all(
        np.array_equal(getattr(a, field.name), getattr(b, field.name), equal_nan=True)
        for a, b in pairs
        for field in fields(a)
    )


def test_file_comes_back_the_same(stage: Stage, tmp_path: Path) -> None:
    stage.golden.save(tmp_path / "golden.npz")
    loaded = Golden.load(tmp_path / "golden.npz")
    assert same(stage.golden, loaded)
    assert (loaded.surface, loaded.calibrated_at) == (stage.golden.surface, stage.golden.calibrated_at)
    assert loaded.part_ids == tuple(str(number) for number in range(GOOD_PARTS))
    assert loaded.largest_gap_m2 == stage.golden.largest_gap_m2
    assert loaded.free_motions == 0
    assert tuple(loaded.colors) == SERIALS


def test_the_same_recordings_give_the_same_statistics(stage: Stage) -> None:
    parts = [recorded(Part(seed), stage.cell) for seed in range(900, 900 + GOOD_PARTS)]
    again = fit_golden(parts, stage.recipe, stage.cell)
    assert same(stage.golden, again)


def test_good_parts_are_known_where_cameras_see_them(stage: Stage) -> None:
    known, surface = stage.golden.shape.known, stage.observer.surface
    top = (surface.normals_part[:, 2] > 0.99) & ~surface.near_edge
    foot = surface.points_part[:, 2] < 0.0025
    assert known[top].mean() > 0.99
    assert known[foot & surface.near_edge].mean() < 0.7
    assert np.nanmax(np.abs(stage.golden.shape.mean_m[0][top])) < 2e-4
    assert (stage.golden.shape.factor >= 1).all()


def test_scores_of_fresh_good_parts_are_those_of_chance(stage: Stage) -> None:
    scores = []
    for seed in range(40, 46):
        deviation = stage.observer.observe(stage.absorbed(Part(seed)).fuse()).deviation
        scores.append(score_shape(deviation, stage.golden.shape, stage.observer.sight, stage.observer.negligible_m))
    significance = np.stack([score.significance for score in scores])
    assert np.nanmax(np.abs(significance)) < 5.0
    assert 0.3 < np.nanstd(significance) < 1.1


def test_too_few_parts_are_refused(stage: Stage) -> None:
    parts = [recorded(Part(seed), stage.cell) for seed in range(MIN_PARTS - 1)]
    with pytest.raises(DepthcellError, match=f"needs {MIN_PARTS} good parts or more, got {MIN_PARTS - 1}"):
        fit_golden(parts, stage.recipe, stage.cell)


def test_good_part_with_a_camera_missing_is_refused(stage: Stage) -> None:
    with pytest.raises(DepthcellError, match="golden part seed_3: camera 1002 is missing from a frame"):
        fit_golden([recorded(Part(3), stage.cell, without=("1002",))], stage.recipe, stage.cell)


@pytest.mark.parametrize("damage", ["absent", "cut", "garbage", "no column"])
def test_damaged_file_is_refused(stage: Stage, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "golden.npz"
    stage.golden.save(path)
    whole = path.read_bytes()
    if damage == "absent":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "garbage":
        path.write_bytes(b"not an archive")
    else:
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "less.npz", "w") as target:
            for name in source.namelist():
                if name != "shape/mean_m.npy":
                    target.writestr(name, source.read(name))
        path = tmp_path / "less.npz"
    with pytest.raises(DepthcellError, match=r"npz: missing or damaged .*fit it again"):
        Golden.load(path)


def test_flipped_bit_is_refused(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    stage.golden.save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(DepthcellError, match="fit it again"):
        Golden.load(path)


def test_statistics_of_another_surface_or_calibration_are_refused(stage: Stage, tmp_path: Path) -> None:
    for name in ("plate.stl", "golden.npz", "cell.json"):
        (tmp_path / name).write_bytes((stage.folder / name).read_bytes())
    text = (stage.folder / "recipe.toml").read_text()
    (tmp_path / "recipe.toml").write_text(text.replace("max_mm = [28,", "max_mm = [20,"))
    with pytest.raises(DepthcellError, match=r"reference\.golden was fitted with another mesh or region") as caught:
        Inspector.load(Recipe.load(tmp_path / "recipe.toml"), stage.cell)
    assert caught.value.reason is Reason.RECIPE_INVALID
    recalibrated = Cell(stage.cell.name, stage.cell.cameras, "2026-06-01T00:00:00Z")
    with pytest.raises(DepthcellError, match=r"seen by the cell as calibrated at 2026-01-02T03:04:05Z, not 2026-06-01"):
        Inspector.load(stage.recipe, recalibrated)
