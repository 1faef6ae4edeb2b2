"""The results of a cell as a certificate prints them: millimetres, degrees and pixels, each with its uncertainty."""

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.intrinsics import Distortion, Intrinsics
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import COEFFICIENT_NAMES, PINHOLE_NAMES, Cell, CellCamera
from depthcell.calib.certify.certificate_content import CertifiedCamera, Result, ResultTable

AXES = "xyz"


def results_of(cell: Cell) -> tuple[ResultTable, ...]:
    """Per camera: pose in the cell, lenses of its streams, pose of the colour stream, depth correction, noise."""
    return tuple(table for camera in cell.cameras.values() for table in _tables(camera))


def certified_camera(
    camera: CellCamera, firmware: str | None = None, temperature_c: tuple[float, float] | None = None
) -> CertifiedCamera:
    """A camera as the certificate's item; firmware and temperature where the recording carries them."""
    streams = [f"depth {camera.depth.width_px}x{camera.depth.height_px}"]
    if camera.color is not None:
        streams.append(f"colour {camera.color.width_px}x{camera.color.height_px}")
    return CertifiedCamera(camera.serial, camera.model, firmware, temperature_c, ", ".join(streams))


def _tables(camera: CellCamera) -> list[ResultTable]:
    serial = camera.serial
    tables = [
        ResultTable(
            f"Camera {serial}: pose of the depth stream in the cell",
            "Position of the optical centre and rotation vector (axis times angle) of T_cell_depth; the frame of the "
            "cell is that of the board at the origin, which is exact by definition.",
            _pose(camera.T_cell_depth, camera.pose_covariance),
        ),
        ResultTable(
            f"Camera {serial}: lens of the depth stream",
            f"{lens_text(camera.depth)}. Pixel centres lie at integers.",
            _lens(camera.depth, camera.covariance[6:, 6:]),
        ),
        ResultTable(
            f"Camera {serial}: depth correction",
            "z = s f B / (d + offset + curvature (d/126)² + W(x, y)), d = f B / z as read, "
            f"f B = {camera.depth.fx_px:.3f} px x {1e3 * camera.baseline_m:.4f} mm; wave i,j are coefficients of "
            f"Chebyshev polynomials, i down and j across the image.{_temperature_note(camera)}",
            _correction(camera),
        ),
        ResultTable(
            f"Camera {serial}: noise of disparity",
            "Standard deviations of one frame and of what stays while nothing moves; from it sigma_z = z² s / (f B).",
            (
                Result("from frame to frame", camera.noise.temporal_px, None, "px"),
                Result("fixed pattern", camera.noise.fixed_px, None, "px"),
                Result("correlation distance", camera.noise.correlation_px, None, "px"),
            ),
        ),
    ]
    if camera.color is not None and camera.T_color_depth is not None:
        tables[2:2] = _color_tables(camera, camera.color, camera.T_color_depth)
    return tables


def _color_tables(camera: CellCamera, color: Intrinsics, T_color_depth: RigidTransform) -> list[ResultTable]:
    covariance = camera.color_covariance
    pose = None if covariance is None else covariance[:6, :6]
    return [
        ResultTable(
            f"Camera {camera.serial}: depth stream seen from the colour stream",
            "Origin and rotation vector of T_color_depth.",
            _pose(T_color_depth, pose),
        ),
        ResultTable(
            f"Camera {camera.serial}: lens of the colour stream",
            f"{lens_text(color)}. Pixel centres lie at integers.",
            _lens(color, None if covariance is None else covariance[6:, 6:]),
        ),
    ]


def _pose(transform: RigidTransform, covariance: NDArray[np.float64] | None) -> tuple[Result, ...]:
    """Position in mm and rotation vector in degrees, with the covariance of these and not of small motions."""
    values = np.concatenate((1e3 * transform.translation_m, np.degrees(transform.rotation_vector_rad)))
    u: NDArray[np.float64] | None = None
    if covariance is not None:
        slope = pose_slope(transform)
        u = np.sqrt(np.diag(slope @ covariance @ slope.T)) * np.array([1e3] * 3 + [np.degrees(1.0)] * 3)
    names = [(f"position {axis}", "mm") for axis in AXES] + [(f"rotation vector {axis}", "deg") for axis in AXES]
    return tuple(
        Result(name, float(value), None if u is None else float(u[place]), unit)
        for place, ((name, unit), value) in enumerate(zip(names, values, strict=True))
    )


def pose_slope(transform: RigidTransform) -> NDArray[np.float64]:
    """Derivative (6, 6) of (position, rotation vector) by a small motion in the convention of `perturbed`.

    The position moves by `omega x t + tau`; the rotation vector phi by `J(phi)^-1 omega` with the left Jacobian J of
    the rotation group, `J^-1 = 1 - [phi]/2 + (1 - (theta/2) cot(theta/2)) / theta² [phi]²` (Barfoot, State Estimation
    for Robotics, 2017, section 7.1.5).
    """
    slope = np.zeros((6, 6))
    slope[:3, :3] = -_cross(transform.translation_m)
    slope[:3, 3:] = np.eye(3)
    phi = transform.rotation_vector_rad
    theta, cross = float(np.linalg.norm(phi)), _cross(phi)
    factor = 1 / 12 if theta < 1e-4 else (1 - theta / 2 / np.tan(theta / 2)) / theta**2
    slope[3:, :3] = np.eye(3) - cross / 2 + factor * cross @ cross
    return slope


def _cross(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, z = vector
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def lens_text(intrinsics: Intrinsics) -> str:
    """The lens model in words."""
    names = {
        Distortion.NONE: "Pinhole without distortion",
        Distortion.BROWN_CONRADY: "Pinhole with 5 distortion coefficients (OpenCV)",
        Distortion.RATIONAL: "Pinhole with 8 distortion coefficients (OpenCV, rational)",
        Distortion.THIN_PRISM: "Pinhole with 12 distortion coefficients (OpenCV, rational with thin prism)",
    }
    return names.get(intrinsics.distortion, f"Pinhole with 5 distortion coefficients ({intrinsics.distortion})")


def _lens(intrinsics: Intrinsics, covariance: NDArray[np.float64] | None) -> tuple[Result, ...]:
    values = [(name.removesuffix("_px"), float(getattr(intrinsics, name)), "px") for name in PINHOLE_NAMES]
    if intrinsics.distortion is not Distortion.NONE:
        values += [(n, v, "1") for n, v in zip(COEFFICIENT_NAMES, intrinsics.coefficients, strict=False)]
    return tuple(
        Result(name, value, None if covariance is None else float(np.sqrt(covariance[place, place])), unit)
        for place, (name, value, unit) in enumerate(values)
    )


def _correction(camera: CellCamera) -> tuple[Result, ...]:
    correction = camera.correction
    rows = [
        Result("scale s", correction.scale, camera.u("scale"), "1"),
        Result("disparity offset", correction.disparity_offset_px, camera.u("disparity_offset_px"), "px"),
        Result("curvature", correction.curvature_px, camera.u("curvature_px"), "px"),
    ]
    for name in correction.wave_names:
        i, j = map(int, name.split("_")[1:])
        rows.append(Result(f"wave {i},{j}", correction.wave_px[i][j], camera.u(name), "px"))
    return tuple(rows)


def _temperature_note(camera: CellCamera) -> str:
    correction = camera.correction
    if correction.reference_c is None:
        return " No temperature was recorded: the correction holds at the temperature of the calibration only."
    change = f"{1e6 * correction.scale_per_k:.1f} parts in a million per kelvin"
    return f" Scale holds at {correction.reference_c:.1f} °C and changes by {change}."
