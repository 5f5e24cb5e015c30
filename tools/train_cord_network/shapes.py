"""Signed distances [mm] of plane figures, and smooth random fields: the pencils of the scene painter."""

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


def ellipse(x: Field, y: Field, centre: tuple[float, float], axes: tuple[float, float]) -> Field:
    """Distance to an ellipse, negative inside; exact to first order near its edge."""
    u, v = (x - centre[0]) / axes[0], (y - centre[1]) / axes[1]
    k1 = np.sqrt(u * u + v * v) + 1e-4
    k2 = np.sqrt((u / axes[0]) ** 2 + (v / axes[1]) ** 2) + 1e-5
    return k1 * (k1 - 1) / k2


def box(x: Field, y: Field, centre: tuple[float, float], half: tuple[float, float], corner: float) -> Field:
    """Distance to a box with rounded corners."""
    u = np.abs(x - centre[0]) - half[0] + corner
    v = np.abs(y - centre[1]) - half[1] + corner
    return np.hypot(np.maximum(u, 0), np.maximum(v, 0)) + np.minimum(np.maximum(u, v), 0) - corner


def capsule(x: Field, y: Field, start: tuple[float, float], stop: tuple[float, float], radius: float) -> Field:
    """Distance to a line of round ends."""
    dx, dy = stop[0] - start[0], stop[1] - start[1]
    t = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy + 1e-6), 0, 1)
    return np.hypot(x - start[0] - t * dx, y - start[1] - t * dy) - radius


def lobed(x: Field, y: Field, axes: tuple[float, float], waves: NDArray[np.float64], power: float = 2.0) -> Field:
    """Distance to a superellipse about the origin whose radius is modulated by a few waves.

    ``waves`` holds rows (order, relative amplitude, phase).
    """
    r = np.hypot(x, y) + 1e-4
    angle = np.arctan2(y, x)
    c, s = np.abs(np.cos(angle)) / axes[0], np.abs(np.sin(angle)) / axes[1]
    edge = (c**power + s**power) ** (-1 / power)
    for order, amplitude, phase in waves:
        edge = edge * (1 + amplitude * np.cos(order * angle - phase))
    slope = np.minimum(1.0, edge / max(axes) + 0.35)
    return (r - edge) * slope


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], spacing: float, length: float) -> Field:
    """Gaussian random field of unit variance and correlation ``length`` [mm]."""
    kx = np.fft.fftfreq(shape[0], spacing)[:, None]
    ky = np.fft.rfftfreq(shape[1], spacing)[None]
    gain = np.exp(-2 * (np.pi * length) ** 2 * (kx * kx + ky * ky))
    white = np.fft.rfft2(rng.standard_normal(shape).astype(np.float32))
    field = np.fft.irfft2(white * gain, s=shape)
    return (field / (field.std() + 1e-9)).astype(np.float32)
