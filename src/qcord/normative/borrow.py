"""Borrowing along levels and tracts: effects and spreads of one metric are alike where its cells are alike."""

from dataclasses import replace

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.normative.norm import Norm, Norms

FEWEST = 3
"""Cells of a metric from which on they tell what is usual."""


def borrow(norms: Norms) -> Norms:
    """Draw the effects of covariates and the ratios of spreads of each cell to those of the other cells of its metric.

    Parameters
    ----------
    norms : Norms
        Norms of many levels or tracts, of the same terms and manufacturers where they are to borrow from each other.

    Returns
    -------
    Norms
        Each effect, over the spread of people, moves to the mean of the others by its own variance over the sum of this
        and what cells truly differ by. Standard errors stay: cells are measured in the same people, whose luck they
        share, so that agreement between them is no proof.

    References
    ----------
    DerSimonian and Laird 1986, doi:10.1016/0197-2456(86)90046-2 (true differences between estimates with errors).
    """
    groups: dict[tuple[object, ...], list[Norm]] = {}
    for norm in norms:
        h = norm.hierarchy
        key = (norm.cell.metric, norm.terms, h.manufacturers, h.studies, h.studied)
        groups.setdefault(key, []).append(norm)
    return Norms.of(one for group in groups.values() for one in _together(group))


def _together(group: list[Norm]) -> list[Norm]:
    if len(group) < FEWEST:
        return group
    hs = [norm.hierarchy for norm in group]
    p = len(group[0].terms.names)
    sigma = np.array([np.exp(h.variances[0]) for h in hs])
    covariates = [k for k, name in enumerate(group[0].terms.names) if name != "one"]
    variances = np.stack([h.variances for h in hs])
    doubt = np.stack([np.diag(h.variances_covariance) for h in hs])
    moved = variances.copy()
    for j in range(1, variances.shape[1]):
        moved[:, j] = _drawn(variances[:, j], doubt[:, j])
    effects = np.stack([h.coefficients for h in hs])
    errors = np.stack([np.diag(h.covariance) for h in hs])
    change = np.zeros_like(effects)
    for j in covariates:
        change[:, j] = _drawn(effects[:, j] / sigma, errors[:, j] / sigma**2) * sigma - effects[:, j]
    result = []
    for norm, h, new, step in zip(group, hs, moved, change, strict=True):
        # the intercept follows, so that the mean of the people who were measured stays
        people = h.sites.count @ (h.sites.columns / np.maximum(h.sites.weight, 1e-300)[:, None])
        mean = people / h.sites.count.sum()
        shift = step.copy()
        shift[0] -= float(mean[1:] @ step[1:p])
        drift = (new - h.variances) @ h.coefficients_slope
        spread = h.covariance + np.einsum("d,dij->ij", new - h.variances, h.covariance_slope)
        good = bool(np.linalg.eigvalsh(spread).min() > 0)
        result.append(
            replace(
                norm,
                hierarchy=replace(
                    h,
                    variances=new,
                    coefficients=h.coefficients + shift + drift,
                    covariance=spread if good else h.covariance,
                ),
                card={**norm.card, "borrowed": len(group)},
            )
        )
    return result


def _drawn(estimate: FloatArray, variance: FloatArray) -> FloatArray:
    """Estimates drawn to their weighted mean as far as their errors explain their differences."""
    w = 1 / np.maximum(variance, 1e-12)
    mean = (w @ estimate) / w.sum()
    excess = w @ (estimate - mean) ** 2 - (len(estimate) - 1)
    between = max(0.0, excess / (w.sum() - (w @ w) / w.sum()))
    return np.asarray(mean + (estimate - mean) * between / (between + variance))
