"""Delivery over TCP: late joiners, lossy lines, killed publishers, in threads and in processes of their own."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from depthcell.errors import DepthcellError
from depthcell.inspect import publisher as publishing
from depthcell.inspect.listener import Event, PublisherSilent, RunEnded, VerdictHeard, VerdictListener, VerdictsLost
from depthcell.inspect.publisher import VerdictPublisher
from depthcell.inspect.verdict import Decision, Verdict, to_json
from depthcell.inspect.wire import TOPIC_VERDICT, Endpoint, read_endpoint

MakeVerdict = Callable[..., Verdict]
ANYWHERE = Endpoint("127.0.0.1", "*")


def numbers(events: list[Event]) -> list[int]:
    return [event.verdict.sequence for event in events if isinstance(event, VerdictHeard)]


def lost(events: list[Event]) -> list[int]:
    return [n for event in events if isinstance(event, VerdictsLost) for n in range(event.first, event.last + 1)]


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
