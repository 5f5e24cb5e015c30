"""A diffusion protocol of the cord (5 b = 0 and 30 directions at 800 s/mm2) and tensors like those of its tissue."""

import numpy as np

from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Rician
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.simulate import simulate
from qcord.models.tensor import TENSOR

S0 = 1000.0


def cord_protocol():
    k = np.arange(30) + 0.5
    height, turn = 1 - k / 30, np.pi * (1 + 5**0.5) * k
    radius = np.sqrt(1 - height**2)
    directions = np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)
    b = np.r_[np.zeros(5), np.full(30, 800.0)]
    return Protocol({"BValue": b, "Direction": np.r_[np.zeros((5, 3)), directions]}, "cord.bval and cord.bvec")


def tensors(anisotropy, seed, md=0.9e-3, tilt=0.15):
    """Axially symmetric tensors of given FA, axes within some degrees of the vertical; theta (v, 7) and truth."""
    generator = np.random.default_rng(seed)
    fa = np.asarray(anisotropy, dtype=float)
    part = fa / np.sqrt(3 - 2 * fa**2)
    size = md * np.exp(0.08 * generator.standard_normal(fa.shape))
    axial, radial = size * (1 + 2 * part), size * (1 - part)
    axis = tilt * generator.standard_normal((len(fa), 3)) + [0, 0, 1]
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    matrix = radial[:, None, None] * np.eye(3) + (axial - radial)[:, None, None] * axis[:, :, None] * axis[:, None]
    theta = np.stack(
        [np.full(len(fa), S0), *(matrix[:, i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)))], axis=1
    )
    return theta, {"FA": fa, "MD": size, "AD": axial, "RD": radial, "V1": axis * np.sign(axis[:, 2:])}


def scan(theta, snr, seed, shape=None):
    """A series of the tensors, with Rician noise at the given signal-to-noise ratio of b = 0, and its sigma."""
    sigma = S0 / snr
    noise = Rician(sigma) if np.isfinite(snr) else None
    measured = simulate(TENSOR, theta, cord_protocol(), noise, seed)
    shape = shape or (len(theta), 1, 1)
    grid = Grid(shape, np.diag([0.9, 0.9, 5, 1]))
    return Series(Image(measured.reshape(*shape, -1), grid), cord_protocol()), sigma
