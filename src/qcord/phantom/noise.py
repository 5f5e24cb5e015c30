"""Noise of magnitude images from one coil channel or several."""

from dataclasses import dataclass

import numpy as np
from scipy import special

from qcord.core.arrays import FloatArray
from qcord.core.noise import Rician

COMBINATIONS = ("adaptive", "sum-of-squares")
"""How the channels of a coil become one image."""


@dataclass(frozen=True)
class NoncentralChi:
    """Noise of the root sum of squares of several channels.

    Parameters
    ----------
    sigma : float or array
        Standard deviation of each Gaussian channel.
    channels : int
        Number of complex channels; 1 is the Rician case.

    References
    ----------
    Constantinides, Atalar and McVeigh 1997, doi:10.1002/mrm.1910380524 (distribution, expectation).
    """

    sigma: float | FloatArray
    channels: int

    def sample(self, signal: FloatArray, generator: np.random.Generator) -> FloatArray:
        """One noisy draw.

        Only the part of the noise along the vector of channel signals adds to them; the other 2 L - 1 parts add a
        chi-squared number.
        """
        along = signal + self.sigma * generator.standard_normal(np.shape(signal))
        across = 2 * generator.standard_gamma(self.channels - 0.5, np.shape(signal))
        return np.asarray(np.sqrt(along**2 + np.asarray(self.sigma) ** 2 * across))

    def expectation(self, signal: FloatArray) -> FloatArray:
        """Mean of the noisy signal."""
        half = -0.5 * (np.asarray(signal, dtype=float) / np.asarray(self.sigma)) ** 2
        first = np.sqrt(2) * special.gamma(self.channels + 0.5) / special.gamma(self.channels)
        return np.asarray(self.sigma * first * special.hyp1f1(-0.5, self.channels, half))


def combined_noise(sigma: float, channels: int, combination: str) -> Rician | NoncentralChi:
    """Noise of the image that a coil with several channels gives.

    Parameters
    ----------
    sigma : float
        Standard deviation of each Gaussian channel, the same and uncorrelated in all.
    channels : int
        Number of channels.
    combination : str
        ``adaptive``: channels are weighted with their sensitivities and added before the magnitude is taken, which
        leaves the noise of a single channel; ``sum-of-squares``: magnitudes are added in square.

    References
    ----------
    Roemer et al. 1990, doi:10.1002/mrm.1910160203 (both combinations).
    """
    if channels > 1 and combination == "sum-of-squares":
        return NoncentralChi(sigma, channels)
    return Rician(sigma)
