"""Thickness, gap and flush on exact walls and faces, with noise, and where a side was not seen."""

import numpy as np
import pytest
from gaugedscan import Measured, Patch, face, scan_of
from hypothesis import given
from hypothesis import strategies as st

from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.budget import uncertainty_budget
from depthcell.inspect.gauges.gap import measure_flush, measure_gap
from depthcell.inspect.gauges.thickness import measure_thickness
from depthcell.inspect.gaugesections import FlushGauge, GapGauge, ThicknessGauge

TURNED = RigidTransform.from_rotation_vector("cell", "part", np.array([0.2, -0.1, 0.3]), np.array([0.01, 0.02, 0.4]))
BOX = {"min_mm": (-30, -30, -30), "max_mm": (30, 30, 30)}


def thickness(statistic: str = "mean") -> ThicknessGauge:
    said = {"kind": "thickness", "name": "wall", "direction": (0, 0, 1), "statistic": statistic}
    return ThicknessGauge.model_validate(said | BOX)


def wall(thickness_mm: float) -> list[Patch]:
    return [face((0, 0, thickness_mm), (0, 0, 1), (20, 20)), face((0, 0, 0), (0, 0, -1), (20, 20))]


@given(st.floats(0.2, 20.0))
def test_the_thickness_of_an_exact_wall_is_exact(true_mm: float) -> None:
    for statistic in ("mean", "smallest"):
        reading = measure_thickness(thickness(statistic), scan_of(wall(true_mm), Measured(T_cell_part=TURNED)))
        assert reading.value == pytest.approx(true_mm / 1e3, abs=1e-8)


def test_the_smallest_thickness_is_found_where_the_wall_is_thin() -> None:
    patches = wall(4.0)
    near = patches[0]
    thin = (np.abs(near.points[:, 0]) < 4e-3) & (np.abs(near.points[:, 1]) < 4e-3)
    patches[0] = near.lifted(np.where(thin, -0.5e-3, 0.0))
    assert measure_thickness(thickness("smallest"), scan_of(patches)).value == pytest.approx(3.5e-3, abs=2e-5)
    assert 3.5e-3 < measure_thickness(thickness(), scan_of(patches)).value < 4e-3


@pytest.mark.parametrize("statistic", ["mean", "smallest"])
def test_stated_noise_of_a_thickness_holds(statistic: str) -> None:
    z = []
    for seed in range(60):
        scan = scan_of(wall(4.0), Measured(sigma_m=2e-5, seed=seed))
        reading = measure_thickness(thickness(statistic), scan)
        u = uncertainty_budget(reading.influence, scan, reading.noise_u, reading.extra_u).u
        z.append((reading.value - 4e-3) / u)
    assert np.mean(np.abs(z) < 2) > 0.88


def test_a_wall_seen_from_one_side_has_no_thickness() -> None:
    with pytest.raises(DepthcellError, match="far side") as caught:
        measure_thickness(thickness(), scan_of(wall(4.0)[:1]))
    assert caught.value.reason is Reason.NOT_MEASURED


def test_sides_that_lie_nowhere_opposite_have_no_thickness() -> None:
    sides = [face((-20, 0, 4), (0, 0, 1), (8, 20)), face((20, 0, 0), (0, 0, -1), (8, 20))]
    with pytest.raises(DepthcellError, match="nowhere opposite"):
        measure_thickness(thickness(), scan_of(sides))


def joint(flush_mm: float, gap_mm: float) -> list[Patch]:
    """Two faces with a gap along y between, and the upper 3 mm of its walls."""
    return [
        face((-gap_mm / 2 - 6, 0, 0), (0, 0, 1), (12, 12), 0.5),
        face((gap_mm / 2 + 6, 0, flush_mm), (0, 0, 1), (12, 12), 0.5),
        face((-gap_mm / 2, 0, -1.5), (1, 0, 0), (3, 12), 0.5),
        face((gap_mm / 2, 0, -1.5), (-1, 0, 0), (3, 12), 0.5),
    ]


JOINT = {"name": "door", "point_mm": (0, 0, 0), "across": (1, 0, 0), "normal": (0, 0, 1), "length_mm": 10.0}


@given(st.floats(-1.5, 1.5), st.floats(2.0, 6.0))
def test_gap_and_flush_of_an_exact_joint_are_exact(flush_mm: float, gap_mm: float) -> None:
    scan = scan_of(joint(flush_mm, gap_mm), Measured(T_cell_part=TURNED))
    assert measure_flush(FlushGauge.model_validate({"kind": "flush"} | JOINT), scan).value == pytest.approx(
        flush_mm / 1e3, abs=1e-8
    )
    assert measure_gap(GapGauge.model_validate({"kind": "gap"} | JOINT), scan).value == pytest.approx(
        gap_mm / 1e3, abs=1e-8
    )


def test_stated_noise_of_gap_and_flush_holds() -> None:
    z = []
    for seed in range(40):
        scan = scan_of(joint(0.5, 4.0), Measured(sigma_m=3e-5, seed=seed))
        for reading, true_m in (
            (measure_flush(FlushGauge.model_validate({"kind": "flush"} | JOINT), scan), 0.5e-3),
            (measure_gap(GapGauge.model_validate({"kind": "gap"} | JOINT), scan), 4e-3),
        ):
            z.append((reading.value - true_m) / uncertainty_budget(reading.influence, scan).u)
    assert np.mean(np.abs(z) < 2) > 0.88


def test_a_gap_whose_walls_nobody_saw_is_no_number() -> None:
    with pytest.raises(DepthcellError, match="first wall") as caught:
        measure_gap(GapGauge.model_validate({"kind": "gap"} | JOINT), scan_of(joint(0.0, 4.0)[:2]))
    assert caught.value.reason is Reason.NOT_MEASURED


def test_a_face_that_is_missing_is_named() -> None:
    with pytest.raises(DepthcellError, match="second face"):
        measure_flush(FlushGauge.model_validate({"kind": "flush"} | JOINT), scan_of(joint(0.0, 4.0)[:1]))


def test_across_and_normal_must_differ() -> None:
    bad = JOINT | {"across": (0, 0.01, 1)}
    with pytest.raises(DepthcellError, match="nearly the same direction"):
        measure_flush(FlushGauge.model_validate({"kind": "flush"} | bad), scan_of(joint(0.0, 4.0)))
