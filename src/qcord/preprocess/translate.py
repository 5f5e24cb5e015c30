"""Translation of slices by the Fourier shift theorem."""

import numpy as np
from scipy import fft
from scipy.ndimage import distance_transform_edt

from qcord.core.arrays import AnyArray, FloatArray


def translate_slices(data: AnyArray, shift: FloatArray) -> FloatArray:
    """Move the content of each slice within its plane.

    The image is continued by its mirror image, which leaves no step at the border, and its spectrum multiplied by a
    linear phase. Unlike a spline this keeps the spectrum, hence the noise stays as white and as strong as it was
    whatever the shift, and edges stay as sharp as the scanner made them.

    Parameters
    ----------
    data : (x, y, ...) array
        Slices; values that are not finite stay so, and with them the voxels whose centre falls within a voxel of
        them.
    shift : (..., 2) array
        Displacement along x and y [voxel]; slices with a shift of zero are returned as they are.

    Returns
    -------
    (x, y, ...) array
        float32; NaN where the content comes from outside the field.
    """
    moved = np.array(data, dtype=np.float32)
    shape = moved.shape
    moved = moved.reshape(*shape[:2], -1)
    steps = np.asarray(shift, dtype=float).reshape(-1, 2)
    which = np.flatnonzero((steps != 0).any(axis=1))
    if len(which) == 0:
        return moved.reshape(shape)
    part = moved[..., which].astype(float)
    bad = ~np.isfinite(part)
    _fill(part, bad)
    outside = np.zeros_like(bad)
    for axis in (0, 1):
        part = _ramp(part, steps[which, axis], axis)
        outside |= _from_outside(part.shape, steps[which, axis], axis)
    if bad.any():
        outside |= _touched(bad, steps[which])
    part[outside] = np.nan
    moved[..., which] = part
    return moved.reshape(shape)


def _fill(part: FloatArray, bad: AnyArray) -> None:
    """Give voxels without a value that of the nearest one with a value, so that the shift does not ring around them."""
    before, nearest = np.zeros(0, dtype=bool), np.zeros(0, dtype=int)
    for k in np.flatnonzero(bad.any(axis=(0, 1))):
        hole = bad[..., k]
        if hole.all():
            part[..., k] = 0.0
            continue
        if not np.array_equal(hole, before):
            before, nearest = hole, distance_transform_edt(hole, return_distances=False, return_indices=True)
        part[..., k] = part[..., k][tuple(nearest)]


def _ramp(part: FloatArray, step: FloatArray, axis: int) -> FloatArray:
    """Shift along one axis, mirror images attached at the end."""
    n = part.shape[axis]
    mirrored = np.concatenate([part, np.flip(part, axis)], axis=axis)
    phase = np.exp(-2j * np.pi * np.fft.rfftfreq(2 * n)[:, None] * step)
    phase[-1] = phase[-1].real  # the highest frequency of an even length must stay real
    phase = phase[:, None] if axis == 0 else phase[None]
    spectrum = fft.rfft(mirrored, axis=axis) * phase
    return np.asarray(fft.irfft(spectrum, 2 * n, axis=axis).take(range(n), axis=axis))


def _from_outside(shape: tuple[int, ...], step: FloatArray, axis: int) -> AnyArray:
    """Voxels whose content lay beyond the edge of the field."""
    n = shape[axis]
    origin = np.arange(n)[:, None] - step
    beyond = (origin < -0.5) | (origin > n - 0.5)
    return np.broadcast_to(beyond[:, None] if axis == 0 else beyond[None], shape)


def _touched(bad: AnyArray, steps: FloatArray) -> AnyArray:
    """Voxels whose content came from within a voxel of one that holds no value."""
    touched = np.zeros_like(bad)
    for k, (dx, dy) in enumerate(steps):
        for x, y in {(f(dx), g(dy)) for f in (np.floor, np.ceil) for g in (np.floor, np.ceil)}:
            source = np.pad(bad[..., k], [(abs(int(s)), abs(int(s))) for s in (x, y)])
            rolled = np.roll(source, (int(x), int(y)), axis=(0, 1))
            inner = tuple(slice(abs(int(s)), m - abs(int(s))) for s, m in zip((x, y), source.shape, strict=True))
            touched[..., k] |= rolled[inner]
    return touched
