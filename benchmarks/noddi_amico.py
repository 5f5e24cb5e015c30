"""Accuracy and speed of NODDI beside AMICO, on the same signals, in one run.

Run ``python benchmarks/noddi_amico.py`` in an environment that also holds ``dmri-amico`` (PyPI; it has a licence of
its own, and nothing of the package needs it). Simulated are 9,000 voxels of each range of ``benchmarks/noddi.py``: 7
volumes at b = 0, 24 at 700 and 36 at 2000 s/mm2 with Rician noise, 30 at b = 0. The errors of any estimator depend on
the range of the truth, so only those of two on the same one compare.
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
from qcord.maps.fit import fit

SHAPE = (30, 30, 10)
THEIRS = ("NDI", "ODI", "FWF")


def main() -> None:
    os.chdir(tempfile.mkdtemp())
    np.savetxt("bval", PROTOCOL["BValue"][None], fmt="%g")
    np.savetxt("bvec", PROTOCOL["Direction"].T, fmt="%.8f")
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), np.eye(4)), "mask.nii.gz")
    amico.util.fsl2scheme("bval", "bvec", "scheme")
    amico.setup()
    rows = []
    for k, (what, ranges) in enumerate(RANGES.items()):
        theta = truths(int(np.prod(SHAPE)), ranges, 2)
        series = scan(theta, 30, 3)
        nib.save(nib.Nifti1Image(series.data.reshape(*SHAPE, -1).astype(np.float32), np.eye(4)), f"{what}.nii.gz")
        theirs, theirs_time = peer(what, first=k == 0)
        clock = time.perf_counter()
        result = fit("noddi", series, noise=Rician(S0 / 30))
        row = errors(result, theta, np.ones(len(theta), dtype=bool), what)
        row["voxels/s"], row["AMICO voxels/s"] = len(theta) / (time.perf_counter() - clock), len(theta) / theirs_time
        for j, name in enumerate(NAMES):
            row[f"{name} AMICO"] = np.sqrt(((theirs[:, j] - theta[:, j + 1]) ** 2).mean())
        rows.append(row)
    table = pd.DataFrame(rows).set_index("truth")
    print(table[[c for name in NAMES for c in (name, f"{name} AMICO", f"{name} bound")]].round(4).to_string())
    print(table[["voxels/s", "AMICO voxels/s"]].round().to_string())


def peer(what: str, *, first: bool) -> tuple[np.ndarray, float]:
    """ICVF, ODI and ISOVF (v, 3) of AMICO, and the seconds that its fit takes."""
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
