"""What the network sees of one part: its canonical views and its points, with who sees what. NumPy alone.

A canonical view is what one camera would see of the perfect part in its nominal pose. Each of its pixels belongs to one
place of the reference; what was measured at that place of the part at hand, wherever it lies, is laid there. So a pixel
means the same place on every part, and so do statistics over parts.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.simulator.defects import DefectKind
from depthcell.errors import DepthcellError

CHANNELS = (
    "red",
    "green",
    "blue",
    "inverse_depth",
    "normal_x",
    "normal_y",
    "normal_z",
    "deviation",
    "sigma",
    "measured",
    "colored",
)
"""Of an image. Colour as a share of 255; inverse depth `z_nominal / z - 1` with the view's median nominal depth; the
normal in frame "part"; deviation from the reference in mm, positive outside, at most `DEVIATION_LIMIT_MM`; combined
standard uncertainty along the normal in mm; whether depth and colour were measured, 0 or 1. All 0 where
not measured."""

POINT_FEATURES = ("normal_x", "normal_y", "normal_z", "deviation", "sigma", "red", "green", "blue", "colored")
"""Of a point, in the units of `CHANNELS`."""

DEVIATION_LIMIT_MM = 5.0
NEIGHBOURS = 16

CLASSES = ("good", *(kind.value for kind in DefectKind))
"""What a pixel, a point or a part can be; the number of a class is its place here."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """What is true of a part; class numbers of `CLASSES`, 0 where it is good.

    Attributes:
        pixels: (V, S, S) uint8.
        points: (N,) uint8.
    """

    pixels: NDArray[np.uint8]
    points: NDArray[np.uint8]

    @property
    def is_defect(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.pixels.any() or self.points.any())


@dataclass(frozen=True, slots=True, eq=False)
class PartInput:
    """One part before the network. V views of S x S pixels, N points.

    Attributes:
        part_id: which part.
        serials: of the V cameras, in the order of the recipe.
        images: (V, C, S, S) float32, see `CHANNELS`. A lost camera is a view of zeros.
        points_part: (N, 3) float32, metres, frame "part".
        features: (N, F) float32, see `POINT_FEATURES`.
        neighbours: (N, K) int32, the K nearest points of each, itself left out; with fewer points some come twice.
        pixel: (N, V) int32, where a point shows in each view, `row * S + column`; -1 where that camera does not see it.
        labels: what is true of it; None where nobody knows.
    """

    part_id: str
    serials: tuple[str, ...]
    images: NDArray[np.float32]
    points_part: NDArray[np.float32]
    features: NDArray[np.float32]
    neighbours: NDArray[np.int32]
    pixel: NDArray[np.int32]
    labels: Labels | None = None

    def __post_init__(self) -> None:
        views, count = len(self.serials), len(self.points_part)
        side = self.images.shape[-1]
        wanted = {
            "images": (views, len(CHANNELS), side, side),
            "points_part": (count, 3),
            "features": (count, len(POINT_FEATURES)),
            "neighbours": (count, NEIGHBOURS),
            "pixel": (count, views),
        }
        for name, shape in wanted.items():
            actual = getattr(self, name).shape
            if actual != shape:
                raise DepthcellError(f"part {self.part_id}: {name} needs shape {shape}, got {actual}")
        for name in ("images", "points_part", "features"):
            if not np.isfinite(getattr(self, name)).all():
                raise DepthcellError(f"part {self.part_id}: {name} holds a value that is not finite")
        if self.labels is not None and (
            self.labels.pixels.shape != (views, side, side) or self.labels.points.shape != (count,)
        ):
            raise DepthcellError(
                f"part {self.part_id}: labels of {self.labels.pixels.shape} and {self.labels.points.shape} do not fit"
            )

    def channel(self, name: str) -> NDArray[np.float32]:
        """(V, S, S) one channel by its name."""
        return self.images[:, CHANNELS.index(name)]

    def feature(self, name: str) -> NDArray[np.float32]:
        """(N,) one feature by its name."""
        return self.features[:, POINT_FEATURES.index(name)]

    @property
    def lost_cameras(self) -> tuple[str, ...]:
        """Serial numbers of cameras that measured neither depth nor colour."""
        seen = self.channel("measured") + self.channel("colored")
        return tuple(serial for view, serial in enumerate(self.serials) if not seen[view].any())

    def nbytes(self) -> int:
        """Memory it takes, without labels."""
        return sum(value.nbytes for f in fields(self) if isinstance(value := getattr(self, f.name), np.ndarray))
