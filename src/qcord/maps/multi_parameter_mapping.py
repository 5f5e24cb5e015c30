"""R1, R2*, MTsat and amplitude from multi-echo spoiled gradient echoes, without iteration."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.image import Image, Step, mask_of
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.blocks import Output, given_maps, noise_map, run_blocks
from qcord.estimate.fit import as_fit
from qcord.estimate.jacobian import complex_step
from qcord.estimate.log_linear import LogDesign, fit_log_linear, prepare
from qcord.estimate.propagate import root, second_differences
from qcord.maps.closed_form import LOWEST_SNR
from qcord.models.multi_parameter_mapping import MPM, intercepts_to_parameters, log_design


def multi_parameter_maps(
    series: Series,
    mask: Image | None = None,
    *,
    sigma: Image | float | None = None,
    b1: Image | float | None = None,
    rician: bool = True,
    n_jobs: int | None = None,
) -> Fit:
    """Weighted log-linear fit with one decay for all weightings, then Helms' closed form of the three intercepts.

    Parameters
    ----------
    series : Series
        Magnitudes with FlipAngle [deg], RepetitionTimeExcitation [s], EchoTime [s] and MTState, of three weightings,
        which these columns tell apart.
    mask : Image, optional
        Voxels to use; all by default.
    sigma : Image or float, optional
        Standard deviation of the noise; without it the residuals give it.
    b1 : Image or float, optional
        Transmit field, actual over nominal flip angle [1].
    rician : bool
        Whether the noise is that of magnitudes; it matters for the bias only.
    n_jobs : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Fit
        Maps A, R1 [1/s], MTsat [percent], R2star [1/s], T1 and T2star [s], with standard errors and bias. Without
        ``b1`` T1, R1 and A are apparent values, and the history says so.

    Raises
    ------
    MissingMetadata
        If a setting is absent, or they do not tell three weightings with several echoes.
    GridMismatch
        If the transmit field or the noise lies on another grid.

    References
    ----------
    Weiskopf et al. 2014, doi:10.3389/fnins.2014.00278;
    Helms, Dathe, Kallenberg and Dechent 2008, doi:10.1002/mrm.21732, with erratum 2010, doi:10.1002/mrm.22607.
    """
    grid = series.image.grid
    columns, triplet = log_design(series.protocol)
    extra: dict[str, AnyArray] = {} if b1 is None else given_maps({"B1": b1}, grid)
    noise = noise_map(sigma, grid, 1)
    if noise is not None:
        extra["sigma"] = noise
    arrays = run_blocks(
        partial(_block, prepare(columns), triplet, rician),
        series.data,
        mask_of(mask, grid),
        [*(Output(prefix + n) for prefix in ("", "std ", "bias ") for n in MPM.units), Output("rmse")],
        extra=extra,
        n_jobs=n_jobs,
    )
    settings = {
        "model": MPM.name,
        "method": "log-linear with common decay, closed form",
        "noise": "residuals" if sigma is None else "given",
        "B1": "given" if b1 is not None else "not corrected: T1, R1 and A are apparent values",
    }
    return as_fit(MPM, series.image, arrays, Step("multi_parameter_maps", settings, MPM.references))


def _block(
    design: LogDesign, triplet: Protocol, rician: bool, signals: FloatArray, extra: Mapping[str, FloatArray]
) -> dict[str, AnyArray]:
    b1 = extra["B1"][0] if "B1" in extra else np.ones(signals.shape[1])
    finite = np.isfinite(signals).all(axis=0) & np.isfinite(b1)
    sigma = np.where(extra["sigma"][0] > 0, extra["sigma"][0], np.nan) if "sigma" in extra else None

    def values(theta: AnyArray) -> AnyArray:
        """Free and derived values (v, m) from intercepts and decay (v, 4)."""
        free = intercepts_to_parameters(np.moveaxis(theta, -1, 0), triplet, b1)
        return np.moveaxis(np.concatenate([free, 1 / free[1:2], 1 / free[3:4]]), 0, -1)

    with np.errstate(all="ignore"):
        fit = fit_log_linear(design, np.where(finite, signals, 1.0), sigma=sigma, rician=rician)
        determined = np.isfinite(fit.theta).all(axis=0)
        theta = np.where(determined, fit.theta, 0.0).T
        covariance = np.moveaxis(fit.covariance, -1, 0)
        value, slope = values(theta), complex_step(values, theta)
        std = np.sqrt(np.einsum("vmi,vij,vmj->vm", slope, covariance, slope))
        bias = second_differences(values, theta, root(covariance)) / 2 + np.einsum("vmi,iv->vm", slope, fit.bias)
        bias = np.clip(bias, -std, std)  # a larger one means that the expansion in powers of the noise has failed
        floored = (np.exp(theta[:, :3]) < LOWEST_SNR * fit.sigma[:, None]).any(axis=1)
        lit = determined & (signals > 0).any(axis=0) & ~floored
        low, high = np.array([p.bounds for p in MPM.free], dtype=float).T
        physical = ((value[:, :4] >= low) & (value[:, :4] <= high)).all(axis=1)
    conditions = [~finite, ~lit, ~physical, ~np.isfinite(std).all(axis=1)]
    flags = [Flag.NOT_FINITE, Flag.NO_SIGNAL, Flag.UNPHYSICAL, Flag.NO_ERROR]
    good = finite & lit & physical
    arrays: dict[str, AnyArray] = {
        "flag": np.select(conditions, [int(f) for f in flags], int(Flag.OK)),
        "rmse": np.where(good, fit.rmse, np.nan),
    }
    for k, name in enumerate(MPM.units):
        arrays[name] = np.where(good, value[:, k], np.nan)
        arrays["std " + name] = np.where(good, std[:, k], np.nan)
        arrays["bias " + name] = np.where(good, bias[:, k], np.nan)
    return arrays
