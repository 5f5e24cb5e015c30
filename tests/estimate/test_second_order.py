"""Standard errors to second order: symmetric intervals hold the truth where estimates bend."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcord.core.model import Derived
from qcord.estimate.propagate import derived_errors
from qcord.estimate.second_order import bends, errors, errors_of_root, root_bias


@pytest.mark.parametrize("s", [0.05, 0.1, 0.2, 0.3, 0.5, 0.8])
def test_intervals_of_an_exponential_hold_the_truth(s):
    value = np.exp(s * np.random.default_rng(1).normal(size=200_000))
    std, bias = errors(s * value[None], s**2 * value[None, None])
    assert np.mean(np.abs(value - bias - 1) < 1.96 * std) == pytest.approx(0.95, abs=0.003)
    assert np.mean(value - bias) == pytest.approx(1.0, abs=0.02 * s)


@pytest.mark.parametrize("power", [-2, -1, 2, 3])
@pytest.mark.parametrize("steepness", [0.1, 0.3, 0.5, 0.8])
def test_intervals_of_powers_hold_the_truth(power, steepness):
    s = steepness * power / (power - 1)
    x = 1 + s / power * np.random.default_rng(3).normal(size=200_000)
    value, step = x**power, s / power
    slope, bend = power * x ** (power - 1) * step, power * (power - 1) * x ** (power - 2) * step**2
    std, bias = errors(slope[None], bend[None, None])
    assert 0.92 < np.mean(np.abs(value - bias - 1) < 1.96 * std) < 0.97


def test_corrected_reciprocal_has_a_spread_where_the_reciprocal_has_none():
    """A normal number four standard errors from zero passes close by it now and then."""
    s = 0.25
    x = 1 + s * np.random.default_rng(4).normal(size=200_000)
    _, bias = errors((-s / x**2)[None], (2 * s**2 / x**3)[None, None])
    corrected = 1 / x - bias
    np.testing.assert_allclose(corrected, x / (x**2 + s**2), rtol=1e-9)
    assert np.std(1 / x) > 2 * s
    assert 0.9 * s < np.std(corrected) < 1.15 * s
    assert abs(np.mean(corrected) - 1) < 0.2 * s


def test_intervals_of_a_product_hold_the_truth():
    x, y = np.random.default_rng(2).normal([[1.0], [2.0]], [[0.2], [0.5]], (2, 200_000))
    slope = np.stack([0.2 * y, 0.5 * x])
    bend = np.zeros((2, 2, x.size))
    bend[0, 1] = bend[1, 0] = 0.1
    std, bias = errors(slope, bend)
    assert np.mean(np.abs(x * y - bias - 2) < 1.96 * std) == pytest.approx(0.95, abs=0.01)
    first = np.mean(np.abs(x * y - 2) < 1.96 * np.sqrt((slope**2).sum(axis=0)))
    assert first < np.mean(np.abs(x * y - bias - 2) < 1.96 * std)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3), st.floats(0.1, 10), st.floats(-3, 3))
def test_errors_scale_with_the_unit_and_never_fall_below_first_order(slope, factor, curve):
    slope, bend = np.array(slope)[:, None], curve * np.outer([1, -2, 0.5], [1, -2, 0.5])[:, :, None]
    std, bias = errors(slope, bend)
    scaled = errors(factor * slope, factor * bend)
    np.testing.assert_allclose(scaled[0], factor * std, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(scaled[1], factor * bias, rtol=1e-6, atol=1e-9)
    first = np.sqrt((slope**2).sum(axis=0))
    assert (std >= first * (1 - 1e-9)).all()
    assert (std <= 2.4 * first + 1e-9).all()
    assert (np.abs(bias) <= first / 2 * (1 + 1e-9)).all()


def test_nothing_that_moves_has_no_error():
    std, bias = errors(np.zeros((2, 1)), np.zeros((2, 2, 1)))
    assert std == 0
    assert bias == 0


def test_second_differences_are_those_of_a_known_function():
    theta = np.array([[1.0, 2.0], [0.5, -1.0]])
    steps = np.stack([np.broadcast_to([0.1, 0.0], (2, 2)), np.broadcast_to([0.2, 0.3], (2, 2))])
    second = np.array([[[2, 0.0], [0, 0]], [[0, 3.0], [3, 0]]]).sum(axis=0)

    def formula(t):
        return t[..., 0] ** 2 + 3 * t[..., 0] * t[..., 1]

    found = bends(lambda step: formula(theta + step), formula(theta), steps)
    expected = np.einsum("jvi,ik,lvk->jlv", steps, second, steps)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_derived_values_take_the_bend_of_the_estimates_along():
    """The square of an estimate that is itself the root of a normal number has no bend at all."""
    root, s = np.array([[1.3], [2.0]]), 0.1
    slope = (s / (2 * root)).T[:, None, :]
    bend = (-(s**2) / (4 * root**3)).T[:, None, None, :]
    square = Derived("square", "1", lambda t: t[..., 0] ** 2)
    value, std, bias = derived_errors(square, root, slope, bend)
    np.testing.assert_allclose(value, root[:, 0] ** 2)
    np.testing.assert_allclose(std, s, rtol=1e-6)
    np.testing.assert_allclose(bias, 0, atol=1e-9)


@pytest.mark.parametrize("square", [0.5, 1.0, 2.0, 4.0, 9.0, 30.0])
def test_corrected_root_is_right_on_average_however_close_to_zero(square):
    """Of those normal numbers that have a root; their second order would be off by up to 1.8 standard deviations."""
    drawn = square + np.random.default_rng(5).normal(size=200_000)
    value = 3 * np.sqrt(drawn[drawn > 0])
    slope, bend = np.full((1, value.size), 9.0), np.zeros((1, 1, value.size))
    std, bias = errors_of_root(value, slope, bend)
    corrected = value - bias
    assert corrected.min() >= 0
    assert abs(corrected.mean() - 3 * np.sqrt(square)) < 0.25 * corrected.std()
    assert 0.9 < np.mean(np.abs(corrected - 3 * np.sqrt(square)) <= 1.96 * std) < 0.97


def test_root_far_from_zero_is_that_of_the_second_order():
    value, s = np.array([1.0, 2.0, 3.0]), np.array([0.05, 0.2, 0.3])
    direct = errors(s[None] / (2 * value), -(s**2)[None, None] / (4 * value**3))
    np.testing.assert_allclose(errors_of_root(value, s[None], np.zeros((1, 1, 3))), direct, rtol=0.01)
    shifted = root_bias(value, np.full(3, 1e-3), s) - root_bias(value, np.zeros(3), s)
    np.testing.assert_allclose(shifted, 1e-3 / (2 * value), rtol=0.02)
    assert root_bias(np.array([2.0]), np.zeros(1), np.zeros(1)).tolist() == [0.0]
    assert np.isnan(root_bias(np.array([np.nan, 1.0]), np.zeros(2), np.array([1.0, np.nan]))).all()


def test_roots_have_errors_where_differences_step_over_zero():
    theta = np.array([[0.01], [4.0]])
    slope, bend = np.full((1, 1, 2), 0.3), np.zeros((1, 1, 1, 2))
    plain = Derived("x", "1", lambda t: np.sqrt(t[..., 0]))
    rooted = Derived("x", "1", lambda t: np.sqrt(t[..., 0]), square=lambda t: t[..., 0])
    with np.errstate(invalid="ignore"):
        without, with_square = derived_errors(plain, theta, slope, bend), derived_errors(rooted, theta, slope, bend)
    assert np.isnan(without[2][0])  # the plain root has no bias there
    assert np.isfinite(with_square).all()
    np.testing.assert_allclose([row[1] for row in with_square], [row[1] for row in without], rtol=0.01)


def test_a_value_at_the_end_of_its_range_keeps_an_error_from_steps_into_it():
    angle = Derived("angle", "deg", lambda theta: 180 / np.pi * np.arcsin(np.sqrt(theta[..., 0])))
    theta = np.array([[1.0], [0.9995], [0.5]])
    slope, bend = np.full((1, 1, 3), 0.04), np.zeros((1, 1, 1, 3))
    with np.errstate(all="ignore"):
        value, std, bias = derived_errors(angle, theta, slope, bend)
    assert value[0] == 90.0
    assert std[0] == pytest.approx(90 - np.rad2deg(np.arcsin(np.sqrt(0.96))))
    assert std[1] > 8.0
    assert np.isnan(bias[0])
    assert std[2] == pytest.approx(np.rad2deg(0.04), rel=0.01)
    assert np.isfinite(bias[2])
