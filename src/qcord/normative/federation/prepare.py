"""From the table of a site to its document: who is in it, what is withheld, and what the ledger must remember."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from qcord.core.arrays import IntArray
from qcord.core.errors import ImplausibleValue, MissingMetadata
from qcord.normative.federation import privacy
from qcord.normative.federation.cells import Limits, TooRevealing, alone, reason_to_withhold, too_few
from qcord.normative.federation.exchange import Declaration, Design, Exchange, Noise, Privacy
from qcord.normative.federation.ledger import Entry, Ledger
from qcord.normative.federation.overlap import trim
from qcord.normative.federation.signature import digest
from qcord.normative.fit import CELL, joined
from qcord.normative.names import numbers_of
from qcord.normative.norm import Cell
from qcord.normative.statistics import UNKNOWN, Rows, Statistics, grouped, rows
from qcord.normative.terms import Terms, require

MOST_LEFT_OUT = 0.1
"""Part of the people of a site who may be left out because they are alone at their age."""

STATEMENT = (
    "Sums over groups of people, no row, identifier or date. Values of single people cannot be recovered from them; "
    "a table of ages in whole years and of sexes may be."
)
NOISY_STATEMENT = (
    "Sums over groups of people with noise that hides the presence of each person to the degree stated. "
    "Which groups were large enough is not covered."
)


@dataclass(frozen=True)
class Budget:
    """Noise of one export, and what a site may spend in all.

    Parameters
    ----------
    epsilon, delta : float
        Of this export.
    total : (epsilon, delta)
        Of all exports of the site.
    bounds : Bounds
        Of values, age and height.
    """

    epsilon: float
    delta: float
    total: tuple[float, float]
    bounds: privacy.Bounds


@dataclass(frozen=True, eq=False)
class Prepared:
    """An export before it leaves.

    Parameters
    ----------
    exchange : Exchange
        The document.
    entry : Entry
        What the ledger must remember.
    summary : DataFrame
        One row a cell and site: metric, region, level, site, people, how many were left out, exported, reason. It stays
        at the site.
    """

    exchange: Exchange
    entry: Entry
    summary: pd.DataFrame


@dataclass(frozen=True, eq=False)
class _Group:
    """People of one cell at one site."""

    cell: Cell
    site: str
    rows: Rows
    person: tuple[str, ...]

    def choose(self, people: frozenset[str]) -> "_Group":
        index: IntArray = np.flatnonzero([p in people for p in self.person])
        return replace(self, rows=self.rows.choose(index), person=tuple(self.person[k] for k in index))


def prepare(
    observations: pd.DataFrame,
    ledger: Ledger,
    *,
    terms: Terms,
    limits: Limits,
    software: str,
    budget: Budget | None = None,
    leave_out_alone: bool = False,
) -> Prepared:
    """Sums of all groups that may leave.

    People whose pattern of missing values is rarer than the cell size are left out of all cells: the difference of two
    cells would show them.

    Parameters
    ----------
    observations : DataFrame
        Values of one or several sites; people whose pathology is not HC and values that failed quality are left out,
        where the table says so.
    ledger : Ledger
        Of the site; for its secret.
    terms : Terms
        Design.
    limits : Limits
        Smallest group.
    software : str
        Name and version for the document.
    budget : Budget, optional
        Adds noise.
    leave_out_alone : bool
        Whether up to a tenth of a site's people are left out of all cells because they are alone at their age, which
        would else withhold the group.

    Raises
    ------
    TooRevealing
        If no group may leave, or with noise a person belongs to two sites.
    MissingMetadata, ImplausibleValue
        If a column is absent, or a person has two values of one cell at one site.
    """
    groups, units = _groups(_healthy(observations), terms)
    large = [g for g in groups if not too_few(len(g.person), limits)]
    whole = {(g.cell, g.site): len(g.person) for g in groups}
    summary = {(g.cell, g.site): (len(g.person), too_few(len(g.person), limits)) for g in groups}
    kept: list[_Group] = []
    for site in sorted({g.site for g in large}):
        members = _without_rare([g for g in large if g.site == site], limits)
        kept += _without_alone(members, limits) if leave_out_alone and budget is None else members
    for group in kept:
        summary[group.cell, group.site] = len(group.person), _reason(group, terms, limits, budget)
    final = [g for g in kept if not summary[g.cell, g.site][1]]
    table = _summary(summary, whole)
    if not final:
        counts = table["reason"].value_counts()
        reasons = "; ".join(f"{n} x {reason}" for reason, n in counts.head(3).items())
        raise TooRevealing(f"No group may leave ({reasons}); nothing was exported.")
    statistics, noise = _exact(final, terms) if budget is None else _with_noise(final, terms, budget, ledger)
    entry = _entry(final, terms, budget, ledger)
    declaration = _declare(statistics, table, limits, budget)
    used = {cell: units[cell] for cell in statistics}
    return Prepared(Exchange(terms, statistics, used, declaration, software, noise), entry, table)


def _healthy(observations: pd.DataFrame) -> pd.DataFrame:
    found: pd.DataFrame = observations
    if "pathology" in found:
        found = found[found["pathology"] == "HC"]
    if "quality" in found:
        found = found[found["quality"].isna() | (found["quality"] == "ok")]
    require(found, "value")
    found = found[np.isfinite(numbers_of(found["value"], "value").to_numpy())]
    if not len(found):
        raise ImplausibleValue("The table holds no value of a healthy person (pathology HC); nothing to export.")
    for name in ("participant_id", "site", "unit", *CELL):
        require(found, name)
    if found["participant_id"].isna().any() or found["site"].isna().any():
        raise MissingMetadata("A row has no participant_id or no site; exports need both, to count people.")
    return found


def _groups(observations: pd.DataFrame, terms: Terms) -> tuple[list[_Group], dict[Cell, str]]:
    found: list[_Group] = []
    units: dict[Cell, str] = {}
    for key, part in observations.groupby(CELL, sort=True, observed=True):
        cell = Cell(*(str(v) for v in key))
        unit = part["unit"].astype(str).unique()
        if len(unit) != 1:
            raise ImplausibleValue(f"{cell.metric} comes in {len(unit)} units ({', '.join(unit)}); convert it.")
        units[cell] = str(unit[0])
        ordered = part.assign(participant_id=part["participant_id"].astype(str)).sort_values(
            ["site", "participant_id"], kind="stable"
        )
        data, person = rows(ordered, terms), ordered["participant_id"].to_numpy()
        for site in sorted(set(data.site)):
            index: IntArray = np.flatnonzero(data.site == site)
            people = tuple(str(p) for p in person[data.place[index]])
            if len(set(people)) != len(people):
                raise ImplausibleValue(
                    f"{len(people) - len(set(people))} people have two values of {cell.metric}, {cell.region}, "
                    f"{cell.level} at {site}; keep one session of each."
                )
            found.append(_Group(cell, str(site), data.choose(index), people))
    return found, units


def _without_rare(groups: list[_Group], limits: Limits) -> list[_Group]:
    trimmed = trim([frozenset(g.person) for g in groups], limits.cell_size)
    return [group.choose(people) for group, people in zip(groups, trimmed, strict=True)]


def _without_alone(groups: list[_Group], limits: Limits) -> list[_Group]:
    """Groups of one site without those who are alone at their age; unchanged if these are too many."""
    everybody = frozenset(p for g in groups for p in g.person)
    found, rest = groups, everybody
    while True:
        out = {g.person[k] for g in found if g.person for k in np.flatnonzero(alone(g.rows.design, g.rows.value))}
        rest = rest - out
        if not out or len(rest) < (1 - MOST_LEFT_OUT) * len(everybody):
            return groups if out else found
        found = _without_rare([g.choose(rest) for g in found], limits)


def _reason(group: _Group, terms: Terms, limits: Limits, budget: Budget | None) -> str:
    if not group.person:
        return "people differ from those of the other cells in too few"
    if budget is None:
        return reason_to_withhold(group.rows, terms, limits)
    return too_few(len(group.person), limits)


def _summary(found: Mapping[tuple[Cell, str], tuple[int, str]], whole: Mapping[tuple[Cell, str], int]) -> pd.DataFrame:
    records = [(*key[0], key[1], n, whole[key] - n, not reason, reason) for key, (n, reason) in sorted(found.items())]
    return pd.DataFrame(records, columns=[*CELL, "site", "people", "left_out", "exported", "reason"])


def _exact(groups: list[_Group], terms: Terms) -> tuple[dict[Cell, Statistics], dict[Cell, Noise]]:
    return _collect([(g.cell, grouped(g.rows, terms)) for g in groups]), {}


def _with_noise(
    groups: list[_Group], terms: Terms, budget: Budget, ledger: Ledger
) -> tuple[dict[Cell, Statistics], dict[Cell, Noise]]:
    """Noise of each site by the number of its sets of people and cells; sites hold different people."""
    sites = sorted({g.site for g in groups})
    members = [frozenset(p for g in groups if g.site == site for p in g.person) for site in sites]
    if sum(map(len, members)) != len(frozenset().union(*members)):
        raise TooRevealing("A person belongs to two sites of this export; with noise, export one site at a time.")
    found: list[tuple[Cell, Statistics]] = []
    sets = {site: {_tokens(g, ledger, values=False) for g in groups if g.site == site} for site in sites}
    cells = {site: sum(g.site == site for g in groups) for site in sites}
    largest = max(privacy.sensitivity(terms, budget.bounds, len(sets[s]), cells[s]) for s in sites)
    sigma = privacy.noise_scale(largest, budget.epsilon, budget.delta)
    p = len(terms.names)
    request = _request(groups, terms, budget, ledger)
    for group in groups:
        bounds = budget.bounds.of(group.cell.metric)
        exact = grouped(privacy.clip(group.rows, terms, budget.bounds, group.cell.metric), terms)
        exact = replace(exact, ages=privacy.outward(budget.bounds.age))
        shared = privacy.normals(ledger.seed(request, *_tokens(group, ledger, values=False)), p * (p + 1) // 2)
        own = privacy.normals(ledger.seed(request, group.site, group.cell), p + 2)
        found.append((group.cell, privacy.noisy(exact, bounds, sigma, shared, own)))
    noise = {g.cell: Noise(bounds=budget.bounds.of(g.cell.metric), sigma=sigma) for g in groups}
    return _collect(found), noise


def _collect(parts: list[tuple[Cell, Statistics]]) -> dict[Cell, Statistics]:
    return {cell: joined([s for c, s in parts if c == cell]) for cell in sorted({c for c, _ in parts})}


def _tokens(group: _Group, ledger: Ledger, *, values: bool) -> tuple[str, ...]:
    data = group.rows
    extra = [(float(v), float(e)) if values else () for v, e in zip(data.value, data.variance, strict=True)]
    found = (
        ledger.token(group.site, person, *map(float, (age, *row)), *more)
        for person, age, row, more in zip(group.person, data.age, data.design, extra, strict=True)
    )
    return tuple(sorted(found))


def _request(groups: list[_Group], terms: Terms, budget: Budget | None, ledger: Ledger) -> str:
    """Name of an export by its data and settings; keyed, so that it tells nothing."""
    what = [f"{g.cell}{g.site}{_tokens(g, ledger, values=True)}" for g in groups]
    return ledger.token(repr(terms), repr(budget), *what)


def _entry(groups: list[_Group], terms: Terms, budget: Budget | None, ledger: Ledger) -> Entry:
    name = {id(g): " / ".join((g.site, *g.cell)) for g in groups}
    return Entry(
        _request(groups, terms, budget, ledger),
        digest(Design.of(terms).model_dump(mode="json")),
        tuple(sorted({ledger.token(g.site, person) for g in groups for person in g.person})),
        {name[id(g)]: _tokens(g, ledger, values=False) for g in groups},
        {name[id(g)]: _tokens(g, ledger, values=True) for g in groups},
        float("inf") if budget is None else budget.epsilon,
        0.0 if budget is None else budget.delta,
    )


def _declare(
    statistics: Mapping[Cell, Statistics], table: pd.DataFrame, limits: Limits, budget: Budget | None
) -> Declaration:
    sites = sorted({site for s in statistics.values() for site in s.site})
    if any(site.startswith(UNKNOWN) for site in sites):
        raise MissingMetadata("A row has no site; name it, so that other hospitals can tell sites apart.")
    ages = np.concatenate([s.ages for s in statistics.values()])
    people = {
        site: max(float(s.count[s.site.index(site)]) for s in statistics.values() if site in s.site) for site in sites
    }
    withheld = [f"{r.metric}, {r.region}, {r.level} at {r.site}" for r in table[~table["exported"]].itertuples()]
    noise = None
    if budget is not None:
        bounds = budget.bounds
        noise = Privacy(
            epsilon=float(budget.epsilon),
            delta=float(budget.delta),
            age_bounds=(float(bounds.age[0]), float(bounds.age[1])),
            height_bounds=(float(bounds.height[0]), float(bounds.height[1])),
        )
    return Declaration(
        sites=sites,
        people=people,
        ages=(float(ages[:, 0].min()), float(ages[:, 1].max())),
        cell_size=limits.cell_size,
        withheld=withheld,
        privacy=noise,
        statement=STATEMENT if budget is None else NOISY_STATEMENT,
    )
