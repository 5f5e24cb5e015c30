import numpy as np
import pytest
from scipy.optimize import lsq_linear
from scipy.stats import chi2

from qcord.estimate.near_bounds import NEAR, bounded_ratio


def one(low, high, covariance=1.0):
    limits = tuple(np.array([[x]]) * np.sqrt(covariance) for x in (low, high))
    return bounded_ratio(np.full((1, 1, 1), covariance), np.ones((1, 1)), limits, 0.05)[0]


def test_bounds_far_away_change_nothing():
    assert one(-NEAR - 0.1, np.inf) == 1
    assert one(-np.inf, np.inf, covariance=1e-8) == 1


@pytest.mark.parametrize(("low", "high"), [(-0.5, 1.0), (0.0, np.inf), (-1.5, np.inf), (-1.0, 2.0)])
def test_one_parameter_between_bounds_has_the_quantile_of_its_clipped_estimate(low, high):
    x = np.random.default_rng(0).standard_normal(400_000)
    ratio = x**2 - (x - np.clip(x, low, high)) ** 2
    expected = np.quantile(ratio, 0.95) / chi2.ppf(0.95, 1)
    assert one(low, high, covariance=4.0) == pytest.approx(expected, abs=0.05)


def test_correlated_parameters_meet_a_bounded_least_squares_solver():
    covariance = np.array([[1.0, 0.8, -0.3], [0.8, 2.0, 0.1], [-0.3, 0.1, 0.5]])
    low, high = np.array([-0.4, -np.inf, -2.0]), np.array([1.5, 0.6, np.inf])
    root = np.linalg.cholesky(np.linalg.inv(covariance)).T
    generator = np.random.default_rng(1)
    ratios = []
    for _ in range(3000):
        noise = generator.standard_normal(3)
        free = lsq_linear(root, noise, (low, high), tol=1e-12).cost
        held = lsq_linear(root[:, 1:], noise, (low[1:], high[1:]), tol=1e-12).cost
        ratios.append(2 * (held - free))
    expected = np.quantile(ratios, 0.95) / chi2.ppf(0.95, 1)
    slope = np.array([1.0, 0, 0])[:, None]
    found = bounded_ratio(covariance[:, :, None], slope, (low[:, None], high[:, None]), 0.05)
    assert found[0] == pytest.approx(expected, abs=0.08)


def test_a_covariance_that_is_not_known_has_no_effect():
    found = bounded_ratio(np.full((1, 1, 1), np.nan), np.ones((1, 1)), (np.zeros((1, 1)), np.ones((1, 1))), 0.05)
    assert found[0] == 1


def test_the_scale_of_parameters_does_not_matter():
    covariance = np.array([[1.0, 0.5], [0.5, 1.0]])[:, :, None]
    limits = (np.array([[-0.5], [-1.0]]), np.array([[2.0], [np.inf]]))
    plain = bounded_ratio(covariance, np.ones((2, 1)), limits, 0.05)
    size = np.array([1e-6, 1e4])
    scaled = bounded_ratio(
        covariance * (size[:, None] * size)[:, :, None],
        np.ones((2, 1)) / size[:, None],
        tuple(x * size[:, None] for x in limits),
        0.05,
    )
    np.testing.assert_allclose(scaled, plain, rtol=1e-6)
