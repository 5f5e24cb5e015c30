"""Sites whose protocol is not that of the others of their manufacturer: their values are of another kind."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

TOLERANCE = 1.5
"""Ratio to the usual value of a setting beyond which values are of another kind. Repetition times of magnetisation
transfer scans that differ by half change the ratio by about a tenth."""

FEWEST = 3
"""Sites of a manufacturer that make a usual value."""


def deviating(sites: pd.DataFrame, settings: Sequence[str]) -> dict[str, str]:
    """Sites whose settings are far from the median of their manufacturer's.

    Parameters
    ----------
    sites : DataFrame
        One row a person or scan; columns site, manufacturer and the settings, in one unit each.
    settings : sequence of str
        Columns that decide, such as RepetitionTimeExcitation.

    Returns
    -------
    dict
        By site, a sentence: what was found, and what is usual. Manufacturers with fewer than three sites have no usual
        value.
    """
    found: dict[str, str] = {}
    for name in settings:
        middle = sites.groupby(["manufacturer", "site"])[name].median().dropna()
        for manufacturer, values in middle.groupby(level=0):
            if len(values) < FEWEST:
                continue
            usual = float(np.median(values))
            for site, value in values.droplevel(0).items():
                if usual > 0 and not 1 / TOLERANCE < value / usual < TOLERANCE:
                    found[str(site)] = f"{name} {value:g}, that of {manufacturer} is usually {usual:g}"
    return found
