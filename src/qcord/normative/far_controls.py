"""How far each control of a new site is believed: one that lies far from all others hardly moves the shift of the site.

A mis-segmented cord, a cord that is compressed without anyone knowing it or a wrong unit makes a value of another kind
than what people differ by. So a departure d from the site, in spreads of people, which the norm knows, is

    d ~ (1 - SHARE) people + SHARE Cauchy(0, WIDTH)

and the shift of the site is that of a site like most or of one that deviates, as the norm has it. All of it hangs on
the shift alone, so that its probability is found on a grid, with all choices of who is far, however few controls there
are. What the controls tell of the shift is what this probability has beyond that of sites: where they contradict each
other and no side is more probable, they tell little.

References
----------
Tukey 1960, in Contributions to Probability and Statistics, Stanford University Press, pages 448-485 (contaminated
normal distribution); Box and Tiao 1968, doi:10.1093/biomet/55.1.119 (far values weighed by their probability).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from qcord.core.arrays import FloatArray, IntArray
from qcord.normative.deviating import Deviating, log_density
from qcord.normative.norm import Cell
from qcord.normative.shape import Shape

SHARE = 0.05
"""Part of all controls that are of another kind: assumed."""

WIDTH = 5.0
"""Half of these lie within so many spreads of people: assumed. The tails of a Cauchy distribution are so long that a
control tells the less the farther it lies."""

TOLD = 0.5
"""Probability of another kind from which on a control is named."""

FAR = "far controls"
"""Entry of the card of a norm: by site and person, how far controls lie that hardly count."""

_MANY = 200
"""Controls from which on their median leaves no doubt where most of them lie."""

_HALF, _ABOUT_MEDIAN = 6.0, 3.0
_FINE, _MOST = 2.0, 2_000
_LEAST = 1e-6
_PEOPLE, _CELLS = 5, 3

Far = Mapping[str, str]
"""How far controls lie, by person."""


class Belief(NamedTuple):
    """What controls tell of the shift of their site.

    Parameters
    ----------
    shift : float
        Where they place the site, by themselves; unit and origin of the residuals.
    weight : (n,) array
        What each adds to one over the variance of this; above 0.
    far : (n,) array
        Probability that each is of another kind.
    departure : (n,) array
        Distance of each from where the site is most likely, in standard deviations of its value.
    """

    shift: float
    weight: FloatArray
    far: FloatArray
    departure: FloatArray


def belief(
    residual: FloatArray, variance: FloatArray, share: FloatArray, *, prior: float, deviating: Deviating, shape: Shape
) -> Belief:
    """Find what controls tell of the shift of their site.

    Parameters
    ----------
    residual : (n,) array
        Value less what is expected of a site that is not known.
    variance : (n,) array
        Of people and of the error of measurement.
    share : (n,) array
        What each row counts: the rows of a person count one together.
    prior : float
        Variance of the shift of a site that does not deviate.
    deviating : Deviating
        Share of sites that do, not 0; width in the unit of the residuals.
    shape : Shape
        Of the departures of people.
    """
    spread = np.sqrt(variance)
    shift = _grid(residual, spread, share, np.sqrt(prior))
    departure = (residual[:, None] - shift) / spread[:, None]
    usual = np.log1p(-SHARE) + shape.log_density(departure)
    other = np.log(SHARE / (np.pi * WIDTH)) - np.log1p((departure / WIDTH) ** 2)
    either = np.logaddexp(usual, other)
    # rows are sites like most, and those that deviate
    priors = np.array([prior, prior + deviating.width**2])
    shares = np.log([1 - deviating.share, deviating.share])
    joint = shares[:, None] + log_density(shift**2, priors[:, None]) + share @ either
    chance = np.exp(joint - joint.max()) * np.gradient(shift)
    chance /= chance.sum()
    kind, anywhere = chance.sum(axis=1), chance.sum(axis=0)
    far = np.exp(other - either) @ anywhere

    # of each kind, the normal number that makes this of the shift
    given = chance / np.maximum(kind, 1e-300)[:, None]
    mean = given @ shift
    known = 1 / np.maximum((given * (shift - mean[:, None]) ** 2).sum(axis=1), 1e-300)
    each = share * np.maximum(1 - far, _LEAST) / variance
    told = kind * np.maximum(known - 1 / priors, _LEAST * each.sum())
    places = np.clip(mean * known * kind / np.maximum(told, 1e-300), residual.min(), residual.max())
    place = float(np.average(places, weights=told))
    apart = float(np.average((places - place) ** 2, weights=told))
    whole = 1 / (1 / told.sum() + apart)
    return Belief(place, each * (whole / each.sum()), far, (residual - float(anywhere @ shift)) / spread)


def _grid(residual: FloatArray, spread: FloatArray, share: FloatArray, prior: float) -> FloatArray:
    """Shifts about each control and about that of most sites, finer than what all of them tell."""
    fine = 1 / np.sqrt(float(share @ spread**-2.0) + prior**-2) / _FINE
    middle, half = np.append(residual, 0.0), _HALF * np.append(spread, prior)
    if len(residual) > _MANY:
        middle, half = np.array([np.median(residual)]), np.array([_ABOUT_MEDIAN * np.median(spread)])
    order = np.argsort(middle - half, kind="stable")
    low, high = (middle - half)[order], np.maximum.accumulate((middle + half)[order])
    first = np.append(True, low[1:] > high[:-1])
    last = np.append(first[1:], True)
    numbers = np.clip(np.ceil((high[last] - low[first]) / fine), 2, _MOST).astype(int) + 1
    parts = [np.linspace(a, b, n) for a, b, n in zip(low[first], high[last], numbers, strict=True)]
    return np.concatenate(parts)


def far_ones(found: Belief, person: list[str], place: IntArray) -> dict[str, str]:
    """How far the controls lie that are more likely of another kind than not, the farthest first.

    Parameters
    ----------
    found : Belief
        Of n rows.
    person : list of str
        Who they are, by row of the table.
    place : (n,) array of int
        Row of the table.
    """
    who = np.array(person, dtype=object)[place]
    result: dict[str, str] = {}
    for k in np.lexsort((who.astype(str), -np.abs(found.departure))):
        if found.far[k] > TOLD and who[k] not in result:
            mine = who == who[k]
            part = f", {int((found.far[mine] > TOLD).sum())} of {int(mine.sum())} values" if mine.sum() > 1 else ""
            side = "above" if found.departure[k] > 0 else "below"
            result[str(who[k])] = f"{abs(found.departure[k]):.1f} spreads of people {side}{part}"
    return result


def sentence(site: str, found: Mapping[Cell, Far]) -> str:
    """One sentence that names controls far away with their cells, those far in most cells first."""
    cells: dict[str, list[str]] = {}
    for cell, people in found.items():
        for person, how in people.items():
            cells.setdefault(person, []).append(f"{cell.metric} of {cell.region} at {cell.level} ({how})")
    order = sorted(cells, key=lambda person: (-len(cells[person]), person))
    words = [f"{person} in {_few(cells[person], _CELLS, 'cells')}" for person in order]
    return (
        f"Controls of {site} hardly count where they lie far from what the others and the norm let expect: "
        f"{_few(words, _PEOPLE, 'people', '; ')}; look at their images, outlines and units."
    )


def _few(words: list[str], most: int, what: str, between: str = ", ") -> str:
    more = len(words) - most
    return between.join(words[:most]) + (f" and {more} more {what}" if more > 0 else "")
