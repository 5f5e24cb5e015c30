"""Words and numbers of other tables as the database holds them: regions, levels, diagnosis, ages."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from qcord.core.arrays import IntArray
from qcord.core.errors import ImplausibleValue, UnknownName
from qcord.core.labels import COMBINED, CSF, TRACTS, VERTEBRAE
from qcord.core.person_words import dicom_age
from qcord.core.text_column import TEXT, as_text

HEALTHY = "HC"
"""Word for a healthy person."""

_HEALTHY = frozenset(
    {
        *("hc", "cn", "control", "controls", "healthy", "hv"),
        *(f"healthy {who}{end}" for who in ("control", "volunteer", "subject", "person") for end in ("", "s")),
    }
)

REGIONS: Mapping[str, str] = MappingProxyType(
    {
        **{name.lower(): name for name in (*TRACTS, *COMBINED, CSF)},
        **{name.lower()[3:]: name for name in TRACTS},
        **{"wm": "white matter", "gm": "gray matter", "grey matter": "gray matter", "sc": "spinal cord"},
        **{"cord": "spinal cord", "dc": "dorsal columns", "dorsal column": "dorsal columns"},
        **{"lcst": "lateral corticospinal tract", "lateral corticospinal tracts": "lateral corticospinal tract"},
    }
)


def region_name(name: str) -> str:
    """Name of a region as templates spell it; a name that is not known stays as it is.

    >>> region_name("WM"), region_name("left dorsal horn"), region_name("liver")
    ('white matter', 'GM left dorsal horn', 'liver')
    """
    return REGIONS.get(name.strip().lower(), name.strip())


def pathology_name(name: str) -> str:
    """Diagnosis; the usual words for healthy people become ``HC``."""
    return HEALTHY if name.strip().lower() in _HEALTHY else name.strip()


def level_name(name: str) -> str:
    """Vertebral level or range of levels.

    >>> level_name("c3"), level_name("2:5"), level_name("C2-C5"), level_name("4")
    ('C3', 'C2:C5', 'C2:C5', 'C4')

    A list of levels that follow each other is a range; one with a gap is none.

    >>> level_name("2,3,4,5"), level_name("2;3:5")
    ('C2:C5', 'C2:C5')

    Raises
    ------
    UnknownName
        If it is neither.
    """
    runs = [_run(part) for part in re.split(r"[,;]", name.strip().strip("[]"))]
    numbers = [n for run in runs for n in run]
    if not all(runs) or sorted(numbers) != list(range(min(numbers), max(numbers) + 1)):
        raise UnknownName(
            f"'{name}' is no vertebral level, expected C3 or a range without gaps such as C2:C5; correct the level."
        )
    first, last = VERTEBRAE[min(numbers)], VERTEBRAE[max(numbers)]
    return first if first == last else f"{first}:{last}"


def _run(text: str) -> list[int]:
    """Places of the vertebrae of one level or range; none if it is neither."""
    ends = [_vertebra(p) for p in re.split(r"[:\-–]", text.strip())]
    if len(ends) > 2 or not set(ends) <= set(VERTEBRAE):
        return []
    numbers = [VERTEBRAE.index(p) for p in ends]
    return list(range(min(numbers), max(numbers) + 1))


def _vertebra(text: str) -> str:
    word = text.strip().upper()
    if re.fullmatch(r"\d+(\.0)?", word):
        number = int(float(word))
        return VERTEBRAE[number - 1] if 1 <= number <= len(VERTEBRAE) else ""
    return word


def translated(column: "pd.Series[Any]", translate: Callable[[str], str]) -> "pd.Series[Any]":
    """Categories of a column of text, each distinct text translated once; an empty text becomes missing."""
    codes, found = pd.factorize(column)
    words = [translate(str(n)) for n in found]
    names = sorted({w for w in words if w})
    place = {w: k for k, w in enumerate(names)}
    own: IntArray = np.array([*(place.get(w, -1) for w in words), -1])[codes]
    return pd.Series(
        pd.Categorical.from_codes(own, categories=pd.Index(names, dtype=TEXT)), index=column.index, name=column.name
    )


def plain_text(text: str) -> str:
    """Text without blanks around it, each letter with its accents one character: names that look alike are equal."""
    return unicodedata.normalize("NFC", text.strip())


def numbers_of(column: "pd.Series[Any]", name: str) -> "pd.Series[float]":
    """Numbers of a column; empty cells are NaN, and ages may be DICOM age strings (``035Y``).

    Raises
    ------
    ImplausibleValue
        If it holds other text.
    """
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    bad = np.flatnonzero(numbers.isna() & column.notna())
    if bad.size and name == "age":
        numbers = numbers.where(numbers.notna(), as_text(column).map(dicom_age, na_action="ignore").astype(float))
        bad = np.flatnonzero(numbers.isna() & column.notna())
    if bad.size:
        text = str(column.iloc[bad[0]])
        comma = ' (a decimal comma? state decimal = "," in a mapping, or write points)' if "," in text else ""
        raise ImplausibleValue(
            f"Column {name} holds the text '{text[:30]}'{comma} in row {bad[0] + 1} and {bad.size - 1} more; "
            "expected numbers, with a point, and empty cells where there is none."
        )
    return numbers
