"""Datum frames by precedence and by reference points: exact geometry, precedence, sensitivities, refusals."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from depthcell.acquisition.transform import RigidTransform
from depthcell.errors import DepthcellError, Reason
from depthcell.fusion.association.elements import Circle, Cylinder, Element, Line, Plane, Sphere
from depthcell.fusion.association.leastsquares import fit_circle, fit_cylinder, fit_line, fit_plane, fit_sphere
from depthcell.fusion.datums.datum import Datum, DatumCriterion, tangent
from depthcell.fusion.datums.datumframe import DatumFrame, datum_frame
from depthcell.fusion.datums.referencepoints import ProbeSettings, ReferencePoint, frame_by_points

X, Y, Z = np.eye(3)
PLACED = RigidTransform.from_rotation_vector(
    "part", "drawing", np.array([0.010, -0.020, 0.015]), np.array([1e-3, -5e-4, 3e-4])
)
Cloud = tuple[np.ndarray, np.ndarray]


def face(rng: np.random.Generator, axis: int, upper: Sequence[float], count: int = 200) -> Cloud:
    """A face of a block at the origin, out of the material towards the negative axis."""
    points = rng.uniform(0, 1, (count, 3)) * np.array(upper)
    points[:, axis] = 0.0
    return points, np.tile(-np.eye(3)[axis], (count, 1))


def bore(rng: np.random.Generator, place: Sequence[float], radius_m: float, count: int = 150) -> Cloud:
    turn = rng.uniform(0, 2 * np.pi, count)
    away = np.stack((np.cos(turn), np.sin(turn), 0 * turn), axis=1)
    return away * radius_m + np.array(place) + rng.uniform(0, 0.01, count)[:, None] * Z, -away


def ball(rng: np.random.Generator, place: Sequence[float], count: int = 150) -> Cloud:
    away = rng.normal(size=(count, 3))
    away /= np.linalg.norm(away, axis=1)[:, None]
    return np.array(place) + 0.005 * away, away


class Block:
    """Faces A, B, C, bores H, I, rings J, K of bores, balls P, Q, R of a block: nominal features and exact clouds."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.nominal: dict[str, Element] = {
            "A": Plane(np.zeros(3), -Z),
            "B": Plane(np.zeros(3), -Y),
            "C": Plane(np.zeros(3), -X),
            "H": Cylinder(np.array([0.07, 0.03, 0.0]), Z, 0.006),
            "I": Cylinder(np.array([0.02, 0.03, 0.0]), -Z, 0.004),
            "J": Circle(np.array([0.07, 0.03, 0.0]), Z, 0.006),
            "K": Circle(np.array([0.02, 0.03, 0.0]), -Z, 0.004),
            "P": Sphere(np.array([0.01, 0.01, 0.02]), 0.005),
            "Q": Sphere(np.array([0.08, 0.01, 0.02]), 0.005),
            "R": Sphere(np.array([0.04, 0.05, 0.02]), 0.005),
        }
        self.clouds: dict[str, Cloud] = {
            "A": face(rng, 2, (0.1, 0.06, 0.0)),
            "B": face(rng, 1, (0.1, 0.0, 0.02)),
            "C": face(rng, 0, (0.0, 0.06, 0.02)),
            "H": bore(rng, (0.07, 0.03, 0.0), 0.006),
            "I": bore(rng, (0.02, 0.03, 0.0), 0.004),
            "J": bore(rng, (0.07, 0.03, 0.0), 0.006),
            "K": bore(rng, (0.02, 0.03, 0.0), 0.004),
            "P": ball(rng, (0.01, 0.01, 0.02)),
            "Q": ball(rng, (0.08, 0.01, 0.02)),
            "R": ball(rng, (0.04, 0.05, 0.02)),
        }
        self.begin = dict(zip(self.clouds, np.cumsum([0, *(len(c[0]) for c in self.clouds.values())]), strict=False))
        self.size = sum(len(cloud[0]) for cloud in self.clouds.values())

    def datum(
        self,
        label: str,
        lift_m: np.ndarray,
        criterion: DatumCriterion = "least squares",
        placed: RigidTransform = PLACED,
    ) -> Datum:
        points, normals = self.clouds[label]
        rows = np.arange(self.begin[label], self.begin[label] + len(points))
        points = placed @ (points + lift_m[rows, None] * normals)
        normals = placed.rotate(normals)
        nominal = self.nominal[label]
        match nominal:
            case Cylinder():
                found = fit_cylinder(points, normals, None, nominal, robust=False)
            case Circle():
                found = fit_circle(points, normals, nominal.axis, None, nominal, robust=False)
            case Sphere():
                found = fit_sphere(points, normals, None, nominal, robust=False)
            case _:
                found = fit_plane(points, normals, None, robust=False)
        return Datum.of(label, nominal, found, points, normals, criterion).to_cloud(rows)

    def frame(self, labels: str, lift_m: np.ndarray, criterion: DatumCriterion = "least squares") -> DatumFrame:
        """`labels` such as "A|HI|C": levels divided by bars."""
        return datum_frame([[self.datum(one, lift_m, criterion) for one in level] for level in labels.split("|")])


@pytest.fixture(scope="module")
def block() -> Block:
    return Block()


def twist_between(new: RigidTransform, old: RigidTransform) -> np.ndarray:
    apart = new @ old.inverse()
    return np.concatenate((apart.rotation_vector_rad, apart.translation_m))


@pytest.mark.parametrize(
    ("labels", "held"),
    [
        ("A|B|C", (3, 2, 1)),
        ("A|H|I", (3, 2, 1)),
        ("H|A|I", (4, 1, 1)),
        ("P|Q|R", (3, 2, 1)),
        ("ABC", (6,)),
        ("PQR", (6,)),
        ("HI|A", (5, 1)),
    ],
)
def test_exact_datums_give_the_drawing_back(block: Block, labels: str, held: tuple[int, ...]) -> None:
    frame = block.frame(labels, np.zeros(block.size))
    assert frame.held == held
    assert frame.free_directions == ()
    np.testing.assert_allclose((frame.T_datum_part.matrix @ PLACED.matrix), np.eye(4), atol=1e-10)
    np.testing.assert_allclose(frame.remaining, 0, atol=1e-9)
    assert frame.needed("position") is frame


@given(
    turn=st.lists(st.floats(-0.1, 0.1), min_size=3, max_size=3),
    shift=st.lists(st.floats(-5e-3, 5e-3), min_size=3, max_size=3),
)
@settings(max_examples=8, deadline=None)
def test_any_small_displacement_is_taken_back(block: Block, turn: list[float], shift: list[float]) -> None:
    moved = RigidTransform.from_rotation_vector("part", "drawing", np.array(turn), np.array(shift))
    datums = []
    for label in "AHI":
        points, normals = block.clouds[label]
        points, normals, nominal = moved @ points, moved.rotate(normals), block.nominal[label]
        if isinstance(nominal, Cylinder):
            found = fit_cylinder(points, normals, None, nominal)
        else:
            found = fit_plane(points, normals, None)
        datums.append([Datum.of(label, nominal, found, points, normals)])
    frame = datum_frame(datums)
    np.testing.assert_allclose(frame.T_datum_part.matrix @ moved.matrix, np.eye(4), atol=1e-9)


@pytest.mark.parametrize("criterion", ["least squares", "tangent"])
@pytest.mark.parametrize("labels", ["A|B|C", "A|H|I", "H|A|I", "P|Q|R", "ABC"])
def test_the_frame_answers_to_points_as_its_gain_says(block: Block, labels: str, criterion: DatumCriterion) -> None:
    """Monte Carlo: perturb the points along their normals, do all again, compare.

    What a datum of lower precedence leans off nominal, some mrad for tangent bores, enters in second order.
    """
    rng = np.random.default_rng(5)
    lift_m = rng.normal(0, 1e-5, block.size)
    frame = block.frame(labels, lift_m, criterion)
    twists, expected = [], []
    for _ in range(4):
        change = rng.normal(0, 1e-9, block.size)
        again = block.frame(labels, lift_m + change, criterion)
        twists.append(twist_between(again.T_datum_part, frame.T_datum_part))
        expected.append(frame.gain @ change[frame.points])
    scale = np.abs(twists).max(axis=0)
    assert (np.abs(np.array(twists) - expected).max(axis=0) < 0.04 * scale).all()


def test_precedence_decides_who_gives_way(block: Block) -> None:
    """B stands 2 mrad off square to A: the one of higher precedence lies on nominal, the other keeps the error."""
    lift_m = np.zeros(block.size)
    rows = slice(block.begin["B"], block.begin["B"] + 200)
    lift_m[rows] = 2e-3 * block.clouds["B"][0][:, 2]
    for labels, first, second in (("A|B|C", "A", "B"), ("B|A|C", "B", "A")):
        frame = block.frame(labels, lift_m)
        on, off = (block.datum(label, lift_m).misplaced(frame.T_datum_part) for label in (first, second))
        np.testing.assert_allclose(on, 0, atol=1e-9)
        assert np.abs(off[1:]).max() == pytest.approx(2e-3, rel=1e-3)
        placed = frame.T_datum_part.matrix @ PLACED.matrix
        middle = block.clouds[second][0].mean(axis=0) - lift_m[rows].mean() * Y * (second == "B")
        assert (placed[:3, :3] @ middle + placed[:3, 3]) @ (Y if second == "B" else Z) == pytest.approx(0, abs=1e-7)


def test_a_secondary_datum_is_the_fit_that_the_primary_leaves_free(block: Block) -> None:
    """Slow twin: hold A on nominal and fit the points of B in what is left, by scipy."""
    rng = np.random.default_rng(3)
    lift_m = np.zeros(block.size)
    rows = np.arange(block.begin["B"], block.begin["B"] + 200)
    lift_m[rows] = rng.normal(0, 1e-4, 200) + 3e-3 * block.clouds["B"][0][:, 2] + 2e-3 * block.clouds["B"][0][:, 0]
    frame = block.frame("A|B|C", lift_m)
    points = block.clouds["B"][0] + lift_m[rows, None] * block.clouds["B"][1]

    def residual(x: np.ndarray) -> np.ndarray:
        return np.asarray(np.sin(x[0]) * points[:, 0] + np.cos(x[0]) * points[:, 1] + x[1])

    expected = optimize.least_squares(residual, [0.0, 0.0], xtol=1e-15, gtol=1e-15).x  # type: ignore[operator]
    found = twist_between(frame.T_datum_part, PLACED.inverse())
    assert found[2] == pytest.approx(expected[0], abs=2e-8)


@pytest.mark.parametrize(
    ("labels", "held", "words"),
    [
        ("A", (3,), ("rotation about (0.00, 0.00, 1.00)", "shift along", "shift along")),
        ("A|H", (3, 2), ("rotation about (0.00, 0.00, 1.00) through (70, 30, 0) mm",)),
        ("A|B", (3, 2), ("shift along (1.00, 0.00, 0.00)",)),
        ("P|Q", (3, 2), ("rotation about (1.00, 0.00, 0.00)",)),
    ],
)
def test_what_no_datum_holds_is_named(block: Block, labels: str, held: tuple[int, ...], words: tuple[str, ...]) -> None:
    frame = block.frame(labels, np.zeros(block.size))
    assert frame.held == held
    assert len(frame.free_directions) == len(words)
    for said, word in zip(frame.free_directions, words, strict=True):
        assert word in said.replace("-", "")
    with pytest.raises(DepthcellError, match="leave free: ") as refusal:
        frame.needed("position 'hole'")
    assert refusal.value.reason is Reason.NOT_MEASURED


def test_a_free_motion_remains_and_a_held_one_does_not(block: Block) -> None:
    frame = block.frame("A|H", np.zeros(block.size))
    about_bore = np.concatenate((Z, -np.cross(Z, np.array([0.07, 0.03, 0.0]))))
    np.testing.assert_allclose(frame.remaining @ about_bore, about_bore, atol=1e-6)
    for held in (np.array([0, 0, 0, 0, 0, 1.0]), np.array([1.0, 0, 0, 0, 0, 0])):
        left = frame.remaining @ held
        assert np.abs(left - (left @ about_bore) / (about_bore @ about_bore) * about_bore).max() < 1e-6


@pytest.mark.parametrize("labels", ["A|H", "A|B", "H", "P|Q", "A|J", "A|J|K", "A|B|C"])
def test_what_remains_of_a_motion_is_what_a_new_frame_leaves(block: Block, labels: str) -> None:
    """For a part that was aligned before, as all are: what is free stays where the alignment had it.

    A ring is seen along its nominal axis; a lean of the part smears it, in proportion to the ring's height.
    """
    rng = np.random.default_rng(9)
    lift_m = rng.normal(0, 1e-6, block.size)
    aligned = RigidTransform.identity("part", "drawing").perturbed(rng.normal(size=6) * 1e-5)

    def frame_at(placed: RigidTransform) -> DatumFrame:
        return datum_frame([[block.datum(one, lift_m, placed=placed) for one in level] for level in labels.split("|")])

    frame, twist = frame_at(aligned), rng.normal(size=6) * 1e-5
    moved = frame.T_datum_part.inverse() @ frame.T_datum_part.perturbed(twist)
    left = twist_between(frame_at(moved @ aligned).T_datum_part @ moved, frame.T_datum_part)
    np.testing.assert_allclose(
        left, frame.remaining @ twist, atol=(0.01 if "J" in labels else 2e-3) * np.abs(twist).max()
    )


def test_a_tangent_plane_touches_the_highest_point() -> None:
    rng = np.random.default_rng(1)
    points, normals = face(rng, 2, (0.1, 0.06, 0.0))
    points[:, 2] += rng.normal(0, 2e-5, len(points))
    found = fit_plane(points, normals, None, robust=False)
    touching = tangent(found, points, normals)
    assert isinstance(touching.element, Plane)
    assert touching.element.distance(points).max() == pytest.approx(0, abs=1e-15)
    assert touching.residual_m.max() == pytest.approx(0, abs=1e-15)
    assert touching.criterion == "tangent"
    with pytest.raises(DepthcellError, match="least squares"):
        tangent(fit_line(points, normals, X, -Z, robust=False), points, normals)


def test_refusals(block: Block) -> None:
    plane = block.nominal["A"]
    three = np.array([[0.0, 0, 0], [0.1, 0, 0], [0, 0.05, 0]])
    down = np.tile(-Z, (40, 1))
    with pytest.raises(DepthcellError, match="datum A rests on 3 points: needs more") as refusal:
        Datum.of("A", plane, fit_plane(three, down[:3], None), three, down[:3])
    assert refusal.value.reason is Reason.NOT_MEASURED
    strip = np.stack((np.linspace(0, 0.1, 40), 2e-4 * np.cos(np.arange(40)), np.zeros(40)), axis=1)
    with pytest.raises(DepthcellError, match="datum A: its points lie on a line"):
        Datum.of("A", plane, fit_plane(strip, down, None), strip, down)
    points, normals = block.clouds["A"]
    with pytest.raises(DepthcellError, match="datum A leans 180 degrees from nominal") as refusal:
        Datum.of("A", Plane(np.zeros(3), Z), fit_plane(points, normals, None), points, normals)
    assert refusal.value.reason is Reason.ALIGNMENT_FAILED
    with pytest.raises(DepthcellError, match="cylinder nominally, plane measured"):
        Datum.of("A", block.nominal["H"], fit_plane(points, normals, None), points, normals)
    with pytest.raises(DepthcellError, match="datum A holds nothing that was still free"):
        block.frame("A|A", np.zeros(block.size))
    with pytest.raises(DepthcellError, match="no datum"):
        datum_frame([])


def test_a_profile_may_be_a_datum_for_what_it_says() -> None:
    rng = np.random.default_rng(1)
    points, normals = face(rng, 1, (0.1, 0.0, 0.0))
    nominal = Line(np.zeros(3), X)
    found = fit_line(points, normals, X, -Y, robust=False)
    frame = datum_frame([[Datum.of("B", nominal, found, points, normals)]])
    assert frame.held == (2,)
    assert len(frame.free_directions) == 4


SIX = (
    ReferencePoint("R1", np.array([0.01, 0.01, 0.0]), -Z),
    ReferencePoint("R2", np.array([0.09, 0.01, 0.0]), -Z),
    ReferencePoint("R3", np.array([0.05, 0.05, 0.0]), -Z),
    ReferencePoint("R4", np.array([0.02, 0.0, 0.01]), -Y),
    ReferencePoint("R5", np.array([0.08, 0.0, 0.01]), -Y),
    ReferencePoint("R6", np.array([0.0, 0.03, 0.01]), -X),
)
MORE = (
    *SIX,
    ReferencePoint("R7", np.array([0.09, 0.05, 0.0]), -Z),
    ReferencePoint("R8", np.array([0.05, 0.0, 0.01]), -Y),
)


def dense_block(rng: np.random.Generator) -> Cloud:
    faces = (
        face(rng, 2, (0.1, 0.06, 0.0), 6000),
        face(rng, 1, (0.1, 0.0, 0.02), 2500),
        face(rng, 0, (0.0, 0.06, 0.02), 1500),
    )
    return np.vstack([one[0] for one in faces]), np.vstack([one[1] for one in faces])


@pytest.mark.parametrize("references", [SIX, MORE])
def test_reference_points_bring_the_part_to_nominal(references: tuple[ReferencePoint, ...]) -> None:
    rng = np.random.default_rng(2)
    points, normals = dense_block(rng)
    placed, turned = PLACED @ points, PLACED.rotate(normals)
    frame = frame_by_points(placed, turned, None, references)
    assert frame.held == (6,)
    np.testing.assert_allclose(frame.T_datum_part.matrix @ PLACED.matrix, np.eye(4), atol=1e-9)
    noise = rng.normal(0, 1e-5, len(points))
    sigma_m, discs = np.full(len(points), 2e-5), ProbeSettings(radius_m=5e-3)
    frame = frame_by_points(placed + noise[:, None] * turned, turned, sigma_m, references, discs)
    change = rng.normal(0, 1e-9, len(points))
    again = frame_by_points(placed + (noise + change)[:, None] * turned, turned, sigma_m, references, discs)
    found = twist_between(again.T_datum_part, frame.T_datum_part)
    np.testing.assert_allclose(found, frame.gain @ change[frame.points], atol=0.01 * np.abs(found).max())


def test_five_reference_points_leave_a_shift_free_and_an_unseen_one_is_named() -> None:
    points, normals = dense_block(np.random.default_rng(2))
    frame = frame_by_points(points, normals, None, SIX[:5])
    assert frame.free_directions == ("shift along (1.00, 0.00, 0.00)",)
    unseen = ReferencePoint("R9", np.array([0.3, 0.0, 0.0]), -Z)
    with pytest.raises(DepthcellError, match="reference point 'R9': 0 measured points") as refusal:
        frame_by_points(points, normals, None, (*SIX, unseen), ProbeSettings(radius_m=2e-3))
    assert refusal.value.reason is Reason.NOT_MEASURED
    with pytest.raises(DepthcellError, match="none given"):
        frame_by_points(points, normals, None, ())
