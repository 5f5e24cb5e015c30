"""Nonlinear least squares for many voxels at once, within bounds; a voxel that fails is flagged, never raised."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from qcord.core.arrays import ArrayLike, BoolArray, FloatArray, IntArray
from qcord.core.flags import Flag
from qcord.core.model import SignalModel
from qcord.core.protocol import Protocol
from qcord.estimate.compare import corrected_criterion
from qcord.estimate.evaluate import Evaluator
from qcord.estimate.levenberg_marquardt import Line, Problem, cost_of, limits, minimise
from qcord.estimate.robust import MANY, kept, robust_weights
from qcord.estimate.second_order import bends, errors
from qcord.estimate.simulate import given_values
from qcord.estimate.voxelwise import inverse, lower_root

_ROBUST_ROUNDS = 5


@dataclass(frozen=True, eq=False)
class Solution:
    """Outcome for v voxels.

    Parameters
    ----------
    theta : (v, p) array
        Estimates; NaN where the measurements are not finite or there is no signal.
    covariance : (v, p, p) array
        Their covariance, to first order in the noise; zero for fixed parameters, NaN where the measurements do not
        determine them.
    std, bias : (v, p) array
        Standard error and expected error of the estimates, to second order in the noise.
    root, bend : (p, p, v), (p, p, p, v) array
        First and second derivatives of the estimates (first axis) along standard normal noise, for `errors`.
    rmse : (v,) array
        Root mean square residual.
    criterion : (v,) array
        Akaike's information criterion, corrected for few measurements.
    flag : (v,) array
        `Flag` of each voxel.
    """

    theta: FloatArray
    covariance: FloatArray
    std: FloatArray
    bias: FloatArray
    root: FloatArray
    bend: FloatArray
    rmse: FloatArray
    criterion: FloatArray
    flag: IntArray


def fit_nonlinear(
    model: SignalModel,
    measured: ArrayLike,
    protocol: Protocol,
    *,
    sigma: ArrayLike | None = None,
    given: ArrayLike | None = None,
    fixed: Mapping[str, ArrayLike] | None = None,
    rician: bool = False,
    robust: bool = False,
) -> Solution:
    """Fit a model by weighted nonlinear least squares.

    Parameters
    ----------
    model : SignalModel
        The contrast.
    measured : (v, n) array
        Measurements.
    protocol : Protocol
        n rows.
    sigma : array that broadcasts to (v, n), optional
        Standard deviation of the noise. Without it all measurements count the same and the residuals give it.
    given : (v, g) array, optional
        Given parameters; their defaults otherwise.
    fixed : mapping of str to array that broadcasts to (v,), optional
        Free parameters that are held at a value.
    rician : bool
        Compare magnitudes with their expectation above the noise floor, each weighted by its variance there; needs
        ``sigma``.
    robust : bool
        Reweight by the residuals, reject outliers, fit the rest.

    Returns
    -------
    Solution
        Estimates, covariance, bias, residual and flag.

    References
    ----------
    Marquardt 1963, doi:10.1137/0111030 (damping);
    Box 1971, doi:10.1111/j.2517-6161.1971.tb00871.x (bias);
    Wedderburn 1974, doi:10.1093/biomet/61.3.439 (weights that follow from the expectation).
    """
    problem, flag = as_problem(
        model, measured, protocol, sigma=sigma, given=given, free=free_of(model, fixed), rician=rician
    )
    with np.errstate(all="ignore"):
        theta, settled = _search(problem, _start(problem, fixed or {}))
        rejected = np.zeros(len(flag))
        if robust:
            problem, theta, settled = _without_outliers(problem, theta, known_noise=sigma is not None)
            rejected = 1 - (problem.weights > 0).mean(axis=0)
        return _solution(problem, theta, (flag, settled, rejected), known_noise=sigma is not None)


def free_of(model: SignalModel, fixed: Mapping[str, ArrayLike] | None) -> BoolArray:
    """Which free parameters (p,) are not held at a value."""
    return np.array([p.name not in (fixed or {}) for p in model.free])


def as_problem(
    model: SignalModel,
    measured: ArrayLike,
    protocol: Protocol,
    *,
    sigma: ArrayLike | None,
    given: ArrayLike | None,
    free: BoolArray,
    rician: bool,
) -> tuple[Problem, IntArray]:
    """Measurements, weights and given parameters as `fit_nonlinear` takes them, and a flag (v,) of their state."""
    data = np.atleast_2d(np.asarray(measured, dtype=float))
    level = None if sigma is None else np.broadcast_to(np.asarray(sigma, dtype=float), data.shape)
    flag = _input_flags(data, level)
    usable = flag == Flag.OK
    data = np.where(usable[:, None], data, 1.0)
    weights = np.ones(data.shape[::-1])
    if level is not None:
        level = np.ascontiguousarray(np.where(usable[:, None] & (level > 0), level, 1.0).T)
        weights = 1 / level**2
    known = np.broadcast_to(given_values(model, given), (len(data), len(model.given)))
    problem = Problem(
        Evaluator(model, protocol),
        np.ascontiguousarray(data.T),
        weights,
        np.ascontiguousarray(known.T),
        level if rician else None,
        free,
        exact=False,
    )
    return problem, flag


def _input_flags(data: FloatArray, sigma: FloatArray | None) -> IntArray:
    flag = np.where(np.isfinite(data).all(axis=1), int(Flag.OK), int(Flag.NOT_FINITE))
    with np.errstate(invalid="ignore"):
        dark = ~(np.abs(data).max(axis=1) > 0)
        if sigma is not None:
            dark |= (np.abs(data) < sigma).all(axis=1)
    return np.where((flag == Flag.OK) & dark, int(Flag.NO_SIGNAL), flag)


def _start(problem: Problem, fixed: Mapping[str, ArrayLike]) -> tuple[FloatArray, FloatArray]:
    """First guess and default (p, v) within the bounds; fixed parameters at their values."""
    model, data, known = problem.evaluator.model, problem.measured.T, problem.given.T
    default = np.repeat(np.array([p.start for p in model.free])[:, None], len(data), axis=1)
    theta = default
    if model.start is not None:
        guess = model.start(data, problem.evaluator.protocol, known).T
        theta = np.where(np.isfinite(guess), guess, theta)
        default[0] = theta[0]
    starts = tuple(np.clip(x, *limits(model)) for x in (theta, default))
    for name, value in fixed.items():
        for start in starts:
            start[model.index(name)] = value
    return starts[0], starts[1]


def _search(problem: Problem, starts: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, BoolArray]:
    """Estimates (p, v), and whether each voxel settled; those that did not, or at a bound, try from the default."""
    theta, settled = minimise(problem, starts[0])
    low, high = limits(problem.evaluator.model)
    edge = (((theta <= low) | (theta >= high)) & problem.free[:, None]).any(axis=0)
    again = np.flatnonzero((edge | ~settled) & (starts[0] != starts[1]).any(axis=0))
    if again.size:
        part = problem.take(again)
        other, found = minimise(part, starts[1][:, again])
        before, after = (cost_of(part.weights, part.measured - part.expected(t)) for t in (theta[:, again], other))
        better = found & ((after < before * (1 - 1e-9)) | ~settled[again] & (after <= before))
        theta[:, again[better]] = other[:, better]
        settled[again[better]] = True
    return theta, settled


def _without_outliers(
    problem: Problem, theta: FloatArray, *, known_noise: bool
) -> tuple[Problem, FloatArray, BoolArray]:
    """Problem without its outliers, and the fit of the rest."""
    n_free = int(problem.free.sum())
    reach = 1 / np.sqrt(problem.weights)
    for _ in range(_ROBUST_ROUNDS):
        relative = (problem.measured - problem.expected(theta)) / reach
        weights = robust_weights(relative, n_free, known_noise=known_noise)
        theta, _ = minimise(replace(problem, weights=problem.weights * weights), theta)
    relative = (problem.measured - problem.expected(theta)) / reach
    rest = replace(problem, weights=problem.weights * kept(relative, n_free, known_noise=known_noise))
    theta, settled = minimise(rest, theta)
    return rest, theta, settled


def _solution(
    problem: Problem, theta: FloatArray, outcome: tuple[IntArray, BoolArray, FloatArray], *, known_noise: bool
) -> Solution:
    """Covariance, bias and flags at the solution."""
    flag, settled, rejected = outcome
    free = np.flatnonzero(problem.free)
    line = problem.linearise(theta)
    unscaled = np.zeros_like(line.normal)
    unscaled[free[:, None], free] = _inverse(line.normal[free[:, None], free])
    used = (problem.weights > 0).sum(axis=0)
    freedom = np.where(used > len(free), used - len(free), np.nan)
    variance = np.ones(theta.shape[1]) if known_noise else line.cost / freedom
    covariance = unscaled * variance
    root = lower_root(covariance)
    bend = _bend(problem, theta, root, line, unscaled)
    std, bias = errors(np.moveaxis(root, 1, 0), np.moveaxis(bend, 0, 2))
    mean_square = np.where(problem.weights > 0, line.residual**2, 0).sum(axis=0) / np.maximum(used, 1)
    rmse = np.where(np.isfinite(freedom), np.sqrt(mean_square), np.nan)
    criterion = corrected_criterion(line.cost / line.weights.max(axis=0), used, len(free))
    flag = np.where(flag == Flag.OK, _output_flags(problem, theta, covariance, settled, rejected), flag)
    theta = np.where(np.isin(flag, [Flag.NOT_FINITE, Flag.NO_SIGNAL]), np.nan, theta)
    return Solution(
        np.ascontiguousarray(theta.T),
        np.ascontiguousarray(np.moveaxis(covariance, -1, 0)),
        np.ascontiguousarray(std.T),
        np.ascontiguousarray(bias.T),
        root,
        bend,
        rmse,
        criterion,
        flag,
    )


def _bend(problem: Problem, theta: FloatArray, root: FloatArray, line: Line, unscaled: FloatArray) -> FloatArray:
    """Second derivatives of the estimates along the noise that moves them by columns of root (p, p, p, v).

    Estimates follow signals that the noise moves; where signals bend along with theta, they lag behind or run ahead.
    """
    free = np.flatnonzero(problem.free)
    pull = np.einsum("pqv,qnv->pnv", unscaled, line.slope * line.weights)
    steps = np.ascontiguousarray(np.moveaxis(root[:, free], 1, 0))

    def response(step: FloatArray) -> FloatArray:
        return np.asarray(np.einsum("pnv,nv->pv", pull, problem.expected(theta + step)))

    middle = np.einsum("pnv,nv->pv", pull, problem.measured - line.residual)
    result = np.zeros((*root.shape[:2], len(theta), root.shape[2]))
    result[free[:, None], free] = -bends(response, middle, steps)
    return np.ascontiguousarray(np.moveaxis(result, 2, 0))


def _inverse(normal: FloatArray) -> FloatArray:
    """Inverse (p, p, v), NaN where the measurements do not determine all parameters."""
    size = np.sqrt(np.einsum("ppv->pv", normal))
    scale = size[:, None] * size[None, :]
    return np.asarray(inverse(normal / scale) / scale)


def _output_flags(
    problem: Problem, theta: FloatArray, covariance: FloatArray, settled: BoolArray, rejected: FloatArray
) -> IntArray:
    low, high = limits(problem.evaluator.model)
    edge = ((theta <= low) | (theta >= high)) & problem.free[:, None]
    known = np.isfinite(covariance).all(axis=(0, 1))
    conditions = [~settled, rejected > MANY, edge.any(axis=0), ~known]
    flags = [int(Flag.NOT_CONVERGED), int(Flag.OUTLIERS), int(Flag.AT_BOUND), int(Flag.NO_ERROR)]
    return np.asarray(np.select(conditions, flags, int(Flag.OK)))
