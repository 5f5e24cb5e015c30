"""Inversion recovery: R1 from images at several inversion times, by two forms.

* ``INVERSION_RECOVERY`` has an offset and an amplitude of its own, so that neither a long repetition time nor a
  perfect inversion, nor a perfect excitation, is assumed. All images must share the repetition time.
* ``INVERSION_RECOVERY_TR`` computes the incomplete recovery between inversions from the repetition time, with a
  given efficiency of the inversion: one unknown less, and repetition times may differ.
"""

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import MissingMetadata
from qcord.core.model import Derived, SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.models.variable_flip_angle import M0, PHANTOM_SET, SMITH, relaxation_time

_GRID = 48
"""Rates that the first guess tries, evenly spaced in their logarithm: neighbours differ by 13 %."""


def general_signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Signed signal after an inversion that need not be perfect.

    Parameters
    ----------
    theta : (..., 3) array
        Offset [1], Amplitude [1] (negative after an inversion), R1 [1/s].
    protocol : Protocol
        InversionTime [s].
    given : (..., 0) array
        Nothing.

    Returns
    -------
    (..., n) array
        Signal, unit of the amplitude; negative before its null.

    References
    ----------
    Barral, Gudmundson, Stikov, Etezadi-Amoli, Stoica and Nishimura 2010, doi:10.1002/mrm.22497.
    """
    return np.asarray(theta[..., :1] + theta[..., 1:2] * np.exp(-theta[..., 2:3] * protocol["InversionTime"]))


def repetition_signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Signed signal after an inversion of known efficiency and a recovery of known length.

    Parameters
    ----------
    theta : (..., 2) array
        M0 [1], R1 [1/s].
    protocol : Protocol
        InversionTime [s], RepetitionTimePreparation [s] (from inversion to inversion).
    given : (..., 1) array
        InversionEfficiency [1]: the part of the longitudinal magnetisation that is inverted.

    Returns
    -------
    (..., n) array
        Signal, unit of M0; negative before its null.

    Notes
    -----
    The read-out at the inversion time is a 90 degree pulse that leaves no longitudinal magnetisation; the effect of a
    refocusing pulse that follows it is neglected, as an echo time much shorter than T1 allows.

    References
    ----------
    Barral, Gudmundson, Stikov, Etezadi-Amoli, Stoica and Nishimura 2010, doi:10.1002/mrm.22497.
    """
    rate, efficiency = theta[..., 1:2], given[..., :1]
    inverted = np.exp(-rate * protocol["InversionTime"])
    period = np.exp(-rate * protocol["RepetitionTimePreparation"])
    return np.asarray(theta[..., :1] * (1 - (1 + efficiency) * inverted + efficiency * period))


def general_start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 3): the best of a grid of rates, each with its linear least squares.

    Where no measurement is negative, signs are tried as for magnitudes: see `restore_polarity`.
    """
    times = protocol["InversionTime"]
    rate, sign = restore_polarity(measured, times)
    y = np.nan_to_num(measured) * sign
    decay = np.exp(-rate[..., None] * times)
    centred = decay - decay.mean(axis=-1, keepdims=True)
    with np.errstate(all="ignore"):
        amplitude = (centred * y).sum(axis=-1) / (centred**2).sum(axis=-1)
    amplitude = np.where(np.isfinite(amplitude), amplitude, -1.0)
    offset = y.mean(axis=-1) - amplitude * decay.mean(axis=-1)
    return np.stack([offset, amplitude, rate], axis=-1)


def repetition_start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 2), by way of the general form where the data suffice for it, else of the grid alone."""
    rate, sign = restore_polarity(measured, protocol["InversionTime"])
    shape = repetition_signal(np.stack([np.ones_like(rate), rate], axis=-1), protocol, given)
    with np.errstate(all="ignore"):
        amplitude = (shape * np.nan_to_num(measured) * sign).sum(axis=-1) / (shape**2).sum(axis=-1)
    return np.stack([np.nan_to_num(np.maximum(amplitude, 0), posinf=0), rate], axis=-1)


def restore_polarity(measured: FloatArray, inversion_times: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Rate and signs under which an exponential with offset describes the measurements best.

    Parameters
    ----------
    measured : (..., n) array
        Magnitudes, or signed values; voxels with a negative value keep their signs.
    inversion_times : (n,) array
        Inversion times [s], in any order.

    Returns
    -------
    rate : (...) array
        R1 [1/s], one of a grid over what the inversion times can tell.
    sign : (..., n) array
        -1 where the magnetisation is taken to be still inverted, at inversion times below a limit.

    References
    ----------
    Barral et al. 2010, doi:10.1002/mrm.22497 (least squares for each possible place of the null).
    """
    order = np.argsort(inversion_times, kind="stable")
    n = len(order)
    low, high = 0.3 / inversion_times.max(), 3 / np.maximum(inversion_times, 1e-3).min()
    low, high = max(low, R1.bounds[0]), min(max(high, 4.0), R1.bounds[1])
    rates = np.geomspace(low, high, _GRID)
    decay = np.exp(-rates[:, None] * inversion_times[order])
    centred = decay - decay.mean(axis=1, keepdims=True)
    unit = centred / np.sqrt((centred**2).sum(axis=1, keepdims=True))
    values = np.nan_to_num(np.moveaxis(measured, -1, 0)[order]).reshape(n, -1)
    signed = (values < 0).any(axis=0)
    column, step = np.arange(values.shape[1]), rates[1] / rates[0]
    best = np.full(values.shape[1], -np.inf)
    rate, count = np.full(values.shape[1], R1.start), np.zeros(values.shape[1], dtype=int)
    for inverted in range(n + 1):
        sign = np.where(np.arange(n) < inverted, -1.0, 1.0)
        partly = np.einsum("rn,nv->rv", unit * sign, values)
        mean = (sign[:, None] * values).mean(axis=0)
        # explained sum of squares, as that of the measurements does not depend on their signs; magnitudes must rise
        explained = np.where(signed | (partly < 0), partly, 0) ** 2 + n * mean**2
        place = np.clip(explained.argmax(axis=0), 1, _GRID - 2)
        below, middle, above = (explained[place + d, column] for d in (-1, 0, 1))
        offset = np.clip(0.5 * (below - above) / np.minimum(below - 2 * middle + above, -1e-300), -1, 1)
        gain = middle - 0.25 * (below - above) * offset  # of the parabola through three rates
        better = (gain > best * (1 + 1e-12)) & ~(signed & (inverted > 0))
        best, rate = np.where(better, gain, best), np.where(better, rates[place] * step**offset, rate)
        count = np.where(better, inverted, count)
    rank = np.empty(n, dtype=int)
    rank[order] = np.arange(n)
    shape = measured.shape[:-1]
    return rate.reshape(shape), np.where(rank < count.reshape(*shape, 1), -1.0, 1.0)


def inversion_rows(protocol: Protocol) -> int:
    """Number of different inversion times; the general form needs four, so that the fit can be told from noise.

    Raises
    ------
    MissingMetadata
        If an inversion time is absent, there are fewer than four different ones, or repetition times differ.
    """
    count = len(np.unique(np.round(protocol["InversionTime"], 6)))
    if count < 4:
        raise MissingMetadata(
            f"{protocol.source or 'The series'} has {count} different inversion times, expected at least 4 for T1 by "
            "inversion recovery; check InversionTime."
        )
    if protocol.has("RepetitionTimePreparation") and np.ptp(protocol["RepetitionTimePreparation"]) > 1e-3:
        raise MissingMetadata(
            f"{protocol.source or 'The series'} has repetition times of "
            f"{np.unique(protocol['RepetitionTimePreparation']).tolist()} s, expected equal ones; use model "
            f"{INVERSION_RECOVERY_TR.name}, which takes them into account."
        )
    return count


def example() -> Protocol:
    """Seven inversion times around the null of the cord at 3 T."""
    times = np.array([0.05, 0.15, 0.4, 0.65, 1.0, 1.6, 2.8])
    return Protocol({"InversionTime": times, "RepetitionTimePreparation": np.full(7, 3.5)}, "example")


R1 = Parameter("R1", "1/s", (0.05, 20.0), 1.0, "longitudinal relaxation rate")

_BARRAL = ("Barral, Gudmundson, Stikov, Etezadi-Amoli, Stoica and Nishimura 2010, doi:10.1002/mrm.22497",)


def _general(m0: float, time: float, efficiency: float = 0.96, repetition: float = 3.5) -> dict[str, float]:
    offset = m0 * (1 + efficiency * float(np.exp(-repetition / time)))
    return {"Offset": offset, "Amplitude": -m0 * (1 + efficiency), "R1": 1 / time}


INVERSION_RECOVERY = SignalModel(
    name="inversion-recovery",
    title="T1 from images at several inversion times",
    free=(
        Parameter("Offset", "1", (-np.inf, np.inf), 1.0, "signal at infinite inversion time"),
        Parameter("Amplitude", "1", (-np.inf, np.inf), -2.0, "signal at inversion less the offset"),
        R1,
    ),
    needs=("InversionTime",),
    signal=general_signal,
    references=_BARRAL,
    derived=(Derived("T1", "s", relaxation_time),),
    start=general_start,
    example=example,
    typical=(
        Typical("white matter, 3 T", _general(1000.0, 0.876), SMITH, "verified"),
        Typical("gray matter, 3 T", _general(1140.0, 0.973), SMITH, "verified"),
        Typical("cerebrospinal fluid, 3 T", _general(1430.0, 5.128), PHANTOM_SET, "verified"),
    ),
)
"""Barral's general form: offset, amplitude and R1."""

INVERSION_RECOVERY_TR = SignalModel(
    name="inversion-recovery-tr",
    title="T1 from several inversion times, with the repetition time taken into account",
    free=(M0, R1),
    needs=("InversionTime", "RepetitionTimePreparation"),
    signal=repetition_signal,
    references=_BARRAL,
    given=(Parameter("InversionEfficiency", "1", (0.1, 1.0), 1.0, "part of the magnetisation that is inverted"),),
    derived=(Derived("T1", "s", relaxation_time),),
    start=repetition_start,
    example=example,
    typical=(
        Typical("white matter, 3 T", {"M0": 1000.0, "R1": 1 / 0.876}, SMITH, "verified"),
        Typical("gray matter, 3 T", {"M0": 1140.0, "R1": 1 / 0.973}, SMITH, "verified"),
        Typical("cerebrospinal fluid, 3 T", {"M0": 1430.0, "R1": 1 / 5.128}, PHANTOM_SET, "verified"),
    ),
)
"""Form with the repetition time: amplitude and R1."""
