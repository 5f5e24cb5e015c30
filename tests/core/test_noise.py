import numpy as np
import pytest
from scipy import integrate, special

from qcord.core.noise import Gaussian, Rician


@pytest.mark.parametrize("snr", [0.0, 0.7, 2.0, 6.0, 40.0])
def test_rician_expectation_is_the_integral(snr):
    def density(m):
        return m * np.exp(-((m - snr) ** 2) / 2) * special.ive(0, m * snr)

    expected = integrate.quad(lambda m: m * density(m), max(0, snr - 12), snr + 12)[0]
    np.testing.assert_allclose(Rician(3.0).expectation(np.array(3.0 * snr)), 3 * expected, rtol=1e-6)


def test_samples_have_the_expected_moments():
    generator = np.random.default_rng(1)
    signal = np.full(200_000, 5.0)
    rician = Rician(4.0)
    drawn = rician.sample(signal, generator)
    np.testing.assert_allclose(drawn.mean(), rician.expectation(np.array(5.0)), rtol=5e-3)
    np.testing.assert_allclose((drawn**2).mean(), 25 + 2 * 16, rtol=1e-2)
    plain = Gaussian(4.0).sample(signal, generator)
    np.testing.assert_allclose([plain.mean(), plain.std()], [5, 4], rtol=1e-2)


@pytest.mark.parametrize("snr", [0.5, 1.5, 4.0])
def test_rician_information_is_the_variance_of_the_score(snr):
    generator = np.random.default_rng(2)
    drawn = Rician(2.0).sample(np.full(400_000, 2.0 * snr), generator) / 2
    score = drawn * special.ive(1, drawn * snr) / special.ive(0, drawn * snr) - snr
    np.testing.assert_allclose(Rician(2.0).information(np.array(2.0 * snr)), score.var() / 4, rtol=0.02)


def test_information_reaches_that_of_normal_noise():
    np.testing.assert_allclose(
        Rician(2.0).information(np.array(400.0)), Gaussian(2.0).information(np.array(400.0)), rtol=0.01
    )
