"""Noise of images that were taken once: single contrasts, pairs, triplets."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from qcord.core.arrays import AnyArray, BoolArray, FloatArray
from qcord.core.errors import EmptyRegion
from qcord.core.image import Image, Step, mask_of
from qcord.preprocess import missing, noise_floor, noise_spectrum
from qcord.preprocess.noise_correlation import NoiseCorrelation, correlation_of_spectrum
from qcord.preprocess.noise_spectrum import Tiles
from qcord.preprocess.threads import one_blas_thread

TISSUE = 0.3
"""Share of the brightest tenth of the image above which a voxel is taken for tissue rather than air."""

NEIGHBOURS = 2
"""Tiles on either side that share one value of the noise map; half tiles of 8 voxels make that some 4 cm."""

FEWEST = 40
"""Tiles below which a place takes the value of the whole image: a fifth of them are quiet, of some 40 degrees of
freedom each, which leaves 5 % error of sigma."""

REFERENCES = (
    "Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618",
    "Koay and Basser 2006, doi:10.1016/j.jmr.2006.01.016",
)


@dataclass(frozen=True, eq=False)
class NoiseEstimate:
    """Noise of an image.

    Parameters
    ----------
    sigma : Image
        Standard deviation of one voxel of one volume, (x, y, z), unit of the signal.
    correlation : NoiseCorrelation
        How neighbouring voxels go together.
    """

    sigma: Image
    correlation: NoiseCorrelation


def estimate_noise(image: Image, mask: Image | None = None) -> NoiseEstimate:
    """Estimate the noise of an image from its highest spatial frequencies.

    Small tiles with little structure are compared with nothing (one volume) or with each other (two or more volumes
    of equal noise: magnetisation transfer on and off, repeats), where whatever both share is taken out. Images that
    were interpolated by zeros, or filtered, hold little noise at the highest frequencies: the noise is read inside
    the acquired k-space, and the correlation that follows is returned with it.

    Parameters
    ----------
    image : Image
        Magnitudes, (x, y, z) or (x, y, z, n), before any resampling; the n volumes have the same scaling and coil.
        Voxels that are not finite in a volume, or 0 amidst tissue, are missing.
    mask : Image, optional
        Where to read the noise; by default in tissue.

    Returns
    -------
    NoiseEstimate
        With several volumes a map that varies over some 4 cm; with one volume a constant.

    Raises
    ------
    EmptyRegion
        If no tile of the image lies in tissue or mask.

    Notes
    -----
    On simulated necks the estimate of a pair is right to 10 % at a signal-to-noise ratio of 10, up to 40 % high at 30
    (a triplet: 20 %), and 20 to 120 % high at 65, where fine structure outweighs noise. That of a single image is
    right to 25 % at 10, and 1.2 to 3 times too high at 30: an upper bound. Half a voxel of motion between the volumes
    adds half to sigma: correct motion first (`qcord.preprocess.motion.correct_motion` leaves the noise as it was).
    Smoothing by a gaussian can hardly be told from the fall of the anatomy: the factor is then too low by half.
    """
    data = image.data if image.data.ndim == 4 else image.data[..., None]
    finite = np.asarray(np.isfinite(data).all(axis=-1))
    volumes = np.where(finite[..., None], data, 0).astype(np.float32)
    chosen = None if mask is None else mask_of(mask, image.grid)
    known = finite & ~missing.holes(volumes, finite)
    if not known.all():
        volumes = missing.filled(volumes, known)
    inside = _tissue(np.nan_to_num(volumes), known) if chosen is None else chosen & known
    with one_blas_thread():
        tiles = noise_spectrum.tiles_of(volumes, inside, None if known.all() else known)
    if len(tiles.mean) < 1 or not (tiles.power > 0).any():
        raise EmptyRegion(
            f"{image.label} has no patch of {noise_spectrum.TILE} voxels of tissue to read the noise from; "
            "give a larger mask, or the noise level itself."
        )
    noise, level = noise_spectrum.noise_part(noise_spectrum.quiet_spectrum(tiles))
    spread = float(np.sqrt(noise.mean()))
    several = volumes.shape[-1] > 1
    relative = _level_map(tiles, noise, image.grid.shape) if several else np.ones(image.grid.shape)
    field = _without_floor(spread * np.sqrt(relative), float(np.median(tiles.mean)))
    step = Step("estimate_noise", {"volumes": int(volumes.shape[-1]), "tiles": len(tiles.mean)}, REFERENCES)
    return NoiseEstimate(image.derive(field.astype(np.float32), step), correlation_of_spectrum(noise, level))


def _tissue(volumes: AnyArray, finite: BoolArray) -> BoolArray:
    """Voxels whose surroundings are well above the air in every volume."""
    inside = finite
    for v in range(volumes.shape[-1]):
        smooth = ndimage.uniform_filter(volumes[..., v], (3, 3, 1))
        inside = inside & (smooth > TISSUE * np.quantile(smooth[finite], 0.9)) if finite.any() else inside
    return np.asarray(inside)


def _level_map(tiles: Tiles, noise: FloatArray, shape: tuple[int, int, int]) -> FloatArray:
    """Noise variance relative to that of the whole image, smooth in plane and equal in all slices."""
    half = noise.shape[0] // 2
    level = noise_spectrum.relative_level(tiles, noise)
    cell = tiles.place[:, :2] // half
    quiet = tiles.structure <= np.quantile(tiles.structure, noise_spectrum.QUIET)
    whole = float(level[quiet].mean())
    size = tuple(max(1, (n - noise.shape[0]) // half + 1) for n in shape[:2])
    field = np.full(size, whole)
    for i, j in np.ndindex(size):
        near = (np.abs(cell - [i, j]) <= NEIGHBOURS).all(axis=1)
        if near.sum() >= FEWEST:
            limit = np.quantile(tiles.structure[near], noise_spectrum.QUIET)
            field[i, j] = level[near & (tiles.structure <= limit)].mean()
    field = ndimage.gaussian_filter(field / whole, 1.0, mode="nearest")
    x, y = ((np.arange(n) - half + 0.5) / half for n in shape[:2])
    plane = ndimage.map_coordinates(field, np.meshgrid(x, y, indexing="ij"), order=1, mode="nearest")
    return np.repeat(plane[..., None], shape[2], axis=2)


def _without_floor(spread: FloatArray, mean: float) -> FloatArray:
    """Noise of each channel from the spread of magnitudes around a mean."""
    sigma = spread
    for _ in range(6):
        sigma = spread / np.sqrt(noise_floor.variance_fraction(mean / np.maximum(sigma, 1e-30)))
    return np.asarray(sigma)
