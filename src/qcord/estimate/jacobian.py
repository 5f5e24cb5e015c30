"""Derivatives of signals and derived values by the complex step: exact to rounding, no step to choose."""

from collections.abc import Callable

import numpy as np

from qcord.core.arrays import AnyArray, ArrayLike, FloatArray
from qcord.core.model import Derived, SignalModel
from qcord.core.protocol import Protocol
from qcord.estimate.simulate import checked_theta, given_values

STEP = 1e-30
"""Imaginary step; its square vanishes beside one, and it is far from underflow."""


def jacobian(model: SignalModel, theta: ArrayLike, protocol: Protocol, given: ArrayLike | None = None) -> FloatArray:
    """Derivative of the signal with respect to the free parameters.

    Parameters
    ----------
    model : SignalModel
        The contrast.
    theta : (..., p) array
        Where to differentiate.
    protocol : Protocol
        n measurements.
    given : (..., g) array, optional
        Given parameters; their defaults otherwise.

    Returns
    -------
    (..., n, p) array
        Unit of the signal over unit of the parameter.

    References
    ----------
    Squire and Trapp 1998, doi:10.1137/S003614459631241X.
    """
    values = checked_theta(model, theta)
    known = given_values(model, given)
    return complex_step(lambda t: np.asarray(model.signal(t, protocol, known)), values)


def gradient(derived: Derived, theta: FloatArray) -> FloatArray:
    """Derivative (..., p) of a derived value: its own, else by the complex step."""
    if derived.gradient is not None:
        return np.asarray(derived.gradient(theta), dtype=float)
    return complex_step(lambda t: np.asarray(derived.formula(t)), theta)


def complex_step(function: Callable[[AnyArray], AnyArray], theta: FloatArray) -> FloatArray:
    """Derivative of an analytic function of theta (..., p); the parameters become the last axis."""
    columns = []
    for k in range(theta.shape[-1]):
        moved = theta.astype(complex)
        moved[..., k] += 1j * STEP
        columns.append(function(moved).imag / STEP)
    return np.stack(columns, axis=-1)
