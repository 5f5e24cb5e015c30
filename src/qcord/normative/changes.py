"""All changes of all people between their sessions, judged."""

import numpy as np
import pandas as pd

from qcord.core.errors import UnknownName
from qcord.normative.reliable_change import Change, reliable_trend
from qcord.normative.repeatability import within_person
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
        One row a value: `participant_id`, `age` [years] of each session, `metric`, `region`, `level`, `value`; `unit`,
        `se` and `quality` (rows that are not "ok" are left out) where present.
    repeatability : DataFrame, optional
        Of one's own scanner, as of `repeatabilities`; published variation is used for what it has not.
    expected : DataFrame, optional
        Change a year from age alone: `metric`, `region`, `level`, `expected` and `expected_se`.
    confidence : float
        Of each limit.

    Returns
    -------
    DataFrame
        One row a person and cell with sessions at two times or more: `slope` a year with interval `low` to `high`,
        `limit`, `index` and `p` as of `reliable_trend`; `p_all` is `p` corrected for the number of cells of the person
        (Holm); `basis` is the source of the variation within people. Cells without a known variation have NaN and say
        so in `basis`.

    Raises
    ------
    UnknownName
        A column is absent.
    """
    needed = ("participant_id", "age", *CELL, "value")
    for name in needed:
        if name not in observations:
            raise UnknownName(f"The observations have no column {name!r}; give {', '.join(needed)}.")
    good = np.isfinite(observations[["value", "age"]].to_numpy(dtype=float)).all(axis=1)
    if "quality" in observations:
        good &= (observations.quality.isna() | (observations.quality == "ok")).to_numpy()
    own = {} if repeatability is None else {tuple(row[list(CELL)]): row for _, row in repeatability.iterrows()}
    aged = {} if expected is None else {tuple(row[list(CELL)]): row for _, row in expected.iterrows()}
    rows = []
    for key, part in observations[good].groupby(["participant_id", *CELL], sort=False):
        if part.age.nunique() < 2:
            continue
        cell = tuple(str(name) for name in key[1:])
        row: dict[str, object] = dict(zip(COLUMNS, key, strict=False)) | {
            "n_sessions": len(part),
            "years": float(np.ptp(part.age)),
        }
        try:
            within = _within(cell, own, float(part.value.mean()))
        except UnknownName as error:
            rows.append(row | {"changed": False, "basis": str(error), "sentence": ""})
            continue
        change = _judge(part.sort_values("age"), within, aged.get(cell), confidence)
        judged = {name: getattr(change, name) for name in ("low", "high", "expected", "index", "p", "changed")}
        rows.append(
            row
            | judged
            | {"slope": change.difference, "limit": change.limit.value}
            | {"basis": within.source, "sentence": change.sentence}
        )
    table = pd.DataFrame(rows, columns=[*COLUMNS])
    table["p_all"] = table.groupby("participant_id").p.transform(_holm)
    return table


def _within(cell: tuple[str, ...], own: "dict[tuple[str, ...], pd.Series]", value: float) -> WithinPerson:
    """Variation from one's own sessions, in proportion to the value, or else the published one."""
    row = own.get(cell)
    if row is None or not np.isfinite(row["within_sd"]):
        return within_person(*cell).at(value)
    source = f"own sessions: {int(row['n_values'])} of {int(row['n_people'])} people"
    return WithinPerson(float(row["within_sd"]), float(row["df"]), float(row["noise_sd"]), source)


def _judge(part: pd.DataFrame, within: WithinPerson, aged: "pd.Series | None", confidence: float) -> Change:
    unit = part.unit.iloc[0] if "unit" in part and pd.notna(part.unit.iloc[0]) else ""
    return reliable_trend(
        part.age.to_numpy(dtype=float),
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
