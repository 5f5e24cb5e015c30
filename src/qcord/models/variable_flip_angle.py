"""Variable flip angles: amplitude and R1 from spoiled gradient echoes in the steady state."""

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import MissingMetadata
from qcord.core.model import Derived, SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.models.spoiled_gradient_echo import require_short_repetition

_NEEDS = ("FlipAngle", "RepetitionTimeExcitation")

SMITH = "Smith et al. 2008, Magn Reson Med 60:213 (inversion recovery, 3 T)"
PHANTOM_SET = "tissue table of a digital phantom of the neck, 3 T"


def signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Steady state of a perfectly spoiled gradient echo.

    Parameters
    ----------
    theta : (..., 2) array
        M0 [1], R1 [1/s].
    protocol : Protocol
        FlipAngle [deg], RepetitionTimeExcitation [s].
    given : (..., 1) array
        B1 [1], actual over nominal flip angle.

    Returns
    -------
    (..., n) array
        Signal, unit of M0.

    Notes
    -----
    M0 holds proton density, receive sensitivity and transverse decay at the echo time. Spoiling that is not perfect
    makes T1 some percent too long or too short, as the phase increment of the pulses has it.

    References
    ----------
    Ernst and Anderson 1966, doi:10.1063/1.1719961.
    """
    angle = given[..., :1] * np.deg2rad(protocol["FlipAngle"])
    decay = np.exp(-theta[..., 1:2] * protocol["RepetitionTimeExcitation"])
    return np.asarray(theta[..., :1] * np.sin(angle) * (1 - decay) / (1 - np.cos(angle) * decay))


def start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 2) by one weighted line through the measurements.

    With the half-angle tangent h the steady state is S / 2h = M0 - (S h / 2) coth(R1 TR / 2), a line for equal
    repetition times; for unequal ones coth x is taken for 1 / x.

    References
    ----------
    Deoni, Rutt and Peters 2003, doi:10.1002/mrm.10407 (a line in other coordinates);
    Dathe and Helms 2010, doi:10.1088/0031-9155/55/15/003 (half-angle tangents).
    """
    times = protocol["RepetitionTimeExcitation"]
    with np.errstate(all="ignore"):
        tangent = np.tan(given[..., :1] * np.deg2rad(protocol["FlipAngle"]) / 2)
        ordinate, abscissa = measured / (2 * tangent), measured * tangent / times
        weight = measured**2  # the residual of the line has the variance of the noise over the square of the signal
        total = weight.sum(axis=-1, keepdims=True)
        x = abscissa - (weight * abscissa).sum(axis=-1, keepdims=True) / total
        y = ordinate - (weight * ordinate).sum(axis=-1, keepdims=True) / total
        slope = -(weight * x * y).sum(axis=-1) / (weight * x * x).sum(axis=-1)
        rate = 1 / slope
        if np.ptp(times) <= 1e-6 * times[0]:
            rate = 2 / times[0] * np.arctanh(times[0] / 2 / slope)
        low, high = R1.bounds
        rate = np.where(np.isfinite(rate) & (slope > 0), np.clip(rate, low, high), R1.start)
        shape = signal(np.stack([np.ones_like(rate), rate], axis=-1), protocol, given)
        amplitude = (shape * measured).sum(axis=-1) / (shape**2).sum(axis=-1)
    return np.stack([np.nan_to_num(amplitude, posinf=0, neginf=0), rate], axis=-1)


def flip_angle_rows(protocol: Protocol) -> tuple[int, ...]:
    """Rows without transfer pulse, which must differ in their T1 weighting.

    Raises
    ------
    MissingMetadata
        If a setting is absent, or all rows have the same weighting.
    ImplausibleValue
        If a repetition time is longer than that of any spoiled gradient echo.
    """
    for name in _NEEDS:
        _ = protocol[name]
    require_short_repetition(protocol)
    state = protocol["MTState"].astype(bool) if protocol.has("MTState") else np.zeros(len(protocol), dtype=bool)
    rows = np.flatnonzero(~state)
    weight = np.deg2rad(protocol["FlipAngle"][rows]) ** 2 / protocol["RepetitionTimeExcitation"][rows]
    if len(rows) < 2 or np.ptp(weight) <= 1e-3 * weight.max():
        raise MissingMetadata(
            f"{protocol.source or 'The series'} has {len(rows)} volumes without transfer pulse, flip angles "
            f"{np.round(protocol['FlipAngle'][rows], 3).tolist()} deg; T1 takes at least two of different flip angle "
            "or repetition time: check FlipAngle and RepetitionTimeExcitation."
        )
    return tuple(int(r) for r in rows)


def relaxation_time(theta: AnyArray) -> AnyArray:
    """Relaxation time [s] from theta (..., p) whose last entry is the rate."""
    return np.asarray(1 / theta[..., -1])


def example() -> Protocol:
    """Three flip angles below, at and above the Ernst angle of white matter at 3 T."""
    columns = {"FlipAngle": np.array([5.0, 12.0, 28.0]), "RepetitionTimeExcitation": np.full(3, 0.02)}
    return Protocol(columns, "example")


B1 = Parameter("B1", "1", (0.1, 3.0), 1.0, "actual over nominal flip angle")
M0 = Parameter("M0", "1", (0.0, np.inf), 1.0, "signal amplitude: density, receive field, transverse decay")
R1 = Parameter("R1", "1/s", (0.05, 20.0), 1.0, "longitudinal relaxation rate, apparent unless B1 is given")

VFA = SignalModel(
    name="vfa",
    title="T1 from spoiled gradient echoes of several flip angles",
    free=(M0, R1),
    needs=_NEEDS,
    signal=signal,
    references=(
        "Ernst and Anderson 1966, doi:10.1063/1.1719961",
        "Deoni, Rutt and Peters 2003, doi:10.1002/mrm.10407",
    ),
    given=(B1,),
    derived=(Derived("T1", "s", relaxation_time),),
    start=start,
    example=example,
    typical=(
        Typical("white matter, 3 T", {"M0": 1000.0, "R1": 1 / 0.876}, SMITH, "verified"),
        Typical("gray matter, 3 T", {"M0": 1140.0, "R1": 1 / 0.973}, SMITH, "verified"),
        Typical("cerebrospinal fluid, 3 T", {"M0": 1430.0, "R1": 1 / 5.128}, PHANTOM_SET, "verified"),
    ),
)
"""Exact steady state for any flip angles and repetition times."""
