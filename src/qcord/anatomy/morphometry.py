"""Shape of the cord across its own axis: area, diameters, eccentricity, solidity, angles."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial import ConvexHull, QhullError

from qcord.anatomy.centerline import Centerline, centerline_of
from qcord.core.arrays import BoolArray, FloatArray
from qcord.core.flags import Flag
from qcord.core.image import Image

UNITS = {
    "area": "mm2",
    "diameter_AP": "mm",
    "diameter_RL": "mm",
    "chord_AP": "mm",
    "chord_RL": "mm",
    "eccentricity": "1",
    "solidity": "1",
    "orientation": "deg",
    "angle_AP": "deg",
    "angle_RL": "deg",
    "length": "mm",
}
"""Metrics of the shape table and their units."""

FEWEST_VOXELS = 4.0
"""Below this many voxels a slice has no shape to speak of."""


@dataclass(frozen=True, eq=False)
class Shape:
    """Shape of each slice.

    Parameters
    ----------
    metrics : mapping of str to (n_slices,) array
        Keys of `UNITS`; NaN where a slice has no cord.
    touches_edge : (n_slices,) array
        Whether the cord reaches the border of the field of view in plane, which cuts its area.
    """

    metrics: dict[str, FloatArray]
    touches_edge: BoolArray


def morphometry(cord: Image, *, centerline: Centerline | None = None) -> Shape:
    """Measure the shape of the cord in each slice, in the plane perpendicular to its axis.

    A slice cuts the cord obliquely; the outline is projected along the axis, which removes the
    stretching exactly for a cord that is straight over the thickness of the slice.

    Parameters
    ----------
    cord : Image
        Mask (0 / 1) or fraction of each voxel that is cord, axes closest to R, A, S.
    centerline : Centerline, optional
        Axis of the cord; that of the mask by default.

    Returns
    -------
    Shape
        area [mm2]; diameter_AP, diameter_RL [mm] of the ellipse with the same second moments (the
        definition of published norms); chord_AP, chord_RL [mm], the extent through the centre of mass;
        eccentricity of the ellipse; solidity, area over that of the convex hull; orientation [deg] of the
        long axis against the right-left line, positive where the left side lies more anterior;
        angle_AP and angle_RL [deg], the turn of the axis against the slice normal around the AP line
        (positive: leans left) and around the RL line (positive: leans anterior); length [mm] of axis
        within the slice. Names and signs are those of the Spinal Cord Toolbox.
    """
    fraction = np.clip(np.nan_to_num(np.asarray(cord.data, dtype=float)), 0, 1)
    if centerline is None:
        centerline = centerline_of(fraction >= 0.5, cord.grid)
    mass, centre, spread = slice_moments(fraction)
    n = fraction.shape[2]
    valid = mass >= FEWEST_VOXELS
    world = cord.grid.world(np.concatenate([centre, np.arange(n)[:, None]], axis=1))
    along = centerline.project(np.where(valid[:, None], world, centerline.points[0]))[:, 2]
    frame = centerline.frame(along)
    plane = frame[:, :2, :] @ cord.grid.affine[:3, :2]
    metrics = _angles(cord, frame[:, 2, :])
    metrics["area"] = mass * np.abs(np.linalg.det(plane))
    metrics |= _ellipse(plane @ spread @ plane.transpose(0, 2, 1))
    outline = [_outline_metrics(fraction[:, :, k], centre[k], plane[k]) if valid[k] else None for k in range(n)]
    for i, name in enumerate(("solidity", "chord_AP", "chord_RL")):
        metrics[name] = np.array([np.nan if o is None else o[i] for o in outline])
    edge = np.zeros(n, dtype=bool)
    for border in (fraction[0], fraction[-1], fraction[:, 0], fraction[:, -1]):
        edge |= border.max(axis=0) >= 0.5
    return Shape({k: np.where(valid, metrics[k], np.nan) for k in UNITS}, edge & valid)


def shape_table(shape: Shape, level_of_slice: Callable[[int], str] | None = None) -> pd.DataFrame:
    """Long table of slices, then of levels.

    Parameters
    ----------
    shape : Shape
        Result of `morphometry`.
    level_of_slice : callable, optional
        From slice number to level name, empty where unknown.

    Returns
    -------
    DataFrame
        Columns metric, unit, level, slice, value, se, n_slices, flag. A level's value is the mean over its
        slices (its length their sum); its error is that of the mean of the slices' scatter.
    """
    n = len(shape.touches_edge)
    levels = [level_of_slice(k) if level_of_slice else "" for k in range(n)]
    rows = []
    for metric, values in shape.metrics.items():
        for k in range(n):
            flag = _slice_flag(values[k], bool(shape.touches_edge[k]))
            rows.append(
                (metric, UNITS[metric], levels[k], str(k), values[k], np.nan, int(np.isfinite(values[k])), flag)
            )
        for level in dict.fromkeys(x for x in levels if x):
            chosen = np.array([x == level for x in levels]) & ~shape.touches_edge
            rows.append((metric, UNITS[metric], level, "", *_level_row(metric, values[chosen])))
    columns = ["metric", "unit", "level", "slice", "value", "se", "n_slices", "flag"]
    return pd.DataFrame(rows, columns=columns)


def _slice_flag(value: float, at_edge: bool) -> str:
    if not np.isfinite(value):
        return Flag.NO_DATA.word
    return Flag.AT_BOUND.word if at_edge else Flag.OK.word


def _level_row(metric: str, values: FloatArray) -> tuple[float, float, int, str]:
    good = values[np.isfinite(values)]
    if not good.size:
        return np.nan, np.nan, 0, Flag.NO_DATA.word
    if metric == "length":
        return float(good.sum()), np.nan, good.size, Flag.NO_ERROR.word
    if good.size == 1:
        return float(good[0]), np.nan, 1, Flag.NO_ERROR.word
    return float(good.mean()), float(good.std(ddof=1) / np.sqrt(good.size)), good.size, Flag.OK.word


def slice_moments(fraction: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mass (n,), centre (n, 2) and second moments (n, 2, 2) of each slice, in voxels.

    A mask samples the shape at voxel centres; fractions are averages over voxels, which widen it by the second
    moment of a voxel (Sheppard's correction).
    """
    i = np.arange(fraction.shape[0], dtype=float)
    j = np.arange(fraction.shape[1], dtype=float)
    along_i, along_j = fraction.sum(axis=1), fraction.sum(axis=0)
    mass = along_i.sum(axis=0)
    widened = 1 / 12 if ((fraction > 0) & (fraction < 1)).any() else 0.0
    safe = np.where(mass > 0, mass, np.nan)
    ci, cj = i @ along_i / safe, j @ along_j / safe
    ii = (i**2) @ along_i / safe - ci**2 - widened
    jj = (j**2) @ along_j / safe - cj**2 - widened
    ij = np.einsum("i,j,ijk->k", i, j, fraction) / safe - ci * cj
    spread = np.stack([np.stack([ii, ij], -1), np.stack([ij, jj], -1)], -2)
    return mass, np.stack([ci, cj], -1), spread


def _angles(cord: Image, along: FloatArray) -> dict[str, FloatArray]:
    """Angles between axis and slice normal, and length of axis within a slice."""
    normal = np.cross(cord.grid.affine[:3, 0], cord.grid.affine[:3, 1])
    normal = normal / np.linalg.norm(normal)
    axes = cord.grid.rotation
    cosine = along @ normal
    return {
        "angle_RL": np.degrees(np.arctan2(along @ axes[:, 1], cosine)),
        "angle_AP": np.degrees(np.arctan2(-along @ axes[:, 0], cosine)),
        "length": np.abs(cord.grid.affine[:3, 2] @ normal) / cosine,
    }


def _ellipse(spread: FloatArray) -> dict[str, FloatArray]:
    """Diameters, eccentricity and orientation of the ellipse with the given second moments (n, 2, 2) [mm2]."""
    finite = np.asarray(np.isfinite(spread).all(axis=(1, 2)))
    values, vectors = np.linalg.eigh(np.where(finite[:, None, None], spread, np.eye(2)))
    short, long = (4 * np.sqrt(np.maximum(values[:, i], 0)) for i in (0, 1))
    right, anterior = vectors[:, 0, 1], vectors[:, 1, 1]
    lies_right = np.abs(right) >= np.abs(anterior)
    with np.errstate(invalid="ignore", divide="ignore"):
        eccentricity = np.sqrt(1 - (short / long) ** 2)
    angle = np.degrees(np.arctan2(-anterior * np.where(right < 0, -1.0, 1.0), np.abs(right)))
    return {
        "diameter_RL": np.where(lies_right, long, short),
        "diameter_AP": np.where(lies_right, short, long),
        "eccentricity": eccentricity,
        "orientation": angle,
    }


def _outline_metrics(fraction: FloatArray, centre: FloatArray, plane: FloatArray) -> tuple[float, float, float]:
    """Solidity, and chords through the centre along anterior and right [mm], of the outline at one half."""
    points = outline(fraction)
    if len(points) < 3:
        return np.nan, np.nan, np.nan
    xy = (points - centre) @ plane.T
    try:
        hull = ConvexHull(xy).volume
    except QhullError:
        return np.nan, np.nan, np.nan
    solidity = min(1.0, polygon_area(xy) / hull) if hull > 0 else np.nan
    return solidity, _chord(xy, 1), _chord(xy, 0)


def outline(fraction: FloatArray) -> FloatArray:
    """Longest contour (n, 2) of a slice at one half, in voxels; empty if there is none."""
    from contourpy import contour_generator

    padded = np.pad(fraction, 1)
    lines = contour_generator(z=padded.T).lines(0.5)
    closed = [np.asarray(line, dtype=float) - 1 for line in lines]
    return max(closed, key=lambda p: abs(polygon_area(p)), default=np.zeros((0, 2)))


def polygon_area(points: FloatArray) -> float:
    """Area enclosed by a polygon (n, 2)."""
    x, y = points[:, 0], points[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _chord(xy: FloatArray, axis: int) -> float:
    """Length of the line through the origin along an axis, between the outermost crossings of the outline."""
    along, across = xy[:, axis], xy[:, 1 - axis]
    nxt_along, nxt_across = np.roll(along, -1), np.roll(across, -1)
    crosses = (across <= 0) != (nxt_across <= 0)
    if not crosses.any():
        return float("nan")
    share = across[crosses] / (across[crosses] - nxt_across[crosses])
    at = along[crosses] + share * (nxt_along[crosses] - along[crosses])
    return float(at.max() - at.min())
