"""Many documents of sites, one norm: the sums are put side by side, as if the rows had been in one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.core.errors import QcordError
from qcord.normative.federation.exchange import Exchange, Noise
from qcord.normative.federation.privacy import widen
from qcord.normative.federation.signature import digest
from qcord.normative.fit import fit_statistics, joined
from qcord.normative.norm import Cell, Norms, with_card
from qcord.normative.statistics import Statistics
from qcord.normative.terms import Terms


class CannotMerge(QcordError):
    """Documents do not belong together."""


@dataclass(frozen=True, eq=False)
class Merged:
    """Sums of all sites.

    Parameters
    ----------
    terms : Terms
        Design of all of them.
    statistics : dict of cell to Statistics
        Groups of all sites, sorted by site.
    units : dict of cell to str
        Unit of the values.
    noise : dict of cell and site to Noise
        What was added where; empty for exact sums.
    sites : tuple of str
        All sites, sorted.
    """

    terms: Terms
    statistics: Mapping[Cell, Statistics]
    units: Mapping[Cell, str]
    noise: Mapping[tuple[Cell, str], Noise]
    sites: tuple[str, ...]


def merge(exchanges: Sequence[Exchange]) -> Merged:
    """Put the sums of documents side by side; their order does not matter, and the same document twice counts once.

    Parameters
    ----------
    exchanges : sequence of Exchange
        Documents of sites.

    Raises
    ------
    CannotMerge
        If there is none, designs or units differ, or two different documents hold the same site.
    """
    found = list({digest(e.content()): e for e in exchanges}.values())
    if not found:
        raise CannotMerge("There is no document to merge; give at least one.")
    found.sort(key=lambda e: (e.sites, digest(e.content())))
    _require_one_design(found)
    _require_different_sites(found)
    cells = sorted({cell for e in found for cell in e.statistics})
    statistics = {cell: joined([e.statistics[cell] for e in found if cell in e.statistics]) for cell in cells}
    noise = {(c, s): v for e in found for c, v in e.noise.items() for s in e.statistics[c].site}
    sites = tuple(sorted(s for e in found for s in e.sites))
    for cell, sums in statistics.items():
        makers: dict[str, set[str]] = {}
        for site, maker in zip(sums.site, sums.manufacturer, strict=True):
            makers.setdefault(site, set()).add(maker)
        if any(len(m) > 1 for m in makers.values()):
            raise CannotMerge(f"A site of {cell.metric} has two manufacturers; name each scanner a site of its own.")
    return Merged(found[0].terms, statistics, _units(found), noise, sites)


def fit_merged(merged: Merged) -> Norms:
    """Norms of all cells, as the rows in one table would give them.

    Parameters
    ----------
    merged : Merged
        Sums of all sites.

    Returns
    -------
    Norms
        With the noise of the sums in their errors, where there is any.
    """
    found = []
    for cell, sums in merged.statistics.items():
        norm = fit_statistics(sums, cell=cell, unit=merged.units[cell])
        noise = [merged.noise.get((cell, site)) for site in sums.site]
        for bounds in sorted({n.bounds for n in noise if n is not None}):
            sigma: FloatArray = np.array([n.sigma if n is not None and n.bounds == bounds else 0.0 for n in noise])
            norm = widen(norm, sums, bounds, sigma)
        found.append(with_card(norm, pooled=f"sums of {len(sums.site)} sites, without rows of people"))
    return Norms.of(found)


def _require_one_design(found: Sequence[Exchange]) -> None:
    first = found[0]
    for other in found[1:]:
        if other.terms != first.terms:
            raise CannotMerge(
                f"{_names(first)} has the columns {_columns(first.terms)}, {_names(other)} has "
                f"{_columns(other.terms)}; export both with the same settings."
            )


def _require_different_sites(found: Sequence[Exchange]) -> None:
    seen: set[str] = set()
    for exchange in found:
        double = sorted(seen & set(exchange.sites))
        if double:
            raise CannotMerge(
                f"Site {double[0]} is in two different documents, and its people would count twice; keep the newest."
            )
        seen |= set(exchange.sites)


def _units(found: Sequence[Exchange]) -> dict[Cell, str]:
    units: dict[Cell, str] = {}
    for exchange in found:
        for cell, unit in exchange.units.items():
            if units.setdefault(cell, unit) != unit:
                raise CannotMerge(
                    f"{cell.metric} is in {units[cell]} at one site and in {unit} at {_names(exchange)}; "
                    "export it in one unit."
                )
    return units


def _names(exchange: Exchange) -> str:
    return ", ".join(exchange.sites)


def _columns(terms: Terms) -> str:
    knots = ", ".join(f"{k:g}" for k in terms.knots) or "none"
    return f"{', '.join(terms.names)} (knots {knots})"
