"""What a model states about itself: names, units, ranges, sources, an example."""

import re
from collections.abc import Iterator

import numpy as np

from qcord.core.errors import QcordError
from qcord.core.model import SignalModel
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.core.units import QUANTITIES, UNITS

TRUST = ("verified", "computed", "assumed")
_CITATION = re.compile(r"\d{4}.*doi:10\.\d{4,}/\S+")


def faults(model: SignalModel) -> Iterator[str]:
    """Sentences on what a model states wrongly or not at all."""
    yield from _names(model)
    for parameter in (*model.free, *model.given):
        yield from _parameter(parameter)
    for derived in model.derived:
        if derived.unit not in UNITS:
            yield f"{derived.name} is in '{derived.unit}', expected one of {', '.join(UNITS)}"
    if not model.references:
        yield "it cites no paper"
    for reference in model.references:
        if not _CITATION.search(reference):
            yield f"reference '{reference}' has no year and DOI"
    yield from _documentation(model)
    yield from _typical(model)


def example_faults(model: SignalModel) -> Iterator[str]:
    """Sentences on an example protocol that does not serve."""
    if model.example is None:
        yield "it has no example protocol"
        return
    try:
        protocol = model.example()
    except QcordError as error:
        yield f"its example protocol is refused: {error}"
        return
    absent = [name for name in model.needs if not protocol.has(name)]
    if absent:
        yield f"its example protocol lacks {', '.join(absent)}"


def needed(model: SignalModel, protocol: Protocol) -> Protocol:
    """The columns that a model says it needs, and no others."""
    return Protocol({name: protocol.columns[name] for name in model.needs}, protocol.source)


def _names(model: SignalModel) -> Iterator[str]:
    if not model.title:
        yield "it has no title"
    if not model.free:
        yield "it has no free parameter"
    names = [p.name for p in (*model.free, *model.given)] + [d.name for d in model.derived]
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield f"the name {name} is used twice"


def _parameter(parameter: Parameter) -> Iterator[str]:
    name, (low, high) = parameter.name, parameter.bounds
    if parameter.unit not in UNITS:
        yield f"{name} is in '{parameter.unit}', expected one of {', '.join(UNITS)}"
    if not parameter.description:
        yield f"{name} has no description"
    if not low < high:
        yield f"{name} has bounds {low:g} to {high:g}, expected the lower first"
    if not low <= parameter.start <= high:
        yield f"{name} starts at {parameter.start:g}, outside its bounds {low:g} to {high:g}"
    quantity = QUANTITIES.get(name)
    if quantity is None:
        return
    if parameter.unit != quantity.unit:
        yield f"{name} is in '{parameter.unit}', expected '{quantity.unit}'"
    if not quantity.low <= parameter.start <= quantity.high:
        yield f"{name} starts at {parameter.start:g} {quantity.unit}, which is not plausible ({quantity.hint})"


def _documentation(model: SignalModel) -> Iterator[str]:
    text = model.signal.__doc__ or ""
    words = [p.name for p in (*model.free, *model.given)] + list(model.needs)
    absent = [word for word in words if word not in text]
    if absent:
        yield f"the docstring of its signal does not name {', '.join(absent)}"
    if "doi:" not in text:
        yield "the docstring of its signal cites no paper"


def _typical(model: SignalModel) -> Iterator[str]:
    if not model.typical:
        yield "it has no typical values"
    names = {p.name for p in model.free}
    for tissue in model.typical:
        if set(tissue.values) != names:
            differing = ", ".join(sorted(set(tissue.values) ^ names))
            yield f"typical values of {tissue.tissue} and the free parameters differ in {differing}"
            continue
        if tissue.trust not in TRUST:
            yield f"trust of {tissue.tissue} is '{tissue.trust}', expected one of {', '.join(TRUST)}"
        if not tissue.source:
            yield f"typical values of {tissue.tissue} have no source"
        for parameter in model.free:
            value, (low, high) = tissue.values[parameter.name], parameter.bounds
            if not (np.isfinite(value) and low <= value <= high):
                yield f"typical {parameter.name} of {tissue.tissue} is {value:g}, outside {low:g} to {high:g}"
