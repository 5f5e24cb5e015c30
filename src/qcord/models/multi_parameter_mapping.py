"""Multi-parameter mapping: multi-echo spoiled gradient echoes with proton-density, T1 and transfer weighting.

All echoes share one transverse decay (ESTATICS), so that R2*, amplitude, R1 and MTsat come from one fit and the
late echoes of one weighting help the others.

The steady state is the rational approximation that MTsat is defined on. With flip angles of 6 and 21 degrees it gives
R1 1 to 1.5 % and MTsat 2 to 3 % too low (R1 from .5 to 1.4 1/s).
"""

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import MissingMetadata
from qcord.core.model import Derived, SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.models.spoiled_gradient_echo import helms_inverse, rational_signal, triplet_rows

WEIGHTINGS = ("FlipAngle", "RepetitionTimeExcitation", "MTState")
"""Columns in which two echoes of one weighting agree."""


def signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Spoiled gradient echoes for small angles and short repetition times, with common transverse decay.

    Parameters
    ----------
    theta : (..., 4) array
        A at echo time zero [1], R1 [1/s], MTsat [percent], R2star [1/s].
    protocol : Protocol
        FlipAngle [deg], RepetitionTimeExcitation [s], EchoTime [s], MTState.
    given : (..., 1) array
        B1 [1], actual over nominal flip angle.

    Returns
    -------
    (..., n) array
        Signal, unit of A.

    References
    ----------
    Weiskopf et al. 2014, doi:10.3389/fnins.2014.00278 (one decay for all weightings);
    Helms, Dathe, Kallenberg and Dechent 2008, doi:10.1002/mrm.21732, with erratum 2010, doi:10.1002/mrm.22607.
    """
    decay = np.exp(-theta[..., 3:4] * protocol["EchoTime"])
    return np.asarray(rational_signal(theta[..., :3], protocol, given) * decay)


def weightings(protocol: Protocol) -> tuple[FloatArray, Protocol]:
    """Which echo belongs to which weighting.

    Returns
    -------
    membership : (n, 3) array
        1 where a row has transfer, proton-density or T1 weighting, in this order; 0 elsewhere.
    triplet : Protocol
        One row each.

    Raises
    ------
    MissingMetadata
        If a column is absent, the rows are not of these three weightings, or all echoes have one echo time.
    """
    absent = [name for name in (*WEIGHTINGS, "EchoTime") if not protocol.has(name)]
    if absent:
        raise MissingMetadata(
            f"{' and '.join(absent)} of some volumes are absent from {protocol.source or 'the series'}; maps of A, R1, "
            "MTsat and R2star need them: add them to the JSON sidecars."
        )
    settings = np.stack([np.asarray(protocol[name], dtype=float) for name in WEIGHTINGS], axis=1)
    kinds, index = np.unique(settings.round(6), axis=0, return_inverse=True)
    first = [int(np.flatnonzero(index == k)[0]) for k in range(len(kinds))]
    triplet = protocol.take(first)
    order = triplet_rows(triplet)
    membership = (index[:, None] == np.array(order)).astype(float)
    if np.ptp(protocol["EchoTime"] - (membership * _means(membership, protocol["EchoTime"])).sum(axis=1)) == 0:
        raise MissingMetadata(
            f"{protocol.source or 'The series'} has one echo time a weighting, expected several; R2star needs them: "
            "check EchoTime."
        )
    return membership, triplet.take(list(order))


def _means(membership: FloatArray, values: FloatArray) -> FloatArray:
    return np.asarray((membership * values[:, None]).sum(axis=0) / membership.sum(axis=0))


def log_design(protocol: Protocol) -> tuple[FloatArray, Protocol]:
    """Design (n, 4) of the logarithm of the signal: one intercept a weighting and the common decay; the triplet."""
    membership, triplet = weightings(protocol)
    return np.column_stack([membership, -protocol["EchoTime"]]), triplet


def intercepts_to_parameters(values: AnyArray, triplet: Protocol, b1: AnyArray | float) -> AnyArray:
    """Parameters (4, ...) in the order of the model from logarithms of the signals at echo time zero and R2*.

    Parameters
    ----------
    values : (4, ...) array
        Logarithms with transfer, proton-density and T1 weighting; R2* [1/s].
    triplet : Protocol
        One row a weighting, in this order.
    b1 : (...) array
        Actual over nominal flip angle.
    """
    angles = np.deg2rad(triplet["FlipAngle"]).reshape(3, *(1,) * (values.ndim - 1))
    closed = helms_inverse(np.exp(values[:3]), angles, triplet["RepetitionTimeExcitation"], b1)
    return np.concatenate([closed, values[3:]])


def start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 4): weighted log-linear fit with common decay, then the closed form of the triplet."""
    typical = np.array([np.nan, 1.0, 3.0, 25.0])
    theta = np.broadcast_to(typical, (*measured.shape[:-1], 4)).copy()
    unit = signal(np.array([1.0, 1.0, 3.0, 25.0]), protocol, given)
    theta[..., 0] = (measured * unit).sum(axis=-1) / (unit**2).sum(axis=-1)
    try:
        design, triplet = log_design(protocol)
    except MissingMetadata:
        return theta
    positive = measured > 0
    with np.errstate(all="ignore"):
        weights = np.where(positive, measured, 0.0) ** 2
        logs = np.log(np.where(positive, measured, 1.0))
        normal = np.einsum("np,nq,...n->...pq", design, design, weights)
        right = np.einsum("np,...n->...p", design, weights * logs)
        size = np.sqrt(np.einsum("...pp->...p", normal))
        scaled = normal / (size[..., :, None] * size[..., None, :])
        solvable = np.isfinite(scaled).all(axis=(-2, -1)) & np.isfinite(right).all(axis=-1)
        scaled = np.where(solvable[..., None, None], scaled, 0.0) + 1e-12 * np.eye(4)
        values = np.linalg.solve(scaled, np.where(solvable[..., None], right / size, 0.0)[..., None])[..., 0] / size
        closed = np.moveaxis(intercepts_to_parameters(np.moveaxis(values, -1, 0), triplet, given[..., 0]), 0, -1)
        usable = solvable & np.isfinite(closed).all(axis=-1) & (closed[..., 0] > 0) & (closed[..., 1] > 0)
    return np.where(usable[..., None], closed, theta)


def _relaxation_time(theta: AnyArray) -> AnyArray:
    return np.asarray(1 / theta[..., 1])


def _decay_time(theta: AnyArray) -> AnyArray:
    return np.asarray(1 / theta[..., 3])


def example() -> Protocol:
    """A 3 T protocol: six echoes with proton-density and T1 weighting each, four with the transfer pulse."""
    echoes = 2.3e-3 * np.arange(1, 7)
    return Protocol(
        {
            "FlipAngle": np.repeat([6.0, 21.0, 6.0], [6, 6, 4]),
            "RepetitionTimeExcitation": np.repeat([0.025, 0.025, 0.025], [6, 6, 4]),
            "EchoTime": np.concatenate([echoes, echoes, echoes[:4]]),
            "MTState": np.repeat([False, False, True], [6, 6, 4]),
        },
        "example",
    )


MPM = SignalModel(
    name="mpm",
    free=(
        Parameter("A", "1", (0.0, np.inf), 1.0, "signal amplitude at echo time zero: density, receive field"),
        Parameter("R1", "1/s", (0.05, 20.0), 1.0, "longitudinal relaxation rate, apparent unless B1 is given"),
        Parameter("MTsat", "percent", (-100.0, 100.0), 3.0, "saturation by one transfer pulse"),
        Parameter("R2star", "1/s", (-50.0, 1000.0), 25.0, "effective transverse relaxation rate of all weightings"),
    ),
    needs=("FlipAngle", "RepetitionTimeExcitation", "EchoTime", "MTState"),
    signal=signal,
    references=(
        "Weiskopf et al. 2014, doi:10.3389/fnins.2014.00278",
        "Helms, Dathe, Kallenberg and Dechent 2008, doi:10.1002/mrm.21732",
        "Helms, Dathe, Kallenberg and Dechent 2010 (erratum), doi:10.1002/mrm.22607",
    ),
    given=(Parameter("B1", "1", (0.1, 3.0), 1.0, "actual over nominal flip angle"),),
    derived=(Derived("T1", "s", _relaxation_time), Derived("T2star", "s", _decay_time)),
    start=start,
    title="Multi-parameter mapping: R1, R2*, MTsat and amplitude from multi-echo spoiled gradient echoes",
    example=example,
    typical=(
        Typical(
            "white matter, 3 T",
            {"A": 1000.0, "R1": 1.14, "MTsat": 3.7, "R2star": 25.0},
            "T1 of Smith 2008, MTsat of the spine-generic data (Siemens), T2* of Barry 2019",
            "verified",
        ),
        Typical(
            "gray matter, 3 T",
            {"A": 1140.0, "R1": 1.03, "MTsat": 3.3, "R2star": 22.5},
            "T1 of Smith 2008, MTsat .4 below white matter, T2* of a digital phantom (44.4 ms)",
            "computed",
        ),
    ),
)
"""Multi-parameter mapping; rational approximation of the steady state."""
