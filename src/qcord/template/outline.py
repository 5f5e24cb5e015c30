"""Outline of the cord and of the dural sac: superellipses whose sizes change along the cord."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import beta, gamma

from qcord.core.arrays import ArrayLike, FloatArray

VENTRAL_SHARE = 0.44
"""Part of the anterior-posterior diameter that lies ventral of the widest row: the ventral surface is the flatter."""

LOWEST_EXPONENT, HIGHEST_EXPONENT = 1.3, 4.0


@dataclass(frozen=True, eq=False)
class Section:
    """Sizes of cord and dural sac at some heights; all arrays share one shape.

    Parameters
    ----------
    ap, rl : array
        Diameters of the cord [mm].
    exponent : array
        Exponent of its superellipse; 2 is an ellipse.
    widest : array
        Distance of the widest row anterior of the centroid [mm], see `widest_row`.
    canal_ap, canal_rl : array
        Diameters of the dural sac [mm], an ellipse.
    canal_shift : array
        Distance of its centre anterior of the cord's centroid [mm].
    """

    ap: FloatArray
    rl: FloatArray
    exponent: FloatArray
    widest: FloatArray
    canal_ap: FloatArray
    canal_rl: FloatArray
    canal_shift: FloatArray

    def disc(self, x: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Coordinates in which the cord is the unit disc.

        Parameters
        ----------
        x, y : array
            Right and anterior of the cord's centroid [mm]; broadcast against the sizes.
        """
        lateral, ventral, stretch = self._quadrant(x, y)
        return np.sign(x) * lateral * stretch, np.asarray(ventral * stretch)

    def cord_area_at(self, u: ArrayLike, v: ArrayLike) -> FloatArray:
        """Area of the cord's cross-section per area of the unit disc [mm2], at points of the disc."""
        n = self.exponent
        lateral, ventral = np.abs(np.asarray(u, dtype=float)), np.abs(np.asarray(v, dtype=float))
        shrink = np.hypot(lateral, ventral) / np.maximum((lateral**n + ventral**n) ** (1 / n), 1e-12)
        share = np.where(np.asarray(v) > 0, VENTRAL_SHARE, 1 - VENTRAL_SHARE)
        return np.asarray(shrink**2 * self.rl / 2 * share * self.ap)

    def canal_radius(self, x: ArrayLike, y: ArrayLike) -> FloatArray:
        """Distance from the centre of the dural sac, 1 on the dura."""
        lateral = np.asarray(x) / (self.canal_rl / 2)
        ventral = (np.asarray(y) - self.canal_shift) / (self.canal_ap / 2)
        return np.hypot(lateral, ventral)

    def grown(self, margin: float) -> "Section":
        """Section whose cord is larger by ``margin`` [mm] on all sides, around the same widest row."""
        return Section(
            self.ap + 2 * margin,
            self.rl + 2 * margin,
            self.exponent,
            self.widest,
            self.canal_ap,
            self.canal_rl,
            self.canal_shift,
        )

    @property
    def area(self) -> FloatArray:
        """Cross-section of the cord [mm2]."""
        return np.asarray(self.ap * self.rl * fill_of(self.exponent))

    def _quadrant(self, x: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
        n = self.exponent
        ventral = np.asarray(y, dtype=float) - self.widest
        share = np.where(ventral > 0, VENTRAL_SHARE, 1 - VENTRAL_SHARE)
        ventral = ventral / (share * self.ap)
        lateral = np.abs(np.asarray(x, dtype=float)) / (self.rl / 2)
        radius = np.hypot(lateral, ventral)
        with np.errstate(invalid="ignore", divide="ignore"):
            stretch = (lateral**n + np.abs(ventral) ** n) ** (1 / n) / radius
        return lateral, ventral, np.where(radius > 0, stretch, 1.0)


def fill_of(exponent: ArrayLike) -> FloatArray:
    """Area of a superellipse over that of its bounding box."""
    n = np.asarray(exponent, dtype=float)
    return np.asarray(gamma(1 + 1 / n) ** 2 / gamma(1 + 2 / n))


def exponent_of(fill: ArrayLike) -> FloatArray:
    """Exponent of the superellipse that fills a given part of its bounding box; inverse of `fill_of`."""
    grid, values = _fill_table()
    return np.asarray(np.interp(np.asarray(fill, dtype=float), values, grid))


@lru_cache(maxsize=1)
def _fill_table() -> tuple[FloatArray, FloatArray]:
    grid = np.linspace(LOWEST_EXPONENT, HIGHEST_EXPONENT, 2000)
    return grid, fill_of(grid)


def widest_row(ap: ArrayLike, exponent: ArrayLike) -> FloatArray:
    """Distance [mm] of the widest row anterior of the centroid: the deeper dorsal half draws the centroid back."""
    n = np.asarray(exponent, dtype=float)
    half_centroid = beta(2 / n, 1 + 1 / n) / n / fill_of(n)
    return np.asarray((1 - 2 * VENTRAL_SHARE) * np.asarray(ap) * half_centroid)
