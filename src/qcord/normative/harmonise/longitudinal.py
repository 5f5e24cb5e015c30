"""Harmonisation of sites where people were measured several times.

Two visits of a person are alike because they are of one person. Taken as two people they would make a site look
surer of its shift than it is, and a person who moved from scanner to scanner would be taken for two people who differ.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from qcord.core.errors import MissingMetadata, NotIdentifiable
from qcord.normative.harmonise.combat import fit_tables
from qcord.normative.harmonise.design import require_columns
from qcord.normative.harmonise.harmoniser import Harmoniser


def fit_longitudinal(
    table: pd.DataFrame,
    *,
    features: Sequence[str],
    participant: str = "participant_id",
    batch: str = "site",
    manufacturer: str | None = None,
    covariates: Sequence[str] = (),
    smooth: Sequence[str] = (),
    se: Mapping[str, str] | None = None,
    reference: str | None = None,
    shrinkage: str = "sites",
) -> Harmoniser:
    """Learn the shift and scale of each site, each person with a lasting difference of its own.

    The scale of a site is then that of the spread within people, and the differences between people stay as they are.

    Parameters
    ----------
    table : DataFrame
        One row per visit.
    participant : str
        Column of the person.
    features, batch, manufacturer, covariates, smooth, se, reference, shrinkage
        As in `qcord.normative.harmonise.combat.fit_combat`; ``features`` is no choice of ``shrinkage`` here. Age at the
        visit and time since the first are covariates like others.

    Returns
    -------
    Harmoniser
        For `qcord.normative.harmonise.harmoniser.apply`, which predicts the difference of each person of a table from
        all its rows there: give all visits of a person at once.

    Raises
    ------
    NotIdentifiable
        Nobody was measured twice; or as for `fit_combat`.

    References
    ----------
    Beer 2020, doi:10.1016/j.neuroimage.2020.117129. Here people are measured on any number of scanners, the spreads
    between and within them are estimated by restricted maximum likelihood, and sites are drawn to manufacturers.
    """
    require_columns(table, (participant,))
    if table[participant].isna().any():
        msg = f"{participant} is empty in {int(table[participant].isna().sum())} rows; name the person of each row."
        raise MissingMetadata(msg)
    if not table[participant].duplicated().any():
        msg = f"Each {participant} has one row; for people measured once use fit_combat."
        raise NotIdentifiable(msg)
    return fit_tables(
        table,
        features=features,
        batch=batch,
        manufacturer=manufacturer,
        covariates=covariates,
        smooth=smooth,
        se=se,
        reference=reference,
        shrinkage=shrinkage,
        participant=participant,
    )
