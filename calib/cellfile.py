"""The cell file: JSON that people can read, one line for each row of a covariance, sealed by who wrote it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell, CellCamera, DisparityNoise
from depthcell.calib.depthcorrection import DepthCorrection
from depthcell.calib.seal import BrokenSealError, Seal, fingerprint, sign, station_public_key, verify
from depthcell.errors import DepthcellError, Reason
from depthcell.files import write_text
from depthcell.jsontext import canonical_json, describe_properties

PURPOSE = "cell"
ROTATION_DECIMALS = 13


class PoseFile(msgspec.Struct, forbid_unknown_fields=True):
    """A rigid transform.

    Attributes:
        rotation_vector_rad: axis times angle, three values.
        translation_m: origin of the source frame in the target frame, three values.
    """

    rotation_vector_rad: list[float]
    translation_m: list[float]


class CovarianceFile(msgspec.Struct, forbid_unknown_fields=True):
    """A covariance matrix.

    Attributes:
        of: the parameters, with their units.
        rows: lower triangle, one text of numbers for each row.
    """

    of: list[str]
    rows: list[str]


class CameraFile(msgspec.Struct, forbid_unknown_fields=True):
    """One camera of the cell.

    Attributes:
        serial, model: as the device names itself.
        depth: intrinsics of the depth stream.
        color: intrinsics of the colour stream; None without one.
        T_cell_depth: from the frame of the depth stream to "cell".
        T_color_depth: from the frame of the depth stream to that of the colour stream; None without colour.
        baseline_m: distance of the stereo pair.
        noise: what one frame's depth is worth.
        correction: what is systematically wrong with it.
        covariance: of pose (small motions in the frame "cell"), lens and correction.
        color_covariance: of T_color_depth and the colour lens; None where nobody measured it.
    """

    serial: str
    model: str
    depth: Intrinsics
    color: Intrinsics | None
    T_cell_depth: PoseFile
    T_color_depth: PoseFile | None
    baseline_m: float
    noise: DisparityNoise
    correction: DepthCorrection
    covariance: CovarianceFile
    color_covariance: CovarianceFile | None


class CellFile(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The cameras of one inspection station and how well each is known.

    Attributes:
        schema_version: of this file.
        name: what people call the cell.
        calibrated_at: ISO 8601 date and time with zone.
        cameras: in a fixed order, at least one.
        covariance: of all cameras' parameters together; None where the cameras are independent.
        seal: who vouches for all the rest; without it the file is refused.
    """

    schema_version: Literal[2]
    name: str
    calibrated_at: str
    cameras: list[CameraFile]
    covariance: CovarianceFile | None
    seal: Seal | None = None


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a cell file; `docs/cell.schema.json` is this, committed."""
    schema: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(CellFile)))
    for definition in schema["$defs"].values():
        if "properties" in definition:
            describe_properties(definition)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "depthcell cell"} | schema


def cell_to_json(cell: Cell) -> str:
    """The text of a cell file without its seal, the same bytes for the same cell."""
    return _text(_to_file(cell))


def save_cell(cell: Cell, path: Path) -> None:
    """Write a cell file, whole or not at all, sealed with this station's key.

    Raises:
        DepthcellError: the station has no usable key; see `seal.sign`.
    """
    content = _to_file(cell)
    content.seal = sign(PURPOSE, _sealed_bytes(msgspec.json.encode(content)))
    write_text(path, _text(content))


def load_cell(path: Path) -> Cell:
    """Read a cell file.

    Raises:
        DepthcellError: the file is missing, is no JSON, a field is wrong, or its seal is missing, does not fit, or is
            of a station that this one does not trust; the message names file and field, and what to do.
    """
    cell, file_seal, text = _read(path)
    anew = f"run: depthcell calibrate seal {path}"
    if file_seal is None:
        raise DepthcellError(
            f"cell {path}: seal: is missing, so that nobody vouches for it; review the cell, then {anew}",
            Reason.CELL_INVALID,
        )
    try:
        verify(file_seal, PURPOSE, _sealed_bytes(text))
    except BrokenSealError as error:
        raise DepthcellError(
            f"cell {path}: {error}; take the file as it was, or, if the change is yours, review it and {anew}",
            Reason.CELL_INVALID,
        ) from error
    except DepthcellError as error:
        raise DepthcellError(f"cell {path}: {error}", Reason.CELL_INVALID) from error
    return cell


def seal_cell(path: Path) -> str:
    """Seal a cell file that someone has reviewed, whatever seal it has; returns the station key's fingerprint.

    Raises:
        DepthcellError: the file is missing, is no JSON, or a field is wrong.
    """
    cell, _, _ = _read(path)
    save_cell(cell, path)
    return fingerprint(station_public_key())


def _read(path: Path) -> tuple[Cell, Seal | None, bytes]:
    try:
        text = path.read_bytes()
        content = msgspec.json.decode(text, type=CellFile)
        return _from_file(content), content.seal, text
    except OSError as error:
        raise DepthcellError(f"cell {path}: cannot be read ({error.strerror})", Reason.CELL_INVALID) from error
    except (msgspec.MsgspecError, DepthcellError) as error:
        raise DepthcellError(f"cell {path}: {error}", Reason.CELL_INVALID) from error


def _text(content: CellFile) -> str:
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode() + "\n"


def _sealed_bytes(text: bytes) -> bytes:
    """What the seal is over: all but itself, as canonical JSON, so that line ends and indentation may change."""
    content = msgspec.json.decode(text)
    content.pop("seal", None)
    return canonical_json(content)


def _to_file(cell: Cell) -> CellFile:
    joint_names = [f"{serial}.{name}" for serial, camera in cell.cameras.items() for name in camera.parameter_names]
    return CellFile(
        schema_version=2,
        name=cell.name,
        calibrated_at=cell.calibrated_at,
        cameras=[_camera_to_file(camera) for camera in cell.cameras.values()],
        covariance=None if cell.covariance is None else _covariance_to_file(joint_names, cell.covariance),
    )


def _camera_to_file(camera: CellCamera) -> CameraFile:
    color = camera.color_covariance
    return CameraFile(
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


def _from_file(content: CellFile) -> Cell:
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


def _camera_from_file(content: CameraFile) -> CellCamera:
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


def _pose_to_file(transform: RigidTransform) -> PoseFile:
    """Rounded beyond what conversion to a matrix and back loses, so that a cell read and written stays the same."""
    turn_rad = np.round(transform.rotation_vector_rad, ROTATION_DECIMALS) + 0.0  # no negative zero
    if np.linalg.norm(turn_rad) >= np.pi:
        # Rounded past half a turn it would come back as the opposite one: a camera that looks straight down.
        widest = int(np.argmax(np.abs(turn_rad)))
        turn_rad[widest] -= np.copysign(10.0**-ROTATION_DECIMALS, turn_rad[widest])
        turn_rad = np.round(turn_rad, ROTATION_DECIMALS)
    return PoseFile(turn_rad.tolist(), transform.translation_m.tolist())


def _pose_from_file(target: str, source: str, pose: PoseFile) -> RigidTransform:
    if len(pose.rotation_vector_rad) != 3 or len(pose.translation_m) != 3:
        raise DepthcellError(f"T_{target}_{source}: rotation_vector_rad and translation_m need three values each")
    return RigidTransform.from_rotation_vector(
        target, source, np.array(pose.rotation_vector_rad), np.array(pose.translation_m)
    )


def _covariance_to_file(names: Sequence[str], covariance: NDArray[np.float64]) -> CovarianceFile:
    rows = [" ".join(repr(float(value)) for value in row[: place + 1]) for place, row in enumerate(covariance)]
    return CovarianceFile(list(names), rows)


def _covariance_from_file(
    what: str, content: CovarianceFile, names: tuple[str, ...] | list[str]
) -> NDArray[np.float64]:
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
