"""Motions that a fixture holds: kept at nominal, their uncertainty stated and carried into the others."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.simulator.parts import load_part
from depthcell.acquisition.simulator.rig import looking_at
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import Cell, CellCamera, DisparityNoise
from depthcell.errors import DepthcellError
from depthcell.fusion import distancefield
from depthcell.fusion.align import AlignmentSettings, align
from depthcell.fusion.motion import Basis
from depthcell.fusion.partcloud import PartCloud
from depthcell.fusion.reference import Reference
from depthcell.fusion.registration.allowedmotions import MOTIONS, AllowedMotions

NOMINAL = RigidTransform.from_rotation_vector("cell", "part", np.array([0.0, 0.0, 0.3]), np.array([0.02, 0.01, 0.03]))
SIGMA_M = 3e-5
PINS = RigidTransform.from_rotation_vector("cell", "fixture", np.array([0.1, -0.2, 0.4]), np.array([0.05, 0.0, 0.01]))


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(distancefield, "NODES", 300_000)
        yield


@pytest.fixture(scope="module")
def bracket() -> Reference:
    mesh = load_part("bracket").mesh
    return Reference(mesh.vertices_m, mesh.triangles)


@pytest.fixture(scope="module")
def cell() -> Cell:
    camera = CellCamera(
        serial="C0",
        model="test",
        depth=Intrinsics(320, 240, 400.0, 400.0, 159.5, 119.5),
        color=None,
        T_cell_depth=looking_at("C0", NOMINAL.translation_m, np.array([0.2, 0.05, 0.3])),
        covariance=np.diag(np.array([1e-5] * 3 + [1e-6] * 3) ** 2),
        T_color_depth=None,
        baseline_m=0.05,
        noise=DisparityNoise(0.05, 0.0, 0.0),
    )
    return Cell("test", {"C0": camera}, "2026-01-01T00:00:00Z")


def cloud_of(reference: Reference, T_cell_part: RigidTransform, seed: int) -> PartCloud:
    """The upper side of the part at a pose, with noise along the normals."""
    samples = reference.surface_samples(1.2e-3)
    up = samples.normals_part[:, 2] > -0.1
    points, normals = T_cell_part @ samples.points_part[up], T_cell_part.rotate(samples.normals_part[up])
    count = len(points)
    noise_m = np.random.default_rng(seed).normal(0, SIGMA_M, count)
    return PartCloud(
        points_cell=np.asarray(points + noise_m[:, None] * normals, np.float64),
        normals_cell=normals.astype(np.float32),
        colors=np.zeros((count, 3), np.uint8),
        random_sigma_m=np.full(count, SIGMA_M, np.float32),
        systematic_sigma_m=np.full(count, 1e-6, np.float32),
        correlation_m=np.zeros(count, np.float32),
        share=np.ones((count, 1), np.float32),
        camera=np.zeros(count, np.uint8),
        pixel=np.zeros((count, 2), np.int32),
        serials=("C0",),
    )


def twist_in(frame: RigidTransform, motion: np.ndarray) -> np.ndarray:
    """Twist about the cell's origin of a motion (rx, ry, rz, x, y, z) along a frame's axes and about its origin."""
    turn, shift = frame.rotation @ motion[:3], frame.rotation @ motion[3:]
    return np.concatenate((turn, shift + np.cross(frame.translation_m, turn)))


def test_only_what_is_allowed_moves(bracket: Reference, cell: Cell) -> None:
    motion = np.array([0.0, 0.0, 0.01, 1e-3, -5e-4, 0.0])
    cloud = cloud_of(bracket, NOMINAL.perturbed(twist_in(PINS, motion)), 1)
    allowed = AllowedMotions(("x", "y", "rz"), PINS, held_sigma_m=2e-5, held_sigma_rad=1e-4)
    found = align(cloud, bracket, NOMINAL, cell, AlignmentSettings(allowed=allowed)).T_cell_part
    moved = found @ NOMINAL.inverse()
    in_fixture = PINS.inverse() @ RigidTransform("cell", "cell", moved.rotation, moved.translation_m) @ PINS
    shift_m, turn_rad = in_fixture.translation_m, in_fixture.rotation_vector_rad
    np.testing.assert_allclose(turn_rad, motion[:3], atol=4e-5)
    np.testing.assert_allclose(shift_m, motion[3:], atol=5e-6)
    # What the fixture holds stays: exactly in height, and in tilt but for the second order of the last step back.
    assert abs(shift_m[2]) < 1e-8
    assert np.abs(turn_rad[:2]).max() < 1e-7


def test_what_the_fixture_leaves_uncertain_is_covered(bracket: Reference, cell: Cell) -> None:
    """40 parts that sit off in what is held: each motion's error over its own standard uncertainty."""
    rng = np.random.default_rng(3)
    sigma = np.array([4e-4, 4e-4, 0, 0, 0, 6e-5])
    scores: dict[float, list[np.ndarray]] = {1.0: [], 1e-2: []}
    for seed in range(40):
        truth = NOMINAL.perturbed(twist_in(PINS, rng.normal(0, 1, 6) * sigma))
        cloud = cloud_of(bracket, truth, seed)
        for stated, into in scores.items():
            allowed = AllowedMotions(("x", "y", "rz"), PINS, 6e-5 * stated, 4e-4 * stated)
            found = align(cloud, bracket, NOMINAL, cell, AlignmentSettings(allowed=allowed))
            basis = Basis.around(cloud.points_cell)
            to_motion = np.linalg.inv(basis.twist)
            u = np.sqrt(np.diag(to_motion @ found.covariance @ to_motion.T))
            into.append(basis.between(truth, found.T_cell_part) / u)
    told, blind = (np.array(values) for values in scores.values())
    assert (np.std(told, axis=0) < 1.35).all()
    assert (np.std(told, axis=0) > 0.65).all()
    assert (np.abs(told) < 1.96).mean() > 0.92
    assert np.std(blind, axis=0).max() > 5  # negative control: the fixture's uncertainty left out


def test_all_six_are_as_none(bracket: Reference, cell: Cell) -> None:
    cloud = cloud_of(bracket, NOMINAL.perturbed(np.array([0.01, 0, 0, 0, 1e-3, 0])), 2)
    six = AlignmentSettings(allowed=AllowedMotions(MOTIONS, PINS, 1e-3, 1e-3))
    with_six, without = (align(cloud, bracket, NOMINAL, cell, settings) for settings in (six, None))
    np.testing.assert_allclose(with_six.T_cell_part.matrix, without.T_cell_part.matrix, atol=1e-7)
    np.testing.assert_allclose(with_six.covariance, without.covariance, rtol=1e-3, atol=1e-16)


@given(st.lists(st.sampled_from(MOTIONS), min_size=1, max_size=6, unique=True), st.integers(0, 100))
def test_span_holds_what_is_allowed_and_nothing_else(names: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    basis = Basis(rng.uniform(-0.1, 0.1, 3), 0.04)
    span = AllowedMotions(tuple(names), PINS, 0.0, 0.0).looked_for(basis)
    np.testing.assert_allclose(span.T @ span, np.eye(len(names)), atol=1e-12)
    for number, name in enumerate(MOTIONS):
        motion = np.linalg.solve(basis.twist, twist_in(PINS, np.eye(6)[number]))
        outside = motion - span @ (span.T @ motion)
        assert (np.linalg.norm(outside) < 1e-9 * np.linalg.norm(motion)) == (name in names)


@pytest.mark.parametrize(
    ("names", "sigma_m", "words"),
    [
        ((), 1e-5, "names must hold some of rx"),
        (("x", "roll"), 1e-5, "roll"),
        (("x", "x"), 1e-5, "each once"),
        (("x",), -1e-5, "held_sigma_m must be 0 or more"),
        (("x",), np.nan, "held_sigma_m must be 0 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(names: tuple[str, ...], sigma_m: float, words: str) -> None:
    with pytest.raises(DepthcellError, match=words):
        AllowedMotions(names, PINS, sigma_m, 1e-4)
    with pytest.raises(DepthcellError, match="leads to 'part'"):
        AllowedMotions(("x",), NOMINAL.inverse(), 0.0, 0.0)
