"""The simulated cell as a whole: the same from the same seed, true to its truth, and a folder that others can use."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from depthcell.acquisition.recording import open_recording
from depthcell.acquisition.simulator import partrun
from depthcell.acquisition.simulator.actualpart import draw_part, possible_kinds
from depthcell.acquisition.simulator.defects import DefectKind
from depthcell.acquisition.simulator.partmesh import load_part_mesh, save_stl
from depthcell.acquisition.simulator.parts import PartKind, build_part
from depthcell.acquisition.simulator.recordingwriter import WrittenDevice, WrittenFrame, write_recording
from depthcell.acquisition.simulator.rig import MAX_CAMERAS, build_rig
from depthcell.acquisition.simulator.scene import Scene
from depthcell.acquisition.simulator.station import Station, StationPlan, Stream, build_station
from depthcell.acquisition.simulator.truth import PartTruth, Pose
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell
from depthcell.calib.propagation import depth_sigma_m
from depthcell.cli import main
from depthcell.errors import DepthcellError
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.simulated_cell import POSE_U_M
from depthcell.inspect.simulated_station import RunSettings, check_plan, make_room, planned_tasks, simulate_station

KINDS = (DefectKind.DENT, DefectKind.STAIN)
PLAN = StationPlan("bracket", "D405", cameras=2, seed=11, frames=2, defect_kinds=KINDS)
SETTINGS = RunSettings(parts=3, golden=0)
SERIALS = ("405000001", "405000002")


def ignore(_: PartTruth) -> None:
    pass


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    simulate_station(PLAN, SETTINGS, out, ignore)
    return out


@pytest.fixture(scope="module")
def station() -> Station:
    return build_station(PLAN)


def transform(target: str, source: str, pose: Pose) -> RigidTransform:
    return RigidTransform.from_rotation_vector(
        target, source, np.array(pose.rotation_vector_rad), np.array(pose.translation_m)
    )


def images(path: Path) -> list[tuple[np.ndarray, np.ndarray, int]]:
    read = []
    for frame in open_recording(path).camera_frames():
        assert frame.depth is not None
        assert frame.color is not None
        read.append((frame.depth.depth_m, frame.color.rgb, frame.timestamp_ns))
    return read


# --- one seed, one run ----------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_frames_in_any_number_of_processes(run: Path, tmp_path: Path) -> None:
    simulate_station(PLAN, RunSettings(parts=3, golden=0, jobs=2), tmp_path, ignore)
    folders = sorted(tmp_path.glob("part_*"))
    assert len(folders) == 3
    for folder in folders:
        for name in ("truth.json", "truth_cloud.ply"):
            assert (folder / name).read_bytes() == (run / folder.name / name).read_bytes()
        for serial in SERIALS:
            pairs = zip(images(folder / f"{serial}.db3"), images(run / folder.name / f"{serial}.db3"), strict=True)
            for (depth, rgb, time_ns), (depth_again, rgb_again, time_again_ns) in pairs:
                np.testing.assert_array_equal(depth, depth_again)
                np.testing.assert_array_equal(rgb, rgb_again)
                assert time_ns == time_again_ns
    for name in ("cell.json", "recipe.toml", "bracket.stl"):
        assert (tmp_path / name).read_bytes() == (run / name).read_bytes()


def test_another_seed_gives_another_cell_and_other_parts() -> None:
    other = StationPlan("bracket", "D405", cameras=2, seed=12, frames=2, defect_kinds=KINDS)
    first, second = (build_station(plan).cameras[0].T_cell_depth.matrix for plan in (PLAN, other))
    assert not np.allclose(first, second)
    tasks = planned_tasks(StationPlan("bracket", "D405", 2, 12), RunSettings(40, golden=0), Path())
    others = planned_tasks(StationPlan("bracket", "D405", 2, 13), RunSettings(40, golden=0), Path())
    assert [task.defects for task in tasks] != [task.defects for task in others]


def test_golden_parts_draw_from_another_stream() -> None:
    draws = [PLAN.generator(stream, 1, 0).random() for stream in Stream]
    assert len(set(draws)) == len(draws)


def test_the_share_of_defective_parts_is_exact_and_kinds_are_spread_evenly() -> None:
    plan = StationPlan("bracket", "D405", 1, seed=3, defect_rate=0.6)
    tasks = planned_tasks(plan, RunSettings(parts=40, golden=5), Path("out"))
    assert [task.stream for task in tasks[:5]] == [Stream.GOLDEN] * 5
    assert not any(task.defects for task in tasks[:5])
    kinds = [kind for task in tasks[5:] for kind in task.defects]
    assert len(kinds) == 24
    assert {kinds.count(kind) for kind in DefectKind} == {2}


# --- truth ----------------------------------------------------------------------------------------------------------


def test_recordings_agree_with_the_truth_within_what_the_cell_states(run: Path, station: Station) -> None:
    """Depth read back, corrected as the cell says and carried to the cell frame, lies on the perfect surface."""
    cell = Cell.load(run / "cell.json")
    good = next(truth for truth in truths(run) if truth.good)
    T_cell_part = transform("cell", "part", good.T_cell_part)
    mesh = station.part.mesh.with_vertices(station.part.mesh.vertices_m * good.size_scale)
    scene = Scene(mesh, T_cell_part)
    for serial in SERIALS:
        camera = cell.camera(serial)
        read_m = np.mean([depth for depth, _, _ in images(run / good.part_id / f"{serial}.db3")], axis=0)
        true_camera = next(c for c in good.cameras if c.serial == serial)
        view = scene.view(transform("cell", f"depth:{serial}", true_camera.T_cell_depth), camera.depth)
        flat = view.on_part & (view.normals_cell[..., 2] > 0.99) & np.isfinite(read_m)
        flat = cv2.erode(flat.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(bool)
        assert flat.sum() > 3000
        points = camera.T_cell_depth @ camera.depth.deproject(camera.corrected(read_m.astype(np.float32)))
        error_m = ((points - view.points_cell) * view.normals_cell).sum(axis=-1)[flat]
        depth_m, middle_px = float(view.depth_m[flat].mean()), np.argwhere(flat)[:, ::-1].mean(axis=0, keepdims=True)
        systematic_m = float(depth_sigma_m(camera, middle_px, np.array([depth_m]))[0]) + 2 * POSE_U_M
        assert abs(error_m.mean()) < 3 * systematic_m
        noise_px = np.hypot(camera.noise.temporal_px / np.sqrt(2), camera.noise.fixed_px)
        assert error_m.std() == pytest.approx(float(camera.depth_sigma_m(np.array(depth_m), noise_px)), rel=0.2)


def truths(run: Path) -> list[PartTruth]:
    return [PartTruth.load(folder / "truth.json") for folder in sorted(run.glob("part_*"))]


def test_each_defect_is_where_its_masks_say(run: Path, station: Station) -> None:
    seen = 0
    for truth in truths(run):
        for defect in truth.defects:
            position_m = np.array(defect.position_mm) / 1e3
            position_cell = transform("cell", "part", truth.T_cell_part) @ position_m
            for serial, name in defect.masks.items():
                mask = cv2.imread(str(run / truth.part_id / name), cv2.IMREAD_GRAYSCALE)
                assert mask is not None
                assert mask.shape == (480, 848)
                camera = next(c for c in truth.cameras if c.serial == serial)
                T_depth_cell = transform("cell", f"depth:{serial}", camera.T_cell_depth).inverse()
                pixel = station.cameras[0].model.depth_intrinsics.project(T_depth_cell @ position_cell)
                rows, columns = np.nonzero(mask)
                assert np.hypot(columns.mean() - pixel[0], rows.mean() - pixel[1]) < 4
                seen += 1
    assert seen >= 2


def test_a_stain_shows_in_colour_and_a_dent_in_depth(run: Path) -> None:
    for truth in truths(run):
        for defect in truth.defects:
            serial, name = next(iter(defect.masks.items()))
            mask = cv2.imread(str(run / truth.part_id / name), cv2.IMREAD_GRAYSCALE)
            assert mask is not None
            core = cv2.erode(mask, np.ones((5, 5), np.uint8)) > 0
            grown = cv2.dilate(mask, np.ones((9, 9), np.uint8)) > 0
            ring = (cv2.dilate(mask, np.ones((17, 17), np.uint8)) > 0) & ~grown
            depth_m, rgb, _ = images(run / truth.part_id / f"{serial}.db3")[0]
            darker = rgb[ring].mean() - rgb[core].mean()
            assert (defect.defect_class == "surface") == (defect.depth_mm is None) == (defect.volume_mm3 is None)
            if defect.defect_class == "surface":
                assert darker > 20
            else:
                assert defect.depth_mm is not None
                assert defect.depth_mm < 0
                assert np.nanmedian(depth_m[core]) > np.nanmedian(depth_m[ring]) + 1e-4


def test_the_truth_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text('{"schema_version": 1, "part_id": 3}')
    with pytest.raises(DepthcellError, match=r"truth\.json: Expected `str`, got `int` - at `\$\.part_id`"):
        PartTruth.load(tmp_path / "truth.json")
    with pytest.raises(DepthcellError, match="cannot be read"):
        PartTruth.load(tmp_path / "absent.json")


def test_the_perfect_cloud_lies_on_the_part(run: Path) -> None:
    truth = truths(run)[0]
    content = (run / truth.part_id / truth.cloud).read_bytes()
    header, _, body = content.partition(b"end_header\n")
    cloud = np.frombuffer(body, "<f4").reshape(-1, 6)
    assert f"element vertex {len(cloud)}".encode() in header
    assert len(cloud) > 2000
    assert len(content) < 2_000_000
    points_part = transform("cell", "part", truth.T_cell_part).inverse() @ cloud[:, :3]
    mesh = load_part_mesh(run / "bracket.stl")
    # A dent lies inside the box, a size tolerance may stand out of it a little.
    assert (points_part > mesh.min_m - 2e-4).all()
    assert (points_part < mesh.max_m + 2e-4).all()


# --- what others take from the folder -------------------------------------------------------------------------------


def test_the_cell_misses_the_truth_by_what_it_states(run: Path, station: Station) -> None:
    cell = Cell.load(run / "cell.json")
    assert tuple(cell.cameras) == SERIALS
    squares = []
    for truth in station.cameras:
        camera = cell.camera(truth.serial)
        error = camera.T_cell_depth.matrix @ truth.T_cell_depth.inverse().matrix
        turn = RigidTransform.from_matrix("cell", "cell", error).rotation_vector_rad
        sigma = np.sqrt(np.diag(camera.pose_covariance))
        squares += list((np.concatenate((turn, error[:3, 3])) / sigma) ** 2)
        assert camera.correction.scale == pytest.approx(truth.error.scale, abs=4 * camera.u("scale"))
        assert camera.correction.scale != truth.error.scale
        offset_u_px = camera.u("disparity_offset_px")
        assert camera.correction.disparity_offset_px == pytest.approx(
            truth.error.disparity_offset_px, abs=4 * offset_u_px
        )
    assert 2 < sum(squares) < 30  # chi square with 12 degrees of freedom: 99.9 % below 33


def test_the_recipe_is_one(run: Path, station: Station) -> None:
    recipe = Recipe.load(run / "recipe.toml")
    assert recipe.cell.cameras == SERIALS
    assert recipe.cell_path == run / "cell.json"
    np.testing.assert_allclose(recipe.pose.T_cell_part.matrix, station.T_cell_part.matrix, atol=1e-6)
    assert [bore.name for bore in recipe.bore] == [bore.name for bore in station.part.bores]
    reference = load_part_mesh(run / recipe.reference.mesh, recipe.reference.mesh_unit)
    assert reference.volume_m3 == pytest.approx(station.part.mesh.volume_m3, rel=1e-6)


def test_golden_parts_are_learned_from(tmp_path: Path) -> None:
    plan = StationPlan("bracket", "D405", cameras=1, seed=2, frames=2)
    simulate_station(plan, RunSettings(parts=1, golden=4), tmp_path, ignore)
    assert len(list((tmp_path / "golden").glob("part_*"))) == 4
    recipe = Recipe.load(tmp_path / "recipe.toml")
    assert recipe.reference.golden == "golden.npz"
    assert recipe.color is not None
    assert (tmp_path / "golden.npz").is_file()


def test_a_part_turns_about_itself_wherever_its_drawing_has_the_origin(tmp_path: Path) -> None:
    weld = build_part(PartKind.WELD).mesh
    save_stl(tmp_path / "far.stl", weld.with_vertices(weld.vertices_m + np.array([0.5, -0.3, 0.2])))
    station = build_station(StationPlan(str(tmp_path / "far.stl"), "D405", 1, seed=4))
    middle = (station.part.mesh.min_m + station.part.mesh.max_m) / 2
    np.testing.assert_allclose((station.T_cell_part @ middle)[:2], 0, atol=1e-5)
    moves_m = [
        draw_part(station, (), np.random.default_rng(seed)).T_cell_part @ middle - station.T_cell_part @ middle
        for seed in range(12)
    ]
    assert np.abs(moves_m).max(axis=0) == pytest.approx((8e-4, 8e-4, 1e-4), rel=0.6)


def test_a_thin_plate_has_no_place_for_a_dent(tmp_path: Path) -> None:
    weld = build_part(PartKind.WELD).mesh
    save_stl(tmp_path / "thin.stl", weld.with_vertices(weld.vertices_m * (1.0, 1.0, 0.05)))
    plan = StationPlan(str(tmp_path / "thin.stl"), "D405", 3, seed=4)
    kinds = possible_kinds(build_station(plan))
    assert DefectKind.STAIN in kinds
    assert not {DefectKind.DENT, DefectKind.POROSITY, DefectKind.MISSING_BORE} & set(kinds)
    with pytest.raises(DepthcellError, match="--defects dent: part thin cannot have it; choose from"):
        check_plan(replace(plan, defect_kinds=(DefectKind.DENT,)))


@pytest.mark.parametrize("name", ["D415", "D435", "D455"])
@pytest.mark.parametrize("part", ["flange", "shaft"])
def test_every_camera_has_the_part_in_view_and_beyond_its_search_range(name: str, part: str) -> None:
    station = build_station(StationPlan(part, name, MAX_CAMERAS, seed=1))
    corners_cell = station.T_cell_part @ station.part.mesh.vertices_m
    for camera in station.cameras:
        points = camera.T_cell_depth.inverse() @ corners_cell
        pixels = camera.model.depth_intrinsics.project(points)
        assert points[:, 2].min() > 1.02 * camera.model.min_depth_m
        blind_px = camera.model.focal_baseline_m / points[:, 2]
        assert (pixels[:, 0] > blind_px).all()
        assert (pixels < (848, 480)).all()
        assert (pixels[:, 1] > 0).all()


def test_a_rig_has_one_to_six_cameras(station: Station) -> None:
    model = station.cameras[0].model
    for count in (0, 7):
        with pytest.raises(DepthcellError, match=f"--cameras {count}: must be 1 to 6"):
            build_rig(model, count, np.zeros(3), 0.05, np.random.default_rng(0))


# --- the verb -------------------------------------------------------------------------------------------------------

BAD_CALLS = [
    (["--part", "brackett"], "--part brackett: unknown; choose bracket, flange"),
    (["--part", "absent.stl"], "absent.stl: no such file"),
    (["--camera-model", "D999"], "--camera-model D999: unknown; choose one of D405"),
    (["--cameras", "7"], "--cameras 7: must be 1 to 6"),
    (["--parts", "0"], "--parts 0: must be 1 or more"),
    (["--frames", "0"], "--frames 0: must be 1 or more"),
    (["--seed", "-1"], "--seed -1: must be 0 or more"),
    (["--golden", "2"], "--golden 2: must be 0, or 4 or more"),
    (["--jobs", "-1"], "--jobs -1: must be 1 or more"),
    (["--defect-rate", "1.5"], "--defect-rate 1.5: must be 0 to 1"),
    (["--depth-units-mm", "0"], "--depth-units-mm 0.0: must be 0.001 to 10"),
    (["--defects", "dent,dint"], "--defects dint: unknown; choose from dent, bump"),
    (["--part", "shaft", "--defects", "missing_bore"], "--defects missing_bore: part shaft cannot have it"),
    (["--parts", "100000000"], "GB are free; ask for less"),
]


@pytest.mark.parametrize(("words", "message"), BAD_CALLS)
def test_bad_input_is_named_and_nothing_is_written(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["simulate", "--out", str(tmp_path / "run"), *words])
    assert exit_info.value.code == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert not list(tmp_path.glob("run/*"))


def test_the_verb_prints_a_summary_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--parts", "1", "--cameras", "1", "--frames", "1", "--golden", "0", "--defect-rate", "1", "--jobs", "1"]
    with pytest.raises(SystemExit) as exit_info:
        main(["simulate", "--out", str(tmp_path), "--defects", "rust", "--json", *words])
    assert exit_info.value.code == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["parts"] == [{"part_id": "part_0001", "good": False, "defects": ["rust"]}]
    assert Path(summary["recipe"]).is_file()


def test_a_folder_of_others_is_left_alone_and_an_earlier_run_makes_way(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DepthcellError, match="is not empty and no earlier run; name another folder or add --force"):
        make_room(tmp_path, force=False)
    make_room(tmp_path, force=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "simulation.json").touch()
    for name in ("part_0001", "golden/part_0001", "inspections/one"):
        (tmp_path / name).mkdir(parents=True)
    make_room(tmp_path, force=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inspections", "notes.txt"]
    with pytest.raises(DepthcellError, match="cannot be made"):
        make_room(tmp_path / "notes.txt", force=False)


def test_a_part_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the second camera records."""

    def interrupted(path: Path, device: WrittenDevice, frames: list[WrittenFrame]) -> None:
        if path.name == "405000002.db3":
            raise KeyboardInterrupt
        write_recording(path, device, frames)

    monkeypatch.setattr(partrun, "write_recording", interrupted)
    task = planned_tasks(PLAN, SETTINGS, tmp_path)[0]
    with pytest.raises(KeyboardInterrupt):
        partrun.simulate_part(PLAN, task)
    assert list(tmp_path.iterdir()) == []
