"""Distortion of echo-planar images: signal moves along the phase-encoding axis, where the field is off resonance."""

import numpy as np

from qcord.core.arrays import FloatArray, IntArray
from qcord.core.errors import UnknownName
from qcord.core.grid import Grid

_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}


def phase_axis(direction: str, grid: Grid) -> tuple[int, int]:
    """Axis in memory, and sign along it, of a phase-encoding direction of BIDS, which counts axes in the file.

    Parameters
    ----------
    direction : str
        ``i``, ``j`` or ``k``, with ``-`` for the opposite polarity.
    grid : Grid
        Grid of the image, with the axes of its file in ``stored``.

    Raises
    ------
    UnknownName
        If it is no such direction.
    """
    if direction.rstrip("-") not in {"i", "j", "k"} or len(direction) > 2:
        raise UnknownName(f"'{direction}' is not a phase-encoding direction; expected i, j or k, or one with -.")
    letter = grid.stored["ijk".index(direction[0])]
    axes = grid.axes
    sign = 1 if letter in axes else -1
    axis = axes.index(letter if letter in axes else _OPPOSITE[letter])
    return axis, -sign if direction.endswith("-") else sign


def displacement(field: FloatArray, spacing: float, lines: int, sign: int = 1) -> FloatArray:
    """Shift (...) in voxels along the phase-encoding axis.

    Parameters
    ----------
    field : (...) array
        Off-resonance [Hz].
    spacing : float
        Effective time [s] between lines of k-space.
    lines : int
        Number of lines of the reconstructed image.
    sign : int
        Polarity of the phase encoding.

    References
    ----------
    Jezzard and Balaban 1995, doi:10.1002/mrm.1910340111.
    """
    return np.asarray(sign * spacing * lines * field)


def push(data: FloatArray, shift: FloatArray, axis: int) -> FloatArray:
    """Move signal along an axis; where it is squeezed it brightens, and none is lost but over the edges.

    Parameters
    ----------
    data : (x, y, z, n) array
        Images.
    shift : (x, y, z, n) or (x, y, z, 1) array
        Shift of each voxel [voxel], linear between their centres; those of all images, or one for all.
    axis : int
        0, 1 or 2.

    Returns
    -------
    (x, y, z, n) array
        float32. Signal that arrives from several places adds up.
    """
    moved = np.moveaxis(np.asarray(data, dtype=np.float32), axis, 2)
    field = np.moveaxis(np.asarray(shift, dtype=float), axis, 2)
    lines, length = moved.shape[0] * moved.shape[1], moved.shape[2]
    out = np.empty((lines * length, moved.shape[3]), dtype=np.float32)
    plan: list[tuple[IntArray, IntArray, FloatArray]] = []
    for v in range(moved.shape[3]):
        if not plan or field.shape[3] > 1:
            plan = _shares(field[..., min(v, field.shape[3] - 1)].reshape(lines, length))
        signal = moved[..., v].reshape(-1)
        total = np.zeros(lines * length + 1)
        for source, target, share in plan:
            total += np.bincount(target, share * signal[source], minlength=lines * length + 1)
        out[:, v] = total[:-1]
    return np.moveaxis(out.reshape(*moved.shape[:2], length, -1), 2, axis)


def _shares(shift: FloatArray) -> list[tuple[IntArray, IntArray, FloatArray]]:
    """Which voxel gives which voxel how much of its signal; the last number stands for outside.

    Both halves of a voxel are stretched or squeezed over the interval between their moved ends.
    """
    lines, length = shift.shape
    centre = np.arange(length) + shift
    between = np.arange(length + 1) - 0.5 + _between(shift)
    first = np.stack([between[:, :-1], centre]).reshape(-1) + 0.5
    last = np.stack([centre, between[:, 1:]]).reshape(-1) + 0.5
    low, high = np.minimum(first, last), np.maximum(first, last)
    size = np.maximum(high - low, 1e-9)
    begin = np.floor(low).astype(np.int64)
    row = np.tile(np.repeat(np.arange(lines) * length, length), 2)
    source = np.tile(np.arange(lines * length), 2)
    steps = np.floor(high).astype(np.int64) - begin
    shares: list[tuple[IntArray, IntArray, FloatArray]] = []
    for step in range(int(steps.max()) + 1):
        here = np.flatnonzero(steps >= step)
        voxel = begin[here] + step
        overlap = np.minimum(high[here], voxel + 1) - np.maximum(low[here], voxel)
        overlap = np.where(high[here] - low[here] > 1e-9, overlap / size[here], step == 0)
        target = np.where((voxel >= 0) & (voxel < length), row[here] + voxel, lines * length)
        shares.append((source[here], target, overlap / 2))
    return shares


def _between(shift: FloatArray) -> FloatArray:
    """Shift at the edges of voxels: the mean of both sides, at the ends that of the voxel."""
    padded = np.concatenate([shift[:, :1], shift, shift[:, -1:]], axis=1)
    return np.asarray((padded[:, :-1] + padded[:, 1:]) / 2)
