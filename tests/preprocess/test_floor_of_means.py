import numpy as np
import pytest

from qcord.core.noise import Rician
from qcord.preprocess.floor_of_means import without_floor


@pytest.mark.parametrize(
    ("signal", "error"), [(0.0, 0.36), (0.3, 0.11), (0.5, 0.11), (1.0, 0.12), (2.0, 0.02), (3.0, 0.03), (8.0, 0.02)]
)
def test_means_are_the_signal_and_variances_those_of_the_values(signal, error):
    sigma = 7.0
    magnitude = Rician(sigma).sample(np.full(200000, sigma * signal), np.random.default_rng(2))
    values, variance = without_floor(magnitude, np.array(sigma))
    assert abs(values.mean() / sigma - signal) < error
    assert np.sqrt(variance.mean() / values.var()) == pytest.approx(1, abs=0.12)
    assert values.std() < 1.5 * sigma


def test_means_over_unlike_signals_lose_nine_tenths_of_the_floor():
    signal = np.exp(-np.linspace(0, 4, 40)) * 8
    magnitude = Rician(1.0).sample(np.broadcast_to(signal, (20000, 40)), np.random.default_rng(3))
    values, _ = without_floor(magnitude, np.array(1.0))
    assert abs(values.mean() - signal.mean()) < 0.1 * (magnitude.mean() - signal.mean())


def test_high_signals_lose_the_known_rise_and_holes_stay():
    values, variance = without_floor(np.array([50.0, np.nan]), np.array(2.0))
    assert values[0] == pytest.approx(50 - 2.0**2 / (2 * 50))
    assert variance[0] == pytest.approx(4, rel=0.03)
    assert np.isnan(values[1])
