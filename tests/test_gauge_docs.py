"""docs/gauges.md: its recipe is taken and read as it says, every gauge is on it once, with a picture."""

import importlib
import math
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
from pydantic import ValidationError

from depthcell.inspect.featuresections import FeatureSection
from depthcell.inspect.gauges.gauging import MEASURES
from depthcell.inspect.recipe import Recipe

DOCS = Path(__file__).resolve().parents[1] / "docs"
KINDS = {get_args(section.model_fields["kind"].annotation)[0] for section in MEASURES}
MADE = {
    "angle": math.radians(30.4),
    "diameter": 14.08e-3,
    "coordinate": -27.9e-3,
    "flatness": 1e-4,
    "straightness": 1e-4,
    "roundness": 1e-4,
    "cylindricity": 1e-4,
    "position": 2 * math.hypot(0.1e-3, 0.06e-3),
    "profile_surface": 1.2e-3,
    "profile_line": 1.2e-3,
    "thickness": 3.5e-3,
    "gap": 4e-3,
    "flush": 0.4e-3,
    "seam": 1.5e-3,
    "volume": math.pi * 7**2 * 0.6 / 2 * (1 - (0.1 / 0.6) ** 2) * 1e-9,
}
"""What the shown parts were made to be."""


@pytest.fixture(scope="module")
def parts() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        return importlib.import_module("gauge_parts")


@pytest.fixture(scope="module")
def shown(parts: ModuleType) -> dict[str, object]:
    return {one.section.kind: one for one in parts.measured(parts.page_recipe())}


def test_every_gauge_and_feature_stands_on_the_page_once(parts: ModuleType) -> None:
    recipe = parts.page_recipe()
    assert sorted(gauge.kind for gauge in recipe.gauge) == sorted(KINDS)
    features = get_args(get_args(FeatureSection)[0])
    assert {type(feature) for feature in recipe.feature} == set(features)


def test_each_snippet_is_a_recipe_with_the_features(parts: ModuleType) -> None:
    first, *snippets = parts.recipe_blocks()
    assert len(snippets) == len(KINDS)
    for snippet in snippets:
        recipe = Recipe.model_validate(parts.REST | tomllib.loads(f"{first}\n{snippet}"))
        assert len(recipe.gauge) == 1


def test_a_snippet_with_a_wrong_field_is_refused(parts: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text((DOCS / "gauges.md").read_text().replace("angle_deg = 30", "angle_degrees = 30"))
    with pytest.raises(ValidationError, match="angle_degrees"):
        parts.page_recipe(page)


def test_each_snippet_reads_what_its_part_is(shown: dict[str, object]) -> None:
    for kind, one in shown.items():
        assert one.u > 0, kind  # type: ignore[attr-defined]
        assert abs(one.reading.value - one.true) < 4 * one.u, kind  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", sorted(MADE))
def test_without_noise_a_gauge_reads_what_the_part_was_made_to_be(shown: dict[str, object], kind: str) -> None:
    assert shown[kind].true == pytest.approx(MADE[kind], rel=0.03)  # type: ignore[attr-defined]


def test_every_gauge_has_its_picture_and_it_is_small() -> None:
    linked = set(re.findall(r"\]\(pictures/gauge_(\w+)\.png\)", (DOCS / "gauges.md").read_text()))
    drawn = {path.stem.removeprefix("gauge_"): path for path in DOCS.glob("pictures/gauge_*.png")}
    assert linked == set(drawn) == KINDS | {"feature"}
    assert max(path.stat().st_size for path in drawn.values()) < 60_000


def test_a_picture_says_the_value_and_draws_its_zone(shown: dict[str, object], parts: ModuleType) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        pictures = importlib.import_module("gauge_pictures")
    assert pictures.Shown is parts.Shown
    one = shown["flatness"]
    figure = pictures.draw_gauge(one)
    low, high = (line.get_ydata()[0] for line in figure.axes[1].get_lines())
    assert high - low == pytest.approx(one.reading.value * 1e3)  # type: ignore[attr-defined]
    assert f"{one.reading.value * 1e3:.3f} ±" in figure.get_suptitle()  # type: ignore[attr-defined]
