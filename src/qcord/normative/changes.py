"""All changes of all people between their sessions, judged."""

import numpy as np
import pandas as pd

from qcord.core.errors import NotIdentifiable, UnknownName
from qcord.normative.reliable_change import Change, reliable_trend
from qcord.normative.repeatability import joined, within_person
from qcord.normative.retest import CELL, WithinPerson

COLUMNS = (
    *("participant_id", *CELL, "n_sessions", "years", "slope", "low", "high", "expected", "limit", "index", "p"),
    *("p_all", "changed", "basis", "sentence"),
)


def changes(
    observations: pd.DataFrame,
    repeatability: pd.DataFrame | None = None,
    *,
    expected: pd.DataFrame | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Judge the change a year of each person in each metric, region and level.

    Parameters
    ----------
    observations : DataFrame
        One row a value: `participant_id`, `time` [years] of each session or `age`, which must not be rounded to years,
        `metric`, `region`, `level`, `value`; `unit`, `se` and `quality` (rows that are not "ok" are left out) where
        present.
    repeatability : DataFrame, optional
        Of one's own scanner, as of `repeatabilities`, joined with the published variation by their degrees of freedom
        (`qcord.normative.repeatability.joined`); this alone is used for what it has not.
    expected : DataFrame, optional
        Change a year from age alone: `metric`, `region`, `level`, `expected` and `expected_se`.
    confidence : float
        Of each limit.

    Returns
    -------
    DataFrame
        One row a person and cell with two values or more: `slope` a year with interval `low` to `high`,
        `limit`, `index` and `p` as of `reliable_trend`; `p_all` is `p` corrected for the number of cells of the person
        (Holm); `basis` is the source of the variation within people. Cells without a known variation, or with sessions
        at one time only, have NaN and say so in `basis`.

    Raises
    ------
    UnknownName
        A column is absent.
    """
    when = "time" if "time" in observations else "age"
    needed = ("participant_id", when, *CELL, "value")
    for name in needed:
        if name not in observations:
            raise UnknownName(f"The observations have no column {name!r}; give {', '.join(needed)}.")
    table = observations.assign(
        **{name: pd.to_numeric(observations[name], errors="coerce") for name in ("value", when)}
    )
    good = np.isfinite(table[["value", when]].to_numpy(dtype=float)).all(axis=1)
    if "quality" in observations:
        good &= (observations.quality.isna() | (observations.quality == "ok")).to_numpy()
    own = {} if repeatability is None else {tuple(row[list(CELL)]): row for _, row in repeatability.iterrows()}
    aged = {} if expected is None else {tuple(row[list(CELL)]): row for _, row in expected.iterrows()}
    rows = []
    for key, part in table[good].groupby(["participant_id", *CELL], sort=False):
        if len(part) < 2:
            continue
        cell = tuple(str(name) for name in key[1:])
        row: dict[str, object] = dict(zip(COLUMNS, key, strict=False)) | {
            "n_sessions": len(part),
            "years": float(np.ptp(part[when])),
        }
        try:
            within = _within(cell, own, float(part.value.mean()))
            change = _judge(part.sort_values(when), when, within, aged.get(cell), confidence=confidence)
        except (UnknownName, NotIdentifiable) as error:
            rows.append(row | {"changed": False, "basis": str(error), "sentence": ""})
            continue
        told = {name: getattr(change, name) for name in ("low", "high", "expected", "index", "p", "changed")}
        rows.append(
            row
            | told
            | {"slope": change.difference, "limit": change.limit.value}
            | {"basis": within.source, "sentence": change.sentence}
        )
    judged = pd.DataFrame(rows, columns=[*COLUMNS])
    judged["p_all"] = judged.groupby("participant_id").p.transform(_holm)
    return judged


def _within(cell: tuple[str, ...], own: "dict[tuple[str, ...], pd.Series]", value: float) -> WithinPerson:
    """Variation from one's own sessions, in proportion to the value, with the published one; or this alone."""
    row = own.get(cell)
    if row is None or not np.isfinite(row["within_sd"]):
        return within_person(*cell).at(value)
    source = f"own sessions: {int(row['n_values'])} of {int(row['n_people'])} people"
    within = WithinPerson(float(row["within_sd"]), float(row["df"]), float(row["noise_sd"]), source)
    try:
        return joined(within, within_person(*cell), value)
    except UnknownName:
        return within


def _judge(
    part: pd.DataFrame, when: str, within: WithinPerson, aged: "pd.Series | None", *, confidence: float
) -> Change:
    unit = part.unit.iloc[0] if "unit" in part and pd.notna(part.unit.iloc[0]) else ""
    return reliable_trend(
        part[when].to_numpy(dtype=float),
        part.value.to_numpy(dtype=float),
        within,
        se=part.se.to_numpy(dtype=float) if "se" in part else None,
        expected=0.0 if aged is None else float(aged["expected"]),
        expected_se=0.0 if aged is None else float(aged["expected_se"]),
        name=" ".join(str(part[name].iloc[0]) for name in CELL),
        unit=str(unit),
        confidence=confidence,
    )


def _holm(p: "pd.Series[float]") -> "pd.Series[float]":
    """Chances corrected for their number (Holm 1979): of one false alarm among all."""
    known = p.dropna().sort_values()
    steps = known * np.arange(len(known), 0, -1)
    return steps.cummax().clip(upper=1.0).reindex(p.index)
