"""Speed and accuracy of kurtosis maps beside DIPY, and coverage of their intervals.

Run ``python benchmarks/kurtosis.py [speed] [accuracy] [coverage]``. Times are the best of several runs of both programs
in turn in one process; DIPY fits a part of the voxels, and its rate is taken for all. Where other programs share the
processors, processor time is the fairer one.
"""

import resource
import sys
import time
import warnings

import numpy as np
from scipy.spatial.transform import Rotation

from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Rician
from qcord.core.series import Series
from qcord.estimate.simulate import simulate
from qcord.maps.kurtosis import METHODS, fit_kurtosis
from qcord.maps.mean_signal_kurtosis import fit_mean_signal_kurtosis
from qcord.models.kurtosis import KURTOSIS, example
from qcord.models.kurtosis_metrics import INDICES

S0 = 1000.0
PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
NAMES = ("FA", "MD", "MK", "AK", "RK", "MKT")


def main() -> None:
    wanted = sys.argv[1:] or ["speed", "accuracy", "coverage"]
    warnings.simplefilter("ignore")
    if "speed" in wanted:
        speed()
    if "accuracy" in wanted:
        accuracy()
    if "coverage" in wanted:
        coverage()


def speed(voxels: int = 51_840, part: int = 1500) -> None:
    """Rates on 96 x 36 x 15 voxels of 67 volumes, at a signal-to-noise ratio of 30."""
    series, sigma = scan(compartments(voxels, 0), 30.0)
    size = series.data.nbytes / 2**20
    before = memory()
    fit_kurtosis(series, sigma=sigma)
    print(f"data {size:.0f} MB; process {before:.0f} MB before the fit, at most {memory():.0f} MB during it")
    signals = series.data.reshape(voxels, -1)[:part].astype(float)
    calls = {
        "wls": lambda: fit_kurtosis(series, sigma=sigma),
        "wls, 1 thread": lambda: fit_kurtosis(series, sigma=sigma, n_jobs=1),
        "mean signal": lambda: fit_mean_signal_kurtosis(series, sigma=sigma),
    }
    runs = {name: [] for name in calls}
    theirs = []
    for _ in range(3):
        for name, call in calls.items():
            runs[name].append(timed(call))
        theirs.append(timed(lambda: dipy(signals)))
    peer = part / np.min(theirs, axis=0)
    print(f"{'voxels/s':28} {'of time':>10} {'of processor':>13} {'times DIPY, of both':>20}")
    print(f"{'DIPY WLS with MK AK RK':28} {peer[0]:10,.0f} {peer[1]:13,.0f}")
    for name, times in runs.items():
        report(f"qcord {name}", voxels / np.min(times, axis=0), peer)
    few = scan(compartments(8192, 0), 30.0)[0]
    for method in METHODS:
        report(
            f"qcord {method}", 8192 / np.array(timed(lambda m=method: fit_kurtosis(few, sigma=sigma, method=m))), peer
        )


def report(name: str, rate: np.ndarray, peer: np.ndarray) -> None:
    print(f"{name:28} {rate[0]:10,.0f} {rate[1]:13,.0f} {rate[0] / peer[0]:12.1f} {rate[1] / peer[1]:7.1f}")


def accuracy(voxels: int = 4000) -> None:
    """Bias and root mean square error on mixtures of known cumulants, of all programs on the same signals."""
    for crossing in (True, False):
        theta = compartments(voxels, 0, crossing=crossing)
        truth = {d.name: d.formula(theta) for d in KURTOSIS.derived}
        for snr in (20.0, 30.0, 50.0):
            series, sigma = scan(theta, snr)
            what = "two fibres" if crossing else "one fibre"
            print(f"\n{what}, signal-to-noise ratio {snr:g}; bias and root mean square error")
            show("DIPY WLS", {name: v - truth[name] for name, v in dipy(series.data.reshape(voxels, -1)).items()})
            for method in METHODS:
                result = fit_kurtosis(series, sigma=sigma, method=method)
                show(f"qcord {method}", {name: flat(result[name]) - truth[name] for name in NAMES})
                if method == "wls":
                    corrected = {n: flat(result[n]) - flat(result.bias[n]) - truth[n] for n in NAMES}
                    show("qcord wls, map - bias", corrected)


def coverage(voxels: int = 6000) -> None:
    """Coverage of 95 % intervals of map - bias, for voxels and for means over 100 of them."""
    print(f"\n{'tissue':14} {'SNR':>4} {'metric':>6} {'raw':>8} {'left':>8} {'sd/se':>6}  coverage of 1, of 100")
    for tissue in KURTOSIS.typical:
        theta = np.tile(KURTOSIS.theta({**tissue.values, "S0": S0}), (voxels, 1))
        for snr in (15.0, 20.0, 30.0, 50.0, 100.0):
            series, sigma = scan(theta, snr)
            result = fit_kurtosis(series, sigma=sigma)
            for name in ("MK", "AK", "RK", "MKT"):
                truth = next(float(d.formula(theta[0])) for d in KURTOSIS.derived if d.name == name)
                raw = flat(result[name]) - truth
                error, std = raw - flat(result.bias[name]), flat(result.std[name])
                covered = []
                for size in (1, 100):
                    mean = error.reshape(-1, size).mean(axis=1)
                    limit = 1.96 * np.sqrt((std**2).reshape(-1, size).mean(axis=1) / size)
                    covered.append(np.mean(np.abs(mean) < limit))
                ratio = error.std() / np.sqrt((std**2).mean())
                row = f"{raw.mean():+8.3f} {error.mean():+8.3f} {ratio:6.2f}  {covered[0]:.3f} {covered[1]:.3f}"
                print(f"{tissue.tissue:14.14} {snr:4g} {name:>6} {row}")


def compartments(count: int, seed: int, *, crossing: bool = True) -> np.ndarray:
    """Parameters (count, 22) of one or two fibres of two Gaussian compartments each, turned at random."""
    generator = np.random.default_rng(seed)
    inner = generator.uniform(0.35, 0.65, count)
    first = generator.uniform(0.5, 1.0, count) if crossing else np.ones(count)
    matrices, parts = [], []
    for share in (first, 1 - first) if crossing else (first,):
        turn = Rotation.random(count, random_state=int(generator.integers(1 << 30))).as_matrix()
        for part, axial, radial in ((inner, (1.7, 2.2), (0.0, 0.01)), (1 - inner, (1.6, 2.4), (0.5, 1.0))):
            across = generator.uniform(*radial, count)
            values = 1e-3 * np.stack([generator.uniform(*axial, count), across, across], axis=1)
            matrices.append(np.einsum("vab,vb,vcb->vac", turn, values, turn))
            parts.append(part * share)
    stacked, weight = np.array(matrices), np.array(parts)
    mean = np.einsum("kv,kvab->vab", weight, stacked)
    spread = np.einsum("kv,kvab,kvcd->vabcd", weight, stacked, stacked) - np.einsum("vab,vcd->vabcd", mean, mean)
    fourth = [spread[:, i, j, k, m] + spread[:, i, k, j, m] + spread[:, i, m, j, k] for i, j, k, m in INDICES]
    return np.stack([np.full(count, S0), *(mean[:, a, b] for a, b in PAIRS), *fourth], axis=1)


def scan(theta: np.ndarray, snr: float) -> tuple[Series, float]:
    """Series with Rician noise, and its standard deviation."""
    sigma = S0 / snr
    parts = [simulate(KURTOSIS, part, example(), Rician(sigma), k) for k, part in enumerate(blocks(theta))]
    measured = np.concatenate(parts).astype(np.float32)
    return Series(Image(measured.reshape(len(theta), 1, 1, -1), Grid((len(theta), 1, 1), np.eye(4))), example()), sigma


def blocks(theta: np.ndarray) -> list[np.ndarray]:
    return np.array_split(theta, max(1, len(theta) // 4096))


def dipy(signals: np.ndarray) -> dict[str, np.ndarray]:
    from dipy.core.gradients import gradient_table
    from dipy.reconst.dki import DiffusionKurtosisModel

    table = gradient_table(example()["BValue"], bvecs=example()["Direction"])
    peer = DiffusionKurtosisModel(table, fit_method="WLS").fit(signals)
    maps = {name.upper(): getattr(peer, name)(analytical=True) for name in ("mk", "ak", "rk")}
    return {"FA": peer.fa, "MD": peer.md, **maps, "MKT": peer.mkt()}


def show(label: str, errors: dict[str, np.ndarray]) -> None:
    columns = (f"{n} {np.nanmean(e):+.2g} {np.sqrt(np.nanmean(e**2)):.3g}" for n, e in errors.items())
    print(f"{label:22}", " | ".join(f"{c:20}" for c in columns))


def flat(image: Image) -> np.ndarray:
    return image.data.ravel().astype(float)


def memory() -> float:
    """Largest memory of this process so far [MB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(call) -> tuple[float, float]:
    """Wall time and processor time [s]."""
    start, busy = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - busy


if __name__ == "__main__":
    main()
