"""Cramer-Rao bound: the least covariance that an unbiased estimator can reach."""

from collections.abc import Sequence

import numpy as np

from qcord.core.arrays import ArrayLike, FloatArray
from qcord.core.errors import NotIdentifiable
from qcord.core.model import SignalModel
from qcord.core.noise import Noise
from qcord.core.protocol import Protocol
from qcord.estimate.jacobian import jacobian
from qcord.estimate.simulate import checked_theta, given_values


def crlb(
    model: SignalModel,
    theta: ArrayLike,
    protocol: Protocol,
    noise: Noise,
    given: ArrayLike | None = None,
    *,
    fixed: Sequence[str] = (),
) -> FloatArray:
    """Cramer-Rao bound of the free parameters.

    Parameters
    ----------
    model : SignalModel
        The contrast.
    theta : (..., p) array
        True parameters.
    protocol : Protocol
        n measurements.
    noise : Gaussian or Rician
        Noise of the measurements.
    given : (..., g) array, optional
        Given parameters; their defaults otherwise.
    fixed : sequence of str
        Free parameters that are known; their variance is zero.

    Returns
    -------
    (..., p, p) array
        Covariance; NaN where the protocol does not determine that theta.

    Raises
    ------
    NotIdentifiable
        If the protocol determines none of the given thetas.
    """
    values = checked_theta(model, theta)
    signal = model.signal(values, protocol, given_values(model, given))
    slope = jacobian(model, values, protocol, given)
    known = [model.index(name) for name in fixed]
    free = [k for k in range(len(model.free)) if k not in known]
    covariance = np.zeros((*values.shape, values.shape[-1]))
    covariance[..., np.ix_(free, free)[0], np.ix_(free, free)[1]] = inverse_information(
        slope[..., free], noise.information(np.asarray(signal, dtype=float))
    )
    if not np.isfinite(covariance).all(axis=(-2, -1)).any():
        raise NotIdentifiable(
            f"The {len(protocol)} measurements of {protocol.source or 'the protocol'} do not determine the "
            f"{len(free)} parameters of model {model.name} ({', '.join(model.free[k].name for k in free)}); "
            "add measurements with other settings, or fix a parameter."
        )
    return covariance


def inverse_information(slope: FloatArray, information: FloatArray) -> FloatArray:
    """Inverse of the Fisher information of n independent measurements.

    Parameters
    ----------
    slope : (..., n, p) array
        Jacobian.
    information : (..., n) array
        Information of each measurement about its signal.

    Returns
    -------
    (..., p, p) array
        NaN where the information has no inverse.
    """
    fisher = np.matmul(np.swapaxes(slope * information[..., None], -1, -2), slope)
    size = np.sqrt(np.einsum("...ii->...i", fisher))
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = fisher / (size[..., :, None] * size[..., None, :])
    good = np.isfinite(scaled).all(axis=(-2, -1))
    scaled = np.where(good[..., None, None], scaled, np.eye(fisher.shape[-1]))
    values, vectors = np.linalg.eigh(scaled)
    good &= values[..., 0] > 1e-10 * values[..., -1]
    inner = np.where(good[..., None], values, np.nan)
    inverse = np.matmul(vectors / inner[..., None, :], np.swapaxes(vectors, -1, -2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(inverse / (size[..., :, None] * size[..., None, :]))
