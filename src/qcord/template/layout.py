"""Partition of the cord's cross-section into gray matter and tracts.

Each region of one half of the cord has a centre and a spread (its second moments); a point belongs to the region
with the highest score, a quadratic function of the distance to the centre plus an offset. The offsets are solved so
that every region has its tabulated area: a power diagram with unequal metrics (Aurenhammer, Hoffmann and Aronov
1998, doi:10.1007/PL00009187, for the offsets that give prescribed areas).
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy.interpolate import PchipInterpolator

from qcord.core.arrays import ArrayLike, FloatArray
from qcord.template import tables
from qcord.template.shape import CordShape, half_areas, template_shape

SHARPNESS = 8.0
"""Steepness of the borders: regions of 1 mm spread pass into each other over 0.15 mm, far below a voxel."""

SMALLEST_SPREAD = 0.03
"""Floor of a region's spread, in radii of the cord, which keeps the metric of sub-voxel tracts finite."""

NODE_DISTANCE = 8.0
"""Distance [mm] between heights at which the offsets are solved; centres and areas change over 15 to 30 mm."""

ROW_DISTANCE = 1.0
"""Distance [mm] between the heights at which the scores are kept."""

N_RADII, N_ANGLES = 40, 80
NEWTON_STEPS = 40

LARGEST_STEP = 4.0
"""Bound of one change of an offset, which keeps the first steps from overshooting."""

TOLERANCE = 1e-3
"""Relative error of the areas at which the offsets are taken as solved."""


@dataclass(frozen=True, eq=False)
class TractLayout:
    """Scores of the regions of one half of the cord.

    Parameters
    ----------
    heights : (m,) array
        World heights [mm] of the template, ascending, equally spaced.
    scores : (m, 6, 18) array
        Coefficients of 1, u, v, u2, uv, v2 (u lateral, v ventral; the cord is the unit disc).
    """

    heights: FloatArray
    scores: FloatArray

    def row(self, height: ArrayLike) -> FloatArray:
        """Index of the kept height nearest to each of some heights."""
        step = self.heights[1] - self.heights[0]
        index = np.round((np.asarray(height) - self.heights[0]) / step).astype(int)
        return np.asarray(np.clip(index, 0, len(self.heights) - 1))

    def at_row(self, u: ArrayLike, v: ArrayLike, row: int) -> FloatArray:
        """Fractions (..., 18) of the half regions at points of one height; ``u`` is the lateral distance."""
        return _soft(_scores(_features(np.abs(u), np.asarray(v)), self.scores[row]))

    def fractions(self, u: FloatArray, v: FloatArray, height: FloatArray) -> FloatArray:
        """Fractions of all regions at points inside the cord.

        Parameters
        ----------
        u, v : (n,) arrays
            Disc coordinates, right and anterior.
        height : (n,) array
            World height of the template [mm].

        Returns
        -------
        (n, 36) float32 array
            Order of `qcord.core.labels.TRACTS`; rows sum to 1.
        """
        rows = self.row(height)
        order = np.argsort(rows, kind="stable")
        half = np.empty((len(u), len(tables.HALF_TRACTS)), dtype=np.float32)
        bounds = np.append(np.flatnonzero(np.diff(rows[order], prepend=-1)), len(order))
        for start, stop in pairwise(bounds):
            points = order[start:stop]
            half[points] = self.at_row(u[points], v[points], int(rows[points[0]]))
        right = (u >= 0)[:, None]
        both = np.stack([np.where(right, 0, half), np.where(right, half, 0)], axis=-1)
        return both.reshape(len(u), 2 * len(tables.HALF_TRACTS))


@lru_cache(maxsize=1)
def tract_layout() -> TractLayout:
    """Layout of the template from the top of C1 to the conus."""
    shape = template_shape()
    low, high = float(shape.heights[0]), float(shape.heights[-1])
    nodes = np.linspace(low + 1.0, high, round((high - low) / NODE_DISTANCE))
    centres, metrics = _positions(nodes)
    offsets = _solve_offsets(shape, nodes, centres, metrics)
    heights = np.arange(low, high + ROW_DISTANCE / 2, ROW_DISTANCE)
    centres, metrics = _positions(heights)
    inside = np.clip(heights, nodes[0], nodes[-1])
    offsets = np.asarray(PchipInterpolator(nodes, offsets, axis=0)(inside))
    return TractLayout(heights, _coefficients(centres, metrics, offsets))


def _positions(heights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Centres (m, 18, 2) and metrics (m, 18, 2, 2) at some heights, linear between the levels of the table."""
    levels, centres, covariances = tables.tract_positions()
    edges = tables.level_edges()
    rows = [tables.LEVELS.index(level) for level in levels]
    middles = ((edges[:-1] + edges[1:]) / 2)[rows][::-1]
    position = np.interp(heights, middles, np.arange(len(levels))[::-1])
    lower = np.minimum(position.astype(int), len(levels) - 2)
    part = position - lower

    def between(values: FloatArray) -> FloatArray:
        share = part.reshape(-1, *[1] * (values.ndim - 1))
        return np.asarray((1 - share) * values[lower] + share * values[lower + 1])

    c = between(covariances) + SMALLEST_SPREAD**2 * np.eye(2)
    a, b, d = c[..., 0, 0], c[..., 0, 1], c[..., 1, 1]
    adjugate = np.stack([np.stack([d, -b], axis=-1), np.stack([-b, a], axis=-1)], axis=-2)
    return between(centres), adjugate / (a * d - b * b)[..., None, None]


def _coefficients(centres: FloatArray, metrics: FloatArray, offsets: FloatArray) -> FloatArray:
    """Scores as quadratics in the disc coordinates, (m, 6, 18)."""
    a, b, c = metrics[..., 0, 0], metrics[..., 0, 1], metrics[..., 1, 1]
    u, v = centres[..., 0], centres[..., 1]
    constant = -(a * u * u + 2 * b * u * v + c * v * v) / 2
    terms = [constant, a * u + b * v, b * u + c * v, -a / 2, -b, -c / 2]
    scores = SHARPNESS * np.stack(terms, axis=-2)
    scores[..., 0, :] += offsets
    return np.asarray(scores)


def _solve_offsets(shape: CordShape, nodes: FloatArray, centres: FloatArray, metrics: FloatArray) -> FloatArray:
    """Offsets (m, 18) that give each region its share of the cord's area, each height started from the last."""
    wanted = half_areas()(nodes)
    wanted = wanted / wanted.sum(axis=1, keepdims=True)
    u, v = _half_disc()
    features = _features(u, v)
    measure = shape.at(nodes[:, None]).cord_area_at(u, v)
    measure = measure / measure.sum(axis=1, keepdims=True)
    base = _coefficients(centres, metrics, np.zeros(wanted.shape))
    offsets = np.zeros(wanted.shape)
    start = offsets[0]
    for k in reversed(range(len(nodes))):
        start = _newton(_scores(features, base[k]), measure[k].astype(np.float32), wanted[k], start)
        offsets[k] = start
    return offsets


def _newton(scores: FloatArray, measure: FloatArray, wanted: FloatArray, start: FloatArray) -> FloatArray:
    """Offsets (18,) for which the regions have the shares ``wanted``; the problem is convex."""
    offsets = start
    ridge = 1e-9 * np.eye(len(wanted))
    for _ in range(NEWTON_STEPS):
        p = _soft(scores + offsets.astype(np.float32))
        weighted = p * measure[:, None]
        share = weighted.sum(axis=0, dtype=float)
        curvature = np.diag(share) - np.einsum("ni,nj->ij", weighted, p).astype(float)
        step = np.linalg.solve(curvature + ridge, wanted - share)
        offsets = offsets + step * min(1.0, LARGEST_STEP / max(np.abs(step).max(), 1e-12))
        if np.abs(share / wanted - 1).max() < TOLERANCE:
            break
    # Rounded far below the tolerance, so that the last digits of a linear algebra library do not matter.
    return np.asarray(np.round(offsets - offsets.mean(), 4))


def _half_disc() -> tuple[FloatArray, FloatArray]:
    """Points that represent equal areas of the right half of the unit disc."""
    radius = np.sqrt((np.arange(N_RADII) + 0.5) / N_RADII)
    angle = ((np.arange(N_ANGLES) + 0.5) / N_ANGLES - 0.5) * np.pi
    # Each ring is turned by a part of the angular step, so that no border runs along a row of points.
    turn = (np.arange(N_RADII) * 0.618) % 1 - 0.5
    angles = angle + turn[:, None] * np.pi / N_ANGLES
    return np.abs(radius[:, None] * np.cos(angles)).ravel(), (radius[:, None] * np.sin(angles)).ravel()


def _features(u: FloatArray, v: FloatArray) -> FloatArray:
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1).astype(np.float32)


def _scores(features: FloatArray, coefficients: FloatArray) -> FloatArray:
    # Not a matrix product: its summation order, and so the last digit, would depend on the linear algebra library.
    return np.asarray(np.einsum("...k,kr->...r", features, coefficients.astype(np.float32)))


def _soft(scores: FloatArray) -> FloatArray:
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(p / p.sum(axis=-1, keepdims=True))
