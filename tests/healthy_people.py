"""Simulated healthy people at sites of manufacturers, with known effects."""

import numpy as np
import pandas as pd


def people(
    n_sites: int = 20,
    per_site: int = 8,
    *,
    seed: int = 1,
    male: float = 4.0,
    slope: float = -0.1,
    within: float = 6.0,
    site: float = 3.0,
    manufacturer: float = 5.0,
    error: float = 0.0,
    makers: int = 3,
    ages: tuple[float, float] = (18.0, 90.0),
    departure: "np.ndarray | None" = None,
) -> pd.DataFrame:
    """Areas [mm2] of the cord: 70, less .1 a year, 4 more for men."""
    generator = np.random.default_rng(seed)
    n = n_sites * per_site
    where = np.repeat(np.arange(n_sites), per_site)
    maker = where % makers
    age = generator.uniform(*ages, n)
    man = generator.integers(0, 2, n)
    own = generator.normal(size=n) if departure is None else departure
    se = np.full(n, error) * generator.uniform(0.5, 1.5, n)
    value = 70 + male * (man - 0.5) + slope * (age - 50) + within * own
    value += site * generator.normal(size=n_sites)[where] + manufacturer * generator.normal(size=makers)[maker]
    return pd.DataFrame(
        {
            "participant_id": [f"p{k}" for k in range(n)],
            "site": [f"s{k:03d}" for k in where],
            "manufacturer": [f"m{k}" for k in maker],
            "metric": "area T2w",
            "unit": "mm2",
            "region": "spinal cord",
            "level": "C3",
            "value": value + se * generator.normal(size=n),
            "se": se,
            "age": age,
            "sex": np.where(man == 1, "M", "F"),
            "pathology": "HC",
        }
    )
