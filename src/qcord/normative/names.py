"""Words of other tables as the database holds them: regions, levels, sex, diagnosis, makers of scanners."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from qcord.core.arrays import IntArray
from qcord.core.errors import UnknownName
from qcord.core.labels import COMBINED, CSF, TRACTS, VERTEBRAE
from qcord.core.text_column import TEXT

HEALTHY = "HC"
"""Word for a healthy person."""

_HEALTHY = frozenset({"hc", "cn", "control", "controls", "healthy", "healthy control", "healthy volunteer", "hv"})

SEXES: Mapping[str, str] = MappingProxyType({"f": "F", "female": "F", "woman": "F", "m": "M", "male": "M", "man": "M"})

REGIONS: Mapping[str, str] = MappingProxyType(
    {
        **{name.lower(): name for name in (*TRACTS, *COMBINED, CSF)},
        **{"wm": "white matter", "gm": "gray matter", "grey matter": "gray matter", "sc": "spinal cord"},
        **{"cord": "spinal cord", "dc": "dorsal columns", "dorsal column": "dorsal columns"},
        **{"lcst": "lateral corticospinal tract", "lateral corticospinal tracts": "lateral corticospinal tract"},
    }
)

MAKERS = ("Siemens", "GE", "Philips", "Canon", "Toshiba", "Fujifilm", "Hitachi", "United Imaging", "Bruker", "Varian")


def maker_name(name: str) -> str:
    """Short name of a maker of scanners.

    >>> maker_name("GE MEDICAL SYSTEMS"), maker_name("SIEMENS"), maker_name("Philips Healthcare")
    ('GE', 'Siemens', 'Philips')
    """
    words = name.strip()
    for maker in MAKERS:
        if re.match(rf"{maker}\b", words, re.IGNORECASE):
            return maker
    return words


def region_name(name: str) -> str:
    """Name of a region as templates spell it; a name that is not known stays as it is."""
    return REGIONS.get(name.strip().lower(), name.strip())


def pathology_name(name: str) -> str:
    """Diagnosis; the usual words for healthy people become ``HC``."""
    return HEALTHY if name.strip().lower() in _HEALTHY else name.strip()


def sex_name(name: str) -> str:
    """``F`` or ``M``; anything else is no sex for a norm and becomes an empty text."""
    return SEXES.get(name.strip().lower(), "")


def level_name(name: str) -> str:
    """Vertebral level or range of levels.

    >>> level_name("c3"), level_name("2:5"), level_name("C2-C5"), level_name("4")
    ('C3', 'C2:C5', 'C2:C5', 'C4')

    Raises
    ------
    UnknownName
        If it is neither.
    """
    parts = [_vertebra(p) for p in re.split(r"[:\-–]", name.strip())]
    numbers = [VERTEBRAE.index(p) for p in parts if p in VERTEBRAE]
    if len(numbers) != len(parts) or len(parts) > 2:
        raise UnknownName(f"'{name}' is no vertebral level, expected C3 or a range such as C2:C5; correct the level.")
    first, last = VERTEBRAE[min(numbers)], VERTEBRAE[max(numbers)]
    return first if first == last else f"{first}:{last}"


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
