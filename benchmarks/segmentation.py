"""Cord masks against the masks that exist for the real scans: overlap, area, time.

Run ``python benchmarks/segmentation.py [agreement | part of a name ...]``; the scans are looked for in QCORD_TEST_DATA.
The masks judge, they are never an input. ``agreement`` prints, of anatomical contrasts, how areas by qcord relate to
those of the masks, with the spread between people: the numbers of `qcord.normative.outlines`. "manual" masks were drawn
by people on that image; "software" masks come from other programs (and some are generous); "rough" ones only mark the
place, so their overlap says little.
"""

import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from qcord.anatomy.segment import segment_cord
from qcord.core.errors import QcordError
from qcord.core.grid import Grid, reorient
from qcord.core.image import Image

DATA = Path(os.environ.get("QCORD_TEST_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data")).resolve()
BIDS, LABELS, CROPS, REFERENCE = "bids-cord", "bids-cord/derivatives/labels", "crops", "reference"


@dataclass(frozen=True)
class Case:
    """One scan; ``volumes`` selects diffusion volumes: those below (b0) or above (dwi) b = 50 s/mm2."""

    name: str
    contrast: str
    scan: str
    judge: str | None = None
    kind: str = ""


def cases() -> list[Case]:
    """All scans with and without a judge."""
    out = []
    for s in ("errsm11", "errsm21", "errsm22", "errsm30", "lumbar"):
        mask = f"{LABELS}/sub-{s}/anat/sub-{s}_space-orig_label-SC_desc-T2w_mask.nii.gz"
        out.append(Case(f"{s} T2w", "T2w", f"{BIDS}/sub-{s}/anat/sub-{s}_T2w.nii.gz", mask, "manual"))
    for s in ("gm9584", "gm9604", "gm9709/ses-1", "gm9709/ses-2"):
        name = f"sub-{s}".replace("/", "_")
        for run in (1, 2):
            mask = f"{LABELS}/sub-{s}/anat/{name}_space-orig_label-SC_desc-T2starRun{run}_mask.nii.gz"
            scan = f"{BIDS}/sub-{s}/anat/{name}_run-{run}_T2star.nii.gz"
            out.append(Case(f"{s} T2star run {run}", "T2star", scan, mask, "manual"))
    out.append(Case("crop T1w", "T1w", f"{CROPS}/t1_t1w.nii.gz", f"{CROPS}/t1_t1w_seg-manual.nii.gz", "manual"))
    for s, flip, state, kind in (
        *(("unf05", "flip-1_", "on", "manual"), ("unf05", "flip-1_", "off", "manual")),
        *(("unf03", "flip-1_", "on", ""), ("unf03", "flip-1_", "off", "")),
        *(("HC003U", "flip-1_", "on", "software"), ("HC003U", "flip-1_", "off", "software")),
        ("HC003U", "flip-2_", "off", "software"),
        *(
            ("sct019", "flip-1_", "on", "rough"),
            ("sct019", "flip-1_", "off", "rough"),
            ("sct019", "flip-2_", "off", "rough"),
        ),
        *(("errsm30", "", "on", ""), ("errsm30", "", "off", "")),
    ):
        suffix = "MTS" if flip else "MTR"
        mask = f"{LABELS}/sub-{s}/anat/sub-{s}_space-orig_label-SC_desc-MTon_mask.nii.gz"
        mask = f"{REFERENCE}/sct019_mt_cord.nii.gz" if s == "sct019" else mask
        contrast = "T1w" if flip == "flip-2_" else f"MT{state}"
        scan = f"{BIDS}/sub-{s}/anat/sub-{s}_{flip}mt-{state}_{suffix}.nii.gz"
        out.append(Case(f"{s} {contrast}", contrast, scan, mask, kind))
    mask = f"{LABELS}/sub-HC003U/anat/sub-HC003U_space-orig_label-SC_desc-T2star_mask.nii.gz"
    out.append(Case("HC003U T2star", "T2star", f"{BIDS}/sub-HC003U/anat/sub-HC003U_T2star.nii.gz", mask, "software"))
    out.append(Case("errsm30 T2star", "T2star", f"{BIDS}/sub-errsm30/anat/sub-errsm30_T2star.nii.gz"))
    out.append(Case("ms T2w", "T2w", f"{BIDS}/sub-ms/anat/sub-ms_acq-ax_T2w.nii.gz"))
    for s, mask in (("sct019", f"{REFERENCE}/sct019_dmri_cord.nii.gz"), ("errsm30", None)):
        out += [Case(f"{s} {c}", c, f"{BIDS}/sub-{s}/dwi/sub-{s}_dwi.nii.gz", mask, "rough") for c in ("dwi", "b0")]
    out.append(Case("errsm30 bold", "bold", f"{BIDS}/sub-errsm30/func/sub-errsm30_task-rest_bold.nii.gz"))
    for scan, judge, contrast in (
        *(("t2_t2", "t2_t2_seg-manual", "T2w"), ("t2_t2_fake_lesion", "t2_t2_fake_lesion_sc_seg", "T2w")),
        *(("t2s_t2s", "t2s_t2s_seg", "T2star"), ("mt_mt1", "mt_mt1_seg", "MTon"), ("mt_mt0", "mt_mt1_seg", "MToff")),
    ):
        out.append(Case(f"crop {scan}", contrast, f"{CROPS}/{scan}.nii.gz", f"{CROPS}/{judge}.nii.gz", "software"))
    return out


def read(path: Path, contrast: str) -> Image:
    """One volume; the mean of the right ones of a series."""
    file = nib.load(path)
    data = np.asarray(file.dataobj, dtype=np.float32)
    if data.ndim == 4:
        select = np.ones(data.shape[3], dtype=bool)
        bval = path.with_name(path.name.replace(".nii.gz", ".bval"))
        if bval.exists():
            select = (np.loadtxt(bval) > 50) == (contrast == "dwi")
        data = data[..., select].mean(axis=-1)
    data, grid = reorient(data, Grid(data.shape, file.affine), "RAS")
    return Image(np.ascontiguousarray(data), grid)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Dice coefficient."""
    return float(2 * (first & second).sum() / max(1, first.sum() + second.sum()))


def row(case: Case) -> tuple[str, float]:
    """Measure one case; the area over that of the judge is NaN where there is none."""
    image = read(DATA / case.scan, case.contrast)
    began = time.perf_counter()
    try:
        found = segment_cord(image, case.contrast)
    except QcordError as error:
        return f"{case.name:24s} {error}", np.nan
    seconds = time.perf_counter() - began
    on = found.confidence > 0
    pixel = image.grid.spacing[0] * image.grid.spacing[1]
    area = found.probability.data.sum(axis=(0, 1)) * pixel
    text = f"{case.name:24s} {seconds:5.2f} s  slices {on.sum():3d}/{len(on):3d}  area {area[on].mean():5.1f} mm2"
    judge = DATA / case.judge if case.judge else None
    if judge is None or not judge.exists():
        return text, np.nan
    mask = read(judge, case.contrast).data > 0.5
    both = on & mask.any(axis=(0, 1))
    ratio = area[both].sum() / (mask.sum(axis=(0, 1))[both].sum() * pixel)
    common = overlap(found.mask.data[..., both], mask[..., both])
    text += f"  Dice {overlap(found.mask.data, mask):.3f}  in slices of both {common:.3f}"
    return text + f"  area ratio {ratio:.3f}  ({case.kind})", float(ratio)


def agreement() -> None:
    """Mean logarithm of the ratio of areas by contrast, a person counting once, and the spread between people."""
    found: dict[str, dict[str, list[float]]] = {}
    for case in cases():
        if case.contrast in {"T2w", "T2star", "T1w"} and case.kind in {"manual", "software"}:
            first, second = case.name.split()[:2]
            person = second if first == "crop" else first.partition("/")[0]
            text, ratio = row(case)
            if np.isfinite(ratio):
                print(text, flush=True)
                found.setdefault(case.contrast, {}).setdefault(person, []).append(float(np.log(ratio)))
    squares, freedom = 0.0, 0
    for contrast, people in found.items():
        logs = np.array([np.mean(own) for own in people.values()])
        squares, freedom = squares + float(((logs - logs.mean()) ** 2).sum()), freedom + len(logs) - 1
        print(f"{contrast}: mean logarithm {logs.mean():.3f}, {len(logs)} people")
    print(f"spread between people {np.sqrt(squares / freedom):.3f}, {freedom} degrees of freedom")


def main() -> None:
    words = sys.argv[1:]
    if words == ["agreement"]:
        agreement()
        return
    for case in cases():
        if not words or any(w in case.name for w in words):
            print(row(case)[0], flush=True)
    print(f"largest memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
