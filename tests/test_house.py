"""The house's own laws, each with a negative control: the guard is broken on purpose and must see it."""

import ast
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("acquisition", "calib", "fusion", "models", "inspect")


def tracked_files() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    names = [Path(name) for name in listing.stdout.decode().split("\0") if name]
    return [name for name in names if (ROOT / name).exists() or (ROOT / name).is_symlink()]


def copy_tree(target: Path) -> Path:
    for name in tracked_files():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    return target


# --- no package but depthcell ---------------------------------------------------------------------------------------


def stray_packages(root: Path) -> list[str]:
    """`__init__.py` files where none may be: a root folder inspect/ with one shadows the standard library's inspect."""
    found = [path.relative_to(root) for folder in (*ROOMS, "tests") for path in (root / folder).rglob("__init__.py")]
    return sorted(str(path) for path in found)


def dataclasses_work_from(root: Path) -> bool:
    code = "import dataclasses, inspect; dataclasses.dataclass(type('A', (), {})); inspect.signature(print)"
    return subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=False).returncode == 0


def test_only_depthcell_is_a_package() -> None:
    assert stray_packages(ROOT) == []
    assert dataclasses_work_from(ROOT)


def test_a_planted_init_is_seen_and_does_break_python(tmp_path: Path) -> None:
    root = copy_tree(tmp_path)
    assert dataclasses_work_from(root)
    (root / "inspect" / "__init__.py").touch()
    assert stray_packages(root) == ["inspect/__init__.py"]
    assert not dataclasses_work_from(root)


# --- imports run one way --------------------------------------------------------------------------------------------


def imports_of(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def upward_imports(room: str, sources: Iterable[str]) -> list[str]:
    """Imports of a room that stands above `room` in the order acquisition <- calib <- fusion <- models <- inspect."""
    above = (*ROOMS[ROOMS.index(room) + 1 :], "cli")
    return sorted(
        name
        for source in sources
        for name in imports_of(source)
        if name.split(".")[:1] == ["depthcell"] and name.split(".")[1] in above
    )


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room: str) -> None:
    assert upward_imports(room, (path.read_text() for path in (ROOT / room).rglob("*.py"))) == []


def test_an_upward_import_is_seen() -> None:
    planted = "def late() -> None:\n    from depthcell.inspect.verdict import Verdict\n"
    assert upward_imports("fusion", [planted]) == ["depthcell.inspect.verdict.Verdict"]
    assert upward_imports("inspect", [planted]) == []


# --- the linter forbids the bare folders ----------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["import acquisition", "from fusion import partcloud", "import pickle"])
def test_linter_forbids(line: str) -> None:
    ruff = [
        str(Path(sys.executable).with_name("ruff")),
        "check",
        "--select",
        "TID251",
        "--stdin-filename",
        "fusion/x.py",
        "-",
    ]
    refused = subprocess.run(ruff, input=f"{line}\n", cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "TID251" in refused.stdout
    allowed = subprocess.run(ruff, input="import depthcell\n", cwd=ROOT, capture_output=True, text=True, check=False)
    assert allowed.returncode == 0


# --- the wheel is whole ---------------------------------------------------------------------------------------------


def missing_from_wheel(wheel: Path, root: Path) -> list[str]:
    """Modules and package data of the source tree that the wheel lacks."""
    expected = {f"depthcell/{path.name}" for path in (root / "depthcell").glob("*.py")} | {"depthcell/py.typed"}
    for room in ROOMS:
        files = [path for path in (root / room).rglob("*") if path.suffix in {".py", ".j2"}]
        expected |= {f"depthcell/{path.relative_to(root)}" for path in files}
    return sorted(expected - set(zipfile.ZipFile(wheel).namelist()))


def build_wheel(root: Path) -> Path:
    """Build the source archive, and the wheel from that: what a user installs has gone through both."""
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist"]
    done = subprocess.run(build, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (root / "dist").glob("*.whl")
    return wheel


def test_wheel_holds_every_module(tmp_path: Path) -> None:
    assert missing_from_wheel(build_wheel(copy_tree(tmp_path)), ROOT) == []


def test_a_wheel_with_a_folder_missing_is_seen(tmp_path: Path) -> None:
    root = copy_tree(tmp_path)
    (root / "depthcell" / "calib").unlink()
    assert "depthcell/calib/cell.py" in missing_from_wheel(build_wheel(root), ROOT)
