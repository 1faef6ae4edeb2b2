"""Depth and colour images of one camera brought together by their timestamps; none is dropped."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from depthcell.acquisition.recordedframe import RecordedFrame, StreamKind
from depthcell.errors import DepthcellError

Pair = tuple[RecordedFrame | None, RecordedFrame | None]
"""A depth image and a colour image, or one of them alone."""

PATIENCE = 16
"""Images of a stream that may wait for the other; beyond, the oldest comes alone, however late its partner is."""


def pair_frames(frames: Iterable[RecordedFrame], tolerance_ns: int, patience: int = PATIENCE) -> Iterator[Pair]:
    """Pair each depth image with the colour image nearest in time, if that is within the tolerance.

    Two images become a pair when each is the other's nearest; every image comes out exactly once, in the order of
    their times as far as `patience` reaches. Other streams are left out. An error of `frames` comes after all images
    before it.
    """
    pairing = _Pairing(tolerance_ns, patience)
    try:
        for frame in frames:
            pairing.take(frame)
            yield from pairing.decided(is_final=False)
    except DepthcellError:
        yield from pairing.decided(is_final=True)
        raise
    yield from pairing.decided(is_final=True)


@dataclass(slots=True)
class _Pairing:
    tolerance_ns: int
    patience: int
    depths: deque[RecordedFrame] = field(default_factory=deque)
    colors: deque[RecordedFrame] = field(default_factory=deque)

    def take(self, frame: RecordedFrame) -> None:
        """Let an image wait for its partner."""
        if frame.stream.kind is StreamKind.DEPTH:
            self.depths.append(frame)
        elif frame.stream.kind is StreamKind.COLOR:
            self.colors.append(frame)

    def decided(self, is_final: bool) -> Iterator[Pair]:
        """Give out what no image still to come can change, or, at the end, all."""
        while (choice := self._choose(is_final)) is not None:
            takes_depth, takes_color = choice
            yield self.depths.popleft() if takes_depth else None, self.colors.popleft() if takes_color else None

    def _choose(self, is_final: bool) -> tuple[bool, bool] | None:
        """Whether to give out the oldest depth and the oldest colour; None to wait."""
        if not self.depths or not self.colors:
            waiting = self.depths or self.colors
            is_due = bool(waiting) and (is_final or len(waiting) > self.patience)
            return (waiting is self.depths, waiting is self.colors) if is_due else None
        gap_ns = self.colors[0].timestamp_ns - self.depths[0].timestamp_ns
        is_depth_first = gap_ns >= 0
        if abs(gap_ns) > self.tolerance_ns:
            return is_depth_first, not is_depth_first
        # The later of the two may lie nearer to the next image of the earlier one's stream.
        earlier, later = (self.depths, self.colors) if is_depth_first else (self.colors, self.depths)
        if len(earlier) > 1:
            is_next_nearer = abs(earlier[1].timestamp_ns - later[0].timestamp_ns) < abs(gap_ns)
            return (is_depth_first, not is_depth_first) if is_next_nearer else (True, True)
        return (True, True) if is_final or gap_ns == 0 or len(later) > self.patience else None
