"""How far a drawn edge lies from the place where brightness is halfway between cord and fluid."""

import numpy as np
from scipy import ndimage

from qcord.core.arrays import BoolArray, FloatArray

SPAN = (-2.5, 2.0)
"""Distances [mm] from the drawn edge that are looked at: inside the outer white matter, out through the fluid."""
STEP = 0.25
"""Spacing [mm] of those distances."""
INSIDE, OUTSIDE = (-1.5, -0.75), (0.75, 1.5)
"""Distances [mm] whose mean is the level on either side: as far from the edge on both, so that blur moves neither, and
near it, since white matter differs from gray, and fluid is but a few mm wide."""
CLEAREST = 0.5
"""Share of the rays that count, those of greatest contrast: fluid, and not dura or bone, lies outside them."""
FAINT = 0.15
"""Contrast relative to the cord below which the place of the edge cannot be told."""
FARTHEST = 0.4
"""Largest shift [mm] that is believed: less than half a voxel of the usual in-plane size of .8 to 1 mm."""
ROUNDS = 2
"""Looks at the edge: the levels on either side are those of the place that the first look found."""
SECTORS, SEEN = 8, 6
"""Directions for which the edge is looked for, and in how many it must be seen to tell where the cord lies."""


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
    offset = 0.0
    for _ in range(ROUNDS if len(planes) else 0):
        distance, profile, contrast = _relative(planes, radii + offset, pixel)
        offset += _crossing(profile[_clearest(contrast)].mean(axis=0), distance)
        if not abs(offset) <= FARTHEST:
            return 0.0
    return offset


def half_level_shift(planes: FloatArray, radii: FloatArray, pixel: float) -> FloatArray:
    """Distance from a drawn edge to the half level by direction: the same all around, and a shift to one side.

    Parameters are those of `half_level_offset`.

    Returns
    -------
    (n,) array
        Distance [mm] along each ray, positive outwards; 0 where too few directions show the edge.
    """
    shift = np.zeros(radii.shape[1])
    for _ in range(ROUNDS if len(planes) else 0):
        shift = shift + _sideways(planes, np.maximum(radii + shift, 0), pixel)
        if not np.abs(shift).max() <= FARTHEST:
            return np.zeros_like(shift)
    return shift


def _sideways(planes: FloatArray, radii: FloatArray, pixel: float) -> FloatArray:
    """Shift (n,) by one look at the edge; NaN where too few directions show it."""
    n = radii.shape[1]
    distance, profile, contrast = _relative(planes, radii, pixel)
    usual = contrast[_clearest(contrast)].mean()
    angle = 2 * np.pi * np.arange(n) / n
    sector = np.arange(n) * SECTORS // n
    places, middles = np.full(SECTORS, np.nan), np.empty(SECTORS)
    for k in range(SECTORS):
        own = sector == k
        clear = _clearest(contrast[:, own])
        middles[k] = angle[own].mean()
        if contrast[:, own][clear].mean() > usual / 2:
            places[k] = _crossing(profile[:, own][clear].mean(axis=0), distance)
    seen = np.isfinite(places)
    if seen.sum() < SEEN:
        return np.full(n, np.nan)
    found = np.linalg.lstsq(_waves(middles[seen]), places[seen], rcond=None)[0]
    return np.asarray(_waves(angle) @ found)


def _waves(angle: FloatArray) -> FloatArray:
    return np.column_stack([np.ones_like(angle), np.cos(angle), np.sin(angle)])


def _clearest(contrast: FloatArray) -> BoolArray:
    return np.asarray(contrast >= np.quantile(contrast, 1 - CLEAREST))


def _relative(planes: FloatArray, radii: FloatArray, pixel: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Distances (d,), brightness (z, n, d) less that of the cord and relative to it, and contrast (z, n).

    Both rise outwards, for dark fluid too.
    """
    distance = np.arange(SPAN[0], SPAN[1] + STEP / 2, STEP)
    profile = _profiles(planes, radii, distance, pixel)
    cord = np.median(profile[:, :, distance < -1], axis=(1, 2))[:, None, None]
    profile = (profile - cord) / np.maximum(np.abs(cord), 1e-12)
    contrast = profile[:, :, (distance >= 1) & (distance <= 2)].mean(axis=2)
    sign = 1.0 if np.median(contrast) >= 0 else -1.0
    return distance, sign * profile, sign * contrast


def _crossing(profile: FloatArray, distance: FloatArray) -> float:
    """Distance [mm] of the half level of one profile that is nearest to the drawn edge; NaN where there is none."""
    inside, outside = (profile[(distance >= low) & (distance <= high)].mean() for low, high in (INSIDE, OUTSIDE))
    if outside - inside < FAINT:
        return np.nan
    level = (profile - inside) / (outside - inside) - 0.5
    crossing = np.flatnonzero((level[:-1] < 0) & (level[1:] >= 0))
    if crossing.size == 0:
        return np.nan
    place = distance[crossing] - STEP * level[crossing] / (level[crossing + 1] - level[crossing])
    nearest = float(place[np.argmin(np.abs(place))])
    return nearest if abs(nearest) <= FARTHEST else np.nan


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
