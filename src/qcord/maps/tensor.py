"""Tensor maps from a diffusion series: FA, MD, AD, RD, first eigenvector, each with error."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.fit import Fit
from qcord.core.image import Image, Step, mask_of
from qcord.core.series import Series
from qcord.estimate.blocks import noise_map, run_blocks
from qcord.estimate.fit import as_fit
from qcord.estimate.log_linear import LogDesign, prepare
from qcord.maps.log_linear_maps import (
    fit_signals,
    named_arrays,
    outputs,
    require_method,
    unweighted_signal,
    voxel_flags,
)
from qcord.maps.tensor_errors import Estimate, tensor_estimates
from qcord.models.tensor import TENSOR, log_design

METHODS: Mapping[str, tuple[str, ...]] = {
    "wls": (
        "Salvador et al. 2005, doi:10.1002/hbm.20076",
        "Veraart et al. 2013, doi:10.1016/j.neuroimage.2013.05.028",
    ),
    "iwls": ("Veraart et al. 2013, doi:10.1016/j.neuroimage.2013.05.028",),
    "irls": (
        "Chang, Jones and Pierpaoli 2005, doi:10.1002/mrm.20426",
        "Collier et al. 2015, doi:10.1002/mrm.25351",
    ),
}
"""Estimators, with their references."""

UNITS = {"FA": "1", "MD": "mm2/s", "AD": "mm2/s", "RD": "mm2/s", "S0": "1", "V1": "1", "tensor": "mm2/s"}
"""Maps, with their units."""

COMPONENTS = {"V1": 3, "tensor": 6}

_BLOCK = 8192
"""Voxels a block: so many that threads seldom wait for the interpreter."""


def fit_tensor(
    series: Series,
    mask: Image | None = None,
    *,
    sigma: Image | float | Sequence[float] | None = None,
    method: str = "wls",
    rician: bool = True,
    n_jobs: int | None = None,
) -> Fit:
    """Fit the diffusion tensor.

    Parameters
    ----------
    series : Series
        Magnitudes, with BValue [s/mm2] and Direction (unit vectors in world axes).
    mask : Image, optional
        Voxels to fit; all by default.
    sigma : Image or float, optional
        Standard deviation of the noise, unit of the signal. Without it, or where it is NaN or zero, the residuals
        give it, voxel by voxel, and so include what physiology adds.
    method : str
        ``wls``: weighted by the squared signals that an unweighted fit predicts. ``iwls``: once more with the
        weights that this fit predicts. ``irls``: robust weights, rejection of outliers, weighted fit of the rest.
    rician : bool
        Whether the noise is that of magnitudes; it matters for the bias at low signal only.
    n_jobs : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Fit
        Maps FA [1], MD, AD, RD [mm2/s], S0, V1 (3 components, world axes, pointing up), tensor (6 elements,
        world axes [mm2/s]), each with standard error; bias of FA, MD, AD, RD and S0.

    Raises
    ------
    NotIdentifiable
        If the volumes do not determine a tensor.
    MissingMetadata
        If there are no b-values or directions.
    UnknownName
        If there is no such method.

    Notes
    -----
    Negative eigenvalues count as zero and are flagged AT_BOUND.

    At the signal-to-noise ratios of the cord the bias is not small against the error of a mean over a tract:
    average ``map - bias``, not ``map``. Simulated with 5 b = 0 and 30 directions at 800 s/mm2, 95 % intervals of
    ``map - bias`` of FA cover the truth in 92-96 % of means over 1 to 100 voxels for FA from .5 to .85 and a
    ratio (b = 0) from 6.5 to 20, and for FA of .35 from a ratio of 8; those of ``map`` alone in less than half at
    the worst of them (``benchmarks/models.py coverage``). Intervals of AD are somewhat too short below a ratio of 10
    (88-94 %).

    The noise must be independent between volumes. Denoising by principal components breaks this: it takes noise
    from the residuals and leaves it, and a bias towards the neighbours, in the estimates. Fit the series as
    measured for tables; fit the denoised one for the eye.
    """
    require_method(method, METHODS, "the tensor")
    design = prepare(log_design(series.protocol))
    noise = noise_map(sigma, series.image.grid, 1)
    work = partial(_fit_block, design, method, rician)
    arrays = run_blocks(
        work,
        series.data,
        mask_of(mask, series.image.grid),
        outputs(tuple(UNITS), COMPONENTS),
        extra=None if noise is None else {"sigma": noise},
        block=_BLOCK,
        n_jobs=n_jobs,
    )
    settings = {
        "model": TENSOR.name,
        "method": method,
        "noise": "residuals" if sigma is None else "given",
        "distribution": "rician" if rician else "gaussian",
    }
    step = Step("fit_tensor", settings, (*TENSOR.references, *METHODS[method]))
    return as_fit(TENSOR, series.image, arrays, step, UNITS)


def _fit_block(
    design: LogDesign, method: str, rician: bool, signals: FloatArray, extra: Mapping[str, FloatArray]
) -> dict[str, AnyArray]:
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        fit, finite = fit_signals(design, method, rician, signals, extra)
        covariance = fit.covariance[1:, 1:]
        estimates = tensor_estimates(fit.theta[1:], covariance, fit.bias[1:])
        estimates["S0"] = unweighted_signal(fit)
        estimates["tensor"] = Estimate(fit.theta[1:], np.sqrt(np.einsum("iiv->iv", covariance)), fit.bias[1:])
        return named_arrays(voxel_flags(finite, fit, estimates), fit, estimates)
