"""Fit any model to a series: maps of its parameters and derived values, each with error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcord.core.arrays import AnyArray, BoolArray, FloatArray
from qcord.core.errors import NotIdentifiable
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.image import Image, Step, mask_of
from qcord.core.model import SignalModel
from qcord.core.noise import Gaussian, Noise, Rician
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.blocks import Output, given_maps, noise_map, run_blocks
from qcord.estimate.compare import corrected_criterion
from qcord.estimate.nonlinear import Solution, fit_nonlinear
from qcord.estimate.propagate import derived_errors


def fit(
    model: SignalModel,
    series: Series,
    mask: Image | None = None,
    *,
    noise: Noise | Image | float | Sequence[float] | None = None,
    given: Mapping[str, Image | float] | None = None,
    fixed: Mapping[str, Image | float] | None = None,
    robust: bool = False,
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
    noise : Gaussian, Rician, Image, float or sequence of float, optional
        Noise of the measurements: `Gaussian` for signed or complex ones, `Rician` for magnitudes, which are then
        compared with their expectation above the noise floor. A bare standard deviation (a map, one value, or one a
        measurement) means magnitudes. Without noise, the residuals give it, and are taken for normal.
    given : mapping of str to Image or float, optional
        Maps or values of given parameters, such as B1; the defaults of the model otherwise.
    fixed : mapping of str to Image or float, optional
        Free parameters that are held at a value.
    robust : bool
        Reweight by the residuals, reject outliers, fit the rest.
    n_jobs : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Fit
        Free and derived values, by name.

    Raises
    ------
    MissingMetadata
        If a protocol column is absent.
    NotIdentifiable
        If there are fewer measurements than parameters.
    UnknownName
        If a given or fixed parameter is not one of the model's.
    GridMismatch
        If a map lies on another grid.
    """
    held = fixed or {}
    _check(model, series, given or {}, held)
    grid = series.image.grid
    extra = {f"given {k}": v for k, v in given_maps(given, grid).items()}
    extra |= {f"fixed {k}": v for k, v in given_maps(held, grid).items()}
    level, rician = noise_level(noise)
    sigma = noise_map(level, grid, len(series.protocol))
    if sigma is not None:
        extra["sigma"] = sigma
    task = _Task(model, series.protocol, tuple(held), rician, robust)
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
        "noise": "residuals" if noise is None else "given",
        "distribution": "rician" if rician else "gaussian",
        "robust": robust,
        "given": sorted(given or {}),
        "assumed": {p.name: p.start for p in model.given if p.name not in (given or {})},
        "fixed": sorted(held),
    }
    return as_fit(model, series.image, arrays, Step("fit", settings, model.references))


def noise_level(
    noise: Noise | Image | float | Sequence[float] | None,
) -> tuple[Image | float | Sequence[float] | AnyArray | None, bool]:
    """Standard deviation of noise, and whether it is that of magnitudes; a bare standard deviation is."""
    if noise is None:
        return None, False
    if isinstance(noise, Gaussian):
        return noise.sigma, False
    return (noise.sigma if isinstance(noise, Rician) else noise), True


def as_fit(
    model: SignalModel,
    image: Image,
    arrays: Mapping[str, AnyArray],
    step: Step,
    units: Mapping[str, str] | None = None,
) -> Fit:
    """Images from arrays named ``X``, ``std X`` and ``bias X`` for each value X, with ``rmse`` and ``flag``.

    Parameters
    ----------
    model : SignalModel
        The contrast.
    image : Image
        Measurements that were fitted.
    arrays : mapping of str to array
        Maps; ``criterion`` follows from ``rmse`` where it is not among them.
    step : Step
        Line of the history.
    units : mapping of str to str, optional
        Values, with their units; by default free and derived ones of the model.
    """
    n = image.n_volumes
    step = replace(step, settings={**step.settings, "measurements": n})

    def maps(prefix: str) -> dict[str, Image]:
        return {
            name: image.derive(arrays[prefix + name], step, unit=unit)
            for name, unit in (units or model.units).items()
            if prefix + name in arrays
        }

    names = [name for name in units or model.units if name in arrays]
    criterion = arrays.get("criterion")
    if criterion is None:
        criterion = corrected_criterion(n * np.square(arrays["rmse"], dtype=float), n, len(model.free))
    return Fit(
        model.name,
        maps(""),
        maps("std "),
        image.derive(arrays["rmse"], step),
        image.derive(_with_gaps(arrays, names), step, unit="label"),
        image.derive(criterion, step, unit="1"),
        maps("bias "),
    )


def _with_gaps(arrays: Mapping[str, AnyArray], names: Sequence[str]) -> AnyArray:
    """Flags of voxels, in which none without a value or an error is a regular estimate."""
    flag = np.array(arrays["flag"])

    def gaps(array: AnyArray) -> BoolArray:
        return np.asarray(~np.isfinite(array).reshape(*flag.shape, -1).all(axis=-1))

    for name in names:
        without = gaps(arrays[name])
        flag[(flag == Flag.OK) & without] = Flag.NO_VALUE
        if "std " + name in arrays:
            flag[(flag == Flag.OK) & ~without & gaps(arrays["std " + name])] = Flag.NO_ERROR
    return flag


@dataclass(frozen=True, eq=False)
class _Task:
    model: SignalModel
    protocol: Protocol
    fixed: tuple[str, ...]
    rician: bool
    robust: bool

    def outputs(self) -> list[Output]:
        names = [prefix + name for prefix in ("", "std ", "bias ") for name in self.model.units]
        return [*(Output(name) for name in names), Output("rmse"), Output("criterion")]

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
            robust=self.robust,
        )
        return _values(self.model, solution)


def _values(model: SignalModel, solution: Solution) -> dict[str, AnyArray]:
    """Arrays of free and derived values, with errors."""
    arrays: dict[str, AnyArray] = {}
    with np.errstate(all="ignore"):
        for k, parameter in enumerate(model.free):
            arrays[parameter.name] = solution.theta[:, k]
            arrays["std " + parameter.name] = solution.std[:, k]
            arrays["bias " + parameter.name] = solution.bias[:, k]
        for derived in model.derived:
            value, std, bias = derived_errors(derived, solution.theta, solution.root, solution.bend)
            arrays[derived.name] = value
            arrays["std " + derived.name] = np.where(np.isfinite(value), std, np.nan)
            arrays["bias " + derived.name] = np.where(np.isfinite(value), bias, np.nan)
    arrays["rmse"], arrays["criterion"] = solution.rmse, solution.criterion
    without = np.isin(solution.flag, [Flag.NOT_FINITE, Flag.NO_SIGNAL])
    return {**{k: np.where(without, np.nan, v) for k, v in arrays.items()}, "flag": solution.flag}


def _check(
    model: SignalModel, series: Series, given: Mapping[str, Image | float], fixed: Mapping[str, Image | float]
) -> None:
    for name in fixed:
        model.index(name)
    for name in given:
        model.given_index(name)
    require_enough(model, series, len(model.free) - len(fixed))


def require_enough(model: SignalModel, series: Series, n_free: int) -> None:
    """Raise unless as many measurements differ in their settings as there are parameters.

    Raises
    ------
    MissingMetadata
        If a column is absent.
    NotIdentifiable
        If measurements are too few, or repeats of too few settings.
    """
    columns = [np.asarray(series.protocol[c], dtype=float).reshape(len(series.protocol), -1) for c in model.needs]
    different = len(np.unique(np.concatenate(columns, axis=1), axis=0)) if columns else len(series.protocol)
    if different < n_free:
        n = len(series.protocol)
        equal = "" if different == n else f", of which {different} differ in {' or '.join(model.needs)},"
        raise NotIdentifiable(
            f"{series.image.label} holds {n} measurements{equal} for the {n_free} parameters of model {model.name}; "
            "add measurements, correct their settings, or fix a parameter."
        )
