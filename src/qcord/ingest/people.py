"""Age, sex and scanner of a visit, from ``participants.tsv``, ``sessions.tsv`` and the sidecars of a data set."""

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcord.ingest.bids import Visit

SEXES = {"f": "F", "female": "F", "w": "F", "m": "M", "male": "M"}
PER_YEAR = {"year": 1.0, "month": 12.0, "week": 365.25 / 7, "day": 365.25}
SECONDS_PER_YEAR = 365.25 * 86400

MAKERS = (
    (r"siemens", "Siemens"),
    (r"philips", "Philips"),
    (r"\bge\b|general electric", "GE"),
    (r"canon|toshiba", "Canon"),
    (r"united imaging|\buih\b", "United Imaging"),
)
"""Words by which a maker is known in sidecars, and the name by which norms know it."""


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
    units = _units(root / "participants.json")
    age = _number(now.get("age"))
    if age is None:
        age = _years(_number(own.get("age")), units.get("age", "year"))
        later = _since_first(sessions, now)
        age = None if age is None else age + later
    merged = {**own, **{k: v for k, v in now.items() if _given(v)}}
    height = _number(merged.get("height"))
    if height is not None and (units.get("height", "").startswith(("cm", "centi")) or height > 3):
        height /= 100
    return Person(
        round(age, 2) if age is not None and 0 <= age <= 120 else None,
        SEXES.get(str(merged.get("sex") or merged.get("gender") or "").strip().lower()),
        height,
        _number(merged.get("weight")),
        next((merged[k] for k in ("site", "institution_id", "institution") if _given(merged.get(k))), None),
    )


def manufacturer(name: str | None) -> str:
    """Name of a maker of scanners as norms have it, from the text of a sidecar; empty if there is none."""
    text = str(name or "").strip()
    return next((maker for words, maker in MAKERS if re.search(words, text, re.IGNORECASE)), text)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return []
    return [
        {k.strip(): v.strip() for k, v in row.items() if k and v}
        for row in csv.DictReader(io.StringIO(text), delimiter="\t")
    ]


def _units(path: Path) -> dict[str, str]:
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {k: str(v.get("Units", "")).lower() for k, v in content.items() if isinstance(v, dict)}
    except (OSError, ValueError, AttributeError):
        return {}


def _given(text: str | None) -> bool:
    return bool(text) and str(text).lower() not in {"n/a", "na", "nan", "none"}


def _number(text: str | None) -> float | None:
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _years(value: float | None, unit: str) -> float | None:
    if value is None:
        return None
    return value / next((n for word, n in PER_YEAR.items() if unit.startswith(word)), 1.0)


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
