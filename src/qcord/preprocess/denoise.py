"""Denoising of a series by its principal components, with the noise map that comes with it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import ndimage

from qcord.core.arrays import AnyArray, BoolArray, FloatArray, IntArray
from qcord.core.errors import EmptyRegion, ImplausibleValue, NotIdentifiable
from qcord.core.image import Image, Step
from qcord.core.series import Series
from qcord.preprocess import marchenko_pastur, noise_floor
from qcord.preprocess.checks import require_values
from qcord.preprocess.threads import map_in_order

MIN_VOLUMES = 8
"""Fewer volumes leave no spectrum of noise to tell from the signal: a tensor alone has seven components."""

WINDOWS = ((5, 5, 3), (5, 5, 5), (7, 7, 5), (7, 7, 7), (9, 9, 7), (9, 9, 9))
"""Patches to choose from. In plane 5 voxels cover the cord; along it anatomy and breathing differ by slice, so depth
comes last."""

BATCH_BYTES = 4_000_000
"""Size of a batch of patches: within the second-level cache of two threads."""


CALM = 4.0
"""Standard deviation [mm] of the smoothing of the noise map. Noise changes with the sensitivity of coils, over
centimetres; what changes over less is the share of signal that was taken for noise at the edge of the cord."""


@dataclass(frozen=True, eq=False)
class Denoised:
    """A series without the noise that its principal components can tell from signal.

    Parameters
    ----------
    series : Series
        Denoised data, float32, same unit.
    sigma : Image
        Standard deviation of the noise before denoising, (x, y, z), unit of the signal; NaN where nothing was
        measured. For magnitude data that of each channel (`qcord.core.noise.Rician`), which exceeds the spread of
        the magnitudes where the signal is low.
    components : Image
        Mean number of components that were kept, (x, y, z).
    """

    series: Series
    sigma: Image
    components: Image


def denoise(
    series: Series,
    *,
    window: tuple[int, int, int] | None = None,
    magnitude: bool | None = None,
    threads: int | None = None,
) -> Denoised:
    """Remove from patches of a series the principal components that hold only noise (MP-PCA).

    Overlapping patches are averaged, those with fewer components weighing more. Components are kept whole:
    shrinking them lowers the voxel's error a little and pulls the contrast between tissues towards their mean.
    Must come before any step that interpolates, since the law of its noise is that of independent voxels.

    Parameters
    ----------
    series : Series
        Data of shape (x, y, z, n), at least `MIN_VOLUMES` volumes, any number type. Voxels that are zero in every
        volume, or not finite in one, take no part and stay as they are.
    window : tuple of int, optional
        Size of the patches in voxels; by default the smallest of `WINDOWS` with a quarter more voxels than
        volumes, wider where the image has few slices.
    magnitude : bool, optional
        Whether the noise is that of magnitude images; by default if no value is negative.
    threads : int, optional
        Number of threads; the result does not depend on it.

    Returns
    -------
    Denoised
        Series, noise map, number of components.

    Raises
    ------
    NotIdentifiable
        With fewer volumes than `MIN_VOLUMES`.
    ImplausibleValue
        If a whole volume is not finite, or the window does not fit.
    EmptyRegion
        If no voxel holds data.

    Notes
    -----
    At a signal-to-noise ratio of 5 and less the components that hold the contrast between white and gray matter
    sink below the noise and are lost: the denoised values of neighbours then approach each other.

    References
    ----------
    Veraart et al. 2016, doi:10.1016/j.neuroimage.2016.08.016.
    Cordero-Grande et al. 2019, doi:10.1016/j.neuroimage.2019.06.039.
    Manjon et al. 2013, doi:10.1371/journal.pone.0073021 (weights of overlapping patches).
    Koay and Basser 2006, doi:10.1016/j.jmr.2006.01.016 (sigma of magnitude images).
    """
    data = series.data
    _require_volumes(series)
    valid = np.isfinite(data).all(axis=-1) & (data != 0).any(axis=-1)
    if not valid.any():
        raise EmptyRegion(f"{series.image.label} holds no voxel with finite values other than zero; check the file.")
    size = _window_for(valid.shape, data.shape[-1]) if window is None else _checked(window, valid.shape)
    clean, variance, components = _project(np.where(valid[..., None], data, 0), valid, size, threads)
    done = np.isfinite(variance)
    floor = bool(data[done].min(initial=0) >= 0) if magnitude is None else magnitude
    spread = np.sqrt(variance)
    sigma = spread
    if floor:
        sigma = _smooth(_sigma_of_magnitude(spread, clean, size), np.array(series.image.grid.spacing))
    values = np.where(done[..., None], clean, data).astype(np.float32)
    step = Step(
        "denoise",
        {"window": list(size), "magnitude": floor},
        (*marchenko_pastur.REFERENCES, "Manjon et al. 2013, doi:10.1371/journal.pone.0073021")
        + (noise_floor.REFERENCES if floor else ()),
    )
    image = series.image
    return Denoised(
        Series(image.derive(values, step), series.protocol),
        image.derive(sigma.astype(np.float32), step),
        image.derive(components.astype(np.float32), step, unit="1"),
    )


def _require_volumes(series: Series) -> None:
    """Raise unless there are enough volumes and each holds finite values."""
    n = series.image.n_volumes
    label = series.image.label
    if n < MIN_VOLUMES:
        raise NotIdentifiable(
            f"{label} has {n} volumes, denoising by principal components needs at least {MIN_VOLUMES}; "
            "leave it out and take the noise level from estimate_noise."
        )
    require_values(series)


def _window_for(shape: tuple[int, ...], volumes: int) -> tuple[int, int, int]:
    """Smallest patch with a quarter more voxels than volumes; grows in plane where slices are few."""
    needed = 1.25 * volumes
    for extra in range(0, max(shape), 2):
        for window in WINDOWS:
            x, y, z = (min(w + e, s) for w, e, s in zip(window, (extra, extra, 0), shape, strict=True))
            if x * y * z >= needed:
                return x, y, z
    return shape[0], shape[1], shape[2]


def _checked(window: tuple[int, int, int], shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Raise unless the window fits into the image and holds at least two voxels."""
    if len(window) != 3 or any(w < 1 or w > s for w, s in zip(window, shape, strict=False)) or np.prod(window) < 2:
        raise ImplausibleValue(
            f"The window is {tuple(window)}, expected three sizes from 1 up to those of the image {tuple(shape)}, "
            "with more than one voxel in all."
        )
    return int(window[0]), int(window[1]), int(window[2])


def _project(
    data: AnyArray, valid: BoolArray, window: tuple[int, int, int], threads: int | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weighted mean of the denoised patches, and of their noise variance and rank; NaN where no patch reaches."""
    shape, volumes = data.shape[:3], data.shape[3]
    flat = np.ascontiguousarray(data.reshape(-1, volumes), dtype=np.float32)
    offsets = np.asarray(np.ravel_multi_index(tuple(np.indices(window).reshape(3, -1)), shape))
    counted = valid.reshape(-1)
    work = partial(_denoise_batch, flat, counted, offsets)
    sums = np.zeros((len(flat), volumes))
    totals = np.zeros((3, len(flat)))
    for rows, patches, weight, variance, rank in map_in_order(work, _batches(shape, window, volumes), threads):
        for k, row in enumerate(rows):
            sums[row] += patches[k]
            totals[:, row] += np.array([weight[k], weight[k] * variance[k], weight[k] * rank[k]])[:, None]
    totals[:, ~counted] = 0
    with np.errstate(invalid="ignore", divide="ignore"):
        clean = (sums / totals[0][:, None]).reshape(data.shape)
        variance, rank = (totals[1:] / totals[0]).reshape(2, *shape)
    return clean, variance, rank


def _batches(shape: tuple[int, ...], window: tuple[int, int, int], volumes: int) -> Iterator[IntArray]:
    """Flat index of the first voxel of each patch, in batches; neighbours overlap by half."""
    starts = []
    for n, w in zip(shape, window, strict=True):
        regular = np.arange(0, n - w + 1, max(1, w // 2))
        starts.append(np.union1d(regular, n - w))
    corners = np.ravel_multi_index(np.meshgrid(*starts, indexing="ij"), shape).ravel()
    per_batch = max(1, BATCH_BYTES // (8 * volumes * int(np.prod(window))))
    for first in range(0, len(corners), per_batch):
        yield corners[first : first + per_batch]


def _denoise_batch(
    flat: FloatArray, counted: BoolArray, offsets: IntArray, corners: IntArray
) -> tuple[IntArray, FloatArray, FloatArray, FloatArray, IntArray]:
    """Denoise some patches: their voxels, weighted values (b, w, n), weight, noise variance and rank."""
    rows = corners[:, None] + offsets
    filled = counted[rows].sum(axis=1)
    # A patch with fewer rows than this has too few degrees of freedom for a spectrum.
    rows = rows[filled >= MIN_VOLUMES]
    patches = flat[rows].astype(float)
    values, vectors = np.linalg.eigh(patches.swapaxes(1, 2) @ patches)
    rank, variance = marchenko_pastur.split_spectrum(values, filled[filled >= MIN_VOLUMES].astype(float))
    weight = 1.0 / (1.0 + rank)
    m = flat.shape[1]
    kept = np.where(np.arange(m) >= m - rank[:, None], weight[:, None], 0.0)
    return rows, patches @ ((vectors * kept[:, None, :]) @ vectors.swapaxes(1, 2)), weight, variance, rank


def _smooth(sigma: FloatArray, spacing: FloatArray) -> FloatArray:
    """Average the variance over the neighbourhood `CALM`, where there is any; NaN stays."""
    known = np.isfinite(sigma)
    width = CALM / spacing
    total = ndimage.gaussian_filter(np.where(known, sigma**2, 0.0), width)
    share = ndimage.gaussian_filter(known.astype(float), width)
    return np.where(known, np.sqrt(total / np.maximum(share, 1e-9)), np.nan)


def _sigma_of_magnitude(spread: FloatArray, clean: FloatArray, window: tuple[int, int, int]) -> FloatArray:
    """Noise of each channel from the spread of magnitudes, by bisection between its two limits.

    The spread is that of a neighbourhood of patches, so the share of variance that the modulus leaves is averaged
    over the same neighbourhood.
    """
    known = np.isfinite(spread)
    reach = tuple(2 * w - 1 for w in window)
    share = np.maximum(ndimage.uniform_filter(known.astype(float), reach), 1e-9)
    values = clean[known].astype(np.float32)
    low = spread[known]
    high = low / np.sqrt(float(noise_floor.variance_fraction(0.0)))
    field = np.zeros(spread.shape)
    for _ in range(noise_floor.BISECTIONS):
        middle = (low + high) / 2
        field[known] = noise_floor.variance_fraction(values / middle[:, None].astype(np.float32)).mean(axis=1)
        fraction = (ndimage.uniform_filter(field, reach) / share)[known]
        too_low = middle**2 * fraction < spread[known] ** 2
        low, high = np.where(too_low, middle, low), np.where(too_low, high, middle)
    field[:] = np.nan
    field[known] = (low + high) / 2
    return field
