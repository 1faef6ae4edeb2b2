"""The pinhole camera against OpenCV's and librealsense's own projection, and its round trips."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.sdk import realsense
from depthcell.errors import DepthcellError

COEFFICIENTS = (-0.12, 0.05, 0.001, -0.0007, 0.01)
MORE = (0.02, -0.01, 0.003, 0.002, -0.001, 0.0015, 0.0004)
OF_THE_SDK = [model for model in Distortion if model not in {Distortion.RATIONAL, Distortion.THIN_PRISM}]
POINTS = arrays(np.float64, (20, 3), elements=st.floats(-0.4, 0.4)).map(lambda p: p + np.array([0.0, 0.0, 1.0]))


def camera(distortion: Distortion) -> Intrinsics:
    return Intrinsics(
        848, 480, 433.0, 431.5, 421.7, 238.2, distortion, (*COEFFICIENTS, *MORE)[: distortion.coefficient_count]
    )


@pytest.mark.parametrize("distortion", [Distortion.BROWN_CONRADY, Distortion.RATIONAL, Distortion.THIN_PRISM])
@given(points_cam=POINTS)
def test_models_of_opencv_are_opencvs(distortion: Distortion, points_cam: np.ndarray) -> None:
    intrinsics = camera(distortion)
    lens = np.array(intrinsics.coefficients)
    peer, _ = cv2.projectPoints(points_cam, np.zeros(3), np.zeros(3), intrinsics.matrix, lens)
    np.testing.assert_allclose(intrinsics.project(points_cam), peer[:, 0], atol=1e-9)


@pytest.mark.parametrize("distortion", OF_THE_SDK)
@settings(max_examples=30)
@given(points_cam=POINTS)
def test_projection_is_librealsenses(distortion: Distortion, points_cam: np.ndarray) -> None:
    rs = realsense()
    theirs, ours = rs.intrinsics(), camera(distortion)
    theirs.width, theirs.height = ours.width_px, ours.height_px
    theirs.fx, theirs.fy, theirs.ppx, theirs.ppy = ours.fx_px, ours.fy_px, ours.cx_px, ours.cy_px
    theirs.model, theirs.coeffs = getattr(rs.distortion, distortion.value), list(COEFFICIENTS)
    peer = [rs.rs2_project_point_to_pixel(theirs, list(point)) for point in points_cam]
    np.testing.assert_allclose(ours.project(points_cam), peer, atol=2e-4)  # librealsense is float32


@pytest.mark.parametrize("distortion", OF_THE_SDK)
@settings(max_examples=30)
@given(points_cam=POINTS)
def test_projection_and_deprojection_undo_each_other(distortion: Distortion, points_cam: np.ndarray) -> None:
    intrinsics = camera(distortion)
    ideal = intrinsics.normalized(intrinsics.project(points_cam))
    np.testing.assert_allclose(ideal, points_cam[:, :2] / points_cam[:, 2:], atol=1e-8)


def test_points_behind_the_camera_have_no_pixel() -> None:
    pixels = camera(Distortion.NONE).project(np.array([[0.0, 0.0, -1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    assert np.isnan(pixels[:2]).all()
    np.testing.assert_allclose(pixels[2], (421.7, 238.2))


def test_deprojection_keeps_z_and_marks_the_unmeasured() -> None:
    intrinsics = camera(Distortion.BROWN_CONRADY)
    depth_m = np.full((480, 848), 0.2, np.float32)
    depth_m[10, 20] = np.nan
    points = intrinsics.deproject(depth_m)
    assert np.isnan(points[10, 20]).all()
    assert np.isnan(points).sum() == 3
    np.testing.assert_allclose(points[11, 21, 2], 0.2)
    np.testing.assert_allclose(intrinsics.project(points[400, 700]), (700, 400), atol=1e-3)


def test_a_depth_image_of_another_size_is_refused() -> None:
    with pytest.raises(DepthcellError, match="does not fit"):
        camera(Distortion.NONE).deproject(np.ones((480, 640), np.float32))


@pytest.mark.parametrize(("field", "value"), [("width_px", 0), ("fx_px", -1.0), ("fy_px", float("nan"))])
def test_impossible_intrinsics_are_refused_by_name(field: str, value: float) -> None:
    fields = {"width_px": 4, "height_px": 3, "fx_px": 5.0, "fy_px": 5.0, "cx_px": 2.0, "cy_px": 1.0} | {field: value}
    with pytest.raises(DepthcellError, match=field):
        Intrinsics(**fields)  # type: ignore[arg-type]
