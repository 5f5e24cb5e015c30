"""MP2RAGE: two gradient-echo trains after one inversion; amplitude and R1 from the full timing of the sequence."""

from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray, IntArray
from qcord.core.errors import ImplausibleValue
from qcord.core.model import Derived, SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.models.variable_flip_angle import B1, M0, PHANTOM_SET, relaxation_time

_NEEDS = ("InversionTime", "FlipAngle", "RepetitionTimePreparation", "RepetitionTimeExcitation", "NumberShots")
_GRID = 64
"""Rates that the first guess tries: neighbours differ by 7 %."""


@dataclass(frozen=True, eq=False)
class Timing:
    """Course of the sequence between two inversions.

    Parameters
    ----------
    order : (k,) array of int
        Rows of the protocol by inversion time.
    angle : (k,) array
        Nominal flip angle of each train [rad].
    spacing : (k,) array
        Time from excitation to excitation [s].
    before, after : (k,) array
        Excitations of each train before its k-space centre, and from there to its end.
    gaps : (k + 1,) array
        Free recovery [s] before each train and after the last.
    """

    order: IntArray
    angle: FloatArray
    spacing: FloatArray
    before: FloatArray
    after: FloatArray
    gaps: FloatArray


def timing(protocol: Protocol) -> Timing:
    """Course of the sequence from the settings of its images.

    Parameters
    ----------
    protocol : Protocol
        One row an image: InversionTime [s] (from inversion to k-space centre), FlipAngle [deg],
        RepetitionTimePreparation [s], RepetitionTimeExcitation [s] and NumberShots, the excitations of a train:
        (n,), with the k-space centre in the middle, or (n, 2), before the centre and from there on.

    Raises
    ------
    MissingMetadata
        If a column is absent.
    ImplausibleValue
        If the trains do not fit between the inversions.
    """
    times = protocol["InversionTime"]
    order = np.argsort(times, kind="stable")
    shots = protocol["NumberShots"][order]
    before, after = shots.T if shots.ndim == 2 else (shots // 2, shots - shots // 2)
    spacing = protocol["RepetitionTimeExcitation"][order]
    begin, end = times[order] - before * spacing, times[order] + after * spacing
    period = float(protocol["RepetitionTimePreparation"].max())
    gaps = np.append(begin, period) - np.append(0.0, end)
    if (gaps < -1e-9).any():
        where = ("before the first train", *["between trains"] * (len(order) - 1), "after the last train")
        raise ImplausibleValue(
            f"The {' and '.join(f'{s:g}' for s in shots.reshape(len(order), -1).sum(axis=1))} excitations of "
            f"{protocol.source or 'the series'} do not fit into the sequence: {gaps.min():.3g} s remain "
            f"{where[int(gaps.argmin())]}, expected 0 or more; check NumberShots, InversionTime, "
            "RepetitionTimeExcitation and RepetitionTimePreparation."
        )
    angle = np.deg2rad(protocol["FlipAngle"])[order]
    return Timing(np.asarray(order), angle, spacing, before, after, np.maximum(gaps, 0))


def signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Signed signals of all trains in the steady state of the whole sequence.

    Parameters
    ----------
    theta : (..., 2) array
        M0 [1], R1 [1/s].
    protocol : Protocol
        InversionTime [s], FlipAngle [deg], RepetitionTimePreparation [s], RepetitionTimeExcitation [s],
        NumberShots; see `timing`.
    given : (..., 2) array
        B1 [1], actual over nominal flip angle of the trains; InversionEfficiency [1], the part of the longitudinal
        magnetisation that the adiabatic pulse inverts.

    Returns
    -------
    (..., n) array
        Signal, unit of M0, at the k-space centre of each train; negative while the magnetisation is inverted.

    Notes
    -----
    Transverse magnetisation is taken to be spoiled at each excitation; M0 holds the decay at the echo time.

    References
    ----------
    Marques, Kober, Krueger, van der Zwaag, Van de Moortele and Gruetter 2010,
    doi:10.1016/j.neuroimage.2009.10.002.
    """
    course = timing(protocol)
    rate, b1, efficiency = theta[..., 1], given[..., 0], given[..., 1]
    # each stretch of the sequence turns the magnetisation m, over equilibrium, into slope m + level
    slope, level = -efficiency, 0.0 * rate
    centres = []
    for k, gap in enumerate(course.gaps):
        slope, level = _recover(slope, level, rate, gap)
        if k == len(course.order):
            break
        tip = np.cos(b1 * course.angle[k])
        slope, level = _train(slope, level, tip, np.exp(-rate * course.spacing[k]), course.before[k])
        centres.append((slope, level))
        slope, level = _train(slope, level, tip, np.exp(-rate * course.spacing[k]), course.after[k])
    steady = level / (1 - slope)
    tips = np.sin(b1[..., None] * course.angle)
    sampled = [theta[..., 0] * tips[..., k] * (s * steady + v) for k, (s, v) in enumerate(centres)]
    back = np.argsort(course.order)
    return np.stack(np.broadcast_arrays(*[sampled[k] for k in back]), axis=-1)


def _recover(slope: AnyArray, level: AnyArray, rate: AnyArray, time: float) -> tuple[AnyArray, AnyArray]:
    decay = np.exp(-rate * time)
    return decay * slope, decay * level + 1 - decay


def _train(slope: AnyArray, level: AnyArray, tip: AnyArray, decay: AnyArray, count: float) -> tuple[AnyArray, AnyArray]:
    """After ``count`` excitations, each with recovery until the next."""
    once = tip * decay
    all_ = np.exp(count * np.log(once))
    return all_ * slope, all_ * level + (1 - decay) * (1 - all_) / (1 - once)


def unified(first: AnyArray, second: AnyArray) -> AnyArray:
    """Ratio of the two signed signals that does without amplitude, between -.5 and .5.

    Parameters
    ----------
    first, second : (...) array
        Signed signals at the first and second inversion time.

    References
    ----------
    Marques et al. 2010, doi:10.1016/j.neuroimage.2009.10.002.
    """
    return np.asarray(first * second / (first**2 + second**2))


def start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 2): the best of a grid of rates, at the nominal transmit field."""
    rates = np.geomspace(0.15, 8.0, _GRID)
    nominal = np.array([1.0, float(np.median(given[..., 1])) if given.size else 1.0])
    shapes = signal(np.stack([np.ones_like(rates), rates], axis=-1), protocol, nominal)
    unit = shapes / np.sqrt((shapes**2).sum(axis=-1, keepdims=True))
    values = np.nan_to_num(measured)
    explained = np.einsum("...n,rn->...r", values, unit)
    rate = rates[explained.argmax(axis=-1)]
    shape = signal(np.stack([np.ones_like(rate), rate], axis=-1), protocol, given)
    with np.errstate(all="ignore"):
        amplitude = (shape * values).sum(axis=-1) / (shape**2).sum(axis=-1)
    return np.stack([np.nan_to_num(np.maximum(amplitude, 0), posinf=0), rate], axis=-1)


def two_inversions(protocol: Protocol) -> Timing:
    """Course of a sequence with two trains.

    Raises
    ------
    MissingMetadata
        If a column is absent.
    ImplausibleValue
        If there are not two images, or the trains do not fit between the inversions.
    """
    course = timing(protocol)
    if len(course.order) != 2:
        raise ImplausibleValue(
            f"{protocol.source or 'The series'} has {len(course.order)} inversion images, expected 2 for MP2RAGE."
        )
    return course


def example() -> Protocol:
    """Two trains of 80 excitations, slice-wise partial Fourier 6/8."""
    columns = {
        "InversionTime": np.array([0.7, 2.5]),
        "FlipAngle": np.array([4.0, 5.0]),
        "RepetitionTimePreparation": np.full(2, 5.0),
        "RepetitionTimeExcitation": np.full(2, 0.0068),
        "NumberShots": np.array([[32.0, 48.0], [32.0, 48.0]]),
    }
    return Protocol(columns, "example")


_CERVICAL = "Forodighasemabadi et al. 2021 (MP2RAGE, cervical cord, 3 T)"

MP2RAGE = SignalModel(
    name="mp2rage",
    title="T1 from two gradient-echo trains after one inversion",
    free=(M0, Parameter("R1", "1/s", (0.15, 8.0), 1.0, "longitudinal relaxation rate, apparent unless B1 is given")),
    needs=_NEEDS,
    signal=signal,
    references=(
        "Marques, Kober, Krueger, van der Zwaag, Van de Moortele and Gruetter 2010, "
        "doi:10.1016/j.neuroimage.2009.10.002",
    ),
    given=(B1, Parameter("InversionEfficiency", "1", (0.1, 1.0), 0.96, "part of the magnetisation that is inverted")),
    derived=(Derived("T1", "s", relaxation_time),),
    start=start,
    example=example,
    typical=(
        Typical("white matter, 3 T", {"M0": 1000.0, "R1": 1 / 0.905}, _CERVICAL, "verified"),
        Typical("gray matter, 3 T", {"M0": 1140.0, "R1": 1 / 0.99}, "assumed near Smith et al. 2008", "assumed"),
        Typical("cerebrospinal fluid, 3 T", {"M0": 1430.0, "R1": 1 / 5.128}, PHANTOM_SET, "verified"),
    ),
    coupled=True,
)
"""Full timing; signals are signed."""
