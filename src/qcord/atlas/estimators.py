"""Values of regions from the voxels that they share: weighted mean, maximum likelihood, maximum a posteriori.

All three are linear in the voxel values, so that the error of each follows from that of the voxels by one matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from qcord.core.arrays import BoolArray, FloatArray, IntArray

SEPARABLE = 1e-8
"""Least eigenvalue, relative to the largest, at which regions count as told apart by the voxels."""


@dataclass(frozen=True)
class Scatter:
    """How far voxels and regions stray from what they have in common.

    Parameters
    ----------
    noise : float
        Standard deviation of a voxel about the mixture of its regions.
    spread : float
        Standard deviation of a region about the common value of its cluster.
    """

    noise: float
    spread: float


@dataclass(frozen=True, eq=False)
class LinearEstimate:
    """An estimator as a matrix, with the part of the truth that it does not pass on.

    Parameters
    ----------
    matrix : (r, n) array
        From voxel values to regional values.
    leakage : (r,) array
        Root sum of squares of the response of each value to all regional deviations, minus its own; zero for an
        unbiased estimator.
    """

    matrix: FloatArray
    leakage: FloatArray

    def value(self, x: FloatArray) -> FloatArray:
        """Regional values (r,)."""
        return np.asarray(self.matrix @ x)

    def variance(
        self, voxel_variance: FloatArray, spread: float = 0.0, correlation: sparse.csr_array | None = None
    ) -> FloatArray:
        """Variance (r,) of the values.

        Parameters
        ----------
        voxel_variance : (n,) array
            Variance of each voxel.
        spread : float
            Standard deviation of regions about their cluster, for estimators that lean on a prior.
        correlation : (n, n) sparse array, optional
            Correlation of the errors of voxels; independent by default.
        """
        if correlation is None:
            noise = self.matrix**2 @ voxel_variance
        else:
            scaled = np.nan_to_num(self.matrix) * np.sqrt(voxel_variance)
            noise = np.maximum(((scaled @ correlation) * scaled).sum(axis=1), 0)
        return np.asarray(noise + (spread * self.leakage) ** 2)

    def take(self, rows: IntArray) -> "LinearEstimate":
        """Selected regions."""
        return LinearEstimate(self.matrix[rows], self.leakage[rows])


def weighted_mean(weights: FloatArray) -> LinearEstimate:
    """Mean weighted by the fraction of the region in each voxel (n, r); regions without weight give NaN."""
    total = weights.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix = (weights / total).T
    return LinearEstimate(matrix, np.zeros(weights.shape[1]))


def maximum_likelihood(weights: FloatArray) -> LinearEstimate:
    """Least-squares unmixing of voxels (n, r); regions that the voxels do not tell apart give NaN.

    References
    ----------
    Levy 2015, doi:10.1016/j.neuroimage.2015.06.040.
    """
    r = weights.shape[1]
    matrix = np.full((r, len(weights)), np.nan)
    used = np.flatnonzero(weights.sum(axis=0) > 0)
    if used.size:
        w = weights[:, used]
        values, vectors = np.linalg.eigh(w.T @ w)
        good = values > SEPARABLE * values[-1]
        inverse = (vectors[:, good] / values[good]) @ vectors[:, good].T
        part = inverse @ w.T
        lost = (vectors[:, ~good] ** 2).sum(axis=1) > 1e-6
        part[lost] = np.nan
        matrix[used] = part
    return LinearEstimate(matrix, np.zeros(r))


def maximum_a_posteriori(weights: FloatArray, cluster: IntArray, ratio: float = 1.0) -> LinearEstimate:
    """Unmixing of voxels (n, r) with each region drawn to the common value of its cluster.

    Parameters
    ----------
    weights : (n, r) array
        Fractions.
    cluster : (r,) int array
        Cluster of each region; the common value of a cluster is its maximum-likelihood estimate.
    ratio : float
        Standard deviation of the noise of a voxel over that of the regions about their cluster; the larger,
        the closer regions are drawn together.

    References
    ----------
    Levy 2015, doi:10.1016/j.neuroimage.2015.06.040.
    """
    r = weights.shape[1]
    member = np.zeros((r, int(cluster.max()) + 1))
    member[np.arange(r), cluster] = 1
    common = member @ np.nan_to_num(maximum_likelihood(weights @ member).matrix)
    normal = weights.T @ weights
    gain = np.linalg.solve(normal + ratio**2 * np.eye(r), weights.T)
    matrix = gain + common - gain @ (weights @ common)
    matrix[weights.sum(axis=0) <= 0] = np.nan
    response = matrix @ weights - np.eye(r)
    return LinearEstimate(matrix, np.sqrt((response**2).sum(axis=1)))


def merge(weights: FloatArray, cluster: IntArray, members: IntArray) -> tuple[FloatArray, IntArray]:
    """Replace several regions by their union, which becomes the first column."""
    rest = np.setdiff1d(np.arange(weights.shape[1]), members)
    merged = np.concatenate([weights[:, members].sum(axis=1, keepdims=True), weights[:, rest]], axis=1)
    first = np.bincount(cluster[members], weights[:, members].sum(axis=0)).argmax()
    return merged, np.concatenate([[first], cluster[rest]]).astype(int)


def regional_estimate(
    name: str,
    weights: FloatArray,
    groups: Sequence[IntArray],
    cluster: IntArray,
    *,
    used: BoolArray | None = None,
    map_ratio: float = 1.0,
) -> LinearEstimate:
    """Estimator of several regions and unions of regions.

    Parameters
    ----------
    name : str
        ``wa``, ``ml`` or ``map``.
    weights : (n, r) array
        Fractions.
    groups : sequence of int arrays
        Columns that make up each reported region; a union is unmixed from the remaining regions as one.
    cluster : (r,) int array
        Cluster of each column.
    used : (n,) bool array, optional
        Voxels that take part in unmixing; all by default. The weighted mean uses all in any case.
    map_ratio : float
        See `maximum_a_posteriori`.
    """
    if name == "wa":
        return weighted_mean(np.stack([weights[:, g].sum(axis=1) for g in groups], axis=-1))
    chosen = np.ones(len(weights), dtype=bool) if used is None else used
    part = weights[chosen]

    def unmix(w: FloatArray, c: IntArray) -> LinearEstimate:
        return maximum_likelihood(w) if name == "ml" else maximum_a_posteriori(w, c, map_ratio)

    every = unmix(part, cluster)
    parts = []
    for group in groups:
        if len(group) == 1:
            parts.append(every.take(group))
        else:
            parts.append(unmix(*merge(part, cluster, group)).take(np.array([0])))
    matrix = np.zeros((len(groups), len(weights)))
    matrix[:, chosen] = np.concatenate([p.matrix for p in parts])
    lost = np.isnan(np.concatenate([p.matrix for p in parts])).any(axis=1) | ~chosen.any()
    matrix[lost] = np.nan
    return LinearEstimate(matrix, np.concatenate([p.leakage for p in parts]))
