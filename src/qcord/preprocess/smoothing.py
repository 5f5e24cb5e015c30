"""Smoothing of fields that vary slowly, such as the transmit field, from voxels of unequal trust."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import correlate1d, distance_transform_edt

from qcord.core.arrays import BoolArray, FloatArray
from qcord.core.errors import EmptyRegion, ImplausibleValue
from qcord.core.grid import require_same_grid
from qcord.core.image import Image, Step, mask_of

REFERENCES = ("Knutsson and Westin 1993, doi:10.1109/CVPR.1993.341081",)

_CUT = 3.5
"""Standard deviations at which the kernel ends."""

_FWHM = float(np.sqrt(8 * np.log(2)))
"""Width at half maximum over standard deviation of a Gaussian."""


@dataclass(frozen=True, eq=False)
class Smoothed:
    """A smooth field.

    Parameters
    ----------
    image : Image
        Values; NaN farther than the reach from any voxel that was used.
    std : Image or None
        Their standard error by the noise of independent voxels; None where that was not given. What the smoothing
        takes off the true variation of the field is not in it.
    """

    image: Image
    std: Image | None


def smooth(
    image: Image,
    width: float,
    *,
    mask: Image | None = None,
    std: Image | None = None,
    reach: float | None = None,
) -> Smoothed:
    """Weighted mean of the surroundings of each voxel; missing voxels count nothing and small gaps are filled.

    Parameters
    ----------
    image : Image
        3-D field; NaN where there is no value.
    width : float
        Full width at half maximum of the Gaussian in space [mm], equal in all directions of the world, whatever the
        size of the voxels.
    mask : Image, optional
        Voxels to use; all with a value by default.
    std : Image, optional
        Standard error of each voxel: they count by one over its square, and those without one do not count.
    reach : float, optional
        Distance [mm] from the nearest voxel used up to which a value is given; half the width by default.

    Returns
    -------
    Smoothed
        On the grid of the image.

    Raises
    ------
    ImplausibleValue
        If the width is not positive, or the image has several volumes.
    GridMismatch
        If mask or standard errors lie on another grid.
    EmptyRegion
        If no voxel can be used.

    Notes
    -----
    The axes of the grid are taken to be at right angles, as scanners make them.

    References
    ----------
    Knutsson and Westin 1993, doi:10.1109/CVPR.1993.341081 (normalised convolution).
    """
    if not width > 0 or image.n_volumes != 1:
        raise ImplausibleValue(
            f"{image.label} has {image.n_volumes} volumes and is to be smoothed by {width:g} mm, expected one volume "
            "and a positive width."
        )
    data = np.asarray(image.data, dtype=float).reshape(image.grid.shape)
    used: BoolArray = np.isfinite(data) & mask_of(mask, image.grid)
    weight = np.ones(data.shape)
    if std is not None:
        require_same_grid(std.grid, image.grid, std.label, image.label)
        errors = np.asarray(std.data, dtype=float).reshape(data.shape)
        used &= np.isfinite(errors) & (errors > 0)
        weight = 1 / np.where(used, errors, 1.0) ** 2
    if not used.any():
        raise EmptyRegion(f"{image.label} has no voxel with a value and an error in the mask; check map and mask.")
    weight = np.where(used, weight, 0.0)
    sigma = width / _FWHM / np.array(image.grid.spacing)
    total = _convolved(weight, sigma)
    near = distance_transform_edt(~used, sampling=image.grid.spacing) <= (width / 2 if reach is None else reach)
    near &= total > 0
    divisor = np.where(near, total, 1.0)
    middle = float(np.average(data[used], weights=weight[used]))  # keeps rounding off weights of very unequal size
    value = middle + _convolved(np.where(used, weight * (data - middle), 0.0), sigma) / divisor
    settings = {"width_mm": width, "reach_mm": width / 2 if reach is None else reach, "weighted": std is not None}
    step = Step("smooth", settings, REFERENCES)
    found = image.derive(np.where(near, value, np.nan).astype(np.float32), step)
    if std is None:
        return Smoothed(found, None)
    # the square of a Gaussian is one of 1 / sqrt 2 the width; weights are one over the variance of the voxel
    spread = np.sqrt(np.maximum(_convolved(weight, sigma / np.sqrt(2)), 0)) / divisor
    return Smoothed(found, std.derive(np.where(near, spread, np.nan).astype(np.float32), step))


def _convolved(values: FloatArray, sigma: FloatArray) -> FloatArray:
    """Sum of surrounding values times a Gaussian of height 1, ``sigma`` in voxels along each axis."""
    for axis, width in enumerate(sigma):
        size = min(int(np.ceil(_CUT * width)), values.shape[axis])
        kernel = np.exp(-0.5 * (np.arange(-size, size + 1) / width) ** 2)
        values = correlate1d(values, kernel, axis=axis, mode="constant", cval=0.0)
    return values
