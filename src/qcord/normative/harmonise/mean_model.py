"""Shift of each site and effect of each covariate in one feature, by generalised least squares.

The sites are fixed terms here, so that covariates are judged within sites and no difference between sites can pass for
an effect of age or sex; they are drawn to their manufacturers afterwards (`priors`). A person measured several times
has an effect of its own, drawn from a normal distribution.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from qcord.core.arrays import FloatArray, IntArray

LARGEST_RATIO = 1e3
"""Largest spread between persons over that within a person that is looked for."""


@dataclass(frozen=True, eq=False)
class MeanModel:
    """Fit of one feature.

    Parameters
    ----------
    shift : (k,) array
        Mean of each site at covariates 0; NaN where a site has no value.
    shift_covariance : (k, k) array
        Its covariance, NaN likewise.
    slopes, slopes_covariance : (p,), (p, p) arrays
        Effect of each column of the design.
    person : (q,) array
        Best prediction of the effect of each person, 0 where there is no such effect.
    person_variance : float
        Variance of the effects of persons.
    residual : (n,) array
        Values less site, covariates and person.
    freedom : (n,) array
        Degrees of freedom that each residual keeps; they sum to n less the fitted terms.
    """

    shift: FloatArray
    shift_covariance: FloatArray
    slopes: FloatArray
    slopes_covariance: FloatArray
    person: FloatArray
    person_variance: float
    residual: FloatArray
    freedom: FloatArray


@dataclass(frozen=True, eq=False)
class _Solution:
    coefficients: FloatArray
    covariance: FloatArray
    residual: FloatArray
    person: FloatArray
    deviance: float
    freedom: FloatArray


def _solve(
    y: FloatArray, design: FloatArray, variance: FloatArray, person: IntArray, person_variance: float
) -> _Solution:
    """Generalised least squares with the variances known, by the formula of Sherman and Morrison per person."""
    n_person = int(person.max()) + 1
    weight = 1 / variance
    weighted = design * weight[:, None]
    total = np.bincount(person, weight, n_person)
    shrink = person_variance / (1 + person_variance * total)
    sums = np.zeros((n_person, design.shape[1]))
    np.add.at(sums, person, weighted)
    information = design.T @ weighted - sums.T @ (shrink[:, None] * sums)
    y_sums = np.bincount(person, weight * y, n_person)
    covariance = np.linalg.inv(information)
    coefficients = covariance @ (weighted.T @ y - sums.T @ (shrink * y_sums))
    rest = y - design @ coefficients
    effect = shrink * np.bincount(person, weight * rest, n_person)
    residual = rest - effect[person]
    # diagonal of the projection P = V^-1 - V^-1 X (X' V^-1 X)^-1 X' V^-1
    whitened = weighted - weight[:, None] * (shrink[:, None] * sums)[person]
    projection = weight - weight**2 * shrink[person] - np.einsum("ij,jk,ik->i", whitened, covariance, whitened)
    log_determinant = np.log(variance).sum() + np.log1p(person_variance * total).sum()
    deviance = log_determinant + np.linalg.slogdet(information)[1] + float(np.sum(weight * residual * rest))
    return _Solution(coefficients, covariance, residual, effect, float(deviance), np.clip(variance * projection, 0, 1))


def fit_mean_model(
    y: FloatArray,
    site: IntArray,
    n_sites: int,
    covariates: FloatArray,
    variance: FloatArray,
    *,
    person: IntArray | None = None,
) -> MeanModel:
    """Fit one feature.

    Parameters
    ----------
    y : (n,) array
        Values, finite.
    site : (n,) int array
        Index of the site.
    n_sites : int
        k; sites without a value are allowed.
    covariates : (n, p) array
        Design without an intercept.
    variance : (n,) array
        Variance of each value about its person, positive.
    person : (n,) int array, optional
        Index of the person of each row; its spread is then estimated by restricted maximum likelihood.

    References
    ----------
    Laird and Ware 1982, doi:10.2307/2529876; Beer 2020, doi:10.1016/j.neuroimage.2020.117129.
    """
    present = np.unique(site)
    dummies = (site[:, None] == present[None, :]).astype(float)
    design = np.column_stack([dummies, covariates])
    people = np.arange(len(y)) if person is None else person
    person_variance = 0.0
    if person is not None:
        typical = float(np.median(variance))

        def deviance(root: float) -> float:
            return _solve(y, design, variance, people, typical * root**2).deviance

        grid = np.concatenate([[0.0], np.geomspace(0.05, LARGEST_RATIO, 30)])
        best = int(np.argmin([deviance(r) for r in grid]))
        bounds = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
        root = float(minimize_scalar(deviance, bounds=bounds, method="bounded").x)
        person_variance = typical * root**2 if deviance(root) < deviance(0.0) else 0.0
    solution = _solve(y, design, variance, people, person_variance)
    k = len(present)
    shift = np.full(n_sites, np.nan)
    shift[present] = solution.coefficients[:k]
    covariance = np.full((n_sites, n_sites), np.nan)
    covariance[np.ix_(present, present)] = solution.covariance[:k, :k]
    return MeanModel(
        shift,
        covariance,
        solution.coefficients[k:],
        solution.covariance[k:, k:],
        solution.person,
        person_variance,
        solution.residual,
        solution.freedom,
    )
