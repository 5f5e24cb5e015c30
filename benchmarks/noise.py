"""Noise of images taken once: estimate against a simulated truth, and plausibility on real scans."""

import os
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.preprocess.noise import estimate_noise

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from painted_scans import image_of, scan, transfer  # noqa: E402


def main():
    simulated()
    data = Path(os.environ.get("QCORD_TEST_DATA", ROOT / ".." / "shared" / "data")) / "bids-cord"
    if data.is_dir():
        real(data)


def simulated():
    painted = transfer((192, 192, 8))
    x = np.linspace(-1, 1, 192)
    coil = 1 + 0.6 * np.exp(-(x[:, None] ** 2 + x[None] ** 2) / 0.15)
    cases = {
        "white": {},
        "zero-filled, .75 x .75": {"acquired": (0.75, 0.75)},
        "zero-filled, 1 x .6": {"acquired": (1.0, 0.6)},
        "zero-filled, .5 x .5": {"acquired": (0.5, 0.5)},
        "smoothed, .6 voxels": {},
        "noisier in the middle": {"coil": coil},
        "10 % of voxels missing": {},
    }
    print("simulated neck; estimate in the middle over its truth, and variance of means over that of white noise")
    print(f"{'SNR':>4s} {'':24s} {'one image':>16s} {'pair':>16s} {'triplet':>16s} {'true factor':>12s}")
    for sigma in (0.1, 0.03, 0.015):
        for name, settings in cases.items():
            noisy, _, truth = scan(painted, sigma, seed=3, **settings)
            factor = (sigma / truth) ** 2
            if "coil" in settings:
                truth = truth * coil[96, 96]
            if "smoothed" in name:
                noisy = ndimage.gaussian_filter(noisy, (0.6, 0.6, 0, 0))
                kernel = ndimage.gaussian_filter(np.eye(1, 31, 15).T @ np.eye(1, 31, 15), 0.6)
                truth, factor = truth * np.sqrt((kernel**2).sum()), 1 / (kernel**2).sum()
            if "missing" in name:
                noisy[np.random.default_rng(1).random(noisy.shape[:3]) < 0.1] = np.nan
            columns = []
            for n in (1, 2, 3):
                found = estimate_noise(image_of(noisy[..., 0] if n == 1 else noisy[..., :n]))
                columns.append(f"{found.sigma.data[96, 96, 4] / truth:8.2f} {found.correlation.factor:7.2f}")
            print(f"{1 / sigma:4.0f} {name:24s} {' '.join(columns)} {factor:12.2f}")


def real(data):
    print(
        "\nreal scans, all with the same contrast or the transfer series; sigma in the middle, range, factor, seconds"
    )
    for name, pattern in (
        ("sct019", "anat/*_MTS.nii.gz"),
        ("HC003U", "anat/*_MTS.nii.gz"),
        ("unf03", "anat/*_MTS.nii.gz"),
        ("unf05", "anat/*_MTS.nii.gz"),
        ("errsm30", "anat/*_MTR.nii.gz"),
        ("gm9584", "anat/*_T2star.nii.gz"),
        ("gm9604", "anat/*_T2star.nii.gz"),
        ("gm9709", "ses-1/anat/*_T2star.nii.gz"),
    ):
        files = [nib.as_closest_canonical(nib.load(f)) for f in sorted((data / f"sub-{name}").glob(pattern))]
        volumes = np.stack([f.get_fdata(dtype=np.float32) for f in files], axis=-1)
        image = Image(volumes, Grid(volumes.shape[:3], files[0].affine))
        start = time.perf_counter()
        found = estimate_noise(image)
        seconds = time.perf_counter() - start
        sigma = found.sigma.data
        centre = tuple(n // 2 for n in sigma.shape)
        body = volumes[..., 0] > 0.3 * np.percentile(volumes[..., 0], 90)
        one = estimate_noise(image.volume(0)).sigma.data[centre]
        print(
            f"{name:8s} {len(files)} volumes: {sigma[centre]:6.1f} ({sigma.min():.1f} to {sigma.max():.1f}), ", end=""
        )
        print(f"first alone {one:6.1f}, factor {found.correlation.factor:.2f}, ", end="")
        print(f"tissue over sigma {np.median(volumes[..., 0][body] / sigma[body]):.0f}, {seconds:.1f} s")


if __name__ == "__main__":
    main()
