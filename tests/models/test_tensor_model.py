import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from qcord.core.errors import MissingMetadata, NotIdentifiable
from qcord.core.protocol import Protocol
from qcord.models.tensor import (
    TENSOR,
    b_matrix,
    eigenvalues,
    first_eigenvector,
    fractional_anisotropy,
    log_design,
    mean_diffusivity,
)

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "tensor.json").read_text())


def full(elements):
    xx, yy, zz, xy, xz, yz = elements
    return np.moveaxis(np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]), (0, 1), (-2, -1))


def packed(matrix):
    return np.stack([matrix[..., i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))])


def shells(n=12, b=(0.0, 800.0)):
    directions = np.random.default_rng(0).normal(size=(n, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    values = np.repeat(b, n)
    return Protocol({"BValue": values, "Direction": np.tile(directions, (len(b), 1)) * (values > 0)[:, None]})


@pytest.mark.parametrize("case", REFERENCE, ids=lambda c: c["what"])
def test_reference_values(case):
    theta = np.array([1.0, *case["elements_mm2_per_s"]])
    for derived in TENSOR.derived:
        assert float(derived.formula(theta)) == pytest.approx(case[derived.name], abs=case["tolerance"])


def test_signal_is_exponential_of_the_quadratic_form():
    generator = np.random.default_rng(1)
    protocol = shells()
    theta = np.concatenate([[900.0], 1e-3 * generator.normal(size=6)])
    q, b = protocol["Direction"], protocol["BValue"]
    direct = 900 * np.exp(-b * np.einsum("ni,ij,nj->n", q, full(theta[1:]), q))
    np.testing.assert_allclose(TENSOR.signal(theta, protocol, np.empty(0)), direct, rtol=1e-12)


def test_signal_broadcasts_over_unequal_shapes():
    theta = np.ones((7, 8, 9, 7)) * 1e-3
    assert TENSOR.signal(theta, shells(6), np.empty(0)).shape == (7, 8, 9, 12)


def test_weighted_volume_without_direction_is_a_trace_image():
    protocol = Protocol({"BValue": [800.0], "Direction": np.zeros((1, 3))})
    np.testing.assert_allclose(b_matrix(protocol), [[800 / 3, 800 / 3, 800 / 3, 0, 0, 0]])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_invariants_do_not_turn_with_the_tensor(seed):
    generator = np.random.default_rng(seed)
    root = generator.normal(size=(3, 3))
    tensor = root @ root.T * 1e-3
    turn = Rotation.random(random_state=generator).as_matrix()
    one, other = packed(tensor), packed(turn @ tensor @ turn.T)
    np.testing.assert_allclose(fractional_anisotropy(one), fractional_anisotropy(other), rtol=1e-9)
    np.testing.assert_allclose(mean_diffusivity(one), mean_diffusivity(other), rtol=1e-9)
    np.testing.assert_allclose(eigenvalues(one), eigenvalues(other), atol=1e-7 * np.trace(tensor))
    first = first_eigenvector(one, eigenvalues(one)[0])
    other_first = first_eigenvector(other, eigenvalues(other)[0])
    gap = np.diff(np.linalg.eigvalsh(tensor))[1] / np.trace(tensor)
    assert abs(abs(turn @ first @ other_first) - 1) < 1e-10 / gap**2


def test_eigenvalues_and_vectors_agree_with_lapack():
    generator = np.random.default_rng(2)
    root = generator.normal(size=(500, 3, 3))
    matrix = 1e-3 * (root + np.swapaxes(root, 1, 2))
    elements = packed(matrix)
    values, vectors = np.linalg.eigh(matrix)
    np.testing.assert_allclose(eigenvalues(elements).T, values[:, ::-1], atol=1e-11)
    mine = first_eigenvector(elements, eigenvalues(elements)[0])
    assert np.all(mine[2] >= 0)
    np.testing.assert_allclose(np.abs((mine.T * vectors[:, :, 2]).sum(1)), 1, atol=1e-9)


@pytest.mark.parametrize("elements", [[1e-3, 1e-3, 1e-3, 0, 0, 0], [0.0] * 6, [1e-3, 1e-3, 5e-4, 0, 0, 0]])
def test_degenerate_tensors_give_a_unit_vector_and_sorted_values(elements):
    column = np.array(elements)[:, None]
    values = eigenvalues(column)
    assert np.all(np.diff(values[:, 0]) <= 0)
    np.testing.assert_allclose(np.linalg.norm(first_eigenvector(column, values[0])), 1, rtol=1e-9)


def test_anisotropy_is_the_textbook_formula_of_the_eigenvalues():
    root = np.random.default_rng(3).normal(size=(200, 3, 3))
    matrix = root @ np.swapaxes(root, 1, 2)
    v = np.linalg.eigvalsh(matrix)
    textbook = np.sqrt(
        0.5 * ((v[:, 0] - v[:, 1]) ** 2 + (v[:, 1] - v[:, 2]) ** 2 + (v[:, 2] - v[:, 0]) ** 2) / (v**2).sum(1)
    )
    np.testing.assert_allclose(fractional_anisotropy(packed(matrix)), textbook, rtol=1e-9)


def test_too_few_directions_are_named():
    flat = shells(12)
    q = flat["Direction"].copy()
    q[:, 2] = 0
    with pytest.raises(NotIdentifiable, match="determine 4 of the 7 unknowns"):
        log_design(Protocol({"BValue": flat["BValue"], "Direction": q}, "flat.bvec"))
    with pytest.raises(NotIdentifiable, match="determine 6 of the 7"):
        log_design(shells(12, b=(800.0,)))


def test_missing_directions_are_named():
    with pytest.raises(MissingMetadata, match="Direction is absent"):
        log_design(Protocol({"BValue": [0.0, 800.0]}))


def test_start_recovers_noise_free_parameters():
    theta = np.array([[1000.0, 1e-3, 5e-4, 1.5e-3, 1e-4, -2e-4, 3e-4]])
    protocol = shells()
    assert TENSOR.start is not None
    np.testing.assert_allclose(
        TENSOR.start(TENSOR.signal(theta, protocol, np.empty(0)), protocol, np.empty(0)), theta, rtol=1e-9, atol=1e-15
    )
