"""Sampling: places within voxels, and linear interpolation as a sparse matrix."""

import numpy as np
from scipy import sparse

from qcord.core.arrays import FloatArray, IntArray
from qcord.core.grid import Grid

FINEST = (0.5, 0.5, 1.5)
"""Longest distance [mm] between sub-voxel samples across (twice) and along the cord: the spacing of PAM50 in plane,
and a length over which the cord's section hardly changes."""

MOST = 16
"""Most sub-voxel samples along one axis."""


def subdivisions(grid: Grid, finest: tuple[float, float, float] = FINEST) -> tuple[int, int, int]:
    """Number of samples along each voxel axis that keeps their distance below ``finest`` [mm]."""
    counts = [int(np.clip(np.ceil(s / f - 1e-6), 1, MOST)) for s, f in zip(grid.spacing, finest, strict=True)]
    return counts[0], counts[1], counts[2]


def subvoxel_offsets(counts: tuple[int, int, int]) -> FloatArray:
    """Offsets (m, 3), in voxels, of samples evenly spread over a voxel."""
    axes = [(np.arange(n) + 0.5) / n - 0.5 for n in counts]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def interpolation_matrix(grid: Grid, index: FloatArray) -> sparse.csr_array:
    """Linear interpolation at voxel indices (m, 3) of a grid, as a matrix (m, n_voxels in C order).

    Rows of places outside the grid lack the corners that lie outside, which counts as zero there.
    """
    n = len(index)
    base = np.floor(index).astype(np.int64)
    share = index - base
    rows, columns, values = [], [], []
    for corner in np.ndindex(2, 2, 2):
        place = base + corner
        weight = np.prod(np.where(np.array(corner) == 1, share, 1 - share), axis=1)
        inside = np.all((place >= 0) & (place < grid.shape), axis=1) & (weight > 0)
        rows.append(np.flatnonzero(inside))
        columns.append(np.ravel_multi_index(tuple(place[inside].T), grid.shape))
        values.append(weight[inside])
    data = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_array(data, shape=(n, int(np.prod(grid.shape))))


def neighbourhood(mask: "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]", grid: Grid, margin: float) -> IntArray:
    """Indices (n, 3) of voxels within ``margin`` mm, in plane, of a mask."""
    from scipy.ndimage import distance_transform_edt

    near = np.zeros(mask.shape, dtype=bool)
    for k in np.flatnonzero(mask.any(axis=(0, 1))):
        near[:, :, k] = distance_transform_edt(~mask[:, :, k], sampling=grid.spacing[:2]) <= margin
    return np.argwhere(near)
