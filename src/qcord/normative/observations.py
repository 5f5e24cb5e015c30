"""One value of one person, a row: what a table of observations must hold, and which of its rows can be used."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from qcord.core.arrays import IntArray
from qcord.core.errors import ImplausibleValue, MissingMetadata, UnknownName
from qcord.core.text_column import TEXT, as_text
from qcord.normative.names import (
    HEALTHY,
    level_name,
    maker_name,
    pathology_name,
    region_name,
    sex_name,
    translated,
)
from qcord.normative.plausible import FACTORS, conversion, metric_name, plausible, unit_name

NUMBERS = ("value", "se", "age", "height", "weight")
COLUMNS = (
    *("participant_id", "session_id", "site", "manufacturer", "scanner", "protocol", "software"),
    *("metric", "unit", "region", "level", "value", "se", "quality", "pathology", "age", "sex", "height", "weight"),
)
"""Columns of observations, in order: text, but for `NUMBERS`."""

REQUIRED = ("participant_id", "site", "metric", "region", "level", "value")
"""Columns that a table must have; of the others, age, sex and pathology are needed row by row by norms."""

CELL = ("metric", "region", "level")
KEY = ("participant_id", "session_id", "site", *CELL, "protocol", "software")
"""What makes an observation one and the same."""

MEANING = {
    **{"participant_id": "Label without sub-.", "session_id": "Label without ses-.", "site": "Where it was scanned."},
    **{"manufacturer": "Maker of the scanner.", "scanner": "Model of the scanner."},
    **{"protocol": "Fingerprint of the sequence.", "software": "Name and version of what computed the value."},
    **{"metric": "Quantity.", "unit": "Unit of value and se.", "region": "Tract or combined region."},
    **{"level": "Vertebral level (C3) or range (C2:C5).", "value": "Estimate.", "se": "Standard error of value."},
    **{"quality": "ok, or why not.", "pathology": "HC is healthy.", "age": "Years.", "sex": "F or M."},
    **{"height": "Metres.", "weight": "Kilograms."},
}

SAME_AGE = 1.0
"""Years by which two ages of one person at one session may differ: one may have been rounded (assumed)."""

TOO_MANY_ALIKE = 5
"""Persons whose value in a cell is the very same number before it is taken for a filled-in column (assumed)."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A table of observations, sorted into what norms may use and what they may not.

    Parameters
    ----------
    accepted : DataFrame
        Observations of healthy persons that passed all checks; columns `COLUMNS`.
    reference : DataFrame
        The same of persons who are not healthy: kept for comparison, never part of a norm.
    refused : DataFrame
        All other rows, with a column ``reason``.
    notes : tuple of str
        What was converted, assumed or left out.
    n_empty : int
        Rows that held no value.
    """

    accepted: pd.DataFrame
    reference: pd.DataFrame
    refused: pd.DataFrame
    notes: tuple[str, ...] = ()
    n_empty: int = 0

    @property
    def reasons(self) -> dict[str, int]:
        """Number of refused rows by reason, the commonest first."""
        return {str(k): int(v) for k, v in self.refused["reason"].value_counts().items()}


def checked(frame: pd.DataFrame) -> Entry:
    """Check observations row by row; nothing is dropped without a reason.

    Parameters
    ----------
    frame : DataFrame
        One row a value, with the columns `COLUMNS`; those beyond `REQUIRED` may be absent. Other words for the same
        thing are understood: ``Female``, ``GE MEDICAL SYSTEMS``, levels ``2:5``, ids with ``sub-``.

    Returns
    -------
    Entry
        Rows in the order of the table.

    Raises
    ------
    MissingMetadata
        If a column is absent, or there is no row.
    ImplausibleValue
        If a column of numbers holds text, or all values of a metric are in another unit than stated.
    UnitMismatch
        If a unit cannot be turned into that of the metric.
    UnknownName
        If a level is none.
    """
    notes: list[str] = []
    table = _typed(frame, notes)
    n_empty = int(table["value"].isna().sum())
    table = table[table["value"].notna()].reset_index(drop=True)
    if table.empty:
        raise MissingMetadata(f"All {n_empty} values are empty; expected numbers in the column of values.")
    table = _size(_named(table, notes), notes)
    table, mixed = _in_own_units(table, notes)
    _refuse_slips(table[~mixed])
    reason = _reasons(table, mixed)
    fine = (reason == "").to_numpy()
    reason.loc[fine] = _alike(table[fine])
    sick = table["pathology"].ne(HEALTHY)
    fine = (reason == "").to_numpy()
    accepted, reference = table[fine & ~sick], table[fine & sick]
    refused = table[~fine].assign(reason=reason[~fine])
    accepted, reference, refused = (t.reset_index(drop=True) for t in (accepted, reference, refused))
    return Entry(accepted, reference, refused, tuple(notes), n_empty)


def group_codes(frame: pd.DataFrame, columns: Sequence[str]) -> IntArray:
    """Number of the group of each row by some columns; absent text is a group of its own."""
    code = np.zeros(len(frame), dtype=np.int64)
    for name in columns:
        own, names = pd.factorize(frame[name], use_na_sentinel=False)
        code = pd.factorize(code * max(len(names), 1) + own)[0].astype(np.int64)
    return code


def persons_at_odds(frame: pd.DataFrame) -> "pd.Series[str]":
    """Why the rows of one person contradict each other: two sexes, or two ages at one session; else empty."""
    person = group_codes(frame, ("participant_id", "site"))
    visit = group_codes(frame, ("participant_id", "site", "session_id"))
    number = pd.Series(pd.factorize(frame["sex"])[0], index=frame.index)
    sex = number.where(number >= 0).groupby(person)
    age = frame["age"].groupby(visit)
    two_sexes = sex.transform("max") > sex.transform("min")
    two_ages = pd.Series(age.transform("max") - age.transform("min") >= SAME_AGE).groupby(person).transform("max")
    reason = pd.Series("", index=frame.index)
    reason[two_ages.astype(bool)] = "one id with two ages at one session of a site"
    reason[two_sexes] = "one id with two sexes at a site"
    return reason


def _typed(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    absent = [c for c in REQUIRED if c not in frame.columns]
    if absent:
        have = ", ".join(str(c) for c in list(frame.columns)[:12])
        raise MissingMetadata(
            f"Column {absent[0]} is absent (there are {have}); expected {', '.join(REQUIRED)} - name them in a mapping."
        )
    if frame.empty:
        raise MissingMetadata("The table holds no row; expected one row a value.")
    extra = [str(c) for c in frame.columns if c not in COLUMNS]
    if extra:
        notes.append(f"columns not used: {', '.join(extra[:8])}{' ...' if len(extra) > 8 else ''}")
    table = pd.DataFrame(index=range(len(frame)))
    for name in COLUMNS:
        if name not in frame.columns:
            table[name] = pd.Series(np.nan, index=table.index, dtype=float if name in NUMBERS else TEXT)
        elif name in NUMBERS:
            table[name] = _numbers(frame[name].reset_index(drop=True), name)
        else:
            table[name] = as_text(frame[name].reset_index(drop=True))
    return table


def _numbers(column: pd.Series, name: str) -> "pd.Series[float]":
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    bad = np.flatnonzero(numbers.isna() & column.notna())
    if bad.size:
        text = str(column.iloc[bad[0]])
        comma = " (a decimal comma?)" if "," in text else ""
        raise ImplausibleValue(
            f"Column {name} holds the text '{text[:30]}'{comma} in row {bad[0] + 1} and {bad.size - 1} more; "
            "expected numbers, with a point, and empty cells where there is none."
        )
    return numbers


def _named(table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Table with its words in the database's spelling."""
    unknown: set[str] = set()

    def level(text: str) -> str:
        try:
            return level_name(text)
        except UnknownName:
            unknown.add(text)
            return text

    functions = {
        "participant_id": lambda t: t.strip().removeprefix("sub-"),
        "session_id": lambda t: t.strip().removeprefix("ses-"),
        **dict.fromkeys(("site", "scanner", "protocol", "software", "quality"), str.strip),
        **{"manufacturer": maker_name, "metric": metric_name, "unit": unit_name, "region": region_name},
        **{"level": level, "pathology": pathology_name, "sex": sex_name},
    }
    table = table.assign(**{name: translated(table[name], function) for name, function in functions.items()})
    if unknown:
        raise UnknownName(
            f"'{sorted(unknown)[0]}' is no vertebral level, expected C3 or a range such as C2:C5; correct the level."
        )
    unrated = int(table["quality"].isna().sum())
    if unrated:
        notes.append(f"quality is not stated in {unrated} rows: taken as ok")
    table["quality"] = table["quality"].fillna("ok")
    unmade = int(table["manufacturer"].isna().sum())
    if unmade:
        notes.append(f"the maker of the scanner is not stated in {unmade} rows")
    return table


def _size(table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Height in metres and weight in kilograms; what cannot be is left out, as no norm rests on it alone."""
    height, weight = table["height"].copy(), table["weight"].copy()
    centimetres = height.between(100, 250)
    if centimetres.any():
        height[centimetres] *= FACTORS["cm", "m"]
        notes.append(f"height of {int(centimetres.sum())} rows converted from cm to m")
    wrong = height.notna() & ~height.between(0.4, 2.5)
    if wrong.any():
        notes.append(f"height of {int(wrong.sum())} rows left out: neither m nor cm (in inches? state its unit)")
        height[wrong] = np.nan
    index = weight / height**2
    wrong = weight.notna() & (~weight.between(1, 350) | (index < 8) | (index > 75))
    if wrong.any():
        notes.append(f"weight of {int(wrong.sum())} rows left out: impossible in kg (in pounds? state its unit)")
        weight[wrong] = np.nan
    return table.assign(height=height, weight=weight)


def _in_own_units(table: pd.DataFrame, notes: list[str]) -> tuple[pd.DataFrame, "pd.Series[bool]"]:
    """Values and errors in the unit of their metric, and which rows belong to a metric in several units."""
    factor = pd.Series(1.0, index=table.index)
    unit = table["unit"].copy()
    mixed = pd.Series(False, index=table.index)
    unstated: dict[str, str] = {}
    rows = group_codes(table, ("metric", "unit"))
    first = table.groupby(rows, sort=True)[["metric", "unit"]].first()
    first["n"] = np.bincount(rows)
    for metric, found in first.groupby("metric"):
        known = plausible(str(metric))
        stated = [str(u) for u in found["unit"].dropna()]
        if len(stated) > 1:
            notes.append(f"{metric} comes in {' and '.join(stated)}: none of its rows is used")
            mixed |= table["metric"].eq(metric)
            continue
        own = known.unit if known else (stated[0] if stated else "")
        for group, row in found.iterrows():
            here = rows == group
            unit[here] = own or np.nan
            if pd.isna(row["unit"]):
                unstated[str(metric)] = own or "unknown"
            elif (by := conversion(str(row["unit"]), own, str(metric))) != 1:
                factor[here] = by
                notes.append(f"{metric} of {row['n']} rows converted from {row['unit']} to {own}")
    if unstated:
        some = ", ".join(f"{m} in {u}" for m, u in list(unstated.items())[:8]) + (" ..." if len(unstated) > 8 else "")
        notes.append(f"units are not stated: taken as {some}")
    value = table["value"] * factor
    return table.assign(value=value, se=table["se"] * factor, unit=unit), mixed


def _refuse_slips(table: pd.DataFrame) -> None:
    """Raise if the middle value of a metric is impossible and another unit explains it."""
    for metric, value in table.groupby("metric")["value"].median().items():
        known = plausible(str(metric))
        slip = known.slip(float(value)) if known and np.isfinite(value) else ""
        if known and slip:
            raise ImplausibleValue(
                f"{metric} is {value:.3g} in the middle of its values, expected {known.low:g} to {known.high:g} "
                f"{known.unit}; these look like '{slip}': state that unit and they are converted."
            )


def _reasons(table: pd.DataFrame, mixed: "pd.Series[bool]") -> "pd.Series[str]":
    """Why each row on its own cannot be used; empty where it can."""
    reason = pd.Series("", index=table.index)

    def refuse(where: "pd.Series[bool]", why: str) -> None:
        reason[where & (reason == "")] = why

    for name in ("participant_id", "site", "metric", "region", "level"):
        refuse(table[name].isna(), f"{name} is missing")
    refuse(mixed, "metric comes in several units")
    refuse(table["unit"].isna(), "unit is not stated and the metric is not known")
    for metric in table["metric"].dropna().unique():
        if (known := plausible(metric)) is not None:
            impossible = pd.Series(~known.possible(table["value"].to_numpy()), index=table.index)
            why = f"impossible in cord tissue: {metric} must be {known.low:g} to {known.high:g} {known.unit}"
            refuse(table["metric"].eq(metric) & impossible, why)
    refuse(~np.isfinite(table["value"]), "value is not finite")
    refuse(table["se"].notna() & ~(np.isfinite(table["se"]) & (table["se"] >= 0)), "standard error is no number >= 0")
    for word in table["quality"].unique():
        if str(word).lower() != "ok":
            refuse(table["quality"].eq(word), f"quality: {str(word)[:40]}")
    refuse(
        table["pathology"].isna(),
        'pathology is not stated (of healthy people: [constants] pathology = "HC" in a mapping)',
    )
    healthy = table["pathology"].eq(HEALTHY)
    refuse(healthy & table["age"].isna(), "age is missing (join a table with --participants)")
    refuse(table["age"].notna() & ~table["age"].between(0, 120), "age must be 0 to 120 years")
    refuse(healthy & table["sex"].isna(), "sex is missing, F or M (join a table with --participants)")
    return reason


def _alike(table: pd.DataFrame) -> "pd.Series[str]":
    """Why rows cannot be used beside the others: contradictions, repeats, columns of one number."""
    reason = persons_at_odds(table)
    key = group_codes(table, KEY)
    values = table["value"].groupby(key)
    twice = values.transform("max") != values.transform("min")
    again = pd.Series(key, index=table.index).duplicated()
    reason[again & ~twice & (reason == "")] = "duplicate within the table"
    reason[twice & (reason == "")] = "several values for one person, session, cell, protocol and software in the table"
    cell = group_codes(table, CELL)
    values = table["value"].groupby(cell)
    constant = values.transform("max") == values.transform("min")
    if constant.any():
        who = pd.Series(group_codes(table[constant], ("participant_id", "site")), index=table.index[constant])
        many = who.groupby(cell[constant]).transform("nunique") >= TOO_MANY_ALIKE
        alike = many.reindex(table.index, fill_value=False)
        reason[alike & (reason == "")] = "the same number in everybody"
    return reason
