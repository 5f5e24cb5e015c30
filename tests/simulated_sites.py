"""Tables of people at sites with known shifts, scales and covariate effects."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

MAKERS = {"Alpha": 5, "Beta": 6, "Gamma": 12}


@dataclass(frozen=True)
class Truth:
    """What a table was made from; everything in units of the feature."""

    table: pd.DataFrame
    features: list
    sites: list
    shift: np.ndarray  # (k, g) of each site
    log_scale: np.ndarray  # (k, g)
    slopes: dict
    ideal: pd.DataFrame  # values on a site of shift 0 and scale 1


def simulate(seed, *, n_features=6, fewest=2, most=7, between=0.6, maker=2.0, log_scale=0.15, errors=False):
    """Sites of ``fewest`` to ``most`` - 1 people in three makes; spread between people 1, age .02 per year, male .5."""
    rng = np.random.default_rng(seed)
    features = [f"f{i}" for i in range(n_features)]
    rows, shifts, scales, sites = [], [], [], []
    for name, count in MAKERS.items():
        centre = maker * rng.standard_normal(n_features)
        centre_scale = log_scale * rng.standard_normal(n_features)
        for i in range(count):
            site = f"{name}{i:02d}"
            sites.append(site)
            shifts.append(centre + between * rng.standard_normal(n_features))
            scales.append(centre_scale + log_scale * rng.standard_normal(n_features))
            young = rng.uniform(20, 45)
            rows += [
                {"site": site, "manufacturer": name, "age": young + 15 * rng.random(), "sex": "MF"[rng.integers(2)]}
                for _ in range(rng.integers(fewest, most))
            ]
    table = pd.DataFrame(rows)
    table.insert(0, "participant_id", [f"p{i:03d}" for i in range(len(table))])
    place = table["site"].map({s: i for i, s in enumerate(sites)}).to_numpy()
    shift, scale = np.array(shifts), np.array(scales)
    mean = 10 + 0.02 * table["age"].to_numpy() + 0.5 * (table["sex"] == "M").to_numpy()
    person = rng.standard_normal((len(table), n_features))
    ideal = pd.DataFrame(mean[:, None] + person, columns=features, index=table.index)
    values = mean[:, None] + shift[place] + np.exp(scale[place]) * person
    if errors:
        se = rng.uniform(0.2, 0.9, size=values.shape)
        values = values + se * rng.standard_normal(values.shape)
        table = table.assign(**{f"{f}_se": se[:, g] for g, f in enumerate(features)})
    table = table.assign(**{f: values[:, g] for g, f in enumerate(features)})
    return Truth(table, features, sites, shift, scale, {"age": 0.02, "sex M": 0.5}, ideal)


def error_columns(truth):
    """Standard-error column of each feature."""
    return {f: f"{f}_se" for f in truth.features}
