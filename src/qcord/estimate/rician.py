"""Likelihood of Rician magnitudes, fast enough for every measurement of every voxel; unit of noise throughout."""

from functools import lru_cache

import numpy as np
from scipy import special

from qcord.core.arrays import FloatArray

_TURN = 3.0
_DEGREE = 7
_BEND = 2.25
_NORMAL = 60.0
_SNR = np.linspace(0.0, 12.0, 241)
_NODES = 80


def log_bessel(x: FloatArray) -> FloatArray:
    """Logarithm of I0(x), less x, for x >= 0, within 3e-6."""
    size = np.sqrt(x * x + _TURN**2)
    return np.asarray(_TURN**2 / (size + x) - np.log(size) / 2 + _horner(_log_coefficients(), 1 / size))


def bessel_ratio(x: FloatArray) -> FloatArray:
    """I1(x) / I0(x) for x >= 0, within 1e-5: the derivative of the logarithm of I0, as it is taken here.

    A magnitude m times this ratio at m S is the expected part of m along a signal S, which is all that the
    likelihood needs to know about m.
    """
    inverse = 1 / np.sqrt(x * x + _TURN**2)
    return np.asarray(x * inverse * (1 - inverse * (0.5 + inverse * _horner(_slope_coefficients(), inverse))))


def misfit(measured: FloatArray, signal: FloatArray) -> FloatArray:
    """Negative logarithm of the likelihood of each measurement, less what does not depend on the signal."""
    return np.asarray((measured - signal) ** 2 / 2 - log_bessel(measured * signal))


def information(snr: FloatArray) -> FloatArray:
    """Fisher information of one measurement about its signal, within 5e-5."""
    square = snr * snr
    return _horner(_information_coefficients(), square / (square + _BEND))


def skewness(snr: FloatArray) -> FloatArray:
    """E[l' l''] + E[l'''] / 2 of the logarithm of the likelihood, the noise's own part in the bias of an estimate.

    References
    ----------
    Cox and Snell 1968, doi:10.1111/j.2517-6161.1968.tb00724.x.
    """
    return np.interp(snr, _SNR, _skewness_table(), right=0.0)


def _horner(coefficients: FloatArray, x: FloatArray) -> FloatArray:
    result = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        result *= x
        result += c
    return result


@lru_cache(maxsize=1)
def _log_coefficients() -> FloatArray:
    """Power series in the inverse size; what is left of the logarithm is smooth in it from 0 to infinity."""
    inverse = (np.cos(np.pi * (np.arange(200) + 0.5) / 200) + 1) / (2 * _TURN)
    size = 1 / inverse
    x = np.sqrt(np.maximum(size**2 - _TURN**2, 0))
    rest = np.log(special.i0e(x)) - _TURN**2 / (size + x) + np.log(size) / 2
    return np.asarray(np.polynomial.Polynomial.fit(inverse, rest, _DEGREE).convert().coef)


@lru_cache(maxsize=1)
def _slope_coefficients() -> FloatArray:
    return np.asarray(np.polynomial.polynomial.polyder(_log_coefficients()))


@lru_cache(maxsize=1)
def _information_coefficients() -> FloatArray:
    part = (1 - np.cos(np.pi * np.arange(200) / 200)) / 2
    with np.errstate(divide="ignore"):
        snr = np.sqrt(_BEND * part / (1 - part))
    exact = np.ones(200)
    exact[snr < _NORMAL] = _expectations(snr[snr < _NORMAL])[0]
    return np.asarray(np.polynomial.Polynomial.fit(part, exact, 10).convert().coef)


@lru_cache(maxsize=1)
def _skewness_table() -> FloatArray:
    return _expectations(_SNR)[1]


def _expectations(snr: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Information, and what `skewness` gives, by quadrature over the magnitude, which is within 9 of the signal."""
    nodes, parts = np.polynomial.legendre.leggauss(_NODES)
    low, snr = np.maximum(snr - 9, 0)[:, None], snr[:, None]
    half = (snr + 9 - low) / 2
    m = low + half * (1 + nodes)
    z = np.maximum(m * snr, 1e-3)
    density = half * parts * m * np.exp(-((m - snr) ** 2) / 2) * special.ive(0, m * snr)
    ratio = special.ive(1, z) / special.ive(0, z)
    slope = 1 - ratio**2 - ratio / z
    bend = -2 * ratio * slope - slope / z + ratio / z**2
    first, second, third = m * ratio - snr, m**2 * slope - 1, m**3 * bend
    return (first**2 * density).sum(axis=1), ((first * second + third / 2) * density).sum(axis=1)
