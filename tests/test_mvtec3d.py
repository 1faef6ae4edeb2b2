"""The data set reader: what it reads, and what it refuses, by the name of the file."""

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from partimages import draw_part, write_data_set

from depthcell.errors import DepthcellError
from depthcell.models.mvtec3d import ScansOnDemand, load_mask, load_scan, open_data_set

COUNTS = {"train/good": 3, "validation/good": 2, "test/dent": 2, "test/good": 1}
REAL = Path(__file__).parents[1] / ".." / "shared" / "data" / "mvtec3d_subset" / "cable_gland"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_data_set(tmp_path / "plate", COUNTS)


def test_lists_every_part_in_order(root: Path) -> None:
    data = open_data_set(root)
    assert [sample.name for sample in data.train] == ["train/good/000", "train/good/001", "train/good/002"]
    assert [sample.name for sample in data.test] == ["test/dent/000", "test/dent/001", "test/good/000"]
    assert [sample.is_defect for sample in data.test] == [True, True, False]
    assert len(data.validation) == 2
    assert all(sample.mask is None for sample in data.train)


def test_reads_what_was_written(root: Path) -> None:
    expected = draw_part(np.random.default_rng(0)).scan
    scan = load_scan(open_data_set(root).train[0])
    np.testing.assert_array_equal(scan.rgb, expected.rgb)
    np.testing.assert_array_equal(scan.xyz_cam, expected.xyz_cam)
    assert scan.xyz_cam.dtype == np.float32
    assert 0.01 < np.isnan(scan.xyz_cam).all(axis=2).mean() < 0.06


def test_colour_keeps_its_channel_order(root: Path) -> None:
    path = root / "train" / "good" / "rgb" / "000.png"
    image = np.zeros((112, 112, 3), np.uint8)
    image[..., 0] = 200  # OpenCV writes the first channel as blue
    cv2.imwrite(str(path), image)
    assert load_scan(open_data_set(root).train[0]).rgb[0, 0].tolist() == [0, 0, 200]


def test_masks(root: Path) -> None:
    data = open_data_set(root)
    dent, good = load_mask(data.test[0], (112, 112)), load_mask(data.test[2], (112, 112))
    assert dent.dtype == np.bool_
    assert 20 < dent.sum() < 120
    assert not good.any()


def test_good_parts_need_no_mask(root: Path) -> None:
    shutil.rmtree(root / "test" / "good" / "gt")
    assert not load_mask(open_data_set(root).test[2], (112, 112)).any()


def test_scans_on_demand_are_a_sequence(root: Path) -> None:
    scans = ScansOnDemand(open_data_set(root).train)
    assert len(scans) == len(list(scans)) == 3
    assert [scan.name for scan in scans[1:]] == [scans[1].name, scans[2].name]


def copied(source: str, target: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        shutil.copy(root / source, root / target)

    return spoil


def removed(path: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        shutil.rmtree(root / path) if (root / path).is_dir() else (root / path).unlink()

    return spoil


def emptied(path: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        shutil.rmtree(root / path)
        (root / path).mkdir()

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (removed("train"), "train/good/rgb: no such folder"),
        (removed("validation/good/xyz"), "validation/good/xyz: no such folder"),
        (removed("test"), "test: no such folder"),
        (removed("test/good"), "test: lacks good/"),
        (removed("test/dent"), "test: lacks a folder of a defect kind"),
        (removed("test/dent/gt"), "test/dent/gt: no such folder"),
        (removed("test/dent/gt/001.png"), "test/dent/rgb/001.png: has no ground truth"),
        (removed("train/good/xyz/001.tiff"), "train/good/rgb/001.png: has no partner in .*xyz"),
        (removed("train/good/rgb/001.png"), "train/good/xyz/001.tiff: has no partner in .*rgb"),
        (copied("train/good/rgb/000.png", "test/good/rgb/000.png"), "test/good/rgb/000.png: is the same file as"),
        (copied("validation/good/xyz/001.tiff", "test/dent/xyz/001.tiff"), "test/dent/xyz/001.tiff: is the same"),
        (copied("train/good/xyz/000.tiff", "validation/good/xyz/000.tiff"), "validation/good/xyz/000.tiff: is the"),
    ],
)
def test_a_wrong_folder_is_refused_by_name(root: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(root)
    with pytest.raises(DepthcellError, match=message):
        open_data_set(root)


def test_an_empty_folder_is_refused_by_name(root: Path) -> None:
    for kind in ("rgb", "xyz"):
        emptied(f"validation/good/{kind}")(root)
    with pytest.raises(DepthcellError, match="validation/good/rgb: holds no image"):
        open_data_set(root)


def test_a_missing_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DepthcellError, match="nowhere: no such folder"):
        open_data_set(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["rgb/000.png", "xyz/000.tiff"])
@pytest.mark.parametrize("content", [b"", b"no image at all"])
def test_an_unreadable_file_is_refused_by_name(root: Path, name: str, content: bytes) -> None:
    (root / "train" / "good" / name).write_bytes(content)
    with pytest.raises(DepthcellError, match=name):
        load_scan(open_data_set(root).train[0])


def test_a_truncated_file_is_refused_by_name(root: Path) -> None:
    path = root / "train" / "good" / "xyz" / "000.tiff"
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(DepthcellError, match=r"xyz/000\.tiff"):
        load_scan(open_data_set(root).train[0])


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.ones((112, 112), np.float32), "three float32 channels"),
        (np.ones((112, 112, 3), np.float64), "three float32 channels"),
        (np.ones((112, 100, 3), np.float32), r"size \(112, 100\) differs"),
        (np.zeros((112, 112, 3), np.float32), "no measured point"),
    ],
)
def test_wrong_points_are_refused_by_name(root: Path, points: np.ndarray, message: str) -> None:
    path = root / "train" / "good" / "xyz" / "000.tiff"
    tifffile.imwrite(path, points, photometric="minisblack" if points.ndim == 2 else "rgb")
    with pytest.raises(DepthcellError, match=f"xyz/000.tiff.*{message}"):
        load_scan(open_data_set(root).train[0])


@pytest.mark.parametrize(
    ("name", "mask", "message"),
    [
        ("test/dent", np.zeros((112, 112), np.uint8), "marks no pixel of a defect"),
        ("test/dent", np.ones((100, 112), np.uint8), r"size \(100, 112\) differs"),
        ("test/good", np.ones((112, 112), np.uint8), "marks a defect on a good part"),
    ],
)
def test_a_wrong_mask_is_refused_by_name(root: Path, name: str, mask: np.ndarray, message: str) -> None:
    cv2.imwrite(str(root / name / "gt" / "000.png"), mask)
    sample = next(sample for sample in open_data_set(root).test if sample.name == f"{name}/000")
    with pytest.raises(DepthcellError, match=f"{name}/gt/000.png: {message}"):
        load_mask(sample, (112, 112))


def test_the_real_subset_reads_as_described() -> None:
    """MVTec 3D-AD, class cable_gland, CC BY-NC-SA 4.0: never copied here."""
    if not REAL.is_dir():
        pytest.skip(f"needs the folder {REAL}")
    data = open_data_set(REAL)
    assert (len(data.train), len(data.validation), len(data.test)) == (45, 6, 38)
    assert {sample.kind for sample in data.test} == {"bent", "cut", "good", "hole", "thread"}
    scan = load_scan(data.test[0])
    assert scan.rgb.shape == scan.xyz_cam.shape == (400, 400, 3)
    assert 0.5 < np.isfinite(scan.xyz_cam[..., 2]).mean() < 0.7
    assert 0.6 < np.nanmin(scan.xyz_cam[..., 2]) < np.nanmax(scan.xyz_cam[..., 2]) < 0.7
    assert 0.0005 < load_mask(data.test[0], (400, 400)).mean() < 0.01
