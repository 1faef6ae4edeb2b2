"""What a simulated part truly is: the sidecar `truth.json` of its recordings."""

from pathlib import Path
from typing import Literal, Self

import msgspec
import numpy as np

from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError
from depthcell.files import write_text


class TruthFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is written beside recordings, as JSON."""

    def save(self, path: Path) -> None:
        """Write the truth file."""
        write_text(path, msgspec.json.format(msgspec.json.encode(self), indent=2).decode() + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a truth file.

        Raises:
            DepthcellError: it is missing or does not hold what it should; the message names the field.
        """
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise DepthcellError(f"truth {path}: cannot be read ({error.strerror})") from error
        except msgspec.MsgspecError as error:
            raise DepthcellError(f"truth {path}: {error}; simulate it again") from error


class Pose(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rigid transform in a file: axis times angle in rad, and metres."""

    rotation_vector_rad: tuple[float, float, float]
    translation_m: tuple[float, float, float]

    @classmethod
    def of(cls, transform: RigidTransform) -> "Pose":
        """From a transform, whose frames the field's name says."""
        rotation, translation = transform.rotation_vector_rad.tolist(), transform.translation_m.tolist()
        return cls((rotation[0], rotation[1], rotation[2]), (translation[0], translation[1], translation[2]))

    def transform(self, target: str, source: str) -> RigidTransform:
        """`T_target_source` from the file's numbers."""
        rotation_rad, translation_m = np.array(self.rotation_vector_rad), np.array(self.translation_m)
        return RigidTransform.from_rotation_vector(target, source, rotation_rad, translation_m)


class DefectTruth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One defect.

    Attributes:
        kind: see `DefectKind`.
        defect_class: "volumetric" changes the shape, "surface" the colour alone.
        position_mm: centre on the surface, frame "part".
        depth_mm: largest displacement along the surface's normal, positive outside the material; None for colour.
        area_mm2: of the surface that is affected.
        volume_mm3: added (positive) or taken away; None for colour and warp.
        masks: serial number -> PNG beside this file, depth image's grid, 255 where the camera sees the defect.
    """

    kind: str
    defect_class: Literal["volumetric", "surface"] = msgspec.field(name="class")
    position_mm: tuple[float, float, float]
    depth_mm: float | None
    area_mm2: float
    volume_mm3: float | None
    masks: dict[str, str]


class CameraTruth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One camera as it truly was while it looked at the part."""

    serial: str
    T_cell_depth: Pose
    T_color_depth: Pose
    scale: float
    disparity_offset_px: float
    temperature_c: float


class PartTruth(TruthFile, frozen=True, forbid_unknown_fields=True):
    """One part.

    Attributes:
        part_id: the folder's name.
        part: which part it should be.
        good: whether it has no defect.
        seed: of the whole run.
        T_cell_part: where it lay.
        size_scale: actual size over nominal, by axis of the part.
        defects: what is wrong with it.
        cameras: as they truly were.
        cloud: file of the perfect points in the cell frame.
    """

    schema_version: Literal[1]
    part_id: str
    part: str
    good: bool
    seed: int
    T_cell_part: Pose
    size_scale: tuple[float, float, float]
    defects: tuple[DefectTruth, ...]
    cameras: tuple[CameraTruth, ...]
    cloud: str
