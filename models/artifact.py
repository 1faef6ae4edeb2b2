"""A trained model on disk: a folder of weights without code, its thresholds, its card, and who vouches for it.

    network.safetensors   weights of the network
    good.safetensors      what the judge by good parts alone remembers
    settings.json         architecture and every setting
    thresholds.json       decision: gate, thresholds, calibration
    card.json, card.md    what it is for, what it was trained on, how good it is, where it ends
    manifest.json         size and SHA-256 of each of these, and which views, recipe and cell it holds for
    manifest.sig          Ed25519 signature over manifest.json (`depthcell.calib.seal`, purpose "model")

Nothing is parsed before signature and hashes have been checked; what is parsed are the very bytes that were checked.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as parse_tensors
from safetensors.numpy import save as tensor_bytes

from depthcell.calib.seal import BrokenSealError, Seal, sign, verify
from depthcell.errors import DepthcellError, Reason

Tensors = dict[str, NDArray[Any]]

SCHEMA_VERSION: Final = 1
PURPOSE = "model"
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
TENSOR_FILES = ("network.safetensors", "good.safetensors")
JSON_FILES = ("settings.json", "thresholds.json", "card.json")
CARD_TEXT = "card.md"
LISTED = (*TENSOR_FILES, *JSON_FILES, CARD_TEXT)
PICKLED = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin")
"""Endings under which frameworks keep weights as pickles, which run code when they are read."""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What a model holds for, and nothing else.

    Attributes:
        views_sha256: `CanonicalViews.sha256`: part, nominal pose, cameras and image size.
        recipe_name, cell_name: as people call them.
        serials: of the cameras, in the order of the views.
    """

    views_sha256: str
    recipe_name: str
    cell_name: str
    serials: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ModelContent:
    """All that a model folder holds. Tensors by name; the rest as JSON.

    Attributes:
        identity: what it holds for.
        network, good: weights.
        settings, thresholds, card: contents of the JSON files of these names.
        card_text: the card for people, Markdown.
        created_at: ISO 8601 date and time with zone.
        depthcell_version: of the software that wrote it.
    """

    identity: ModelIdentity
    network: Tensors
    good: Tensors
    settings: dict[str, Any]
    thresholds: dict[str, Any]
    card: dict[str, Any]
    card_text: str
    created_at: str
    depthcell_version: str


class ListedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size in bytes and SHA-256, lower-case hexadecimal, of one file."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The signed list of a model's files, and what the model holds for; see `ModelIdentity`."""

    schema_version: Literal[1]
    views_sha256: str
    recipe_name: str
    cell_name: str
    serials: tuple[str, ...]
    created_at: str
    depthcell_version: str
    files: dict[str, ListedFile]


def save_model(folder: Path, content: ModelContent) -> Path:
    """Write a model folder, whole or not at all, sealed with this station's key; returns `folder`.

    A model that is there already is replaced.

    Raises:
        DepthcellError: `folder` holds something else than a model, can not be written, a tensor is not finite, or the
            station has no usable key (see `seal.sign`).
    """
    _refuse_foreign_folder(folder)
    files = _file_bytes(content)
    listed = {name: ListedFile(len(data), _sha256(data)) for name, data in files.items()}
    identity = asdict(content.identity)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        created_at=content.created_at,
        depthcell_version=content.depthcell_version,
        files=listed,
        **identity,
    )
    files[MANIFEST] = _json_bytes(msgspec.to_builtins(manifest))
    files[SIGNATURE] = _json_bytes(asdict(sign(PURPOSE, files[MANIFEST])))
    try:
        _write_whole(folder, files)
    except OSError as error:
        raise DepthcellError(
            f"model {folder}: cannot be written ({error.strerror}); name another folder, or make room"
        ) from error
    return folder


def load_model(folder: Path) -> ModelContent:
    """Read a model folder after checking its signature, its list of files, and every byte of them.

    Raises:
        DepthcellError: it is no model folder, nobody trusted vouches for it, a file is missing, too many, cut short or
            changed, weights are pickled, or it follows another schema. The message names the file and what to do.
    """
    refuse_pickled(folder)
    if not folder.is_dir():
        _refuse(folder, "no such folder; name the folder that `depthcell train --out` wrote")
    manifest = _signed_manifest(folder)
    _refuse_other_files(folder, manifest)
    data = {name: _checked_bytes(folder / name, listed) for name, listed in manifest.files.items()}
    network, good = (_parsed_tensors(folder / name, data[name]) for name in TENSOR_FILES)
    settings, thresholds, card = (_parsed_object(folder / name, data[name]) for name in JSON_FILES)
    return ModelContent(
        identity=ModelIdentity(
            manifest.views_sha256, manifest.recipe_name, manifest.cell_name, tuple(manifest.serials)
        ),
        network=network,
        good=good,
        settings=settings,
        thresholds=thresholds,
        card=card,
        card_text=data[CARD_TEXT].decode("utf-8"),
        created_at=manifest.created_at,
        depthcell_version=manifest.depthcell_version,
    )


def refuse_pickled(path: Path) -> None:
    """Raise DepthcellError if `path` is named as weights that are kept as a pickle."""
    if path.suffix.lower() in PICKLED:
        _refuse(path, "pickled weights are refused, since reading them runs code; export as safetensors")


def refuse_other_identity(identity: ModelIdentity, wanted: ModelIdentity, folder: Path) -> None:
    """Raise DepthcellError if a model was not made for these views, this recipe and these cameras."""
    if identity.recipe_name != wanted.recipe_name:
        _refuse(
            folder, f"was trained for recipe {identity.recipe_name!r}, not {wanted.recipe_name!r}; name its own recipe"
        )
    if identity.serials != wanted.serials:
        ours, theirs = ", ".join(wanted.serials), ", ".join(identity.serials)
        _refuse(folder, f"was trained for cameras {theirs}, the cell has {ours}; train a model for this cell")
    if identity.views_sha256 != wanted.views_sha256:
        _refuse(
            folder,
            "was trained for another reference, nominal pose, calibration or image size than recipe and cell give now; "
            "train it anew",
        )


def tensors_sha256(tensors: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of named tensors, whatever their order."""
    return _sha256(tensor_bytes({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}))


def _file_bytes(content: ModelContent) -> dict[str, bytes]:
    for name, tensors in zip(TENSOR_FILES, (content.network, content.good), strict=True):
        for tensor, values in tensors.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise DepthcellError(f"model: {name}: {tensor} holds a value that is not finite; train anew")
    objects = (content.settings, content.thresholds, content.card)
    return {
        TENSOR_FILES[0]: _tensor_file(content.network),
        TENSOR_FILES[1]: _tensor_file(content.good),
        **{name: _json_bytes(value) for name, value in zip(JSON_FILES, objects, strict=True)},
        CARD_TEXT: content.card_text.encode("utf-8"),
    }


def _tensor_file(tensors: Tensors) -> bytes:
    return tensor_bytes({name: np.ascontiguousarray(value) for name, value in tensors.items()})


def _json_bytes(value: Any) -> bytes:
    try:
        return (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode("utf-8")
    except (TypeError, ValueError) as error:
        raise DepthcellError(f"model: a setting or figure is no JSON value ({error})") from error


def _refuse_foreign_folder(folder: Path) -> None:
    refuse_pickled(folder)
    if folder.exists() and not folder.is_dir():
        _refuse(folder, "is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        _refuse(folder, "holds other things than a model; name a new folder")


def _write_whole(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write beside, flush, and rename; an earlier model is moved aside and removed once the new one has its name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    earlier = folder.with_name(f".{folder.name}.{os.getpid()}.earlier")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir()
        for name, data in files.items():
            with (beside / name).open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        if folder.is_dir():
            folder.rename(earlier)
        beside.rename(folder)
    except OSError:
        if earlier.is_dir() and not folder.exists():
            earlier.rename(folder)
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(earlier, ignore_errors=True)


def _signed_manifest(folder: Path) -> Manifest:
    manifest_bytes = _read(folder / MANIFEST)
    signature_path = folder / SIGNATURE
    try:
        seal = msgspec.json.decode(_read(signature_path), type=Seal)
    except msgspec.MsgspecError as error:
        _refuse(signature_path, f"is no signature ({error}); copy the model anew", error)
    try:
        verify(seal, PURPOSE, manifest_bytes)
    except BrokenSealError as error:
        _refuse(
            folder / MANIFEST, "does not fit its signature: it was changed; copy the model anew, or train it", error
        )
    except DepthcellError as error:
        _refuse(folder, str(error), error)
    _refuse_other_schema(folder / MANIFEST, manifest_bytes)
    try:
        return msgspec.json.decode(manifest_bytes, type=Manifest)
    except msgspec.MsgspecError as error:
        _refuse(folder / MANIFEST, f"{error}; train the model anew", error)


def _refuse_other_schema(path: Path, manifest_bytes: bytes) -> None:
    version = _parsed_object(path, manifest_bytes).get("schema_version")
    if version != SCHEMA_VERSION:
        _refuse(
            path,
            f"schema_version: is {version!r}, this depthcell reads {SCHEMA_VERSION}; "
            "train the model anew, or use the depthcell that wrote it",
        )


def _refuse_other_files(folder: Path, manifest: Manifest) -> None:
    if set(manifest.files) != set(LISTED):
        _refuse(folder / MANIFEST, f"files: needs {', '.join(LISTED)}; train the model anew")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    wanted = {*LISTED, MANIFEST, SIGNATURE}
    for name in sorted(found - wanted):
        refuse_pickled(folder / name)
        _refuse(folder / name, "does not belong to the model, nobody vouches for it; remove it")
    for name in sorted(wanted - found):
        _refuse(folder / name, "is missing; copy the model anew")


def _checked_bytes(path: Path, listed: ListedFile) -> bytes:
    data = _read(path)
    if len(data) < listed.size:
        _refuse(path, f"is cut short, {len(data)} of {listed.size} bytes; copy the model anew")
    if len(data) != listed.size or _sha256(data) != listed.sha256:
        _refuse(path, "was changed since it was signed; copy the model anew, or train it")
    return data


def _parsed_tensors(path: Path, data: bytes) -> Tensors:
    try:
        return parse_tensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        _refuse(path, f"is no safetensors file ({error}); export the weights as safetensors", error)


def _parsed_object(path: Path, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        _refuse(path, f"is no JSON ({error}); train the model anew", error)
    if not isinstance(value, dict):
        _refuse(path, "is no JSON object; train the model anew")
    return value


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        _refuse(path, "is missing; name the folder that `depthcell train --out` wrote, whole", error)
    except OSError as error:
        _refuse(path, f"cannot be read ({error.strerror})", error)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _refuse(path: Path, why: str, cause: Exception | None = None) -> NoReturn:
    raise DepthcellError(f"model {path}: {why}", Reason.MODEL_INVALID) from cause
