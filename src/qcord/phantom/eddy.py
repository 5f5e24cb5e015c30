"""Eddy currents of the diffusion gradients: a field that is linear in space and follows the gradient direction."""

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.core.protocol import Protocol

REACH = 40.0
"""Distance [mm] from the isocentre at which the strength of the field is stated."""

CROSS = 0.3
"""Standard deviation of the cross terms relative to the direct ones (assumed)."""

OFFSET = 0.2
"""Standard deviation of the spatially constant terms relative to the direct ones (assumed)."""

_STREAM = 7002


def eddy_field(protocol: Protocol, points: FloatArray, strength: float, seed: int) -> FloatArray:
    """Off-resonance (..., n) [Hz] at world points (..., 3) during the read-out of each volume.

    Parameters
    ----------
    protocol : Protocol
        BValue [s/mm2] and Direction (n, 3); gradients grow with the root of the b-value.
    points : (..., 3) array
        World coordinates [mm]; the isocentre is the origin.
    strength : float
        Off-resonance [Hz] at `REACH` along the gradient that the strongest gradient leaves.
    seed : int
        Seed of the cross and constant terms, which belong to a scanner.

    References
    ----------
    Jezzard, Barnett and Pierpaoli 1998, doi:10.1002/mrm.1910390518.
    """
    matrix, offset = eddy_terms(strength, seed)
    drive = gradients(protocol)
    linear = np.einsum("ij,nj->ni", matrix / REACH, drive)
    constant = np.einsum("j,nj->n", offset, drive)
    return np.asarray(np.einsum("...i,ni->...n", points, linear) + constant)


def gradients(protocol: Protocol) -> FloatArray:
    """Diffusion gradients (n, 3), the strongest of length 1; zero where a volume has no direction."""
    b = np.asarray(protocol["BValue"], dtype=float)
    top = b.max()
    scale = np.sqrt(b / top) if top > 0 else b
    direction = protocol["Direction"] if "Direction" in protocol else np.zeros((len(b), 3))
    return np.asarray(scale[:, None] * direction)


def eddy_terms(strength: float, seed: int) -> tuple[FloatArray, FloatArray]:
    """Linear (3, 3) and constant (3,) terms [Hz]."""
    generator = np.random.default_rng([seed, _STREAM])
    matrix = strength * (np.eye(3) + CROSS * generator.standard_normal((3, 3)) * (1 - np.eye(3)))
    return matrix, strength * OFFSET * generator.standard_normal(3)
