"""Pictures of an explanation as PNG: cut-outs about a finding, whole views, curves of faithfulness."""

import base64
from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from depthcell.calib.certify.plots import house_style, png_of
from depthcell.models.explanation.faithfulness import Faithfulness
from depthcell.models.network.partinput import CHANNELS, PartInput

CUT_OUT_PX, SHOWN_PX = 48, 220
"""Smallest side of a cut-out, and the side that it is shown with."""

COLORS = [CHANNELS.index(name) for name in ("red", "green", "blue")]
DEVIATION, MEASURED = CHANNELS.index("deviation"), CHANNELS.index("measured")
UNMEASURED = (200, 200, 200)

Picture = NDArray[np.uint8]


def color_picture(part: PartInput, view: int) -> Picture:
    """(S, S, 3) what the camera saw."""
    rgb = np.clip(np.moveaxis(part.images[view, COLORS], 0, -1), 0, 1) * 255
    return np.asarray(rgb, dtype=np.uint8)


def deviation_picture(part: PartInput, view: int, limit_mm: float) -> Picture:
    """(S, S, 3) deviation: blue inwards, red outwards, white none; grey where nothing was measured."""
    share = np.clip(part.images[view, DEVIATION] / limit_mm, -1, 1)[..., None]
    cold, warm, none = (np.array(color, np.float32) for color in ((30, 70, 200), (200, 40, 30), (255, 255, 255)))
    picture = none + np.where(share < 0, -share * (cold - none), share * (warm - none))
    picture[part.images[view, MEASURED] < 0.5] = UNMEASURED
    return np.asarray(picture, dtype=np.uint8)


def heat_picture(part: PartInput, view: int, heat: NDArray[np.float32], largest: float) -> Picture:
    """(S, S, 3) what the camera saw in grey, with `heat` (S, S) over it, from none to `largest`."""
    gray = color_picture(part, view).mean(axis=-1)[..., None].repeat(3, axis=-1)
    share = np.clip(heat / max(largest, 1e-12), 0, 1)
    colored = cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    weight = (0.75 * np.sqrt(share))[..., None]
    return np.asarray(gray * (1 - weight) + colored * weight, dtype=np.uint8)


def cut_out(picture: Picture, mask: NDArray[np.bool_], *, outlined: bool = True) -> str:
    """A square about a mask as a data URI, enlarged, with the mask's outline."""
    rows, columns = np.nonzero(mask)
    side = picture.shape[0]
    if not len(rows):
        rows, columns = np.array([0, side - 1]), np.array([0, side - 1])
    width = int(min(side, max(CUT_OUT_PX, 1.6 * max(np.ptp(rows), np.ptp(columns)))))
    top, left = (
        int(np.clip((values.min() + values.max() - width) // 2, 0, side - width)) for values in (rows, columns)
    )
    window = np.s_[top : top + width, left : left + width]
    shown_px = (SHOWN_PX, SHOWN_PX)
    large = np.array(cv2.resize(picture[window], shown_px, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
    if outlined:
        shown = cv2.resize(mask[window].astype(np.uint8), shown_px, interpolation=cv2.INTER_NEAREST)
        outline, _ = cv2.findContours(shown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(large, outline, -1, (0, 200, 90), 1)
    return data_uri(large)


def data_uri(picture: Picture) -> str:
    """A picture (H, W, 3) as the address of an image that needs no file."""
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
    return png_uri(encoded.tobytes())


def png_uri(png: bytes) -> str:
    """The same of a PNG."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def curves_picture(measured: Sequence[Faithfulness]) -> bytes:
    """Deletion and insertion curves as a PNG; the share of places is drawn by its cube root: defects are small."""
    return png_of(_curves(measured))


@house_style
def _curves(measured: Sequence[Faithfulness]) -> Figure:
    figure = Figure(figsize=(9.0, 3.2), layout="constrained", facecolor="white")
    for axis, name in zip(figure.subplots(1, 2, sharey=True), ("deletion", "insertion"), strict=True):
        for one in measured:
            curve, area = getattr(one, name), getattr(one, f"{name}_area")
            axis.plot(np.cbrt(one.share), curve, label=f"{one.name}: {area:.3f}", linewidth=1.4)
        ticks = np.array([0.0, 0.001, 0.01, 0.1, 0.3, 1.0])
        axis.set_xticks(np.cbrt(ticks), [f"{100 * tick:g} %" for tick in ticks])
        axis.set_title(f"{name}, area under the curve")
        axis.set_xlabel("share of places")
        axis.legend()
    figure.axes[0].set_ylabel("score: 0 the good part's, 1 this part's")
    return figure
