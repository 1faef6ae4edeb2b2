"""A simulated part on a conveyor and on a turntable, from recordings and encoder to a cloud and a mesh on disk."""

import json
from pathlib import Path

import numpy as np
import pytest

from depthcell.acquisition.partfolder import find_parts
from depthcell.acquisition.sdk import open3d
from depthcell.acquisition.simulator.actualpart import draw_part
from depthcell.acquisition.simulator.movingrun import Motion, MotionTruth, simulate_motion
from depthcell.acquisition.simulator.station import StationPlan, Stream, build_station
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.fuse_run import FuseRequest, fuse_to_files
from depthcell.fusion.track_file import read_track
from depthcell.fusion.track_fuse import MotionSettings
from depthcell.fusion.track_time import instant_ns
from depthcell.inspect.simulated_cell import calibrated_cell

PLAN = StationPlan("sheet", "D405", 2, 11, frames=4)


@pytest.fixture(scope="module", params=["conveyor", pytest.param("turntable", marks=pytest.mark.slow)])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("moving") / str(request.param)
    speed = 90.0 if request.param == "conveyor" else 45.0
    simulate_motion(PLAN, Motion(request.param, speed, offset_ms=7.5), place)
    calibrated_cell(build_station(PLAN)).save(place / "cell.json")
    return place


def quiet() -> None:
    pass


def request_of(folder: Path, out: Path, track: str = "track.toml", mesh: Path | None = None) -> FuseRequest:
    return FuseRequest(folder, out, track_path=folder / track, mesh_path=mesh)


def test_encoder_and_trajectory_say_where_the_part_truly_was(folder: Path) -> None:
    truth, track = MotionTruth.load(folder / "truth.json"), read_track(folder / "track.toml").track
    described = (folder / "track.toml").read_text()
    start = described.index("[encoder]")
    end = described.index("[uncertainty]")
    (folder / "poses.toml").write_text(described[:start] + '[trajectory]\nfile = "trajectory.csv"\n' + described[end:])
    exact = read_track(folder / "poses.toml").track
    true_at = {(one.serial, one.timestamp_ns): one.T_cell_part.transform("cell", "part") for one in truth.frames}
    seen = 0
    for frames in find_parts(folder)[0].framesets():
        for serial, frame in frames.frames.items():
            expected = true_at[serial, frame.timestamp_ns]
            for poses, tolerance_m in ((track, 1.5e-5), (exact, 2e-8)):
                pose = poses.pose(instant_ns(frames, frame))
                np.testing.assert_allclose(pose.matrix, expected.matrix, atol=tolerance_m)
            seen += 1
    assert seen == len(truth.frames) == PLAN.cameras * PLAN.frames
    first, last = (true_at[truth.frames[i].serial, truth.frames[i].timestamp_ns] for i in (0, PLAN.frames - 1))
    assert np.abs((first.inverse() @ last).matrix - np.eye(4)).max() > 5e-3


def test_the_fused_part_is_the_true_one(folder: Path, tmp_path: Path) -> None:
    out, mesh = tmp_path / "part.ply", tmp_path / "part.stl"
    said = fuse_to_files(request_of(folder, out, mesh=mesh), quiet)
    assert json.loads(json.dumps(said))["frames"] == 8
    assert said["warnings"] == ["part.stl: STL holds no uncertainty; write .ply to keep it"]
    o3d = open3d()
    cloud = o3d.t.io.read_point_cloud(str(out)).point
    points = np.asarray(cloud["positions"].numpy(), dtype=np.float64)
    assert len(points) == said["points"]
    assert len(points) > 3000
    part = draw_part(build_station(PLAN), (), PLAN.generator(Stream.LINE, 1, 0))
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(part.mesh.vertices_m.astype(np.float32), part.mesh.triangles.astype(np.uint32))
    pose = read_track(folder / "track.toml").track.pose(_middle_ns(folder))
    deviation_m = scene.compute_signed_distance(
        o3d.core.Tensor((pose.inverse() @ points).astype(np.float32)), nsamples=3
    ).numpy()
    sigma_m = np.hypot(cloud["random_sigma"].numpy(), cloud["systematic_sigma"].numpy()).ravel()
    flat = np.abs(cloud["normals"].numpy()[:, 2]) > 0.95
    assert np.abs(np.median(deviation_m[flat])) < 2.5 * np.median(sigma_m)
    assert np.quantile(np.abs(deviation_m[flat] / sigma_m[flat]), 0.9) < 3.5
    triangles = o3d.io.read_triangle_mesh(str(mesh))
    assert len(triangles.triangles) == said["triangles"]
    assert len(triangles.triangles) > 5000
    np.testing.assert_allclose(np.asarray(triangles.vertices).mean(axis=0) / 1e3, points.mean(axis=0), atol=3e-3)


def _middle_ns(folder: Path) -> int:
    times = sorted(f.timestamp_ns for s in find_parts(folder)[0].framesets() for f in s.frames.values())
    return times[len(times) // 2]


def test_a_bare_trajectory_takes_its_volume_from_the_data(folder: Path, tmp_path: Path) -> None:
    text = (folder / "trajectory.csv").read_text().splitlines()
    rows = [f"{int(row.split(',', 1)[0]) - 7_500_000},{row.split(',', 1)[1]}" for row in text[1:]]
    (folder / "shifted.csv").write_text("\n".join([text[0], *rows]) + "\n")
    request = FuseRequest(
        folder,
        tmp_path / "part.pcd",
        track_path=folder / "shifted.csv",
        frames=2,
        motion=MotionSettings(voxel_m=4e-3),
    )
    said = fuse_to_files(request, quiet)
    warnings = said["warnings"]
    assert isinstance(warnings, list)
    assert any("names no volume" in words for words in warnings)
    assert any("states no uncertainty" in words for words in warnings)
    assert said["frames"] == 4


def test_a_track_of_another_clock_or_too_short_is_refused(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "trajectory.csv").read_text().splitlines()
    (folder / "other.csv").write_text("\n".join([lines[0], *(f"9{line}" for line in lines[1:])]) + "\n")
    (folder / "short.csv").write_text("\n".join(lines[: len(lines) // 2]) + "\n")
    for name, message in (("other.csv", "share no frame"), ("short.csv", r"of 8 frames lie outside")):
        with pytest.raises(DepthcellError, match=f"track {name}: runs from .*{message}"):
            fuse_to_files(request_of(folder, tmp_path / "part.ply", name), quiet)
    assert not (tmp_path / "part.ply").exists()


def test_unknown_endings_are_refused_before_any_work(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    for out, mesh, message in (
        ("part.xyz", None, r"part.xyz: its ending '.xyz' .*\.ply, \.pcd, \.e57, \.stl"),
        ("part.ply", "part.obj", r"part.obj: its ending '.obj' .*\.stl, \.ply"),
        ("part.ply", "part.ply", "cannot share a file"),
    ):
        request = FuseRequest(absent, tmp_path / out, mesh_path=None if mesh is None else tmp_path / mesh)
        with pytest.raises(DepthcellError, match=message):
            fuse_to_files(request, quiet)


def test_motions_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for words, message in (
        ({"kind": "sledge", "speed": 1.0}, "choose conveyor or turntable"),
        ({"kind": "conveyor", "speed": 0.0}, "speed must be"),
        ({"kind": "conveyor", "speed": float("nan")}, "speed must be"),
        ({"kind": "turntable", "speed": 1.0, "counts_per": 0.0}, "counts_per must be positive"),
    ):
        with pytest.raises(DepthcellError, match=message):
            Motion(**words)  # type: ignore[arg-type]
    with pytest.raises(DepthcellError, match="cannot be read"):
        MotionTruth.load(tmp_path / "truth.json")
    (tmp_path / "truth.json").write_text("{}")
    with pytest.raises(DepthcellError, match="simulate it again"):
        MotionTruth.load(tmp_path / "truth.json")


def test_a_resting_part_gets_a_mesh_too(tmp_path: Path) -> None:
    bag = Path(__file__).parent / "data" / "single_depth_color_640x480.bag"
    request = FuseRequest(bag, tmp_path / "room.ply", mesh_path=tmp_path / "mesh.ply", motion=MotionSettings(0.01))
    said = fuse_to_files(request, quiet)
    assert said["triangles"] == len(open3d().io.read_triangle_mesh(str(tmp_path / "mesh.ply")).triangles)
    assert isinstance(said["triangles"], int)
    assert said["triangles"] > 50_000
    tiny = FuseRequest(bag, tmp_path / "x.stl", motion=MotionSettings(5e-4, limit_bytes=1 << 28))
    with pytest.raises(DepthcellError, match=r"at voxels of 0.5 mm: .*enlarge the voxel") as refused:
        fuse_to_files(tiny, quiet)
    assert refused.value.reason is Reason.BAD_INPUT
