"""Maps of microscopic anisotropy: muFA beside FA, and the order that makes the difference, each with error."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qcord.core.arrays import AnyArray, BoolArray, FloatArray
from qcord.core.errors import NotIdentifiable, UnknownName
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.image import Image, Step
from qcord.core.noise import Gaussian
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.fit import fit as fit_nonlinear
from qcord.estimate.jacobian import complex_step
from qcord.estimate.propagate import independent_errors
from qcord.estimate.second_order import STEEPEST_ROOT, errors, root_bias
from qcord.maps.log_linear_maps import LOWEST_SNR
from qcord.maps.mtr import take_noise
from qcord.maps.powder import averaged_protocol, powder_average, scatter
from qcord.maps.tensor import fit_tensor
from qcord.models.microscopic_anisotropy import CUMULANT, GAMMA, order_parameter, powder_design
from qcord.models.tensor import log_design

FORMS = {"gamma": GAMMA, "cumulant": CUMULANT}

TENSOR_LIMIT = 1200.0
"""b-value [s/mm2] up to which volumes enter the tensor, as far as they determine it: beyond, diffusion in tissue is no
longer described by one tensor, and FA would change with the highest b-value."""


def fit_microscopic_anisotropy(
    series: Series,
    mask: Image | None = None,
    *,
    sigma: Image | float | Sequence[float] | None = None,
    form: str = "gamma",
    rician: bool = True,
    n_jobs: int | None = None,
) -> Fit:
    """Fit powder averages, and the tensor beside them.

    Parameters
    ----------
    series : Series
        Magnitudes, with BValue [s/mm2], Direction and, where encoding is not linear, BDelta or SecondDirection. Double
        diffusion encoding needs nothing else: its parallel pairs are linear b-tensors, its perpendicular ones planar.
    mask : Image, optional
        Voxels to fit; all by default.
    sigma : Image, float or sequence of float, optional
        Standard deviation of the noise; one map or value, or one a volume. Without it `qcord.maps.powder.scatter`
        gives it.
    form : str
        ``gamma`` or ``cumulant``; see `qcord.models.microscopic_anisotropy`, also for the definition of muFA.
    rician : bool
        Whether the noise is that of magnitudes, whose floor is taken off before averaging.
    n_jobs : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Fit
        Maps S0, MD [mm2/s], V_I, V_A [mm4/s2], muFA, C_mu (its square), MK_I, MK_A, FA of the tensor, and OP, the order
        parameter, each with standard error and bias. muFA and OP are NaN, and the voxel is flagged NO_VALUE, where
        noise makes V_A negative; C_mu has a value there, and is what to average where muFA is low.

    Raises
    ------
    UnknownName
        If there is no such form.
    NotIdentifiable
        If the series has fewer than two b-tensor shapes or two non-zero b-values.
    MissingMetadata
        If there are no b-values, or no directions where the shape needs them.

    Notes
    -----
    Intervals hold what noise does. Simulated with 102 volumes of linear and spherical encoding up to 2000 s/mm2, those
    of ``map - bias`` cover what the form gives without noise in 92-98 % from a signal-to-noise ratio of 20, FA and OP
    where they exceed twice their error. What the form assumes of cumulants beyond the second comes on top: in white
    matter (sticks and zeppelins, muFA .80) the gamma form is .05 high and the cumulant form .02 low, in gray matter
    (dispersed tensors, muFA .72) they are .01 and .05 low (``benchmarks/microscopic_anisotropy.py``).

    References
    ----------
    Lasic et al. 2014, doi:10.3389/fphy.2014.00011;
    Szczepankiewicz et al. 2016, doi:10.1016/j.neuroimage.2016.07.038.
    """
    if form not in FORMS:
        raise UnknownName(f"There is no form '{form}' of microscopic anisotropy; expected one of {', '.join(FORMS)}.")
    powder_check(series.protocol)
    noise = scatter(series) if sigma is None else sigma
    averages = powder_average(series, sigma=noise, rician=rician)
    assert averages.sigma is not None
    fit = fit_nonlinear(FORMS[form], averages.series, mask, noise=Gaussian(averages.sigma.data), n_jobs=n_jobs)
    rows = tensor_rows(series.protocol)
    tensor = fit_tensor(
        series.take(rows),
        mask,
        sigma=take_noise(sigma, rows.tolist(), len(series.protocol)),
        rician=rician,
        n_jobs=n_jobs,
    )
    settings = {
        "model": fit.model,
        "method": f"powder averages, {form} form",
        "noise": "scatter" if sigma is None else "given",
        "distribution": "rician" if rician else "gaussian",
        "measurements": len(averages.series.protocol),
        "tensor": f"{len(rows)} volumes up to {series.protocol['BValue'][rows].max():g} s/mm2",
    }
    step = Step("fit_microscopic_anisotropy", settings, fit.rmse.history[-1].references)
    known = np.asarray((averages.sigma.data > 0).all(axis=3))
    with np.errstate(invalid="ignore"):
        dark = averages.series.data[..., 0] < LOWEST_SNR * averages.sigma.data[..., 0] / averages.gain[0]
    return _merge(fit, tensor, (known, np.asarray(dark)), step)


def powder_check(protocol: Protocol) -> FloatArray:
    """Design matrix of the powder averages of a protocol.

    Raises
    ------
    NotIdentifiable
        If it does not determine muFA.
    """
    return powder_design(averaged_protocol(protocol))


def tensor_rows(protocol: Protocol) -> AnyArray:
    """Rows for the tensor: up to `TENSOR_LIMIT` if they determine one, else all."""
    low = np.flatnonzero(protocol["BValue"] <= TENSOR_LIMIT)
    try:
        log_design(protocol.take(low))
    except NotIdentifiable:
        return np.arange(len(protocol))
    return low


def _merge(fit: Fit, tensor: Fit, noise: tuple[BoolArray, BoolArray], step: Step) -> Fit:
    """Maps of both fits and the order parameter; ``noise`` is where it is known, and where there is nothing else."""
    known, dark = noise
    maps, std, bias = ({name: one.data.astype(float) for name, one in m.items()} for m in (fit.maps, fit.std, fit.bias))
    maps["FA"], std["FA"], bias["FA"] = (m["FA"].data.astype(float) for m in (tensor.maps, tensor.std, tensor.bias))
    with np.errstate(all="ignore"):
        # second differences would step over the root of a negative number
        slope = std["C_mu"] / (2 * maps["muFA"])
        bend = -(slope**2) / maps["muFA"]
        std["muFA"] = errors(slope[None], bend[None, None], STEEPEST_ROOT)[0]
        bias["muFA"] = root_bias(maps["muFA"], bias["C_mu"], std["C_mu"])
        maps["OP"], std["OP"], bias["OP"] = _order(*(np.stack([m["FA"], m["MK_A"]]) for m in (maps, std, bias)))
    flag = np.array(fit.flag.data)
    usable = np.isin(flag, [Flag.OK, Flag.AT_BOUND, Flag.NOT_CONVERGED])
    flag[usable & ~known] = Flag.NO_ERROR
    flag[np.isin(flag, [Flag.OK, Flag.NO_ERROR]) & ~np.isfinite(maps["muFA"])] = Flag.NO_VALUE
    flag[usable & dark] = Flag.NO_SIGNAL
    history = (*fit.flag.history[:-1], step)
    units = {**{name: one.unit for name, one in fit.maps.items()}, "FA": "1", "OP": "1"}

    def images(arrays: dict[str, FloatArray]) -> dict[str, Image]:
        return {
            name: fit.flag.derive(array.astype(np.float32), unit=units[name], history=history)
            for name, array in arrays.items()
        }

    for name in maps:
        maps[name] = np.where(dark, np.nan, maps[name])
        judged = known & np.isfinite(maps[name])
        std[name], bias[name] = (np.where(judged, group[name], np.nan) for group in (std, bias))
        # a bias beyond the standard error means that the expansion in powers of the noise has failed
        bias[name] = np.clip(bias[name], -std[name], std[name])
    return replace(
        fit,
        maps=images(maps),
        std=images(std),
        bias=images(bias),
        rmse=fit.rmse.derive(fit.rmse.data, history=history),
        criterion=fit.criterion.derive(fit.criterion.data, history=history),
        flag=fit.flag.derive(flag, history=history),
    )


def _order(values: FloatArray, std: FloatArray, bias: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Order parameter with error and bias from FA and MK_A, (2, ...) each; their errors count as independent."""

    def formula(pair: AnyArray) -> AnyArray:
        return order_parameter(pair[0], pair[1])[None]

    error, bend = independent_errors(formula, values, std, rician=False)
    slope = complex_step(lambda t: order_parameter(t[..., 0], t[..., 1]), np.moveaxis(values, 0, -1))
    value = formula(values)[0]
    return value, error[0], bend[0] + (slope * np.moveaxis(bias, 0, -1)).sum(axis=-1)
