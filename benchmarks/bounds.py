"""Spread of every model's fit over its Cramer-Rao bound, its bias, and the coverage of its 95 % intervals.

Run ``python benchmarks/bounds.py [follows] [model ...]``; all registered models by default. Each is simulated with its
example protocol and the typical values of its first tissue at three ratios of the largest signal to the noise, and
fitted with its default estimator. Rows are judged by four readings of "unbiased", from the narrow to the wide. Where an
estimator is unbiased its spread must be .9 to 1.15 of the bound, and intervals must cover the truth in 92 to 97 %;
elsewhere the bias is what the table is for.

- regular: expected error as written, and less the bias that is stated, below a fifth of the spread (half the range of
  the middle 68 %: some values, as reciprocals, have no standard deviation), no more than 1 % of fits at a bound or
  undetermined, and no penalty in the fit (the T2 spectrum has one).
- as written: expected error of the map below a fifth of the standard deviation, fits at no bound; by standard
  deviations.
- less its stated bias: the same of the map less its bias. This is the one that counts: the others say why a row misses.
- all rows, for coverage.

The bound holds for estimators whose expected value follows the truth; of one that follows a part f of a change, it is
f times as large. With ``follows`` each value's truth is moved by half a standard error to either side, in the direction
that its bound is for, with the same noise: column "follows" is f, of the map less its bias, and a further reading
is of those of "less its stated bias" that follow .9 to 1.1 (some ten minutes more). Where their standard deviation
is above 1.15, Barankin's bound, a tighter one, says what an unbiased estimator could reach.

Values that are NaN, and flagged so, are left out of a row, and those without an error out of its coverage; the last two
columns say how many.

An estimator whose spread lies below the bound is not unbiased, though its error here may be small: the bound holds for
any whose expected value follows the truth. One above it may still be the best there is: see
``benchmarks/least_spread.py``.
"""

import sys
from functools import cache

import numpy as np
import pandas as pd

from least_spread import barankin_bound
from qcord.core.arrays import FloatArray
from qcord.core.errors import QcordError
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.model import SignalModel
from qcord.core.noise import Gaussian, Rician
from qcord.core.series import Series
from qcord.estimate.bound import crlb
from qcord.estimate.jacobian import gradient
from qcord.estimate.propagate import delta
from qcord.estimate.simulate import simulate
from qcord.maps.fit import fit, methods
from qcord.models.registry import MODELS, get

RATIOS = (20.0, 50.0, 100.0)
DRAWS, MOVED_DRAWS = 4000, 1000
UNBIASED = 0.2
NARROWEST, WIDEST = 0.9, 1.15
REGULARISED = ("spectrum",)


def main() -> None:
    pd.set_option("display.width", 160, "display.max_rows", 2000)
    asked = [name for name in sys.argv[1:] if name != "follows"] or list(MODELS)
    moved = "follows" in sys.argv[1:]
    table = pd.concat([rows(get(name), snr, moved) for name in asked for snr in RATIOS], ignore_index=True)
    print(table.round(3).to_string(index=False))
    free = table["at bound"] < 0.01
    small = (table["bias"].abs() < UNBIASED) & (table["raw bias"].abs() < UNBIASED) & (table["open"] < 0.01)
    judged(table, small & ~table["method"].isin(REGULARISED), "spread", "regular")
    judged(table, free & (table["raw bias, SD"].abs() < UNBIASED), "SD", "unbiased as written")
    less = free & (table["bias less, SD"].abs() < UNBIASED)
    judged(table, less, "SD", "unbiased less their stated bias")
    if moved:
        follow = less & table["follows"].between(0.9, 1.1)
        judged(table, follow, "SD", "such, and follow the truth")
        for one in table[follow & (table["SD"] > WIDEST)].itertuples():
            tight = tightest(str(one.model), float(one.snr))[str(one.value)]
            print(
                f"{one.model} {one.value} at {one.snr:g}: Barankin's bound {tight:.3f}, SD over it {one.SD / tight:.3f}"
            )
    covers = table["coverage"].between(0.92, 0.97)
    print(f"\nof all {len(table)} rows, coverage lies within 92-97 % in {covers.mean():.1%}; the others:")
    print(table[~covers].round(3).to_string(index=False))


@cache
def tightest(model: str, snr: float) -> dict[str, float]:
    """Barankin's bound of each value of a model, over the Cramer-Rao bound; some minutes for many parameters."""
    return barankin_bound(get(model), snr)


def judged(table: pd.DataFrame, chosen: "pd.Series[bool]", column: str, what: str) -> None:
    part = table[chosen]
    spread, covers = part[column].between(NARROWEST, WIDEST), part["coverage"].between(0.92, 0.97)
    print(f"\n{len(part)} of {len(table)} rows are {what}; of these, {column} within .9-1.15 of the bound in")
    print(
        f"{spread.mean():.1%}, coverage within 92-97 % in {covers.mean():.1%}, median {part['coverage'].median():.3f};"
    )
    print(f"those that miss:\n{part[~spread | ~covers].round(3).to_string(index=False)}")


def rows(model: SignalModel, snr: float, moved: bool = False) -> pd.DataFrame:
    """Rows of one model at one ratio."""
    assert model.example is not None
    protocol, theta = model.example(), model.theta(model.typical[0].values)
    clean = simulate(model, theta, protocol)
    sigma = float(np.abs(clean).max()) / snr
    noise = Gaussian(sigma) if (clean < 0).any() else Rician(sigma)
    method = methods(model)[0]
    try:
        result = estimates(model, theta, noise, method, seed=int(snr))
    except QcordError as error:
        print(f"{model.name}: {method} cannot fit its example ({error}); nonlinear instead")
        method = "nonlinear"
        result = estimates(model, theta, noise, method, seed=int(snr))
    covariance = crlb(model, theta, protocol, noise)
    bounds = {p.name: (theta[k], np.sqrt(covariance[k, k])) for k, p in enumerate(model.free)}
    bounds |= {d.name: tuple(float(x) for x in delta(d, theta, covariance)) for d in model.derived}
    found = [row(name, result, *bounds[name]) for name in model.units if name in result.maps]
    if moved:
        for one in found:
            one["follows"] = follows(model, str(one["value"]), (theta, covariance), noise, method)
    return (
        pd.DataFrame(found)
        .assign(model=model.name, method=method, snr=snr)
        .pipe(lambda t: t[["model", "method", "snr", *[c for c in t.columns if c not in {"model", "method", "snr"}]]])
    )


def estimates(
    model: SignalModel, theta: FloatArray, noise: Gaussian | Rician, method: str, *, seed: int, draws: int = DRAWS
) -> Fit:
    """Fit of one tissue, simulated many times."""
    assert model.example is not None
    protocol, shape = model.example(), (draws // 100, 10, 10)
    measured = simulate(model, np.broadcast_to(theta, (*shape, len(theta))), protocol, noise, seed=seed)
    return fit(model.name, Series(Image(measured, Grid(shape, np.eye(4))), protocol), method=method, noise=noise)


def follows(
    model: SignalModel, name: str, truth: tuple[FloatArray, FloatArray], noise: Gaussian | Rician, method: str
) -> float:
    """Part of a change of the truth, in the direction of the bound, that the expected value less its bias follows."""
    theta, covariance = truth
    free = [p.name for p in model.free]
    if name in free:
        slope = np.eye(len(theta))[free.index(name)]
    else:
        slope = gradient(next(d for d in model.derived if d.name == name), theta)
    along = covariance @ slope
    along = along / np.sqrt(slope @ along)
    low, high = np.array([p.bounds for p in model.free]).T
    ends = [np.clip(theta + s * along, low, high) for s in (-0.5, 0.5)]
    found, true = [], []
    for end in ends:
        result = estimates(model, end, noise, method, seed=3, draws=MOVED_DRAWS)
        value = np.asarray(result.maps[name].data, dtype=float).ravel()
        if name in result.bias:
            value = value - np.nan_to_num(np.asarray(result.bias[name].data, dtype=float).ravel())
        found.append(value)
        true.append(value_of(model, name, end))
    return float(np.nanmean(found[1] - found[0]) / (true[1] - true[0]))


def value_of(model: SignalModel, name: str, theta: FloatArray) -> float:
    """A free or derived value of one tissue."""
    free = [p.name for p in model.free]
    if name in free:
        return float(theta[free.index(name)])
    return float(next(d for d in model.derived if d.name == name).formula(theta))


def row(name: str, result: Fit, truth: float, bound: float) -> dict[str, object]:
    """Spread over bound, bias over spread with and without the stated part, coverage."""
    flag = result.flag.data.ravel()
    used = ~np.isin(flag, [Flag.NO_SIGNAL, Flag.NOT_FINITE, Flag.UNPHYSICAL, Flag.NOT_CONVERGED])
    used &= np.isfinite(np.asarray(result.maps[name].data, dtype=float).ravel())
    value = np.asarray(result.maps[name].data, dtype=float).ravel()[used]
    std = np.asarray(result.std[name].data, dtype=float).ravel()[used]
    stated = np.asarray(result.bias[name].data, dtype=float).ravel()[used] if name in result.bias else 0.0
    corrected = value - np.nan_to_num(stated)  # a bias that is not known is not taken off
    has = ~np.isnan(std)
    spread = float(np.diff(np.nanquantile(corrected, [0.159, 0.841]))[0]) / 2
    return {
        "value": name,
        "truth": float(truth),
        "spread": spread / bound if bound > 0 else np.nan,
        "SD": float(np.nanstd(corrected)) / bound if bound > 0 else np.nan,
        "raw bias": float(np.nanmean(value) - truth) / spread,
        "bias": float(np.nanmean(corrected) - truth) / spread,
        "raw bias, SD": float(np.nanmean(value) - truth) / max(float(np.nanstd(value)), 1e-300),
        "bias less, SD": float(np.nanmean(corrected) - truth) / max(float(np.nanstd(corrected)), 1e-300),
        "coverage": float((np.abs(corrected - truth) <= 1.96 * std)[has].mean()),
        "at bound": float((flag == Flag.AT_BOUND).mean()),
        "open": float(np.isin(flag, [Flag.AT_BOUND, Flag.UNDETERMINED]).mean()),
        "no value": float(1 - used.mean()),
        "no error": float(1 - has.mean()),
    }


if __name__ == "__main__":
    main()
