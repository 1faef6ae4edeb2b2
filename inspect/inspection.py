"""The whole cycle on one page of verbs: one part's frames in, one verdict out, with all that a report needs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from depthcell.calib.cell import Cell
from depthcell.fusion.align import Alignment
from depthcell.fusion.fuse import FusedPart, PartAccumulator
from depthcell.inspect.recipe import Recipe
from depthcell.inspect.verdict import Verdict

if TYPE_CHECKING:
    from depthcell.acquisition.partfolder import PartFolder


@dataclass(frozen=True, slots=True)
class Identity:
    """Which part this is and who asked.

    Attributes:
        part_id: which part.
        trigger_id: which trigger asked for it.
        sequence: counts the verdicts of this run from 1.
        recording_sha256: of what was recorded; empty where nothing could be read.
    """

    part_id: str
    trigger_id: str
    sequence: int
    recording_sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """A verdict and what it was drawn from. Everything per point is in the order of `fused.cloud`.

    Attributes:
        verdict: sealed.
        fused: the part as the cameras saw it, its views included; None where nothing could be fused.
        alignment: where the part lies; None where that failed.
        deviation_m: (N,) float32, signed distance from the reference, positive outside the material; NaN where the
            point was not compared.
        significance: (N,) float32, deviation from what good parts show over its standard uncertainty, averaged over
            the best of the scales; NaN where the point was not compared.
        color_score: (N,) float32, colour difference from good parts over its standard uncertainty; NaN where there is
            no colour or no colour check.
        finding_points: for each of `verdict.findings`, the indices of its points.
    """

    verdict: Verdict
    fused: FusedPart | None
    alignment: Alignment | None
    deviation_m: NDArray[np.float32]
    significance: NDArray[np.float32]
    color_score: NDArray[np.float32]
    finding_points: tuple[NDArray[np.intp], ...]


class Inspector:
    """Judges parts by one recipe in one cell. Everything that does not depend on the part is prepared once."""

    recipe: Recipe
    cell: Cell

    @classmethod
    def load(cls, recipe: Recipe, cell: Cell) -> "Inspector":
        """Prepare the reference, its distance field, the statistics of good parts and what each camera should see.

        Raises:
            DepthcellError: the recipe does not fit the cell, or one of its files is missing or does not fit.
        """
        raise NotImplementedError

    def judge(self, part: "PartFolder", sequence: int, trigger_id: str) -> Inspection:
        """Read, fuse and judge one recorded part. A bad part or recording never raises: it is CANNOT-TELL or NOK."""
        raise NotImplementedError

    def accumulator(self) -> PartAccumulator:
        """A fresh accumulator for the frames of one part, set to the recipe's region."""
        raise NotImplementedError

    def judge_frames(self, frames: PartAccumulator, identity: Identity, gaps: tuple[str, ...] = ()) -> Inspection:
        """Judge a part whose frames have all arrived: all that is left to do after the last frame.

        Args:
            frames: from `accumulator`, with every frame set of the part added.
            identity: which part this is.
            gaps: evidence that is known to be missing, in words; with any of them the part cannot be OK.
        """
        raise NotImplementedError
