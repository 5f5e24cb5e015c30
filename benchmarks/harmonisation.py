"""Harmonisation of healthy people of 31 sites and three manufacturers, beside neuroHarmonize; and of simulated sites.

Run ``python benchmarks/harmonisation.py [people] [simulated]``; both by default. The table is looked for in
QCORD_TEST_DATA. neuroHarmonize runs, and a random forest, where ``QCORD_PEER`` is a Python in which
``pip install neuroHarmonize scikit-learn`` was done; without it those rows are left out, and it is said.

People are healthy (label HC) of the spine-generic multi-subject study. Left out first, because no cord has them: T1
above 3 s (and the MTsat of the same fit), MTsat at or below 0, MTR at or below 20 %. All methods get the same rows
(those with all features, of sites with two or more), features and covariates (age, sex).
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from qcord.normative.harmonise.combat import fit_combat
from qcord.normative.harmonise.effects import covariate_effects, effects
from qcord.normative.harmonise.harmoniser import apply
from qcord.normative.harmonise.leave_one_out import leave_one_site_out
from qcord.normative.harmonise.unseen import site_from_controls, site_from_manufacturer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from simulated_sites import simulate  # noqa: E402

DATA = Path(os.environ.get("QCORD_TEST_DATA", ROOT / ".." / "shared" / "data"))
FEATURES = ("DWI_FA", "DWI_MD", "DWI_RD", "MTR", "MTsat", "T1", "csa-GM_T2s", "csa-SC_T1w", "csa-SC_T2w", "csa-SC_T2s")
COVARIATES = ("age", "sex")
CONTROLS = 3
SEEDS = 40

PEER = """
import json, sys, warnings
import numpy as np, pandas as pd
warnings.simplefilter("ignore")
from neuroHarmonize import harmonizationApply, harmonizationLearn
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import balanced_accuracy_score
folder = sys.argv[1]
for job in json.load(open(folder + "/jobs.json")):
    train = pd.read_csv(f"{folder}/{job['train']}.csv")
    if job["kind"] == "forest":
        guess = np.empty(len(train), dtype=object)
        for fold in sorted(train["fold"].unique()):
            inside = train["fold"] != fold
            forest = RandomForestClassifier(500, class_weight="balanced", random_state=0, n_jobs=1)
            forest.fit(train.loc[inside, job["features"]], train.loc[inside, "manufacturer"])
            guess[~inside] = forest.predict(train.loc[~inside, job["features"]])
        json.dump(balanced_accuracy_score(train["manufacturer"], list(guess)), open(f"{folder}/{job['out']}.json", "w"))
        continue
    def covariates(table):
        return pd.DataFrame({"SITE": table[job["batch"]], "age": table["age"], "male": (table["sex"] == "M") * 1.0})
    model, done = harmonizationLearn(train[job["features"]].to_numpy(), covariates(train))
    if "test" in job:
        # its apply wants every site of the fit in the table
        test = pd.concat([train, pd.read_csv(f"{folder}/{job['test']}.csv")], ignore_index=True)
        new = harmonizationApply(test[job["features"]].to_numpy(), covariates(test), model)[len(train):]
        pd.DataFrame(new, columns=job["features"]).to_csv(f"{folder}/{job['out']}_test.csv", index=False)
    pd.DataFrame(done, columns=job["features"]).to_csv(f"{folder}/{job['out']}.csv", index=False)
"""


def people() -> pd.DataFrame:
    """Healthy people with all features and possible values."""
    table = pd.read_csv(DATA / "tables" / "spine_generic_qmri.csv").rename(columns={"institution_id": "site"})
    table = table[table["pathology"] == "HC"]
    failed = table["T1"] > 3
    table.loc[failed, ["T1", "MTsat"]] = np.nan
    table.loc[~(table["MTsat"] > 0), "MTsat"] = np.nan
    table.loc[~(table["MTR"] > 20), "MTR"] = np.nan
    table = table.dropna(subset=[*FEATURES, *COVARIATES])
    return table[table["site"].map(table["site"].value_counts()) >= 2].reset_index(drop=True)


class Peer:
    """Jobs for the other software, all run in one process."""

    def __init__(self) -> None:
        self.python = os.environ.get("QCORD_PEER", "")
        self.folder = Path(tempfile.mkdtemp())
        self.jobs: list[dict[str, object]] = []

    def harmonise(
        self, out: str, train: pd.DataFrame, features, batch="site", test: pd.DataFrame | None = None
    ) -> None:
        """Ask for a harmonised table, and for one of new people."""
        job = {"kind": "harmonise", "train": f"{out}_in", "out": out, "features": list(features), "batch": batch}
        train.to_csv(self.folder / f"{out}_in.csv", index=False)
        if test is not None:
            test.to_csv(self.folder / f"{out}_new.csv", index=False)
            job["test"] = f"{out}_new"
        self.jobs.append(job)

    def forest(self, out: str, table: pd.DataFrame) -> None:
        """Ask for the balanced accuracy of a random forest."""
        table.to_csv(self.folder / f"{out}_in.csv", index=False)
        self.jobs.append({"kind": "forest", "train": f"{out}_in", "out": out, "features": list(FEATURES)})

    def run(self) -> bool:
        """Do what was asked for; False where the software is not there."""
        if not self.python:
            return False
        (self.folder / "jobs.json").write_text(json.dumps(self.jobs))
        done = subprocess.run([self.python, "-c", PEER, str(self.folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"The other software failed: {done.stderr[-2000:]}")
        self.jobs = []
        return True

    def table(self, out: str, like: pd.DataFrame) -> pd.DataFrame:
        """A table with the values that came back."""
        values = pd.read_csv(self.folder / f"{out}.csv")
        return like.assign(**{c: values[c].to_numpy() for c in values})

    def number(self, out: str) -> float:
        """A number that came back."""
        return float(json.loads((self.folder / f"{out}.json").read_text()))


def folds(table: pd.DataFrame, count: int = 4) -> pd.DataFrame:
    """Folds of whole sites, so that a classifier must tell the manufacturer of a site that it has not seen."""
    sites = table[["manufacturer", "site"]].drop_duplicates().sort_values(["manufacturer", "site"])
    number = sites.groupby("manufacturer").cumcount() % count
    return table.assign(fold=table["site"].map(dict(zip(sites["site"], number, strict=True))))


def discriminant(table: pd.DataFrame) -> float:
    """Balanced accuracy of a linear discriminant that guesses the manufacturer of sites left out."""
    table = folds(table)
    x = table[list(FEATURES)].to_numpy()
    y = table["manufacturer"].to_numpy()
    names, guess = sorted(set(y)), np.empty(len(y), dtype=object)
    for fold in sorted(table["fold"].unique()):
        inside = (table["fold"] != fold).to_numpy()
        centre, scale = x[inside].mean(axis=0), x[inside].std(axis=0)
        z = (x - centre) / scale
        means = np.array([z[inside & (y == n)].mean(axis=0) for n in names])
        rest = z[inside] - means[[names.index(v) for v in y[inside]]]
        inverse = np.linalg.inv(rest.T @ rest / len(rest) + 0.05 * np.eye(z.shape[1]))
        distance = [np.einsum("ij,jk,ik->i", z - m, inverse, z - m) for m in means]
        guess[~inside] = np.array(names)[np.argmin(distance, axis=0)][~inside]
    return float(np.mean([np.mean(guess[y == n] == n) for n in names]))


def judge(others: pd.DataFrame, rest: pd.DataFrame, spread: np.ndarray) -> np.ndarray:
    """Mean distance of people from what the others lead to expect, over ``spread``, per feature."""
    design = [np.column_stack([np.ones(len(t)), t["age"], t["sex"] == "M"]).astype(float) for t in (others, rest)]
    coefficients = np.linalg.lstsq(design[0], others[list(FEATURES)].to_numpy(), rcond=None)[0]
    return (rest[list(FEATURES)].to_numpy() - design[1] @ coefficients).mean(axis=0) / spread


def left_out(table: pd.DataFrame, peer: Peer) -> dict[str, np.ndarray]:
    """Bias of sites that took no part, (site, feature), by method."""
    sites = [s for s, n in table["site"].value_counts().sort_index().items() if n >= CONTROLS + 2]
    for s in sites:
        own, others = table[table["site"] == s], table[table["site"] != s]
        peer.harmonise(f"c_{s}", pd.concat([others, own[:CONTROLS]]), FEATURES, test=own[CONTROLS:])
        peer.harmonise(f"m_{s}", others, FEATURES, "manufacturer", test=own[CONTROLS:])
    there = peer.run()
    found: dict[str, list[np.ndarray]] = {}
    for s in sites:
        own, others = table[table["site"] == s], table[table["site"] != s]
        rest = own[CONTROLS:]
        fit = fit_combat(others, features=FEATURES, manufacturer="manufacturer", covariates=COVARIATES)
        base = apply(fit, others)
        spread = fit.sigma  # one yardstick for all methods: people within sites
        by_maker = site_from_manufacturer(fit, s, own["manufacturer"].iloc[0])
        by_controls = site_from_controls(fit, own[:CONTROLS])
        found.setdefault("raw", []).append(judge(others, rest, spread))
        found.setdefault("qcord, manufacturer alone", []).append(judge(base, apply(by_maker, rest), spread))
        found.setdefault("qcord, 3 controls", []).append(judge(base, apply(by_controls, rest), spread))
        if there:
            with_own = peer.table(f"c_{s}", pd.concat([others, own[:CONTROLS]]))[: len(others)]
            new = peer.table(f"c_{s}_test", rest)
            found.setdefault("neuroHarmonize, 3 controls", []).append(judge(with_own, new, spread))
            pair = peer.table(f"m_{s}", others), peer.table(f"m_{s}_test", rest)
            found.setdefault("neuroHarmonize, manufacturer alone", []).append(judge(*pair, spread))
    print(f"(chance alone, by the {CONTROLS} controls and the few people judged, is not taken off)")
    return {k: np.array(v) for k, v in found.items()}


def summary(after: pd.DataFrame, raw_effects: pd.DataFrame) -> dict[str, float]:
    """One row of the table."""
    share = effects(after, FEATURES, ("manufacturer", "site"), COVARIATES).set_index(["group", "feature"])
    maker, site = share.loc["manufacturer"], share.loc["site"]
    kept = covariate_effects(after, FEATURES, COVARIATES)
    change = (kept["effect"] - raw_effects["effect"]).abs() / raw_effects["se"]
    return {
        "MTsat": maker.loc["MTsat", "eta_squared"],
        "MD": maker.loc["DWI_MD", "eta_squared"],
        "worst": maker["eta_squared"].max(),
        "site eta2": site["eta_squared"].median(),
        "site omega2": site["omega_squared"].median(),
        "age, sex: largest change / se": change.max(),
        "discriminant": discriminant(after),
    }


def on_people() -> None:
    table, peer = people(), Peer()
    n, k = len(table), table["site"].nunique()
    print(f"{n} healthy people, {k} sites, {table['manufacturer'].value_counts().to_dict()}")
    common = {"features": FEATURES, "covariates": COVARIATES}
    done = {
        "raw": table,
        "qcord": apply(fit_combat(table, manufacturer="manufacturer", **common), table),
        "qcord, no manufacturers": apply(fit_combat(table, **common), table),
        "qcord, by features (Johnson)": apply(fit_combat(table, shrinkage="features", **common), table),
    }
    peer.harmonise("all", table, FEATURES)
    peer.harmonise("makers", table, FEATURES, "manufacturer")
    there = peer.run()
    if there:
        done["neuroHarmonize, site"] = peer.table("all", table)
        done["neuroHarmonize, manufacturer"] = peer.table("makers", table)
        same = done["qcord, by features (Johnson)"][list(FEATURES)] - done["neuroHarmonize, site"][list(FEATURES)]
        distance = float((same.abs() / table[list(FEATURES)].std()).to_numpy().max())
        print(f"ComBat by features: qcord and neuroHarmonize differ by at most {distance:.0e} spreads")
        for i, harmonised in enumerate(done.values()):
            peer.forest(f"forest{i}", folds(harmonised))
        peer.run()
    else:
        print("QCORD_PEER is not set: neuroHarmonize and the random forest are left out.")
    raw_effects = covariate_effects(table, FEATURES, COVARIATES, batch="site")
    rows = {name: summary(harmonised, raw_effects) for name, harmonised in done.items()}
    if there:
        for i, row in enumerate(rows.values()):
            row["forest"] = peer.number(f"forest{i}")
    chance = (k - 1) / (n - 1)
    print("MTsat, MD, worst: eta squared of the manufacturer; site: median over features. Sites that are alike")
    print(f"have eta squared {chance:.2f}, omega squared 0. Discriminant, forest: balanced accuracy in telling the")
    print("manufacturer of sites left out; chance .33.")
    print(pd.DataFrame(rows).T.round(3).to_string())
    print("\nSites left out: bias in spreads between people")
    for name, values in left_out(table, peer).items():
        each = np.sqrt(np.mean(np.square(values), axis=0))
        some = ", ".join(f"{f} {each[FEATURES.index(f)]:.2f}" for f in ("DWI_FA", "DWI_MD", "MTR", "MTsat"))
        print(f"  {name:36s} {np.sqrt(np.mean(np.square(values))):.2f} ({some})")
    found = leave_one_site_out(table, features=FEATURES, manufacturer="manufacturer", covariates=COVARIATES)
    inside = (found["bias"].abs() < 1.96 * found["bias_se"]).groupby(found["method"]).mean()
    print("  share within the 95 % interval stated:", inside[["manufacturer", "controls"]].round(3).to_dict())


def on_simulated() -> None:
    peer = Peer()
    truths = [simulate(seed) for seed in range(SEEDS)]
    for i, truth in enumerate(truths):
        kept = truth.table[truth.table["site"].map(truth.table["site"].value_counts()) >= 2]
        peer.harmonise(f"s{i}", kept, truth.features)
    there = peer.run()
    parts: dict[str, list[np.ndarray]] = {}
    errors: dict[str, list[np.ndarray]] = {}
    for i, truth in enumerate(truths):
        table, features = truth.table, truth.features
        fit = fit_combat(table, features=features, manufacturer="manufacturer", covariates=COVARIATES)
        weight = fit.counts / fit.counts.sum(axis=0)
        shift, log_scale = (weight * truth.shift).sum(axis=0), (weight * truth.log_scale).sum(axis=0)
        spread = np.exp(log_scale)
        own = (truth.shift - shift) / spread
        parts.setdefault("shift of sites", []).append((fit.shift - own * spread / fit.sigma) / fit.shift_se)
        parts.setdefault("log scale of sites", []).append(
            (fit.log_scale - truth.log_scale + log_scale) / fit.log_scale_se
        )
        slopes = fit.slopes / fit.design.scales[:, None]
        slopes_se = np.sqrt(np.einsum("iig->ig", fit.slopes_variance)) / fit.design.scales[:, None]
        parts.setdefault("effect of age", []).append((slopes[0] - 0.02) / slopes_se[0])
        parts.setdefault("effect of sex", []).append((slopes[1] - 0.5) / slopes_se[1])
        done = apply(fit, table)
        mean = (10 + 0.02 * table["age"] + 0.5 * (table["sex"] == "M")).to_numpy()[:, None]
        target = mean + shift + spread * (truth.ideal.to_numpy() - mean)
        wrong = done[features].to_numpy() - target
        parts.setdefault("harmonised values", []).append(wrong / done[[f"{f}_se_shift" for f in features]].to_numpy())
        errors.setdefault("raw", []).append((table[features].to_numpy() - target) ** 2)
        errors.setdefault("qcord", []).append(wrong**2)
        if there:
            theirs = peer.table(f"s{i}", table)[features].to_numpy()
            errors.setdefault("neuroHarmonize", []).append((theirs - target) ** 2)
        left = leave_one_site_out(table, features=features, manufacturer="manufacturer", covariates=COVARIATES)
        for method in ("manufacturer", "controls"):
            row = left[left["method"] == method]
            parts.setdefault(f"left-out site, {method}", []).append((row["bias"] / row["bias_se"]).to_numpy())
    print(f"\nSimulated: {SEEDS} tables, 23 sites of 2-6 people, 3 manufacturers, 6 features")
    for name, z in parts.items():
        joined = np.concatenate([np.ravel(p) for p in z])
        print(f"  {name:28s} error / se {joined.mean():6.2f}, within 95 % {100 * np.mean(np.abs(joined) < 1.96):.1f} %")
    print("  error of harmonised values, in spreads between people:")
    for name, squares in errors.items():
        print(f"    {name:28s} {np.sqrt(np.mean(np.concatenate([np.ravel(s) for s in squares]))):.3f}")


def main() -> None:
    wanted = sys.argv[1:] or ["people", "simulated"]
    if "people" in wanted:
        on_people()
    if "simulated" in wanted:
        on_simulated()


if __name__ == "__main__":
    main()
