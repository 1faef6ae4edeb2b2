"""A file is whole or absent, whatever happens while it is written."""

from pathlib import Path

import pytest

from depthcell.files import sha256_of_file, write_text, written_beside


def write_half(path: Path, error: type[BaseException]) -> None:
    with written_beside(path) as partial:
        partial.write_text("half")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "cell.json"
    write_text(path, "old")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["cell.json"]


def test_a_finished_write_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cell.json"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-4's own example
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of_file(tmp_path / "abc") == expected
