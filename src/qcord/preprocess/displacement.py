"""Displacement of slices against references of any contrast, each with its error."""

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from qcord.core.arrays import AnyArray, BoolArray, FloatArray

STEPS = 4
"""Gauss-Newton steps in one call; each at least halves the rest, and calls are repeated with better references."""

APART = (4, 9)
"""Least and largest displacement [voxel] at which chance agreement is sampled: beyond the edge of the cord, within the
neighbourhood of the cord."""

LEAST_EVIDENCE = 10.0
"""Chi-square of the references' part below which a slice does not show what they show: chance reaches it in less than
one slice of a hundred with two factors."""

LONGEST_STEP = 1.0
"""Largest step [voxel]: the tangent of an edge holds no further."""


@dataclass(frozen=True, eq=False)
class Frames:
    """Slices within a window, as spectra of their mirrored continuation.

    Parameters
    ----------
    spectrum : (n, z, 2 x, y + 1) complex array
        Of the smoothed slices.
    shape : tuple of int
        x, y of the window.
    width : float
        Standard deviation [voxel] of the gaussian that smoothed them.
    """

    spectrum: AnyArray
    shape: tuple[int, int]
    width: float

    @classmethod
    def of(cls, slices: FloatArray, width: float) -> "Frames":
        """Smooth slices (n, z, x, y) by a gaussian of standard deviation ``width`` [voxel]."""
        mirrored = np.concatenate([slices, slices[..., ::-1, :]], axis=-2)
        mirrored = np.concatenate([mirrored, mirrored[..., ::-1]], axis=-1)
        kx, ky = np.fft.fftfreq(mirrored.shape[-2]), np.fft.rfftfreq(mirrored.shape[-1])
        low = np.exp(-2 * (np.pi * width) ** 2 * (kx[:, None] ** 2 + ky[None] ** 2))
        spectrum = fft.rfft2(mirrored.astype(np.float32)) * low.astype(np.float32)
        return cls(spectrum, (slices.shape[-2], slices.shape[-1]), width)

    def at(self, shift: FloatArray) -> FloatArray:
        """Slices seen from positions moved by shift (n, z, 2) [voxel]: ``value(place + shift)``."""
        kx, ky = self._frequencies()
        phase_x = np.exp(2j * np.pi * shift[..., 0, None] * kx).astype(np.complex64)
        phase_y = np.exp(2j * np.pi * shift[..., 1, None] * ky).astype(np.complex64)
        return self._back(self.spectrum * phase_x[..., :, None] * phase_y[..., None, :])

    def _frequencies(self) -> tuple[FloatArray, FloatArray]:
        return np.fft.fftfreq(2 * self.shape[0]), np.fft.rfftfreq(2 * self.shape[1])

    def _back(self, spectrum: AnyArray) -> FloatArray:
        full = fft.irfft2(spectrum, (2 * self.shape[0], 2 * self.shape[1]))
        return np.asarray(full[..., : self.shape[0], : self.shape[1]])


@dataclass(frozen=True, eq=False)
class Measured:
    """Displacement of slices.

    Parameters
    ----------
    shift : (n, z, 2) array
        Where the content of a slice lies, relative to the reference [voxel].
    variance : (n, z, 2) array
        Of the shift, from what the references do not explain, at least from the noise.
    """

    shift: FloatArray
    variance: FloatArray


def measure(
    moving: Frames, references: FloatArray, weight: FloatArray, start: FloatArray, *, pooled: bool, noise: FloatArray
) -> Measured:
    """Find the displacement at which references explain the slices best, by weighted least squares.

    Each slice is taken for a sum of reference images, constant included, whose factors are fitted with the shift: so
    an image may be brighter, darker or of inverted contrast. The slopes come from the references, which are less
    noisy than a slice: noise in the slopes would pull the estimate to zero.

    Parameters
    ----------
    moving : Frames
        n volumes of z slices.
    references : (n or 1, z, k, x, y) array
        Smoothed like the slices.
    weight : (z, x, y) array
        Trust in each voxel.
    start : (n, z, 2) array
        First guess [voxel].
    pooled : bool
        Whether all slices of a volume move together.
    noise : (z,) array
        Least variance of the noise of the slices before they were smoothed; zero if not known. What the references
        do not explain counts where it is more.

    Returns
    -------
    Measured
        Variances are infinite where the references have no slope, or do not appear in the slice.
    """
    basis = _basis(references)
    weighted = basis * weight[:, None].astype(np.float32)
    gram = np.einsum("nzaxy,nzbxy->nzab", basis, weighted, optimize=True)
    shift = np.array(start, dtype=float)
    for _ in range(STEPS):
        normal, right, _, _ = _moments(gram, weighted, moving.at(shift))
        step, _ = _solve(normal, right, pooled)
        shift = shift + step
    seen = moving.at(shift)
    normal, right, factors, free = _moments(gram, weighted, seen)
    step, _ = _solve(normal, right, pooled)
    k = basis.shape[2] // 3
    rest = seen - np.einsum("nza,nzaxy->nzxy", factors, basis[:, :, :k], optimize=True)
    scatter = _scatter(rest, np.einsum("nzai,nzaxy->nzixy", free, weighted, optimize=True))
    if noise.any():
        spread = _spread(weighted.mean(axis=0), moving.width)
        scatter = np.maximum(scatter, np.einsum("nzai,zab,nzbi->nzi", free, spread, free) * noise[:, None])
    seen_at_all = _evidence(seen, rest, weight, moving.width, pooled) > LEAST_EVIDENCE
    return Measured(shift + step, np.where(seen_at_all[..., None], _variance(normal, scatter, pooled), np.inf))


def _evidence(seen: FloatArray, rest: FloatArray, weight: FloatArray, width: float, pooled: bool) -> FloatArray:
    """Power that the references explain over what chance would explain with one factor, (n, z)."""
    total = weight.sum(axis=(-1, -2))
    mean = np.einsum("zxy,nzxy->nz", weight, seen) / np.maximum(total, 1e-30)
    before = np.einsum("zxy,nzxy,nzxy->nz", weight, seen, seen, optimize=True) - mean**2 * total
    after = np.einsum("zxy,nzxy,nzxy->nz", weight, rest, rest, optimize=True)
    # Smoothing joins 4 pi width^2 voxels into one that is independent.
    independent = total**2 / np.maximum((weight**2).sum(axis=(-1, -2)), 1e-30) / max(1.0, 4 * np.pi * width**2)
    explained = np.maximum(before - after, 0) / np.maximum(after, 1e-30) * independent
    return np.broadcast_to(explained.sum(axis=1, keepdims=True), seen.shape[:2]) if pooled else explained


def _scatter(rest: FloatArray, slopes: FloatArray) -> FloatArray:
    """Variance (n, z, 2) of sums of weighted slopes times what the references leave unexplained.

    Noise that was smoothed, and changes of the tissue such as pulsating fluid, hang together over several voxels. What
    they add to the sums by chance is seen when one of the two is displaced by `APART` voxels against the other.
    """
    x, y = rest.shape[-2:]
    size = (fft.next_fast_len(x + APART[1], True), fft.next_fast_len(y + APART[1], True))
    i, j = (np.fft.fftfreq(m, 1 / m) for m in size)
    distance = np.hypot(i[:, None], j[None])
    apart = (distance >= APART[0]) & (distance <= APART[1])
    left = fft.rfft2(rest.astype(np.float32), size)
    right = fft.rfft2(slopes.astype(np.float32), size)
    sums = fft.irfft2(left[:, :, None].conj() * right, size)
    return np.asarray((sums[..., apart].astype(float) ** 2).mean(axis=-1))


def _basis(references: FloatArray) -> FloatArray:
    """Constant and references, then their slopes along x and y: (n, z, 3 (k + 1), x, y)."""
    full = np.concatenate([np.ones_like(references[:, :, :1]), references], axis=2)
    slopes = np.gradient(full, axis=(-2, -1))
    return np.concatenate([full, *slopes], axis=2).astype(np.float32)


def _spread(weighted: FloatArray, width: float) -> FloatArray:
    """Covariance (z, a, a) of sums of weighted noise of unit variance that was smoothed, for the mean reference."""
    smooth = ndimage.gaussian_filter(weighted.astype(float), (0, 0, width, width), mode="constant", truncate=4.0)
    return np.asarray(np.einsum("zaxy,zbxy->zab", smooth, smooth, optimize=True))


def _moments(
    gram: FloatArray, weighted: FloatArray, seen: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Normal equations of the shift with the factors eliminated.

    Returns matrix (n, z, 2, 2), right side (n, z, 2), factors (n, z, k), and the coefficients (n, z, a, 2) of the
    slopes of the fitted sum, freed of what constant and references explain by themselves.
    """
    k = weighted.shape[2] // 3
    product = np.einsum("nzaxy,nzxy->nza", weighted, seen, optimize=True).astype(float)
    own = np.broadcast_to(gram, (len(product), *gram.shape[1:])).astype(float)
    corner = own[..., :k, :k]
    size = np.trace(corner, axis1=-2, axis2=-1)[..., None, None]
    corner = corner + (1e-9 * size + 1e-30) * np.eye(k)
    factors = np.linalg.solve(corner, product[..., :k, None])[..., 0]
    slopes = np.zeros((*product.shape, 2))
    slopes[..., k : 2 * k, 0] = slopes[..., 2 * k :, 1] = factors
    free = slopes.copy()
    free[..., :k, :] -= np.linalg.solve(corner, (own @ slopes)[..., :k, :])
    normal = free.swapaxes(-1, -2) @ own @ free
    # Content that has moved by +s appears at place + s: the residual is minus shift times slope.
    explained = own[..., :k] @ factors[..., None]
    right = -(free.swapaxes(-1, -2) @ (product[..., None] - explained))[..., 0]
    return normal, right, factors, free


def _inverse(normal: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Inverse of 2 x 2 matrices, and whether it exists."""
    xx, yy, xy = normal[..., 0, 0], normal[..., 1, 1], normal[..., 0, 1]
    det = xx * yy - xy**2
    sound = det > 1e-6 * np.maximum(xx * yy, 1e-300)
    safe = np.where(sound, det, 1.0)[..., None, None]
    inverse = np.stack([np.stack([yy, -xy], axis=-1), np.stack([-xy, xx], axis=-1)], axis=-2) / safe
    return inverse, sound


def _solve(normal: FloatArray, right: FloatArray, pooled: bool) -> tuple[FloatArray, BoolArray]:
    """Step (n, z, 2) and whether it is determined; over all slices if they move together."""
    if pooled:
        normal = np.broadcast_to(normal.sum(axis=1, keepdims=True), normal.shape)
        right = np.broadcast_to(right.sum(axis=1, keepdims=True), right.shape)
    inverse, sound = _inverse(normal)
    step = np.where(sound[..., None], (inverse @ right[..., None])[..., 0], 0.0)
    return np.clip(step, -LONGEST_STEP, LONGEST_STEP), sound


def _variance(normal: FloatArray, scatter: FloatArray, pooled: bool) -> FloatArray:
    """Variance (n, z, 2) of the solution from that of its right side."""
    if pooled:
        normal = np.broadcast_to(normal.sum(axis=1, keepdims=True), normal.shape)
        scatter = np.broadcast_to(scatter.sum(axis=1, keepdims=True), scatter.shape)
    inverse, sound = _inverse(normal)
    return np.where(sound[..., None], (inverse**2 @ scatter[..., None])[..., 0], np.inf)
