"""What the estimation of motion works on: slices in a window, kinds of volumes, weights."""

from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import FloatArray, IntArray
from qcord.core.errors import EmptyRegion
from qcord.core.grid import require_same_grid
from qcord.core.image import Image
from qcord.core.series import Series
from qcord.models.encoding import b_tensors, shape
from qcord.preprocess.checks import require_values
from qcord.preprocess.neighbourhood import bright_cord, middle_of_field

B0_LIMIT = 50.0
"""b-value [s/mm2] up to which a volume counts as not diffusion-weighted (vendors write 0 to 50)."""

SHELL = 100.0
"""b-values [s/mm2] that follow each other at no more than this have the same contrast."""

LEAST_WEIGHT = 0.05
"""Share of the largest weight below which a voxel is left out."""

MARGIN = 6
"""Voxels around the weighted ones that may move in: twice the displacement of three voxels that is searched."""

MIN_DIRECTIONS = 12
"""Twice the six quadratic forms of a direction: fewer predict a volume with more noise than they explain."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Slices to be compared, and all that the comparison needs.

    Parameters
    ----------
    slices : (n, z, x, y) array
        Window of the volumes in which the weight counts, scaled to a mean of one.
    kinds : tuple of int array
        Volumes of like contrast, the largest kind first.
    weight : (z, x, y) array
        Trust in each voxel.
    height : (z,) array
        Place of the slices [mm].
    spacing : (2,) array
        Size of a voxel [mm] in plane.
    anchor : int or None
        Volume that stays in place; None for the mean place.
    noise : (z,) array
        Variance of the noise before denoising, zero if not known.
    hat : (m, m) array or None
        Projection of the m volumes of the largest kind on what their diffusion directions explain.
    """

    slices: FloatArray
    kinds: tuple[IntArray, ...]
    weight: FloatArray
    height: FloatArray
    spacing: FloatArray
    anchor: int | None
    noise: FloatArray
    hat: FloatArray | None


def make_scene(series: Series, weight: Image | None, sigma: Image | None, reference: int | None) -> Scene:
    """Cut the window in which the weight counts, and bring the signal to a mean of one."""
    require_values(series)
    grid, data = series.image.grid, series.data
    kinds, anchor = kinds_of(series, reference)
    if weight is None:
        trust = _default_weight(series, kinds[0])
    else:
        require_same_grid(weight.grid, grid, weight.label, series.image.label)
        trust = np.nan_to_num(np.asarray(weight.data, dtype=float).reshape(grid.shape))
    finite = np.asarray(np.isfinite(data).all(axis=-1))
    trust = np.clip(trust, 0, None) * finite * _border(grid.shape)
    used = np.asarray(trust > LEAST_WEIGHT * trust.max(initial=0))
    if not used.any() or not (data[used] != 0).any():
        raise EmptyRegion(
            f"The weight leaves no voxel of {series.image.label} to follow the motion with; give one that covers the "
            "cord and lies within the field."
        )
    trust[~used] = 0
    rows, columns = np.flatnonzero(used.any(axis=(1, 2))), np.flatnonzero(used.any(axis=(0, 2)))
    window = tuple(slice(max(0, int(i[0]) - MARGIN), int(i[-1]) + MARGIN + 1) for i in (rows, columns))
    slices = np.where(finite[..., None], data, 0)[window].astype(np.float32).transpose(3, 2, 0, 1)
    scale = max(float(np.abs(slices).mean()), 1e-30)
    noise = np.zeros(grid.shape[2])
    if sigma is not None:
        require_same_grid(sigma.grid, grid, sigma.label, series.image.label)
        square = np.nan_to_num(np.asarray(sigma.data, dtype=float).reshape(grid.shape) / scale) ** 2
        noise = (square * trust).sum(axis=(0, 1)) / np.maximum(trust.sum(axis=(0, 1)), 1e-30)
    spacing = np.array(grid.spacing[:2])
    height = np.arange(grid.shape[2]) * grid.spacing[2]
    cut: FloatArray = trust[window].transpose(2, 0, 1)
    return Scene(slices / scale, kinds, cut, height, spacing, anchor, noise, _hat(series, kinds[0]))


def _default_weight(series: Series, largest: IntArray) -> FloatArray:
    """Around the cord where diffusion weighting makes it stand out, else in the middle of the field."""
    grid = series.image.grid
    if series.protocol.has("BValue") and (series.protocol["BValue"][largest] > B0_LIMIT).all():
        return bright_cord(series.data[..., largest].mean(axis=-1), grid)
    return middle_of_field(grid)


def _border(shape: tuple[int, int, int]) -> FloatArray:
    """Zero at the border of a field, rising to one over three voxels: content there comes and goes."""
    ramps = [
        np.clip(np.minimum(np.arange(n), np.arange(n)[::-1]) / 3, 0, 1) if n > 8 else np.ones(n) for n in shape[:2]
    ]
    return np.asarray(ramps[0][:, None, None] * ramps[1][None, :, None])


def kinds_of(series: Series, reference: int | None) -> tuple[tuple[IntArray, ...], int | None]:
    """Volumes of like contrast, the largest kind first; and the volume that stays, None for the mean place."""
    n = series.image.n_volumes
    if series.protocol.has("BValue"):
        b = np.maximum(series.protocol["BValue"], B0_LIMIT)
        ordered = np.sort(b)
        label = np.searchsorted(ordered[1:][np.diff(ordered) > SHELL], b, side="right")
        delta = np.where(b > B0_LIMIT, np.round(2 * shape(series.protocol)), 0)  # linear, spherical, planar
        label = np.unique(np.stack([label, delta], axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    else:
        label = np.arange(n)
    groups = sorted((np.flatnonzero(label == v) for v in np.unique(label)), key=lambda g: (-len(g), g[0]))
    if reference is None and len(groups[0]) == 1:
        state = series.protocol["MTState"] if series.protocol.has("MTState") else np.zeros(n)
        reference = int(np.argmax(np.asarray(state, dtype=bool)))
    if reference is not None and len(groups[0]) == 1:
        groups.sort(key=lambda g: reference not in g)
    return tuple(groups), reference


def _hat(series: Series, kind: IntArray) -> FloatArray | None:
    """Projection (n, n) on the b-tensors of the volumes, constant included.

    None where there are too few directions for the six forms, or none are known.
    """
    if not series.protocol.has("Direction") or len(kind) < MIN_DIRECTIONS:
        return None
    forms = b_tensors(series.protocol)[kind] / np.maximum(series.protocol["BValue"][kind], 1)[:, None]
    if np.linalg.matrix_rank(forms, tol=1e-2) < forms.shape[1]:
        return None
    hat = forms @ np.linalg.pinv(forms)
    return hat if np.diagonal(hat).max() < 0.8 else None
