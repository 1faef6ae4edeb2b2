"""A folder that a simulated run is written to: an earlier run makes way, what is not of a run is left alone."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from depthcell.errors import DepthcellError


@dataclass(frozen=True, slots=True)
class RunLayout:
    """What a run leaves in its folder.

    Attributes:
        kind: what people call it, such as "calibration run".
        mark: the file that says that there is a run.
        files: all files, the mark among them.
        folders: patterns of its folders' names, as `Path.glob` takes them.
    """

    kind: str
    mark: str
    files: tuple[str, ...]
    folders: tuple[str, ...]


def take_out(layout: RunLayout, out: Path, *, force: bool) -> None:
    """Make the folder `out`, and take an earlier run out of it; what else lies in it stays.

    Raises:
        DepthcellError: `out` cannot be made, or holds something and no earlier run, and `force` is not given.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DepthcellError(f"--out {out}: cannot be made ({error.strerror}); name another folder") from error
    if not any(out.iterdir()):
        return
    if not (out / layout.mark).is_file() and not force:
        message = f"--out {out}: is not empty and no earlier {layout.kind}; name another folder or add --force"
        raise DepthcellError(message)
    for pattern in layout.folders:
        for folder in out.glob(pattern):
            shutil.rmtree(folder, ignore_errors=True)
    for name in layout.files:
        (out / name).unlink(missing_ok=True)
