"""Speed of the myelin contrasts, and how far myelin water fraction and bound pool fraction are from simulated truth.

Run ``python benchmarks/myelin.py [speed] [water] [pools]``. Times are the best of several runs.
"""

import sys
import time
from collections.abc import Callable

import numpy as np

from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.model import SignalModel
from qcord.core.noise import Rician
from qcord.core.series import Series
from qcord.estimate.simulate import simulate
from qcord.maps.fit import fit
from qcord.maps.g_ratio import Calibration, g_ratio
from qcord.models.registry import get


def main() -> None:
    wanted = sys.argv[1:] or ["speed", "water", "pools"]
    for name, part in (("speed", speed), ("water", water), ("pools", pools)):
        if name in wanted:
            part()


def speed() -> None:
    print(f"{'what':48} {'voxels':>8} {'wall s':>8} {'cpu s':>8} {'voxels/s':>12}")
    for name, method, n in (
        ("ihmtr", "closed-form", 200_000),
        ("ihmtsat", "closed-form", 200_000),
        ("ihmtsat", "nonlinear", 20_000),
        ("mpm", "log-linear", 100_000),
        ("mpm", "nonlinear", 10_000),
        ("qmt", "nonlinear", 1000),
        ("myelin-water", "spectrum", 6000),
        ("myelin-water", "nonlinear", 3000),
        ("myelin-water-csf", "nonlinear", 1500),
    ):
        model = get(name)
        series, sigma = noisy(model, tissue(model, n), 100.0)
        report(f"{name}, {method}", n, lambda s=series, m=method, f=name, e=sigma: fit(f, s, method=m, noise=e))
    myelin, inner, free = (image(np.full(200_000, v), u) for v, u in ((4.0, "percent"), (0.55, "1"), (0.1, "1")))
    errors = {k: image(np.full(200_000, v)) for k, v in (("myelin", 0.2), ("v_ic", 0.03), ("v_iso", 0.02))}
    report("g-ratio", 200_000, lambda: g_ratio(myelin, inner, free, Calibration(0.065, 0.006), std=errors))


def water() -> None:
    """Bias and spread of MWF, its standard error, and coverage; two pools in truth."""
    head = f"{'SNR':>4} {'MWF':>5} {'method':>20} {'bias':>8} {'SD':>7} {'SD/se':>6} {'cover':>6} {'at bound':>9}"
    print("\n" + head)
    model = get("myelin-water")
    for snr in (50.0, 100.0, 200.0):
        for fraction in (0.03, 0.1, 0.2, 0.29):
            theta = np.tile(model.theta({**model.typical[0].values, "MWF": fraction}), (1500, 1))
            series, sigma = noisy(model, theta, snr)
            for method in ("spectrum", "nonlinear"):
                show(
                    f"{snr:4g} {fraction:5.2f} {method:>20}",
                    fit(model, series, method=method, noise=sigma),
                    "MWF",
                    fraction,
                )


def pools() -> None:
    """Bias and spread of the values of quantitative magnetisation transfer."""
    print(f"\n{'SNR':>4} {'tissue':>14} {'value':>9} {'bias':>8} {'SD':>7} {'SD/se':>6} {'cover':>6} {'at bound':>9}")
    model = get("qmt")
    for snr in (50.0, 100.0):
        for typical in model.typical:
            theta = model.theta(typical.values)
            series, sigma = noisy(model, np.tile(theta, (1000, 1)), snr)
            found = fit(model, series, noise=sigma)
            truth = {p.name: theta[k] for k, p in enumerate(model.free)} | {"k": 1 / theta[2]}
            for name in ("F", "k", "R2f", "T2b"):
                show(f"{snr:4g} {typical.tissue:>14} {name:>9}", found, name, truth[name])


def show(label: str, found, name: str, truth: float) -> None:
    value, std = (m[name].data.ravel().astype(float) for m in (found.maps, found.std))
    error = value - truth
    ratio = error.std() / np.sqrt(np.nanmean(std**2))
    covered, edge = (np.abs(error) < 1.96 * std).mean(), (found.flag.data == 5).mean()
    unit = max(abs(truth), 1e-12) if truth < 1e-3 else 1.0
    print(f"{label} {error.mean() / unit:+8.4f} {error.std() / unit:7.4f} {ratio:6.2f} {covered:6.3f} {edge:9.3f}")


def tissue(model: SignalModel, n: int) -> np.ndarray:
    """Parameters (n, p) within 10 % of those of white matter."""
    theta = model.theta(model.typical[0].values)
    low, high = np.array([p.bounds for p in model.free], dtype=float).T
    spread = theta * np.random.default_rng(0).uniform(0.9, 1.1, (n, len(theta)))
    return np.clip(spread, low, np.minimum(high, 1e9))


def noisy(model: SignalModel, theta: np.ndarray, snr: float) -> tuple[Series, float]:
    """Series of magnitudes, and its noise; the ratio is that of the largest signal."""
    protocol = model.example()
    clean = simulate(model, theta, protocol)
    sigma = float(clean.max(axis=1).mean()) / snr
    measured = Rician(sigma).sample(clean, np.random.default_rng(1)).astype(np.float32)
    return Series(Image(measured[:, None, None, :], Grid((len(theta), 1, 1), np.eye(4))), protocol), sigma


def image(values: np.ndarray, unit: str = "1") -> Image:
    return Image(values[:, None, None], Grid((len(values), 1, 1), np.eye(4)), unit=unit)


def report(what: str, voxels: int, call: Callable[[], object], repeats: int = 3) -> None:
    walls, busy = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        walls.append(time.perf_counter() - wall)
        busy.append(time.process_time() - cpu)
    print(f"{what:48} {voxels:8d} {min(walls):8.2f} {min(busy):8.2f} {voxels / min(walls):12,.0f}", flush=True)


if __name__ == "__main__":
    main()
