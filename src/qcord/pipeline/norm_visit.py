"""A visit beside healthy people: its values as observations, their scores, the curves, and earlier visits."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from qcord.core.errors import ExtrapolationWarning
from qcord.core.template import Template
from qcord.ingest.bids import Visit
from qcord.ingest.people import Person
from qcord.normative.centiles import centiles
from qcord.normative.norm import Norm, Norms
from qcord.normative.outlines import OWN, outline_ratio
from qcord.pipeline.norm_score import read_metrics, score_rows
from qcord.pipeline.norm_values import as_observations, definitions, observed, scanners
from qcord.pipeline.store import package_version
from qcord.report.comparison import PROBABILITIES, SCORE_COLUMNS, Cell, Comparison, Curves, cell_of
from qcord.report.findings import Findings

DRAWN = 150
"""Cells whose curves are drawn, the largest deviations first."""

AGES = 13
"""Ages at which curves are computed."""

CARD = {"limits": "Limits of the norms", "source": "Sources of the norms"}
"""Entries of a norm's card that the report repeats, and what it calls them."""

MISJUDGED = 1.2
"""Standard deviation of z in people of sites left out, or one over it, from which the report warns."""

SPARE = 10.0
"""Years that a chart shows beyond a person who is older or younger than the norm's people."""


def compare(
    findings: Findings,
    person: Person,
    norms: Norms,
    template: Template,
    *,
    previous: pd.DataFrame | None = None,
    site: str | None = None,
) -> Comparison:
    """Compare a visit with norms.

    Parameters
    ----------
    findings : Findings
        Tables and maps of the visit.
    person : Person
        Age and sex; where one is not known there is no z, and a sentence says so.
    norms : Norms
        Norms.
    template : Template
        Where the z-map is drawn.
    previous : DataFrame, optional
        Scores of earlier visits, see `earlier_scores`.
    site : str, optional
        Site as the norms name it.
    """
    empty = pd.DataFrame(columns=list(SCORE_COLUMNS))
    if person.lacking:
        sentence = (
            f"No comparison: {person.lacking} of the person {'are' if ' and ' in person.lacking else 'is'} not known; "
            "give age and sex in participants.tsv or sessions.tsv."
        )
        return Comparison(empty, notes=(sentence,))
    differs = definitions(findings)
    scanner = scanners(findings)
    contrasts = {token: one["contrast"] for token, one in scanner.items()}
    values = observed(findings.metrics, findings.morphometry, norms.cells, differs=differs, contrasts=contrasts)
    without = _without(findings, norms)
    notes = tuple(dict.fromkeys(f"{r}: not compared." for m in differs.values() for r in m.values()))
    if values.empty:
        return Comparison(
            empty,
            without=without,
            notes=("No comparison: no norm exists of the values and levels of this visit.", *notes),
        )
    identity = {"participant_id": findings.subject, "session_id": findings.session or ""}
    rows = as_observations(values, person, scanner, identity=identity, software=f"qcord {package_version()}", site=site)
    scores = score_rows(rows, norms)[list(SCORE_COLUMNS)]
    odd = [
        f"{r['metric']} of {r['region']} at {r['level']}: {r['note']}."
        for _, r in scores[scores["z"].isna()].iterrows()
    ]
    earlier = empty if previous is None else previous
    result = Comparison(scores, previous=earlier, without=without, notes=(*notes, *odd), template=template)
    drawn = result.scored.head(DRAWN)
    used = [norms[cell_of(row)] for _, row in result.scored.iterrows()]
    return Comparison(scores, _curves(drawn, norms, earlier), earlier, without, result.notes, _data(used), template)


def _without(findings: Findings, norms: Norms) -> tuple[str, ...]:
    """Metrics of the atlas table, and areas by contrast, of which no norm exists."""
    known = {norm.cell.metric for norm in norms}
    measured = [str(m) for m in dict.fromkeys(findings.metrics["metric"])]
    measured += sorted({f"area {p.entities.suffix}" for p in findings.located.values() if p.kind == "anat"})
    return tuple(m for m in measured if m not in known)


def _curves(scored: pd.DataFrame, norms: Norms, earlier: pd.DataFrame) -> dict[Cell, Curves]:
    found: dict[Cell, Curves] = {}
    for _, row in scored.iterrows():
        cell = cell_of(row)
        if cell in found:
            continue
        norm = norms[cell]
        shown = [float(row["age"]), *earlier["age"].astype(float)]
        ages = _ages(norm, [a for a in shown if np.isfinite(a)])
        place = {k: row[k] if isinstance(row[k], str) and row[k] else None for k in ("site", "manufacturer")}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExtrapolationWarning)  # the chart hatches these ages
            table = centiles(norm, ages, str(row["sex"]), **place, probabilities=PROBABILITIES)
        ratio, _ = outline_ratio(norm.cell.metric, OWN, [str(p) for p in norm.card.get("software", [])])
        heights = ["value", "low", "high"]
        table[heights] *= ratio
        found[cell] = Curves(table, norm.count, _near(norm, row), norm.ages)
    return found


def _near(norm: Norm, row: pd.Series) -> str:
    """People, or sites, of a norm that are of the same site or, if it is not in the norm, manufacturer."""
    sites = norm.hierarchy.sites
    names = sites.name if row["basis"] == "site" else sites.manufacturer
    wanted = row["site"] if row["basis"] == "site" else row["manufacturer"]
    people = round(float(sum(n for name, n in zip(names, sites.count, strict=True) if name == wanted)))
    if people:
        return f"{people} people"
    makers = norm.card.get("manufacturers")
    found = makers.get(wanted) if isinstance(makers, dict) else None
    return f"{found} sites" if found else ""


def _ages(norm: Norm, shown: list[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    young, old = norm.ages
    low = young if min(shown) >= young else max(0.0, min(shown) - SPARE)
    high = old if max(shown) <= old else min(120.0, max(shown) + SPARE)
    if high - low < 1:
        low, high = max(0.0, low - SPARE), high + SPARE
    return np.asarray(np.union1d(np.linspace(low, high, AGES), [young, old, *shown]))


def _data(norms: list[Norm]) -> tuple[str, ...]:
    """People, sites and ages that the norms of a visit rest on."""
    if not norms:
        return ()
    people = sorted({n.count for n in norms})
    sites = sorted({int(n.card.get("sites", len(n.hierarchy.sites.name))) for n in norms})
    young, old = min(n.ages[0] for n in norms), max(n.ages[1] for n in norms)

    def span(numbers: list[int]) -> str:
        return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"

    text = (
        f"The norms rest on {span(people)} healthy people at {span(sites)} sites, {young:.0f} to {old:.0f} years old"
        f"{' (by metric)' if len(people) > 1 else ''}."
    )
    texts = []
    for key, words in CARD.items():
        found = sorted({str(n.card[key]).rstrip(".") for n in norms if isinstance(n.card.get(key), str)})
        texts += [f"{words}: {'; '.join(found)}."] if found else []
    return (text, *_judged(norms), *texts)


def _judged(norms: list[Norm]) -> list[str]:
    """Metrics whose norms were found too wide or too narrow in people of sites that were left out."""
    found: dict[str, list[float]] = {}
    for norm in norms:
        judged = norm.card.get("calibration")
        spread = judged.get("z SD") if isinstance(judged, dict) else None
        if isinstance(spread, int | float):
            found.setdefault(norm.cell.metric, []).append(float(spread))
    texts = []
    for metric, spreads in sorted(found.items()):
        middle = float(np.median(spreads))
        if not 1 / MISJUDGED < middle < MISJUDGED:
            kind = "too small: deviations may be missed" if middle < 1 else "too large: there are more false alarms"
            texts.append(
                f"z of {metric} is {kind} (standard deviation in people of sites left out: {middle:.2f}, not 1)."
            )
    return texts


def earlier_scores(out: Path, visit: Visit, age: float | None) -> pd.DataFrame:
    """Scores of earlier visits of a person that lie in an output folder, in order of age and session.

    Parameters
    ----------
    out : path
        Derivative data set.
    visit : Visit
        The present visit; only sessions of a lower age, or of the same age and a lower label, are earlier.
    age : float or None
        Age at the present visit [years].
    """
    tables = []
    for path in sorted((out / f"sub-{visit.subject}").glob("ses-*/*_desc-norm_metrics.tsv")):
        session = path.parent.name.removeprefix("ses-")
        if session == visit.session or visit.session is None or age is None:
            continue
        table = read_metrics(path)
        if not set(SCORE_COLUMNS) <= set(table) or table.empty:
            continue
        before = float(table["age"].iloc[0])
        if (before, session) < (age, visit.session):
            tables.append(table[list(SCORE_COLUMNS)])
    if not tables:
        return pd.DataFrame(columns=list(SCORE_COLUMNS))
    joined = pd.concat(tables, ignore_index=True)
    return joined.sort_values(["age", "session_id"], kind="stable").reset_index(drop=True)
