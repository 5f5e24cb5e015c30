"""Norms with and without a spread of studies, for people of simulated studies that the norm has not seen.

Run ``python benchmarks/norm_studies.py`` or with a number of repeats (20). In truth sites spread by .4 of the spread of
people, studies by none to .8. Judged are (a) people of unseen studies, (b) the same after adapting to three people of
each site, and people of unseen sites of known studies. For each: the root mean square of z, how many of 100 lie within
the middle 95, and what the negative log score gains by studies, each with a standard error over repeats.
"""

import sys
import warnings

import numpy as np
import pandas as pd

from norm_calibration import judged
from qcord.core.errors import ExtrapolationWarning
from qcord.normative.adapt import adapt_norm
from qcord.normative.fit import fit_norm
from qcord.normative.terms import Terms

LAYOUTS = {
    "one large study of 31 sites, five small": ((31, 3, 3, 1, 1, 1), "A"),
    "3 studies of 6 sites": ((6,) * 3, "A"),
    "8 studies of 4 sites": ((4,) * 8, "A"),
    "20 studies of 2 sites": ((2,) * 20, "A"),
    "6 studies, 3 manufacturers": ((12, 6, 6, 4, 2, 2), "ABC"),
}
SITES = 0.4
STUDIES = (0.0, 0.2, 0.4, 0.8)
STRAIGHT = Terms(knots=())
CONTROLS = 3


def main(repeats: int) -> None:
    for what, (sizes, makers) in LAYOUTS.items():
        print(f"\n{what}")
        lines = {}
        for spread in STUDIES:
            found = pd.concat([compared(made_up(s, sizes, makers, spread)).assign(repeat=s) for s in range(repeats)])
            lines |= {(spread, str(case)): line(part) for case, part in found.groupby("case")}
        frame = pd.DataFrame(lines).T.rename_axis(["studies", "people"])
        print(frame.round(3).to_string(), flush=True)


def made_up(seed: int, sizes: tuple[int, ...], makers: str, spread: float) -> pd.DataFrame:
    """People of studies; of each study one site, and six more studies, are not for the norm."""
    rng = np.random.default_rng(seed)
    of_maker = {m: 0.7 * rng.standard_normal() for m in makers}
    rows = []

    def people(study: str, shift: float, site: str, count: int, kind: str) -> None:
        maker = makers[rng.integers(len(makers))]
        middle = of_maker[maker] + shift + SITES * rng.standard_normal()
        for k in range(count):
            person = (f"{site} {k}", rng.uniform(20, 60), "MF"[rng.integers(2)], 50 + 5 * (middle + rng.normal()))
            rows.append((study, site, maker, kind, *person))

    for k, size in enumerate(sizes):
        shift = spread * rng.standard_normal()
        for j in range(size):
            people(f"S{k}", shift, f"S{k}.{j}", int(rng.integers(5, 13)) if size > 1 else 60, "norm")
        people(f"S{k}", shift, f"S{k}.new", 8, "known")
    for k in range(6):
        shift = spread * rng.standard_normal()
        for j in range(2):
            people(f"N{k}", shift, f"N{k}.{j}", 8 + CONTROLS, "new")
    columns = ["study", "site", "manufacturer", "kind", "participant_id", "age", "sex", "value"]
    return pd.DataFrame(rows, columns=columns)


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """Scores by the norm with studies and that without."""
    found = []
    for name, people in (("without", table.drop(columns="study")), ("with", table)):
        norm = fit_norm(people[people["kind"] == "norm"], STRAIGHT)
        new = people[people["kind"] == "new"]
        controls = new.groupby("site").cumcount() < CONTROLS
        adapted = norm
        for site, few in new[controls].groupby("site"):
            adapted = adapt_norm(adapted, few, site=str(site))
        cases = {"new a": (norm, new), "new b": (adapted, new[~controls])}
        cases["known study"] = (norm, people[people["kind"] == "known"])
        for case, (used, rows) in cases.items():
            who = rows.assign(once=1.0)
            found.append(judged(used, who, case, (who, who), who["once"]).assign(case=case, norm=name))
    return pd.concat(found)


def line(part: pd.DataFrame) -> "pd.Series[float]":
    """Means over repeats, those of the norm without studies first, and their standard errors."""
    part = part.assign(square=part["z"] ** 2, inside=100.0 * (part["z"].abs() < 1.96))
    means = part.groupby(["norm", "repeat"])[["square", "inside", "log score"]].mean()
    result = {}
    for name, own in means.groupby("norm", sort=False):
        error = own.std(ddof=1) / np.sqrt(len(own))
        rms = np.sqrt(own["square"].mean())
        result |= {f"RMS z {name}": rms, f"+- {name}": error["square"] / 2 / rms}
        result |= {f"of 100 {name}": own["inside"].mean(), f"+-  {name}": error["inside"]}
    gain = means.loc["without", "log score"] - means.loc["with", "log score"]
    result |= {"gain in log score": gain.mean(), "+-": gain.std(ddof=1) / np.sqrt(len(gain))}
    return pd.Series(result)


if __name__ == "__main__":
    pd.set_option("display.width", 200, "display.max_rows", 500)
    warnings.simplefilter("ignore", ExtrapolationWarning)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
