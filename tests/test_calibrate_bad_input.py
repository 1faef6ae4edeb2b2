"""Bad recordings of the board, from the images to the refusal: each fault is named, and none becomes a cell."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from badruns import PLACES, SERIALS, SPEC, Studio, calibrated, worst_deviations

from depthcell import cli
from depthcell.acquisition.simulator.calibrationcell import Bump, Faults
from depthcell.calib import calibrate_run
from depthcell.calib.target.imagequality import QualityIssue
from depthcell.errors import DepthcellError, Reason

ALL = tuple(range(PLACES))


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: exit code, standard output, standard error."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main([str(word) for word in words])
        out, err = capfd.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, out, err

    return run


def refusal_of(run: Path) -> str:
    with pytest.raises(DepthcellError) as refused:
        calibrated(run)
    assert refused.value.reason is Reason.BAD_INPUT
    assert "\n" not in str(refused.value)
    return str(refused.value)


# --- single images --------------------------------------------------------------------------------------------------


def test_single_bad_images_are_left_out_named_and_the_cell_is_right(studio: Studio) -> None:
    run = studio.run("two_bad_places", Faults(blurred=(3,), overexposed=(5,)))
    result = calibrated(run)
    refused = result.observation.seen.refused
    kinds = Counter(one.issue.kind for one in refused if one.issue.kind is not QualityIssue.NO_BOARD)
    assert kinds == {QualityIssue.BLURRED: 4, QualityIssue.OVEREXPOSED: 4}  # two cameras, two streams of each
    assert {one.instant for one in refused if one.issue.kind is QualityIssue.BLURRED} == {3}
    assert {one.instant for one in refused if one.issue.kind is QualityIssue.OVEREXPOSED} == {5}
    streams = {f"{kind}:{serial}" for kind in ("depth", "color") for serial in SERIALS[:2]}
    assert {one.stream for one in refused if one.instant == 3} == streams
    assert {view.instant for view in result.observation.seen.views} & {3, 5} == set()
    off = worst_deviations(result, run)
    assert off["lens"] < 4
    assert off["place_m"] < 1e-3


NAMED = [
    ("blurred", Faults(blurred=ALL), None, "nothing in the image is sharp; focus"),
    ("overexposed", Faults(overexposed=ALL), None, "cut off at the brightest value; shorten the exposure"),
    ("mirrored", Faults(mirrored=True), None, "the board is seen in a mirror, or the image is flipped"),
    ("another_size", Faults(), "charuco:10x7:30mm", "this is another board: .*markers are seen, but not as charuco"),
    (
        "chessboard",
        Faults(),
        "chessboard:8x5:30mm",
        "squares are seen, and no readable markers in them; name the",
    ),
]


@pytest.mark.parametrize(("name", "faults", "printed", "words"), NAMED, ids=[case[0] for case in NAMED])
def test_where_no_image_is_usable_the_reason_is_named(
    name: str, faults: Faults, printed: str | None, words: str, studio: Studio
) -> None:
    run = studio.run(name, faults, places=3, cameras=1, printed=printed)
    said = refusal_of(run)
    assert said.startswith(f"{run}: no image shows {SPEC}")
    assert re.search(words, said), said


@pytest.mark.slow
def test_another_familys_markers_are_named(studio: Studio) -> None:
    run = studio.run("family", places=3, cameras=1, printed=f"{SPEC}:22mm:DICT_4X4_100")
    assert "this is another board: its markers are of DICT_4X4_1000, not of DICT_5X5_50" in refusal_of(run)


@pytest.mark.slow
def test_where_too_little_is_left_what_was_not_used_is_said(studio: Studio) -> None:
    said = refusal_of(studio.run("few_sharp", Faults(blurred=ALL[6:], overexposed=(4, 5))))
    assert re.search(r"\(not used: \d+ images blurred, \d+ images overexposed\)$", said), said


# --- the rig --------------------------------------------------------------------------------------------------------


def test_a_bumped_rig_is_one_line_and_no_cell(
    studio: Studio, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    run = studio.run("bumped", Faults(bump=Bump(1, PLACES // 2, shift_m=6e-3, turn_deg=0.6)))
    out = tmp_path / "cell.json"
    code, printed, said = call("calibrate", run, "--board", SPEC, "--out", out, "--jobs", "1", "--json")
    assert code == 2
    assert said.count("\n") == 1
    found = re.search(rf"one of the cameras {SERIALS[0]}, {SERIALS[1]} moved between instants (\d+) and (\d+)", said)
    assert found, said
    assert int(found[1]) < PLACES // 2 <= int(found[2])
    assert json.loads(printed)["reason"] == Reason.BAD_INPUT
    assert json.loads(printed)["error"] in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_slight_bump_is_named(studio: Studio) -> None:
    said = refusal_of(studio.run("slightly_bumped", Faults(bump=Bump(1, PLACES // 2, shift_m=2e-3, turn_deg=0.2))))
    assert re.search(rf"one of the cameras {SERIALS[0]}, {SERIALS[1]} moved between instants [3-6] and", said), said


@pytest.mark.slow
def test_of_three_cameras_the_one_that_was_bumped_is_named(studio: Studio) -> None:
    said = refusal_of(studio.run("bumped_3", Faults(bump=Bump(camera=2, from_place=PLACES // 2)), cameras=3))
    assert re.search(rf"camera {SERIALS[2]} moved between instants [3-6] and ([7-9]|10):", said), said


@pytest.mark.slow
def test_cameras_that_change_places_are_named(studio: Studio) -> None:
    said = refusal_of(studio.run("swapped", Faults(swapped=(0, 1), swapped_from=PLACES // 2)))
    assert re.search(
        rf"cameras {SERIALS[0]} and {SERIALS[1]} changed places between instants [3-6] and ([7-9]|10):", said
    )


@pytest.mark.slow
def test_recordings_under_each_others_names_are_named(studio: Studio) -> None:
    said = refusal_of(studio.exchange_labels("exchanged"))
    assert "each one's images fit the other's factory intrinsics, not its own; check which recording is of" in said


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.9, 1.05, 1.1])
def test_a_board_of_the_wrong_size_is_measured(factor: float, studio: Studio) -> None:
    said = refusal_of(studio.run(f"size_{factor}", Faults(board_factor=factor)))
    found = re.search(r"board 0: by depth its pitch is about ([\d.]+) mm, not 30 mm; measure the print", said)
    assert found, said
    assert float(found[1]) == pytest.approx(30 * factor, rel=0.015)


@pytest.mark.slow
def test_fifty_copies_of_a_view_do_not_make_up_for_places(studio: Studio) -> None:
    said = refusal_of(studio.run("copies", Faults(repeated=1), places=6, cameras=1))
    assert re.search(r"too little to calibrate with; .*\d more places of the board", said), said
    assert "50 repeats of a place, which count once" in said


@pytest.mark.slow
def test_fifty_copies_beside_enough_places_count_once(studio: Studio) -> None:
    result = calibrated(studio.run("copied", Faults(repeated=1), cameras=1))
    (place,) = result.observation.seen.merged
    assert place.instants == (1, *range(PLACES, PLACES + 50))
    assert len([view for view in result.observation.seen.views if view.place == (0, 1)]) == 2  # infrared and colour
    plain = calibrated(studio.run("plain", cameras=1))
    for serial, camera in result.cell.cameras.items():
        assert camera.u("fx_px") == pytest.approx(plain.cell.camera(serial).u("fx_px"), rel=0.05)
        assert camera.depth.fx_px == pytest.approx(plain.cell.camera(serial).depth.fx_px, abs=0.05)


# --- the call -------------------------------------------------------------------------------------------------------


def test_a_wrong_call_is_refused_before_the_work(
    studio: Studio, tmp_path: Path, call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = studio.run("mirrored", Faults(mirrored=True), places=3, cameras=1)
    (tmp_path / "file").touch()
    (tmp_path / "parts" / "part_1").mkdir(parents=True)
    (tmp_path / "parts" / "part_2").mkdir()
    for part in ("part_1", "part_2"):
        (tmp_path / "parts" / part / "a.db3").write_bytes((run / "board" / f"{SERIALS[0]}.db3").read_bytes())
    (tmp_path / "empty").mkdir()
    board = ("--board", SPEC)

    def worked(*_: object, **__: object) -> None:
        raise AssertionError("boards were looked for")

    monkeypatch.setattr(calibrate_run, "observe", worked)
    cases = [
        ((run, "--board", "charuco:9x6:30"), "'30' has no unit"),
        ((run, "--board", "domino:9x6:30mm"), "domino"),
        ((run,), "--board"),
        ((run, *board, "--out", tmp_path / "file" / "cell.json"), "file is no folder; name another place"),
        ((run, *board, "--out", tmp_path / "cell.txt"), "a cell file ends in .json"),
        ((run, *board, "--out", tmp_path / "x.json", "--certificate", tmp_path / "file" / "c.pdf"), "--certificate"),
        ((run, *board, "--tolerate", "everything"), "--tolerate everything: unknown; choose one of square_size"),
        ((run, *board, "--volume", "1x2"), "--volume 1x2"),
        ((run, *board, "--pitch-u-um", "-1"), "--pitch-u-um"),
        ((run, *board, "--jobs", "-1"), "--jobs"),
        ((tmp_path / "nosuch", *board), "nosuch: does not exist"),
        ((tmp_path / "empty", *board), "holds no recording"),
        ((tmp_path / "parts", *board), "holds recordings of part_1, part_2; name the folder"),
    ]
    monkeypatch.chdir(tmp_path)
    for words, named in cases:
        code, _, said = call("calibrate", *words)
        assert code == 2, words
        assert said.count("\n") == 1, said
        assert named in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "parts"]


def test_a_folder_where_the_cell_should_be_and_one_that_may_not_be_written_to(
    tmp_path: Path, call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cell.json").mkdir()
    said = call("calibrate", tmp_path, "--board", SPEC, "--out", tmp_path / "cell.json")[2]
    assert "is a folder; name a file in it" in said
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)  # the super-user may write everywhere
    code, _, said = call("calibrate", tmp_path, "--board", SPEC, "--out", tmp_path / "new" / "cell.json")
    assert code == 2
    assert f"nothing may be written to {tmp_path}; name another place" in said


@pytest.mark.parametrize("step", ["observe", "solve_rig"])
def test_ctrl_c_leaves_nothing(
    step: str,
    studio: Studio,
    tmp_path: Path,
    call: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = studio.run("three_places", places=3, cameras=1)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(calibrate_run, step, interrupted)
    words = ("--board", SPEC, "--jobs", "1", "--out", tmp_path / "cell.json", "--certificate", tmp_path / "cell.pdf")
    code, printed, said = call("calibrate", run, *words)
    assert (code, printed) == (130, "")
    assert said.endswith("interrupted; no half-written file was left\n")
    assert list(tmp_path.iterdir()) == []
