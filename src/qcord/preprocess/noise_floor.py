"""The floor of magnitude images: what the modulus does to mean and spread of the noise, and its inverse."""

from functools import lru_cache

import numpy as np

from qcord.core.arrays import ArrayLike, FloatArray
from qcord.core.image import Image, Step
from qcord.core.noise import Rician
from qcord.core.series import Series

REFERENCES = (
    "Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618",
    "Koay and Basser 2006, doi:10.1016/j.jmr.2006.01.016",
)

BISECTIONS = 8
"""Halvings of the interval from the spread to 1.53 times it, which leave .2 % of sigma."""

PER_UNIT = 512
"""Entries of the table of fractions in each unit of mean over sigma: they differ by less than .0015."""


def variance_fraction(mean_over_sigma: ArrayLike) -> FloatArray:
    """Variance of a Rician magnitude over sigma squared, from its mean over sigma (Koay's correction factor).

    Parameters
    ----------
    mean_over_sigma : array_like
        Expectation of the magnitude over the standard deviation of each channel; values below that of pure noise
        count as pure noise.

    Returns
    -------
    array
        Between .43 (no signal) and 1 (high signal), float32, to .001.
    """
    fraction = _fraction_table()
    ratio = np.asarray(mean_over_sigma)
    place = np.clip(ratio * PER_UNIT, 0, len(fraction) - 1).astype(np.int32)
    return np.asarray(fraction[place])


def signal_of_mean(mean: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Signal whose Rician magnitude has the given expectation; 0 at or below the floor.

    Parameters
    ----------
    mean : array_like
        Expectation of the magnitude, such as a denoised value or a mean of repeats.
    sigma : array_like
        Standard deviation of each channel; broadcasts against ``mean``.

    Returns
    -------
    array
        Unit of ``mean``.
    """
    expectation, _, snr = _table()
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.asarray(mean) / np.asarray(sigma)
        below = np.interp(ratio, expectation, snr) * sigma
        # Far above the floor the expectation exceeds the signal by sigma^2 / (2 S), beyond the end of the table.
        above = 0.5 * (np.asarray(mean) + np.sqrt(np.maximum(np.asarray(mean) ** 2 - 2 * np.asarray(sigma) ** 2, 0)))
    return np.asarray(np.where(ratio >= expectation[-1], above, below))


def remove_noise_floor(series: Series, sigma: Image) -> Series:
    """Subtract the expected floor from denoised magnitude data.

    Meant for data whose values are close to their expectation (denoised, or means of repeats): on single noisy
    magnitudes it is biased.

    Parameters
    ----------
    series : Series
        Denoised magnitudes, (x, y, z, n).
    sigma : Image
        Standard deviation of each channel, (x, y, z), unit of the signal; where it is NaN the data stay.

    Returns
    -------
    Series
        Same unit; values at or below the floor become 0.

    References
    ----------
    Koay and Basser 2006, doi:10.1016/j.jmr.2006.01.016.
    """
    data = series.data
    level = np.asarray(sigma.data, dtype=float)[..., None]
    corrected = signal_of_mean(data.astype(float), level)
    kept = np.where(np.isfinite(level), corrected, data).astype(np.float32)
    return Series(series.image.derive(kept, Step("remove_noise_floor", {}, REFERENCES)), series.protocol)


@lru_cache(maxsize=1)
def _table() -> tuple[FloatArray, FloatArray, FloatArray]:
    """Expectation, variance and signal at unit sigma, for signals from 0 to 30."""
    snr = np.concatenate([np.linspace(0, 8, 801), np.linspace(8.05, 30, 440)])
    mean = Rician(1.0).expectation(snr)
    return mean, 2 + snr**2 - mean**2, snr


@lru_cache(maxsize=1)
def _fraction_table() -> FloatArray:
    """Variance at unit sigma for evenly spaced expectations from 0 to 16, and 1 beyond (to .002)."""
    mean, variance, _ = _table()
    evenly = (np.arange(16 * PER_UNIT) + 0.5) / PER_UNIT
    return np.append(np.interp(evenly, mean, variance), 1.0).astype(np.float32)
