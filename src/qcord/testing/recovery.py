"""Whether the parameters of a model come back from its signals, without noise and with it."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from qcord.core.arrays import FloatArray
from qcord.core.errors import NotIdentifiable
from qcord.core.flags import Flag
from qcord.core.model import SignalModel
from qcord.core.noise import Gaussian
from qcord.core.protocol import Protocol
from qcord.estimate.bound import crlb
from qcord.estimate.nonlinear import Solution, fit_nonlinear
from qcord.estimate.simulate import simulate

EXACT = 0.02
"""Error of a fit without noise, in standard errors at the signal-to-noise ratio of the check, that is allowed."""

LINEAR = 0.2
"""Bias, in standard errors, up to which an estimator counts as unbiased, so that its spread must meet the bound."""

SPREAD = (0.9, 1.15)
COVERAGE = (0.92, 0.975)


def bound_faults(model: SignalModel, theta: FloatArray, protocol: Protocol) -> Iterator[str]:
    """Sentences on parameters that the example protocol does not determine."""
    try:
        crlb(model, theta, protocol, Gaussian(1.0))
    except NotIdentifiable as error:
        yield f"its example protocol does not determine it: {error}"


def neighbours(model: SignalModel, theta: FloatArray, std: FloatArray, seed: int, count: int = 40) -> FloatArray:
    """Parameters (count, p) within two standard errors of typical ones and within the bounds; the first is theta."""
    generator = np.random.default_rng(seed)
    low, high = np.array([p.bounds for p in model.free], dtype=float).T
    around = theta + std * generator.uniform(-2, 2, (count, len(theta)))
    around = np.where((around > low) & (around < high), around, theta)
    around[0] = theta
    return np.asarray(around)


def exact_faults(model: SignalModel, thetas: FloatArray, std: FloatArray, protocol: Protocol) -> Iterator[str]:
    """Sentences on parameters that do not come back from signals without noise."""
    solution = fit_nonlinear(model, simulate(model, thetas, protocol), protocol)
    error = np.abs(solution.theta - thetas) / std
    for k, parameter in enumerate(model.free):
        bad = int((~(error[:, k] <= EXACT)).sum())
        if bad:
            yield (
                f"{parameter.name} does not come back from signals without noise in {bad} of {len(thetas)} cases; "
                "give it a better start"
            )


def monte_carlo(
    model: SignalModel, theta: FloatArray, protocol: Protocol, *, snr: float, draws: int, seed: int
) -> pd.DataFrame:
    """Spread, bias and coverage of the fit of noisy signals.

    Returns
    -------
    DataFrame
        ``parameter snr value spread_over_bound bias_over_spread coverage at_bound`` a free parameter;
        ``bias_over_spread`` after the bias that the fit states is taken off.
    """
    sigma = float(np.abs(simulate(model, theta, protocol)).max()) / snr
    noise = Gaussian(sigma)
    measured = simulate(model, np.broadcast_to(theta, (draws, len(theta))), protocol, noise, seed)
    solution = fit_nonlinear(model, measured, protocol, sigma=sigma)
    bound = np.sqrt(np.diag(crlb(model, theta, protocol, noise)))
    rows = [_row(p.name, snr, float(theta[k]), float(bound[k]), (solution, k)) for k, p in enumerate(model.free)]
    return pd.DataFrame(rows)


def _row(name: str, snr: float, truth: float, bound: float, estimates: tuple[Solution, int]) -> dict[str, object]:
    solution, k = estimates
    usable = ~np.isin(solution.flag, [Flag.NO_SIGNAL, Flag.NOT_CONVERGED])
    found = solution.theta[usable, k]
    corrected = found - np.nan_to_num(solution.bias[usable, k])
    std = np.sqrt(solution.covariance[usable, k, k])
    spread = float(corrected.std())
    return {
        "parameter": name,
        "snr": snr,
        "value": truth,
        "spread_over_bound": spread / bound,
        "bias_over_spread": float(corrected.mean() - truth) / spread,
        "coverage": float((np.abs(corrected - truth) <= 1.96 * std).mean()),
        "at_bound": float((solution.flag == Flag.AT_BOUND).mean()),
    }


def noise_faults(table: pd.DataFrame, draws: int) -> Iterator[str]:
    """Sentences on unbiased parameters whose spread misses the bound or whose intervals miss the truth."""
    slack = 3 / np.sqrt(2 * draws)
    regular = table[(table["bias_over_spread"].abs() < LINEAR) & (table["at_bound"] < 0.01)]
    for _, row in regular.iterrows():
        ratio, covered = row["spread_over_bound"], row["coverage"]
        if not SPREAD[0] - slack <= ratio <= SPREAD[1] + slack:
            yield f"the spread of {row['parameter']} at a ratio of {row['snr']:g} is {ratio:.2f} times its bound"
        if not COVERAGE[0] - slack / 2 <= covered <= COVERAGE[1] + slack / 2:
            yield f"intervals of {row['parameter']} at a ratio of {row['snr']:g} cover the truth in {covered:.0%}"
