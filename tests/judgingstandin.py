"""A model that a person understands, as inspection asks for one: it doubts what deviates by more than a limit."""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from depthcell.inspect.modelinput import canonical_views, identity_of
from depthcell.inspect.observation import Observer
from depthcell.models.artifact import ModelIdentity
from depthcell.models.network.partinput import CLASSES, PartInput

LIMIT_MM, BLUR_PX = 0.3, 15


@dataclass(frozen=True)
class Opinion:
    pixel_probability: NDArray[np.float32]
    point_probability: NDArray[np.float32]
    point_class: NDArray[np.uint8]
    part_score: float
    part_probability: float
    threshold: float
    is_out_of_distribution: bool
    degraded: tuple[str, ...]

    @property
    def is_anomalous(self) -> bool:
        return self.part_score > self.threshold


@dataclass
class StandIn:
    """`doubts`: places (x, y, radius) mm, frame "part", that it takes for a stain whatever they show."""

    identity: ModelIdentity
    doubts: tuple[tuple[float, float, float], ...] = ()
    is_lost: bool = False
    error: Exception | None = None
    sha256: str = "ab" * 32
    judged: list[str] = field(default_factory=list)
    places_part: NDArray[np.float32] | None = None

    def judge(self, part: PartInput) -> Opinion:
        self.judged.append(part.part_id)
        if self.error is not None:
            raise self.error
        assert self.places_part is not None
        smooth = np.stack([cv2.blur(view, (BLUR_PX, BLUR_PX)) for view in part.channel("deviation")])
        pixels = 1 / (1 + np.exp(-20 * (np.abs(smooth) - LIMIT_MM)))
        points = np.zeros(len(part.points_part))
        kinds = np.full(len(points), CLASSES.index("dent"))
        for x, y, radius in self.doubts:
            there, near = (
                np.linalg.norm(places[..., :2] * 1e3 - (x, y), axis=-1) < radius
                for places in (self.places_part, part.points_part)
            )
            pixels = np.where(there, 0.97, pixels)
            kinds = np.where(near, CLASSES.index("stain"), kinds)
            points = np.where(near, 0.97, points)
        score = float(np.sort(np.concatenate((pixels.ravel(), points)))[-20:].mean())
        return Opinion(
            pixels.astype(np.float32),
            points.astype(np.float32),
            kinds.astype(np.uint8),
            score,
            score,
            0.6,
            self.is_lost,
            tuple(f"camera {serial} saw nothing" for serial in part.lost_cameras),
        )


def stand_in(observer: Observer, **how: object) -> StandIn:
    views = canonical_views(observer)
    return StandIn(identity_of(observer, views), places_part=views.points_part, **how)  # type: ignore[arg-type]
