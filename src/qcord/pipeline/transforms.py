"""Transforms as displacement fields that ITK-based tools read, both ways."""

import gzip

import nibabel as nib
import numpy as np

from qcord.anatomy.register import Registration
from qcord.core.arrays import FloatArray
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.pipeline.store import COMPRESSION

MARGIN = 6.0
"""Distance [mm] around the cord that a field covers in an image; the fluid and the roots lie within it."""

LPS = np.array([-1.0, -1.0, 1.0])
"""ITK's world axes run left, posterior, superior."""


def field_on_template(registration: Registration) -> tuple[Grid, FloatArray]:
    """Displacements [mm, RAS] from each voxel of the template to its place in the image.

    Resampling the image at these places brings it to the template. The field covers the heights that the image
    shows, at least one.
    """
    grid = registration.template.grid
    heights = registration.levels.height_at(registration.subject_length[registration.subject.present])
    z = registration.template.slice_heights
    rows = np.flatnonzero((z >= heights.min()) & (z <= heights.max()))
    if not rows.size:  # a single slice, or thin ones, between two of the template
        rows = np.array([np.argmin(np.abs(z - heights.mean()))])
    cut = grid.crop((0, 0, int(rows[0])), (grid.shape[0], grid.shape[1], int(rows[-1]) + 1))
    places = cut.world(_indices(cut))
    return cut, np.asarray(registration.to_subject(places) - places, dtype=np.float32)


def field_on_image(registration: Registration, cord: Image) -> tuple[Grid, FloatArray]:
    """Displacements [mm, RAS] from each voxel around the cord of an image to its place in the template.

    Resampling the template at these places brings it to the image.
    """
    inside = np.argwhere(np.nan_to_num(np.asarray(cord.data, dtype=float)) >= 0.5)
    margin = np.ceil(MARGIN / np.array(cord.grid.spacing)).astype(int) * np.array([1, 1, 0])
    start = np.maximum(inside.min(axis=0) - margin, 0)
    stop = np.minimum(inside.max(axis=0) + 1 + margin, cord.grid.shape)
    cut = cord.grid.crop(start, stop)
    places = cut.world(_indices(cut))
    return cut, np.asarray(registration.to_template(places) - places, dtype=np.float32)


def field_bytes(grid: Grid, displacement: FloatArray) -> bytes:
    """NIfTI-1 content (x, y, z, 1, 3) with vector intent, displacements in ITK's axes, gzip-compressed."""
    data = np.asarray(displacement * LPS, dtype=np.float32)[:, :, :, None, :]
    nifti = nib.Nifti1Image(data, grid.affine)
    nifti.set_qform(grid.affine, 1)
    nifti.set_sform(grid.affine, 1)
    nifti.header.set_intent("vector")
    nifti.header.set_xyzt_units("mm", "sec")
    return gzip.compress(nifti.to_bytes(), COMPRESSION, mtime=0)


def _indices(grid: Grid) -> FloatArray:
    return np.moveaxis(np.indices(grid.shape, dtype=float), 0, -1)
