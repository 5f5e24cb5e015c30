"""What likelihood intervals cover: every model, three ratios of the largest signal to the noise, and other tissues.

Run ``python benchmarks/intervals.py [tissues] [model ...]``; all registered models by default, some hours on one core.
Each model is simulated with its example protocol and the typical values of its first tissue, as in
``benchmarks/bounds.py``, with the same noise; `qcord.maps.intervals` must hold the truth in 92 to 97 %. Beside that,
how often the truth lies below and above, and how wide intervals are, over that of the Cramer-Rao bound.

With ``tissues`` each voxel of one image has a tissue of its own: each parameter from half to one and a half of the
typical value (within its bounds), with noise of a thirtieth of the median of their largest signals. A row is a value
over all voxels, and in four groups of equal number from the smallest truths to the largest.
"""

import sys

import numpy as np
import pandas as pd

from bounds import RATIOS, value_of
from qcord.core.arrays import FloatArray
from qcord.core.errors import QcordError
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.model import SignalModel
from qcord.core.noise import Gaussian, Noise, Rician
from qcord.core.series import Series
from qcord.estimate.bound import crlb
from qcord.estimate.propagate import delta
from qcord.estimate.simulate import simulate
from qcord.maps.fit import fit
from qcord.maps.intervals import intervals
from qcord.models.registry import MODELS, get

DRAWS = 4000
SLOW = dict.fromkeys(("kurtosis", "qti", "qmt", "noddi", "myelin-water", "myelin-water-csf"), 1000)
"""Draws of models whose intervals take more than some milliseconds a voxel."""

LOWEST, HIGHEST = 0.92, 0.97
TISSUE_RATIO = 30.0
"""Median of the largest signals over the noise, in an image of many tissues."""


def main() -> None:
    pd.set_option("display.width", 160, "display.max_rows", 2000)
    asked = [name for name in sys.argv[1:] if name != "tissues"] or list(MODELS)
    if "tissues" in sys.argv[1:]:
        other_tissues(asked)
        return
    parts = []
    for name in asked:
        model = get(name)
        assert model.example is not None
        theta = model.theta(model.typical[0].values)
        for ratio in RATIOS:
            parts.append(rows(model, theta, ratio, SLOW.get(name, DRAWS), seed=int(ratio)))
            print(parts[-1].round(3).to_string(index=False, header=len(parts) == 1), flush=True)
    table = pd.concat(parts, ignore_index=True)
    inside = table["coverage"].between(LOWEST, HIGHEST)
    print(f"\nof {len(table)} rows coverage lies within 92-97 % in {inside.mean():.1%}; the others:")
    print(table[~inside].round(3).to_string(index=False))


def other_tissues(names: list[str]) -> None:
    """Coverage of values in an image of many tissues."""
    for name in names:
        model, count = get(name), SLOW.get(name, DRAWS)
        assert model.example is not None
        protocol, shape = model.example(), (count // 100, 10, 10)
        typical, (low, high) = model.theta(model.typical[0].values), np.array([p.bounds for p in model.free]).T
        spread = np.random.default_rng(8).uniform(0.5, 1.5, (*shape, len(typical)))
        theta = np.clip(typical * spread, low, high)
        clean = simulate(model, theta, protocol)
        sigma = float(np.median(np.abs(clean).max(axis=-1))) / TISSUE_RATIO
        noise: Noise = Gaussian(sigma) if (clean < 0).any() else Rician(sigma)
        measured = simulate(model, theta, protocol, noise, seed=3)
        series = Series(Image(measured, Grid(shape, np.eye(4))), protocol)
        found = intervals(model, series, noise=noise, metrics=mapped(model, series, noise))
        parts = []
        for value in found.lower:
            truth = np.array([value_of(model, value, one) for one in theta.reshape(count, -1)])
            held = covered(found.lower[value], found.upper[value], truth)
            groups = {
                f"quarter {k + 1}": np.nanmean(held[o]) for k, o in enumerate(np.array_split(np.argsort(truth), 4))
            }
            parts.append({"value": value, "coverage": np.nanmean(held), **groups})
        print(f"\n{name}, {count} voxels:\n{pd.DataFrame(parts).round(3).to_string(index=False)}", flush=True)


def covered(lower: Image, upper: Image, truth: FloatArray) -> FloatArray:
    """1 where an interval holds the truth, 0 where it does not, NaN where there is none."""
    low, high = (np.asarray(end.data, dtype=float).ravel() for end in (lower, upper))
    rounding = 1e-6 * np.abs(truth)
    held = (low <= truth + rounding) & (high >= truth - rounding)
    return np.where(np.isfinite(low) & np.isfinite(high), held, np.nan)


def rows(model: SignalModel, theta: FloatArray, ratio: float, draws: int, *, seed: int) -> pd.DataFrame:
    """One model, one tissue, one ratio."""
    assert model.example is not None
    protocol, shape = model.example(), (draws // 100, 10, 10)
    clean = simulate(model, theta, protocol)
    sigma = float(np.abs(clean).max()) / ratio
    noise: Noise = Gaussian(sigma) if (clean < 0).any() else Rician(sigma)
    measured = simulate(model, np.broadcast_to(theta, (*shape, len(theta))), protocol, noise, seed=seed)
    series = Series(Image(measured, Grid(shape, np.eye(4))), protocol)
    found = intervals(model, series, noise=noise, metrics=mapped(model, series, noise))
    covariance = crlb(model, theta, protocol, noise)
    return pd.DataFrame(
        [row(model, name, (found.lower[name], found.upper[name]), theta, covariance) for name in found.lower]
    ).assign(model=model.name, snr=ratio, draws=draws)


def mapped(model: SignalModel, series: Series, noise: Noise) -> list[str]:
    """Values that the model's own estimator writes as maps: of tensors, what is read from them."""
    first = series.image.derive(series.data[:1, :1, :1], grid=Grid((1, 1, 1), np.eye(4)))
    one = Series(first, series.protocol)
    try:
        maps = fit(model.name, one, noise=noise).maps
    except QcordError:
        maps = fit(model.name, one, noise=noise, method="nonlinear").maps
    return [name for name in model.units if name in maps]


def row(
    model: SignalModel, name: str, ends: tuple[Image, Image], theta: FloatArray, covariance: FloatArray
) -> dict[str, object]:
    """Coverage of one value."""
    truth = value_of(model, name, theta)
    free = [p.name for p in model.free]
    bound = (
        np.sqrt(covariance[free.index(name), free.index(name)])
        if name in free
        else delta(next(d for d in model.derived if d.name == name), theta, covariance)[1]
    )
    lower, upper = (np.asarray(end.data, dtype=float).ravel() for end in ends)
    has = np.isfinite(lower) & np.isfinite(upper)
    rounding = 1e-6 * abs(truth)
    below, above = lower[has] > truth + rounding, upper[has] < truth - rounding
    return {
        "value": name,
        "truth": truth,
        "coverage": 1 - float((below | above).mean()),
        "truth below": float(below.mean()),
        "truth above": float(above.mean()),
        "width": float(np.median(upper[has] - lower[has]) / (2 * 1.96 * float(bound))),
        "no interval": float(1 - has.mean()),
    }


if __name__ == "__main__":
    main()
