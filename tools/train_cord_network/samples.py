"""Training samples: a section painted in several contrasts, acquired, normalised as the package normalises."""

import numpy as np
from acquisition import acquire, draw_view
from contrasts import INDEX, draw_contrast
from scene import KIND_WEIGHTS, KINDS, Field, draw_canvas, paint_section

from qcord.anatomy.network import COARSE, FINE, View, normalize

CONTRASTS = 4
"""Contrasts painted from one section: the geometry is the slow part."""
MARGIN = 8
"""Pixels painted beyond each side, to be cropped: the Fourier transform is periodic."""


def draw_samples(rng: np.random.Generator, view: View) -> tuple[Field, Field]:
    """Inputs (`CONTRASTS`, 2, n, n) and cord shares (`CONTRASTS`, 1, n, n) of one section."""
    kind = KINDS[int(rng.choice(len(KINDS), p=KIND_WEIGHTS))]
    fine = view is FINE
    centre = rng.normal(0, 3.5, 2) if fine else rng.uniform(-45, 45, 2)
    if fine and rng.random() < 0.1:
        centre = rng.normal(0, 22, 2)
    families, tables = zip(*(draw_contrast(rng) for _ in range(CONTRASTS)), strict=True)
    brightness = np.stack(tables)
    size = view.size + 2 * MARGIN
    canvas = draw_canvas(rng, (size, size), view.spacing, (float(centre[0]), float(centre[1])), brightness)
    paint_section(rng, canvas, kind)
    crop = np.s_[MARGIN:-MARGIN, MARGIN:-MARGIN]
    middle = (view.size / 2 - centre[0] / view.spacing, view.size / 2 - centre[1] / view.spacing)
    inputs, targets = [], []
    for family, image, table in zip(families, canvas.images, brightness, strict=True):
        measured = acquire(rng, image, canvas.x, canvas.y, view.spacing)[crop]
        inside = draw_view(rng, measured.shape, view.spacing, middle)
        hint = np.sign(table[INDEX["white"]] - table[INDEX["fluid"]]) * (rng.random() < 0.5)
        # Diffusion weighting hides the width of the sac, by which alone medulla and cord are told apart.
        cord = np.maximum(canvas.cord, canvas.medulla) if family == "dwi" else canvas.cord
        target = cord[crop] * inside
        plane = normalize((measured * inside)[None], inside[None], view)[0]
        if rng.random() < 0.5:
            plane, target, inside = plane[::-1], target[::-1], inside[::-1]
        inputs.append(np.stack([plane, np.full_like(plane, hint)]))
        targets.append(target[None])
    return np.stack(inputs).astype(np.float32), np.stack(targets).astype(np.float32)


__all__ = ["COARSE", "CONTRASTS", "FINE", "draw_samples"]
