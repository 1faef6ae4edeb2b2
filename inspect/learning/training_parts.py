"""Recorded parts as a model learns from them: observed, checked one by one, kept on disk so that they are read once."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from depthcell.acquisition.partfolder import PartFolder, find_parts
from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError
from depthcell.inspect.decision import GUARD_FACTOR
from depthcell.inspect.inspection import Inspection, Inspector
from depthcell.inspect.modelinput import identity_of, observed_input
from depthcell.inspect.observation import Observer
from depthcell.inspect.verdict import Finding
from depthcell.models.network.partinput import PartInput
from depthcell.models.views.canonical import CanonicalViews
from depthcell.models.views.partlabels import LABELS_FILE, PartLabels, labelled
from depthcell.models.views.partstore import INDEX, PartStore

FAR_BEYOND = 2.0
"""A part said to be good is not believed to be if it deviates by more than so many tolerances, proven at 95 %."""

BLACK = 0.02
"""Share of full brightness below which a whole view is black."""

MOST_NAMED = 5
"""Parts that a refusal names."""


class PartReader:
    """Reads training parts by one recipe in one cell into a store, each once.

    Attributes:
        views: what their pixels are.
        store: where they are kept.
    """

    def __init__(self, inspector: Inspector, observer: Observer, views: CanonicalViews, folder: Path) -> None:
        """Read with `inspector`; keep what was read in `folder`, and go on with what is there."""
        self.views = views
        self._inspector, self._observer = inspector, observer
        identity = identity_of(observer, views)
        there = (folder / INDEX).is_file()
        self.store = PartStore.open(folder, identity) if there else PartStore(folder, identity, views.side_px)

    def read(
        self,
        data: Path,
        begin: Callable[[int], None] = lambda _: None,
        advance: Callable[[], None] = lambda: None,
    ) -> tuple[str, ...]:
        """Every part of a folder. Those whose labels or truth name defects are defective, all others good.

        Args:
            data: folder of parts.
            begin: called with the number of parts before the first.
            advance: called after each.

        Returns:
            What a person should know, in words.

        Raises:
            DepthcellError: there is no part; two are the same recording; one cannot be used, as it was not found, is
                of another type, or a camera gave nothing; or one that is said to be good deviates far beyond the
                tolerance. All such parts are named together, after all were read.
        """
        parts = find_parts(data)
        begin(len(parts))
        refused: list[str] = []
        hidden: list[str] = []
        seen: dict[str, str] = {}
        for part in parts:
            try:
                digest = part.sha256
                if digest in seen:
                    refused.append(f"{part.part_id} is the same recording as {seen[digest]}; remove one")
                else:
                    seen[digest] = part.part_id
                    hidden += [] if self._keep(part, digest) else [part.part_id]
            except DepthcellError as error:
                refused.append(str(error))
            advance()
        check_no_part_refused(refused, f"{data}: cannot train on it")
        self._refuse_others(set(seen.values()), data)
        return self._notes(parts, hidden)

    def _keep(self, part: PartFolder, digest: str) -> bool:
        """Observe a part into the store, unless it is there; False for a defect that no camera shows."""
        kept = self.store.get(part.part_id)
        if kept is not None:
            if kept.recording_sha256 != digest:
                raise DepthcellError(f"{part.part_id} was recorded anew; remove {self.store.folder} and train again")
            return True
        inspection = self._inspector.judge(part, 1, f"training:{part.part_id}")
        seen = self._seen(inspection, part.part_id)
        labels = _labels_of(part)
        good = labels is None or labels.good
        if labels is None or labels.good:
            check_is_good(part.part_id, inspection.verdict.findings, self._inspector.recipe.surface.tolerance_mm)
        else:
            folder, T_cell_part = part.paths[0].parent, self._pose(inspection, part.part_id)
            observer = self._observer
            seen = labelled(seen, labels, folder, T_cell_part, observer.reference, self.views, observer.cell)
            if seen.labels is None or not seen.labels.is_defect:
                return False
        self.store.add(seen, good=good, recording_sha256=digest)
        return True

    def _refuse_others(self, names: set[str], data: Path) -> None:
        for part in self.store.parts:
            if part.part_id not in names:
                raise DepthcellError(
                    f"{self.store.folder}: holds {part.part_id}, which {data} does not; remove that folder, or train "
                    "on the parts it was begun with"
                )

    def _notes(self, parts: Sequence[PartFolder], hidden: Sequence[str]) -> tuple[str, ...]:
        good = sum(part.good for part in self.store.parts)
        notes = [f"{good} good parts, {len(self.store.parts) - good} with labelled defects"]
        untold = sum(_labels_of(part) is None for part in parts)
        if untold:
            notes.append(f"{untold} parts have no {LABELS_FILE} and are taken to be good")
        if hidden:
            names = ", ".join(hidden[:MOST_NAMED])
            more = " ..." if len(hidden) > MOST_NAMED else ""
            notes.append(f"left out, as no camera shows their defect: {names}{more}")
        return tuple(notes)

    def _seen(self, inspection: Inspection, part_id: str) -> PartInput:
        """What the model sees, where every camera saw something."""
        T_cell_part = self._pose(inspection, part_id)
        assert inspection.fused is not None  # noqa: S101 - what was aligned was fused; tells the type checker
        seen = observed_input(inspection.fused, T_cell_part, self._observer, self.views, part_id)
        for view, serial in enumerate(seen.serials):
            if not seen.channel("measured")[view].any():
                raise DepthcellError(f"{part_id}: camera {serial} measured no depth; record it again or remove it")
            colored = seen.channel("colored")[view] > 0.5
            brightest = max(seen.channel(name)[view][colored].max(initial=0.0) for name in ("red", "green", "blue"))
            if colored.any() and brightest < BLACK:
                raise DepthcellError(f"{part_id}: the picture of camera {serial} is black; record it anew or remove it")
        return seen

    def _pose(self, inspection: Inspection, part_id: str) -> RigidTransform:
        if inspection.alignment is None:
            raise DepthcellError(f"{part_id} was not found ({inspection.verdict.reasons[0]}); remove it")
        return inspection.alignment.T_cell_part


def check_is_good(part_id: str, findings: Iterable[Finding], tolerance_mm: float) -> None:
    """Refuse a part that is said to be good and deviates far beyond the tolerance.

    Raises:
        DepthcellError: it does; the message names the finding.
    """
    for finding in findings:
        depth = finding.depth_mm
        if depth is not None and abs(depth.value) - GUARD_FACTOR * depth.u > FAR_BEYOND * tolerance_mm:
            raise DepthcellError(f"{part_id} is said to be good, but shows {finding.text}; label it or remove it")


def check_no_part_refused(refused: Sequence[str], what: str) -> None:
    """Name parts that cannot be used, together.

    Args:
        refused: why, one sentence a part.
        what: where they are and what they are no good for.

    Raises:
        DepthcellError: there are any.
    """
    if refused:
        more = f"; and {len(refused) - MOST_NAMED} more" if len(refused) > MOST_NAMED else ""
        raise DepthcellError(f"{what}: {'; '.join(refused[:MOST_NAMED])}{more}")


def _labels_of(part: PartFolder) -> PartLabels | None:
    return PartLabels.beside(part.paths[0].parent)
