"""How well a site is harmonised that took no part: each left out in turn and judged on its own people."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from qcord.core.errors import NotIdentifiable
from qcord.normative.harmonise.combat import fit_combat
from qcord.normative.harmonise.design import complete_rows, require_columns
from qcord.normative.harmonise.harmoniser import Harmoniser, apply
from qcord.normative.harmonise.unseen import site_from_controls, site_from_manufacturer

FEWEST_JUDGED = 2


def leave_one_site_out(
    table: pd.DataFrame,
    *,
    features: Sequence[str],
    batch: str = "site",
    manufacturer: str | None = None,
    covariates: Sequence[str] = (),
    se: Mapping[str, str] | None = None,
    controls: int = 3,
) -> pd.DataFrame:
    """Harmonise each site by the others, with and without a few of its own people, and judge the rest.

    Parameters
    ----------
    table, features, batch, manufacturer, covariates, se
        As in `qcord.normative.harmonise.combat.fit_combat`.
    controls : int
        Own people that are given to the second way: the first in the order of the table. The rest are judged in all
        ways alike.

    Returns
    -------
    DataFrame
        One row per site, feature and method (``raw``; ``manufacturer``: by its manufacturer alone; ``controls``):
        bias, mean of the people judged less what the other sites expect for their covariates, in spreads between
        people; bias_se, what its error should be by the harmonisation (shift and chance of the people judged); scale,
        spread of the people judged over that of the others; n.

    Raises
    ------
    NotIdentifiable
        No site has enough people, or no other site of its manufacturer.
    """
    require_columns(table, (batch, *((manufacturer,) if manufacturer else ()), *covariates, *features))
    parts = []
    for site in sorted(table[batch].dropna().astype(str).unique()):
        own = table[batch].astype(str) == site
        local, others = table[own], table[~own]
        if manufacturer is not None and not others[manufacturer].isin(local[manufacturer]).any():
            continue
        harmoniser = fit_combat(
            others,
            features=features,
            batch=batch,
            manufacturer=manufacturer,
            covariates=covariates,
            se=se,
        )
        local = local[complete_rows(harmoniser.design.matrix(local))]
        if len(local) < controls + FEWEST_JUDGED:
            continue
        parts.append(_judge_site(harmoniser, local, site, controls))
    if not parts:
        msg = f"No {batch} has {controls + FEWEST_JUDGED} people and another of its manufacturer; give more people."
        raise NotIdentifiable(msg)
    return pd.concat(parts, ignore_index=True)


def _judge_site(harmoniser: Harmoniser, local: pd.DataFrame, site: str, controls: int) -> pd.DataFrame:
    rest = local.iloc[controls:]
    maker = None if harmoniser.manufacturer is None else str(local[harmoniser.manufacturer].iloc[0])
    by_maker = site_from_manufacturer(harmoniser, site, maker)
    by_controls = site_from_controls(harmoniser, local.iloc[:controls])
    rows = []
    for method, fitted in (("raw", None), ("manufacturer", by_maker), ("controls", by_controls)):
        harmonised = rest if fitted is None else apply(fitted, rest)
        x = harmoniser.design.matrix(rest)
        for g, feature in enumerate(harmoniser.features):
            mean = harmoniser.intercept[g] + x @ harmoniser.slopes[:, g]
            z = (harmonised[feature].to_numpy(dtype=float) - mean) / harmoniser.sigma[g]
            z = z[np.isfinite(z)]
            if len(z) < FEWEST_JUDGED:
                continue
            shift = 0.0 if fitted is None else fitted.shift_se[-1, g] / np.exp(fitted.log_scale[-1, g])
            rows.append(
                {
                    "site": site,
                    "feature": feature,
                    "method": method,
                    "bias": float(z.mean()),
                    "bias_se": float(np.sqrt(shift**2 + 1 / len(z))),
                    "scale": float(z.std(ddof=1)),
                    "n": len(z),
                }
            )
    return pd.DataFrame(rows)
