"""Shifts of new sites from a few controls, of which none or one lies far away, or all do.

Run ``python benchmarks/norm_far_controls.py`` or with a number of norms (40), each of 24 sites of 8 people, to which 8
new sites are adapted. In truth sites spread by .4 or by once the spread of people, and people are normal, or of heavy
tails. For each number of controls: root mean square of the error of the shift, its mean towards the far control, the
stated error, what the error is over the stated one (root mean square), and z of other people of the site. Unit is the
spread of people; ``named`` is the percentage of far controls, and of others, that the card names.
"""

import sys
from typing import NamedTuple

import numpy as np
import pandas as pd

from qcord.normative.adapt import adapt_norm
from qcord.normative.fit import fit_norm
from qcord.normative.norm import Norm
from qcord.normative.predict import predict
from qcord.normative.score import score
from qcord.normative.statistics import rows
from qcord.normative.terms import Terms

SITES = (0.4, 1.0)
CONTROLS = (3, 5, 10, 20)
FAR = ((0.0, 0), (4.0, 1), (6.0, 1), (10.0, 1))
NEW, OTHERS = 8, 20
STRAIGHT = Terms(knots=())


class Case(NamedTuple):
    """What is simulated: spread of sites, tails, and how many of the controls lie how far."""

    sites: float
    heavy: bool
    controls: int
    far: float
    many: int


def main(repeats: int) -> None:
    for sites, heavy in [(s, False) for s in SITES] + [(SITES[0], True)]:
        norms = [norm_of(seed, sites, heavy) for seed in range(repeats)]
        lines = {}
        for controls in CONTROLS:
            for far, many in (*FAR, *([(6.0, 2), (6.0, 3)] if controls == CONTROLS[0] else [])):
                case = Case(sites, heavy, controls, far, many)
                lines[case] = line([one(case, norm, k) for k, norm in enumerate(norms)])
        print(pd.DataFrame(lines).T.rename_axis(Case._fields).round(3).to_string(), flush=True)


def departures(rng: np.random.Generator, n: int, heavy: bool) -> "np.ndarray":
    return rng.standard_t(3, n) / np.sqrt(3) if heavy else rng.standard_normal(n)


def people(rng: np.random.Generator, n: int, site: str, maker: str, value: "np.ndarray") -> pd.DataFrame:
    ages, sexes = rng.uniform(20, 60, n), np.array(["F", "M"])[rng.integers(0, 2, n)]
    return pd.DataFrame({"site": site, "manufacturer": maker, "age": ages, "sex": sexes, "value": value})


def norm_of(seed: int, sites: float, heavy: bool) -> Norm:
    rng = np.random.default_rng((seed, heavy))
    shifts = sites * rng.standard_normal(24)
    table = [people(rng, 8, f"s{k}", "AB"[k % 2], u + departures(rng, 8, heavy)) for k, u in enumerate(shifts)]
    return fit_norm(pd.concat(table), STRAIGHT)


def one(case: Case, norm: Norm, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng((seed, case.controls, round(case.far), case.many, case.heavy))
    found = []
    for k in range(NEW):
        maker, shift, side = "AB"[k % 2], case.sites * rng.standard_normal(), rng.choice([-1, 1])
        value = shift + departures(rng, case.controls, case.heavy)
        value[: case.many] += side * case.far
        controls = people(rng, case.controls, "new", maker, value)
        controls["participant_id"] = np.arange(case.controls)
        adapted = adapt_norm(norm, controls, site="new")
        others = people(rng, OTHERS, "new", maker, shift + departures(rng, OTHERS, case.heavy))
        middle = rows(people(rng, 1, "new", maker, np.zeros(1)).assign(age=40.0), STRAIGHT)
        p = predict(
            adapted,
            middle.design,
            middle.age,
            site=["new"],
            manufacturer=middle.manufacturer,
            variance=middle.variance,
        )
        h = norm.hierarchy
        error = float(p.mean[0]) * h.spread + h.centre - shift
        named = [int(who) for who in adapted.card.get("far controls", {}).get("new", {})]
        z = score(adapted, others)["z"].to_numpy()
        row = {
            "error": error * side,
            "stated": float(p.unsure[0]) * h.spread,
            "far": sum(k < case.many for k in named) / max(case.many, 1),
            "near": sum(k >= case.many for k in named) / max(case.controls - case.many, 1),
        }
        found.append(pd.DataFrame({**row, "z": z}))
    return pd.concat(found)


def line(parts: list[pd.DataFrame]) -> "pd.Series[float]":
    all_ = pd.concat(parts)
    error, z = all_["error"], all_["z"]
    return pd.Series(
        {
            "error": np.sqrt((error**2).mean()),
            "mean": error.mean(),
            "stated": np.sqrt((all_["stated"] ** 2).mean()),
            "over stated": np.sqrt(((error / all_["stated"]) ** 2).mean()),
            "mean z": z.mean(),
            "SD of z": z.std(),
            "outer 5 %": 100 * (z.abs() > 1.96).mean(),
            "named far": 100 * all_["far"].mean(),
            "named near": 100 * all_["near"].mean(),
        }
    )


if __name__ == "__main__":
    pd.set_option("display.width", 220, "display.max_rows", 500)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
