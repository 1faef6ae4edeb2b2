"""Who vouches for a file: Ed25519 signatures (RFC 8032) by the key of the station that wrote it.

A station makes its key at the first need, in the folder that `key_folder` names, and trusts itself and the stations
whose public key someone put there with `trust`. Ed25519 is deterministic: the same content and key give the same seal.
"""

import contextlib
import hashlib
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from depthcell.errors import DepthcellError, Reason
from depthcell.files import written_beside

HOME_VARIABLE = "DEPTHCELL_HOME"
PRIVATE_KEY = "station.key"
PUBLIC_KEY = "station.pub"
TRUSTED = "trusted"


@dataclass(frozen=True, slots=True)
class Seal:
    """A signature and the key it was made with.

    Attributes:
        public_key: of the signer, 32 bytes in hexadecimal.
        signature: over the content, 64 bytes in hexadecimal.
    """

    public_key: str
    signature: str


class BrokenSealError(DepthcellError):
    """The signature does not fit: the content, or the seal, was changed."""


class ForeignSealError(DepthcellError):
    """The signature fits, but nobody told this station to trust the one who signed."""


def key_folder() -> Path:
    """Where this station's keys lie: `$DEPTHCELL_HOME`, or `~/.config/depthcell`."""
    named = os.environ.get(HOME_VARIABLE)
    if named:
        return Path(named)
    try:
        return Path.home() / ".config" / "depthcell"
    except RuntimeError as error:
        raise DepthcellError(f"keys: there is no home folder; name one in {HOME_VARIABLE}") from error


def fingerprint(public_key: str) -> str:
    """A key as people compare it: the first 128 bits of its SHA-256, in groups of four hexadecimal digits."""
    digits = hashlib.sha256(bytes.fromhex(public_key)).hexdigest()[:32]
    return "-".join(digits[place : place + 4] for place in range(0, 32, 4))


def station_public_key() -> str:
    """This station's public key in hexadecimal; makes the key pair where there is none."""
    return _hexadecimal(_station_key().public_key())


def sign(purpose: str, content: bytes) -> Seal:
    """Seal `content` with this station's key.

    Args:
        purpose: what kind of content it is, such as "cell"; a seal made for one purpose is none for another.
        content: the bytes to vouch for.

    Raises:
        DepthcellError: the key can be read by others, is damaged, or can not be made.
    """
    key = _station_key()
    return Seal(_hexadecimal(key.public_key()), key.sign(_message(purpose, content)).hex())


def verify(seal: Seal, purpose: str, content: bytes) -> None:
    """Return if `seal` was made over this content, for this purpose, by a key that this station trusts.

    Raises:
        BrokenSealError: the signature does not fit.
        ForeignSealError: it fits, but the key is not trusted; the message names its fingerprint and what to do.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(seal.public_key))
        key.verify(bytes.fromhex(seal.signature), _message(purpose, content))
    except (ValueError, InvalidSignature):
        raise BrokenSealError(
            "the seal does not fit the content: it was changed after it was sealed", Reason.CELL_INVALID
        ) from None
    if seal.public_key not in trusted_public_keys():
        raise ForeignSealError(
            f"is sealed by key {fingerprint(seal.public_key)}, which this station does not trust; get that station's "
            f"{PUBLIC_KEY}, compare the fingerprint, and run: depthcell calibrate trust {PUBLIC_KEY}",
            Reason.CELL_INVALID,
        )


def trusted_public_keys() -> frozenset[str]:
    """Public keys in hexadecimal that this station believes: its own, if it has one, and those in `trusted`."""
    folder = key_folder()
    if not folder.is_dir():
        return frozenset()  # who only reads needs no key, nor a place where one could be made
    _check_folder(folder)
    own = [station_public_key()] if (folder / PRIVATE_KEY).exists() else []
    return frozenset((*own, *map(_read_public_key, sorted((folder / TRUSTED).glob("*.pub")))))


def trust(path: Path) -> str:
    """Believe what is sealed with the public key in `path` (PEM) from now on; returns its fingerprint.

    Raises:
        DepthcellError: the file is no Ed25519 public key, or the folder of keys can not be written.
    """
    public_key = _read_public_key(path)
    folder = _made_folder() / TRUSTED
    try:
        with written_beside(folder / f"{fingerprint(public_key)}.pub") as partial:
            partial.write_bytes(_public_pem(public_key))
    except OSError as error:
        raise _unwritable(folder, error) from error
    return fingerprint(public_key)


def _message(purpose: str, content: bytes) -> bytes:
    return b"depthcell " + purpose.encode() + b"\0" + content


def _station_key() -> Ed25519PrivateKey:
    path = _made_folder() / PRIVATE_KEY
    if not path.exists():
        _make_key(path)
    with path.open("rb") as stream:
        mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
        if mode & 0o077:
            raise DepthcellError(
                f"key {path}: others can read it (mode {mode:04o}), so that it proves nothing; if nobody did, run: "
                f"chmod 600 {path}; else delete it, and a new one is made"
            )
        text = stream.read()
    try:
        key = load_pem_private_key(text, password=None)
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise DepthcellError(f"key {path}: is no Ed25519 private key; restore it, or delete it to have a new one made")
    _show_public_key(path.with_name(PUBLIC_KEY), key)
    return key


def _show_public_key(path: Path, key: Ed25519PrivateKey) -> None:
    """Lay the public key beside the private one, for other stations to fetch."""
    if path.exists():
        return
    try:
        with written_beside(path) as partial:
            partial.write_bytes(_public_pem(_hexadecimal(key.public_key())))
    except OSError as error:
        raise _unwritable(path, error) from error


def _made_folder() -> Path:
    folder = key_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    _check_folder(folder)
    return folder


def _check_folder(folder: Path) -> None:
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o022:
        raise DepthcellError(
            f"keys {folder}: others can write there (mode {mode:04o}) and so could slip in a key; run: "
            f"chmod 700 {folder}"
        )


def _make_key(path: Path) -> None:
    """Write a new key; where several processes do so at once, all of them keep the first one's.

    The file gets its name by a hard link, which fails where there is one already, and not before it is whole.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(pem)
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(partial)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


def _read_public_key(path: Path) -> str:
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise DepthcellError(f"key {path}: cannot be read ({error.strerror})") from error
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise DepthcellError(f"key {path}: is no Ed25519 public key; take the other station's {PUBLIC_KEY}")
    return _hexadecimal(key)


def _hexadecimal(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def _public_pem(public_key: str) -> bytes:
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _unwritable(path: Path, error: OSError) -> DepthcellError:
    return DepthcellError(
        f"keys {path}: cannot be written ({error.strerror}); name a folder of your own in {HOME_VARIABLE}"
    )
