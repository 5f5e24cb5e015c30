"""What a formula must obey whatever it describes: shapes, derivatives, units, and the sense of its settings."""

from collections.abc import Callable, Iterator

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import MissingMetadata
from qcord.core.model import SignalModel
from qcord.core.protocol import Protocol
from qcord.core.units import QUANTITIES
from qcord.estimate.jacobian import gradient, jacobian
from qcord.testing.declaration import needed

BATCHES = ((), (1,), (7, 8, 9))
_TIME = {"s": 1, "1/s": -1, "mm2/s": -1, "s/mm2": 1, "mm4/s2": -2, "Hz": -1, "rad/s": -1}
_LENGTH = {"mm": 1, "mm2": 2, "mm2/s": 2, "s/mm2": -2, "1/mm": -1, "mm4/s2": 4}
_NEUTRAL = {"1", "deg", "percent", "probability", "label"}
_DIFFERENCE = 1e-5
"""Step of finite differences, in parts of a parameter's scale."""


def shape_faults(model: SignalModel, theta: FloatArray, protocol: Protocol) -> Iterator[str]:
    """Sentences on columns that are read or ignored against what is stated, and on shapes."""
    columns = needed(model, protocol)
    given = model.given_defaults()
    try:
        single = np.asarray(model.signal(theta, columns, given))
    except MissingMetadata as error:
        yield f"it reads a column that it does not state: {error}"
        return
    if single.shape != (len(protocol),) or single.dtype.kind != "f":
        yield f"its signal has shape {single.shape} and type {single.dtype}, expected ({len(protocol)},) and float"
        return
    if not np.isfinite(single).all():
        yield "its signal is not finite at typical values"
    for batch in BATCHES:
        many = np.asarray(model.signal(np.broadcast_to(theta, (*batch, len(theta))), columns, given))
        expected = (*batch, len(protocol))
        if many.shape != expected:
            yield f"its signal of parameters {(*batch, len(theta))} has shape {many.shape}, expected {expected}"
        elif not np.allclose(many, single, rtol=1e-9, atol=1e-12 * np.abs(single).max()):
            yield f"its signal of parameters {(*batch, len(theta))} differs from that of one voxel"
    yield from _coupling(model, theta, columns, single)
    yield from _ignored(model, theta, columns, single)


def _coupling(model: SignalModel, theta: FloatArray, protocol: Protocol, single: AnyArray) -> Iterator[str]:
    if model.coupled:
        return
    given = model.given_defaults()
    alone = [model.signal(theta, protocol.take([k]), given)[..., 0] for k in range(len(protocol))]
    if not np.allclose(alone, single, rtol=1e-9, atol=1e-12 * np.abs(single).max()):
        yield "its measurements depend on other rows of the protocol, but it is not stated as coupled"


def _ignored(model: SignalModel, theta: FloatArray, protocol: Protocol, single: AnyArray) -> Iterator[str]:
    for name in model.needs:
        column = protocol.columns[name]
        if column.dtype.kind == "b":
            changed = ~column
        elif column.ndim > 1:
            changed = np.roll(column, 1, axis=1)
        else:
            changed = np.where(column == 0, 0.1, 1.07 * column)
        try:
            other = model.signal(theta, Protocol({**protocol.columns, name: changed}), model.given_defaults())
        except ValueError:
            continue
        if np.allclose(other, single, rtol=1e-12, atol=0):
            yield f"it states that it needs {name}, but its signal does not depend on it"


def derivative_faults(model: SignalModel, thetas: FloatArray, scale: FloatArray, protocol: Protocol) -> Iterator[str]:
    """Sentences on derivatives that differ from finite differences: the formula is not analytic, or wrong."""
    given = model.given_defaults()

    def signal(values: FloatArray) -> FloatArray:
        return np.asarray(model.signal(values, protocol, given), dtype=float)

    exact = jacobian(model, thetas, protocol)
    for k, parameter in enumerate(model.free):
        numeric = _central(signal, thetas, k, scale[k])
        size = max(float(np.abs(numeric).max()), float(np.abs(exact[..., k]).max()))
        if size * scale[k] < 1e-12 * float(np.abs(signal(thetas)).max()):
            yield f"its signal does not depend on {parameter.name}"
        elif not np.allclose(exact[..., k], numeric, rtol=1e-4, atol=1e-5 * size):
            yield f"the derivative of its signal by {parameter.name} differs from finite differences; keep it analytic"
    yield from _slope_faults(model, thetas, protocol, exact)
    for derived in model.derived:
        slope = gradient(derived, thetas)
        for k, parameter in enumerate(model.free):

            def value(values: FloatArray, formula: Callable[[AnyArray], AnyArray] = derived.formula) -> FloatArray:
                return np.asarray(formula(values), dtype=float)

            numeric = _central(value, thetas, k, scale[k])
            size = float(np.abs(value(thetas)).max()) / scale[k]
            if not np.allclose(slope[..., k], numeric, rtol=1e-3, atol=1e-5 * size):
                yield f"the derivative of {derived.name} by {parameter.name} differs from finite differences"


def _slope_faults(model: SignalModel, thetas: FloatArray, protocol: Protocol, exact: FloatArray) -> Iterator[str]:
    """Whether a model's own derivatives are those of its signal, ``exact`` (..., n, p)."""
    if model.slope is None:
        return
    given = np.broadcast_to(model.given_defaults(), (len(thetas), len(model.given)))
    signals = np.asarray(model.signal(thetas, protocol, given), dtype=float)
    expected = (signals.T, np.moveaxis(exact, (0, 1, 2), (2, 1, 0)))
    for found, other in zip(model.slope(thetas, protocol, given), expected, strict=True):
        if found.shape != other.shape or not np.allclose(found, other, rtol=1e-8, atol=0):
            yield "its own derivatives differ from those of its signal; mend them, or leave them out"
            return


def _central(function: Callable[[FloatArray], FloatArray], thetas: FloatArray, k: int, scale: float) -> FloatArray:
    side = np.zeros(thetas.shape[-1])
    side[k] = _DIFFERENCE * scale
    return np.asarray((function(thetas + side) - function(thetas - side)) / (2 * side[k]))


def unit_faults(model: SignalModel, theta: FloatArray, protocol: Protocol) -> Iterator[str]:
    """Sentences on a signal that changes when the units of time or length are changed everywhere."""
    columns = {name: QUANTITIES[name].unit if name in QUANTITIES else None for name in model.needs}
    numeric = {name for name in model.needs if protocol.columns[name].dtype.kind == "f"}
    units = [p.unit for p in (*model.free, *model.given)] + [columns[n] for n in numeric if n != "Direction"]
    known = set(_TIME) | set(_LENGTH) | _NEUTRAL
    if any(unit not in known for unit in units):
        return
    before = model.signal(theta, protocol, model.given_defaults())
    for powers, what in ((_TIME, "time"), (_LENGTH, "length")):
        factor = 1.7
        moved = theta * [factor ** powers.get(p.unit, 0) for p in model.free]
        given = model.given_defaults() * [factor ** powers.get(p.unit, 0) for p in model.given]
        scaled = {n: protocol.columns[n] * factor ** powers.get(columns[n] or "", 0) for n in numeric}
        after = model.signal(moved, _unchecked(protocol, scaled), given)
        if not np.allclose(after, before, rtol=1e-7, atol=1e-9 * np.abs(before).max()):
            yield f"its signal changes with the unit of {what}: a unit is wrong, or a constant has a unit"


def sense_faults(model: SignalModel, theta: FloatArray, protocol: Protocol) -> Iterator[str]:
    """Sentences on settings that act against physics: transverse decay, diffusion loss, longitudinal recovery."""
    steady = "FlipAngle" in model.needs and "InversionTime" not in model.needs
    laws = {"EchoTime": (1.3, -1), "BValue": (1.2, -1)}
    if steady:
        laws |= {"RepetitionTimeExcitation": (1.3, 1)}
    before = np.abs(model.signal(theta, protocol, model.given_defaults()))
    for name, (factor, sign) in laws.items():
        if name not in model.needs or model.coupled:
            continue
        longer = _unchecked(protocol, {name: protocol.columns[name] * factor})
        after = np.abs(model.signal(theta, longer, model.given_defaults()))
        if (sign * (after - before) < -1e-9 * before.max()).any():
            grows = "falls" if sign > 0 else "grows"
            yield f"its signal {grows} with {name}: is one setting taken for another?"


def _unchecked(protocol: Protocol, changed: dict[str, AnyArray]) -> Protocol:
    """Protocol with changed columns; the ranges of plausible settings do not matter here."""
    copy = Protocol(dict(protocol.columns), protocol.source)
    object.__setattr__(copy, "columns", {**copy.columns, **changed})
    return copy
