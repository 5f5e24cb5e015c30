import numpy as np
import pytest
from scipy.special import exp1

from cord_diffusion import cord_protocol, tensors
from qcord.core.noise import Rician
from qcord.estimate.log_linear import fit_log_linear, log_floor, prepare
from qcord.estimate.simulate import simulate
from qcord.models.tensor import TENSOR, log_design

DESIGN = prepare(log_design(cord_protocol()))


def test_noise_free_parameters_are_recovered():
    theta, _ = tensors(np.linspace(0.1, 0.95, 300), seed=0)
    fit = fit_log_linear(DESIGN, simulate(TENSOR, theta, cord_protocol()).T, sigma=np.full(300, 1e-9))
    np.testing.assert_allclose(np.exp(fit.theta[0]), 1000, rtol=1e-10)
    np.testing.assert_allclose(fit.theta[1:].T, theta[:, 1:], atol=1e-14)
    assert fit.rmse.max() < 1e-8
    assert np.abs(fit.bias[1:]).max() < 1e-12


def test_estimates_equal_a_weighted_fit_written_out():
    theta, _ = tensors(np.full(40, 0.7), seed=1)
    measured = simulate(TENSOR, theta, cord_protocol(), Rician(60.0), seed=1)
    fit = fit_log_linear(DESIGN, measured.T, sigma=np.full(40, 60.0))
    x = log_design(cord_protocol())
    for v in range(40):
        y = np.log(measured[v])
        first = np.linalg.lstsq(x, y, rcond=None)[0]
        w = np.exp(x @ first)
        expected = np.linalg.lstsq(x * w[:, None], y * w, rcond=None)[0]
        np.testing.assert_allclose(fit.theta[:, v], expected, rtol=1e-8, atol=1e-12)
        covariance = 3600 * np.linalg.inv((x * w[:, None] ** 2).T @ x)
        np.testing.assert_allclose(fit.covariance[:, :, v], covariance, rtol=1e-6, atol=1e-20)


def test_noise_from_the_residuals_is_the_noise():
    theta, _ = tensors(np.full(6000, 0.6), seed=2)
    measured = simulate(TENSOR, theta, cord_protocol(), Rician(30.0), seed=2)
    fit = fit_log_linear(DESIGN, measured.T)
    assert np.sqrt((fit.sigma**2).mean()) == pytest.approx(30.0, rel=0.02)


@pytest.mark.parametrize("rounds", [1, 2])
def test_bias_of_the_elements_is_predicted(rounds):
    """The mean error of the mean diffusivity, several per cent of a standard error, is what the bias says."""
    theta, _ = tensors(np.full(40_000, 0.8), seed=3)
    measured = simulate(TENSOR, theta, cord_protocol(), Rician(1000 / 10), seed=3)
    fit = fit_log_linear(DESIGN, measured.T, sigma=np.full(40_000, 100.0), rounds=rounds)
    error = (fit.theta[1:4] - theta[:, 1:4].T).mean(axis=0)
    raw, left = error.mean(), (error - fit.bias[1:4].mean(axis=0)).mean()
    noise = error.std() / np.sqrt(len(theta))
    assert abs(left) < 4 * noise + 0.1 * abs(raw)
    if rounds == 1:
        assert raw < -10 * noise


def test_floor_of_the_logarithm_is_half_the_exponential_integral():
    snr = np.linspace(0.1, 3.99, 400)
    np.testing.assert_allclose(log_floor(snr**2), exp1(snr**2 / 2) / 2, rtol=4e-3)
    assert log_floor(np.array([16.0, 1e9])).max() == 0
    assert exp1(8.0) / 2 < 2e-5


def test_floor_of_the_logarithm_is_that_of_rician_draws():
    generator = np.random.default_rng(4)
    for snr in (0.7, 1.5, 3.0):
        draws = np.log(Rician(1.0).sample(np.full(400_000, snr), generator))
        expected = np.log(snr) + float(log_floor(np.array([snr**2]))[0])
        assert draws.mean() == pytest.approx(expected, abs=4 * draws.std() / 632 + 2e-3)


def test_measurements_without_signal_are_left_out():
    theta, _ = tensors(np.full(20, 0.7), seed=5)
    measured = simulate(TENSOR, theta, cord_protocol()).T
    measured[[3, 17], :10] = [[0.0], [-5.0]]
    fit = fit_log_linear(DESIGN, measured, sigma=np.full(20, 1.0))
    np.testing.assert_allclose(fit.theta[1:].T, theta[:, 1:], atol=1e-13)
    assert np.all(fit.covariance[1, 1, :10] > 0)


def test_outliers_are_rejected_and_leave_no_trace():
    theta, _ = tensors(np.full(2000, 0.7), seed=6)
    measured = simulate(TENSOR, theta, cord_protocol(), Rician(25.0), seed=6)
    clean = fit_log_linear(DESIGN, measured.T, robust=True)
    spoilt = measured.copy()
    spoilt[:, 10] *= 0.2
    spoilt[:, 21] *= 0.3
    plain = fit_log_linear(DESIGN, spoilt.T)
    robust = fit_log_linear(DESIGN, spoilt.T, robust=True)
    truth = theta[:, 1:4].mean(axis=1)

    def error(fit):
        return np.abs((fit.theta[1:4].mean(axis=0) - truth).mean()) / truth.mean()

    assert error(plain) > 0.05
    assert error(robust) < 0.01
    assert robust.rejected.mean() == pytest.approx(2 / 35, abs=0.02)
    assert clean.rejected.mean() < 0.015
    assert np.sqrt((clean.sigma**2).mean()) == pytest.approx(25, rel=0.05)


def test_no_degree_of_freedom_leaves_the_error_unknown():
    protocol = cord_protocol().take(np.r_[0, 5:35:5])
    assert len(protocol) == 7
    theta, _ = tensors(np.full(3, 0.7), seed=7)
    fit = fit_log_linear(prepare(log_design(protocol)), simulate(TENSOR, theta, protocol).T)
    assert np.isfinite(fit.theta).all()
    assert np.isnan(fit.covariance).all()
