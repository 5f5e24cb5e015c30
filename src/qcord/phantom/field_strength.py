"""Tissue values at other field strengths than 3 T."""

from collections.abc import Mapping
from dataclasses import replace

from qcord.phantom.tissue import Value

FIELDS = (1.5, 3.0, 7.0)
"""Field strengths [T] at which a phantom can be scanned."""

T1_EXPONENT = 0.38
"""T1 grows with this power of the field (Rooney 2007: .382 in white and .376 in gray matter of the brain)."""

T2_EXPONENT = -0.35
"""T2 falls with this power of the field (assumed; a drop by a quarter from 3 to 7 T)."""

_FLUIDS = ("fluid", "blood")
_SCALED = "scaled from 3 T"


def at_field(tissues: Mapping[str, Mapping[str, Value]], tesla: float) -> dict[str, dict[str, Value]]:
    """Tissue values at a field strength.

    Parameters
    ----------
    tissues : mapping of str to mapping of str to Value
        Values at 3 T by tissue and metric.
    tesla : float
        Field strength.

    Returns
    -------
    dict
        Relaxation times scaled, all else as it was. What is scaled is ``assumed``, whatever the trust in the value at
        3 T. The part of the effective transverse rate that is not 1 / T2 grows in proportion to the field; free fluid
        keeps its times.

    References
    ----------
    Rooney et al. 2007, doi:10.1002/mrm.21122.
    """
    if tesla == 3.0:
        return {name: dict(values) for name, values in tissues.items()}
    return {
        name: dict(values) if name in _FLUIDS else {**values, **_scaled(values, tesla / 3)}
        for name, values in tissues.items()
    }


def _scaled(values: Mapping[str, Value], ratio: float) -> dict[str, Value]:
    t2 = values["T2"].value * ratio**T2_EXPONENT
    dephasing = max(1 / values["T2star"].value - 1 / values["T2"].value, 0.0)
    numbers = {
        "T1": values["T1"].value * ratio**T1_EXPONENT,
        "T2": t2,
        "T2star": 1 / (1 / t2 + ratio * dephasing),
    }
    return {
        m: replace(values[m], value=v, source=f"{values[m].source}, {_SCALED}", trust="assumed")
        for m, v in numbers.items()
    }
