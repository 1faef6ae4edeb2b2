"""What README and docs say: each command is taken as it stands, each file and picture that is linked exists."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from typer.exceptions import TyperException

from depthcell import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("models/*.md")])
GUIDE = ROOT / "docs" / "calibrate-a-cell.md"


def commands(text: str) -> Iterator[str]:
    """Lines in fenced blocks that call depthcell, without prompt, comment and what they are piped into."""
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines():
            found = re.match(r"(?:\S*/)?depthcell (.+)$", line)
            if found:
                yield re.split(r" [|>] | && ", found[1])[0]


def links(text: str) -> set[str]:
    """Files that a page links or shows, without those on the web and places within a page."""
    return {target for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", text) if not re.match(r"[a-z]+:", target)}


def taken(words: list[str]) -> bool:
    """Parse a call in full, with every option's type and what is required, and run nothing."""
    application = typer.main.get_command(cli.app)
    called: list[str] = []

    def silence(command: object, name: str) -> None:
        for child, inner in getattr(command, "commands", {}).items():
            silence(inner, child)
        if not hasattr(command, "commands"):
            command.callback = lambda **_: called.append(name)  # type: ignore[attr-defined]

    silence(application, "")
    application(words, standalone_mode=False)
    return len(called) == 1


CALLS = sorted({(page.name, call) for page in PAGES for call in commands(page.read_text())})


@pytest.mark.parametrize(("page", "call"), CALLS)
def test_each_command_is_taken(page: str, call: str) -> None:
    assert taken(shlex.split(call, comments=True)), page


@pytest.mark.parametrize(
    "wrong",
    ["calibrate runs/cal", "calibrate runs/cal --bord x", "simulate --cameras four", "plans", "study grr"],
)
def test_a_wrong_command_is_not_taken(wrong: str) -> None:
    with pytest.raises(TyperException):
        taken(shlex.split(wrong))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_is_linked_exists(page: Path) -> None:
    missing = [link for link in links(page.read_text()) if not (page.parent / link).exists()]
    assert missing == []


def test_commands_and_links_are_found_as_they_are_written() -> None:
    text = (
        "a `depthcell x`\n```\ndepthcell plan --camera D405 \\\n  --json | jq .\n.venv/bin/depthcell demo  # c\n```\n"
    )
    assert list(commands(text)) == ["plan --camera D405 --json", "demo  # c"]
    assert links("[a](b.md#c) ![p](pictures/q.png) [w](https://x.y/z) [h](#here)") == {"b.md", "pictures/q.png"}


def test_the_guide_names_every_verb_of_a_calibration() -> None:
    text = GUIDE.read_text()
    lacking = [name for group, name in (w for w in cli.CALLS if len(w) == 2) if f"{group} {name}" not in text]
    assert lacking in ([], ["cell"])  # which people leave out
    assert {"simulate", "record", "verify", "plan"} <= {call.split()[0] for call in commands(text)}


def test_pictures_of_the_guide_are_small_and_all_shown() -> None:
    drawn = set(ROOT.glob("docs/pictures/calibrate_*.png"))
    assert drawn == {(GUIDE.parent / link).resolve() for link in links(GUIDE.read_text()) if "calibrate_" in link}
    assert max(path.stat().st_size for path in drawn) < 150_000
