"""Where the cord runs: one place a slice, by dynamic programming over a map of likely places."""

from typing import Any

import numpy as np
from scipy import ndimage

from qcord.anatomy.network import COARSE, cord_share, normalize
from qcord.anatomy.sampling import sections
from qcord.core.arrays import FloatArray

BLOCK = 3.0
"""Height [mm] over which thin slices are averaged before the search: far less than a vertebra."""
MATCHED = 3.0
"""Standard deviation [mm] of the Gaussian that gathers the evidence for one cord: about half its radius."""
PADDING = 20
"""Empty pixels around the field of view, as in training: what lies beyond it is seen to be unknown."""
BEND = 0.15
"""Price of a slope of 1 (45 degrees) between neighbours, in units of full evidence."""
STEEPEST = 1.5
"""Largest slope of the axis against the normal of the slices: 56 degrees."""


def find_axis(volume: FloatArray, spacing: tuple[float, float, float], hint: float) -> tuple[FloatArray, FloatArray]:
    """Follow the cord through a volume.

    Parameters
    ----------
    volume : (z, x, y) array
        Brightness, slices first; NaN outside the field of view.
    spacing : tuple of float
        Voxel size [mm].
    hint : float
        Polarity, see `qcord.anatomy.contrast.POLARITY`.

    Returns
    -------
    places : (z, 2) array
        Voxel indices (x, y) of the axis in each slice.
    evidence : (z,) array
        Likelihood, 0 to 1, that the cord is there.
    """
    n_slices = len(volume)
    thick = min(max(1, round(BLOCK / spacing[2])), n_slices)
    blocks = np.array_split(np.arange(n_slices), max(1, n_slices // thick))
    middle = np.array([block.mean() for block in blocks])
    mean = np.stack([_mean_of(volume[block[0] : block[-1] + 1]) for block in blocks])
    extent = np.array(volume.shape[1:]) * spacing[:2]
    size = np.array([int(8 * np.ceil((e / COARSE.spacing + 2 * PADDING) / 8)) for e in extent])
    centre = np.array([(n - 1) / 2 for n in volume.shape[1:]])
    planes, inside = sections(mean, spacing, np.tile(centre, (len(blocks), 1)), (size[0], size[1]), COARSE.spacing)
    share = cord_share(normalize(planes, inside, COARSE), COARSE, hint) * inside
    likely = ndimage.gaussian_filter(share, (0, MATCHED / COARSE.spacing, MATCHED / COARSE.spacing), mode="constant")
    step = np.diff(middle).mean() * spacing[2] if len(blocks) > 1 else spacing[2]
    path = best_path(likely, float(step))
    rows = np.arange(len(path))
    evidence = likely[rows, path[:, 0], path[:, 1]]
    fine = np.stack([_centroid(likely[k], path[k]) for k in rows])
    offset = (fine - (size - 1) / 2) * COARSE.spacing
    places = centre + offset / np.array(spacing[:2])
    slices = np.arange(n_slices)
    both = np.stack([np.interp(slices, middle, places[:, a]) for a in (0, 1)], axis=1)
    peak = max(float(likely.max()), 1e-6)
    return both, np.interp(slices, middle, np.clip(evidence / peak, 0, 1) * min(1.0, 2 * peak))


def best_path(score: FloatArray, step: float) -> FloatArray:
    """Path of greatest total score through a stack, one pixel a slice (Viterbi).

    Parameters
    ----------
    score : (z, x, y) array
        Evidence for each pixel.
    step : float
        Distance [mm] between slices.

    Returns
    -------
    (z, 2) int array
        Pixel of each slice.
    """
    reach = max(1, int(np.ceil(STEEPEST * step / COARSE.spacing)))
    reach = min(reach, 12)
    offsets = np.arange(-reach, reach + 1)
    slope = np.hypot(offsets[:, None], offsets[None]) * COARSE.spacing / step
    price: Any = BEND * slope**2
    total = np.empty_like(score)
    total[0] = score[0]
    for k in range(1, len(score)):
        total[k] = score[k] + ndimage.grey_dilation(total[k - 1], structure=-price, mode="constant", cval=-1e6)
    path = np.empty((len(score), 2), dtype=int)
    path[-1] = np.unravel_index(int(np.argmax(total[-1])), score.shape[1:])
    padded = np.pad(total, ((0, 0), (reach, reach), (reach, reach)), constant_values=-1e6)
    for k in range(len(score) - 1, 0, -1):
        i, j = path[k]
        window = padded[k - 1, i : i + 2 * reach + 1, j : j + 2 * reach + 1] - price
        di, dj = np.unravel_index(int(np.argmax(window)), window.shape)
        path[k - 1] = i + di - reach, j + dj - reach
    return path


def _mean_of(slices: FloatArray) -> FloatArray:
    """Mean of a few slices, NaN where none is known."""
    if len(slices) == 1:
        return np.asarray(slices[0])
    known = np.isfinite(slices)
    total = np.where(known, slices, 0).sum(axis=0)
    count = known.sum(axis=0)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _centroid(plane: FloatArray, pixel: FloatArray) -> FloatArray:
    """Centre of mass of the 5 x 5 pixels around one pixel, or the pixel itself where there is nothing."""
    low = np.maximum(pixel - 2, 0)
    part = plane[low[0] : pixel[0] + 3, low[1] : pixel[1] + 3]
    total = part.sum()
    if total <= 1e-6:
        return np.asarray(pixel, dtype=float)
    return np.asarray(low + np.array(ndimage.center_of_mass(part)), dtype=float)
