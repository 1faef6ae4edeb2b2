"""The planner's answer for people and programs: lines of text, JSON, and a picture over all distances."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from depthcell.acquisition.simulator.cameras import CameraModel, stereo_model
from depthcell.calib.planning.plan import MIN_DISPARITY_PX, CellPlan, PlannedDefect, PlanRequest, plan
from depthcell.calib.target.board_text import format_length
from depthcell.errors import DepthcellError
from depthcell.files import written_beside


def plan_lines(answer: CellPlan) -> list[tuple[str, str]]:
    """Name and value of everything worth knowing, in the order in which people ask."""
    frames = f"{answer.frames} frame{'s' if answer.frames > 1 else ''}"
    lines = [
        ("camera", f"{answer.camera}, 848x480, at {_mm(answer.distance_m)}"),
        ("measures from", f"{_mm(answer.min_depth_m)} (min-Z) to {_mm(answer.max_depth_m)}"),
        ("field of view", f"{1e3 * answer.width_m:.0f} x {1e3 * answer.height_m:.0f} mm"),
        ("resolution", f"{answer.pixels_per_mm:.2f} px per mm in depth, {answer.color_pixels_per_mm:.2f} in colour"),
        ("noise of a pixel", f"{_mm(answer.sigma_frame_m)} in one frame, {_mm(answer.sigma_mean_m)} after {frames}"),
        ("never averages out", f"{_mm(answer.sigma_lasting_m)} of it, however many frames"),
        (f"{answer.defect} of {format_length(answer.size_m)}", f"{answer.defect_px:.1f} px across; {_seen(answer)}"),
    ]
    if answer.color_contrast is not None:
        lines.append(("in colour", _in_colour(answer.color_contrast)))
    return lines


def plan_json(answer: CellPlan) -> str:
    """All figures, SI, as JSON."""
    return json.dumps(asdict(answer), indent=2) + "\n"


def write_plan_picture(request: PlanRequest, path: Path) -> None:
    """Draw the smallest depth seen at 5 sigma over distance, of all cameras, as PNG; the request is marked."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, and only the picture needs it

    answer = plan(request)
    figure = Figure(figsize=(8.0, 4.8), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for number, name in enumerate(CameraModel):
        distances_m, depths_m = smallest_over_distance(replace(request, camera=name))
        wide = 2.2 if name == request.camera else 1.0
        axes.plot(1e3 * distances_m, 1e3 * depths_m, color=f"C{number}", lw=wide, label=name)
        axes.axvline(1e3 * stereo_model(name).min_depth_m, color=f"C{number}", lw=0.7, ls=":")
    if answer.smallest_depth_m is not None:
        axes.plot(1e3 * request.distance_m, 1e3 * answer.smallest_depth_m, "ko", ms=7, label="this plan")
    what = f"{request.defect} of {format_length(request.size_m)}, {request.frames} frames"
    axes.set(xscale="log", yscale="log", xlabel="distance, mm", ylabel="smallest depth seen at 5 sigma, mm")
    axes.set_title(f"{what}; dotted: nearest distance of each camera", fontsize=10)
    axes.grid(which="both", alpha=0.25)
    axes.legend(fontsize=9)
    with written_beside(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": "depthcell"})


def smallest_over_distance(request: PlanRequest, steps: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Distances (n,) in metres at which the camera measures, and the smallest depth seen there; NaN where none is."""
    model = stereo_model(request.camera)
    farthest_m = min(model.focal_baseline_m / MIN_DISPARITY_PX, 8 * model.min_depth_m)
    distances_m = np.geomspace(1.001 * model.min_depth_m, farthest_m, steps)
    depths = []
    for distance_m in distances_m:
        try:
            depths.append(plan(replace(request, distance_m=float(distance_m))).smallest_depth_m)
        except DepthcellError:  # the defect fills more than the image so near
            depths.append(None)
    return distances_m, np.array([math.nan if depth is None else depth for depth in depths])


def _seen(answer: CellPlan) -> str:
    if answer.smallest_depth_m is None:
        share = f"{answer.seen_share:.0%} of its depth is left after the matching window"
        return f"not seen in depth: {share}, and the noise is too large"
    word = "high" if answer.defect is PlannedDefect.BUMP else "deep"
    return f"seen at 5 sigma from {_mm(answer.smallest_depth_m)} {word}"


def _in_colour(contrast: float) -> str:
    if contrast > 200:
        return "not seen in colour either: it fills too little of a pixel"
    return f"seen at 5 sigma from {max(contrast, 1.0):.0f} grey values (of 255) of contrast"


def _mm(length_m: float) -> str:
    """Millimetres with three significant digits."""
    length_mm = 1e3 * length_m
    digits = max(0, 2 - math.floor(math.log10(length_mm))) if length_mm > 0 else 0
    return f"{length_mm:.{digits}f} mm"
