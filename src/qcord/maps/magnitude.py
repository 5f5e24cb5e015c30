"""Magnitudes in least squares: what to compare with the signal, and how much it counts, near the noise floor."""

from functools import lru_cache

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.noise import Rician

REFERENCES = (
    "Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618",
    "Wedderburn 1974, doi:10.1093/biomet/61.3.439",
)

_PER_UNIT = 32
_END = 16
"""Signal over noise from which the floor is that of its series, to 1e-5 sigma."""


def restored(measured: FloatArray, signal: FloatArray, sigma: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Turn magnitudes into values whose weighted residuals about the signal have mean zero.

    A least-squares step with the returned values and weights is a step of Fisher scoring of the quasi-likelihood, in
    which the magnitude has the expectation and variance of the Rice distribution: it takes the noise floor out and
    lets a measurement count for less the more of it is floor.

    Parameters
    ----------
    measured : (...) array
        Magnitudes.
    signal : (...) array
        Signed signal at the present estimate.
    sigma : (...) array
        Standard deviation of each channel; broadcasts.

    Returns
    -------
    value : (...) array
        With the sign of ``signal``.
    weight : (...) array
        Information about the signal, one over its square.

    References
    ----------
    Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618 (moments of the Rice distribution);
    Wedderburn 1974, doi:10.1093/biomet/61.3.439 (quasi-likelihood).
    """
    size = np.abs(signal)
    snr = size / sigma
    excess, per_slope, weight = _looked_up(snr)
    value = size + (measured - size - excess * sigma) * per_slope
    return np.where(signal < 0, -value, value), weight / sigma**2


def _looked_up(snr: FloatArray) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Rise of the expectation, one over its slope, and information, at unit sigma."""
    table = _table()
    place = np.clip(np.nan_to_num(snr), 0, _END) * _PER_UNIT
    cell = np.minimum(place.astype(np.int32), _END * _PER_UNIT - 1)
    part = place - cell
    low, high = table[:, cell], table[:, cell + 1]
    excess, per_slope, weight = low + part * (high - low)
    with np.errstate(divide="ignore", over="ignore"):
        beyond = snr > _END
        inverse = 1 / np.maximum(snr, 1.0)
        square = inverse**2
        excess = np.where(beyond, inverse / 2 + inverse**3 / 8, excess)
        per_slope = np.where(beyond, 1 + square / 2, per_slope)
        weight = np.where(beyond, 1 - square / 2, weight)
    return excess, per_slope, weight


@lru_cache(maxsize=1)
def _table() -> FloatArray:
    """Columns of `_looked_up` for evenly spaced signals up to `_END`; a slope of less than .02 counts as that."""
    snr = np.arange(_END * _PER_UNIT + 1) / _PER_UNIT
    noise = Rician(1.0)
    mean, slope = noise.expectation(snr), noise.expectation_slope(snr)
    variance = 2 + snr**2 - mean**2
    return np.stack([mean - snr, 1 / np.maximum(slope, 0.02), slope**2 / variance])
