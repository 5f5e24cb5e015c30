"""Least standard deviation of an unbiased estimate, over the Cramer-Rao bound; and estimates that cannot be unbiased.

Run ``python benchmarks/least_spread.py [bounds] [follows] [limit]``. Example protocol and first tissue throughout, as
in ``benchmarks/bounds.py``, whose rows this explains.

- bounds: where signals bend much over one standard error, no unbiased estimator reaches the Cramer-Rao bound, and a
  spread above it is no fault of the fit. Two bounds that are at least as tight, for Gaussian noise: the second one of
  Bhattacharyya (1946, Sankhya 8:1-14), and Barankin's (1949, doi:10.1214/aoms/1177729943) for estimators that are
  unbiased at the truth, in its slopes, and at values of each parameter up to three standard errors away with the others
  refitted. Both hold for any weights of the conditions, so what rounding forbids only loosens them.
- follows: where a spread lies below the Cramer-Rao bound the estimator is not unbiased, however small its error at this
  truth. How much of a step of one standard error, along the direction that the bound is for, does the expected
  estimate follow? An unbiased one follows all of it.
- limit: a value whose truth lies within about a standard error of the end of its range can be missed on one side only:
  intervals that miss 2.5 % on either side elsewhere cover 97.5 % there. Coverage of the efficiency of refocusing pulses
  by its truth; the end of the range is 1.
"""

import sys
from collections.abc import Callable

import numpy as np
from scipy.optimize import least_squares

from qcord.core.arrays import FloatArray
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.model import SignalModel
from qcord.core.noise import Gaussian, Rician
from qcord.core.series import Series
from qcord.estimate.bound import crlb
from qcord.estimate.jacobian import complex_step, jacobian
from qcord.estimate.simulate import simulate
from qcord.maps.fit import fit
from qcord.models.registry import get

STEP = 0.02  # of a standard error
REACH, POINTS = 3.0, 24  # standard errors to either side, points on each side
KEPT = 1e-9  # eigenvalues of the normalised covariance of the conditions, below which rounding rules
SHAPE = (200, 10, 10)


def main() -> None:
    jobs = {"bounds": bounds, "follows": follows, "limit": limit}
    wanted = sys.argv[1:] or list(jobs)
    for name, job in jobs.items():
        if name in wanted:
            print(f"\n{name}")
            job()


def bounds() -> None:
    for name in ("qmt", "myelin-water-csf"):
        for snr in (50.0, 100.0):
            model = get(name)
            found, tight = second_order_bound(model, snr), barankin_bound(model, snr)
            print(f"{name} {snr:g}: " + ", ".join(f"{k} {found[k]:.3f} {tight[k]:.3f}" for k in found))


def setting(model: SignalModel, snr: float) -> tuple[FloatArray, float]:
    """True parameters and standard deviation of the noise."""
    assert model.example is not None
    theta = model.theta(model.typical[0].values)
    return theta, float(np.abs(simulate(model, theta, model.example())).max()) / snr


def values_of(model: SignalModel) -> dict[str, Callable[[FloatArray], FloatArray]]:
    wanted: dict[str, Callable[[FloatArray], FloatArray]] = {p.name: component(k) for k, p in enumerate(model.free)}
    return wanted | {d.name: d.formula for d in model.derived}


def component(k: int) -> Callable[[FloatArray], FloatArray]:
    return lambda theta: np.asarray(theta)[..., k]


def barankin_bound(model: SignalModel, snr: float) -> dict[str, float]:
    """Bound of each value, in units of its Cramer-Rao bound."""
    assert model.example is not None
    protocol = model.example()
    theta, sigma = setting(model, snr)
    slope = jacobian(model, theta, protocol).T / sigma
    points = np.concatenate([profile(model, snr, k) for k in range(len(theta))])
    away = (simulate(model, points, protocol) - simulate(model, theta, protocol)) / sigma
    near = slope @ slope.T
    conditions = np.block([[near, slope @ away.T], [away @ slope.T, np.expm1(away @ away.T)]])
    size = np.sqrt(np.diag(conditions))
    values, vectors = np.linalg.eigh(conditions / np.outer(size, size))
    kept = values > KEPT
    found = {}
    for name, function in values_of(model).items():
        gradient = complex_step(function, theta)
        asked = np.concatenate([gradient, function(points) - function(theta)]) / size
        least = ((vectors.T @ asked)[kept] ** 2 / values[kept]).sum()
        found[name] = float(np.sqrt(least / (gradient @ np.linalg.solve(near, gradient))))
    return found


def profile(model: SignalModel, snr: float, k: int) -> FloatArray:
    """Parameters (m, p) whose k-th is moved and whose others are those that change the signal least, within bounds."""
    assert model.example is not None
    protocol = model.example()
    theta, sigma = setting(model, snr)
    scale = np.sqrt(np.diag(crlb(model, theta, protocol, Gaussian(sigma))))
    low, high = np.array([p.bounds for p in model.free]).T
    others = np.arange(len(theta)) != k
    truth = simulate(model, theta, protocol)
    found = []
    for sign in (-1, 1):
        last = theta
        for step in np.linspace(0, REACH, POINTS + 1)[1:]:
            at = theta[k] + sign * step * scale[k]
            if not low[k] < at < high[k]:
                break

            def place(u: FloatArray, at: float = at) -> FloatArray:
                moved = theta.copy()
                moved[others] += u * scale[others]
                moved[k] = at
                return np.clip(moved, low, high)

            def residual(u: FloatArray, place: Callable[[FloatArray], FloatArray] = place) -> FloatArray:
                return np.asarray((simulate(model, place(u), protocol) - truth) / sigma)

            last = place(least_squares(residual, (last - theta)[others] / scale[others]).x)
            found.append(last)
    return np.array(found)


def second_order_bound(model: SignalModel, snr: float) -> dict[str, float]:
    """Bound of each value, in units of its Cramer-Rao bound."""
    assert model.example is not None
    protocol = model.example()
    theta, sigma = setting(model, snr)
    axes = independent_axes(model, snr)

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
    found = {}
    for name, function in values_of(model).items():
        slope, bend = slopes(function, theta, axes)
        rest = (bend - np.einsum("ijk,k->ij", along, slope))[i, j]
        found[name] = float(np.sqrt(1 + rest @ np.linalg.solve(scores, rest) / (slope @ slope)))
    return found


def independent_axes(model: SignalModel, snr: float) -> FloatArray:
    """Steps (k, p) of one standard error each, whose errors are independent."""
    assert model.example is not None
    theta, sigma = setting(model, snr)
    covariance = crlb(model, theta, model.example(), Gaussian(sigma))
    scale = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    return np.asarray((scale[:, None] * vectors * np.sqrt(values)).T)


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


def follows() -> None:
    """Part of a change of the truth that the expected estimate follows; half a standard error to either side."""
    model = get("myelin-water")
    for snr in (20.0, 50.0, 100.0):
        theta, sigma = setting(model, snr)
        covariance = crlb(model, theta, model.example(), Rician(sigma))
        part = {}
        for k, name in enumerate(("S0", "MWF")):
            along = covariance[k] / np.sqrt(covariance[k, k])  # the direction in which the bound is reached
            low, high = (estimates(model, theta + s * along, sigma)[name] for s in (-0.5, 0.5))
            error = np.sqrt(low.var() + high.var()) / np.sqrt(low.size) / along[k]
            part[name] = f"{(high.mean() - low.mean()) / along[k]:.2f} +- {error:.2f}"
        print(f"spectrum of T2, SNR {snr:g}: of a change in the truth it follows " + str(part))


def limit() -> None:
    """Coverage of the efficiency, and what is missed because the estimate is too low or too high.

    Beside it, with intervals as much narrower as it takes to cover a truth of .97 in 97 %.
    """
    model = get("myelin-water")
    theta, sigma = setting(model, 20.0)
    apart = {}
    for truth in (0.75, 0.8, 0.85, 0.9, 0.94, 0.97, 1.0):
        moved = theta.copy()
        moved[model.index("Efficiency")] = truth
        found = estimates(model, moved, sigma)
        apart[truth] = (found["Efficiency"] - found["bias"] - truth) / found["std"]
    narrow = float(np.quantile(np.abs(apart[0.97]), 0.97))
    for truth, z in apart.items():
        low, high = (z < -1.96).mean(), (z > 1.96).mean()
        less = (np.abs(z) <= narrow).mean()
        print(
            f"{truth:.2f}: covered {1 - low - high:.3f}, too low {low:.3f}, too high {high:.3f}; "
            f"with {narrow:.2f} standard errors {less:.3f}"
        )


def estimates(model: SignalModel, theta: FloatArray, sigma: float) -> dict[str, FloatArray]:
    """Maps of the spectrum of T2 of one tissue, with error and bias of its efficiency; the same noise each time."""
    assert model.example is not None
    protocol = model.example()
    measured = simulate(model, np.broadcast_to(theta, (*SHAPE, len(theta))), protocol, Rician(sigma), seed=1)
    result = fit(model.name, Series(Image(measured, Grid(SHAPE, np.eye(4))), protocol), noise=Rician(sigma))
    images = dict(result.maps) | {"std": result.std["Efficiency"], "bias": result.bias["Efficiency"]}
    return {name: np.asarray(image.data, dtype=float).ravel() for name, image in images.items()}


if __name__ == "__main__":
    main()
