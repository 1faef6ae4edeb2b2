"""What lies in the fixture when the part does not lie where it should, asked by a recipe; prepared when first asked."""

from functools import cached_property

from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.align import Alignment, AlignmentSettings
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.reference import Reference
from depthcell.fusion.region import Region
from depthcell.fusion.registration.globalstart import PoseSearch
from depthcell.fusion.registration.presence import Expectation, explained, is_doubtful, look
from depthcell.inspect.recipe import Recipe


class PresenceCheck:
    """Names a part that is missing, upside down, astray, another, or not alone."""

    def __init__(self, recipe: Recipe, cell: Cell, reference: Reference, settings: AlignmentSettings) -> None:
        self._cell, self._reference = cell, reference
        region = Region(recipe.pose.T_cell_part, recipe.region.min_m, recipe.region.max_m)
        self._expected = Expectation(recipe.pose.T_cell_part, settings, region)

    @cached_property
    def _search(self) -> PoseSearch:
        return PoseSearch(self._reference)

    def named(self, failure: DepthcellError, cloud: PartCloud) -> DepthcellError:
        """A failed alignment with what lies there added; any other error as it is."""
        if failure.reason is not Reason.ALIGNMENT_FAILED:
            return failure
        return explained(failure, cloud, self._cell, self._search, self._expected)

    def check(self, alignment: Alignment, cloud: PartCloud) -> None:
        """Look twice where an alignment leaves much of the cloud unexplained.

        Raises:
            DepthcellError: (`PART_MISSING`, `WRONG_POSE`, `SEVERAL_PARTS`, `WRONG_PART`) the part is not what lies
                there, or not alone.
        """
        if is_doubtful(alignment):
            look(cloud, self._cell, self._search, self._expected).refuse()
