"""Sizes along the cord: smooth curves whose mean over each vertebral level is the number of a table."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from qcord.core.arrays import ArrayLike, FloatArray
from qcord.template import tables
from qcord.template.outline import Section, exponent_of, widest_row

STEP = 0.5
"""Distance [mm] between the heights at which sizes are kept."""

SMALLEST_DIAMETER = 1e-6
"""Stands for the diameter [mm] where there is no cord."""

CONUS_ASPECT = 0.75
"""Anterior-posterior over right-left diameter of the conus, that of the cord at T12."""


@dataclass(frozen=True, eq=False)
class CordShape:
    """Sizes of cord and dural sac along a straight cord.

    Parameters
    ----------
    heights : (m,) array
        World heights [mm], ascending, equally spaced.
    area, ap, rl : (m,) arrays
        Cross-section [mm2] and diameters [mm] of the cord; 0 below the conus.
    canal_ap, canal_rl, canal_shift : (m,) arrays
        Diameters of the dural sac and distance of its centre anterior of the cord's [mm].
    """

    heights: FloatArray
    area: FloatArray
    ap: FloatArray
    rl: FloatArray
    canal_ap: FloatArray
    canal_rl: FloatArray
    canal_shift: FloatArray

    def __post_init__(self) -> None:
        ap, rl = np.maximum(self.ap, SMALLEST_DIAMETER), np.maximum(self.rl, SMALLEST_DIAMETER)
        exponent = exponent_of(np.where(self.area > 0, self.area / (ap * rl), np.pi / 4))
        sizes = (ap, rl, exponent, widest_row(ap, exponent), self.canal_ap, self.canal_rl, self.canal_shift)
        object.__setattr__(self, "_sizes", np.stack(sizes))

    def at(self, height: ArrayLike) -> Section:
        """Sizes at some heights, of the same shape; those of the nearer end beyond the ends."""
        last = len(self.heights) - 1
        position = (np.asarray(height, dtype=float) - self.heights[0]) / (self.heights[1] - self.heights[0])
        position = np.clip(position, 0, last)
        below = np.minimum(position.astype(int), last - 1)
        part = position - below
        sizes = self._sizes  # type: ignore[attr-defined]
        return Section(*((1 - part) * values[below] + part * values[below + 1] for values in sizes))


def mean_preserving(values: ArrayLike, edges: ArrayLike) -> Callable[[ArrayLike], FloatArray]:
    """Continuous, non-negative curve whose mean over each interval is given.

    Parameters
    ----------
    values : (n, ...) array
        Means, not negative.
    edges : (n + 1,) array
        Ends of the intervals, ascending.

    Returns
    -------
    callable
        From heights (m,) to values (m, ...).

    Notes
    -----
    The derivative of a monotone interpolant of the running integral (Fritsch and Carlson 1980, doi:10.1137/0717021).
    """
    ends = np.asarray(edges, dtype=float)
    means = np.asarray(values, dtype=float)
    widths = np.diff(ends).reshape(-1, *[1] * (means.ndim - 1))
    integral = np.concatenate([np.zeros((1, *means.shape[1:])), np.cumsum(means * widths, axis=0)])
    slope = PchipInterpolator(ends, integral, axis=0).derivative()

    def curve(height: ArrayLike) -> FloatArray:
        return np.maximum(slope(np.clip(height, ends[0], ends[-1])), 0.0)

    return curve


def template_shape() -> CordShape:
    """Sizes of the template from the top of C1 to the end of the conus."""
    edges = tables.level_edges()[::-1]
    heights = np.arange(edges[0], edges[-1] + STEP / 2, STEP)
    area = _taper(tables.CORD_AREA)(heights)
    canal = mean_preserving((tables.CORD_AREA + tables.FLUID_AREA)[::-1], edges)(heights)
    aspect, fill = cord_proportions(heights)
    canal_rl = np.sqrt(canal / (np.pi / 4 * by_level(tables.CANAL_ASPECT)(heights)))
    return CordShape(
        heights,
        area,
        np.sqrt(area * aspect / fill),
        np.sqrt(area / (aspect * fill)),
        canal / (np.pi / 4 * canal_rl),
        canal_rl,
        by_level(tables.CANAL_SHIFT)(heights),
    )


def cord_proportions(heights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Aspect (AP over RL) and filled part of the bounding box of the cord's outline at some heights."""
    aspect = np.append(tables.CORD_AP / tables.CORD_RL, CONUS_ASPECT)
    fill = tables.CORD_AREA[:-1] / (tables.CORD_AP * tables.CORD_RL)
    return by_level(aspect)(heights), by_level(np.append(fill, fill[-1]))(heights)


def by_level(values: ArrayLike) -> Callable[[ArrayLike], FloatArray]:
    """Monotone curve through one value at the middle of each level C1 to L1; constant beyond the outer middles."""
    edges = tables.level_edges()
    middles = (edges[:-1] + edges[1:]) / 2
    curve = PchipInterpolator(middles[::-1], np.asarray(values, dtype=float)[::-1], axis=0)

    def inside(height: ArrayLike) -> FloatArray:
        return np.asarray(curve(np.clip(height, middles[-1], middles[0])))

    return inside


def half_areas() -> Callable[[ArrayLike], FloatArray]:
    """Areas [mm2] of the 18 regions of one half of the cord, heights (m,) to (m, 18)."""
    return _taper(tables.tract_areas())


def _taper(values: FloatArray) -> Callable[[ArrayLike], FloatArray]:
    """Mean-preserving curve of values from C1 to L1 that ends with 0 at the lower edge of L1."""
    edges = tables.level_edges()[::-1]
    below = edges[0] - (edges[1] - edges[0])
    none_below = np.concatenate([np.zeros((1, *values.shape[1:])), values[::-1]])
    return mean_preserving(none_below, np.concatenate([[below], edges]))
