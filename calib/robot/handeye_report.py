"""A hand-eye calibration for people and programs: JSON, one table, one sentence."""

import json
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.robot.handeye import HandEye, Scatter


def handeye_json(result: HandEye) -> str:
    """The calibration as JSON: transforms, covariance by parameter, offset, residuals of rotation and position."""
    held_out = result.held_out
    content = {
        "settings": asdict(result.settings),
        "transforms": [_transform(one) for one in (result.T_mount_camera, result.T_fixed_target)],
        "offset_s": result.offset_s,
        "parameters": list(result.parameter_names),
        "covariance": result.covariance.tolist(),
        "birge": result.birge,
        "pairs": len(result.residuals),
        "outliers": list(result.outliers),
        "unused": result.unused,
        "residuals": {
            "rotation_rms_rad": result.rotation_rms_rad,
            "translation_rms_m": result.translation_rms_m,
            "noise": result.noise.tolist(),
            "tail": result.tail,
            "memory": result.memory.tolist(),
        },
        "scatter": {"start": _scatter(result.start), "refined": _scatter(result.scatter), "solver": result.solver},
        "weakest": {"direction": result.weakest.tolist(), "u_m": result.weakest_u_m},
        "held_out": None
        if held_out is None
        else {
            "place_rms_m": held_out.place_rms_m.tolist(),
            "rotation_rad": held_out.rotation_rad,
            "translation_m": held_out.translation_m,
            "chi_square": held_out.chi_square,
            "p": held_out.p,
        },
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def handeye_table(result: HandEye) -> Table:
    """The result for a terminal: millimetres and degrees, with 95 % intervals of the mount."""
    mount = result.T_mount_camera
    table = Table(title=f"T_{mount.target}_{mount.source}", title_justify="left")
    table.add_column("")
    table.add_column("value", justify="right")
    table.add_column("95 % of it within", justify="right")
    half = 1.96 * np.sqrt(np.diag(result.mount_covariance))
    for name, value, within in zip("xyz", mount.translation_m, half[3:], strict=True):
        table.add_row(f"{name} (mm)", f"{value * 1e3:.2f}", f"± {within * 1e3:.2f}")
    for name, value, within in zip("xyz", np.degrees(mount.rotation_vector_rad), np.degrees(half[:3]), strict=True):
        table.add_row(f"r{name} (deg)", f"{value:.3f}", f"± {within:.3f}")
    if result.offset_s is not None:
        within = 1.96 * float(np.sqrt(result.covariance[12, 12]))
        table.add_row("robot's clock ahead (ms)", f"{result.offset_s * 1e3:.2f}", f"± {within * 1e3:.2f}")
    table.add_row("rotation residual, rms (deg)", f"{np.degrees(result.rotation_rms_rad):.3f}", "")
    table.add_row("position residual, rms (mm)", f"{result.translation_rms_m * 1e3:.3f}", "")
    for name, scatter in (
        (f"scatter with {result.solver} (mm)", result.start),
        ("scatter refined (mm)", result.scatter),
    ):
        table.add_row(name, _millimetres(scatter.samples_m), "")
    if result.held_out is not None:
        for half_name, rms in zip(("first", "second"), result.held_out.place_rms_m, strict=True):
            table.add_row(f"{half_name} half by the other (mm)", _millimetres(rms), "")
    return table


def handeye_sentence(result: HandEye) -> str:
    """What to think of it, in one sentence."""
    direction = ", ".join(f"{x:+.2f}" for x in result.weakest)
    weakest = f"least certain along ({direction}), u = {result.weakest_u_m * 1e3:.2g} mm"
    counted = f"{len(result.residuals)} pairs, {len(result.outliers)} outliers, {result.unused} without a partner"
    if result.held_out is None:
        return f"{counted}; {weakest}; not checked by halves, which have too little motion each"
    if result.birge > 1:
        factor = np.sqrt(result.birge)
        return (
            f"{counted}; {weakest}; the two halves contradict each other, uncertainties are {factor:.1f} times enlarged"
        )
    return f"{counted}; {weakest}; the two halves agree (p {result.held_out.p:.2f})"


def _transform(one: RigidTransform) -> dict[str, object]:
    return {
        "target": one.target,
        "source": one.source,
        "rotation_rad": one.rotation_vector_rad.tolist(),
        "translation_m": one.translation_m.tolist(),
    }


def _scatter(one: Scatter) -> dict[str, list[float]]:
    return {"samples_m": one.samples_m.tolist(), "common_m": one.common_m.tolist()}


def _millimetres(values_m: NDArray[np.float64]) -> str:
    return " ".join(f"{value * 1e3:.2f}" for value in values_m)
