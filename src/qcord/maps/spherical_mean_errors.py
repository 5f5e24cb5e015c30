"""Standard error and bias of ``smt`` where noise is no longer small against what the averages tell of anisotropy.

Averages depend on the square of the anisotropy, and that is held between 0 and 1: the likelihood is then far from that
of a normal number, and an expansion in powers of the noise fails. One parameter is behind it, so that one integral
replaces the expansion: at values of MicroDelta from end to end the others are fitted, which leaves a curve through the
parameters and a likelihood along it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import AnyArray, BoolArray, FloatArray
from qcord.core.flags import Flag
from qcord.core.image import Image
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.blocks import Output, run_blocks
from qcord.models.spherical_mean import FASTEST, SMT

WIDE = 0.045
"""Standard error of MicroDelta from which on the expansion is replaced; by simulation both agree from .03 to .06."""

OPEN = 0.75
"""Part of its range that the interval of MicroDelta holds from which on the averages leave it open."""

NODES = 24
"""Values of MicroDelta along the curve."""

_BLOCK = 512
"""Voxels whose signals along the curve fit the cache."""

_REACH = 4.5
"""Standard deviations of the squared anisotropy beyond which the likelihood is left out."""

_PARTS = {"MicroAD": 1 / 3, "MicroDelta": 1 / 3, "MicroRD": 1 / 3, "MicroFA": 1 / 2}
"""How far the middle of the interval lies from the most likely value towards the posterior mean: the farther, the more
a value bends over the signals. S0 and MicroMD hardly do; the most likely value stays the middle."""

_LIMIT = 1.959963984540054
"""95 % of standard normal numbers are smaller in size."""

_NOT_EXCLUDED = np.exp(-(1.6448536269514722**2) / 2)
"""Likelihood of spheres, relative to the largest, above which a test of 5 % does not exclude them; it has one side."""

SignalAndSlopes = Callable[[FloatArray, FloatArray, FloatArray], tuple[FloatArray, FloatArray, FloatArray]]

_ROUNDS = 2
_SERIES = 1e-6
_SLOWEST = 1e-6


def wide_errors(
    averages: Series, level: AnyArray, values: Mapping[str, Image], chosen: BoolArray, *, n_jobs: int | None = None
) -> dict[str, AnyArray]:
    """Standard error and bias of the values of ``smt`` by integration over MicroDelta.

    Parameters
    ----------
    averages : Series
        Powder averages, (x, y, z, n).
    level : (x, y, z, 1) or (x, y, z, n) array
        Standard deviation of the averages.
    values : mapping of str to Image
        Maximum likelihood estimates, by the names of the model.
    chosen : (x, y, z) array of bool
        Voxels to work on; all have estimates and noise.
    n_jobs : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    dict of str to array
        Maps ``std X`` and ``bias X`` (x, y, z) of each value X, NaN where not chosen, and ``flag``, UNDETERMINED where
        the interval of MicroDelta, before it is stretched to reach to spheres, holds more than `OPEN` of its range.

    Notes
    -----
    The bias takes a part of the way from the most likely value to the posterior mean under the prior for which that
    mean has no bias to second order (Hartigan 1965): the information on the value. Alone, the first errs towards the
    ends of the range and scatters more than the bound says, the second errs away from them and scatters less.

    The standard error is the root of the mean squared distance from ``value - bias`` under the prior of Jeffreys, which
    for as many averages as parameters is flat in the signals. That prior excludes spheres. As far as the likelihood
    does not, which its part at the round end tells, the error is that under a prior that is flat in the value, if
    larger; and where a test does not exclude spheres, the interval reaches to them.

    By simulation of two and three shells, MicroDelta from .2 to .9, MicroMD from .5e-3 to 1.5e-3 mm2/s and ratios from
    15 to 400, intervals cover the truth in 90 % at least. Where both ends of the range are two bounds of MicroDelta
    off, 96 of 100 settings cover 92 to 97 %; nearer an end, beyond which no truth can be missed, up to 100 %.

    References
    ----------
    Hartigan 1965, doi:10.1214/aoms/1177699988.
    """
    names = [p.name for p in SMT.free]
    return run_blocks(
        _Task(averages.protocol).run,
        averages.data,
        chosen,
        [Output(prefix + name) for prefix in ("std ", "bias ") for name in SMT.units],
        extra={"sigma": level, **{name: values[name].data for name in names}},
        block=_BLOCK,
        n_jobs=n_jobs,
    )


@dataclass(frozen=True, eq=False)
class Curve:
    """The most likely parameters at k values of one of them, as MicroDelta of ``smt``, for v voxels.

    Parameters
    ----------
    theta : (3, k, v) array
        S0, a diffusivity as MicroMD [mm2/s], the given one.
    spread : (2, k, v) array
        Variance of the first two where the third is given.
    misfit : (k, v) array
        Weighted sum of squared residuals.
    information : (k, v) array
        On the third, the others being estimated.
    """

    theta: FloatArray
    spread: FloatArray
    misfit: FloatArray
    information: FloatArray


@dataclass(frozen=True, eq=False)
class _Task:
    protocol: Protocol

    def run(self, signals: FloatArray, extra: Mapping[str, FloatArray]) -> dict[str, AnyArray]:
        """Errors of one block (n, v)."""
        weights = np.broadcast_to(extra["sigma"] ** -2.0, signals.shape)
        best = np.stack([extra[p.name][0] for p in SMT.free])
        b = self.protocol["BValue"]
        with np.errstate(all="ignore"):
            here = curve(signals, weights, b, best[2:], best[1:2], rounds=0)
            nodes = _nodes(best[2], here.information[0])
            along = curve(signals, weights, b, nodes, _predicted(best[1], best[2], nodes, b), rounds=_ROUNDS)
            return _integrate(along, best)


def _nodes(delta: FloatArray, information: FloatArray) -> FloatArray:
    """Values of MicroDelta (k, v) that reach as far as the likelihood does, evenly spaced."""
    square, reach = delta**2, _REACH * 2 * delta / np.sqrt(information)
    reach = np.where(np.isfinite(reach), reach, 1.0)
    low, high = np.sqrt(np.clip(square - reach, 0, 1)), np.sqrt(np.clip(square + reach, 0, 1))
    steps = (np.arange(NODES) + 0.5) / NODES
    return np.asarray(low + (high - low) * steps[:, None])


def _predicted(mean: FloatArray, delta: FloatArray, nodes: FloatArray, b: FloatArray) -> FloatArray:
    """First guess of MicroMD (k, v) at nodes: what keeps the middle b-value's signal, to second order in b."""
    middle = 0.4 * b.max() / 2
    kept = mean - middle * (mean * delta) ** 2
    square = middle * nodes**2
    root = np.sqrt(np.maximum(1 - 4 * square * kept, 0.04))
    return np.asarray(np.clip(2 * kept / (1 + root), 0.5 * mean, 2 * mean))


def curve(
    signals: FloatArray,
    weights: FloatArray,
    b: FloatArray,
    delta: FloatArray,
    start: FloatArray,
    *,
    rounds: int,
    signal_of: SignalAndSlopes | None = None,
) -> Curve:
    """Fit S0 and a diffusivity at given values of the third parameter, by Gauss-Newton steps.

    Parameters
    ----------
    signals, weights : (n, v) array
        Averages and the inverse of their variances.
    b : (n,) array
        b-values [s/mm2].
    delta, start : (k, v) array
        The given parameter, as MicroDelta, and a first guess of the diffusivity, as MicroMD [mm2/s].
    rounds : int
        Steps.
    signal_of : callable, optional
        Signal for S0 of 1 and its derivatives by diffusivity and given parameter; that of ``smt`` by default.
    """
    mean, evaluate = start, signal_of or _signal
    measured, counts = signals[:, None], weights[:, None]
    for k in range(rounds + 1):
        signal, by_mean, by_delta = evaluate(b[:, None, None], mean, delta)
        weighted = counts * signal
        square = (weighted * signal).sum(axis=0)
        amount = (weighted * measured).sum(axis=0) / square
        slope = by_mean * amount
        residual = measured - amount * signal
        first = counts * slope
        cross = (weighted * slope).sum(axis=0)
        own = (first * slope).sum(axis=0)
        fixed = own - cross**2 / square
        if k == rounds:
            break
        step = (first * residual).sum(axis=0) / fixed
        mean = np.clip(mean + np.clip(step, -0.5 * mean, mean), _SLOWEST, FASTEST)
    turn = by_delta * amount
    with_amount, with_mean = (weighted * turn).sum(axis=0), (first * turn).sum(axis=0)
    left = (counts * turn**2).sum(axis=0) - with_amount**2 / square
    left -= (with_mean - with_amount * cross / square) ** 2 / fixed
    return Curve(
        np.stack([amount, mean, delta]),
        np.stack([own / (square * fixed), 1 / fixed]),
        (counts * residual**2).sum(axis=0),
        np.maximum(left, 0),
    )


def _signal(b: FloatArray, mean: FloatArray, delta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Spherical mean (n, k, v) for S0 of 1 and its derivatives by MicroMD and MicroDelta."""
    damped = np.exp(-b * mean * (1 - delta))
    signal, bend = (damped * part for part in stick_mean(3 * b * mean * delta))
    by_mean = 3 * b * delta * bend - b * (1 - delta) * signal
    return signal, by_mean, b * mean * (3 * bend + signal)


def stick_mean(spread: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean over the sphere of exp(-spread cos^2) and its derivative, by the error function."""
    from scipy import special

    wide = np.maximum(spread, _SERIES)
    root = np.sqrt(wide)
    integral = np.sqrt(np.pi) / 2 * special.erf(root) / root
    slope = (np.exp(-wide) - integral) / (2 * wide)
    return integral + slope * (spread - wide), slope


def _integrate(along: Curve, best: FloatArray) -> dict[str, AnyArray]:
    """Standard errors, biases and flags (v,) from the likelihood along the curve; ``best`` (3, v) maximises it."""
    likelihood = np.exp(-(along.misfit - along.misfit.min(axis=0)) / 2)
    round_end = likelihood[0]
    values, tops = _values(along.theta), _values(best)
    spheres = _values(np.stack([*along.theta[:2, 0], np.zeros(best.shape[1])]))
    usual = _normal(likelihood * np.sqrt(along.information))
    found: dict[str, AnyArray] = {}
    for name, (unbiased, even, within) in _priors(along).items():
        bias = np.zeros(best.shape[1])
        if name in _PARTS:
            posterior = _normal(likelihood * unbiased)
            bias = _PARTS[name] * (tops[name] - (posterior * values[name]).sum(axis=0))
        square = (values[name] - (tops[name] - bias)) ** 2 + within
        narrow, wide = ((weights * square).sum(axis=0) for weights in (usual, _normal(likelihood * even)))
        found[f"bias {name}"] = bias
        square = narrow + round_end * np.maximum(wide - narrow, 0)
        if name == "MicroDelta":
            middle, reach = tops[name] - bias, _LIMIT * np.sqrt(square)
            held = np.minimum(middle + reach, 1) - np.maximum(middle - reach, 0)
            found["flag"] = np.where(held > OPEN, int(Flag.UNDETERMINED), int(Flag.OK))
        if name in _PARTS:
            reach = ((spheres[name] - (tops[name] - bias)) / _LIMIT) ** 2 + within[0]
            square = np.where(round_end > _NOT_EXCLUDED, np.maximum(square, reach), square)
        found[f"std {name}"] = np.sqrt(square)
    return found


def _values(theta: FloatArray) -> dict[str, AnyArray]:
    """Values of the model, each (...), from theta (3, ...)."""
    last = np.moveaxis(theta, 0, -1)
    return {p.name: theta[k] for k, p in enumerate(SMT.free)} | {d.name: d.formula(last) for d in SMT.derived}


def _priors(along: Curve) -> dict[str, tuple[AnyArray, AnyArray, AnyArray]]:
    """Densities over MicroDelta (k, v) for each value, and its variance where MicroDelta is given.

    The first makes its posterior mean unbiased to second order, the second is flat in it; for values that go nearly
    as the signals do, or with the mean diffusivity, as well, these are those of signals and of MicroDelta.
    """
    delta = along.theta[2]
    amount, mean = along.spread
    flat, signals, one = np.ones_like(delta), np.sqrt(along.information), along.information
    stretch = (1 + 2 * delta**2) ** 1.5  # change of MicroDelta with MicroFA, but for a factor
    none = np.zeros_like(delta)
    return {
        "S0": (signals, flat, amount),
        "MicroMD": (signals, flat, mean),
        "MicroDelta": (one, flat, none),
        "MicroAD": (signals, flat, mean * (1 + 2 * delta) ** 2),
        "MicroRD": (one, flat, mean * (1 - delta) ** 2),
        "MicroFA": (one * stretch, 1 / stretch, none),
    }


def _normal(weights: FloatArray) -> FloatArray:
    return np.asarray(weights / weights.sum(axis=0))
