"""The folder that a run leaves behind: its verdicts, the configuration they were drawn with, and the report."""

import errno
import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Self

from depthcell import __version__
from depthcell.acquisition.partfolder import INSPECTIONS_FOLDER
from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError, Reason
from depthcell.files import write_text
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.report import ReportedPart, RunFacts, render_report
from depthcell.inspect.verdict import Verdict, to_json

LIBRARIES = ("numpy", "scipy", "opencv-python-headless", "open3d", "pyrealsense2", "rosbags", "pyzmq")

VERDICTS = "verdicts.jsonl"
REPORT = "report.html"


class RunFolder:
    """Collects one run. Each verdict is on disk when `append` returns; the report is written at the end.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._verdicts = (path / VERDICTS).open("xb")

    @classmethod
    def create(cls, source: Path, out: Path | None, now: datetime) -> Self:
        """Make a new folder: `out`, or one named after the time in `inspections` beside the parts.

        Raises:
            DepthcellError: `out` is a file or holds something already, or cannot be written.
        """
        try:
            return cls(_new_folder(source, now) if out is None else _given_folder(out))
        except OSError as error:
            raise _cannot_write(out or source, error) from error

    def write_configuration(self, recipe: Recipe, cell: Cell, **circumstances: object) -> None:
        """Keep what the verdicts were drawn with: recipe and cell in full, software, and how the run was called."""
        write_text(self.path / "recipe.json", recipe.to_json())
        cell.save(self.path / "cell.json")
        content = {"software": software_versions(), **circumstances}
        write_text(self.path / "run.json", json.dumps(content, indent=2, default=str) + "\n")

    def append(self, verdict: Verdict) -> None:
        """Add a verdict to `verdicts.jsonl` and force it to disk.

        Raises:
            DepthcellError: (`DISK_FULL`, or `BAD_INPUT` for any other reason) it could not be written.
        """
        try:
            self._verdicts.write(to_json(verdict) + b"\n")
            self._verdicts.flush()
            os.fsync(self._verdicts.fileno())
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def write_report(self, facts: RunFacts, parts: Sequence[ReportedPart]) -> Path:
        """Write the report and return its path."""
        path = self.path / REPORT
        write_text(path, render_report(facts, parts))
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._verdicts.close()


def software_versions() -> dict[str, str]:
    """Versions of what had a part in the verdicts."""
    versions = {"depthcell": __version__, "python": platform.python_version(), "system": platform.platform()}
    return versions | {name: metadata.version(name) for name in LIBRARIES}


def _cannot_write(place: Path, error: OSError) -> DepthcellError:
    reason = Reason.DISK_FULL if error.errno == errno.ENOSPC else Reason.BAD_INPUT
    return DepthcellError(f"{place}: cannot be written ({error.strerror}); name another folder with --out", reason)


def _given_folder(out: Path) -> Path:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DepthcellError(f"--out {out}: exists already and is kept as it is; name a new folder")
    out.mkdir(parents=True, exist_ok=True)
    return out


def _new_folder(source: Path, now: datetime) -> Path:
    parent = (source if source.is_dir() else source.parent) / INSPECTIONS_FOLDER
    name = f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    for attempt in range(1, 1000):
        path = parent / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue  # another run began in the same second
        return path
    raise DepthcellError(f"{parent}: a thousand runs began in this second; name a folder with --out")
