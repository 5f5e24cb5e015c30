"""How well norms are calibrated for sites and cohorts that they have not seen.

Run ``python benchmarks/norm_calibration.py`` or with some of sites, raw, simulated, compression, lifespan. Each site
of the multi-site table is left out in turn; its healthy people are scored (a) with the norm of its manufacturer and (b)
after adapting with 3 of them, judged on the others (threes of neighbours in the list). The table goes through
`norm_add` with the sidecars of its scans: what is impossible, and what comes from a protocol of another kind, is in
quarantine. ``raw`` judges the table alone, whose protocols are then not known. Compared with: the mean and standard
deviation of all, and of the manufacturer.
"""

import sys
import tarfile
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import norm_tables
from norm_tables import CELL, DATA
from qcord.core.errors import ExtrapolationWarning
from qcord.normative.adapt import adapt_norm
from qcord.normative.fit import fit_norm
from qcord.normative.norm import Norm
from qcord.normative.score import score
from qcord.normative.statistics import Statistics, from_summaries
from qcord.pipeline.norm_database import norm_add, norm_query

METRICS = ("FA", "MD", "RD", "MTR", "MTsat", "T1", "area T1w", "area T2w", "area T2star")


def accepted(table: pd.DataFrame, *, sidecars: bool = True) -> pd.DataFrame:
    """What `norm_add` takes of a table, with or without the sidecars of its scans; prints what it does not."""
    rows, refused = entered(table, sidecars=sidecars)
    for reason, count in refused["reason"].value_counts().items():
        print(f"quarantined: {count} x {reason}")
    return rows


def entered(table: pd.DataFrame, *, sidecars: bool = True) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows that `norm_add` takes of a table, and those that it puts in quarantine."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        if sidecars:
            with tarfile.open(DATA / "sidecars_multi_site.tar.gz") as archive:
                archive.extractall(raw, filter="data")
        database = Path(folder) / "norms"
        norm_add(table.drop(columns="protocol"), database, sidecars=raw if sidecars else None)
        return norm_query(database, pathology="any"), norm_query(database, sql="SELECT * FROM quarantine")


def left_out(
    part: pd.DataFrame, by: str = "site", *, kinds: str = "ab", summaries: Statistics | None = None
) -> pd.DataFrame:
    """Scores of each group by the norm of the others: kinds a (its manufacturer) and b (adapted).

    A person counts once, however many sessions and contrasts there are.
    """
    found = []
    part = part.assign(once=1 / part.groupby([by, "participant_id"])["value"].transform("size"))
    for name, group in part.groupby(by):
        others = part[part[by] != name]
        norm = fit_norm(others, summaries=summaries)
        theirs = others[others["manufacturer"] == group["manufacturer"].iloc[0]]
        found.append(judged(norm, group, "a", (others, theirs), group["once"]))
        for site, people in group.groupby("site") if "b" in kinds else ():
            ids = people["participant_id"].drop_duplicates().to_numpy()
            starts = range(0, len(ids), max(1, len(ids) // 20)) if len(ids) > 3 else ()
            for k in starts:
                controls = people["participant_id"].isin(np.roll(ids, -k)[:3])
                adapted = adapt_norm(norm, people[controls], site=str(site))
                rest = people[~controls]
                found.append(judged(adapted, rest, "b", (others, theirs), rest["once"] / len(starts)))
    return pd.concat(found)


def judged(
    norm: Norm, people: pd.DataFrame, kind: str, rivals: tuple[pd.DataFrame, pd.DataFrame], weight: "pd.Series[float]"
) -> pd.DataFrame:
    """Scores with the negative log density of each value, and that of normal rivals."""
    scored = score(norm, people)
    h = 1e-4 * norm.hierarchy.spread
    up, down = (score(norm, people.assign(value=people["value"] + s))["z"] for s in (h, -h))
    slope = np.maximum((up.to_numpy() - down.to_numpy()) / (2 * h), 1e-300)
    z = scored["z"].to_numpy()
    scored["log score"] = z * z / 2 + np.log(2 * np.pi) / 2 - np.log(slope)
    for name, rows in zip(("pooled", "manufacturer"), rivals, strict=True):
        chosen = rows if len(rows) > 2 else rivals[0]
        w = chosen["once"] / chosen["once"].sum()
        mean = w @ chosen["value"]
        spread = np.sqrt(w @ (chosen["value"] - mean) ** 2 / (1 - w @ w))
        r = (people["value"].to_numpy() - mean) / spread
        scored[name] = r * r / 2 + np.log(2 * np.pi) / 2 + np.log(spread)
    return scored.assign(kind=kind, weight=weight.to_numpy())  # not of the body


def summary(scored: pd.DataFrame) -> "pd.Series[float]":
    w = scored["weight"].to_numpy()
    w = w / w.sum()
    z = scored["z"].to_numpy()
    mean = w @ z
    return pd.Series(
        {
            "people": scored["participant_id"].nunique(),
            "mean": mean,
            "SD": np.sqrt(w @ (z - mean) ** 2),
            "below 2.5 %": 100 * (w @ (z < -1.96)),
            "above 97.5 %": 100 * (w @ (z > 1.96)),
            "width": w @ (scored["z_high"] - scored["z_low"]).to_numpy(),
            "log score": w @ scored["log score"].to_numpy(),
            "pooled - it": w @ (scored["pooled"] - scored["log score"]).to_numpy(),
            "manufacturer - it": w @ (scored["manufacturer"] - scored["log score"]).to_numpy(),
        }
    )


def jackknife(scored: pd.DataFrame, by: str) -> "pd.Series[float]":
    """Standard error of each number of `summary`, from what it is without each of the groups that were left out.

    The groups are few and of unequal sizes, and their people share a shift: errors by people would be far too small.
    Of a mean over people this is the error of a ratio of two sums over groups. Fits of the others, which share most of
    their people, count as independent.
    """
    whole, names = summary(scored), scored[by].unique()
    without = np.array([summary(scored[scored[by] != name]) - whole for name in names])
    error = np.sqrt((len(names) - 1) / len(names) * (without**2).sum(axis=0))
    return pd.Series(error, index=whole.index).where(whole.index != "people")


def with_errors(scored: pd.DataFrame, by: str) -> pd.DataFrame:
    """`summary` of each kind, and the standard error of each number over the groups that were left out."""
    rows = {}
    for kind, part in scored.groupby("kind"):
        rows[kind], rows[f"{kind} +-"] = summary(part), jackknife(part, by)
    return pd.DataFrame(rows).T


def sites() -> None:
    table = accepted(norm_tables.spine_generic().observations)
    calibrations(table[(table["pathology"] == "HC") & table["metric"].isin(METRICS)])


def raw() -> None:
    """The table alone: protocols are not known."""
    table = accepted(norm_tables.spine_generic().observations, sidecars=False)
    calibrations(table[(table["pathology"] == "HC") & table["metric"].isin(METRICS)])


def calibrations(table: pd.DataFrame) -> None:
    """Each cell, each metric, and all together, every site left out in turn."""
    scored = {key: left_out(part) for key, part in table.groupby(CELL)}
    every = pd.concat(scored, names=CELL)
    cells = pd.DataFrame({(*key, kind): summary(g) for key, part in scored.items() for kind, g in part.groupby("kind")})
    print(cells.T.drop(columns="log score").round(2).to_string())
    print("\nby metric, all regions")
    pooled = {(m, k): summary(g) for (m, k), g in every.reset_index("metric", drop=True).groupby(["metric", "kind"])}
    print(pd.DataFrame(pooled).T.drop(columns="log score").round(2).to_string())
    print("\nall")
    print(
        pd.DataFrame({k: summary(g) for k, g in every.groupby("kind")}).T.drop(columns="log score").round(3).to_string()
    )


def compression() -> None:
    """People with mild compression and healthy ones of the same sites, each scored without their site."""
    table = accepted(norm_tables.spine_generic().observations)
    rows = []
    for key, part in table[table["metric"].isin(METRICS)].groupby(CELL):
        scored = []
        for name, group in part.groupby("site"):
            healthy = part[part["pathology"] == "HC"]
            norm = fit_norm(healthy[healthy["site"] != name])
            own = group[group["pathology"] == "HC"]
            for k in range(len(group)):
                one = group.iloc[[k]]
                controls = own[own["participant_id"] != one["participant_id"].iloc[0]]
                adapted = adapt_norm(norm, controls, site=str(name)) if len(controls) else norm
                scored.append(score(adapted, one))
        all_ = pd.concat(scored)
        ill, well = (all_["z"][all_["pathology"] == p].to_numpy() for p in ("MildCompression", "HC"))
        area = ((ill[:, None] > well).mean() + 0.5 * (ill[:, None] == well).mean()).item()
        error = np.sqrt(area * (1 - area) / min(len(ill), len(well)))
        rows.append((*key, len(ill), len(well), area, error, ill.mean() - well.mean()))
    frame = pd.DataFrame(rows, columns=[*CELL, "compressed", "healthy", "AUC", "about +-", "difference of z"])
    print(frame.round(3).to_string(index=False))
    print(f"AUC {frame['AUC'].min():.3f} to {frame['AUC'].max():.3f}, mean {frame['AUC'].mean():.3f}")


def lifespan() -> None:
    """Cord area at C2 and C3 of five cohorts, with the published bands of a sixth.

    Of one cohort alone there are T2w images, beside T1w ones of the same people, so that contrast and cohort cannot be
    told apart: judged are contrasts as manufacturers (also with cohorts as studies) and cohorts as manufacturers, and
    one kind for all, of places in cohorts and of cohorts as a whole; and the first without the T1w images of that
    cohort. The lines "+-" are standard errors over the cohorts (`jackknife`).
    """
    table = cohorts()
    slopes(fit_norm(table, summaries=sixth("T1w")))
    alone = table[(table["cohort"] != "spine-generic") | (table["manufacturer"] == "T2w")]
    ways = {
        "contrasts as manufacturers": (table, "T1w"),
        "contrasts as manufacturers, cohorts as studies": (table.assign(study=table["cohort"]), "T1w"),
        "cohorts as manufacturers": (table.assign(manufacturer=table["cohort"]), "BLSA"),
        "one kind, places": (table.assign(manufacturer="any"), "any"),
        "one kind, cohorts": (table.assign(manufacturer="any", site=table["cohort"]), "any"),
        "contrasts as manufacturers, one cohort T2w alone": (alone, "T1w"),
    }
    for what, (people, kind) in ways.items():
        scored = left_out(people, "cohort", summaries=sixth(kind))
        print(f"\n{what}")
        print(with_errors(scored, "cohort").round(3).to_string())
        groups = scored.groupby(["cohort", "metric", "kind"])
        print(pd.DataFrame({k: summary(g) for k, g in groups}).T.round(2).to_string())


def cohorts() -> pd.DataFrame:
    """Healthy adults, mean of C2 and C3; the contrast stands for the manufacturer."""
    shapes, maps = norm_tables.lifespan().observations, norm_tables.spine_generic().observations
    shapes = shapes[shapes["level"].isin(["C2", "C3"])]
    maps = maps[(maps["metric"] == "area T1w") & (maps["level"] == "C2:C3")]
    table = pd.concat([shapes.assign(cohort=shapes["site"].str.split().str[0]), maps.assign(cohort="spine-generic")])
    table = table[table["metric"].isin(["area T1w", "area T2w"])]
    table = table[(table["pathology"] == "HC") & (table["age"] >= 18)]
    contrast = table["metric"].str[5:]
    table.loc[contrast == "T2w", "cohort"] = "spine-generic"
    both = table["cohort"] == "spine-generic"
    table = table.assign(manufacturer=contrast, level="C2:C3", site=table["site"] + np.where(both, " " + contrast, ""))
    keys = ["participant_id", "session_id", "site", "cohort", "manufacturer", *CELL, "unit", "pathology", "age", "sex"]
    return table.groupby(keys, dropna=False, as_index=False)["value"].mean()


def sixth(kind: str) -> Statistics:
    """Published bands of a cohort of which no rows are at hand, as of a manufacturer."""
    bands = norm_tables.published("BLSA", kind)
    bands = bands[(bands["metric"] == "area") & bands["level"].isin(["C2", "C3"])]
    bands = bands.groupby(["site", "manufacturer", "age", "sex"], as_index=False)[["count", "mean", "sd"]].mean()
    return from_summaries(bands)


def slopes(norm: Norm) -> None:
    h = norm.hierarchy
    error = np.sqrt(np.diag(h.covariance)) * h.spread
    effects = h.coefficients * h.spread
    at = {name: k for k, name in enumerate(norm.terms.names)}
    print(f"{norm.card}")
    print(f"male - female {effects[at['male']]:.2f} +- {error[at['male']]:.2f} mm2 (published 2.80 to 4.7)")
    slope, doubt = effects[at["age"]] / 20, error[at["age"]] / 20
    print(f"age {slope:.4f} +- {doubt:.4f} mm2/year (published -.144 to -.057)")


def simulated() -> None:
    """Cohorts of 31 sites, of which none, or a tenth, deviate; 24 other sites of the same manufacturers are scored."""
    for share, width in ((0.0, 0.0), (0.1, 6.0), (0.1, 12.0)):
        found, fits = [], []
        for seed in range(25):
            table = made_up(np.random.default_rng(seed), share, width)
            norm = fit_norm(table[~table["unseen"]])
            fits.append(not norm.hierarchy.deviating.none)
            new = table[table["unseen"]]
            new = new.assign(once=1.0)
            rivals = (new, new)
            found.append(judged(norm, new, "a", rivals, new["once"]))
            for site, people in new.groupby("site"):
                adapted = adapt_norm(norm, people[:3], site=str(site))
                rest = people[3:]
                found += [judged(adapted, rest, "b", rivals, rest["once"])] if len(rest) else []
        scored = pd.concat(found)
        print(f"\na share {share:g} deviates by {width:g} spreads; found in {np.mean(fits):.0%} of the cohorts")
        rows = {k: summary(g).drop(["pooled - it", "manufacturer - it"]) for k, g in scored.groupby("kind")}
        print(pd.DataFrame(rows).T.round(3).to_string())


def made_up(rng: np.random.Generator, share: float, width: float) -> pd.DataFrame:
    rows = []
    for maker, count in (("A", 5), ("B", 6), ("C", 20)):
        centre = 10 + 2 * rng.standard_normal()
        for k in range(count + 8):
            middle = centre + 0.4 * rng.standard_normal() + (rng.random() < share) * width * rng.standard_normal()
            for _ in range(rng.integers(3, 8)):
                person = (rng.uniform(20, 45), "MF"[rng.integers(2)], middle + rng.standard_normal())
                rows.append((f"{maker}{k}", maker, k >= count, f"p{len(rows)}", *person))
    return pd.DataFrame(rows, columns=["site", "manufacturer", "unseen", "participant_id", "age", "sex", "value"])


if __name__ == "__main__":
    pd.set_option("display.width", 220, "display.max_rows", 500)
    warnings.simplefilter("ignore", ExtrapolationWarning)
    jobs = {"sites": sites, "raw": raw, "simulated": simulated, "compression": compression, "lifespan": lifespan}
    for job in sys.argv[1:] or jobs:
        print(f"\n{job}")
        jobs[job]()
