"""Age, sex and scanner of a visit, from ``participants.tsv``, ``sessions.tsv`` and the sidecars of a data set."""

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcord.core.person_words import PER_YEAR, dicom_age, maker_name, sex_name
from qcord.ingest.bids import Visit

SECONDS_PER_YEAR = 365.25 * 86400


@dataclass(frozen=True)
class Person:
    """What is known of the person at a visit.

    Parameters
    ----------
    age : float or None
        Age at the visit [years].
    sex : str or None
        ``F`` or ``M``.
    height : float or None
        Height [m].
    weight : float or None
        Weight [kg].
    site : str or None
        Place of the examination.
    """

    age: float | None = None
    sex: str | None = None
    height: float | None = None
    weight: float | None = None
    site: str | None = None

    @property
    def lacking(self) -> str:
        """Words for what a comparison with a norm needs and is not known; empty if nothing."""
        return " and ".join(w for w, v in (("age", self.age), ("sex (F or M)", self.sex)) if v is None)


def read_person(root: Path, visit: Visit) -> Person:
    """Read what a data set says of the person at a visit.

    Values of ``sub-X_sessions.tsv`` come before those of ``participants.tsv``. Where only the latter has an age and
    sessions carry a time (``acq_time``), the age is moved by the time since the first session. An age given in another
    unit than years (``participants.json``) is converted; ``89+`` and the like count as unknown.

    Parameters
    ----------
    root : path
        Data set, raw or derivative.
    visit : Visit
        Subject and session.
    """
    everyone = _rows(root / "participants.tsv")
    own = next((r for r in everyone if r.get("participant_id", "").removeprefix("sub-") == visit.subject), {})
    table = root / f"sub-{visit.subject}" / f"sub-{visit.subject}_sessions.tsv"
    sessions = _rows(table) if visit.session else []
    now = next((r for r in sessions if r.get("session_id", "").removeprefix("ses-") == visit.session), {})
    units = column_units(root / "participants.tsv")
    age = _age(now.get("age"), "year")
    if age is None:
        age = _age(own.get("age"), units.get("age", "year"))
        later = _since_first(sessions, now)
        age = None if age is None else age + later
    merged = {**own, **{k: v for k, v in now.items() if _given(v)}}
    height = _number(merged.get("height"))
    if height is not None and (units.get("height") == "cm" or height > 3):
        height /= 100
    return Person(
        round(age, 2) if age is not None and 0 <= age <= 120 else None,
        sex_name(str(merged.get("sex") or merged.get("gender") or "")) or None,
        height,
        _number(merged.get("weight")),
        next((merged[k] for k in ("site", "institution_id", "institution") if _given(merged.get(k))), None),
    )


def manufacturer(name: str | None) -> str:
    """Name of a maker of scanners as norms have it, from the text of a sidecar; empty if there is none."""
    return maker_name(str(name or ""))


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return []
    return [
        {k.strip(): v.strip() for k, v in row.items() if k and v}
        for row in csv.DictReader(io.StringIO(text), delimiter="\t")
    ]


_UNITS = {
    "age": {"y": "year", "mo": "month", "w": "week", "d": "day"},
    "height": {"cm": "cm", "centi": "cm", "mm": "mm", "milli": "mm", "m": "m", "in": "in"},
    "weight": {"kg": "kg", "kilo": "kg", "lb": "lb", "pound": "lb"},
}
"""Beginnings of words for the units of a person's columns."""


def column_units(table: Path) -> dict[str, str]:
    """Units of age, height and weight that the JSON beside a table of persons states (BIDS: ``Units``).

    Parameters
    ----------
    table : path
        ``participants.tsv`` or alike.

    Returns
    -------
    dict
        Column to ``year``, ``month``, ``week``, ``day``, ``m``, ``cm``, ``mm``, ``in``, ``kg`` or ``lb``; nothing where
        no unit is stated, or one that is not known.
    """
    try:
        content: Mapping[str, Any] = json.loads(table.with_suffix(".json").read_text(encoding="utf-8-sig"))
        stated = {
            k: str(v.get("Units", v.get("units", ""))).strip().lower()
            for k, v in content.items()
            if isinstance(v, dict)
        }
    except (OSError, ValueError, AttributeError):
        return {}
    found = {}
    for name, units in _UNITS.items():
        unit = next((u for word, u in units.items() if stated.get(name, "").startswith(word)), None)
        if unit is not None:
            found[name] = unit
    return found


def _given(text: str | None) -> bool:
    return bool(text) and str(text).lower() not in {"n/a", "na", "nan", "none"}


def _number(text: str | None) -> float | None:
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _age(text: str | None, unit: str) -> float | None:
    """Age [years] of a number in some unit, or of a DICOM age string."""
    value = _number(text)
    if value is not None:
        return value / PER_YEAR[unit]
    age = dicom_age(str(text))
    return age if math.isfinite(age) else None


def _since_first(sessions: list[dict[str, str]], now: Mapping[str, str]) -> float:
    from datetime import datetime

    def moment(row: Mapping[str, str]) -> float | None:
        try:
            return datetime.fromisoformat(str(row.get("acq_time"))).replace(tzinfo=None).toordinal() * 86400.0
        except ValueError:
            return None

    own = moment(now)
    first = min((m for row in sessions if (m := moment(row)) is not None), default=None)
    return 0.0 if own is None or first is None else (own - first) / SECONDS_PER_YEAR
