"""Difference of the proton frequency across slices, from a field map."""

import numpy as np

from qcord.core.errors import ImplausibleValue
from qcord.core.grid import Grid
from qcord.core.image import Image, Step
from qcord.preprocess.resample import resample

REFERENCES = ("Hernando, Vigen, Shimakawa and Reeder 2012, doi:10.1002/mrm.23306",)


def frequency_spread(field: Image, grid: Grid, thickness: float | None = None) -> Image:
    """Field gradient along the normal of the slices times their thickness.

    Parameters
    ----------
    field : Image
        Field map [Hz], 3-D, with at least two voxels along each axis; NaN where unknown. Best smoothed
        (`qcord.preprocess.smoothing.smooth`), as noise of the map widens the spread.
    grid : Grid
        Grid of the gradient echoes. Its slices lie across the axis of the largest voxel size.
    thickness : float, optional
        Slice thickness [mm]; by default the voxel size along that axis.

    Returns
    -------
    Image
        On ``grid`` [1/s]: the given parameter ``FrequencySpread`` of the model ``r2star``.

    Raises
    ------
    ImplausibleValue
        If the map has several volumes or a single slice.

    References
    ----------
    Hernando, Vigen, Shimakawa and Reeder 2012, doi:10.1002/mrm.23306.
    """
    if field.n_volumes != 1 or min(field.grid.shape) < 2:
        raise ImplausibleValue(
            f"{field.label} has {field.n_volumes} volumes of {field.grid.shape} voxels, expected one volume with at "
            "least two voxels along each axis."
        )
    axis = int(np.argmax(grid.spacing))
    normal = np.linalg.inv(grid.affine[:3, :3])[axis]
    normal /= np.linalg.norm(normal)
    steps = np.stack(np.gradient(np.asarray(field.data, dtype=float).reshape(field.grid.shape)), axis=-1)
    gradient = np.einsum("...k,kw,w->...", steps, np.linalg.inv(field.grid.affine[:3, :3]), normal)
    width = grid.spacing[axis] if thickness is None else thickness
    step = Step("frequency_spread", {"thickness_mm": float(width), "normal": normal.round(6).tolist()}, REFERENCES)
    found = field.derive((gradient * width).astype(np.float32), step, unit="1/s")
    return resample(found, grid, order=1)
