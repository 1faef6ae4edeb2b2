"""Recordings of every SDK that writes them come back bit for bit, each image once, the same every time."""

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from softwarerecording import (
    BASELINE_MM,
    FIRMWARE,
    MODEL,
    ROTATION,
    SERIAL,
    TRANSLATION_M,
    UNITS_M,
    Plan,
    Written,
    planned_images,
    record,
)

from depthcell.acquisition.intrinsics import Distortion
from depthcell.acquisition.recordedframe import RecordedFrame
from depthcell.acquisition.recording import Recording, open_recording
from depthcell.errors import DepthcellError, Reason
from depthcell.files import sha256_of_file

DATA = Path(__file__).parent / "data"
D435 = DATA / "single_depth_color_640x480.bag"
OLD_SDKS = ["software_sdk257_lz4.bag", "software_sdk257_raw.bag", "software_sdk258_zstd.db3"]
TO_RGB = {"bgr8": cv2.COLOR_BGR2RGB, "rgba8": cv2.COLOR_RGBA2RGB, "bgra8": cv2.COLOR_BGRA2RGB}


@pytest.fixture(scope="module")
def d435() -> Recording:
    return open_recording(D435)


def digest(recording: Recording) -> str:
    """Over everything that frames hold."""
    hasher = hashlib.sha256()
    for frame in recording.frames():
        facts = (frame.stream.name, frame.timestamp_ns, frame.timestamp_domain, frame.system_time_ns)
        more = (frame.recorded_ns, frame.number, sorted(frame.metadata.items()), frame.units_m, frame.offset)
        hasher.update(repr((facts, more)).encode() + frame.pixels.tobytes())
    return hasher.hexdigest()


def assert_same_images(frames: list[RecordedFrame], images: list[Written]) -> None:
    """In each stream, the frames are the images, in their order; streams may run into each other as recorded."""
    for kind in {image.kind for image in images}:
        found = [frame for frame in frames if frame.stream.kind == kind]
        played = [image for image in images if image.kind == kind]
        assert [frame.number for frame in found] == [image.number for image in played]
        for frame, image in zip(found, played, strict=True):
            np.testing.assert_array_equal(frame.pixels, as_read(image.pixels, frame.stream.format))
            assert frame.timestamp_ns == round(image.timestamp_ms * 1e6)
    assert len(frames) == len(images)


def as_read(pixels: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    return pixels if name not in TO_RGB else np.asarray(cv2.cvtColor(pixels, TO_RGB[name]), np.uint8)


def test_d435_says_who_it_is(d435: Recording) -> None:
    assert (d435.serial, d435.model, d435.firmware) == ("728612070259", "Intel RealSense D435", "05.09.14.00")
    assert d435.info["Product Id"] == "0B07"
    assert d435.file_version == 3
    assert d435.sensors == {0: "Stereo Module", 1: "RGB Camera"}
    assert d435.depth_units_m == 0.001
    assert d435.baseline_m == pytest.approx(0.050170666, abs=1e-9)
    assert d435.options[0]["Laser Power"] == 150.0
    assert d435.options[1]["White Balance"] == 4600.0
    assert d435.sha256 == sha256_of_file(D435)


def test_d435_streams_have_their_intrinsics(d435: Recording) -> None:
    depth, color = d435.streams
    assert (depth.name, depth.format, depth.fps, color.name, color.format) == ("depth", "z16", 6, "color", "rgb8")
    assert depth.intrinsics is not None
    assert color.intrinsics is not None
    assert (depth.intrinsics.fx_px, depth.intrinsics.cx_px) == pytest.approx((390.43, 331.39), abs=0.005)
    assert (color.intrinsics.fx_px, color.intrinsics.fy_px) == pytest.approx((613.20, 613.42), abs=0.005)
    assert not depth.intrinsics.is_distorted


def test_d435_frames_carry_what_was_recorded_with_them(d435: Recording) -> None:
    frames = list(d435.frames())
    assert [(frame.stream.name, frame.number) for frame in frames] == [("depth", 169), ("color", 162), ("depth", 170)]
    first, color, _ = frames
    assert first.pixels.shape == (480, 640)
    assert first.pixels.dtype == np.uint16
    assert color.pixels.shape == (480, 640, 3)
    assert (first.timestamp_ns, first.timestamp_domain) == (360_815_089_000, "Hardware Clock")
    assert first.system_time_ns == 1_534_232_519_732_935_547
    assert (first.recorded_ns, color.recorded_ns) == (1500, 54_424_400)
    assert first.metadata["Actual Exposure"] == 6452
    assert first.metadata["Frame Laser Power"] == 150
    assert first.metadata["Time Of Arrival"] == 1_534_232_519_732
    assert color.metadata["Manual White Balance"] == 4600
    assert not first.pixels.flags.writeable


def test_d435_frames_become_camera_frames_none_dropped(d435: Recording) -> None:
    frames = list(d435.camera_frames())
    # The colour image is 101.6 ms older than the next depth image, more than half a period at 6 frames/s.
    assert [(frame.depth is not None, frame.color is not None) for frame in frames] == [
        (False, True),
        (True, False),
        (True, False),
    ]
    depth = frames[1].depth
    assert depth is not None
    assert (depth.units_m, depth.baseline_m) == (0.001, d435.baseline_m)
    assert np.isnan(depth.depth_m[next(d435.frames()).pixels == 0]).all()
    assert 0.3 < np.nanmedian(depth.depth_m) < 5.0
    paired = list(d435.camera_frames(tolerance_ns=110_000_000))
    assert [(frame.depth is not None, frame.color is not None) for frame in paired] == [(True, True), (True, False)]
    assert paired[0].metadata["Gain Level"] == 16
    assert paired[0].metadata["color:Gain Level"] == 64


@pytest.mark.parametrize("name", OLD_SDKS)
def test_older_sdks_recordings_come_back_bit_for_bit(name: str) -> None:
    assert_same_images(list(open_recording(DATA / name).frames()), planned_images(Plan()))


@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize("color", ["rgb8", "bgr8", "rgba8", "bgra8", "y8", "y16"])
def test_formats_come_back_bit_for_bit(tmp_path: Path, color: str, is_packed: bool) -> None:
    plan = Plan(color=color, infrared="y8" if color == "rgb8" else "y16", is_packed=is_packed)
    images = record(tmp_path / "r.db3", plan)
    assert_same_images(list(open_recording(tmp_path / "r.db3").frames()), images)


@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize(("name", "luma", "blue", "red"), [("yuyv", 0, 1, 3), ("uyvy", 1, 0, 2)])
def test_yuv_becomes_rgb(tmp_path: Path, name: str, luma: int, blue: int, red: int, is_packed: bool) -> None:
    """Against ITU-R BT.601 in its studio range, written out; rounding may differ by one."""
    (image,) = (
        i for i in record(tmp_path / "r.db3", Plan(color=name, frames=1, is_packed=is_packed)) if i.kind == "color"
    )
    (frame,) = (f for f in open_recording(tmp_path / "r.db3").frames() if f.stream.kind == "color")
    pairs = image.pixels.reshape(24, 16, 4).astype(float)
    y = (pairs[..., luma::2].reshape(24, 32).clip(16) - 16) * 255 / 219
    u, v = ((pairs[..., place] - 128).repeat(2, axis=1) for place in (blue, red))
    rgb = np.stack((y + 1.596 * v, y - 0.813 * v - 0.392 * u, y + 2.017 * u), axis=-1).clip(0, 255)
    assert frame.stream.format == name
    np.testing.assert_allclose(frame.pixels, rgb, atol=1.5)


def test_both_formats_say_the_same(tmp_path: Path) -> None:
    """The two spellings of options, intrinsics and extrinsics mean the same numbers."""
    record(tmp_path / "new.db3", Plan())
    new = open_recording(tmp_path / "new.db3")
    for old in (open_recording(DATA / name) for name in OLD_SDKS):
        assert (
            (old.serial, old.model, old.firmware) == (new.serial, new.model, new.firmware) == (SERIAL, MODEL, FIRMWARE)
        )
        assert old.streams == new.streams
        assert old.options == new.options
        assert (old.depth_units_m, old.baseline_m) == (UNITS_M, BASELINE_MM / 1e3)
        assert old.T_color_depth is not None
        assert new.T_color_depth is not None
        np.testing.assert_allclose(old.T_color_depth.matrix, new.T_color_depth.matrix, atol=1e-6)
        for before, after in zip(old.frames(), new.frames(), strict=True):
            assert before.units_m == after.units_m == UNITS_M or before.stream.kind == "color"
            assert before.metadata["Actual Exposure"] == after.metadata["Actual Exposure"]
    lens = new.streams[0].intrinsics
    assert lens is not None
    assert lens.distortion is Distortion.BROWN_CONRADY
    assert lens.coefficients == tuple(float(np.float32(value)) for value in (0.01, -0.02, 0.003, 0.004, -0.005))


@pytest.mark.parametrize("name", OLD_SDKS)
def test_extrinsics_lead_from_depth_to_color(name: str) -> None:
    T_color_depth = open_recording(DATA / name).T_color_depth
    assert T_color_depth is not None
    assert (T_color_depth.target, T_color_depth.source) == (f"color:{SERIAL}", f"depth:{SERIAL}")
    np.testing.assert_allclose(T_color_depth.rotation, ROTATION, atol=1e-6)
    np.testing.assert_allclose(T_color_depth.translation_m, TRANSLATION_M, atol=1e-6)
    # Had rows and columns, or the direction, been mixed up, this test would tell.
    assert np.abs(T_color_depth.rotation - ROTATION.T).max() > 0.5
    assert np.abs(T_color_depth.inverse().translation_m - TRANSLATION_M).max() > 0.005


def test_the_same_a_hundred_times_out_of_a_hundred(tmp_path: Path) -> None:
    record(tmp_path / "r.db3", Plan(infrared="y8"))
    for path in (tmp_path / "r.db3", DATA / "software_sdk257_lz4.bag"):
        assert len({digest(open_recording(path)) for _ in range(100)}) == 1


def test_depth_alone_and_delayed_color_pair_as_they_should(tmp_path: Path) -> None:
    record(tmp_path / "depth.db3", Plan(color=None))
    alone = list(open_recording(tmp_path / "depth.db3").camera_frames())
    assert [frame.color for frame in alone] == [None] * 5
    assert alone[0].T_color_depth is None
    record(tmp_path / "late.db3", Plan(color_delay_ms=15.0))
    late = list(open_recording(tmp_path / "late.db3").camera_frames())
    assert len(late) == 5
    assert all(frame.depth is not None and frame.color is not None for frame in late)
    strict = list(open_recording(tmp_path / "late.db3").camera_frames(tolerance_ns=14_000_000))
    assert len(strict) == 10


def test_infrared_stays_out_of_camera_frames(tmp_path: Path) -> None:
    record(tmp_path / "r.db3", Plan(infrared="y8"))
    assert len(list(open_recording(tmp_path / "r.db3").camera_frames())) == 5


def test_color_without_colors_is_refused_as_a_camera_frame(tmp_path: Path) -> None:
    record(tmp_path / "r.db3", Plan(color="y8"))
    with pytest.raises(DepthcellError, match="y8 colour") as refusal:
        list(open_recording(tmp_path / "r.db3").camera_frames())
    assert refusal.value.reason is Reason.RECORDING_UNSUPPORTED


def test_a_generator_left_halfway_closes_its_file(tmp_path: Path) -> None:
    record(tmp_path / "r.db3", Plan())
    frames = open_recording(tmp_path / "r.db3").frames()
    assert next(iter(frames)).number == 7
    del frames  # an open file would be a ResourceWarning, and warnings are errors here


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DepthcellError, match=r"neither suffix \.db3 nor \.bag"):
        open_recording(tmp_path / "r.mp4")
    with pytest.raises(DepthcellError, match=r"absent\.bag: cannot be read"):
        open_recording(tmp_path / "absent.bag")
    (tmp_path / "folder.db3").mkdir()
    with pytest.raises(DepthcellError, match="cannot be read"):
        open_recording(tmp_path / "folder.db3")


def test_plans_differ_by_their_seed() -> None:
    """The oracle itself: different plans hold different images."""
    first, other = planned_images(Plan())[0], planned_images(replace(Plan(), seed=1))[0]
    assert not np.array_equal(first.pixels, other.pixels)
