"""Sends verdicts to every listener, says each second that it lives, and sends again what a listener missed.

ZeroMQ's publish/subscribe loses in silence: before a listener has joined, beyond the high-water mark, while a line is
down. So every verdict carries a sequence number, the newest number is repeated in each heartbeat, and a listener that
sees a gap asks for the rest through the same socket (XPUB hears what its subscribers say).
"""

import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

import msgspec
import zmq

from depthcell.inspect.verdict import Verdict, to_json
from depthcell.inspect.wire import (
    HEARTBEAT_S,
    TOPIC_END,
    TOPIC_HEARTBEAT,
    TOPIC_RESEND,
    TOPIC_VERDICT,
    End,
    Endpoint,
    Heartbeat,
    Receipt,
    transport_error,
)

HISTORY = 10_000
"""Verdicts kept for being sent again, about 30 MB."""

RESEND_AT_ONCE = 500
"""Sent again for one request; stays below the high-water mark. The listener asks for the rest."""

PATIENCE_S = 5.0
"""How long the end of a run waits for the receipts of known listeners."""

LINGER_MS = 2000


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a run's verdicts: how many there were, and up to which number each listener confirmed them."""

    count: int
    confirmed: dict[str, int] = field(default_factory=dict)

    @property
    def incomplete(self) -> tuple[str, ...]:
        """Listeners that did not confirm everything."""
        return tuple(name for name, received in self.confirmed.items() if received < self.count)


class Outlet(Protocol):
    """Where the verdicts of a run go. A context: leaving it says that the run is over, or was cut short."""

    @property
    def delivery(self) -> Delivery:
        """What became of the verdicts; known once the run is over."""
        ...

    def wait_for_listener(self, timeout_s: float) -> bool:
        """Wait until there is somebody to tell; False where nobody came in time."""
        ...

    def publish(self, verdict: Verdict) -> None:
        """Send one verdict; returns at once."""

    def close(self, *, complete: bool) -> None:
        """Say that the run is over, and wait for the receipts. A second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class NoOutlet:
    """Where nobody is to be told."""

    delivery = Delivery(0)

    def wait_for_listener(self, timeout_s: float) -> bool:  # noqa: ARG002 - stands in for VerdictPublisher
        """Nobody is waited for."""
        return True

    def publish(self, verdict: Verdict) -> None:
        """Do nothing."""

    def close(self, *, complete: bool) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing."""


class VerdictPublisher:
    """Publishes the verdicts of one run on a TCP endpoint.

    A thread of its own holds the socket, so that heartbeats and repairs go on while a part is being judged.

    Attributes:
        endpoint: the address in use, with the port that the system chose where "*" was asked for.
        run: this run's name on the wire.
        delivery: what became of the verdicts; known once the run is over.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._socket.setsockopt(zmq.IPV6, int(endpoint.host.startswith("[")))
        try:
            self._socket.bind(str(endpoint))
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise transport_error("--bind", endpoint, _told(error)) from error
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.run = secrets.token_hex(6)
        self._orders = self._context.socket(zmq.PAIR)
        self._orders.bind("inproc://orders")
        self._somebody_listens = threading.Event()
        self.delivery = Delivery(0)
        self._thread = threading.Thread(target=self._serve, name="verdict-publisher", daemon=True)
        self._thread.start()

    def wait_for_listener(self, timeout_s: float) -> bool:
        """Wait until the first listener has subscribed; False where none came in time."""
        return self._somebody_listens.wait(timeout_s)

    def publish(self, verdict: Verdict) -> None:
        """Send one verdict to all listeners; returns at once.

        Raises:
            DepthcellError: (`TRANSPORT`) the run is over, or the publisher's thread has failed.
        """
        if not self._thread.is_alive():
            raise transport_error("--bind", self.endpoint, "the publisher has stopped; no listener hears any more")
        self._orders.send_multipart([TOPIC_VERDICT, to_json(verdict)])

    def close(self, *, complete: bool) -> None:
        """Say that the run is over, and wait until known listeners have confirmed everything (at most 5 s).

        A second call does nothing.

        Args:
            complete: False where the run was cut short.
        """
        if self._thread.is_alive():
            self._orders.send_multipart([TOPIC_END, b"complete" if complete else b""])
            self._thread.join()
            self._context.destroy(linger=LINGER_MS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(complete=kind is None)

    def _serve(self) -> None:
        orders = self._context.socket(zmq.PAIR)
        orders.connect("inproc://orders")
        desk = _Desk(self._socket, self.run.encode())
        poller = zmq.Poller()
        poller.register(orders, zmq.POLLIN)
        poller.register(self._socket, zmq.POLLIN)
        while not desk.is_done(time.monotonic()):
            ready = dict(poller.poll(desk.pause_ms(time.monotonic())))
            if orders in ready:
                desk.obey(*orders.recv_multipart())
            if self._socket in ready:
                desk.hear(self._socket.recv())
                self._somebody_listens.set()
            desk.beat(time.monotonic())
        self.delivery = desk.delivery
        orders.close()


class _Desk:
    """What the publisher's thread knows and does."""

    def __init__(self, socket: zmq.Socket[bytes], run: bytes) -> None:
        self._socket = socket
        self._run = run
        self._count = 0
        self._history: deque[bytes] = deque(maxlen=HISTORY)
        self._confirmed: dict[str, int] = {}
        self._present: set[str] = set()
        self._next_beat_s = 0.0
        self._end: End | None = None
        self._end_by_s = 0.0

    @property
    def delivery(self) -> Delivery:
        return Delivery(self._count, dict(self._confirmed))

    def is_done(self, now_s: float) -> bool:
        waits = self._present.intersection(self.delivery.incomplete)
        return self._end is not None and (not waits or now_s > self._end_by_s)

    def pause_ms(self, now_s: float) -> int:
        until_s = self._next_beat_s if self._end is None else min(self._next_beat_s, self._end_by_s)
        return max(0, round((until_s - now_s) * 1000) + 1)

    def obey(self, order: bytes, body: bytes) -> None:
        if order == TOPIC_VERDICT:
            self._count += 1
            self._history.append(body)
            self._send(TOPIC_VERDICT, body)
        else:
            self._end = End(self._count, complete=body == b"complete")
            self._end_by_s = time.monotonic() + PATIENCE_S
            self._say_state()

    def hear(self, message: bytes) -> None:
        """Take a receipt, or what XPUB says itself: a topic is subscribed to (first byte 1), or no longer (0)."""
        kind, topic = message[:1], message[1:]
        if kind not in {b"\x00", b"\x01"}:
            self._take_receipt(message)
            return
        if topic.startswith(TOPIC_RESEND):
            listener = topic.removeprefix(TOPIC_RESEND).decode(errors="replace")
            if kind == b"\x01":
                self._present.add(listener)
                self._confirmed.setdefault(listener, 0)
            else:
                self._present.discard(listener)
        if kind == b"\x01":
            self._say_state()

    def beat(self, now_s: float) -> None:
        if now_s >= self._next_beat_s:
            self._next_beat_s = now_s + HEARTBEAT_S
            self._say_state()

    def _take_receipt(self, message: bytes) -> None:
        try:
            receipt = msgspec.json.decode(message, type=Receipt)
        except msgspec.MsgspecError:
            return  # not from one of ours; a stranger's words change nothing
        if receipt.run.encode() != self._run:
            return
        self._confirmed[receipt.listener] = max(receipt.received, self._confirmed.get(receipt.listener, 0))
        if receipt.resend:
            self._resend(receipt)

    def _resend(self, receipt: Receipt) -> None:
        forgotten = self._count - len(self._history)
        start = max(0, receipt.received - forgotten)
        for body in list(self._history)[start : start + RESEND_AT_ONCE]:
            self._send(TOPIC_RESEND + receipt.listener.encode(), body)

    def _say_state(self) -> None:
        if self._end is None:
            self._send(TOPIC_HEARTBEAT, msgspec.json.encode(Heartbeat(self._count)))
        else:
            self._send(TOPIC_END, msgspec.json.encode(self._end))

    def _send(self, topic: bytes, body: bytes) -> None:
        self._socket.send_multipart([topic, self._run, body])


def _told(error: zmq.ZMQError) -> str:
    if error.errno == zmq.EADDRINUSE:
        return "the port is in use; stop the other program or choose another port"
    return f"cannot be bound ({error.strerror}); use an address of this machine"
