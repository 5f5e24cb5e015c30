"""Learn norms from the values of healthy people."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from qcord.core.arrays import FloatArray
from qcord.core.errors import ImplausibleValue, SetApartWarning
from qcord.normative.hierarchical import estimate, spreads
from qcord.normative.hierarchy import Hierarchy
from qcord.normative.norm import Cell, Norm, Norms
from qcord.normative.outlines import drawn_by
from qcord.normative.predict import predict
from qcord.normative.protocols import parted, usual_protocols
from qcord.normative.shape import NORMAL, Shape, fit_shape, weights
from qcord.normative.statistics import UNKNOWN, Rows, Statistics, grouped, require_one_study, rows, single
from qcord.normative.terms import Terms, require

CELL = ["metric", "region", "level"]

FEWEST = 2
"""People without whom there is no spread."""

_MANY = 2_000
"""Rows from which on those of a site with nearly the same standard error are summed."""

_NAMED = 5
"""Cells without a norm that a warning names."""

_ROUNDS = 3
_FAR, _GRIP, _FEWEST_FOR_SCALE = 6.0, 3.0, 20
_WIDENING_GAIN = 6.0
_FEWEST_FOR_WIDENING = 100


class NoSpread(ImplausibleValue):
    """The values of a cell tell no spread of people."""


def fit_norms(observations: pd.DataFrame, terms: Terms | Mapping[str, Terms] | None = None) -> Norms:
    """Norms of all cells of a table.

    Parameters
    ----------
    observations : DataFrame
        One row a value; columns metric, unit, region, level, value, se, age, sex, site, manufacturer, and where known
        protocol, and study, which sites may share; people whose pathology is not HC are left out, and so is what has
        failed quality, where the table says so. Rows whose protocol is not that of the others of their manufacturer are
        set apart, too, and the card says why (`qcord.normative.protocols`).
    terms : Terms or mapping of str to Terms, optional
        Covariates, for all metrics or each.

    Returns
    -------
    Norms
        One of each cell with at least two people whose values differ.

    Raises
    ------
    MissingMetadata, ImplausibleValue
        If a column is absent, a value not finite, or units of a metric differ.

    Warns
    -----
    SetApartWarning
        If rows were set apart for their protocol, or cells have no norm.
    """
    healthy = observations
    if "pathology" in healthy:
        healthy = healthy[healthy["pathology"] == "HC"]
    if "quality" in healthy:
        healthy = healthy[healthy["quality"].isna() | (healthy["quality"] == "ok")]
    if not len(healthy):
        raise ImplausibleValue("The table holds no healthy person (pathology HC); a norm is made of healthy people.")
    for name in CELL:
        require(healthy, name)
    chosen = terms or {}
    found: list[Norm] = []
    without: list[NoSpread] = []
    for key, part in healthy.groupby(CELL, sort=True, observed=True):
        cell = Cell(*(str(v) for v in key))
        own = chosen if isinstance(chosen, Terms) else chosen.get(cell.metric, Terms())
        # cells of a metric are alike: each search starts where the last one ended
        start = found[-1].hierarchy.variances if found and found[-1].cell.metric == cell.metric else None
        try:
            found.append(_fit(part, own, cell, start))
        except NoSpread as error:
            without.append(error)
    if not found and without:
        raise without[0]
    if without:
        more = " ..." if len(without) > _NAMED else ""
        sentences = " ".join(str(error) for error in without[:_NAMED])
        words = f"{len(without)} of {len(found) + len(without)} cells have no norm: {sentences}{more}"
        warnings.warn(words, SetApartWarning, stacklevel=2)
    _warn(found)
    return Norms.of(found)


def fit_norm(
    observations: pd.DataFrame,
    terms: Terms = Terms(),  # noqa: B008
    *,
    cell: Cell | None = None,
    summaries: Statistics | None = None,
) -> Norm:
    """Norm of one cell.

    Parameters
    ----------
    observations : DataFrame
        Values of healthy people; see `fit_norms`.
    terms : Terms
        Covariates.
    cell : Cell, optional
        What it is of; else as the first row says.
    summaries : Statistics, optional
        Sums over people of further sites, such as published ones (`qcord.normative.statistics.from_summaries`).

    Returns
    -------
    Norm
        Effects, spreads and shape, with errors.
    """
    norm = _fit(observations, terms, cell, None, summaries)
    _warn([norm])
    return norm


def _warn(norms: Iterable[Norm]) -> None:
    """One warning of all that was set apart."""
    sites: dict[str, list[str]] = {}
    for norm in norms:
        for site, why in norm.card.get("set apart", {}).items():
            sites.setdefault(f"{norm.cell.metric} of {site}: {why}", []).append(norm.cell.region)
    if sites:
        warnings.warn("Set apart: " + "; ".join(sites) + ".", SetApartWarning, stacklevel=3)


def _fit(
    observations: pd.DataFrame,
    terms: Terms,
    cell: Cell | None,
    start: FloatArray | None,
    further: Statistics | None = None,
) -> Norm:
    usual = usual_protocols(observations) if "metric" in observations else {}
    observations, apart = parted(observations, usual)
    data = rows(observations, terms)
    require_one_study(data)
    name = cell or Cell(*(str(observations[c].iloc[0]) if c in observations else "" for c in CELL))
    if round(float(data.share.sum())) < FEWEST:
        raise NoSpread(
            f"{name.metric} in {name.region} at {name.level} is of one healthy person; "
            f"a norm needs at least {FEWEST}, and says little below 30."
        )
    if np.ptp(data.value) <= 1e-9 * np.abs(data.value).max():
        raise NoSpread(
            f"All {len(data.value)} values of {name.metric} in {name.region} at {name.level} are {data.value[0]:g}; "
            "a norm is made of values that differ."
        )
    units = observations["unit"].dropna().unique() if "unit" in observations else ["1"]
    if len(units) != 1:
        raise ImplausibleValue(f"{name.metric} comes in {len(units)} units ({', '.join(map(str, units))}); convert it.")
    hierarchy, shape, widening = _estimates(data, terms, start, further)
    ages = data.age if further is None else np.concatenate([data.age, further.ages.ravel()])
    norm = _norm(name, str(units[0]), terms, hierarchy, ages)
    card = {**norm.card, "shape": _words(shape)}
    if name.metric in usual:
        card["protocols"] = {m: {k: list(v) for k, v in own.items()} for m, own in usual[name.metric].items()}
    if apart:
        card["set apart"] = apart
    if programs := drawn_by(observations):
        card["software"] = programs
    return replace(norm, shape=shape, widening=widening, card=card)


def fit_statistics(statistics: Statistics, *, cell: Cell, unit: str) -> Norm:
    """Norm from sums over people, as sites exchange them: no shape, the same spread at all ages.

    Parameters
    ----------
    statistics : Statistics
        Groups of all sites, sorted by site.
    cell, unit
        What the norm is of.

    Returns
    -------
    Norm
        Effects and spreads with errors.
    """
    ages = np.array([statistics.ages[:, 0].min(), statistics.ages[:, 1].max()])
    return _norm(cell, unit, statistics.terms, estimate(statistics), ages)


def _norm(cell: Cell, unit: str, terms: Terms, hierarchy: Hierarchy, ages: FloatArray) -> Norm:
    sites = hierarchy.sites
    span = (float(ages.min()), float(ages.max()))
    card: dict[str, Any] = {
        "people": round(float(sites.count.sum())),
        "sites": len(sites.name),
        "manufacturers": {m: sites.manufacturer.count(m) for m in hierarchy.manufacturers},
        "ages": list(span),
        "shape": _words(NORMAL),
    }
    if hierarchy.studied:
        card["studies"] = len(hierarchy.studies) + sites.study.count(UNKNOWN)
    d = hierarchy.deviating
    if not d.none:
        card["deviating sites"] = f"{100 * d.share:.0f} % of sites, by about {d.width:.0f} times the spread of people"
    return Norm(cell, unit, terms, hierarchy, ages=span, card=card)


def _words(shape: Shape) -> str:
    return "normal" if shape.normal else f"sinh-arcsinh, skew {shape.skew:.2f}, tail {shape.tail:.2f}"


def _estimates(
    data: Rows, terms: Terms, start: FloatArray | None, further: Statistics | None
) -> tuple[Hierarchy, Shape, float]:
    """Fit; then, if departures ask for it, a spread that goes with age and a shape, and fit with these again."""
    alike = not data.variance.any()
    groups = (
        grouped(data, terms) if alike else (_classes(data, terms) if len(data.value) > _MANY else single(data, terms))
    )
    hierarchy = _beside(groups, further, None, start)
    departures = _departures(data, hierarchy, terms, 0.0)
    far = np.abs(departures).max() > _FAR * _middle(departures)
    if far and len(departures) >= _FEWEST_FOR_SCALE:
        for _ in range(_ROUNDS):
            # far values first lose their grip on the estimates; the shape then says what they are worth
            relative = departures / _middle(departures)
            hierarchy = _beside(single(data, terms), further, 1 + relative**2 / _GRIP, hierarchy.variances)
            departures = _departures(data, hierarchy, terms, 0.0)
        departures = departures / _middle(departures)
    widening = _widening(departures, data.age)
    shape = fit_shape(departures / _growth(widening, data.age))
    if widening == 0.0 and shape.normal:
        return hierarchy, shape, widening
    own = single(data, terms)
    for _ in range(_ROUNDS):
        growth = _growth(widening, data.age)
        scale = growth**2 / weights(shape, departures / growth)
        hierarchy = _beside(own, further, scale, hierarchy.variances)
        departures = _departures(data, hierarchy, terms, 0.0)
        shape = fit_shape(departures / growth)
    return hierarchy, shape, widening


def _beside(
    groups: Statistics, further: Statistics | None, scale: FloatArray | None, start: FloatArray | None
) -> Hierarchy:
    """Estimates from rows and the sums of further sites, which have names of their own."""
    if further is None:
        return estimate(groups, scale, start)
    both = Statistics(
        groups.terms,
        groups.site + further.site,
        groups.manufacturer + further.manufacturer,
        study=_studies((groups, further)),
        **{
            name: np.concatenate([getattr(groups, name), getattr(further, name)])
            for name in ("count", "variance", "xx", "xy", "yy", "ages")
        },
    )
    weights_of_all = None if scale is None else np.append(scale, np.ones(len(further.site)))
    return estimate(both, weights_of_all, start)


def _departures(data: Rows, hierarchy: Hierarchy, terms: Terms, widening: float) -> FloatArray:
    """Values less what is expected at their site, over the spread of people and errors of measurement."""
    norm = Norm(Cell("", "", ""), "", terms, hierarchy, widening=widening)
    variance = data.variance / hierarchy.spread**2
    expected = predict(norm, data.design, data.age, site=data.site, manufacturer=data.manufacturer, variance=variance)
    gap = (data.value - hierarchy.centre) / hierarchy.spread - expected.mean
    return np.asarray(gap / np.sqrt(expected.people**2 + variance))


def _middle(departures: FloatArray) -> float:
    """Spread of most departures: the median of their sizes, as that of normal ones."""
    return max(float(np.median(np.abs(departures))) / 0.6745, 1e-9)


def _growth(widening: float, age: FloatArray) -> FloatArray:
    return np.asarray(np.exp(widening * (age - 50.0) / 20.0))


def _widening(departures: FloatArray, age: FloatArray) -> float:
    """Change of the logarithm of the spread over 20 years, zero unless the data ask for it.

    The slope of the logarithm of absolute departures, which few far ones do not drive, against its standard error.
    """
    a = (age - age.mean()) / 20.0
    square = float(a @ a)
    if len(age) < _FEWEST_FOR_WIDENING or square < 1e-9:
        return 0.0
    size = np.log(np.maximum(np.abs(departures), 1e-3))
    size = size - size.mean()
    slope = float(a @ size) / square
    error = float(np.sqrt(((size - slope * a) ** 2).sum() / (len(age) - 2) / square))
    return float(np.clip(slope, -0.3, 0.3)) if (slope / error) ** 2 > _WIDENING_GAIN else 0.0


def _classes(data: Rows, terms: Terms) -> Statistics:
    """Sums over people of a site whose standard errors are within 20 % of each other."""
    with np.errstate(divide="ignore"):
        step = np.where(data.variance > 0, np.round(np.log(np.maximum(data.variance, 1e-300)) / 0.4), -1e6)
    parts: list[Statistics] = []
    frame = pd.DataFrame({"site": data.site, "step": step})
    order = np.lexsort((step, data.site.astype(str)))
    frame = frame.iloc[order]
    new = (frame["site"] != frame["site"].shift()) | (frame["step"] != frame["step"].shift())
    starts = np.flatnonzero(new.to_numpy())
    for first, last in zip(starts, [*starts[1:], len(order)], strict=True):
        parts.append(grouped(data.choose(order[first:last]), terms))
    return joined(parts)


def joined(parts: Iterable[Statistics]) -> Statistics:
    """Groups of several statistics, sorted by site; all of the same terms."""
    all_ = list(parts)
    order = np.argsort(np.array([s for p in all_ for s in p.site], dtype=object), kind="stable")
    sites = [s for p in all_ for s in p.site]
    makers = [m for p in all_ for m in p.manufacturer]
    studies = _studies(all_)
    return Statistics(
        all_[0].terms,
        tuple(sites[k] for k in order),
        tuple(makers[k] for k in order),
        study=tuple(studies[k] for k in order) if studies else (),
        **{
            name: np.concatenate([getattr(p, name) for p in all_])[order]
            for name in ("count", "variance", "xx", "xy", "yy", "ages")
        },
    )


def _studies(parts: Sequence[Statistics]) -> tuple[str, ...]:
    """Study of each group of several statistics; empty if none has one."""
    if not any(p.study for p in parts):
        return ()
    return tuple(s for p in parts for s in p.study or (UNKNOWN,) * len(p.site))


def people_spread(norm: Norm, manufacturer: str | None = None) -> float:
    """Spread of healthy people at 50 years, in the unit of the metric, of a manufacturer or of all."""
    h = norm.hierarchy
    if manufacturer in h.manufacturers:
        return float(spreads(h.variances, len(h.manufacturers))[0][h.manufacturers.index(manufacturer)] * h.spread)
    return float(np.exp(h.variances[0]) * h.spread)
