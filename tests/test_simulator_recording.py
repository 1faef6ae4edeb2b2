"""Recordings written through the SDK's own recorder: every frame arrives, bit for bit, or no file is left."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.recording import open_recording
from depthcell.acquisition.simulator import recordingwriter
from depthcell.acquisition.simulator.recordingwriter import WrittenDevice, WrittenFrame, write_recording
from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError

SERIAL = "435000007"
DEPTH = Intrinsics(64, 48, 40.5, 40.25, 31.5, 23.0)
COLOR = Intrinsics(80, 60, 55.0, 55.5, 39.0, 29.5, Distortion.INVERSE_BROWN_CONRADY, (0.01, -0.02, 1e-3, -1e-3, 0.0))
T_COLOR_DEPTH = RigidTransform.from_rotation_vector(
    f"color:{SERIAL}", f"depth:{SERIAL}", np.array([0.02, -0.01, 0.03]), np.array([-0.015, 2e-4, -3e-4])
)
DEVICE = WrittenDevice(
    SERIAL, "Intel RealSense D435", DEPTH, COLOR, T_COLOR_DEPTH, 1e-4, 0.05, options={"exposure": 8500.0}
)


def frames(count: int) -> list[WrittenFrame]:
    rng = np.random.default_rng(0)
    return [
        WrittenFrame(
            rng.integers(0, 65535, (48, 64), dtype=np.uint16),
            rng.integers(0, 255, (60, 80, 3), dtype=np.uint8),
            timestamp_ns=5_000_000_000 + number * 33_333_000,
            number=100 + number,
            color_delay_ns=2_000_000,
            metadata={"gain_level": 16 + number},
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("count", [1, 40])
def test_every_frame_comes_back_bit_for_bit(tmp_path: Path, count: int) -> None:
    written = frames(count)
    write_recording(tmp_path / "a.db3", DEVICE, written)
    read = list(open_recording(tmp_path / "a.db3").camera_frames())
    assert len(read) == count
    for frame, original in zip(read, written, strict=True):
        assert frame.depth is not None
        assert frame.color is not None
        counts = np.nan_to_num(frame.depth.depth_m / 1e-4).round().astype(np.uint16)
        np.testing.assert_array_equal(counts, original.depth_counts)
        np.testing.assert_array_equal(frame.color.rgb, original.rgb)
        assert frame.depth.timestamp_ns == original.timestamp_ns
        assert frame.color.timestamp_ns == original.timestamp_ns + 2_000_000
        assert (frame.depth.number, frame.color.number) == (original.number, original.number)
        assert frame.metadata["Gain Level"] == original.metadata["gain_level"]


def test_the_camera_says_of_itself_what_it_was_told(tmp_path: Path) -> None:
    write_recording(tmp_path / "a.db3", DEVICE, frames(2))
    recording = open_recording(tmp_path / "a.db3")
    assert (recording.serial, recording.model) == (SERIAL, "Intel RealSense D435")
    assert recording.depth_units_m == pytest.approx(1e-4)
    assert recording.baseline_m == pytest.approx(0.05)
    assert recording.options[0]["Exposure"] == 8500
    assert recording.T_color_depth is not None
    np.testing.assert_allclose(recording.T_color_depth.matrix, T_COLOR_DEPTH.matrix, atol=1e-6)
    for stream, intrinsics in zip(recording.streams, (DEPTH, COLOR), strict=True):
        assert stream.intrinsics is not None
        assert stream.intrinsics.distortion is intrinsics.distortion
        for name in ("width_px", "height_px", "fx_px", "fy_px", "cx_px", "cy_px", "coefficients"):
            assert getattr(stream.intrinsics, name) == pytest.approx(getattr(intrinsics, name))


def test_a_d405_has_colour_from_its_stereo_sensor(tmp_path: Path) -> None:
    device = dataclasses.replace(DEVICE, color_from_left=True)
    write_recording(tmp_path / "a.db3", device, frames(3))
    recording = open_recording(tmp_path / "a.db3")
    assert list(recording.sensors.values()) == ["Stereo Module"]
    assert [frame.color is not None and frame.depth is not None for frame in recording.camera_frames()] == [True] * 3


def test_a_camera_without_colour(tmp_path: Path) -> None:
    device = dataclasses.replace(DEVICE, color=None, T_color_depth=None)
    write_recording(tmp_path / "a.db3", device, [dataclasses.replace(frame, rgb=None) for frame in frames(3)])
    read = list(open_recording(tmp_path / "a.db3").camera_frames())
    assert [frame.color for frame in read] == [None] * 3


def test_lost_frames_are_seen_and_no_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the count: a recorder that loses the last frame."""
    record = recordingwriter._record
    monkeypatch.setattr(recordingwriter, "_record", lambda path, device, given: record(path, device, given[:-1]))
    with pytest.raises(DepthcellError, match="lost frames 3 times"):
        write_recording(tmp_path / "a.db3", DEVICE, frames(3))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DepthcellError, match=r"a\.bag: the SDK writes \.db3 files only"):
        write_recording(tmp_path / "a.bag", DEVICE, frames(1))
    with pytest.raises(DepthcellError, match="frame 100 has no colour image"):
        write_recording(tmp_path / "a.db3", DEVICE, [dataclasses.replace(frames(1)[0], rgb=None)])
    with pytest.raises(DepthcellError, match="needs T_color_depth"):
        write_recording(tmp_path / "a.db3", dataclasses.replace(DEVICE, T_color_depth=None), frames(1))
    assert list(tmp_path.iterdir()) == []
