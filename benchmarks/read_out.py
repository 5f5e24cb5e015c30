"""Shape and extraction beside another tool's values on the very same masks, maps and atlas fields.

Run ``python benchmarks/read_out.py``; the files are looked for in QCORD_TEST_DATA.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from qcord.anatomy.morphometry import morphometry
from qcord.atlas.extract import LEAST_CORD, extract
from qcord.atlas.project import native_atlas
from qcord.ingest.nifti import read_image
from qcord.ingest.pam50 import read_warped_atlas

DATA = Path(os.environ.get("QCORD_TEST_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data")).resolve()
SAME = {
    "area": "MEAN(area)",
    "diameter_AP": "MEAN(diameter_AP_ellipse)",
    "diameter_RL": "MEAN(diameter_RL)",
    "chord_AP": "MEAN(diameter_AP)",
    "eccentricity": "MEAN(eccentricity)",
    "solidity": "MEAN(solidity)",
    "orientation": "MEAN(orientation)",
    "angle_AP": "MEAN(angle_AP)",
    "angle_RL": "MEAN(angle_RL)",
    "length": "SUM(length)",
}


def shape() -> None:
    """Morphometry of masks, slice by slice."""
    masks = DATA / "bids-cord" / "derivatives" / "labels" / "sub-unf05" / "anat"
    for mask, file in (
        (DATA / "crops" / "t2_t2_seg-manual.nii.gz", "csa_testing_t2_perslice"),
        (DATA / "crops" / "t2s_t2s_seg.nii.gz", "csa_testing_t2s_perslice"),
        (masks / "sub-unf05_space-orig_label-SC_desc-MTon_mask.nii.gz", "csa_unf05_MTon_perslice"),
    ):
        own = morphometry(read_image(mask)).metrics
        other = pd.read_csv(DATA / "reference" / f"{file}.csv")
        print(f"{file} ({len(other)} slices)")
        for name, column in SAME.items():
            theirs = other[column].to_numpy()
            absolute = np.nanmedian(np.abs(own[name] - theirs))
            relative = 100 * np.nanmedian(np.abs(own[name] / theirs - 1))
            print(f"   {name:13s} median difference {absolute:7.3f}  {relative:6.2f} %")


def extraction() -> None:
    """Regions of one map, slice by slice."""
    atlas = native_atlas(*read_warped_atlas(DATA / "crops" / "mt_label"))
    value = read_image(DATA / "crops" / "mt_mtr.nii.gz", unit="percent")
    for estimator in ("wa", "map"):
        other = pd.read_csv(DATA / "reference" / f"extract_metric_testing_mtr_{estimator}.csv")
        other = other.rename(columns={"Label": "region", "Slice (I->S)": "slice", f"{estimator.upper()}()": "other"})
        other["slice"] = other["slice"].astype(str)
        for least in (0.0, LEAST_CORD) if estimator == "map" else (0.0,):
            table = extract(value, atlas, by=["slice"], estimators=[estimator], least_cord=least)
            both = other.merge(table, on=["region", "slice"])
            both = both[both["other"].notna() & both["value"].notna()]
            gap = (both["value"] - both["other"]).abs()
            big = gap[both["Size [vox]"] >= 4]
            voxels = f"voxels of at least {least:g} cord" if least else "all voxels"
            print(
                f"{estimator} ({voxels}): {len(both)} rows, median difference {gap.median():.4f}, "
                f"90 % {gap.quantile(0.9):.4f}; regions of 4 voxels or more {big.median():.4f}"
            )


if __name__ == "__main__":
    shape()
    extraction()
