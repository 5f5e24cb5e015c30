"""Motion of slices in their plane."""

import numpy as np
from scipy import ndimage

from qcord.core.arrays import FloatArray

SHIFTS = 2
"""Components of a shift: along the first two voxel axes."""


def slice_jitter(generator: np.random.Generator, n_volumes: int, n_slices: int, spread: float) -> FloatArray:
    """Independent shifts (volumes, slices, 2) [mm] of each slice, normal with standard deviation ``spread``."""
    return np.asarray(spread * generator.standard_normal((n_volumes, n_slices, SHIFTS)))


def drift(generator: np.random.Generator, n_volumes: int, n_slices: int, final: float) -> FloatArray:
    """Shifts (volumes, slices, 2) [mm] of the whole neck: a random walk from rest.

    Its standard deviation grows to ``final`` [mm] at the last volume.
    """
    steps = generator.standard_normal((n_volumes, SHIFTS)) * final / np.sqrt(max(n_volumes - 1, 1))
    steps[0] = 0
    return np.repeat(np.cumsum(steps, axis=0)[:, None], n_slices, axis=1)


def shift_slices(data: FloatArray, shift: FloatArray) -> FloatArray:
    """Move each slice of each volume, by cubic splines.

    Parameters
    ----------
    data : (x, y, slices, volumes) array
        Images.
    shift : (volumes, slices, 2) array
        Shifts along the first two axes [voxel].
    """
    moved = np.array(data)
    for v in range(data.shape[3]):
        for k in range(data.shape[2]):
            if shift[v, k].any():
                plane = ndimage.shift(data[:, :, k, v], shift[v, k], order=3, mode="nearest")
                moved[:, :, k, v] = np.maximum(plane, 0)
    return moved
