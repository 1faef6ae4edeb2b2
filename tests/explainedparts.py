"""A part of two flat views whose good self is known, a judge that looks at its deviation, and its canonical views."""

from collections.abc import Sequence

import numpy as np
from goodparts import SERIALS, SIDE_PX, draw_good
from numpy.typing import NDArray

from depthcell.models.network.partinput import PartInput
from depthcell.models.views.canonical import CanonicalViews

DENT = (0, 24, 36, 24, 36)
"""View, first and last row, first and last column of the dent."""


def flat_views() -> CanonicalViews:
    """One pixel is 0.5 mm on a plate that both cameras see squarely, all but a border of two pixels."""
    rows, columns = np.indices((SIDE_PX, SIDE_PX))
    plane = np.stack((columns * 5e-4, rows * 5e-4, np.zeros((SIDE_PX, SIDE_PX))), axis=-1).astype(np.float32)
    expected = np.zeros((len(SERIALS), SIDE_PX, SIDE_PX), dtype=bool)
    expected[:, 2:-2, 2:-2] = True
    return CanonicalViews(
        serials=SERIALS,
        points_part=np.stack([plane, plane]),
        normals_part=np.broadcast_to(np.array([0, 0, 1], np.float32), (2, SIDE_PX, SIDE_PX, 3)),
        expected=expected,
        cosine=expected.astype(np.float32),
        pixel_m=np.full(2, 5e-4, np.float32),
        z_nominal_m=np.full(2, 0.3, np.float32),
        sha256="0" * 64,
    )


def dent_mask() -> NDArray[np.bool_]:
    mask = np.zeros((len(SERIALS), SIDE_PX, SIDE_PX), dtype=bool)
    view, top, bottom, left, right = DENT
    mask[view, top:bottom, left:right] = True
    return mask


def dented(good: PartInput, depth_mm: float = 0.8) -> PartInput:
    from dataclasses import replace

    from depthcell.models.network.partinput import CHANNELS, CLASSES, Labels

    images, mask = good.images.copy(), dent_mask()
    hit = mask & (good.channel("measured") > 0.5)
    images[:, CHANNELS.index("deviation")] -= depth_mm * hit
    features = good.features.copy()
    in_view = good.pixel[:, DENT[0]]
    touched = (in_view >= 0) & mask[DENT[0]].ravel()[np.maximum(in_view, 0)]
    features[touched, 3] = -depth_mm
    labels = Labels(mask.astype(np.uint8) * CLASSES.index("dent"), touched.astype(np.uint8) * CLASSES.index("dent"))
    return replace(good, part_id="dented", images=images, features=features, labels=labels)


def deepest(parts: Sequence[PartInput]) -> NDArray[np.float64]:
    """A score that a person understands: the mean depth of the hundred deepest pixels, mm."""
    depth = [np.sort(-part.channel("deviation").ravel())[-100:].mean() for part in parts]
    return np.array(depth, dtype=np.float64)


def good_parts(count: int, seed: int = 0) -> list[PartInput]:
    rng = np.random.default_rng(seed)
    return [draw_good(rng, f"good-{number}") for number in range(count)]
