"""What the models room hands on: an `AnomalyMap`, how unlike a good part each pixel of a part looks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthcell.errors import DepthcellError


@dataclass(frozen=True, slots=True, eq=False)
class AnomalyMap:
    """The judgement of one part by one method. Scores of one method compare with each other, not across methods.

    Attributes:
        score: (H, W) float32, on the pixel grid of the judged image; higher is less like a good part, 0 off the part.
            Finite everywhere: a pixel without depth is judged by what is missing there.
        part_score: one number for the whole part, from the worst place of `score`.
        method: which method judged, with its version.
    """

    score: NDArray[np.float32]
    part_score: float
    method: str

    def __post_init__(self) -> None:
        if self.score.ndim != 2 or self.score.dtype != np.float32:
            raise DepthcellError(
                f"anomaly map: score needs shape (H, W) float32, got {self.score.shape} {self.score.dtype}"
            )
        if not (np.isfinite(self.score).all() and np.isfinite(self.part_score)):
            raise DepthcellError("anomaly map: a score is not finite")
