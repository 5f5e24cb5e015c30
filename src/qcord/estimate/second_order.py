"""Standard error and bias of estimates to second order in the noise.

An estimate is written as its value plus ``slope . z + z . bend . z / 2``, z being independent standard normal numbers.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray

STEP = 0.1
"""Step of second differences, in standard deviations: small against them, large against rounding."""

_STEEPEST = 0.3
"""Relative change of a standard error over one standard error up to which intervals follow it; by simulation, more adds
to the error of values far from normal and nothing to what it covers."""

_NOTHING = 1e-200
_LIMIT = 1.959963984540054
"""95 % of standard normal numbers are smaller in size."""


def errors(slope: FloatArray, bend: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Standard error and bias.

    Parameters
    ----------
    slope : (k, ...) array
        First derivatives along z.
    bend : (k, k, ...) array
        Second derivatives.

    Returns
    -------
    std, bias : (...) array
        Standard error for symmetric 95 % intervals about ``value - bias``, and the expected error of the value, at most
        one first-order standard error: where more follows, the expansion in powers of the noise has failed.

    Notes
    -----
    Where the standard error goes with the estimate, the truth lies outside an interval more often on the side where the
    estimate claims too small an error. Intervals are made as wide as those of the exponential of a normal number, whose
    error changes as much, must be to hold it in 95 %.
    """
    first = np.einsum("k...,k...->...", slope, slope)
    along = np.einsum("j...,jk...,k...->...", slope, bend, slope)
    size = np.where(first > _NOTHING, first, 1.0)
    std = np.sqrt(first)
    steepness = np.minimum(np.abs(along) / (size * np.sqrt(size)), _STEEPEST)
    bias = np.clip(np.einsum("kk...->...", bend) / 2, -std, std)
    return std * np.interp(steepness, *_widening()), bias


@lru_cache(maxsize=1)
def _widening() -> tuple[FloatArray, FloatArray]:
    """How much wider than the standard error says an interval about ``value - bias`` must be, by steepness.

    For the exponential of a normal number of standard deviation s, s is the steepness, and the factor solves
    P(|1 - s^2 / 2 - exp(-s z)| < 1.96 s factor) = .95.
    """
    from scipy import special

    steepness = np.linspace(0.0, _STEEPEST, 31)
    low, high = np.ones(31), np.full(31, 2.0)
    s, middle = np.maximum(steepness, 1e-3), 1 - steepness**2 / 2
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
