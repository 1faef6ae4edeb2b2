"""How big, how often and how strongly defects are drawn, and how far good scans are altered."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from depthcell.acquisition.simulator.defects import DefectKind
from depthcell.errors import DepthcellError


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a kind: (from, to), drawn evenly in the logarithm, so small ones are as many as large ones.

    Attributes:
        radius_mm: or half the length, of burr and scratch.
        depth_mm: largest displacement, without sign.
    """

    radius_mm: tuple[float, float]
    depth_mm: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        for name, (low, high) in (("radius_mm", self.radius_mm), ("depth_mm", self.depth_mm)):
            if not (math.isfinite(low) and math.isfinite(high) and 0 <= low <= high):
                raise DepthcellError(f"{name} [{low:g}, {high:g}]: must be two positive numbers, the smaller first")
        if self.radius_mm[0] <= 0 or (self.depth_mm[0] == 0 < self.depth_mm[1]):
            raise DepthcellError("sizes: a range even in the logarithm starts above 0")


def draw_m(range_mm: tuple[float, float], rng: np.random.Generator) -> float:
    """One length in metres, evenly in the logarithm; 0 where the range is (0, 0)."""
    low, high = range_mm
    return math.exp(rng.uniform(math.log(low), math.log(high))) / 1e3 if high > 0 else 0.0


SIZES: Mapping[DefectKind, Sizes] = MappingProxyType(
    {
        DefectKind.DENT: Sizes((1.5, 8.0), (0.1, 3.0)),
        DefectKind.BUMP: Sizes((1.5, 8.0), (0.1, 3.0)),
        DefectKind.MISSING_MATERIAL: Sizes((1.5, 7.0), (0.15, 4.0)),
        DefectKind.EXCESS_MATERIAL: Sizes((1.5, 7.0), (0.15, 4.0)),
        DefectKind.BURR: Sizes((3.0, 9.0), (0.2, 2.5)),
        DefectKind.POROSITY: Sizes((2.5, 8.0), (0.2, 2.5)),
        DefectKind.WARP: Sizes((10.0, 40.0), (0.15, 2.0)),
        DefectKind.MISSING_BORE: Sizes((1.0, 20.0)),
        DefectKind.SCRATCH: Sizes((2.5, 10.0), (0.01, 0.15)),
        DefectKind.STAIN: Sizes((1.2, 8.0)),
        DefectKind.DISCOLOURATION: Sizes((2.0, 9.0)),
        DefectKind.RUST: Sizes((1.2, 8.0)),
    }
)
"""From where nothing can be found to where everything must be. A bore is as large as the part has it."""


@dataclass(frozen=True, slots=True)
class DrawSettings:
    """How defects are drawn onto a good scan.

    Attributes:
        kinds: that are drawn, each as often.
        held_out: kinds that are never drawn, so that they are new to a model.
        sizes: of each kind.
        most: a part gets 1 to that many.
        visible_share: a place is labelled where the displacement exceeds this share of its largest ...
        visible_mm: ... and this.
        visible_coverage: a place is labelled where a blemish covers more than this.
        resolution_m: radius over which depth, but not colour, is blurred: the matching window of the cameras.
        max_incidence_rad: a wall that a camera sees at a flatter angle is not measured.
        edge_reach_m: how far beside a lost wall nothing is measured, where the matching window mixes two surfaces.
        hole_share: of missing material, how much goes right through the part, where nothing is measured.
    """

    kinds: tuple[DefectKind, ...] = tuple(DefectKind)
    held_out: tuple[DefectKind, ...] = ()
    sizes: Mapping[DefectKind, Sizes] = field(default_factory=lambda: SIZES)
    most: int = 3
    visible_share: float = 0.1
    visible_mm: float = 0.02
    visible_coverage: float = 0.3
    resolution_m: float = 0.8e-3
    max_incidence_rad: float = math.radians(75.0)
    edge_reach_m: float = 0.8e-3
    hole_share: float = 0.2

    def __post_init__(self) -> None:
        if not self.drawn:
            raise DepthcellError("draw settings: every kind is held out; leave one to draw")
        for kind in self.drawn:
            if kind not in self.sizes:
                raise DepthcellError(f"draw settings: no sizes for {kind}")
        if self.most < 1 or not self.resolution_m > 0:
            raise DepthcellError("draw settings: most and resolution_m must be positive")

    @property
    def drawn(self) -> tuple[DefectKind, ...]:
        """Kinds that are drawn."""
        return tuple(kind for kind in self.kinds if kind not in self.held_out)
