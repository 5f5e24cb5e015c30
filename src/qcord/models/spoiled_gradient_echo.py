"""Spoiled gradient echo with and without magnetisation transfer saturation: amplitude, R1 and MTsat.

Two forms of the steady state are offered, and it is always said which one is used:

* ``MTSAT`` is the rational approximation for small flip angles and short repetition times (Helms). Its three
  unknowns follow in closed form from three images (`helms_inverse`), so what is simulated with it is recovered
  without error. This is what the field calls MTsat and T1 from a triplet of scans.
* ``MTSAT_ERNST`` is the exact steady state. Use it to see what the approximation costs: with the settings of
  the common cord protocol (9, 9 and 15 degrees; 30, 30 and 15 ms) the closed form returns T1 .7 to 1.2 % too long
  (T1 from .8 to 2.5 s) and MTsat 2 to 3 % too low; with ``half_tangent`` T1 is right within .01 %.
"""

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import ImplausibleValue, MissingMetadata
from qcord.core.model import Derived, SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol

B1_DEPENDENCE = 0.4
"""How strongly the saturation beyond its square law depends on the transmit field (Helms' semi-empirical
constant for a 4 ms Gaussian pulse of 220 degrees, 2 kHz off resonance, in white matter; other pulses differ)."""

LONGEST_REPETITION = 1.0
"""Repetition time [s] beyond which spoiled gradient echoes of any flip angle hold hardly any T1 weighting."""

_NEEDS = ("FlipAngle", "RepetitionTimeExcitation", "MTState")


def saturation(mtsat: AnyArray, b1: AnyArray, dependence: float = B1_DEPENDENCE) -> AnyArray:
    """Fraction saturated by each transfer pulse where the transmit field is ``b1`` times its nominal value.

    Parameters
    ----------
    mtsat : array
        MTsat at the nominal field [percent].
    b1 : array
        Actual over nominal field.
    dependence : float
        See `B1_DEPENDENCE`.

    References
    ----------
    Helms, Dathe, Kallenberg and Dechent 2008, doi:10.1002/mrm.21732 (near independence of B1);
    the constant as used with the spine-generic protocol's processing.
    """
    return np.asarray(mtsat / 100 * b1**2 * (1 - dependence * b1) / (1 - dependence))


def rational_signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Steady state for small angles and short repetition times.

    Parameters
    ----------
    theta : (..., 3) array
        A [1], R1 [1/s], MTsat [percent].
    protocol : Protocol
        FlipAngle [deg], RepetitionTimeExcitation [s], MTState.
    given : (..., 1) array
        B1 [1], actual over nominal flip angle.

    Returns
    -------
    (..., n) array
        Signal, unit of A.

    Notes
    -----
    A holds proton density, receive sensitivity and transverse decay at the echo time.

    References
    ----------
    Helms, Dathe and Dechent 2008, doi:10.1002/mrm.21542 (rational approximation);
    Helms, Dathe, Kallenberg and Dechent 2008, doi:10.1002/mrm.21732, with erratum 2010, doi:10.1002/mrm.22607.
    """
    angle, relaxed, saturated = _terms(theta, protocol, given)
    return np.asarray(theta[..., :1] * angle * relaxed / (relaxed + angle**2 / 2 + saturated))


def ernst_signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Exact steady state with perfect spoiling.

    Parameters
    ----------
    theta : (..., 3) array
        A [1], R1 [1/s], MTsat [percent].
    protocol : Protocol
        FlipAngle [deg], RepetitionTimeExcitation [s], MTState.
    given : (..., 1) array
        B1 [1], actual over nominal flip angle.

    Returns
    -------
    (..., n) array
        Signal, unit of A.

    Notes
    -----
    The transfer pulse takes its fraction off the longitudinal magnetisation at once, after the excitation; a
    pulse right before the excitation would lower the saturated signal further, by the factor 1 - MTsat / 100.

    References
    ----------
    Ernst and Anderson 1966, doi:10.1063/1.1719961.
    """
    angle, relaxed, saturated = _terms(theta, protocol, given)
    decay = np.exp(-relaxed)
    return np.asarray(theta[..., :1] * np.sin(angle) * (1 - decay) / (1 - (1 - saturated) * np.cos(angle) * decay))


def _terms(theta: AnyArray, protocol: Protocol, given: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray]:
    b1 = given[..., :1]
    angle = b1 * np.deg2rad(protocol["FlipAngle"])
    relaxed = theta[..., 1:2] * protocol["RepetitionTimeExcitation"]
    return angle, relaxed, saturation(theta[..., 2:3], b1) * protocol["MTState"]


def helms_inverse(
    signals: AnyArray,
    angles: AnyArray,
    repetition_times: FloatArray,
    b1: AnyArray | float = 1.0,
    *,
    dependence: float = B1_DEPENDENCE,
) -> AnyArray:
    """Amplitude, R1 and MTsat from three images in closed form.

    Parameters
    ----------
    signals : (3, ...) array
        With transfer pulse, proton-density weighted, T1-weighted.
    angles : (3, ...) array
        Nominal flip angles [rad] in the same order; ``2 tan(angle / 2)`` in their place (Dathe and Helms 2010)
        removes the error of the small-angle approximation.
    repetition_times : (3,) array
        Repetition times [s] in the same order.
    b1 : (...) array
        Actual over nominal flip angle.
    dependence : float
        See `B1_DEPENDENCE`.

    Returns
    -------
    (3, ...) array
        A, R1 [1/s], MTsat [percent].

    References
    ----------
    Helms, Dathe, Kallenberg and Dechent 2008, doi:10.1002/mrm.21732, with erratum 2010, doi:10.1002/mrm.22607;
    Dathe and Helms 2010, doi:10.1088/0031-9155/55/15/003.
    """
    saturated, density, relaxation = signals
    angle_mt, angle_pd, angle_t1 = angles
    time_mt, time_pd, time_t1 = repetition_times
    rate = (relaxation * angle_t1 / time_t1 - density * angle_pd / time_pd) / (
        2 * (density / angle_pd - relaxation / angle_t1)
    )
    amplitude = (
        density
        * relaxation
        * (time_pd * angle_t1 / angle_pd - time_t1 * angle_pd / angle_t1)
        / (relaxation * time_pd * angle_t1 - density * time_t1 * angle_pd)
    )
    apparent = 100 * (time_mt * rate * (angle_mt * amplitude / saturated - 1) - angle_mt**2 / 2)
    corrected = apparent * (1 - dependence) / (1 - dependence * b1)
    return np.stack(np.broadcast_arrays(amplitude / b1, rate * b1**2, corrected))


def require_short_repetition(protocol: Protocol) -> None:
    """Raise `ImplausibleValue` if a repetition time is longer than that of any T1-weighted spoiled gradient echo."""
    longest = float(protocol["RepetitionTimeExcitation"].max(initial=0))
    if longest > LONGEST_REPETITION:
        raise ImplausibleValue(
            f"RepetitionTimeExcitation in {protocol.source or 'the series'} is {longest:g} s, expected at most "
            f"{LONGEST_REPETITION:g} s of spoiled gradient echoes (often milliseconds given instead of seconds); "
            "correct the sidecar."
        )


def triplet_rows(protocol: Protocol) -> tuple[int, int, int]:
    """Rows with transfer pulse, proton-density weighting and T1 weighting, told by the settings alone.

    Raises
    ------
    MissingMetadata
        If a setting is absent, or the rows are not one with and two without transfer pulse of unequal T1 weighting.
    ImplausibleValue
        If a repetition time is longer than `LONGEST_REPETITION`.
    """
    absent = [name for name in _NEEDS if not protocol.has(name)]
    if absent:
        raise MissingMetadata(
            f"{' and '.join(absent)} of some volumes are absent from {protocol.source or 'the series'}; MTsat and T1 "
            "need them: add them to the JSON sidecars."
        )
    require_short_repetition(protocol)
    state = protocol["MTState"].astype(bool)
    weight = np.deg2rad(protocol["FlipAngle"]) ** 2 / protocol["RepetitionTimeExcitation"]
    on, off = np.flatnonzero(state), np.flatnonzero(~state)
    if len(on) != 1 or len(off) != 2 or np.isclose(weight[off[0]], weight[off[1]], rtol=1e-3):
        raise MissingMetadata(
            f"{protocol.source or 'The series'} has {len(on)} volumes with and {len(off)} without transfer pulse, "
            f"flip angles {np.round(protocol['FlipAngle'], 3).tolist()} deg; MTsat takes one with and two without of "
            "different flip angle or repetition time: check MTState, FlipAngle and RepetitionTimeExcitation."
        )
    low, high = off[np.argsort(weight[off])]
    return int(on[0]), int(low), int(high)


def start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 3): the closed form where there are exactly three images, else typical tissue."""
    typical = np.array([np.nan, 1.0, 3.0])
    theta = np.broadcast_to(typical, (*measured.shape[:-1], 3)).copy()
    unit = rational_signal(np.array([1.0, 1.0, 3.0]), protocol, given)
    theta[..., 0] = (measured * unit).sum(axis=-1) / (unit**2).sum(axis=-1)
    try:
        rows = list(triplet_rows(protocol))
    except MissingMetadata:
        return theta
    angles = np.deg2rad(protocol["FlipAngle"])[rows]
    with np.errstate(all="ignore"):
        exact = helms_inverse(
            np.moveaxis(measured[..., rows], -1, 0), angles, protocol["RepetitionTimeExcitation"][rows], given[..., 0]
        )
    closed = np.moveaxis(exact, 0, -1)
    usable = np.isfinite(closed).all(axis=-1) & (closed[..., 0] > 0) & (closed[..., 1] > 0)
    return np.where(usable[..., None], closed, theta)


def relaxation_time(theta: AnyArray) -> AnyArray:
    """T1 [s] from theta (..., 3)."""
    return np.asarray(1 / theta[..., 1])


_FREE = (
    Parameter("A", "1", (0.0, np.inf), 1.0, "signal amplitude: density, receive field, transverse decay"),
    Parameter("R1", "1/s", (0.05, 20.0), 1.0, "longitudinal relaxation rate, apparent unless B1 is given"),
    Parameter("MTsat", "percent", (-100.0, 100.0), 3.0, "saturation by one transfer pulse"),
)
_GIVEN = (Parameter("B1", "1", (0.1, 3.0), 1.0, "actual over nominal flip angle"),)
_REFERENCES = (
    "Helms, Dathe and Dechent 2008, doi:10.1002/mrm.21542",
    "Helms, Dathe, Kallenberg and Dechent 2008, doi:10.1002/mrm.21732",
    "Helms, Dathe, Kallenberg and Dechent 2010 (erratum), doi:10.1002/mrm.22607",
)
_DERIVED = (Derived("T1", "s", relaxation_time),)

_SOURCE = (
    "T1 by Smith 2008, Magn Reson Med 60:213; MTsat of the spine-generic multi-subject data, Siemens 3 T, C2-C5; "
    "the amplitude is arbitrary"
)
_TYPICAL = (
    Typical("lateral corticospinal tract, 3 T", {"A": 1.0, "R1": 1.159, "MTsat": 3.63}, _SOURCE, "computed"),
    Typical("gray matter, 3 T", {"A": 1.0, "R1": 1.028, "MTsat": 3.24}, _SOURCE, "computed"),
)


def example() -> Protocol:
    """Protocol of the spine-generic kind: 9, 9 and 15 degrees at 30, 30 and 15 ms, the first with transfer pulse."""
    return Protocol(
        {
            "FlipAngle": np.array([9.0, 9.0, 15.0]),
            "RepetitionTimeExcitation": np.array([0.03, 0.03, 0.015]),
            "MTState": np.array([True, False, False]),
        }
    )


MTSAT = SignalModel(
    name="mtsat",
    title="Magnetisation transfer saturation and T1, rational approximation",
    free=_FREE,
    needs=_NEEDS,
    signal=rational_signal,
    references=_REFERENCES,
    given=_GIVEN,
    derived=_DERIVED,
    start=start,
    example=example,
    typical=_TYPICAL,
)
"""Rational approximation; inverted in closed form by `helms_inverse`."""

MTSAT_ERNST = SignalModel(
    name="mtsat-ernst",
    title="Magnetisation transfer saturation and T1, exact steady state",
    free=_FREE,
    needs=_NEEDS,
    signal=ernst_signal,
    references=(*_REFERENCES, "Ernst and Anderson 1966, doi:10.1063/1.1719961"),
    given=_GIVEN,
    derived=_DERIVED,
    start=start,
    example=example,
    typical=_TYPICAL,
)
"""Exact steady state."""
