"""A real `Measurer` and a real `Inspector` on staged recordings: gauges measure, missing evidence is never a number."""

from pathlib import Path

import pytest
from stagedpart import Part, Stage, recorded

from depthcell.acquisition.simulator.parts import PartKind, build_part
from depthcell.errors import DepthcellError
from depthcell.inspect.inspection import Inspector
from depthcell.inspect.measure_run import Measurer
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.verdict import Decision

ROOT = Path(__file__).resolve().parents[1]
GAUGES = """
[[feature]]
name = "top"
kind = "plane"
normal = [0, 0, 1]
min_mm = [-20, -14, 7]
max_mm = [20, 14, 13]

[[feature]]
name = "nowhere"
kind = "plane"
normal = [0, 0, 1]
min_mm = [-5, -5, 30]
max_mm = [5, 5, 34]

[[gauge]]
name = "flatness of the top"
kind = "flatness"
feature = "top"
tolerance_mm = 0.3

[[gauge]]
name = "flatness of nothing"
kind = "flatness"
feature = "nowhere"
tolerance_mm = 0.3
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage.set_up(tmp_path_factory.mktemp("stage"))


@pytest.fixture(scope="module")
def recipe(stage: Stage) -> Recipe:
    path = stage.folder / "gauged.toml"
    path.write_text((stage.folder / "recipe.toml").read_text() + GAUGES)
    return Recipe.load(path)


@pytest.fixture(scope="module")
def measurer(stage: Stage, recipe: Recipe) -> Measurer:
    return Measurer(recipe, stage.cell, stage.folder / "cell.health.json")


def test_gauges_are_measured_and_what_nobody_saw_is_no_number(stage: Stage, measurer: Measurer) -> None:
    part = measurer.measure(recorded(Part(3), stage.cell))
    flat, nothing = part.results
    assert flat.value is not None
    assert flat.decision is Decision.OK
    assert 0 <= flat.value < 0.1
    assert nothing.value is None
    assert nothing.decision is Decision.CANNOT_TELL
    assert "its box is empty" in nothing.reason
    assert part.decision is Decision.CANNOT_TELL
    assert part.scan is not None
    assert part.deviation_m is not None
    assert len(part.deviation_m) == len(part.scan.cloud)


def test_a_part_with_a_missing_camera_or_a_cut_recording_is_cannot_tell(stage: Stage, measurer: Measurer) -> None:
    serial = next(iter(stage.cell.cameras))
    without = measurer.measure(recorded(Part(3), stage.cell, without=(serial,)))
    assert without.decision is Decision.CANNOT_TELL
    assert any(serial in reason for reason in without.reasons)
    cut = measurer.measure(recorded(Part(3), stage.cell, damage="1003.db3: damaged at offset 4711"))
    assert cut.decision is Decision.CANNOT_TELL
    assert all(result.value is None for result in cut.results)
    assert "damaged at offset 4711" in cut.reasons[0]


def test_a_part_out_of_place_is_named(stage: Stage, measurer: Measurer) -> None:
    part = measurer.measure(recorded(Part(3, shift=(8.0, 0.0, 0.0)), stage.cell))
    assert part.decision is Decision.CANNOT_TELL
    assert any("astray" in reason for reason in part.reasons)
    assert all(result.value is None for result in part.results)


def test_gauges_take_part_in_a_verdict(stage: Stage, recipe: Recipe) -> None:
    inspector = Inspector.load(recipe, stage.cell)
    verdict = inspector.judge(recorded(Part(3), stage.cell), 1, "trigger").verdict
    decisions = {m.name: m.decision for m in verdict.measurements}
    assert decisions["flatness of the top"] is Decision.OK
    assert decisions["flatness of nothing"] is Decision.CANNOT_TELL
    assert verdict.verdict is Decision.CANNOT_TELL
    assert "gauge" in verdict.timings_ms


def test_a_recipe_without_gauges_has_nothing_to_measure(stage: Stage) -> None:
    with pytest.raises(DepthcellError, match=r"has no \[\[gauge\]\]"):
        Measurer(stage.recipe, stage.cell, stage.folder / "cell.health.json")


def test_the_example_fits_the_simulated_bracket(tmp_path: Path) -> None:
    """Every box of the example holds surface of the part it is for, and its bores are the part's."""
    from depthcell.acquisition.simulator.partmesh import save_stl
    from depthcell.fusion.reference import Reference
    from depthcell.inspect.gauges.extraction import points_in_box

    bracket = build_part(PartKind.BRACKET)
    save_stl(tmp_path / "bracket.stl", bracket.mesh)
    recipe = Recipe.load(ROOT / "examples" / "bracket.toml", beside=tmp_path)
    samples = Reference.load(recipe.mesh_path, "mm").surface_samples(5e-4)
    for feature in recipe.feature:
        assert len(points_in_box(feature.min_mm, feature.max_mm, samples.points_part)) > 20, feature.name
    assert [(bore.name, bore.diameter_mm) for bore in recipe.bore] == [
        (bore.name, bore.diameter_mm) for bore in bracket.bores
    ]
    assert bracket.name == recipe.name
