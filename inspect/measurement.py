"""What `depthcell measure` hands on: one measured part with all its gauges, and what holds for the whole run."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from depthcell.errors import DepthcellError
from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.gauged import GaugeResult
from depthcell.inspect.gauges.reading import Drawn
from depthcell.inspect.measurement_deviation import DeviationRecord, deviation_record
from depthcell.inspect.verdict import Decision, Provenance


@dataclass(frozen=True, slots=True)
class LetGo:
    """What is left of the points of a part whose scan was let go.

    Attributes:
        placed: whether there was a scan.
        deviation: from the reference; None without one.
    """

    placed: bool
    deviation: DeviationRecord | None


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredPart:
    """One part, measured.

    Attributes:
        part_id: which part.
        scan: its points, where it lies, and its nominal surface; None where nothing could be fused or placed.
        results: one for each gauge of the recipe, in its order.
        deviation_m: (N,) signed deviation of the cloud's points from the reference, positive outside the material; NaN
            where a point belongs to no face. None without a reference.
        deviation_u_m: (N,) standard uncertainty of each, or None.
        decision: OK, NOK or CANNOT-TELL.
        reasons: why, in words, worst first; never empty.
        provenance: SHA-256 of what it rests on.
        measured_at: ISO 8601, UTC.
        let_go: in place of scan and deviations, see `without_points`.
    """

    part_id: str
    scan: Scan | None
    results: tuple[GaugeResult, ...]
    deviation_m: NDArray[np.float64] | None
    deviation_u_m: NDArray[np.float64] | None
    decision: Decision
    reasons: tuple[str, ...]
    provenance: Provenance
    measured_at: str
    let_go: LetGo | None = None

    def __post_init__(self) -> None:
        if not self.reasons:
            raise DepthcellError(f"measured part '{self.part_id}': reasons is empty; say why it was decided so")
        points = 0 if self.scan is None else len(self.scan.cloud)
        for name in ("deviation_m", "deviation_u_m"):
            values = getattr(self, name)
            if values is not None and values.shape != (points,):
                raise DepthcellError(
                    f"measured part '{self.part_id}': {name} needs one value for each of the {points} points, "
                    f"got shape {values.shape}"
                )

    @property
    def seen(self) -> NDArray[np.intp]:
        """(M,) indices of the points whose deviation is known; empty without a reference."""
        if self.deviation_m is None:
            return np.empty(0, dtype=np.intp)
        return np.flatnonzero(np.isfinite(self.deviation_m))

    @property
    def is_placed(self) -> bool:
        """Whether the part was found and its points brought into its frame."""
        return self.scan is not None if self.let_go is None else self.let_go.placed

    @property
    def deviation(self) -> DeviationRecord | None:
        """From the reference in a few numbers; None without one."""
        if self.let_go is not None:
            return self.let_go.deviation
        return None if self.deviation_m is None else deviation_record(self.deviation_m)

    def without_points(self) -> "MeasuredPart":
        """The part as the tables and the index need it: its points, which take most of the memory, let go."""
        return replace(
            self,
            scan=None,
            deviation_m=None,
            deviation_u_m=None,
            let_go=LetGo(self.is_placed, self.deviation),
            results=tuple(replace(result, drawn=tuple(map(_bare, result.drawn))) for result in self.results),
        )


@dataclass(frozen=True, slots=True)
class MeasurementFacts:
    """What holds for all parts of a run.

    Attributes:
        source: what was measured: a recording, a part's folder or a folder of parts.
        recipe_name, cell_name: what people call them.
        tolerance_mm: the colour scale reaches to this on both sides, the surface's tolerance as a rule.
        written_at: ISO 8601, UTC.
        versions: software -> version.
    """

    source: str
    recipe_name: str
    cell_name: str
    tolerance_mm: float
    written_at: str
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.tolerance_mm > 0:
            raise DepthcellError(f"measurement: tolerance_mm must be positive, got {self.tolerance_mm:g}")


def _bare(drawn: Drawn) -> Drawn:
    return replace(drawn, points=drawn.points[:0].copy(), lift_m=None)
