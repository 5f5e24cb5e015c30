"""Words for sex, age and the maker of a scanner, as tables and sidecars write them."""

import math
import re
from collections.abc import Mapping
from types import MappingProxyType

SEXES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("f", "female", "woman", "girl", "w"), "F"),
        **dict.fromkeys(("m", "male", "man", "boy"), "M"),
    }
)
"""Words for sex that mean the same in every table; numbers do not."""

NOT_KNOWN = frozenset({"", "?", "u", "unk", "unknown", "not known", "not stated", "not reported", "undisclosed"})
"""Words of people's tables that say that nothing is known."""

PER_YEAR: Mapping[str, float] = MappingProxyType({"year": 1.0, "month": 12.0, "week": 365.25 / 7, "day": 365.25})
"""How many of a unit of age make a year."""

MAKERS = (
    (r"\bsiemens", "Siemens"),
    (r"\bphilips", "Philips"),
    (r"\bge\b|\bgeneral electric\b", "GE"),
    (r"\bcanon|\btoshiba", "Canon"),
    (r"\bunited imaging|\buih\b", "United Imaging"),
    (r"\bfuji", "Fujifilm"),
    (r"\bhitachi", "Hitachi"),
    (r"\bbruker", "Bruker"),
    (r"\bvarian", "Varian"),
)
"""Words by which a maker is known, and the name by which norms know it; Toshiba's scanners became Canon's in 2018."""

_AGE_STRING = re.compile(r"(\d{1,4}(?:\.\d+)?)\s*([DWMY])", re.IGNORECASE)
_OF_LETTER = {"D": "day", "W": "week", "M": "month", "Y": "year"}


def sex_name(name: str) -> str:
    """``F`` or ``M``; anything else is no sex for a norm and becomes an empty text.

    >>> sex_name("Female"), sex_name(" m "), sex_name("1")
    ('F', 'M', '')
    """
    return SEXES.get(name.strip().lower(), "")


def maker_name(name: str) -> str:
    """Short name of a maker of scanners; one that is not known stays as it is.

    >>> maker_name("GE MEDICAL SYSTEMS"), maker_name("SIEMENS"), maker_name("General Electric")
    ('GE', 'Siemens', 'GE')
    """
    text = name.strip()
    return next((maker for words, maker in MAKERS if re.search(words, text, re.IGNORECASE)), text)


def dicom_age(text: str) -> float:
    """Age [years] of a DICOM age string: a number and D, W, M or Y; NaN for any other text.

    >>> dicom_age("035Y"), dicom_age("018M"), dicom_age("35")
    (35.0, 1.5, nan)

    References
    ----------
    DICOM PS3.5, section 6.2, value representation AS.
    """
    found = _AGE_STRING.fullmatch(text.strip())
    return float(found[1]) / PER_YEAR[_OF_LETTER[found[2].upper()]] if found else math.nan
