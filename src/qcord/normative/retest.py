"""How much a value of one person varies from session to session, from people who were measured repeatedly."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import pandas as pd

from qcord.core.arrays import FloatArray, IntArray
from qcord.core.errors import ImplausibleValue, NotIdentifiable, UnknownName
from qcord.normative.robust_spread import median_difference, sampling_of_median_difference
from qcord.normative.variance_components import (
    Repeated,
    Residuals,
    between_people,
    chi_square_interval,
    equal_spread,
    equivalent_df,
    restricted_likelihood,
    within_people,
)

CELL = ("metric", "region", "level")
ROUNDING = 1e-24
"""Squared residual, relative to the squared values, that is rounding and no variation."""
UNEQUAL = 0.01
"""Chance below which the spread of people is called unequal."""

Method = Literal["anova", "reml", "robust"]
Trend = Literal["none", "common", "own"]


@dataclass(frozen=True)
class WithinPerson:
    """Standard deviation of one person's values over sessions, and how well it is known.

    Parameters
    ----------
    sd : float
        Standard deviation between sessions, noise of the measurement included [unit of the metric].
    df : float
        Degrees of freedom that it rests on; infinite where it is known; NaN where its source does not say.
    noise_sd : float
        Part of it that is noise of the measurement (root mean square standard error); NaN where not known.
    source : str
        Where it comes from.
    """

    sd: float
    df: float = np.inf
    noise_sd: float = np.nan
    source: str = ""


@dataclass(frozen=True)
class Repeatability:
    """Components of variance of repeated sessions of one metric, region and level.

    Standard deviations are in the unit of the metric, intervals are two-sided at the confidence asked for. `cov` is
    `within_sd` over the mean; `cov_mean` the mean over people of each one's own standard deviation over mean (both
    are in use in the literature, and differ where people differ in spread). `session_sd` is what remains of
    `within_sd` without noise. `equal_p` is the chance (Bartlett) that people of equal spread differ as much in spread
    as these. `df` are the degrees of freedom of `within_sd`.
    """

    mean: float
    within_sd: float
    within_low: float
    within_high: float
    df: float
    cov: float
    cov_low: float
    cov_high: float
    cov_mean: float
    noise_sd: float
    session_sd: float
    session_low: float
    session_high: float
    between_sd: float
    icc: float
    icc_low: float
    icc_high: float
    equal_p: float
    n_values: int
    n_people: int
    n_repeated: int
    slope: float
    method: str
    note: str

    @property
    def within_person(self) -> WithinPerson:
        """What judges a change in one person."""
        source = f"{self.n_values} sessions of {self.n_people} people, {self.method}"
        return WithinPerson(self.within_sd, self.df, self.noise_sd, source)


def repeatability(
    observations: pd.DataFrame,
    *,
    method: Method = "anova",
    trend: Trend = "none",
    by: Sequence[str] = (),
    confidence: float = 0.95,
) -> Repeatability:
    """Estimate the variation within and between people from repeated sessions of one metric, region and level.

    Parameters
    ----------
    observations : DataFrame
        One row a session: `participant_id`, `value`; used where present: `se`, `quality` (rows that are not "ok" are
        left out), `session_id`, `age` [years], `site`, `scanner` and the columns in `by`.
    method : str
        "anova": one-way random effects by mean squares, exact for unbalanced sessions too; "reml": restricted maximum
        likelihood, which uses the differences between people for the trend and where they tell nothing of people;
        "robust": median of the differences between sessions of a person, which a quarter of bad sessions hardly moves.
    trend : str
        Change with age to be removed first: "none", "common" to all, or "own" to each person (costs a degree of
        freedom each).
    by : sequence of str
        Columns whose levels differ by a constant, such as the scanner or its software.
    confidence : float
        Of the intervals.

    Raises
    ------
    NotIdentifiable
        No person has two sessions, or the trend and the groups use up all of them.
    ImplausibleValue
        The repeated values are all equal, or a session is given twice.
    UnknownName
        A column, a method or a kind of trend is not known.

    Notes
    -----
    The interval of `within_sd` is exact for normal variation of equal size in all people (chi-square; for "robust"
    simulated for the very pattern of sessions). The interval of the intraclass correlation is that of Wald 1940 (Ann.
    Math. Stat. 11:96), exact for unbalanced sessions; balanced, it is the one of Shrout and Fleiss for ICC(1,1).

    References
    ----------
    Shrout and Fleiss 1979, doi:10.1037/0033-2909.86.2.420. Bland and Altman 1996, doi:10.1136/bmj.313.7059.744.
    """
    _check(observations, method, trend, by)
    rows, notes = _usable(observations)
    person, names = pd.factorize(rows.participant_id)
    data = Repeated(rows.value.to_numpy(dtype=float), person, _design(rows, person, trend, by))
    left = _left_within(data)
    noise = _noise(rows, left)
    found = _components(data, left, method, confidence)
    level = replace(data, value=data.value - data.design @ found.effect)
    notes += _remarks(found, noise, level)
    within = np.array([found.within, found.low, found.high])
    session = np.sqrt(np.maximum(within**2 - noise**2, 0)) if np.isfinite(noise) else np.full(3, np.nan)
    means = level.mean(level.value)
    mean = float(means.mean())
    own = pd.Series(level.value).groupby(person).std().to_numpy()
    cov = within / abs(mean) if mean else np.full(3, np.nan)
    steady = np.isfinite(own) & (means != 0)
    return Repeatability(
        mean=mean,
        within_sd=found.within,
        within_low=found.low,
        within_high=found.high,
        df=found.df,
        cov=float(cov[0]),
        cov_low=float(cov[1]),
        cov_high=float(cov[2]),
        cov_mean=float(np.mean(own[steady] / np.abs(means[steady]))) if steady.any() else np.nan,
        noise_sd=noise,
        session_sd=float(session[0]),
        session_low=float(session[1]),
        session_high=float(session[2]),
        between_sd=found.between,
        icc=found.icc,
        icc_low=found.icc_low,
        icc_high=found.icc_high,
        equal_p=equal_spread(level),
        n_values=len(data.value),
        n_people=len(names),
        n_repeated=int((data.count > 1).sum()),
        slope=float(found.effect[0]) if trend == "common" else np.nan,
        method=method,
        note="; ".join(notes),
    )


@dataclass(frozen=True, eq=False)
class _Components:
    within: float
    low: float
    high: float
    df: float
    between: float
    icc: float
    icc_low: float
    icc_high: float
    effect: FloatArray


def _components(data: Repeated, left: Residuals, method: Method, confidence: float) -> _Components:
    within = float(np.sqrt(left.residual @ left.residual / left.df))
    level = replace(data, value=data.value - data.design @ left.effect)
    several = len(data.count) > 1 and method != "robust"
    people = between_people(level, within**2, left.df, confidence) if several else (np.nan,) * 4
    low, high = chi_square_interval(within, left.df, confidence)
    if method == "reml" and several:
        within, between, effect = restricted_likelihood(data)
        low, high = chi_square_interval(within, left.df, confidence)
        icc = between**2 / (between**2 + within**2)
        return _Components(within, low, high, left.df, between, icc, *people[2:], effect)
    if method == "robust":
        raw = median_difference(data.value, data.person)
        if not raw:
            raise ImplausibleValue(
                "Half of the sessions of a person equal each other; give values that are not rounded, or use 'anova'."
            )
        sampling = sampling_of_median_difference(tuple(sorted(data.count[data.count > 1].tolist())))
        high, low = (raw / float(q) for q in np.quantile(sampling, (0.5 - confidence / 2, 0.5 + confidence / 2)))
        return _Components(
            raw / float(np.mean(sampling)), low, high, equivalent_df(sampling), *people, effect=left.effect
        )
    return _Components(within, low, high, left.df, *people, effect=left.effect)


def _left_within(data: Repeated) -> Residuals:
    """Residuals within people; refuses where there are none."""
    people, sessions = len(data.count), len(data.value)
    if data.count.max(initial=0) < 2:
        raise NotIdentifiable(
            f"None of {people} people has two usable sessions; variation within a person needs at least two of one."
        )
    left = within_people(data)
    if left.df < 1:
        raise NotIdentifiable(
            f"{sessions} sessions of {people} people leave nothing after the trend and the groups; "
            "give more sessions, trend='none' or fewer columns in by."
        )
    if left.residual @ left.residual <= ROUNDING * (data.value @ data.value):
        raise ImplausibleValue(
            f"All repeated values of {people} people are equal; measurements vary, so give them unrounded and from "
            "separate sessions."
        )
    return left


def _remarks(found: _Components, noise: float, level: Repeated) -> list[str]:
    notes = []
    if len(level.count) == 1:
        notes.append("one person: nothing is known of others, who may vary more or less")
    elif found.between == 0:
        notes.append("people differ no more than their sessions do")
    equal = equal_spread(level)
    if equal < UNEQUAL:
        notes.append(f"people differ in how much they vary (p = {equal:.1g}): the limits fit none of them exactly")
    if noise > found.within:
        notes.append("sessions differ less than the standard errors say: these are too large, or share an error")
    return notes


def repeatabilities(
    observations: pd.DataFrame,
    *,
    method: Method = "anova",
    trend: Trend = "none",
    by: Sequence[str] = (),
    confidence: float = 0.95,
) -> pd.DataFrame:
    """`repeatability` of each metric, region and level; a cell that tells nothing has NaN and the reason in `note`.

    Returns
    -------
    DataFrame
        Columns `metric`, `region`, `level` and those of `Repeatability`.
    """
    missing = [name for name in CELL if name not in observations]
    if missing:
        raise UnknownName(f"The observations have no column {missing[0]!r}; give metric, region and level.")
    rows = []
    for cell, part in observations.groupby(list(CELL), sort=True, dropna=False):
        row: dict[str, object] = dict(zip(CELL, cell, strict=True))
        try:
            row |= vars(repeatability(part, method=method, trend=trend, by=by, confidence=confidence))
        except (NotIdentifiable, ImplausibleValue) as error:
            row |= {"n_values": len(part), "n_people": part.participant_id.nunique(), "note": str(error)}
        rows.append(row)
    return pd.DataFrame(rows, columns=[*CELL, *Repeatability.__dataclass_fields__])


def deviations(observations: pd.DataFrame) -> pd.DataFrame:
    """How far each session lies from the median of its person, to find those that carry the variation.

    Returns
    -------
    DataFrame
        `participant_id`, `session_id`, `value`, `deviation` [unit of the metric], `z` (deviation over the robust
        standard deviation within people) and `share` of the squared deviations from the means of the people.
    """
    _check(observations, "robust", "none", ())
    rows, _ = _usable(observations)
    person, _ = pd.factorize(rows.participant_id)
    value = rows.value.reset_index(drop=True).astype(float)
    spread = median_difference(value.to_numpy(), person)
    middle = value.groupby(person).transform("median")
    squares = (value - value.groupby(person).transform("mean")) ** 2
    total = float(squares.sum())
    return pd.DataFrame(
        {
            "participant_id": rows.participant_id.to_numpy(),
            "session_id": rows.session_id.to_numpy() if "session_id" in rows else None,
            "value": value,
            "deviation": value - middle,
            "z": (value - middle) / spread if spread else np.nan,
            "share": squares / total if total else np.nan,
        }
    )


def _check(observations: pd.DataFrame, method: str, trend: str, by: Sequence[str]) -> None:
    needed = ["participant_id", "value", *(["age"] if trend != "none" else []), *by]
    for name in needed:
        if name not in observations:
            raise UnknownName(f"The observations have no column {name!r}; give {', '.join(needed)}.")
    if method not in get_args(Method):
        raise UnknownName(f"Method {method!r} is not known; choose one of {', '.join(get_args(Method))}.")
    if trend not in get_args(Trend):
        raise UnknownName(f"Trend {trend!r} is not known; choose one of {', '.join(get_args(Trend))}.")
    if method == "robust" and (trend != "none" or by):
        raise UnknownName("The robust method knows no trend and no groups; use 'anova' or 'reml' for them.")
    several = {name: len(observations[name].unique()) for name in CELL if name in observations}
    for name, number in several.items():
        if number > 1:
            raise ImplausibleValue(
                f"{number} values of {name!r} found, one expected; use repeatabilities for tables of several."
            )


def _usable(observations: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Rows with a value that is to be trusted, and notes on the others."""
    notes = []
    value = pd.to_numeric(observations.value, errors="coerce")
    fit = np.isfinite(value) & observations.participant_id.notna()
    if "quality" in observations:
        fit &= observations.quality.isna() | (observations.quality == "ok")
    if not fit.all():
        notes.append(f"{int((~fit).sum())} of {len(fit)} values left out (absent, or quality not ok)")
    rows = observations[fit].assign(value=value[fit])
    if "se" in rows and rows.se.lt(0).any():
        raise ImplausibleValue(f"A standard error of {rows.se.min():g} was given; errors are not negative.")
    if "session_id" in rows:
        named = rows[rows.session_id.notna()]
        twice = named.duplicated(["participant_id", "session_id"])
        if twice.any():
            raise ImplausibleValue(
                f"{int(twice.sum())} sessions are given twice; give one value a session, or name the runs as sessions."
            )
    for name in ("site", "scanner", "software"):
        if name in rows and rows.groupby("participant_id")[name].nunique().gt(1).any():
            notes.append(f"people were measured with more than one {name}: by=({name!r},) takes its offset out")
    return rows, notes


def _design(rows: pd.DataFrame, person: IntArray, trend: Trend, by: Sequence[str]) -> FloatArray:
    """Columns beside the means of people: trend first, then groups; (n, q)."""
    columns = []
    if trend != "none":
        age = rows.age.to_numpy(dtype=float)
        if not np.isfinite(age).all():
            raise ImplausibleValue(
                f"{int((~np.isfinite(age)).sum())} sessions have no age; give it, or do not ask for a trend."
            )
        # about each person's mean, so that the trend is that of people and not the difference between them
        since = age - pd.Series(age).groupby(person).transform("mean").to_numpy()
        one = trend == "common"
        columns += [since] if one else [since * (person == i) for i in range(person.max() + 1)]
    for name in by:
        level, _ = pd.factorize(rows[name], use_na_sentinel=False)
        columns += [(level == i).astype(float) for i in range(1, level.max() + 1)]
    return np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0))


def _noise(rows: pd.DataFrame, left: Residuals) -> float:
    """Standard deviation of the residuals that the standard errors explain; NaN where one is absent."""
    if "se" not in rows:
        return float("nan")
    se = rows.se.to_numpy(dtype=float)
    return float(np.sqrt(left.free @ se**2 / left.df)) if np.isfinite(se).all() else float("nan")
