"""How the noise of neighbouring voxels goes together."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from qcord.core.arrays import ArrayLike, BoolArray, FloatArray
from qcord.core.errors import EmptyRegion
from qcord.core.image import Image, mask_of

REACH = (4, 4, 1)
"""Largest offset [voxels] at which correlation is kept: four in plane covers interpolation by two, one along the
cord that between slices."""


@dataclass(frozen=True, eq=False)
class NoiseCorrelation:
    """Correlation of the noise of two voxels by their offset.

    Parameters
    ----------
    lags : (2 a + 1, 2 b + 1, 2 c + 1) array
        Coefficient at each offset; 1 in the middle.
    factor : float
        Variance of the mean over many neighbouring voxels, relative to that of as many independent ones: 1 for white
        noise, 4 where an image was interpolated by two in plane.
    """

    lags: FloatArray
    factor: float

    def variance_of_mean(self, weights: ArrayLike) -> float:
        """Variance of a weighted mean over the variance of one voxel.

        Parameters
        ----------
        weights : (x, y, z) array
            Weight of each voxel; their sum must not be zero.

        Returns
        -------
        float
            1 for a single voxel, 1 / n for n equal weights on white noise.
        """
        w = np.asarray(weights, dtype=float)
        total = w.sum()
        if total == 0 or not np.isfinite(total):
            raise EmptyRegion("The weights sum to zero or are not finite, expected at least one voxel of the region.")
        spread = ndimage.correlate(w, self.lags, mode="constant")
        return float(max((w * spread).sum(), (w**2).sum() / w.size) / total**2)


WHITE = NoiseCorrelation(np.ones((1, 1, 1)), 1.0)
"""Noise of independent voxels."""


def correlation_of_spectrum(noise: FloatArray, level: float) -> NoiseCorrelation:
    """Correlation in plane from the power spectrum of the noise.

    Parameters
    ----------
    noise : (t, t) array
        Power at each frequency, as `numpy.fft.fftfreq` orders them.
    level : float
        Power at low frequency.
    """
    variance = float(noise.mean())
    if variance <= 0:
        return WHITE
    lags = np.real(np.fft.ifft2(noise)) / variance
    reach = [min(r, (n - 1) // 2) for r, n in zip(REACH[:2], noise.shape, strict=True)]
    rows, columns = (np.arange(-r, r + 1) for r in reach)
    return NoiseCorrelation(lags[np.ix_(rows, columns)][..., None], max(1.0, level / variance))


def noise_correlation(noise: Image, mask: Image | None = None) -> NoiseCorrelation:
    """Correlation of samples of noise, such as differences of repeats or what a voxelwise fit left over.

    What denoising removed serves for next neighbours only: the mean of a patch is not removed, so the coefficients
    sum to too little.

    Parameters
    ----------
    noise : Image
        Samples, (x, y, z) or (x, y, z, n); the mean of each voxel over the volumes, or of a single volume over the
        mask, is taken out. Values that are not finite are left out.
    mask : Image, optional
        Voxels that count.

    Returns
    -------
    NoiseCorrelation
        Offsets up to `REACH`; the factor is the sum of all coefficients that exceed four times their error.

    Raises
    ------
    EmptyRegion
        If no sample remains.
    """
    data = noise.data if noise.data.ndim == 4 else noise.data[..., None]
    inside = mask_of(mask, noise.grid)[..., None] & np.isfinite(data)
    along = 3 if data.shape[3] > 1 else (0, 1, 2)
    count = np.maximum(inside.sum(axis=along, keepdims=True), 1)
    values = np.where(inside, data, 0).astype(float)
    values = np.where(inside, values - values.sum(axis=along, keepdims=True) / count, 0)
    if not (values != 0).any():
        raise EmptyRegion(f"{noise.label} holds no noise inside the mask; check mask and image.")
    reach = [min(r, n - 1) for r, n in zip(REACH, values.shape, strict=False)]
    lags = np.zeros([2 * r + 1 for r in reach])
    error = np.zeros_like(lags)
    for index in np.ndindex(lags.shape):
        offset = tuple(i - r for i, r in zip(index, reach, strict=True))
        lags[index], error[index] = _coefficient(values, inside, offset)
    lags = (lags + lags[::-1, ::-1, ::-1]) / 2
    significant = np.where(np.abs(lags) > 4 * error, lags, 0.0)
    return NoiseCorrelation(significant, float(max(significant.sum(), 1.0)))


def _coefficient(values: FloatArray, inside: BoolArray, offset: tuple[int, ...]) -> tuple[float, float]:
    """Correlation coefficient at one offset and its standard error for white noise."""
    here = tuple(slice(max(0, o), n + min(0, o)) for o, n in zip(offset, values.shape, strict=False))
    there = tuple(slice(max(0, -o), n + min(0, -o)) for o, n in zip(offset, values.shape, strict=False))
    both = inside[here] & inside[there]
    count = int(both.sum())
    if count == 0:
        return 0.0, 0.0
    a, b = values[here][both], values[there][both]
    norm = np.sqrt((a**2).sum() * (b**2).sum())
    return (float((a * b).sum() / norm) if norm > 0 else 0.0), 1 / np.sqrt(count)
