"""Fit any model to a series: maps of its parameters and derived values, each with error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import AnyArray, BoolArray, FloatArray
from qcord.core.errors import MissingMetadata, NotIdentifiable
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.grid import Grid, require_same_grid
from qcord.core.image import Image, Step, mask_of
from qcord.core.model import SignalModel
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.blocks import Output, given_maps, noise_map, run_blocks
from qcord.estimate.jacobian import gradient
from qcord.estimate.nonlinear import Solution, fit_nonlinear
from qcord.estimate.propagate import curvature_bias, delta


def fit(
    model: SignalModel,
    series: Series,
    mask: Image | None = None,
    *,
    sigma: Image | float | Sequence[float] | None = None,
    given: Mapping[str, Image] | None = None,
    fixed: Mapping[str, float | Image] | None = None,
    rician: bool = False,
    n_jobs: int | None = None,
) -> Fit:
    """Fit a model by nonlinear least squares, voxel by voxel.

    Parameters
    ----------
    model : SignalModel
        The contrast.
    series : Series
        Measurements with the columns that the model needs.
    mask : Image, optional
        Voxels to fit; all by default.
    sigma : Image, float or sequence of float, optional
        Standard deviation of the noise; one map or value, or one a measurement. Without it the residuals give it.
    given : mapping of str to Image, optional
        Maps of given parameters, such as B1; the defaults of the model otherwise.
    fixed : mapping of str to float or Image, optional
        Free parameters that are held at a value.
    rician : bool
        Fit magnitudes to their expectation above the noise floor; needs ``sigma``.
    n_jobs : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Fit
        Free and derived values, by name.

    Raises
    ------
    MissingMetadata
        If a protocol column is absent, or ``rician`` is asked for without ``sigma``.
    NotIdentifiable
        If there are fewer measurements than parameters.
    UnknownName
        If a given or fixed parameter is not one of the model's.
    GridMismatch
        If a map lies on another grid.
    """
    held = fixed or {}
    _check(model, series, sigma, given, held, rician=rician)
    grid = series.image.grid
    extra: dict[str, AnyArray] = {f"given {k}": v for k, v in given_maps(given, grid).items()}
    extra |= {f"fixed {k}": _held_map(k, v, grid) for k, v in held.items()}
    noise = noise_map(sigma, grid, len(series.protocol))
    if noise is not None:
        extra["sigma"] = noise
    task = _Task(model, series.protocol, tuple(held), rician)
    arrays = run_blocks(
        task.run,
        series.data,
        mask_of(mask, grid),
        task.outputs(),
        extra=extra,
        copies=2 * len(model.free),
        n_jobs=n_jobs,
    )
    settings = {
        "model": model.name,
        "method": "nonlinear least squares",
        "noise": "residuals" if sigma is None else "given",
        "distribution": "rician" if rician else "gaussian",
        "given": sorted(given or {}),
        "fixed": sorted(held),
    }
    return as_fit(model, series.image, arrays, Step("fit", settings, model.references))


def as_fit(model: SignalModel, image: Image, arrays: Mapping[str, AnyArray], step: Step) -> Fit:
    """Images from arrays named ``X``, ``std X`` and ``bias X`` for each free or derived value X of a model."""

    def maps(prefix: str) -> dict[str, Image]:
        return {
            name: image.derive(arrays[prefix + name], step, unit=unit)
            for name, unit in model.units.items()
            if prefix + name in arrays
        }

    rmse = image.derive(arrays["rmse"], step)
    flag = image.derive(arrays["flag"], step, unit="label")
    return Fit(model.name, maps(""), maps("std "), rmse, flag, maps("bias "))


@dataclass(frozen=True, eq=False)
class _Task:
    model: SignalModel
    protocol: Protocol
    fixed: tuple[str, ...]
    rician: bool

    def outputs(self) -> list[Output]:
        names = [prefix + name for prefix in ("", "std ", "bias ") for name in self.model.units]
        return [*(Output(name) for name in names), Output("rmse")]

    def run(self, signals: FloatArray, extra: Mapping[str, FloatArray]) -> dict[str, AnyArray]:
        """Fit one block (n, v)."""
        defaults = np.broadcast_to(self.model.given_defaults(), (signals.shape[1], len(self.model.given))).copy()
        for k, parameter in enumerate(self.model.given):
            if f"given {parameter.name}" in extra:
                defaults[:, k] = extra[f"given {parameter.name}"][0]
        known: BoolArray = np.asarray(np.isfinite(defaults).all(axis=1))
        solution = fit_nonlinear(
            self.model,
            np.where(known, signals, np.nan).T,
            self.protocol,
            sigma=extra["sigma"].T if "sigma" in extra else None,
            given=np.where(known[:, None], defaults, self.model.given_defaults()),
            fixed={name: extra[f"fixed {name}"][0] for name in self.fixed},
            rician=self.rician,
        )
        return _values(self.model, solution)


def _values(model: SignalModel, solution: Solution) -> dict[str, AnyArray]:
    """Arrays of free and derived values, with errors."""
    arrays: dict[str, AnyArray] = {}
    with np.errstate(all="ignore"):
        for k, parameter in enumerate(model.free):
            arrays[parameter.name] = solution.theta[:, k]
            arrays["std " + parameter.name] = np.sqrt(solution.covariance[:, k, k])
            arrays["bias " + parameter.name] = solution.bias[:, k]
        for derived in model.derived:
            value, std = delta(derived, solution.theta, solution.covariance)
            arrays[derived.name], arrays["std " + derived.name] = value, std
            shift = (gradient(derived, solution.theta) * solution.bias).sum(axis=-1)
            arrays["bias " + derived.name] = shift + curvature_bias(derived, solution.theta, solution.covariance)
    arrays["rmse"] = solution.rmse
    without = np.isin(solution.flag, [Flag.NOT_FINITE, Flag.NO_SIGNAL])
    return {**{k: np.where(without, np.nan, v) for k, v in arrays.items()}, "flag": solution.flag}


def _check(
    model: SignalModel,
    series: Series,
    sigma: object,
    given: Mapping[str, Image] | None,
    fixed: Mapping[str, float | Image],
    *,
    rician: bool,
) -> None:
    for column in model.needs:
        _ = series.protocol[column]
    for name in fixed:
        model.index(name)
    for name in given or {}:
        model.given_index(name)
    if rician and sigma is None:
        raise MissingMetadata("A fit to Rician expectations needs the noise level; pass sigma.")
    n_free = len(model.free) - len(fixed)
    if len(series.protocol) < n_free:
        raise NotIdentifiable(
            f"{series.image.label} holds {len(series.protocol)} measurements for the {n_free} parameters of model "
            f"{model.name}; add measurements or fix a parameter."
        )


def _held_map(name: str, value: float | Image, grid: Grid) -> AnyArray:
    if isinstance(value, Image):
        require_same_grid(value.grid, grid, f"The {name} map ({value.label})", "the series")
        return value.data
    return np.broadcast_to(np.float64(value), grid.shape)
