"""Simulated hospitals: values of healthy people with effects of age, sex, site and manufacturer."""

import numpy as np
import pandas as pd

MAKERS = ("Siemens", "GE", "Philips")
CELLS = (
    ("FA", "white matter", "C2:C5", "1", 0.69, 0.04),
    ("MD", "white matter", "C2:C5", "mm2/s", 0.95e-3, 0.07e-3),
    ("area T2w", "spinal cord", "C2:C3", "mm2", 74.0, 7.0),
)


def hospital(site, n, *, seed, manufacturer="Siemens", cells=CELLS, ages=(20, 75)):
    """Observations of n people, half of them men, ages in whole years."""
    g = np.random.default_rng(seed)
    age = np.floor(g.uniform(*ages, n))
    male = np.arange(n) % 2
    place = np.random.default_rng(abs(hash_of(site))).standard_normal(len(cells))
    maker = MAKERS.index(manufacturer) - 1
    parts = []
    for k, (metric, region, level, unit, mean, spread) in enumerate(cells):
        z = 0.3 * (male - 0.5) - 0.2 * (age - 50) / 20 + 0.5 * place[k] + 0.4 * maker + g.standard_normal(n)
        parts.append(
            pd.DataFrame(
                {
                    "participant_id": [f"{site}-{i:03d}" for i in range(n)],
                    "site": site,
                    "manufacturer": manufacturer,
                    "metric": metric,
                    "unit": unit,
                    "region": region,
                    "level": level,
                    "value": mean + spread * z,
                    "quality": "ok",
                    "pathology": "HC",
                    "age": age,
                    "sex": np.where(male == 1, "M", "F"),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def hospitals(sizes=(20, 24, 28, 33, 40, 45, 52, 60), seed=0, **more):
    """Observations of each of several sites, three manufacturers in turn."""
    return [hospital(f"site{k}", n, seed=[seed, k], manufacturer=MAKERS[k % 3], **more) for k, n in enumerate(sizes)]


def hash_of(text):
    """Number of a text, the same in every process."""
    return sum((k + 1) * ord(c) for k, c in enumerate(text))
