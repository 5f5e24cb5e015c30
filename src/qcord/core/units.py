"""Units: the few that qcord uses, their BIDS spelling, and their plausible range."""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from qcord.core.arrays import ArrayLike
from qcord.core.errors import ImplausibleValue, UnitMismatch


@dataclass(frozen=True)
class Quantity:
    """A named physical quantity.

    Parameters
    ----------
    name : str
        BIDS name of the metadata field or metric.
    unit : str
        Unit in which qcord holds it.
    low, high : float
        Range outside which a value is taken for a slip of units.
    hint : str
        What a value outside the range usually is.
    """

    name: str
    unit: str
    low: float
    high: float
    hint: str = ""


UNITS = MappingProxyType(
    {
        "1": "arbitrary",
        "s": "second",
        "1/s": "1/second",
        "deg": "degree",
        "mm": "mm",
        "mm2": "mm^2",
        "mm2/s": "mm^2/s",
        "mm4/s2": "mm^4/s^2",
        "s/mm2": "s/mm^2",
        "percent": "percent",
        "ppm": "ppm",
        "T": "tesla",
        "Hz": "hertz",
        "label": "label",
        "probability": "probability",
    }
)
"""qcord's symbol of each unit and the spelling that BIDS sidecars carry."""

QUANTITIES = MappingProxyType(
    {
        q.name: q
        for q in (
            Quantity("FlipAngle", "deg", 0.01, 360.0),
            Quantity("RepetitionTimeExcitation", "s", 5e-4, 12.0, "milliseconds given instead of seconds"),
            Quantity("RepetitionTimePreparation", "s", 5e-3, 60.0, "milliseconds given instead of seconds"),
            Quantity("RepetitionTime", "s", 5e-4, 60.0, "milliseconds given instead of seconds"),
            Quantity("EchoTime", "s", 1e-5, 0.5, "milliseconds given instead of seconds"),
            Quantity("InversionTime", "s", 1e-4, 20.0, "milliseconds given instead of seconds"),
            Quantity("RefocusingFlipAngle", "deg", 0.01, 360.0),
            Quantity("MTFrequencies", "1", 0.0, 2.0, "a frequency in hertz given instead of their number"),
            Quantity("MTFlipAngle", "deg", 0.0, 1e4),
            Quantity("MTOffsetFrequency", "Hz", -2e5, 2e5),
            Quantity("MTPulseBandwidth", "Hz", 0.0, 1e5),
            Quantity("MTPulseDuration", "s", 1e-5, 0.2, "milliseconds given instead of seconds"),
            Quantity("SliceThickness", "mm", 0.05, 50.0, "metres or micrometres given instead of millimetres"),
            Quantity("NumberShots", "1", 0.0, 4096.0),
            Quantity("MagneticFieldStrength", "T", 0.01, 25.0, "gauss or megahertz given instead of tesla"),
            Quantity("BValue", "s/mm2", 0.0, 1e5, "s/m2 given instead of s/mm2"),
            Quantity("BDelta", "1", -0.5, 1.0, "a percentage, or an angle"),
            Quantity("T1", "s", 0.0, 20.0, "milliseconds given instead of seconds"),
            Quantity("B1", "1", 0.1, 3.0, "a TB1map in percent given instead of a factor"),
        )
    }
)
"""Quantities whose values are checked on entry."""


def bids_unit(unit: str) -> str:
    """Return the BIDS spelling of a unit.

    Raises
    ------
    UnitMismatch
        If qcord does not know the unit.
    """
    try:
        return UNITS[unit]
    except KeyError:
        known = ", ".join(UNITS)
        raise UnitMismatch(f"Unit '{unit}' is not known; expected one of {known}.") from None


def require_unit(found: str, expected: str, what: str) -> None:
    """Raise `UnitMismatch` if a value does not carry the expected unit."""
    if found != expected:
        raise UnitMismatch(
            f"{what} is in '{found}', expected '{expected}'; convert it or state its unit when reading it."
        )


def require_plausible(name: str, values: ArrayLike, source: str = "") -> None:
    """Raise if a known quantity lies outside its plausible range.

    Parameters
    ----------
    name : str
        Key of `QUANTITIES`; names that are not listed are not checked.
    values : array_like
        Finite values, in the unit of the quantity.
    source : str
        File that the values come from, named in the message.

    Raises
    ------
    ImplausibleValue
        With found value, expected range and remedy.
    """
    quantity = QUANTITIES.get(name)
    if quantity is None:
        return
    array = np.asarray(values, dtype=float)
    bad = ~((array >= quantity.low) & (array <= quantity.high))
    if bad.any():
        where = f" in {source}" if source else ""
        hint = f" (often {quantity.hint})" if quantity.hint else ""
        unit = "" if quantity.unit == "1" else f" {quantity.unit}"
        give = f"correct the sidecar or give the value in{unit}" if unit else "correct it"
        raise ImplausibleValue(
            f"{name}{where} is {array[bad].flat[0]:g}, expected {quantity.low:g} to {quantity.high:g}{unit}{hint}; "
            f"{give}."
        )
