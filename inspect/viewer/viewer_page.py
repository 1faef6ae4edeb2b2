"""The turnable view of a measured part: one HTML file that needs nothing else, no network and no other file."""

from functools import cache
from pathlib import Path

from depthcell.inspect.measurement import MeasuredPart, MeasurementFacts
from depthcell.inspect.measurement_words import shown_reasons
from depthcell.inspect.report import signed
from depthcell.inspect.viewer.viewer_scene import scene_json
from depthcell.webpage import csp_hash, page_templates

FOLDER = Path(__file__).parent
LIBRARY, SCRIPT, STYLE, TEMPLATE, LICENCE = (
    "three.bundle.min.js",
    "viewer.js",
    "viewer.css",
    "viewer.html.j2",
    "three.LICENSE.txt",
)


def viewer_page(part: MeasuredPart, facts: MeasurementFacts) -> str:
    """The page as the text of one HTML file. Scripts and style are allowed by their SHA-256 (CSP level 2), no other."""
    return (
        page_templates(FOLDER)
        .get_template(TEMPLATE)
        .render(
            part=part,
            reason=signed(shown_reasons(part)[0]),
            facts=facts,
            library=_packaged(LIBRARY),
            script=_packaged(SCRIPT),
            style=_packaged(STYLE),
            licence=_packaged(LICENCE),
            hashes={name: f"sha256-{csp_hash(_packaged(name))}" for name in (LIBRARY, SCRIPT, STYLE)},
            scene=scene_json(part, facts),
        )
    )


@cache
def _packaged(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8").strip()
