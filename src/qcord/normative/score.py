"""Where people stand among healthy ones: z with interval, and centile."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
from scipy import special, stats

from qcord.core.arrays import FloatArray
from qcord.core.errors import ExtrapolationWarning
from qcord.normative.fit import CELL
from qcord.normative.norm import Cell, Norm, Norms
from qcord.normative.outlines import scaled
from qcord.normative.predict import Part, Prediction, predict_parts
from qcord.normative.protocols import deviations
from qcord.normative.shape import blurred_score
from qcord.normative.statistics import UNKNOWN, rows, text
from qcord.normative.terms import require

COLUMNS = ("z", "z_low", "z_high", "centile", "expected", "expected_sd", "basis", "note")
"""What is added to a table."""

SIDE = 1.959963984540054
"""Standard normal number beyond which 2.5 % lie."""

_HALVINGS = 50

_OF_UNIT = ("expected", "expected_sd")
"""Columns in the unit of the value, on the scale of its outlines."""

Scores = np.ndarray[tuple[int], np.dtype[Any]]

REACH = 5.0
"""Years beyond the ages of a norm from which on a value is extrapolated."""


def score(norms: Norms | Norm, observations: pd.DataFrame) -> pd.DataFrame:
    """Compare values with norms.

    Parameters
    ----------
    norms : Norms or Norm
        Norms.
    observations : DataFrame
        One row a value; columns metric, region, level, value, se, age, sex, site, manufacturer (and height, where a
        norm takes it; protocol, software and study, where known). Areas and diameters by outlines of another kind than
        those of the norm are brought to its scale first (`qcord.normative.outlines`). A site that the norm knows is
        compared with its own people, others with those of their manufacturer and, if the norm knows it, study.

    Returns
    -------
    DataFrame
        The rows in their order, with ``z`` (a standard normal number for healthy people: what is not known of the norm,
        the site and the value widens what counts as healthy), ``z_low`` and ``z_high`` (95 % interval: where z could
        lie if these were known), ``centile`` (0 to 100), ``expected`` and ``expected_sd`` (unit of the value; half the
        range of the middle 68 % of people), ``basis`` (site, manufacturer or other) and ``note``. NaN, and a note,
        where there is no norm or no value, or where the protocol is not that of the people of the norm.

    Warns
    -----
    ExtrapolationWarning
        If people are younger or older than those of a norm.
    """
    table = observations.reset_index(drop=True)
    single = isinstance(norms, Norm)
    result = pd.DataFrame(
        {name: np.full(len(table), np.nan) for name in COLUMNS[:-2]} | {"basis": "", "note": ""}, index=table.index
    )
    for name in () if single else CELL:
        require(table, name)
    groups = [((), table)] if isinstance(norms, Norm) else table.groupby(CELL, sort=False, observed=True)
    for key, part in groups:
        norm = norms if isinstance(norms, Norm) else norms.cells.get(Cell(*(str(v) for v in key)))
        index = part.index
        if norm is None:
            result.loc[index, "note"] = "no norm"
            continue
        value = pd.to_numeric(part["value"], errors="coerce").to_numpy(dtype=float)
        why = deviations(part.assign(metric=norm.cell.metric), {norm.cell.metric: norm.card.get("protocols", {})})
        good = np.isfinite(value) & (why == "")
        result.loc[index[~good], "note"] = np.where(np.isfinite(value), why, "no value")[~good]
        if good.any():
            chosen = index[good]
            on = scaled(part[good], norm.cell.metric, norm.card)
            scored = _score(norm, on.rows)
            for name in COLUMNS:
                result.loc[chosen, name] = scored[name]
            result.loc[chosen, list(_OF_UNIT)] *= on.factor[:, None]
    beyond = int(result["note"].str.startswith("age outside").sum())
    if beyond:
        warnings.warn(
            f"{beyond} of {len(table)} values are of people more than {REACH:g} years outside the ages of their norm: "
            "their z is extrapolated; see the column note.",
            ExtrapolationWarning,
            stacklevel=2,
        )
    return pd.concat([table.drop(columns=[c for c in COLUMNS if c in table]), result], axis=1)


def _score(norm: Norm, people: pd.DataFrame) -> dict[str, Scores]:
    """Columns of the result; where studies may be unknown, the company of other people changes no score."""
    h = norm.hierarchy
    if not h.studied:
        return _score_alike(norm, people.drop(columns="study", errors="ignore"))
    own = dict(zip(h.sites.name, h.sites.study, strict=True))
    given = zip(text(people, "site"), text(people, "study"), strict=True)
    study = np.array([own.get(site, study) in h.studies for site, study in given])
    kind = 2 * study + np.isin(text(people, "manufacturer").astype(str), h.manufacturers)
    result: dict[str, Scores] = {}
    for one in np.unique(kind):
        mine = kind == one
        for name, values in _score_alike(norm, people[mine]).items():
            result.setdefault(name, np.empty(len(people), dtype=values.dtype))[mine] = values
    return result


def _score_alike(norm: Norm, part: pd.DataFrame) -> dict[str, Scores]:
    h = norm.hierarchy
    data = rows(part, norm.terms)
    named = text(part, "site")[data.place] != UNKNOWN
    site = np.where(named, data.site, "")
    variance = data.variance / h.spread**2
    parts = predict_parts(
        norm, data.design, data.age, site=site, manufacturer=data.manufacturer, study=data.study, variance=variance
    )
    value = (data.value - h.centre) / h.spread
    z = _mixed([w for w, _ in parts], [_number(norm, p, value - p.mean, variance) for _, p in parts])
    doubt2 = sum(w * (p.unsure**2 + variance) / (p.people**2 + p.unsure**2 + variance) for w, p in parts)
    p = parts[0].prediction
    half = SIDE * np.sqrt(doubt2 + z * z / (2 * p.freedom))
    expected = np.asarray(sum(w * p.mean for w, p in parts))
    young, old = norm.ages
    beyond = (data.age < young - REACH) | (data.age > old + REACH)
    note = np.where(beyond, f"age outside {young:g} to {old:g} years", "").astype(object)
    foreign = p.basis == "other"
    note = np.where(foreign, [f"{n}; manufacturer unknown to the norm".lstrip("; ") for n in note], note)
    columns = {
        "z": z,
        "z_low": z - half,
        "z_high": z + half,
        "centile": 100 * special.ndtr(z),
        "expected": h.centre + h.spread * expected,
        "expected_sd": h.spread * _half_width(norm, parts),
        "basis": p.basis,
        "note": note,
    }
    back = np.argsort(data.place)
    return {name: values[back] for name, values in columns.items()}


def _number(norm: Norm, p: Prediction, gap: FloatArray, variance: FloatArray) -> FloatArray:
    """Standard normal number of the rank of a value whose distance from what is expected is ``gap``."""
    blur = np.sqrt(p.unsure**2 + variance)
    return small_sample(blurred_score(norm.shape, gap / p.people, blur / p.people), p.freedom)


def _mixed(weights: list[FloatArray], numbers: list[FloatArray]) -> FloatArray:
    """Standard normal number of the rank among all, from the ranks among each part of them."""
    if len(numbers) == 1:
        return numbers[0]
    with np.errstate(divide="ignore"):
        shares = np.log(np.array(weights))
    below = special.logsumexp(shares + special.log_ndtr(np.array(numbers)), axis=0)
    above = special.logsumexp(shares + special.log_ndtr(-np.array(numbers)), axis=0)
    return np.asarray(np.where(below < above, special.ndtri_exp(below), -special.ndtri_exp(above)))


def _half_width(norm: Norm, parts: tuple[Part, ...]) -> FloatArray:
    """Half the range of the middle 68 % of people, in units of ``hierarchy.spread``."""
    spread = np.array([np.sqrt((p.people * norm.shape.half_width) ** 2 + p.unsure**2) for _, p in parts])
    if len(parts) == 1:
        return np.asarray(spread[0])
    weight, mean = np.array([w for w, _ in parts]), np.array([p.mean for _, p in parts])

    def place(share: float) -> FloatArray:
        low, high = (mean - 2 * spread).min(axis=0), (mean + 2 * spread).max(axis=0)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            under = (weight * special.ndtr((middle - mean) / spread)).sum(axis=0) < share
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        return np.asarray((low + high) / 2)

    return (place(float(special.ndtr(1.0))) - place(float(special.ndtr(-1.0)))) / 2


def small_sample(z: FloatArray, freedom: FloatArray) -> FloatArray:
    """Standard normal number of the rank of a Student number, which small samples give."""
    tail = stats.t.logsf(np.abs(z), freedom)
    size = np.where(freedom > 1e5, np.abs(z), -special.ndtri_exp(np.minimum(tail, np.log(0.5))))
    return np.asarray(np.sign(z) * size)
