"""Whether values of several scanners may be pooled as they are, and whether covariates can be told from sites."""

import warnings
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import norm

from qcord.core.arrays import FloatArray
from qcord.core.errors import ApproximationWarning, NotIdentifiable, NotPoolable
from qcord.normative.harmonise.combat import fit_feature, own_variance
from qcord.normative.harmonise.design import complete_rows, make_design, require_columns
from qcord.normative.harmonise.effects import eta_squared
from qcord.normative.harmonise.harmoniser import numbers
from qcord.normative.harmonise.priors import locate
from qcord.normative.harmonise.training import Training, read_training

LARGEST_DIFFERENCE = 0.5
"""Largest difference between batches, in spreads between people of a site, at which values may be taken together. Of
healthy people half a spread off, 13 in 100, not 5, lie beyond the limit that 5 in 100 should."""

CONFOUNDED = 10.0
"""Variance of the error of a covariate's effect, over that without sites, at which its effect is refused."""

NEARLY_CONFOUNDED = 2.5
"""The same, at which a warning is given."""

SURE = 0.05


def batch_differences(
    table: pd.DataFrame,
    features: Sequence[str],
    *,
    batch: str = "manufacturer",
    site: str | None = None,
    covariates: Sequence[str] = (),
) -> pd.DataFrame:
    """Largest difference between batches in each feature that covariates leave.

    Parameters
    ----------
    table : DataFrame
        One row per person.
    features : sequence of str
        Columns.
    batch : str
        Column of what is compared: manufacturer, protocol, site.
    site : str, optional
        Column of the site, if batches hold several. Sites of a batch differ among themselves; the error of a batch's
        mean is then that of few sites, not that of many people.
    covariates : sequence of str
        Columns whose effect, judged within sites, is taken off first.

    Returns
    -------
    DataFrame
        feature, high and low (the two batches farthest apart), difference (unit of the feature), difference_se, spread
        (between people of a site), ratio (difference over spread), ratio_se, p (of a difference this large between any
        two batches, by chance), eta_squared (of the batch beyond the covariates), n.

    Raises
    ------
    NotIdentifiable
        There is one batch alone, or no spread.
    """
    site = site or batch
    data = read_training(
        table,
        features,
        batch=site,
        manufacturer=None if site == batch else batch,
        covariates=covariates,
        smooth=(),
        se={},
        participant=None,
    )
    names = data.sites if site == batch else data.families
    if len(names) < 2:
        msg = f"There is one {batch} alone ({names[0]}); nothing is pooled."
        raise NotIdentifiable(msg)
    require_columns(table, (batch,))
    x = data.design.matrix(table)
    rows = []
    for g, feature in enumerate(features):
        shift, variance, sigma = _batch_means(data, g, nested=site != batch)
        row = _farthest(shift, variance, names)
        share = eta_squared(numbers(table, feature), table[batch], x)
        rows.append(
            {
                "feature": feature,
                "high": row[0],
                "low": row[1],
                "difference": row[2] * sigma,
                "difference_se": row[3] * sigma,
                "spread": sigma,
                "ratio": row[2],
                "ratio_se": row[3],
                "p": row[4],
                "eta_squared": share.eta_squared,
                "n": share.n,
            }
        )
    return pd.DataFrame(rows)


def _batch_means(data: Training, g: int, *, nested: bool) -> tuple[FloatArray, FloatArray, float]:
    """Mean of each batch and its variance, in spreads between people, and that spread."""
    model, sigma = fit_feature(data, g)
    shift, variance = model.shift / sigma, own_variance(model.shift_covariance) / sigma**2
    if not nested:
        return shift, variance, sigma
    location = locate((shift - np.nanmean(shift))[:, None], variance[:, None], data.maker, len(data.families))
    return location.maker_shift[:, 0], location.maker_variance[:, 0], sigma


def _farthest(shift: FloatArray, variance: FloatArray, names: tuple[str, ...]) -> tuple[str, str, float, float, float]:
    """The two batches that are surest to differ most: names, difference, error, probability by chance (Bonferroni)."""
    known = [i for i in range(len(names)) if np.isfinite(shift[i]) and np.isfinite(variance[i])]
    pairs = list(combinations(known, 2))
    if not pairs:
        msg = f"Fewer than two of {', '.join(names)} have values; nothing is pooled."
        raise NotIdentifiable(msg)
    difference = np.array([shift[a] - shift[b] for a, b in pairs])
    error = np.sqrt([variance[a] + variance[b] for a, b in pairs])
    best = int(np.argmax(np.maximum(difference**2 - error**2, 0) + 1e-9 * difference**2))
    a, b = pairs[best] if difference[best] > 0 else pairs[best][::-1]
    p = min(1.0, 2 * float(norm.sf(np.max(np.abs(difference) / error))) * len(pairs))
    return names[a], names[b], float(abs(difference[best])), float(error[best]), p


def require_poolable(
    table: pd.DataFrame,
    features: Sequence[str],
    *,
    batch: str = "manufacturer",
    site: str | None = None,
    covariates: Sequence[str] = (),
    largest: float = LARGEST_DIFFERENCE,
) -> pd.DataFrame:
    """Refuse to take values of several batches together as they are if they differ.

    Parameters
    ----------
    table, features, batch, site, covariates
        As in `batch_differences`.
    largest : float
        Difference, in spreads between people of a site, that is accepted.

    Returns
    -------
    DataFrame
        That of `batch_differences`.

    Raises
    ------
    NotPoolable
        Batches differ by more than ``largest``, beyond chance.

    Warns
    -----
    ApproximationWarning
        People or sites are too few to tell.
    """
    found = batch_differences(table, features, batch=batch, site=site, covariates=covariates)
    excess = np.sqrt(np.maximum(found["ratio"] ** 2 - found["ratio_se"] ** 2, 0))
    apart = found[(excess > largest) & (found["p"] < SURE)]
    if len(apart):
        worst = apart.iloc[int(np.argmax(apart["ratio"]))]
        others = f" (and {len(apart) - 1} further features)" if len(apart) > 1 else ""
        msg = (
            f"{worst['feature']}{others} of {batch} {worst['high']} lies {worst['ratio']:.1f} spreads between people "
            f"above {worst['low']} (eta squared {worst['eta_squared']:.2f}), more than {largest:g}: keep one {batch}, "
            f"give {batch} as a term of the model, or harmonise (fit_combat)."
        )
        raise NotPoolable(msg)
    unsure = found[(found["ratio"] + 2 * found["ratio_se"] > largest) & (found["p"] >= SURE)]
    if len(unsure):
        worst = unsure.iloc[int(np.argmax(unsure["ratio_se"]))]
        msg = (
            f"{batch} {worst['high']} and {worst['low']} may differ by more than {largest:g} spreads in "
            f"{worst['feature']} ({worst['ratio']:.1f} with an error of {worst['ratio_se']:.1f}); there are too "
            "few people or sites to tell."
        )
        warnings.warn(msg, ApproximationWarning, stacklevel=2)
    return found


def require_unconfounded(table: pd.DataFrame, covariates: Sequence[str], *, batch: str = "site") -> pd.DataFrame:
    """Refuse covariates that cannot be told from sites, such as age where all old people were measured at one site.

    Parameters
    ----------
    table : DataFrame
        One row per person.
    covariates : sequence of str
        Columns, numbers or text.
    batch : str
        Column of the site.

    Returns
    -------
    DataFrame
        term, inflation: the variance of the term over that within sites, which is by how much the squared error of its
        effect grows because sites differ in it.

    Raises
    ------
    NotIdentifiable
        A term does not vary within sites, or its inflation is above `CONFOUNDED`.

    Warns
    -----
    ApproximationWarning
        The inflation is above `NEARLY_CONFOUNDED`: the effect is judged by a small part of the data.
    """
    design = make_design(table, covariates)
    require_columns(table, (batch,))
    x = design.matrix(table)
    rows = complete_rows(x) & table[batch].notna().to_numpy()
    codes, names = pd.factorize(table[batch][rows].astype(str), sort=True)
    free = int(rows.sum()) - len(names)
    if len(names) < 2 or free < 1:
        msg = (
            f"{int(rows.sum())} complete rows at {len(names)} {batch} do not tell covariates from {batch}; add people."
        )
        raise NotIdentifiable(msg)
    found = []
    for term, column in zip(design.terms, x[rows].T, strict=True):
        means = np.bincount(codes, column) / np.bincount(codes)
        within = float(np.sum((column - means[codes]) ** 2)) / free
        whole = float(np.var(column, ddof=1))
        found.append({"term": term, "inflation": whole / within if within > 1e-12 * whole else np.inf})
    result = pd.DataFrame(found)
    worst = result.iloc[int(np.argmax(result["inflation"]))]
    text = (
        f"{worst['term']} varies by {worst['inflation']:.1f} times more (variance) over all people than within {batch}"
    )
    if worst["inflation"] > CONFOUNDED:
        msg = (
            f"{text}; its effect cannot be told from that of {batch}: leave it out, or add people of all kinds at each."
        )
        raise NotIdentifiable(msg)
    if worst["inflation"] > NEARLY_CONFOUNDED:
        warnings.warn(f"{text}; its effect rests on few people.", ApproximationWarning, stacklevel=2)
    return result
