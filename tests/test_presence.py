"""What lies in the fixture: each case is named, and none is named where the part lies as it should."""

from collections.abc import Iterator

import numpy as np
import pytest
from viewedpart import cloud_of, ground, step_reference, together, viewed, viewing_cell

from depthcell.acquisition.simulator.parts import load_part
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion import distancefield
from depthcell.fusion.align import AlignmentSettings, align
from depthcell.fusion.reference import Reference
from depthcell.fusion.registration.globalstart import PoseSearch, SearchSettings
from depthcell.fusion.registration.presence import Expectation, Finding, explained, is_doubtful, look

NOMINAL = RigidTransform.from_rotation_vector("cell", "part", np.array([0, 0, 0.2]), np.array([0.005, -0.004, 0.010]))
CAPTURE = AlignmentSettings(capture_m=0.008, capture_rad=0.1)
EXPECTED = Expectation(NOMINAL, CAPTURE)
UPSIDE_DOWN = RigidTransform("cell", "part", np.diag([1.0, -1.0, -1.0]), np.array([0.0, 0.0, 0.040]))


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(distancefield, "NODES", 200_000)
        yield


@pytest.fixture(scope="module")
def step() -> Reference:
    return step_reference()


@pytest.fixture(scope="module")
def search(step: Reference) -> PoseSearch:
    return PoseSearch(step, SearchSettings(rotations=1200))


@pytest.fixture(scope="module")
def cell() -> Cell:
    return viewing_cell()


@pytest.mark.parametrize("seed", range(3))
def test_a_part_in_its_place_is_as_expected(step: Reference, search: PoseSearch, cell: Cell, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = NOMINAL.perturbed(np.concatenate((rng.uniform(-0.04, 0.04, 3), rng.uniform(-2e-3, 2e-3, 3))))
    part = viewed(step, truth, seed)
    found = look(together(part, ground(0.07, hidden_by=part)), cell, search, EXPECTED)
    assert found.finding is Finding.AS_EXPECTED
    assert found.T_cell_part is not None
    assert search.symmetry.apart_m(found.T_cell_part, truth, search.samples.points) < 5e-4
    found.refuse()  # nothing to refuse


def test_the_ground_alone_is_no_part(search: PoseSearch, cell: Cell) -> None:
    pin = np.array([0.02, 0.02, 0.012]) + np.random.default_rng(1).uniform(-0.004, 0.004, (60, 3))
    up = np.tile([0.0, 0.0, 1.0], (60, 1))
    for cloud in (
        ground(0.08),
        together(ground(0.08), cloud_of(pin, up)),
        cloud_of(np.empty((0, 3)), np.empty((0, 3))),
    ):
        found = look(cloud, cell, search, EXPECTED)
        assert found.finding is Finding.MISSING
        with pytest.raises(DepthcellError, match="no part") as refusal:
            found.refuse()
        assert refusal.value.reason is Reason.PART_MISSING


def test_a_part_upside_down_is_named_so(step: Reference, search: PoseSearch, cell: Cell) -> None:
    part = viewed(step, UPSIDE_DOWN, 2)
    found = look(together(part, ground(0.07, hidden_by=part)), cell, search, EXPECTED)
    assert found.finding is Finding.UPSIDE_DOWN
    assert "upside down (turned by 180 degrees about (" in found.text
    assert found.T_cell_part is not None
    assert search.symmetry.apart_m(found.T_cell_part, UPSIDE_DOWN, search.samples.points) < 1e-3
    with pytest.raises(DepthcellError, match="turn it over") as refusal:
        found.refuse()
    assert refusal.value.reason is Reason.WRONG_POSE


def test_a_part_turned_or_shifted_is_astray(step: Reference, search: PoseSearch, cell: Cell) -> None:
    turned = NOMINAL @ RigidTransform.from_rotation_vector("part", "part", np.array([0, 0, np.pi / 2]), np.zeros(3))
    found = look(viewed(step, turned, 3), cell, search, EXPECTED)
    assert found.finding is Finding.ASTRAY
    assert "turned by 90 degrees about (0.00, 0.00, 1.00)" in found.text
    shifted = NOMINAL.perturbed(np.array([0, 0, 0, 0.02, 0, 0]))
    assert "20 mm from its place" in look(viewed(step, shifted, 4), cell, search, EXPECTED).text


def test_two_parts_are_counted_and_placed(step: Reference, search: PoseSearch, cell: Cell) -> None:
    left = viewed(step, NOMINAL.perturbed(np.array([0, 0, 0, -0.045, 0, 0])), 5)
    right = viewed(step, NOMINAL.perturbed(np.array([0, 0, 1.0, 0.045, 0, 0])), 6)
    found = look(together(left, right, ground(0.12)), cell, search, EXPECTED)
    assert found.finding is Finding.SEVERAL
    numbers = [int(word) for word in found.text.split() if word.isdigit()]
    np.testing.assert_allclose(sorted(numbers), sorted((len(left), len(right))), rtol=0.1)
    with pytest.raises(DepthcellError, match="two parts in view: clusters of") as refusal:
        found.refuse()
    assert refusal.value.reason is Reason.SEVERAL_PARTS


def test_two_parts_that_touch_are_two(step: Reference, search: PoseSearch, cell: Cell) -> None:
    first = viewed(step, NOMINAL, 7)
    second = viewed(step, NOMINAL @ RigidTransform("part", "part", np.eye(3), np.array([0.0, 0.052, 0.0])), 8)
    found = look(together(first, second), cell, search, EXPECTED)
    assert found.finding is Finding.SEVERAL
    assert found.text.startswith("two parts in view")


@pytest.mark.parametrize("name", ["bracket", "flange"])
def test_another_part_is_not_taken_for_it(search: PoseSearch, cell: Cell, name: str) -> None:
    mesh = load_part(name).mesh
    found = look(viewed(Reference(mesh.vertices_m, mesh.triangles), NOMINAL, 9), cell, search, EXPECTED)
    assert found.finding is Finding.ANOTHER
    with pytest.raises(DepthcellError, match="another part") as refusal:
        found.refuse()
    assert refusal.value.reason is Reason.WRONG_PART


def test_a_failed_alignment_says_what_lies_there(step: Reference, search: PoseSearch, cell: Cell) -> None:
    cloud = viewed(step, UPSIDE_DOWN, 12)
    with pytest.raises(DepthcellError) as refusal:
        align(cloud, step, NOMINAL, cell, AlignmentSettings(capture_m=0.003, min_inliers=0.9))
    told = explained(refusal.value, cloud, cell, search, EXPECTED)
    assert told.reason is Reason.WRONG_POSE
    assert str(told).startswith(str(refusal.value))
    assert "upside down" in str(told)
    in_place = viewed(step, NOMINAL, 13)
    assert explained(refusal.value, in_place, cell, search, EXPECTED) is refusal.value


def test_an_alignment_that_explains_little_is_doubtful(step: Reference, cell: Cell) -> None:
    good = viewed(step, NOMINAL, 10)
    assert not is_doubtful(align(good, step, NOMINAL, cell))
    beside = viewed(step, NOMINAL.perturbed(np.array([0, 0, 0, 0.1, 0, 0])), 11)
    some = beside[np.arange(0, len(beside), 4)]
    assert is_doubtful(align(together(good, some), step, NOMINAL, cell))
