"""Myelin water from a train of spin echoes: two or three water pools with stimulated echoes.

Two forms: ``MYELIN_WATER`` has myelin water and intra- and extracellular water; ``MYELIN_WATER_CSF`` adds free fluid
of known relaxation, which voxels at the rim of the cord hold. Exchange between pools, slice profiles and imperfect
crushing are left out.
"""

from functools import lru_cache

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import NotIdentifiable
from qcord.core.model import Derived, SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.models.extended_phase_graph import echo_numbers, echo_train

_STEP = 1e-30


def signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Spin echoes of myelin water and of intra- and extracellular water.

    Parameters
    ----------
    theta : (..., 5) array
        S0 [1], MWF (myelin water over all water) [1], T2my (of myelin water) [s], T2ie (of intra- and extracellular
        water) [s], Efficiency (sin^2 of half the refocusing angle) [1].
    protocol : Protocol
        EchoTime [s], multiples of the first; all echoes of the train up to the last one are computed.
    given : (..., 1) array
        R1 [1/s] of both pools.

    Returns
    -------
    (..., n) array
        Signal, unit of S0.

    Raises
    ------
    ImplausibleValue
        If the echoes are not evenly spaced.

    References
    ----------
    Hennig 1988, doi:10.1016/0022-2364(88)90128-X; Prasloski et al. 2012, doi:10.1002/mrm.23157;
    MacKay et al. 1994, doi:10.1002/mrm.1910310614.
    """
    values = np.broadcast_arrays(*np.moveaxis(theta, -1, 0), given[..., 0])
    amplitude, fraction, short, long, efficiency, r1 = values
    rates = 1 / np.stack([short, long])
    weights = np.stack([fraction, 1 - fraction])
    return np.asarray(amplitude[..., None] * _mixture(weights, rates, r1, efficiency, protocol))


def signal_with_fluid(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Spin echoes of myelin water, intra- and extracellular water, and free fluid.

    Parameters
    ----------
    theta : (..., 6) array
        S0 [1], MWF (myelin water over all water) [1], T2my (of myelin water) [s], T2ie (of intra- and extracellular
        water) [s], Efficiency (sin^2 of half the refocusing angle) [1], FWF (fluid over all water) [1].
    protocol : Protocol
        EchoTime [s], multiples of the first; all echoes of the train up to the last one are computed.
    given : (..., 3) array
        R1 [1/s] of the tissue pools, T1csf and T2csf [s] of the fluid.

    Returns
    -------
    (..., n) array
        Signal, unit of S0.

    Raises
    ------
    ImplausibleValue
        If the echoes are not evenly spaced.

    References
    ----------
    Hennig 1988, doi:10.1016/0022-2364(88)90128-X; Prasloski et al. 2012, doi:10.1002/mrm.23157;
    MacKay et al. 1994, doi:10.1002/mrm.1910310614.
    """
    values = np.broadcast_arrays(*np.moveaxis(theta, -1, 0), *np.moveaxis(given, -1, 0))
    amplitude, fraction, short, long, efficiency, fluid, r1, fluid_t1, fluid_t2 = values
    rates = 1 / np.stack([short, long, fluid_t2])
    recovery = np.stack([r1, r1, 1 / fluid_t1])
    weights = np.stack([fraction, 1 - fraction - fluid, fluid])
    return np.asarray(amplitude[..., None] * _mixture(weights, rates, recovery, efficiency, protocol))


def _mixture(
    weights: AnyArray,
    rates: AnyArray,
    recovery: AnyArray,
    efficiency: AnyArray,
    protocol: Protocol,
) -> AnyArray:
    numbers, spacing = echo_numbers(protocol)
    echoes = echo_train(int(numbers.max()), spacing, rates, recovery, efficiency)
    mixed = np.einsum("nk...,k...->n...", echoes, weights)
    return np.moveaxis(mixed[numbers - 1], 0, -1)


def slope(theta: FloatArray, protocol: Protocol, given: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Signals (n, v) and their derivatives (p, n, v) for theta (v, 5 or 6), given (v, 1 or 3).

    The trains of the pools are linear in all but their rates and the efficiency, so that two complex steps give all.
    """
    amplitude, fraction, short, long, efficiency, *fluid = theta.T
    pools, last = [1 / short, 1 / long], 1 - fraction - sum(fluid)
    recovery = [given.T[0]] * 2
    if fluid:
        pools.append(1 / given.T[2])
        recovery.append(1 / given.T[1])
    numbers, spacing = echo_numbers(protocol)
    count, step = int(numbers.max()), 1j * _STEP
    rates, recoveries = np.stack(pools), np.stack(recovery)
    weights = np.stack([fraction, last, *fluid])
    by_rate = echo_train(count, spacing, rates[:2] + step, recoveries[:2], efficiency)[numbers - 1].imag / _STEP
    trains = echo_train(count, spacing, rates, recoveries, efficiency + step)[numbers - 1]
    echoes, by_efficiency = trains.real, trains.imag / _STEP
    mixed = np.einsum("nkv,kv->nv", echoes, weights)
    columns = [
        mixed,
        amplitude * (echoes[:, 0] - echoes[:, 1]),
        -amplitude * weights[0] * rates[0] ** 2 * by_rate[:, 0],
        -amplitude * weights[1] * rates[1] ** 2 * by_rate[:, 1],
        amplitude * np.einsum("nkv,kv->nv", by_efficiency, weights),
        *[amplitude * (echoes[:, 2] - echoes[:, 1]) for _ in fluid],
    ]
    return amplitude * mixed, np.stack(columns)


def start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 5): the best of a table of tissues and angles, with the amplitude that fits it."""
    return _best_of_table(measured, protocol, MYELIN_WATER, _table())


def _start_with_fluid(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    table = np.concatenate([np.column_stack([_table(), np.full(len(_table()), f)]) for f in (0.0, 0.15, 0.5)])
    return _best_of_table(measured, protocol, MYELIN_WATER_CSF, table)


@lru_cache(maxsize=1)
def _table() -> FloatArray:
    long, angles = (0.055, 0.07, 0.09, 0.13), (0.7, 0.85, 0.93, 0.98)
    return np.array([[1.0, f, 0.016, t, e] for f in (0.04, 0.12, 0.25, 0.4) for t in long for e in angles])


def _best_of_table(measured: FloatArray, protocol: Protocol, model: SignalModel, table: FloatArray) -> FloatArray:
    shapes = model.signal(table, protocol, model.given_defaults())
    size = (shapes**2).sum(axis=1)
    with np.errstate(all="ignore"):
        overlap = np.einsum("tn,...n->...t", shapes, measured)
        gain = np.nan_to_num(overlap * np.abs(overlap) / size, nan=-np.inf)
        best = np.argmax(gain, axis=-1)
        amplitude = np.take_along_axis(overlap / size, best[..., None], axis=-1)
    theta = table[best]
    theta[..., :1] = np.where(np.isfinite(amplitude) & (amplitude > 0), amplitude, 1.0)
    return np.asarray(theta)


def require_echo_train(protocol: Protocol) -> None:
    """Whether a protocol is an echo train that shows myelin water.

    Raises
    ------
    MissingMetadata
        If EchoTime is absent.
    ImplausibleValue
        If the echoes are not evenly spaced.
    NotIdentifiable
        If there are too few echoes, the first is too late, or the last is too early.
    """
    numbers, spacing = echo_numbers(protocol)
    last = spacing * int(numbers.max())
    if len(set(numbers.tolist())) < 12 or spacing > 0.016 or last < 0.14:
        raise NotIdentifiable(
            f"{protocol.source or 'The series'} has {len(set(numbers.tolist()))} spin echoes from {1e3 * spacing:g} to "
            f"{1e3 * last:g} ms; myelin water needs twelve or more, the first by 16 ms and the last from 140 ms on (32 "
            "echoes 10 ms apart are usual): acquire such a train."
        )


def refocusing_angle(theta: AnyArray) -> AnyArray:
    """Refocusing angle [deg], at most 180, from theta (..., 5 or more)."""
    return np.asarray(2 * np.arcsin(np.sqrt(theta[..., 4])) * (180 / np.pi))


def _tissue_fraction(theta: AnyArray) -> AnyArray:
    return np.asarray(theta[..., 1] / (1 - theta[..., 5]))


def example() -> Protocol:
    """The usual train: 32 echoes 10 ms apart."""
    return Protocol({"EchoTime": 0.01 * np.arange(1, 33), "RefocusingFlipAngle": np.full(32, 180.0)}, "example")


_FREE = (
    Parameter("S0", "1", (0.0, np.inf), 1.0, "signal right after the excitation"),
    Parameter("MWF", "1", (0.0, 1.0), 0.15, "myelin water over all water"),
    Parameter("T2my", "s", (0.005, 0.035), 0.016, "transverse relaxation time of myelin water"),
    Parameter("T2ie", "s", (0.045, 0.3), 0.075, "transverse relaxation time of intra- and extracellular water"),
    Parameter("Efficiency", "1", (0.2, 1.0), 0.95, "sin^2 of half the refocusing angle"),
)
_FLUID = Parameter("FWF", "1", (0.0, 1.0), 0.05, "free fluid over all water")
_GIVEN = (Parameter("R1", "1/s", (0.05, 20.0), 1.0, "longitudinal relaxation rate of the tissue pools"),)
_GIVEN_FLUID = (
    *_GIVEN,
    Parameter("T1csf", "s", (1.0, 20.0), 5.128, "longitudinal relaxation time of cerebrospinal fluid"),
    Parameter("T2csf", "s", (0.2, 10.0), 1.42, "transverse relaxation time of cerebrospinal fluid"),
)
_REFERENCES = (
    "Hennig 1988, doi:10.1016/0022-2364(88)90128-X",
    "Prasloski et al. 2012, doi:10.1002/mrm.23157",
    "MacKay et al. 1994, doi:10.1002/mrm.1910310614",
)
_WHITE = {"S0": 1000.0, "MWF": 0.29, "T2my": 0.015, "T2ie": 0.075, "Efficiency": 0.97}
_GRAY = {"S0": 1150.0, "MWF": 0.1, "T2my": 0.015, "T2ie": 0.078, "Efficiency": 0.97}
_SOURCE = "MWF of C4 to C6 below 30 years (UBC, abstract); T2 and angle assumed"

MYELIN_WATER = SignalModel(
    name="myelin-water",
    free=_FREE,
    needs=("EchoTime",),
    signal=signal,
    references=_REFERENCES,
    given=_GIVEN,
    derived=(Derived("RefocusingAngle", "deg", refocusing_angle),),
    start=start,
    title="Myelin water fraction from a train of spin echoes, two pools",
    example=example,
    typical=(
        Typical("white matter, 3 T", _WHITE, _SOURCE, "assumed"),
        Typical("gray matter, 3 T", _GRAY, "assumed", "assumed"),
    ),
    coupled=True,
    slope=slope,
)
"""Myelin water and intra- and extracellular water."""

MYELIN_WATER_CSF = SignalModel(
    name="myelin-water-csf",
    free=(*_FREE, _FLUID),
    needs=("EchoTime",),
    signal=signal_with_fluid,
    references=_REFERENCES,
    given=_GIVEN_FLUID,
    derived=(
        Derived("RefocusingAngle", "deg", refocusing_angle),
        Derived("MWFtissue", "1", _tissue_fraction),
    ),
    start=_start_with_fluid,
    title="Myelin water fraction from a train of spin echoes, two pools and free fluid",
    example=example,
    typical=(
        Typical("white matter at the rim of the cord, 3 T", {**_WHITE, "FWF": 0.1}, _SOURCE, "assumed"),
        Typical("gray matter, 3 T", {**_GRAY, "FWF": 0.03}, "assumed", "assumed"),
    ),
    coupled=True,
    slope=slope,
)
"""Myelin water, intra- and extracellular water, and free fluid of known relaxation."""
