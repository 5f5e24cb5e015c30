"""Levenberg-Marquardt for many voxels at once, within bounds; a voxel that fails is flagged, never raised."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from qcord.core.arrays import ArrayLike, BoolArray, FloatArray, IntArray
from qcord.core.flags import Flag
from qcord.core.model import SignalModel
from qcord.core.noise import Rician
from qcord.core.protocol import Protocol
from qcord.estimate.compare import corrected_criterion
from qcord.estimate.evaluate import Evaluator
from qcord.estimate.robust import MANY, kept, robust_weights
from qcord.estimate.second_order import bends, errors
from qcord.estimate.simulate import given_values
from qcord.estimate.voxelwise import inverse, lower_root, solve

_ROUNDS = 100
_ROBUST_ROUNDS = 5
_FIRST_DAMPING = 1e-3
_STIFFEST = 1e12
_SETTLED = 1e-6
"""Decrease of the cost that a step promises, relative to the cost a measurement, below which it is the last: it is
shorter than a thousandth of a standard error, and what remains after it is of second order in that."""

_COSINE = 1e-3
"""Cosine between residual and any column of the Jacobian up to which a fit that can move no further has settled."""

_EXACT = 1e-26
"""Squared residual, relative to the squared signal, that is rounding."""


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


@dataclass(frozen=True, eq=False)
class _Problem:
    """v voxels: measurements, weights and noise (n, v), given parameters (g, v), what is free (p,)."""

    evaluator: Evaluator
    measured: FloatArray
    weights: FloatArray
    given: FloatArray
    sigma: FloatArray | None
    free: BoolArray

    def take(self, columns: IntArray) -> "_Problem":
        """Some of the voxels."""
        return replace(
            self,
            measured=self.measured[:, columns],
            weights=self.weights[:, columns],
            given=self.given[:, columns],
            sigma=None if self.sigma is None else self.sigma[:, columns],
        )

    def expected(self, theta: FloatArray) -> FloatArray:
        """Expectation (n, v) of the measurements; the signal itself unless the noise is Rician."""
        signal = np.asarray(self.evaluator.signal(theta, self.given), dtype=float)
        return signal if self.sigma is None else Rician(self.sigma).expectation(signal)

    def linearise(self, theta: FloatArray) -> "_Line":
        """Cost and its quadratic form about theta (p, v)."""
        signal, slope = self.evaluator.slope(theta, self.given, self.free)
        weights = self.weights
        if self.sigma is not None:
            noise = Rician(self.sigma)
            slope *= noise.expectation_slope(signal)
            weights = weights * self.sigma**2 / noise.variance(signal)
            signal = noise.expectation(signal)
        residual = self.measured - signal
        weighted = slope * weights
        pull = np.einsum("pnv,nv->pv", weighted, residual)
        normal = np.empty((len(theta), len(theta), theta.shape[1]))
        for i in range(len(theta)):
            np.einsum("nv,jnv->jv", weighted[i], slope[: i + 1], out=normal[i, : i + 1])
            normal[: i + 1, i] = normal[i, : i + 1]
        return _Line(residual, weights, _cost(weights, residual), slope, pull, normal)


@dataclass(frozen=True, eq=False)
class _Line:
    residual: FloatArray
    weights: FloatArray
    cost: FloatArray
    slope: FloatArray
    pull: FloatArray
    normal: FloatArray

    def choose(self, columns: IntArray | BoolArray) -> "_Line":
        return _Line(*(getattr(self, name)[..., columns] for name in self.__dataclass_fields__))

    def put(self, other: "_Line", columns: BoolArray) -> None:
        """Take the columns of another."""
        for name in self.__dataclass_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            mine[..., columns] = theirs[..., columns]


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
    free = np.array([p.name not in (fixed or {}) for p in model.free])
    problem = _Problem(
        Evaluator(model, protocol),
        np.ascontiguousarray(data.T),
        weights,
        np.ascontiguousarray(known.T),
        level if rician else None,
        free,
    )
    with np.errstate(all="ignore"):
        theta, settled = _search(problem, _start(problem, data, known, fixed or {}))
        rejected = np.zeros(len(data))
        if robust:
            problem, theta, settled = _without_outliers(problem, theta, known_noise=level is not None)
            rejected = 1 - (problem.weights > 0).mean(axis=0)
        return _solution(problem, theta, (flag, settled, rejected), known_noise=level is not None)


def _input_flags(data: FloatArray, sigma: FloatArray | None) -> IntArray:
    flag = np.where(np.isfinite(data).all(axis=1), int(Flag.OK), int(Flag.NOT_FINITE))
    with np.errstate(invalid="ignore"):
        dark = ~(np.abs(data).max(axis=1) > 0)
        if sigma is not None:
            dark |= (np.abs(data) < sigma).all(axis=1)
    return np.where((flag == Flag.OK) & dark, int(Flag.NO_SIGNAL), flag)


def _limits(model: SignalModel) -> tuple[FloatArray, FloatArray]:
    """Bounds, each (p, 1)."""
    low, high = np.array([p.bounds for p in model.free], dtype=float).T
    return low[:, None], high[:, None]


def _start(
    problem: _Problem, data: FloatArray, known: FloatArray, fixed: Mapping[str, ArrayLike]
) -> tuple[FloatArray, FloatArray]:
    """First guess and default (p, v) within the bounds; fixed parameters at their values."""
    model = problem.evaluator.model
    default = np.repeat(np.array([p.start for p in model.free])[:, None], len(data), axis=1)
    theta = default
    if model.start is not None:
        guess = model.start(data, problem.evaluator.protocol, known).T
        theta = np.where(np.isfinite(guess), guess, theta)
        default[0] = theta[0]
    starts = tuple(np.clip(x, *_limits(model)) for x in (theta, default))
    for name, value in fixed.items():
        for start in starts:
            start[model.index(name)] = value
    return starts[0], starts[1]


def _search(problem: _Problem, starts: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, BoolArray]:
    """Estimates (p, v), and whether each voxel settled; those that did not, or at a bound, try from the default."""
    theta, settled = _minimise(problem, starts[0])
    low, high = _limits(problem.evaluator.model)
    edge = (((theta <= low) | (theta >= high)) & problem.free[:, None]).any(axis=0)
    again = np.flatnonzero((edge | ~settled) & (starts[0] != starts[1]).any(axis=0))
    if again.size:
        part = problem.take(again)
        other, found = _minimise(part, starts[1][:, again])
        before, after = (_cost(part.weights, part.measured - part.expected(t)) for t in (theta[:, again], other))
        better = found & ((after < before * (1 - 1e-9)) | ~settled[again] & (after <= before))
        theta[:, again[better]] = other[:, better]
        settled[again[better]] = True
    return theta, settled


def _minimise(problem: _Problem, start: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Estimates (p, v), and whether each voxel settled."""
    theta, settled = start.copy(), np.zeros(start.shape[1], dtype=bool)
    active = np.arange(start.shape[1])
    low, high = _limits(problem.evaluator.model)
    part, here, damping = problem, theta.copy(), np.full(len(active), _FIRST_DAMPING)
    line = part.linearise(here)
    for _ in range(_ROUNDS):
        held = ~part.free[:, None] | ((here <= low) & (line.pull < 0)) | ((here >= high) & (line.pull > 0))
        step, gain, cosine = _step(line, held, damping)
        moved = np.where(part.free[:, None], np.clip(here + step, low, high), here)
        exact = line.cost <= _EXACT * _cost(line.weights, part.measured)
        last = (gain <= _SETTLED * line.cost / len(part.measured)) & (damping <= 1)
        stuck = damping > _STIFFEST
        done = exact | last | stuck
        if done.any():
            final = np.where(last & ~exact, moved, here)
            theta[:, active[done]] = final[:, done]
            settled[active[done]] = (exact | last | (cosine <= _COSINE))[done]
            rest = np.flatnonzero(~done)
            if not rest.size:
                break
            active, part, line = active[rest], part.take(rest), line.choose(rest)
            here, moved, damping = here[:, rest], moved[:, rest], damping[rest]
        new = part.linearise(moved)
        better = _cost(line.weights, new.residual) < line.cost
        damping = np.where(better, damping / 10, damping * 5)
        line.put(new, better)
        here = np.where(better, moved, here)
    theta[:, active] = here if not settled[active].any() else theta[:, active]
    return theta, settled


def _step(line: _Line, held: BoolArray, damping: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Damped step (p, v), the decrease it promises, and the largest cosine between residual and slope."""
    diagonal = np.einsum("ppv->pv", line.normal)
    idle = held | ~(diagonal > 0)
    size = np.sqrt(np.where(idle, 1.0, diagonal))
    pull = np.where(idle, 0.0, line.pull) / size
    matrix = np.where(idle[:, None] | idle[None, :], 0.0, line.normal / (size[:, None] * size[None, :]))
    np.einsum("ppv->pv", matrix)[...] = 1 + damping
    step = solve(matrix, pull)
    gain = np.einsum("pv,pv->v", pull, step)
    cosine = np.abs(pull).max(axis=0) / np.sqrt(line.cost)
    return np.nan_to_num(step / size), np.where(np.isfinite(gain), gain, np.inf), cosine


def _cost(weights: FloatArray, residual: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("nv,nv,nv->v", weights, residual, residual))


def _without_outliers(
    problem: _Problem, theta: FloatArray, *, known_noise: bool
) -> tuple[_Problem, FloatArray, BoolArray]:
    """Problem without its outliers, and the fit of the rest."""
    n_free = int(problem.free.sum())
    reach = 1 / np.sqrt(problem.weights)
    for _ in range(_ROBUST_ROUNDS):
        relative = (problem.measured - problem.expected(theta)) / reach
        weights = robust_weights(relative, n_free, known_noise=known_noise)
        theta, _ = _minimise(replace(problem, weights=problem.weights * weights), theta)
    relative = (problem.measured - problem.expected(theta)) / reach
    rest = replace(problem, weights=problem.weights * kept(relative, n_free, known_noise=known_noise))
    theta, settled = _minimise(rest, theta)
    return rest, theta, settled


def _solution(
    problem: _Problem, theta: FloatArray, outcome: tuple[IntArray, BoolArray, FloatArray], *, known_noise: bool
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


def _bend(problem: _Problem, theta: FloatArray, root: FloatArray, line: _Line, unscaled: FloatArray) -> FloatArray:
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
    problem: _Problem, theta: FloatArray, covariance: FloatArray, settled: BoolArray, rejected: FloatArray
) -> IntArray:
    low, high = _limits(problem.evaluator.model)
    edge = ((theta <= low) | (theta >= high)) & problem.free[:, None]
    known = np.isfinite(covariance).all(axis=(0, 1))
    conditions = [~settled, rejected > MANY, edge.any(axis=0), ~known]
    flags = [int(Flag.NOT_CONVERGED), int(Flag.OUTLIERS), int(Flag.AT_BOUND), int(Flag.NO_ERROR)]
    return np.asarray(np.select(conditions, flags, int(Flag.OK)))
