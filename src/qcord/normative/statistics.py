"""What the fit of a norm needs of the values of one cell, summed per site: no row of a person."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd

from qcord.core.arrays import BoolArray, FloatArray, IntArray
from qcord.core.errors import ImplausibleValue
from qcord.normative.terms import Terms, covariate, require

UNKNOWN = "unknown"
"""Site or manufacturer of rows that name none."""

_AGE_STEP = 5.0

Words = np.ndarray[tuple[int], np.dtype[np.object_]]


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sums over the people of k groups, each of one site.

    Parameters
    ----------
    terms : Terms
        The p columns of the design.
    site, manufacturer : (k,) tuple of str
        Of each group.
    count : (k,) array
        People.
    variance : (k,) array
        Mean squared standard error of their values.
    xx, xy, yy : (k, p, p), (k, p), (k,) array
        Sums of products of columns and values.
    ages : (k, 2) array
        Youngest and oldest [years], rounded outward to 5 years.
    study : (k,) tuple of str
        Study of each group, `UNKNOWN` of those without; empty if none has one.
    """

    terms: Terms
    site: tuple[str, ...]
    manufacturer: tuple[str, ...]
    count: FloatArray
    variance: FloatArray
    xx: FloatArray
    xy: FloatArray
    yy: FloatArray
    ages: FloatArray
    study: tuple[str, ...] = ()

    def choose(self, groups: BoolArray | IntArray) -> "Statistics":
        """Some of the groups."""
        index = np.arange(len(self.site))[groups]
        return replace(
            self,
            site=tuple(self.site[k] for k in index),
            manufacturer=tuple(self.manufacturer[k] for k in index),
            study=tuple(self.study[k] for k in index) if self.study else (),
            **{name: getattr(self, name)[index] for name in ("count", "variance", "xx", "xy", "yy", "ages")},
        )


@dataclass(frozen=True, eq=False)
class Rows:
    """Values of one cell, a row each, sorted by site.

    Parameters
    ----------
    design : (n, p) array
        Columns of `Terms`.
    value, variance : (n,) array
        Value, and squared standard error (0 where it is not known).
    age : (n,) array
        Age [years].
    site, manufacturer : (n,) array of str
        Where it was measured.
    place : (n,) array of int
        Row of the table.
    share : (n,) array
        What each row counts: the rows of a person at a site count one together.
    study : (n,) array of str, optional
        Study that it was measured for, `UNKNOWN` where the row names none; absent if no row names one.
    """

    design: FloatArray
    value: FloatArray
    variance: FloatArray
    age: FloatArray
    site: Words
    manufacturer: Words
    place: IntArray
    share: FloatArray
    study: Words | None = None

    def choose(self, index: IntArray) -> "Rows":
        """Some of the rows."""
        return Rows(
            self.design[index],
            self.value[index],
            self.variance[index],
            self.age[index],
            self.site[index],
            self.manufacturer[index],
            self.place[index],
            self.share[index],
            None if self.study is None else self.study[index],
        )


def rows(observations: pd.DataFrame, terms: Terms) -> Rows:
    """Values of one cell with their design, sorted by site, then by covariates and value.

    Parameters
    ----------
    observations : DataFrame
        One row a value; columns value, age, sex, site, manufacturer and, if known, se and study.
    terms : Terms
        Covariates.

    Raises
    ------
    MissingMetadata, ImplausibleValue
        If a column is absent, a value not finite, a standard error negative, or a site belongs to two manufacturers.
    """
    values = np.asarray(pd.to_numeric(require(observations, "value"), errors="coerce"), dtype=float)
    if not len(values):
        raise ImplausibleValue("There is no value to learn a norm from; expected at least two people.")
    if not np.isfinite(values).all():
        raise ImplausibleValue(
            f"{int((~np.isfinite(values)).sum())} of {len(values)} values are not numbers; leave these rows out."
        )
    site, manufacturer = text(observations, "site"), text(observations, "manufacturer")
    pairs = pd.DataFrame({"site": site, "manufacturer": manufacturer}).drop_duplicates()
    double = pairs["site"][pairs["site"].duplicated() & (pairs["site"] != UNKNOWN)]
    if len(double):
        raise ImplausibleValue(
            f"Site {double.iloc[0]} has scanners of two manufacturers; name each scanner a site of its own."
        )
    site = np.where(site == UNKNOWN, UNKNOWN + " " + manufacturer, site)
    error = np.zeros(len(values))
    if "se" in observations:
        error = np.asarray(pd.to_numeric(observations["se"], errors="coerce"), dtype=float)
        wrong = ~np.isnan(error) & ~(np.isfinite(error) & (error >= 0))
        if wrong.any():
            raise ImplausibleValue(
                f"{int(wrong.sum())} of {len(values)} standard errors are no number >= 0, such as "
                f"{error[wrong][0]:g}; correct them, or leave them empty where none is known."
            )
        error = np.nan_to_num(error)
    age = covariate(observations, "age", 0.0, 120.0, "years")
    design = terms.of(observations)
    # one order of the rows, so that sums do not depend on that of the table to the last digit
    order = np.lexsort((error, values, *design.T[::-1], site.astype(str)))
    share = np.ones(len(values))
    if "participant_id" in observations:
        people = pd.DataFrame({"site": site, "person": observations["participant_id"].to_numpy()})
        share = 1 / people.groupby(["site", "person"], dropna=False)["site"].transform("size").to_numpy(dtype=float)
    study = text(observations, "study") if "study" in observations and observations["study"].notna().any() else None
    data = Rows(design, values, error**2, age, site, manufacturer, np.arange(len(values)), share, study)
    return data.choose(order)


def require_one_study(data: Rows) -> None:
    """Raise `ImplausibleValue` if the rows of a site name two studies, whose shift would then be unclear."""
    if data.study is None:
        return
    pairs = pd.DataFrame({"site": data.site, "study": data.study}).drop_duplicates()
    double = pairs["site"][pairs["site"].duplicated()]
    if len(double):
        both = " and ".join(sorted(pairs["study"][pairs["site"] == double.iloc[0]]))
        raise ImplausibleValue(f"Site {double.iloc[0]} belongs to the studies {both}; name a site of its own for each.")


def text(observations: pd.DataFrame, name: str) -> Words:
    """A column of text; `UNKNOWN` where there is none."""
    if name not in observations:
        return np.full(len(observations), UNKNOWN, dtype=object)
    column = observations[name]
    return np.asarray(column.where(column.notna(), UNKNOWN).astype(str), dtype=object)


def statistics(observations: pd.DataFrame, terms: Terms = Terms()) -> Statistics:  # noqa: B008
    """Sums over the people of each site.

    Parameters
    ----------
    observations : DataFrame
        Values of one cell; see `rows`.
    terms : Terms
        Covariates.

    Returns
    -------
    Statistics
        One group a site, in alphabetical order.
    """
    return grouped(rows(observations, terms), terms)


def from_summaries(table: pd.DataFrame, terms: Terms = Terms()) -> Statistics:  # noqa: B008
    """Statistics of published tables: means and standard deviations of people alike in age and sex.

    Parameters
    ----------
    table : DataFrame
        One row a band; columns site, manufacturer, age [years, its middle], sex, count, mean and sd (of the people).
    terms : Terms
        Covariates.

    Returns
    -------
    Statistics
        One group a site. A band of one person counts with its value alone.

    Raises
    ------
    MissingMetadata, ImplausibleValue
        If a column is absent or a number impossible.
    """
    people = covariate(table, "count", 1.0, 1e7, "people")
    mean = covariate(table, "mean", -np.inf, np.inf, "the unit of the metric")
    spread = np.nan_to_num(np.asarray(pd.to_numeric(require(table, "sd"), errors="coerce"), dtype=float))
    data = rows(table.assign(value=mean), terms)
    n, spread = people[data.place], spread[data.place]
    whole = grouped(replace(data, share=n), terms)
    starts = _starts(data.site)
    return replace(whole, yy=whole.yy + np.add.reduceat((n - 1) * spread**2, starts))


def grouped(data: Rows, terms: Terms) -> Statistics:
    """Sums over the rows of each site."""
    starts = _starts(data.site)

    def total(values: FloatArray) -> FloatArray:
        return np.asarray(np.add.reduceat(values, starts, axis=0))

    x, y, share = data.design, data.value, data.share
    count = total(share)
    ends = np.append(starts, len(y))
    ages = [(data.age[a:b].min(), data.age[a:b].max()) for a, b in pairwise(ends)]
    young, old = np.array(ages).T / _AGE_STEP
    return Statistics(
        terms,
        tuple(str(s) for s in data.site[starts]),
        tuple(str(m) for m in data.manufacturer[starts]),
        count,
        total(share * data.variance) / count,
        np.stack([total(x * (share * x[:, j])[:, None]) for j in range(x.shape[1])], axis=1),
        total(x * (share * y)[:, None]),
        total(share * y * y),
        np.stack([np.floor(young), np.ceil(old)], axis=1) * _AGE_STEP,
        () if data.study is None else tuple(str(s) for s in data.study[starts]),
    )


def single(data: Rows, terms: Terms) -> Statistics:
    """Each row as a group of its own, as measurement errors or weights that differ between people need."""
    x, y, share = data.design, data.value, data.share
    weighted = x * share[:, None]
    return Statistics(
        terms,
        tuple(str(s) for s in data.site),
        tuple(str(m) for m in data.manufacturer),
        share,
        data.variance,
        weighted[:, :, None] * x[:, None, :],
        weighted * y[:, None],
        share * y * y,
        np.stack([data.age, data.age], axis=1),
        () if data.study is None else tuple(str(s) for s in data.study),
    )


def _starts(site: Words) -> IntArray:
    return np.flatnonzero(np.append(True, site[1:] != site[:-1]))
