"""The turnable view: whole in itself, runs nothing but its own scripts, is true to what was measured, and is drawn."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measuredplate import FACTS, gauge, measured_plate, missing_plate, plate_scan
from numpy.typing import NDArray

from depthcell.fusion.association.elements import Circle, Cylinder, Line, Plane, Sphere
from depthcell.inspect.measurement import MeasuredPart
from depthcell.inspect.viewer.viewer_page import FOLDER, viewer_page
from depthcell.inspect.viewer.viewer_scene import (
    MOST_GAUGE_POINTS,
    SURFACE_PLACES,
    UNKNOWN,
    element_lines,
    scene_json,
)

AXIS = np.array([0.0, 0.6, 0.8])
AT = np.array([0.01, 0.02, 0.03])
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class _Page(HTMLParser):
    """Scripts, styles and every attribute of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.styles: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self._within: tuple[str, dict[str, str | None]] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag in ("script", "style"):
            self._within = (tag, dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        if self._within and tag == self._within[0]:
            self._within = None

    def handle_data(self, data: str) -> None:
        if self._within is None:
            return
        tag, attributes = self._within
        if tag == "style":
            self.styles.append(data)
        else:
            self.scripts.append((attributes, data))


@pytest.fixture(scope="module")
def text() -> str:
    return viewer_page(measured_plate(), FACTS)


@pytest.fixture(scope="module")
def page(text: str) -> _Page:
    return _Page(text)


@pytest.fixture(scope="module")
def scene() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(scene_json(measured_plate(), FACTS))
    return content


def test_the_page_asks_nobody_for_anything(page: _Page) -> None:
    asking = [(tag, name, value) for tag, name, value in page.attributes if name in ("src", "href", "action", "srcset")]
    assert asking == []
    own = [data for attributes, data in page.scripts if attributes.get("type") is None]
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|importScripts|EventSource)\b", own[-1])
    assert "@import" not in page.styles[0]
    assert "url(" not in page.styles[0]


def test_the_policy_allows_the_pages_own_scripts_and_style_and_nothing_else(page: _Page) -> None:
    policy = next(value for tag, name, value in page.attributes if tag == "meta" and value.startswith("default-src"))
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    running = [data for attributes, data in page.scripts if attributes.get("type") is None]
    assert len(running) == 2
    for content in (*running, *page.styles):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"]


def test_the_policy_would_see_a_changed_script(text: str) -> None:
    changed = _Page(text.replace("'use strict'", "'use strict' ", 1))
    policy = next(value for tag, name, value in changed.attributes if tag == "meta" and value.startswith("default-src"))
    last = [data for attributes, data in changed.scripts if attributes.get("type") is None][-1]
    assert base64.b64encode(hashlib.sha256(last.encode()).digest()).decode() not in policy


def test_the_licence_of_what_is_bundled_is_in_the_page(text: str) -> None:
    assert "MIT License" in text
    assert "three.js authors" in text
    assert (FOLDER / "three.bundle.min.js").read_text(encoding="utf-8").startswith("/* three.js 0.187.0")


def test_the_page_stays_small_enough_to_be_mailed(text: str) -> None:
    assert len(text.encode()) < 4_000_000


def test_names_and_reasons_cannot_break_out() -> None:
    wild = "</script><script>alert(1)</script><!--"
    part = measured_plate(wild, results=(gauge("gap", 1.0, (0.0, 2.0), name=wild, reason=wild),), reasons=(wild,))
    found = _Page(viewer_page(part, replace(FACTS, recipe_name=wild)))
    assert len(found.scripts) == 3
    content = json.loads(next(data for attributes, data in found.scripts if attributes.get("type")))
    assert content["gauges"][0]["name"] == wild


def test_points_are_where_they_were_measured(scene: dict[str, Any]) -> None:
    scan = plate_scan()
    shown = _places(scene["cloud"]["points"], scene)
    assert scene["cloud"]["thinned"] == 0
    np.testing.assert_allclose(shown, 1e3 * scan.points_part, atol=0.6 * np.ptp([scene["low"], scene["high"]]) / 65535)


def test_deviation_and_uncertainty_are_those_of_the_points(scene: dict[str, Any]) -> None:
    part = measured_plate()
    assert part.deviation_m is not None
    known = np.isfinite(part.deviation_m)
    told = np.frombuffer(base64.b64decode(scene["cloud"]["deviation"]), "<i2")
    assert ((told == UNKNOWN) == ~known).all()
    np.testing.assert_allclose(told[known], 1e6 * part.deviation_m[known], atol=0.51)
    sigma = np.frombuffer(base64.b64decode(scene["cloud"]["sigma"]), "<u2")
    assert set(sigma.tolist()) == {450}


def test_the_surface_is_coloured_where_it_was_measured_and_grey_where_not(scene: dict[str, Any]) -> None:
    places = _places(scene["surface"]["points"], scene)
    told = np.frombuffer(base64.b64decode(scene["surface"]["deviation"]), "<i2")
    assert len(told) == pytest.approx(SURFACE_PLACES, rel=0.01)
    under = places[:, 2] < 0.01
    assert (told[under] == UNKNOWN).mean() > 0.9
    top = places[:, 2] > 7.99
    assert (told[top] != UNKNOWN).mean() > 0.99
    deepest = places[top][np.argmin(told[top])]
    np.testing.assert_allclose(deepest[:2], (-12, 6), atol=1.0)


def test_each_gauge_has_its_numbers_points_and_element(scene: dict[str, Any]) -> None:
    part = measured_plate()
    for told, result in zip(scene["gauges"], part.results, strict=True):
        assert (told["value"], told["u"], told["lower"], told["upper"]) == (
            result.value,
            result.u,
            result.lower,
            result.upper,
        )
        assert (told["decision"], told["reason"]) == (result.decision.value, result.reason)
        assert bool(told["points"]) == bool(result.drawn)
        assert len(told["lines"]) % 6 == 0
    bore = np.array(scene["gauges"][0]["lines"]).reshape(-1, 3)
    assert np.hypot(bore[:, 0] - 12, bore[:, 1]).max() == pytest.approx(6.0, abs=1e-3)


def test_many_points_are_thinned_out_evenly() -> None:
    dense = measured_plate()
    assert dense.scan is not None
    drawn = dense.results[1].drawn
    shown = json.loads(scene_json(replace(dense, results=(replace(dense.results[1], drawn=drawn * 3),)), FACTS))
    count = len(base64.b64decode(shown["gauges"][0]["points"])) // 6
    assert 0 < count <= MOST_GAUGE_POINTS


def test_a_part_that_nobody_saw_has_a_page_too() -> None:
    found = _Page(viewer_page(missing_plate(), FACTS))
    content = json.loads(next(data for attributes, data in found.scripts if attributes.get("type")))
    assert content["cloud"] is None
    assert content["surface"] is None
    assert {entry["value"] for entry in content["gauges"]} == {None}


@pytest.mark.parametrize("element", [Plane(AT, AXIS), Line(AT, AXIS), Circle(AT, AXIS, 0.01), Cylinder(AT, AXIS, 0.01)])
def test_an_elements_lines_lie_on_it(element: Plane | Line | Circle | Cylinder) -> None:
    points = AT + np.random.default_rng(2).normal(0, 0.01, (50, 3))
    ends = element_lines(element, points).reshape(-1, 3) - AT
    along = ends @ AXIS
    off = np.linalg.norm(ends - along[:, None] * AXIS, axis=1)
    if isinstance(element, Plane):
        np.testing.assert_allclose(along, 0, atol=1e-12)
    elif isinstance(element, Line):
        np.testing.assert_allclose(off, 0, atol=1e-12)
    elif isinstance(element, Circle):
        np.testing.assert_allclose(along, 0, atol=1e-12)
        np.testing.assert_allclose(off, 0.01, atol=1e-12)
    else:
        assert (np.isclose(off, 0.01) | np.isclose(off, 0, atol=1e-12)).all()
        assert along.min() == pytest.approx(((points - AT) @ AXIS).min())


def test_a_spheres_lines_lie_on_it() -> None:
    ends = element_lines(Sphere(AT, 0.02), np.empty((0, 3))).reshape(-1, 3)
    np.testing.assert_allclose(np.linalg.norm(ends - AT, axis=1), 0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("part", "drawn"), [(measured_plate(), True), (missing_plate(), False)])
def test_a_browser_draws_it_and_complains_of_nothing(part: MeasuredPart, drawn: bool, tmp_path: Path) -> None:
    """Set DEPTHCELL_NEEDS_BROWSER=1 to fail, not skip, where no Chromium is installed."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        assert not os.environ.get("DEPTHCELL_NEEDS_BROWSER"), f"none of {', '.join(BROWSERS)} is installed"
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed; with apt: apt-get install chromium")
    page = tmp_path / "view.html"
    page.write_text(viewer_page(part, FACTS), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--dump-dom"]
    flags += ["--virtual-time-budget=5000", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]
    run = subprocess.run([browser, *flags, f"{page.as_uri()}#gauge=0"], capture_output=True, text=True, timeout=120)  # noqa: PLW1510
    assert run.returncode == 0, run.stderr[-2000:]
    complaints = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    assert complaints == []
    points = re.search(r'<html[^>]* data-drawn="(\d+)"', run.stdout)
    assert points, "the script did not run to its end"
    assert (int(points[1]) > 30_000) == drawn
    assert run.stdout.count('type="button"') == len(part.results) + 1
    assert 'aria-pressed="true"' in run.stdout
    for limits in ("11.7 … 12.3 mm", "≤ 0.4 mm", "no limits"):
        assert limits in run.stdout


def _places(text: str, scene: dict[str, Any]) -> NDArray[np.float64]:
    low, high = np.array(scene["low"]), np.array(scene["high"])
    steps = np.frombuffer(base64.b64decode(text), "<u2").reshape(-1, 3)
    return np.asarray(low + (high - low) * steps / 65535)
