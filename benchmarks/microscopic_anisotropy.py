"""How far muFA is from the truth: by what each model leaves out, and by noise; and the speed of the fits.

Run ``python benchmarks/microscopic_anisotropy.py [models] [noise]``; both by default. Signals are sums over ensembles
of tensors with known truth. ``models``: no noise, linear and spherical encoding up to some highest b-value (with planar
encoding besides for the covariance tensor). ``noise``: Rician, with intervals judged against what the model gives
without noise.
"""

import sys
import time

import numpy as np

from qcord.core.fit import Fit
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Rician
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.maps.fit import fit
from qcord.models.covariance_tensor import example
from qcord.models.tensor import b_matrix

MODELS = ("mufa", "mufa-cumulant", "qti")
VALUES = ("FA", "muFA", "C_mu", "OP", "V_A")
COUNT = 3000


def spiral(n):
    k = np.arange(n) + 0.5
    height, turn = 1 - 2 * k / n, np.pi * (1 + 5**0.5) * k
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)


def tissues():
    """Tensors (k, 3, 3) by tissue: sticks and zeppelins near the vertical, dispersed ones, even ones."""
    generator = np.random.default_rng(1)

    def made(axial, radial, axes):
        axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
        return radial[:, None, None] * np.eye(3) + (axial - radial)[:, None, None] * axes[:, :, None] * axes[:, None]

    near = 0.2 * generator.normal(size=(400, 3)) + [0, 0, 1]
    far = 0.8 * generator.normal(size=(400, 3)) + [0, 0, 1]
    sizes = 1 + 0.2 * generator.normal(size=(2, 400))
    return {
        "white matter": made(np.repeat([1.9e-3, 1.4e-3], 200), np.repeat([0.05e-3, 0.6e-3], 200), near),
        "gray matter": made(1.6e-3 * sizes[0], 0.4e-3 * sizes[1], far),
        "even": made(np.full(400, 1.8e-3), np.full(400, 0.2e-3), spiral(400)),
    }


def clinical(top):
    b = np.array([100.0, 0.35 * top, 0.7 * top, top])
    linear, spherical = (6, 10, 16, 30), (6, 6, 10, 16)
    q = np.concatenate([np.zeros((2, 3)), *[spiral(k) for k in linear], np.zeros((38, 3))])
    values = np.concatenate([[0, 0], np.repeat(b, linear), np.repeat(b, spherical)])
    return Protocol({"BValue": values, "Direction": q, "BDelta": np.r_[np.ones(64), np.zeros(38)]})


def protocol_of(model, top):
    if model != "qti":
        return clinical(top)
    three = example()
    return three.replace(BValue=three["BValue"] * top / 2000)


def truth_of(tensors):
    values, mean = np.linalg.eigvalsh(tensors), np.linalg.eigvalsh(tensors.mean(axis=0))
    within = values.var(axis=1).mean()
    square = 1.5 * within / (values**2).mean()
    fa = np.sqrt(1.5 * mean.var() / (mean**2).mean())
    return {"FA": fa, "muFA": np.sqrt(square), "C_mu": square, "OP": np.sqrt(mean.var() / within), "V_A": 0.4 * within}


def signals(tensors, protocol):
    pairs = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
    packed = np.stack([tensors[:, i, j] for i, j in pairs])
    return 1000 * np.exp(-b_matrix(protocol) @ packed).mean(axis=1)


def fitted(model, values, protocol, noise=None) -> Fit:
    grid = Grid((len(values), 1, 1), np.eye(4))
    return fit(model, Series(Image(values[:, None, None], grid), protocol), noise=noise)


def models():
    print("muFA - truth without noise, by highest b-value [s/mm2]")
    print(f"{'tissue':14}{'truth':>8}{'model':>16}" + "".join(f"{b:9}" for b in (1000, 1500, 2000, 2500)))
    for tissue, tensors in tissues().items():
        truth = truth_of(tensors)["muFA"]
        for model in MODELS:
            off = []
            for top in (1000.0, 1500.0, 2000.0, 2500.0):
                protocol = protocol_of(model, top)
                off.append(fitted(model, signals(tensors, protocol)[None], protocol)["muFA"].data.item() - truth)
            print(f"{tissue:14}{truth:8.3f}{model:>16}" + "".join(f"{o:+9.3f}" for o in off))


def noise():
    print("\nRician noise, up to 2000 s/mm2: mean of map - bias less the value without noise, spread / error, coverage")
    for tissue, tensors in tissues().items():
        for model in MODELS:
            protocol = protocol_of(model, 2000.0)
            exact = signals(tensors, protocol)
            reference = fitted(model, exact[None], protocol)
            for snr in (10, 20, 50):
                sigma = 1000 / snr
                drawn = Rician(sigma).sample(np.broadcast_to(exact, (COUNT, len(exact))), np.random.default_rng(2))
                begun = time.process_time()
                result = fitted(model, drawn, protocol, sigma)
                rate = COUNT / (time.process_time() - begun)
                cells = []
                for name in VALUES:
                    value, std, bias = (
                        m[name].data.ravel().astype(float) for m in (result.maps, result.std, result.bias)
                    )
                    good = np.isfinite(value) & np.isfinite(std) & np.isfinite(bias)
                    clean, true = (value - bias)[good], reference[name].data.item()
                    spread = clean.std() / np.sqrt((std[good] ** 2).mean())
                    covered = (np.abs(clean - true) < 1.96 * std[good]).mean()
                    cells.append(f"{name} {(clean.mean() - true) / true:+.1%} {spread:.2f} {covered:.1%}")
                print(f"{tissue:13}{model:14} {snr:3d}  {'   '.join(cells)}   {rate:.0f} voxels/s")


if __name__ == "__main__":
    for part in sys.argv[1:] or ("models", "noise"):
        {"models": models, "noise": noise}[part]()
