"""Weighted linear least squares on the logarithm of the signal, with its errors and its bias.

The voxel axis comes last in all arrays, so that each operation runs over a whole block of voxels.
"""

from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import BoolArray, FloatArray
from qcord.estimate.voxelwise import inverse, multiply, packed_pairs, product, unpack

_LIMIT = 100.0
"""Largest logarithm of a fitted signal that is exponentiated; beyond it, only noise was fitted."""

_ROBUST_ROUNDS = 4
_BIWEIGHT = 4.685
"""Constant of Tukey's biweight, in standard deviations, that keeps 95 % of the efficiency on normal noise."""

_REJECT = 3.0
"""Residuals beyond this many standard deviations are outliers (.3 % of normal ones)."""


@dataclass(frozen=True, eq=False)
class LogDesign:
    """A linear model of the logarithm of the signal, prepared for many voxels.

    Parameters
    ----------
    columns : (n, p) array
        Design, each column divided by its scale.
    scale : (p,) array
        Largest magnitude of each column.
    unweighted : (p, n) array
        Pseudo-inverse of the columns.
    products : (p (p + 1) / 2, n) array
        Products of pairs of columns, packed by the lower triangle.
    leverage : (n,) array
        Leverage of each measurement in the unweighted fit.
    """

    columns: FloatArray
    scale: FloatArray
    unweighted: FloatArray
    products: FloatArray
    leverage: FloatArray


@dataclass(frozen=True, eq=False)
class LogLinear:
    """Outcome for a block of v voxels.

    Parameters
    ----------
    theta : (p, v) array
        Estimates; NaN where the measurements do not determine them.
    covariance : (p, p, v) array
        Their covariance; NaN where the noise is not known.
    bias : (p, v) array
        Expected error of the estimates, to second order in the noise.
    sigma : (v,) array
        Standard deviation of the noise: as given, else from the residuals.
    rmse : (v,) array
        Root mean square residual of the signal.
    rejected : (v,) array
        Fraction of the measurements that were left out.
    """

    theta: FloatArray
    covariance: FloatArray
    bias: FloatArray
    sigma: FloatArray
    rmse: FloatArray
    rejected: FloatArray


def prepare(columns: FloatArray) -> LogDesign:
    """Precompute what all voxels share; ``columns`` (n, p) has full rank."""
    scale = np.abs(columns).max(axis=0)
    x = columns / scale
    rows, cols = packed_pairs(x.shape[1])
    pseudo = np.linalg.pinv(x)
    return LogDesign(x, scale, pseudo, np.ascontiguousarray((x[:, rows] * x[:, cols]).T), (x.T * pseudo).sum(axis=0))


def fit_log_linear(
    design: LogDesign,
    signal: FloatArray,
    *,
    sigma: FloatArray | None = None,
    rounds: int = 1,
    robust: bool = False,
    rician: bool = True,
) -> LogLinear:
    """Fit the logarithm of the signal by weighted least squares.

    Parameters
    ----------
    design : LogDesign
        From `prepare`.
    signal : (n, v) array
        Finite measurements. Those that are not positive are left out.
    sigma : (v,) array, optional
        Standard deviation of the noise; without it, or where it is NaN, it is taken from the residuals.
    rounds : int
        Weighted fits in a row. The first takes its weights (squared signals) from an unweighted fit, each
        other one from the fit before.
    robust : bool
        Reweight by the residuals, reject outliers, fit the rest.
    rician : bool
        Whether the signals are magnitudes; it matters for the bias only.

    Returns
    -------
    LogLinear
        Estimates with errors and bias.

    Notes
    -----
    Two terms make up the bias. Weights from a fit to the same noise are correlated with it: to second order
    the error is twice the covariance times the sum over measurements of (leverage in the unweighted fit - leverage
    in the weighted fit) times the row of the design; it vanishes from the second round on, where the weights come
    from a fit with the same errors. And the logarithm of a noisy signal is off: by E1(s^2 / 2) / 2 for a Rician
    magnitude at signal-to-noise ratio s (`log_floor`), by -1 / (2 s^2) for normal noise.

    References
    ----------
    Salvador et al. 2005, doi:10.1002/hbm.20076 (weights);
    Veraart et al. 2013, doi:10.1016/j.neuroimage.2013.05.028 (weights from the fitted signal, iterated);
    Chang, Jones and Pierpaoli 2005, doi:10.1002/mrm.20426 (rejection);
    Collier et al. 2015, doi:10.1002/mrm.25351 (robust weights in the log-linear fit).
    """
    used = signal > 0
    logs = np.log(signal if used.all() else np.where(used, signal, 1.0))
    theta = _unweighted(design, logs, used)
    spare = np.empty_like(logs)  # memory that is used again costs less than new
    for _ in range(rounds):
        theta, unscaled, weights = _weighted(design, logs, theta, used, spare)
    rejected = np.zeros(signal.shape[1])
    if robust:
        theta, used = _without_outliers(design, signal, theta, used, sigma)
        theta, unscaled, weights = _weighted(design, logs, theta, used, spare)
        rejected = 1 - used.mean(axis=0)
    fitted = product(design.columns, theta, spare)
    count = used.sum(axis=0)
    if sigma is None or not np.isfinite(sigma).all():
        residual = np.subtract(logs, fitted, out=logs)
        residual *= residual
        freedom = np.where(count > len(theta), count - len(theta), np.nan)
        scatter = np.sqrt(np.einsum("nv,nv->v", weights, residual) / freedom)
        sigma = scatter if sigma is None else np.where(np.isfinite(sigma), sigma, scatter)
    variance = np.asarray(sigma**2)
    np.exp(np.clip(fitted, -_LIMIT, _LIMIT, out=fitted), out=fitted)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        excess = _log_excess(fitted, variance, rician, logs)
        excess *= weights
        if rounds == 1 and not robust:
            excess += _weight_excess(design, unscaled, weights, variance, used)
        bias = multiply(unscaled, product(design.columns.T, excess))
    residual = np.subtract(signal, fitted, out=fitted)
    if count.min() < len(signal):
        residual *= used
    rmse = np.sqrt(np.einsum("nv,nv->v", residual, residual) / np.maximum(count, 1))
    scale = design.scale[:, None]
    covariance = unscaled * (variance / (scale[:, None] * scale[None, :]))
    return LogLinear(theta / scale, covariance, bias / scale, sigma, rmse, rejected)


def log_floor(snr_squared: FloatArray) -> FloatArray:
    """Expected rise of the logarithm of a Rician magnitude over that of its signal, E1(snr^2 / 2) / 2.

    The exponential integral is taken as exp(-x) ln(1 + g / x) with g a ratio of two quadratics in x that has the
    right limits at both ends, exp(-gamma) and 1 - 1 / (2 x); it is nowhere off by more than .4 %. Beyond a
    signal-to-noise ratio of 4, where it is below 2e-5, it counts as zero.
    """
    return _to_floor(np.array(snr_squared))


def _to_floor(snr_squared: FloatArray) -> FloatArray:
    """`log_floor`, in the place of its argument."""
    low = snr_squared < 16
    x = np.maximum(snr_squared[low] / 2, 1e-3)
    square = x * x
    g = (square + 1.62 * x + 0.317 * np.exp(-np.euler_gamma)) / (square + 2.12 * x + 0.317)
    snr_squared.fill(0.0)
    snr_squared[low] = 0.5 * np.exp(-x) * np.log1p(g / x)
    return snr_squared


def _unweighted(design: LogDesign, logs: FloatArray, used: BoolArray) -> FloatArray:
    theta = product(design.unweighted, logs)
    holes = np.flatnonzero(~used.all(axis=0))
    if holes.size:
        weights = used[:, holes].astype(float)
        theta[:, holes] = _solve(design, weights, logs[:, holes])[0]
    return theta


def _solve(design: LogDesign, weights: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Solution and inverse of the normal matrix; ``values`` are used up."""
    unscaled = inverse(unpack(product(design.products, weights), design.columns.shape[1]))
    return multiply(unscaled, product(design.columns.T, np.multiply(weights, values, out=values))), unscaled


def _weighted(
    design: LogDesign, logs: FloatArray, theta: FloatArray, used: BoolArray, spare: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """One weighted fit; weights are the squared signals that ``theta`` predicts. ``spare`` (n, v) is written to."""
    expected = product(design.columns, theta, spare)
    weights = np.clip(expected, -_LIMIT, _LIMIT)
    weights *= 2
    np.exp(weights, out=weights)
    if not used.all():
        weights *= used
    step, unscaled = _solve(design, weights, np.subtract(logs, expected, out=expected))
    return theta + step, unscaled, weights


def _without_outliers(
    design: LogDesign, signal: FloatArray, theta: FloatArray, used: BoolArray, sigma: FloatArray | None
) -> tuple[FloatArray, BoolArray]:
    """Robust fit, and the measurements that agree with it."""
    logs = np.log(np.where(used, signal, 1.0))
    for _ in range(_ROBUST_ROUNDS):
        expected = product(design.columns, theta)
        fitted = np.exp(np.clip(expected, -_LIMIT, _LIMIT))
        relative = (signal - fitted) / _spread(design, signal - fitted, used, sigma)
        weights = used * (fitted * np.maximum(1 - (relative / _BIWEIGHT) ** 2, 0)) ** 2
        step, _ = _solve(design, weights, logs - expected)
        theta = np.where(np.isfinite(step), theta + step, theta)
    near = used & (np.abs(relative) <= _REJECT)
    residual = signal - np.exp(np.clip(product(design.columns, theta), -_LIMIT, _LIMIT))
    freedom = np.maximum(near.sum(axis=0) - len(theta), 1)
    spread = np.sqrt(np.where(near, residual**2, 0).sum(axis=0) / freedom)
    if sigma is not None:
        spread = np.fmax(spread, sigma)
    return theta, used & (np.abs(residual) <= _REJECT * spread)


def _spread(design: LogDesign, residual: FloatArray, used: BoolArray, sigma: FloatArray | None) -> FloatArray:
    """Standard deviation (v,) of the noise that outliers do not raise, nor lower than ``sigma``."""
    n, p = design.columns.shape
    size = np.where(used, np.abs(residual), 0.0)
    spread = 1.4826 * np.sqrt(n / max(n - p, 1)) * np.median(size, axis=0)
    least = 1e-12 * size.max(axis=0) if sigma is None else sigma
    return np.asarray(np.fmax(spread, least))


def _log_excess(signal: FloatArray, variance: FloatArray, rician: bool, out: FloatArray) -> FloatArray:
    ratio = np.multiply(signal, signal, out=out)
    ratio /= variance
    return _to_floor(ratio) if rician else np.asarray(np.divide(-0.5, ratio, out=ratio))


def _weight_excess(
    design: LogDesign, unscaled: FloatArray, weights: FloatArray, variance: FloatArray, used: BoolArray
) -> FloatArray:
    """What weights from an unweighted fit to the same noise do to the sum of weighted residuals."""
    rows, columns = packed_pairs(len(unscaled))
    twice = np.where(rows == columns, 1.0, 2.0)
    leverage = product(design.products.T * twice, unscaled[rows, columns])
    leverage *= weights
    np.subtract(design.leverage[:, None], leverage, out=leverage)
    leverage *= 2 * variance
    return np.asarray(leverage if used.all() else leverage * used)
