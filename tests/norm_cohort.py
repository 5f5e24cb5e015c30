"""Simulated observations."""

import numpy as np
import pandas as pd


def cohort(n=40, metric="FA", unit="1", mean=0.69, sd=0.04, seed=1, site="here", **more):
    """One value a person of one cell; person i has the id p<i>."""
    rng = np.random.default_rng(seed)
    columns = {
        "participant_id": [f"p{i:03d}" for i in range(n)],
        "site": site,
        "manufacturer": "Siemens",
        "software": "qcord 0.1.0",
        "metric": metric,
        "unit": unit,
        "region": "white matter",
        "level": "C3",
        "value": rng.normal(mean, sd, n),
        "se": sd / 4,
        "quality": "ok",
        "pathology": "HC",
        "age": np.round(rng.uniform(19, 70, n), 1),
        "sex": np.where(rng.random(n) < 0.5, "F", "M"),
        "height": np.round(rng.normal(1.7, 0.08, n), 2),
        "weight": np.round(rng.normal(68, 9, n)),
    }
    return pd.DataFrame({**columns, **more})
