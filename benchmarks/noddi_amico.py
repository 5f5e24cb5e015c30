"""Accuracy and speed of NODDI beside AMICO, on the same signals, in one run.

Run ``python benchmarks/noddi_amico.py`` in an environment that also holds ``dmri-amico`` (PyPI; it has a licence of
its own, and nothing of the package needs it). Simulated are 9,000 voxels of each range of ``benchmarks/noddi.py``: 7
volumes at b = 0, 24 at 700 and 36 at 2000 s/mm2 with Rician noise, 30 at b = 0. The errors of any estimator depend on
the range of the truth, so only those of two on the same one compare. The last table is what AMICO gives on the truth
``published`` beside the figures once published of it for 3,000 random combinations of ranges not stated.
"""

import os
import tempfile
import time
from pathlib import Path

import amico
import nibabel as nib
import numpy as np
import pandas as pd

from noddi import NAMES, PROTOCOL, RANGES, S0, errors, scan, truths
from qcord.core.noise import Rician
from qcord.core.series import Series
from qcord.maps.fit import fit

SHAPE = (30, 30, 10)
THEIRS = ("NDI", "ODI", "FWF")
FIGURES = ("bias", "RMSE", "r", "MAE")
PUBLISHED = {  # figures of ICVF, ODI and ISOVF
    "all": ((0.019, 0.0450, 0.980, 0.0327), (0.002, 0.0542, 0.951, 0.0330), (0.011, 0.0386, 0.975, 0.0257)),
    "ISOVF < .3": ((0.017, 0.0371, 0.987, 0.0276), (0.001, 0.0474, 0.963, 0.0295), (0.013, 0.0368, 0.928, 0.0234)),
}


def main() -> None:
    os.chdir(tempfile.mkdtemp())
    rows = []
    for k, what in enumerate(RANGES):
        theta = truths(int(np.prod(SHAPE)), what, 2)
        series = scan(theta, 30, 3)
        theirs, theirs_time = fit_amico(series, SHAPE, what, first=k == 0)
        clock = time.perf_counter()
        result = fit("noddi", series, noise=Rician(S0 / 30))
        row = errors(result, theta, np.ones(len(theta), dtype=bool), what)
        row["voxels/s"], row["AMICO voxels/s"] = len(theta) / (time.perf_counter() - clock), len(theta) / theirs_time
        for j, name in enumerate(NAMES):
            row[f"{name} AMICO"] = np.sqrt(((theirs[:, j] - theta[:, j + 1]) ** 2).mean())
        rows.append(row)
        if what == "published":
            beside = reconstruction(theirs, theta[:, 1:4])
    table = pd.DataFrame(rows).set_index("truth")
    print(table[[c for name in NAMES for c in (name, f"{name} AMICO", f"{name} bound")]].round(4).to_string())
    print(table[["voxels/s", "AMICO voxels/s"]].round().to_string())
    print(beside.to_string())


def reconstruction(theirs: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """AMICO's figures beside those published."""
    rows = {}
    for which, chosen in (("all", np.ones(len(truth), dtype=bool)), ("ISOVF < .3", truth[:, 2] < 0.3)):
        for j, name in enumerate(NAMES):
            error = (theirs - truth)[chosen, j]
            r = np.corrcoef(theirs[chosen, j], truth[chosen, j])[0, 1]
            here = (error.mean(), np.sqrt((error**2).mean()), r, np.abs(error).mean())
            for figure, value, known in zip(FIGURES, here, PUBLISHED[which][j], strict=True):
                rows.setdefault((which, name), {}).update({figure: round(value, 4), f"{figure} published": known})
    return pd.DataFrame(rows).T


def fit_amico(series: Series, shape: tuple[int, int, int], what: str, *, first: bool) -> tuple[np.ndarray, float]:
    """ICVF, ODI and ISOVF (v, 3) of AMICO, and the seconds that its fit takes; files go to the working folder."""
    if first:
        np.savetxt("bval", PROTOCOL["BValue"][None], fmt="%g")
        np.savetxt("bvec", PROTOCOL["Direction"].T, fmt="%.8f")
        nib.save(nib.Nifti1Image(np.ones(shape, np.uint8), np.eye(4)), "mask.nii.gz")
        amico.util.fsl2scheme("bval", "bvec", "scheme")
        amico.setup()
    nib.save(nib.Nifti1Image(series.data.reshape(*shape, -1).astype(np.float32), np.eye(4)), f"{what}.nii.gz")
    evaluation = amico.Evaluation(".", ".", output_path=f"out_{what}")
    evaluation.load_data(f"{what}.nii.gz", "scheme", mask_filename="mask.nii.gz", b0_thr=0)
    evaluation.set_model("NODDI")
    evaluation.generate_kernels(regenerate=first)
    evaluation.load_kernels()
    clock = time.perf_counter()
    evaluation.fit()
    seconds = time.perf_counter() - clock
    evaluation.save_results()
    maps = [nib.load(Path(f"out_{what}") / f"fit_{name}.nii.gz").get_fdata().ravel() for name in THEIRS]
    return np.stack(maps, axis=1), seconds


if __name__ == "__main__":
    main()
