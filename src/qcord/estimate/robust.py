"""Weights that outliers lose, and what is left out at last."""

import numpy as np

from qcord.core.arrays import BoolArray, FloatArray

BIWEIGHT = 4.685
"""Constant of Tukey's biweight, in standard deviations, that keeps 95 % of the efficiency on normal noise."""

REJECT = 3.0
"""Residuals beyond this many standard deviations are outliers (.3 % of normal ones)."""

MANY = 1 / 3
"""Fraction of rejected measurements from which a voxel is flagged."""


def robust_weights(relative: FloatArray, n_free: int, *, known_noise: bool) -> FloatArray:
    """Biweight of residuals.

    Parameters
    ----------
    relative : (n, v) array
        Residuals; over their standard deviation if that is known.
    n_free : int
        Number of fitted parameters.
    known_noise : bool
        Whether the standard deviation is 1; a spread below it is then not believed.

    Returns
    -------
    (n, v) array
        From 0 to 1.

    References
    ----------
    Beaton and Tukey 1974, doi:10.1080/00401706.1974.10489171.
    """
    ratio = relative / (BIWEIGHT * _spread(relative, n_free, known_noise))
    return np.asarray(np.maximum(1 - ratio**2, 0) ** 2)


def kept(relative: FloatArray, n_free: int, *, known_noise: bool) -> BoolArray:
    """Whether each measurement (n, v) agrees with a robust fit."""
    return np.asarray(np.abs(relative) <= REJECT * _spread(relative, n_free, known_noise))


def _spread(relative: FloatArray, n_free: int, known_noise: bool) -> FloatArray:
    """Standard deviation (v,) that outliers do not raise."""
    n = len(relative)
    spread = 1.4826 * np.sqrt(n / max(n - n_free, 1)) * np.median(np.abs(relative), axis=0)
    least = 1.0 if known_noise else 1e-12 * np.abs(relative).max(axis=0)
    return np.asarray(np.fmax(spread, least))
