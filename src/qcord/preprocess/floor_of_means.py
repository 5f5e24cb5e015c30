"""Means of unlike magnitudes without their noise floor: for powder averages and other sums over directions."""

from functools import lru_cache

import numpy as np
from scipy import special

from qcord.core.arrays import FloatArray
from qcord.core.noise import Rician

_SPACING = 0.01
_HIGHEST = 7.0
"""Magnitude over sigma from which the floor is sigma^2 / (2 magnitude), to .001 sigma."""

_CAUTION = 0.01
"""Price of a unit of variance in units of squared error: a tenth of it lowers the error without signal from .35 to .26
sigma, at twice the noise."""


def without_floor(magnitudes: FloatArray, sigma: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Values whose mean over noise is the signal, and their variance.

    Single values say little: below 1.5 sigma they fall under zero, so that together with those that the noise has
    lifted they average to the signal. Inverting the expectation of the magnitude (`noise_floor.signal_of_mean`) is
    right for one mean over repeats of one signal; here each magnitude has a signal of its own.

    Parameters
    ----------
    magnitudes : array
        Rician magnitudes.
    sigma : array
        Standard deviation of each channel, same unit; broadcasts.

    Returns
    -------
    values, variance : array
        Mean error below .11 sigma for signals above .3 sigma, .35 sigma without signal (of the magnitudes: 1.25 sigma);
        the variance is at most 2.1 sigma^2.

    Notes
    -----
    The correction is a function of the magnitude over sigma alone: the one whose expectation comes closest, in least
    squares over signals from 0 to 9 sigma, to the rise of the expectation over the signal, with a small price on
    variance.

    References
    ----------
    Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618 (distribution, expectation).
    """
    floor, variance = _tables()
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = magnitudes / sigma
        place = np.clip(np.nan_to_num(ratio / _SPACING + 0.5), 0, len(floor) - 1).astype(np.int32)
        rise = np.where(ratio < _HIGHEST, floor[place], 0.5 / ratio)
        return magnitudes - rise * sigma, variance[place] * sigma**2


@lru_cache(maxsize=1)
def _tables() -> tuple[FloatArray, FloatArray]:
    """Correction, and variance of what it leaves, at unit sigma for magnitudes from 0 to `_HIGHEST`."""
    magnitude = np.arange(0, 15, _SPACING)
    signal = np.concatenate([np.linspace(0, 6, 121), np.linspace(6.2, 9, 15)])
    chance = magnitude * np.exp(-((magnitude - signal[:, None]) ** 2) / 2) * special.ive(0, magnitude * signal[:, None])
    chance /= chance.sum(axis=1, keepdims=True)
    knots = np.linspace(0, _HIGHEST, 27)
    base = 0.5 / np.maximum(magnitude, 1)
    hats = np.stack([np.interp(magnitude, knots, row) for row in np.eye(len(knots))[:-1]])
    seen = chance @ hats.T
    wanted = Rician(1.0).expectation(signal) - signal - chance @ base
    price = _CAUTION * np.einsum("sm,im,jm->ij", chance, hats, hats, optimize=True)
    pull = _CAUTION * np.einsum("sm,im,sm->i", chance, hats, magnitude - base - signal[:, None], optimize=True)
    height = np.linalg.solve(seen.T @ seen + price, seen.T @ wanted + pull)
    floor = base + height @ hats
    left = magnitude - floor
    variance = chance @ left**2 - (chance @ left) ** 2
    used = magnitude <= _HIGHEST
    return floor[used], np.interp(left, signal, variance)[used]
