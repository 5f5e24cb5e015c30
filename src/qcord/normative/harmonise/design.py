"""Covariates that a harmonisation keeps, as columns of a design matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from qcord.core.arrays import BoolArray, FloatArray
from qcord.core.errors import MissingMetadata, NotIdentifiable

KNOTS = (0.10, 0.50, 0.90)
"""Quantiles of the knots of a smooth covariate (Harrell 2015, doi:10.1007/978-3-319-19425-7)."""

MOST_CATEGORIES = 20


@dataclass(frozen=True)
class Covariate:
    """One covariate and how it enters the design.

    Parameters
    ----------
    name : str
        Column of the table.
    categories : tuple of str
        Its values in order; the first is the one that others are compared with. Empty for a number.
    centre, scale : float
        A number enters as (x - centre) / scale.
    knots : tuple of float
        Knots of a restricted cubic spline, in units of the scaled number; empty for a straight line.
    """

    name: str
    categories: tuple[str, ...] = ()
    centre: float = 0.0
    scale: float = 1.0
    knots: tuple[float, ...] = ()

    @property
    def terms(self) -> tuple[str, ...]:
        """Name of each column."""
        if self.categories:
            return tuple(f"{self.name} {c}" for c in self.categories[1:])
        return (self.name, *(f"{self.name} bend {i + 1}" for i in range(max(len(self.knots) - 2, 0))))

    def columns(self, table: pd.DataFrame) -> FloatArray:
        """Columns of the design, (n, terms), NaN where the covariate is absent.

        Raises
        ------
        MissingMetadata
            The column is absent or holds a category that the fit has not seen.
        """
        require_columns(table, (self.name,))
        if self.categories:
            values = table[self.name].astype(object).where(table[self.name].notna(), None).to_numpy()
            unknown = sorted({str(v) for v in values if v is not None} - set(self.categories))
            if unknown:
                msg = f"{self.name} is {unknown[0]!r} in a row; the fit has seen {', '.join(self.categories)} alone"
                raise MissingMetadata(msg + ": correct the row or leave it out.")
            absent = np.array([v is None for v in values])
            dummies = np.array([[float(str(v) == c) for c in self.categories[1:]] for v in values])
            dummies = dummies.reshape(len(values), len(self.categories) - 1)
            dummies[absent] = np.nan
            return dummies
        x = (pd.to_numeric(table[self.name]).to_numpy(dtype=float, na_value=np.nan) - self.centre) / self.scale
        return np.column_stack([x, *restricted_cubic(x, self.knots)])


@dataclass(frozen=True)
class Design:
    """Covariates of a fit.

    Parameters
    ----------
    covariates : tuple of Covariate
    means : tuple of float
        Mean of each column in the fit; columns are centred on it, so that covariates 0 are those of average people.
    """

    covariates: tuple[Covariate, ...]
    means: tuple[float, ...]

    @property
    def terms(self) -> tuple[str, ...]:
        """Name of each column."""
        return tuple(t for c in self.covariates for t in c.terms)

    @property
    def scales(self) -> FloatArray:
        """Divisor of each column: the slope per unit of the covariate is that of the column over it."""
        return np.array([c.scale for c in self.covariates for _ in c.terms])

    def matrix(self, table: pd.DataFrame) -> FloatArray:
        """Columns of all covariates, (n, p), NaN where one is absent."""
        return np.asarray(_columns(table, self.covariates) - np.asarray(self.means))

    def to_dict(self) -> dict[str, Any]:
        """Content as plain lists and numbers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Design":
        """Inverse of `to_dict`."""
        covariates = (
            Covariate(c["name"], tuple(c["categories"]), c["centre"], c["scale"], tuple(c["knots"]))
            for c in content["covariates"]
        )
        return cls(tuple(covariates), tuple(content["means"]))


def _columns(table: pd.DataFrame, covariates: Sequence[Covariate]) -> FloatArray:
    return np.column_stack([np.empty((len(table), 0)), *(c.columns(table) for c in covariates)])


def restricted_cubic(x: FloatArray, knots: Sequence[float]) -> list[FloatArray]:
    """Bent columns of a cubic spline that is straight beyond its outer knots.

    Parameters
    ----------
    x : (n,) array
        Covariate.
    knots : sequence of k floats, increasing
        Fewer than three give none.

    Returns
    -------
    list of k - 2 (n,) arrays

    References
    ----------
    Harrell 2015, doi:10.1007/978-3-319-19425-7.
    """
    if len(knots) < 3:
        return []
    t = np.asarray(knots, dtype=float)

    def cube(knot: float) -> FloatArray:
        return np.asarray(np.clip(x - knot, 0, None) ** 3)

    width = t[-1] - t[-2]
    bent = [
        cube(t[j]) - cube(t[-2]) * (t[-1] - t[j]) / width + cube(t[-1]) * (t[-2] - t[j]) / width
        for j in range(len(t) - 2)
    ]
    return [b / (t[-1] - t[0]) ** 2 for b in bent]


def make_design(table: pd.DataFrame, covariates: Sequence[str], smooth: Sequence[str] = ()) -> Design:
    """Design of a table: text becomes categories, numbers lines or splines, centred and scaled.

    Parameters
    ----------
    table : DataFrame
        One row per person (or session).
    covariates, smooth : sequences of str
        Columns to keep the effect of; those in ``smooth`` may bend.

    Raises
    ------
    MissingMetadata
        A column is absent or empty.
    NotIdentifiable
        A covariate has one value, or more categories than can be kept.
    """
    require_columns(table, (*covariates, *smooth))
    kept = tuple(_covariate(table[c], c in smooth) for c in dict.fromkeys((*covariates, *smooth)))
    columns = _columns(table, kept)
    complete = complete_rows(columns)
    if not complete.any():
        msg = f"No row has all of {', '.join(c.name for c in kept)}; fill them or keep fewer covariates."
        raise MissingMetadata(msg)
    return Design(kept, tuple(float(m) for m in columns[complete].mean(axis=0)))


def _covariate(column: "pd.Series[Any]", smooth: bool) -> Covariate:
    name, present = str(column.name), column.dropna()
    if present.empty:
        msg = f"{name} is empty in every row; a covariate needs values: fill it or leave it out of the covariates."
        raise MissingMetadata(msg)
    if present.nunique() < 2:
        msg = f"{name} is {present.iloc[0]} in every row; a covariate that does not vary has no effect: leave it out."
        raise NotIdentifiable(msg)
    if pd.api.types.is_numeric_dtype(present) and not pd.api.types.is_bool_dtype(present):
        x = present.to_numpy(dtype=float)
        centre, scale = float(np.mean(x)), float(np.std(x))
        knots = np.quantile((x - centre) / scale, KNOTS) if smooth else np.empty(0)
        bends = knots.size > 0 and bool(np.all(np.diff(knots) > 1e-9))
        return Covariate(name, (), centre, scale, tuple(float(k) for k in knots) if bends else ())
    categories = tuple(sorted({str(v) for v in present}))
    if len(categories) > MOST_CATEGORIES:
        msg = f"{name} has {len(categories)} categories; at most {MOST_CATEGORIES} are kept: give coarser groups."
        raise NotIdentifiable(msg)
    return Covariate(name, categories)


def require_columns(table: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse a table that lacks a column.

    Raises
    ------
    MissingMetadata
        Names the first that is absent.
    """
    for name in names:
        if name not in table.columns:
            found = ", ".join(map(str, table.columns))
            msg = f"The table has no column {name!r} (it has {found}); add it or name another."
            raise MissingMetadata(msg)


def complete_rows(matrix: FloatArray) -> BoolArray:
    """Rows without an absent covariate."""
    return np.asarray(np.isfinite(matrix).all(axis=1))
