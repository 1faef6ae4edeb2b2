"""What good parts are compared in: groups of features of the canonical views, of shape and of colour.

Canonical views lie place on place from part to part, so a feature is worth its value at that place alone. NaN stands
where it is not known.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from depthcell.models.baseline_features import CELL_PX, edge_features
from depthcell.models.goodonly.lite0 import load_lite0
from depthcell.models.network.partinput import PartInput

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
    drawn: list[Group] = [group for group in BRANCH_OF_GROUP if group not in {"lite0", "student"}]
    found: dict[Group, list[NDArray[np.float32]]] = {group: [] for group in drawn}
    for view in views:
        measured, colored = (part.channel(name)[view] > 0.5 for name in ("measured", "colored"))
        deviation = _over_scales([part.channel("deviation")[view]], measured, DEVIATION_SCALES_PX)
        curved = cv2.Laplacian(np.nan_to_num(deviation[1]), cv2.CV_32F) + 0 * deviation[1]
        normals = [part.channel(f"normal_{axis}")[view] for axis in "xyz"]
        missing = cv2.GaussianBlur((~measured).astype(np.float32), (0, 0), MISSING_SCALE_PX)
        missing = missing if measured.any() else np.full_like(missing, np.nan)  # a lost sensor is no defect
        opponents = opponent_colors(*(part.channel(name)[view] for name in ("red", "green", "blue")))
        edges = edge_features(np.ascontiguousarray(100 * opponents[0]))
        unknown = np.where(colored[::CELL_PX, ::CELL_PX], np.float32(0), np.float32(np.nan))
        found["deviation"].append(_cells([*deviation, curved]))
        found["normal"].append(_cells(_over_scales(normals, measured, (NORMAL_SCALE_PX,))))
        found["missing"].append(_cells([missing]))
        found["color"].append(_cells(_over_scales(opponents, colored, COLOR_SCALES_PX)))
        found["edge"].append(edges + unknown)
    stacked: Features = {group: np.stack(values) for group, values in found.items()}
    return {**stacked, "lite0": lite0_features(part)}


def lite0_features(part: PartInput) -> NDArray[np.float32]:
    """(V, 152, S / 8, S / 8) frozen ImageNet features; NaN where no colour was seen within the cell.

    Each of the two blocks, 40 and 112 values, is divided by the root of its mean square over the part, so that
    neither outweighs the other.
    """
    rgb = np.stack([part.channel(name) for name in ("red", "green", "blue")], axis=1)
    views, side = len(rgb), rgb.shape[-1] // LITE0_STRIDE
    cells = part.channel("colored").reshape(views, side, LITE0_STRIDE, side, LITE0_STRIDE)
    known = cells.mean(axis=(2, 4)) > KNOWN_SHARE
    with torch.inference_mode():
        _, middle, coarse = load_lite0()(torch.from_numpy(rgb).to(memory_format=torch.channels_last))
        coarse = functional.interpolate(coarse, size=middle.shape[-2:], mode="bilinear", align_corners=False)
        blocks = [block / block.square().mean().sqrt().clamp_min(1e-6) for block in (middle, coarse)]
        features: NDArray[np.float32] = torch.cat(blocks, dim=1).contiguous().numpy()
    return np.where(known[:, None], features, np.float32(np.nan))


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
    channels: Sequence[NDArray[np.float32]], known: NDArray[np.bool_], scales_px: tuple[float, ...]
) -> list[NDArray[np.float32]]:
    """Mean over Gaussian neighbourhoods of the pixels that are known alone; NaN where too few are.

    Knutsson and Westin, "Normalized and differential convolution" (CVPR 1993). All scales of a channel come before the
    next channel's.
    """
    weight = known.astype(np.float32)
    weighted = [values * weight for values in channels]
    found: dict[tuple[int, float], NDArray[np.float32]] = {}
    for sigma_px in scales_px:
        share = cv2.GaussianBlur(weight, (0, 0), sigma_px)
        share = np.where(share > KNOWN_SHARE, share, np.float32(np.nan))
        for number, values in enumerate(weighted):
            found[number, sigma_px] = (cv2.GaussianBlur(values, (0, 0), sigma_px) / share).astype(
                np.float32, copy=False
            )
    return [found[number, sigma_px] for number in range(len(channels)) for sigma_px in scales_px]


def _cells(channels: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.stack([channel[::CELL_PX, ::CELL_PX] for channel in channels])
