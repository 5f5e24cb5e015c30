from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from qcord.core.labels import COMBINED, TRACTS
from qcord.template import tables

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def pam50(data_dir) -> Path:
    return data_dir / "templates" / "PAM50"


def _slice(folder: Path, k: int) -> np.ndarray:
    """PAM50's regions in one slice, x from left to right, the centroid moved to the middle."""
    fields = []
    for number in range(36):
        image = nib.load(folder / "atlas" / f"PAM50_atlas_{number:02d}.nii.gz")
        fields.append(np.asarray(image.dataobj[:, :, k], dtype=float)[::-1])
    plane = np.stack(fields, axis=-1)
    profile = plane.sum(axis=(0, 2))
    middle = (profile * np.arange(len(profile))).sum() / profile.sum()
    return ndimage.shift(plane, (0, plane.shape[1] // 2 - middle, 0), order=1)


@pytest.mark.parametrize("level", ["C4", "T6"])
def test_layout_resembles_pam50(pam50, template, level):
    """A quarter of a pixel along each border costs 5 to 10 % of overlap at these sizes, hence the limit of 0.85."""
    k = round((template.vertebra_middles[level] - tables.HEIGHT_OF_SLICE_0) / tables.SLICE_THICKNESS)
    theirs = _slice(pam50, k)
    row = int(np.argmin(np.abs(template.slice_heights - template.vertebra_middles[level])))
    ours = np.stack([template.region_field(name)[..., row] for name in TRACTS], axis=-1)
    lo = [(a - b) // 2 for a, b in zip(theirs.shape, ours.shape, strict=True)]
    theirs = theirs[lo[0] : lo[0] + ours.shape[0], lo[1] : lo[1] + ours.shape[1]]
    for name, members in COMBINED.items():
        chosen = [TRACTS.index(m) for m in members]
        a, b = ours[..., chosen].sum(axis=-1), theirs[..., chosen].sum(axis=-1)
        dice = 2 * np.minimum(a, b).sum() / (a.sum() + b.sum())
        assert dice > 0.85, f"{name}: {dice:.2f}"
    index = np.indices(ours.shape[:2])
    for region, name in enumerate(TRACTS):
        if theirs[..., region].sum() * 0.25 < 0.3:
            continue
        a, b = ((index * f[..., region]).sum(axis=(1, 2)) / f[..., region].sum() for f in (ours, theirs))
        assert np.linalg.norm(a - b) * 0.5 < 0.9, name


def test_discs_have_the_heights_of_pam50(pam50, template):
    image = nib.load(pam50 / "template" / "PAM50_label_disc.nii.gz")
    data = np.asarray(image.dataobj)
    for number, (name, height) in enumerate(template.discs.items(), start=1):
        found = np.argwhere(data == number)
        if len(found) == 0:
            continue
        z = float(found[:, 2].mean()) * 0.5 + image.affine[2, 3]
        assert height == pytest.approx(z, abs=1.0), name
