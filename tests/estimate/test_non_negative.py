import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from qcord.estimate.non_negative import active_gram, non_negative_ridge


def problem(v, r, j, seed):
    generator = np.random.default_rng(seed)
    basis = np.exp(-np.outer(np.arange(1, r + 1), 1 / np.geomspace(1, 60, j)))
    basis = basis * generator.uniform(0.9, 1.1, (v, r, 1))
    truth = np.maximum(generator.normal(size=(v, j)) - 0.8, 0)
    return basis, np.einsum("vrj,vj->vr", basis, truth) + 0.01 * generator.normal(size=(v, r))


@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-4, 1e-7])
def test_amplitudes_are_those_of_an_active_set_method(penalty):
    basis, measured = problem(40, 12, 20, 1)
    found = non_negative_ridge(basis, measured, np.full(40, penalty))
    assert found.settled.all()
    for v in range(40):
        stacked = np.vstack([basis[v], np.sqrt(penalty) * np.eye(20)])
        expected, _ = nnls(stacked, np.r_[measured[v], np.zeros(20)], maxiter=2000)
        cost = [np.sum((stacked @ x - np.r_[measured[v], np.zeros(20)]) ** 2) for x in (expected, found.amplitudes[v])]
        assert cost[1] <= cost[0] + 1e-9 * np.sum(measured[v] ** 2)
        if penalty >= 1e-2:
            np.testing.assert_allclose(found.amplitudes[v], expected, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-5, 1))
def test_solution_obeys_its_conditions_and_scales_with_the_measurements(seed, exponent):
    basis, measured = problem(3, 8, 13, seed)
    penalty = np.full(3, 10.0**exponent)
    found = non_negative_ridge(basis, measured, penalty)
    assert np.all(found.amplitudes >= 0)
    residual = measured - np.einsum("vrj,vj->vr", basis, found.amplitudes)
    scale = np.abs(measured).max()
    np.testing.assert_allclose(found.residual, residual, atol=1e-7 * scale)
    gain = np.einsum("vrj,vr->vj", basis, residual) - penalty[:, None] * found.amplitudes
    assert np.all(gain < 1e-6 * scale)
    assert np.abs(gain[found.amplitudes > 0]).max(initial=0) < 1e-6 * scale
    doubled = non_negative_ridge(basis, 2 * measured, penalty).amplitudes
    np.testing.assert_allclose(doubled, 2 * found.amplitudes, atol=1e-5 * scale)


def test_start_does_not_change_the_solution_nor_do_other_voxels():
    basis, measured = problem(30, 10, 16, 3)
    penalty = np.geomspace(1e-4, 1, 30)
    cold = non_negative_ridge(basis, measured, penalty)
    warm = non_negative_ridge(basis, measured, penalty, 0.3 * measured[::-1])
    np.testing.assert_allclose(warm.amplitudes, cold.amplitudes, atol=1e-6)
    alone = non_negative_ridge(basis[7:8], measured[7:8], penalty[7:8])
    np.testing.assert_array_equal(alone.amplitudes[0], cold.amplitudes[7])


def test_nothing_measured_is_nothing_found():
    basis, measured = problem(2, 6, 9, 4)
    found = non_negative_ridge(basis, np.stack([0 * measured[0], -np.abs(measured[1])]), np.ones(2))
    assert np.all(found.amplitudes == 0)
    assert found.settled.all()


def test_active_gram_counts_only_what_is_inside():
    basis, _ = problem(2, 5, 7, 5)
    inside = np.arange(14).reshape(2, 7) % 3 == 0
    found = active_gram(basis, inside, np.array([2.0, 3.0]))
    for v in range(2):
        part = basis[v][:, inside[v]]
        np.testing.assert_allclose(found[v], part @ part.T + (2.0 + v) * np.eye(5), rtol=1e-12)
