"""The database of healthy values at a million rows: time to add (from CSV, Parquet and memory), query, fit and score.

Run ``python benchmarks/norm_scale.py [rows] [seed]``. Synthetic persons at 50 sites, 200 cells each; a metric
is fitted at 10 levels of one region with 10,000 persons each, and so many are scored.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from qcord.normative.fit import fit_norms
from qcord.normative.score import score
from qcord.pipeline.norm_database import norm_add, norm_query

METRICS = {"FA": (0.69, 0.05, "1"), "MD": (0.95e-3, 0.08e-3, "mm2/s"), "MTR": (47.0, 2.5, "percent")}
METRICS |= {"MTsat": (4.3, 0.4, "percent"), "T1": (1.28, 0.1, "s")}
REGIONS = ("white matter", "gray matter", "dorsal columns", "lateral funiculi", "ventral funiculi")
REGIONS = (*REGIONS, *(f"WM {side} {t}" for side in ("left", "right") for t in ("fasciculus gracilis",)), "spinal cord")
LEVELS = ("C2", "C3", "C4", "C5", "C6")
MAKERS = ("Siemens", "Philips", "GE")
CELLS = [(m, r, lv) for m in METRICS for r in REGIONS for lv in LEVELS]


def observations(n_rows, seed, first=0):
    """Observations of persons numbered from `first`, each with a value in each cell."""
    rng = np.random.default_rng(seed)
    n = -(-n_rows // len(CELLS))
    person = np.arange(first, first + n)
    site = rng.integers(0, 50, n)
    people = pd.DataFrame(
        {
            "participant_id": np.char.add("p", np.char.zfill(person.astype(str), 7)),
            "session_id": "1",
            "site": np.array([f"site {i:02d}" for i in range(50)])[site],
            "manufacturer": np.array(MAKERS)[site % 3],
            "scanner": np.array(["Prisma", "Ingenia", "MR750"])[site % 3],
            "protocol": np.array([f"3 T, TE 0.06, b 0/800 #{i % 9:08x}" for i in range(50)])[site],
            "software": "qcord 0.1.0 map",
            "quality": "ok",
            "pathology": np.where(rng.random(n) < 0.02, "DCM", "HC"),
            "age": np.round(rng.uniform(18, 85, n), 1),
            "sex": np.where(rng.random(n) < 0.5, "F", "M"),
            "height": np.round(rng.normal(1.7, 0.08, n), 2),
            "weight": np.round(rng.normal(70, 9, n), 1),
        }
    )
    row = np.arange(n_rows)
    frame = people.iloc[row // len(CELLS)].reset_index(drop=True)
    cell = row % len(CELLS)
    for k, name in enumerate(("metric", "region", "level")):
        frame[name] = np.array([c[k] for c in CELLS])[cell]
    mean, sd, unit = (np.array([METRICS[c[0]][k] for c in CELLS])[cell] for k in range(3))
    frame["unit"] = unit
    frame["value"] = mean + sd * rng.normal(size=n_rows)
    frame["se"] = sd / 4
    return frame


def timed(function, repeats=1):
    """Best wall time, processor time of that run, result."""
    best = (np.inf, np.inf)
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        result = function()
        best = min(best, (time.perf_counter() - start, time.process_time() - used))
    return *best, result


def fit_and_score(seed):
    """One metric at ten levels, 10,000 persons each, with standard errors."""
    one = observations(10_000 * len(CELLS), seed + 2)
    one = one[(one["metric"] == "FA") & (one["region"] == "white matter") & (one["level"] == "C2")]
    rng = np.random.default_rng(seed)
    table = pd.concat(
        [one.assign(level=f"C{k}", value=one["value"] + rng.normal(0, 0.01, len(one))) for k in range(10)]
    )
    seconds, used, norms = timed(lambda: fit_norms(table))
    print(f"fit one metric    {seconds:7.2f} s (processor {used:.2f} s)   {len(table)} rows, {len(norms)} norms")
    seconds, used, scored = timed(lambda: score(norms, table[table["level"] == "C3"]))
    print(f"score             {seconds:7.2f} s (processor {used:.2f} s)   {len(scored)} persons")


def main(n_rows=1_000_000, seed=0):
    folder = Path(tempfile.mkdtemp(prefix="norm-scale-"))
    try:
        frame = observations(n_rows, seed)
        print(f"{n_rows} rows, {frame['participant_id'].nunique()} persons, {len(CELLS)} cells, 50 sites, seed {seed}")
        frame.to_csv(folder / "table.csv", index=False)
        duckdb.from_df(frame).write_parquet(str(folder / "table.parquet"))
        for name, source in (
            ("CSV", folder / "table.csv"),
            ("Parquet", folder / "table.parquet"),
            ("memory", frame),
        ):
            seconds, used, added = timed(lambda s=source, n=name: norm_add(s, folder / n))
            result = f"{added.accepted} accepted, {added.reference} apart"
            print(f"add from {name:8s} {seconds:7.2f} s (processor {used:.2f} s)   {result}")
        base = folder / "memory"
        seconds, used, added = timed(lambda: norm_add(frame, base))
        print(f"add all of it again {seconds:5.2f} s (processor {used:.2f} s)   {added.stored} there already")
        more = observations(10_000, seed + 1, first=10**6)
        seconds, used, added = timed(lambda: norm_add(more, base))
        print(f"add 10,000 more   {seconds:7.2f} s (processor {used:.2f} s)   {added.accepted} accepted")
        for label, options in (
            ("one cell", {"metric": "FA", "region": "white matter", "level": "C3"}),
            ("one metric at one site", {"metric": "MTR", "site": "site 07"}),
            ("mean by sex, in SQL", {"sql": "SELECT metric, region, sex, avg(value) FROM observations GROUP BY ALL"}),
        ):
            seconds, used, rows = timed(lambda o=options: norm_query(base, **o), 5)
            print(f"query {label:24s} {1000 * seconds:7.1f} ms (processor {1000 * used:.0f} ms)   {len(rows)} rows")
        fit_and_score(seed)
        size = sum(p.stat().st_size for p in base.rglob("*") if p.is_file())
        print(f"on disk {size / 1e6:.1f} MB ({size / n_rows:.1f} bytes a row)")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
