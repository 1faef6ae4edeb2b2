"""The cell file: JSON that people can read, one line for each row of a covariance."""

from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell, CellCamera, DisparityNoise
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.errors import DepthcellError, Reason
from depthcell.files import write_text


class _Pose(msgspec.Struct, forbid_unknown_fields=True):
    rotation_vector_rad: list[float]
    translation_m: list[float]


class _Covariance(msgspec.Struct, forbid_unknown_fields=True):
    """`rows` holds the lower triangle, one text of numbers for each of the `of`."""

    of: list[str]
    rows: list[str]


class _CameraFile(msgspec.Struct, forbid_unknown_fields=True):
    serial: str
    model: str
    depth: Intrinsics
    color: Intrinsics | None
    T_cell_depth: _Pose
    T_color_depth: _Pose | None
    baseline_m: float
    noise: DisparityNoise
    correction: DepthCorrection
    covariance: _Covariance
    color_covariance: _Covariance | None


class _CellFile(msgspec.Struct, forbid_unknown_fields=True):
    schema_version: Literal[2]
    name: str
    calibrated_at: str
    cameras: list[_CameraFile]
    covariance: _Covariance | None


def cell_to_json(cell: Cell) -> str:
    """The text of a cell file, the same bytes for the same cell."""
    return msgspec.json.format(msgspec.json.encode(_to_file(cell)), indent=2).decode() + "\n"


def save_cell(cell: Cell, path: Path) -> None:
    """Write a cell file, whole or not at all."""
    write_text(path, cell_to_json(cell))


def load_cell(path: Path) -> Cell:
    """Read a cell file.

    Raises:
        DepthcellError: the file is missing, is no JSON, or a field is wrong; the message names file and field.
    """
    try:
        return _from_file(msgspec.json.decode(path.read_bytes(), type=_CellFile))
    except OSError as error:
        raise DepthcellError(f"cell {path}: cannot be read ({error.strerror})", Reason.CELL_INVALID) from error
    except (msgspec.MsgspecError, DepthcellError) as error:
        raise DepthcellError(f"cell {path}: {error}", Reason.CELL_INVALID) from error


def _to_file(cell: Cell) -> _CellFile:
    joint_names = [f"{serial}.{name}" for serial, camera in cell.cameras.items() for name in camera.parameter_names]
    return _CellFile(
        schema_version=2,
        name=cell.name,
        calibrated_at=cell.calibrated_at,
        cameras=[_camera_to_file(camera) for camera in cell.cameras.values()],
        covariance=None if cell.covariance is None else _covariance_to_file(joint_names, cell.covariance),
    )


def _camera_to_file(camera: CellCamera) -> _CameraFile:
    color = camera.color_covariance
    return _CameraFile(
        serial=camera.serial,
        model=camera.model,
        depth=camera.depth,
        color=camera.color,
        T_cell_depth=_pose_to_file(camera.T_cell_depth),
        T_color_depth=None if camera.T_color_depth is None else _pose_to_file(camera.T_color_depth),
        baseline_m=camera.baseline_m,
        noise=camera.noise,
        correction=camera.correction,
        covariance=_covariance_to_file(camera.parameter_names, camera.covariance),
        color_covariance=None if color is None else _covariance_to_file(camera.color_parameter_names, color),
    )


def _from_file(content: _CellFile) -> Cell:
    cameras: dict[str, CellCamera] = {}
    for camera in content.cameras:
        if camera.serial in cameras:
            raise DepthcellError(f"cameras: serial number {camera.serial} stands twice", Reason.CELL_INVALID)
        cameras[camera.serial] = _camera_from_file(camera)
    joint = None
    if content.covariance is not None:
        names = [f"{serial}.{name}" for serial, camera in cameras.items() for name in camera.parameter_names]
        joint = _covariance_from_file("covariance", content.covariance, names)
    return Cell(content.name, cameras, content.calibrated_at, joint)


def _camera_from_file(content: _CameraFile) -> CellCamera:
    serial, where = content.serial, f"camera {content.serial}"
    depth_frame, color_frame, color_pose = f"depth:{serial}", f"color:{serial}", content.T_color_depth
    parts = {
        "serial": serial,
        "model": content.model,
        "depth": content.depth,
        "color": content.color,
        "T_cell_depth": _pose_from_file("cell", depth_frame, content.T_cell_depth),
        "T_color_depth": None if color_pose is None else _pose_from_file(color_frame, depth_frame, color_pose),
        "baseline_m": content.baseline_m,
        "noise": content.noise,
        "correction": content.correction,
    }
    bare = CellCamera(**parts, covariance=np.zeros((6, 6)))  # type: ignore[arg-type]
    covariance = _covariance_from_file(f"{where}: covariance", content.covariance, bare.parameter_names)
    color = None
    if content.color_covariance is not None:
        names = bare.color_parameter_names
        color = _covariance_from_file(f"{where}: color_covariance", content.color_covariance, names)
    return CellCamera(**parts, covariance=covariance, color_covariance=color)  # type: ignore[arg-type]


def _pose_to_file(transform: RigidTransform) -> _Pose:
    return _Pose(transform.rotation_vector_rad.tolist(), transform.translation_m.tolist())


def _pose_from_file(target: str, source: str, pose: _Pose) -> RigidTransform:
    if len(pose.rotation_vector_rad) != 3 or len(pose.translation_m) != 3:
        raise DepthcellError(f"T_{target}_{source}: rotation_vector_rad and translation_m need three values each")
    return RigidTransform.from_rotation_vector(
        target, source, np.array(pose.rotation_vector_rad), np.array(pose.translation_m)
    )


def _covariance_to_file(names: tuple[str, ...] | list[str], covariance: NDArray[np.float64]) -> _Covariance:
    rows = [" ".join(repr(float(value)) for value in row[: place + 1]) for place, row in enumerate(covariance)]
    return _Covariance(list(names), rows)


def _covariance_from_file(what: str, content: _Covariance, names: tuple[str, ...] | list[str]) -> NDArray[np.float64]:
    if content.of != list(names):
        raise DepthcellError(f"{what}: must be of {', '.join(names)}", Reason.CELL_INVALID)
    covariance = np.zeros((len(names), len(names)))
    if len(content.rows) != len(names):
        raise DepthcellError(f"{what} must be {len(names)}x{len(names)} and finite", Reason.CELL_INVALID)
    for place, text in enumerate(content.rows):
        try:
            row = [float(word) for word in text.split()]
        except ValueError as error:
            raise DepthcellError(f"{what}.rows[{place}]: {error}", Reason.CELL_INVALID) from error
        if len(row) != place + 1:
            raise DepthcellError(f"{what}.rows[{place}]: needs {place + 1} numbers", Reason.CELL_INVALID)
        covariance[place, : place + 1] = covariance[: place + 1, place] = row
    return covariance
