"""From log-linear fits to maps: what the tensor and the kurtosis tensor share."""

from collections.abc import Mapping, Sequence

import numpy as np

from qcord.core.arrays import AnyArray, BoolArray, FloatArray
from qcord.core.errors import UnknownName
from qcord.core.flags import Flag
from qcord.estimate.blocks import Output
from qcord.estimate.log_linear import LogDesign, LogLinear, fit_log_linear
from qcord.maps.tensor_errors import Estimate

LOWEST_SNR = 3.0
"""Signal without weighting, over noise, below which there is no value: a magnitude of less is lifted by its
floor by more than 5 %, and all weighted signals lie below it."""

_MANY = 1 / 3
"""Fraction of rejected measurements from which a voxel is flagged."""

_WITHOUT_VALUE = (Flag.NOT_FINITE, Flag.NO_SIGNAL, Flag.UNPHYSICAL)


def require_method(method: str, known: Mapping[str, tuple[str, ...]], what: str) -> None:
    """Raise `UnknownName` if there is no such estimator."""
    if method not in known:
        raise UnknownName(f"There is no method '{method}' for {what}; expected one of {', '.join(known)}.")


def fit_signals(
    design: LogDesign, method: str, rician: bool, signals: FloatArray, extra: Mapping[str, FloatArray]
) -> tuple[LogLinear, BoolArray]:
    """Fit of a block (n, v) by the estimator of a name, and which voxels are finite.

    Parameters
    ----------
    design : LogDesign
        Linear model of the logarithm.
    method : str
        ``iwls`` fits twice, ``irls`` robustly, all others once.
    rician : bool
        Whether the signals are magnitudes.
    signals : (n, v) array
        Measurements; voxels that are not finite are fitted as ones.
    extra : mapping
        May hold ``sigma`` (1, v).
    """
    finite: BoolArray = np.asarray(np.isfinite(signals).all(axis=0))
    if not finite.all():
        signals = np.where(finite, signals, 1.0)
    sigma = extra["sigma"][0] if "sigma" in extra else None
    if sigma is not None:
        sigma = np.where(sigma > 0, sigma, np.nan)
    rounds = 2 if method == "iwls" else 1
    fit = fit_log_linear(design, signals, sigma=sigma, rounds=rounds, robust=method == "irls", rician=rician)
    return fit, finite


def unweighted_signal(fit: LogLinear) -> Estimate:
    """Signal at b = 0 from the first unknown, its logarithm."""
    value = np.exp(np.minimum(fit.theta[0], 100.0))
    variance = fit.covariance[0, 0]
    return Estimate(value, value * np.sqrt(variance), value * (fit.bias[0] + variance / 2))


def voxel_flags(
    finite: BoolArray, fit: LogLinear, estimates: Mapping[str, Estimate], held: BoolArray | None = None
) -> AnyArray:
    """One flag a voxel; the first that applies.

    Parameters
    ----------
    finite : (v,) array of bool
        Whether all measurements are finite.
    fit : LogLinear
        ln S0, then the elements of a tensor, then anything.
    estimates : mapping of str to Estimate
        With ``S0`` and ``MD``.
    held : (v,) array of bool, optional
        Where a value was held at a bound.
    """
    determined = np.isfinite(fit.theta).all(axis=0)
    trace = fit.theta[1:4].sum(axis=0)
    floored = estimates["S0"].value < LOWEST_SNR * fit.sigma
    raised = 3 * estimates["MD"].value > trace * (1 + 1e-9)
    conditions = [
        (~finite, Flag.NOT_FINITE),
        (~determined | floored, Flag.NO_SIGNAL),
        (~(trace > 0), Flag.UNPHYSICAL),
        (fit.rejected > _MANY, Flag.OUTLIERS),
        (raised if held is None else raised | held, Flag.AT_BOUND),
        (~np.isfinite(fit.sigma), Flag.NO_ERROR),
    ]
    return np.select([c for c, _ in conditions], [int(f) for _, f in conditions], int(Flag.OK)).astype(np.uint8)


def named_arrays(flag: AnyArray, fit: LogLinear, estimates: Mapping[str, Estimate]) -> dict[str, AnyArray]:
    """Arrays ``X``, ``std X`` and ``bias X``, NaN where the flag says that there is no value."""
    without = np.isin(flag, _WITHOUT_VALUE)
    arrays: dict[str, AnyArray] = {"rmse": np.where(without, np.nan, fit.rmse)}
    for name, estimate in estimates.items():
        arrays[name] = np.where(without, np.nan, estimate.value)
        arrays["std " + name] = np.where(without, np.nan, estimate.std)
        arrays["bias " + name] = np.where(without, np.nan, estimate.bias)
    return {**arrays, "flag": flag}


def outputs(units: Sequence[str], components: Mapping[str, int]) -> list[Output]:
    """Maps to be made: values and standard errors of all, bias of those with one component, and the residual."""
    named = [Output(prefix + name, components.get(name, 1)) for prefix in ("", "std ") for name in units]
    return [*named, *(Output(f"bias {name}") for name in units if name not in components), Output("rmse")]
