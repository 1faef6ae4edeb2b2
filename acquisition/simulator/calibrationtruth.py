"""What a simulated calibration cell truly is: the file `truth.json` beside its recordings."""

from typing import Literal

import msgspec

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.simulator.calibrationcell import CalibrationCamera, CalibrationCell
from depthcell.acquisition.simulator.truth import Pose, TruthFile
from depthcell.errors import DepthcellError


class LensTruth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Intrinsics in a file; fields as in `Intrinsics`."""

    width_px: int
    height_px: int
    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    distortion: Distortion
    coefficients: tuple[float, ...]

    @classmethod
    def of(cls, lens: Intrinsics) -> "LensTruth":
        """From intrinsics."""
        return cls(*(getattr(lens, name) for name in cls.__struct_fields__))

    @property
    def intrinsics(self) -> Intrinsics:
        """As the other rooms take them."""
        return Intrinsics(*(getattr(self, name) for name in self.__struct_fields__))


class CameraTruth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One camera as it truly is.

    Attributes:
        serial, model: as the recordings say.
        depth: true lens of the left imager; color: of the colour stream.
        T_cell_depth: before any bump or swap, which the places tell.
        T_color_depth: true pose of the depth stream in the colour stream.
        scale, disparity_offset_px, curvature_px, wave_px, scale_per_k, reference_c: the `DepthCorrection` that undoes
            the depth error, with f and B as the recording states them.
    """

    serial: str
    model: str
    depth: LensTruth
    color: LensTruth
    T_cell_depth: Pose
    T_color_depth: Pose
    scale: float
    disparity_offset_px: float
    curvature_px: float
    wave_px: tuple[tuple[float, ...], ...]
    scale_per_k: float
    reference_c: float

    @classmethod
    def of(cls, camera: CalibrationCamera, cell: CalibrationCell) -> "CameraTruth":
        """From the camera."""
        body, error = camera.body, camera.body.error
        return cls(
            serial=body.serial,
            model=body.model.name,
            depth=LensTruth.of(camera.depth),
            color=LensTruth.of(camera.color),
            T_cell_depth=Pose.of(body.T_cell_depth),
            T_color_depth=Pose.of(body.T_color_depth),
            scale=error.scale,
            disparity_offset_px=error.disparity_offset_px,
            curvature_px=error.curvature_px,
            wave_px=error.wave_px,
            scale_per_k=cell.drift.expansion_per_k,
            reference_c=cell.drift.calibrated_c,
        )


class PlaceTruth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One place at which a board or artefact was held.

    Attributes:
        number: from 0, in the order of time.
        timestamp_ns: of its first frame; a camera's own clock differs by 20 us at most.
        frames: of each camera.
        temperature_c: of the cameras.
        T_cell_body: where the board or artefact was.
        T_cell_depth: serial -> where each camera was.
    """

    number: int
    timestamp_ns: int
    frames: int
    temperature_c: float
    T_cell_body: Pose
    T_cell_depth: dict[str, Pose]


class CalibrationTruth(TruthFile, frozen=True, forbid_unknown_fields=True):
    """A whole run.

    Attributes:
        seed: of the run.
        board: as on the command line; board_factor: its true size over that.
        warp_m: its two bends, as in `shapes.Warp`.
        cameras: as they truly are.
        places: folder -> places in it, in the order of time.
    """

    schema_version: Literal[1]
    seed: int
    board: str
    board_factor: float
    warp_m: tuple[float, float]
    cameras: tuple[CameraTruth, ...]
    places: dict[str, tuple[PlaceTruth, ...]]

    def camera(self, serial: str) -> CameraTruth:
        """The camera with this serial number.

        Raises:
            DepthcellError: there is none.
        """
        for camera in self.cameras:
            if camera.serial == serial:
                return camera
        known = ", ".join(camera.serial for camera in self.cameras)
        raise DepthcellError(f"truth: has no camera {serial}; it knows {known}")
