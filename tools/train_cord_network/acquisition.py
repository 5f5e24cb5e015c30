"""What a scanner does to a section: coil, echo train, voxels, ghosts, noise, field of view."""

import numpy as np
from shapes import Field


def draw_bias(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """Smooth sensitivity: a polynomial, and at times a surface coil behind the neck."""
    u, v = x / 60.0, y / 60.0
    c = rng.normal(0, 1, 9) * rng.uniform(0, 0.6)
    log = c[0] * u + c[1] * v + c[2] * u * v + 0.5 * (c[3] * (u * u) + c[4] * (v * v))
    log = np.clip(log + 0.3 * (c[5] * u**3 + c[6] * v**3 + c[7] * u * u * v + c[8] * u * v * v), -2.5, 2.5)
    if rng.random() < 0.3:
        depth, strength = rng.uniform(25, 80), rng.uniform(0.5, 8)
        distance = np.hypot(x - rng.normal(0, 20), y + rng.uniform(20, 60)) + 5
        log = log + np.log(1 + strength * np.exp(-distance / depth * 2))
    bias = np.exp(log)
    if rng.random() < 0.12:  # signal lost beside air, bone or metal
        place, width = rng.normal(0, 15, 2), rng.uniform(4, 15)
        loss = np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * width**2))
        bias = bias * (1 - rng.uniform(0.2, 0.9) * loss)
    return bias.astype(np.float32)


def transfer(
    rng: np.random.Generator, shape: tuple[int, int], spacing: float, voxels: tuple[float, float]
) -> np.ndarray:
    """Modulation transfer of voxel size and apodisation; its support is where noise lives too."""
    gain = np.ones(shape, dtype=np.float32)
    window = rng.uniform(0, 0.6) * (rng.random() < 0.7)
    for axis in (0, 1):
        k = np.abs(np.fft.fftfreq(shape[axis], spacing)) * 2 * voxels[axis]
        keep = (k <= 1).astype(np.float32)
        taper = np.where(k > 1 - window, 0.5 + 0.5 * np.cos(np.pi * (k - 1 + window) / max(window, 1e-3)), 1.0)
        gain = gain * np.expand_dims(keep * taper, 1 - axis).astype(np.float32)
    return gain


def acquire(rng: np.random.Generator, image: Field, x: Field, y: Field, spacing: float) -> Field:
    """Image as a scanner would give it: magnitude, on the same pixels."""
    shape = image.shape
    low = 0.4 if spacing < 1 else 0.8
    base = float(np.exp(rng.uniform(np.log(low), np.log(1.35 if spacing < 1 else 1.8))))
    ratio = rng.uniform(0.8, 1.25)
    voxels = (base * ratio, base / ratio)
    if rng.random() < 0.08:  # a sagittal scan: thick from right to left
        voxels = (rng.uniform(1.5, 3.5), voxels[1])
    gain = transfer(rng, shape, spacing, voxels)
    kx, ky = np.fft.fftfreq(shape[0], spacing)[:, None], np.fft.fftfreq(shape[1], spacing)[None]
    lean = rng.normal(0, 0.7), rng.normal(0, 1.4) * (rng.random() < 0.6)  # a leaning cord smears through a thick slice
    blur = np.sinc(kx * lean[0] + ky * lean[1])
    if rng.random() < 0.6:  # linear interpolation on the way to these pixels
        blur = blur * np.sinc(kx * voxels[0] * 0.8) ** 2 * np.sinc(ky * voxels[1] * 0.8) ** 2
    if rng.random() < 0.1:  # moved while scanned: the mean of two positions
        shift = rng.normal(0, 0.4), rng.normal(0, 0.7)
        blur = blur * np.cos(np.pi * (kx * shift[0] + ky * shift[1]))
    spectrum = np.fft.fft2(image * draw_bias(rng, x, y))
    clean = np.fft.ifft2(spectrum * gain * blur)
    if rng.random() < 0.2:
        shift = int(rng.integers(8, max(9, shape[1] // 2)))
        axis = int(rng.integers(0, 2))
        clean = clean + rng.uniform(0.02, 0.15) * np.roll(clean, shift, axis) * np.exp(1j * rng.uniform(0, 6.3))
    half = shape[0] // 2, shape[1] // 2
    signal = float(np.abs(clean)[half[0] - 12 : half[0] + 12, half[1] - 12 : half[1] + 12].mean()) + 1e-3
    sigma = signal / np.exp(rng.uniform(np.log(4), np.log(60)))
    white = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    noise = np.fft.ifft2(np.fft.fft2(white) * gain)
    noise *= sigma / (noise.real.std() + 1e-9)
    measured = clean + noise
    return (np.abs(measured) if rng.random() < 0.9 else measured.real).astype(np.float32)


def draw_view(rng: np.random.Generator, shape: tuple[int, int], spacing: float, middle: tuple[float, float]) -> Field:
    """Pixels inside the field of view: all, or a box that holds the cord (whose pixel is ``middle``)."""
    inside = np.ones(shape, dtype=np.float32)
    if rng.random() < 0.45:
        return inside
    for axis in (0, 1):
        if rng.random() < 0.3:
            continue
        reach = np.exp(rng.uniform(np.log(9), np.log(80), 2)) / spacing
        place = np.arange(shape[axis]) - middle[axis]
        keep = (place > -reach[0]) & (place < reach[1])
        inside = inside * np.expand_dims(keep, 1 - axis).astype(np.float32)
    return inside
