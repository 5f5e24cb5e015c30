"""Likelihood of the NODDI model for many voxels at once: value, gradient, information, and noise bias.

Signals are in units of their noise, so that normal and Rician noise need no level.
"""

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.estimate import rician
from qcord.estimate.voxelwise import multiply
from qcord.maps.noddi_signal import ODI, PARAMETERS, Design, bent, moments_of, slopes, terms, turning

ROWS = 31
"""Of what `evaluate` gives."""

_CELLS = 32_768
"""Measurements of a shell that are worked on at once."""


def evaluate(design: Design, measured: FloatArray, state: FloatArray, *, magnitude: bool) -> FloatArray:
    """Misfit, gradient and information.

    Parameters
    ----------
    design : Design
        From `prepare`.
    measured : (n, v) array
        Measurements, in units of their noise.
    state : (7, v) array
        Where.
    magnitude : bool
        Whether the noise is Rician; else it is normal.

    Returns
    -------
    (31, v) array
        Negative log-likelihood; its six downward slopes; the lower triangle of the information; and what the residuals
        add to the second derivatives by the two turns (first, mixed, second).
    """
    result = np.empty((ROWS, state.shape[1]))
    for part in _tiles(design, state):
        result[:, part] = _evaluate(design.take(part), measured[:, part], state[:, part], magnitude)
    return result


def _evaluate(design: Design, measured: FloatArray, state: FloatArray, magnitude: bool) -> FloatArray:
    moments = moments_of(state[ODI], design.series.shape[1])
    result = np.zeros((ROWS, state.shape[1]))
    for shell in design.shells:
        parts = terms(design, shell, state, moments)
        signal, slope = slopes(parts, state)
        m = measured[shell.rows]
        weighted: FloatArray = slope
        if magnitude:
            result[0] += rician.misfit(m, signal).sum(axis=0)
            pull = m * rician.bessel_ratio(m * signal) - signal
            weighted = np.asarray(slope * rician.information(signal))
        else:
            pull = m - signal
            result[0] += np.einsum("rv,rv->v", pull, pull) / 2
        result[1:7] += np.einsum("rv,irv->iv", pull, slope)
        place = 7
        for i in range(PARAMETERS):
            result[place : place + i + 1] += np.einsum("rv,jrv->jv", weighted[i], slope[: i + 1])
            place += i + 1
        curve, back = turning(parts, state)
        curve *= pull
        first, second = parts.turns
        bend = np.einsum("rv,rv->v", pull, back)
        result[place] -= np.einsum("rv,rv,rv->v", curve, first, first) + bend
        result[place + 1] -= np.einsum("rv,rv,rv->v", curve, first, second)
        result[place + 2] -= np.einsum("rv,rv,rv->v", curve, second, second) + bend
    return result


def noise_bias(
    design: Design, state: FloatArray, covariance: FloatArray, *, magnitude: bool
) -> tuple[FloatArray, FloatArray]:
    """Bias of the maximum of the likelihood, to second order in the noise, and signals there.

    Parameters
    ----------
    design : Design
        From `prepare`.
    state : (7, v) array
        Estimates, in units of the noise.
    covariance : (6, 6, v) array
        Their covariance.
    magnitude : bool
        Whether the noise is Rician; else it is normal.

    Returns
    -------
    bias : (6, v) array
        Expected error of the estimates.
    signal : (n, v) array
        Signals, in units of their noise.

    References
    ----------
    Cox and Snell 1968, doi:10.1111/j.2517-6161.1968.tb00724.x.
    """
    total = np.empty((PARAMETERS, state.shape[1]))
    signal = np.empty((sum(len(shell.rows) for shell in design.shells), state.shape[1]))
    for part in _tiles(design, state):
        total[:, part] = _excess(
            design.take(part), state[:, part], covariance[:, :, part], signal[:, part], magnitude=magnitude
        )
    return multiply(covariance, total), signal


def _excess(
    design: Design, state: FloatArray, covariance: FloatArray, signals: FloatArray, *, magnitude: bool
) -> FloatArray:
    """Expected downward slope of the misfit that the noise bias makes good (6, v); fills ``signals`` (n, v)."""
    moments = moments_of(state[ODI], design.series.shape[1])
    total = np.zeros((PARAMETERS, state.shape[1]))
    for shell in design.shells:
        parts = terms(design, shell, state, moments)
        signal, slope = slopes(parts, state)
        signals[shell.rows] = signal
        excess = -0.5 * bent(parts, state, slope, covariance)
        if magnitude:
            excess *= rician.information(signal)
            excess += rician.skewness(signal) * np.einsum("irv,ijv,jrv->rv", slope, covariance, slope, optimize=True)
        total += np.einsum("rv,irv->iv", excess, slope)
    return total


def expected(design: Design, state: FloatArray) -> FloatArray:
    """Signals (n, v), in units of their noise."""
    n = sum(len(shell.rows) for shell in design.shells)
    signal = np.empty((n, state.shape[1]))
    for part in _tiles(design, state):
        chosen, here = design.take(part), state[:, part]
        moments = moments_of(here[ODI], design.series.shape[1])
        for shell in chosen.shells:
            signal[shell.rows, part] = slopes(terms(chosen, shell, here, moments), here)[0]
    return signal


def _tiles(design: Design, state: FloatArray) -> list[slice]:
    """Voxels whose arrays stay in the cache together."""
    size = max(256, _CELLS // max(len(shell.rows) for shell in design.shells))
    return [slice(first, first + size) for first in range(0, state.shape[1], size)]
