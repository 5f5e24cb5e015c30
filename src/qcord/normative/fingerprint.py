"""The sequence that a value was measured with, as a short text that scans of one protocol share."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from qcord.core.person_words import maker_name

NAMES = ("PulseSequenceType", "ScanningSequence", "MRAcquisitionType", "SequenceName")
NUMBERS: tuple[tuple[str, str, int], ...] = (
    ("MagneticFieldStrength", "T", 2),
    ("RepetitionTime", "TR", 2),
    ("RepetitionTimePreparation", "TRprep", 2),
    ("EchoTime", "TE", 2),
    ("InversionTime", "TI", 2),
    ("FlipAngle", "FA", 2),
    ("BValue", "b", 2),
    ("SliceThickness", "slice", 2),
    ("SpacingBetweenSlices", "spacing", 2),
    ("PixelSpacing", "pixel", 2),
    ("MTOffsetFrequency", "MT offset", 2),
    ("MTFlipAngle", "MT angle", 2),
    ("MultibandAccelerationFactor", "multiband", 2),
)
"""Sidecar field, its short name and its significant digits: jitter of a scanner's clock is no other protocol."""

_SHORT = frozenset(short for _, short, _ in NUMBERS[1:])
_NUMBER = r"[-+]?[\d.]+(?:e[-+]?\d+)?"

OTHER_NAMES = {"RepetitionTime": "RepetitionTimeExcitation"}
"""Field that goes first where both are there."""


@dataclass(frozen=True)
class Fingerprint:
    """A protocol in short.

    Parameters
    ----------
    text : str
        For people: ``Siemens Prisma 3 T, epi, TR 0.62, TE 0.06, b 0 800, slice 5``.
    digest : str
        Eight hexadecimal digits of all that is in the text and of the states that it leaves out.
    """

    text: str
    digest: str

    def __str__(self) -> str:
        return f"{self.text} #{self.digest}"


def fingerprint(sidecars: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Fingerprint | None:
    """Protocol fingerprint of the images that a value comes from.

    Parameters
    ----------
    sidecars : mapping or sequence of mapping
        BIDS metadata of each image; ``BValue`` may hold the b-values [s/mm2] of a diffusion series.

    Returns
    -------
    Fingerprint or None
        None if the sidecars say nothing of the protocol. Order of images does not matter.
    """
    several = [sidecars] if isinstance(sidecars, Mapping) else list(sidecars)
    facts: dict[str, list[Any]] = {}
    for name in ("Manufacturer", "ManufacturersModelName", *NAMES):
        words = {_word(name, s[name]) for s in several if s.get(name)}
        if words:
            facts[name] = sorted(words)
    diffusion = any(s.get("BValue") is not None for s in several)
    for name, _, digits in NUMBERS:
        if diffusion and name.startswith("RepetitionTime"):
            continue  # follows the person's pulse where diffusion scans are gated, and hardly touches diffusivities
        values = (s.get(OTHER_NAMES.get(name, name), s.get(name)) for s in several)
        numbers = {v for value in values for v in _rounded(value, digits, name == "BValue")}
        if numbers:
            facts[name] = sorted(numbers)
    if not set(facts) - {"Manufacturer", "ManufacturersModelName"}:
        return None
    content = json.dumps(facts, sort_keys=True)
    return Fingerprint(_text(facts), hashlib.sha256(content.encode()).hexdigest()[:8])


@lru_cache(maxsize=4096)
def settings(text: str) -> Mapping[str, tuple[float, ...]]:
    """Numbers of the text of a fingerprint, by short name (`NUMBERS`): ``TR``, ``FA``, ``b``, and ``T`` of the field.

    Parameters
    ----------
    text : str
        As `Fingerprint` writes it; from any other text nothing is read.

    Returns
    -------
    mapping of str to tuple of float
        Seconds, degrees, s/mm2, tesla and so on, as in the sidecars.
    """
    first, *others = text.partition(" #")[0].split(", ")
    found: dict[str, tuple[float, ...]] = {}
    field = re.search(rf"(?:^| )({_NUMBER}) T$", first)
    if field:
        found["T"] = (float(field[1]),)
    for part in others:
        name, _, numbers = part.rpartition(" ")
        if name in _SHORT and re.fullmatch(rf"{_NUMBER}(?:/{_NUMBER})*", numbers):
            found[name] = tuple(float(n) for n in numbers.split("/"))
    return MappingProxyType(found)


def _word(name: str, value: Any) -> str:
    text = " ".join(str(v) for v in value) if isinstance(value, list) else str(value)
    text = " ".join(text.split())
    return maker_name(text) if name == "Manufacturer" else text


def _rounded(value: Any, digits: int, b_values: bool) -> list[float]:
    found: list[float] = []
    for item in value if isinstance(value, list | tuple) else [value]:
        try:
            number = float(item)
        except (TypeError, ValueError):
            continue
        if b_values:  # scanners state each direction's own b-value, a few per cent about the nominal one
            found.append(50.0 * round(number / 50))
        else:
            found.append(float(f"{number:.{digits}g}"))
    return found


def _text(facts: Mapping[str, list[Any]]) -> str:
    def joined(name: str) -> str:
        return "/".join(str(v) for v in facts.get(name, ()))

    field = " ".join(f"{v:g}" for v in facts.get("MagneticFieldStrength", ()))
    scanner = " ".join(w for w in (joined("Manufacturer"), joined("ManufacturersModelName")) if w)
    parts = [" ".join(w for w in (scanner, f"{field} T" if field else "") if w)]
    parts.append(next((joined(n) for n in ("PulseSequenceType", "ScanningSequence", "SequenceName") if n in facts), ""))
    for name, short, _ in NUMBERS[1:]:
        if name in facts:
            parts.append(f"{short} " + "/".join(f"{v:g}" for v in facts[name]))
    return ", ".join(p for p in parts if p)
