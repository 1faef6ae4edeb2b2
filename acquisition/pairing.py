"""Images of one camera brought together by their timestamps: depth, infrared, colour; none is dropped."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

from depthcell.acquisition.recordedframe import RecordedFrame, StreamKind
from depthcell.errors import DepthcellError

PATIENCE = 16
"""Images of a stream that may wait for the other; beyond, the oldest comes alone, however late its partner is."""


class Shot(NamedTuple):
    """What one camera gave at one instant; at least one of the three."""

    depth: RecordedFrame | None
    color: RecordedFrame | None
    infrared: RecordedFrame | None = None

    @property
    def timestamp_ns(self) -> int:
        """Of the stereo imagers, or of the colour image where they gave nothing."""
        image = self.depth or self.infrared or self.color
        assert image is not None  # noqa: S101 - one of them is there; tells the type checker
        return image.timestamp_ns


def pair_frames(
    frames: Iterable[RecordedFrame], tolerance_ns: int, patience: int = PATIENCE, *, has_infrared: bool = False
) -> Iterator[Shot]:
    """Pair each depth image with the colour image nearest in time, if that is within the tolerance.

    Two images become a pair when each is the other's nearest; every image comes out exactly once, in the order of
    their times as far as `patience` reaches. With `has_infrared`, images of the left infrared imager are first brought
    to the depth images in the same way. Other streams are left out. An error of `frames` comes after all images before
    it.
    """
    kinds = {StreamKind.DEPTH: 0, StreamKind.INFRARED: 1, StreamKind.COLOR: 2}
    sides = ((kinds[frame.stream.kind], frame) for frame in frames if is_taken(frame))
    if has_infrared:
        shots = _with_infrared(sides, tolerance_ns, patience)
    else:
        shots = ((1, Shot(None, frame)) if side == 2 else (0, Shot(frame, None)) for side, frame in sides if side != 1)
    for stereo, color in _paired(shots, tolerance_ns, patience):
        if stereo is None:
            assert color is not None  # noqa: S101 - never both; tells the type checker
            yield color
        else:
            yield stereo if color is None else stereo._replace(color=color.color)


def is_taken(frame: RecordedFrame) -> bool:
    """Whether an image is depth, colour, or 8-bit infrared of the left imager (SDK index 1, or 0 for the only one)."""
    if frame.stream.kind is StreamKind.INFRARED:
        return frame.stream.index in {0, 1} and frame.pixels.dtype == "uint8"
    return frame.stream.kind in {StreamKind.DEPTH, StreamKind.COLOR}


def _with_infrared(
    sides: Iterable[tuple[int, RecordedFrame]], tolerance_ns: int, patience: int
) -> Iterator[tuple[int, Shot]]:
    """Depth with infrared on side 0; colour on side 1, as it came."""
    pairing = _Pairing[RecordedFrame](tolerance_ns, patience)

    def decided(is_final: bool) -> Iterator[tuple[int, Shot]]:
        return ((0, Shot(depth, None, infrared)) for depth, infrared in pairing.decided(is_final))

    try:
        for side, frame in sides:
            if side == 2:
                yield 1, Shot(None, frame)
            else:
                pairing.take(side, frame)
                yield from decided(is_final=False)
    except DepthcellError:
        yield from decided(is_final=True)
        raise
    yield from decided(is_final=True)


class _Timed(Protocol):
    @property
    def timestamp_ns(self) -> int: ...


T = TypeVar("T", bound=_Timed)


def _paired(items: Iterable[tuple[int, T]], tolerance_ns: int, patience: int) -> Iterator[tuple[T | None, T | None]]:
    pairing = _Pairing[T](tolerance_ns, patience)
    try:
        for side, item in items:
            pairing.take(side, item)
            yield from pairing.decided(is_final=False)
    except DepthcellError:
        yield from pairing.decided(is_final=True)
        raise
    yield from pairing.decided(is_final=True)


@dataclass(slots=True)
class _Pairing(Generic[T]):
    tolerance_ns: int
    patience: int
    lefts: deque[T] = field(default_factory=deque)
    rights: deque[T] = field(default_factory=deque)

    def take(self, side: int, item: T) -> None:
        """Let an image wait for its partner; side 0 or 1."""
        (self.rights if side else self.lefts).append(item)

    def decided(self, is_final: bool) -> Iterator[tuple[T | None, T | None]]:
        """Give out what no image still to come can change, or, at the end, all."""
        while (choice := self._choose(is_final)) is not None:
            takes_left, takes_right = choice
            yield self.lefts.popleft() if takes_left else None, self.rights.popleft() if takes_right else None

    def _choose(self, is_final: bool) -> tuple[bool, bool] | None:
        """Whether to give out the oldest of the left and of the right; None to wait."""
        if not self.lefts or not self.rights:
            waiting = self.lefts or self.rights
            is_due = bool(waiting) and (is_final or len(waiting) > self.patience)
            return (waiting is self.lefts, waiting is self.rights) if is_due else None
        gap_ns = self.rights[0].timestamp_ns - self.lefts[0].timestamp_ns
        is_left_first = gap_ns >= 0
        if abs(gap_ns) > self.tolerance_ns:
            return is_left_first, not is_left_first
        # The later of the two may lie nearer to the next image of the earlier one's stream.
        earlier, later = (self.lefts, self.rights) if is_left_first else (self.rights, self.lefts)
        if len(earlier) > 1:
            is_next_nearer = abs(earlier[1].timestamp_ns - later[0].timestamp_ns) < abs(gap_ns)
            return (is_left_first, not is_left_first) if is_next_nearer else (True, True)
        return (True, True) if is_final or gap_ns == 0 or len(later) > self.patience else None
