"""Transmit field: actual over nominal flip angle, by two angles or by two repetition times."""

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import MissingMetadata
from qcord.core.model import SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.models.variable_flip_angle import M0


def double_angle_signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Gradient echoes from full relaxation.

    Parameters
    ----------
    theta : (..., 2) array
        M0 [1], B1 [1].
    protocol : Protocol
        FlipAngle [deg].
    given : (..., 0) array
        Nothing.

    Returns
    -------
    (..., n) array
        Signal, unit of M0.

    Notes
    -----
    The repetition time is taken for at least five T1; a shorter one makes the field come out too high.

    References
    ----------
    Insko and Bolinger 1993, doi:10.1006/jmra.1993.1133.
    """
    return np.asarray(theta[..., :1] * np.sin(theta[..., 1:2] * np.deg2rad(protocol["FlipAngle"])))


def actual_flip_angle_signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Spoiled gradient echoes of one flip angle whose repetition times alternate, in their common steady state.

    Parameters
    ----------
    theta : (..., 2) array
        M0 [1], B1 [1].
    protocol : Protocol
        FlipAngle [deg], RepetitionTimeExcitation [s]: the delay that follows each excitation; rows in the order of
        the sequence.
    given : (..., 1) array
        R1 [1/s].

    Returns
    -------
    (..., n) array
        Signal, unit of M0.

    References
    ----------
    Yarnykh 2007, doi:10.1002/mrm.21120.
    """
    angle = theta[..., 1:2] * np.deg2rad(protocol["FlipAngle"])
    decay = np.exp(-given[..., :1] * protocol["RepetitionTimeExcitation"]) + 0 * angle
    tip = np.cos(angle)
    # magnetisation before the first excitation is level + slope m after one round, hence level / (1 - slope)
    slope, level, before = np.ones_like(tip[..., 0]), np.zeros_like(tip[..., 0]), []
    for k in range(tip.shape[-1]):
        before.append((slope, level))
        slope, level = slope * tip[..., k] * decay[..., k], level * tip[..., k] * decay[..., k] + 1 - decay[..., k]
    steady = level / (1 - slope)
    return np.stack([theta[..., 0] * np.sin(angle[..., k]) * (s * steady + v) for k, (s, v) in enumerate(before)], -1)


def double_angle_start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 2) in closed form from the two smallest different angles."""
    angle = np.deg2rad(protocol["FlipAngle"])
    first, second = int(angle.argmin()), int(np.abs(angle - 2 * angle.min()).argmin())
    with np.errstate(all="ignore"):
        cosine = measured[..., second] / (2 * measured[..., first])
        field = np.arccos(np.clip(cosine, -0.99, 0.999)) / angle[first]
        amplitude = measured[..., first] / np.sin(field * angle[first])
    return _usable(amplitude, field)


def actual_flip_angle_start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 2): Yarnykh's closed form for repetition times much shorter than T1."""
    angle, times = np.deg2rad(protocol["FlipAngle"]), protocol["RepetitionTimeExcitation"]
    short, long = int(times.argmin()), int(times.argmax())
    ratio = times[long] / times[short]
    with np.errstate(all="ignore"):
        found = measured[..., long] / measured[..., short]
        cosine = (found * ratio - 1) / (ratio - found)
        field = np.arccos(np.clip(cosine, -0.99, 0.999)) / angle[short]
        shape = actual_flip_angle_signal(np.stack([np.ones_like(field), field], axis=-1), protocol, given)
        amplitude = (shape * measured).sum(axis=-1) / (shape**2).sum(axis=-1)
    return _usable(amplitude, field)


def _usable(amplitude: FloatArray, field: FloatArray) -> FloatArray:
    field = np.where(np.isfinite(field), np.clip(field, *B1_FREE.bounds), 1.0)
    return np.stack([np.nan_to_num(np.maximum(amplitude, 0), posinf=0), field], axis=-1)


def angle_pair(protocol: Protocol) -> tuple[int, int]:
    """Rows of the single and the double flip angle.

    Raises
    ------
    MissingMetadata
        If there are not two flip angles, one about twice the other.
    """
    angles = protocol["FlipAngle"]
    if len(angles) != 2 or not np.isclose(angles.max(), 2 * angles.min(), rtol=0.02):
        raise MissingMetadata(
            f"{protocol.source or 'The series'} has flip angles {np.round(angles, 3).tolist()} deg, expected two, one "
            "twice the other; check FlipAngle."
        )
    return int(angles.argmin()), int(angles.argmax())


def repetition_pair(protocol: Protocol) -> tuple[int, int]:
    """Rows of the short and the long repetition time.

    Raises
    ------
    MissingMetadata
        If there are not two repetition times and one flip angle.
    """
    times, angles = protocol["RepetitionTimeExcitation"], protocol["FlipAngle"]
    if len(times) != 2 or not times.max() > 1.5 * times.min() or np.ptp(angles) > 1e-3 * angles.max():
        raise MissingMetadata(
            f"{protocol.source or 'The series'} has repetition times {times.tolist()} s and flip angles "
            f"{angles.tolist()} deg, expected two repetition times, one at least 1.5 times the other, and one flip "
            "angle; check RepetitionTimeExcitation and FlipAngle."
        )
    return int(times.argmin()), int(times.argmax())


def double_angle_example() -> Protocol:
    """60 and 120 degrees."""
    return Protocol({"FlipAngle": np.array([60.0, 120.0])}, "example")


def actual_flip_angle_example() -> Protocol:
    """60 degrees, 20 and 100 ms."""
    columns = {"FlipAngle": np.full(2, 60.0), "RepetitionTimeExcitation": np.array([0.02, 0.1])}
    return Protocol(columns, "example")


B1_FREE = Parameter("B1", "1", (0.1, 3.0), 1.0, "actual over nominal flip angle")
_TYPICAL = (
    Typical("white matter, 3 T", {"M0": 1000.0, "B1": 0.95}, "assumed", "assumed"),
    Typical("gray matter, 3 T", {"M0": 1140.0, "B1": 0.95}, "assumed", "assumed"),
    Typical("cerebrospinal fluid, 3 T", {"M0": 1430.0, "B1": 0.95}, "assumed", "assumed"),
)

DOUBLE_ANGLE = SignalModel(
    name="double-angle",
    title="Transmit field from two flip angles, one twice the other",
    free=(M0, B1_FREE),
    needs=("FlipAngle",),
    signal=double_angle_signal,
    references=("Insko and Bolinger 1993, doi:10.1006/jmra.1993.1133",),
    start=double_angle_start,
    example=double_angle_example,
    typical=_TYPICAL,
)
"""Double angle."""

ACTUAL_FLIP_ANGLE = SignalModel(
    name="actual-flip-angle",
    title="Transmit field from two interleaved repetition times",
    free=(M0, B1_FREE),
    needs=("FlipAngle", "RepetitionTimeExcitation"),
    signal=actual_flip_angle_signal,
    references=("Yarnykh 2007, doi:10.1002/mrm.21120",),
    given=(Parameter("R1", "1/s", (0.05, 20.0), 1.1, "longitudinal relaxation rate; hardly matters"),),
    start=actual_flip_angle_start,
    example=actual_flip_angle_example,
    typical=_TYPICAL,
    coupled=True,
)
"""Exact steady state of two interleaved repetition times."""
