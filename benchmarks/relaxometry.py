"""Speed of relaxometry and transmit field maps with standard errors, and coverage of their intervals.

Run ``python benchmarks/relaxometry.py [speed] [coverage] [image]``. Times are the best of three; ``scipy`` is one
call of ``curve_fit`` a voxel.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
from scipy.optimize import curve_fit

from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Gaussian, Noise, Rician
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.bound import crlb
from qcord.estimate.simulate import simulate
from qcord.maps.fit import fit
from qcord.maps.mp2rage import t1_of_unified, unified_image
from qcord.models.registry import get

NAMES = (
    *("vfa", "t2", "r2star", "inversion-recovery", "inversion-recovery-tr", "mp2rage"),
    *("double-angle", "actual-flip-angle"),
)
SHAPE = (64, 64, 16)
TRIPLET = Protocol(
    {
        "FlipAngle": np.array([9.0, 9.0, 15.0]),
        "RepetitionTimeExcitation": np.array([0.03, 0.03, 0.015]),
        "MTState": np.array([True, False, False]),
    }
)


def main() -> None:
    wanted = sys.argv[1:] or ["speed", "coverage", "image"]
    if "speed" in wanted:
        speed()
    if "coverage" in wanted:
        coverage()
    if "image" in wanted:
        image()


def scan(name: str, snr: float, shape: tuple[int, int, int], seed: int = 0) -> tuple[Series, np.ndarray, Noise]:
    """Noisy series of white matter whose last parameter varies by 10 %."""
    model = get(name)
    protocol = model.example() if name != "mtsat" else TRIPLET
    assert protocol is not None
    generator = np.random.default_rng(seed)
    theta = np.tile(model.theta(model.typical[0].values), (*shape, 1))
    theta[..., -1] *= np.exp(0.1 * generator.standard_normal(shape))
    exact = simulate(model, theta, protocol)
    sigma = float(np.abs(exact).max()) / snr
    noise = Gaussian(sigma) if name == "mp2rage" else Rician(sigma)
    measured = noise.sample(exact if name == "mp2rage" else np.abs(exact), generator)
    return Series(Image(measured.astype(np.float32), Grid(shape, np.eye(4))), protocol), theta, noise


def speed() -> None:
    n = int(np.prod(SHAPE))
    print(f"{n} voxels, known noise and residuals; voxels/s")
    print(f"{'model':24} {'volumes':>8} {'SNR 20':>10} {'SNR 50':>10} {'SNR 100':>10} {'residuals':>10}")
    for name in ("mtsat", *NAMES):
        rates = []
        for snr in (20, 50, 100):
            series, _, noise = scan(name, snr, SHAPE)
            rates.append(n / best(lambda s=series, m=name, v=noise: fit(m, s, noise=v)))
        series, _, _ = scan(name, 50, SHAPE)
        rates.append(n / best(lambda s=series, m=name: fit(m, s)))
        print(f"{name:24} {len(series.protocol):8d} " + " ".join(f"{r:10,.0f}" for r in rates), flush=True)
    series, _, noise = scan("mp2rage", 50, SHAPE)
    ratio, error = unified_image(series, sigma=noise.sigma)
    print(
        f"{'T1 of UNIT1 alone':24} {1:8d} {n / best(lambda: t1_of_unified(ratio, series.protocol, std=error)):32,.0f}"
    )
    series, _, _ = scan("r2star", 50, (10, 10, 3))
    times, data = series.protocol["EchoTime"], series.data.reshape(-1, 8)

    def one_by_one() -> None:
        for row in data:
            curve_fit(lambda t, s, r: s * np.exp(-t * r), times, row, (row[0], 25.0))

    print(f"{'r2star, scipy':24} {8:8d} {len(data) / best(one_by_one):43,.0f}")


def coverage() -> None:
    print("\nlast parameter: coverage of 95 % intervals, bias left over spread, spread over bound; known noise")
    print(f"{'model':24} " + " ".join(f"{'SNR ' + str(s):>22}" for s in (10, 20, 40, 100)))
    for name in NAMES:
        model = get(name)
        cells = []
        for snr in (10, 20, 40, 100):
            series, theta, noise = scan(name, snr, (60, 60, 6), seed=snr)
            found = fit(name, series, noise=noise)
            metric = model.free[-1].name
            good = found.flag.data == 0
            error = (found[metric].data - found.bias[metric].data - theta[..., -1])[good]
            covered = np.mean(np.abs(error) < 1.96 * found.std[metric].data[good])
            least = crlb(model, theta[good][:2000], series.protocol, Gaussian(noise.sigma))[:, -1, -1]
            cells.append(
                f"{covered:6.3f} {error.mean() / error.std():+6.3f} {error.std() / np.sqrt(least.mean()):6.3f}"
            )
        print(f"{name:24} " + " ".join(f"{c:>22}" for c in cells), flush=True)


def image() -> None:
    """An image as it is: half air and weak signal, where no rate is determined."""
    protocol = get("r2star").example()
    generator = np.random.default_rng(0)
    amplitude = 1000 * generator.random((*SHAPE, 1)) ** 3
    theta = np.concatenate([amplitude, np.full((*SHAPE, 1), 25.0)], axis=-1)
    theta[: SHAPE[0] // 3, ..., 0] = 0
    measured = Rician(30.0).sample(simulate(get("r2star"), theta, protocol), generator).astype(np.float32)
    series = Series(Image(measured, Grid(SHAPE, np.eye(4))), protocol)
    n = int(np.prod(SHAPE))
    print("\nr2star, image of one third air and weak signal; voxels/s with known noise")
    for method in ("projection", "nonlinear"):
        print(f"{method:24} {n / best(lambda m=method: fit('r2star', series, noise=30.0, method=m), 1):10,.0f}")


def best(call: Callable[[], object], repeats: int = 3) -> float:
    """Least wall time [s]."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
