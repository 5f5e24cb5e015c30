"""Speed of the maps beside DIPY and MRtrix, and coverage of their intervals.

Run ``python benchmarks/models.py [speed] [coverage]``; MRtrix is left out where it is not installed. Times are the
best of several runs; where other programs share the processors, processor time is the fairer one. ``process``
includes start-up, reading and writing of uncompressed NIfTI.
"""

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Rician
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.simulate import simulate
from qcord.maps.fit import fit
from qcord.maps.mtsat import mtsat
from qcord.maps.tensor import fit_tensor
from qcord.models.registry import get
from qcord.models.tensor import TENSOR

SIZES = (("sct019-like", (96, 36, 15), (5, 30, 0)), ("large", (128, 128, 40), (7, 24, 36)))
SHELLS = (0.0, 700.0, 2000.0)
TRIPLET = Protocol(
    {
        "FlipAngle": [9.0, 9.0, 15.0],
        "RepetitionTimeExcitation": [0.03, 0.03, 0.015],
        "MTState": np.array([True, False, False]),
    }
)

PROCESS = """
import sys
import nibabel as nib
import numpy as np
from pathlib import Path
from qcord.core.series import Series
from qcord.ingest.gradients import read_gradients
from qcord.ingest.nifti import read_image
from qcord.ingest.series import stored_affine
from qcord.maps.tensor import fit_tensor
folder = Path(sys.argv[1])
image = read_image(folder / "dwi.nii")
protocol = read_gradients(folder / "dwi.bval", folder / "dwi.bvec", stored_affine(image), image.n_volumes)
fit = fit_tensor(Series(image, protocol))
for name in ("FA", "MD", "AD", "RD"):
    for kind, group in (("", fit.maps), ("_se", fit.std)):
        nib.Nifti1Image(group[name].data, image.grid.affine).to_filename(folder / f"qcord_{name}{kind}.nii")
"""


def main() -> None:
    wanted = sys.argv[1:] or ["speed", "coverage"]
    if "speed" in wanted:
        speed()
    if "coverage" in wanted:
        coverage()


def speed() -> None:
    print(f"{'what':44} {'voxels':>8} {'volumes':>8} {'wall s':>8} {'cpu s':>8} {'voxels/s':>10}")
    for name, shape, counts in SIZES:
        tensor_speed(name, phantom(shape, counts))
    nonlinear_speed()


def tensor_speed(name: str, series: Series) -> None:
    n, volumes = int(np.prod(series.image.grid.shape)), series.image.n_volumes
    before = memory()
    fit_tensor(series)
    size = series.data.nbytes / 2**20
    print(f"{name}: data {size:.0f} MB, process {before:.0f} MB before and at most {memory():.0f} MB during the fit")
    for method in ("wls", "iwls", "irls"):
        report(f"{name}: qcord tensor {method}", n, volumes, best(lambda m=method: fit_tensor(series, method=m)))
    report(f"{name}: qcord tensor wls, 1 thread", n, volumes, best(lambda: fit_tensor(series, n_jobs=1)))
    with tempfile.TemporaryDirectory() as folder:
        write(series, Path(folder))
        report(f"{name}: qcord, process", n, volumes, best(lambda: run([sys.executable, "-c", PROCESS, folder])))
        if shutil.which("dwi2tensor"):
            report(f"{name}: MRtrix, process", n, volumes, best(lambda: mrtrix(Path(folder))))
    report(f"{name}: DIPY WLS with FA MD AD RD", n, volumes, best(lambda: dipy_wls(series), repeats=2))


def memory() -> float:
    """Largest memory of this process so far [MB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def nonlinear_speed() -> None:
    series = phantom((24, 20, 10), (5, 30, 0))
    report("qcord tensor nonlinear", 4800, 35, best(lambda: fit("tensor", series, method="nonlinear", noise=30.0)))
    report("qcord tensor rician", 4800, 35, best(lambda: fit("tensor", series, method="nonlinear", noise=30.0)))
    shape = (192, 192, 22)
    signal = simulate(get("mtsat"), [1000.0, 1.0, 4.0], TRIPLET)
    measured = np.tile(signal.astype(np.float32), (*shape, 1))
    triplet = Series(Image(measured, Grid(shape, np.eye(4))), TRIPLET)
    n = int(np.prod(shape))
    report("qcord MTsat, T1 closed form with errors", n, 3, best(lambda: mtsat(triplet, sigma=2.0)))
    part = Series(Image(measured[:32, :32, :4], Grid((32, 32, 4), np.eye(4))), TRIPLET)
    report("qcord MTsat, T1 nonlinear", 4096, 3, best(lambda: fit("mtsat", part, method="nonlinear", noise=2.0)))


def coverage() -> None:
    """Coverage of 95 % intervals of map - bias, and of the map alone, for means over 1, 10 and 100 voxels."""
    print(f"\n{'SNR':>4} {'FA':>5} {'metric':>6} {'bias':>8} {'left':>8} {'sd/se':>6}  coverage 1, 10, 100 (map alone)")
    for snr in (6.5, 8.0, 10.0, 12.0, 15.0, 20.0):
        for anisotropy in (0.35, 0.5, 0.7, 0.85):
            theta, truth = tensors(np.full(20_000, anisotropy), seed=1)
            protocol = gradients((5, 30, 0))
            measured = simulate(TENSOR, theta, protocol, Rician(1000 / snr), seed=2)
            series = Series(Image(measured.reshape(-1, 1, 1, 35), Grid((20_000, 1, 1), np.eye(4))), protocol)
            result = fit_tensor(series, sigma=1000 / snr)
            for name in ("FA", "MD"):
                show_coverage(f"{snr:4g} {anisotropy:5.2f} {name:>6}", result, name, truth[name])


def show_coverage(label: str, result, name: str, truth: np.ndarray) -> None:
    value, std, bias = (m[name].data.ravel().astype(float) for m in (result.maps, result.std, result.bias))
    columns = []
    for shift in (bias, 0 * bias):
        error = value - shift - truth
        for size in (1, 10, 100):
            mean = error.reshape(-1, size).mean(axis=1)
            limit = 1.96 * np.sqrt((std**2).reshape(-1, size).mean(axis=1) / size)
            columns.append(np.mean(np.abs(mean) < limit))
    raw, left = (value - truth).mean() / truth.mean(), (value - bias - truth).mean() / truth.mean()
    ratio = (value - bias - truth).std() / np.sqrt((std**2).mean())
    own, alone = (" ".join(f"{c:.3f}" for c in part) for part in (columns[:3], columns[3:]))
    print(f"{label} {raw:+8.4f} {left:+8.4f} {ratio:6.2f}  {own}  ({alone})")


def gradients(counts: tuple[int, int, int]) -> Protocol:
    b = np.repeat(SHELLS if sum(counts) > 40 else (0.0, 800.0, 0.0), counts)
    k = np.arange(len(b)) + 0.5
    height, turn = 1 - 2 * k / len(b), np.pi * (1 + 5**0.5) * k
    radius = np.sqrt(1 - height**2)
    directions = np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)
    return Protocol({"BValue": b, "Direction": directions * (b > 0)[:, None]})


def tensors(anisotropy: np.ndarray, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Axially symmetric tensors within some degrees of the vertical, mean diffusivity .9 um2/ms within 8 %."""
    generator = np.random.default_rng(seed)
    part = anisotropy / np.sqrt(3 - 2 * anisotropy**2)
    size = 0.9e-3 * np.exp(0.08 * generator.standard_normal(anisotropy.shape))
    axis = 0.15 * generator.standard_normal((len(anisotropy), 3)) + [0, 0, 1]
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    matrix = (size * (1 - part))[:, None, None] * np.eye(3)
    matrix = matrix + (3 * size * part)[:, None, None] * axis[:, :, None] * axis[:, None]
    order = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
    theta = np.stack([np.full(len(size), 1000.0), *(matrix[:, i, j] for i, j in order)], axis=1)
    return theta, {"FA": anisotropy, "MD": size}


def phantom(shape: tuple[int, int, int], counts: tuple[int, int, int], snr: float = 30.0) -> Series:
    protocol = gradients(counts)
    n = int(np.prod(shape))
    data = np.empty((n, sum(counts)), dtype=np.float32)
    for first in range(0, n, 65536):
        rows = slice(first, min(first + 65536, n))
        anisotropy = np.random.default_rng(first).uniform(0.1, 0.9, rows.stop - rows.start)
        theta, _ = tensors(anisotropy, seed=first)
        data[rows] = simulate(TENSOR, theta, protocol, Rician(1000 / snr), seed=first)
    return Series(Image(data.reshape(*shape, -1), Grid(shape, np.diag([0.9, 0.9, 5, 1]))), protocol)


def write(series: Series, folder: Path) -> None:
    nib.Nifti1Image(np.asarray(series.data), series.image.grid.affine).to_filename(folder / "dwi.nii")
    directions = np.array(series.protocol["Direction"])
    directions[:, 0] *= -1  # FSL: x reversed where the affine has a positive determinant
    np.savetxt(folder / "dwi.bvec", directions.T)
    np.savetxt(folder / "dwi.bval", series.protocol["BValue"][None])


def mrtrix(folder: Path) -> None:
    common = ["-force", "-quiet", "-nthreads", "2"]
    table = ["-fslgrad", str(folder / "dwi.bvec"), str(folder / "dwi.bval")]
    run(["dwi2tensor", str(folder / "dwi.nii"), str(folder / "dt.nii"), *table, *common])
    metrics = [x for k in ("fa", "adc", "ad", "rd") for x in (f"-{k}", str(folder / f"{k}.nii"))]
    run(["tensor2metric", str(folder / "dt.nii"), *metrics, *common])


def dipy_wls(series: Series) -> None:
    from dipy.core.gradients import gradient_table
    from dipy.reconst.dti import TensorModel

    table = gradient_table(series.protocol["BValue"], bvecs=series.protocol["Direction"])
    peer = TensorModel(table, fit_method="WLS").fit(series.data)
    for name in ("fa", "md", "ad", "rd"):
        getattr(peer, name)


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def best(call: Callable[[], object], repeats: int = 3) -> tuple[float, float]:
    """Least wall time, and least processor time of this process and those it starts."""
    walls, processors = [], []
    for _ in range(repeats):
        start, busy = time.perf_counter(), processor_time()
        call()
        walls.append(time.perf_counter() - start)
        processors.append(processor_time() - busy)
    return min(walls), min(processors)


def processor_time() -> float:
    own, started = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + started.ru_utime + started.ru_stime


def report(what: str, voxels: int, volumes: int, seconds: tuple[float, float]) -> None:
    wall, busy = seconds
    print(f"{what:44} {voxels:8d} {volumes:8d} {wall:8.2f} {busy:8.2f} {voxels / wall:10,.0f}", flush=True)


if __name__ == "__main__":
    main()
