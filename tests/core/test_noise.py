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


def test_variance_of_magnitudes_follows_from_their_mean():
    generator = np.random.default_rng(9)
    for ratio in (0.0, 0.7, 3.0, 12.0, 30.0):
        noise = Rician(2.0)
        drawn = noise.sample(np.full(400_000, 2 * ratio), generator)
        assert float(noise.variance(np.array(2 * ratio))) == pytest.approx(drawn.var(), rel=0.012)
        assert float(noise.expectation(np.array(2 * ratio))) == pytest.approx(drawn.mean(), rel=2e-3)


def test_series_of_the_mean_meets_its_closed_form():
    near, far = np.nextafter(32.0, 0), np.nextafter(32.0, 64)
    noise = Rician(2.0)
    assert float(noise.expectation(np.array(near))) == pytest.approx(float(noise.expectation(np.array(far))), rel=1e-11)
    slopes = [float(noise.expectation_slope(np.array(x))) for x in (near, far)]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-9)
