"""Components of variance of values that people repeat: within and between people, and their intervals."""

from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize, special, stats

from qcord.core.arrays import FloatArray, IntArray

RANK = 1e-9
"""Singular value, relative to the largest, below which a direction of the design is not there."""


@dataclass(frozen=True, eq=False)
class Repeated:
    """Values that people repeat.

    Parameters
    ----------
    value : (n,) array
    person : (n,) int array
        Person of each value, from 0.
    design : (n, q) array
        What else may move a value (time, scanner), without a constant.
    """

    value: FloatArray
    person: IntArray
    design: FloatArray

    @property
    def count(self) -> IntArray:
        """Values of each person."""
        return np.bincount(self.person)

    def mean(self, x: FloatArray) -> FloatArray:
        """Mean of each person."""
        return np.asarray(np.bincount(self.person, x) / self.count)


@dataclass(frozen=True, eq=False)
class Residuals:
    """What is left within people: effects of the design (q,), residuals (n,), 1 - leverage (n,), degrees of freedom."""

    effect: FloatArray
    residual: FloatArray
    free: FloatArray
    df: int


def within_people(data: Repeated) -> Residuals:
    """Least squares with a mean for each person."""

    def centred(x: FloatArray) -> FloatArray:
        return np.asarray(x - data.mean(x)[data.person])

    response = centred(data.value)
    free = 1 - 1 / data.count[data.person]
    df = len(data.value) - len(data.count)
    if not data.design.shape[1]:
        return Residuals(np.zeros(0), response, free, df)
    basis, scale, turn = linalg.svd(np.stack([centred(c) for c in data.design.T], axis=1), full_matrices=False)
    rank = int((scale > RANK * max(float(scale[0]), np.finfo(float).tiny)).sum())
    basis = basis[:, :rank]
    along = basis.T @ response
    effect = turn[:rank].T @ (along / scale[:rank])
    return Residuals(effect, response - basis @ along, free - (basis**2).sum(axis=1), df - rank)


def chi_square_interval(sd: float, df: float, confidence: float) -> tuple[float, float]:
    """Interval of a standard deviation of normal values, estimated with `df` degrees of freedom."""
    upper = float(stats.chi2.ppf(0.5 + confidence / 2, df))
    lower = float(stats.chi2.ppf(0.5 - confidence / 2, df))
    return float(sd * np.sqrt(df / upper)), float(sd * np.sqrt(df / lower))


def between_people(data: Repeated, within: float, df: int, confidence: float) -> tuple[float, float, float, float]:
    """Standard deviation between people, intraclass correlation and its interval, from mean squares.

    Parameters
    ----------
    data : Repeated
        Of two people or more; the design is not used.
    within : float
        Variance within people, of `df` degrees of freedom.
    df : int
    confidence : float

    References
    ----------
    Shrout and Fleiss 1979, doi:10.1037/0033-2909.86.2.420, ICC(1,1); Wald 1940, Ann. Math. Stat. 11:96, for unequal
    numbers of sessions.
    """
    count = data.count
    k, n = len(count), int(count.sum())
    means = data.mean(data.value)

    def ratio(icc: float) -> float:
        """Mean square of the means over that within, if this were the intraclass correlation; falls with it."""
        weight = count * (1 - icc) / (1 - icc + count * icc)
        middle = weight @ means / weight.sum()
        return float(weight @ (means - middle) ** 2 / (k - 1) / within)

    ends = (-1 / (int(count.max()) - 1) * (1 - 1e-9), 1 - 1e-12)

    def where(probability: float) -> float:
        target = float(stats.f.ppf(probability, k - 1, df))
        if ratio(ends[0]) <= target:
            return ends[0]
        if ratio(ends[1]) >= target:
            return ends[1]
        return float(optimize.brentq(lambda icc: ratio(icc) - target, *ends))

    typical = (n - count @ count / n) / (k - 1)
    f = ratio(0.0)
    between = within * max(0.0, f - 1) / typical
    icc = float(np.maximum((f - 1) / (f - 1 + typical), ends[0]))
    return float(np.sqrt(between)), icc, where(0.5 + confidence / 2), where(0.5 - confidence / 2)


def restricted_likelihood(data: Repeated) -> tuple[float, float, FloatArray]:
    """Standard deviations within and between people, and effects (q,), by restricted maximum likelihood."""
    x = np.column_stack([data.design, np.ones(len(data.value))])
    basis, scale, turn = linalg.svd(x, full_matrices=False)
    keep = scale > RANK * scale[0]
    basis, back = basis[:, keep], (turn[keep] / scale[keep, np.newaxis]).T
    joint = np.column_stack([basis, data.value])
    means = np.stack([data.mean(c) for c in joint.T], axis=1)[data.person]
    free = len(data.value) - basis.shape[1]
    count = data.count

    def fitted(log_ratio: float) -> tuple[float, float, FloatArray]:
        ratio = float(np.exp(log_ratio))
        shrink = 1 - 1 / np.sqrt(1 + count * ratio)
        turned = joint - shrink[data.person, np.newaxis] * means
        effect, *_ = linalg.lstsq(turned[:, :-1], turned[:, -1])
        squares = float(((turned[:, -1] - turned[:, :-1] @ effect) ** 2).sum())
        _, determinant = np.linalg.slogdet(turned[:, :-1].T @ turned[:, :-1])
        cost = free * np.log(squares) + determinant + np.log1p(count * ratio).sum()
        return float(cost), squares / free, effect

    grid = np.linspace(-14, 18, 65)
    start = float(grid[int(np.argmin([fitted(float(g))[0] for g in grid]))])
    found = optimize.minimize_scalar(lambda g: fitted(g)[0], bounds=(start - 0.6, start + 0.6), method="bounded")
    _, variance, effect = fitted(float(found.x))
    ratio = float(np.exp(found.x)) if found.x > grid[0] + 1 else 0.0
    return float(np.sqrt(variance)), float(np.sqrt(ratio * variance)), (back @ effect)[: data.design.shape[1]]


def equal_spread(data: Repeated) -> float:
    """Chance of so unequal spreads of people, if they were equal (Bartlett); NaN with fewer than two people."""
    parts = [data.value[data.person == i] for i in range(len(data.count))]
    parts = [part for part in parts if len(part) > 1 and np.ptp(part) > RANK * np.abs(part).max()]
    return float(stats.bartlett(*parts).pvalue) if len(parts) > 1 else float("nan")


def equivalent_df(sampling: FloatArray) -> float:
    """Degrees of freedom of a chi-square whose root spreads as these estimates do."""
    wanted = 4 * float(np.var(np.log(sampling)))
    return float(np.exp(optimize.brentq(lambda x: special.polygamma(1, np.exp(x) / 2) - wanted, -3, 16)))
