"""Transverse relaxation: T2 from spin echoes, R2* from gradient echoes."""

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import MissingMetadata
from qcord.core.model import Derived, SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.models.variable_flip_angle import PHANTOM_SET, SMITH, relaxation_time


def spin_echo_signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Mono-exponential decay of spin echoes.

    Parameters
    ----------
    theta : (..., 2) array
        S0 [1], R2 [1/s].
    protocol : Protocol
        EchoTime [s].
    given : (..., 0) array
        Nothing.

    Returns
    -------
    (..., n) array
        Signal, unit of S0.

    Notes
    -----
    Refocusing pulses that are not 180 degrees everywhere add stimulated echoes to all echoes of a train but the
    first, and T2 comes out too long.

    References
    ----------
    Carr and Purcell 1954, doi:10.1103/PhysRev.94.630; Meiboom and Gill 1958, doi:10.1063/1.1716296.
    """
    return np.asarray(theta[..., :1] * np.exp(-theta[..., 1:2] * protocol["EchoTime"]))


def gradient_echo_signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Decay of gradient echoes, with dephasing across the slice by a linear field.

    Parameters
    ----------
    theta : (..., 2) array
        S0 [1], R2star [1/s].
    protocol : Protocol
        EchoTime [s].
    given : (..., 1) array
        FrequencySpread [1/s]: proton frequency at one face of the slice less that at the other, which is the field
        gradient along its normal times its thickness; see `qcord.maps.frequency_spread`.

    Returns
    -------
    (..., n) array
        Signal, unit of S0; negative beyond the first null of the dephasing, where magnitudes are its modulus.

    Notes
    -----
    The slice profile is taken for a rectangle.

    References
    ----------
    Yablonskiy and Haacke 1994, doi:10.1002/mrm.1910320610;
    Hernando, Vigen, Shimakawa and Reeder 2012, doi:10.1002/mrm.23306.
    """
    times = protocol["EchoTime"]
    dephasing = np.sinc(given[..., :1] * times)
    return np.asarray(theta[..., :1] * np.exp(-theta[..., 1:2] * times) * dephasing)


def spin_echo_start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 2) by a weighted line through the logarithms."""
    return _log_line(measured, protocol["EchoTime"], R2)


def gradient_echo_start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 2) by a weighted line through the logarithms, with the dephasing divided out."""
    dephasing = np.sinc(given[..., :1] * protocol["EchoTime"])
    return _log_line(measured, protocol["EchoTime"], R2STAR, np.abs(dephasing))


def _log_line(
    measured: FloatArray, times: FloatArray, parameter: Parameter, dephasing: FloatArray | None = None
) -> FloatArray:
    """Line through log S, weighted by the squared signal; echoes below a hundredth of the first count nothing."""
    with np.errstate(all="ignore"):
        values = np.where(np.isfinite(measured), measured, 0.0)
        seen = values > 0.01 * values.max(axis=-1, keepdims=True)
        weight = np.where(seen, values, 0.0) ** 2
        logs = np.log(np.where(seen, values, 1.0))
        if dephasing is not None:
            weight = np.where(dephasing > 0.05, weight, 0.0)
            logs = logs - np.log(np.maximum(dephasing, 0.05))
        total = weight.sum(axis=-1, keepdims=True)
        time = times - (weight * times).sum(axis=-1, keepdims=True) / total
        mean = (weight * logs).sum(axis=-1, keepdims=True) / total
        rate = -(weight * time * logs).sum(axis=-1) / (weight * time * time).sum(axis=-1)
        rate = np.where(np.isfinite(rate), np.clip(rate, *parameter.bounds), parameter.start)
        middle = ((weight * times).sum(axis=-1) / total[..., 0]) * rate
        amplitude = np.exp(np.minimum(mean[..., 0] + middle, 300.0))
    return np.stack([np.where(np.isfinite(amplitude), amplitude, 1.0), rate], axis=-1)


def echo_rows(protocol: Protocol) -> int:
    """Number of different echo times.

    Raises
    ------
    MissingMetadata
        If an echo time is absent, or there are fewer than three different ones.
    """
    count = len(np.unique(np.round(protocol["EchoTime"], 7)))
    if count < 3:
        raise MissingMetadata(
            f"{protocol.source or 'The series'} has {count} different echo times, expected at least 3 for a relaxation "
            "rate with its error; check EchoTime."
        )
    return count


def spin_echo_example() -> Protocol:
    """Eight echoes of a train, 12 ms apart."""
    return Protocol({"EchoTime": np.arange(1, 9) * 0.012}, "example")


def gradient_echo_example() -> Protocol:
    """Eight gradient echoes, 4 ms apart."""
    return Protocol({"EchoTime": 0.003 + np.arange(8) * 0.004}, "example")


S0 = Parameter("S0", "1", (0.0, np.inf), 1.0, "signal at echo time zero")
R2 = Parameter("R2", "1/s", (0.05, 500.0), 13.0, "transverse relaxation rate of spin echoes")
R2STAR = Parameter("R2star", "1/s", (0.1, 1000.0), 25.0, "transverse relaxation rate of gradient echoes")

T2 = SignalModel(
    name="t2",
    title="T2 from spin echoes, mono-exponential",
    free=(S0, R2),
    needs=("EchoTime",),
    signal=spin_echo_signal,
    references=(
        "Carr and Purcell 1954, doi:10.1103/PhysRev.94.630",
        "Meiboom and Gill 1958, doi:10.1063/1.1716296",
    ),
    derived=(Derived("T2", "s", relaxation_time),),
    start=spin_echo_start,
    example=spin_echo_example,
    typical=(
        Typical("white matter, 3 T", {"S0": 1000.0, "R2": 1 / 0.073}, SMITH, "verified"),
        Typical("gray matter, 3 T", {"S0": 1140.0, "R2": 1 / 0.076}, SMITH, "verified"),
        Typical("cerebrospinal fluid, 3 T", {"S0": 1430.0, "R2": 1 / 1.42}, PHANTOM_SET, "verified"),
    ),
)
"""Mono-exponential T2."""

R2STAR_MODEL = SignalModel(
    name="r2star",
    title="R2* and T2* from gradient echoes, with through-slice dephasing",
    free=(S0, R2STAR),
    needs=("EchoTime",),
    signal=gradient_echo_signal,
    references=(
        "Yablonskiy and Haacke 1994, doi:10.1002/mrm.1910320610",
        "Hernando, Vigen, Shimakawa and Reeder 2012, doi:10.1002/mrm.23306",
    ),
    given=(Parameter("FrequencySpread", "1/s", (-5000.0, 5000.0), 0.0, "difference of frequency across the slice"),),
    derived=(Derived("T2star", "s", relaxation_time),),
    start=gradient_echo_start,
    example=gradient_echo_example,
    typical=(
        Typical("white matter, 3 T", {"S0": 1000.0, "R2star": 1 / 0.0387}, PHANTOM_SET, "verified"),
        Typical("gray matter, 3 T", {"S0": 1140.0, "R2star": 1 / 0.0444}, PHANTOM_SET, "verified"),
        Typical("cerebrospinal fluid, 3 T", {"S0": 1430.0, "R2star": 1 / 0.71}, PHANTOM_SET, "verified"),
    ),
)
"""R2* with a given field gradient across the slice."""
