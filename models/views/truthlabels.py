"""What is truly wrong with a simulated part, carried from its masks to canonical pixels and to points."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.partrun import TRUTH_FILE
from depthcell.acquisition.simulator.truth import PartTruth
from depthcell.acquisition.transform import FloatArray, RigidTransform
from depthcell.calib.cell import Cell, CellCamera
from depthcell.errors import DepthcellError
from depthcell.fusion.reference import Reference
from depthcell.models.network.partinput import CLASSES, Labels, PartInput
from depthcell.models.views.canonical import CanonicalViews
from depthcell.models.views.imaging import sightlines


def labelled(
    part: PartInput,
    folder: Path,
    T_cell_part: RigidTransform,
    reference: Reference,
    views: CanonicalViews,
    cell: Cell,
) -> PartInput:
    """The part with what its truth file and masks say of it.

    A canonical pixel has the class of the mask's pixel that its place is looked up at. A point has the class of any
    mask of a camera that sees it. Where defects overlap, the later one in the truth file counts.

    Args:
        part: as `imaging.part_input` made it.
        folder: of the simulated part, with `truth.json`.
        T_cell_part: where it lies, as for `part_input`.
        reference: as for `part_input`.
        views: as for `part_input`.
        cell: as for `part_input`.

    Raises:
        DepthcellError: the truth or a mask is missing, unreadable, of another size or contradicts itself.
    """
    if part.serials != views.serials:
        raise DepthcellError(f"part {part.part_id}: is of cameras {part.serials}, the views of {views.serials}")
    path = folder / TRUTH_FILE
    truth = PartTruth.load(path)
    if truth.good != (not truth.defects):
        said = "good" if truth.good else "defective"
        raise DepthcellError(f"truth {path}: says {said} and lists {len(truth.defects)} defects; simulate it again")
    if truth.defects and not any(defect.masks for defect in truth.defects):
        raise DepthcellError(f"truth {path}: says defective, but no camera has a mask of a defect; simulate it again")
    pixels = np.zeros((len(views.serials), views.side_px**2), np.uint8)
    points = np.zeros(len(part.points_part), np.uint8)
    for number, line in enumerate(sightlines(views, reference, cell)):
        camera = cell.camera(views.serials[number])
        classes = _classes(truth, folder, camera)
        T_depth_part = camera.T_cell_depth.inverse() @ T_cell_part
        pixels[number] = _looked_up(classes, camera, T_depth_part @ line.anchors_part)
        seen = part.pixel[:, number] >= 0
        found = _looked_up(classes, camera, T_depth_part @ part.points_part)
        points = np.where(seen & (found > 0), found, points)
    return replace(part, labels=Labels(pixels.reshape(-1, views.side_px, views.side_px), points))


def class_number(kind: str, where: str) -> int:
    """Of a kind of defect in `CLASSES`.

    Raises:
        DepthcellError: there is none of this name; `where` says who named it.
    """
    if kind not in CLASSES[1:]:
        raise DepthcellError(f"{where}: defect '{kind}' is unknown; known are {', '.join(CLASSES[1:])}")
    return CLASSES.index(kind)


def _classes(truth: PartTruth, folder: Path, camera: CellCamera) -> NDArray[np.uint8]:
    """Class of every pixel of one camera's depth image."""
    classes = np.zeros((camera.depth.height_px, camera.depth.width_px), np.uint8)
    for defect in truth.defects:
        number = class_number(defect.kind, f"truth {folder / TRUTH_FILE}")
        if camera.serial in defect.masks:
            classes[_mask(folder / defect.masks[camera.serial], camera)] = number
    return classes


def _mask(path: Path, camera: CellCamera) -> NDArray[np.bool_]:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if image is None:
        raise DepthcellError(f"mask {path}: is missing or no image; simulate the part again")
    wanted = camera.depth.height_px, camera.depth.width_px
    if image.shape != wanted:
        has = " x ".join(str(size) for size in image.shape[1::-1])
        raise DepthcellError(
            f"mask {path}: is {has}, depth images of camera {camera.serial} are {wanted[1]} x {wanted[0]}; take the "
            f"mask that was written with the recording"
        )
    return np.asarray(image > 127)


def _looked_up(classes: NDArray[np.uint8], camera: CellCamera, points_depth: FloatArray) -> NDArray[np.uint8]:
    """Class of the pixel that each of points (N, 3) falls into; 0 outside the image."""
    pixels = np.rint(np.nan_to_num(camera.depth.project(points_depth), nan=-1.0)).astype(np.int64)
    columns, rows = pixels[:, 0], pixels[:, 1]
    inside = (columns >= 0) & (rows >= 0) & (columns < camera.depth.width_px) & (rows < camera.depth.height_px)
    found = np.zeros(len(points_depth), np.uint8)
    found[inside] = classes[rows[inside], columns[inside]]
    return found
