"""When a change in one person is more than what sessions differ by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from qcord.core.arrays import FloatArray
from qcord.core.errors import ImplausibleValue, NotIdentifiable, UnknownName
from qcord.normative.retest import WithinPerson
from qcord.normative.variance_components import chi_square_interval

UNSTEADY = 0.01
"""Chance of so much scatter about a line below which a person is taken to be less steady than others."""
ROUNDING = 1e-9
"""Relative difference of standard deviations that is none."""
IMPOSSIBLE = 1e-12
"""Chance below which an estimate so far below its own noise is that noise."""
FAR = 1e100
"""Ratio that stands for any larger one."""

_X, _W = np.polynomial.legendre.leggauss(160)
NODES = ((_X + 1) / 2) ** 4
WEIGHTS = 2 * _W * ((_X + 1) / 2) ** 3
"""Probabilities of a chi-square and their weights, dense where it is small and the variance that it leaves is large."""


@dataclass(frozen=True)
class Limit:
    """Smallest change of one person that is more than two sessions differ by.

    Parameters
    ----------
    value : float
        Limit to be used; wider than `1.96 sqrt(2) sd` where the standard deviation rests on few sessions.
    low, high : float
        Where the limit would lie if the standard deviation were known (its own interval carried over); NaN where
        the source does not say how well it is known.
    se : float
        Standard error of a difference of two sessions without change.
    """

    value: float
    low: float
    high: float
    se: float


@dataclass(frozen=True)
class Change:
    """A change in one person, judged.

    Parameters
    ----------
    difference, low, high : float
        After less before, with its interval; for a trend the change a year.
    expected : float
        Change that age alone is expected to bring.
    index : float
        Reliable change index: what the difference has beyond the expected, over its standard error.
    p : float
        Chance of an index at least as far from 0 without change.
    limit : Limit
    changed : bool
        Whether the difference lies beyond the limit from the expected one.
    confidence : float
    sentence : str
        The same for a reader.
    """

    difference: float
    low: float
    high: float
    expected: float
    index: float
    p: float
    limit: Limit
    changed: bool
    confidence: float
    sentence: str


def minimal_detectable_change(
    within: WithinPerson, se_before: float = np.nan, se_after: float = np.nan, *, confidence: float = 0.95
) -> Limit:
    """Change in one person that two sessions without change reach in one of twenty cases (at 95 %).

    Parameters
    ----------
    within : WithinPerson
        Variation from session to session.
    se_before, se_after : float
        Standard errors of the two values [unit of the metric]; NaN where not known.
    confidence : float

    Returns
    -------
    Limit
        `t sqrt(2) sd` where `within` says nothing of its noise and the errors of the values are no larger. Where it
        does, the noise of its own sessions is exchanged for that of these two. It is never below the limit by the
        standard errors alone.

    Raises
    ------
    ImplausibleValue
        A standard deviation or error is negative, or absent altogether.

    Notes
    -----
    The difference is normal with a variance that is known only as well as the chi-square distribution of its estimate
    says; the limit holds on average over it, and over no variance below the noise. With nothing but `sd` and `df` this
    is Student's t. Where noise outweighs the sessions, their share is hard to tell, and the limit is cautious.

    References
    ----------
    Jacobson and Truax 1991, doi:10.1037/0022-006X.59.1.12.
    """
    own = _errors([se_before, se_after])
    return _limit(within, lambda sd: _session_variance(sd, within.noise_sd, own).sum(axis=-1), confidence)[0]


def reliable_change(
    before: float,
    after: float,
    within: WithinPerson,
    *,
    se_before: float = np.nan,
    se_after: float = np.nan,
    expected: float = 0.0,
    expected_se: float = 0.0,
    name: str = "value",
    unit: str = "",
    confidence: float = 0.95,
) -> Change:
    """Judge the difference of two sessions of one person.

    Parameters
    ----------
    before, after : float
        Values [unit of the metric].
    within : WithinPerson
        Variation from session to session in people without change: `Repeatability.within_person` or
        `Published.at`.
    se_before, se_after : float
        Standard errors of the values; NaN where not known.
    expected, expected_se : float
        Change from age alone, with its standard error (`expected_change`).
    name, unit : str
        For the sentence.
    confidence : float

    Raises
    ------
    ImplausibleValue
        A value is not finite, or an error is negative.

    References
    ----------
    Jacobson and Truax 1991, doi:10.1037/0022-006X.59.1.12.
    """
    if not np.isfinite([before, after, expected, expected_se]).all():
        raise ImplausibleValue(f"Values of {before} and {after} were given; a change needs two numbers.")
    own = _errors([se_before, se_after])
    limit, chance = _limit(
        within, lambda sd: _session_variance(sd, within.noise_sd, own).sum(axis=-1) + expected_se**2, confidence
    )
    change = f"{name} changed by {after - before:+.3g}{_unit(unit)} ({before:.4g} to {after:.4g})"
    found = _Found(after - before, expected, limit, chance, confidence)
    return _judged(found, change, unit)


def reliable_trend(
    time: Sequence[float] | FloatArray,
    value: Sequence[float] | FloatArray,
    within: WithinPerson,
    *,
    se: Sequence[float] | FloatArray | None = None,
    expected: float = 0.0,
    expected_se: float = 0.0,
    name: str = "value",
    unit: str = "",
    confidence: float = 0.95,
) -> Change:
    """Judge the change a year of one person with two or more sessions.

    Parameters
    ----------
    time : (n,) array
        Time of the sessions [years].
    value : (n,) array
        Values [unit of the metric].
    within : WithinPerson
        Variation from session to session in people without change.
    se : (n,) array, optional
        Standard errors of the values.
    expected, expected_se : float
        Change a year from age alone.
    name, unit : str
        For the sentence.
    confidence : float

    Returns
    -------
    Change
        Its differences and limit are those of a year. A person whose sessions scatter about the line more than
        `within` allows is judged by that scatter.

    Raises
    ------
    NotIdentifiable
        Fewer than two sessions at different times.
    ImplausibleValue
        A value or time is not finite.
    """
    t, y = np.asarray(time, dtype=float), np.asarray(value, dtype=float)
    errors = np.full(len(y), np.nan) if se is None else np.asarray(se, dtype=float)
    if not (len(t) == len(y) == len(errors)) or not np.isfinite(np.concatenate([t, y])).all():
        raise ImplausibleValue(
            f"{len(t)} times, {len(y)} values and {len(errors)} errors were given; a trend needs as many finite ones."
        )
    if len(t) < 2 or not np.ptp(t):
        raise NotIdentifiable("All sessions have one time; a trend needs two times.")
    variance = _session_variance(np.array([within.sd]), within.noise_sd, _errors(errors))[0]
    weight = 1 / np.maximum(variance, np.finfo(float).tiny)
    since = t - weight @ t / weight.sum()
    by = weight * since / (weight * since @ since)
    slope = float(by @ y)
    left = len(t) - 2
    scatter = float(weight @ (y - weight @ y / weight.sum() - slope * since) ** 2 / left) if left else 0.0
    usual = stats.f.isf(UNSTEADY, left, within.df if np.isfinite(within.df) else 1e9) if left else np.inf
    judge, note = within, ""
    if scatter > usual:
        judge = WithinPerson(within.sd, float(np.fmin(left, within.df)))
        note = "; the sessions scatter more than is usual, and are judged by their own scatter"

    def slope_variance(sd: FloatArray) -> FloatArray:
        if note:
            return np.asarray((sd / within.sd) ** 2 * scatter * (by**2 @ variance) + expected_se**2)
        return np.asarray(_session_variance(sd, within.noise_sd, errors) @ by**2 + expected_se**2)

    limit, chance = _limit(judge, slope_variance, confidence)
    per_year = f"{_unit(unit)} a year".strip()
    change = f"{name} changed by {slope:+.3g} {per_year} over {np.ptp(t):.3g} years ({len(t)} sessions{note})"
    return _judged(_Found(slope, expected, limit, chance, confidence), change, per_year)


def expected_change(centiles: pd.DataFrame, age_before: float, age_after: float) -> float:
    """Change that age alone brings: the median of a norm at two ages.

    Parameters
    ----------
    centiles : DataFrame
        `age`, `probability`, `value` of one sex, as of `qcord.normative.centiles.centiles`; must cover both ages.
    age_before, age_after : float
        [years]

    Raises
    ------
    UnknownName
        The table has no medians.
    ImplausibleValue
        An age lies outside the table.
    """
    middle = centiles[np.isclose(centiles.probability, 0.5)].sort_values("age")
    if middle.empty:
        raise UnknownName("The table of centiles has no probability 0.5; ask centiles for it.")
    ages = middle.age.to_numpy(dtype=float)
    low, high = min(age_before, age_after), max(age_before, age_after)
    if not (ages[0] <= low and high <= ages[-1]):
        raise ImplausibleValue(f"Ages of {low:g} to {high:g} years lie outside the norm, {ages[0]:g} to {ages[-1]:g}.")
    before, after = np.interp([age_before, age_after], ages, middle.value.to_numpy(dtype=float))
    return float(after - before)


@dataclass(frozen=True, eq=False)
class _Found:
    """A difference beside what is expected of it; `chance` gives the probability of one at least as large."""

    difference: float
    expected: float
    limit: Limit
    chance: Callable[[float], float]
    confidence: float


def _errors(own: Sequence[float] | FloatArray) -> FloatArray:
    errors = np.asarray(own, dtype=float)
    if (errors < 0).any():
        raise ImplausibleValue(f"A standard error of {float(np.nanmin(errors))} was given; errors are not negative.")
    return errors


def _session_variance(sd: FloatArray, noise: float, own: FloatArray) -> FloatArray:
    """Variance of each session: that between sessions beyond noise, and the noise of the value itself.

    Where the noise within `sd` is not known, all of `sd` may be between sessions or none: the larger of `sd` and the
    value's own error is taken.

    Parameters
    ----------
    sd : (d,) array
        Possible standard deviations within people.
    noise : float
    own : (n,) array
        Standard errors of the values.

    Returns
    -------
    (d, n) array
    """
    total = (sd**2)[:, np.newaxis]
    if np.isfinite(noise):
        known = np.maximum(total - noise**2, 0) + own**2
        return np.asarray(np.where(np.isfinite(own), known, np.maximum(total, noise**2)))
    return np.asarray(np.fmax(total, own**2))


def _possible(within: WithinPerson) -> FloatArray:
    """Standard deviations within people that the estimate leaves possible, at the probabilities `NODES`.

    Those below the noise that they contain are not, however the estimate turned out.
    """
    noise = within.noise_sd if np.isfinite(within.noise_sd) else 0.0
    half = within.df / 2
    share = float(special.gammainc(half, half * min(within.sd / noise, FAR) ** 2)) if noise else 1.0
    if share < IMPOSSIBLE:
        return np.full(len(NODES), max(noise, within.sd))
    return np.asarray(within.sd * np.sqrt(half / special.gammaincinv(half, share * NODES)))


def _limit(
    within: WithinPerson, variance: Callable[[FloatArray], FloatArray], confidence: float
) -> tuple[Limit, Callable[[float], float]]:
    """Limit for a variance that is a function of the standard deviation within people; chance of a difference."""
    if not (np.isfinite(within.sd) and within.sd >= 0):
        raise ImplausibleValue(
            f"A standard deviation within people of {within.sd} was given; take it from repeatability or within_person."
        )
    if within.df <= 0:
        raise ImplausibleValue(f"{within.df} degrees of freedom were given; give 1 or more, or NaN where not known.")
    if np.isfinite(within.df):
        possible, weight = _possible(within), WEIGHTS
        ends = np.array(chi_square_interval(within.sd, within.df, confidence))
    else:
        possible, weight = np.array([within.sd]), np.ones(1)
        ends = np.full(2, within.sd if np.isposinf(within.df) else np.nan)
    spread = np.sqrt(variance(possible))
    se = float(np.sqrt(variance(np.array([within.sd]))[0]))

    def chance(difference: float) -> float:
        if not difference:
            return 1.0
        with np.errstate(divide="ignore"):
            return float(2 * weight @ special.ndtr(-abs(difference) / spread))

    factor = float(special.ndtri(0.5 + confidence / 2))
    low, high = factor * np.sqrt(variance(ends)) if np.isfinite(ends).all() else (np.nan, np.nan)
    value = factor * se
    if np.ptp(spread) > ROUNDING * spread.max():
        reach = factor * float(spread.max())
        value = float(optimize.brentq(lambda d: chance(d) - (1 - confidence), 0, 1.01 * reach, rtol=1e-10))
    return Limit(value, float(low), float(high), se), chance


def _judged(found: _Found, sentence: str, unit: str) -> Change:
    beyond, limit = found.difference - found.expected, found.limit
    index = beyond / limit.se if limit.se else float(np.sign(beyond) * np.inf if beyond else 0.0)
    changed = bool(abs(beyond) > limit.value)
    verdict = "more than" if changed else "no more than"
    aged = f" once the {found.expected:+.3g}{_unit(unit)} of age is taken off" if found.expected else ""
    return Change(
        difference=found.difference,
        low=found.difference - limit.value,
        high=found.difference + limit.value,
        expected=found.expected,
        index=float(index),
        p=found.chance(beyond),
        limit=limit,
        changed=changed,
        confidence=found.confidence,
        sentence=f"{sentence}{aged}: {verdict} sessions of an unchanged person differ by "
        f"(within ±{limit.value:.3g}{_unit(unit)} in {100 * found.confidence:g} %).",
    )


def _unit(unit: str) -> str:
    return f" {unit}" if unit not in {"", "1"} else ""
