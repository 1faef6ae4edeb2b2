"""Hears verdicts as a line controller must: each once, in order, checked; loss and silence are said, not guessed."""

import os
import secrets
import socket as network
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import msgspec
import zmq

from depthcell.inspect.verdict import Decision, Verdict, digest_of, from_json
from depthcell.inspect.wire import (
    SILENCE_S,
    TOPIC_END,
    TOPIC_HEARTBEAT,
    TOPIC_RESEND,
    TOPIC_VERDICT,
    End,
    Endpoint,
    Heartbeat,
    Receipt,
)

REPAIR_S = 2.0
"""A gap that was not filled for so long after asking counts as lost."""

ASK_AGAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class VerdictHeard:
    """A verdict whose schema and digest are right; `line` is its JSON as it came."""

    verdict: Verdict
    line: bytes

    def __str__(self) -> str:
        # Only a good OK lets a part pass.
        verdict = self.verdict
        action = "ACCEPT" if verdict.verdict is Decision.OK else "REJECT"
        return f"{action}  #{verdict.sequence}  {verdict.part_id}  {verdict.verdict.value}: {verdict.reasons[0]}"


@dataclass(frozen=True, slots=True)
class VerdictsLost:
    """Verdicts `first` to `last` never came: those parts must be rejected."""

    first: int
    last: int

    def __str__(self) -> str:
        upto = f" to #{self.last}" if self.last > self.first else ""
        return f"REJECT  #{self.first}{upto}: lost on the way"


@dataclass(frozen=True, slots=True)
class MessageRefused:
    """A message broke the contract and was not used."""

    why: str

    def __str__(self) -> str:
        return f"REFUSED  a message that breaks the contract: {self.why}"


@dataclass(frozen=True, slots=True)
class PublisherSilent:
    """Nothing came for `silence_s`: whatever passes now must be rejected."""

    silence_s: float

    def __str__(self) -> str:
        return f"REJECT  whatever passes now: nothing heard for {self.silence_s:.1f} s"


@dataclass(frozen=True, slots=True)
class PublisherBack:
    """The publisher is heard again."""

    def __str__(self) -> str:
        return "the publisher is heard again"


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run of this name was heard for the first time."""

    run: str

    def __str__(self) -> str:
        return f"run {self.run} begins"


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over and everything it sent was heard or reported lost."""

    count: int
    complete: bool

    def __str__(self) -> str:
        return f"run is over: {self.count} verdicts" + ("" if self.complete else ", cut short")


Event = VerdictHeard | VerdictsLost | MessageRefused | PublisherSilent | PublisherBack | RunStarted | RunEnded


@dataclass(slots=True)
class Inbox:
    """Puts what comes off the wire into order. Knows no socket and no clock: both are told to it.

    Attributes:
        listener: this listener's name in its receipts.
        run: the run now heard, empty before the first.
        received: every verdict of the run up to this number was handed on or reported lost.
    """

    listener: str
    run: str = ""
    received: int = 0
    _newest: int = 0
    _waiting: dict[int, VerdictHeard] = field(default_factory=dict)
    _end: End | None = None
    _is_over: bool = True
    _is_silent: bool = False
    _heard_s: float = 0.0
    _gap_since_s: float | None = None
    _asked_s: float = -1.0

    def take(self, frames: list[bytes], now_s: float) -> list[Event]:
        """What follows from one message that came at `now_s`."""
        if len(frames) != 3:
            return [MessageRefused(f"a message of {len(frames)} frames, not topic, run, body")]
        topic, run, body = frames
        try:
            content = _decoded(topic, body)
        except (msgspec.MsgspecError, ValueError) as error:
            return [MessageRefused(f"{topic.decode(errors='replace')}: {error}")]
        events = self._follow(run.decode(errors="replace"))
        if self._is_silent:
            self._is_silent = False
            events.append(PublisherBack())
        self._heard_s = now_s
        self._note(content)
        return events + self._hand_on(now_s)

    def tick(self, now_s: float) -> list[Event]:
        """What follows from time having passed."""
        events = self._hand_on(now_s)
        if self._gap_since_s is not None and now_s - self._gap_since_s > REPAIR_S:
            events += self._give_up_gap(now_s)
        silence_s = now_s - self._heard_s
        if not self._is_over and not self._is_silent and silence_s > SILENCE_S:
            self._is_silent = True
            events.append(PublisherSilent(round(silence_s, 1)))
        return events

    def receipt(self, now_s: float) -> Receipt | None:
        """What to tell the publisher now: what is here, and whether something must be sent again."""
        if not self.run:
            return None
        resend = self._gap_since_s is not None and now_s - self._asked_s >= ASK_AGAIN_S
        if resend:
            self._asked_s = now_s
        return Receipt(self.listener, self.run, self.received, resend)

    def _follow(self, run: str) -> list[Event]:
        if run == self.run:
            return []
        events = self._settle()
        self.run, self.received, self._newest, self._end = run, 0, 0, None
        self._is_over, self._gap_since_s = False, None
        self._waiting.clear()
        return [*events, RunStarted(run)]

    def _note(self, content: VerdictHeard | Heartbeat | End) -> None:
        if isinstance(content, VerdictHeard):
            sequence = content.verdict.sequence
            self._newest = max(self._newest, sequence)
            if sequence > self.received:
                self._waiting.setdefault(sequence, content)
        elif isinstance(content, Heartbeat):
            self._newest = max(self._newest, content.sequence)
        else:
            self._newest, self._end = max(self._newest, content.count), content

    def _hand_on(self, now_s: float) -> list[Event]:
        """Verdicts that are next in line; then the end, once nothing is missing."""
        events: list[Event] = []
        while (heard := self._waiting.pop(self.received + 1, None)) is not None:
            self.received += 1
            events.append(heard)
        if self.received >= self._newest:
            self._gap_since_s = None
            if self._end is not None and not self._is_over:
                self._is_over = True
                events.append(RunEnded(self._end.count, self._end.complete))
        elif self._gap_since_s is None or events:
            self._gap_since_s = now_s
        return events

    def _give_up_gap(self, now_s: float) -> list[Event]:
        """Report what is missing before the next verdict that is here, and go on with that one."""
        first, last = self.received + 1, min(self._waiting, default=self._newest + 1) - 1
        self.received, self._gap_since_s = last, None
        return [VerdictsLost(first, last), *self._hand_on(now_s)]

    def _settle(self) -> list[Event]:
        """Close a run whose publisher is gone: what it still owed can no longer come."""
        events: list[Event] = []
        while self.received < self._newest:
            events += self._give_up_gap(0.0)
        if not self._is_over:
            events.append(RunEnded(self._newest, complete=False))
        return events


class VerdictListener:
    """Connects to a publisher and yields what a controller must know, as it happens."""

    def __init__(self, endpoint: Endpoint) -> None:
        name = f"{network.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self._inbox = Inbox(name)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XSUB)
        self._socket.setsockopt(zmq.IPV6, int(endpoint.host.startswith("[")))
        self._socket.setsockopt(zmq.LINGER, 500)
        self._socket.connect(str(endpoint))
        for topic in (TOPIC_RESEND + name.encode(), TOPIC_VERDICT, TOPIC_END, TOPIC_HEARTBEAT):
            self._socket.send(b"\x01" + topic)

    def events(self, timeout_s: float | None = None) -> Iterator[Event]:
        """Everything that happens, in order; ends after `timeout_s` without any message, else never."""
        heard_s = time.monotonic()
        while timeout_s is None or time.monotonic() - heard_s < timeout_s:
            events: list[Event] = []
            if self._socket.poll(100):
                frames, heard_s = self._socket.recv_multipart(), time.monotonic()
                events += self._inbox.take(frames, heard_s)
            now_s = time.monotonic()
            events += self._inbox.tick(now_s)
            receipt = self._inbox.receipt(now_s)
            if receipt is not None and (events or receipt.resend):
                self._socket.send(msgspec.json.encode(receipt))
            yield from events

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.destroy(linger=500)


def _decoded(topic: bytes, body: bytes) -> VerdictHeard | Heartbeat | End:
    if topic == TOPIC_HEARTBEAT:
        return msgspec.json.decode(body, type=Heartbeat)
    if topic == TOPIC_END:
        return msgspec.json.decode(body, type=End)
    if topic != TOPIC_VERDICT and not topic.startswith(TOPIC_RESEND):
        raise ValueError("no topic of this contract")
    verdict = from_json(body)
    if digest_of(verdict) != verdict.digest:
        raise ValueError(f"part '{verdict.part_id}': the digest does not fit the content")
    return VerdictHeard(verdict, body)
