"""Error propagation: standard error and bias of values computed from uncertain ones."""

from collections.abc import Callable

import numpy as np

from qcord.core.arrays import AnyArray, ArrayLike, FloatArray
from qcord.core.model import Derived
from qcord.estimate.jacobian import complex_step, gradient
from qcord.estimate.second_order import STEP as _STEP
from qcord.estimate.second_order import bends, errors, errors_of_root


def delta(
    derived: Derived | Callable[[AnyArray], AnyArray], theta: ArrayLike, covariance: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Value and standard error of a function of the parameters, by the delta method.

    Parameters
    ----------
    derived : Derived or callable
        From theta (..., p) to (...); analytic unless it brings its gradient.
    theta : (..., p) array
        Estimates.
    covariance : (..., p, p) array
        Their covariance.

    Returns
    -------
    value, std : (...) array
        In the unit of the function.
    """
    function = derived if isinstance(derived, Derived) else Derived("value", "1", derived)
    values = np.asarray(theta, dtype=float)
    slope = gradient(function, values)
    variance = np.einsum("...i,...ij,...j->...", slope, np.asarray(covariance, dtype=float), slope)
    return np.asarray(function.formula(values), dtype=float), np.sqrt(np.maximum(variance, 0))


def curvature_bias(
    derived: Derived | Callable[[AnyArray], AnyArray], theta: ArrayLike, covariance: ArrayLike
) -> FloatArray:
    """How much noise in theta raises the expectation of a function of it, to second order.

    Half the trace of second derivative times covariance, by second differences along the columns of a root
    of the covariance.

    Parameters
    ----------
    derived : Derived or callable
        From theta (..., p) to (...).
    theta : (..., p) array
        Estimates.
    covariance : (..., p, p) array
        Their covariance.

    Returns
    -------
    (...) array
        In the unit of the function.
    """
    formula = derived.formula if isinstance(derived, Derived) else derived
    return second_differences(formula, np.asarray(theta, dtype=float), root(covariance)) / 2


def derived_errors(
    derived: Derived, theta: FloatArray, slope: FloatArray, bend: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Value, standard error and bias of a function of estimates, to second order in the noise.

    Parameters
    ----------
    derived : Derived
        From theta (v, p) to (v,).
    theta : (v, p) array
        Estimates.
    slope, bend : (p, k, v), (p, k, k, v) array
        Their first and second derivatives along standard normal noise.

    Returns
    -------
    value, std, bias : (v,) array
        In the unit of the function; see `qcord.estimate.second_order.errors`. At an end of the function, where it has
        no derivative, the error is what steps of one standard error into its range change, and the bias is NaN.
    """
    value = np.asarray(derived.formula(theta), dtype=float)
    if derived.square is None:
        std, bias = errors(*along_noise(derived, theta, slope, bend))
        lost = np.flatnonzero(~np.isfinite(std) & np.isfinite(value) & np.isfinite(slope).all(axis=(0, 1)))
        if lost.size:
            std[lost] = _reach(derived, theta[lost], slope[..., lost], value[lost])
        return value, std, bias
    first, second = along_noise(Derived(derived.name, derived.unit, derived.square), theta, slope, bend)
    return (value, *errors_of_root(value, first, second))


def _reach(derived: Derived, theta: FloatArray, slope: FloatArray, value: FloatArray) -> FloatArray:
    """Root of the summed squares of what steps along noise change, the one of either sense that the function has."""
    steps = np.moveaxis(slope, (0, 1, 2), (2, 0, 1))
    with np.errstate(invalid="ignore"):
        moved = np.abs([[np.asarray(derived.formula(theta + s * step)) - value for step in steps] for s in (1, -1)])
    return np.asarray(np.sqrt((np.fmax(*moved) ** 2).sum(axis=0)))


def along_noise(
    derived: Derived, theta: FloatArray, slope: FloatArray, bend: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """First and second derivatives (k, v), (k, k, v) of a function of estimates; see `derived_errors`."""
    value = np.asarray(derived.formula(theta), dtype=float)
    by_theta = gradient(derived, theta)
    steps = np.moveaxis(slope, (0, 1, 2), (2, 0, 1))
    own = bends(lambda step: np.asarray(derived.formula(theta + step), dtype=float), value, steps)
    return np.einsum("vp,pkv->kv", by_theta, slope), own + np.einsum("vp,pjkv->jkv", by_theta, bend)


def root(covariance: ArrayLike) -> FloatArray:
    """Symmetric square root (..., p, p) of covariances; NaN where one is not finite."""
    matrix = np.asarray(covariance, dtype=float)
    good = np.isfinite(matrix).all(axis=(-2, -1))
    size = np.sqrt(np.maximum(np.einsum("...ii->...i", matrix), 0))
    scale = np.where(size > 0, size, 1)
    scaled = np.where(good[..., None, None], matrix / (scale[..., :, None] * scale[..., None, :]), 0)
    values, vectors = np.linalg.eigh(scaled)
    half = vectors * np.sqrt(np.maximum(values, 0))[..., None, :]
    return np.where(good[..., None, None], scale[..., :, None] * half, np.nan)


def second_differences(
    function: Callable[[AnyArray], AnyArray], theta: FloatArray, directions: FloatArray
) -> FloatArray:
    """Sum of second derivatives of a function of theta (..., p) along the columns of directions (..., p, k)."""
    middle = np.asarray(function(theta), dtype=float)
    total = np.zeros_like(middle)
    for k in range(directions.shape[-1]):
        step = _STEP * directions[..., k]
        total = total + (function(theta + step) - 2 * middle + function(theta - step)) / _STEP**2
    return total


def independent_errors(
    function: Callable[[AnyArray], AnyArray], inputs: FloatArray, sigma: FloatArray, *, rician: bool = True
) -> tuple[FloatArray, FloatArray]:
    """Standard error and bias of functions of independent measurements.

    Parameters
    ----------
    function : callable
        From inputs (k, ...) to values (m, ...); analytic.
    inputs : (k, ...) array
        Measurements.
    sigma : (k, ...) array
        Their standard deviations.
    rician : bool
        Whether the measurements are magnitudes, which noise raises by sigma^2 / (2 signal).

    Returns
    -------
    std, bias : (m, ...) array
        Delta method; half the second derivatives times the variances, plus the slopes times the rise.
    """

    def values(x: AnyArray) -> AnyArray:
        return np.moveaxis(function(np.moveaxis(x, -1, 0)), 0, -1)

    last, spread = np.moveaxis(inputs, 0, -1), np.moveaxis(np.asarray(sigma), 0, -1)
    slope = complex_step(values, last)
    std = np.sqrt(np.einsum("...mk,...k->...m", slope**2, spread**2))
    bias = second_differences(values, last, spread[..., None] * np.eye(len(inputs))) / 2
    if rician:
        bias = bias + np.einsum("...mk,...k->...m", slope, spread**2 / (2 * last))
    return np.moveaxis(std, -1, 0), np.moveaxis(bias, -1, 0)
