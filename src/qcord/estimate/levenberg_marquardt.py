"""Levenberg and Marquardt's descent for many voxels at once, within bounds."""

from dataclasses import dataclass, replace

import numpy as np

from qcord.core.arrays import BoolArray, FloatArray, IntArray
from qcord.core.model import SignalModel
from qcord.core.noise import Rician
from qcord.estimate.evaluate import Evaluator
from qcord.estimate.rician import bessel_ratio, information, misfit
from qcord.estimate.voxelwise import solve

ROUNDS = 100
_FIRST_DAMPING = 1e-3
_STIFFEST = 1e12
SETTLED = 1e-6
"""Usual decrease of the cost that a step promises, relative to the cost a measurement, below which it is the last: the
step is shorter than a thousandth of a standard error, and what remains after it is of second order in that."""

_COSINE = 1e-3
"""Cosine between residual and any column of the Jacobian up to which a fit that can move no further has settled."""

_EXACT = 1e-26
"""Squared residual, relative to the squared signal, that is rounding."""


@dataclass(frozen=True, eq=False)
class Problem:
    """v voxels: measurements, weights and noise (n, v), given parameters (g, v), what is free (p,).

    Magnitudes are compared with their expectation, each weighted by its variance, or ``exact`` by their likelihood.
    """

    evaluator: Evaluator
    measured: FloatArray
    weights: FloatArray
    given: FloatArray
    sigma: FloatArray | None
    free: BoolArray
    exact: bool

    def take(self, columns: IntArray) -> "Problem":
        """Some of the voxels."""
        return replace(
            self,
            measured=self.measured[:, columns],
            weights=self.weights[:, columns],
            given=self.given[:, columns],
            sigma=None if self.sigma is None else self.sigma[:, columns],
        )

    def size(self, line: "Line") -> FloatArray:
        """Cost (v,) of a model without signal."""
        return cost_of(line.weights, self.measured)

    def cost_beside(self, line: "Line", new: "Line") -> FloatArray:
        """Cost (v,) of another point, with the weights of this one where they vary."""
        return new.cost if self.exact else cost_of(line.weights, new.residual)

    def deviance(self, theta: FloatArray) -> FloatArray:
        """Twice the negative logarithm of the likelihood (v,), but for what theta (p, v) does not change."""
        signal = np.asarray(self.evaluator.signal(theta, self.given), dtype=float)
        if self.sigma is None:
            return cost_of(self.weights, self.measured - signal)
        return np.asarray(2 * misfit(self.measured / self.sigma, np.abs(signal) / self.sigma).sum(axis=0))

    def expected(self, theta: FloatArray) -> FloatArray:
        """Expectation (n, v) of the measurements; the signal itself unless the noise is Rician."""
        signal = np.asarray(self.evaluator.signal(theta, self.given), dtype=float)
        return signal if self.sigma is None else Rician(self.sigma).expectation(signal)

    def linearise(self, theta: FloatArray) -> "Line":
        """Cost and its quadratic form about theta (p, v)."""
        signal, slope = self.evaluator.slope(theta, self.given, self.free)
        weights = self.weights
        if self.sigma is not None and self.exact:
            snr, measured = signal / self.sigma, self.measured / self.sigma
            score = measured * bessel_ratio(measured * np.abs(snr)) * np.sign(snr) - snr
            weights = information(np.abs(snr)) / self.sigma**2
            return self._line(score * self.sigma, weights, slope, score / self.sigma, self.deviance(theta))
        if self.sigma is not None:
            noise = Rician(self.sigma)
            slope *= noise.expectation_slope(signal)
            weights = weights * self.sigma**2 / noise.variance(signal)
            signal = noise.expectation(signal)
        residual = self.measured - signal
        return self._line(residual, weights, slope, weights * residual, cost_of(weights, residual))

    def _line(
        self, residual: FloatArray, weights: FloatArray, slope: FloatArray, score: FloatArray, cost: FloatArray
    ) -> "Line":
        weighted = slope * weights
        pull = np.einsum("pnv,nv->pv", slope, score)
        normal = np.empty((len(slope), len(slope), slope.shape[2]))
        for i in range(len(slope)):
            np.einsum("nv,jnv->jv", weighted[i], slope[: i + 1], out=normal[i, : i + 1])
            normal[: i + 1, i] = normal[i, : i + 1]
        return Line(residual, weights, cost, slope, pull, normal)


@dataclass(frozen=True, eq=False)
class Line:
    """Residual and weights (n, v), cost (v,), slope (p, n, v), pull (p, v) and normal matrix (p, p, v)."""

    residual: FloatArray
    weights: FloatArray
    cost: FloatArray
    slope: FloatArray
    pull: FloatArray
    normal: FloatArray

    def choose(self, columns: IntArray | BoolArray) -> "Line":
        """Some of the voxels."""
        return Line(*(getattr(self, name)[..., columns] for name in self.__dataclass_fields__))

    def put(self, other: "Line", columns: BoolArray) -> None:
        """Take the columns of another."""
        for name in self.__dataclass_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            mine[..., columns] = theirs[..., columns]


def minimise(
    problem: Problem, start: FloatArray, settled_at: float = SETTLED, rounds: int = ROUNDS
) -> tuple[FloatArray, BoolArray]:
    """Estimates (p, v) from a start (p, v) within the bounds, and whether each voxel settled.

    The last step is the one that promises to lower the cost by ``settled_at`` of the cost a measurement, or
    the last of the rounds.

    References
    ----------
    Marquardt 1963, doi:10.1137/0111030.
    """
    theta, settled = start.copy(), np.zeros(start.shape[1], dtype=bool)
    active = np.arange(start.shape[1])
    low, high = limits(problem.evaluator.model)
    part, here, damping = problem, theta.copy(), np.full(len(active), _FIRST_DAMPING)
    line = part.linearise(here)
    for _ in range(rounds):
        held = ~part.free[:, None] | ((here <= low) & (line.pull < 0)) | ((here >= high) & (line.pull > 0))
        step, gain, cosine = _step(line, held, damping)
        moved = np.where(part.free[:, None], np.clip(here + step, low, high), here)
        exact = line.cost <= _EXACT * part.size(line)
        last = (gain <= settled_at * line.cost / len(part.measured)) & (damping <= 1)
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
        better = part.cost_beside(line, new) < line.cost
        damping = np.where(better, damping / 10, damping * 5)
        line.put(new, better)
        here = np.where(better, moved, here)
    theta[:, active] = here if not settled[active].any() else theta[:, active]
    return theta, settled


def _step(line: Line, held: BoolArray, damping: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
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


def cost_of(weights: FloatArray, residual: FloatArray) -> FloatArray:
    """Weighted sum of squares (v,)."""
    return np.asarray(np.einsum("nv,nv,nv->v", weights, residual, residual))


def limits(model: SignalModel) -> tuple[FloatArray, FloatArray]:
    """Bounds, each (p, 1)."""
    low, high = np.array([p.bounds for p in model.free], dtype=float).T
    return low[:, None], high[:, None]
