"""Depth and colour of one camera find each other by time; none is lost, whatever the times are."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthcell.acquisition.pairing import Shot, pair_frames
from depthcell.acquisition.pixelformat import Layout, PixelFormat
from depthcell.acquisition.recordedframe import RecordedFrame, Stream, StreamKind
from depthcell.errors import DepthcellError, Reason

LAYOUT = Layout(PixelFormat.Y8, 1, 1)
PERIOD_NS = 33_333_333
TIMES = st.lists(st.integers(0, 60), max_size=12)
"""Times in units of a tenth of a period, in any order: clocks may restart."""


def frame(kind: StreamKind, timestamp_ns: int, number: int = 0) -> RecordedFrame:
    stream = Stream(kind, 0, 0, LAYOUT, 30, None)
    pixels = np.zeros((1, 1), np.uint8)
    return RecordedFrame(stream, pixels, timestamp_ns, "Hardware Clock", 0, 0, number, {}, None, 0)


def depths(*times_ns: int) -> list[RecordedFrame]:
    return [frame(StreamKind.DEPTH, time, number) for number, time in enumerate(times_ns)]


def colors(*times_ns: int) -> list[RecordedFrame]:
    return [frame(StreamKind.COLOR, time, number) for number, time in enumerate(times_ns)]


def times(pairs: Sequence[Shot]) -> list[tuple[int | None, int | None]]:
    return [(when(depth), when(color)) for depth, color, _ in pairs]


def when(frame: RecordedFrame | None) -> int | None:
    return None if frame is None else frame.timestamp_ns


def paired(frames: Sequence[RecordedFrame], tolerance_ns: int = 10) -> list[tuple[int | None, int | None]]:
    return times(list(pair_frames(frames, tolerance_ns)))


def test_equal_times_pair_at_once() -> None:
    pairs = pair_frames(iter([*depths(0, 100), *colors(0, 100)]), 10)
    assert times([next(pairs)]) == [(0, 0)]
    assert times(list(pairs)) == [(100, 100)]


def test_the_nearest_wins_over_the_first() -> None:
    assert paired([*depths(0, 8), *colors(9)]) == [(0, None), (8, 9)]
    assert paired([*colors(0, 8), *depths(9)]) == [(None, 0), (9, 8)]


def test_beyond_the_tolerance_both_come_alone() -> None:
    assert paired([*depths(0), *colors(11)]) == [(0, None), (None, 11)]
    assert paired([*depths(0), *colors(10)]) == [(0, 10)]


def test_a_lost_color_image_leaves_its_depth_alone() -> None:
    assert paired([*depths(0, 100, 200), *colors(1, 201)]) == [(0, 1), (100, None), (200, 201)]


def test_a_stream_that_ended_holds_nothing_back() -> None:
    """Without colour for long, depth comes alone before the end of the file: memory stays bounded."""
    pairs = pair_frames(iter([*colors(0), *depths(*range(0, 10_000, 100))]), 10, patience=3)
    assert times([next(pairs), next(pairs)]) == [(0, 0), (100, None)]
    assert len(list(pairs)) == 98


def test_damage_comes_after_all_images_before_it() -> None:
    def damaged() -> Iterator[RecordedFrame]:
        yield from [*depths(0, 100), *colors(100)]
        raise DepthcellError("the file ends here", Reason.RECORDING_DAMAGED)

    pairs = pair_frames(damaged(), 10)
    assert times([next(pairs), next(pairs)]) == [(0, None), (100, 100)]
    with pytest.raises(DepthcellError, match="the file ends here"):
        next(pairs)


def test_a_clock_that_restarts_does_not_block() -> None:
    frames = [*depths(100_000, 100_100), *colors(100_100)]
    for time in range(0, 3000, 100):
        frames += [*depths(time), *colors(time)]
    found = paired(frames)
    assert found.count((100_100, 100_100)) == 1
    assert sum(depth is not None and color is not None for depth, color in found[-10:]) == 10


@given(TIMES, TIMES, st.integers(0, 20), st.integers(0, 5), st.randoms(use_true_random=False))
def test_nothing_is_lost_or_doubled(
    depth_times: list[int], color_times: list[int], tolerance_ns: int, patience: int, order: random.Random
) -> None:
    waiting = [depths(*depth_times), colors(*color_times)]
    frames = []
    while any(waiting):
        stream = order.choice([stream for stream in waiting if stream])
        frames.append(stream.pop(0))
    pairs = list(pair_frames(frames, tolerance_ns, patience))
    assert [depth.number for depth, _, _ in pairs if depth is not None] == list(range(len(depth_times)))
    assert [color.number for _, color, _ in pairs if color is not None] == list(range(len(color_times)))
    for depth, color, _ in pairs:
        if depth is not None and color is not None:
            assert abs(depth.timestamp_ns - color.timestamp_ns) <= tolerance_ns


@given(
    st.integers(1, 40),
    st.integers(-16_000_000, 16_000_000),
    st.lists(st.integers(0, 39), max_size=8),
    st.lists(st.integers(0, 39), max_size=8),
    st.integers(0, 4),
)
def test_steady_streams_pair_image_by_image(
    count: int, delay_ns: int, lost_depths: list[int], lost_colors: list[int], late: int
) -> None:
    """Two streams of one rate, shifted by less than half a period, some images lost, colour recorded late."""
    depth_numbers = [number for number in range(count) if number not in lost_depths]
    color_numbers = [number for number in range(count) if number not in lost_colors]
    events = [(number, 0, frame(StreamKind.DEPTH, 10**9 + number * PERIOD_NS, number)) for number in depth_numbers]
    events += [
        (number + late, 1, frame(StreamKind.COLOR, 10**9 + number * PERIOD_NS + delay_ns, number))
        for number in color_numbers
    ]
    frames = [event[2] for event in sorted(events, key=lambda event: event[:2])]
    found = [(d and d.number, c and c.number) for d, c, _ in pair_frames(frames, PERIOD_NS // 2)]
    both = [(number, number) for number in depth_numbers if number in color_numbers]
    assert [pair for pair in found if None not in pair] == both
    assert len(found) == len(depth_numbers) + len(color_numbers) - len(both)


def test_other_streams_are_left_out() -> None:
    infrared = frame(StreamKind.INFRARED, 5)
    assert paired([infrared, *depths(5), infrared, *colors(5), infrared]) == [(5, 5)]


@pytest.mark.parametrize("patience", [0, 16])
def test_one_stream_alone_comes_in_order(patience: int) -> None:
    found = list(pair_frames(depths(1, 2, 3), 10, patience))
    assert times(found) == [(1, None), (2, None), (3, None)]


def infrareds(*times_ns: int, index: int = 1) -> list[RecordedFrame]:
    return [
        replace(each, stream=replace(each.stream, kind=StreamKind.INFRARED, index=index)) for each in depths(*times_ns)
    ]


def shots(frames: Sequence[RecordedFrame]) -> list[tuple[int | None, ...]]:
    return [tuple(map(when, shot)) for shot in pair_frames(frames, 10, has_infrared=True)]


def test_infrared_comes_with_its_depth_whichever_is_first() -> None:
    frames = [*depths(0), *infrareds(0), *colors(3), *infrareds(100), *colors(101), *depths(100)]
    assert shots(frames) == [(0, 3, 0), (100, 101, 100)]


def test_infrared_alone_pairs_with_colour() -> None:
    assert shots([*infrareds(0, 100), *colors(1, 101)]) == [(None, 1, 0), (None, 101, 100)]


def test_the_right_imager_is_left_out() -> None:
    assert shots([*depths(0), *infrareds(0, index=2)]) == [(0, None, None)]


@given(TIMES, TIMES, TIMES, st.randoms(use_true_random=False))
def test_no_image_of_three_streams_is_lost_or_doubled(
    depth_times: list[int], color_times: list[int], infrared_times: list[int], order: random.Random
) -> None:
    waiting = [depths(*depth_times), colors(*color_times), infrareds(*infrared_times)]
    frames = []
    while any(waiting):
        stream = order.choice([stream for stream in waiting if stream])
        frames.append(stream.pop(0))
    found = list(pair_frames(frames, 3, 2, has_infrared=True))
    for place, count in enumerate(map(len, (depth_times, color_times, infrared_times))):
        images = [shot[place] for shot in found]
        assert [image.number for image in images if image is not None] == list(range(count))
