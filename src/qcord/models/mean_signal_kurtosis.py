"""Mean-signal kurtosis: the mean over directions of the signal, to second order in b."""

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.model import SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.models.kurtosis import example


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
    """First guess (..., 3) from signals (..., n): unweighted parabola through their logarithms."""
    top = np.fmax.reduce(measured, axis=-1, keepdims=True)
    logs = np.log(np.fmax(measured, np.fmax(1e-3 * top, 1e-300)))
    columns = log_columns(protocol["BValue"])
    scale = np.maximum(np.abs(columns).max(axis=0), 1e-300)
    level, slope, bend = np.moveaxis(np.einsum("...n,kn->...k", logs, np.linalg.pinv(columns / scale)) / scale, -1, 0)
    diffusivity = np.clip(slope, 1e-5, 1e-2)
    return np.stack([np.exp(level), diffusivity, np.clip(bend / diffusivity**2, -1, 5)], axis=-1)


def log_columns(b: FloatArray) -> FloatArray:
    """Matrix (m, 3) that takes (ln S0, MSD, MSK MSD^2) to the logarithm of the mean signal at b-values (m,)."""
    return np.stack([np.ones_like(b), -b, b**2 / 6], axis=1)


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
