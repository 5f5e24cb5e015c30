"""Sections of a volume on square pixels, each about its own middle."""

import numpy as np

from qcord.core.arrays import FloatArray, IntArray

HALF = 0.4
"""Least weight of known samples of a pixel inside the field of view."""


def taps(centre: float, count: int, size: int, native: float, pixel: float) -> tuple[IntArray, FloatArray]:
    """Samples and weights, each (size, t), that carry ``count`` native samples to ``size`` pixels about ``centre``.

    A triangle as wide as the larger of both spacings: linear interpolation when finer, averaging when coarser.
    Samples beyond the ends have weight 0.
    """
    place = centre + (np.arange(size) - (size - 1) / 2) * pixel / native
    width = max(1.0, pixel / native)
    first = np.floor(place - width).astype(int) + 1
    index = first[:, None] + np.arange(int(np.ceil(2 * width)))[None]
    weight = np.maximum(0, 1 - np.abs(place[:, None] - index) / width) * ((index >= 0) & (index < count))
    weight /= width
    return np.clip(index, 0, count - 1), weight.astype(np.float32)


def sections(
    volume: FloatArray, spacing: tuple[float, float, float], centres: FloatArray, size: tuple[int, int], pixel: float
) -> tuple[FloatArray, FloatArray]:
    """Resample every slice in its plane.

    Parameters
    ----------
    volume : (z, x, y) array
        Brightness, slices first; NaN outside the field of view.
    spacing : tuple of float
        Voxel size [mm] along x, y, z.
    centres : (z, 2) array
        Voxel index of the middle of each section.
    size : tuple of int
        Pixels of the sections.
    pixel : float
        Their size [mm].

    Returns
    -------
    planes : (z, *size) float32 array
        Brightness, 0 outside the field of view.
    inside : (z, *size) float32 array
        1 inside the field of view, 0 outside.
    """
    n_z, n_x, n_y = volume.shape
    planes = np.zeros((n_z, *size), dtype=np.float32)
    inside = np.zeros((n_z, *size), dtype=np.float32)
    for k in range(n_z):
        rows, row_weight = taps(float(centres[k, 0]), n_x, size[0], spacing[0], pixel)
        columns, column_weight = taps(float(centres[k, 1]), n_y, size[1], spacing[1], pixel)
        low, high = int(columns.min()), int(columns.max()) + 1
        part = volume[k, :, low:high]
        known = np.isfinite(part)
        value, weight = (
            _weigh(_weigh(a, rows, row_weight).T, columns - low, column_weight).T
            for a in (np.where(known, part, 0).astype(np.float32), known.astype(np.float32))
        )
        there = weight > HALF
        inside[k] = there
        planes[k] = np.where(there, value / np.maximum(weight, HALF), 0)
    return planes, inside


def _weigh(plane: FloatArray, index: IntArray, weight: FloatArray) -> FloatArray:
    """Weighted sums of rows, (n, m) to (size, m), tap by tap so that the order of additions never changes."""
    out = weight[:, 0, None] * plane[index[:, 0]]
    for t in range(1, index.shape[1]):
        out = out + weight[:, t, None] * plane[index[:, t]]
    return np.asarray(out)
