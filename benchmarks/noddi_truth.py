"""Which truth gives the errors published of AMICO: the ranges were not stated with them.

Run ``python benchmarks/noddi_truth.py`` in an environment that also holds ``dmri-amico``. AMICO is fitted once to
210,000 simulated voxels; its 24 figures (bias, root mean square and mean absolute error, correlation; of all voxels and
of those whose ISOVF is below .3) follow for any distribution of the truth by weighting them. Tried are products of
uniform distributions of ICVF and ODI with one of ISOVF: uniform, uniform with a share of voxels free of water, and
beta. Printed are the nearest, by the squared differences from the published figures in units of TOLERANCE. The fit of
qcord plays no part in the choice; its errors stand in the last columns.
"""

import itertools
import os
import tempfile

import numpy as np
import pandas as pd
from scipy.stats import beta

from noddi import NAMES, RANGES, S0, flat, scan, truths
from noddi_amico import PUBLISHED, fit_amico
from qcord.core.arrays import BoolArray, FloatArray
from qcord.core.noise import Rician
from qcord.maps.fit import fit

SPREAD, FREE = 150_000, 60_000  # voxels of any water fraction, and without any
HIGHEST = 0.8
TOLERANCE = np.array([0.002, 0.001, 0.002, 0.001])


def main() -> None:
    os.chdir(tempfile.mkdtemp())
    RANGES["any"] = ((0.05, 0.99), (0.02, 0.99), (0.0, HIGHEST))
    theta = truths(SPREAD + FREE, "any", 11)
    theta[SPREAD:, 3] = 0
    series = scan(theta, 30, 12)
    theirs = fit_amico(series, (100, 70, 30), "any", first=True)[0]
    result = fit("noddi", series, noise=Rician(S0 / 30))
    ours = np.stack([flat(result[name]) for name in NAMES], axis=1)
    truth = theta[:, 1:4]
    low = truth[:, 2] < 0.3
    rows = []
    icvf = itertools.product((0.05, 0.1, 0.2, 0.3, 0.4), (0.8, 0.9, 0.99))
    odi = itertools.product((0.02, 0.05, 0.1), (0.4, 0.5, 0.6, 0.7, 0.8, 0.9))
    boxes = [(a, b, (within(truth, 0, a) & within(truth, 1, b))) for a, b in itertools.product(icvf, odi)]
    for what, weight in waters(truth[:, 2]).items():
        for first, second, inside in boxes:
            chosen = inside & (weight > 0)
            far = distance(figures(theirs, truth, weight, chosen), "all")
            if far < 400:
                far += distance(figures(theirs, truth, weight, chosen & low), "ISOVF < .3")
                errors = figures(ours, truth, weight, chosen)[:, 1]
                rows.append(
                    {"ISOVF": what, "ICVF": first, "ODI": second, "distance": far}
                    | {f"qcord {name}": error for name, error in zip(NAMES, errors, strict=True)}
                )
    print(pd.DataFrame(rows).sort_values("distance").head(10).round(4).to_string(index=False))


def within(truth: FloatArray, column: int, ends: tuple[float, float]) -> BoolArray:
    return (truth[:, column] > ends[0]) & (truth[:, column] < ends[1])


def waters(isovf: FloatArray) -> dict[str, FloatArray]:
    """Weights (v,) that turn the simulated ISOVF into each distribution of the candidates."""
    free = isovf == 0
    found = {}
    for share, high in itertools.product((0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6), (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)):
        density = (isovf < high) / high
        found[f"{share} free, to {high}"] = np.where(free, share / FREE, (1 - share) * density * HIGHEST / SPREAD)
    for a, b in itertools.product((0.3, 0.5, 0.7, 1), (1, 1.5, 2, 3, 4, 5, 6)):
        density = beta.pdf(np.maximum(isovf, 0.002), a, b)
        found[f"beta {a}, {b}"] = np.where(free, beta.cdf(0.002, a, b) / FREE, density * HIGHEST / SPREAD)
    return found


def figures(estimate: FloatArray, truth: FloatArray, weight: FloatArray, chosen: BoolArray) -> FloatArray:
    """Bias, root mean square error, correlation and mean absolute error (3, 4) of weighted voxels."""
    share = weight[chosen] / weight[chosen].sum()
    x, t = estimate[chosen], truth[chosen]
    error = x - t
    dx, dt = x - share @ x, t - share @ t
    r = share @ (dx * dt) / np.sqrt((share @ dx**2) * (share @ dt**2))
    return np.stack([share @ error, np.sqrt(share @ error**2), r, share @ np.abs(error)], axis=1)


def distance(found: FloatArray, which: str) -> float:
    return float((((found - np.array(PUBLISHED[which])) / TOLERANCE) ** 2).sum())


if __name__ == "__main__":
    pd.set_option("display.width", 200)
    main()
