"""The wire: every verdict of a run reaches the listener once and in order, or its loss is said."""

import json
import os
import re
import signal
import socket as network
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from depthcell.errors import DepthcellError, Reason
from depthcell.inspect import publisher as publishing
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
    VerdictListener,
    VerdictsLost,
)
from depthcell.inspect.publisher import VerdictPublisher
from depthcell.inspect.verdict import Decision, Verdict, to_json
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


# --- publisher and listener over TCP --------------------------------------------------------------------------------


def connected_to(publisher: VerdictPublisher) -> Endpoint:
    return read_endpoint(publisher.endpoint, "--connect", insecure=False)


class Audience(threading.Thread):
    """A listener in a thread of its own that hears until the run ends."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self.endpoint = endpoint
        self.heard: list[Event] = []
        self.start()

    def run(self) -> None:
        with VerdictListener(self.endpoint) as listener:
            for event in listener.events(timeout_s=20.0):
                self.heard.append(event)
                if isinstance(event, RunEnded):
                    return


def test_every_verdict_arrives_and_is_confirmed(make_verdict: MakeVerdict) -> None:
    sent = [make_verdict(sequence) for sequence in range(1, 31)]
    with VerdictPublisher(ANYWHERE) as publisher:
        audience = Audience(connected_to(publisher))
        assert publisher.wait_for_listener(10.0)
        for verdict in sent:
            publisher.publish(verdict)
        publisher.close(complete=True)
    audience.join()
    assert [event.verdict for event in audience.heard if isinstance(event, VerdictHeard)] == sent
    assert [event.line for event in audience.heard if isinstance(event, VerdictHeard)] == [to_json(v) for v in sent]
    assert audience.heard[-1] == RunEnded(30, complete=True)
    assert list(publisher.delivery.confirmed.values()) == [30]
    assert publisher.delivery.incomplete == ()


def test_a_late_joiner_gets_the_run_from_its_beginning(make_verdict: MakeVerdict) -> None:
    """More than one request's worth, with nobody there when it was sent: plain publish/subscribe would lose it all."""
    count = publishing.RESEND_AT_ONCE + 50
    verdicts = [make_verdict(sequence) for sequence in range(1, count + 1)]
    with VerdictPublisher(ANYWHERE) as publisher:
        for verdict in verdicts:
            publisher.publish(verdict)
        assert not publisher.wait_for_listener(0.0)
        audience = Audience(connected_to(publisher))
        assert publisher.wait_for_listener(10.0)
        publisher.close(complete=True)
    assert publisher.delivery.incomplete == ()
    audience.join()
    assert numbers(audience.heard) == list(range(1, count + 1))
    assert lost(audience.heard) == []


def test_plain_subscriber_loses_what_was_sent_before_it_came(make_verdict: MakeVerdict) -> None:
    """The negative control of the test above, and the promise that any ZeroMQ subscriber can read along."""
    with VerdictPublisher(ANYWHERE) as publisher, zmq.Context() as context:
        publisher.publish(make_verdict(1))
        time.sleep(0.2)
        with context.socket(zmq.SUB) as subscriber:
            subscriber.connect(publisher.endpoint)
            subscriber.subscribe(TOPIC_VERDICT)
            assert publisher.wait_for_listener(10.0)
            publisher.publish(make_verdict(2))
            assert subscriber.poll(10_000)
            topic, run, body = subscriber.recv_multipart()
            assert (topic, run.decode()) == (TOPIC_VERDICT, publisher.run)
            assert json.loads(body)["sequence"] == 2


def test_nothing_is_published_into_the_void_after_the_end(make_verdict: MakeVerdict) -> None:
    with VerdictPublisher(ANYWHERE) as publisher:
        publisher.close(complete=True)
        with pytest.raises(DepthcellError, match="the publisher has stopped"):
            publisher.publish(make_verdict(1))


def test_one_listeners_repair_disturbs_no_other(make_verdict: MakeVerdict) -> None:
    with VerdictPublisher(ANYWHERE) as publisher, zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.connect(publisher.endpoint)
        subscriber.subscribe(TOPIC_VERDICT)
        assert publisher.wait_for_listener(10.0)
        publisher.publish(make_verdict(1))
        audience = Audience(connected_to(publisher))
        while not numbers(audience.heard):
            time.sleep(0.05)
        publisher.publish(make_verdict(2))
        publisher.close(complete=True)
        audience.join()
        bodies = []
        while subscriber.poll(500):
            bodies.append(subscriber.recv_multipart()[2])
    assert [json.loads(body)["sequence"] for body in bodies] == [1, 2]
    assert numbers(audience.heard) == [1, 2]


def test_an_interrupted_run_says_so(make_verdict: MakeVerdict) -> None:
    publisher = VerdictPublisher(ANYWHERE)
    audience = Audience(connected_to(publisher))

    def interrupted_run() -> None:
        with publisher:
            assert publisher.wait_for_listener(10.0)
            publisher.publish(make_verdict(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_run()
    audience.join()
    assert audience.heard[-1] == RunEnded(1, complete=False)


def test_a_listener_that_left_does_not_hold_up_the_end(
    make_verdict: MakeVerdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "PATIENCE_S", 3600.0)  # were it waited for, the test would not end
    with VerdictPublisher(ANYWHERE) as publisher:
        with VerdictListener(connected_to(publisher)) as listener:
            assert publisher.wait_for_listener(10.0)
            publisher.publish(make_verdict(1))
            assert any(isinstance(event, VerdictHeard) for event in _until_verdict(listener))
        publisher.publish(make_verdict(2))
        publisher.close(complete=True)
    assert len(publisher.delivery.incomplete) == 1


def _until_verdict(listener: VerdictListener) -> Iterator[Event]:
    for event in listener.events(timeout_s=10.0):
        yield event
        if isinstance(event, VerdictHeard):
            return


@contextmanager
def lossy_relay(target: str, drop_every: int) -> Iterator[str]:
    """An XSUB/XPUB relay that throws away every n-th verdict on its first way, as a bad line would."""
    context = zmq.Context()
    inner, outer = context.socket(zmq.XSUB), context.socket(zmq.XPUB)
    inner.connect(target)
    port = outer.bind_to_random_port("tcp://127.0.0.1")
    stop = threading.Event()

    def relay() -> None:
        seen = 0
        while not stop.is_set():
            if inner.poll(20):
                frames = inner.recv_multipart()
                seen += frames[0] == TOPIC_VERDICT
                if frames[0] != TOPIC_VERDICT or seen % drop_every:
                    outer.send_multipart(frames)
            while outer.poll(0):
                inner.send(outer.recv())

    thread = threading.Thread(target=relay)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{port}"
    finally:
        stop.set()
        thread.join()
        context.destroy(linger=0)


def test_a_line_that_drops_every_third_verdict_loses_none(make_verdict: MakeVerdict) -> None:
    with VerdictPublisher(ANYWHERE) as publisher, lossy_relay(publisher.endpoint, 3) as relayed:
        audience = Audience(read_endpoint(relayed, "--connect", insecure=False))
        assert publisher.wait_for_listener(10.0)
        for sequence in range(1, 21):
            publisher.publish(make_verdict(sequence))
        publisher.close(complete=True)
        audience.join()
    assert numbers(audience.heard) == list(range(1, 21))
    assert lost(audience.heard) == []
    assert publisher.delivery.incomplete == ()


PUBLISH_AND_HANG = """
import sys, time
from depthcell.inspect.publisher import VerdictPublisher
from depthcell.inspect.verdict import from_json
from depthcell.inspect.wire import Endpoint
publisher = VerdictPublisher(Endpoint("127.0.0.1", "*"))
print(publisher.endpoint, flush=True)
publisher.wait_for_listener(30)
for line in sys.stdin.buffer:
    publisher.publish(from_json(line))
print("sent", flush=True)
time.sleep(60)
"""


def test_a_killed_publisher_is_noticed(make_verdict: MakeVerdict) -> None:
    """Two processes: one dies by kill -9 after two verdicts; the other has both and says that it hears nothing."""
    process = subprocess.Popen([sys.executable, "-c", PUBLISH_AND_HANG], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    heard: list[Event] = []
    try:
        endpoint = read_endpoint(process.stdout.readline().decode().strip(), "--connect", insecure=False)
        with VerdictListener(endpoint) as listener:
            process.stdin.write(b"".join(to_json(make_verdict(n)) + b"\n" for n in (1, 2)))
            process.stdin.close()
            for event in listener.events(timeout_s=20.0):
                heard.append(event)
                if numbers(heard) == [1, 2] and process.poll() is None:
                    os.kill(process.pid, signal.SIGKILL)
                if isinstance(event, PublisherSilent):
                    break
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert numbers(heard) == [1, 2]
    assert isinstance(heard[-1], PublisherSilent)


def test_a_strangers_words_change_nothing(make_verdict: MakeVerdict) -> None:
    with VerdictPublisher(ANYWHERE) as publisher, zmq.Context() as context, context.socket(zmq.XSUB) as stranger:
        stranger.connect(publisher.endpoint)
        stranger.send(b"\x01")
        assert publisher.wait_for_listener(10.0)
        other_run: dict[str, Any] = {"listener": "x", "run": "another", "received": 9, "resend": True}
        for words in (b"hello", b"{}", b"\xff\xfe", json.dumps(other_run).encode()):
            stranger.send(words)
        time.sleep(0.2)
        publisher.publish(make_verdict(1))
        publisher.close(complete=True)
    assert publisher.delivery.count == 1
    assert publisher.delivery.confirmed == {}


def test_the_readers_example_of_the_docs_runs(make_verdict: MakeVerdict) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "wire.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert "tcp://127.0.0.1:5556" in example
    with VerdictPublisher(ANYWHERE) as publisher:
        code = example.replace("tcp://127.0.0.1:5556", publisher.endpoint)
        reader = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE)
        assert reader.stdout is not None
        try:
            assert publisher.wait_for_listener(20.0)
            publisher.publish(make_verdict(1))
            publisher.publish(make_verdict(2, Decision.OK))
            lines = [reader.stdout.readline().decode() for _ in range(2)]
        finally:
            reader.kill()
            reader.communicate()
    assert lines[0].startswith("REJECT part_001 dent")
    assert lines[1].startswith("ACCEPT part_002")
