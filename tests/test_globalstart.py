"""Poses without a prior: found from partial views, refused where the view does not tell, symmetries named."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from viewedpart import CENTRE_M, SIGMA_M, cloud_of, step_reference, viewed, viewing_cell

from depthcell.acquisition.simulator.parts import load_part
from depthcell.acquisition.simulator.terraces import Terrace, flat, rectangle, terraced_solid
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion import distancefield
from depthcell.fusion.align import AlignmentSettings, align
from depthcell.fusion.reference import Reference
from depthcell.fusion.registration.evidence import CELL_M, Scene, averaged
from depthcell.fusion.registration.globalstart import PoseSearch, SearchSettings
from depthcell.fusion.registration.posebatch import (
    OrientedPoints,
    PoseBatch,
    fitted,
    residuals,
    rotations_evenly,
)
from depthcell.fusion.registration.symmetry import Symmetry, about


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(distancefield, "NODES", 300_000)
        yield


@pytest.fixture(scope="module")
def step() -> Reference:
    return step_reference()


@pytest.fixture(scope="module")
def search(step: Reference) -> PoseSearch:
    return PoseSearch(step, SearchSettings(rotations=1500))


@pytest.fixture(scope="module")
def cell() -> Cell:
    return viewing_cell()


def thrown(reference: Reference, seed: int) -> RigidTransform:
    """A random rotation about the middle of the part, and a shift."""
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(rng=rng).as_matrix()
    lower, upper = reference.bounds_part
    at = CENTRE_M + rng.uniform(-0.015, 0.015, 3)
    return RigidTransform("cell", "part", rotation, at - rotation @ ((lower + upper) / 2))


@pytest.mark.parametrize("seed", range(4))
def test_a_thrown_part_is_found(step: Reference, search: PoseSearch, cell: Cell, seed: int) -> None:
    truth = thrown(step, seed)
    cloud = viewed(step, truth, seed)
    found = search.find(cloud, cell)
    points = search.samples.points
    assert np.linalg.norm(found.T_cell_part @ points - truth @ points, axis=1).mean() < 3e-4
    assert found.evidence.explained > 0.97
    assert found.margin > 0.05
    assert found.equivalent == ()
    refined = align(cloud, step, found.T_cell_part, cell, AlignmentSettings(capture_m=2e-3))
    assert np.linalg.norm(refined.T_cell_part @ points - truth @ points, axis=1).mean() < 5e-5


def test_a_view_that_does_not_tell_is_refused(step: Reference, search: PoseSearch, cell: Cell) -> None:
    """A scrap of a plane fits in many places; so does half of a wall."""
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-0.012, 0.012, (2, 3000))
    scrap = np.column_stack((x, y, CENTRE_M[2] + rng.normal(0, SIGMA_M, 3000)))
    cloud = cloud_of(scrap, np.tile([0.0, 0.0, 1.0], (3000, 1)))
    with pytest.raises(DepthcellError, match="pose search:") as refusal:
        search.find(cloud, cell)
    assert refusal.value.reason is Reason.ALIGNMENT_FAILED


def test_a_box_that_hides_its_mark_is_refused_as_ambiguous(cell: Cell) -> None:
    """A box with a nick on its lower side, seen from above: half a turn about the vertical looks the same."""
    mesh = terraced_solid(
        [
            Terrace(rectangle((0.0, 0.0), (60.0, 40.0), corner_mm=1.0), flat(15.0)),
            Terrace(rectangle((20.0, 10.0), (12.0, 12.0), corner_mm=1.0), flat(9.0)),
        ],
        spacing_mm=2.0,
    )
    nicked = Reference(mesh.vertices_m, mesh.triangles)
    search = PoseSearch(nicked, SearchSettings(rotations=1500))
    assert search.symmetry.in_words == ()
    nick_down = RigidTransform("cell", "part", np.diag([1.0, -1.0, -1.0]), CENTRE_M)
    with pytest.raises(DepthcellError, match=r"explain the cloud about equally \(turned by 180 degrees"):
        search.find(viewed(nicked, nick_down, 1), cell)
    # Negative control: with the nick in view there is no doubt.
    nick_up = RigidTransform("cell", "part", np.eye(3), CENTRE_M)
    found = search.find(viewed(nicked, nick_up, 1), cell)
    assert search.symmetry.apart_m(found.T_cell_part, nick_up, search.samples.points) < 3e-4


def test_nothing_and_the_wrong_part_are_refused(step: Reference, search: PoseSearch, cell: Cell) -> None:
    with pytest.raises(DepthcellError, match="the cloud is empty"):
        search.find(cloud_of(np.empty((0, 3)), np.empty((0, 3))), cell)
    mesh = load_part("bracket").mesh
    bracket = Reference(mesh.vertices_m, mesh.triangles)
    with pytest.raises(DepthcellError, match=r"the best pose explains \d+% of the points"):
        search.find(viewed(bracket, thrown(bracket, 5), 5), cell)


@pytest.mark.parametrize(
    ("name", "words", "turns"),
    [
        ("bracket", (), 1),
        pytest.param("weld", (), 1, marks=pytest.mark.slow),
        ("flange", ("6-fold about (0.00, 0.00, 1.00)",), 6),
        pytest.param("sheet", ("2-fold about (0.00, 0.00, 1.00)",), 2, marks=pytest.mark.slow),
        ("shaft", ("any turn about (1.00, 0.00, 0.00)",), 1),
    ],
)
def test_symmetries_of_the_simulators_parts(name: str, words: tuple[str, ...], turns: int) -> None:
    mesh = load_part(name).mesh
    reference = Reference(mesh.vertices_m, mesh.triangles)
    symmetry = Symmetry.of(reference)
    assert symmetry.in_words == words
    assert len(symmetry.turns) == turns
    samples = reference.surface_samples(2e-3)
    for turn in symmetry.turns:
        assert np.mean(np.abs(reference.exact_signed_distance(turn @ samples.points_part)) > 5e-4) < 2e-3


def test_poses_that_look_alike_are_not_apart() -> None:
    axis, centre = np.array([0.0, 0.6, 0.8]), np.array([0.01, 0.02, -0.01])
    pose = RigidTransform.from_rotation_vector("cell", "part", np.array([0.3, -1.0, 0.5]), np.array([0.1, 0, 0.2]))
    points = np.random.default_rng(1).uniform(-0.05, 0.05, (200, 3))
    identity = RigidTransform.identity("part", "part")
    spun = Symmetry((identity,), axis, centre)
    sixfold = Symmetry(tuple(about(axis, k * np.pi / 3, centre) for k in range(6)), None, centre)
    plain = Symmetry((identity,), None, centre)
    for angle_rad in (0.4, np.pi / 3, 2.0, 4 * np.pi / 3):
        turned = pose @ about(axis, angle_rad, centre)
        assert spun.apart_m(turned, pose, points) < 1e-9
        assert (sixfold.apart_m(turned, pose, points) < 1e-9) == (round(angle_rad * 3 / np.pi, 9) % 1 == 0)
        assert plain.apart_m(turned, pose, points) > 5e-3
    across = pose @ about(np.array([1.0, 0, 0]), 0.4, centre)
    assert spun.apart_m(across, pose, points) > 5e-3


def test_rotations_lie_evenly() -> None:
    """The grid leaves no rotation farther than 22 degrees from one of 1500; random ones leave larger gaps."""
    rng = np.random.default_rng(2)
    asked = Rotation.random(300, rng=rng)

    def gap_deg(grid: np.ndarray) -> float:
        cosine = (np.einsum("aij,kij->ak", asked.as_matrix(), grid) - 1) / 2
        return float(np.degrees(np.arccos(np.clip(cosine.max(axis=1), -1, 1))).max())

    assert gap_deg(rotations_evenly(1500)) < 22
    assert gap_deg(rotations_evenly(1500)) < 0.8 * gap_deg(Rotation.random(1500, rng=rng).as_matrix())


@examples(max_examples=15)
@given(st.integers(0, 1000))
def test_a_batch_goes_where_each_pose_alone_goes(step: Reference, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = step.surface_samples(4e-3)
    data = OrientedPoints(samples.points_part, samples.normals_part.astype(np.float64))
    turns = Rotation.from_rotvec(rng.uniform(-0.1, 0.1, (3, 3))).as_matrix()
    batch = PoseBatch(turns, rng.uniform(-2e-3, 2e-3, (3, 3)))
    scales_m = (4e-3, 2e-3, 1e-3, 1e-3, 1e-3)
    together = fitted(batch, data, step.field, scales_m)
    for number in range(3):
        alone = fitted(batch[np.array([number])], data, step.field, scales_m)
        np.testing.assert_allclose(together.rotations[number], alone.rotations[0], atol=1e-9)
        # Both are on the way home: the surface's own pose is the identity.
        assert np.linalg.norm(together.mapped(data.points)[number] - data.points, axis=1).mean() < 2e-3
    assert (residuals(together, data, step.field).agreement(1e-3) > 0.8).all()


def test_evidence_counts_excess_and_lack(step: Reference, search: PoseSearch, cell: Cell) -> None:
    truth = thrown(step, 3)
    cloud = viewed(step, truth, 3)
    whole = Scene.of(cloud, cell, 5e-4).evidence(truth, step, search.samples)
    assert whole.explained > 0.98
    assert whole.covered > 0.97
    half = cloud[cloud.points_cell[:, 0] < np.median(cloud.points_cell[:, 0])]
    lacking = Scene.of(half, cell, 5e-4).evidence(truth, step, search.samples)
    assert lacking.explained > 0.97
    assert lacking.covered < 0.65
    off = truth.perturbed(np.array([0, 0, 0, 0.01, 0.01, 0]))
    assert Scene.of(cloud, cell, 5e-4).evidence(off, step, search.samples).explained < 0.7


def test_averages_are_one_to_a_cube() -> None:
    rng = np.random.default_rng(4)
    points = rng.uniform(0, 10 * CELL_M, (5000, 3)) * [1, 1, 0]
    data = averaged(cloud_of(points, np.tile([0.0, 0.0, 1.0], (5000, 1))))
    assert len(data) == 100
    np.testing.assert_allclose(data.normals, np.tile([0.0, 0.0, 1.0], (100, 1)), atol=1e-6)
    assert np.linalg.norm(data.points.mean(axis=0)[:2] - 5 * CELL_M) < 0.2 * CELL_M
