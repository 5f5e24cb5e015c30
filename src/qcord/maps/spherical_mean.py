"""Maps of the spherical mean technique: powder averages of a diffusion series, and the fit of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from qcord.core.arrays import AnyArray, BoolArray
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.image import Image, Step
from qcord.core.model import SignalModel
from qcord.core.noise import Gaussian
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.blocks import noise_map
from qcord.estimate.fit import fit as fit_nonlinear
from qcord.maps.neurite_errors import is_wide, wide_neurite_errors
from qcord.maps.powder import averaged_protocol, powder_average, scatter
from qcord.maps.spherical_mean_errors import WIDE, wide_errors
from qcord.models.encoding import UNWEIGHTED
from qcord.models.spherical_mean import FASTEST, SMT, SMT_MC, require_averages

FORMS = {model.name: model for model in (SMT, SMT_MC)}

LOWEST_SNR = 3.0
"""Signal without weighting, over noise, below which there is no value."""

UNKNOWN = 12**-0.5
"""Standard error of a fraction that tells nothing: that of a draw from 0 to 1."""


def fit_spherical_mean(
    series: Series,
    mask: Image | None = None,
    *,
    model: str = SMT.name,
    sigma: Image | float | Sequence[float] | None = None,
    rician: bool = True,
    n_jobs: int | None = None,
) -> Fit:
    """Average a diffusion series over directions and fit a model of the averages.

    Parameters
    ----------
    series : Series
        Magnitudes, with BValue [s/mm2] and Direction (unit vectors in world axes); or powder averages, which have the
        column Volumes, with the noise of each average.
    mask : Image, optional
        Voxels to fit; all by default.
    model : str
        ``smt`` (tensor of micro-environments) or ``smt-mc`` (neurites and the space around them).
    sigma : Image, float or sequence of float, optional
        Standard deviation of the noise; one map or value, or one a volume. Without it, what directions scatter about a
        smooth function of them gives it (`qcord.maps.powder.scatter`).
    rician : bool
        Whether the noise is that of magnitudes, whose floor is taken off before averaging.
    n_jobs : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Fit
        Maps of the model's values, with standard errors and bias. ``smt``: MicroMD, MicroAD, MicroRD [mm2/s],
        MicroDelta, MicroFA, S0; ``smt-mc``: NeuriteFraction, NeuriteDiffusivity, ExtraRD [mm2/s], S0.

    Raises
    ------
    NotIdentifiable
        If the series has not b = 0 and two shells.
    MissingMetadata
        If there are no b-values or directions.
    ImplausibleValue
        If encoding is not linear.

    Notes
    -----
    Two shells and b = 0 leave no residual: only the noise of the averages tells the errors. The averages depend on the
    square of the anisotropy, or of what the neurite fraction lacks to 1: where noise is not small against that, errors
    are of the whole likelihood (`qcord.maps.spherical_mean_errors`, `qcord.maps.neurite_errors`). A voxel whose 95 %
    interval of MicroDelta or NeuriteFraction holds more than three quarters of what is possible is flagged
    UNDETERMINED; without known noise, one whose anisotropy or fraction has the standard error of a draw from 0 to 1.
    """
    chosen: SignalModel = FORMS[model]
    spherical_mean_check(series.protocol)
    given = sigma
    averages, level = series, sigma
    if not _averaged(series.protocol):
        sigma = scatter(series) if given is None else given
        powder = powder_average(series, sigma=sigma, rician=rician)
        averages, level = powder.series, powder.sigma
    values = level.data if isinstance(level, Image) else level
    noise = None if values is None else Gaussian(np.asarray(values, dtype=float))
    fit = fit_nonlinear(chosen, averages, mask, noise=noise, n_jobs=n_jobs)
    settings = {
        "model": chosen.name,
        "method": "powder averages",
        "noise": "scatter" if given is None else "given",
        "distribution": "rician" if rician else "gaussian",
        "averages": len(averages.protocol),
    }
    lit = _lit(series, noise_map(sigma, series.image.grid, len(series.protocol)))
    result = _bounded(chosen, fit, lit, Step("fit_spherical_mean", settings, chosen.references))
    known = noise_map(level, series.image.grid, len(averages.protocol))
    if known is None:
        return result
    return _integrated(result, np.asarray(fit.flag.data), averages, known, n_jobs)


def spherical_mean_check(protocol: Protocol) -> None:
    """Raise unless the powder averages of a protocol determine the models; see `require_averages`."""
    require_averages(protocol if _averaged(protocol) else averaged_protocol(protocol))


def _averaged(protocol: Protocol) -> bool:
    """Whether rows are powder averages already, as those of `qcord.maps.powder` say by how many volumes they hold."""
    return "Volumes" in protocol


def _lit(series: Series, level: AnyArray | None) -> BoolArray:
    """Where the unweighted signal is above the noise (x, y, z); true where it is NaN, which has a flag of its own."""
    rows = np.flatnonzero(series.protocol["BValue"] <= UNWEIGHTED)
    mean = sum(series.data[..., n].astype(float) for n in rows) / len(rows)
    floor = 0.0 if level is None else LOWEST_SNR * np.nan_to_num(level[..., 0])
    with np.errstate(invalid="ignore"):
        return np.asarray(~((mean <= 0) | (mean < floor)))


def _integrated(fit: Fit, outcome: AnyArray, averages: Series, level: AnyArray, n_jobs: int | None) -> Fit:
    """Errors by the whole likelihood where those of anisotropy or fraction are wide; what is open is flagged by them.

    ``outcome`` (x, y, z) are the flags of the search, which stay where the interval is not open.
    """
    with np.errstate(invalid="ignore"):
        noisy = (level > 0).all(axis=-1) & np.isfinite(averages.data).all(axis=-1)
        if fit.model == SMT.name:
            chosen = noisy & (fit.std["MicroDelta"].data > WIDE)
        else:
            chosen = noisy & is_wide(fit.maps["NeuriteFraction"].data, fit.std["NeuriteFraction"].data)
    if not chosen.any():
        return fit
    if fit.model == SMT.name:
        found = wide_errors(averages, level, fit.maps, chosen, n_jobs=n_jobs)
    else:
        found = wide_neurite_errors(averages, level, fit, chosen, n_jobs=n_jobs)
    chosen &= np.isfinite(np.stack(list(found.values()))).all(axis=0)

    def merged(maps: Mapping[str, Image], prefix: str) -> dict[str, Image]:
        return {key: one.derive(np.where(chosen, found[prefix + key], one.data)) for key, one in maps.items()}

    open_ = chosen & (found["flag"] == Flag.UNDETERMINED)
    flag = np.where(chosen, np.where(open_, np.uint8(Flag.UNDETERMINED), outcome), fit.flag.data)
    return replace(fit, std=merged(fit.std, "std "), bias=merged(fit.bias, "bias "), flag=fit.flag.derive(flag))


def _bounded(model: SignalModel, fit: Fit, lit: BoolArray, step: Step) -> Fit:
    """Errors no larger than what a value may vary at all, bias no larger than these, and flags that say so."""
    fraction = model.free[1 if model.free[1].unit == "1" else 2].name
    flag, spread = np.array(fit.flag.data), np.asarray(fit.std[fraction].data)
    with np.errstate(invalid="ignore"):
        open_ = np.isin(flag, [Flag.OK, Flag.AT_BOUND, Flag.NOT_CONVERGED]) & (spread >= UNKNOWN)
        flag[open_] = Flag.UNDETERMINED
        flag[~lit & (flag != Flag.OUTSIDE) & (flag != Flag.NOT_FINITE)] = Flag.NO_SIGNAL

        def capped(name: str) -> AnyArray:
            limit = np.inf if name == "S0" else {"1": 1.0, "mm2/s": FASTEST}[fit.maps[name].unit]
            return np.asarray(np.minimum(fit.std[name].data, np.float32(limit)))

        std = {name: capped(name) for name in fit.maps}
        # where a parameter is open, or the bias beyond the error, the expansion in powers of the noise has failed
        bias = {k: np.where(open_, np.float32(0), np.clip(b.data, -std[k], std[k])) for k, b in fit.bias.items()}

    def image(one: Image, data: AnyArray) -> Image:
        return one.derive(np.where(lit, data, np.float32(np.nan)), history=(*one.history[:-1], step))

    return Fit(
        fit.model,
        {name: image(one, one.data) for name, one in fit.maps.items()},
        {name: image(fit.std[name], data) for name, data in std.items()},
        image(fit.rmse, fit.rmse.data),
        fit.flag.derive(flag, history=(*fit.flag.history[:-1], step)),
        fit.criterion,
        {name: image(fit.bias[name], data) for name, data in bias.items()},
    )
