"""Magnetisation transfer ratio: one image with and one without the transfer pulse."""

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import MissingMetadata
from qcord.core.model import SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol


def signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Signal with and without transfer pulse.

    Parameters
    ----------
    theta : (..., 2) array
        S0 [1], MTR [percent].
    protocol : Protocol
        MTState.
    given : (..., 0) array
        Nothing.

    Returns
    -------
    (..., n) array
        Signal, unit of S0.

    References
    ----------
    Dousset et al. 1992, doi:10.1148/radiology.182.2.1732968.
    """
    return np.asarray(theta[..., :1] * (1 - theta[..., 1:2] / 100 * protocol["MTState"]))


def start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 2): means with and without the pulse."""
    state = protocol["MTState"].astype(bool)
    without = measured[..., ~state].mean(axis=-1)
    lost = without - measured[..., state].mean(axis=-1)
    return np.stack([without, 100 * lost / np.where(without > 0, without, 1)], axis=-1)


def pair_rows(protocol: Protocol) -> tuple[int, int]:
    """Rows with and without transfer pulse that are alike in all else, told by the settings alone.

    ``FlipAngle`` and ``RepetitionTimeExcitation`` decide where they are known; where both are unknown the
    numbering of the flip angles in the file names (``FlipIndex``) does.

    Raises
    ------
    MissingMetadata
        If there is no such pair, or more than one.
    """
    state = protocol["MTState"].astype(bool)
    pairs = [
        (int(on), int(off))
        for on in np.flatnonzero(state)
        for off in np.flatnonzero(~state)
        if _alike(protocol, int(on), int(off))
    ]
    if len(pairs) != 1:
        raise MissingMetadata(
            f"{protocol.source or 'The series'} holds {len(pairs)} pairs with and without transfer pulse at the same "
            f"flip angle and repetition time, expected one (MTState {state.astype(int).tolist()}); "
            "check MTState, FlipAngle and RepetitionTimeExcitation."
        )
    return pairs[0]


def _alike(protocol: Protocol, first: int, second: int) -> bool:
    told_apart = False
    for name in ("FlipAngle", "RepetitionTimeExcitation"):
        column = protocol.columns.get(name)
        if column is None or not np.isfinite(column[[first, second]]).all():
            continue
        told_apart = True
        if not np.isclose(column[first], column[second], rtol=1e-3):
            return False
    index = protocol.columns.get("FlipIndex")
    if told_apart or index is None:
        return True
    return bool(np.array_equal(index[first], index[second], equal_nan=True))


def example() -> Protocol:
    """One image with and one without transfer pulse."""
    return Protocol({"MTState": np.array([True, False])})


_SOURCE = "spine-generic multi-subject data, Siemens 3 T, C2-C5; S0 is arbitrary"

MTR = SignalModel(
    name="mtr",
    title="Magnetisation transfer ratio",
    example=example,
    typical=(
        Typical("white matter, 3 T", {"S0": 1.0, "MTR": 46.4}, _SOURCE, "computed"),
        Typical("gray matter, 3 T", {"S0": 1.0, "MTR": 45.4}, _SOURCE, "computed"),
    ),
    free=(
        Parameter("S0", "1", (0.0, np.inf), 1.0, "signal without transfer pulse"),
        Parameter("MTR", "percent", (-100.0, 100.0), 30.0, "part of the signal that the pulse takes away"),
    ),
    needs=("MTState",),
    signal=signal,
    references=("Dousset et al. 1992, doi:10.1148/radiology.182.2.1732968",),
    start=start,
)
"""Magnetisation transfer ratio."""
