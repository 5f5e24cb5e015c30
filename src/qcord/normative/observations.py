"""One value of one person, a row: what a table of observations must hold, and which of its rows can be used."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from qcord.core.arrays import BoolArray, FloatArray, IntArray
from qcord.core.errors import ImplausibleValue, MissingMetadata, UnknownName
from qcord.core.person_words import NOT_KNOWN, maker_name, sex_name
from qcord.core.text_column import TEXT, as_text
from qcord.normative.names import (
    HEALTHY,
    level_name,
    numbers_of,
    pathology_name,
    plain_text,
    region_name,
    translated,
)
from qcord.normative.plausible import FACTORS, conversion, metric_name, plausible, unit_name

Words = np.ndarray[Any, np.dtype[np.object_]]

NUMBERS = ("value", "se", "age", "height", "weight")
COLUMNS = (
    *("participant_id", "session_id", "study", "site", "manufacturer", "scanner", "protocol", "software"),
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
    **{
        "study": "Cohort or data set; several sites may share it.",
        "manufacturer": "Maker of the scanner.",
        "scanner": "Model of the scanner.",
    },
    **{"protocol": "Fingerprint of the sequence.", "software": "Name and version of what computed the value."},
    **{"metric": "Quantity.", "unit": "Unit of value and se.", "region": "Tract or combined region."},
    **{"level": "Vertebral level (C3) or range (C2:C5).", "value": "Estimate.", "se": "Standard error of value."},
    **{"quality": "ok, or why not.", "pathology": "HC is healthy.", "age": "Years.", "sex": "F or M."},
    **{"height": "Metres.", "weight": "Kilograms."},
}

SEX = ("F", "M")

SAME_AGE = 1.0
"""Years by which two ages of one person at one session may differ: one may have been rounded (assumed)."""

OLDEST = 120

LARGEST = 1e30
"""No value in a unit of the field is larger, or smaller than its reciprocal: squares would leave the numbers."""

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
    entry = sorted_out(frame)
    tables = (entry.accepted, entry.reference, entry.refused)
    accepted, reference, refused = (with_text(t) for t in tables)
    return Entry(accepted, reference, refused, entry.notes, entry.n_empty)


def with_text(table: pd.DataFrame) -> pd.DataFrame:
    """Table with its categories as plain text."""
    return table.assign(**{c: as_text(table[c]) for c in COLUMNS if c not in NUMBERS and c in table.columns})


def sorted_out(frame: pd.DataFrame) -> Entry:
    """Like `checked`, with text as categories: a tenth of the time on a million rows."""
    notes: list[str] = []
    table = _typed(frame, notes)
    n_empty = int(table["value"].isna().sum())
    if n_empty == len(table):
        raise MissingMetadata(f"All {n_empty} values are empty; expected numbers in the column of values.")
    if n_empty:
        table = table[table["value"].notna()].reset_index(drop=True)
    table = _size(_named(table, notes), notes)
    table, mixed = _in_own_units(table, notes)
    _refuse_slips(table[~mixed] if mixed.any() else table)
    reason = _reasons(table, mixed)
    fine = reason == ""
    reason[fine] = _alike(table if fine.all() else table[fine])
    fine = reason == ""
    sick = table["pathology"].ne(HEALTHY).to_numpy()
    accepted, reference, refused = (table[w].reset_index(drop=True) for w in (fine & ~sick, fine & sick, ~fine))
    refused["reason"] = pd.Series(reason[~fine], dtype=TEXT)
    notes += _at_two_sites(accepted)
    return Entry(accepted, reference, refused, tuple(notes), n_empty)


def _at_two_sites(table: pd.DataFrame) -> list[str]:
    """What is to be said of values that stand under one id at several sites: the same measurement, most likely."""
    same = ["participant_id", *CELL, "value"]
    again = table.loc[table.duplicated(same, keep=False), [*same, "site"]]
    sites = again.groupby(same, observed=True)["site"].nunique()
    people = sorted(set(sites[sites > 1].index.get_level_values("participant_id").astype(str)))
    if not people:
        return []
    some = ", ".join(people[:3]) + (" ..." if len(people) > 3 else "")
    return [f"{len(people)} ids have the very same value at two sites ({some}): they count twice, if not made one site"]


def group_codes(frame: pd.DataFrame, columns: Sequence[str]) -> IntArray:
    """Number of the group of each row by some columns; absent text is a group of its own."""
    code, groups = np.zeros(len(frame), dtype=np.int64), 1
    for name in columns:
        own, n = _codes(frame[name])
        if groups * n > 2**62:
            code, names = pd.factorize(code)
            code, groups = code.astype(np.int64), len(names)
        code, groups = code * n + own, groups * n
    return pd.factorize(code)[0].astype(np.int64)


def _codes(column: "pd.Series[Any]") -> tuple[IntArray, int]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy().astype(np.int64) + 1, len(column.cat.categories) + 1
    own, names = pd.factorize(column, use_na_sentinel=False)
    return own.astype(np.int64), max(len(names), 1)


def persons_at_odds(frame: pd.DataFrame) -> Words:
    """Why the rows of one person contradict each other: two sexes, or two ages at one session; else empty."""
    person = group_codes(frame, ("participant_id", "site"))
    visit = group_codes(frame, ("participant_id", "site", "session_id"))
    number = pd.Series(pd.factorize(frame["sex"])[0]).astype(float)
    two_sexes = _spread(number.where(number >= 0), person) > 0
    two_ages = _spread(frame["age"], visit) >= SAME_AGE
    if two_ages.any():
        two_ages = np.isin(person, person[two_ages])
    reason = np.full(len(frame), "", dtype=object)
    reason[two_ages] = "one id with two ages at one session of a site"
    reason[two_sexes] = "one id with two sexes at a site"
    return reason


def _spread(values: "pd.Series[float]", group: IntArray) -> FloatArray:
    """Largest minus smallest value of the group of each row; 0 where the group has none."""
    groups = pd.Series(values.to_numpy()).groupby(group)
    return np.nan_to_num((groups.max() - groups.min()).to_numpy())[group]


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
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        if name in frame.columns:
            columns[name] = numbers_of(frame[name], name).array if name in NUMBERS else frame[name].array
        else:
            columns[name] = pd.Series(np.nan, index=range(len(frame)), dtype=float if name in NUMBERS else TEXT).array
    return pd.DataFrame(columns, copy=False)


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
        "participant_id": lambda t: plain_text(t).removeprefix("sub-"),
        "session_id": lambda t: plain_text(t).removeprefix("ses-"),
        **dict.fromkeys(("study", "site", "scanner", "protocol", "software", "quality"), plain_text),
        **{"manufacturer": maker_name, "metric": metric_name, "unit": unit_name, "region": region_name},
        **{"level": level, "pathology": pathology_name, "sex": lambda t: sex_name(t) or _stated(t)},
    }
    table = table.assign(**{name: translated(table[name], function) for name, function in functions.items()})
    if unknown:
        raise UnknownName(
            f"'{sorted(unknown)[0]}' is no vertebral level, expected C3 or a range without gaps such as C2:C5; "
            "correct the level."
        )
    unrated = int(table["quality"].isna().sum())
    if unrated:
        notes.append(f"quality is not stated in {unrated} rows: taken as ok")
        table["quality"] = translated(as_text(table["quality"]).fillna("ok"), str)
    apart = table["pathology"][table["pathology"].notna() & table["pathology"].ne(HEALTHY)].value_counts()
    apart = apart[apart > 0]
    if len(apart):
        words = ", ".join(f"{word} ({n} rows)" for word, n in apart.head(6).items()) + (
            " ..." if len(apart) > 6 else ""
        )
        notes.append(f"pathology other than {HEALTHY}: {words}")
    unmade = int(table["manufacturer"].isna().sum())
    if unmade:
        notes.append(f"the maker of the scanner is not stated in {unmade} rows")
    return table


def _stated(text: str) -> str:
    """A word as it was found; nothing if it says that nothing is known."""
    return "" if text.strip().lower() in NOT_KNOWN else text.strip()


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


def _in_own_units(table: pd.DataFrame, notes: list[str]) -> tuple[pd.DataFrame, BoolArray]:
    """Values and errors in the unit of their metric, and which rows belong to a metric in several units."""
    rows = group_codes(table, ("metric", "unit"))
    found = table[["metric", "unit"]].loc[~pd.Series(rows).duplicated().to_numpy()]
    stated = pd.DataFrame({c: as_text(found[c]).fillna("").to_numpy(object) for c in found}, index=rows[found.index])
    units = stated[stated["unit"] != ""].groupby("metric")["unit"].agg(list).to_dict()
    factor, unit, mixed = np.ones(len(stated)), np.full(len(stated), "", dtype=object), np.zeros(len(stated), bool)
    unstated: list[str] = []
    counts = np.bincount(rows)
    for group, metric, name in zip(stated.index, stated["metric"], stated["unit"], strict=True):
        given = units.get(metric, [])
        known = plausible(metric)
        unit[group] = known.unit if known else "".join(given[:1])
        if len(given) > 1:
            mixed[group], unit[group] = True, name
        elif not name:
            unstated.append(f"{metric} in {unit[group] or '?'}")
        elif (by := conversion(name, unit[group], metric)) != 1:
            factor[group] = by
            notes.append(f"{metric} of {counts[group]} rows converted from {name} to {unit[group]}")
    notes += [
        f"{m} comes in {' and '.join(sorted(u))}: none of its rows is used" for m, u in units.items() if len(u) > 1
    ]
    if unstated:
        more = " ..." if len(unstated) > 8 else ""
        notes.append(f"units are not stated: taken as {', '.join(unstated[:8])}{more}")
    own = translated(pd.Series(rows, index=table.index, name="unit"), lambda g: str(unit[int(g)]))
    value, se = table["value"] * factor[rows], table["se"] * factor[rows]
    return table.assign(value=value, se=se, unit=own), mixed[rows]


def _refuse_slips(table: pd.DataFrame) -> None:
    """Raise if the middle value of a metric is impossible and another unit explains it."""
    for metric, value in table.groupby("metric", observed=True)["value"].median().items():
        known = plausible(str(metric))
        slip = known.slip(float(value)) if known and np.isfinite(value) else ""
        if known and slip:
            raise ImplausibleValue(
                f"{metric} is {value:.3g} in the middle of its values, expected {known.words}; "
                f"these look like '{slip}': state that unit and they are converted."
            )


def _reasons(table: pd.DataFrame, mixed: BoolArray) -> Words:
    """Why each row on its own cannot be used; empty where it can."""
    reason = np.full(len(table), "", dtype=object)
    healthy = table["pathology"].eq(HEALTHY).to_numpy()
    value, se, age = (table[c].to_numpy() for c in ("value", "se", "age"))

    def refuse(where: BoolArray, why: str) -> None:
        if where.any():
            reason[where & (reason == "")] = why

    for name in ("participant_id", "site", "metric", "region", "level"):
        refuse(table[name].isna().to_numpy(), f"{name} is missing")
    refuse(mixed, "metric comes in several units")
    refuse(table["unit"].isna().to_numpy(), "unit is not stated and the metric is not known")
    for metric in table["metric"].cat.categories:
        if (known := plausible(metric)) is not None:
            why = f"impossible in cord tissue: {metric} must be {known.words}"
            refuse(table["metric"].eq(metric).to_numpy() & ~known.possible(value), why)
    refuse(~np.isfinite(value), "value is not finite")
    size = np.abs(value)
    refuse((size > LARGEST) | ((size > 0) & (size < 1 / LARGEST)), f"value is beyond 1/{LARGEST:g} to {LARGEST:g}")
    refuse(~np.isnan(se) & ~(np.isfinite(se) & (se >= 0)), "standard error is no number >= 0")
    for word in table["quality"].cat.categories:
        if word.lower() != "ok":
            refuse(table["quality"].eq(word).to_numpy(), f"quality: {word[:40]}")
    why = 'pathology is not stated (of healthy people: [constants] pathology = "HC" in a mapping)'
    refuse(table["pathology"].isna().to_numpy(), why)
    refuse(healthy & np.isnan(age), "age is missing (join a table with --participants)")
    refuse(
        ~np.isnan(age) & ~((age >= 0) & (age <= OLDEST)), f"age must be 0 to {OLDEST} years (in months? state its unit)"
    )
    refuse(healthy & table["sex"].isna().to_numpy(), "sex is missing, F or M (join a table with --participants)")
    for word in table["sex"].cat.categories:
        if word not in SEX:
            why = f"sex is '{word[:20]}', expected F or M (say what it means in a mapping: [words.sex])"
            refuse(healthy & table["sex"].eq(word).to_numpy(), why)
    return reason


def _alike(table: pd.DataFrame) -> Words:
    """Why rows cannot be used beside the others: contradictions, repeats, columns of one number."""
    reason = persons_at_odds(table)
    key = group_codes(table, KEY)
    twice = _spread(table["value"], key) > 0
    again = pd.Series(key).duplicated().to_numpy()
    reason[again & ~twice & (reason == "")] = "duplicate within the table"
    reason[twice & (reason == "")] = "several values for one person, session, cell, protocol and software in the table"
    cell = group_codes(table, CELL)
    constant = _spread(table["value"], cell) == 0
    if constant.any():
        who = pd.Series(group_codes(table[constant], ("participant_id", "site")))
        many = who.groupby(cell[constant]).transform("nunique").to_numpy() >= TOO_MANY_ALIKE
        constant[constant] = many
        reason[constant & (reason == "")] = "the same number in everybody"
    return reason
