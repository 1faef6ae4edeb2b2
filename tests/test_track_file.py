"""Track files: read as written, refused with file and line."""

from pathlib import Path

import numpy as np
import pytest

from depthcell.errors import DepthcellError
from depthcell.fusion.track_file import read_track

HEADER = "t_ns,x,y,z,qx,qy,qz,qw\n"
HALF = float(np.sqrt(0.5))
ROWS = (
    "# a robot's poses\n"
    + HEADER
    + f"0,0,0,0.1,0,0,0,1\n\n10000000,0.01,0,0.1,0,0,{HALF:.9f},{HALF:.9f}\n20000000,0.02,0,0.1,0,0,1,0\n"
)
ENCODER = """
time_offset_ms = 4.0
[encoder]
file = "counts.csv"
kind = "{kind}"
direction_cell = [0, 0, 2]
counts_per = 50
{point}
[encoder.start]
count = 100
translation_mm = [10, 0, 5]
[uncertainty]
translation_mm = 0.03
time_ms = 0.5
relative = 1e-3
[volume]
min_mm = [-1, -2, -3]
max_mm = [1, 2, 3]
"""


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def encoder(folder: Path, kind: str, point: str = "") -> Path:
    written(folder / "counts.csv", "t_ns,count\n0,100\n10000000,150\n20000000,200\n")
    return written(folder / "track.toml", ENCODER.format(kind=kind, point=point))


def test_a_table_of_poses_is_read(tmp_path: Path) -> None:
    described = read_track(written(tmp_path / "poses.csv", ROWS))
    assert described.box_m is None
    assert described.track.times_ns.tolist() == [0, 10_000_000, 20_000_000]
    pose = described.track.pose(10_000_000)
    np.testing.assert_allclose(pose.translation_m, [0.01, 0, 0.1])
    np.testing.assert_allclose(pose.rotation_vector_rad, [0, 0, np.pi / 2], atol=1e-8)


def test_poses_of_a_moving_camera_are_inverted(tmp_path: Path) -> None:
    written(tmp_path / "poses.csv", ROWS)
    text = '[trajectory]\nfile = "poses.csv"\nmoving = "camera"\n[uncertainty]\nrotation_deg = 0.1\n'
    track = read_track(written(tmp_path / "t.toml", text)).track
    still = read_track(tmp_path / "poses.csv").track
    np.testing.assert_allclose(track.pose(12_000_000).matrix, still.pose(12_000_000).inverse().matrix, atol=1e-9)
    assert track.is_rig_moving
    assert track.uncertainty.rotation_rad == pytest.approx(np.radians(0.1))


def test_a_conveyor_moves_along_its_direction(tmp_path: Path) -> None:
    described = read_track(encoder(tmp_path, "conveyor"))
    track = described.track
    np.testing.assert_allclose(track.pose(-4_000_000).translation_m, [0.010, 0, 0.005])  # the clock's offset
    np.testing.assert_allclose(track.pose(16_000_000).translation_m, [0.010, 0, 0.007])
    np.testing.assert_allclose(track.pose(3_500_000).translation_m, [0.010, 0, 0.00575])
    assert track.uncertainty.translation_m == pytest.approx(np.hypot(3e-5, 1e-3 / 50 / np.sqrt(12)))
    assert (track.uncertainty.time_ns, track.uncertainty.relative) == (5e5, 1e-3)
    assert described.box_m is not None
    np.testing.assert_allclose(described.box_m, [[-1e-3, -2e-3, -3e-3], [1e-3, 2e-3, 3e-3]])


def test_a_turntable_turns_about_its_axis(tmp_path: Path) -> None:
    track = read_track(encoder(tmp_path, "turntable", "point_cell_mm = [0, 0, 99]")).track
    pose = track.pose(16_000_000)
    np.testing.assert_allclose(np.degrees(pose.rotation_vector_rad), [0, 0, 2], atol=1e-9)
    turned = 0.010 * np.array([np.cos(np.radians(2)), np.sin(np.radians(2)), 0.5])
    np.testing.assert_allclose(pose.translation_m, turned, atol=1e-12)
    assert track.uncertainty.rotation_rad == pytest.approx(np.radians(1 / 50 / np.sqrt(12)))
    assert track.pivot_cell is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t,x\n", r"line 1: columns must be t_ns,x,y,z,qx,qy,qz,qw, got t,x"),
        (HEADER + "0,0,0,0,0,0,0,1\n5,0,0,0,0,0,1\n", r"line 3: holds 7 values, 8 are needed"),
        (HEADER + "0,0,0,0,0,0,0,1\n# later\n5,0,0,zero,0,0,0,1\n", r"line 4: z 'zero' is no number"),
        (HEADER + "0,0,nan,0,0,0,0,1\n", r"line 2: y is nan; leave out poses"),
        (HEADER + "0.5,0,0,0,0,0,0,1\n", r"line 2: t_ns '0.5' is no whole number"),
        (HEADER + "5,0,0,0,0,0,0,1\n5,0,0,0,0,0,0,1\n", r"line 3: t_ns 5 does not come after 5; sort"),
        (HEADER + "0,0,0,0,0,0,0,1\n5,0,0,0,0,0,0,1.01\n", r"line 3: quaternion has length 1.01, not 1"),
        (HEADER + "0,0,0,0,0,0,0,0\n5,0,0,0,0,0,0,1\n", r"line 2: quaternion has length 0"),
        (HEADER + "0,0,0,0,0,0,0,1\n", r"holds 1 rows; a motion needs two"),
        (HEADER + "".join(f"{t},0,0,0,0,0,0,1\n" for t in (0, 1, 2, 3, 40)), r"line 6: comes .* rows are missing"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DepthcellError, match=r"track .*poses.csv.*" + message) as refused:
        read_track(written(tmp_path / "poses.csv", text))
    assert "\n" not in str(refused.value)


def test_small_rounding_of_a_quaternion_is_made_good(tmp_path: Path) -> None:
    track = read_track(written(tmp_path / "p.csv", HEADER + "0,0,0,0,0,0,0,1.0005\n5,0,0,0,0,0,0,1\n")).track
    np.testing.assert_allclose(track.pose(0).rotation, np.eye(3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"needs either \[trajectory\] or \[encoder\]"),
        ("[trajectory]\nfile = 'a.csv'\nmoving = 'robot'\n", r"robot.*trajectory.moving"),
        ("[trajectory]\nfile = 'a.csv'\nspeed = 3\n", r"unknown field `speed`.*trajectory"),
        ("[trajectory]\nfile = 'absent.csv'\n", r"absent.csv: cannot be read"),
        ("not toml", r"track.toml: "),
        ("[uncertainty]\ntranslation_mm = -1\n", r">= 0.*uncertainty.translation_mm"),
    ],
)
def test_a_bad_description_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DepthcellError, match=message) as refused:
        read_track(written(tmp_path / "track.toml", text))
    assert "\n" not in str(refused.value)


def test_a_turntable_without_axis_and_a_direction_without_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DepthcellError, match=r"encoder\.point_cell_mm is missing"):
        read_track(encoder(tmp_path, "turntable"))
    path = encoder(tmp_path, "conveyor")
    path.write_text(path.read_text().replace("[0, 0, 2]", "[0, 0, 0]"))
    with pytest.raises(DepthcellError, match=r"direction_cell must have a length"):
        read_track(path)


def test_other_endings_and_absent_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DepthcellError, match=r"must end in .csv \(poses\) or .toml"):
        read_track(written(tmp_path / "track.txt", ""))
    for name in ("absent.csv", "absent.toml"):
        with pytest.raises(DepthcellError, match=r"absent.* cannot be read"):
            read_track(tmp_path / name)
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DepthcellError, match="is no text"):
        read_track(tmp_path / "bytes.csv")
