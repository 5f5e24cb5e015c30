"""The transmit field: actual over nominal flip angle, smooth and positive."""

import numpy as np

from qcord.core.arrays import FloatArray

WAVELENGTH = 260.0
"""Shortest length [mm] over which the field repeats at 3 T: that of the radio frequency in tissue (assumed)."""

WAVES = 6
_STREAM = 7001


def transmit_field(
    points: FloatArray, strength: float, seed: int, *, mean: float = 1.0, tesla: float = 3.0
) -> FloatArray:
    """Transmit field (...) at world points (..., 3).

    Parameters
    ----------
    points : (..., 3) array
        World coordinates [mm].
    strength : float
        Standard deviation of the logarithm of the field over a body; 0 is a uniform field.
    seed : int
        Seed of the pattern.
    mean : float
        Geometric mean of the field.
    tesla : float
        Field strength; the wavelength is inverse to it.

    Returns
    -------
    (...) array
        The exponential of plane waves of random direction and phase, so that it is positive and no steeper than the
        wavelength allows (see `steepest`).
    """
    generator = np.random.default_rng([seed, _STREAM])
    direction = generator.standard_normal((WAVES, 3))
    direction *= wavenumber(tesla) / np.sqrt((direction**2).sum(axis=1, keepdims=True))
    phase = generator.uniform(0, 2 * np.pi, WAVES)
    pattern = np.zeros(np.shape(points)[:-1])
    for wave in range(WAVES):
        angle = sum(points[..., axis] * direction[wave, axis] for axis in range(3)) + phase[wave]
        pattern += np.cos(angle)
    return np.asarray(mean * np.exp(strength * np.sqrt(2 / WAVES) * pattern))


def wavenumber(tesla: float) -> float:
    """Wave number [1/mm] of the plane waves."""
    return 2 * np.pi / WAVELENGTH * tesla / 3


def steepest(strength: float, tesla: float = 3.0) -> float:
    """Largest relative change of the field over a millimetre."""
    return float(strength * np.sqrt(2 * WAVES) * wavenumber(tesla))
