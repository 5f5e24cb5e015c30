"""New observations beside those that a database holds: repeats, contradictions, replacements."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from qcord.core.arrays import BoolArray
from qcord.core.text_column import TEXT
from qcord.normative.observations import KEY, group_codes, persons_at_odds

OTHER_UNIT = "the database holds this metric in another unit"

CLOSE = 1e-9
"""Relative difference up to which two values are one and the same number, printed twice."""


@dataclass(frozen=True, eq=False)
class Compared:
    """What of a table is new to a database.

    Parameters
    ----------
    new : DataFrame
        Rows to store, with the column ``supersedes``: number of the stored row that each replaces, else missing.
    refused : DataFrame
        Rows that contradict the database, with ``reason``.
    n_stored : int
        Rows that the database holds already, number for number.
    """

    new: pd.DataFrame
    refused: pd.DataFrame
    n_stored: int


def compared(
    table: pd.DataFrame, stored: pd.DataFrame, units: Mapping[str, str] | None = None, *, supersede: bool = False
) -> Compared:
    """Compare new observations with the stored ones of the same persons.

    Parameters
    ----------
    table : DataFrame
        Observations that passed `qcord.normative.observations.checked`.
    stored : DataFrame
        Current observations of the database, with ``row_id``; at least those of the persons of `table`.
    units : mapping, optional
        Metric to the unit in which the database holds it.
    supersede : bool
        Whether a new value replaces the one that is stored under the same key.

    Returns
    -------
    Compared
        Rows in the order of the table.
    """
    own = table["metric"].map(dict(units or {}))
    other_unit = (own.notna() & own.astype(object).ne(table["unit"].astype(object))).to_numpy()
    if stored.empty:
        nothing = pd.array(np.full(len(table), pd.NA, dtype=object), dtype="Int64")
        return Compared(table.assign(supersedes=nothing)[~other_unit], _refused(table, other_unit), 0)
    both = pd.concat([stored, table], ignore_index=True)
    key = group_codes(both, KEY)
    where = pd.Series(np.arange(len(stored)), index=key[: len(stored)])
    found = where.reindex(key[len(stored) :], fill_value=-1).to_numpy()
    known = found >= 0
    same = np.zeros(len(table), dtype=bool)
    same[known] = _same(table[known], stored.iloc[found[known]])
    replaced = known & ~same
    reason = pd.Series("", index=table.index)
    if not supersede:
        reason[replaced] = "another value is stored for this person, session, cell, protocol and software"
    gone = found[replaced] if supersede else np.empty(0, dtype=int)
    reason[reason == ""] = _against_others(table, stored.drop(stored.index[gone]), reason == "")
    reason[other_unit & (reason == "")] = OTHER_UNIT
    reason[same] = ""
    fresh = ~same & (reason == "").to_numpy()
    ids = np.full(len(table), pd.NA, dtype=object)
    ids[replaced] = stored["row_id"].to_numpy()[found[replaced]]
    new = table.assign(supersedes=pd.array(ids, dtype="Int64"))[fresh]
    return Compared(new, table[reason != ""].assign(reason=reason[reason != ""]), int(same.sum()))


def _same(new: pd.DataFrame, stored: pd.DataFrame) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    result = np.ones(len(new), dtype=bool)
    for name in ("value", "se", "age", "height", "weight"):
        a, b = new[name].to_numpy(float), stored[name].to_numpy(float)
        result &= np.isclose(a, b, rtol=CLOSE, atol=0, equal_nan=True)
    for name in ("sex", "pathology", "study", "manufacturer", "scanner", "unit"):
        a, b = new[name].fillna("").to_numpy(object), stored[name].fillna("").to_numpy(object)
        result &= (a == b).astype(bool)
    return result


def _against_others(table: pd.DataFrame, stored: pd.DataFrame, wanted: "pd.Series[bool]") -> "pd.Series[str]":
    """Why new rows contradict what stays stored of the same person."""
    both = pd.concat([stored, table[wanted]], ignore_index=True)
    reason = persons_at_odds(both)[len(stored) :]
    reason[reason != ""] += ", beside what is stored"
    return pd.Series(reason, index=table.index[wanted])


def _refused(table: pd.DataFrame, other_unit: BoolArray) -> pd.DataFrame:
    found = table[other_unit]
    return found.assign(reason=pd.Series(OTHER_UNIT, index=found.index, dtype=TEXT))
