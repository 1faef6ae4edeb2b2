"""What good parts look like, patch by patch: the statistics that tell a defect from ordinary variation."""

from collections.abc import Sequence
from pathlib import Path

from depthcell.acquisition.partfolder import PartFolder
from depthcell.calib.cell import Cell
from depthcell.inspect.recipe import Recipe


class Golden:
    """Statistics of good parts."""

    def save(self, path: Path) -> None:
        """Write the statistics as one npz, whole or not at all."""
        raise NotImplementedError

    @classmethod
    def load(cls, path: Path) -> "Golden":
        """Read statistics.

        Raises:
            DepthcellError: the file is missing or damaged, or of another schema.
        """
        raise NotImplementedError


def fit_golden(parts: Sequence[PartFolder], recipe: Recipe, cell: Cell) -> Golden:
    """Learn what good parts look like.

    Args:
        parts: recordings of good parts; the more the better, at least five.
        recipe: of these parts; its `reference.golden` need not exist yet.
        cell: that recorded them.

    Raises:
        DepthcellError: there are too few parts, or one of them cannot be read, fused or aligned.
    """
    raise NotImplementedError
