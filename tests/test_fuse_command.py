"""The verb `fuse` and its PLY file: read back by open3d, summarised as JSON, refused by name."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from depthcell.acquisition.recording import open_recording
from depthcell.acquisition.sdk import open3d
from depthcell.calib.cell import Cell
from depthcell.calib.factory import factory_cell
from depthcell.cli import main
from depthcell.fusion.cloud_file import write_ply
from depthcell.fusion.partcloud import PartCloud

BAG = Path(__file__).parent / "data" / "single_depth_color_640x480.bag"
D435 = "728612070259"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["fuse", *words])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def small_cloud() -> PartCloud:
    rng = np.random.default_rng(1)
    normals = rng.normal(size=(50, 3))
    return PartCloud(
        points_cell=rng.uniform(-1, 1, (50, 3)),
        normals_cell=(normals / np.linalg.norm(normals, axis=1, keepdims=True)).astype(np.float32),
        colors=rng.integers(0, 256, (50, 3), dtype=np.uint8),
        random_sigma_m=rng.uniform(1e-5, 1e-3, 50).astype(np.float32),
        systematic_sigma_m=rng.uniform(1e-5, 1e-3, 50).astype(np.float32),
        correlation_m=np.full(50, 1e-3, np.float32),
        share=np.tile(np.array([0.25, 0.75], np.float32), (50, 1)),
        camera=rng.integers(0, 2, 50).astype(np.uint8),
        pixel=rng.integers(0, 400, (50, 2)).astype(np.int32),
        serials=("A", "B"),
    )


def test_open3d_reads_back_what_was_written(tmp_path: Path) -> None:
    cloud, path = small_cloud(), tmp_path / "cloud.ply"
    write_ply(path, cloud)
    o3d = open3d()
    plain = o3d.io.read_point_cloud(str(path))
    np.testing.assert_allclose(np.asarray(plain.points), cloud.points_cell, atol=1e-7)
    np.testing.assert_allclose(np.asarray(plain.normals), cloud.normals_cell, atol=1e-7)
    np.testing.assert_array_equal(np.rint(np.asarray(plain.colors) * 255), cloud.colors)
    whole = o3d.t.io.read_point_cloud(str(path)).point
    for name, column in (("random_sigma", cloud.random_sigma_m), ("systematic_sigma", cloud.systematic_sigma_m)):
        np.testing.assert_array_equal(whole[name].numpy().ravel(), column)
    np.testing.assert_array_equal(whole["camera"].numpy().ravel(), cloud.camera)
    np.testing.assert_array_equal(whole["row"].numpy().ravel(), cloud.pixel[:, 0])
    assert b"comment camera 1 B\n" in path.read_bytes()


def test_an_empty_cloud_is_a_file_too(tmp_path: Path) -> None:
    write_ply(tmp_path / "none.ply", small_cloud()[np.zeros(50, np.bool_)])
    assert b"element vertex 0\n" in (tmp_path / "none.ply").read_bytes()


def test_a_recording_without_a_cell_becomes_a_cloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "part.ply"
    code, text, _ = run(capsys, str(BAG), "--out", str(out), "--json")
    assert code == 0
    summary = json.loads(text)
    assert summary["points"] > 250_000
    assert (summary["cameras"], summary["missing"], summary["frames"]) == ([D435], [], 3)
    assert summary["cell"] == f"factory {D435}"
    assert all(1000 < side < 4000 for side in summary["extent_mm"])
    assert 1 < summary["median_random_sigma_mm"] < 20
    assert len(np.asarray(open3d().io.read_point_cloud(str(out)).points)) == summary["points"]


def test_for_people_it_prints_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = run(capsys, str(BAG), "--out", str(tmp_path / "part.ply"), "--frames", "2")
    assert code == 0
    assert f"cell                        factory {D435}" in text
    assert "points" in text
    assert "{" not in text


def test_a_cell_beside_the_recording_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built = factory_cell(open_recording(BAG).camera_frames())
    part = tmp_path / "run" / "part_1"
    part.mkdir(parents=True)
    (part / BAG.name).symlink_to(BAG)
    Cell("ours", built.cameras, built.calibrated_at).save(tmp_path / "run" / "cell.json")
    for source in (part, part.parent):
        code, text, _ = run(capsys, str(source), "--out", str(tmp_path / "part.ply"), "--json", "--frames", "2")
        assert (code, json.loads(text)["cell"]) == (0, "ours")
    named = tmp_path / "named.json"
    Cell("named", built.cameras, built.calibrated_at).save(named)
    _, text, _ = run(
        capsys, str(part), "--cell", str(named), "--out", str(tmp_path / "p.ply"), "--json", "--frames", "2"
    )
    assert json.loads(text)["cell"] == "named"


def test_what_cannot_be_fused_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stranger = factory_cell(
        type(frame)("999", frame.model, frame.depth, None)
        for frame in open_recording(BAG).camera_frames()
        if frame.depth
    )
    Cell("stranger", stranger.cameras, stranger.calibrated_at).save(tmp_path / "stranger.json")
    two = tmp_path / "two"
    for number in (1, 2):
        (two / f"part_{number}").mkdir(parents=True)
        (two / f"part_{number}" / BAG.name).symlink_to(BAG)
    out = ["--out", str(tmp_path / "part.ply")]
    cases = [
        ([str(tmp_path / "absent")], "absent: does not exist"),
        ([str(two)], "holds 2 parts; name one of them, such as"),
        ([str(BAG), "--cell", str(tmp_path / "absent.json")], r"absent.json: cannot be read"),
        ([str(BAG), "--cell", str(tmp_path / "stranger.json")], f"none of the cameras {D435}"),
        ([str(BAG), "--frames", "0"], "--frames"),
    ]
    for words, expected in cases:
        code, text, err = run(capsys, *words, *out)
        assert code == 2
        assert expected in err
        assert len(err.strip().splitlines()) == 1
        assert not text
    assert not (tmp_path / "part.ply").exists()


def test_help_says_what_to_type() -> None:
    words = [sys.executable, "-m", "depthcell", "fuse", "--help"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert "Example: depthcell fuse tests/data/single_depth_color_640x480.bag --out part.ply" in " ".join(
        shown.stdout.split()
    )
