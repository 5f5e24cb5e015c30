"""Mean-signal kurtosis maps: diffusivity and kurtosis of the mean over directions, with errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import NotIdentifiable
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.image import Image, Step, mask_of
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.blocks import noise_map, run_blocks
from qcord.estimate.fit import as_fit
from qcord.estimate.voxelwise import inverse, multiply, product
from qcord.maps.kurtosis_errors import LIMITS
from qcord.maps.log_linear_maps import LOWEST_SNR, outputs
from qcord.maps.powder import powder_weights
from qcord.models.encoding import UNWEIGHTED, b_tensors, require_linear
from qcord.models.kurtosis import SPREAD, fourth_order
from qcord.models.mean_signal_kurtosis import MEAN_SIGNAL_KURTOSIS, log_columns

UNEVEN = 0.01
"""Anisotropy of the mean b-tensor of a shell, in parts of its b-value, up to which its mean is one over all
directions."""

_EVEN = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]) / 3

UNITS = {"MSD": "mm2/s", "MSK": "1", "S0": "1"}
"""Maps, with their units."""


@dataclass(frozen=True, eq=False)
class _Design:
    """What all voxels share.

    weights (m, n) make the means of m shells; columns (m, 3) is the design of their logarithms; smooth (n, n) takes
    the signals of each shell to their fourth-order polynomial of the direction, which has ``freedom`` unknowns
    fewer than there are signals.
    """

    weights: FloatArray
    columns: FloatArray
    smooth: FloatArray
    freedom: float


def fit_mean_signal_kurtosis(
    series: Series,
    mask: Image | None = None,
    *,
    sigma: Image | float | Sequence[float] | None = None,
    rician: bool = True,
    n_jobs: int | None = None,
) -> Fit:
    """Fit the mean over directions of each shell.

    Parameters
    ----------
    series : Series
        Magnitudes, with BValue [s/mm2] and Direction (unit vectors in world axes).
    mask : Image, optional
        Voxels to fit; all by default.
    sigma : Image or float, optional
        Standard deviation of the noise of one volume, unit of the signal. Without it, or where it is NaN or zero, what
        the signals of a shell deviate from a fourth-order polynomial of their direction gives it.
    rician : bool
        Whether the noise is that of magnitudes; it matters for the bias at low signal only.
    n_jobs : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Fit
        Maps MSD [mm2/s], MSK [1] and S0, with standard errors and bias.

    Raises
    ------
    NotIdentifiable
        If there are too few shells, or the directions of one do not make a mean.
    MissingMetadata
        If there are no b-values or directions.

    Notes
    -----
    The weights of the directions are those of `qcord.maps.powder.powder_average`: equal where directions are even.
    Means are weighted by their squared signal over the variance of their noise. MSK holds the spread of diffusivities
    over directions too: it is not zero for one Gaussian compartment that is anisotropic.

    References
    ----------
    Henriques, Jespersen and Shemesh 2019, doi:10.1002/mrm.27606.
    """
    design = _prepare(series.protocol)
    noise = noise_map(sigma, series.image.grid, 1)
    arrays = run_blocks(
        partial(_fit_block, design, rician),
        series.data,
        mask_of(mask, series.image.grid),
        outputs(tuple(UNITS), {}),
        extra=None if noise is None else {"sigma": noise},
        n_jobs=n_jobs,
    )
    settings = {
        "model": MEAN_SIGNAL_KURTOSIS.name,
        "method": "weighted means",
        "noise": "residuals" if sigma is None else "given",
        "distribution": "rician" if rician else "gaussian",
    }
    step = Step("fit_mean_signal_kurtosis", settings, MEAN_SIGNAL_KURTOSIS.references)
    return as_fit(MEAN_SIGNAL_KURTOSIS, series.image, arrays, step, UNITS)


def mean_weights(protocol: Protocol) -> tuple[FloatArray, FloatArray]:
    """Weights (m, n) of the volumes in the mean over directions of each shell, and the shells' b-values (m,).

    Raises
    ------
    NotIdentifiable
        If there are fewer than two shells besides b = 0, less than three in all, or the directions of one are too few
        or too uneven for a mean.
    ImplausibleValue
        If a b-tensor is not linear.
    MissingMetadata
        If there are no b-values or directions.
    """
    require_linear(protocol, MEAN_SIGNAL_KURTOSIS.name)
    weights = powder_weights(protocol)
    b = np.einsum("mn,n->m", (weights != 0) / (weights != 0).sum(axis=1, keepdims=True), protocol["BValue"])
    where = protocol.source or "the series"
    weighted = b[b > UNWEIGHTED]
    if len(b) < 3 or len(weighted) < 2 or weighted.max() < SPREAD * weighted.min():
        raise NotIdentifiable(
            f"{where} has the b-values {', '.join(f'{value:.0f}' for value in b)} s/mm2, expected b = 0 and two more "
            "for mean-signal kurtosis; it needs another acquisition."
        )
    left = np.abs(np.einsum("mn,nk->mk", weights, b_tensors(protocol)) - b[:, None] * _EVEN).max(axis=1)
    uneven = np.flatnonzero((left > UNEVEN * b) & (b > UNWEIGHTED))
    if uneven.size:
        count, level = (weights[uneven[0]] != 0).sum(), b[uneven[0]]
        raise NotIdentifiable(
            f"The {count} directions at {level:.0f} s/mm2 of {where} are too few or too uneven for a mean over "
            "all directions, expected at least 6 spread over the sphere."
        )
    return weights, b


def _prepare(protocol: Protocol) -> _Design:
    weights, b = mean_weights(protocol)
    polynomial = fourth_order(protocol["Direction"])
    smooth = np.zeros((len(protocol), len(protocol)))
    freedom = 0.0
    for k in range(len(b)):
        rows = np.flatnonzero(weights[k])
        part = polynomial[rows]
        rank = np.linalg.matrix_rank(part, tol=1e-6)
        smooth[np.ix_(rows, rows)] = part @ np.linalg.pinv(part, rcond=1e-6)
        freedom += len(rows) - rank
    return _Design(weights, log_columns(b), smooth, freedom)


def _fit_block(
    design: _Design, rician: bool, signals: FloatArray, extra: Mapping[str, FloatArray]
) -> dict[str, AnyArray]:
    finite = np.isfinite(signals).all(axis=0)
    signals = np.where(finite, signals, 1.0)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        smooth = product(design.smooth, signals)
        scatter = np.sqrt(((signals - smooth) ** 2).sum(axis=0) / (design.freedom or np.nan))
        sigma = scatter
        if "sigma" in extra:
            sigma = np.where(extra["sigma"][0] > 0, extra["sigma"][0], scatter)
        means = product(design.weights, signals)
        lit = (means > 0).all(axis=0)
        means = np.where(lit, means, 1.0)
        rise = product(design.weights, _rise(smooth, sigma)) if rician else np.zeros_like(means)
        arrays = _estimates(design, means, rise, sigma)
        conditions = [
            (~finite, Flag.NOT_FINITE),
            (~lit | (arrays["S0"] < LOWEST_SNR * sigma), Flag.NO_SIGNAL),
            (~(arrays["MSD"] > 0), Flag.UNPHYSICAL),
            ((arrays["MSK"] <= LIMITS[0]) | (arrays["MSK"] >= LIMITS[1]), Flag.AT_BOUND),
            (~np.isfinite(sigma), Flag.NO_ERROR),
        ]
    flag = np.select([c for c, _ in conditions], [int(f) for _, f in conditions], int(Flag.OK)).astype(np.uint8)
    without = np.isin(flag, [Flag.NOT_FINITE, Flag.NO_SIGNAL, Flag.UNPHYSICAL])
    return {**{name: np.where(without, np.nan, values) for name, values in arrays.items()}, "flag": flag}


def _estimates(design: _Design, means: FloatArray, rise: FloatArray, sigma: FloatArray) -> dict[str, FloatArray]:
    """Values, errors, bias and residual from the means (m, v) of the shells and what noise raised them by."""
    scale = np.abs(design.columns).max(axis=0)
    x = design.columns / scale
    gain = (design.weights**2).sum(axis=1)[:, None]
    weights = means**2 / gain
    unscaled = inverse(np.einsum("mi,mj,mv->ijv", x, x, weights))
    theta = multiply(unscaled, np.einsum("mi,mv->iv", x, weights * np.log(means))) / scale[:, None]
    excess = np.nan_to_num(rise / means - gain * (sigma / means) ** 2 / 2)
    bias = multiply(unscaled, np.einsum("mi,mv->iv", x, weights * excess)) / scale[:, None]
    covariance = unscaled * sigma**2 / (scale[:, None, None] * scale[:, None])
    residual = means - np.exp(np.clip(product(design.columns, theta), -100, 100))
    rmse = np.sqrt((residual**2).mean(axis=0)) if len(means) > len(theta) else np.full(len(sigma), np.nan)
    return {**_level(theta, covariance, bias), **_kurtosis(theta, covariance, bias), "rmse": rmse}


def _rise(smooth: FloatArray, sigma: FloatArray) -> FloatArray:
    """How much noise raises magnitudes of these expectations, by their second moment."""
    square = smooth * smooth
    below = np.sqrt(np.maximum(square - sigma**2, 0))
    return np.asarray(np.minimum(sigma**2, square) / (np.abs(smooth) + below))


def _level(theta: FloatArray, covariance: FloatArray, bias: FloatArray) -> dict[str, FloatArray]:
    value, variance = np.exp(np.minimum(theta[0], 100.0)), covariance[0, 0]
    return {
        **{"S0": value, "std S0": value * np.sqrt(variance), "bias S0": value * (bias[0] + variance / 2)},
        **{"MSD": theta[1], "std MSD": np.sqrt(covariance[1, 1]), "bias MSD": bias[1]},
    }


def _kurtosis(theta: FloatArray, covariance: FloatArray, bias: FloatArray) -> dict[str, FloatArray]:
    """MSK = U / MSD^2 with error by the delta method and bias to second order; shown within `LIMITS`."""
    value = theta[2] / theta[1] ** 2
    diffusivity, bend = theta[1] - bias[1], theta[2] - bias[2]
    better = bend / diffusivity**2
    by_diffusivity, by_bend = -2 * better / diffusivity, 1 / diffusivity**2
    variance = by_diffusivity**2 * covariance[1, 1] + by_bend**2 * covariance[2, 2]
    std = np.sqrt(variance + 2 * by_diffusivity * by_bend * covariance[1, 2])
    curved = 3 * better * covariance[1, 1] / diffusivity**2 - 2 * covariance[1, 2] / diffusivity**3
    better = np.clip(better - np.clip(curved, -std, std), LIMITS[0] - 2 * std, LIMITS[1])
    shown = np.clip(value, *LIMITS)
    return {"MSK": shown, "std MSK": std, "bias MSK": shown - better}
