"""What is truly wrong with a recorded part, carried from its masks to canonical pixels and to points.

A person's word is `labels.json` beside the recording, which a review exports; the simulator's is `truth.json`. Where
both are there, the person's counts.
"""

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal, Self

import cv2
import msgspec
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

LABELS_FILE = "labels.json"


class DefectLabel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One defect.

    Attributes:
        kind: one of `CLASSES` but the first.
        masks: serial number -> image beside this file, grid of the depth image, above 127 where the camera sees it.
    """

    kind: str
    masks: dict[str, str]


class PartLabels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of one part.

    Attributes:
        part_id: the name of its folder.
        good: whether it has no defect.
        defects: what is wrong with it; where two overlap, the later one counts.
        reviewer, reviewed_at: who said so, and when (ISO 8601); empty if nobody did.
    """

    schema_version: Literal[1]
    part_id: str
    good: bool
    defects: tuple[DefectLabel, ...] = ()
    reviewer: str = ""
    reviewed_at: str = ""

    @classmethod
    def beside(cls, folder: Path) -> Self | None:
        """Of the part recorded in a folder; None if nobody knows.

        Raises:
            DepthcellError: the file cannot be read, is of another part or contradicts itself, names a kind that there
                is not, or a mask outside its folder.
        """
        path = folder / LABELS_FILE
        if path.is_file():
            try:
                labels = msgspec.json.decode(path.read_bytes(), type=cls)
            except (OSError, msgspec.MsgspecError) as error:
                raise DepthcellError(f"labels {path}: {error}; correct it or remove it") from error
        elif (folder / TRUTH_FILE).is_file():
            path = folder / TRUTH_FILE
            truth = PartTruth.load(path)
            defects = tuple(DefectLabel(defect.kind, defect.masks) for defect in truth.defects)
            labels = cls(1, truth.part_id, truth.good, defects)
        else:
            return None
        labels.check(path)
        return labels

    def check(self, path: Path) -> None:
        """Raise DepthcellError if it contradicts itself or its place; `path` is where it was read."""
        if self.part_id != path.parent.name:
            raise DepthcellError(f"labels {path}: are of part {self.part_id}; put them beside the recording of that")
        if self.good != (not self.defects):
            said = "good" if self.good else "defective"
            raise DepthcellError(f"labels {path}: say {said} and list {len(self.defects)} defects; correct either")
        if self.defects and not any(defect.masks for defect in self.defects):
            raise DepthcellError(f"labels {path}: say defective, but no camera has a mask; mark where the defect is")
        for defect in self.defects:
            class_number(defect.kind, f"labels {path}")
            for name in defect.masks.values():
                if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                    raise DepthcellError(f"labels {path}: mask {name} lies outside its folder; put it beside the file")


def labelled(
    part: PartInput,
    labels: PartLabels,
    folder: Path,
    T_cell_part: RigidTransform,
    reference: Reference,
    views: CanonicalViews,
    cell: Cell,
) -> PartInput:
    """The part with what is known of it.

    A canonical pixel has the class of the mask's pixel that its place is looked up at. A point has the class of any
    mask of a camera that sees it.

    Args:
        part: as `imaging.part_input` made it.
        labels: of it.
        folder: that the masks are named from.
        T_cell_part: where it lies, as for `part_input`.
        reference: as for `part_input`.
        views: as for `part_input`.
        cell: as for `part_input`.

    Raises:
        DepthcellError: a mask is missing, unreadable or of another size.
    """
    if part.serials != views.serials:
        raise DepthcellError(f"part {part.part_id}: is of cameras {part.serials}, the views of {views.serials}")
    pixels = np.zeros((len(views.serials), views.side_px**2), np.uint8)
    points = np.zeros(len(part.points_part), np.uint8)
    for number, line in enumerate(sightlines(views, reference, cell)):
        camera = cell.camera(views.serials[number])
        classes = _classes(labels, folder, camera)
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


def _classes(labels: PartLabels, folder: Path, camera: CellCamera) -> NDArray[np.uint8]:
    """Class of every pixel of one camera's depth image."""
    classes = np.zeros((camera.depth.height_px, camera.depth.width_px), np.uint8)
    for defect in labels.defects:
        if camera.serial in defect.masks:
            mask = _mask(folder / defect.masks[camera.serial], camera)
            classes[mask] = class_number(defect.kind, f"part {labels.part_id}")
    return classes


def _mask(path: Path, camera: CellCamera) -> NDArray[np.bool_]:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if image is None:
        raise DepthcellError(f"mask {path}: is missing or no image; export it again")
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
