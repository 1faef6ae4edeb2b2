"""Who vouches for a file: keys nobody else can read, seals that fit one content, stations that trust each other."""

import multiprocessing
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from depthcell.calib.seal import (
    BrokenSealError,
    ForeignSealError,
    Seal,
    fingerprint,
    key_folder,
    sign,
    station_public_key,
    trust,
    trusted_public_keys,
    verify,
)
from depthcell.errors import DepthcellError

MoveTo = Callable[[str], Path]


@pytest.fixture
def at_station(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MoveTo:
    """A function that makes this process a station of that name, with keys of its own."""

    def move(name: str) -> Path:
        monkeypatch.setenv("DEPTHCELL_HOME", str(tmp_path / name))
        return tmp_path / name

    return move


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_seal_fits_its_content_and_no_other(content: bytes, other: bytes) -> None:
    seal = sign("cell", content)
    verify(seal, "cell", content)
    assert seal == sign("cell", content)  # nothing random is in it
    if other != content:
        with pytest.raises(BrokenSealError, match="changed after it was sealed"):
            verify(seal, "cell", other)


def test_a_seal_is_for_one_purpose() -> None:
    seal = sign("cell", b"content")
    with pytest.raises(BrokenSealError):
        verify(seal, "certificate", b"content")


@pytest.mark.parametrize("text", ["", "00", "zz", "00" * 64, "€"])
def test_a_seal_that_is_none_is_refused(text: str) -> None:
    seal = sign("cell", b"content")
    for bad in (replace(seal, signature=text), replace(seal, public_key=text)):
        with pytest.raises(BrokenSealError):
            verify(bad, "cell", b"content")


def test_the_signature_is_plain_ed25519() -> None:
    """Any other implementation of RFC 8032 can check it, and sees a changed bit."""
    seal = sign("cell", b"content")
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(seal.public_key))
    key.verify(bytes.fromhex(seal.signature), b"depthcell cell\0content")


def test_keys_are_for_their_owner_alone(at_station: MoveTo) -> None:
    folder = at_station("here")
    public_key = station_public_key()
    assert public_key == station_public_key()
    assert (folder.stat().st_mode & 0o777, (folder / "station.key").stat().st_mode & 0o777) == (0o700, 0o600)
    assert sorted(path.name for path in folder.iterdir()) == ["station.key", "station.pub"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_not_used(at_station: MoveTo, mode: int) -> None:
    folder = at_station("here")
    seal = sign("cell", b"content")
    (folder / "station.key").chmod(mode)
    for use in (lambda: sign("cell", b"content"), lambda: verify(seal, "cell", b"content")):
        with pytest.raises(DepthcellError, match=rf"others can read it \(mode {mode:04o}\).*chmod 600"):
            use()
    (folder / "station.key").chmod(0o600)
    assert sign("cell", b"content") == seal


def test_a_folder_where_others_can_lay_keys_is_not_used(at_station: MoveTo) -> None:
    folder = at_station("here")
    station_public_key()
    folder.chmod(0o777)
    with pytest.raises(DepthcellError, match=r"others can write there.*chmod 700"):
        trusted_public_keys()


def test_a_damaged_key_is_said(at_station: MoveTo) -> None:
    folder = at_station("here")
    station_public_key()
    (folder / "station.key").write_text("no key")
    with pytest.raises(DepthcellError, match=r"station\.key: is no Ed25519 private key"):
        sign("cell", b"content")


def test_a_place_without_room_for_keys_is_said(
    at_station: MoveTo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    at_station("file/keys")
    with pytest.raises(DepthcellError, match=r"cannot be written.*DEPTHCELL_HOME"):
        sign("cell", b"content")
    monkeypatch.delenv("DEPTHCELL_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert key_folder() == Path("/home/somebody/.config/depthcell")


def test_another_station_is_believed_once_its_key_is(at_station: MoveTo, tmp_path: Path) -> None:
    there = at_station("there")
    seal = sign("cell", b"content")
    at_station("here")
    with pytest.raises(ForeignSealError, match=f"{fingerprint(seal.public_key)}.*depthcell calibrate trust") as refusal:
        verify(seal, "cell", b"content")
    assert "\n" not in str(refusal.value)
    with pytest.raises(BrokenSealError):  # before anybody is asked to trust it
        verify(seal, "cell", b"changed")
    assert trust(there / "station.pub") == fingerprint(seal.public_key)
    verify(seal, "cell", b"content")
    trust(there / "station.pub")  # again does no harm
    assert trusted_public_keys() == {seal.public_key}
    own = station_public_key()
    assert trusted_public_keys() == {seal.public_key, own}


def test_who_only_reads_gets_no_key(at_station: MoveTo) -> None:
    at_station("there")
    seal = sign("cell", b"content")
    here = at_station("here")
    with pytest.raises(ForeignSealError):
        verify(seal, "cell", b"content")
    assert not here.exists()
    assert trusted_public_keys() == frozenset()


def test_trust_takes_public_keys_alone(at_station: MoveTo, tmp_path: Path) -> None:
    folder = at_station("here")
    station_public_key()
    (tmp_path / "note.txt").write_text("trust me")
    for path, words in (
        (tmp_path / "note.txt", "is no Ed25519 public key"),
        (folder / "station.key", "is no Ed25519 public key"),
        (tmp_path / "none.pub", "cannot be read"),
    ):
        with pytest.raises(DepthcellError, match=words):
            trust(path)
    (folder / "trusted").mkdir()
    shutil.copy(tmp_path / "note.txt", folder / "trusted" / "note.pub")
    with pytest.raises(DepthcellError, match=r"note\.pub: is no Ed25519 public key"):
        trusted_public_keys()


def key_made_at(folder: str) -> str:
    os.environ["DEPTHCELL_HOME"] = folder
    return station_public_key()


def test_processes_that_need_a_key_at_once_agree_on_one(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        for attempt in range(8):
            folder = tmp_path / str(attempt)
            keys = pool.map(key_made_at, [str(folder)] * 6, chunksize=1)
            assert len(set(keys)) == 1
            assert sorted(path.name for path in folder.iterdir()) == ["station.key", "station.pub"]


def test_a_fingerprint_can_be_read_aloud() -> None:
    text = fingerprint(station_public_key())
    assert len(text) == 39
    assert all(len(group) == 4 and int(group, 16) >= 0 for group in text.split("-"))
    assert isinstance(sign("cell", b""), Seal)
