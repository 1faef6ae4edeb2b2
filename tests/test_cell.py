"""The cell file: what goes in comes out, and what is wrong is named. The cell of a camera as built."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from depthcell.acquisition.frameset import CameraFrame, ColorImage, DepthImage
from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell, CellCamera, DisparityNoise, camera_covariance, lens_names
from depthcell.calib.cellfile import seal_cell
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.calib.factory import factory_cell
from depthcell.calib.seal import fingerprint, station_public_key, trust
from depthcell.errors import DepthcellError, Reason

VECTORS = arrays(np.float64, 3, elements=st.floats(-2.0, 2.0))
SMALL = st.floats(0, 1)
POSITIVE = st.floats(1e-3, 1e4)


@st.composite
def intrinsics(draw: st.DrawFn) -> Intrinsics:
    distortion = draw(st.sampled_from(Distortion))
    return Intrinsics(
        width_px=draw(st.integers(1, 4000)),
        height_px=draw(st.integers(1, 4000)),
        fx_px=draw(POSITIVE),
        fy_px=draw(POSITIVE),
        cx_px=draw(POSITIVE),
        cy_px=draw(POSITIVE),
        distortion=distortion,
        coefficients=draw(st.tuples(*[st.floats(-1, 1)] * distortion.coefficient_count)),
    )


@st.composite
def corrections(draw: st.DrawFn) -> DepthCorrection:
    rows, columns = draw(st.tuples(st.integers(1, 3), st.integers(1, 4)))
    table = draw(arrays(np.float64, (rows, columns), elements=st.floats(-1, 1)))
    table[0, 0] = 0.0
    return DepthCorrection(
        scale=draw(POSITIVE),
        disparity_offset_px=draw(st.floats(-1, 1)),
        curvature_px=draw(st.floats(-1, 1)),
        wave_px=draw(st.sampled_from([(), tuple(map(tuple, table.tolist()))])),
        scale_per_k=draw(st.floats(-1e-4, 1e-4)),
        reference_c=draw(st.none() | st.floats(-10, 60)),
    )


def spread(draw: st.DrawFn, size: int) -> np.ndarray:
    root = draw(arrays(np.float64, (size, 4), elements=st.floats(-1e-2, 1e-2), fill=st.just(0.0)))
    covariance: np.ndarray = root @ root.T
    return covariance


@st.composite
def cameras(draw: st.DrawFn, serial: str) -> CellCamera:
    color = draw(st.none() | intrinsics())
    depth, correction = draw(intrinsics()), draw(corrections())
    T_color_depth = RigidTransform.from_rotation_vector(
        f"color:{serial}", f"depth:{serial}", draw(VECTORS), draw(VECTORS)
    )
    size = 6 + len(lens_names(depth)) + len(correction.parameter_names)
    return CellCamera(
        serial=serial,
        model=draw(st.text(max_size=20)),
        depth=depth,
        color=color,
        T_cell_depth=RigidTransform.from_rotation_vector("cell", f"depth:{serial}", draw(VECTORS), draw(VECTORS)),
        covariance=spread(draw, size),
        T_color_depth=None if color is None else T_color_depth,
        baseline_m=draw(POSITIVE),
        noise=DisparityNoise(draw(SMALL), draw(SMALL), draw(SMALL)),
        correction=correction,
        color_covariance=None if color is None else draw(st.none() | st.just(np.eye(6 + len(lens_names(color))))),
    )


def plain_camera(serial: str = "A") -> CellCamera:
    return CellCamera(
        serial=serial,
        model="test",
        depth=Intrinsics(64, 48, 50.0, 50.0, 31.5, 23.5),
        color=None,
        T_cell_depth=RigidTransform.identity("cell", f"depth:{serial}"),
        covariance=np.zeros((6, 6)),
        T_color_depth=None,
        baseline_m=0.05,
        noise=DisparityNoise(0.08, 0.03, 3.0),
    )


def plain_cell() -> Cell:
    return Cell("plain", {"A": plain_camera("A"), "B": plain_camera("B")}, "2026-01-01T00:00:00Z")


@given(cameras("A"), cameras("B"))
def test_a_file_gives_back_the_cell(
    tmp_path_factory: pytest.TempPathFactory, first: CellCamera, second: CellCamera
) -> None:
    cell = Cell("two", {"A": first, "B": second}, "2026-01-01T00:00:00Z")
    path = tmp_path_factory.mktemp("cell") / "cell.json"
    cell.save(path)
    again = Cell.load(path)
    assert list(again.cameras) == ["A", "B"]
    assert (again.name, again.calibrated_at) == (cell.name, cell.calibrated_at)
    for serial, camera in cell.cameras.items():
        read = again.camera(serial)
        for name in ("model", "depth", "color", "baseline_m", "noise", "correction"):
            assert getattr(read, name) == getattr(camera, name)
        np.testing.assert_array_equal(read.covariance, camera.covariance)
        assert (read.color_covariance is None) == (camera.color_covariance is None)
        np.testing.assert_allclose(read.T_cell_depth.matrix, camera.T_cell_depth.matrix, atol=1e-9)
        assert (read.T_color_depth is None) == (camera.T_color_depth is None)
    again.save(path)
    third = Cell.load(path)
    assert third.sha256 == Cell.load(path).sha256


def test_the_identity_follows_the_content() -> None:
    cell = plain_cell()
    assert cell.sha256 == plain_cell().sha256
    moved = replace(
        plain_camera("B"), T_cell_depth=cell.camera("B").T_cell_depth.perturbed(np.array([0, 0, 0, 1e-6, 0, 0]))
    )
    assert Cell("plain", {"A": plain_camera("A"), "B": moved}, cell.calibrated_at).sha256 != cell.sha256


def remove(*path: str | int) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


def put(value: object, *path: str | int) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put(1, "schema_version"), "schema_version"),
        (remove("cameras", 0, "baseline_m"), "baseline_m"),
        (put("wide", "cameras", 0, "baseline_m"), r"cameras\[0\]\.baseline_m|cameras\[\.\.\.\]\.baseline_m"),
        (put(-0.05, "cameras", 0, "baseline_m"), "camera A: baseline_m must be positive"),
        (put(-1.0, "cameras", 1, "noise", "temporal_px"), "noise.temporal_px"),
        (put(0.0, "cameras", 0, "depth", "fx_px"), "intrinsics.fx_px"),
        (put(["0.0"], "cameras", 0, "covariance", "rows"), "camera A: covariance must be 13x13"),
        (put(["rx_rad"], "cameras", 0, "covariance", "of"), "camera A: covariance: must be of rx_rad, ry_rad"),
        (put("-1.0", "cameras", 0, "covariance", "rows", 0), "no eigenvalue negative"),
        (put("0.0 nan", "cameras", 0, "covariance", "rows", 1), "13x13 and finite"),
        (put("0.0 x", "cameras", 0, "covariance", "rows", 1), r"camera A: covariance.rows\[1\]"),
        (put("0.0", "cameras", 0, "covariance", "rows", 1), r"covariance.rows\[1\]: needs 2 numbers"),
        (put([[0.1]], "cameras", 0, "correction", "wave_px"), "first coefficient must be 0"),
        (put([[0.0], []], "cameras", 0, "correction", "wave_px"), "rows must be alike"),
        (put([0.0, 0.0], "cameras", 0, "T_cell_depth", "translation_m"), "three values"),
        (put("A", "cameras", 1, "serial"), "serial number A stands twice"),
        (put(1, "cameras", 0, "colour"), "colour"),
        (put([], "cameras"), "at least one camera"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: Callable[[Any], None], words: str) -> None:
    content = json.loads(plain_cell().to_json())
    change(content)
    path = tmp_path / "cell.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DepthcellError, match=words) as refusal:
        Cell.load(path)
    assert refusal.value.reason is Reason.CELL_INVALID
    assert str(path) in str(refusal.value)


def saved(tmp_path: Path) -> Path:
    path = tmp_path / "cell.json"
    plain_cell().save(path)
    return path


CHANGES: list[Callable[[Any], None]] = [
    put("renamed", "name"),
    put(0.05000001, "cameras", 0, "baseline_m"),
    put("1e-30", "cameras", 0, "covariance", "rows", 0),
    put("2026-02-01T00:00:00Z", "calibrated_at"),
    put("0" * 128, "seal", "signature"),
    put("0" * 64, "seal", "public_key"),
    lambda content: content["cameras"].reverse(),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_refused_until_someone_seals_it_anew(tmp_path: Path, change: Callable[[Any], None]) -> None:
    path = saved(tmp_path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DepthcellError, match=r"changed after it was sealed.*depthcell calibrate seal") as refusal:
        Cell.load(path)
    assert refusal.value.reason is Reason.CELL_INVALID
    assert str(refusal.value).startswith(f"cell {path}: ")
    assert seal_cell(path) == fingerprint(station_public_key())
    assert len(Cell.load(path).cameras) == 2


def test_a_file_without_a_seal_is_refused_until_someone_seals_it(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    path.write_text(plain_cell().to_json())
    with pytest.raises(DepthcellError, match=r"seal: is missing.*depthcell calibrate seal .*cell\.json") as refusal:
        Cell.load(path)
    assert refusal.value.reason is Reason.CELL_INVALID
    seal_cell(path)
    assert Cell.load(path).sha256 == plain_cell().sha256


def test_a_cell_of_another_station_is_refused_until_that_station_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPTHCELL_HOME", str(tmp_path / "there"))
    path, theirs = saved(tmp_path), fingerprint(station_public_key())
    monkeypatch.setenv("DEPTHCELL_HOME", str(tmp_path / "here"))
    with pytest.raises(DepthcellError, match=rf"cell\.json: is sealed by key {theirs}, which .* not trust") as refusal:
        Cell.load(path)
    assert refusal.value.reason is Reason.CELL_INVALID
    trust(tmp_path / "there" / "station.pub")
    assert Cell.load(path).sha256 == plain_cell().sha256


def test_a_wrong_field_is_named_before_the_seal_is_looked_at(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content = json.loads(path.read_text())
    put(-0.05, "cameras", 0, "baseline_m")(content)
    path.write_text(json.dumps(content))
    for read in (Cell.load, seal_cell):
        with pytest.raises(DepthcellError, match="camera A: baseline_m must be positive"):
            read(path)


def test_layout_is_not_content(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(sorted(content.items(), reverse=True)), indent=7).replace("\n", "\r\n"))
    assert Cell.load(path).sha256 == plain_cell().sha256


def test_the_same_cell_gives_the_same_file(tmp_path: Path) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()
    Cell.load(path).save(path)
    assert path.read_bytes() == before


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    with pytest.raises(DepthcellError, match="cannot be read"):
        Cell.load(path)
    path.write_text(plain_cell().to_json()[:-20])
    with pytest.raises(DepthcellError, match=r"cell\.json"):
        Cell.load(path)


def test_an_unknown_camera_is_refused_with_those_there_are() -> None:
    with pytest.raises(DepthcellError, match="no camera C, only A, B"):
        plain_cell().camera("C")


@given(st.floats(0.9, 1.1), st.floats(-0.5, 0.5), st.floats(0.1, 1.0))
def test_correction_undoes_the_error_it_describes(scale: float, offset_px: float, true_m: float) -> None:
    camera = replace(plain_camera(), correction=DepthCorrection(scale=scale, disparity_offset_px=offset_px))
    focal_baseline = camera.depth.fx_px * camera.baseline_m
    read_m = focal_baseline / (scale * focal_baseline / true_m - offset_px)
    assert camera.corrected(np.array([read_m, np.nan]))[0] == pytest.approx(true_m, rel=1e-9)
    assert np.isnan(camera.corrected(np.array([np.nan]))).all()


def test_sigma_is_the_slope_of_depth_over_disparity() -> None:
    camera, depth_m, step_px = plain_camera(), np.array([0.2, 0.5, 1.5]), 1e-6
    disparity_px = camera.disparity_px(depth_m)
    moved_m = camera.depth.fx_px * camera.baseline_m / (disparity_px + step_px) - depth_m
    np.testing.assert_allclose(camera.depth_sigma_m(depth_m, step_px), np.abs(moved_m), rtol=1e-4)


def frame(serial: str = "7", model: str = "Intel RealSense D435", baseline_m: float | None = None) -> CameraFrame:
    depth = DepthImage(np.full((48, 64), 0.5, np.float32), plain_camera().depth, 1e-3, baseline_m, 0, 0)
    return CameraFrame(serial, model, depth, None)


def color_frame(serial: str = "7") -> CameraFrame:
    image = ColorImage(np.zeros((10, 20, 3), np.uint8), Intrinsics(20, 10, 15.0, 15.0, 9.5, 4.5), 0, 0)
    T_color_depth = RigidTransform.identity(f"color:{serial}", f"depth:{serial}")
    return CameraFrame(serial, "Intel RealSense D435", None, image, T_color_depth)


def test_a_camera_as_built_stands_at_the_origin() -> None:
    cell = factory_cell([color_frame(), frame(baseline_m=0.0501)])
    camera = cell.camera("7")
    np.testing.assert_array_equal(camera.T_cell_depth.matrix, np.eye(4))
    assert not camera.pose_covariance.any()
    assert camera.baseline_m == 0.0501  # the recording's own goes before the table's
    assert (camera.depth.width_px, camera.color and camera.color.width_px) == (64, 20)
    assert camera.u("scale") > 0.01  # nobody has checked it
    assert cell.sha256 == factory_cell([color_frame(), frame(baseline_m=0.0501)]).sha256


@pytest.mark.parametrize(("model", "baseline_m"), [("D405", 0.018), ("D415", 0.055), ("D435I", 0.05), ("D455", 0.095)])
def test_a_missing_baseline_comes_from_the_model(model: str, baseline_m: float) -> None:
    assert factory_cell([frame(model=f"Intel RealSense {model}")]).camera("7").baseline_m == baseline_m


def test_a_camera_nobody_knows_is_refused() -> None:
    with pytest.raises(DepthcellError, match=r"baseline: .*'Acme 3D'.*D405"):
        factory_cell([frame(model="Acme 3D")])
    with pytest.raises(DepthcellError, match="cameras 7 and 8"):
        factory_cell([frame(), frame(serial="8")])
    for frames in ([], [color_frame()]):
        with pytest.raises(DepthcellError, match="no depth image"):
            factory_cell(frames)


def test_a_joint_covariance_comes_back_and_holds_the_cameras_own(tmp_path: Path) -> None:
    cell = plain_cell()
    root = np.random.default_rng(3).normal(0, 1e-3, (26, 30))
    joint = root @ root.T
    cameras = {
        serial: replace(camera, covariance=joint[cell.rows_of(serial), cell.rows_of(serial)])
        for serial, camera in cell.cameras.items()
    }
    tied = Cell("tied", cameras, cell.calibrated_at, joint)
    tied.save(tmp_path / "cell.json")
    again = Cell.load(tmp_path / "cell.json")
    np.testing.assert_array_equal(again.joint_covariance, joint)
    np.testing.assert_array_equal(again.camera("B").covariance_of("tz_m", "scale"), joint[np.ix_([18, 23], [18, 23])])
    with pytest.raises(DepthcellError, match=r"cell\.covariance: its block of camera A differs"):
        Cell("tied", cell.cameras, cell.calibrated_at, joint)


def test_cameras_without_a_joint_covariance_are_independent() -> None:
    u = camera_covariance(np.eye(6), plain_camera().depth, DepthCorrection(), {"scale": 2e-4})
    cell = Cell("two", {name: replace(plain_camera(name), covariance=u) for name in "AB"}, "2026-01-01T00:00:00Z")
    assert not cell.joint_covariance[:13, 13:].any()
    assert cell.camera("A").u("scale") == pytest.approx(2e-4)


@given(corrections(), st.floats(0, 63), st.floats(0, 47))
def test_the_wave_is_a_sum_of_chebyshev_polynomials(correction: DepthCorrection, column: float, row: float) -> None:
    x, y = 2 * column / 63 - 1, 2 * row / 47 - 1
    wanted = sum(
        value * np.cos(i * np.arccos(y)) * np.cos(j * np.arccos(x))
        for i, line in enumerate(correction.wave_px)
        for j, value in enumerate(line)
    )
    assert correction.wave_at(plain_camera().depth, np.array(column), np.array(row)) == pytest.approx(wanted, abs=1e-9)


def test_a_wave_needs_to_know_the_pixels() -> None:
    camera = replace(plain_camera(), correction=DepthCorrection(wave_px=((0.0, 0.1),)), covariance=np.zeros((6, 6)))
    with pytest.raises(DepthcellError, match="needs to know the pixels"):
        camera.corrected(np.array([0.5]))
    read_m = np.array([0.5, 0.5, 0.5])
    across = camera.corrected(read_m, np.array([[0.0, 5.0], [31.5, 5.0], [63.0, 5.0]]))
    assert across[1] == pytest.approx(0.5)
    assert across[0] > 0.5 > across[2]  # disparity is lessened on the left


def test_warmth_changes_the_scale_where_it_is_known() -> None:
    warm = DepthCorrection(scale=1.01, scale_per_k=1e-4, reference_c=35.0)
    assert warm.scale_at(45.0) == pytest.approx(1.01 * 1.001)
    assert warm.scale_at(None) == 1.01
