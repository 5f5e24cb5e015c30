"""Values over several levels or both sides, from the rows of a table that has them one by one."""

import numpy as np
import pandas as pd

from qcord.core.labels import COMBINED, TRACTS, VERTEBRAE

SIDES = ("left", "right")


def pooled(rows: pd.DataFrame) -> tuple[float, float]:
    """Mean over places by size, and its error: noise independent from place to place, placement common to all.

    Parameters
    ----------
    rows : DataFrame
        Columns value, se, se_noise, n_eff.
    """
    weight = rows["n_eff"].to_numpy() / rows["n_eff"].sum()
    noise = rows["se_noise"].to_numpy()
    placement = np.sqrt(np.maximum(rows["se"].to_numpy() ** 2 - noise**2, 0))
    error = np.sqrt(((weight * noise) ** 2).sum() + (weight * placement).sum() ** 2)
    return float(weight @ rows["value"].to_numpy()), float(error)


def levels_of(level: str) -> tuple[str, ...]:
    """Vertebral levels of a level or a range: ``C3`` is one, ``C2:C4`` are three; none if it is neither.

    >>> levels_of("C6:T1")
    ('C6', 'C7', 'T1')
    """
    first, _, last = level.partition(":")
    last = last or first
    if first not in VERTEBRAE or last not in VERTEBRAE:
        return ()
    return VERTEBRAE[VERTEBRAE.index(first) : VERTEBRAE.index(last) + 1]


def sides_of(region: str) -> tuple[str, ...]:
    """Regions of the atlas table that make up a region: itself, or left and right of a tract named without a side.

    >>> sides_of("lateral corticospinal tract")
    ('WM left lateral corticospinal tract', 'WM right lateral corticospinal tract')
    """
    if region in COMBINED or region in TRACTS:
        return (region,)
    return tuple(
        f"{tissue} {s} {region}" for tissue in ("WM", "GM") for s in SIDES if f"{tissue} {s} {region}" in TRACTS
    )


def without_side(region: str) -> str:
    """Name of a tract without tissue and side; other names stay.

    >>> without_side("GM right ventral horn")
    'ventral horn'
    """
    return region.split(" ", 2)[2] if region in TRACTS else region
