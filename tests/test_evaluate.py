"""`depthcell evaluate` on a drawn data set, as a person and as a machine call it; and once on real parts, if there."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from partimages import write_data_set

from depthcell.cli import main
from depthcell.models.baseline import Baseline, BaselineSettings, Method
from depthcell.models.evaluation import EvaluationPlan, run_evaluation
from depthcell.models.metrics import ScoredImage, auroc, curve
from depthcell.models.mvtec3d import ScansOnDemand, load_mask, load_scan, open_data_set

COUNTS = {"train/good": 8, "validation/good": 3, "test/good": 4, "test/hole": 3, "test/scratch": 3}
ACCURACY = {"image_auroc", "pixel_auroc", "aupro_30", "aupro_1"}
TIMES = {"seconds_per_part", "peak_memory_mb"}
REAL = Path(__file__).parents[1] / ".." / "shared" / "data" / "mvtec3d_subset" / "cable_gland"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data_set(tmp_path_factory.mktemp("set") / "plate", COUNTS)


def call(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in ("evaluate", *words)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_json_holds_every_figure_and_the_maps_agree_with_it(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The figures are recomputed from the written maps and the threshold alone."""
    maps = tmp_path / "maps"
    assert call(root, "--json", "--maps", maps, "--seed", "5") == 0
    found = json.loads(capfd.readouterr().out)
    assert found.keys() >= ACCURACY | TIMES | {"per_defect", "threshold", "method"}
    assert (found["n_train"], found["n_validation"], found["n_test"], found["seed"]) == (8, 3, 10, 5)
    assert found["per_defect"].keys() == {"hole", "scratch"}
    for figures in (found, *found["per_defect"].values()):
        for key in ACCURACY:
            assert 0 <= figures[key]["low"] <= figures[key]["value"] <= figures[key]["high"] <= 1
            assert figures[key]["confidence"] == 0.95

    samples = open_data_set(root).test
    assert sorted(str(path.relative_to(maps)) for path in maps.rglob("*") if path.is_file()) == sorted(
        f"{sample.name}.tiff" for sample in samples
    )
    scored = [tifffile.imread(maps / f"{sample.name}.tiff") for sample in samples]
    assert {(image.dtype, image.shape) for image in scored} == {(np.dtype(np.float32), (112, 112))}
    masks = [load_mask(sample, (112, 112)) for sample in samples]
    exact = curve([ScoredImage.of(image, mask) for image, mask in zip(scored, masks, strict=True)])
    assert found["pixel_auroc"]["value"] == pytest.approx(exact.pixel_auroc)
    assert found["aupro_30"]["value"] == pytest.approx(exact.aupro(0.3))
    assert found["aupro_1"]["value"] == pytest.approx(exact.aupro(0.01))
    part_scores = np.array([np.sort(image, axis=None)[-20:].mean() for image in scored])
    is_defect = np.array([sample.is_defect for sample in samples])
    assert found["image_auroc"]["value"] == pytest.approx(auroc(is_defect, part_scores))
    assert found["missed"]["count"] == (part_scores[is_defect] <= found["threshold"]).sum()
    assert found["false_rejects"]["count"] == (part_scores[~is_defect] > found["threshold"]).sum()
    assert (found["missed"]["total"], found["false_rejects"]["total"]) == (6, 4)
    assert found["missed"]["count"] == sum(kind["missed"]["count"] for kind in found["per_defect"].values())
    assert found["image_auroc"]["value"] > 0.9


def test_threshold_comes_from_validation_alone(root: Path) -> None:
    """It is the highest validation score, and stays when every test part is changed."""
    data = open_data_set(root)
    settings = BaselineSettings(method=Method.DEPTH)
    baseline = Baseline.fit(ScansOnDemand(data.train), settings, lambda: None)
    expected = max(baseline.judge(scan).part_score for scan in ScansOnDemand(data.validation))
    result = run_evaluation(EvaluationPlan(root, settings), lambda _: None, lambda: None)
    assert result.threshold == expected
    assert result.false_reject_expected_at_most == pytest.approx(1 / 4)
    assert result.false_reject_at_most == pytest.approx(1 - 0.05 ** (1 / 3))


def test_two_runs_give_the_same_bytes_but_for_times(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = []
    for _ in range(2):
        assert call(root, "--json", "--method", "depth") == 0
        said.append({key: value for key, value in json.loads(capfd.readouterr().out).items() if key not in TIMES})
    assert said[0] == said[1]
    assert said[0]["method"] == "depth"


def test_table_names_every_defect_and_the_threshold(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(root, "--method", "rgb") == 0
    out = capfd.readouterr().out
    for word in ("hole", "scratch", "all", "AUPRO", "threshold", "of 4 good test parts", "s per part", "MB"):
        assert word in out
    assert "…" not in out


def test_steps_are_announced_and_all_are_taken(root: Path) -> None:
    announced: list[int] = []
    taken: list[None] = []
    settings = BaselineSettings(method=Method.DEPTH, neighbours=2, scale_parts=2)
    run_evaluation(EvaluationPlan(root, settings), announced.append, lambda: taken.append(None))
    assert announced == [len(taken)] == [8 + 2 + 3 + 10]


@pytest.mark.parametrize("inside", [".", "test", "maps", "test/hole/../maps"])
def test_maps_never_go_into_the_data_set(root: Path, inside: str, capfd: pytest.CaptureFixture[str]) -> None:
    before = sorted(root.rglob("*"))
    assert call(root, "--json", "--maps", root / inside) == 2
    assert "lies in the data set" in json.loads(capfd.readouterr().out)["error"]
    assert sorted(root.rglob("*")) == before


def test_maps_never_go_into_the_data_set_by_a_link(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link").symlink_to(root / "test")
    assert call(root, "--maps", tmp_path / "link" / "maps") == 2
    assert "lies in the data set" in capfd.readouterr().err


def test_maps_overwrite_nothing(root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    assert call(root, "--maps", tmp_path) == 2
    assert "holds something already" in capfd.readouterr().err
    assert call(root, "--maps", tmp_path / "kept.txt") == 2


def test_a_wrong_data_set_ends_in_one_line_that_names_the_file(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spoilt = shutil.copytree(root, tmp_path / "spoilt")
    cv2.imwrite(str(spoilt / "test" / "hole" / "gt" / "001.png"), np.ones((5, 5), np.uint8))
    assert call(spoilt) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert "test/hole/gt/001.png: size (5, 5) differs" in said.err.strip().splitlines()[-1]


def test_a_folder_that_is_missing_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(tmp_path / "nowhere", "--json") == 2
    assert "nowhere: no such folder" in json.loads(capfd.readouterr().out)["error"]


@pytest.mark.slow
def test_real_parts_are_judged_as_stated() -> None:
    """MVTec 3D-AD, class cable_gland (CC BY-NC-SA 4.0, never copied here): no worse than models/README.md says."""
    if not REAL.is_dir():
        pytest.skip(f"needs the folder {REAL}")
    result = run_evaluation(EvaluationPlan(REAL, BaselineSettings()), lambda _: None, lambda: None)
    assert result.image_auroc.value > 0.95
    assert result.pixel_auroc.value > 0.99
    assert result.aupro_30.value > 0.98
    assert result.aupro_1.value > 0.80


def test_real_depth_alone_finds_bent_teeth() -> None:
    """A few real parts, fast enough for every day: a bent part scores above a good one."""
    if not REAL.is_dir():
        pytest.skip(f"needs the folder {REAL}")
    data = open_data_set(REAL)
    settings = BaselineSettings(method=Method.DEPTH, neighbours=4, scale_parts=4)
    baseline = Baseline.fit(ScansOnDemand(data.train[::2]), settings, lambda: None)
    scores = {
        kind: [baseline.judge(load_scan(part)).part_score for part in data.test if part.kind == kind]
        for kind in ("good", "bent")
    }
    assert np.median(scores["bent"]) > max(np.median(scores["good"]), 1.0)
