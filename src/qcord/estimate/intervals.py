"""Intervals of any model's values by the profile of the likelihood."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcord.core.arrays import AnyArray, BoolArray, FloatArray, IntArray
from qcord.core.errors import ImplausibleValue, UnknownName
from qcord.core.flags import Flag
from qcord.core.image import Image, Step, mask_of
from qcord.core.intervals import Intervals
from qcord.core.model import Derived, SignalModel
from qcord.core.noise import Noise
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.blocks import Output, given_maps, noise_map, run_blocks
from qcord.estimate.fit import noise_level, require_enough
from qcord.estimate.jacobian import gradient
from qcord.estimate.levenberg_marquardt import minimise
from qcord.estimate.likelihood_interval import Question, likelihood_interval
from qcord.estimate.nonlinear import Solution, as_problem, fit_nonlinear, free_of
from qcord.estimate.profile import as_metric
from qcord.estimate.propagate import along_noise

REFERENCES = (
    "Venzon and Moolgavkar 1988, doi:10.2307/2347496",
    "Feldman and Cousins 1998, doi:10.1103/PhysRevD.57.3873",
    "NOvA Collaboration 2022, doi:10.48550/arXiv.2207.14353",
    "Barndorff-Nielsen 1986, doi:10.1093/biomet/73.2.307",
)

Ends = tuple[FloatArray, FloatArray]

_BLOCK = 2048
"""Voxels that are worked on together: a search lasts as long as its slowest."""

_MOST_AHEAD = 1.0
"""Standard errors by which an estimate is taken to run ahead of the truth at most."""

_FIRST = 0.1
"""First step, relative to the value, where its error is not known."""


def intervals(
    model: SignalModel,
    series: Series,
    mask: Image | None = None,
    *,
    metrics: Sequence[str] | None = None,
    level: float = 0.95,
    noise: Noise | Image | float | Sequence[float] | None = None,
    given: Mapping[str, Image | float] | None = None,
    fixed: Mapping[str, Image | float] | None = None,
    n_jobs: int | None = None,
) -> Intervals:
    """Intervals of free and derived values by the likelihood, voxel by voxel.

    Parameters
    ----------
    model : SignalModel
        The contrast.
    series : Series
        Measurements with the columns that the model needs.
    mask : Image, optional
        Voxels; all by default.
    metrics : sequence of str, optional
        Free or derived values; all by default. The work grows with their number.
    level : float
        Chance that an interval holds the truth.
    noise : Gaussian, Rician, Image, float or sequence of float, optional
        Noise of the measurements, as `qcord.estimate.fit.fit` takes it. Without it the residuals give it, and
        intervals are as much wider.
    given : mapping of str to Image or float, optional
        Maps or values of given parameters, taken as exact; the defaults of the model otherwise.
    fixed : mapping of str to Image or float, optional
        Free parameters that are held at a value.
    n_jobs : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Intervals
        Lower and upper ends of each value.

    Raises
    ------
    ImplausibleValue
        If the level is not between 0 and 1.
    MissingMetadata
        If a protocol column is absent.
    NotIdentifiable
        If there are fewer measurements than parameters.
    UnknownName
        If a value, or a given or fixed parameter, is not one of the model's.
    GridMismatch
        If a map lies on another grid.

    Notes
    -----
    An interval holds the values at which the best fit is not much less likely than the best of all: how much less, is
    what chance would exceed in 1 - level of cases. Near bounds chance exceeds less, or more; what it does is then found
    by measuring the best fit with that value anew, many times, together with voxels that lie alike to all bounds. The
    random numbers are always the same, but what a voxel shares depends on the mask. Far from bounds the mean
    of the signed root of the ratio is taken off, by which estimates of many parameters run ahead of the truth.

    Unlike an estimate plus and minus twice its standard error, such an interval stays within what a parameter can be,
    is lopsided where the likelihood is, and does not change if the square or the inverse of a value is asked for.

    References
    ----------
    Venzon and Moolgavkar 1988, doi:10.2307/2347496 (profile likelihood);
    Feldman and Cousins 1998, doi:10.1103/PhysRevD.57.3873 (near bounds);
    NOvA Collaboration 2022, doi:10.48550/arXiv.2207.14353 (with what else is not known at its best);
    Barndorff-Nielsen 1986, doi:10.1093/biomet/73.2.307 (mean of the signed root).
    """
    if not 0 < level < 1:
        raise ImplausibleValue(f"The level of intervals is given as {level:g}, expected a chance between 0 and 1.")
    held = fixed or {}
    for name in held:
        model.index(name)
    for name in given or {}:
        model.given_index(name)
    chosen = _metrics(model, metrics, held)
    require_enough(model, series, len(model.free) - len(held))
    grid = series.image.grid
    extra = {f"given {k}": v for k, v in given_maps(given, grid).items()}
    extra |= {f"fixed {k}": v for k, v in given_maps(held, grid).items()}
    deviation, rician = noise_level(noise)
    sigma = noise_map(deviation, grid, len(series.protocol))
    if sigma is not None:
        extra["sigma"] = sigma
    task = _Task(model, series.protocol, tuple(held), chosen, level, rician)
    arrays = run_blocks(
        task.run, series.data, mask_of(mask, grid), task.outputs(), extra=extra, block=_BLOCK, n_jobs=n_jobs
    )
    settings = {
        "model": model.name,
        "method": "profile likelihood",
        "level": level,
        "noise": "residuals" if noise is None else "given",
        "distribution": "rician" if rician else "gaussian",
    }
    step = Step("intervals", settings, REFERENCES)

    def maps(end: str) -> dict[str, Image]:
        return {m: series.image.derive(arrays[f"{end} {m}"], step, unit=model.units[m]) for m in chosen}

    return Intervals(
        model.name, level, maps("lower"), maps("upper"), series.image.derive(arrays["flag"], step, unit="label")
    )


def _metrics(model: SignalModel, metrics: Sequence[str] | None, held: Mapping[str, Image | float]) -> tuple[str, ...]:
    """Values that are asked for, in the model's order; those held are known."""
    for name in metrics or ():
        if name not in model.units:
            raise UnknownName(f"Model {model.name} has no value '{name}'; it has {', '.join(model.units)}.")
        if name in held:
            raise UnknownName(f"{name} of model {model.name} is held at a value and has no interval; leave it out.")
    return tuple(name for name in model.units if name not in held and (metrics is None or name in metrics))


@dataclass(frozen=True, eq=False)
class _Task:
    model: SignalModel
    protocol: Protocol
    fixed: tuple[str, ...]
    metrics: tuple[str, ...]
    level: float
    rician: bool

    def outputs(self) -> list[Output]:
        return [Output(f"{end} {name}") for name in self.metrics for end in ("lower", "upper")]

    def run(self, signals: FloatArray, extra: Mapping[str, FloatArray]) -> dict[str, AnyArray]:
        """Intervals of one block (n, v)."""
        model, size = self.model, signals.shape[1]
        known = np.broadcast_to(model.given_defaults(), (size, len(model.given))).copy()
        for k, parameter in enumerate(model.given):
            if f"given {parameter.name}" in extra:
                known[:, k] = extra[f"given {parameter.name}"][0]
        has: BoolArray = np.asarray(np.isfinite(known).all(axis=1))
        data = np.where(has, signals, np.nan).T
        known = np.where(has[:, None], known, model.given_defaults())
        sigma = extra["sigma"].T if "sigma" in extra else None
        fixed = {name: extra[f"fixed {name}"][0] for name in self.fixed}
        fit = fit_nonlinear(model, data, self.protocol, sigma=sigma, given=known, fixed=fixed, rician=self.rician)
        free = free_of(model, fixed)
        problem, _ = as_problem(model, data, self.protocol, sigma=sigma, given=known, free=free, rician=self.rician)
        scale, threshold = self._scale(fit.rmse, int(free.sum()), sigma)
        usable = np.flatnonzero(np.isfinite(fit.theta).all(axis=1) & np.isfinite(scale))
        flag = fit.flag.copy()
        flag[(flag == Flag.OK) & ~np.isfinite(scale)] = Flag.NO_ERROR
        result: dict[str, AnyArray] = {o.name: np.full(size, np.nan) for o in self.outputs()}
        problem = replace(problem.take(usable), exact=True)
        ranges = {p.name: p.bounds for p in model.free}
        with np.errstate(all="ignore"):
            theta, _ = minimise(problem, np.ascontiguousarray(fit.theta[usable].T))
            known_ends: dict[str, Ends] = {}

            def ends_of(name: str) -> Ends:
                if name not in known_ends:
                    alone = _alone(model, name, theta)
                    if alone is None:
                        metric = as_metric(model, name)
                        std, ahead = _error(metric, fit, usable)
                        many = np.full(usable.size, threshold)
                        span = ranges.get(name, (-np.inf, np.inf))
                        question = Question(problem, metric, span, std, ahead, many, scale[usable], 1 - self.level)
                        known_ends[name] = likelihood_interval(question, theta)
                    else:
                        known_ends[name] = _carried(model, name, alone, ends_of(alone))
                return known_ends[name]

            for name in self.metrics:
                squared = any(d.name == name and d.square is not None for d in model.derived)
                for end, value in zip(("lower", "upper"), ends_of(name), strict=True):
                    result[f"{end} {name}"][usable] = np.sqrt(np.maximum(value, 0.0)) if squared else value
        return {**result, "flag": flag}

    def _scale(self, rmse: FloatArray, n_free: int, sigma: FloatArray | None) -> tuple[FloatArray, float]:
        """Variance (v,) that squares are in units of, and the root of the ratio that chance exceeds."""
        from scipy import stats

        chance = (1 + self.level) / 2
        if sigma is not None:
            return np.ones(rmse.shape), float(stats.norm.ppf(chance))
        n = len(self.protocol)
        freedom = max(n - n_free, 1)  # without any left, rmse is NaN
        return rmse**2 * n / freedom, float(stats.t.ppf(chance, freedom))


def _alone(model: SignalModel, name: str, theta: FloatArray) -> str | None:
    """The one free parameter that a derived value rises or falls with, if there is one; T1 has R1."""
    derived = next((d for d in model.derived if d.name == name and d.square is None), None)
    if derived is None or not theta.size:
        return None
    slope = gradient(derived, theta.T)
    one = np.flatnonzero((slope != 0).any(axis=0))
    signs = np.sign(slope[:, one])
    if one.size != 1 or not ((signs >= 0).all() or (signs <= 0).all()):
        return None
    return model.free[int(one[0])].name


def _carried(model: SignalModel, name: str, alone: str, ends: Ends) -> Ends:
    """Interval of a value that is a function of one parameter, from that parameter's."""
    derived = next(d for d in model.derived if d.name == name)
    theta = np.repeat(model.theta({})[None], 2 * len(ends[0]), axis=0)
    theta[:, model.index(alone)] = np.concatenate(ends)
    values = np.asarray(derived.formula(theta), dtype=float).reshape(2, -1)
    return values.min(axis=0), values.max(axis=0)


def _error(metric: Derived, fit: Solution, usable: IntArray) -> tuple[FloatArray, FloatArray]:
    """First step (v,), the standard error of a value where it is known, and by how much estimates run ahead.

    Of the bias to second order, what the noise causes that does not change the value to first order: the rest is the
    scale of the value, in which the likelihood is lopsided as well.
    """
    theta = fit.theta[usable]
    first, second = along_noise(metric, theta, fit.root[..., usable], fit.bend[..., usable])
    std = np.sqrt((first**2).sum(axis=0))
    along = first / std
    bias = np.einsum("kkv->v", second) - np.einsum("jv,jkv,kv->v", along, second, along)
    ahead = np.clip(np.nan_to_num(bias / (2 * std)), -_MOST_AHEAD, _MOST_AHEAD)
    size = np.abs(np.asarray(metric.formula(theta), dtype=float))
    return np.where(np.isfinite(std) & (std > 0), std, _FIRST * np.where(size > 0, size, 1.0)), ahead
