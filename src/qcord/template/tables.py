"""Numbers of the parametric template: heights and sizes of the levels C1 to L1, tract areas and tract positions.

All were measured on the PAM50 template (De Leener et al. 2018, doi:10.1016/j.neuroimage.2017.10.041) and its atlas
(Lévy et al. 2015, doi:10.1016/j.neuroimage.2015.06.040): means over the slices of each vertebral level. They are
sizes and positions, not images.
"""

import csv
from functools import lru_cache
from importlib import resources

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.core.labels import DISCS, TRACTS, VERTEBRAE

LEVELS = VERTEBRAE[:20]
"""Vertebral levels that the template covers, C1 to L1."""

HALF_TRACTS: tuple[str, ...] = tuple(name.split(" ", 2)[2] for name in TRACTS[1::2])
"""Names of the 18 regions of one half of the cord, in the order of `qcord.core.labels.TRACTS`."""

SLICE_THICKNESS = 0.5
"""Distance [mm] of the slices that the indices below count."""

HEIGHT_OF_SLICE_0 = -561.84
"""World height [mm] of slice 0 of PAM50, so that a level has the same height in both templates."""

DISC_SLICES = (985, 939, 908, 871, 834, 801, 770, 736, 693, 647, 601, 552, 501, 450, 397, 343, 290, 232, 169, 106, 39)
"""Slice of each disc, from the top of C1 to L1/L2."""

CORD_AREA = np.array(
    [
        *(63.14, 63.60, 66.41, 72.67, 71.48, 63.48, 50.72, 44.23, 40.92, 39.00),
        *(36.39, 33.64, 34.05, 34.80, 35.75, 36.96, 37.28, 37.89, 34.13, 8.60),
    ]
)
"""Cross-section [mm2] of the cord at each level."""

CORD_AP = np.array(
    [
        *(7.76, 7.50, 7.50, 7.50, 7.39, 6.94, 6.29, 6.03, 6.00, 6.00),
        *(6.00, 6.00, 5.86, 5.66, 5.87, 5.94, 6.00, 6.21, 5.74),
    ]
)
"""Anterior-posterior diameter [mm] of the cord, C1 to T12 (the mean over L1 includes slices below the cord)."""

CORD_RL = np.array(
    [
        *(10.70, 11.50, 12.01, 12.50, 12.50, 12.18, 10.50, 9.57, 9.43, 8.85),
        *(8.50, 8.26, 8.17, 8.50, 8.50, 8.50, 8.14, 7.64, 7.60),
    ]
)
"""Right-left diameter [mm] of the cord, C1 to T12."""

FLUID_AREA = np.array(
    [
        *(246.08, 165.77, 124.22, 115.16, 107.18, 111.69, 124.24, 111.61, 101.29, 96.43),
        *(90.18, 89.48, 92.75, 97.25, 101.12, 98.95, 103.04, 125.48, 173.45, 188.83),
    ]
)
"""Cross-section [mm2] of the fluid between cord and dura."""

CANAL_ASPECT = np.array(
    [
        *(0.78, 0.70, 0.69, 0.70, 0.69, 0.73, 0.78, 0.84, 0.90, 0.92),
        *(0.91, 0.90, 0.90, 0.94, 0.95, 0.92, 0.90, 0.91, 0.90, 0.85),
    ]
)
"""Anterior-posterior over right-left diameter of the dural sac."""

CANAL_SHIFT = np.array(
    [
        *(-1.0, 1.2, 1.1, 0.7, 0.6, 1.1, 1.4, 1.1, -0.2, -1.1),
        *(-1.4, -1.8, -1.7, -1.4, -1.2, -0.9, -0.5, 0.3, 2.1, 2.6),
    ]
)
"""Distance [mm] by which the centre of the dural sac lies anterior of the cord's."""


def disc_heights() -> dict[str, float]:
    """World height [mm] of each disc, from the top of C1 down."""
    return {
        name: HEIGHT_OF_SLICE_0 + SLICE_THICKNESS * index
        for name, index in zip(DISCS[: len(DISC_SLICES)], DISC_SLICES, strict=True)
    }


def level_edges() -> FloatArray:
    """Heights [mm] of the ends of the levels, from the top of C1 down to the lower end of L1."""
    return np.array(list(disc_heights().values()))


@lru_cache(maxsize=1)
def tract_areas() -> FloatArray:
    """Areas [mm2] of the regions of one half of the cord, (level, region); both halves averaged."""
    rows = {row["tract"]: [float(row[level]) for level in LEVELS] for row in _read("tract_areas.csv")}
    return np.array([rows[name] for name in HALF_TRACTS]).T


@lru_cache(maxsize=1)
def tract_positions() -> tuple[tuple[str, ...], FloatArray, FloatArray]:
    """Where the regions of one half of the cord lie, in coordinates in which the cord is the unit disc.

    Returns
    -------
    levels : tuple of str
        Levels at which the positions are known.
    centres : (level, region, 2) array
        Lateral and ventral coordinate of the centroid.
    covariances : (level, region, 2, 2) array
        Second central moments.
    """
    rows = _read("tract_layout.csv")
    levels = tuple(dict.fromkeys(row["level"] for row in rows))
    table = {(row["level"], row["tract"]): row for row in rows}
    fields = ("u", "v", "spread_u", "spread_v", "correlation")
    values = np.array([[[float(table[lv, t][f]) for f in fields] for t in HALF_TRACTS] for lv in levels])
    spread = values[..., 2:4]
    covariances = spread[..., :, None] * spread[..., None, :]
    covariances[..., 0, 1] *= values[..., 4]
    covariances[..., 1, 0] *= values[..., 4]
    return levels, values[..., :2], covariances


def _read(name: str) -> list[dict[str, str]]:
    text = resources.files("qcord.template").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
