"""Mean-signal kurtosis: the mean over directions of the signal, to second order in b."""

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray, IntArray
from qcord.core.errors import NotIdentifiable
from qcord.core.model import SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.models.kurtosis import SPREAD, example, fourth_order

UNWEIGHTED = 50.0
"""b-value [s/mm2] up to which a volume counts as not weighted."""

SAME = 0.05
"""Part of its b-value by which two neighbours of a shell may differ."""

COARSEST = 1.5
"""Factor by which uneven directions may raise the variance of their mean."""


def signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Mean signal over all directions to second order of the cumulant expansion.

    Parameters
    ----------
    theta : (..., 3) array
        S0 [1], MSD [mm2/s], MSK [1].
    protocol : Protocol
        BValue [s/mm2].
    given : (..., 0) array
        Nothing.

    Returns
    -------
    (..., n) array
        Signal, unit of S0; the same for all volumes of a shell.

    References
    ----------
    Henriques, Jespersen and Shemesh 2019, doi:10.1002/mrm.27606.
    """
    weight = protocol["BValue"] * theta[..., 1:2]
    return np.asarray(theta[..., :1] * np.exp(-weight + weight**2 * theta[..., 2:] / 6))


def start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 3) from signals (..., n): unweighted parabola through the logarithms of the shells' means."""
    labels = shells(protocol)
    count = np.bincount(labels)
    means = np.stack([measured[..., labels == k].mean(axis=-1) for k in range(len(count))], axis=-1)
    top = np.fmax.reduce(means, axis=-1, keepdims=True)
    logs = np.log(np.fmax(means, np.fmax(1e-3 * top, 1e-300)))
    b = np.bincount(labels, protocol["BValue"]) / count
    columns = log_columns(b)
    scale = np.maximum(np.abs(columns).max(axis=0), 1e-300)
    level, slope, bend = np.moveaxis(np.einsum("...n,kn->...k", logs, np.linalg.pinv(columns / scale)) / scale, -1, 0)
    diffusivity = np.clip(slope, 1e-5, 1e-2)
    return np.stack([np.exp(level), diffusivity, np.clip(bend / diffusivity**2, -1, 5)], axis=-1)


def log_columns(b: FloatArray) -> FloatArray:
    """Matrix (m, 3) that takes (ln S0, MSD, MSK MSD^2) to the logarithm of the mean signal at b-values (m,)."""
    return np.stack([np.ones_like(b), -b, b**2 / 6], axis=1)


def shells(protocol: Protocol) -> IntArray:
    """Number (n,) of the shell of each volume, by increasing b-value; shells are apart by more than `SAME`."""
    b = protocol["BValue"]
    order = np.argsort(b, kind="stable")
    level = b[order]
    apart = (np.diff(level) > SAME * level[1:]) & (level[1:] > UNWEIGHTED)
    labels = np.empty(len(b), dtype=int)
    labels[order] = np.concatenate([[0], np.cumsum(apart)])
    return labels


def mean_weights(protocol: Protocol) -> tuple[FloatArray, FloatArray]:
    """Weights (m, n) of the volumes in the mean over directions of each shell, and the shells' b-values (m,).

    Weights are equal where the directions of a shell are even. Else they are the nearest to equal ones with which
    the mean of every fourth-order polynomial of the direction is exact, or of every second-order one where
    there are too few directions for that.

    Raises
    ------
    NotIdentifiable
        If there are fewer than two shells besides b = 0, less than three in all, or the directions of one are too few
        or too uneven for a mean.
    """
    labels = shells(protocol)
    count = np.bincount(labels)
    b = np.bincount(labels, protocol["BValue"]) / count
    where = protocol.source or "the series"
    weighted = b[b > UNWEIGHTED]
    if len(b) < 3 or len(weighted) < 2 or weighted[-1] < SPREAD * weighted[0]:
        raise NotIdentifiable(
            f"{where} has the b-values {', '.join(f'{value:.0f}' for value in b)} s/mm2, expected b = 0 and two more "
            "for mean-signal kurtosis; it needs another acquisition."
        )
    weights = np.zeros((len(b), len(labels)))
    for k, value in enumerate(b):
        rows = np.flatnonzero(labels == k)
        balanced = _balanced(protocol["Direction"][rows]) if value > UNWEIGHTED else np.full(len(rows), 1 / len(rows))
        if balanced is None:
            raise NotIdentifiable(
                f"The {len(rows)} directions at {value:.0f} s/mm2 of {where} are too few or too uneven for a mean "
                "over all directions, expected at least 6 spread over the sphere."
            )
        weights[k, rows] = balanced
    return weights, b


def _balanced(directions: FloatArray) -> FloatArray | None:
    """Weights (k,) of directions (k, 3); None where no mean over them is exact to second order."""
    count = len(directions)
    equal = np.full(count, 1 / count)
    if not directions.any():
        return equal
    x, y, z = directions.T
    second = np.stack([x * x, y * y, z * z, x * y, x * z, y * z], axis=1)
    for order, even in ((fourth_order(directions), fourth_order(np.zeros((1, 3)))[0]), (second, [1 / 3] * 3 + [0] * 3)):
        weights = equal + np.linalg.pinv(order.T, rcond=1e-6) @ (even - order.T @ equal)
        if np.allclose(order.T @ weights, even, atol=1e-6) and count * (weights**2).sum() < COARSEST:
            return np.asarray(weights)
    return None


MEAN_SIGNAL_KURTOSIS = SignalModel(
    name="mean-signal-kurtosis",
    free=(
        Parameter("S0", "1", (0.0, np.inf), 1.0, "signal without diffusion weighting"),
        Parameter("MSD", "mm2/s", (0.0, 0.02), 1e-3, "diffusivity of the mean signal"),
        Parameter("MSK", "1", (-3.0, 10.0), 1.0, "kurtosis of the mean signal"),
    ),
    needs=("BValue",),
    signal=signal,
    references=(
        "Henriques, Jespersen and Shemesh 2019, doi:10.1002/mrm.27606",
        "Henriques et al. 2021, doi:10.3389/fnhum.2021.675433",
    ),
    start=start,
    title="Mean-signal kurtosis: diffusivity and kurtosis of the mean signal over directions",
    example=example,
    typical=(
        Typical("white matter, 3 T", {"S0": 1.0, "MSD": 9.3e-4, "MSK": 1.06}, "from the kurtosis model", "assumed"),
        Typical("gray matter, 3 T", {"S0": 1.0, "MSD": 8.5e-4, "MSK": 0.86}, "from the kurtosis model", "assumed"),
    ),
)
"""The mean-signal kurtosis model."""
