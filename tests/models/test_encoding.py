import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from qcord.core.errors import ImplausibleValue, MissingMetadata
from qcord.core.protocol import Protocol
from qcord.models.encoding import b_tensors, require_linear, shape
from qcord.models.tensor import TENSOR, b_matrix


def full(elements):
    xx, yy, zz, xy, xz, yz = np.moveaxis(elements, -1, 0)
    return np.moveaxis(np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]), (0, 1), (-2, -1))


def axes(n, seed):
    return Rotation.random(n, random_state=seed).as_matrix()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(-0.5, 1), st.floats(1, 5000))
def test_axisymmetric_tensors_have_the_eigenvalues_of_their_shape(seed, delta, b):
    n = axes(1, seed)[0, :, 2]
    protocol = Protocol({"BValue": [b], "Direction": n[None], "BDelta": [delta]})
    matrix = full(b_tensors(protocol))[0]
    np.testing.assert_allclose(np.trace(matrix), b, rtol=1e-12)
    np.testing.assert_allclose(n @ matrix @ n, b * (1 + 2 * delta) / 3, rtol=1e-9, atol=1e-9 * b)
    expected = np.sort([b * (1 + 2 * delta) / 3, b * (1 - delta) / 3, b * (1 - delta) / 3])
    np.testing.assert_allclose(np.linalg.eigvalsh(matrix), expected, atol=1e-9 * b)


def test_linear_is_what_absence_means():
    frame = axes(5, 1)
    plain = Protocol({"BValue": np.full(5, 700.0), "Direction": frame[:, :, 0]})
    np.testing.assert_array_equal(shape(plain), 1)
    np.testing.assert_allclose(b_tensors(plain), b_tensors(plain.replace(BDelta=1.0)), atol=1e-12)


def test_pairs_of_blocks_are_linear_or_planar():
    """Parallel: the linear tensor of the whole b-value; perpendicular: the planar one of the common normal."""
    frame = axes(6, 2)
    b = np.linspace(500, 2000, 6)
    x, y, z = np.moveaxis(frame, 2, 0)
    parallel = Protocol({"BValue": b, "Direction": x, "SecondDirection": -x})
    linear = Protocol({"BValue": b, "Direction": x})
    np.testing.assert_allclose(b_tensors(parallel), b_tensors(linear), atol=1e-9)
    np.testing.assert_allclose(shape(parallel), 1)
    across = Protocol({"BValue": b, "Direction": x, "SecondDirection": y})
    planar = Protocol({"BValue": b, "Direction": z, "BDelta": np.full(6, -0.5)})
    np.testing.assert_allclose(b_tensors(across), b_tensors(planar), atol=1e-9)
    np.testing.assert_allclose(shape(across), -0.5)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, np.pi))
def test_pairs_at_any_angle_have_the_second_invariant_of_their_shape(angle):
    second = np.array([[np.cos(angle), np.sin(angle), 0]])
    protocol = Protocol({"BValue": [1.0], "Direction": [[1.0, 0, 0]], "SecondDirection": second})
    apart = full(b_tensors(protocol))[0] - np.eye(3) / 3
    delta = shape(protocol)[0]
    np.testing.assert_allclose((apart**2).sum(), 2 / 3 * delta**2, atol=1e-12)
    if abs(np.linalg.det(apart)) > 1e-12:
        assert np.sign(np.linalg.det(apart)) == np.sign(delta)


def test_rows_without_second_direction_are_single_encoding():
    q = np.eye(3)
    second = np.array([[0, 0, 0], [1.0, 0, 0], [0, 0, 0]])
    protocol = Protocol(
        {"BValue": np.full(3, 900.0), "Direction": q, "SecondDirection": second, "BDelta": [0.0, 0.3, 1.0]}
    )
    np.testing.assert_allclose(shape(protocol), [0, -0.5, 1])
    np.testing.assert_allclose(b_tensors(protocol)[0], [300, 300, 300, 0, 0, 0])
    np.testing.assert_allclose(b_tensors(protocol)[1], [450, 450, 0, 0, 0, 0])


def test_spherical_volumes_need_no_direction():
    protocol = Protocol({"BValue": [0.0, 600.0], "BDelta": [1.0, 0.0]})
    np.testing.assert_allclose(b_tensors(protocol), [[0] * 6, [200, 200, 200, 0, 0, 0]])
    with pytest.raises(MissingMetadata, match="Direction is absent"):
        b_tensors(protocol.replace(BDelta=[1.0, 1.0]))


def test_tensor_signal_of_spherical_encoding_depends_on_the_trace_alone():
    theta = np.array([900.0, 1.1e-3, 0.4e-3, 0.6e-3, 1e-4, 2e-4, -1e-4])
    protocol = Protocol({"BValue": [1500.0], "Direction": [[0, 0, 1.0]], "BDelta": [0.0]})
    signal = TENSOR.signal(theta, protocol, np.empty(0))
    np.testing.assert_allclose(signal, 900 * np.exp(-1500 * 2.1e-3 / 3), rtol=1e-12)


def test_tensor_signal_is_the_double_contraction():
    generator = np.random.default_rng(5)
    protocol = Protocol(
        {
            "BValue": generator.uniform(100, 2000, 7),
            "Direction": axes(7, 6)[:, 0],
            "BDelta": generator.uniform(-0.5, 1, 7),
        }
    )
    elements = 1e-3 * generator.normal(size=6)
    np.testing.assert_allclose(
        b_matrix(protocol) @ elements, np.einsum("nij,ij->n", full(b_tensors(protocol)), full(elements)), rtol=1e-12
    )


def test_shapes_out_of_range_are_refused():
    with pytest.raises(ImplausibleValue, match=r"BDelta is -1, expected -0\.5 to 1"):
        Protocol({"BValue": [1.0], "BDelta": [-1.0]})


def test_models_of_linear_encoding_refuse_other_shapes():
    protocol = Protocol({"BValue": [0.0, 600.0, 600.0], "Direction": np.eye(3), "BDelta": [0.0, 1.0, 0.0]})
    with pytest.raises(ImplausibleValue, match="Volume 2 .* leave out the 1 volumes"):
        require_linear(protocol, "noddi")
    require_linear(protocol.take([0, 1]), "noddi")
