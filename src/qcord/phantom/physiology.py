"""The heart's and the breath's part in a scan: cord motion, signal loss by pulsation, and the field of the lungs."""

import numpy as np

from qcord.core.arrays import ArrayLike, FloatArray
from qcord.core.protocol import Protocol
from qcord.phantom.eddy import gradients
from qcord.template import tables

HEART_PERIOD = 0.9
"""Time [s] from systole to systole (assumed)."""

PEAK_VELOCITY, PEAK_TIME = 7.0, 0.109
"""Largest caudal velocity [mm/s] of the cord and when it is reached after systole [s] (ISMRM 2006, abstract)."""

PEAK_WIDTH = 0.05
"""Standard deviation [s] of the pulse of velocity in time (assumed)."""

SWING_TIME, SWING_WIDTH = 0.22, 0.10
"""When after systole [s] the cord is displaced most, and for how long (assumed)."""

SWING_LEVEL, SWING_REACH = "C5", 55.0
"""Level at which the displacement is largest (ISMRM 2006, abstract), and over which length [mm] along the cord it falls
off (assumed)."""

ENCODING_TIME = 0.025
"""Diffusion time [s] by which a velocity turns into phase: phase squared over b-value and velocity squared; that of a
single-refocused scan, the separation squared over the diffusion time."""

LUNG_LEVEL, LUNG_REACH = "C7", 50.0
"""Level at which the field of breathing is stated, and length [mm] over which it falls to 1/e going up (assumed)."""


def cord_velocity(time: ArrayLike) -> FloatArray:
    """Velocity [mm/s] of the cord, positive upwards, at times [s] after systole; it returns to where it was."""
    phase = np.mod(np.asarray(time, dtype=float), HEART_PERIOD)
    pulse = np.exp(-(((phase - PEAK_TIME) / PEAK_WIDTH) ** 2) / 2)
    mean = PEAK_WIDTH * np.sqrt(2 * np.pi) / HEART_PERIOD * _half_normal()
    return np.asarray(-PEAK_VELOCITY * (pulse - mean) / (1 - mean))


def _half_normal() -> float:
    """Part of the pulse of velocity that lies within one period."""
    from scipy.special import ndtr

    return float(ndtr((HEART_PERIOD - PEAK_TIME) / PEAK_WIDTH) - ndtr(-PEAK_TIME / PEAK_WIDTH))


def cord_swing(time: ArrayLike, height: ArrayLike, peak: float) -> FloatArray:
    """Forward displacement [mm] of the cord at times [s] after systole and at template heights [mm]."""
    phase = np.mod(np.asarray(time, dtype=float), HEART_PERIOD)
    pulse = np.exp(-(((phase - SWING_TIME) / SWING_WIDTH) ** 2) / 2)
    return np.asarray(peak * pulse * np.exp(-(((np.asarray(height) - _middle(SWING_LEVEL)) / SWING_REACH) ** 2) / 2))


def heart_times(generator: np.random.Generator, n_volumes: int, n_slices: int) -> FloatArray:
    """Time [s] after systole (volumes, slices) at which each slice is excited, without gating."""
    return np.asarray(generator.uniform(0, HEART_PERIOD, (n_volumes, n_slices)))


def pulsation_loss(protocol: Protocol, velocity: FloatArray, tangent: FloatArray, spread: float) -> FloatArray:
    """Part of the signal (volumes, slices) that is left where the velocity differs within a voxel.

    Parameters
    ----------
    protocol : Protocol
        BValue [s/mm2] and Direction.
    velocity : (volumes, slices) array
        Velocity [mm/s] along the cord.
    tangent : (slices, 3) array
        Direction of the cord.
    spread : float
        Standard deviation of the velocity within a voxel over its mean.

    Notes
    -----
    Normally distributed phases of standard deviation s leave exp(-s^2 / 2) of the signal.
    """
    along = np.einsum("ni,si->ns", gradients(protocol), tangent)
    top = float(np.max(protocol["BValue"], initial=0.0))
    phase = top * ENCODING_TIME * (spread * velocity * along) ** 2
    return np.asarray(np.exp(-phase / 2))


def breathing_field(generator: np.random.Generator, n_volumes: int, height: ArrayLike, strength: float) -> FloatArray:
    """Off-resonance (volumes, slices) [Hz] by breathing, of standard deviation ``strength`` at C7.

    Parameters
    ----------
    generator : Generator
        Source of the phase of breathing in each slice of each volume.
    n_volumes : int
        Number of volumes.
    height : (slices,) array
        Template height [mm] of the cord in each slice.
    strength : float
        Standard deviation [Hz].
    """
    heights = np.asarray(height, dtype=float)
    phase = generator.uniform(0, 2 * np.pi, (n_volumes, len(heights)))
    reach = np.exp(-(heights - _middle(LUNG_LEVEL)) / LUNG_REACH)
    return np.asarray(strength * np.sqrt(2) * np.sin(phase) * reach)


def _middle(level: str) -> float:
    edges = tables.level_edges()
    row = tables.LEVELS.index(level)
    return float(edges[row] + edges[row + 1]) / 2
