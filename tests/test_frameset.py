"""Frames are checked at the border: wrong shapes, invented zeros and unknown cameras do not come in."""

import numpy as np
import pytest

from depthcell.acquisition.frameset import CameraFrame, ColorImage, DepthImage, FrameSet
from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.errors import DepthcellError

SMALL = Intrinsics(4, 3, 5.0, 5.0, 1.5, 1.0)


def depth_image(counts: np.ndarray) -> DepthImage:
    return DepthImage.from_counts(counts.astype(np.uint16), SMALL, 0.0001, timestamp_ns=7)


def camera_frame(serial: str) -> CameraFrame:
    return CameraFrame(serial, "D405", depth_image(np.full((3, 4), 2000)), None)


def test_counts_become_metres_and_zero_becomes_nan() -> None:
    counts = np.full((3, 4), 1234)
    counts[1, 2] = 0
    depth_m = depth_image(counts).depth_m
    assert np.isnan(depth_m[1, 2])
    np.testing.assert_allclose(depth_m[0, 0], 0.1234, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, -0.1, np.inf])
def test_depth_that_cannot_be_is_refused(value: float) -> None:
    depth_m = np.full((3, 4), 0.2, np.float32)
    depth_m[0, 0] = value
    with pytest.raises(DepthcellError, match="'not measured' is NaN"):
        DepthImage(depth_m, SMALL, 0.0001, None, 0, 0)


def test_images_of_another_shape_or_type_are_refused() -> None:
    with pytest.raises(DepthcellError, match="depth_m"):
        depth_image(np.ones((4, 3)))
    with pytest.raises(DepthcellError, match="rgb"):
        ColorImage(np.zeros((3, 4, 3), np.float32), SMALL, 0, 0)  # pyright: ignore[reportArgumentType]


def test_a_frame_without_images_is_refused() -> None:
    with pytest.raises(DepthcellError, match="camera 1"):
        CameraFrame("1", "D405", None, None)


def test_a_missing_camera_is_named() -> None:
    frames = FrameSet({"b": camera_frame("b")}, ("a", "b", "c"))
    assert frames.missing == ("a", "c")
    assert not frames.is_complete
    assert FrameSet({"b": camera_frame("b")}, ("b",)).is_complete


def test_an_unexpected_camera_is_refused() -> None:
    with pytest.raises(DepthcellError, match="camera x"):
        FrameSet({"x": camera_frame("x")}, ("a",))


def test_time_is_the_depth_images() -> None:
    assert camera_frame("a").timestamp_ns == 7
