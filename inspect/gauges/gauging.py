"""Which function measures which gauge: one table, nothing found by name at run time."""

from collections.abc import Callable
from typing import Any

from depthcell.fusion.scan import Scan
from depthcell.inspect.gauges.extraction import Features
from depthcell.inspect.gauges.form import (
    measure_cylindricity,
    measure_flatness,
    measure_roundness,
    measure_straightness,
)
from depthcell.inspect.gauges.gap import measure_flush, measure_gap
from depthcell.inspect.gauges.location import measure_position
from depthcell.inspect.gauges.orientation import measure_angularity, measure_parallelism, measure_perpendicularity
from depthcell.inspect.gauges.profile import measure_profile_line, measure_profile_surface
from depthcell.inspect.gauges.reading import Reading
from depthcell.inspect.gauges.runout import measure_runout
from depthcell.inspect.gauges.seam import measure_seam
from depthcell.inspect.gauges.size import (
    measure_angle,
    measure_coordinate,
    measure_diameter,
    measure_distance,
    measure_step_height,
)
from depthcell.inspect.gauges.thickness import measure_thickness
from depthcell.inspect.gauges.volume import measure_volume
from depthcell.inspect.gaugesections import (
    AngleGauge,
    AngularityGauge,
    CoordinateGauge,
    CylindricityGauge,
    DiameterGauge,
    DistanceGauge,
    FlatnessGauge,
    FlushGauge,
    GapGauge,
    GaugeSection,
    LineProfileGauge,
    ParallelismGauge,
    PerpendicularityGauge,
    PositionGauge,
    RoundnessGauge,
    RunoutGauge,
    SeamGauge,
    StepHeightGauge,
    StraightnessGauge,
    SurfaceProfileGauge,
    ThicknessGauge,
    VolumeGauge,
)

Measure = Callable[[Any, Scan, Features], Reading]
"""Takes the section of its own kind."""


def _alone(measure: Callable[[Any, Scan], Reading]) -> Measure:
    """Of a gauge that has its own box and names no feature."""
    return lambda section, scan, _: measure(section, scan)


MEASURES: dict[type[GaugeSection], Measure] = {
    DistanceGauge: measure_distance,
    StepHeightGauge: measure_step_height,
    AngleGauge: measure_angle,
    DiameterGauge: measure_diameter,
    CoordinateGauge: measure_coordinate,
    FlatnessGauge: measure_flatness,
    StraightnessGauge: measure_straightness,
    RoundnessGauge: measure_roundness,
    CylindricityGauge: measure_cylindricity,
    ParallelismGauge: measure_parallelism,
    PerpendicularityGauge: measure_perpendicularity,
    AngularityGauge: measure_angularity,
    PositionGauge: measure_position,
    SurfaceProfileGauge: measure_profile_surface,
    LineProfileGauge: measure_profile_line,
    RunoutGauge: measure_runout,
    ThicknessGauge: _alone(measure_thickness),
    GapGauge: _alone(measure_gap),
    FlushGauge: _alone(measure_flush),
    SeamGauge: _alone(measure_seam),
    VolumeGauge: _alone(measure_volume),
}


def measure_gauge(section: GaugeSection, scan: Scan, features: Features) -> Reading:
    """Measure one gauge of a recipe on one part.

    Raises:
        DepthcellError: (`NOT_MEASURED`) there is nothing to measure; the message says why.
    """
    return MEASURES[type(section)](section, scan, features)
