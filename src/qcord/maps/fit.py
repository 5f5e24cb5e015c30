"""Fit a model by name: its closed form or fast estimator where it has one, nonlinear least squares otherwise."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from qcord.core.errors import UnknownName
from qcord.core.fit import Fit
from qcord.core.image import Image
from qcord.core.model import SignalModel
from qcord.core.series import Series
from qcord.estimate.fit import fit as fit_nonlinear
from qcord.maps.mtr import mtr
from qcord.maps.mtsat import mtsat
from qcord.maps.tensor import METHODS, fit_tensor
from qcord.models import registry

GENERAL = ("nonlinear", "rician")
"""Estimators that every model has: least squares, without and with the noise floor of magnitudes."""

FAST: Mapping[str, Mapping[str, Callable[..., Fit]]] = MappingProxyType(
    {
        "tensor": {name: partial(fit_tensor, method=name) for name in METHODS},
        "mtr": {"closed-form": mtr},
        "mtsat": {"closed-form": mtsat, "half-tangent": partial(mtsat, half_tangent=True)},
    }
)
"""Model to its own estimators, the default first. They take given maps by their names in lower case."""


def fit(
    model: str | SignalModel,
    series: Series,
    mask: Image | None = None,
    *,
    method: str | None = None,
    sigma: Image | float | Sequence[float] | None = None,
    given: Mapping[str, Image] | None = None,
    fixed: Mapping[str, float | Image] | None = None,
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
        One of the model's own (`methods`), ``nonlinear`` or ``rician`` (nonlinear with the noise floor). Without
        it, the model's own if there is one and no parameter is fixed.
    sigma : Image, float or sequence of float, optional
        Standard deviation of the noise; one map or value, or one a measurement.
    given : mapping of str to Image, optional
        Maps of given parameters, such as B1.
    fixed : mapping of str to float or Image, optional
        Free parameters that are held at a value.
    n_jobs : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Fit
        Maps with standard errors and bias.

    Raises
    ------
    UnknownName
        If there is no such model, method or parameter.
    MissingMetadata
        If the series lacks a column.
    NotIdentifiable
        If the measurements do not determine the parameters.
    """
    chosen = registry.get(model) if isinstance(model, str) else model
    own = _own(chosen)
    if method is None:
        method = "nonlinear" if fixed or not own else next(iter(own))
    if method in GENERAL:
        return fit_nonlinear(
            chosen, series, mask, sigma=sigma, given=given, fixed=fixed, rician=method == "rician", n_jobs=n_jobs
        )
    if method not in own or fixed:
        because = " with fixed parameters" if fixed else ""
        expected = ", ".join(GENERAL if fixed else methods(chosen))
        raise UnknownName(
            f"There is no method '{method}' for model {chosen.name}{because}; expected one of {expected}."
        )
    for name in given or {}:
        chosen.given_index(name)
    maps = {name.lower(): image for name, image in (given or {}).items()}
    return own[method](series, mask, sigma=sigma, n_jobs=n_jobs, **maps)


def methods(model: SignalModel) -> tuple[str, ...]:
    """Names of the estimators of a model, the default first; the last two exist for every model."""
    return (*_own(model), *GENERAL)


def _own(model: SignalModel) -> Mapping[str, Callable[..., Fit]]:
    return FAST.get(model.name, {}) if registry.MODELS.get(model.name) is model else {}
