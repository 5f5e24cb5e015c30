"""Norms of eight hospitals from their sums against those of all rows in one table, and what noise costs.

Run ``python benchmarks/federation.py [exact]``; ``exact`` leaves the third part out. First: largest relative
difference of effects, variances and z between norms merged from documents and norms of the pooled rows (same model);
then z of the merged norm against the full fit of the rows, which also uses the standard error of each value and the
shape of the distribution. Second: bytes of a document. Third: what the analytic Gaussian mechanism adds to the error
of the effect of sex (robust spread of 30 draws), over the standard error of the exact norm, by epsilon and people per
site.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from federation_sites import hospitals  # simulated hospitals, shared with the tests
from qcord.normative.fit import CELL, fit_norms, fit_statistics
from qcord.normative.norm import Cell, Norms
from qcord.normative.score import score
from qcord.normative.statistics import statistics
from qcord.normative.terms import Terms
from qcord.pipeline.norm_federation import new_key_file, norm_export, norm_merge

LIMIT = 1e-8
BOUNDS = {"FA": (0.4, 0.95)}
FA_ONLY = [("FA", "white matter", "C2:C5", "1", 0.69, 0.04)]


def main() -> None:
    worst = exact()
    if "exact" not in sys.argv:
        noise()
    sys.exit(0 if worst <= LIMIT else 1)


def exact(seeds: int = 5) -> float:
    """Print and return the largest relative difference between merged and pooled norms."""
    found = []
    for seed in range(seeds):
        for terms in (Terms((20.0, 50.0, 80.0)), Terms(())):
            tables = hospitals(seed=seed)
            merged, size = through_documents(tables, terms)
            rows = pd.concat(tables).sample(frac=1, random_state=seed, ignore_index=True)
            whole = pooled(rows, terms)
            for cell, norm in whole.cells.items():
                one, two = merged[cell].hierarchy, norm.hierarchy
                found.append([relative(getattr(one, n), getattr(two, n)) for n in ("coefficients", "variances")])
            z, pooled_z = score(merged, rows)["z"], score(whole, rows)["z"]
            full_z = score(fit_norms(rows, terms), rows)["z"]
            found[-1] += [float(np.abs(z - pooled_z).max()), float(np.abs(z - full_z).max()), size]
    table = np.array([f for f in found if len(f) > 2])
    largest = np.array([f[:2] for f in found]).max(axis=0)
    print(f"8 sites, {len(found)} norms: largest relative difference of effects {largest[0]:.1e}, of variances")
    print(f"{largest[1]:.1e}; largest difference of z {table[:, 2].max():.1e} (same model), {table[:, 3].max():.2f}")
    print(f"(full fit of the rows); a document of 3 cells has {table[:, 4].max() / 1000:.1f} kB")
    return float(max(*largest, table[:, 2].max()))


def noise() -> None:
    """Print the error that noise adds to the effect of sex, straight design, one cell, eight sites."""
    print("\nerror of the effect of sex with noise, over its standard error without (8 sites, one cell, straight line)")
    print(f"{'people per site':>16s}" + "".join(f"{'epsilon ' + format(e, 'g'):>14s}" for e in (1, 3, 8)))
    for people in (50, 200, 1000):
        tables = hospitals((people,) * 8, seed=1, cells=FA_ONLY)
        clean = next(iter(through_documents(tables, Terms(()))[0])).hierarchy
        error = np.sqrt(clean.covariance[1, 1]) * clean.spread
        ratios = []
        for epsilon in (1.0, 3.0, 8.0):
            off = []
            for _ in range(30):
                drawn = next(iter(through_documents(tables, Terms(()), epsilon=epsilon, bounds=BOUNDS)[0])).hierarchy
                off.append(drawn.coefficients[1] * drawn.spread - clean.coefficients[1] * clean.spread)
            ratios.append(np.median(np.abs(off)) / 0.6745 / error)
        print(f"{people:16d}" + "".join(f"{r:14.2f}" for r in ratios))


def through_documents(tables: list[pd.DataFrame], terms: Terms, **noise: object) -> tuple[Norms, int]:
    """Norms merged from documents on disk, and the bytes of the largest."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        new_key_file(folder / "key")
        files = [folder / f"{k}.json" for k in range(len(tables))]
        for k, table in enumerate(tables):
            ledger = folder / f"ledger{k}.json"
            summary = norm_export(table, files[k], key=folder / "key", ledger=ledger, terms=terms, **noise)
            if not summary["exported"].all():
                sys.exit(f"a group was withheld ({summary['reason'].max()}); the comparison needs all")
        return norm_merge(files, key=folder / "key"), max(f.stat().st_size for f in files)


def pooled(rows: pd.DataFrame, terms: Terms) -> Norms:
    """Norms of all rows by the model that sums allow."""
    return Norms.of(
        fit_statistics(statistics(part, terms), cell=Cell(*key), unit=part["unit"].iloc[0])
        for key, part in rows.groupby(CELL)
    )


def relative(one: np.ndarray, two: np.ndarray) -> float:
    """Largest difference over the largest size."""
    return float(np.abs(one - two).max() / np.abs(two).max())


if __name__ == "__main__":
    main()
