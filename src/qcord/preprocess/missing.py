"""Voxels without a value inside an image: found, and filled so that they leave no edges in a spectrum."""

import numpy as np
from scipy import ndimage

from qcord.core.arrays import AnyArray, BoolArray
from qcord.core.image import Image

WIDTH = 1.0
"""Standard deviation [voxels] of the neighbourhood that fills a missing voxel. Its transfer is below a third at half
the Nyquist frequency, so that what it takes from its neighbours hardly changes the noise that is read above."""

LEAST_NEAR = 0.1
"""Least weight of measured voxels in the neighbourhood; below it, as in an empty background, nothing is known."""

WINDOW = 5
"""Side [voxels] of the square where zeros are few about a voxel that failed, and most at the edge of a background."""


AIR = 0.1
"""Share of the brightest tenth of an image that its air stays below, at a signal-to-noise ratio of 12 and more: what is
brighter is signal, even if that of dark tissue."""

STEPS = 10
"""Smallest values of an image that signal must exceed: where whole numbers of few units hold it, as in late echoes, 0
is a value."""


def holes(volumes: AnyArray, usable: BoolArray) -> BoolArray:
    """Voxels that are 0 in some volume amidst signal: no magnitude of tissue is exactly 0.

    Parameters
    ----------
    volumes : (x, y, z, n) array
        Magnitudes, finite.
    usable : (x, y, z) array
        Voxels that were not known to be missing.
    """
    zero = np.asarray((volumes == 0).any(axis=-1)) & usable
    gone = zero | ~usable
    around = (WINDOW, WINDOW, 1)
    suspect = zero & (ndimage.uniform_filter(gone.astype(np.float32), around, mode="constant", cval=1) < 0.5)
    for v in range(volumes.shape[-1] if suspect.any() else 0):
        measured = np.where(gone, 0, volumes[..., v]).astype(np.float32)
        near = ndimage.uniform_filter(measured, around)[suspect]
        positive = measured[measured > 0]
        suspect[suspect] = near > max(AIR * np.quantile(measured[~gone], 0.9), STEPS * positive.min(initial=np.inf))
    return suspect


def without_holes(image: Image) -> Image:
    """Magnitudes, (x, y, z), with NaN in the `holes`; as they are where there is none."""
    finite = np.asarray(np.isfinite(image.data))
    gone = holes(np.where(finite, image.data, 0)[..., None], finite)
    return image.derive(np.where(gone, np.nan, image.data).astype(np.float32)) if gone.any() else image


def filled(volumes: AnyArray, known: BoolArray) -> AnyArray:
    """Volumes with the weighted mean of the measured neighbours, in plane, where a voxel is missing.

    Parameters
    ----------
    volumes : (x, y, z, n) array
        Finite wherever ``known``.
    known : (x, y, z) array
        Voxels that were measured.

    Returns
    -------
    (x, y, z, n) array
        NaN where no measured voxel is near.
    """
    around = (WIDTH, WIDTH, 0.0)
    weight = ndimage.gaussian_filter(known.astype(np.float32), around)
    near = weight >= LEAST_NEAR
    result = np.where(known[..., None], volumes, np.nan).astype(np.float32)
    for v in range(volumes.shape[-1]):
        mean = ndimage.gaussian_filter(np.where(known, volumes[..., v], 0).astype(np.float32), around)
        chosen = ~known & near
        result[chosen, v] = mean[chosen] / weight[chosen]
    return result
