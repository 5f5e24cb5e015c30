"""Noise-free scans painted from ellipses, and what a scanner makes of them: truth for the tests of cleaning."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.protocol import Protocol
from qcord.core.series import Series

PIXEL, THICK = 0.9, 5.0
FINE = 3


def grid_of(shape):
    return Grid(shape, np.diag([PIXEL, PIXEL, THICK, 1.0]))


def image_of(data):
    return Image(np.asarray(data), grid_of(data.shape[:3]))


def directions(n):
    """Half a sphere, evenly."""
    k = np.arange(n) + 0.5
    height, turn = 1 - k / n, np.pi * (1 + 5**0.5) * k
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)


def protocol_of(n_directions=30, n_b0=5, b=800.0, seed=0):
    """One b = 0 volume first, the others last; directions in random order."""
    order = np.random.default_rng(seed).permutation(n_directions)
    weighted = directions(n_directions)[order]
    b_values = np.r_[0.0, np.full(n_directions, b), np.zeros(n_b0 - 1)]
    rows = np.concatenate([np.zeros((1, 3)), weighted, np.zeros((n_b0 - 1, 3))])
    return Protocol({"BValue": b_values, "Direction": rows}, "painted.bval and painted.bvec")


@dataclass(frozen=True)
class Painted:
    """Noise-free series and the fraction of each voxel that is cord (at its mean place)."""

    series: Series
    cord: np.ndarray


def diffusion(shape=(48, 32, 9), *, protocol=None, shift=None, seed=0, pulsation=0.0, field=0.02):
    """A cord of smoothly varying tensors in its canal, within muscle that a zoomed field of view fades out.

    shift (n, z, 2) displaces the cord [mm]; the canal stays. pulsation scatters the fluid of each slice and volume.
    """
    protocol = protocol_of() if protocol is None else protocol
    generator = np.random.default_rng(seed)
    b, g = protocol["BValue"], protocol["Direction"]
    n = len(b)
    shift = np.zeros((n, shape[2], 2)) if shift is None else shift
    x0, y0 = ((np.arange(s * FINE) - s * FINE / 2 + 0.5) * PIXEL / FINE for s in shape[:2])
    x0, y0 = np.meshgrid(x0, y0, indexing="ij")

    def smooth(scale):
        rough = generator.standard_normal(x0.shape)
        return ndimage.gaussian_filter(rough, scale * FINE) * 2 * np.sqrt(np.pi) * scale * FINE

    out, cord = np.zeros((*shape, n)), np.zeros(shape)
    for k in range(shape[2]):
        centre = np.array([1.5 * np.sin(k / 5), 2 * np.cos(k / 6)])
        axis = np.stack([0.15 * smooth(3), 0.15 * smooth(3), np.ones_like(x0)], axis=-1)
        axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
        radial, axial = 0.38e-3 * (1 + 0.08 * smooth(4)), 1.9e-3 * (1 + 0.05 * smooth(4))
        muscle = np.clip(0.35 + 0.2 * smooth(4), field, None) * np.exp(-(np.clip(np.abs(y0) - 11, 0, None) ** 2) / 8)
        canal = _ellipse(x0 - centre[0], y0 - centre[1], 9.5, 6.5)
        cord[:, :, k] = _coarse(_ellipse(x0 - centre[0], y0 - centre[1], 6.4, 4.0).astype(float), shape)
        for v in range(n):
            x, y = x0 - centre[0] - shift[v, k, 0], y0 - centre[1] - shift[v, k, 1]
            inside, gray = _ellipse(x, y, 6.4, 4.0), _gray(x, y)
            along = (axis @ g[v]) ** 2
            fluid = 2.2 * (1 + pulsation * generator.standard_normal()) * np.exp(-b[v] * 3e-3)
            tissue = muscle * np.exp(-b[v] * (1.3e-3 + 0.3e-3 * g[v, 0] ** 2))
            white = np.exp(-b[v] * (radial + (axial - radial) * along))
            dark = 1.15 * np.exp(-b[v] * (0.6e-3 + 0.8e-3 * along))
            fine = np.where(inside, np.where(gray, dark, white), np.where(canal, fluid, tissue))
            out[:, :, k, v] = _coarse(fine, shape)
    return Painted(Series(image_of(out), protocol), cord)


def transfer(shape=(96, 96, 6), *, shift=None, seed=0):
    """Muscle, fat, bone, fluid, cord and vessels with MT off, MT on, and T1-weighted; fluid and cord swap rank.

    Painted with twice the resolution, (2 x, 2 y, z, 3), for `scan`; shift (3, z, 2) [mm] displaces all of it.
    """
    generator = np.random.default_rng(seed)
    fine = (2 * shape[0], 2 * shape[1])
    shift = np.zeros((3, shape[2], 2)) if shift is None else shift
    x0, y0 = np.meshgrid(*((np.arange(n) - n / 2 + 0.5) * PIXEL / 2 for n in fine), indexing="ij")
    half = PIXEL * shape[0] / 2
    # one column a tissue: muscle, fat, bone, fluid, cord, gray matter, vessel
    values = np.array([[1, 1.4, 0.25, 0.9, 1, 1.1, 1.6], [0.6, 1.35, 0.22, 0.88, 0.5, 0.6, 1.5]])
    values = np.vstack([values, [0.8, 1.8, 0.3, 0.4, 0.8, 0.8, 1.9]])
    out = np.zeros((*fine, shape[2], 3))
    for k in range(shape[2]):
        rough = [ndimage.gaussian_filter(generator.standard_normal(fine), s) for s in (7, 4, 4)]
        rough = [r / r.std() for r in rough]
        texture = 1 + 0.03 * ndimage.gaussian_filter(generator.standard_normal(fine), 1.5) * 5
        label = np.zeros(fine, dtype=int)
        label[(rough[0] > 1) | (np.abs(rough[0]) < 0.06)] = 1
        label[(rough[1] < -1.6) & (y0 > 0)] = 2
        label[rough[2] > 2.3] = 6
        for code, (a, b) in {2: (14, 13), 3: (9.5, 6.5), 4: (6.4, 4.0)}.items():
            label[_ellipse(x0, y0, a, b)] = code
        label[_gray(x0, y0)] = 5
        body = _ellipse(x0, y0, 0.8 * half, 0.72 * half)
        bias = 0.6 + 0.6 * np.exp(-(x0**2 + (y0 + half / 2) ** 2) / half**2)
        for v in range(3):
            painted = np.where(body, values[v][label] * texture * bias, 0)
            out[:, :, k, v] = ndimage.shift(painted, 2 * shift[v, k] / PIXEL, order=1)
    return out


def scan(painted, sigma, *, acquired=(1.0, 1.0), coil=None, seed=0):
    """What a scanner makes of an object painted with twice the resolution.

    Fourier transform, the acquired part of k-space (the rest is filled with zeros), complex noise, magnitude.
    Returns magnitudes, the noise-free ones, and the standard deviation of a channel in a voxel.
    """
    generator = np.random.default_rng(seed)
    nx, ny = painted.shape[0] // 2, painted.shape[1] // 2
    kx, ky = (np.abs(np.fft.fftfreq(n)) * 2 for n in (nx, ny))
    kept = ((kx[:, None] <= acquired[0]) & (ky[None] <= acquired[1]))[..., None]
    x, y = np.linspace(-1, 1, 2 * nx)[:, None, None], np.linspace(-1, 1, 2 * ny)[None, :, None]
    phase = np.exp(1j * (0.8 * x + 1.5 * y**2 + 0.5 * x * y))
    flat = painted.reshape(2 * nx, 2 * ny, -1)
    full = np.fft.fftshift(np.fft.fft2(flat * phase, axes=(0, 1)), axes=(0, 1))
    low = np.fft.ifftshift(full[nx // 2 : nx // 2 + nx, ny // 2 : ny // 2 + ny], axes=(0, 1)) / 4
    shape = (nx, ny, flat.shape[2])
    noise = generator.standard_normal(shape) + 1j * generator.standard_normal(shape)
    noise = np.fft.ifft2(np.fft.fft2(noise, axes=(0, 1)) * kept, axes=(0, 1)) * sigma
    noise = noise if coil is None else noise * coil[..., None]
    clean = np.fft.ifft2(low * kept, axes=(0, 1))
    size = (nx, ny, *painted.shape[2:])
    return np.abs(clean + noise).reshape(size), np.abs(clean).reshape(size), sigma * np.sqrt(kept.mean())


def rician(clean, sigma, seed):
    """Magnitudes with noise; sigma broadcasts over the volumes."""
    generator = np.random.default_rng(seed)
    sigma = np.asarray(sigma)[..., None] if np.ndim(sigma) == 3 else sigma
    real = clean + sigma * generator.standard_normal(clean.shape)
    return np.hypot(real, sigma * generator.standard_normal(clean.shape))


def _ellipse(x, y, a, b):
    return (x / a) ** 2 + (y / b) ** 2 <= 1


def _gray(x, y):
    return _ellipse(np.abs(x) - 2.0, y, 0.9, 2.6) | ((np.abs(x) < 2) & (np.abs(y) < 0.5))


def _coarse(fine, shape):
    return fine.reshape(shape[0], FINE, shape[1], FINE).mean(axis=(1, 3))
