"""Noise of magnitude and complex images: samples, expectation, information."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from qcord.core.arrays import FloatArray

_SNR_TABLE = np.concatenate([np.linspace(0.0, 12.0, 481), [1e6]])
_NODES = 80


@dataclass(frozen=True)
class Gaussian:
    """Additive normal noise: complex data, or magnitude data far above the floor.

    Parameters
    ----------
    sigma : float or array
        Standard deviation, unit of the signal; broadcasts against it.
    """

    sigma: float | FloatArray

    def sample(self, signal: FloatArray, generator: np.random.Generator) -> FloatArray:
        """One noisy draw."""
        return np.asarray(signal + self.sigma * generator.standard_normal(np.shape(signal)))

    def expectation(self, signal: FloatArray) -> FloatArray:
        """Mean of the noisy signal."""
        return np.asarray(signal, dtype=float)

    def information(self, signal: FloatArray) -> FloatArray:
        """Fisher information of one measurement about its signal."""
        return np.asarray(np.ones(np.shape(signal)) / np.asarray(self.sigma) ** 2)


@dataclass(frozen=True)
class Rician:
    """Noise of a single-channel magnitude image.

    Parameters
    ----------
    sigma : float or array
        Standard deviation of each of the two Gaussian channels.

    References
    ----------
    Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618 (distribution, expectation).
    Karlsen, Verhagen and Bovee 1999, doi:10.1002/(SICI)1522-2594(199903)41:3<614::AID-MRM26>3.0.CO;2-1
    (information).
    """

    sigma: float | FloatArray

    def sample(self, signal: FloatArray, generator: np.random.Generator) -> FloatArray:
        """One noisy draw."""
        real = signal + self.sigma * generator.standard_normal(np.shape(signal))
        imaginary = self.sigma * generator.standard_normal(np.shape(signal))
        return np.asarray(np.hypot(real, imaginary))

    def expectation(self, signal: FloatArray) -> FloatArray:
        """Mean of the noisy signal."""
        return np.asarray(np.asarray(self.sigma) * _mean_and_slope(self._ratio(signal))[0])

    def expectation_slope(self, signal: FloatArray) -> FloatArray:
        """Derivative of the mean of the noisy signal with respect to the signal."""
        return _mean_and_slope(self._ratio(signal))[1]

    def variance(self, signal: FloatArray) -> FloatArray:
        """Variance of the noisy signal."""
        ratio = self._ratio(signal)
        excess = _mean_and_slope(ratio)[0] - ratio
        return np.asarray(np.asarray(self.sigma) ** 2 * (2 - excess * (excess + 2 * ratio)))

    def _ratio(self, signal: FloatArray) -> FloatArray:
        return np.asarray(np.asarray(signal, dtype=float) / np.asarray(self.sigma))

    def information(self, signal: FloatArray) -> FloatArray:
        """Fisher information of one measurement about its signal."""
        sigma = np.asarray(self.sigma, dtype=float)
        snr = np.abs(np.asarray(signal, dtype=float)) / sigma
        return np.asarray(np.interp(snr, _SNR_TABLE, _rician_information_table()) / sigma**2)


Noise = Gaussian | Rician

_FAR = 16.0
"""Signal-to-noise ratio from which the mean of a magnitude is taken from its series; the error is below 1e-9."""


def _mean_and_slope(ratio: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean of a Rician magnitude of unit noise, and its derivative, at a signal of ``ratio``; even and odd in it."""
    from scipy import special  # on use: it takes as long to load as a fit, and most fits need none of it

    size = np.abs(np.atleast_1d(ratio))
    far = np.maximum(size, _FAR)
    u = 1 / far**2
    mean = size + (0.5 + u * (0.125 + u * (0.1875 + u * 0.5859375))) / far
    slope = 1 - u * (0.5 + u * (0.375 + u * (0.9375 + u * 4.1015625)))
    near = size < _FAR
    if near.any():
        x = size[near] ** 2 / 4
        first, second = special.i0e(x), special.i1e(x)
        mean[near] = np.sqrt(np.pi / 2) * ((1 + 2 * x) * first + 2 * x * second)
        slope[near] = np.sqrt(np.pi / 8) * size[near] * (first + second)
    return mean.reshape(ratio.shape), np.copysign(slope.reshape(ratio.shape), ratio)


@lru_cache(maxsize=1)
def _rician_information_table() -> FloatArray:
    """Information at unit sigma: E[(m I1/I0)^2] - snr^2, by quadrature over m."""
    from scipy import special

    nodes, parts = np.polynomial.legendre.leggauss(_NODES)
    snr = _SNR_TABLE[:-1, None]
    low = np.maximum(snr - 9, 0)
    half = (snr + 9 - low) / 2
    m = low + half * (1 + nodes)
    density = half * parts * m * np.exp(-((m - snr) ** 2) / 2) * special.ive(0, m * snr)
    ratio = special.ive(1, m * snr) / special.ive(0, m * snr)
    return np.append(((m * ratio) ** 2 * density).sum(axis=1) - _SNR_TABLE[:-1] ** 2, 1.0)
