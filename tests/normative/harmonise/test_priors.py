"""How sites are drawn to their manufacturers."""

import numpy as np
import pytest

from qcord.normative.harmonise.priors import LOG_SCALES, locate, rescale


def test_sites_that_know_their_shift_keep_it_and_others_take_that_of_the_manufacturer():
    rng = np.random.default_rng(1)
    shift = np.concatenate([3 + 0.5 * rng.standard_normal((8, 4)), -2 + 0.5 * rng.standard_normal((6, 4))])
    variance = np.full(shift.shape, 1e-6)
    variance[0], shift[1] = 1e4, np.nan
    maker = np.repeat([0, 1], [8, 6])
    found = locate(shift, variance, maker, 2)
    np.testing.assert_allclose(found.shift[2:], shift[2:], atol=1e-3)
    np.testing.assert_allclose(found.shift[:2], np.stack([found.maker_shift[0]] * 2), atol=0.05)
    np.testing.assert_allclose(found.maker_shift[:, 0], [3, -2], atol=0.6)
    assert (found.shift_variance[:2] > 0.1).all()
    assert (found.shift_variance[2:] < 1e-5).all()


def test_spread_of_a_further_site_is_that_of_the_sites_and_of_their_mean():
    rng = np.random.default_rng(2)
    shift = 0.8 * rng.standard_normal((30, 20))
    found = locate(shift, np.full(shift.shape, 0.05), np.zeros(30, dtype=int), 1)
    mean = np.sum(found.new_weight * found.new_mean, axis=2)
    variance = np.sum(found.new_weight * (found.new_variance + found.new_mean**2), axis=2) - mean**2
    np.testing.assert_allclose(found.new_weight.sum(axis=2), 1, atol=1e-9)
    assert np.mean(variance) == pytest.approx((0.8**2 - 0.05) * (1 + 1 / 30), rel=0.12)


def test_a_single_site_of_a_manufacturer_keeps_its_shift():
    shift, variance = np.array([[1.0], [1.2], [0.8], [9.0]]), np.full((4, 1), 0.1)
    found = locate(shift, variance, np.array([0, 0, 0, 1]), 2)
    assert found.shift[3, 0] == pytest.approx(9.0, abs=1e-9)
    weight, new = found.new_weight[1, 0], found.new_variance[1, 0]
    assert weight @ new > 0.1


def scale_likelihood(log_scale, free, rng):
    """Log-likelihood of log scales given the mean square of ``free`` normal values."""
    square = np.exp(2 * log_scale) * rng.chisquare(free, log_scale.shape) / free
    return -free * LOG_SCALES - 0.5 * free * square[..., None] * np.exp(-2 * LOG_SCALES)


def test_scales_of_large_sites_are_their_own_and_those_of_silent_sites_that_of_the_manufacturer():
    rng = np.random.default_rng(3)
    true = np.repeat([0.4, -0.4], 6)[:, None] + 0.1 * rng.standard_normal((12, 5))
    likelihood = scale_likelihood(true, 400, rng)
    likelihood[0] = 0.0
    found = rescale(likelihood, np.repeat([0, 1], 6), 2)
    np.testing.assert_allclose(found.log_scale[1:], true[1:], atol=0.15)
    np.testing.assert_allclose(found.log_scale[0], found.maker_log_scale[0], atol=0.03)
    np.testing.assert_allclose(found.maker_log_scale[:, 0], [0.4, -0.4], atol=0.15)
    assert (found.log_scale_variance[0] > 2 * found.log_scale_variance[1]).all()


def test_errors_of_scales_cover_the_truth():
    rng = np.random.default_rng(4)
    inside = []
    for _ in range(10):
        maker = np.repeat([0, 1, 2], [4, 6, 20])
        true = 0.15 * rng.standard_normal((3, 5))[maker] + 0.15 * rng.standard_normal((30, 5))
        found = rescale(scale_likelihood(true, 5, rng), maker, 3)
        error = found.log_scale - true
        error = error - error.mean(axis=0)
        inside.append(np.abs(error) < 1.96 * np.sqrt(found.log_scale_variance))
    assert 0.92 <= np.mean(inside) <= 0.98
