"""The command line as a user meets it: help that is true, one line on bad input, JSON alone on standard output."""

import ast
import dataclasses
import json
import os
import re
import shlex
import socket as network
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from depthcell import cli
from depthcell.calib.cell import Cell
from depthcell.inspect.inspection import Inspection, Inspector
from depthcell.inspect.publisher import VerdictPublisher
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.verdict import Decision, Verdict, from_json, sealed, to_json
from depthcell.inspect.wire import Endpoint

ROOT = Path(__file__).resolve().parents[1]
MakeVerdict = Callable[..., Verdict]
NAMES = sorted({words[0] for words in cli.CALLS})


@dataclasses.dataclass(frozen=True)
class Said:
    """What a call left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run the command line in this process."""

    def run(*words: str | Path) -> Said:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main([str(word) for word in words])
        out, err = capfd.readouterr()
        assert isinstance(left.value.code, int)
        return Said(left.value.code, out, err)

    return run


# --- help -----------------------------------------------------------------------------------------------------------


def test_help_lists_every_verb_with_what_it_does(call: Callable[..., Said]) -> None:
    said = call("--help")
    assert said.code == 0
    for name in NAMES:
        assert re.search(rf"^  {name} +\S", said.out, flags=re.MULTILINE), name
    assert call().out == said.out  # no words at all: the same


@pytest.mark.parametrize("known", cli.CALLS, ids=" ".join)
def test_each_verb_shows_an_example_whose_options_exist(known: tuple[str, ...], call: Callable[..., Said]) -> None:
    examples = re.findall(r"^ *Example: depthcell (.+)$", cli.CALLS[known].__doc__ or "", flags=re.MULTILINE)
    assert examples, f"{known}: no example in its help"
    for example in examples:
        words = shlex.split(example)
        # The cell is what people calibrate without saying so.
        assert tuple(words[: len(known)]) == known or known == ("calibrate", "cell")
        assert call(*words, "--help").code == 0


@pytest.mark.parametrize("group", cli.GROUPS)
def test_a_group_lists_its_verbs(group: str, call: Callable[..., Said]) -> None:
    said = call(group, "--help")
    assert said.code == 0
    for words in cli.CALLS:
        if words[0] == group:
            assert re.search(rf"^  {words[1]} +\S", said.out, flags=re.MULTILINE), words


@pytest.mark.parametrize(
    ("words", "help_of"),
    [
        (("calibrate", "runs/x"), "calibrate"),
        (("calibrate", "board"), "calibrate board"),
        (("study", "grr"), "study grr"),
        (("study", "unknown"), "study"),
    ],
)
def test_a_wrong_call_names_the_help_of_what_was_meant(
    words: tuple[str, ...], help_of: str, call: Callable[..., Said]
) -> None:
    said = call(*words)
    assert said.code == 2
    assert said.err.endswith(f"see depthcell {help_of} --help\n")


def test_version(call: Callable[..., Said]) -> None:
    assert re.fullmatch(r"depthcell \d+\.\d+\.\d+\n", call("--version").out)


@pytest.mark.parametrize(("given", "kept"), [(None, "1"), ("4", "4")])
def test_blas_runs_on_one_thread_unless_told_otherwise(
    given: str | None, kept: str, call: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "0")  # so that it is put back afterwards
    monkeypatch.delenv("OPENBLAS_NUM_THREADS") if given is None else monkeypatch.setenv("OPENBLAS_NUM_THREADS", given)
    call("--version")
    assert os.environ["OPENBLAS_NUM_THREADS"] == kept


def test_help_loads_no_heavy_library() -> None:
    code = "import sys, depthcell.cli; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"numpy", "scipy", "cv2", "open3d", "pyrealsense2", "rich", "zmq", "pydantic"}.isdisjoint(loaded)
    assert "depthcell.inspect.commands" in loaded


def heavy_imports(source: str) -> set[str]:
    """Imports at the top of a file that its verbs' modules may not have."""
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    allowed = {"typer", "depthcell.errors"}
    return {name for name in names if name not in allowed and name.partition(".")[0] not in sys.stdlib_module_names}


@pytest.mark.parametrize("path", sorted(ROOT.glob("*/commands.py")), ids=lambda path: path.parent.name)
def test_commands_import_nothing_heavy_at_the_top(path: Path) -> None:
    assert heavy_imports(path.read_text()) == set()


def test_a_heavy_import_is_seen() -> None:
    assert heavy_imports("import numpy as np\nfrom depthcell.calib.cell import Cell\nimport json\n") == {
        "numpy",
        "depthcell.calib.cell",
    }


# --- bad input ------------------------------------------------------------------------------------------------------

BAD_CALLS = [
    (("nosuch",), "No such command 'nosuch'"),
    (("inspekt",), "Did you mean 'inspect'"),
    (("--nosuch",), "--nosuch"),
    (("inspect",), "source"),
    (("inspect", "a", "b"), "b"),
    (("inspect", "a", "--nosuch"), "--nosuch"),
    (("inspect", "a", "--frames", "many"), "--frames"),
    (("inspect", "a", "--frames", "0"), "--frames"),
    (("inspect", "a", "--wait", "-1"), "--wait"),
    (("inspect", "no/such/folder"), "no/such/folder"),
    (("inspect", "."), "--recipe"),
    (("inspect", ".", "--recipe", "no.toml"), "no.toml"),
    (("inspect", "a", "--bind", "tcp://0.0.0.0:5556"), "--bind.*--insecure"),
    (("inspect", "a", "--bind", "5556"), "--bind"),
    (("listen", "--connect", "nowhere"), "--connect"),
    (("listen", "--connect", "tcp://192.0.2.1:5556"), "--connect.*--insecure"),
    (("listen", "--count", "0"), "--count"),
    (("listen", "--timeout", "-1"), "--timeout"),
    (("simulate", "--part", "teapot"), "teapot"),
    (("simulate", "--camera-model", "D999"), "D999"),
    (("simulate", "--parts", "0"), "--parts"),
    (("simulate", "--calibration", "--golden", "3"), "--golden 3: with --calibration no part is simulated"),
    (("simulate", "--motion", "belt"), "--motion belt: write conveyor:60"),
    (("simulate", "--motion", "belt:5"), "--motion belt:5: belt is unknown; choose conveyor or turntable"),
    (("simulate", "--motion", "conveyor:60", "--parts", "3"), "--parts 3: with --motion one good part"),
    (("simulate", "--board", "charuco:9x6:30mm"), "--board charuco:9x6:30mm: only with --calibration"),
    (("demo", "--parts", "0"), "--parts"),
    (("demo", "--out", "pyproject.toml"), "--out pyproject.toml"),
    (("demo", "--out", "docs"), "--out docs"),
    (("fuse", "no/such.bag", "--out", "x.ply"), "no/such.bag"),
]


@pytest.mark.parametrize(("words", "named"), BAD_CALLS, ids=lambda value: " ".join(value)[:40])
def test_bad_input_is_one_line_that_names_it(
    words: tuple[str, ...], named: str, call: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    said = call(*words)
    assert said.code == 2
    assert said.out == ""
    assert len(said.err.splitlines()) == 1, said.err
    assert said.err.startswith("depthcell: ")
    assert re.search(named, said.err), said.err


def test_with_json_the_refusal_is_json_too(call: Callable[..., Said]) -> None:
    for words in (("inspect", "no/such", "--json"), ("inspect", "--json"), ("listen", "--connect", "x", "--json")):
        said = call(*words)
        assert said.code == 2
        content = json.loads(said.out)
        assert content["error"] in said.err
        assert content["reason"]


def test_a_wrong_recipe_names_file_and_field(line: Path, call: Callable[..., Said]) -> None:
    recipe = line / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("tolerance_mm", "tolerence_mm"))
    said = call("inspect", line)
    assert said.code == 2
    assert re.search(r"recipe\.toml: .*surface\.tolerence_mm: unknown field; did you mean 'tolerance_mm'", said.err)


def test_a_broken_cell_is_named(line: Path, call: Callable[..., Said]) -> None:
    (line / "cell.json").write_text('{"schema_version": 2, "name": 5}')
    said = call("inspect", line)
    assert said.code == 2
    assert re.search(r"cell .*cell\.json: .*name", said.err)


# --- inspect --------------------------------------------------------------------------------------------------------


class HandInspector:
    """Stands in for the judgement, which has its own tests: the second of three parts has a dent and a stain."""

    def __init__(self, recipe: Recipe, cell: Cell, make_verdict: MakeVerdict, plate: Inspection) -> None:
        self.recipe = recipe
        self.cell = cell
        self._make_verdict = make_verdict
        self._plate = plate

    def judge(self, _: object, sequence: int, trigger_id: str) -> Inspection:
        decision = {2: Decision.NOK, 3: Decision.CANNOT_TELL}.get(sequence, Decision.OK)
        made = self._make_verdict(sequence, decision)
        verdict = sealed(msgspec.structs.replace(made, trigger_id=trigger_id))
        points = self._plate.finding_points if verdict.findings else ()
        return dataclasses.replace(self._plate, verdict=verdict, finding_points=points)


RECIPE = """
schema_version = 1
name = "plate"
[cell]
cameras = ["405000001", "405000002"]
[reference]
mesh = "plate.stl"
[region]
min_mm = [-30, -20, -5]
max_mm = [30, 20, 5]
[surface]
tolerance_mm = 0.3
"""


@pytest.fixture
def line(
    tmp_path: Path,
    plate_cell: Cell,
    inspected_plate: Inspection,
    make_verdict: MakeVerdict,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A folder with three parts, recipe and cell; judged by `HandInspector`."""
    source = tmp_path / "line"
    for number in (1, 2, 3):
        part = source / f"part_{number:04d}"
        part.mkdir(parents=True)
        (part / "405000001.db3").touch()
    (source / "recipe.toml").write_text(RECIPE)
    (source / "plate.stl").touch()
    plate_cell.save(source / "cell.json")

    def load(recipe: Recipe, cell: Cell, model: Path | None) -> HandInspector:
        assert model is None
        return HandInspector(recipe, cell, make_verdict, inspected_plate)

    monkeypatch.setattr(Inspector, "load", load)
    return source


def test_inspect_shows_a_table_and_leaves_a_folder(line: Path, call: Callable[..., Said]) -> None:
    said = call("inspect", line)
    assert said.code == 0  # the run is done, whatever the verdicts
    assert "3 parts: 1 OK, 1 NOK, 1 CANNOT-TELL" in said.out
    assert "part_002" in said.out
    (results,) = (line / "inspections").iterdir()
    names = {path.name for path in results.iterdir()}
    assert names == {"verdicts.jsonl", "recipe.json", "cell.json", "run.json", "report.html"}
    assert str(results / "report.html") in said.err.replace("\n", "")


def test_inspect_json_is_verdicts_alone_and_the_same_bytes_as_kept(line: Path, call: Callable[..., Said]) -> None:
    said = call("inspect", line, "--json")
    assert said.code == 0
    assert [from_json(text.encode()).sequence for text in said.out.splitlines()] == [1, 2, 3]
    (results,) = (line / "inspections").iterdir()
    assert (results / "verdicts.jsonl").read_text() == said.out


def test_a_second_run_sees_the_same_parts_and_overwrites_nothing(line: Path, call: Callable[..., Said]) -> None:
    assert call("inspect", line, "--json").out == call("inspect", line, "--json").out
    assert len(list((line / "inspections").iterdir())) == 2


def test_results_go_where_they_are_wanted_and_only_there(line: Path, tmp_path: Path, call: Callable[..., Said]) -> None:
    assert call("inspect", line, "--out", tmp_path / "results", "--no-report").code == 0
    assert not (tmp_path / "results" / "report.html").exists()
    assert not (line / "inspections").exists()
    again = call("inspect", line, "--out", tmp_path / "results")
    assert again.code == 2
    assert "--out" in again.err


def test_one_part_is_inspected_with_the_recipe_beside_its_line(line: Path, call: Callable[..., Said]) -> None:
    said = call("inspect", line / "part_0001", "--json", "--frames", "3")
    assert said.code == 0
    (text,) = said.out.splitlines()
    assert from_json(text.encode()).trigger_id == "recorded:part_0001:first-3-frames"


def test_only_flagged_parts_are_pictured(line: Path, call: Callable[..., Said]) -> None:
    call("inspect", line)
    (report,) = line.glob("inspections/*/report.html")
    text = report.read_text()
    assert 'id="part-2"' in text
    assert 'id="part-1"' not in text
    assert "dev-2-405000001" in text


def test_ctrl_c_keeps_what_was_judged(line: Path, call: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    judge = HandInspector.judge

    def interrupted(self: HandInspector, part: object, sequence: int, trigger_id: str) -> Inspection:
        if sequence == 3:
            raise KeyboardInterrupt
        return judge(self, part, sequence, trigger_id)

    monkeypatch.setattr(HandInspector, "judge", interrupted)
    said = call("inspect", line, "--json")
    assert said.code == 130
    assert len(said.out.splitlines()) == 2
    (results,) = (line / "inspections").iterdir()
    assert len((results / "verdicts.jsonl").read_text().splitlines()) == 2
    assert "Cut short." in (results / "report.html").read_text()


# --- listen ---------------------------------------------------------------------------------------------------------


@contextmanager
def publishing(verdicts: list[Verdict]) -> Iterator[str]:
    """A publisher in another thread that sends `verdicts` once somebody listens."""
    publisher = VerdictPublisher(Endpoint("127.0.0.1", "*"))

    def run() -> None:
        with publisher:
            publisher.wait_for_listener(20.0)
            for verdict in verdicts:
                publisher.publish(verdict)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield publisher.endpoint
    finally:
        thread.join()


def test_listen_accepts_on_ok_alone(make_verdict: MakeVerdict, call: Callable[..., Said]) -> None:
    verdicts = [make_verdict(number, decision) for number, decision in enumerate(Decision, start=1)]
    with publishing(verdicts) as endpoint:
        said = call("listen", "--connect", endpoint, "--count", "3", "--timeout", "20")
    assert said.code == 0
    actions = [words.split() for words in said.out.splitlines() if words.startswith(("ACCEPT", "REJECT"))]
    assert [(words[0], words[3].rstrip(":")) for words in actions] == [
        ("ACCEPT", "OK"),
        ("REJECT", "NOK"),
        ("REJECT", "CANNOT-TELL"),
    ]


def test_listen_json_is_what_was_sent_byte_for_byte(make_verdict: MakeVerdict, call: Callable[..., Said]) -> None:
    verdicts = [make_verdict(number) for number in (1, 2, 3)]
    with publishing(verdicts) as endpoint:
        said = call("listen", "--connect", endpoint, "--count", "3", "--json", "--timeout", "20")
    assert said.out.encode() == b"".join(to_json(verdict) + b"\n" for verdict in verdicts)


def test_listen_reports_loss_and_a_broken_digest(make_verdict: MakeVerdict, call: Callable[..., Said]) -> None:
    forged = msgspec.structs.replace(make_verdict(2), verdict=Decision.OK)  # its digest is that of a NOK
    with publishing([make_verdict(1), forged, make_verdict(3)]) as endpoint:
        said = call("listen", "--connect", endpoint, "--count", "3", "--timeout", "20")
    assert said.code == 1
    assert "REJECT  #2: lost on the way" in said.out
    assert "digest does not fit" in said.out
    assert "ACCEPT" not in said.out
    assert "REJECT  #3" in said.out


def test_listen_gives_up_where_nobody_speaks(call: Callable[..., Said]) -> None:
    said = call("listen", "--connect", "tcp://127.0.0.1:1", "--timeout", "0.3", "--count", "1")
    assert said.code == 1
    assert "nothing heard from tcp://127.0.0.1:1" in said.err
    assert said.out == ""


def test_inspect_and_listen_agree(line: Path, call: Callable[..., Said]) -> None:
    """Two processes over loopback: what the controller heard is what the run kept."""
    with network.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    controller = subprocess.Popen(
        [sys.executable, "-m", "depthcell", "listen", "--connect", endpoint, "--count", "3", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        said = call("inspect", line, "--bind", endpoint, "--wait", "30")
        heard, notes = controller.communicate(timeout=20)
    finally:
        controller.kill()
        controller.communicate()
    assert said.code == 0
    assert "confirmed 3 of 3" in said.err.replace("\n", " ")
    assert controller.returncode == 0, notes
    (kept,) = line.glob("inspections/*/verdicts.jsonl")
    assert heard == kept.read_bytes()
