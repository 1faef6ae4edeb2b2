"""Where a training stood, on disk, so that it goes on after a kill as if nothing had happened. No pickle.

    checkpoint.safetensors   weights, best weights, state of the optimiser
    checkpoint.json          step, validation figures so far, what the training rests on, SHA-256 of the tensors

The tensors are written first, under the step's number; the JSON, which names them, replaces the former one at once.
"""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as parse_tensors
from safetensors.numpy import save as tensor_bytes

from depthcell.errors import DepthcellError
from depthcell.files import write_text, written_beside

FILE = "checkpoint.json"
Tensors = dict[str, NDArray[Any]]


class Look(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One look at the validation parts: at which step, loss, AUROC of parts."""

    step: int
    loss: float
    auroc: float


class Progress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a training came.

    Attributes:
        step: steps that were taken.
        looks: at the validation parts so far.
        rests_on: SHA-256 of settings and parts; a training with others does not go on from here.
        seconds: spent so far.
        tensors: file of the weights beside, and its SHA-256.
    """

    step: int
    looks: tuple[Look, ...]
    rests_on: str
    seconds: float
    tensors: str = ""
    sha256: str = ""


def save_checkpoint(folder: Path, progress: Progress, tensors: Tensors) -> None:
    """Write a checkpoint whole, then remove the former one."""
    data = tensor_bytes({name: np.ascontiguousarray(values) for name, values in tensors.items()})
    name = f"checkpoint_{progress.step:06d}.safetensors"
    with written_beside(folder / name) as partial:
        partial.write_bytes(data)
    whole = msgspec.structs.replace(progress, tensors=name, sha256=hashlib.sha256(data).hexdigest())
    write_text(folder / FILE, msgspec.json.encode(whole).decode() + "\n")
    for other in folder.glob("checkpoint_*.safetensors"):
        if other.name != name:
            other.unlink()


def load_checkpoint(folder: Path, rests_on: str) -> tuple[Progress, Tensors] | None:
    """Read where a training stood; None where it never began.

    Raises:
        DepthcellError: a file is damaged, or the training was of other parts or settings.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    advice = f"remove {folder} and train from the beginning"
    try:
        progress = msgspec.json.decode(path.read_bytes(), type=Progress)
        data = (folder / progress.tensors).read_bytes()
    except (OSError, msgspec.MsgspecError) as error:
        raise DepthcellError(f"checkpoint {path}: is damaged ({error}); {advice}") from error
    if hashlib.sha256(data).hexdigest() != progress.sha256:
        raise DepthcellError(f"checkpoint {folder / progress.tensors}: is cut short or changed; {advice}")
    if progress.rests_on != rests_on:
        raise DepthcellError(f"checkpoint {path}: is of other parts or settings; {advice}, or take the same ones again")
    return progress, parse_tensors(data)
