"""Folders in the layout of MVTec 3D-AD (Bergmann et al., VISAPP 2022): organised xyz images beside colour.

    DIR/train/good/{rgb,xyz}/NNN.*        good parts to learn from
    DIR/validation/good/{rgb,xyz}/NNN.*   good parts to choose the threshold on
    DIR/test/<kind>/{rgb,xyz,gt}/NNN.*    kind `good`, or a defect kind, whose gt is above 0 on the defect

rgb and gt are PNG, xyz is a TIFF (H, W, 3) float32 in metres, one pixel to one colour pixel, (0, 0, 0) where nothing
was measured; that becomes NaN here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.errors import DepthcellError
from depthcell.files import sha256_of_file

GOOD = "good"


@dataclass(frozen=True, slots=True)
class Sample:
    """The files of one part.

    Attributes:
        name: "<split>/<kind>/<number>", such as "test/bent/000".
        kind: "good" or the defect kind.
        rgb, xyz: image files.
        mask: ground-truth file; None for a good part without one.
    """

    name: str
    kind: str
    rgb: Path
    xyz: Path
    mask: Path | None

    @property
    def is_defect(self) -> bool:
        """Whether the folder says that this part is defective."""
        return self.kind != GOOD


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """One part as the sensor saw it.

    Attributes:
        name: what messages call it.
        rgb: (H, W, 3) uint8.
        xyz_cam: (H, W, 3) float32, metres, frame of the camera (z forward); NaN where not measured.
    """

    name: str
    rgb: NDArray[np.uint8]
    xyz_cam: NDArray[np.float32]


class ScansOnDemand(Sequence[Scan]):
    """Scans that are read each time they are asked for, so that a large data set needs little memory."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> Scan: ...
    @overload
    def __getitem__(self, index: slice) -> "ScansOnDemand": ...
    def __getitem__(self, index: int | slice) -> "Scan | ScansOnDemand":
        if isinstance(index, slice):
            return ScansOnDemand(self._samples[index])
        return load_scan(self._samples[index])


@dataclass(frozen=True, slots=True)
class DataSet:
    """A folder in MVTec 3D-AD layout, listed but not yet read."""

    root: Path
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]


def open_data_set(root: Path) -> DataSet:
    """List a folder in MVTec 3D-AD layout and refuse one that would give a false figure.

    Raises:
        DepthcellError: a folder or file is missing or empty, good or defective test parts are lacking, or a file of
            train or validation stands in another split too.
    """
    if not root.is_dir():
        raise DepthcellError(f"{root}: no such folder; give one that holds train, validation and test")
    kinds = sorted(path.name for path in _listed(root / "test") if path.is_dir())
    data = DataSet(
        root=root,
        train=_samples(root, "train", GOOD),
        validation=_samples(root, "validation", GOOD),
        test=tuple(sample for kind in kinds for sample in _samples(root, "test", kind)),
    )
    if GOOD not in kinds or len(kinds) < 2:
        lacking = f"{GOOD}/" if GOOD not in kinds else "a folder of a defect kind"
        raise DepthcellError(f"{root / 'test'}: lacks {lacking}; good and defective parts are both needed")
    _refuse_duplicates(data)
    return data


def load_scan(sample: Sample) -> Scan:
    """Read a part's colour and points.

    Raises:
        DepthcellError: a file is unreadable, of a wrong type, or the two differ in size; names the file.
    """
    rgb = _decoded(sample.rgb, cv2.IMREAD_COLOR_RGB)
    xyz = _decoded(sample.xyz, cv2.IMREAD_UNCHANGED)
    if xyz.ndim != 3 or xyz.shape[2] != 3 or xyz.dtype != np.float32:
        raise DepthcellError(f"{sample.xyz}: needs three float32 channels x y z, holds {xyz.shape} {xyz.dtype}")
    if xyz.shape != rgb.shape:
        raise DepthcellError(f"{sample.xyz}: size {xyz.shape[:2]} differs from {rgb.shape[:2]} of {sample.rgb}")
    xyz_cam = xyz[..., ::-1].copy()  # OpenCV takes the channels for red, green, blue and hands them on reversed
    xyz_cam[~xyz_cam.any(axis=2)] = np.nan
    if not np.isfinite(xyz_cam).any():
        raise DepthcellError(f"{sample.xyz}: holds no measured point; record this part again or remove it")
    return Scan(str(sample.rgb), rgb.astype(np.uint8, copy=False), xyz_cam)


def load_mask(sample: Sample, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Ground truth of a part (H, W), True on defects; all False for a good part without a mask.

    Args:
        sample: the part.
        shape: (H, W) of its colour image.

    Raises:
        DepthcellError: the file is unreadable, of another size, empty though the part is defective, or marks a defect
            on a good part; names the file.
    """
    if sample.mask is None:
        return np.zeros(shape, dtype=np.bool_)
    grey = _decoded(sample.mask, cv2.IMREAD_UNCHANGED)
    mask: NDArray[np.bool_] = (grey.max(axis=2) if grey.ndim == 3 else grey) > 0
    if mask.shape != shape:
        raise DepthcellError(f"{sample.mask}: size {mask.shape} differs from {shape} of {sample.rgb}")
    if mask.any() != sample.is_defect:
        wrong = "marks no pixel of a defect" if sample.is_defect else "marks a defect on a good part"
        raise DepthcellError(f"{sample.mask}: {wrong}; correct the mask or move the part to another folder")
    return mask


def _samples(root: Path, split: str, kind: str) -> tuple[Sample, ...]:
    folder = root / split / kind
    rgbs = _images(folder / "rgb")
    points = _images(folder / "xyz")
    masks = _images(folder / "gt") if kind != GOOD or (folder / "gt").is_dir() else {}
    for stem in sorted(points.keys() ^ rgbs.keys()):
        present, lacking = (rgbs[stem], "xyz") if stem in rgbs else (points[stem], "rgb")
        raise DepthcellError(f"{present}: has no partner in {folder / lacking}; add it or remove this file")
    for stem in sorted(rgbs.keys() - masks.keys()) if kind != GOOD else ():
        raise DepthcellError(f"{rgbs[stem]}: has no ground truth in {folder / 'gt'}; add the mask of the defect")
    if not rgbs:
        raise DepthcellError(f"{folder / 'rgb'}: holds no image")
    return tuple(
        Sample(f"{split}/{kind}/{stem}", kind, rgb, points[stem], masks.get(stem)) for stem, rgb in rgbs.items()
    )


def _images(folder: Path) -> dict[str, Path]:
    suffixes = {".png", ".tiff", ".tif"}
    return {path.stem: path for path in _listed(folder) if path.suffix.lower() in suffixes}


def _listed(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DepthcellError(f"{folder}: no such folder; MVTec 3D-AD layout needs it")
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _refuse_duplicates(data: DataSet) -> None:
    """A part to judge must be new: neither its colour nor its points may stand in train or validation."""
    known: dict[str, Path] = {}
    for split in (data.train, data.validation, data.test):
        hashes = {sha256_of_file(path): path for sample in split for path in (sample.rgb, sample.xyz)}
        for digest in hashes.keys() & known.keys():
            raise DepthcellError(
                f"{hashes[digest]}: is the same file as {known[digest]}; a part may stand in one of train, "
                "validation and test only"
            )
        known |= hashes


def _decoded(path: Path, flags: int) -> NDArray[Any]:
    try:
        image = cv2.imdecode(np.fromfile(path, dtype=np.uint8), flags)
    except (OSError, cv2.error) as error:
        raise DepthcellError(f"{path}: cannot be read ({error}); copy it again") from error
    if image is None:
        raise DepthcellError(f"{path}: is no image that can be read; copy it again")
    return image
