"""The genuine D435 recording, from file to cloud: a room corner with a whiteboard, a wall and a shelf."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from depthcell.acquisition.partfolder import find_parts
from depthcell.acquisition.recording import open_recording
from depthcell.calib.factory import factory_cell
from depthcell.fusion.fuse import FusedPart, fuse
from depthcell.fusion.view import View

BAG = Path(__file__).parent / "data" / "single_depth_color_640x480.bag"


@pytest.fixture(scope="module")
def fused() -> FusedPart:
    cell = factory_cell(open_recording(BAG).camera_frames())
    return fuse(find_parts(BAG)[0].framesets(), cell)


@pytest.fixture(scope="module")
def view(fused: FusedPart) -> View:
    return fused.views[0]


PLAYER = """
import os, sys
import numpy as np
from depthcell.acquisition.sdk import realsense
rs = realsense()
pipeline, config = rs.pipeline(), rs.config()
config.enable_device_from_file(sys.argv[1], repeat_playback=False)
config.enable_stream(rs.stream.depth)
pipeline.start(config).get_device().as_playback().set_real_time(False)
arrived, frames = pipeline.try_wait_for_frames(5000)
clouds = []
while arrived:
    depth = frames.get_depth_frame()
    points = np.asarray(rs.pointcloud().calculate(depth).get_vertices()).view(np.float32)
    clouds.append(points.reshape(depth.get_height(), depth.get_width(), 3).copy())
    arrived, frames = pipeline.try_wait_for_frames(500)
np.save(sys.argv[2], np.array(clouds))
os._exit(0)
"""
"""A process of its own, since the SDK's playback can hang."""


def test_points_are_where_the_vendor_puts_them(tmp_path: Path) -> None:
    """Against `rs.pointcloud` on the same frames."""
    played = tmp_path / "clouds.npy"
    subprocess.run([sys.executable, "-c", PLAYER, str(BAG), str(played)], check=True, timeout=60)
    theirs = np.load(played)
    assert len(theirs) >= 1  # the playback may drop the first of the two
    theirs[theirs[..., 2] == 0] = np.nan
    ours = [
        frame.depth.intrinsics.deproject(frame.depth.depth_m)
        for frame in open_recording(BAG).camera_frames()
        if frame.depth is not None
    ]
    for cloud in theirs:
        same = [own for own in ours if np.array_equal(own[..., 2], cloud[..., 2], equal_nan=True)]
        assert len(same) == 1
        np.testing.assert_allclose(same[0], cloud, atol=2e-6, equal_nan=True)


def test_as_many_points_as_the_sensor_measured_away_from_edges(fused: FusedPart, view: View) -> None:
    measured = [
        np.isfinite(frame.depth.depth_m) for frame in open_recording(BAG).camera_frames() if frame.depth is not None
    ]
    assert [int(each.sum()) for each in measured] == [286520, 286603]
    assert not view.valid[~(measured[0] | measured[1])].any()
    # 7 % lie within 3 px of a jump or of a hole.
    assert 0.90 < view.valid.sum() / 286520 < 0.95
    assert len(fused.cloud) == view.valid.sum()
    assert view.frames == 2
    assert fused.missing == ()


def test_colour_covers_what_the_colour_camera_sees(view: View) -> None:
    """The colour camera's field is 55° x 43°, the depth camera's 79° x 63°: it covers two fifths of the depth image."""
    assert 0.37 < view.colored.sum() / view.valid.sum() < 0.45
    rows, columns = np.nonzero(view.colored)
    assert (rows.min(), rows.max()) == (pytest.approx(89, abs=5), pytest.approx(398, abs=5))
    assert (columns.min(), columns.max()) == (pytest.approx(118, abs=5), pytest.approx(522, abs=8))
    wall = view.colors[120:200, 150:300][view.colored[120:200, 150:300]].mean(axis=0)
    assert wall[0] > wall[1] > wall[2] > 80  # a beige wall


def fitted_plane(view: View, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normal, residuals along it, and stated random uncertainty of the points in a rectangle of the image."""
    valid = view.valid[rows, columns]
    points = view.points_cell[rows, columns][valid].astype(np.float64)
    sigma_m = view.random_sigma_m[rows, columns][valid].astype(np.float64)
    weight = 1 / sigma_m**2
    centre = weight @ points / weight.sum()
    normal = np.linalg.svd((points - centre) / sigma_m[:, None], full_matrices=False)[2][2]
    normal = -normal * np.sign(normal @ centre)
    return normal, (points - centre) @ normal, sigma_m


def test_the_wall_is_flat_within_its_stated_noise(view: View) -> None:
    """1.8 m away, where a D435 scatters by 0.15 px / sqrt(2 frames) = 17 mm."""
    normal, residual_m, sigma_m = fitted_plane(view, slice(20, 220), slice(40, 300))
    assert len(residual_m) > 50_000
    assert 0.012 < residual_m.std() < 0.022
    assert 0.8 < (residual_m / sigma_m).std() < 1.4
    assert np.abs(residual_m / sigma_m).max() < 8
    # The camera looks at it nearly head-on.
    assert np.degrees(np.arccos(-normal[2])) == pytest.approx(7.3, abs=1.0)


def test_wall_and_whiteboard_stand_square(view: View) -> None:
    wall, _, _ = fitted_plane(view, slice(20, 220), slice(40, 300))
    rows, columns = slice(300, 450), slice(540, 600)
    board, residual_m, sigma_m = fitted_plane(view, rows, columns)
    assert len(residual_m) > 8000
    assert residual_m.std() < 0.0012  # it is 0.4 m away
    assert 0.8 < (residual_m / sigma_m).std() < 1.3
    assert np.degrees(np.arccos(wall @ board)) == pytest.approx(90, abs=5)
    own = view.normals_cell[rows, columns][view.valid[rows, columns]].mean(axis=0, dtype=np.float64)
    assert np.degrees(np.arccos(own @ board / np.linalg.norm(own))) < 1.5
