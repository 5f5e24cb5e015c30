"""Least standard deviation of an unbiased estimate by the second Bhattacharyya bound, over the Cramer-Rao bound.

Run ``python benchmarks/second_order_bound.py [model ...]``. Where the signal bends much over one standard error, no
unbiased estimator reaches the Cramer-Rao bound, and a spread above it is no fault of the fit. Gaussian noise, example
protocol and first tissue, as in ``benchmarks/bounds.py`` (Bhattacharyya 1946, Sankhya 8:1-14).
"""

import sys
from collections.abc import Callable

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.core.model import SignalModel
from qcord.core.noise import Gaussian
from qcord.estimate.bound import crlb
from qcord.estimate.simulate import simulate
from qcord.models.registry import get

STEP = 0.02  # of a standard error


def main() -> None:
    for name in sys.argv[1:] or ("qmt", "myelin-water-csf", "smt", "ivim"):
        for snr in (20.0, 50.0, 100.0):
            found = second_order_bound(get(name), snr)
            print(f"{name} {snr:g}: " + ", ".join(f"{value} {bound:.3f}" for value, bound in found.items()))


def second_order_bound(model: SignalModel, snr: float) -> dict[str, float]:
    """Bound of each value, in units of its Cramer-Rao bound."""
    assert model.example is not None
    protocol, theta = model.example(), model.theta(model.typical[0].values)
    sigma = float(np.abs(simulate(model, theta, protocol)).max()) / snr
    covariance = crlb(model, theta, protocol, Gaussian(sigma))
    scale = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    axes = (scale[:, None] * vectors * np.sqrt(values)).T  # one standard error each, independent

    def signal(x: FloatArray) -> FloatArray:
        return np.asarray(simulate(model, x, protocol)) / sigma

    first, second = slopes(signal, theta, axes)
    along = np.einsum("ijn,kn->ijk", second, first)
    across = second - np.einsum("ijk,kn->ijn", along, first)
    i, j = np.tril_indices(len(theta))
    eye = np.eye(len(theta))
    # covariance of the second scores less what the first explain
    scores = eye[np.ix_(i, i)] * eye[np.ix_(j, j)] + eye[np.ix_(i, j)] * eye[np.ix_(j, i)]
    scores += np.einsum("pn,qn->pq", across[i, j], across[i, j])
    wanted: dict[str, Callable[[FloatArray], FloatArray]] = {p.name: component(k) for k, p in enumerate(model.free)}
    wanted |= {d.name: d.formula for d in model.derived}
    found = {}
    for name, function in wanted.items():
        slope, bend = slopes(function, theta, axes)
        rest = (bend - np.einsum("ijk,k->ij", along, slope))[i, j]
        found[name] = float(np.sqrt(1 + rest @ np.linalg.solve(scores, rest) / (slope @ slope)))
    return found


def component(k: int) -> Callable[[FloatArray], FloatArray]:
    return lambda theta: np.asarray(theta)[..., k]


def slopes(
    function: Callable[[FloatArray], FloatArray], theta: FloatArray, axes: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """First (k, ...) and second (k, k, ...) derivatives along the axes."""

    def f(x: FloatArray) -> FloatArray:
        return np.asarray(function(x), dtype=float)

    steps = STEP * axes
    first = np.stack([(f(theta + s) - f(theta - s)) / (2 * STEP) for s in steps])
    second = [[f(theta + a + b) - f(theta + a - b) - f(theta - a + b) + f(theta - a - b) for b in steps] for a in steps]
    return first, np.asarray(second) / (4 * STEP**2)


if __name__ == "__main__":
    main()
