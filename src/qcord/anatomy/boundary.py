"""The edge of the cord: one closed curve a slice, smooth along the cord, and its share of each voxel."""

import numpy as np
from scipy import ndimage

from qcord.core.arrays import BoolArray, FloatArray

UNSURE = 0.35
"""Share below which a pixel of the network's output is not part of a cord."""
ANGLES = 48
"""Rays of the curve."""
HARMONICS = 6
"""Waves kept around the curve: enough for a flattened or notched cord, too few for pixel noise."""
STEP = 0.25
"""Distance [mm] between samples on a ray."""
REACH = 14.0
"""Length [mm] of the rays: the widest cord has a half axis of 8 mm, 11 mm when cut at 45 degrees."""
SUBDIVISIONS = 5
"""Points along each side of a voxel that decide its share of cord."""


def only_cord(share: FloatArray) -> FloatArray:
    """Keep the most cord-like connected part of each section, (z, x, y) to (z, x, y).

    The part with the greatest sum of share times a Gaussian about the middle of the section is kept; what lies
    more than one pixel outside it is set to 0.
    """
    n = np.array(share.shape[1:])
    x, y = (np.arange(m) - (m - 1) / 2 for m in n)
    prior = np.exp(-(x[:, None] ** 2 + y[None] ** 2) / (2 * (n[0] / 5) ** 2))
    out = np.zeros_like(share)
    for k, plane in enumerate(share):
        labels, count = ndimage.label(plane > UNSURE)
        if count == 0:
            continue
        mass = ndimage.sum_labels(plane * prior, labels, np.arange(1, count + 1))
        best = labels == 1 + int(np.argmax(mass))
        around = ndimage.binary_dilation(best, iterations=3) & ((labels == 0) | best)
        out[k] = np.where(around, plane, 0)
    return out


def level(share: FloatArray) -> FloatArray:
    """Raise each section so that its inside is 1, (z, x, y): doubt whether it is cord must not make it thinner."""
    inside = share > UNSURE
    count = np.maximum(inside.sum(axis=(1, 2), keepdims=True), 1)
    plateau = np.where(inside, share, 0).sum(axis=(1, 2), keepdims=True) / count
    top = np.where(inside, np.maximum(share - plateau, 0), 0).sum(axis=(1, 2), keepdims=True) / count
    return np.asarray(np.minimum(share / np.clip(plateau + top, UNSURE, 1), 1), dtype=np.float32)


def centres_of(share: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Centre (z, 2) [pixels from the middle] and area (z,) [pixels] of each section's cord."""
    area = share.sum(axis=(1, 2))
    x, y = (np.arange(m) - (m - 1) / 2 for m in share.shape[1:])
    safe = np.maximum(area, 1e-6)
    cx = (share.sum(axis=2) * x).sum(axis=1) / safe
    cy = (share.sum(axis=1) * y).sum(axis=1) / safe
    return np.stack([cx, cy], axis=1), area


def radii_of(share: FloatArray, centres: FloatArray, pixel: float) -> FloatArray:
    """Radius [mm] of the edge along each ray.

    Parameters
    ----------
    share : (z, x, y) array
        Share of cord of each pixel.
    centres : (z, 2) array
        Origin of the rays [pixels from the middle].
    pixel : float
        Pixel size [mm].

    Returns
    -------
    (z, ANGLES) array
        The radius whose sector has the same area as the shares in it, so no threshold biases the area.
    """
    angle = 2 * np.pi * np.arange(ANGLES) / ANGLES
    r = (np.arange(int(REACH / STEP)) + 0.5) * STEP
    ray = np.stack([np.cos(angle)[:, None] * r, np.sin(angle)[:, None] * r]) / pixel
    middle = (np.array(share.shape[1:]) - 1) / 2
    out = np.empty((len(share), ANGLES))
    for k, plane in enumerate(share):
        place = ray + (middle + centres[k])[:, None, None]
        profile = ndimage.map_coordinates(plane, place, order=1, mode="constant")
        out[k] = np.sqrt(2 * (profile * r).sum(axis=1) * STEP)
    return out


def smooth_surface(radii: FloatArray, weight: FloatArray, spread: float) -> FloatArray:
    """Smooth a tube of radii around (few harmonics) and along (Gaussian of ``spread`` slices, weighted)."""
    area = np.fft.rfft(radii**2, axis=1)  # squares keep the area of each section
    area[:, HARMONICS + 1 :] = 0
    squares = np.fft.irfft(area, n=radii.shape[1], axis=1)
    if spread > 0.2:
        w = np.maximum(weight, 1e-6)[:, None]
        squares = ndimage.gaussian_filter1d(squares * w, spread, axis=0, mode="constant")
        squares = squares / ndimage.gaussian_filter1d(np.broadcast_to(w, radii.shape), spread, axis=0, mode="constant")
    return np.asarray(np.sqrt(np.maximum(squares, 0)))


def cover(
    radii: FloatArray,
    places: FloatArray,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    keep: BoolArray,
) -> FloatArray:
    """Share of each voxel inside the curves.

    Parameters
    ----------
    radii : (z, ANGLES) array
        Edge of each slice [mm].
    places : (z, 2) array
        Voxel index of the origin of the rays.
    shape, spacing : tuple
        Grid of the result.
    keep : (z,) array
        Slices to draw.

    Returns
    -------
    (x, y, z) float32 array
    """
    out = np.zeros(shape, dtype=np.float32)
    sub = (np.arange(SUBDIVISIONS) + 0.5) / SUBDIVISIONS - 0.5
    for k in np.flatnonzero(keep):
        reach = radii[k].max() + 1
        low = [max(0, int(np.floor(places[k, a] - reach / spacing[a]))) for a in (0, 1)]
        high = [min(shape[a], int(np.ceil(places[k, a] + reach / spacing[a])) + 1) for a in (0, 1)]
        if high[0] <= low[0] or high[1] <= low[1]:
            continue
        axes = [((np.arange(low[a], high[a])[:, None] + sub).ravel() - places[k, a]) * spacing[a] for a in (0, 1)]
        x, y = np.meshgrid(axes[0], axes[1], indexing="ij")
        turn = np.arctan2(y, x) * (ANGLES / (2 * np.pi)) % ANGLES
        edge = np.interp(turn, np.arange(ANGLES + 1), np.append(radii[k], radii[k, 0]))
        hit = (x * x + y * y < edge * edge).astype(np.float32)
        size = (high[0] - low[0], SUBDIVISIONS, high[1] - low[1], SUBDIVISIONS)
        out[low[0] : high[0], low[1] : high[1], k] = hit.reshape(size).mean(axis=(1, 3))
    return out
