"""simulate, jacobian, crlb, delta: the same formula in its other uses."""

import numpy as np
import pytest

from qcord.core.errors import ImplausibleValue, MissingMetadata, NotIdentifiable
from qcord.core.model import Derived
from qcord.core.noise import Gaussian, Rician
from qcord.core.protocol import Protocol
from qcord.estimate.bound import crlb
from qcord.estimate.jacobian import gradient, jacobian
from qcord.estimate.propagate import curvature_bias, delta, independent_errors
from qcord.estimate.simulate import simulate
from qcord.models.registry import get

THETA = {
    "tensor": np.array([1000.0, 5e-4, 6e-4, 1.6e-3, 1e-4, -5e-5, 2e-4]),
    "mtr": np.array([400.0, 45.0]),
    "mtsat": np.array([1000.0, 1.1, 4.0]),
    "mtsat-ernst": np.array([1000.0, 1.1, 4.0]),
}


def protocol_of(name):
    if name == "tensor":
        directions = np.random.default_rng(0).normal(size=(30, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        b = np.r_[np.zeros(5), np.full(30, 800.0)]
        return Protocol({"BValue": b, "Direction": np.r_[np.zeros((5, 3)), directions]})
    return Protocol(
        {
            "FlipAngle": [9.0, 9.0, 15.0],
            "RepetitionTimeExcitation": [0.03, 0.03, 0.015],
            "MTState": np.array([True, False, False]),
        }
    )


@pytest.mark.parametrize("name", THETA)
def test_jacobian_agrees_with_finite_differences(name):
    model, protocol, theta = get(name), protocol_of(name), THETA[name]
    exact = jacobian(model, theta, protocol)
    assert exact.shape == (len(protocol), len(theta))
    for k in range(len(theta)):
        step = np.zeros_like(theta)
        step[k] = 1e-4 * max(abs(theta[k]), 1e-4)
        rise = simulate(model, theta + step, protocol) - simulate(model, theta - step, protocol)
        np.testing.assert_allclose(exact[:, k], rise / (2 * step[k]), rtol=1e-5, atol=1e-6 * np.abs(exact[:, k]).max())


@pytest.mark.parametrize("name", THETA)
def test_gradients_of_derived_values_agree_with_finite_differences(name):
    theta = THETA[name]
    for derived in get(name).derived:
        slope = gradient(derived, theta)
        for k in range(len(theta)):
            step = np.zeros_like(theta)
            step[k] = 1e-4 * max(abs(theta[k]), 1e-4)
            rise = float(derived.formula(theta + step) - derived.formula(theta - step)) / (2 * step[k])
            assert slope[k] == pytest.approx(rise, rel=1e-4, abs=1e-6 * np.abs(slope).max())


def test_simulation_is_the_signal_repeats_with_its_seed_and_has_the_noise_asked_for():
    model, protocol, theta = get("mtsat"), protocol_of("mtsat"), THETA["mtsat"]
    exact = simulate(model, theta, protocol)
    many = np.broadcast_to(theta, (7, 8, 900, 3))
    noisy = simulate(model, many, protocol, Gaussian(2.0), seed=4)
    np.testing.assert_array_equal(noisy, simulate(model, many, protocol, Gaussian(2.0), seed=4))
    assert not np.array_equal(noisy, simulate(model, many, protocol, Gaussian(2.0), seed=5))
    np.testing.assert_allclose(noisy.mean(axis=(0, 1, 2)), exact, atol=0.05)
    np.testing.assert_allclose((noisy - exact).std(), 2.0, rtol=0.02)


def test_given_values_default_and_broadcast():
    model, protocol = get("mtsat"), protocol_of("mtsat")
    np.testing.assert_array_equal(
        simulate(model, THETA["mtsat"], protocol), simulate(model, THETA["mtsat"], protocol, given=[1.0])
    )
    field = np.linspace(0.8, 1.2, 5)[:, None]
    assert simulate(model, THETA["mtsat"], protocol, given=field).shape == (5, 3)


def test_wrong_shapes_and_missing_columns_are_named():
    with pytest.raises(ImplausibleValue, match=r"last axis of 3 \(A, R1, MTsat\)"):
        simulate(get("mtsat"), np.ones(4), protocol_of("mtsat"))
    with pytest.raises(ImplausibleValue, match=r"last axis of 1 \(B1\)"):
        simulate(get("mtsat"), np.ones(3), protocol_of("mtsat"), given=[1.0, 2.0])
    with pytest.raises(MissingMetadata, match="FlipAngle is absent"):
        simulate(get("mtsat"), np.ones(3), Protocol({"MTState": np.array([True])}))


def test_bound_of_a_pair_is_the_textbook_variance():
    """MTR from one image each: var = 100^2 sigma^2 (1 + q^2) / S0^2 with q the ratio of the images."""
    protocol = Protocol({"MTState": np.array([True, False])})
    covariance = crlb(get("mtr"), [200.0, 40.0], protocol, Gaussian(4.0))
    assert covariance[1, 1] == pytest.approx(1e4 * 16 * (1 + 0.36) / 200**2, rel=1e-12)
    assert covariance[0, 0] == pytest.approx(16.0, rel=1e-12)


def test_rician_bound_is_never_below_the_gaussian_one_and_meets_it_at_high_signal():
    theta, protocol = THETA["tensor"], protocol_of("tensor")
    for sigma, most in ((200.0, np.inf), (10.0, 1.03)):
        gaussian = crlb(get("tensor"), theta, protocol, Gaussian(sigma))
        rician = crlb(get("tensor"), theta, protocol, Rician(sigma))
        ratio = np.sqrt(np.diag(rician) / np.diag(gaussian))
        assert np.all(ratio > 0.999)
        assert np.all(ratio < most)


def test_fixed_parameters_lower_the_bound_and_have_no_variance():
    model, protocol, theta = get("mtsat"), protocol_of("mtsat"), THETA["mtsat"]
    free = crlb(model, theta, protocol, Gaussian(1.0))
    fixed = crlb(model, theta, protocol, Gaussian(1.0), fixed=["R1"])
    assert fixed[1].max() == fixed[:, 1].max() == 0
    assert fixed[2, 2] < free[2, 2]


def test_bound_of_an_underdetermined_protocol_names_the_parameters():
    pair = protocol_of("mtsat").take([0, 1])
    with pytest.raises(NotIdentifiable, match="do not determine the 3 parameters of model mtsat"):
        crlb(get("mtsat"), THETA["mtsat"], pair, Gaussian(1.0))
    assert np.isfinite(crlb(get("mtsat"), THETA["mtsat"], pair, Gaussian(1.0), fixed=["R1"])).all()


def test_delta_is_exact_for_linear_functions_and_first_order_otherwise():
    covariance = np.array([[4.0, 1.0], [1.0, 9.0]])
    value, std = delta(lambda t: 2 * t[..., 0] - t[..., 1], np.array([3.0, 1.0]), covariance)
    assert (float(value), float(std)) == (5.0, pytest.approx(np.sqrt(16 + 9 - 4)))
    t1 = Derived("T1", "s", lambda t: 1 / t[..., 1])
    value, std = delta(t1, np.array([[1.0, 2.0]]), 0.01 * covariance[None])
    assert value[0] == 0.5
    assert std[0] == pytest.approx(0.3 / 4)


def test_curvature_bias_of_known_functions():
    covariance = np.array([[0.04, 0.01], [0.01, 0.09]])
    theta = np.array([2.0, 5.0])
    assert float(curvature_bias(lambda t: t[..., 0] ** 2, theta, covariance)) == pytest.approx(0.04, rel=1e-9)
    assert float(curvature_bias(lambda t: t[..., 0] * t[..., 1], theta, covariance)) == pytest.approx(0.01, rel=1e-9)
    assert float(curvature_bias(lambda t: 1 / t[..., 0], theta, covariance)) == pytest.approx(0.04 / 8, rel=1e-3)


def test_independent_errors_agree_with_a_simulation():
    generator = np.random.default_rng(7)
    inputs, sigma = np.array([[20.0], [40.0]]), np.array([[1.5], [1.0]])

    def ratio(x):
        return np.stack([x[0] / x[1], x[1] ** 2])

    std, bias = independent_errors(ratio, inputs, sigma, rician=False)
    draws = ratio(inputs + sigma * generator.standard_normal((2, 400_000)))
    np.testing.assert_allclose(std[:, 0], draws.std(axis=1), rtol=0.01)
    np.testing.assert_allclose(bias[:, 0], draws.mean(axis=1) - ratio(inputs)[:, 0], atol=4 * draws.std(1).max() / 600)
    _, lifted = independent_errors(ratio, inputs, sigma)
    rise = sigma**2 / (2 * inputs)
    np.testing.assert_allclose((lifted - bias)[1], 2 * 40 * rise[1], rtol=1e-6)
