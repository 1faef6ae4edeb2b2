"""Templates of pages: strict, escaping, and with the hash by which a policy names a style."""

from pathlib import Path

import pytest
from jinja2 import UndefinedError

from depthcell.webpage import csp_hash, page_templates


def test_the_hash_is_the_one_of_the_standards_own_example() -> None:
    assert csp_hash("alert('Hello, world.');") == "qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng="


def test_what_is_given_is_escaped_and_what_lacks_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "page.j2").write_text('{% include "word.j2" %}')
    (tmp_path / "base" / "word.j2").write_text("<b>{{ word }}</b>")
    page = page_templates(tmp_path, tmp_path / "base").get_template("page.j2")
    assert page.render(word="<script>") == "<b>&lt;script&gt;</b>"
    with pytest.raises(UndefinedError, match="word"):
        page.render()
