"""Standard error and bias of estimates to second order in the noise.

An estimate is written as its value plus ``slope . z + z . bend . z / 2``, z being independent standard normal numbers.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray

STEP = 0.1
"""Step of second differences, in standard deviations: small against them, large against rounding."""

STEEPEST = 1.0
"""Relative change of a standard error over one standard error up to which intervals follow it: all of itself."""

STEEPEST_ROOT = 0.3
"""The same for roots: as a root nears zero its first-order error grows without limit, and is too large as it is."""

_FAR = 10.0
"""Standard errors above zero from which on the second order of a root does."""

_NOTHING = 1e-200
_LIMIT = 1.959963984540054
"""95 % of standard normal numbers are smaller in size."""


def errors(slope: FloatArray, bend: FloatArray, steepest: float = STEEPEST) -> tuple[FloatArray, FloatArray]:
    """Standard error and bias.

    Parameters
    ----------
    slope : (k, ...) array
        First derivatives along z.
    bend : (k, k, ...) array
        Second derivatives.
    steepest : float
        Relative change of a standard error over one standard error up to which intervals follow it, at most `STEEPEST`.

    Returns
    -------
    std, bias : (...) array
        Standard error for symmetric 95 % intervals about ``value - bias``, and the expected error of the value, at most
        half a first-order standard error.

    Notes
    -----
    Where the standard error goes with the estimate, the truth lies outside an interval more often on the side where the
    estimate claims too small an error. Intervals are made as wide as those of the exponential of a normal number, whose
    error changes as much, must be to hold it in 95 %; those of reciprocals, squares, cubes and inverse squares of
    normal numbers then hold it in 92 to 97 % up to a steepness of .8.

    A bias b by the second derivatives alone is stated as b / (1 + (b / first)^2), with the first-order standard error.
    That is the bias of the exponential of a normal number to fourth order in the noise; and it makes of the reciprocal
    of a normal number x of error s the corrected value x / (x^2 + s^2), which has a mean and a standard deviation where
    1 / x has none.
    """
    first = np.einsum("k...,k...->...", slope, slope)
    along = np.einsum("j...,jk...,k...->...", slope, bend, slope)
    size = np.where(first > _NOTHING, first, 1.0)
    std = np.sqrt(first)
    steepness = np.minimum(np.abs(along) / (size * np.sqrt(size)), steepest)
    bias = np.where(first > _NOTHING, np.einsum("kk...->...", bend) / 2, 0.0)
    return std * np.interp(steepness, *_widening()), _saturated(bias, size)


def _saturated(bias: FloatArray, variance: FloatArray) -> FloatArray:
    """Second-order bias with the higher orders that follow from it; see `errors`."""
    return np.asarray(bias / (1 + bias * bias / variance))


def errors_of_root(
    value: FloatArray, slope: FloatArray, bend: FloatArray, shift: FloatArray | float = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Standard error and bias of a root from the derivatives of its square.

    Parameters
    ----------
    value : (...) array
        The root; NaN where noise makes the square negative.
    slope : (k, ...) array
        First derivatives of the square along z.
    bend : (k, k, ...) array
        Its second derivatives.
    shift : (...) array or float
        Bias of the square on top of that of its second derivatives.

    Returns
    -------
    std, bias : (...) array
        As of `errors`, but that the bias is that of the root of a normal number, given that it has one: within about
        1.5 standard errors of zero those who have none are missed, and the second order has the wrong sign.
    """
    rooted = bend / (2 * value) - slope[:, None] * slope / (4 * value**3)
    std = errors(slope / (2 * value), rooted, STEEPEST_ROOT)[0]
    return std, root_bias(value, errors(slope, bend)[1] + shift, np.sqrt(np.einsum("k...,k...->...", slope, slope)))


def root_bias(value: FloatArray, bias: FloatArray, std: FloatArray) -> FloatArray:
    """Expected rise of a root (...) by noise, from the bias and standard error of its square: see `errors_of_root`."""
    size = np.where(std > _NOTHING, std, 1.0)
    square = value * value / size
    moved = square + np.where(std > _NOTHING, bias, 0.0) / size
    below = np.sqrt(size) * (np.interp(moved, *_mean_root()) - np.sqrt(square))
    far = np.maximum(moved, _FAR)
    above = np.sqrt(size) * (np.sqrt(far) - 1 / (8 * far**1.5) - np.sqrt(square))
    found = np.minimum(np.where(moved < _FAR, below, above), value)  # no root is negative
    return np.asarray(np.where(std > _NOTHING, found, np.where(np.isnan(value * std), np.nan, 0.0)))


@lru_cache(maxsize=1)
def _mean_root() -> tuple[FloatArray, FloatArray]:
    """Mean root of those normal numbers of standard deviation 1 that are positive, by their mean."""
    mean = np.linspace(-1.0, _FAR, 1101)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    top = np.sqrt(np.maximum(mean, 0) + 8)
    root = top * (1 + nodes[:, None]) / 2
    density = weights[:, None] * root * np.exp(-((root**2 - mean) ** 2) / 2)
    return mean, np.asarray((density * root).sum(axis=0) / density.sum(axis=0))


@lru_cache(maxsize=1)
def _widening() -> tuple[FloatArray, FloatArray]:
    """How much wider than the standard error says an interval about ``value - bias`` must be, by steepness.

    For the exponential of a normal number of standard deviation s, s is the steepness, and the factor solves
    P(|1 - bias - exp(-s z)| < 1.96 s factor) = .95.
    """
    from scipy import special

    n = 101
    steepness = np.linspace(0.0, STEEPEST, n)
    low, high = np.ones(n), np.full(n, 4.0)
    s = np.maximum(steepness, 1e-4)
    middle = 1 - _saturated(s**2 / 2, s**2)
    for _ in range(40):
        factor = (low + high) / 2
        reach = _LIMIT * factor * s
        upper = -np.log(np.maximum(middle - reach, 1e-300)) / s
        inside = special.ndtr(upper) - special.ndtr(-np.log(middle + reach) / s)
        low, high = np.where(inside < 0.95, factor, low), np.where(inside < 0.95, high, factor)
    return steepness, high


def bends(function: Callable[[AnyArray], AnyArray], middle: FloatArray, steps: FloatArray) -> FloatArray:
    """Second derivatives along pairs of steps, by central differences.

    Parameters
    ----------
    function : callable
        From a displacement, of the shape of one of the steps, to values (...).
    middle : (...) array
        Values without displacement.
    steps : (k, ...) array
        Displacements one standard deviation long, as z has.

    Returns
    -------
    (k, k, ...) array
        Second derivatives of the values.
    """

    def across(step: AnyArray) -> AnyArray:
        return (function(STEP * step) + function(-STEP * step) - 2 * middle) / STEP**2

    result = np.empty((len(steps), len(steps), *np.shape(middle)))
    for j, one in enumerate(steps):
        result[j, j] = across(one)
    for j, one in enumerate(steps):
        for k in range(j):
            result[j, k] = result[k, j] = (across(one + steps[k]) - result[j, j] - result[k, k]) / 2
    return result
