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
from depthcell.models.evaluation_seeds import SeedsEstimate
from depthcell.models.metrics import Estimate, ScoredImage, auroc, curve
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


def test_threshold_comes_from_good_parts_alone(root: Path) -> None:
    """Those of validation, and those learned from as the others judge them; no test part has a say."""
    data = open_data_set(root)
    settings = BaselineSettings(method=Method.DEPTH)
    baseline = Baseline.fit(ScansOnDemand(data.train), settings, lambda: None)
    validation = [baseline.judge(scan).part_score for scan in ScansOnDemand(data.validation)]
    scores = sorted([*baseline.good_scores, *validation])
    for asked, rank in ((0.1, 11), (0.25, 9)):
        result = run_evaluation(EvaluationPlan(root, settings, false_reject=asked), lambda _: None, lambda: None)
        assert result.threshold == scores[rank - 1]
        assert result.n_threshold == len(scores) == 11
        assert result.false_reject_asked == asked
        assert result.false_reject_expected_at_most == pytest.approx((12 - rank) / 12)


def test_seeds_differ_in_what_they_learn_from_and_their_mean_is_stated(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(root, "--method", "depth", "--seeds", "2", "--seed", "3", "--json") == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["seeds"], found["method"], found["learned_share"]) == ([3, 4], "depth", 0.9)
    assert [run["n_train"] for run in found["runs"]] == [7, 7]
    assert [run["n_threshold"] for run in found["runs"]] == [11, 11]
    assert found["runs"][0]["threshold"] != found["runs"][1]["threshold"]
    for figures in (found, *found["per_defect"].values()):
        for key in ACCURACY:
            estimate = figures[key]
            assert estimate["value"] == pytest.approx(np.mean(estimate["per_seed"]))
            assert estimate["sd"] == pytest.approx(np.std(estimate["per_seed"], ddof=1))
            assert 0 <= estimate["low"] <= estimate["seeds_low"] <= estimate["value"] <= estimate["seeds_high"] <= 1
    assert found["aupro_1"]["per_seed"] == [run["aupro_1"]["value"] for run in found["runs"]]


def test_an_interval_over_seeds_holds_for_figures_that_seeds_and_parts_both_move() -> None:
    """95 % of 2000 simulated studies of 5 seeds: a figure with a spread of 0.02 by parts and 0.03 by seeds."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        by_parts = 0.7 + rng.normal(0, 0.02)
        values = by_parts + rng.normal(0, 0.03, 5)
        joined = SeedsEstimate.of([Estimate(value, value - 1.96 * 0.02, value + 1.96 * 0.02) for value in values])
        held += joined.low <= 0.7 <= joined.high
    assert 0.94 <= held / 2000 <= 0.98


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--seeds", "2", "--maps", "maps"), "belongs to one run; leave --seeds out"),
        (("--false-reject", "0"), "false-reject rate: must lie above 0 and below 0.5, got 0"),
        (("--pod", "--seeds", "2"), "--seeds 2: --pod needs no such option"),
        (("--pod", "--false-reject", "0.1"), "--false-reject 0.1: --pod needs no such option"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    root: Path, words: tuple[str, ...], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(root, "--json", *words) == 2
    assert message in json.loads(capfd.readouterr().out)["error"]


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


def test_table_over_seeds_fits_the_screen(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(root, "--method", "depth", "--seeds", "2") == 0
    out = capfd.readouterr().out
    for word in ("hole", "scratch", "all", "sd 0.", "over 2 seeds", "threshold", "of 4 good test parts"):
        assert word in out
    assert "…" not in out


def test_steps_are_announced_and_all_are_taken(root: Path) -> None:
    announced: list[int] = []
    taken: list[None] = []
    settings = BaselineSettings(method=Method.DEPTH, neighbours=2)
    run_evaluation(EvaluationPlan(root, settings), announced.append, lambda: taken.append(None))
    assert announced == [len(taken)] == [8 + 3 + 10]


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
    settings = BaselineSettings(method=Method.DEPTH, neighbours=4)
    baseline = Baseline.fit(ScansOnDemand(data.train[::2]), settings, lambda: None)
    scores = {
        kind: [baseline.judge(load_scan(part)).part_score for part in data.test if part.kind == kind]
        for kind in ("good", "bent")
    }
    assert np.median(scores["bent"]) > max(np.median(scores["good"]), 1.0)
