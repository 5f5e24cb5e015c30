"""Fit a model by name: its closed form or fast estimator where it has one, nonlinear least squares otherwise."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from qcord.core.errors import UnknownName
from qcord.core.fit import Fit
from qcord.core.image import Image
from qcord.core.model import SignalModel
from qcord.core.noise import Noise
from qcord.core.series import Series
from qcord.estimate.fit import fit as fit_nonlinear
from qcord.estimate.fit import noise_level
from qcord.estimate.given_errors import carry_given_errors
from qcord.maps.covariance_tensor import fit_covariance_tensor
from qcord.maps.inhomogeneous_mt import ihmtr, ihmtsat
from qcord.maps.kurtosis import METHODS as KURTOSIS_METHODS
from qcord.maps.kurtosis import fit_kurtosis
from qcord.maps.mean_signal_kurtosis import fit_mean_signal_kurtosis
from qcord.maps.microscopic_anisotropy import fit_microscopic_anisotropy
from qcord.maps.mp2rage import fit_pair
from qcord.maps.mtr import mtr
from qcord.maps.mtsat import mtsat
from qcord.maps.multi_parameter_mapping import multi_parameter_maps
from qcord.maps.myelin_water import myelin_water
from qcord.maps.noddi import fit_noddi
from qcord.maps.relaxation import fit_relaxation
from qcord.maps.spherical_mean import fit_spherical_mean
from qcord.maps.tensor import METHODS, fit_tensor
from qcord.maps.variable_flip_angle import flip_angle_maps
from qcord.models import registry

GENERAL = ("nonlinear", "robust")
"""Estimators that every model has: nonlinear least squares, of all measurements and without outliers."""

FAST: Mapping[str, Mapping[str, Callable[..., Fit]]] = MappingProxyType(
    {
        "tensor": {name: partial(fit_tensor, method=name) for name in METHODS},
        "mufa": {"powder": fit_microscopic_anisotropy},
        "mufa-cumulant": {"powder": partial(fit_microscopic_anisotropy, form="cumulant")},
        "qti": {name: partial(fit_covariance_tensor, method=name) for name in METHODS},
        "kurtosis": {name: partial(fit_kurtosis, method=name) for name in KURTOSIS_METHODS},
        "mean-signal-kurtosis": {"weighted-means": fit_mean_signal_kurtosis},
        "mtr": {"closed-form": mtr},
        "mtsat": {"closed-form": mtsat, "half-tangent": partial(mtsat, half_tangent=True)},
        "ihmtr": {"closed-form": ihmtr},
        "ihmtsat": {"closed-form": ihmtsat},
        "mpm": {"log-linear": multi_parameter_maps},
        "myelin-water": {"spectrum": myelin_water},
        "vfa": {"projection": flip_angle_maps},
        "mp2rage": {"signed": fit_pair},
        **{
            name: {"projection": partial(fit_relaxation, name)}
            for name in ("t2", "r2star", "double-angle", "actual-flip-angle")
        },
        **{
            name: {
                "magnitude": partial(fit_relaxation, name),
                "signed": partial(fit_relaxation, name, rician=False),
            }
            for name in ("inversion-recovery", "inversion-recovery-tr")
        },
        "noddi": {"likelihood": fit_noddi},
        "smt": {"powder-average": partial(fit_spherical_mean, model="smt")},
        "smt-mc": {"powder-average": partial(fit_spherical_mean, model="smt-mc")},
    }
)
"""Model to its own estimators, the default first. They take given maps by their names in lower case."""


def fit(
    model: str | SignalModel,
    series: Series,
    mask: Image | None = None,
    *,
    method: str | None = None,
    noise: Noise | Image | float | Sequence[float] | None = None,
    given: Mapping[str, Image | float] | None = None,
    given_std: Mapping[str, Image | float] | None = None,
    fixed: Mapping[str, Image | float] | None = None,
    n_jobs: int | None = None,
) -> Fit:
    """Fit a model to a series.

    Parameters
    ----------
    model : str or SignalModel
        Name in `qcord.models.registry`, or a model.
    series : Series
        Measurements with the protocol columns that the model needs.
    mask : Image, optional
        Voxels to fit; all by default.
    method : str, optional
        One of the model's own (`methods`), ``nonlinear`` or ``robust`` (outliers left out). Without it, the model's
        own if there is one and no parameter is fixed.
    noise : Gaussian, Rician, Image, float or sequence of float, optional
        Noise of the measurements: `Gaussian` for signed or complex ones, `Rician` for magnitudes. A bare standard
        deviation (a map, one value, or one a measurement) means magnitudes. Without noise, the residuals give it
        where there are any.
    given : mapping of str to Image or float, optional
        Maps or values of given parameters, such as B1.
    given_std : mapping of str to Image or float, optional
        Standard errors of given parameters, in their unit: also of one that is not given, whose default then counts
        as that uncertain. The fit is made twice more for each (`qcord.estimate.given_errors`).
    fixed : mapping of str to Image or float, optional
        Free parameters that are held at a value.
    n_jobs : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Fit
        Maps with standard errors and bias. With ``given_std`` the standard errors hold these errors too, and
        `Fit.shifts` has their signed effect, which is what to average over a region.

    Raises
    ------
    UnknownName
        If there is no such model, method or parameter.
    MissingMetadata
        If the series lacks a column.
    NotIdentifiable
        If the measurements do not determine the parameters.
    ImplausibleValue
        If a standard error of a given parameter is negative.
    """
    chosen = registry.get(model) if isinstance(model, str) else model
    for name in given_std or {}:
        chosen.given_index(name)

    def once(known: Mapping[str, Image | float]) -> Fit:
        return _fit(chosen, series, mask, method=method, noise=noise, given=known, fixed=fixed, n_jobs=n_jobs)

    result = once(given or {})
    return carry_given_errors(result, once, chosen, given or {}, given_std) if given_std else result


def methods(model: SignalModel) -> tuple[str, ...]:
    """Names of the estimators of a model, the default first; the last two exist for every model."""
    return (*_own(model), *GENERAL)


def _fit(
    chosen: SignalModel,
    series: Series,
    mask: Image | None,
    *,
    method: str | None,
    noise: Noise | Image | float | Sequence[float] | None,
    given: Mapping[str, Image | float],
    fixed: Mapping[str, Image | float] | None,
    n_jobs: int | None,
) -> Fit:
    """Fit at the given values as they are."""
    own = _own(chosen)
    if method is None:
        method = "nonlinear" if fixed or not own else next(iter(own))
    if method in GENERAL:
        robust = method == "robust"
        return fit_nonlinear(chosen, series, mask, noise=noise, given=given, fixed=fixed, robust=robust, n_jobs=n_jobs)
    if method not in own or fixed:
        because = " with fixed parameters" if fixed else ""
        expected = ", ".join(GENERAL if fixed else methods(chosen))
        raise UnknownName(
            f"There is no method '{method}' for model {chosen.name}{because}; expected one of {expected}."
        )
    for name in given:
        chosen.given_index(name)
    settings: dict[str, Any] = {name.lower(): value for name, value in given.items()}
    sigma, rician = noise_level(noise)
    if noise is not None and not rician:
        settings["rician"] = False
    return own[method](series, mask, sigma=sigma, n_jobs=n_jobs, **settings)


def _own(model: SignalModel) -> Mapping[str, Callable[..., Fit]]:
    return FAST.get(model.name, {}) if registry.MODELS.get(model.name) is model else {}
