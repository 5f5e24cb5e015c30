"""Where to follow the motion of the cord before it has been segmented."""

import numpy as np
from scipy import ndimage

from qcord.core.arrays import FloatArray, IntArray
from qcord.core.grid import Grid

MIDDLE = 20.0
"""Standard deviation [mm] of the place of the cord in a field that was planned on it."""

CORD, CANAL = 4.0, 10.0
"""Standard deviations [mm] of two gaussians whose difference answers best to a bright disc of the size of a cord
(radius 4 to 7 mm) on a darker ground."""

AROUND = 5.0
"""Standard deviation [mm] of the weight around the middle of the cord: its edge, 4 to 7 mm off, counts most, that of
the canal, which need not move with it, less."""

LINKED = 10.0
"""Distance [mm] along the cord over which slices help each other to find it."""


def middle_of_field(grid: Grid) -> FloatArray:
    """Gaussian in the middle of the field, (x, y, z)."""
    return _gaussian(grid, np.array([[(n - 1) / 2 for n in grid.shape[:2]]] * grid.shape[2]), MIDDLE)


def bright_cord(weighted: FloatArray, grid: Grid) -> FloatArray:
    """Gaussian around the brightest disc of the size of a cord near the middle of each slice.

    Parameters
    ----------
    weighted : (x, y, z) array
        Mean of diffusion-weighted volumes, on which fluid has faded and the cord, whose fibres hinder diffusion
        across, is bright.
    grid : Grid
        Its grid.

    Returns
    -------
    (x, y, z) array
        Weights from 0 to 1.
    """
    spacing = np.array(grid.spacing)
    image = np.nan_to_num(np.asarray(weighted, dtype=float))
    answer = _smooth(image, CORD / spacing) - _smooth(image, CANAL / spacing)
    answer = np.maximum(answer, 0) * middle_of_field(grid)
    answer = ndimage.gaussian_filter1d(answer, LINKED / spacing[2], axis=2)
    best = answer.reshape(-1, grid.shape[2]).argmax(axis=0)
    centre: IntArray = np.stack(np.unravel_index(best, grid.shape[:2]), axis=-1)
    return _gaussian(grid, centre.astype(float), AROUND)


def _smooth(image: FloatArray, width: FloatArray) -> FloatArray:
    return np.asarray(ndimage.gaussian_filter(image, (width[0], width[1], 0)))


def _gaussian(grid: Grid, centre: FloatArray, width: float) -> FloatArray:
    """Gaussian [mm] around one place of each slice, centre (z, 2) [voxel]."""
    x, y = ((np.arange(grid.shape[a])[:, None] - centre[None, :, a]) * grid.spacing[a] / width for a in (0, 1))
    return np.asarray(np.exp(-(x[:, None] ** 2 + y[None] ** 2) / 2))
