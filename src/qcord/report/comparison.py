"""A visit compared with healthy people: scores, the curves of their norms, and earlier visits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.special import ndtr

from qcord.core.template import Template

PROBABILITIES = (0.025, 0.05, 0.25, 0.5, 0.75, 0.95, 0.975)
"""Centiles that charts draw."""

USUAL = 1.959964
"""|z| beyond which one healthy person in twenty lies."""

FALSE_DISCOVERY_RATE = 0.05

SCORE_COLUMNS = (
    *("participant_id", "session_id", "metric", "unit", "region", "level", "estimator", "value", "se", "z", "z_low"),
    *("z_high", "centile", "expected", "expected_sd", "basis", "note", "source", "age", "sex", "site", "manufacturer"),
    "scanner",
)
"""Columns of the table of scores, as written."""

Cell = tuple[str, str, str]


@dataclass(frozen=True, eq=False)
class Curves:
    """Centiles of one cell for the person's sex and scanner.

    Parameters
    ----------
    table : DataFrame
        Columns age [years], probability, value, low, high (95 % band of the centile); value in the unit of the metric.
    n : int
        People that the norm rests on.
    near : str
        How many of them are of the same site or, if it is not known, manufacturer: people or sites; may be empty.
    ages : tuple of float
        Youngest and oldest of them; beyond, curves are extrapolated.
    """

    table: pd.DataFrame
    n: int
    near: str
    ages: tuple[float, float]

    def at(self, age: float, probability: float) -> float:
        """Height of a centile at an age [years]."""
        part = self.table[np.isclose(self.table["probability"], probability)].sort_values("age")
        return float(np.interp(age, part["age"], part["value"]))


@dataclass(frozen=True, eq=False)
class Comparison:
    """A visit compared with healthy people.

    Parameters
    ----------
    scores : DataFrame
        `SCORE_COLUMNS`, one row a cell and series.
    curves : mapping of (metric, region, level) to Curves
        For the cells that are drawn.
    previous : DataFrame
        Rows of earlier visits of the person, same columns, in order of age.
    without : tuple of str
        Metrics of the visit for which no norm exists.
    notes : tuple of str
        What was left out and why, a sentence each.
    data : tuple of str
        What the norms rest on, a sentence each.
    template : Template or None
        Where the z-map is drawn.
    """

    scores: pd.DataFrame
    curves: Mapping[Cell, Curves] = field(default_factory=dict)
    previous: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(SCORE_COLUMNS)))
    without: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    template: Template | None = None

    @property
    def scored(self) -> pd.DataFrame:
        """Rows with a z, the largest deviation first, with a column ``discovery`` (see `discoveries`)."""
        good = self.scores[self.scores["z"].notna()]
        good = good.assign(discovery=discoveries(good["z"].to_numpy(dtype=float)))
        order = np.argsort(-good["z"].abs().to_numpy(dtype=float), kind="stable")
        return good.iloc[order].reset_index(drop=True)


def discoveries(z: Sequence[float] | np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> list[bool]:
    """Which of several z stand out at a false discovery rate of 5 %.

    Holds for comparisons that are independent or go along with each other.

    References
    ----------
    Benjamini and Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x.
    """
    p = 2 * ndtr(-np.abs(np.asarray(z, dtype=float)))
    order = np.argsort(p, kind="stable")
    passed = np.flatnonzero(p[order] <= FALSE_DISCOVERY_RATE * np.arange(1, len(p) + 1) / max(len(p), 1))
    found = np.zeros(len(p), dtype=bool)
    if passed.size:
        found[order[: passed[-1] + 1]] = True
    return [bool(f) for f in found]


def cell_of(row: pd.Series) -> Cell:
    """Metric, region and level of a row."""
    return str(row["metric"]), str(row["region"]), str(row["level"])
