"""Free parameters of any registered model in a tissue, found by their names.

A parameter whose name has a rule here follows from the tissue table, so that lesions, compression and scanners change
it; all others have what the model itself states as typical of the tissue, times the factor that stands for them.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.core.model import SignalModel
from qcord.core.protocol import Protocol
from qcord.models.spoiled_gradient_echo import ernst_signal
from qcord.phantom.scan import half_sphere
from qcord.phantom.values import Tissue

AMPLITUDES = ("S0", "A", "M0", "PD")
"""Names of the amplitude of a signal, which is the proton density here."""

_DIRECT = (
    *("R1", "T1", "R2", "T2", "R2star", "T2star", "MTsat", "MTR"),
    *("FA", "MD", "AD", "RD", "ICVF", "ODI", "ISOVF"),
)

Rule = Callable[[Tissue], FloatArray]


def _direct(metric: str) -> Rule:
    return lambda tissue: tissue[metric]


RULES: Mapping[str, Rule] = MappingProxyType(
    {**{name: _direct("PD") for name in AMPLITUDES}, **{name: _direct(name) for name in _DIRECT}}
)
"""Parameter name to its value (n, t) in a tissue."""

FOLLOWS = MappingProxyType(
    {**dict.fromkeys(("MWF", "ihMTR", "ihMTsat", "F", "BPF", "MTVF"), "MTsat"), "T2ie": "T2", "T2f": "T2"}
)
"""Parameters without an entry in the tissue table that change as another one does (assumed: those that follow MTsat
all show myelin)."""

ELSEWHERE = MappingProxyType({"T2ie": "T2", "T2f": "T2", "R2f": "R2", "D": "MD", "MSD": "MD"})
"""Parameters of a part of the cord's water that are those of all water in tissues around it."""

CORD = ("white matter", "gray matter")
"""Kinds of tissue that models know."""

TRANSMIT = "B1"
"""Name of the transmit field, which some models take as given and some estimate; it belongs to no tissue."""

SPELLINGS = MappingProxyType(
    {"gray matter": ("gray matter", "grey matter"), "fluid": ("cerebrospinal fluid", "csf", "free water", "fluid")}
)
"""How models may spell a tissue."""

_ORIENTED = re.compile(r"[A-Za-z][xyz]{2,4}(_[xyz]{2})?|Tilt.*|[Tt]heta|[Pp]hi|.*[Aa]zimuth|.*[Pp]olar.*")
"""Names of parameters that depend on where fibres point: they have no regional truth."""


def theta_of(model: SignalModel, tissue: Tissue, tesla: float = 3.0) -> FloatArray:
    """Free parameters of a model.

    Parameters
    ----------
    model : SignalModel
        The contrast.
    tissue : Tissue
        n places, t tissues.
    tesla : float
        Field strength, by which typical values are chosen.

    Returns
    -------
    (n, t, p) array
        By `RULES` where there is one, else typical of the tissue, within the bounds of each parameter. Where a model
        has parameters that depend on orientation, fibres point as in its typical values (see `fibre_axis`).
    """
    n, t = tissue["PD"].shape
    theta = np.empty((n, t, len(model.free)))
    for column, kind in enumerate(tissue.kinds):
        typical = typical_values(model, kind, tesla)
        scale = _amplitude(model, typical)
        for k, parameter in enumerate(model.free):
            rule = parameter.name if tissue.kinds[column] in CORD else ELSEWHERE.get(parameter.name, parameter.name)
            if rule in RULES and (parameter.name != "MTR" or "MTR" in tissue.values):
                value = RULES[rule](tissue)[:, column]
            elif k in scale:
                value = typical[parameter.name] * scale[k] * tissue["PD"][:, column]
            else:
                value = typical[parameter.name] * _change(tissue, parameter.name)
            theta[:, column, k] = np.clip(value, *parameter.bounds)
    return theta


def _change(tissue: Tissue, name: str) -> FloatArray:
    metric = name if name in tissue.factors else FOLLOWS.get(name, name)
    return tissue.factor(metric)[:, 0]


def typical_values(model: SignalModel, kind: str, tesla: float = 3.0) -> dict[str, float]:
    """Values by name that a model states for a kind of tissue.

    Those of white matter stand for tissues that it does not name, but parts of tissues other than the cord are 0; the
    starts of the parameters stand for all if it states none.
    """
    words = SPELLINGS.get(kind, (kind,))
    here = [v for v in model.typical if any(w in v.tissue.lower() for w in words)]
    at_field = [v for v in here if f"{tesla:g} T" in v.tissue]
    starts = {p.name: p.start for p in model.free}
    for found in (at_field, here):
        if found:
            return starts | dict(found[0].values)
    first = starts | (dict(model.typical[0].values) if model.typical else {})
    if kind in CORD:
        return first
    parts = {p.name for p in model.free if p.unit in {"percent", "probability"} or p.bounds == (0.0, 1.0)}
    parts |= {name for name, metric in FOLLOWS.items() if metric == "MTsat"}
    return {name: 0.0 if name in parts else value for name, value in first.items()}


def _amplitude(model: SignalModel, typical: Mapping[str, float]) -> dict[int, float]:
    """Factors that bring parameters without limit and unit, which scale the signal, to a density of 1."""
    scaling = [
        k
        for k, p in enumerate(model.free)
        if p.unit == "1" and np.isinf(p.bounds[1]) and p.name not in RULES and typical[p.name] != 0
    ]
    if not scaling:
        return {}
    top = max(abs(typical[model.free[k].name]) for k in scaling)
    return dict.fromkeys(scaling, 1 / top)


def has_amplitude(model: SignalModel) -> bool:
    """Whether the signal scales with the density: a ratio of images does not."""
    return any(p.unit == "1" and np.isinf(p.bounds[1]) for p in model.free)


def unmodelled(model: SignalModel, tissue: Tissue, protocol: Protocol) -> FloatArray:
    """Weight (n, t, rows) of each measurement by relaxation that the protocol has and the model leaves out.

    Recovery between excitations where the model reads no repetition or inversion time, and decay at the echo where it
    reads no echo time: with T2 after diffusion weighting, with T2* otherwise.
    """
    rows = len(protocol)
    weight = np.ones((*tissue["PD"].shape, rows))
    if not has_amplitude(model):
        return weight
    needs = set(model.needs)
    timed = {"RepetitionTime", "RepetitionTimeExcitation", "RepetitionTimePreparation", "InversionTime", "FlipAngle"}
    t1 = tissue["T1"][..., None]
    if not needs & timed:
        if protocol.has("RepetitionTimeExcitation", "FlipAngle"):
            theta = np.stack([np.ones_like(tissue["T1"]), tissue["R1"], np.zeros_like(tissue["T1"])], axis=-1)
            weight = weight * ernst_signal(theta, protocol.replace(MTState=False), np.ones(1))
        elif protocol.has("RepetitionTime"):
            weight = weight * (1 - np.exp(-protocol["RepetitionTime"] / t1))
    if "EchoTime" not in needs and protocol.has("EchoTime"):
        time = tissue["T2" if "BValue" in protocol else "T2star"][..., None]
        weight = weight * np.exp(-protocol["EchoTime"] / time)
    return weight


def fibre_axis(model: SignalModel, theta: FloatArray, protocol: Protocol) -> FloatArray:
    """Unit vector (3,) along which a model's signal of one tissue (p,) decays fastest; up if it is the same everywhere.

    Found by a search over the half sphere with the settings of the most weighted row of the protocol at 1000 s/mm2.
    """
    row = int(np.argmax(protocol["BValue"]))
    axes = half_sphere(500)
    probe = protocol.take(np.full(len(axes), row)).replace(Direction=axes, BValue=1000.0)
    if "BDelta" in probe:
        probe = probe.replace(BDelta=1.0)
    if "SecondDirection" in probe:
        probe = probe.replace(SecondDirection=np.zeros_like(axes))

    def decay(directions: FloatArray) -> FloatArray:
        rows = probe.take(np.zeros(len(directions), dtype=int)).replace(Direction=directions)
        return np.asarray(model.signal(theta, rows, model.given_defaults()), dtype=float)

    signal = decay(axes)
    if np.ptp(signal) < 1e-9 * np.abs(signal).max():
        return np.array([0.0, 0.0, 1.0])
    axis, reach = axes[np.argmin(signal)], 0.1
    while reach > 1e-7:
        around = axis + reach * np.concatenate([[np.zeros(3)], half_sphere(30), -half_sphere(30)])
        around /= np.linalg.norm(around, axis=1, keepdims=True)
        best = int(np.argmin(decay(around)))
        axis, reach = around[best], reach * (0.5 if best == 0 else 0.8)
    return np.asarray(axis * (1.0 if axis[2] >= 0 else -1.0))


def oriented(name: str) -> bool:
    """Whether a parameter of this name depends on where fibres point."""
    return _ORIENTED.fullmatch(name) is not None


def model_metrics(model: SignalModel) -> dict[str, str]:
    """Unit of each value of a model that belongs to a tissue: without amplitudes and what depends on orientation."""
    scale = {p.name for p in model.free if p.unit == "1" and np.isinf(p.bounds[1])} | {TRANSMIT}
    return {name: unit for name, unit in model.units.items() if name not in scale and not oriented(name)}


def model_values(model: SignalModel, tissue: Tissue, tesla: float = 3.0) -> dict[str, FloatArray]:
    """Free and derived values (n, t) of a model in a tissue, by name."""
    theta = theta_of(model, tissue, tesla)
    found = {p.name: theta[..., k] for k, p in enumerate(model.free)}
    with np.errstate(all="ignore"):
        found |= {d.name: np.asarray(d.formula(theta), dtype=float) for d in model.derived}
    return {name: found[name] for name in model_metrics(model)}


def by_rules(model: SignalModel) -> bool:
    """Whether all parameters of a model but the amplitude and the orientation follow from the tissue table."""
    return all(p.name in RULES or oriented(p.name) for p in model.free if p.name != TRANSMIT)
