"""The recipe file: what it accepts, and that each refusal is one line naming file, field and remedy."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from depthcell.errors import DepthcellError, Reason
from depthcell.inspect.recipe import Recipe

EXAMPLE = Path(__file__).parents[1] / "examples" / "recipe.toml"


@pytest.fixture
def recipe_path(tmp_path: Path) -> Path:
    (tmp_path / "bracket.stl").write_bytes(b"mesh")
    (tmp_path / "golden.npz").write_bytes(b"golden")
    return Path(shutil.copy(EXAMPLE, tmp_path / "recipe.toml"))


def edited(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def test_example_loads_into_si(recipe_path: Path) -> None:
    recipe = Recipe.load(recipe_path)
    assert recipe.cell.cameras == ("405000001", "405000002", "405000003")
    assert recipe.surface.tolerance_m == pytest.approx(0.5e-3)
    assert recipe.surface.min_area_m2 == pytest.approx(4e-6)
    assert recipe.bore[0].radius_m == pytest.approx(6e-3)
    assert recipe.pose.max_turn_rad == pytest.approx(np.radians(5.0))
    assert (recipe.pose.T_cell_part.target, recipe.pose.T_cell_part.source) == ("cell", "part")
    np.testing.assert_allclose(recipe.region.max_m, [0.05, 0.04, 0.06])
    assert recipe.mesh_path == recipe_path.parent / "bracket.stl"
    assert recipe.golden_path == recipe_path.parent / "golden.npz"


def test_pose_is_turned_about_its_vector(recipe_path: Path) -> None:
    edited(recipe_path, "rotation_deg = [0, 0, 0] ", "rotation_deg = [0, 0, 90]")
    np.testing.assert_allclose(
        Recipe.load(recipe_path).pose.T_cell_part @ np.array([1.0, 0.0, 0.0]), [0.0, 1.0, 0.0], atol=1e-12
    )


def test_axis_need_not_be_a_unit_vector(recipe_path: Path) -> None:
    edited(recipe_path, "axis = [0, 0, 1]", "axis = [0, 3, 4]")
    np.testing.assert_allclose(Recipe.load(recipe_path).bore[0].direction, [0.0, 0.6, 0.8])


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("takt_ms", "tact_ms", "tact_ms: unknown field; did you mean 'takt_ms'?"),
        ("tolerance_mm = 0.5", "tolerence_mm = 0.5", "surface.tolerance_mm: is missing; add it"),
        ("min_coverage", "min_cover", "region.min_cover: unknown field; did you mean 'min_coverage'?"),
        ('mesh_unit = "mm"', 'mesh_unit = "cm"', "reference.mesh_unit: Input should be 'mm', 'm' or 'inch', got 'cm'"),
        ("tolerance_mm = 0.5", "tolerance_mm = -0.5", "surface.tolerance_mm: Input should be greater than 0"),
        ("tolerance_mm = 0.5", "tolerance_mm = 0.0005", "write millimetres, not metres"),
        ("tolerance_mm = 0.5", "tolerance_mm = 50", "check that region and tolerance are both in millimetres"),
        ("tolerance_mm = 0.5", "tolerance_mm = nan", "surface.tolerance_mm"),
        ("min_mm = [-50,", "min_mm = [50,", "region: min_mm must be below max_mm on axis x"),
        ("min_mm = [-50,", "min_mm = [", "region.min_mm[2]: is missing"),
        ("min_coverage = 0.9", "min_coverage = 90", "region.min_coverage: Input should be less than or equal to 1"),
        ("significance = 5.0", "significance = 1.0", "surface.significance"),
        ('"405000002"', '"405000001"', "cell.cameras: names a serial number twice"),
        ("schema_version = 1", "schema_version = 2", "schema_version"),
        ("axis = [0, 0, 1]", "axis = [0, 0, 0]", "bore[0].axis: must not be of zero length"),
        ("0.5                    # of", "7.0 # of", "bore[0]: tolerance_mm 7 must be below half of diameter_mm"),
        ("position_mm = [20, 0, 8]", "position_mm = [200, 0, 8]", "bore 'bore A': position_mm lies outside region"),
        ('golden = "golden.npz"', "", "color: needs reference.golden"),
        ('mesh = "bracket.stl"', 'mesh = "other.stl"', "other.stl is no file; paths are relative to the recipe"),
        ("[surface]", "[surface", "is no valid TOML"),
    ],
)
def test_each_fault_is_one_line_that_names_file_and_field(recipe_path: Path, old: str, new: str, says: str) -> None:
    edited(recipe_path, old, new)
    with pytest.raises(DepthcellError) as caught:
        Recipe.load(recipe_path)
    message = str(caught.value)
    assert says in message
    assert str(recipe_path) in message
    assert "\n" not in message
    assert caught.value.reason is Reason.RECIPE_INVALID


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DepthcellError, match=r"absent\.toml: cannot be read"):
        Recipe.load(tmp_path / "absent.toml")


def test_two_bores_of_one_name_are_refused(recipe_path: Path) -> None:
    text = recipe_path.read_text()
    recipe_path.write_text(text + text[text.index("[[bore]]") :])
    with pytest.raises(DepthcellError, match="'bore A' stands twice"):
        Recipe.load(recipe_path)


def test_many_faults_are_counted(recipe_path: Path) -> None:
    edited(recipe_path, "takt_ms = 2000", "a = 1\nb = 2\nc = 3\nd = 4\ne = 5")
    with pytest.raises(DepthcellError, match=r"\(and 2 more\)"):
        Recipe.load(recipe_path)


def test_identity_follows_content_and_not_place(recipe_path: Path, tmp_path: Path) -> None:
    first = Recipe.load(recipe_path).sha256
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("recipe.toml", "bracket.stl", "golden.npz"):
        shutil.copy(tmp_path / name, moved / name)
    assert Recipe.load(moved / "recipe.toml").sha256 == first
    (moved / "bracket.stl").write_bytes(b"another mesh")
    assert Recipe.load(moved / "recipe.toml").sha256 != first
    shutil.copy(tmp_path / "bracket.stl", moved / "bracket.stl")
    (moved / "golden.npz").write_bytes(b"another golden")
    assert Recipe.load(moved / "recipe.toml").sha256 != first
    edited(recipe_path, "tolerance_mm = 0.5", "tolerance_mm = 0.6")
    assert Recipe.load(recipe_path).sha256 != first


def test_effective_configuration_holds_the_defaults_and_reads_back(recipe_path: Path) -> None:
    edited(recipe_path, "takt_ms = 2000 ", "# takt_ms = 2000")
    recipe = Recipe.load(recipe_path)
    content = json.loads(recipe.to_json())
    assert content["takt_ms"] == 2000.0
    assert Recipe.model_validate(content).model_dump() == recipe.model_dump()


def test_recipe_is_frozen(recipe_path: Path) -> None:
    recipe = Recipe.load(recipe_path)
    with pytest.raises(ValueError, match="frozen"):
        recipe.takt_ms = 1.0


GAUGED = """
[[feature]]
name = "top"
kind = "plane"
normal = [0, 0, 1]
min_mm = [-10, -10, 10]
max_mm = [10, 10, 14]

[[datum]]
label = "A"
feature = "top"

[[gauge]]
name = "flatness of the top"
kind = "flatness"
feature = "top"
tolerance_mm = 0.2
"""


def gauged(recipe_path: Path, old: str = "", new: str = "") -> Path:
    """The recipe with a feature, a datum and a gauge, one place of them edited."""
    assert old in GAUGED
    plain = recipe_path.read_text().partition("[[feature]]")[0]
    recipe_path.write_text(plain + (GAUGED.replace(old, new) if old else GAUGED))
    return recipe_path


def test_gauges_are_read(recipe_path: Path) -> None:
    recipe = Recipe.load(gauged(recipe_path))
    assert [gauge.kind for gauge in recipe.gauge] == ["flatness"]
    assert recipe.datum[0].feature == "top"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('kind = "flatness"', 'kind = "flatnes"', "gauge[0].kind: 'flatnes' is unknown; known are 'distance'"),
        ('kind = "flatness"\n', "", "gauge[0].kind: is missing; add it"),
        ("tolerance_mm", "tolerance", "gauge[0].tolerance: unknown field; did you mean 'tolerance_mm'?"),
        ('feature = "top"\ntol', 'feature = "topp"\ntol', "feature 'topp' is not in the recipe; did you mean 'top'?"),
        ('label = "A"', 'label = "a"', "datum[0].label: "),
        ("normal = [0, 0, 1]", "normal = [0, 0, 0]", "feature[0].normal: must not be of zero length"),
        ("min_mm = [-10, -10, 10]", "min_mm = [-10, -10, 20]", "feature[0]: min_mm must be below max_mm on axis z"),
    ],
)
def test_each_fault_of_a_gauge_is_one_line_that_names_the_field(
    recipe_path: Path, old: str, new: str, says: str
) -> None:
    with pytest.raises(DepthcellError) as caught:
        Recipe.load(gauged(recipe_path, old, new))
    assert says in str(caught.value)


def test_a_recipe_finds_its_files_beside_the_parts(recipe_path: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = elsewhere / recipe_path.name
    moved.write_text(recipe_path.read_text())
    with pytest.raises(DepthcellError, match="is no file"):
        Recipe.load(moved)
    recipe = Recipe.load(moved, beside=recipe_path.parent)
    assert recipe.mesh_path.parent == recipe_path.parent
    assert recipe.sha256 == Recipe.load(recipe_path).sha256


TABLES = """
[[feature]]
name = "pad"
kind = "plane"
normal = [0, 0, 1]
min_mm = [-10, -10, -1]
max_mm = [10, 10, 1]

[[datum]]
label = "Q"
feature = "pad"

[[datum]]
label = "RPS"
points = [{ name = "one", position_mm = [0, 0, 0], direction = [0, 0, 1] }]

[[gauge]]
name = "place"
kind = "position"
feature = "pad"
datums = ["RPS"]
tolerance_mm = 1.0
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("", "", None),
        ('feature = "pad"\n\n[[datum]]', "\n\n[[datum]]", "datum 'Q': name either a feature or reference points"),
        (
            'datums = ["RPS"]',
            'datums = ["Q", "RPS"]',
            "datum 'RPS' is of reference points, which hold the part by them",
        ),
        ('datums = ["RPS"]', 'datums = ["Q-Q"]', "datum 'Q' stands twice"),
        ('datums = ["RPS"]', 'datums = ["Q-Z"]', "datum 'Z' is not in the recipe"),
        ('datums = ["RPS"]', 'datums = ["Q-"]', "datums"),
        ("direction = [0, 0, 1]", "direction = [0, 0, 0]", "must not be of zero length"),
    ],
)
def test_datums_by_points_and_common_ones_are_checked(recipe_path: Path, old: str, new: str, says: str | None) -> None:
    recipe_path.write_text(recipe_path.read_text() + TABLES.replace(old, new, 1))
    if says is None:
        assert Recipe.load(recipe_path).datum[-1].points[0].name == "one"
        return
    with pytest.raises(DepthcellError, match=says):
        Recipe.load(recipe_path)


def test_fixture_holds_what_is_not_allowed_and_says_how_well(recipe_path: Path) -> None:
    assert Recipe.load(recipe_path).pose.allowed_motions is None
    before = Recipe.load(recipe_path).sha256
    edited(
        recipe_path,
        "max_shift_mm",
        'allowed = ["x", "y", "rz"]\nheld_sigma_mm = 0.02\nheld_sigma_deg = 0.1\nmax_shift_mm',
    )
    recipe = Recipe.load(recipe_path)
    motions = recipe.pose.allowed_motions
    assert motions is not None
    assert motions.names == ("x", "y", "rz")
    assert motions.held_sigma_m == pytest.approx(2e-5)
    assert recipe.pose.form_mm == pytest.approx(0.5)
    assert motions.held_sigma_rad == pytest.approx(np.radians(0.1))
    assert recipe.sha256 != before
    edited(recipe_path, "held_sigma_mm = 0.02", "")
    with pytest.raises(DepthcellError, match="say how well it holds them by held_sigma_mm"):
        Recipe.load(recipe_path)
    edited(recipe_path, 'allowed = ["x", "y", "rz"]', "")
    with pytest.raises(DepthcellError, match="serve what the fixture holds"):
        Recipe.load(recipe_path)
