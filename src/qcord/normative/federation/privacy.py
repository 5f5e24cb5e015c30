"""Noise that hides whether any one person is in the sums: the analytic Gaussian mechanism.

What is released of a site, per set of people the upper triangle of the sums of products of columns, per cell the sums
of column times value, squared value and squared standard error, is one vector. A person with design x and values u
(scaled to -1 to 1 by bounds that do not depend on the data) adds to it

    x_j x_k for j <= k (once for each set of people),  and for each cell  u x, u^2, w  with |u| <= 1, 0 <= w <= 1,

so adding or removing one person moves it by at most the root of  K sum_{j <= k} x_j^2 x_k^2 + C (|x|^2 + 2),  with K
sets and C cells; the largest over all ages in whole years, both sexes and all heights in whole centimetres within
bounds is the sensitivity. Which groups were large enough to be exported is not covered by the guarantee.

References
----------
Dwork and Roth 2014, doi:10.1561/0400000042 (definition, composition, post-processing);
Balle and Wang 2018, arXiv:1805.06530, theorem 8 (the smallest noise of this kind);
Mironov 2012, doi:10.1145/2382196.2382264 (why the noisy numbers are rounded to a grid).
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from scipy import optimize, special

from qcord.core.arrays import FloatArray
from qcord.core.errors import ImplausibleValue
from qcord.normative.norm import Norm
from qcord.normative.statistics import Rows, Statistics
from qcord.normative.terms import HEIGHT, HEIGHT_UNIT, Terms

SE_OF_RANGE = 0.1
"""Standard errors are clipped to this part of the range of values."""

_GRID = 1024.0


@dataclass(frozen=True)
class Bounds:
    """What is known before any data are seen; whatever lies outside is moved to the edge.

    Parameters
    ----------
    value : mapping of str to (low, high)
        Of each metric, in its unit.
    age : (low, high)
        Whole years.
    height : (low, high)
        Whole centimetres.
    """

    value: Mapping[str, tuple[float, float]]
    age: tuple[int, int] = (20, 80)
    height: tuple[int, int] = (145, 200)

    def of(self, metric: str) -> tuple[float, float]:
        """Bounds of a metric.

        Raises
        ------
        ImplausibleValue
            If there are none, or they are no interval.
        """
        if metric not in self.value:
            raise ImplausibleValue(f"Noise needs bounds of {metric} that do not come from the data; state them.")
        low, high = self.value[metric]
        if not (np.isfinite([low, high]).all() and low < high):
            raise ImplausibleValue(f"The bounds {low:g} to {high:g} of {metric} are no interval; give low and high.")
        return float(low), float(high)


def noise_scale(sensitivity: float, epsilon: float, delta: float) -> float:
    """Smallest standard deviation of Gaussian noise that is (epsilon, delta)-private.

    Parameters
    ----------
    sensitivity : float
        Largest change of the released vector (Euclidean length) when one person is added or removed.
    epsilon, delta : float
        Privacy budget; positive, delta below 1.

    Raises
    ------
    ImplausibleValue
        If the budget is none.
    """
    if not (0 < epsilon < 1e3 and 0 < delta < 1):
        raise ImplausibleValue(
            f"Epsilon {epsilon:g} and delta {delta:g} are no budget; give epsilon > 0, 0 < delta < 1."
        )

    def excess(log_ratio: float) -> float:
        return float(np.log(max(privacy_loss(np.exp(log_ratio), epsilon), 1e-300)) - np.log(delta))

    return float(sensitivity * np.exp(optimize.brentq(excess, -10.0, 20.0, xtol=1e-12)))


def privacy_loss(ratio: float, epsilon: float) -> float:
    """Delta of Gaussian noise of ``ratio`` times the sensitivity, for an epsilon (Balle and Wang 2018, equation 6)."""
    a, b = 0.5 / ratio, epsilon * ratio
    first, second = special.log_ndtr(a - b), epsilon + special.log_ndtr(-a - b)
    return float(np.exp(first) * -np.expm1(min(second - first, 0.0)))


def possible_designs(terms: Terms, bounds: Bounds) -> FloatArray:
    """Design (m, p) of every age, sex and height within bounds."""
    ages = np.arange(bounds.age[0], bounds.age[1] + 1, dtype=float)
    heights = np.arange(bounds.height[0], bounds.height[1] + 1) / 100 if terms.height else np.array([HEIGHT])
    age, male, height = np.array(list(product(ages, (0.0, 1.0), heights))).T
    return terms.design(age, male, height if terms.height else None)


def sensitivity(terms: Terms, bounds: Bounds, n_sets: int, n_cells: int) -> float:
    """Largest length of what one person adds to the released vector.

    Parameters
    ----------
    terms : Terms
        Design.
    bounds : Bounds
        Ages and heights that can be.
    n_sets, n_cells : int
        Different sets of people, and cells, that the person can be in.
    """
    x = possible_designs(terms, bounds)
    square = x**2
    pairs = ((square.sum(axis=1)) ** 2 + (square**2).sum(axis=1)) / 2
    return float(np.sqrt((n_sets * pairs + n_cells * (square.sum(axis=1) + 2)).max()))


def clip(group: Rows, terms: Terms, bounds: Bounds, metric: str) -> Rows:
    """Rows with ages in whole years, heights in whole centimetres, values and errors within bounds."""
    low, high = bounds.of(metric)
    age = np.clip(np.floor(group.age + 1e-9), *bounds.age)
    male = group.design[:, terms.names.index("male")] + 0.5 if terms.sex else np.full(len(age), 0.5)
    height = None
    if terms.height:
        metres = group.design[:, terms.names.index("height")] * HEIGHT_UNIT + HEIGHT
        height = np.clip(np.rint(metres * 100), *bounds.height) / 100
    return replace(
        group,
        design=terms.design(age, male, height),
        value=np.clip(group.value, low, high),
        variance=np.clip(group.variance, 0, (SE_OF_RANGE * (high - low)) ** 2),
        age=age,
    )


def normals(seed: int, n: int) -> FloatArray:
    """Standard normal numbers (n,) that nobody without the seed can foresee (HMAC-SHA256 in counter mode)."""
    key = seed.to_bytes(32)
    words = [hmac.new(key, k.to_bytes(8), hashlib.sha256).digest()[:8] for k in range(n)]
    uniform = ((np.array([int.from_bytes(w) >> 12 for w in words], dtype=float)) + 0.5) / 2.0**52
    return np.asarray(special.ndtri(uniform))


def noisy(
    statistics: Statistics, bounds: tuple[float, float], sigma: float, noise_xx: FloatArray, noise_cell: FloatArray
) -> Statistics:
    """Sums of one cell at one site, with noise, repaired to be sums that a group of people can have.

    Parameters
    ----------
    statistics : Statistics
        One group, of clipped rows.
    bounds : (low, high)
        Of the values.
    sigma : float
        Standard deviation of the noise.
    noise_xx : (p (p + 1) / 2,) array
        Standard normal numbers for the upper triangle; the same for all cells of the same people.
    noise_cell : (p + 2,) array
        For column times value, squared value, squared standard error.
    """
    middle, half = sum(bounds) / 2, (bounds[1] - bounds[0]) / 2
    p = statistics.xy.shape[1]
    one, xx, xy, yy = statistics.xx[0, :, 0], statistics.xx[0], statistics.xy[0], statistics.yy[0]
    xu = (xy - middle * one) / half
    uu = (yy - 2 * middle * xy[0] + middle**2 * xx[0, 0]) / half**2
    largest = (2 * half * SE_OF_RANGE) ** 2
    added = np.zeros((p, p))
    upper = np.triu_indices(p)
    added[upper] = _rounded(noise_xx * sigma, sigma)
    added = added + np.triu(added, 1).T
    total = np.append(xu, [uu, statistics.count[0] * statistics.variance[0] / largest]) + noise_cell * sigma
    total = _rounded(total, sigma)
    matrix, xu, uu = repair(_rounded(xx, sigma) + added, total[:p], float(total[p]), sigma)
    count = max(float(matrix[0, 0]), 1.0)
    return replace(
        statistics,
        count=np.array([count]),
        variance=np.array([np.clip(total[p + 1] / count, 0, 1) * largest]),
        xx=matrix[None],
        xy=(half * xu + middle * matrix[:, 0])[None],
        yy=np.array([half**2 * uu + 2 * middle * half * xu[0] + middle**2 * matrix[0, 0]]),
    )


def repair(xx: FloatArray, xu: FloatArray, uu: float, sigma: float) -> tuple[FloatArray, FloatArray, float]:
    """Nearest sums without a direction that is negative or smaller than the noise.

    Eigenvalues of ``xx`` below the size of those of the noise alone (sigma root p) are raised to it, which acts on a
    fit like a weak prior; the squared values are raised to what the sums with the columns imply.
    """
    values, vectors = np.linalg.eigh(xx)
    floor = sigma * np.sqrt(len(xx))
    matrix = (vectors * np.maximum(values, floor)) @ vectors.T
    implied = float(xu @ np.linalg.solve(matrix, xu))
    return np.asarray(matrix + matrix.T) / 2, xu, max(uu, implied + sigma)


def widen(norm: Norm, statistics: Statistics, bounds: tuple[float, float], sigma: FloatArray) -> Norm:
    """Norm whose errors of the effects hold the noise of the sums.

    The normal equations of least squares over all groups are off by noise of variance sigma^2 (1 + |b|^2) per column
    and group, with b the effects in units of half the bounds; solved for effects, this is added to their covariance.

    Parameters
    ----------
    norm : Norm
        Fitted to ``statistics``.
    statistics : Statistics
        Merged sums.
    bounds : (low, high)
        Of the values.
    sigma : (k,) array
        Standard deviation of the noise of each group; 0 where there is none.
    """
    h, p, half = norm.hierarchy, statistics.xy.shape[1], (bounds[1] - bounds[0]) / 2
    effects = h.coefficients[:p] * h.spread / half
    effects[0] += (h.centre - sum(bounds) / 2) / half
    equations = (1 + effects @ effects) * np.eye(p) + np.outer(effects, effects) * (1 - np.eye(p))
    gain = np.linalg.pinv(statistics.xx.sum(axis=0)) * half / h.spread
    covariance = h.covariance.copy()
    covariance[:p, :p] += np.sum(sigma**2) * gain @ equations @ gain.T
    means = sigma * half * np.sqrt(1 + effects[0] ** 2) / statistics.count
    card = {**norm.card, "noise of site means": dict(zip(statistics.site, means.tolist(), strict=True))}
    return replace(norm, hierarchy=replace(h, covariance=covariance), card=card)


def _rounded(values: FloatArray, sigma: float) -> FloatArray:
    grid = 2.0 ** np.floor(np.log2(sigma / _GRID))
    return np.asarray(np.rint(values / grid) * grid)


def outward(age: tuple[int, int]) -> FloatArray:
    """Age bounds (1, 2) as the span of a group: it must not come from the data."""
    return np.array([[np.floor(age[0] / 5) * 5, np.ceil(age[1] / 5) * 5]])
