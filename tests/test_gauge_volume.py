"""Volumes of dents and bumps of known size against a block, and where too little was seen."""

import numpy as np
import pytest
from gaugedscan import Measured, Patch, face, scan_of

from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.budget import uncertainty_budget
from depthcell.fusion.reference import Reference
from depthcell.inspect.gauges.volume import measure_volume
from depthcell.inspect.gaugesections import VolumeGauge

POSE = RigidTransform.from_rotation_vector("cell", "part", np.zeros(3), np.array([0.0, 0.0, 0.01]))
DEPTH_M, RADIUS_M = 1e-3, 6e-3
TRUE_M3 = np.pi * RADIUS_M**2 * DEPTH_M / 2
"""Of a paraboloid."""


@pytest.fixture(scope="module")
def block() -> Reference:
    """60 x 40 x 10 mm, its top at z = 10."""
    corners = np.array([[x, y, z] for z in (0, 10) for y in (-20, 20) for x in (-30, 30)]) / 1e3
    quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    triangles = [(a, b, c) for a, b, c, d in quads for a, b, c in ((a, b, c), (a, c, d))]
    return Reference(corners, np.array(triangles, np.int32))


def volume(of: str, threshold_mm: float = 0.1) -> VolumeGauge:
    said = {"kind": "volume", "name": "v", "of": of, "threshold_mm": threshold_mm}
    return VolumeGauge.model_validate(said | {"min_mm": (-20, -15, 7), "max_mm": (20, 15, 13)})


def top(sign: float, spacing_mm: float = 0.4) -> Patch:
    """The block's top with a paraboloid dent (-1) or bump (+1) in its middle."""
    flat = face((0, 0, 10), (0, 0, 1), (44, 34), spacing_mm)
    away2 = np.square(flat.points[:, 0]) + np.square(flat.points[:, 1])
    return flat.lifted(sign * DEPTH_M * np.maximum(0, 1 - away2 / RADIUS_M**2))


@pytest.mark.parametrize(("of", "sign"), [("missing", -1.0), ("excess", 1.0)])
def test_a_known_volume_is_measured(block: Reference, of: str, sign: float) -> None:
    scan = scan_of([top(sign)], Measured(T_cell_part=POSE), block)
    assert measure_volume(volume(of, 0.0), scan).value == pytest.approx(TRUE_M3, rel=0.03)
    other = "excess" if of == "missing" else "missing"
    assert measure_volume(volume(other), scan).value == 0.0


def test_stated_noise_of_a_volume_holds(block: Reference) -> None:
    z = []
    for seed in range(30):
        scan = scan_of([top(-1.0)], Measured(sigma_m=3e-5, T_cell_part=POSE, seed=seed), block)
        reading = measure_volume(volume("missing", 0.0), scan)
        z.append((reading.value - TRUE_M3) / uncertainty_budget(reading.influence, scan, None, reading.extra_u).u)
    assert np.mean(np.abs(z) < 2.5) > 0.85


def test_a_good_part_lacks_nothing_and_says_how_little_would_be_seen(block: Reference) -> None:
    scan = scan_of([face((0, 0, 10), (0, 0, 1), (44, 34), 0.4)], Measured(sigma_m=3e-5, T_cell_part=POSE), block)
    reading = measure_volume(volume("missing"), scan)
    assert reading.value == 0.0
    assert dict(reading.extra_u)["choice of the patches"] > 0


def test_a_volume_answers_to_the_pose_as_it_says(block: Reference) -> None:
    scan = scan_of([top(-1.0)], Measured(T_cell_part=POSE), block)
    reading = measure_volume(volume("missing"), scan)
    step_m = 1e-5
    moved = scan_of([top(-1.0)], Measured(T_cell_part=POSE, misplaced=(0, 0, 0, 0, 0, step_m)), block)
    change = (measure_volume(volume("missing"), moved).value - reading.value) / step_m
    assert reading.influence.pose[5] == pytest.approx(change, rel=0.1)


def test_a_surface_that_nobody_saw_is_no_volume(block: Reference) -> None:
    half = top(-1.0)
    seen = half.points[:, 0] < 0
    scan = scan_of([Patch(half.points[seen], half.normals[seen])], Measured(T_cell_part=POSE), block)
    with pytest.raises(DepthcellError, match="of the surface in its box was measured") as caught:
        measure_volume(volume("missing"), scan)
    assert caught.value.reason is Reason.NOT_MEASURED


def test_without_a_reference_there_is_no_volume() -> None:
    with pytest.raises(DepthcellError, match="from the reference"):
        measure_volume(volume("missing"), scan_of([top(-1.0)]))
