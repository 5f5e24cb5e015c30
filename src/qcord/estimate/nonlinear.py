"""Levenberg-Marquardt for many voxels at once, within bounds; a voxel that fails is flagged, never raised."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import AnyArray, ArrayLike, BoolArray, FloatArray, IntArray
from qcord.core.flags import Flag
from qcord.core.model import SignalModel
from qcord.core.noise import Rician
from qcord.core.protocol import Protocol
from qcord.estimate.bound import inverse_information
from qcord.estimate.jacobian import complex_step
from qcord.estimate.propagate import root, second_differences
from qcord.estimate.simulate import given_values

_ROUNDS = 100
_FIRST_DAMPING = 1e-3
_STIFFEST = 1e12
_COSINE = 1e-6
"""Cosine between residual and any column of the Jacobian below which a fit has settled."""

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
        Their covariance; zero for fixed parameters, NaN where the measurements do not determine them.
    bias : (v, p) array
        Expected error of the estimates, to second order in the noise.
    rmse : (v,) array
        Root mean square residual.
    flag : (v,) array
        `Flag` of each voxel.
    """

    theta: FloatArray
    covariance: FloatArray
    bias: FloatArray
    rmse: FloatArray
    flag: IntArray


@dataclass(frozen=True, eq=False)
class _Problem:
    model: SignalModel
    protocol: Protocol
    measured: FloatArray
    weights: FloatArray
    given: FloatArray
    sigma: FloatArray | None
    free: BoolArray

    def take(self, rows: IntArray) -> "_Problem":
        """Some of the voxels."""
        return _Problem(
            self.model,
            self.protocol,
            self.measured[rows],
            self.weights[rows],
            self.given[rows],
            None if self.sigma is None else self.sigma[rows],
            self.free,
        )

    def signal(self, theta: AnyArray) -> AnyArray:
        return np.asarray(self.model.signal(theta, self.protocol, self.given))

    def expected(self, theta: FloatArray) -> FloatArray:
        """Expectation of the measurements; the signal itself unless the noise is Rician."""
        signal = np.asarray(self.signal(theta), dtype=float)
        return signal if self.sigma is None else Rician(self.sigma).expectation(signal)

    def slope(self, theta: FloatArray) -> FloatArray:
        """Derivative (v, n, p) of the expectation."""
        slope = complex_step(self.signal, theta)
        if self.sigma is not None:
            signal = np.asarray(self.signal(theta), dtype=float)
            slope = slope * Rician(self.sigma).expectation_slope(signal)[..., None]
        return slope


def fit_nonlinear(
    model: SignalModel,
    measured: ArrayLike,
    protocol: Protocol,
    *,
    sigma: ArrayLike | None = None,
    given: ArrayLike | None = None,
    fixed: Mapping[str, ArrayLike] | None = None,
    rician: bool = False,
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
        Compare magnitudes with their expectation above the noise floor; needs ``sigma``.

    Returns
    -------
    Solution
        Estimates, covariance, bias, residual and flag.

    References
    ----------
    Marquardt 1963, doi:10.1137/0111030 (damping);
    Box 1971, doi:10.1111/j.2517-6161.1971.tb00871.x (bias).
    """
    data = np.atleast_2d(np.asarray(measured, dtype=float))
    level = None if sigma is None else np.broadcast_to(np.asarray(sigma, dtype=float), data.shape)
    flag = _input_flags(data, level)
    usable = flag == Flag.OK
    data = np.where(usable[:, None], data, 1.0)
    weights = np.ones_like(data)
    if level is not None:
        level = np.where(usable[:, None] & (level > 0), level, 1.0)
        weights = 1 / level**2
    known = np.broadcast_to(given_values(model, given), (len(data), len(model.given)))
    free = np.array([p.name not in (fixed or {}) for p in model.free])
    problem = _Problem(model, protocol, data, weights, known, level if rician else None, free)
    theta = _start(problem, fixed or {})
    with np.errstate(all="ignore"):
        theta, settled = _minimise(problem, theta)
        solution = _errors(problem, theta, known_noise=level is not None)
    flag = np.where(usable, _output_flags(problem, solution, settled), flag)
    solution.theta[np.isin(flag, [Flag.NOT_FINITE, Flag.NO_SIGNAL])] = np.nan
    return Solution(solution.theta, solution.covariance, solution.bias, solution.rmse, flag)


def _input_flags(data: FloatArray, sigma: FloatArray | None) -> IntArray:
    flag = np.where(np.isfinite(data).all(axis=1), int(Flag.OK), int(Flag.NOT_FINITE))
    with np.errstate(invalid="ignore"):
        dark = ~(np.abs(data).max(axis=1) > 0)
        if sigma is not None:
            dark |= (np.abs(data) < sigma).all(axis=1)
    return np.where((flag == Flag.OK) & dark, int(Flag.NO_SIGNAL), flag)


def _limits(model: SignalModel) -> tuple[FloatArray, FloatArray]:
    low, high = np.array([p.bounds for p in model.free], dtype=float).T
    return low, high


def _start(problem: _Problem, fixed: Mapping[str, ArrayLike]) -> FloatArray:
    """First guess within the bounds; fixed parameters at their values."""
    model = problem.model
    default = np.array([p.start for p in model.free])
    theta = np.broadcast_to(default, (len(problem.measured), len(default))).copy()
    if model.start is not None:
        guess = model.start(problem.measured, problem.protocol, problem.given)
        theta = np.where(np.isfinite(guess), guess, theta)
    theta = np.clip(theta, *_limits(model))
    for name, value in fixed.items():
        theta[:, model.index(name)] = value
    return np.asarray(theta)


def _minimise(problem: _Problem, theta: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Estimates, and whether each voxel settled."""
    theta = theta.copy()
    low, high = _limits(problem.model)
    settled = np.zeros(len(theta), dtype=bool)
    active = np.arange(len(theta))
    damping = np.full(len(theta), _FIRST_DAMPING)
    for _ in range(_ROUNDS):
        part, here = problem.take(active), theta[active]
        residual = part.measured - part.expected(here)
        cost = (part.weights * residual**2).sum(axis=1)
        slope = part.slope(here)
        pull = np.einsum("vnp,vn->vp", slope, part.weights * residual)
        normal = np.matmul(np.swapaxes(slope * part.weights[..., None], 1, 2), slope)
        held = ~problem.free | ((here <= low) & (pull < 0)) | ((here >= high) & (pull > 0))
        size = np.sqrt(np.einsum("vpp->vp", normal))
        size = np.where(held | ~(size > 0), 1.0, size)
        pull = np.where(held, 0.0, pull) / size
        done = (np.abs(pull).max(axis=1) <= _COSINE * np.sqrt(cost)) | (
            cost <= _EXACT * (part.weights * part.measured**2).sum(axis=1)
        )
        step = _damped(normal / (size[:, :, None] * size[:, None, :]), pull, held, damping[active]) / size
        moved = np.where(problem.free, np.clip(here + step, low, high), here)
        left = (part.weights * (part.measured - part.expected(moved)) ** 2).sum(axis=1)
        better = (left < cost) & ~done
        theta[active[better]] = moved[better]
        damping[active] = np.where(better, damping[active] / 5, damping[active] * 4)
        settled[active[done]] = True
        stuck = damping[active] > _STIFFEST
        settled[active[stuck]] = np.abs(pull[stuck]).max(axis=1) <= 1e3 * _COSINE * np.sqrt(cost[stuck])
        active = active[~(done | stuck)]
        if not active.size:
            break
    return theta, settled


def _damped(normal: FloatArray, pull: FloatArray, held: BoolArray, damping: FloatArray) -> FloatArray:
    """Step (v, p) of the damped normal equations; zero for held parameters."""
    p = pull.shape[1]
    moving = ~held[:, :, None] & ~held[:, None, :]
    matrix = np.where(moving & np.isfinite(normal), normal, 0.0)
    diagonal = np.einsum("vpp->vp", matrix)
    matrix = matrix + np.eye(p) * np.where(diagonal > 0, damping[:, None], 1.0)[:, :, None]
    return np.asarray(np.linalg.solve(matrix, np.nan_to_num(pull)[..., None])[..., 0])


def _errors(problem: _Problem, theta: FloatArray, *, known_noise: bool) -> Solution:
    """Covariance and bias at the solution."""
    v, p = theta.shape
    free = np.flatnonzero(problem.free)
    residual = problem.measured - problem.expected(theta)
    slope = problem.slope(theta)
    unscaled = np.zeros((v, p, p))
    unscaled[:, free[:, None], free] = inverse_information(slope[..., free], problem.weights)
    freedom = residual.shape[1] - len(free)
    variance = np.ones(v)
    if not known_noise:
        variance = (residual**2).sum(axis=1) / (freedom if freedom > 0 else np.nan)
    covariance = unscaled * variance[:, None, None]
    bend = second_differences(problem.expected, theta, root(covariance))
    bias = -0.5 * np.einsum("vpq,vnq,vn->vp", unscaled, slope, problem.weights * bend)
    rmse = np.sqrt((residual**2).mean(axis=1)) if freedom > 0 else np.full(v, np.nan)
    return Solution(theta, covariance, bias, rmse, np.zeros(v, dtype=int))


def _output_flags(problem: _Problem, solution: Solution, settled: BoolArray) -> IntArray:
    low, high = _limits(problem.model)
    edge = ((solution.theta <= low) | (solution.theta >= high)) & problem.free
    known = np.isfinite(solution.covariance).all(axis=(1, 2))
    conditions = [~settled, edge.any(axis=1), ~known]
    flags = [int(Flag.NOT_CONVERGED), int(Flag.AT_BOUND), int(Flag.NO_ERROR)]
    return np.asarray(np.select(conditions, flags, int(Flag.OK)))
