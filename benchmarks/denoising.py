"""Denoising: time beside DIPY and MRtrix, noise level, error of signal and FA against a simulated truth."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Rician
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.preprocess.denoise import denoise
from qcord.preprocess.noise import estimate_noise
from qcord.preprocess.noise_correlation import noise_correlation
from qcord.preprocess.noise_floor import remove_noise_floor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from painted_scans import diffusion, image_of, protocol_of, rician  # noqa: E402

REPEATS = 3


def main():
    data = Path(os.environ.get("QCORD_TEST_DATA", ROOT / ".." / "shared" / "data"))
    for name in ("sct019", "errsm30"):
        folder = data / "bids-cord" / f"sub-{name}" / "dwi"
        if folder.is_dir():
            compare_on_scan(name, folder / f"sub-{name}_dwi.nii.gz")
    simulated()


def compare_on_scan(name, path):
    file = nib.as_closest_canonical(nib.load(path))
    data, grid = file.get_fdata(), Grid(file.shape[:3], file.affine)
    b = np.loadtxt(str(path).replace(".nii.gz", ".bval"))
    series = Series(Image(data.astype(np.float32), grid), Protocol({"BValue": b}))
    cord = cord_of(data, b)
    rows = {}
    for threads in (1, None):
        seconds, result = best_of(lambda t=threads: denoise(series, threads=t))
        rows[f"qcord, {threads or os.cpu_count()} threads"] = (seconds, result.series.data, result.sigma.data)
    plain = denoise(series, magnitude=False)
    rows["qcord, spread of magnitudes"] = (float("nan"), plain.series.data, plain.sigma.data)
    rows |= others(data, file.affine)
    print(f"\n{name}: {' x '.join(map(str, data.shape))}, best of {REPEATS}")
    print(f"{'':30s} {'wall s':>7s} {'sigma cord':>10s} {'sigma all':>9s} {'change of cord mean':>20s}")
    raw = data[cord].mean()
    for row, (seconds, clean, sigma) in rows.items():
        change = 100 * (clean[cord].mean() / raw - 1)
        print(f"{row:30s} {seconds:7.2f} {np.nanmedian(sigma[cord]):10.1f} {np.nanmedian(sigma):9.1f} {change:18.3f} %")
    removed = noise_correlation(image_of(data - plain.series.data))
    weighted = data[..., b > 50]
    dark = (weighted.mean(-1) < np.percentile(weighted.mean(-1), 30)) & data.any(axis=-1)
    ours = next(iter(rows.values()))[2]
    air, spread = weighted[dark].mean(), weighted[dark].std(axis=-1).mean()
    print(f"air as Rayleigh: mean / spread {air / spread:.2f} (1.91), sigma {air / np.sqrt(np.pi / 2):.1f}", end="; ")
    print(f"qcord there {np.nanmedian(ours[dark]):.1f}")
    repeats = data[..., b <= 50]
    print(f"spread of b = 0 repeats in the cord, pulsation included: {repeats[cord].std(axis=-1, ddof=1).mean():.1f}")
    apart = estimate_noise(Image(repeats.astype(np.float32), grid))
    centre = tuple(n // 2 for n in apart.sigma.data.shape)
    print(f"b = 0 repeats at high spatial frequency: {apart.sigma.data[centre]:.1f}, ", end="")
    print(f"variance of means {apart.correlation.factor:.2f} times that of independent voxels")
    x, y, z = (s // 2 for s in removed.lags.shape)
    neighbours = removed.lags[x + 1, y, z], removed.lags[x, y + 1, z]
    print(f"removed noise, correlation of neighbours: x {neighbours[0]:.2f}, y {neighbours[1]:.2f}")


def cord_of(data, b):
    """Bright disc in the middle of the diffusion-weighted mean."""
    mean = data[..., b > 50].mean(axis=-1)
    x, y = (np.arange(n) - (n - 1) / 2 for n in mean.shape[:2])
    near = (np.hypot(x[:, None], y[None]) < 13)[..., None]
    inside = np.where(near, mean, 0)
    return inside > 0.6 * inside.max(axis=(0, 1))


def others(data, affine):
    rows = {}
    try:
        from dipy.denoise.localpca import mppca
    except ImportError:
        print("DIPY is not installed")
    else:
        seconds, (clean, sigma) = best_of(lambda: mppca(data, patch_radius=2, return_sigma=True), 1)
        rows["DIPY mppca (single run)"] = (seconds, clean, sigma)
    if shutil.which("dwidenoise"):
        with tempfile.TemporaryDirectory() as folder:
            paths = [str(Path(folder) / f"{n}.nii") for n in ("data", "clean", "noise")]
            nib.save(nib.Nifti1Image(data.astype(np.float32), affine), paths[0])
            command = ["dwidenoise", "-quiet", "-force", paths[0], paths[1], "-noise", paths[2]]
            seconds, _ = best_of(lambda: subprocess.run(command, check=True))
            rows["MRtrix dwidenoise"] = (seconds, *(nib.load(p).get_fdata() for p in paths[1:]))
    else:
        print("MRtrix is not installed")
    return rows


def simulated():
    """Cord of known tensors, noise that doubles across the field; errors in units of the mean noise of the cord."""
    protocol = protocol_of()
    painted = diffusion((72, 36, 9), protocol=protocol, seed=1)
    clean, cord = painted.series.data, painted.cord > 0.95
    truth = anisotropy(clean[cord], protocol)
    x = np.linspace(0, 1, 72)[:, None, None]
    print("\nsimulated cord, 35 volumes; sigma over its truth, error of the signal, FA error (bias) in cord voxels")
    print(f"{'SNR':>4s} {'':26s} {'sigma':>6s} {'error':>6s} {'mean bias':>10s} {'FA error':>9s} {'FA bias':>8s}")
    for snr in (20, 10, 7, 5):
        sigma = np.broadcast_to((1 + x) / 1.5 / snr, (72, 36, 9))
        series = Series(image_of(rician(clean, sigma, 2)), protocol)
        expected = Rician(sigma[..., None]).expectation(clean)
        result = denoise(series)
        ratio = np.median((result.sigma.data / sigma)[cord])
        bare = remove_noise_floor(result.series, result.sigma)
        rows = {"noisy": (series.data, expected, 1.0), "denoised": (result.series.data, expected, ratio)}
        rows["denoised, floor removed"] = (bare.data, clean, ratio)
        for name, (data, goal, level) in rows.items():
            error = (data - goal)[cord] * snr
            wrong = anisotropy(data[cord], protocol) - truth
            print(f"{snr:4d} {name:26s} {level:6.3f} {np.sqrt((error**2).mean()):6.3f} {error.mean():10.4f} ", end="")
            print(f"{np.sqrt((wrong**2).mean()):9.4f} {wrong.mean():8.4f}")


def anisotropy(signal, protocol):
    """FA by weighted linear least squares."""
    b, g = protocol["BValue"], protocol["Direction"]
    pairs = ((0, 0, 1), (1, 1, 1), (2, 2, 1), (0, 1, 2), (0, 2, 2), (1, 2, 2))
    design = np.stack([np.ones_like(b), *(-b * f * g[:, i] * g[:, j] for i, j, f in pairs)], axis=1)
    y = np.log(np.maximum(signal, 1e-4))
    start = np.linalg.lstsq(design, y.T, rcond=None)[0].T
    weight = np.exp(2 * start @ design.T)
    normal = np.einsum("vn,ni,nj->vij", weight, design, design)
    theta = np.linalg.solve(normal, np.einsum("vn,ni,vn->vi", weight, design, y)[..., None])[..., 0]
    values = np.linalg.eigvalsh(theta[:, [1, 4, 5, 4, 2, 6, 5, 6, 3]].reshape(-1, 3, 3))
    apart = values - values.mean(axis=1, keepdims=True)
    return np.sqrt(1.5 * (apart**2).sum(axis=1) / (values**2).sum(axis=1))


def best_of(work, repeats=REPEATS):
    seconds, result = np.inf, None
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds = min(seconds, time.perf_counter() - start)
    return seconds, result


if __name__ == "__main__":
    main()
