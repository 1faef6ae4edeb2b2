"""The live camera, on the SDK's software device and through the same code as on USB."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from depthcell.acquisition.camera import RealSenseCamera
from depthcell.acquisition.camerasettings import CameraSettings, SyncRole
from depthcell.acquisition.devicesource import ConnectedDevices
from depthcell.acquisition.liverig import live_framesets
from depthcell.acquisition.recordedframe import StreamKind
from depthcell.acquisition.sdk import realsense
from depthcell.acquisition.simulator.softwarecamera import PERIOD_NS, SMALL, SoftwareBus, SoftwareCamera
from depthcell.acquisition.synchronizer import SyncSettings
from depthcell.errors import DepthcellError, Reason

SETTINGS = CameraSettings("A", SMALL, SMALL, silent_after_s=5.0, lost_after_s=60.0)


def capture_until(camera: RealSenseCamera, is_open: bool) -> None:
    """Capture nothing until the camera has been closed, or opened again."""
    while camera.is_open is not is_open:
        assert not camera.capture(0.05)


def fail_to_capture(camera: RealSenseCamera) -> None:
    while True:
        assert not camera.capture(0.05)


@pytest.fixture
def hardware() -> SoftwareCamera:
    return SoftwareCamera("A")


@pytest.fixture
def bus(hardware: SoftwareCamera) -> SoftwareBus:
    return SoftwareBus.of(hardware)


@pytest.fixture
def camera(bus: SoftwareBus) -> Iterator[RealSenseCamera]:
    with RealSenseCamera(SETTINGS, bus) as opened:
        yield opened


def test_a_captured_instant_is_what_the_sensor_sent(camera: RealSenseCamera, hardware: SoftwareCamera) -> None:
    hardware.stereo.set_metadata(realsense().frame_metadata_value.time_of_arrival, 1_760_000_000_123)
    hardware.send(7)
    assert camera.capture()
    frame = camera.read()
    assert (frame.serial, frame.model) == ("A", "Intel RealSense D435")
    assert frame.depth is not None
    assert frame.color is not None
    counts = hardware.depth_counts(7)
    expected = np.where(counts == 0, np.nan, counts * np.float32(0.001)).astype(np.float32)
    np.testing.assert_array_equal(frame.depth.depth_m, expected)
    np.testing.assert_array_equal(frame.color.rgb, hardware.rgb_image(7))
    assert frame.depth.timestamp_ns == frame.color.timestamp_ns == 7 * PERIOD_NS
    assert (frame.depth.number, frame.color.number) == (7, 7)
    assert frame.depth.baseline_m == pytest.approx(0.05)
    assert frame.depth.units_m == pytest.approx(0.001)
    assert frame.depth.intrinsics.fx_px == pytest.approx(0.6 * 64)
    assert frame.metadata["Time Of Arrival"] == 1_760_000_000_123
    # The SDK stores rotations by columns: a point on x of the depth camera lies on y of the colour camera.
    assert frame.T_color_depth is not None
    assert (frame.T_color_depth.target, frame.T_color_depth.source) == ("color:A", "depth:A")
    np.testing.assert_allclose(frame.T_color_depth @ np.array([[1.0, 0.0, 0.0]]), [[0.015, 1.001, 0.002]], atol=1e-6)


def test_all_that_is_read_after_one_capture_is_of_one_instant(
    camera: RealSenseCamera, hardware: SoftwareCamera
) -> None:
    hardware.send(1)
    hardware.send(2)
    assert camera.capture()
    first = camera.read()
    hardware.send(3)
    again = camera.read()
    assert first.depth is not None
    assert again.depth is not None
    np.testing.assert_array_equal(first.depth.depth_m, again.depth.depth_m)
    assert camera.capture()
    second = camera.read().depth
    assert second is not None
    assert second.number == 2


def test_reading_without_a_capture_gives_no_old_instant(camera: RealSenseCamera, hardware: SoftwareCamera) -> None:
    with pytest.raises(DepthcellError, match="nothing was captured"):
        camera.read()
    hardware.send(1)
    assert camera.capture()
    assert not camera.capture(0.01)
    with pytest.raises(DepthcellError, match="nothing was captured"):
        camera.read()


def test_depth_without_its_colour_comes_alone_and_in_order(camera: RealSenseCamera, hardware: SoftwareCamera) -> None:
    hardware.send(1)
    hardware.send_depth(2)
    hardware.send(3)
    hardware.send_color(4)
    hardware.send(5)
    found = []
    while camera.capture(0.05):
        frame = camera.read()
        found.append((frame.depth and frame.depth.number, frame.color and frame.color.number))
    assert found == [(1, 1), (2, None), (3, 3), (None, 4), (5, 5)]


def test_a_stream_that_stays_silent_does_not_hold_up_the_other(
    camera: RealSenseCamera, hardware: SoftwareCamera
) -> None:
    for number in range(6):
        hardware.send_depth(number)
    assert camera.capture(0.05)
    depth = camera.read().depth
    assert depth is not None
    assert depth.number == 0
    assert camera.read().color is None


def test_dropped_frames_are_counted_by_the_cameras_own_numbers(
    camera: RealSenseCamera, hardware: SoftwareCamera
) -> None:
    for number in (1, 2, 5, 6, 0, 1):
        hardware.send(number, time_ns=(number + 100) * PERIOD_NS)
        assert camera.capture()
    depth = camera.tallies[StreamKind.DEPTH]
    assert (depth.received, depth.dropped) == (6, 2)  # 3 and 4; the fall to 0 is a camera that began anew


def test_colour_of_a_d405_comes_from_the_stereo_imagers() -> None:
    hardware = SoftwareCamera("A", model="D405")
    with RealSenseCamera(SETTINGS, SoftwareBus.of(hardware)) as camera:
        hardware.send(3)
        assert camera.capture()
        assert camera.read().color is not None


def test_depth_alone_and_colour_alone() -> None:
    hardware = SoftwareCamera("A")
    for settings, has_depth in ((CameraSettings("A", SMALL, None), True), (CameraSettings("A", None, SMALL), False)):
        with RealSenseCamera(settings, SoftwareBus.of(hardware)) as camera:
            hardware.send_depth(1) if has_depth else hardware.send_color(1)
            assert camera.capture()
            frame = camera.read()
            assert (frame.depth is not None, frame.color is not None) == (has_depth, not has_depth)


def test_construction_touches_no_device(bus: SoftwareBus) -> None:
    RealSenseCamera(SETTINGS, bus)
    assert bus.finds == []


def test_leaving_closes_so_that_it_can_be_opened_again(bus: SoftwareBus, hardware: SoftwareCamera) -> None:
    for number in range(3):
        with RealSenseCamera(SETTINGS, bus) as camera:
            hardware.send(number)
            assert camera.capture()
        assert not camera.is_open


def test_a_camera_that_is_not_there_is_named_with_those_that_are(bus: SoftwareBus) -> None:
    with pytest.raises(DepthcellError, match=r"camera B: not connected \(there are: A\)") as caught:
        RealSenseCamera(CameraSettings("B"), bus).__enter__()
    assert caught.value.reason is Reason.DEVICE_MISSING


def test_a_camera_in_use_is_named(bus: SoftwareBus, camera: RealSenseCamera) -> None:
    with pytest.raises(DepthcellError, match=r"camera A: cannot be opened.*close other programs"):
        RealSenseCamera(SETTINGS, bus).__enter__()
    assert camera.is_open


def test_unplugged_and_plugged_in_again(bus: SoftwareBus, camera: RealSenseCamera, hardware: SoftwareCamera) -> None:
    hardware.send(1)
    assert camera.capture()
    bus.unplug("A")
    capture_until(camera, is_open=False)
    replugged = SoftwareCamera("A")
    bus.plug(replugged)
    capture_until(camera, is_open=True)
    replugged.send(0)
    assert camera.capture()
    frame = camera.read().depth
    assert frame is not None
    np.testing.assert_array_equal(np.nan_to_num(frame.depth_m) == 0, replugged.depth_counts(0) == 0)
    assert camera.tallies[StreamKind.DEPTH].received == 2
    # What was asked of the camera is asked of it again.
    assert replugged.stereo.get_option(realsense().option.global_time_enabled) == 0


def test_waiting_for_a_camera_backs_off(bus: SoftwareBus, camera: RealSenseCamera) -> None:
    bus.unplug("A")
    assert not camera.capture(0.02)
    capture_until(camera, is_open=False)
    assert not camera.capture(0.8)
    # The first wait ends at once, since unplugging was a change; the last is cut off by the timeout.
    assert bus.waits_s[1:-1] == pytest.approx([0.2, 0.4], abs=0.05)


def test_a_camera_that_hangs_is_opened_anew_without_a_reset(bus: SoftwareBus, hardware: SoftwareCamera) -> None:
    with RealSenseCamera(CameraSettings("A", SMALL, SMALL, silent_after_s=0.2), bus) as camera:
        hardware.send(1)
        assert camera.capture()
        capture_until(camera, is_open=False)
        capture_until(camera, is_open=True)
        hardware.send(2)
        assert camera.capture()
        assert camera.tallies[StreamKind.DEPTH].received == 2


def test_a_genlocked_camera_may_wait_for_its_trigger(bus: SoftwareBus, hardware: SoftwareCamera) -> None:
    settings = CameraSettings("A", SMALL, None, SyncRole.GENLOCK, silent_after_s=0.01, lost_after_s=0.02)
    with RealSenseCamera(settings, bus) as camera:
        assert [camera.capture(0.03) for _ in range(3)] == [False] * 3
        assert camera.is_open
        hardware.send_depth(1)
        assert camera.capture()


def test_a_camera_that_stays_away_is_lost_after_the_stated_time(bus: SoftwareBus) -> None:
    settings = CameraSettings("A", SMALL, SMALL, silent_after_s=0.05, lost_after_s=0.2)
    with RealSenseCamera(settings, bus) as camera:
        bus.unplug("A")
        began_s = time.monotonic()
        with pytest.raises(DepthcellError, match="camera A: no frame for") as caught:
            fail_to_capture(camera)
        assert time.monotonic() - began_s > 0.2 - 0.05
    assert caught.value.reason is Reason.DEVICE_LOST


def test_a_camera_that_comes_back_lesser_is_refused_by_what_it_lacks(bus: SoftwareBus, camera: RealSenseCamera) -> None:
    bus.unplug("A")
    capture_until(camera, is_open=False)
    bus.plug(SoftwareCamera("A", type(SMALL)(32, 24, 6)))
    with pytest.raises(DepthcellError, match=r"depth 64x48@30 .* is not offered, but 32x24@6"):
        fail_to_capture(camera)


def test_the_sdk_calling_back_ends_a_wait() -> None:
    devices = ConnectedDevices()
    context: Any = devices._context
    hardware = SoftwareCamera("A")
    threading.Timer(0.05, hardware.device.add_to, [context]).start()
    began_s = time.monotonic()
    devices.wait_for_change(60.0)
    assert time.monotonic() - began_s < 30.0


def test_live_sets_go_on_while_a_camera_is_away() -> None:
    left, right = SoftwareCamera("L"), SoftwareCamera("R")
    bus = SoftwareBus.of(left, right)
    with (
        RealSenseCamera(CameraSettings("L", SMALL, None, silent_after_s=5), bus) as a,
        RealSenseCamera(CameraSettings("R", SMALL, None, silent_after_s=5), bus) as b,
    ):
        sets = live_framesets((a, b), SyncSettings(), timeout_s=0.1)
        left.send_depth(1)
        right.send_depth(1)
        assert next(sets).is_complete
        bus.unplug("R")
        left.send_depth(2)
        assert next(sets).missing == ("R",)
        left.send_depth(3)
        assert next(sets).missing == ("R",)
        back = SoftwareCamera("R")
        bus.plug(back)
        capture_until(b, is_open=False)
        capture_until(b, is_open=True)
        left.send_depth(4)
        back.send_depth(4)
        later = [next(sets)]
        while not later[-1].is_complete:
            later.append(next(sets))
        assert len(later) <= 2


def test_infrared_of_the_left_imager_comes_with_its_depth() -> None:
    hardware = SoftwareCamera("A")
    settings = CameraSettings("A", SMALL, SMALL, silent_after_s=5.0, infrared=SMALL)
    with RealSenseCamera(settings, SoftwareBus.of(hardware)) as camera:
        for number in (1, 2):
            hardware.send(number)
            hardware.send_infrared(number)
        for number in (1, 2):
            assert camera.capture(5.0)
            frame = camera.read()
            assert frame.depth is not None
            assert frame.color is not None
            assert frame.infrared is not None
            assert frame.infrared.timestamp_ns == frame.depth.timestamp_ns
            assert frame.infrared.intrinsics == frame.depth.intrinsics
            np.testing.assert_array_equal(frame.infrared.intensity, hardware.infrared_image(number))


def test_infrared_that_is_lost_holds_nothing_back() -> None:
    hardware = SoftwareCamera("A")
    settings = CameraSettings("A", SMALL, None, silent_after_s=5.0, infrared=SMALL)
    with RealSenseCamera(settings, SoftwareBus.of(hardware)) as camera:
        for number in range(1, 6):
            hardware.send_depth(number)
        assert camera.capture(5.0)
        assert camera.read().infrared is None


def test_infrared_alone_is_a_stream_like_the_others() -> None:
    hardware = SoftwareCamera("A")
    with RealSenseCamera(CameraSettings("A", None, None, infrared=SMALL), SoftwareBus.of(hardware)) as camera:
        hardware.send_infrared(7)
        assert camera.capture(5.0)
        frame = camera.read()
        assert (frame.depth, frame.color) == (None, None)
        assert frame.timestamp_ns == frame.infrared.timestamp_ns if frame.infrared else False
