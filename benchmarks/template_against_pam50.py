"""The parametric template beside PAM50: overlap, distance of tract centroids, areas.

``--measure`` prints instead the positions of the tracts in PAM50, the content of tract_layout.csv.
"""

import argparse
import os
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from qcord.core.labels import COMBINED, TRACTS
from qcord.template import tables
from qcord.template.outline import Section, exponent_of, widest_row
from qcord.template.parametric import parametric_template

DATA = Path(os.environ.get("QCORD_TEST_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
LAYOUT_LEVELS = ("C2", "C5", "T1", "T6", "T10", "T12")
SHOWN = ("C2", "C4", "C6", "T1", "T6", "T12", "L1")
HALF = 30
SMALLEST_AREA = 0.02


def read_atlas() -> np.ndarray:
    """PAM50's 36 regions around the cord, (x, y, z, region), x from left to right."""
    fields = []
    for number in range(36):
        image = nib.load(DATA / "templates" / "PAM50" / "atlas" / f"PAM50_atlas_{number:02d}.nii.gz")
        field = np.asarray(image.dataobj, dtype=np.float32)
        fields.append(field[::-1][70 - HALF : 71 + HALF, 70 - HALF : 71 + HALF])
    return np.stack(fields, axis=-1)


def centred(atlas: np.ndarray, k: int) -> np.ndarray:
    """One slice, moved so that the cord's centroid lies at y = 0."""
    plane = atlas[:, :, k]
    profile = plane.sum(axis=(0, 2))
    middle = (profile * np.arange(len(profile))).sum() / profile.sum()
    return np.stack([ndimage.shift(plane[..., r], (0, HALF - middle), order=1) for r in range(36)], axis=-1)


def centroid(field: np.ndarray) -> np.ndarray:
    index = np.indices(field.shape) - np.array(field.shape).reshape(2, 1, 1) // 2
    return (index * field).sum(axis=(1, 2)) / field.sum() * tables.SLICE_THICKNESS


def compare(atlas: np.ndarray) -> None:
    start = time.perf_counter()
    template = parametric_template()
    print(f"build time {time.perf_counter() - start:.1f} s, {template.weights.nnz} weights")
    nx, ny, _ = template.grid.shape
    groups = {name: [TRACTS.index(t) for t in members] for name, members in COMBINED.items()}
    own = {name: template.region_field(name) for name in TRACTS}
    rows = {}
    for level in tables.LEVELS:
        low, high = template.discs[_below(level)], template.discs[_above(level)]
        rows[level] = np.flatnonzero((template.slice_heights >= low) & (template.slice_heights < high))
    print("Dice (soft)  " + "".join(f"{name:>18}" for name in groups) + "   centroids [mm] mean, largest")
    distances = []
    for level in SHOWN:
        dice, far = {name: [] for name in groups}, []
        for row in rows[level][::3]:
            if atlas[:, :, row + tables.DISC_SLICES[-1]].sum() < 4:  # PAM50's regions end before its cord does
                continue
            pam = centred(atlas, row + tables.DISC_SLICES[-1])
            pam = pam[HALF - nx // 2 : HALF + nx // 2 + 1, HALF - ny // 2 : HALF + ny // 2 + 1]
            ours = np.stack([own[name][..., row] for name in TRACTS], axis=-1)
            for name, members in groups.items():
                a, b = ours[..., members].sum(axis=-1), pam[..., members].sum(axis=-1)
                dice[name].append(2 * np.minimum(a, b).sum() / (a.sum() + b.sum()))
            large = [r for r in range(36) if min(pam[..., r].sum(), ours[..., r].sum()) * 0.25 > SMALLEST_AREA]
            far.extend(np.linalg.norm(centroid(ours[..., r]) - centroid(pam[..., r])) for r in large)
        distances.extend(far)
        line = "".join(f"{np.mean(values):18.3f}" for values in dice.values())
        print(f"{level:<13}{line}   {np.mean(far):.2f}, {np.max(far):.2f}")
    print(f"mean distance of centroids {np.mean(distances):.2f} mm, 95 % below {np.quantile(distances, 0.95):.2f} mm")


def measure(atlas: np.ndarray) -> None:
    print("level,tract,u,v,spread_u,spread_v,correlation")
    axis = (np.arange(2 * HALF + 1) - HALF) * tables.SLICE_THICKNESS
    x, y = np.meshgrid(axis, axis, indexing="ij")
    for level in LAYOUT_LEVELS:
        row = tables.LEVELS.index(level)
        low, high = tables.DISC_SLICES[row + 1], tables.DISC_SLICES[row]
        quarter = (high - low) // 4
        mean = atlas[:, :, low + quarter : high - quarter].mean(axis=2)
        half = (mean[..., 1::2] + mean[::-1, :, 0::2]) / 2
        total = half.sum(axis=-1)
        middle = (total * y).sum() / total.sum()
        ap, rl = tables.CORD_AP[row], tables.CORD_RL[row]
        exponent = exponent_of(tables.CORD_AREA[row] / (ap * rl))
        sizes = [np.asarray(s, dtype=float) for s in (ap, rl, exponent, widest_row(ap, exponent), 1, 1, 0)]
        u, v = Section(*sizes).disc(x, y - middle)
        for name, field in zip(tables.HALF_TRACTS, np.moveaxis(half, -1, 0), strict=True):
            weight = field / field.sum()
            cu, cv = (weight * u).sum(), (weight * v).sum()
            su, sv = (np.sqrt((weight * (a - c) ** 2).sum()) for a, c in ((u, cu), (v, cv)))
            r = (weight * (u - cu) * (v - cv)).sum() / max(su * sv, 1e-9) if min(su, sv) >= 0.02 else 0
            print(f"{level},{name},{cu:.2f},{cv:.2f},{max(su, 0.02):.2f},{max(sv, 0.02):.2f},{r:.1f}")


def _above(level: str) -> str:
    return list(tables.disc_heights())[tables.LEVELS.index(level)]


def _below(level: str) -> str:
    return list(tables.disc_heights())[tables.LEVELS.index(level) + 1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true")
    chosen = parser.parse_args()
    (measure if chosen.measure else compare)(read_atlas())
