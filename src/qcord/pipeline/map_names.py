"""Names of maps, by BIDS and QSIRecon, and the units in which they are written."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qcord.core.entities import Entities
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.image import Image
from qcord.core.intervals import Intervals

QMRI_SUFFIX = {
    **{"MTR": "MTRmap", "MTsat": "MTsat", "T1": "T1map", "R1": "R1map", "T2": "T2map", "R2": "R2map"},
    **{"T2star": "T2starmap", "R2star": "R2starmap", "B1": "TB1map", "M0": "M0map", "MWF": "MWFmap"},
    **{"ihMTR": "ihMTRmap", "ihMTsat": "ihMTsat", "F": "BPFmap", "kf": "kfmap", "T2b": "T2bmap", "T2ie": "T2iemap"},
}
"""Metric to suffix, that of BIDS where it has one; other maps of these models stay in memory."""

IN_PERCENT = ("B1", "MWF")
"""Factors that BIDS has in percent."""

TENSOR_PARAMETER = {"FA": "fa", "MD": "md", "AD": "ad", "RD": "rd", "S0": "s0", "V1": "v1"}
"""Metric to the ``param`` entity of tensor maps."""

_MUFA = {
    **{"S0": "s0", "MD": "md", "FA": "fa", "muFA": "mufa", "C_mu": "cmu", "OP": "op", "V_I": "vi", "V_A": "va"},
    **{"MK_I": "mki", "MK_A": "mka", "C_c": "cc", "C_MD": "cmd", "K_bulk": "kbulk", "K_shear": "kshear", "K_mu": "kmu"},
}

DIFFUSION_PARAMETER: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "tensor": ("tensor", TENSOR_PARAMETER),
    "mufa": ("mufa", _MUFA),
    "mufa-cumulant": ("mufacumulant", _MUFA),
    "qti": ("qti", _MUFA),
    "kurtosis": ("dki", {**TENSOR_PARAMETER, "MK": "mk", "AK": "ak", "RK": "rk", "MKT": "mkt"}),
    "mean-signal-kurtosis": ("msdki", {"MSD": "msd", "MSK": "msk", "S0": "s0"}),
    "noddi": ("noddi", {"ICVF": "icvf", "ODI": "odi", "ISOVF": "isovf", "INVF": "invf", "S0": "s0", "V1": "v1"}),
    "smt": ("smt", {"MicroFA": "microfa", "MicroMD": "micromd", "MicroAD": "microad", "MicroRD": "micrord"}),
    "smt-mc": ("smtmc", {"NeuriteFraction": "fraction", "NeuriteDiffusivity": "diffusivity", "ExtraRD": "extrard"}),
    "ivim": ("ivim", {"f": "f", "Dstar": "dstar", "D": "d", "S0": "s0"}),
}
"""Diffusion model to its ``model`` entity, and metric to the ``param`` entity of its maps."""


def map_name(source: Entities, model: str, metric: str) -> Entities | None:
    """File name of a map; None for maps that are not written."""
    if model in DIFFUSION_PARAMETER:
        entity, parameters = DIFFUSION_PARAMETER[model]
        parameter = parameters.get(metric)
        return None if parameter is None else source.replace(suffix="dwimap", model=entity, param=parameter)
    suffix = QMRI_SUFFIX.get(metric)
    return None if suffix is None else source.replace(suffix=suffix)


def flag_name(source: Entities, fit: Fit) -> Entities | None:
    """File name of the flags of a fit; None if no map of it is written."""
    first = next((n for metric in fit.maps if (n := map_name(source, fit.model, metric)) is not None), None)
    if first is None:
        return None
    return first.replace(param=None, desc="flag") if first.suffix == "dwimap" else first.replace(desc="flag")


def flag_sidecar(sources: Sequence[str]) -> dict[str, Any]:
    """Sidecar of a map of flags."""
    return {"Levels": {int(f): f.sentence for f in Flag}, "Sources": list(sources)}


def as_written(metric: str, image: Image) -> Image:
    """Map in the unit of BIDS."""
    if metric not in IN_PERCENT or image.unit != "1":
        return image
    return image.derive(np.asarray(image.data, dtype=np.float32) * 100, unit="percent")


def beside_map(fit: Fit, metric: str) -> dict[str, tuple[Image, str]]:
    """Images that lie beside a map, by their ``desc``, each with its meaning."""
    found: dict[str, tuple[Image, str]] = {}
    if metric in fit.std:
        carried = f", by noise and by that of the given {' and '.join(fit.shifts)}" if fit.shifts_of(metric) else ""
        found["se"] = (fit.std[metric], f"standard error{carried}")
    if metric in fit.bias:
        found["bias"] = (fit.bias[metric], "expected rise of the map by noise")
    for name, maps in fit.shifts.items():
        if metric in maps:
            meaning = f"change of the map by one standard error more of the given {name}, which neighbours share"
            found[f"shift{name}"] = (maps[metric], meaning)
    return found


def range_of(ranges: Intervals | None, metric: str) -> dict[str, tuple[Image, str]]:
    """Ends of an interval that lie beside a map, by their ``desc``, each with its meaning."""
    if ranges is None or metric not in ranges.lower:
        return {}
    chance = f"of the {ranges.level:.0%} interval by the likelihood"
    return {
        "lower": (ranges.lower[metric], f"lower end {chance}"),
        "upper": (ranges.upper[metric], f"upper end {chance}"),
    }
