"""Fit the norms that come with the package; run ``python tools/ship_norms.py`` where the published tables are.

Only coefficients, their errors and cards are written: what is known of single sites is left out.
"""

import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import norm_tables  # noqa: E402
from norm_calibration import entered, left_out, summary  # noqa: E402
from norm_tables import CELL  # noqa: E402
from qcord.core.errors import ExtrapolationWarning  # noqa: E402
from qcord.normative.borrow import borrow  # noqa: E402
from qcord.normative.centiles import without_sites  # noqa: E402
from qcord.normative.fit import fit_norm, fit_norms  # noqa: E402
from qcord.normative.norm import Cell, Norm, Norms, with_card  # noqa: E402
from qcord.normative.statistics import Statistics, from_summaries  # noqa: E402
from qcord.normative.terms import Terms  # noqa: E402

OUT = ROOT / "src" / "qcord" / "normative" / "shipped"
FEWEST_SITES = 5
STRAIGHT = Terms(knots=())
LEVELS = ("C1", "C2", "C3", "C4", "C5", "C6", "C7", "T1")
SOURCES = {
    "multi": "spine-generic multi-subject data, doi:10.1038/s41597-021-00941-8; values per person by Labounek et al.",
    "T1w": "BLSA (published bands), AOMIC doi:10.1038/s41597-021-00870-6, MASiVar, DLBS, UCLA LA5c "
    "doi:10.1038/sdata.2016.110; cord areas of the normative database of the PAM50 space, doi:10.1162/imag_a_00075",
    "T2w": "spine-generic multi-subject data, doi:10.1038/s41597-021-00941-8; normative database of the PAM50 space, "
    "doi:10.1162/imag_a_00075",
}
LIMITS = {
    "T1": "apparent T1 of two flip angles without a map of the transmit field, longer than true T1",
    "MTR": "repetition time 35 to 57 ms, transfer pulse of the spine-generic protocol; not for other pulses",
    "MTsat": "transfer pulse of the spine-generic protocol, no map of the transmit field; not for other pulses",
}


def quantitative() -> Norms:
    """Maps at C2 to C5, and areas, of the multi-site table."""
    table, refused = entered(norm_tables.spine_generic().observations)
    table, refused = (t[t["pathology"] == "HC"] for t in (table, refused))
    norms = carded(table, fit_norms(table, STRAIGHT), SOURCES["multi"])
    return Norms.of(with_card(norm, **{"left out": reasons(refused, norm.cell)}) for norm in norms)


def reasons(refused: pd.DataFrame, cell: Cell) -> dict[str, int]:
    """Why values of a cell were put in quarantine, and how many."""
    own = refused[(refused[CELL] == list(cell)).all(axis=1)]
    return {str(why): int(count) for why, count in own["reason"].value_counts().items()}


def morphometry() -> Norms:
    """Area and diameters by vertebral level: T2w by manufacturer, T1w over the lifespan of adults."""
    table = norm_tables.lifespan().observations
    table = table[(table["pathology"] == "HC") & table["level"].isin(LEVELS) & (table["age"] >= 18)]
    table = table.assign(manufacturer=table["manufacturer"].where(table["manufacturer"].notna(), "unknown"))
    t2 = table["metric"].str.endswith("T2w")
    norms = [
        *carded(table[t2], borrow(fit_norms(table[t2], STRAIGHT)), SOURCES["T2w"]),
        *carded(table[~t2], borrow(with_published(table[~t2])), SOURCES["T1w"]),
    ]
    # how far sites differ cannot be told from fewer
    return Norms.of(norm for norm in norms if norm.card["people"] >= 60 and norm.card["sites"] >= FEWEST_SITES)


def with_published(table: pd.DataFrame) -> Norms:
    """Norms of T1w, to which the published bands of a cohort of 1,021 people are added at each level."""
    norms = []
    for (metric, region, level), part in table.groupby(CELL):
        if len(part["site"].unique()) > 1:
            norms.append(fit_norm(part, cell=Cell(metric, region, level), summaries=bands(metric, level)))
    return Norms.of(norms)


def bands(metric: str, level: str) -> Statistics | None:
    """Published bands of a cell; none but on T1w."""
    if not metric.endswith("T1w"):
        return None
    chosen = norm_tables.published("BLSA")
    chosen = chosen[(chosen["metric"] == metric.split(maxsplit=1)[0]) & (chosen["level"] == level)]
    return from_summaries(chosen) if len(chosen) else None


def carded(table: pd.DataFrame, norms: Norms, source: str) -> Norms:
    """Norms with source, limits, and how sites that were left out came out; without their sites."""
    groups = dict(list(table.groupby(["metric", "region", "level"])))
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        found = pool.map(judgement, norms, [groups[tuple(norm.cell)] for norm in norms])
        cards = list(found)
    result = []
    for norm, calibration in zip(norms, cards, strict=True):
        limits = LIMITS.get(norm.cell.metric, "people of research studies, most of them young; manual checks unknown")
        result.append(with_card(without_sites(norm), source=source, calibration=calibration, limits=limits))
    return Norms.of(result)


def judgement(norm: Norm, people: pd.DataFrame) -> dict[str, float]:
    """How people of each site, left out in turn, came out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        found = summary(left_out(people, kinds="a", summaries=bands(norm.cell.metric, norm.cell.level)))
    return {
        "sites left out": int(people["site"].nunique()),
        "z mean": round(float(found["mean"]), 3),
        "z SD": round(float(found["SD"]), 3),
        "below 2.5 %": round(float(found["below 2.5 %"]), 2),
        "above 97.5 %": round(float(found["above 97.5 %"]), 2),
    }


def main() -> None:
    """Write both files and say how sites that were left out came out."""
    OUT.mkdir(exist_ok=True)
    for name, make in (("quantitative", quantitative), ("morphometry", morphometry)):
        clock = time.perf_counter()
        norms = make()
        (OUT / f"{name}.json").write_text(norms.to_json() + "\n", encoding="utf-8")
        size = (OUT / f"{name}.json").stat().st_size
        sds = [n.card["calibration"]["z SD"] for n in norms]
        sys.stdout.write(f"{name}: {len(norms)} norms, {size / 1e3:.0f} kB, {time.perf_counter() - clock:.0f} s\n")
        sys.stdout.write(f"z SD of sites left out: median {np.median(sds):.2f}, {min(sds):.2f} to {max(sds):.2f}\n")


if __name__ == "__main__":
    main()
