"""The whole run on real scans: files, time, memory, and values beside those of other software.

Run ``python benchmarks/first_light.py [files] [zoomed] [tracts] [repeat]``; all parts by default. The scans are looked
for in QCORD_TEST_DATA. ``qcord run`` is started as a user starts it; ``files`` and ``tracts`` give it the masks, levels
and landmarks of ``derivatives/labels``.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from qcord.core.labels import COMBINED, TRACTS

DATA = Path(os.environ.get("QCORD_TEST_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data")).resolve()
RAW, LABELS, TEMPLATE = DATA / "bids-cord", DATA / "bids-cord" / "derivatives" / "labels", DATA / "templates" / "PAM50"
TRACT = {"left": TRACTS[4], "right": TRACTS[5]}


def run(subject: str, out: Path, *more: object) -> tuple[float, float]:
    """Wall time [s] and peak memory [GB] of one run."""
    words = [
        sys.executable,
        "-m",
        "qcord",
        "run",
        RAW,
        out,
        "--participant-label",
        subject,
        "--template",
        TEMPLATE,
        *more,
    ]
    start = time.perf_counter()
    subprocess.run([str(w) for w in words], check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    return wall, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6


def table(out: Path, subject: str, name: str = "atlas") -> pd.DataFrame:
    """One of the tables of a subject, slices and levels as text."""
    path = out / f"sub-{subject}" / f"sub-{subject}_desc-{name}_metrics.tsv"
    return pd.read_csv(path, sep="\t", dtype={"level": str, "slice": str})


def files(folder: Path) -> None:
    """T2w, DWI, MT pair and T2* of one person, landmarks given."""
    wall, memory = run("errsm30", folder, "--derivatives", LABELS)
    home = folder / "sub-errsm30"
    tokens, stem = ("T2w", "T2star", "dwi", "MTR"), "sub-errsm30"
    wanted = [
        f"dwi/{stem}_model-tensor_param-{p}{d}_dwimap.nii.gz"
        for p in ("fa", "md", "ad", "rd")
        for d in ("", "_desc-se")
    ]
    wanted += [f"anat/{stem}{d}_MTRmap.nii.gz" for d in ("", "_desc-se")]
    for t in tokens:
        wanted += [f"anat/{stem}_space-orig_label-SC_desc-{t}_mask.nii.gz"]
        wanted += [f"anat/{stem}_space-orig_label-{x}_desc-{t}_probseg.nii.gz" for x in ("GM", "WM", "canal")]
        wanted += [
            f"anat/{stem}_space-orig_seg-{x}_desc-{t}_dseg{e}"
            for x in ("vertebrae", "discs")
            for e in (".nii.gz", ".tsv")
        ]
        wanted += [f"xfm/{stem}_from-{a}_to-{b}_mode-image_xfm.nii.gz" for a, b in ((t, "PAM50"), ("PAM50", t))]
    wanted += [f"{stem}_desc-{n}_metrics{e}" for n in ("atlas", "morphometry", "quality") for e in (".tsv", ".json")]
    wanted += [f"{stem}.html"]
    absent = [w for w in wanted if not (home / w).is_file()]
    absent += [
        w
        for w in wanted
        if w.endswith(".nii.gz") and "xfm" not in w and not (home / w.replace(".nii.gz", ".json")).is_file()
    ]
    print(f"1  errsm30: {len(wanted)} files of the contract, absent {absent or 'none'}; {wall:.1f} s, {memory:.2f} GB")


def zoomed(folder: Path) -> None:
    """Zoomed DWI and MT triplet, nothing given."""
    wall, memory = run("sct019", folder)
    found = table(folder, "sct019")
    part = found[(found["metric"] == "FA") & (found["estimator"] == "wa") & found["slice"].notna()]
    part = part[part["slice"].astype(float).between(2, 14)]
    for side, name in TRACT.items():
        rows = part[part["region"] == name]
        mean = np.average(rows["value"], weights=rows["n_eff"])
        print(f"2  sct019: FA, weighted mean, {side} lateral corticospinal tract, slices 2-14: {mean:.3f}")
    whole = found[found["slice"].isna() & found["level"].isna() & (found["region"] == "white matter")]
    for estimator in ("map", "ml", "wa"):
        row = whole[(whole["metric"] == "MTR") & (whole["estimator"] == estimator)].iloc[0]
        middle = found[
            (found["metric"] == "MTR") & (found["region"] == "white matter") & (found["estimator"] == estimator)
        ]
        middle = middle[middle["slice"].notna() & middle["slice"].astype(float).between(4, 17)]
        inner = np.average(middle["value"], weights=middle["n_eff"])
        print(
            f"2  sct019: MTR of white matter, {estimator}: {row['value']:.1f} % all slices, {inner:.1f} % slices 4-17"
        )
    anat = folder / "sub-sct019" / "anat"
    cord = np.asarray(nib.load(anat / "sub-sct019_space-orig_label-SC_desc-MTS_mask.nii.gz").dataobj) > 0
    for name in ("MTsat", "T1map"):
        values = np.asarray(nib.load(anat / f"sub-sct019_{name}.nii.gz").dataobj)[cord]
        print(f"2  sct019: {name} finite in {100 * np.isfinite(values).mean():.2f} % of {cord.sum()} cord voxels")
    print(f"2  sct019: {wall:.1f} s, {memory:.2f} GB")


def tracts(folder: Path) -> None:
    """MTR per tract and level with the cord mask and level map of other software, beside its values."""
    run("HC003U", folder, "--derivatives", LABELS)
    other = pd.read_csv(DATA / "reference" / "HC003U_mtr_per_tract_level.csv")
    other = other.rename(columns={"MAP()": "other", "Size [vox]": "size"})
    found = table(folder, "HC003U")
    found = found[(found["metric"] == "MTR") & found["slice"].isna() & found["level"].notna()]
    for estimator in ("map", "ml", "wa"):
        part = found[found["estimator"] == estimator].set_index(["region", "level"])
        rows = [combined(part, str(r["Label"]), str(r["VertLevel"])) for _, r in other.iterrows()]
        both = other.assign(own=[r[0] for r in rows], n_eff=[r[1] for r in rows])
        big = both[both["size"] >= 15]
        signed = big["own"] - big["other"]
        gap = signed.abs()
        print(
            f"3  HC003U {estimator} against MAP: {len(big)} of {len(both)} rows of 15 voxels or more: "
            f"median difference {gap.median():.2f}, mean {signed.mean():+.2f}, 90 % {gap.quantile(0.9):.2f}, "
            f"r {np.corrcoef(big['own'], big['other'])[0, 1]:.3f}"
        )
        if estimator == "map":
            shown = both[["file", "Label", "VertLevel", "size", "n_eff", "other", "own"]]
    print(shown.round(2).to_string(index=False))


def combined(part: pd.DataFrame, label: str, levels: str) -> tuple[float, float]:
    """Value and size of a list of atlas numbers or a name, over a range of levels, from the table's rows."""
    names = [label] if label in COMBINED or label in TRACTS else [TRACTS[int(i)] for i in label.split(",")]
    first, *last = (int(v) for v in levels.split(":"))
    rows = part.loc[[(n, f"C{v}") for n in names for v in range(first, (last or [first])[0] + 1)]]
    return float(np.average(rows["value"], weights=rows["n_eff"])), float(rows["n_eff"].sum())


def repeat(folder: Path) -> None:
    """The same subject twice, and with one and two threads."""
    outputs = []
    for number, threads in enumerate((1, 2, 2)):
        out = folder / f"repeat{number}"
        run("sct019", out, "--n-threads", threads)
        outputs.append(
            [
                (out / "sub-sct019" / f"sub-sct019_desc-{n}_metrics.tsv").read_bytes()
                for n in ("atlas", "morphometry", "quality")
            ]
        )
    print(
        f"10 sct019: tables of 1 and 2 threads identical {outputs[0] == outputs[1]}, "
        f"of two runs {outputs[1] == outputs[2]}"
    )


PARTS = {"files": files, "zoomed": zoomed, "tracts": tracts, "repeat": repeat}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        for part in sys.argv[1:] or PARTS:
            PARTS[part](Path(name))
