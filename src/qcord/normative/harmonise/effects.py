"""How much sites, manufacturers and covariates explain, before and after harmonisation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import f as f_distribution

from qcord.core.arrays import FloatArray, IntArray
from qcord.core.errors import NotIdentifiable
from qcord.normative.harmonise.design import Design, make_design, require_columns
from qcord.normative.harmonise.harmoniser import numbers
from qcord.normative.harmonise.mean_model import fit_mean_model

ROUNDING = 1e-12
"""Deviation, relative to the values, below which they are all the same."""


@dataclass(frozen=True)
class EtaSquared:
    """Share of the variation that groups explain.

    Parameters
    ----------
    eta_squared : float
        Sum of squares between groups over the whole, after the covariates. Groups that differ in nothing have
        (k - 1) / (n - 1) on average.
    omega_squared : float
        The same without what chance alone explains: 0 on average for groups that differ in nothing, negative for groups
        that are more alike than chance makes them.
    p : float
        Probability of so much or more by chance.
    n, groups : int
        Values and groups.
    """

    eta_squared: float
    omega_squared: float
    p: float
    n: int
    groups: int


def eta_squared(values: FloatArray, group: "pd.Series[Any]", covariates: FloatArray | None = None) -> EtaSquared:
    """Share of the variation that groups explain beyond covariates.

    Parameters
    ----------
    values : (n,) array
        NaN takes no part.
    group : (n,) Series
        Group of each value.
    covariates : (n, p) array, optional
        Design without an intercept.

    Raises
    ------
    NotIdentifiable
        Fewer than two groups or too few values.

    References
    ----------
    Hays 1963 (omega squared), in the form of Olejnik and Algina 2003, doi:10.1037/1082-989X.8.4.434.
    """
    x = np.empty((len(values), 0)) if covariates is None else covariates
    rows = np.isfinite(values) & group.notna().to_numpy() & np.isfinite(x).all(axis=1)
    y, x = values[rows], x[rows]
    codes, names = pd.factorize(group[rows].astype(str), sort=True)
    dummies = (codes[:, None] == np.arange(1, len(names))[None]).astype(float)
    base = np.column_stack([np.ones(len(y)), x])
    without, rank = _rest(y, base)
    within, full_rank = _rest(y, np.column_stack([base, dummies]))
    free, between = len(y) - full_rank, full_rank - rank
    if between < 1 or free < 1:
        msg = f"{len(y)} values in {len(names)} groups do not tell groups apart; give more values, or fewer covariates."
        raise NotIdentifiable(msg)
    if without <= len(y) * (ROUNDING * float(np.abs(y).max())) ** 2:
        return EtaSquared(np.nan, np.nan, np.nan, len(y), len(names))
    error = within / free
    omega = (without - within - between * error) / (without + error)
    ratio = (without - within) / between / error if error > 0 else np.inf
    p = float(f_distribution.sf(ratio, between, free))
    return EtaSquared(float(1 - within / without), float(omega), p, len(y), len(names))


def _rest(y: FloatArray, design: FloatArray) -> tuple[float, int]:
    coefficients, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    return float(np.sum((y - design @ coefficients) ** 2)), int(rank)


def covariate_effects(
    table: pd.DataFrame,
    features: Sequence[str],
    covariates: Sequence[str],
    *,
    batch: str | None = None,
    smooth: Sequence[str] = (),
) -> pd.DataFrame:
    """Effect of each covariate on each feature, with its error.

    Parameters
    ----------
    table : DataFrame
        One row per person.
    features, covariates, smooth : sequences of str
        Columns.
    batch : str, optional
        Column of the site: effects are then those within sites. Without it they are those over all people.

    Returns
    -------
    DataFrame
        feature, term, effect (unit of the feature per unit of the covariate; for a category, against the first), se, n.
    """
    require_columns(table, (*features, *covariates, *([batch] if batch else [])))
    design = make_design(table, covariates, smooth)
    x = design.matrix(table)
    codes: IntArray = np.zeros(len(table), dtype=int)
    if batch is not None:
        codes = np.asarray(pd.factorize(table[batch].astype(object), sort=True)[0], dtype=int)
    parts = [_effects_of(numbers(table, f), f, codes, x, design) for f in features]
    return pd.concat(parts, ignore_index=True)


def _effects_of(y: FloatArray, feature: str, codes: IntArray, x: FloatArray, design: Design) -> pd.DataFrame:
    rows = np.isfinite(y) & np.isfinite(x).all(axis=1) & (codes >= 0)
    free = int(rows.sum()) - len(np.unique(codes[rows])) - x.shape[1]
    if free < 1:
        msg = f"{feature} has {int(rows.sum())} values, {1 - free} too few for its sites and covariates; add people."
        raise NotIdentifiable(msg)
    model = fit_mean_model(y[rows], codes[rows], int(codes.max()) + 1, x[rows], np.ones(int(rows.sum())))
    variance = float(np.sum(model.residual**2)) / free
    return pd.DataFrame(
        {
            "feature": feature,
            "term": design.terms,
            "effect": model.slopes / design.scales,
            "se": np.sqrt(variance * np.diag(model.slopes_covariance)) / design.scales,
            "n": int(rows.sum()),
        }
    )


def effects(
    table: pd.DataFrame, features: Sequence[str], groups: Sequence[str], covariates: Sequence[str] = ()
) -> pd.DataFrame:
    """Share of the variation of each feature that each grouping explains beyond covariates.

    Parameters
    ----------
    table : DataFrame
        One row per person.
    features, groups, covariates : sequences of str
        Columns; groups are for instance ``("manufacturer", "site")``.

    Returns
    -------
    DataFrame
        feature, group, eta_squared, omega_squared, p, n, groups.
    """
    require_columns(table, (*features, *groups, *covariates))
    x = make_design(table, covariates).matrix(table)
    rows = []
    for feature in features:
        for group in groups:
            found = eta_squared(numbers(table, feature), table[group], x)
            rows.append({"feature": feature, "group": group, **vars(found)})
    return pd.DataFrame(rows)
