"""Rigid transforms: the group axioms over random transforms, and the refusal of a wrong product."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from depthcell.acquisition.transform import FrameMismatchError, RigidTransform
from depthcell.errors import DepthcellError

VECTORS = arrays(np.float64, 3, elements=st.floats(-2.0, 2.0))
POINTS = arrays(np.float64, st.tuples(st.integers(0, 4), st.integers(1, 5), st.just(3)), elements=st.floats(-10, 10))


@st.composite
def transforms(draw: st.DrawFn, target: str, source: str) -> RigidTransform:
    return RigidTransform.from_rotation_vector(target, source, draw(VECTORS), draw(VECTORS))


@given(transforms("a", "b"), transforms("b", "c"), transforms("c", "d"))
def test_product_is_associative(T_a_b: RigidTransform, T_b_c: RigidTransform, T_c_d: RigidTransform) -> None:
    left, right = (T_a_b @ T_b_c) @ T_c_d, T_a_b @ (T_b_c @ T_c_d)
    assert (left.target, left.source) == ("a", "d")
    np.testing.assert_allclose(left.matrix, right.matrix, atol=1e-12)


@given(transforms("a", "b"))
def test_inverse_undoes(T_a_b: RigidTransform) -> None:
    product = T_a_b @ T_a_b.inverse()
    assert (product.target, product.source) == ("a", "a")
    np.testing.assert_allclose(product.matrix, np.eye(4), atol=1e-12)


@given(transforms("a", "b"), transforms("b", "c"), POINTS)
def test_product_acts_as_its_factors(T_a_b: RigidTransform, T_b_c: RigidTransform, points_c: np.ndarray) -> None:
    np.testing.assert_allclose((T_a_b @ T_b_c) @ points_c, T_a_b @ (T_b_c @ points_c), atol=1e-11)


@given(transforms("a", "b"))
def test_matrix_and_rotation_vector_round_trip(T_a_b: RigidTransform) -> None:
    again = RigidTransform.from_rotation_vector("a", "b", T_a_b.rotation_vector_rad, T_a_b.translation_m)
    np.testing.assert_allclose(again.matrix, T_a_b.matrix, atol=1e-9)
    np.testing.assert_allclose(RigidTransform.from_matrix("a", "b", T_a_b.matrix).matrix, T_a_b.matrix)


@given(transforms("a", "b"), VECTORS, POINTS)
def test_perturbation_acts_in_the_target_frame(T_a_b: RigidTransform, twist: np.ndarray, points_b: np.ndarray) -> None:
    xi = np.concatenate((twist, twist[::-1])) * 1e-3
    small = RigidTransform.from_rotation_vector("a", "a", xi[:3], xi[3:])
    np.testing.assert_allclose(T_a_b.perturbed(xi) @ points_b, small @ (T_a_b @ points_b), atol=1e-11)


def test_wrong_product_is_refused_and_names_both_frames() -> None:
    T_a_b, T_c_d = RigidTransform.identity("a", "b"), RigidTransform.identity("c", "d")
    with pytest.raises(FrameMismatchError, match="'b' and 'c' differ"):
        _ = T_a_b @ T_c_d


def test_float32_points_stay_float32() -> None:
    assert (RigidTransform.identity("a", "b") @ np.zeros((7, 3), np.float32)).dtype == np.float32


def test_whole_numbers_and_empty_clouds_are_mapped_too() -> None:
    T_a_b = RigidTransform("a", "b", np.eye(3), np.array([0.5, 0.0, 0.0]))
    np.testing.assert_array_equal(T_a_b @ np.array([[1, 2, 3]]), [[1.5, 2.0, 3.0]])
    assert (T_a_b @ np.zeros((0, 3))).shape == (0, 3)
    strided = np.arange(24.0).reshape(4, 6)[::2, ::2]
    np.testing.assert_array_equal(T_a_b @ strided, strided + (0.5, 0.0, 0.0))  # noqa: RUF005
    assert np.isnan(T_a_b @ np.array([np.nan, 0.0, 0.0]))[0]


@pytest.mark.parametrize(
    ("rotation", "translation_m", "message"),
    [
        (np.diag([1.0, 1.0, -1.0]), np.zeros(3), "determinant"),
        (np.eye(3) * 1.01, np.zeros(3), "orthonormal"),
        (np.eye(3), np.array([0.0, np.nan, 0.0]), "finite"),
        (np.eye(4), np.zeros(3), "3x3"),
    ],
)
def test_no_rotation_is_refused(rotation: np.ndarray, translation_m: np.ndarray, message: str) -> None:
    with pytest.raises(DepthcellError, match=message):
        RigidTransform("a", "b", rotation, translation_m)
