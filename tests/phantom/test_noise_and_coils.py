"""Noise of one coil channel or several, receive and transmit field, against formulas and moments."""

import numpy as np
import pytest
from scipy import stats

from qcord.core.noise import Rician
from qcord.phantom.body import make_body
from qcord.phantom.coil import receive_field
from qcord.phantom.noise import NoncentralChi, combined_noise
from qcord.phantom.spec import PhantomSpec
from qcord.phantom.transmit import steepest, transmit_field, wavenumber
from qcord.template import tables


@pytest.mark.parametrize(("signal", "channels"), [(0.0, 8), (3.0, 4), (15.0, 32), (2.0, 1)])
def test_sum_of_squares_is_noncentral_chi(signal, channels):
    """The square over the variance is a noncentral chi-square with two degrees of freedom a channel."""
    sigma = 1.7
    drawn = NoncentralChi(sigma, channels).sample(np.full(20_000, signal), np.random.default_rng(1))
    law = stats.ncx2(2 * channels, (signal / sigma) ** 2) if signal else stats.chi2(2 * channels)
    assert stats.kstest((drawn / sigma) ** 2, law.cdf).pvalue > 1e-3
    assert drawn.mean() == pytest.approx(NoncentralChi(sigma, channels).expectation(signal), rel=0.01)


def test_sum_of_squares_of_simulated_channels():
    """Complex images of channels with unequal sensitivities, added in square: an independent way."""
    generator = np.random.default_rng(2)
    sensitivity = generator.normal(size=6) + 1j * generator.normal(size=6)
    sensitivity /= np.sqrt((np.abs(sensitivity) ** 2).sum())
    noise = generator.normal(size=(2, 40_000, 6))
    channels = 4.0 * sensitivity + noise[0] + 1j * noise[1]
    squares = np.sqrt((np.abs(channels) ** 2).sum(axis=1))
    adaptive = np.abs((channels * sensitivity.conj()).sum(axis=1))
    generator = np.random.default_rng(3)
    for found, combination in ((squares, "sum-of-squares"), (adaptive, "adaptive")):
        drawn = combined_noise(1.0, 6, combination).sample(np.full(40_000, 4.0), generator)
        assert stats.ks_2samp(found, drawn).pvalue > 1e-3, combination


def test_one_channel_is_rician():
    assert isinstance(combined_noise(2.0, 1, "sum-of-squares"), Rician)
    assert NoncentralChi(2.0, 1).expectation(3.0) == pytest.approx(Rician(2.0).expectation(3.0))


def test_receive_field_is_one_at_c4_and_falls_away_from_the_coil():
    edges = tables.level_edges()
    middle = (edges[3] + edges[4]) / 2
    behind, at, front, below = receive_field(
        np.array([[0, -30, middle], [0, 0, middle], [0, 30, middle], [0, 0, middle - 120]])
    )
    assert at == pytest.approx(1.0)
    assert behind > at > front > 0
    assert below == pytest.approx(np.exp(-1), rel=1e-5)


def test_transmit_field_is_smooth_positive_and_as_strong_as_asked():
    points = np.stack(np.meshgrid(*[np.arange(-60.0, 61, 8)] * 3, indexing="ij"), axis=-1)
    logs = []
    for seed in range(40):
        field = transmit_field(points, 0.2, seed, mean=0.9)
        assert field.min() > 0
        logs.append(np.log(field / 0.9).ravel())
        close = transmit_field(points + np.array([0.1, 0, 0]), 0.2, seed, mean=0.9)
        assert np.abs(np.log(close / field)).max() < 0.1 * steepest(0.2)
    assert np.std(logs) == pytest.approx(0.2, rel=0.1)
    assert np.mean(logs) == pytest.approx(0, abs=0.05)


def test_uniform_transmit_field():
    body = make_body(PhantomSpec())
    points = body.place(np.zeros((5, 3)))
    np.testing.assert_array_equal(transmit_field(points, 0.0, 1), 1.0)
    np.testing.assert_array_equal(transmit_field(points, 0.0, 1, mean=1.05), 1.05)
    assert wavenumber(7.0) == pytest.approx(wavenumber(3.0) * 7 / 3)
