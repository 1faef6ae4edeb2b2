"""What a person sees while a model trains: a bar for each stage, and notes that stay."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from depthcell.acquisition.simulator.defects import DefectKind
from depthcell.errors import DepthcellError


def kinds_of(words: Sequence[str]) -> tuple[DefectKind, ...]:
    """Kinds of defects from what a person wrote.

    Raises:
        DepthcellError: there is no such kind; the message lists them.
    """
    known = {str(kind): kind for kind in DefectKind}
    for word in words:
        if word not in known:
            raise DepthcellError(f"--held-out {word}: no such kind of defect; there are {', '.join(known)}")
    return tuple(known[word] for word in words)


class TrainScreen:
    """Bars and notes on a console; notes alone where it is no terminal."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._console = console
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("begin", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, what: str, total: int) -> None:
        """A new stage of so many steps begins."""
        self._progress.remove_task(self._task)
        self._task = self._progress.add_task(what, total=total)

    def advance(self) -> None:
        """One step of the stage is done."""
        self._progress.advance(self._task)

    def say(self, what: str) -> None:
        """Something a person should know."""
        self._console.print(what, markup=False)
