"""The recipe of a simulated cell, with limits that its cameras can hold from where they stand."""

import json

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.station import Station
from depthcell.inspect.simulated_cell import OFFSET_U_PX, SCALE_U

REGION_MARGIN_MM = 3.0
TALL_MM, ABOVE_FOOT_MM = 12.0, 2.0
TOLERANCE_MM = 0.5
TOLERANCE_SIGMAS = 6.0
"""Of what calibration leaves uncertain in depth: a narrower limit could not be decided."""
SMALLEST_AREA_MM2 = 4.0
AREA_WIDTH_PX = 6.0
"""A region to speak of is as wide as the matching window and a pixel more."""
COVERAGE_LOST_PER_MM = 0.7
"""Share of a part's surface that lies too near to an edge to be judged, for each millimetre of pixel."""
BORE_TOLERANCE_MM = 1.0
"""A matching window of 5 pixels sees a rim to tenths of a millimetre: this tells a wrong drill, not a wrong fit."""
SMALLEST_BORE_PX = 28.0
"""In a narrower bore too little of the wall is seen to hold a tolerance; that it is there is checked all the same."""


def recipe_text(station: Station, cell_file: str, golden: str | None, takt_ms: float = 2000.0) -> str:
    """The recipe, a TOML text, as a person would write it for this part and cell.

    Args:
        station: part and cameras.
        cell_file: name of the cell file beside the recipe.
        golden: name of the statistics of good parts, None without; then colour is not checked.
        takt_ms: of the line.
    """
    part, pose = station.part, station.T_cell_part
    pixel_mm, depth_u_mm = _what_cameras_resolve(station)
    low = part.mesh.min_m * 1e3 - REGION_MARGIN_MM
    high = part.mesh.max_m * 1e3 + REGION_MARGIN_MM
    if high[2] - low[2] > TALL_MM:
        # No camera looks at the foot of a tall part.
        low[2] += REGION_MARGIN_MM + ABOVE_FOOT_MM
    coverage = np.clip(1.0 - COVERAGE_LOST_PER_MM * pixel_mm, 0.3, 0.9)
    tolerance_mm = max(TOLERANCE_MM, float(np.ceil(10 * TOLERANCE_SIGMAS * depth_u_mm)) / 10)
    area_mm2 = max(SMALLEST_AREA_MM2, (AREA_WIDTH_PX * pixel_mm) ** 2)
    serials = ", ".join(f'"{camera.serial}"' for camera in station.cameras)
    sections = [
        f"schema_version = 1\nname = {json.dumps(part.name)}\ntakt_ms = {takt_ms:g}\n",
        f'[cell]\nfile = "{cell_file}"\ncameras = [{serials}]\n',
        f'[reference]\nmesh = {json.dumps(part.name + ".stl")}\nmesh_unit = "mm"\n'
        + (f'golden = "{golden}"\n' if golden else ""),
        f"[pose]\nrotation_deg = {_numbers(np.degrees(pose.rotation_vector_rad))}\n"
        f"translation_mm = {_numbers(pose.translation_m * 1e3)}\nmax_shift_mm = 5.0\nmax_turn_deg = 5.0\n",
        f"[region]\nmin_mm = {_numbers(low)}\nmax_mm = {_numbers(high)}\nmin_coverage = {coverage:.2f}\n",
        f"[surface]\ntolerance_mm = {tolerance_mm:g}\nmin_area_mm2 = {area_mm2:.1f}\nsignificance = 5.0\n",
    ]
    if golden:
        sections.append(f"[color]\nsignificance = 6.0\nmin_area_mm2 = {area_mm2 / 2:.1f}\n")
    sections += [
        f'[[bore]]\nname = "{bore.name}"\nposition_mm = {_numbers(bore.position_mm)}\n'
        f"axis = {_numbers(bore.axis)}\ndiameter_mm = {bore.diameter_mm:g}\n"
        + (f"tolerance_mm = {BORE_TOLERANCE_MM:g}\n" if bore.diameter_mm > SMALLEST_BORE_PX * pixel_mm else "")
        for bore in part.bores
    ]
    return "\n".join(sections)


def _what_cameras_resolve(station: Station) -> tuple[float, float]:
    """Width of a pixel on the part's middle and standard uncertainty of depth there, mm, of the farthest camera."""
    model = station.cameras[0].model
    middle_cell = station.T_cell_part @ ((station.part.mesh.min_m + station.part.mesh.max_m) / 2)
    depth_m = max(float(np.linalg.norm(c.T_cell_depth.translation_m - middle_cell)) for c in station.cameras)
    depth_u_m = np.hypot(SCALE_U * depth_m, OFFSET_U_PX * depth_m**2 / model.focal_baseline_m)
    return 1e3 * depth_m / model.focal_px, 1e3 * float(depth_u_m)


def _numbers(values: NDArray[np.float64] | tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{float(value) + 0.0:.4f}" for value in values) + "]"
