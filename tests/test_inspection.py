"""The whole judgement on a small ray-cast station: what is found, what is missing, and that nothing bad is ever OK."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from stagedpart import BORE_AT_MM, SERIALS, Part, Stage, StagedFolder, framesets, recorded

from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError, Reason
from depthcell.inspect import inspection as inspection_module
from depthcell.inspect.inspection import Identity, Inspection, Inspector
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.verdict import Decision, digest_of, to_json

OK, NOK, CANNOT_TELL = Decision.OK, Decision.NOK, Decision.CANNOT_TELL
DENT = (-10.0, 5.0, 5.0, 1.0)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage.set_up(tmp_path_factory.mktemp("stage"))


def judged(stage: Stage, part: Part, **how: object) -> Inspection:
    return stage.inspector.judge(recorded(part, stage.cell, **how), 1, "trigger-1")  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(1, 9))
def test_good_part_is_ok_and_says_why(stage: Stage, seed: int) -> None:
    verdict = judged(stage, Part(seed)).verdict
    assert verdict.verdict is OK, verdict.reasons
    assert verdict.findings == ()
    assert "largest deviation" in verdict.reasons[0]
    assert "limit 0.5 mm" in verdict.reasons[0]
    assert {m.name: m.decision for m in verdict.measurements} == {
        "largest deviation outwards": OK,
        "largest deviation inwards": OK,
        "coverage": OK,
        "bore A diameter": OK,
    }


def test_dent_is_found_measured_and_placed(stage: Stage) -> None:
    result = judged(stage, Part(21, dent=DENT))
    verdict = result.verdict
    assert verdict.verdict is NOK
    finding = verdict.findings[0]
    assert finding.kind == "dent"
    assert finding.depth_mm is not None
    assert finding.volume_mm3 is not None
    assert abs(finding.depth_mm.value + 1.0) < 3 * finding.depth_mm.u
    assert abs(finding.volume_mm3.value + np.pi * 25 / 3) < 3 * finding.volume_mm3.u
    assert np.hypot(finding.position_mm.value[0] + 10, finding.position_mm.value[1] - 5) < 0.7
    assert finding.text in verdict.reasons[0]
    assert "limit 0.5 mm" in verdict.reasons[0]
    points = result.finding_points[0]
    assert result.fused is not None
    assert result.alignment is not None
    places_mm = result.alignment.T_cell_part.inverse() @ result.fused.cloud.points_cell[points] * 1e3
    assert np.hypot(places_mm[:, 0] + 10, places_mm[:, 1] - 5).max() < 7
    assert np.median(result.deviation_m[points]) < -2e-4
    assert np.nanmin(result.significance[points]) < -10


def test_depth_intervals_hold(stage: Stage) -> None:
    """95 % intervals of dents from 0.6 to 1.5 mm deep: at least 80 % of twenty hold, 3 sigma almost always."""
    rng, errors = np.random.default_rng(8), []
    for seed in range(100, 120):
        depth, radius = rng.uniform(0.6, 1.5), rng.uniform(4.0, 6.0)
        dent = (rng.uniform(-17, -7), rng.uniform(-9, 9), radius, depth)
        finding = judged(stage, Part(seed, dent=dent)).verdict.findings[0]
        assert finding.depth_mm is not None
        errors.append((finding.depth_mm.value + depth) / finding.depth_mm.u)
    assert np.mean(np.abs(errors) < 2) >= 0.8
    assert np.mean(np.abs(errors) < 3.5) >= 0.95


def test_small_dent_is_reported_within_the_limit(stage: Stage) -> None:
    """A dent of 0.3 mm lies where noise decides whether it stands out; no part is refused for it."""
    verdicts = [judged(stage, Part(seed, dent=(-10.0, 0.0, 5.0, 0.3))).verdict for seed in (33, 35, 38, 40)]
    assert {verdict.verdict for verdict in verdicts} <= {OK, CANNOT_TELL}
    reported = [any("within the limit of 0.5 mm" in reason for reason in verdict.reasons) for verdict in verdicts]
    assert sum(reported) >= 2


def test_dent_at_the_limit_cannot_be_told(stage: Stage) -> None:
    verdicts = [judged(stage, Part(seed, dent=(-10.0, 0.0, 5.0, 0.5))).verdict for seed in range(32, 37)]
    decisions = {verdict.verdict for verdict in verdicts}
    assert CANNOT_TELL in decisions
    told = next(verdict for verdict in verdicts if verdict.verdict is CANNOT_TELL)
    assert "too close to the limit of 0.5 mm to decide" in told.reasons[0]


def test_stain_is_found_by_colour_alone(stage: Stage) -> None:
    result = judged(stage, Part(41, stain=(-10.0, -5.0, 3.0)))
    finding = result.verdict.findings[0]
    assert result.verdict.verdict is NOK
    assert (finding.kind, finding.source, finding.depth_mm, finding.volume_mm3) == ("stain", "color", None, None)
    assert abs(finding.area_mm2.value - np.pi * 9) < 3 * finding.area_mm2.u
    assert finding.cameras == SERIALS
    assert np.nanmax(result.color_score[result.finding_points[0]]) > 6


def test_scratch_thinner_than_a_patch_is_found(stage: Stage) -> None:
    verdict = judged(stage, Part(42, scratch=(-12.0, 0.0, 12.0))).verdict
    assert verdict.verdict is NOK
    assert verdict.findings[0].kind == "scratch"


def test_missing_bore_is_found(stage: Stage) -> None:
    verdict = judged(stage, Part(43, bore=False)).verdict
    assert verdict.verdict is NOK
    finding = verdict.findings[0]
    assert finding.kind == "missing_bore"
    assert finding.position_mm.value == (*BORE_AT_MM, 8.0)
    assert "bore A is missing" in verdict.reasons[0]
    assert verdict.measurements[-1].decision is NOK
    assert verdict.measurements[-1].value is None


@pytest.mark.parametrize("without", [("1002",), ("1001", "1003")])
def test_missing_camera_is_never_ok_and_named(stage: Stage, without: tuple[str, ...]) -> None:
    verdict = judged(stage, Part(51), without=without).verdict
    assert verdict.verdict is CANNOT_TELL
    for serial in without:
        assert any(f"camera {serial} gave no depth" in reason for reason in verdict.reasons)
    assert verdict.findings == ()


def test_defect_seen_by_the_cameras_left_is_nok_and_says_what_was_missing(stage: Stage) -> None:
    verdict = judged(stage, Part(52, dent=DENT), without=("1001",)).verdict
    assert verdict.verdict is NOK
    assert "deep" in verdict.reasons[0]
    assert "also missing: camera 1001 gave no depth" in verdict.reasons


def test_no_camera_at_all(stage: Stage) -> None:
    result = judged(stage, Part(53), without=SERIALS)
    assert result.verdict.verdict is CANNOT_TELL
    assert "no camera gave any depth" in result.verdict.reasons[0]
    assert result.fused is None
    assert result.alignment is None
    assert len(result.deviation_m) == 0


def test_empty_recording(stage: Stage) -> None:
    result = stage.inspector.judge(StagedFolder("empty", ()), 1, "t")
    assert result.verdict.verdict is CANNOT_TELL
    assert result.verdict.reasons


def test_damaged_recording_is_not_ok_though_its_frames_are_good(stage: Stage) -> None:
    verdict = judged(stage, Part(54), damage="1003.db3: damaged at offset 4711").verdict
    assert verdict.verdict is CANNOT_TELL
    assert verdict.reasons[0] == "the recording is not whole: 1003.db3: damaged at offset 4711"


@pytest.mark.parametrize("shift", [(5.0, 0.0, 0.0), (0.0, 6.0, 0.0), (0.0, 0.0, 5.0)])
def test_part_out_of_place(stage: Stage, shift: tuple[float, float, float]) -> None:
    result = judged(stage, Part(55, shift=shift))
    assert result.verdict.verdict is CANNOT_TELL
    assert "alignment" in result.verdict.reasons[0]
    assert result.fused is not None
    assert not np.isfinite(result.deviation_m).any()


def test_part_so_far_out_that_its_place_is_lost(stage: Stage) -> None:
    """Where an alignment within reach leaves much unexplained, all poses are searched, and the true one is told."""
    verdict = judged(stage, Part(55, shift=(8.0, 0.0, 0.0))).verdict
    assert verdict.verdict is CANNOT_TELL
    assert "astray" in verdict.reasons[0]
    assert "8 mm from its place" in verdict.reasons[0]
    assert not verdict.findings


def test_surface_that_nobody_measured_is_not_ok(stage: Stage) -> None:
    """Coverage as a whole is still enough; the hole itself is what must not pass."""
    verdict = judged(stage, Part(56, hole=(-10.0, 0.0, 5.0))).verdict
    assert verdict.verdict is CANNOT_TELL
    assert next(m for m in verdict.measurements if m.name == "coverage").decision is OK
    assert "nothing was measured over" in verdict.reasons[0]
    assert "about (-10, " in verdict.reasons[0]


def test_bumped_camera_makes_no_verdict_good_or_bad(stage: Stage) -> None:
    verdict = judged(stage, Part(57, bumped=("1002", 0.6))).verdict
    assert verdict.verdict is CANNOT_TELL
    assert any("1002" in reason and "calibrate the cell anew" in reason for reason in verdict.reasons)


def test_cell_that_is_too_coarse_for_the_tolerance_cannot_tell(stage: Stage) -> None:
    recipe = stage.recipe.model_copy(
        update={"surface": stage.recipe.surface.model_copy(update={"tolerance_mm": 0.1, "significance": 8.0})}
    )
    recipe._folders = (stage.folder,)
    verdict = Inspector.load(recipe, stage.cell).judge(recorded(Part(58), stage.cell), 1, "t").verdict
    assert verdict.verdict is CANNOT_TELL
    assert any("was measured so well that 0.1 mm over 9 mm² would stand out" in reason for reason in verdict.reasons)


def test_error_of_ours_is_not_ok_and_stops_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(inspection_module, "judge", broken)
    verdict = judged(stage, Part(59)).verdict
    assert verdict.verdict is CANNOT_TELL
    assert "internal error (ZeroDivisionError: a mistake)" in verdict.reasons[0]


def test_two_runs_agree_in_every_byte_but_times(stage: Stage) -> None:
    part = Part(61, dent=DENT, stain=(-10.0, -9.0, 2.5))
    fresh = Inspector.load(stage.recipe, stage.cell)
    verdicts = [
        msgspec.structs.replace(one.judge(recorded(part, stage.cell), 7, "t").verdict, timings_ms={}, issued_at="")
        for one in (stage.inspector, stage.inspector, fresh)
    ]
    assert to_json(verdicts[0]) == to_json(verdicts[1]) == to_json(verdicts[2])
    assert verdicts[0].digest == digest_of(verdicts[0])
    assert verdicts[0].findings


def test_frames_may_be_absorbed_as_they_arrive(stage: Stage) -> None:
    accumulator = stage.inspector.accumulator()
    for frameset in framesets(Part(62), stage.cell):
        accumulator.add(frameset)
    result = stage.inspector.judge_frames(accumulator, Identity("62", "t", 3, "6" * 64))
    assert (result.verdict.verdict, result.verdict.sequence, result.verdict.part_id) == (OK, 3, "62")
    assert result.verdict.provenance.recording == "6" * 64
    assert list(result.verdict.timings_ms) == ["fuse", "observe", "judge", "total"]
    gap = stage.inspector.judge_frames(accumulator, Identity("62", "t", 4, ""), ("a frame came too late",))
    assert gap.verdict.verdict is CANNOT_TELL
    assert gap.verdict.reasons[0] == "a frame came too late"


def test_provenance_names_cell_and_recipe(stage: Stage) -> None:
    provenance = judged(stage, Part(63)).verdict.provenance
    assert provenance.cell == stage.cell.sha256
    assert provenance.recipe == stage.recipe.sha256
    assert provenance.recording == "5" * 64
    assert provenance.model is None
    assert provenance.software.startswith("depthcell ")


def test_recipe_with_a_camera_the_cell_lacks_is_refused(stage: Stage) -> None:
    cameras = {serial: stage.cell.camera(serial) for serial in SERIALS[:2]}
    with pytest.raises(
        DepthcellError, match=r"cell\.cameras names 1003, but cell 'plate cell' has only 1001, 1002"
    ) as caught:
        Inspector.load(stage.recipe, Cell(stage.cell.name, cameras, stage.cell.calibrated_at))
    assert caught.value.reason is Reason.RECIPE_INVALID


def test_colour_check_without_colours_of_good_parts_is_refused(stage: Stage, tmp_path: Path) -> None:
    for name in ("plate.stl", "recipe.toml"):
        (tmp_path / name).write_bytes((stage.folder / name).read_bytes())
    replace(stage.golden, colors={}).save(tmp_path / "golden.npz")
    with pytest.raises(DepthcellError, match=r"color: reference\.golden holds no colours; fit it again"):
        Inspector.load(Recipe.load(tmp_path / "recipe.toml"), stage.cell)


def test_camera_of_the_cell_that_the_recipe_does_not_need_may_be_missing(stage: Stage) -> None:
    spare = stage.cell.camera("1001")
    pose = replace(spare.T_cell_depth, source="depth:1009")
    assert spare.T_color_depth is not None
    color = replace(spare.T_color_depth, source="depth:1009", target="color:1009")
    extra = replace(spare, serial="1009", T_cell_depth=pose, T_color_depth=color)
    wider = Cell(stage.cell.name, {**stage.cell.cameras, "1009": extra}, stage.cell.calibrated_at)
    verdict = Inspector.load(stage.recipe, wider).judge(recorded(Part(64), stage.cell), 1, "t").verdict
    assert verdict.verdict is OK
    assert verdict.provenance.cell == wider.sha256


def test_without_good_parts_the_reference_alone_decides_shape(stage: Stage) -> None:
    reference = stage.recipe.reference.model_copy(update={"golden": None})
    surface = stage.recipe.surface.model_copy(update={"tolerance_mm": 0.8})
    recipe = stage.recipe.model_copy(update={"reference": reference, "color": None, "surface": surface})
    recipe._folders = (stage.folder,)
    inspector = Inspector.load(recipe, stage.cell)
    good = [inspector.judge(recorded(Part(seed), stage.cell), 1, "t").verdict for seed in (71, 72, 73)]
    assert [verdict.verdict for verdict in good] == [OK] * 3
    dented = inspector.judge(recorded(Part(74, dent=(-10.0, 5.0, 5.0, 1.5)), stage.cell), 1, "t").verdict
    assert dented.verdict is NOK
    stained = inspector.judge(recorded(Part(75, stain=(-10.0, -5.0, 3.0)), stage.cell), 1, "t").verdict
    assert stained.verdict is OK  # nobody asked for colour
