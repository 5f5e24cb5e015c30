"""Signals that a model predicts, with or without noise."""

import numpy as np

from qcord.core.arrays import ArrayLike, FloatArray
from qcord.core.errors import ImplausibleValue
from qcord.core.model import SignalModel
from qcord.core.noise import Noise
from qcord.core.protocol import Protocol


def simulate(
    model: SignalModel,
    theta: ArrayLike,
    protocol: Protocol,
    noise: Noise | None = None,
    seed: int | np.random.Generator = 0,
    *,
    given: ArrayLike | None = None,
) -> FloatArray:
    """Simulate measurements.

    Parameters
    ----------
    model : SignalModel
        The contrast.
    theta : (..., p) array
        Free parameters, in the order and units of ``model.free``.
    protocol : Protocol
        n measurements.
    noise : Gaussian or Rician, optional
        Without it, signals are exact.
    seed : int or Generator
        Start of the random numbers.
    given : (..., g) array, optional
        Given parameters; their defaults otherwise.

    Returns
    -------
    (..., n) array
        Measurements.

    Raises
    ------
    MissingMetadata
        If a column that the model needs is absent.
    ImplausibleValue
        If theta does not hold the model's number of parameters.
    """
    values = checked_theta(model, theta)
    signal = np.asarray(model.signal(values, protocol, given_values(model, given)), dtype=float)
    return signal if noise is None else noise.sample(signal, np.random.default_rng(seed))


def checked_theta(model: SignalModel, theta: ArrayLike) -> FloatArray:
    """Parameters as an array (..., p) of floats.

    Raises
    ------
    ImplausibleValue
        If the last axis does not fit the model.
    """
    values = np.asarray(theta, dtype=float)
    if values.ndim == 0 or values.shape[-1] != len(model.free):
        names = ", ".join(p.name for p in model.free)
        raise ImplausibleValue(
            f"Parameters of shape {values.shape} were given to model {model.name}, expected a last axis of "
            f"{len(model.free)} ({names})."
        )
    return values


def given_values(model: SignalModel, given: ArrayLike | None) -> FloatArray:
    """Given parameters (..., g) as an array; their defaults if there are none.

    Raises
    ------
    ImplausibleValue
        If the last axis does not fit the model.
    """
    values = model.given_defaults() if given is None else np.asarray(given, dtype=float)
    if values.ndim == 0 or values.shape[-1] != len(model.given):
        names = ", ".join(p.name for p in model.given) or "none"
        raise ImplausibleValue(
            f"Given values of shape {values.shape} were passed to model {model.name}, expected a last axis of "
            f"{len(model.given)} ({names})."
        )
    return values
