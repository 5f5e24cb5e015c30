import numpy as np
import pytest
from scipy import integrate, special, stats

from qcord.core.noise import Rician
from qcord.estimate.rician import bessel_ratio, information, log_bessel, misfit, skewness

X = np.concatenate([[0.0], np.geomspace(1e-4, 1e5, 400)])


def test_bessel_functions_are_those_of_scipy():
    np.testing.assert_allclose(bessel_ratio(X), special.i1e(X) / special.i0e(X), atol=1e-5)
    np.testing.assert_allclose(log_bessel(X), np.log(special.i0e(X)), atol=3e-5)


@pytest.mark.parametrize("signal", [0.3, 2.0, 15.0])
def test_misfit_is_the_likelihood_up_to_a_constant(signal):
    measured = np.array([0.2, 1.0, 4.0, 12.0])
    others = np.array([0.1, 1.0, 5.0, 20.0])
    exact = stats.rice.logpdf(measured, others) - stats.rice.logpdf(measured, signal)
    here = misfit(measured, np.full(4, signal)) - misfit(measured, others)
    np.testing.assert_allclose(here, exact, atol=2e-4)


@pytest.mark.parametrize("snr", [0.1, 0.7, 1.5, 3.0, 6.0, 11.0])
def test_information_and_skewness_are_expectations_under_the_density(snr):
    def slopes(m):
        step = 1e-3
        log = [stats.rice.logpdf(m, snr + k * step) for k in (-2, -1, 0, 1, 2)]
        first = (log[3] - log[1]) / (2 * step)
        second = (log[3] - 2 * log[2] + log[1]) / step**2
        third = (log[4] - 2 * log[3] + 2 * log[1] - log[0]) / (2 * step**3)
        return first, second, third

    def mean(what):
        low, high = max(snr - 9, 1e-6), snr + 9
        return integrate.quad(lambda m: what(*slopes(m)) * stats.rice.pdf(m, snr), low, high, limit=200)[0]

    assert float(information(np.array(snr))) == pytest.approx(mean(lambda a, b, c: a * a), abs=1e-4)
    assert float(skewness(np.array(snr))) == pytest.approx(mean(lambda a, b, c: a * b + c / 2), abs=2e-3)


def test_high_signal_is_normal():
    far = np.array([30.0, 100.0, 1e4])
    np.testing.assert_allclose(information(far), Rician(1.0).information(far), atol=4e-3)
    np.testing.assert_allclose(skewness(far), 0, atol=1e-4)
    np.testing.assert_allclose(bessel_ratio(far * far), 1 - 1 / (2 * far**2), atol=1e-5)


def test_estimates_of_one_signal_have_the_bias_that_skewness_says():
    """Maximum of the likelihood of 25 repeats at a ratio of 3: bias by Cox and Snell, without curvature."""
    draws = Rician(1.0).sample(np.full((20_000, 25), 3.0), np.random.default_rng(0))
    estimate = draws.mean(axis=1)
    for _ in range(60):
        estimate = (draws * bessel_ratio(draws * estimate[:, None])).mean(axis=1)
    predicted = float(skewness(np.array(3.0)) / information(np.array(3.0)) ** 2 / 25)
    error = estimate.std() / np.sqrt(20_000)
    assert abs(predicted) < 0.05
    assert estimate.mean() - 3 == pytest.approx(predicted, abs=3 * error)
