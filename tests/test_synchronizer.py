"""Grouping of frames: nothing lost, nothing doubled, times within tolerance, offsets within their stated bound."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthcell.acquisition.frameset import CameraFrame, DepthImage, FrameSet
from depthcell.acquisition.hostclock import ARRIVAL_KEY, HostClock
from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.synchronizer import Synchronizer, SyncSettings, group
from depthcell.errors import DepthcellError, Reason

TINY = Intrinsics(1, 1, 1.0, 1.0, 0.0, 0.0)
PERIOD_NS = 33_333_333
MS = 1_000_000
HOUR_NS = 3_600_000_000_000
EPOCH_NS = 1_760_000_000_000_000_000


def frame(serial: str, hardware_ns: int, number: int = 0, arrived_ns: int | None = None) -> CameraFrame:
    depth = DepthImage(np.full((1, 1), np.nan, np.float32), TINY, 0.001, None, hardware_ns, number)
    metadata: dict[str, int | float] = {} if arrived_ns is None else {ARRIVAL_KEY: arrived_ns / MS}
    return CameraFrame(serial, "D435", depth, None, metadata=MappingProxyType(metadata))


@dataclass(frozen=True)
class Camera:
    """A camera seen from outside: which instants it caught, on a clock of its own, and how late each frame came."""

    serial: str
    clock_ns: int
    drift_ppm: float
    instants: tuple[int, ...]
    delays_ns: tuple[int, ...]
    jitter_ns: tuple[int, ...]

    def frames(self) -> list[CameraFrame]:
        return [
            frame(self.serial, self.stamp_ns(k, jitter), k, EPOCH_NS + k * PERIOD_NS + jitter + delay)
            for k, delay, jitter in zip(self.instants, self.delays_ns, self.jitter_ns, strict=True)
        ]

    def stamp_ns(self, instant: int, jitter_ns: int = 0) -> int:
        return self.clock_ns + jitter_ns + round(instant * PERIOD_NS * (1 + self.drift_ppm * 1e-6))


@st.composite
def cameras(draw: st.DrawFn, serial: str, least: int = 0) -> Camera:
    start = draw(st.integers(0, 20))
    kept = draw(st.lists(st.booleans(), min_size=least, max_size=40))
    instants = tuple(start + i for i, keep in enumerate(kept) if keep or i < least)
    count = len(instants)
    delays = draw(st.lists(st.integers(5 * MS, 9 * MS), min_size=count, max_size=count))
    jitter = draw(st.lists(st.integers(-50_000, 50_000), min_size=count, max_size=count))
    clock_ns = draw(st.integers(0, 12 * HOUR_NS))
    return Camera(serial, clock_ns, draw(st.floats(-50, 50)), instants, tuple(delays), tuple(jitter))


RIGS = st.tuples(cameras("A"), cameras("B"), cameras("C"))


def identities(sets: list[FrameSet]) -> list[tuple[str, int]]:
    return [(serial, member.timestamp_ns) for each in sets for serial, member in each.frames.items()]


@given(RIGS, st.booleans(), st.integers(1, 40 * MS))
@settings(deadline=None)
def test_every_frame_comes_out_exactly_once_in_the_order_of_its_camera(
    rig: tuple[Camera, ...], with_arrival: bool, tolerance_ns: int
) -> None:
    streams = {camera.serial: camera.frames() for camera in rig}
    if not with_arrival:
        streams = {s: [frame(s, each.timestamp_ns) for each in stream] for s, stream in streams.items()}
    sets = list(group(streams, SyncSettings(tolerance_ns)))
    for serial, stream in streams.items():
        assert [t for s, t in identities(sets) if s == serial] == [each.timestamp_ns for each in stream]
    assert all(each.frames and each.expected == ("A", "B", "C") for each in sets)
    assert all(each.spread_ns <= tolerance_ns for each in sets)
    assert sum(len(each.frames) + len(each.missing) for each in sets) == 3 * len(sets)


@given(st.tuples(cameras("A", 16), cameras("B", 16), cameras("C", 16)))
@settings(deadline=None)
def test_sets_are_exactly_the_true_instants(rig: tuple[Camera, ...]) -> None:
    # Delays vary by 4 ms and clocks by hours; half a period is 16.7 ms, so no instant may be torn or mixed.
    sets = list(group({camera.serial: camera.frames() for camera in rig}, SyncSettings(15 * MS)))
    instants = [{member.depth.number for member in each.frames.values() if member.depth} for each in sets]
    assert all(len(numbers) == 1 for numbers in instants)
    assert [min(numbers) for numbers in instants] == sorted({k for camera in rig for k in camera.instants})
    for each, (k,) in zip(sets, instants, strict=True):
        assert each.missing == tuple(camera.serial for camera in rig if k not in camera.instants)


@given(st.tuples(cameras("A", 16), cameras("B", 16)))
@settings(deadline=None)
def test_offset_is_within_its_stated_bound(rig: tuple[Camera, Camera]) -> None:
    clocks = []
    for camera in rig:
        clock = HostClock(90)
        for each in camera.frames():
            clock.observe(each.timestamp_ns, round(each.metadata[ARRIVAL_KEY] * MS))
        clocks.append(clock.offset_ns)
    truth_ns = rig[1].clock_ns - rig[0].clock_ns
    duration_ns = 60 * PERIOD_NS
    bound_ns = 4 * MS + 2 * 50e-6 * duration_ns + 1_000  # delays vary by J = 4 ms; two drifts; float ms of the SDK
    assert abs((clocks[0] - clocks[1]) - truth_ns) <= bound_ns


def test_offset_is_typically_far_better_than_its_bound() -> None:
    rng = np.random.default_rng(7)
    errors_ns = []
    for _ in range(200):
        offsets = []
        for clock_ns in (0, 3 * HOUR_NS):
            clock = HostClock(90)
            # USB: a floor, a tail of late frames, and one frame in ten that is very late.
            delays = 6e6 + rng.exponential(1e6, 90) + 3e7 * (rng.random(90) < 0.1)
            for k, delay in enumerate(delays):
                clock.observe(clock_ns + k * PERIOD_NS, EPOCH_NS + k * PERIOD_NS + round(delay))
            offsets.append(clock.offset_ns)
        errors_ns.append(offsets[0] - offsets[1] - 3 * HOUR_NS)
    assert np.std(errors_ns) < 2 * 1e6 / 80  # the least of n exponential delays has the spread 1 ms / n


def test_slow_drift_is_followed_for_an_hour() -> None:
    count = 3600  # one frame a second
    fast = Camera("B", 5 * HOUR_NS, 80.0, tuple(range(0, 30 * count, 30)), (5 * MS,) * count, (0,) * count)
    slow = Camera("A", 0, -20.0, tuple(range(0, 30 * count, 30)), (5 * MS,) * count, (0,) * count)
    sets = list(group({"A": slow.frames(), "B": fast.frames()}, SyncSettings(10 * MS, clock_window=20)))
    # Apart by 100 ppm the clocks part by 360 ms in the hour; a window of 20 s leaves 2 ms of it.
    assert len(sets) == count
    assert all(each.is_complete for each in sets)
    assert max(each.spread_ns for each in sets) <= 2.1 * MS
    # Negative control: a window that never moves on loses them.
    stuck = list(group({"A": slow.frames(), "B": fast.frames()}, SyncSettings(10 * MS, clock_window=count)))
    assert not all(each.is_complete for each in stuck)


def test_matches_the_slow_twin_on_a_common_clock() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        times = {s: np.unique(rng.integers(0, 60, rng.integers(0, 12))) * MS for s in ("A", "B")}
        streams = {s: [frame(s, int(t)) for t in stamps] for s, stamps in times.items()}
        found = [{s: f.timestamp_ns for s, f in each.frames.items()} for each in group(streams, SyncSettings(3 * MS))]
        assert found == list(_slow_twin({s: [int(t) for t in v] for s, v in times.items()}, 3 * MS))


def _slow_twin(times: dict[str, list[int]], tolerance_ns: int) -> Iterator[dict[str, int]]:
    while any(times.values()):
        start = min(t for stamps in times.values() for t in stamps)
        together = {s: min(stamps) for s, stamps in times.items() if stamps and min(stamps) - start <= tolerance_ns}
        for serial, stamp in together.items():
            times[serial].remove(stamp)
        yield together


def test_reading_goes_no_further_ahead_than_one_frame() -> None:
    read = {"A": 0, "B": 0}

    def stream(serial: str) -> Iterator[CameraFrame]:
        for k in range(10):
            read[serial] += 1
            yield frame(serial, k * PERIOD_NS)

    sets = group({"A": stream("A"), "B": stream("B")}, SyncSettings())
    next(sets)
    assert read == {"A": 1, "B": 1}


def test_set_times_are_on_the_first_cameras_clock() -> None:
    count = 30
    a = Camera("A", 77 * HOUR_NS, 0.0, tuple(range(count)), (5 * MS,) * count, (0,) * count)
    b = Camera("B", 0, 0.0, tuple(range(count)), (5 * MS,) * count, (0,) * count)
    sets = list(group({"A": a.frames(), "B": b.frames()}, SyncSettings()))
    assert [each.timestamp_ns for each in sets] == pytest.approx([a.stamp_ns(k) for k in range(count)], abs=1_000)


def test_a_restarted_clock_is_followed_by_arrival_times() -> None:
    count = 40
    steady = Camera("A", 9 * HOUR_NS, 0.0, tuple(range(count)), (5 * MS,) * count, (0,) * count).frames()
    before = Camera("B", 2 * HOUR_NS, 0.0, tuple(range(18)), (5 * MS,) * 18, (0,) * 18).frames()
    after = Camera("B", 0, 0.0, tuple(range(25, count)), (5 * MS,) * 15, (0,) * 15).frames()
    sets = list(group({"A": steady, "B": before + after}, SyncSettings()))
    assert [each.missing for each in sets] == [()] * 18 + [("B",)] * 7 + [()] * 15
    assert max(each.spread_ns for each in sets) < 1_000


@pytest.mark.parametrize(
    ("second_ns", "cause"),
    [(100 * MS, "given twice"), (90 * MS, "out of order"), (-5_000 * MS, "restarted, and no arrival times")],
)
def test_disorder_is_refused_by_camera_and_cause_after_what_was_good(second_ns: int, cause: str) -> None:
    streams = {"A": [frame("A", 100 * MS), frame("A", second_ns)], "B": [frame("B", 100 * MS), frame("B", 133 * MS)]}
    sets = group(streams, SyncSettings())
    assert [next(sets).missing, next(sets).missing] == [(), ("A",)]
    with pytest.raises(DepthcellError, match=f"camera A.*{cause}") as caught:
        next(sets)
    assert caught.value.reason is Reason.RECORDING_DAMAGED


def test_a_damaged_stream_ends_there_and_its_error_comes_last() -> None:
    def damaged() -> Iterator[CameraFrame]:
        yield from (frame("A", k * PERIOD_NS) for k in range(3))
        raise DepthcellError("A.db3: damaged at byte 4096", Reason.RECORDING_DAMAGED)

    sets = group({"A": damaged(), "B": [frame("B", k * PERIOD_NS) for k in range(5)]}, SyncSettings())
    collected = [next(sets) for _ in range(5)]
    assert [each.missing for each in collected] == [(), (), (), ("A",), ("A",)]
    with pytest.raises(DepthcellError, match="byte 4096"):
        next(sets)


def test_cameras_with_and_without_arrival_times_are_not_mixed() -> None:
    streams = {"A": [frame("A", 0, 0, EPOCH_NS)], "B": [frame("B", 0)]}
    with pytest.raises(DepthcellError, match="camera B: its frames lack"):
        list(group(streams, SyncSettings()))


def test_live_a_silent_camera_holds_nothing_up_and_may_come_back() -> None:
    rig = Synchronizer(("A", "B"), SyncSettings())
    assert rig.push(frame("A", 0)) == []
    assert rig.waiting_for == ("B",)
    (alone,) = rig.end("B")
    assert alone.missing == ("B",)
    assert [each.missing for each in rig.push(frame("A", PERIOD_NS))] == [("B",)]
    assert rig.push(frame("B", 2 * PERIOD_NS)) == []
    (together,) = rig.push(frame("A", 2 * PERIOD_NS))
    assert alone.timestamp_ns < together.timestamp_ns
    assert together.is_complete


def test_an_unknown_camera_and_senseless_settings_are_refused_by_name() -> None:
    with pytest.raises(DepthcellError, match="camera X: gave a frame"):
        Synchronizer(("A",), SyncSettings()).push(frame("X", 0))
    with pytest.raises(DepthcellError, match=r"sync\.tolerance_ns"):
        SyncSettings(tolerance_ns=0)
