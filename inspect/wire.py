"""The contract of the wire, first cut: which messages there are, and which endpoints are safe to use. See docs/wire.md.

Every message of a publisher has three frames: topic, run, body. A run is one `depthcell inspect`, known by a random
name; the body is JSON. A listener answers with one frame of JSON, its `Receipt`.
"""

import ipaddress
import re
from dataclasses import dataclass

import msgspec

from depthcell.errors import DepthcellError, Reason

TOPIC_VERDICT = b"verdict"
TOPIC_HEARTBEAT = b"heartbeat"
TOPIC_END = b"end"
TOPIC_RESEND = b"resend/"
"""Followed by the name of the listener that asked; so nobody else gets a verdict twice."""

HEARTBEAT_S = 1.0
SILENCE_S = 3.0
"""A publisher not heard for this long counts as stopped: three heartbeats."""

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5556"


class Heartbeat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sent each second and to each newcomer: `sequence` is that of the newest verdict, 0 before the first."""

    sequence: int


class End(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The run is over: `count` verdicts were sent; `complete` is False where it was cut short."""

    count: int
    complete: bool


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a listener has: every verdict of `run` up to `received`. With `resend` it asks for those after."""

    listener: str
    run: str
    received: int
    resend: bool


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A TCP address to bind or connect to."""

    host: str
    port: str

    def __str__(self) -> str:
        return f"tcp://{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it can be reached from this machine alone."""
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"


def read_endpoint(text: str, option: str, *, insecure: bool) -> Endpoint:
    """Check an endpoint as a person wrote it. libzmq itself takes port 99999 and binds 34463.

    Args:
        text: such as "tcp://127.0.0.1:5556"; port "*" lets the system choose.
        option: the option it was given by, for the message.
        insecure: whether an address that other machines reach is accepted although nothing is encrypted yet.

    Raises:
        DepthcellError: it is no such endpoint, or it leaves this machine without `insecure`.
    """
    match = re.fullmatch(r"tcp://(\[[0-9A-Fa-f:]+\]|[\w.*-]+):(\d{1,5}|\*)", text)
    if match is None or (match[2] != "*" and not 0 < int(match[2]) < 65536):
        raise DepthcellError(f"{option} {text}: is no endpoint; write tcp://HOST:PORT, such as {DEFAULT_ENDPOINT}")
    endpoint = Endpoint(match[1], match[2])
    if not (endpoint.is_loopback or insecure):
        raise DepthcellError(
            f"{option} {text}: leaves this machine, and verdicts are neither encrypted nor signed by key yet; "
            "use 127.0.0.1, or add --insecure on a network where nobody else can send"
        )
    return endpoint


def transport_error(option: str, endpoint: Endpoint | str, why: str) -> DepthcellError:
    """The error of a wire that cannot be set up."""
    return DepthcellError(f"{option} {endpoint}: {why}", Reason.TRANSPORT)
