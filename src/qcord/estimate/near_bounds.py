"""How large a likelihood ratio becomes by chance where parameters end at bounds nearby: by simulation."""

from dataclasses import dataclass, replace

import numpy as np

from qcord.core.arrays import BoolArray, FloatArray, IntArray
from qcord.core.model import Derived
from qcord.core.noise import Gaussian, Rician
from qcord.estimate.jacobian import gradient
from qcord.estimate.levenberg_marquardt import Problem, limits, minimise
from qcord.estimate.profile import PRECISE, ROUNDS, Pinned, Point
from qcord.estimate.voxelwise import inverse, multiply

NEAR = 3.5
"""Standard errors from which a bound no longer counts."""

_DRAWS = 192
"""Simulations that decide on a threshold, over the tail of 5 %; those of voxels alike count for each other."""

_FITS = 4096
"""Simulations that are fitted together."""

_NUMBERS = 1 << 22
"""Numbers of one array that are held at a time."""

_NEIGHBOURS = 16
_ALIKE = 1.0
"""Distance of voxels that share simulations, at most."""

_RELATED = 0.2
"""Least correlation with the value of a parameter whose bounds count: what they do goes with its square."""

_PINNED = 0.05
"""Error that is left to a pinned value, relative to its own."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What is simulated: a problem of v voxels, a value, its point and, roughly, its error (v,)."""

    problem: Problem
    metric: Derived
    at: Point
    error: FloatArray

    def take(self, columns: IntArray) -> "Truth":
        """Some of the voxels."""
        return Truth(self.problem.take(columns), self.metric, self.at.take(columns), self.error[columns])


def bound_distances(problem: Problem, metric: Derived, theta: FloatArray, scale: FloatArray) -> FloatArray:
    """Distances (2 f, v) of the free parameters from their bounds, in standard errors and `NEAR` at most.

    Where the measurements leave a parameter open, all count as at their bounds; the bounds of one that has nothing to
    do with the value are far.
    """
    free = np.flatnonzero(problem.free)
    normal = problem.linearise(theta).normal[free[:, None], free]
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.sqrt(np.einsum("ppv->pv", normal))
        covariance = inverse(normal / (size[:, None] * size[None, :]))
        slope = gradient(metric, theta.T).T[free] / size
        along = multiply(covariance, slope)
        unscaled = np.sqrt(np.einsum("ppv->pv", covariance))
        correlation = along / (unscaled * np.sqrt(np.einsum("pv,pv->v", slope, along)))
        std = unscaled * np.sqrt(scale) / size
    std = np.where(np.isfinite(std) & (std > 0), std, np.inf)
    std = np.where(np.abs(correlation) < _RELATED, 0.0, std)
    ends = np.concatenate([np.abs(bound[free] - theta[free]) for bound in limits(problem.evaluator.model)])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.fmin(ends / np.concatenate([std, std]), NEAR))


def is_near(distances: FloatArray) -> BoolArray:
    """Whether any bound counts (v,)."""
    return np.asarray((distances < NEAR).any(axis=0))


def simulated_ratio(truth: Truth, best: FloatArray, scale: FloatArray, alike: FloatArray, tail: float) -> FloatArray:
    """Quantile of the likelihood ratio of a value, relative to that without bounds.

    The truth is measured anew; the ratio is between the best fit with the true value and the best of all, both within
    the bounds. Voxels that are alike share what they were simulated.

    Parameters
    ----------
    truth : Truth
        The best fit of v voxels with a value that is in question.
    best : (p, v) array
        The best fit of all, from which simulated measurements are fitted as well.
    scale : (v,) array
        Variance that weights are in units of.
    alike : (k, v) array
        What voxels have in common that share simulations if they differ by less than 1: from `bound_distances`.
    tail : float
        Chance of a larger ratio, such as .05.

    Returns
    -------
    (v,) array
        1 where nothing could be fitted.

    References
    ----------
    Feldman and Cousins 1998, doi:10.1103/PhysRevD.57.3873 (intervals of bounded values by the ratio);
    NOvA Collaboration 2022, doi:10.48550/arXiv.2207.14353 (with what else is not known at its best).
    """
    from scipy import stats

    shared = _shared(alike)
    wanted = np.ceil(_DRAWS * max(1.0, 0.05 / tail) / (shared >= 0).sum(axis=1)).astype(int)
    copies = np.repeat(np.arange(len(scale)), wanted)
    place = np.arange(len(copies)) - np.repeat(np.cumsum(wanted) - wanted, wanted)
    generator = np.random.default_rng(20)
    ratios = np.full((len(scale), int(wanted.max())), np.nan)
    for first in range(0, len(copies), _FITS):
        part = copies[first : first + _FITS]
        found = _ratios(truth.take(part), best[:, part], scale[part], generator)
        ratios[part, place[first : first + _FITS]] = found
    result = np.empty(len(scale))
    step = max(1, _NUMBERS // (shared.shape[1] * ratios.shape[1]))
    for first in range(0, len(scale), step):
        with_whom = shared[first : first + step]
        pooled = np.where((with_whom >= 0)[:, :, None], ratios[with_whom], np.nan).reshape(len(with_whom), -1)
        result[first : first + step] = _quantile(pooled, 1 - tail)
    return result / float(stats.chi2.ppf(1 - tail, 1))


def _ratios(truth: Truth, best: FloatArray, scale: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Ratio (v,) of one simulation of each voxel."""
    problem, theta = truth.problem, truth.at.theta
    noise = Gaussian(np.sqrt(scale / problem.weights)) if problem.sigma is None else Rician(problem.sigma)
    signal = np.asarray(problem.evaluator.signal(theta, problem.given), dtype=float)
    problem = replace(problem, measured=noise.sample(signal, generator))
    width = _PINNED * truth.error
    pinned = Pinned(**problem.__dict__, metric=truth.metric, target=truth.at.value, width=width)
    held, _ = minimise(pinned, theta, PRECISE, ROUNDS)
    free = [minimise(problem, start, PRECISE, ROUNDS)[0] for start in (held, best)]
    least = np.fmin(problem.deviance(free[0]), problem.deviance(free[1]))
    return np.asarray(np.maximum(problem.deviance(held) - least, 0.0) / scale)


def _shared(distances: FloatArray) -> IntArray:
    """Voxels (v, k) that lie like each one; -1 where there are no more."""
    from scipy.spatial import KDTree

    size = distances.shape[1]
    k = min(_NEIGHBOURS, size)
    apart, nearest = KDTree(distances.T).query(distances.T, k=k)
    apart, nearest = (np.reshape(np.asarray(x), (size, k)) for x in (apart, nearest))
    return np.asarray(np.where(apart <= _ALIKE, nearest, -1))


def _quantile(ratios: FloatArray, chance: float) -> FloatArray:
    """What the next draw of each row (v, n) stays below with a chance; as without bounds where a row is empty."""
    from scipy import stats

    ordered = np.sort(ratios, axis=1)
    count = np.isfinite(ordered).sum(axis=1)
    rank = np.clip(chance * (count + 1) - 1, 0, np.maximum(count - 1, 0))
    below = np.floor(rank).astype(int)
    above = np.minimum(below + 1, np.maximum(count - 1, 0))
    rows = np.arange(len(ordered))
    found = ordered[rows, below] + (rank - below) * (ordered[rows, above] - ordered[rows, below])
    return np.asarray(np.where(count > 0, found, stats.chi2.ppf(chance, 1)))
