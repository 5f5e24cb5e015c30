"""What a value in living cord tissue can be, per metric, and the units in which it may come.

The ranges are wide: they part what physics and anatomy allow from slips and failed fits, never normal from abnormal.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.core.errors import UnitMismatch

ASSUMED = "assumed"
FREE_WATER = "free water at 37 C, 3.0e-3 mm2/s (Holz 2000, doi:10.1039/b005319h), with room for noise"

FA_RANGE = (
    "0 to 1 by definition (Basser and Pierpaoli 1996, doi:10.1006/jmrb.1996.0086); a zero itself is an empty voxel, as "
    "noise alone gives more"
)
T1_RANGE = (
    "apparent T1 goes with the square of the transmit field: from white matter at 0.2 T, .36 s, where that field is "
    "30 % low, to fluid, 4.3 +- .2 s at any field (Rooney 2007, doi:10.1002/mrm.21122)"
)
MTR_RANGE = (
    "a share of the signal, by definition; what it is in tissue follows from the pulse, so no narrower range holds for "
    "all protocols (1 % for noise, assumed)"
)
MTSAT_RANGE = (
    "the share of the protons that one pulse saturates (Helms 2008, doi:10.1002/mrm.21732): above 0, and at most the "
    "macromolecular share, below .2 (Stanisz 2005, doi:10.1002/mrm.20605), with room for noise"
)

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        **{"%": "percent", "pct": "percent", "mm^2": "mm2", "mm²": "mm2", "cm^2": "cm2", "cm²": "cm2"},
        **{"mm^2/s": "mm2/s", "mm²/s": "mm2/s", "m^2/s": "m2/s", "m²/s": "m2/s", "um^2/ms": "um2/ms"},
        **{"µm²/ms": "um2/ms", "μm²/ms": "um2/ms", "µm2/ms": "um2/ms", "1e-3 mm2/s": "10^-3 mm2/s"},
        **{"10-3 mm2/s": "10^-3 mm2/s", "um2/s": "um2/s", "second": "s", "millisecond": "ms", "sec": "s"},
        **{"arbitrary": "1", "fraction": "1", "degree": "deg", "1/second": "1/s", "Hz": "1/s", "s-1": "1/s"},
        **{"inch": "in", "inches": "in", "lbs": "lb", "ratio": "1", "seconds": "s", "milliseconds": "ms"},
        **{"months": "month", "years": "year", "weeks": "week", "days": "day", "meter": "m", "centimeter": "cm"},
    }
)
"""Other spellings of units."""

FACTORS: Mapping[tuple[str, str], float] = MappingProxyType(
    {
        ("ms", "s"): 1e-3,
        ("us", "s"): 1e-6,
        ("ks", "s"): 1e3,
        ("1/ms", "1/s"): 1e3,
        ("10^-3 mm2/s", "mm2/s"): 1e-3,
        ("um2/ms", "mm2/s"): 1e-3,
        ("um2/s", "mm2/s"): 1e-6,
        ("m2/s", "mm2/s"): 1e6,
        ("1", "percent"): 100.0,
        ("percent", "1"): 0.01,
        ("cm2", "mm2"): 100.0,
        ("m2", "mm2"): 1e6,
        ("cm", "mm"): 10.0,
        ("m", "mm"): 1e3,
        ("rad", "deg"): 180 / np.pi,
        ("cm", "m"): 0.01,
        ("mm", "m"): 1e-3,
        ("in", "m"): 0.0254,
        ("lb", "kg"): 0.45359237,
        ("g", "kg"): 1e-3,
        ("month", "year"): 1 / 12,
        ("week", "year"): 7 / 365.25,
        ("day", "year"): 1 / 365.25,
    }
)
"""What a value in the first unit is multiplied by to be in the second."""


@dataclass(frozen=True)
class Plausible:
    """One metric: its unit and the range that is physically possible in living cord tissue.

    Parameters
    ----------
    metric : str
        As in the tables of qcord.
    unit : str
        Unit in which the database holds it.
    low, high : float
        Ends of the range; a value on either end is still possible.
    slips : tuple of str
        Units in which values often come without saying so.
    source : str
        Where the range is from; ``assumed`` where it is a matter of judgement.
    """

    metric: str
    unit: str
    low: float
    high: float
    slips: tuple[str, ...] = ()
    source: str = ASSUMED

    def possible(self, values: FloatArray) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Whether each value lies in the range; NaN does not."""
        return (np.asarray(values) >= self.low) & (np.asarray(values) <= self.high)

    @property
    def words(self) -> str:
        """The range in words."""
        return f"{self.low:g} to {self.high:g}" + ("" if self.unit == "1" else f" {self.unit}")

    def slip(self, value: float) -> str:
        """Unit that explains an impossible value, or an empty text."""
        if self.low <= value <= self.high:
            return ""
        for unit in self.slips:
            if self.low <= value * FACTORS[unit, self.unit] <= self.high:
                return unit
        return ""


_DIFFUSIVITY_SLIPS = ("10^-3 mm2/s", "um2/s", "m2/s")


def _diffusivity(metric: str) -> Plausible:
    return Plausible(metric, "mm2/s", 1e-5, 4e-3, _DIFFUSIVITY_SLIPS, FREE_WATER)


def _share(metric: str, source: str = "a fraction, by definition") -> Plausible:
    return Plausible(metric, "1", 0.0, 1.0, ("percent",), source)


PLAUSIBLE: Mapping[str, Plausible] = MappingProxyType(
    {
        p.metric: p
        for p in (
            Plausible("FA", "1", 1e-3, 1.0, ("percent",), FA_RANGE),
            *(_diffusivity(m) for m in ("MD", "AD", "RD", "MSD", "D")),
            *(Plausible(m, "1", -3.0, 10.0) for m in ("MK", "AK", "RK", "MKT", "MSK")),
            *(_share(m) for m in ("muFA", "ICVF", "ODI", "ISOVF", "INVF", "g-ratio")),
            Plausible("MTR", "percent", 1.0, 99.0, ("1",), MTR_RANGE),
            Plausible("MTsat", "percent", 0.1, 30.0, ("1",), MTSAT_RANGE),
            Plausible("ihMTR", "percent", -5.0, 50.0),
            Plausible("MWF", "percent", 0.0, 80.0),
            Plausible("T1", "s", 0.17, 4.5, ("ms", "ks"), T1_RANGE),
            Plausible("R1", "1/s", 1 / 4.5, 1 / 0.17, ("1/ms",), "1 / T1"),
            Plausible("T2", "s", 0.01, 1.0, ("ms",)),
            Plausible("R2", "1/s", 1.0, 100.0, ("1/ms",), "1 / T2"),
            Plausible("T2star", "s", 0.002, 0.5, ("ms",)),
            Plausible("R2star", "1/s", 2.0, 500.0, ("1/ms",), "1 / T2star"),
            Plausible("area", "mm2", 1.0, 300.0, ("cm2",), "area of the spinal canal, up to 300 mm2 (assumed)"),
            *(Plausible(m, "mm", 2.0, 30.0, ("cm",)) for m in ("diameter_AP", "diameter_RL", "chord_AP", "chord_RL")),
            *(Plausible(m, "1", 0.0, 1.0, (), "0 to 1 by definition") for m in ("eccentricity", "solidity")),
            *(Plausible(m, "deg", -90.0, 90.0, (), "by definition") for m in ("angle_AP", "angle_RL", "orientation")),
        )
    }
)
"""Metrics whose values are checked."""

_BY_LOWER = {name.lower(): name for name in PLAUSIBLE}
CONTRASTS = ("T1w", "T2w", "T2star", "dwi", "MTR", "MTS")
"""Contrasts that follow the name of a metric of shape, as in ``area T2w``."""


def metric_name(name: str) -> str:
    """Return the name of a metric as qcord's tables spell it; a name that is not known stays as it is.

    >>> metric_name("fa"), metric_name("area t2W"), metric_name("T2*w signal")
    ('FA', 'area T2w', 'T2*w signal')
    """
    first, _, rest = name.strip().partition(" ")
    head = _BY_LOWER.get(first.lower(), first)
    tail = {c.lower(): c for c in CONTRASTS}.get(rest.strip().lower(), rest.strip())
    return f"{head} {tail}".strip()


def plausible(metric: str) -> Plausible | None:
    """What is known of a metric, by its name or by the name before the contrast (``area T2w``)."""
    return PLAUSIBLE.get(metric) or PLAUSIBLE.get(metric.partition(" ")[0])


def unit_name(unit: str) -> str:
    """Return the spelling of a unit that qcord uses; a unit that is not known stays as it is."""
    return ALIASES.get(unit.strip(), unit.strip())


def conversion(unit: str, into: str, what: str) -> float:
    """Return what a value is multiplied by to be in another unit.

    Raises
    ------
    UnitMismatch
        If the one cannot be turned into the other.
    """
    found = unit_name(unit)
    if found == into:
        return 1.0
    if (found, into) in FACTORS:
        return FACTORS[found, into]
    known = ", ".join([into, *(a for a, b in FACTORS if b == into)])
    raise UnitMismatch(f"{what} comes in '{unit}', expected one of {known}; state its unit as one of these.")
