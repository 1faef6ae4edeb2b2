"""What a person at a terminal sees of verdicts: a run as a table, the controller's side line by line."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from depthcell.inspect.listener import Event, MessageRefused, VerdictHeard, VerdictsLost
from depthcell.inspect.publisher import Delivery
from depthcell.inspect.report import total_ms
from depthcell.inspect.verdict import Decision, Verdict

PLAIN_WIDTH = 110
"""Columns to fill where the output is no terminal, as in a log."""

COLORS = {Decision.OK: "green", Decision.NOK: "red", Decision.CANNOT_TELL: "yellow"}


def wide_console() -> Console:
    """Standard output, in a log as wide as the tables want it."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


def decision_text(decision: Decision) -> Text:
    """The decision in its colour."""
    return Text(decision.value, style=f"bold {COLORS[decision]}")


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """One row per part: verdict, first reason, time."""
    table = Table(title=tally(verdicts), title_justify="left")
    for header in ("#", "part", "verdict", "why", "ms"):
        table.add_column(header, justify="right" if header in {"#", "ms"} else "left")
    for verdict in verdicts:
        more = len(verdict.reasons) - 1
        table.add_row(
            str(verdict.sequence),
            verdict.part_id,
            decision_text(verdict.verdict),
            Text(verdict.reasons[0] + (f" (and {more} more)" if more else "")),
            f"{total_ms(verdict):.0f}",
        )
    return table


def tally(verdicts: Sequence[Verdict]) -> str:
    """How many parts there were, and how many of each decision."""
    counts = Counter(verdict.verdict for verdict in verdicts)
    return f"{len(verdicts)} parts: " + ", ".join(f"{counts[decision]} {decision.value}" for decision in Decision)


def delivery_in_words(delivery: Delivery, endpoint: str) -> str:
    """Who got the verdicts of a run."""
    if not delivery.confirmed:
        return f"{endpoint}: no listener confirmed any of the {delivery.count} verdicts"
    confirmed = (f"{name} confirmed {received} of {delivery.count}" for name, received in delivery.confirmed.items())
    return f"{endpoint}: " + "; ".join(confirmed)


class Hearing:
    """Prints what a listener hears, and keeps count.

    With `as_json`, verdicts go to standard output byte for byte as they came and all else to standard error.

    Attributes:
        heard_anything: a publisher was heard at all.
    """

    def __init__(self, *, as_json: bool, wanted: int | None) -> None:
        self.heard_anything = False
        self._as_json = as_json
        self._wanted = wanted
        self._heard = 0
        self._lost = 0
        self._refused = 0

    @property
    def is_whole(self) -> bool:
        """Whether all that was wanted came, and nothing was lost or refused."""
        return not (self._lost or self._refused) and self._heard >= (self._wanted or 0)

    def follow(self, events: Iterable[Event]) -> None:
        """Print events as they come, until as many verdicts as wanted came or were lost."""
        for event in events:
            self.heard_anything = True
            self._note(event)
            if self._as_json and isinstance(event, VerdictHeard):
                print(event.line.decode(), flush=True)
            else:
                print(event, file=sys.stderr if self._as_json else sys.stdout, flush=True)
            if self._wanted is not None and self._heard + self._lost >= self._wanted:
                return

    def _note(self, event: Event) -> None:
        if isinstance(event, VerdictHeard):
            self._heard += 1
        elif isinstance(event, VerdictsLost):
            self._lost += event.last - event.first + 1
        elif isinstance(event, MessageRefused):
            self._refused += 1
