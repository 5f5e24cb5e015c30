"""Covariance tensor maps: muFA, FA, order and the sources of kurtosis, each with error."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import UnknownName
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.image import Image, Step, mask_of
from qcord.core.series import Series
from qcord.estimate.blocks import Output, noise_map, run_blocks
from qcord.estimate.fit import as_fit
from qcord.estimate.jacobian import complex_step
from qcord.estimate.log_linear import LogDesign, LogLinear, fit_log_linear, prepare
from qcord.estimate.second_order import bends, errors, errors_of_root
from qcord.estimate.voxelwise import lower_root, multiply
from qcord.maps.log_linear_maps import LOWEST_SNR
from qcord.maps.tensor import METHODS
from qcord.maps.tensor_errors import Estimate, tensor_estimates
from qcord.models.covariance_tensor import (
    BULK,
    INVARIANTS,
    QTI,
    ROOTS,
    SPREAD,
    TRACE,
    covariance_design,
    moments,
    ratios,
)

COMPONENTS = {"tensor": 6, "covariance": 21}
UNITS = {"S0": "1", **INVARIANTS, "tensor": "mm2/s", "covariance": "mm4/s2"}
"""Maps, with their units."""

_MANY = 1 / 3
_COUNT = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])[:, None]


def fit_covariance_tensor(
    series: Series,
    mask: Image | None = None,
    *,
    sigma: Image | float | Sequence[float] | None = None,
    method: str = "wls",
    rician: bool = True,
    n_jobs: int | None = None,
) -> Fit:
    """Fit mean and covariance of a distribution of diffusion tensors.

    Parameters
    ----------
    series : Series
        Magnitudes, with BValue [s/mm2], Direction, and BDelta or SecondDirection.
    mask : Image, optional
        Voxels to fit; all by default.
    sigma : Image or float, optional
        Standard deviation of the noise, unit of the signal. Without it, or where it is NaN or zero, the residuals
        give it, voxel by voxel.
    method : str
        ``wls``, ``iwls`` or ``irls``, as for the tensor (`qcord.maps.tensor.fit_tensor`).
    rician : bool
        Whether the noise is that of magnitudes; it matters for the bias only.
    n_jobs : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Fit
        Maps S0, FA, MD [mm2/s], muFA, C_mu, C_c, C_MD, OP, V_I, V_A [mm4/s2], K_bulk, K_shear, K_mu, tensor (6
        elements [mm2/s]) and covariance (21 [mm4/s2]), each with standard error; bias of all but the last two. muFA
        and OP are NaN, and the voxel is flagged NO_VALUE, where noise makes V_A negative; C_mu has a value there.

    Raises
    ------
    NotIdentifiable
        If the volumes do not determine the 28 unknowns.
    MissingMetadata
        If there are no b-values or directions.
    UnknownName
        If there is no such method.

    Notes
    -----
    Simulated with `qcord.models.covariance_tensor.example` and magnitudes of signals of the model, 95 % intervals of
    ``map - bias`` cover the truth in 92-97 % from a signal-to-noise ratio of 20, those of FA and OP where they exceed
    twice their error (``benchmarks/microscopic_anisotropy.py``). What the model leaves out, cumulants beyond the
    second, is in no interval: up to 2000 s/mm2 it lowers muFA by .06 in dispersed tissue.

    References
    ----------
    Westin et al. 2016, doi:10.1016/j.neuroimage.2016.02.039.
    """
    if method not in METHODS:
        raise UnknownName(f"There is no method '{method}' for the covariance; expected one of {', '.join(METHODS)}.")
    design = prepare(covariance_design(series.protocol))
    noise = noise_map(sigma, series.image.grid, 1)
    arrays = run_blocks(
        partial(_fit_block, design, method, rician),
        series.data,
        mask_of(mask, series.image.grid),
        _outputs(),
        extra=None if noise is None else {"sigma": noise},
        copies=8,
        n_jobs=n_jobs,
    )
    settings = {
        "model": QTI.name,
        "method": method,
        "noise": "residuals" if sigma is None else "given",
        "distribution": "rician" if rician else "gaussian",
    }
    step = Step("fit_covariance_tensor", settings, (*QTI.references, *METHODS[method]))
    return as_fit(QTI, series.image, arrays, step, UNITS)


def _outputs() -> list[Output]:
    named = [Output(prefix + name, COMPONENTS.get(name, 1)) for prefix in ("", "std ") for name in UNITS]
    return [*named, *(Output(f"bias {name}") for name in UNITS if name not in COMPONENTS), Output("rmse")]


def _fit_block(
    design: LogDesign, method: str, rician: bool, signals: FloatArray, extra: Mapping[str, FloatArray]
) -> dict[str, AnyArray]:
    finite = np.asarray(np.isfinite(signals).all(axis=0))
    signals = np.where(finite, signals, 1.0)
    sigma = np.where(extra["sigma"][0] > 0, extra["sigma"][0], np.nan) if "sigma" in extra else None
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        fit = fit_log_linear(
            design,
            signals,
            sigma=sigma,
            rounds=2 if method == "iwls" else 1,
            robust=method == "irls",
            rician=rician,
        )
        estimates = _estimates(fit)
        flag = _flags(finite, fit, estimates)
    without = np.isin(flag, [Flag.NOT_FINITE, Flag.NO_SIGNAL])
    arrays: dict[str, AnyArray] = {"rmse": np.where(without, np.nan, fit.rmse), "flag": flag}
    for name, estimate in estimates.items():
        arrays[name] = np.where(without, np.nan, estimate.value)
        arrays["std " + name] = np.where(without, np.nan, estimate.std)
        arrays["bias " + name] = np.where(without, np.nan, estimate.bias)
    return arrays


def _estimates(fit: LogLinear) -> dict[str, Estimate]:
    """All maps of a block with errors."""
    theta, covariance = fit.theta, fit.covariance
    spread = np.sqrt(np.einsum("iiv->iv", covariance))
    s0 = np.exp(np.minimum(theta[0], 100.0))
    values, shared, shift = _moment_errors(fit)
    estimates = {
        "S0": Estimate(s0, s0 * spread[0], s0 * (fit.bias[0] + covariance[0, 0] / 2)),
        "tensor": Estimate(theta[1:7], spread[1:7], fit.bias[1:7]),
        "covariance": Estimate(theta[7:], spread[7:], fit.bias[7:]),
    }

    def every(last: AnyArray) -> AnyArray:
        return np.stack([ratios(np.moveaxis(last, -1, 0))[name] for name in INVARIANTS])

    last, half = values.T, lower_root(shared)
    slope = np.moveaxis(complex_step(every, last), -1, 0)
    along = np.einsum("inv,ikv->knv", slope, half)
    bend = bends(lambda step: every(last + step), every(last), np.moveaxis(half, (0, 1, 2), (2, 0, 1)))
    shifts = np.einsum("inv,iv->nv", slope, shift)
    for k, (name, value) in enumerate(zip(INVARIANTS, every(last), strict=True)):
        estimate = _root if name in ROOTS else _estimate
        estimates[name] = estimate(value, along[:, k], bend[:, :, k], shifts[k])
    mean = tensor_estimates(theta[1:7], covariance[1:7, 1:7], fit.bias[1:7])
    return {**estimates, "FA": mean["FA"]}  # with its care for low anisotropy


def _moment_errors(fit: LogLinear) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Values (4, v) of `moments`, their covariance (4, 4, v) and bias (4, v); the second one is quadratic in theta."""
    slope = np.zeros((4, *fit.theta.shape))
    slope[[0, 2, 3]] = np.stack([TRACE, BULK, SPREAD])[:, :, None]
    slope[1, 1:7] = 2 / 3 * _COUNT * fit.theta[1:7]
    half = np.einsum("ipv,pqv->iqv", slope, fit.covariance)
    bias = np.stack([multiply(row[None], fit.bias)[0] for row in slope])
    bias[1] += (_COUNT * np.einsum("iiv->iv", fit.covariance[1:7, 1:7])).sum(axis=0) / 3
    return moments(fit.theta.T), np.einsum("iqv,jqv->ijv", half, slope), bias


def _estimate(value: FloatArray, slope: FloatArray, bend: FloatArray, shift: FloatArray) -> Estimate:
    """Value with its derivatives along standard normal noise, and the part of its bias that comes with the moments."""
    std, bias = errors(slope, bend)
    return Estimate(value, std, np.clip(bias + shift, -std, std))


def _root(square: FloatArray, slope: FloatArray, bend: FloatArray, shift: FloatArray) -> Estimate:
    """Root of a value."""
    value = np.sqrt(square)
    std, bias = errors_of_root(value, slope, bend, shift)
    return Estimate(value, std, np.clip(bias, -std, std))


def _flags(finite: AnyArray, fit: LogLinear, estimates: Mapping[str, Estimate]) -> AnyArray:
    """One flag a voxel; the first that applies."""
    determined = np.isfinite(fit.theta).all(axis=0)
    conditions = [
        (~finite, Flag.NOT_FINITE),
        (~determined | (estimates["S0"].value < LOWEST_SNR * fit.sigma), Flag.NO_SIGNAL),
        (~(estimates["MD"].value > 0), Flag.UNPHYSICAL),
        (fit.rejected > _MANY, Flag.OUTLIERS),
        (~np.isfinite(fit.sigma), Flag.NO_ERROR),
    ]
    return np.select([c for c, _ in conditions], [int(f) for _, f in conditions], int(Flag.OK)).astype(np.uint8)
