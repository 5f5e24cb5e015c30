"""Bring an image to another grid, explicitly and once."""

from typing import Literal

import numpy as np
from scipy.ndimage import distance_transform_edt, map_coordinates

from qcord.core.arrays import BoolArray, FloatArray
from qcord.core.grid import Grid
from qcord.core.image import Image, Step

ORDER: Literal[3] = 3
"""Cubic splines: little blurring at half-voxel shifts."""


def resample(image: Image, grid: Grid, *, order: Literal[0, 1, 3] = ORDER) -> Image:
    """Resample a 3-D image to a grid.

    Parameters
    ----------
    image : Image
        3-D; NaN is treated as outside.
    grid : Grid
        Where values are wanted.
    order : int
        Of the spline: 3 for signals, 1 for fractions, 0 for labels.

    Returns
    -------
    Image
        On ``grid``; NaN where the image has no value (0 for labels). The same image if the grids agree.
    """
    if image.grid.matches(grid):
        return image
    index = np.moveaxis(np.indices(grid.shape, dtype=float), 0, -1)
    places = np.moveaxis(image.grid.index(grid.world(index)), -1, 0)
    data = np.asarray(image.data, dtype=float)
    known = np.isfinite(data)
    values = map_coordinates(_filled(data, known), places, order=order, mode="nearest")
    if order == 0:
        inside = _inside(places, image.grid)
        result = np.where(inside, values, 0).astype(image.data.dtype)
    else:
        covered = map_coordinates(known.astype(float), places, order=1, mode="constant", cval=0.0)
        result = np.where(covered > 0.99, values, np.nan).astype(np.float32)
    step = Step("resample", {"order": order, "from": repr(image.grid), "to": repr(grid)})
    return Image(result, grid, image.unit, image.entities, (*image.history, step), image.metadata, image.source)


def _filled(data: FloatArray, known: BoolArray) -> FloatArray:
    """Missing values take that of the nearest voxel, so that splines do not ring around them."""
    if known.all() or not known.any():
        return np.where(known, data, 0.0)
    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.asarray(data[tuple(nearest)])


def _inside(places: FloatArray, grid: Grid) -> BoolArray:
    low = (places > -0.5).all(axis=0)
    high = np.stack([places[a] < grid.shape[a] - 0.5 for a in range(3)]).all(axis=0)
    return np.asarray(low & high)
