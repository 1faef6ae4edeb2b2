"""Parts as a network takes them, on disk: one file a part, and an index that says what each is and what they hold for.

    index.json                  identity of the views, and of every part its name, whether it is good, its hashes
    parts/<part_id>.safetensors the part; of its images only the pixels that hold something

Splits are by part: all that was recorded of one part is on one side.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as parse_tensors
from safetensors.numpy import save as tensor_bytes

from depthcell.errors import DepthcellError
from depthcell.files import write_text, written_beside
from depthcell.models.artifact import ModelIdentity
from depthcell.models.network.partinput import CLASSES, Labels, PartInput

INDEX, FOLDER, SUFFIX = "index.json", "parts", ".safetensors"
SHARES = (0.7, 0.3, 0.0)
"""Of parts for training, validation and test."""

Tensors = dict[str, NDArray[Any]]


def save_part(path: Path, part: PartInput) -> str:
    """Write one part, whole or not at all; nothing is lost. Returns the SHA-256 of the file.

    Of the images only pixels are kept at which any channel is not 0.
    """
    kept = part.images.any(axis=1)
    tensors: Tensors = {
        "shape": np.array(part.images.shape, np.int64),
        "kept": np.packbits(kept),
        "values": np.ascontiguousarray(np.moveaxis(part.images, 1, -1)[kept]),
        "points_part": part.points_part,
        "features": part.features,
        "neighbours": part.neighbours,
        "pixel": part.pixel,
    }
    if part.labels is not None:
        tensors |= {"label_pixels": part.labels.pixels, "label_points": part.labels.points}
    # One entry: safetensors writes several in an order of its own each time, and the same part should be the same file.
    about = json.dumps({"part_id": part.part_id, "serials": part.serials})
    data = tensor_bytes({name: np.ascontiguousarray(value) for name, value in tensors.items()}, {"part": about})
    with written_beside(path) as partial:
        partial.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def load_part(path: Path, sha256: str | None = None) -> PartInput:
    """Read one part.

    Args:
        path: the file.
        sha256: that it must have; None for any.

    Raises:
        DepthcellError: it is missing, truncated, changed, or no part.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DepthcellError(f"part {path}: cannot be read ({error.strerror}); write the store again") from error
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise DepthcellError(f"part {path}: is not what the index lists; write the store again")
    try:
        tensors = parse_tensors(data)
        about = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["part"])
        shape = tuple(int(size) for size in tensors["shape"])
        views, channels, side = shape[:3]
        kept = np.unpackbits(tensors["kept"], count=views * side * side).astype(np.bool_)
        images = np.zeros((views, channels, side * side), np.float32)
        view, pixel = np.divmod(np.flatnonzero(kept), side * side)
        images[view, :, pixel] = tensors["values"]
        labels = None
        if "label_pixels" in tensors:
            labels = Labels(tensors["label_pixels"], tensors["label_points"])
        others = {name: tensors[name] for name in ("points_part", "features", "neighbours", "pixel")}
        serials = tuple(str(serial) for serial in about["serials"])
        return PartInput(str(about["part_id"]), serials, images.reshape(shape), labels=labels, **others)
    except (SafetensorError, KeyError, ValueError, TypeError, IndexError) as error:
        raise DepthcellError(f"part {path}: is truncated or no part ({error}); write the store again") from error


def content_sha256(part: PartInput) -> str:
    """Of what was measured, whatever the part is called and however it is labelled."""
    digest = hashlib.sha256()
    for array in (part.images, part.points_part, part.features):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class StoredPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One part of a store.

    Attributes:
        part_id: its name.
        good: whether it has no defect.
        labelled: whether the file says where its defects are.
        classes: of its defects, names of `CLASSES`; empty where nobody knows.
        content_sha256: of what was measured.
        file_sha256: of its file.
        recording_sha256: of what it was made from; empty where nobody knows.
    """

    part_id: str
    good: bool
    labelled: bool
    classes: tuple[str, ...]
    content_sha256: str
    file_sha256: str
    recording_sha256: str = ""


class _Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema_version: Literal[1]
    views_sha256: str
    recipe_name: str
    cell_name: str
    serials: tuple[str, ...]
    side_px: int
    parts: tuple[StoredPart, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """Names of parts; none is on two sides."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        counts = Counter((*self.train, *self.validation, *self.test))
        if twice := sorted(name for name, count in counts.items() if count > 1):
            raise DepthcellError(f"split: part {twice[0]} is named twice; a part belongs to one side")


class PartStore:
    """A folder of parts for one recipe in one cell.

    Attributes:
        folder: where it lies.
        identity: what its parts hold for.
        side_px: of their images.
        parts: what is in it, in the order of their names.
    """

    def __init__(self, folder: Path, identity: ModelIdentity, side_px: int, parts: Iterable[StoredPart] = ()) -> None:
        """Begin an empty store, or hold one that was read; `add` and `open` write and read files."""
        self.folder = folder
        self.identity = identity
        self.side_px = side_px
        self._parts = {part.part_id: part for part in parts}

    @classmethod
    def open(cls, folder: Path, identity: ModelIdentity | None = None) -> "PartStore":
        """Read the index of a store.

        Args:
            folder: of the store.
            identity: that it must have; None for any.

        Raises:
            DepthcellError: there is no store, its index is damaged, it is of other views, or holds a part twice.
        """
        path = folder / INDEX
        try:
            index = msgspec.json.decode(path.read_bytes(), type=_Index)
        except OSError as error:
            raise DepthcellError(f"{path}: cannot be read ({error.strerror}); name a folder of parts") from error
        except msgspec.MsgspecError as error:
            raise DepthcellError(f"{path}: {error}; write the store again") from error
        found = ModelIdentity(index.views_sha256, index.recipe_name, index.cell_name, index.serials)
        if identity is not None:
            _check_identity(found, identity, str(path))
        _refuse_twice(index.parts, str(path))
        return cls(folder, found, index.side_px, index.parts)

    @property
    def parts(self) -> tuple[StoredPart, ...]:
        """What is in it."""
        return tuple(self._parts[name] for name in sorted(self._parts))

    def get(self, part_id: str) -> StoredPart | None:
        """What the index says of a part; None where it is not listed."""
        return self._parts.get(part_id)

    def add(self, part: PartInput, *, good: bool, recording_sha256: str = "") -> StoredPart:
        """Write a part and list it.

        Raises:
            DepthcellError: a part of this name or content is there already, it is of other cameras or another size, or
                its labels contradict `good`.
        """
        labelled, classes = part.labels is not None, _class_names(part)
        stored = StoredPart(part.part_id, good, labelled, classes, content_sha256(part), "", recording_sha256)
        self._check_fit(part)
        _check_labels(part, good)
        _refuse_twice((*self._parts.values(), stored), str(self.folder))
        file_sha256 = save_part(self._path(part.part_id), part)
        stored = msgspec.structs.replace(stored, file_sha256=file_sha256)
        self._parts[part.part_id] = stored
        self._write_index()
        return stored

    def load(self, part_id: str) -> PartInput:
        """Read one part.

        Raises:
            DepthcellError: it is not listed, its file was changed, or does not say what the index says.
        """
        stored = self._parts.get(part_id)
        if stored is None:
            raise DepthcellError(f"{self.folder}: has no part {part_id}")
        part = load_part(self._path(part_id), stored.file_sha256)
        if part.part_id != part_id:
            raise DepthcellError(f"part {self._path(part_id)}: calls itself {part.part_id}; write the store again")
        self._check_fit(part)
        _check_labels(part, stored.good)
        return part

    def load_all(self, part_ids: Iterable[str]) -> Iterator[PartInput]:
        """One after the other; see `load`."""
        return (self.load(part_id) for part_id in part_ids)

    def split(self, seed: int, shares: tuple[float, float, float] = SHARES) -> Split:
        """Parts for training, validation and test: good and defective parts each in these shares, as `seed` draws.

        Raises:
            DepthcellError: the shares are not three of a whole, no part is good, or a share that is not 0 gets no
                good part.
        """
        if min(shares) < 0 or not math.isclose(sum(shares), 1.0):
            raise DepthcellError(f"split: shares {shares} must be 0 or more and make 1")
        if not any(part.good for part in self._parts.values()):
            raise DepthcellError(f"{self.folder}: no part is good; a model learns from good parts, add some")
        rng = np.random.default_rng(seed)
        sides: tuple[list[str], ...] = ([], [], [])
        for good in (True, False):
            names = [part.part_id for part in self.parts if part.good is good]
            ends = np.rint(np.cumsum((0.0, *shares)) * len(names)).astype(int)
            drawn = [names[place] for place in rng.permutation(len(names))]
            for side, share, start, end in zip(sides, shares, ends[:-1], ends[1:], strict=True):
                if good and share and start == end:
                    raise DepthcellError(f"{self.folder}: {len(names)} good parts are too few for {shares}; add some")
                side.extend(drawn[start:end])
        return Split(*(tuple(sorted(side)) for side in sides))

    def require(self, classes: Iterable[str]) -> None:
        """Refuse to go on without examples.

        Args:
            classes: names of `CLASSES`.

        Raises:
            DepthcellError: no part is of one of them; the message names it.
        """
        there = {name for part in self._parts.values() for name in part.classes}
        there |= {CLASSES[0]} if any(part.good for part in self._parts.values()) else set()
        for name in classes:
            if name not in there:
                raise DepthcellError(f"{self.folder}: no part is of class {name}; add some, or leave the class out")

    def refuse_shared(self, other: "PartStore") -> None:
        """Refuse another store, such as one to test on, that holds a part of this one, under whatever name.

        Raises:
            DepthcellError: it does; the message names both.
        """
        mine = {part.content_sha256: part.part_id for part in self.parts}
        for part in other.parts:
            if part.content_sha256 in mine:
                raise DepthcellError(
                    f"{other.folder}: part {part.part_id} is part {mine[part.content_sha256]} of {self.folder}; a part "
                    f"that was trained on cannot test, leave it out of one of them"
                )

    def _path(self, part_id: str) -> Path:
        if part_id != Path(part_id).name or part_id.startswith("."):
            raise DepthcellError(f"part '{part_id}': cannot be the name of a file; rename it")
        return self.folder / FOLDER / f"{part_id}{SUFFIX}"

    def _check_fit(self, part: PartInput) -> None:
        side = part.images.shape[-1]
        if part.serials != self.identity.serials or side != self.side_px:
            raise DepthcellError(
                f"part {part.part_id}: has {side} px views of {', '.join(part.serials)}, {self.folder} holds "
                f"{self.side_px} px of {', '.join(self.identity.serials)}; make it with the same recipe and cell"
            )

    def _write_index(self) -> None:
        identity = self.identity
        index = _Index(
            1,
            identity.views_sha256,
            identity.recipe_name,
            identity.cell_name,
            identity.serials,
            self.side_px,
            self.parts,
        )
        write_text(self.folder / INDEX, msgspec.json.format(msgspec.json.encode(index), indent=1).decode() + "\n")


def _class_names(part: PartInput) -> tuple[str, ...]:
    if part.labels is None:
        return ()
    numbers = np.union1d(part.labels.pixels, part.labels.points)
    if numbers.size and numbers[-1] >= len(CLASSES):
        raise DepthcellError(f"part {part.part_id}: label {numbers[-1]} is no class; the last is {len(CLASSES) - 1}")
    return tuple(CLASSES[number] for number in numbers if number)


def _check_labels(part: PartInput, good: bool) -> None:
    if part.labels is None:
        return
    if good and part.labels.is_defect:
        named = ", ".join(_class_names(part))
        raise DepthcellError(f"part {part.part_id}: is said to be good, but its labels mark {named}; correct either")
    if not good and not part.labels.is_defect:
        raise DepthcellError(
            f"part {part.part_id}: is said to be defective, but its labels mark nothing; mark the defect, or leave the "
            f"labels out"
        )


def _check_identity(found: ModelIdentity, wanted: ModelIdentity, where: str) -> None:
    for name in ("recipe_name", "cell_name", "serials", "views_sha256"):
        has, needs = getattr(found, name), getattr(wanted, name)
        if has != needs:
            raise DepthcellError(
                f"{where}: {name} is {has}, needed is {needs}; make the parts again with this recipe and cell"
            )


def _refuse_twice(parts: Iterable[StoredPart], where: str) -> None:
    """One name twice, or one content under two names."""
    names: set[str] = set()
    contents: dict[str, str] = {}
    for part in parts:
        if part.part_id in names:
            raise DepthcellError(f"{where}: part {part.part_id} is there twice; leave one out")
        if part.content_sha256 in contents:
            other = contents[part.content_sha256]
            raise DepthcellError(f"{where}: parts {other} and {part.part_id} hold the same; leave one out")
        names.add(part.part_id)
        contents[part.content_sha256] = part.part_id
