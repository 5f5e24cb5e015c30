"""Harmonisation of long tables, one row per value, as `qcord.normative` reads and writes them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from qcord.core.errors import NotIdentifiable
from qcord.normative.harmonise.combat import fit_combat
from qcord.normative.harmonise.design import require_columns
from qcord.normative.harmonise.harmoniser import Harmoniser, apply
from qcord.normative.harmonise.longitudinal import fit_longitudinal

CELL = ("metric", "region", "level")
VISIT = ("participant_id", "session_id", "site")
SEPARATOR = " | "
GOOD = "ok"


def feature_names(observations: pd.DataFrame) -> "pd.Series[str]":
    """Name of the cell of each row: metric, region and level."""
    require_columns(observations, CELL)
    parts = [observations[c].astype(object).where(observations[c].notna(), "").astype(str) for c in CELL]
    return (parts[0] + SEPARATOR + parts[1] + SEPARATOR + parts[2]).rename("feature")


def wide_table(observations: pd.DataFrame, keep: Sequence[str] = ("manufacturer", "age", "sex")) -> pd.DataFrame:
    """One row per visit, one column per cell, and its standard error in ``<cell> se``.

    Parameters
    ----------
    observations : DataFrame
        One row per value: participant_id, session_id, site, metric, region, level, value, se, and the columns of
        ``keep``. A value whose ``quality`` (if there is such a column) is not ``ok`` becomes NaN.
    keep : sequence of str
        Columns that belong to the visit.

    Raises
    ------
    NotIdentifiable
        A visit has two values of one cell, or two values of a column of ``keep``.
    """
    require_columns(observations, (*VISIT, *CELL, "value", "se", *keep))
    long = observations.assign(feature=feature_names(observations), session_id=_sessions(observations))
    twice = long.duplicated([*VISIT, "feature"])
    if twice.any():
        name = long.loc[twice, "feature"].iloc[0]
        msg = f"{name} occurs twice in a visit ({int(twice.sum())} rows too many); keep one."
        raise NotIdentifiable(msg)
    if "quality" in long.columns:
        bad = long["quality"].notna() & (long["quality"] != GOOD)
        long = long.assign(value=long["value"].where(~bad), se=long["se"].where(~bad))
    visits = long[[*VISIT, *keep]].drop_duplicates()
    if visits.duplicated(list(VISIT)).any():
        msg = f"A visit has several values of one of {', '.join(keep)}; each belongs to the whole visit: correct them."
        raise NotIdentifiable(msg)
    values = long.pivot_table(index=list(VISIT), columns="feature", values="value", dropna=False, observed=True)
    errors = long.pivot_table(index=list(VISIT), columns="feature", values="se", dropna=False, observed=True)
    values = values.reindex(columns=sorted(long["feature"].unique()))
    errors = errors.reindex(columns=values.columns).add_suffix(" se")
    return visits.merge(values, on=list(VISIT), how="left").merge(errors, on=list(VISIT), how="left")


def fit_observations(
    observations: pd.DataFrame,
    *,
    covariates: Sequence[str] = ("age", "sex"),
    smooth: Sequence[str] = (),
    manufacturer: str | None = "manufacturer",
    reference: str | None = None,
) -> Harmoniser:
    """`fit_combat`, or `fit_longitudinal` if people have several visits, on a table with one row per value.

    Parameters
    ----------
    observations : DataFrame
        As in `wide_table`; healthy people.
    covariates, smooth, manufacturer, reference
        As in `qcord.normative.harmonise.combat.fit_combat`. Standard errors count where a cell has them.

    Raises
    ------
    QcordError
        As there.
    """
    keep = tuple(dict.fromkeys((*([manufacturer] if manufacturer else []), *covariates, *smooth)))
    table = wide_table(observations, keep)
    features = sorted(feature_names(observations).unique())
    se = {f: f"{f} se" for f in features if table[f"{f} se"].notna().any()}
    if table["participant_id"].duplicated().any():
        return fit_longitudinal(
            table,
            features=features,
            manufacturer=manufacturer,
            covariates=covariates,
            smooth=smooth,
            se=se,
            reference=reference,
        )
    return fit_combat(
        table,
        features=features,
        manufacturer=manufacturer,
        covariates=covariates,
        smooth=smooth,
        se=se,
        reference=reference,
    )


def apply_observations(harmoniser: Harmoniser, observations: pd.DataFrame) -> pd.DataFrame:
    """Harmonise a table with one row per value.

    Parameters
    ----------
    harmoniser : Harmoniser
        Of `fit_observations`.
    observations : DataFrame
        Cells that took no part in the fit become NaN.

    Returns
    -------
    DataFrame
        The rows in their order, with ``value`` and ``se`` harmonised, and ``se_shift``, the standard error that the
        harmonisation adds, which people of a site share. Where a cell had no standard errors, ``se`` is NaN.
    """
    covariates = tuple(c.name for c in harmoniser.design.covariates)
    table = wide_table(observations, covariates)
    absent = {f: np.nan for f in harmoniser.features if f not in table.columns}
    absent |= {c: np.nan for c in harmoniser.error_columns if c is not None and c not in table.columns}
    done = apply(harmoniser, table.assign(**absent))
    keys = [*VISIT, "feature"]
    parts = []
    for g, feature in enumerate(harmoniser.features):
        column = harmoniser.error_columns[g]
        part = done[[*VISIT]].assign(feature=feature, value=done[feature], se_shift=done[f"{feature}_se_shift"])
        parts.append(part.assign(se=done[column] if column is not None else np.nan))
    found = pd.concat(parts, ignore_index=True).set_index(keys)
    rows = observations.assign(session_id=_sessions(observations), feature=feature_names(observations))
    chosen = found.reindex(pd.MultiIndex.from_frame(rows[keys]))
    return observations.assign(**{c: chosen[c].to_numpy() for c in ("value", "se", "se_shift")})


def _sessions(observations: pd.DataFrame) -> "pd.Series[str]":
    sessions = observations["session_id"]
    return sessions.astype(object).where(sessions.notna(), "").astype(str)
