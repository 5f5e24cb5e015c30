"""Motion correction: error against known displacements, and steadiness and time on real scans."""

import os
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.preprocess.denoise import denoise
from qcord.preprocess.motion import correct_motion
from qcord.preprocess.translate import translate_slices

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from painted_scans import PIXEL, diffusion, image_of, protocol_of, rician, scan, transfer  # noqa: E402

SHAPE = (64, 36, 12)


def main():
    simulated_diffusion()
    simulated_contrasts()
    data = Path(os.environ.get("QCORD_TEST_DATA", ROOT / ".." / "shared" / "data")) / "bids-cord"
    if data.is_dir():
        real_diffusion(data)
        real_contrasts(data)


def breathing(n, slices, size, single=0.0, seed=0):
    """Displacement (n, z, 2) [mm]: smooth along the cord, irregular in time, a slow drift, slices of their own."""
    generator = np.random.default_rng(seed)
    phase = 2 * np.pi * np.cumsum(0.3 + 0.5 * generator.random(n))
    height = np.arange(slices) * 5.0
    profile = 0.3 + 0.7 * np.exp(-(((height - height.max() / 3) / 35) ** 2))
    clock = np.linspace(-1, 1, n)
    wave = np.sin(phase)[:, None] * profile
    true = np.stack([s * wave + 0.5 * s * (clock**2 + 0.5 * clock)[:, None] for s in size], axis=-1)
    return true + single * generator.standard_normal(true.shape)


def simulated_diffusion():
    """35 volumes; root mean square error [mm] of diffusion-weighted and b = 0 slices."""
    protocol = protocol_of()
    weighted = protocol["BValue"] > 0
    still = diffusion(SHAPE, protocol=protocol, seed=3, pulsation=0.15).series.data
    cases = {
        "still": np.zeros((35, SHAPE[2], 2)),
        "breathing, neck moves": breathing(35, SHAPE[2], (0.3, 1.0)),
        "up to 3 mm, neck moves": breathing(35, SHAPE[2], (1.5, 2.0), seed=2),
        "breathing + .3 mm a slice": breathing(35, SHAPE[2], (0.3, 1.0), 0.3, 3),
        "cord moves in still canal": breathing(35, SHAPE[2], (0.3, 1.0)),
    }
    print(f"simulated diffusion series, voxels of {PIXEL} mm; displacement and error, rms of x and y [mm]")
    print(
        f"{'SNR':>4s} {'':26s} {'before':>12s} {'after':>12s} {'b = 0':>12s} {'error/se':>8s} {'moved':>6s} {'s':>5s}"
    )
    for name, true in cases.items():
        if "canal" in name:
            moved = diffusion(SHAPE, protocol=protocol, seed=3, pulsation=0.15, shift=true).series.data
        else:
            moved = np.nan_to_num(translate_slices(still, true.transpose(1, 0, 2) / PIXEL))
        for snr in (20, 10, 7):
            series = Series(image_of(rician(moved, 1 / snr, 1).astype(np.float32)), protocol)
            start = time.perf_counter()
            result = correct_motion(series)
            seconds = time.perf_counter() - start
            table = result.shifts
            found = table[["x", "y"]].to_numpy().reshape(true.shape)
            error = np.maximum(table[["x_se", "y_se"]].to_numpy().reshape(true.shape), 1e-3)
            goal = true - true[weighted].mean(axis=0)
            wrong = found - goal
            ratio = np.sqrt((wrong[weighted] ** 2 / error[weighted] ** 2).mean())
            print(
                f"{snr:4d} {name:26s} {both(goal[weighted])} {both(wrong[weighted])} {both(wrong[~weighted])} ", end=""
            )
            print(f"{ratio:8.2f} {result.quality['moved_slices']:6.2f} {seconds:5.1f}")


def simulated_contrasts():
    """MT off and T1-weighted onto MT on."""
    print("\nsimulated MT triplet; largest error of a slice [mm]")
    for size in (0.0, 0.9, 2.7):
        shift = np.zeros((3, 8, 2))
        shift[0], shift[2] = [size, -size / 2], [-size / 2, size]
        for sigma in (0.02, 0.05):
            noisy, _, _ = scan(transfer((96, 96, 8), shift=shift), sigma, seed=1)
            protocol = Protocol({"MTState": np.array([False, True, False])})
            start = time.perf_counter()
            table = correct_motion(Series(image_of(noisy.astype(np.float32)), protocol)).shifts
            seconds = time.perf_counter() - start
            wrong = table[["x", "y"]].to_numpy().reshape(3, 8, 2) - shift
            print(f"SNR {1 / sigma:3.0f}, displaced by {size:.1f} mm: {np.abs(wrong).max():.3f}  ({seconds:.1f} s)")


def real_diffusion(data):
    print("\nreal diffusion series; temporal SNR in the cord, residual of a quadratic form of the directions")
    for name in ("sct019", "errsm30"):
        folder = data / f"sub-{name}" / "dwi"
        values, grid = load(folder / f"sub-{name}_dwi.nii.gz")
        b = np.loadtxt(folder / f"sub-{name}_dwi.bval")
        g = np.loadtxt(folder / f"sub-{name}_dwi.bvec").reshape(3, -1).T
        series = Series(Image(values, grid), Protocol({"BValue": b, "Direction": g}))
        clean = denoise(series)
        mean = values[..., b > 50].mean(axis=-1)
        x, y = (np.arange(n) - (n - 1) / 2 for n in mean.shape[:2])
        inside = np.where((np.hypot(x[:, None], y[None]) < 13)[..., None], mean, 0)
        cord = inside > 0.6 * inside.max(axis=(0, 1))
        for kind, given, sigma in (("raw", series, None), ("denoised", clean.series, clean.sigma)):
            seconds, result = np.inf, None
            for _ in range(3):
                start = time.perf_counter()
                result = correct_motion(given, sigma=sigma)
                seconds = min(seconds, time.perf_counter() - start)
            q = result.quality
            print(f"{name} {kind}: {seconds:.1f} s, motion x {q['motion_x']:.2f} y {q['motion_y']:.2f} ", end="")
            print(f"max {q['motion_max']:.2f} mm, {100 * q['moved_slices']:.0f} % of slices moved")
            for rows, what in ((b > 50, "dw"), (b <= 50, "b = 0")):
                before, after = (steady(s.data[cord][:, rows]) for s in (given, result.series))
                print(f"    temporal SNR {what:6s} {before:.2f} -> {after:.2f}")
            forms = np.stack([g[:, i] * g[:, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))], axis=1)
            rest = [residual(s.data[cord][:, b > 50], forms[b > 50]) for s in (given, result.series)]
            print(f"    residual            {rest[0]:.1f} -> {rest[1]:.1f}")


def real_contrasts(data):
    print("\nreal MT series: a displacement of .70, -1.10 mm added to MT off, and the difference that is found [mm]")
    for name, off, on in (
        ("sct019", "flip-1_mt-off_MTS", "flip-1_mt-on_MTS"),
        ("errsm30", "mt-off_MTR", "mt-on_MTR"),
        ("HC003U", "flip-1_mt-off_MTS", "flip-1_mt-on_MTS"),
        ("unf05", "flip-1_mt-off_MTS", "flip-1_mt-on_MTS"),
    ):
        first, grid = load(data / f"sub-{name}" / "anat" / f"sub-{name}_{off}.nii.gz")
        second, _ = load(data / f"sub-{name}" / "anat" / f"sub-{name}_{on}.nii.gz")
        step = np.array([0.7, -1.1]) / grid.spacing[:2]
        displaced = translate_slices(first, np.broadcast_to(step, (first.shape[2], 2)))
        protocol = Protocol({"MTState": np.array([False, True])})
        found, seconds = [], 0.0
        for image in (first, displaced):
            start = time.perf_counter()
            table = correct_motion(Series(Image(np.stack([image, second], axis=-1), grid), protocol)).shifts
            seconds = time.perf_counter() - start
            found.append(table[table["volume"] == 0][["x", "y"]].to_numpy())
        change = found[1] - found[0]
        print(f"{name:8s} {change.mean(axis=0).round(3)} +- {change.std(axis=0).round(3)}, ", end="")
        print(f"own displacement {np.sqrt((found[0] ** 2).mean(axis=0)).round(2)}, {seconds:.1f} s")


def load(path):
    file = nib.as_closest_canonical(nib.load(path))
    return file.get_fdata().astype(np.float32), Grid(file.shape[:3], file.affine)


def both(values):
    x, y = np.sqrt((values**2).mean(axis=(0, 1)))
    return f"{x:5.3f} {y:5.3f} "


def steady(values):
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.nanmedian(np.nanmean(values, axis=1) / np.nanstd(values, axis=1, ddof=1)))


def residual(values, forms):
    finite = np.isfinite(values).all(axis=1)
    rest = values[finite].T - forms @ np.linalg.lstsq(forms, values[finite].T, rcond=None)[0]
    return float(np.median(np.sqrt((rest**2).sum(axis=0) / (len(forms) - 6))))


if __name__ == "__main__":
    main()
