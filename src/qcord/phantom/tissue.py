"""Tissue values at 3 T, each with its source and how far that is to be trusted; `field_strength` has other fields.

Trust is one of ``verified`` (read in the source), ``computed`` (from public data) and ``assumed`` (plausible, not
checked): assumed values shape the picture around the cord or state the size of a simulated effect, and are never a
norm.
"""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd

from qcord.core.arrays import FloatArray
from qcord.core.labels import COMBINED, TRACTS

BASIC = ("PD", "T1", "T2", "T2star", "MTsat", "FA", "MD")
"""Values that describe a tissue: density [1], times [s], saturation [percent], anisotropy [1], diffusivity [mm2/s]."""

MICROSTRUCTURE = ("ICVF", "ODI", "ISOVF", "DPAR")
"""Values of the compartments of a tissue: part inside neurites, orientation dispersion, free water [1], and diffusivity
along neurites [mm2/s]."""

METRICS = BASIC + MICROSTRUCTURE

UNITS = MappingProxyType(
    {
        **{"PD": "1", "T1": "s", "R1": "1/s", "T2": "s", "T2star": "s", "MTsat": "percent", "MTR": "percent"},
        **{"FA": "1", "MD": "mm2/s", "AD": "mm2/s", "RD": "mm2/s"},
        **{"ICVF": "1", "ODI": "1", "ISOVF": "1", "DPAR": "mm2/s"},
    }
)
"""Unit of each value, and of those that follow from them."""

SURROUNDINGS = ("fluid", "fat", "muscle", "marrow", "bone", "disc", "ligament", "nerve", "blood", "lung", "air")
"""Tissues around the cord."""

_SMITH = "Smith 2008, Magn Reson Med 60:213"
_UMN = "spine-generic, Siemens, C2-C5"
_REST = "spine-generic, Siemens, C2-C5; white matter less dorsal columns and lateral corticospinal tract"
_SHIM = "digital phantom of the shimming toolbox"
_GRUSSU = "range of Grussu 2015, from memory"
_NODDI = "constant of the NODDI model, Zhang 2012, doi:10.1016/j.neuroimage.2012.03.072"


@dataclass(frozen=True)
class Value:
    """One number of one tissue.

    Parameters
    ----------
    value : float
        In the unit of `UNITS`.
    source : str
        Where it comes from.
    trust : str
        ``verified``, ``computed`` or ``assumed``.
    """

    value: float
    source: str
    trust: str


def _shared(density: float, t2star: float) -> dict[str, Value]:
    return {"PD": Value(density, _SHIM, "verified"), "T2star": Value(t2star, _SHIM, "verified")}


def _neurites(icvf: float, odi: float, isovf: float) -> dict[str, Value]:
    fractions = zip(MICROSTRUCTURE, (icvf, odi, isovf), strict=False)
    return {m: Value(v, _GRUSSU, "assumed") for m, v in fractions} | {"DPAR": Value(1.7e-3, _NODDI, "verified")}


def _white(
    t1: float, t2: float, mtsat: float, *, fa: float, md: float, icvf: float, source: str = _UMN
) -> dict[str, Value]:
    return (
        _shared(70, 0.0387)
        | _neurites(icvf, 0.04, 0.06)
        | {
            "T1": Value(t1, _SMITH, "verified"),
            "T2": Value(t2, _SMITH, "verified"),
            "MTsat": Value(mtsat, source, "computed"),
            "FA": Value(fa, source, "computed"),
            "MD": Value(md, source, "computed"),
        }
    )


_DORSAL = _white(0.899, 0.072, 3.65, fa=0.719, md=1.023e-3, icvf=0.58)
_CORTICOSPINAL = _white(0.863, 0.073, 3.63, fa=0.705, md=0.958e-3, icvf=0.60)
_LATERAL = _white(0.863, 0.073, 3.68, fa=0.664, md=0.985e-3, icvf=0.56, source=_REST)
_VENTRAL = _white(0.876, 0.073, 3.68, fa=0.664, md=0.985e-3, icvf=0.56, source=_REST)
_GRAY = (
    _shared(80, 0.0444)
    | _neurites(0.40, 0.12, 0.05)
    | {
        "T1": Value(0.973, _SMITH, "verified"),
        "T2": Value(0.076, _SMITH, "verified"),
        "MTsat": Value(3.24, _UMN, "computed"),
        "FA": Value(0.587, _UMN, "computed"),
        "MD": Value(0.894e-3, _UMN, "computed"),
    }
)


_NO_NEURITES = {"ICVF": 0.0, "ODI": 1.0, "ISOVF": 0.0, "DPAR": 1.7e-3}


def _around(numbers: tuple[float, ...], verified: tuple[str, ...], source: str = _SHIM) -> dict[str, Value]:
    basic = {
        metric: Value(number, source, "verified") if metric in verified else Value(number, "assumption", "assumed")
        for metric, number in zip(BASIC, numbers, strict=True)
    }
    return basic | {m: Value(number, "assumption", "assumed") for m, number in _NO_NEURITES.items()}


_TIMES = ("T1", "T2", "T2star")
_AROUND = {
    "fluid": _around((100, 5.128, 1.42, 0.71, 0.0, 0.0, 3.0e-3), ("PD", *_TIMES)),
    "fat": _around((90, 0.401, 0.129, 0.0647, 0.3, 0.0, 0.05e-3), _TIMES),
    "muscle": _around((80, 1.238, 0.036, 0.0241, 4.5, 0.0, 1.5e-3), _TIMES),
    "marrow": _around((40, 0.6185, 0.0807, 0.0403, 1.0, 0.0, 0.4e-3), ("PD", *_TIMES)),
    "bone": _around((18, 0.223, 0.39e-3, 1.16e-3, 1.0, 0.0, 0.3e-3), ("PD", *_TIMES)),
    "disc": _around((50, 1.201, 0.042, 0.026, 3.0, 0.0, 1.5e-3), ("PD", *_TIMES)),
    "ligament": _around((35, 0.8, 0.015, 0.008, 4.0, 0.0, 0.8e-3), ()),
    "nerve": _around((75, 1.0, 0.08, 0.04, 3.0, 0.0, 1.1e-3), ()),
    "blood": _around((90, 0.5, 0.15, 0.05, 0.5, 0.0, 10e-3), ()),
    "lung": _around((15, 1.4, 0.0355, 0.0016, 0.5, 0.0, 2e-3), ("PD", *_TIMES)),
    "air": _around((0, 1.0, 0.05, 0.05, 0.0, 0.0, 1e-3), ()),
}
"""Blood has the short T1 of inflow; its signal is voided where the sequence refocuses (see `contrast`)."""


def default_tissues() -> dict[str, dict[str, Value]]:
    """Values of each region of the cord and of the tissues around it, by name and metric."""
    cord = {}
    for name in TRACTS:
        if name in COMBINED["gray matter"]:
            cord[name] = _GRAY
        elif name in COMBINED["dorsal columns"]:
            cord[name] = _DORSAL
        elif name.endswith(" lateral corticospinal tract"):
            cord[name] = _CORTICOSPINAL
        else:
            cord[name] = _LATERAL if name in COMBINED["lateral funiculi"] else _VENTRAL
    return cord | _AROUND


@dataclass(frozen=True, eq=False)
class TissueTable:
    """Values as arrays, regions of the cord first, then the surroundings.

    Parameters
    ----------
    names : tuple of str
        `qcord.core.labels.TRACTS`, then `SURROUNDINGS`.
    values : mapping of str to (n,) array
        By metric.
    """

    names: tuple[str, ...]
    values: dict[str, FloatArray]

    def cord(self, metric: str) -> FloatArray:
        """Values (36,) of the regions of the cord."""
        return self.values[metric][: len(TRACTS)]

    def around(self, tissue: str) -> dict[str, float]:
        """All values of one tissue around the cord."""
        row = self.names.index(tissue)
        return {metric: float(v[row]) for metric, v in self.values.items()}


def tissue_table(tissues: dict[str, dict[str, Value]]) -> TissueTable:
    """Arrays of a set of values."""
    names = (*TRACTS, *SURROUNDINGS)
    return TissueTable(names, {m: np.array([tissues[n][m].value for n in names]) for m in METRICS})


def tissue_frame(tissues: dict[str, dict[str, Value]]) -> pd.DataFrame:
    """Values as a table: tissue, metric, value, unit, source, trust."""
    rows = [
        (name, metric, v.value, UNITS[metric], v.source, v.trust)
        for name, values in tissues.items()
        for metric, v in values.items()
    ]
    return pd.DataFrame(rows, columns=["tissue", "metric", "value", "unit", "source", "trust"])


def axial_radial(fa: FloatArray, md: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Diffusivities along and across of an axially symmetric tensor with given FA and MD."""
    part = fa / np.sqrt(3 - 2 * fa**2)
    return md * (1 + 2 * part), md * (1 - part)
