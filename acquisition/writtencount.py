"""How many images of a recording are on disk while it is being written, asked of a process of its own.

It must be another process: SQLite's locks belong to a process, and closing a second connection to the file within the
recording process would release the locks that the SDK's connection holds.
"""

import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from depthcell.errors import DepthcellError, Reason

NEW_IMAGES = """
SELECT count(*) FROM messages m JOIN topics t ON m.topic_id = t.id
WHERE t.name LIKE '%/image/data%' AND m.id > ? AND m.id <= ?
"""


class WrittenCount:
    """Asks the other process. A context manager; the process ends with it, and with this one however that ends."""

    def __enter__(self) -> Self:
        # In a session of its own, so that Ctrl-C reaches only the recorder, which then ends this one.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "depthcell.acquisition.writtencount"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()

    def of(self, path: Path) -> int:
        """Images in `path` on disk so far, also those still in its write-ahead log.

        Raises:
            DepthcellError: the other process has ended.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101 - both are pipes, opened above; tells the type checker
        assert stdout is not None  # noqa: S101
        try:
            stdin.write(f"{path}\n")
            stdin.flush()
            return int(stdout.readline())
        except (OSError, ValueError) as error:
            message = "the process that counts written frames has ended; see what killed it, and record again"
            raise DepthcellError(message, Reason.OVERLOAD) from error


@dataclass(slots=True)
class _Counted:
    """The rows of one recording that were counted: up to `row`, `images` of them."""

    row: int = 0
    images: int = 0

    def update(self, path: Path) -> int:
        log = path.with_name(path.name + "-wal")
        # Before the recorder's first row a reader would have to build the log's index, and would lock the recorder out.
        if not (log.exists() and log.stat().st_size):
            return self.images
        try:
            database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
            try:
                latest = database.execute("SELECT max(id) FROM messages").fetchone()[0] or 0
                self.images += database.execute(NEW_IMAGES, (self.row, latest)).fetchone()[0]
                self.row = latest
            finally:
                database.close()
        except sqlite3.OperationalError:
            # Locked for an instant, as when the log is started anew: the count stands until asked again.
            pass
        return self.images


def main() -> None:
    """Answer each path on standard input with the number of its images."""
    counted: dict[str, _Counted] = {}
    for line in sys.stdin:
        path = line.rstrip("\n")
        print(counted.setdefault(path, _Counted()).update(Path(path)), flush=True)


if __name__ == "__main__":
    main()
