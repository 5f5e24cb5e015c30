"""Fits of real scans: the tensor beside DIPY's and by two estimators, MTsat and T1 by closed form and by joint fit.

Run ``python benchmarks/models_on_scans.py``. The scans are looked for in QCORD_TEST_DATA. All values are of voxels that
are at least half cord.
"""

import os
from pathlib import Path

import numpy as np
from dipy.core.gradients import gradient_table
from dipy.reconst.dti import TensorModel

from qcord.anatomy.segment import segment_cord
from qcord.core.arrays import BoolArray
from qcord.core.fit import Fit
from qcord.core.flags import Flag
from qcord.core.image import Image
from qcord.core.noise import Gaussian
from qcord.ingest.bids import find_scans, find_visits
from qcord.ingest.series import group_scans
from qcord.maps.fit import fit
from qcord.pipeline.prepare import Prepared, prepare
from qcord.pipeline.settings import Settings

DATA = Path(os.environ.get("QCORD_TEST_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data")).resolve()
SUBJECTS = ("sct019", "errsm30")


def main() -> None:
    visits = {v.subject: v for v in find_visits(DATA / "bids-cord")}
    for subject in SUBJECTS:
        groups, _ = group_scans(find_scans(DATA / "bids-cord", visits[subject]))
        for group in groups:
            if group.kind == "dwi":
                tensor(subject, prepare(group, Settings(denoise=False)))
            elif group.kind == "mt":
                transfer(subject, prepare(group, Settings()))


def tensor(subject: str, one: Prepared) -> None:
    """Tensor by weighted least squares, nonlinear least squares, and DIPY."""
    assert one.series is not None
    mask = cord(one)
    inside = mask.data.astype(bool)
    linear = fit("tensor", one.series, mask)
    other = fit("tensor", one.series, mask, method="nonlinear")
    protocol = one.series.protocol
    table = gradient_table(protocol["BValue"], bvecs=protocol["Direction"], b0_threshold=50)
    peer = TensorModel(table, fit_method="WLS", min_signal=1e-6).fit(one.series.data[inside].astype(float))
    for name, values in (("FA", peer.fa), ("MD", peer.md)):
        own = linear[name].data[inside]
        gap = np.nanmedian(np.abs(own - values) / values)
        apart = np.nanmedian(np.abs(other[name].data[inside] - own) / linear.std[name].data[inside])
        print(
            f"{subject} {name}: median {np.nanmedian(own):.4g}, "
            f"error a voxel {np.nanmedian(linear.std[name].data[inside]):.2g};"
            f" DIPY {np.median(values):.4g}, median relative difference {gap:.1e};"
            f" nonlinear apart by {apart:.2f} standard errors"
        )
    outcome(f"{subject} tensor", linear, inside)


def transfer(subject: str, one: Prepared) -> None:
    """MTsat and T1 by closed form, by joint fit of the same formula, and of the exact steady state."""
    assert one.series is not None
    mask = cord(one)
    inside = mask.data.astype(bool)
    if len(one.series.protocol) < 3:
        ratio = fit("mtr", one.series, mask, noise=one.sigma)
        print(f"{subject} MTR: median {np.nanmedian(ratio['MTR'].data[inside]):.1f} %")
        return
    assert one.sigma is not None
    noise = Gaussian(np.asarray(one.sigma.data, dtype=float))
    closed = fit("mtsat", one.series, mask, noise=one.sigma)
    joint = fit("mtsat", one.series, mask, method="nonlinear", noise=noise)
    exact = fit("mtsat-ernst", one.series, mask, noise=noise)
    for name in ("MTsat", "T1"):
        a, b, c = (f[name].data[inside] for f in (closed, joint, exact))
        gap = np.abs(a - b) / closed.std[name].data[inside]
        print(
            f"{subject} {name}: median {np.nanmedian(a):.4g}, joint fit {np.nanmedian(b):.4g}, apart by "
            f"{np.nanmedian(gap):.1e} standard errors (99 %: {np.nanquantile(gap, 0.99):.1e}); "
            f"exact steady state {np.nanmedian(c / a) - 1:+.1%}"
        )
    print(f"{subject} T1 is stated as: {closed['T1'].history[-1].settings['B1']}")
    print(f"{subject} joint fit assumed: {joint['T1'].history[-1].settings['assumed']}")
    outcome(f"{subject} MTsat", closed, inside)


def cord(one: Prepared) -> Image:
    """Voxels of at least half cord."""
    return segment_cord(one.image, one.contrast).mask


def outcome(what: str, result: Fit, inside: BoolArray) -> None:
    """Print how many voxels have which flag."""
    flags, counts = np.unique(result.flag.data[inside].astype(int), return_counts=True)
    print(f"{what}: " + ", ".join(f"{n} {Flag(f).word}" for f, n in zip(flags, counts, strict=True)))


if __name__ == "__main__":
    main()
