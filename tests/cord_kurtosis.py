"""Tissues with known kurtosis, and scans of them by the example protocol (7 b = 0, 24 at 700, 36 at 2000 s/mm2)."""

import numpy as np
from scipy.spatial.transform import Rotation

from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Rician
from qcord.core.series import Series
from qcord.estimate.simulate import simulate
from qcord.models.kurtosis import KURTOSIS, example
from qcord.models.kurtosis_metrics import INDICES

S0 = 1000.0
PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


def typical(tissue, count):
    """Copies (count, 22) of a typical tissue, with the S0 of the scans."""
    values = next(t.values for t in KURTOSIS.typical if t.tissue.startswith(tissue))
    theta = np.tile(KURTOSIS.theta(values), (count, 1))
    theta[:, 0] = S0
    return theta


def compartments(count, seed):
    """Parameters (count, 22) of mixtures of four Gaussian compartments, axes turned at random: exact cumulants."""
    generator = np.random.default_rng(seed)
    inner = generator.uniform(0.35, 0.65, count)
    first = generator.uniform(0.6, 1.0, count)
    matrices, parts = [], []
    for share in (first, 1 - first):
        turn = Rotation.random(count, random_state=int(generator.integers(1 << 30))).as_matrix()
        for part, axial, radial in ((inner, (1.5, 1.9), (0.1, 0.3)), (1 - inner, (1.6, 2.2), (0.7, 1.1))):
            across = generator.uniform(*radial, count)
            values = 1e-3 * np.stack([generator.uniform(*axial, count), across, across], axis=1)
            matrices.append(np.einsum("vab,vb,vcb->vac", turn, values, turn))
            parts.append(part * share)
    matrices, parts = np.array(matrices), np.array(parts)
    mean = np.einsum("kv,kvab->vab", parts, matrices)
    spread = np.einsum("kv,kvab,kvcd->vabcd", parts, matrices, matrices) - np.einsum("vab,vcd->vabcd", mean, mean)
    fourth = [spread[:, i, j, k, m] + spread[:, i, k, j, m] + spread[:, i, m, j, k] for i, j, k, m in INDICES]
    return np.stack([np.full(count, S0), *(mean[:, a, b] for a, b in PAIRS), *fourth], axis=1)


def truth(theta):
    """All derived values (v,) by name."""
    return {d.name: d.formula(theta) for d in KURTOSIS.derived}


def scan(theta, snr, seed, shape=None):
    """A series of the tissues, with Rician noise at the given signal-to-noise ratio of b = 0, and its sigma."""
    sigma = S0 / snr
    measured = simulate(KURTOSIS, theta, example(), Rician(sigma) if np.isfinite(snr) else None, seed)
    shape = shape or (len(theta), 1, 1)
    return Series(Image(measured.reshape(*shape, -1), Grid(shape, np.diag([0.9, 0.9, 5, 1]))), example()), sigma
