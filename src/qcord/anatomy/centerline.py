"""The axis of the cord as a smooth curve, and coordinates along and across it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline, make_smoothing_spline

from qcord.core.arrays import ArrayLike, BoolArray, FloatArray
from qcord.core.errors import EmptyRegion
from qcord.core.grid import Grid

STEP = 0.5
"""Distance [mm] between the points that stand for the curve."""

NEWTON_STEPS = 8


@dataclass(frozen=True, eq=False)
class Centerline:
    """A smooth curve from the lowest to the highest point of the cord that an image shows.

    Parameters
    ----------
    points : (n, 3) array
        World coordinates [mm], ordered upwards.
    length : (n,) array
        Distance along the curve [mm] from its lowest point.
    """

    points: FloatArray
    length: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "_curve", CubicSpline(self.length, self.points, axis=0))

    def at(self, length: ArrayLike) -> FloatArray:
        """World coordinates (..., 3) at distances along the curve [mm]; straight beyond its ends."""
        inside = np.clip(length, self.length[0], self.length[-1])
        beyond = np.asarray(length, dtype=float) - inside
        return np.asarray(self._curve(inside) + beyond[..., None] * self.tangent(inside))  # type: ignore[attr-defined]

    def tangent(self, length: ArrayLike) -> FloatArray:
        """Unit vectors (..., 3) that point upwards along the curve."""
        inside = np.clip(length, self.length[0], self.length[-1])
        direction = self._curve(inside, 1)  # type: ignore[attr-defined]
        return np.asarray(direction / np.linalg.norm(direction, axis=-1, keepdims=True))

    def frame(self, length: ArrayLike) -> FloatArray:
        """Orthonormal axes (..., 3, 3): rows point right, anterior and along the cord, without twist."""
        along = self.tangent(length)
        anterior = np.array([0.0, 1.0, 0.0]) - along[..., 1:2] * along
        anterior = anterior / np.linalg.norm(anterior, axis=-1, keepdims=True)
        right = np.cross(anterior, along)
        return np.stack([right, anterior, along], axis=-2)

    def project(self, world: ArrayLike) -> FloatArray:
        """Cord coordinates of world points.

        Parameters
        ----------
        world : (..., 3) array
            World coordinates [mm].

        Returns
        -------
        (..., 3) array
            Right and anterior of the axis [mm], and distance along it [mm], at the foot of the perpendicular.
        """
        points = np.asarray(world, dtype=float)
        order = np.argsort(self.points[:, 2])
        height = self.points[order, 2]
        beyond = points[..., 2] - np.clip(points[..., 2], height[0], height[-1])
        length = np.interp(points[..., 2], height, self.length[order]) + beyond
        for _ in range(NEWTON_STEPS):
            gap = points - self.at(length)
            length = length + np.clip((gap * self.tangent(length)).sum(-1), -20, 20)
        offset = points - self.at(length)
        frame = self.frame(length)
        across = np.einsum("...ij,...j->...i", frame[..., :2, :], offset)
        return np.concatenate([across, length[..., None]], axis=-1)

    def place(self, coordinates: ArrayLike) -> FloatArray:
        """World coordinates of cord coordinates; inverse of `project`, shape (..., 3) to (..., 3)."""
        cord = np.asarray(coordinates, dtype=float)
        frame = self.frame(cord[..., 2])
        across = np.einsum("...ij,...i->...j", frame[..., :2, :], cord[..., :2])
        return np.asarray(self.at(cord[..., 2]) + across)


def curve_through(points: ArrayLike, weights: ArrayLike | None = None, smoothing: float = 5.0) -> Centerline:
    """Smooth curve through one point a slice.

    Parameters
    ----------
    points : (n, 3) array
        World coordinates [mm] in increasing height; at least two.
    weights : (n,) array, optional
        Trust in each point.
    smoothing : float
        Length [mm] below which bends are smoothed away (half power at a wavelength of 2 pi times it).

    Raises
    ------
    EmptyRegion
        With fewer than two points.
    """
    p = np.asarray(points, dtype=float)
    if len(p) < 2:
        raise EmptyRegion(f"The cord appears in {len(p)} slices, expected at least 2 to draw its axis; check the mask.")
    p = p[np.argsort(p[:, 2], kind="stable")]
    height = p[:, 2]
    curves: list[Callable[[FloatArray], FloatArray]]
    if len(p) >= 5:
        spacing = (height[-1] - height[0]) / (len(p) - 1)
        w = None if weights is None else np.asarray(weights, dtype=float)
        curves = [make_smoothing_spline(height, p[:, a], w=w, lam=smoothing**4 / spacing) for a in (0, 1)]
    else:
        degree = min(len(p) - 1, 2)
        curves = [np.poly1d(np.polyfit(height, p[:, a], degree)) for a in (0, 1)]
    n = max(3, int(np.ceil((height[-1] - height[0]) / STEP)) + 1)
    fine = np.linspace(height[0], height[-1], n)
    dense = np.stack([curves[0](fine), curves[1](fine), fine], axis=-1)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(dense, axis=0), axis=1))])
    return Centerline(dense, length)


def centerline_of(mask: BoolArray, grid: Grid, smoothing: float = 5.0) -> Centerline:
    """Axis of a cord mask: the smoothed centres of its slices.

    Parameters
    ----------
    mask : (x, y, z) array
        Cord, on ``grid``; slices without cord are bridged.
    grid : Grid
        Axes closest to right, anterior, superior.
    smoothing : float
        Length [mm] below which bends are smoothed away.
    """
    weight = np.asarray(mask, dtype=float)
    total = weight.sum(axis=(0, 1))
    rows = np.flatnonzero(total > 0)
    i, j = np.arange(grid.shape[0]), np.arange(grid.shape[1])
    with np.errstate(invalid="ignore"):
        ci = (weight.sum(axis=1) * i[:, None]).sum(axis=0)[rows] / total[rows]
        cj = (weight.sum(axis=0) * j[:, None]).sum(axis=0)[rows] / total[rows]
    points = grid.world(np.stack([ci, cj, rows.astype(float)], axis=-1))
    return curve_through(points, weights=np.sqrt(total[rows] / total[rows].max()), smoothing=smoothing)
