"""What good parts are compared in: groups of features of the canonical views, of shape and of colour.

Canonical views lie place on place from part to part, so a feature is worth its value at that place alone. NaN stands
where it is not known.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from depthcell.models.baseline_features import CELL_PX, edge_features
from depthcell.models.goodonly.lite0 import load_lite0
from depthcell.models.network.partinput import PartInput
from depthcell.processes import default_jobs

Branch = Literal["rgb", "depth", "student"]
Group = Literal["deviation", "normal", "missing", "color", "edge", "lite0", "student"]

BRANCH_OF_GROUP: Mapping[Group, Branch] = {
    "deviation": "depth",
    "normal": "depth",
    "missing": "depth",
    "color": "rgb",
    "edge": "rgb",
    "lite0": "rgb",
    "student": "student",
}
"""The last is what a student fails by, see `student.py`; the others are features of the part itself."""
DEVIATION_SCALES_PX = (1.0, 2.0, 4.0)
COLOR_SCALES_PX = (1.5, 4.0)
NORMAL_SCALE_PX = 1.5
MISSING_SCALE_PX = 2.5
KNOWN_SHARE = 0.3
"""A mean over a neighbourhood is known where at least this share of its weight was measured."""
LITE0_STRIDE = 8

Features = dict[Group, NDArray[np.float32]]


def part_features(part: PartInput) -> Features:
    """Features of each view of a part.

    Returns:
        For each group (V, F, h, w): h = S / 8 for "lite0", S / 2 for the others. "deviation": mean deviation in mm over
        three neighbourhoods, and its Laplacian; "normal": its three components; "missing": share not measured around;
        "color": lightness and two opponent colours over two neighbourhoods; "edge": see `edge_features`; "lite0":
        of strides 8 and 16, 152 values of unit mean square each.
    """
    views = range(len(part.serials))
    with ThreadPoolExecutor(max_workers=default_jobs()) as pool:
        jobs = [(pool.submit(_colors, part, view), pool.submit(_shapes, part, view)) for view in views]
        of_views: list[Features] = [colors.result() | shapes.result() for colors, shapes in jobs]
    stacked: Features = {group: np.stack([of_view[group] for of_view in of_views]) for group in of_views[0]}
    return {**stacked, "lite0": lite0_features(part)}


def _shapes(part: PartInput, view: int) -> Features:
    """What depth shows of one view, (F, S / 2, S / 2) of each group."""
    measured = part.channel("measured")[view] > 0.5
    deviation = _over_scales([part.channel("deviation")[view]], measured, DEVIATION_SCALES_PX)
    curved = cv2.Laplacian(np.nan_to_num(deviation[1]), cv2.CV_32F) + 0 * deviation[1]
    normals = [part.channel(f"normal_{axis}")[view] for axis in "xyz"]
    missing = cv2.GaussianBlur((~measured).astype(np.float32), (0, 0), MISSING_SCALE_PX)
    missing = missing if measured.any() else np.full_like(missing, np.nan)  # a lost sensor is no defect
    return {
        "deviation": np.stack([_on_cells(channel) for channel in (*deviation, curved)]),
        "normal": np.stack(_over_scales(normals, measured, (NORMAL_SCALE_PX,), CELL_PX)),
        "missing": _on_cells(missing)[None],
    }


def _colors(part: PartInput, view: int) -> Features:
    """What colour shows of one view, (F, S / 2, S / 2) of each group but "lite0"."""
    colored = part.channel("colored")[view] > 0.5
    opponents = opponent_colors(*(part.channel(name)[view] for name in ("red", "green", "blue")))
    unknown = np.where(_on_cells(colored), np.float32(0), np.float32(np.nan))
    return {
        "color": np.stack(_over_scales(opponents, colored, COLOR_SCALES_PX, CELL_PX)),
        "edge": edge_features(np.ascontiguousarray(100 * opponents[0])) + unknown,
    }


def lite0_features(part: PartInput) -> NDArray[np.float32]:
    """(V, 152, S / 8, S / 8) frozen ImageNet features; NaN where no colour was seen within the cell.

    Each of the two blocks, 40 and 112 values, is divided by the root of its mean square over the part, so that
    neither outweighs the other.
    """
    rgb, colored = (
        torch.from_numpy(np.stack([part.channel(name) for name in names], axis=1)).to(memory_format=torch.channels_last)
        for names in (("red", "green", "blue"), ("colored",))
    )
    with torch.inference_mode():
        _, middle, coarse = load_lite0()(rgb)
        coarse = functional.interpolate(coarse, size=middle.shape[-2:], mode="bilinear", align_corners=False)
        blocks = [block / block.square().mean().sqrt().clamp_min(1e-6) for block in (middle, coarse)]
        is_unknown = functional.avg_pool2d(colored, LITE0_STRIDE) <= KNOWN_SHARE
        features: NDArray[np.float32] = (
            torch.cat(blocks, dim=1).masked_fill_(is_unknown, torch.nan).contiguous().numpy()
        )
    return features


def opponent_colors(
    red: NDArray[np.float32], green: NDArray[np.float32], blue: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Lightness, red against green and yellow against blue, the axes of van de Sande et al. (IEEE TPAMI 32, 2010)."""
    return (
        ((red + green + blue) / 3).astype(np.float32),
        ((red - green) / np.sqrt(2)).astype(np.float32),
        ((red + green - 2 * blue) / np.sqrt(6)).astype(np.float32),
    )


def _over_scales(
    channels: Sequence[NDArray[np.float32]], known: NDArray[np.bool_], scales_px: tuple[float, ...], every_px: int = 1
) -> list[NDArray[np.float32]]:
    """Mean over Gaussian neighbourhoods of the pixels that are known alone; NaN where too few are.

    Knutsson and Westin, "Normalized and differential convolution" (CVPR 1993). All scales of a channel come before the
    next channel's; the means are those of every so many pixels of a row and of a column.
    """
    weight = known.astype(np.float32)
    weighted = [values * weight for values in channels]
    found: dict[tuple[int, float], NDArray[np.float32]] = {}
    for sigma_px in scales_px:
        share = cv2.GaussianBlur(weight, (0, 0), sigma_px)[::every_px, ::every_px]
        share = np.where(share > KNOWN_SHARE, share, np.float32(np.nan))
        for number, values in enumerate(weighted):
            mean = cv2.GaussianBlur(values, (0, 0), sigma_px)[::every_px, ::every_px] / share
            found[number, sigma_px] = mean.astype(np.float32, copy=False)
    return [found[number, sigma_px] for number in range(len(channels)) for sigma_px in scales_px]


def _on_cells(values: NDArray[Any]) -> NDArray[Any]:
    return values[::CELL_PX, ::CELL_PX]
