"""How far a drawn edge lies from the place where brightness is halfway between cord and fluid."""

import numpy as np
from scipy import ndimage

from qcord.core.arrays import FloatArray

SPAN = (-2.5, 3.0)
"""Distances [mm] from the drawn edge that are looked at: inside the outer white matter, out through the fluid."""
STEP = 0.25
"""Spacing [mm] of those distances."""
CLEAREST = 0.5
"""Share of the rays that count, those of greatest contrast: fluid, and not dura or bone, lies outside them."""
FAINT = 0.15
"""Contrast relative to the cord below which the place of the edge cannot be told."""
FARTHEST = 0.4
"""Largest shift [mm] that is believed: less than half a voxel of the usual in-plane size of .8 to 1 mm."""


def half_level_offset(planes: FloatArray, radii: FloatArray, pixel: float) -> float:
    """Mean distance from a drawn edge to the half level between cord and what surrounds it.

    At a straight edge that is blurred by voxels of any size the half level is where the edge is, for bright and dark
    cords alike; one number for the whole image is all that is asked for, so noise hardly matters.

    Parameters
    ----------
    planes : (z, x, y) array
        Sections whose middle is the origin of the radii.
    radii : (z, n) array
        Drawn edge [mm] along n rays.
    pixel : float
        Pixel size [mm].

    Returns
    -------
    float
        Distance [mm], positive outwards; 0 where contrast is faint or no half level lies within `FARTHEST`.
    """
    if len(planes) == 0:
        return 0.0
    distance = np.arange(SPAN[0], SPAN[1] + STEP / 2, STEP)
    profile = _profiles(planes, radii, distance, pixel)
    cord = np.median(profile[:, :, distance < -1], axis=(1, 2))[:, None]
    scale = np.maximum(np.abs(cord), 1e-12)
    outside = (profile[:, :, (distance >= 1) & (distance <= 2)].mean(axis=2) - cord) / scale
    sign = 1.0 if np.median(outside) >= 0 else -1.0
    clear = sign * outside >= np.quantile(sign * outside, 1 - CLEAREST)
    mean = (sign * (profile - cord[:, :, None]) / scale[:, :, None])[clear].mean(axis=0)
    top = float(mean[distance > 0].max())
    if top < FAINT:
        return 0.0
    level = mean / top - 0.5
    crossing = np.flatnonzero((level[:-1] < 0) & (level[1:] >= 0))
    if crossing.size == 0:
        return 0.0
    place = distance[crossing] - STEP * level[crossing] / (level[crossing + 1] - level[crossing])
    offset = float(place[np.argmin(np.abs(place))])
    return offset if abs(offset) <= FARTHEST else 0.0


def _profiles(planes: FloatArray, radii: FloatArray, distance: FloatArray, pixel: float) -> FloatArray:
    """Brightness along each ray at given distances from the edge, (z, n, d)."""
    n = radii.shape[1]
    angle = 2 * np.pi * np.arange(n)[:, None] / n
    middle = (np.array(planes.shape[1:]) - 1) / 2
    out = np.empty((*radii.shape, len(distance)))
    for k, plane in enumerate(planes):
        reach = np.maximum(radii[k][:, None] + distance, 0) / pixel
        place = np.stack([middle[0] + np.cos(angle) * reach, middle[1] + np.sin(angle) * reach])
        out[k] = ndimage.map_coordinates(plane, place, order=1, mode="nearest")
    return out
