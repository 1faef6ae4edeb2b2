"""The wire: every verdict of a run reaches the listener once and in order, or its loss is said."""

import socket as network
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthcell.errors import DepthcellError, Reason
from depthcell.inspect.listener import (
    REPAIR_S,
    Event,
    Inbox,
    MessageRefused,
    PublisherBack,
    PublisherSilent,
    RunEnded,
    RunStarted,
    VerdictHeard,
    VerdictsLost,
)
from depthcell.inspect.publisher import VerdictPublisher
from depthcell.inspect.verdict import Verdict, to_json
from depthcell.inspect.wire import (
    SILENCE_S,
    TOPIC_END,
    TOPIC_HEARTBEAT,
    TOPIC_VERDICT,
    End,
    Endpoint,
    Heartbeat,
    read_endpoint,
)

MakeVerdict = Callable[..., Verdict]
ANYWHERE = Endpoint("127.0.0.1", "*")


# --- endpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["tcp://127.0.0.1:5556", "tcp://127.4.5.6:*", "tcp://localhost:1", "tcp://[::1]:65535"]
)
def test_loopback_needs_no_leave(text: str) -> None:
    assert str(read_endpoint(text, "--bind", insecure=False)) == text


@pytest.mark.parametrize("text", ["tcp://0.0.0.0:5556", "tcp://*:5556", "tcp://192.168.1.4:5556", "tcp://line-7:5556"])
def test_an_address_that_others_reach_needs_insecure(text: str) -> None:
    with pytest.raises(DepthcellError, match=r"--bind .*--insecure"):
        read_endpoint(text, "--bind", insecure=False)
    assert str(read_endpoint(text, "--bind", insecure=True)) == text


@pytest.mark.parametrize(
    "text",
    ["5556", "tcp://127.0.0.1", "tcp://127.0.0.1:0", "tcp://127.0.0.1:99999", "tcp://127.0.0.1:80x", "udp://a:1"],
)
def test_what_is_no_endpoint_is_refused_although_libzmq_takes_some_of_it(text: str) -> None:
    with pytest.raises(DepthcellError, match=r"--connect .*tcp://HOST:PORT"):
        read_endpoint(text, "--connect", insecure=True)


def test_a_port_in_use_is_named() -> None:
    with network.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(DepthcellError, match=rf"--bind tcp://127.0.0.1:{port}: the port is in use") as refusal:
            VerdictPublisher(Endpoint("127.0.0.1", port))
    assert refusal.value.reason is Reason.TRANSPORT


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(DepthcellError, match=r"--bind tcp://192.0.2.1:5556: cannot be bound"):
        VerdictPublisher(Endpoint("192.0.2.1", "5556"))


# --- the inbox: no socket, no clock ---------------------------------------------------------------------------------


def verdict_frames(verdict: Verdict, run: bytes = b"run1") -> list[bytes]:
    return [TOPIC_VERDICT, run, to_json(verdict)]


def heartbeat_frames(sequence: int, run: bytes = b"run1") -> list[bytes]:
    return [TOPIC_HEARTBEAT, run, msgspec.json.encode(Heartbeat(sequence))]


def end_frames(count: int, run: bytes = b"run1") -> list[bytes]:
    return [TOPIC_END, run, msgspec.json.encode(End(count, complete=True))]


def numbers(events: list[Event]) -> list[int]:
    return [event.verdict.sequence for event in events if isinstance(event, VerdictHeard)]


def lost(events: list[Event]) -> list[int]:
    return [n for event in events if isinstance(event, VerdictsLost) for n in range(event.first, event.last + 1)]


def test_a_run_without_trouble(make_verdict: MakeVerdict) -> None:
    inbox = Inbox("me")
    events = inbox.take(heartbeat_frames(0), 0.0)
    for sequence in (1, 2, 3):
        events += inbox.take(verdict_frames(make_verdict(sequence)), 0.1 * sequence)
    events += inbox.take(end_frames(3), 0.4)
    assert events[0] == RunStarted("run1")
    assert numbers(events) == [1, 2, 3]
    assert events[-1] == RunEnded(3, complete=True)
    assert inbox.tick(100.0) == []  # silence after the end is no alarm


@settings(max_examples=200, deadline=None)
@given(
    order=st.lists(st.integers(1, 6), min_size=1, max_size=25),
    repaired=st.sets(st.integers(1, 6)),
)
def test_each_verdict_once_in_order_or_said_to_be_lost(
    make_verdict: MakeVerdict, order: list[int], repaired: set[int]
) -> None:
    """Whatever comes, in whatever order, as often as it likes: handed on and lost together are 1..6, each once."""
    prepared = {sequence: verdict_frames(make_verdict(sequence)) for sequence in range(1, 7)}
    inbox = Inbox("me")
    events: list[Event] = []
    for step, sequence in enumerate(order):
        events += inbox.take(prepared[sequence], step * 0.01)
    for sequence in repaired:
        events += inbox.take(prepared[sequence], 1.0)
    events += inbox.take(end_frames(6), 1.1)
    for second in range(20):
        events += inbox.tick(1.2 + second * REPAIR_S)
    told = [n for event in events for n in (numbers([event]) or lost([event]))]
    assert told == [1, 2, 3, 4, 5, 6]
    assert set(numbers(events)) == set(order) | repaired
    assert [event for event in events if isinstance(event, RunEnded)] == [RunEnded(6, complete=True)]


def test_a_gap_is_asked_for_and_filled_in_order(make_verdict: MakeVerdict) -> None:
    inbox = Inbox("me")
    inbox.take(verdict_frames(make_verdict(1)), 0.0)
    assert numbers(inbox.take(verdict_frames(make_verdict(3)), 0.1)) == []
    receipt = inbox.receipt(0.1)
    assert receipt is not None
    assert (receipt.run, receipt.received, receipt.resend) == ("run1", 1, True)
    again = inbox.receipt(0.2)
    assert again is not None
    assert not again.resend  # asked once, not with every message
    assert numbers(inbox.take(verdict_frames(make_verdict(2)), 0.3)) == [2, 3]
    assert lost(inbox.tick(0.3 + 2 * REPAIR_S)) == []


def test_a_heartbeat_shows_that_the_last_verdict_is_missing(make_verdict: MakeVerdict) -> None:
    inbox = Inbox("me")
    inbox.take(verdict_frames(make_verdict(1)), 0.0)
    inbox.take(heartbeat_frames(2), 1.0)
    assert lost(inbox.tick(1.1 + REPAIR_S)) == [2]


def test_a_silent_publisher_is_said_once_and_its_return_too() -> None:
    inbox = Inbox("me")
    assert inbox.tick(100.0) == []  # nothing was ever heard: there is nothing to miss yet
    inbox.take(heartbeat_frames(0), 0.0)
    assert inbox.tick(SILENCE_S - 0.1) == []
    assert inbox.tick(SILENCE_S + 0.1) == [PublisherSilent(3.1)]
    assert inbox.tick(SILENCE_S + 5.0) == []
    assert inbox.take(heartbeat_frames(0), 10.0) == [PublisherBack()]


def test_a_new_run_closes_the_old_one(make_verdict: MakeVerdict) -> None:
    inbox = Inbox("me")
    inbox.take(verdict_frames(make_verdict(1)), 0.0)
    inbox.take(verdict_frames(make_verdict(3)), 0.1)
    events = inbox.take(verdict_frames(make_verdict(1), b"run2"), 0.2)
    assert lost(events) == [2]
    assert numbers(events) == [3, 1]
    assert [event for event in events if isinstance(event, RunEnded)] == [RunEnded(3, complete=False)]
    assert events[-2] == RunStarted("run2")


def test_what_breaks_the_contract_is_refused_and_then_missed(make_verdict: MakeVerdict) -> None:
    topic, run, body = verdict_frames(make_verdict(1))
    tampered = body.replace(b'"NOK"', b'"OK"', 1)
    assert tampered != body
    for frames, why in (
        ([topic, run, tampered], "digest"),
        ([topic, run, body[:-1]], "truncated"),
        ([topic, run, body.replace(b'"sigma"', b'"sgima"', 1)], "sgima"),
        ([TOPIC_HEARTBEAT, run, b"{}"], "sequence"),
        ([b"gossip", run, b"{}"], "no topic"),
        ([body], "1 frames"),
    ):
        (event,) = Inbox("me").take(frames, 0.0)
        assert isinstance(event, MessageRefused)
        assert why in event.why
    inbox = Inbox("me")
    inbox.take(heartbeat_frames(0), 0.0)
    inbox.take([topic, run, tampered], 0.1)
    inbox.take(heartbeat_frames(1), 0.2)
    assert lost(inbox.tick(0.3 + REPAIR_S)) == [1]
