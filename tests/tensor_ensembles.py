"""Ensembles of diffusion tensors with known truth, signals by summation over them, and b-tensor protocols."""

import numpy as np

from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.protocol import Protocol
from qcord.core.series import Series


def spiral(n):
    """Directions over the whole sphere."""
    k = np.arange(n) + 0.5
    height, turn = 1 - 2 * k / n, np.pi * (1 + 5**0.5) * k
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)


def axisymmetric(axial, radial, axes):
    """Tensors (k, 3, 3)."""
    axial, radial, axes = np.broadcast_to(axial, len(axes)), np.broadcast_to(radial, len(axes)), np.asarray(axes)
    return radial[:, None, None] * np.eye(3) + (axial - radial)[:, None, None] * axes[:, :, None] * axes[:, None]


def white_matter(k=400, seed=1):
    """Sticks and zeppelins within some degrees of the vertical."""
    axes = 0.2 * np.random.default_rng(seed).normal(size=(k, 3)) + [0, 0, 1]
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    half = k // 2
    return axisymmetric(np.repeat([1.9e-3, 1.4e-3], half), np.repeat([0.05e-3, 0.6e-3], half), axes)


def gray_matter(k=400, seed=2):
    """Tensors of some spread in size, widely dispersed about the vertical."""
    generator = np.random.default_rng(seed)
    axes = 0.8 * generator.normal(size=(k, 3)) + [0, 0, 1]
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    return axisymmetric(
        1.6e-3 * (1 + 0.2 * generator.normal(size=k)), 0.4e-3 * (1 + 0.2 * generator.normal(size=k)), axes
    )


def truth_of(tensors):
    """Values by their definitions: eigenvalues of each tensor and of the mean one."""
    values = np.linalg.eigvalsh(tensors)
    mean = np.linalg.eigvalsh(tensors.mean(axis=0))
    within, outer = values.var(axis=1).mean(), mean.var()
    return {
        "MD": values.mean(),
        "V_I": values.mean(axis=1).var(),
        "V_A": 0.4 * within,
        "muFA": np.sqrt(1.5 * within / (values**2).mean()),
        "C_mu": 1.5 * within / (values**2).mean(),
        "FA": np.sqrt(1.5 * outer / (mean**2).mean()),
        "OP": np.sqrt(outer / within),
    }


def elements(tensors):
    """(k, 6) of (k, 3, 3)."""
    return np.stack([tensors[..., i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))], axis=-1)


def full_b_tensors(protocol):
    """(n, 3, 3) from the columns, written independently of the package."""
    matrices = []
    second = protocol.columns.get("SecondDirection", np.zeros((len(protocol), 3)))
    for b, q, delta, p in zip(protocol["BValue"], protocol["Direction"], protocol["BDelta"], second, strict=True):
        if p.any():
            matrices.append(b / 2 * (np.outer(q, q) + np.outer(p, p)))
        elif delta == 0 or not q.any():
            matrices.append(b / 3 * np.eye(3))
        else:
            matrices.append(b / 3 * (1 - delta) * np.eye(3) + b * delta * np.outer(q, q))
    return np.array(matrices)


def summed_signal(tensors, protocol, s0=1000.0):
    """Signals (n,) of an ensemble: the mean of the exponentials of its members."""
    return s0 * np.exp(-np.einsum("nij,kij->nk", full_b_tensors(protocol), tensors)).mean(axis=1)


def linear_and_spherical(
    linear=(6, 10, 16, 30), spherical=(6, 6, 10, 16), b=(100.0, 700.0, 1400.0, 2000.0), unweighted=2
):
    """A protocol within reach of a clinical scanner: 102 volumes, 1.7 linear ones for each spherical one."""
    values = np.concatenate([np.zeros(unweighted), np.repeat(b, linear), np.repeat(b, spherical)])
    n = unweighted + sum(linear)
    q = np.concatenate([np.zeros((unweighted, 3)), *[spiral(k) for k in linear], np.zeros((sum(spherical), 3))])
    return Protocol({"BValue": values, "Direction": q, "BDelta": np.r_[np.ones(n), np.zeros(sum(spherical))]})


def series_of(values, protocol):
    """A series from signals (..., n) of up to three axes of voxels."""
    grid = Grid((*values.shape[:-1], *([1] * (4 - values.ndim))), np.eye(4))
    return Series(Image(values.reshape(*grid.shape, -1), grid), protocol)


def judge(fit, name, truth):
    """Fraction of 95 % intervals of ``map - bias`` that hold the truth, its spread over its error, its mean error."""
    value, std, bias = (group[name].data.ravel().astype(float) for group in (fit.maps, fit.std, fit.bias))
    good = np.isfinite(value) & np.isfinite(std) & np.isfinite(bias)
    assert good.mean() > 0.99
    clean = (value - bias)[good]
    covered = (np.abs(clean - truth) < 1.96 * std[good]).mean()
    return covered, clean.std() / np.sqrt((std[good] ** 2).mean()), clean.mean() - truth
