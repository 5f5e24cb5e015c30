"""What a harmonisation is learnt from: values, errors, sites and covariates of a table, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from qcord.core.arrays import BoolArray, FloatArray, IntArray
from qcord.core.errors import EmptyRegion, NotIdentifiable, QcordError, UnknownName
from qcord.normative.harmonise.design import Design, complete_rows, make_design, require_columns
from qcord.normative.harmonise.harmoniser import indices, numbers

UNNAMED = ""
"""Manufacturer of all sites where no column of manufacturers is given."""


@dataclass(frozen=True, eq=False)
class Training:
    """What a fit reads of a table.

    Parameters
    ----------
    features : tuple of str
        g names.
    values, errors : (n, g) arrays
        Values, NaN where absent, and standard errors, 0 where none is stated.
    site : (n,) int array
        Place of each row's site in ``sites``.
    sites, makers : tuples of str
        The k sites and their manufacturers.
    families : tuple of str
        The m manufacturers.
    maker : (k,) int array
        Place of each site's manufacturer in ``families``.
    design : Design
    x : (n, p) array
        Columns of the covariates.
    person : (n,) int array or None
        Person of each row, if people were measured several times.
    """

    features: tuple[str, ...]
    values: FloatArray
    errors: FloatArray
    site: IntArray
    sites: tuple[str, ...]
    makers: tuple[str, ...]
    families: tuple[str, ...]
    maker: IntArray
    design: Design
    x: FloatArray
    person: IntArray | None

    @property
    def counts(self) -> FloatArray:
        """Values of each site and feature, (k, g)."""
        present = np.isfinite(self.values)
        return np.stack([present[self.site == i].sum(axis=0) for i in range(len(self.sites))]).astype(float)


def read_training(
    table: pd.DataFrame,
    features: Sequence[str],
    *,
    batch: str,
    manufacturer: str | None,
    covariates: Sequence[str],
    smooth: Sequence[str],
    se: Mapping[str, str],
    participant: str | None,
) -> Training:
    """Read and check a table; parameters and errors are those of `qcord.normative.harmonise.combat.fit_combat`."""
    names = [batch, *([manufacturer] if manufacturer else []), *([participant] if participant else [])]
    require_columns(table, (*names, *features))
    if not features:
        msg = "No feature is named; name the columns to harmonise."
        raise QcordError(msg)
    if len(set(features)) < len(features):
        msg = "A feature is named twice; name each column once."
        raise QcordError(msg)
    _require_sites(table[table[names].notna().all(axis=1)], batch)
    design = make_design(table, covariates, smooth)
    x = design.matrix(table)
    rows = complete_rows(x) & table[names].notna().all(axis=1).to_numpy()
    used, x = table[rows], x[rows]
    values = np.column_stack([numbers(used, f) for f in features])
    errors = np.column_stack([_errors(used, f, se.get(f)) for f in features])
    sites = tuple(sorted({str(v) for v in used[batch]}))
    _require_sites(used, batch)
    site = indices(used[batch], sites)
    makers = _makers(used, batch, manufacturer, sites)
    families = tuple(sorted(set(makers)))
    maker = np.array([families.index(m) for m in makers])
    person = None if participant is None else np.asarray(pd.factorize(used[participant].astype(str))[0], dtype=int)
    data = Training(tuple(features), values, errors, site, sites, makers, families, maker, design, x, person)
    for g in range(len(features)):
        _require_fit(data, g)
    return data


def _require_sites(table: pd.DataFrame, batch: str) -> None:
    sites = sorted({str(v) for v in table[batch]})
    if len(sites) < 2:
        found = ", ".join(sites) or "none"
        msg = f"The rows that can be used have {len(sites)} {batch} ({found}); harmonisation needs at least 2."
        raise NotIdentifiable(msg)


def _errors(table: pd.DataFrame, feature: str, column: str | None) -> FloatArray:
    if column is None:
        return np.zeros(len(table))
    errors = numbers(table, column)
    if (errors < 0).any():
        msg = f"{column} is negative in {int((errors < 0).sum())} rows; a standard error is at least 0: empty them."
        raise QcordError(msg)
    if not np.isfinite(errors).any():
        msg = f"{column} is empty in every row; fill it, or do not name it as the standard error of {feature}."
        raise EmptyRegion(msg)
    return np.where(np.isfinite(errors), errors, np.nanmedian(errors))


def _makers(table: pd.DataFrame, batch: str, manufacturer: str | None, sites: tuple[str, ...]) -> tuple[str, ...]:
    if manufacturer is None:
        return (UNNAMED,) * len(sites)
    pairs = table[[batch, manufacturer]].astype(str).drop_duplicates()
    twice = pairs[batch][pairs[batch].duplicated()]
    if len(twice):
        site = sorted(twice)[0]
        found = ", ".join(sorted(pairs[manufacturer][pairs[batch] == site]))
        msg = f"{batch} {site} has scanners of {found}; a {batch} needs one {manufacturer}: split it by scanner."
        raise NotIdentifiable(msg)
    makers = dict(zip(pairs[batch], pairs[manufacturer], strict=True))
    return tuple(makers[s] for s in sites)


def _require_fit(data: Training, g: int) -> None:
    """Refuse a feature that no model can be fitted to."""
    name, present = data.features[g], np.isfinite(data.values[:, g])
    y, site, x = data.values[present, g], data.site[present], data.x[present]
    if not present.any():
        msg = f"{name} has no value in the rows that can be used; leave it out of the features."
        raise NotIdentifiable(msg)
    if len(np.unique(site)) < 2:
        msg = f"{name} has values at one site alone ({data.sites[site[0]]}); leave it out of the features."
        raise NotIdentifiable(msg)
    free = len(y) - len(np.unique(site)) - x.shape[1]
    if free < 2:
        msg = f"{name} has {len(y)} values for {len(np.unique(site))} sites and {x.shape[1]} covariate terms; at least"
        raise NotIdentifiable(msg + f" {len(y) - free + 2} are needed: join sites, or leave the feature out.")
    within = np.column_stack([np.empty((len(y), 0)), *(_within(c, site) for c in x.T)])
    for j, term in enumerate(data.design.terms):
        if np.linalg.matrix_rank(within[:, : j + 1], tol=1e-8 * max(1, len(y)) ** 0.5) <= j:
            msg = f"{term} does not vary within sites, or only together with other covariates, where {name} has values;"
            raise NotIdentifiable(msg + " its effect cannot be told from that of sites: leave it out, or add people.")
    centred = _within(y, site)
    if np.abs(centred).max() <= 1e-10 * np.abs(y).max():
        msg = f"{name} is the same for all people of each site; there is no spread to compare sites by: leave it out."
        raise NotIdentifiable(msg)


def _within(values: FloatArray, site: IntArray) -> FloatArray:
    """Values less the mean of their site."""
    counts = np.maximum(np.bincount(site), 1)
    return np.asarray(values - (np.bincount(site, values) / counts)[site])


def reference_weights(data: Training, reference: str | None) -> FloatArray:
    """Share of each site in the reference, (k, g)."""
    counts = data.counts
    if reference is not None:
        if reference in data.sites:
            chosen: BoolArray = np.array([s == reference for s in data.sites])
        elif reference in data.families and reference != UNNAMED:
            chosen = np.array([m == reference for m in data.makers])
        else:
            msg = (
                f"Reference {reference!r} is neither a site nor a manufacturer of the table ({', '.join(data.sites)});"
            )
            raise UnknownName(msg + " name one of them or none.")
        counts = np.where(chosen[:, None], counts, 0.0)
    total = counts.sum(axis=0)
    if (total == 0).any():
        empty = data.features[int(np.flatnonzero(total == 0)[0])]
        msg = f"The reference {reference} has no value of {empty}; name another reference or leave the feature out."
        raise EmptyRegion(msg)
    return np.asarray(counts / total)
