"""The outline of the cord as a few numbers a slice: centre, turn, widths and radial harmonics.

An outline that any ray from its centre leaves once is described by its squared radius as a function of angle.
The Fourier coefficients of that function are sums over the voxels of the mask, so no contour is traced and
partial volumes count as they should.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter1d

from qcord.core.arrays import BoolArray, FloatArray, IntArray

HARMONICS = 6
"""Angular detail that is kept; finer detail is voxel noise at clinical resolution (12 mm cord, 0.9 mm voxels)."""

SMALLEST_RADIUS = 0.35
"""Least radius of an outline, relative to a circle of equal area; keeps the outline's map invertible."""


@dataclass(frozen=True, eq=False)
class Outline:
    """Outlines of a stack of slices, in coordinates across the cord (right, anterior) [mm].

    Parameters
    ----------
    centre : (n, 2) array
        Centre of mass.
    turn : (n,) array
        Angle [rad] of the long axis against the right-left line.
    width : (n, 2) array
        Standard deviation of the shape along its turned axes [mm]; a quarter of the ellipse's diameter.
    harmonics : (n, h) complex array
        Fourier coefficients 0 ... h-1 of the squared radius after centring, turning and dividing by
        ``width``; a unit-variance ellipse is a circle of radius 2.
    area : (n,) array
        Area [mm2]; 0 where there is no cord.
    """

    centre: FloatArray
    turn: FloatArray
    width: FloatArray
    harmonics: np.ndarray[tuple[int, ...], np.dtype[np.complexfloating]]
    area: FloatArray

    @property
    def present(self) -> BoolArray:
        """Slices that show cord."""
        return np.asarray(self.area > 0)

    def radius(self, row: FloatArray, angle: FloatArray) -> FloatArray:
        """Radius of the normalised outline at fractional slice numbers and angles, of equal shapes."""
        low = np.clip(np.floor(row).astype(int), 0, max(len(self.area) - 2, 0))
        share = np.clip(row - low, 0, 1)
        high = np.minimum(low + 1, len(self.area) - 1)
        order = np.arange(self.harmonics.shape[1])
        value = np.zeros(np.shape(angle))
        for n in order:
            coefficient = (1 - share) * self.harmonics[low, n] + share * self.harmonics[high, n]
            value += (coefficient * np.exp(1j * n * angle)).real * (1 if n == 0 else 2)
        mean = (1 - share) * self.harmonics[low, 0].real + share * self.harmonics[high, 0].real
        return np.asarray(np.sqrt(np.maximum(value, SMALLEST_RADIUS**2 * mean)))


def measure_outline(points: FloatArray, weight: FloatArray, row: IntArray, n_rows: int, cell: float) -> Outline:
    """Describe the outlines of a stack of slices.

    Parameters
    ----------
    points : (m, 2) array
        Places across the cord [mm] of samples that are evenly spread over each slice.
    weight : (m,) array
        Fraction of cord at each sample.
    row : (m,) int array
        Slice of each sample.
    n_rows : int
        Number of slices.
    cell : float
        Area [mm2] that each sample stands for.
    """
    mass = np.bincount(row, weight, n_rows)
    safe = np.where(mass > 0, mass, 1)
    centre = np.stack([np.bincount(row, weight * points[:, a], n_rows) / safe for a in (0, 1)], -1)
    local = points - centre[row]
    spread = [np.bincount(row, weight * local[:, a] * local[:, b], n_rows) / safe for a, b in ((0, 0), (1, 1), (0, 1))]
    present = mass > 0
    turn = 0.5 * np.arctan2(2 * spread[2], spread[0] - spread[1])
    turn = np.where(np.abs(turn) > np.pi / 4, 0.0, turn)  # nearly round: the long axis says nothing of the turn
    outline = Outline(centre, turn, np.ones((n_rows, 2)), np.zeros((n_rows, 1), dtype=complex), mass * cell)
    return _with_shape(outline, points, weight, row, np.where(present, mass, 0.0))


def steady_turn(outline: Outline, spacing: float, reach: float) -> Outline:
    """Smooth the turn along the cord, trusting elongated slices more; shapes must be measured again after it."""
    ratio = outline.width[:, 0] / np.maximum(outline.width[:, 1], 1e-6)
    trust = np.where(outline.present, np.clip(ratio**2 - 1, 0, None), 0.0)
    sigma = reach / spacing
    norm = gaussian_filter1d(trust, sigma, mode="constant") + 0.05 * trust.max(initial=1e-9)
    return replace(outline, turn=gaussian_filter1d(trust * outline.turn, sigma, mode="constant") / norm)


def remeasure(outline: Outline, points: FloatArray, weight: FloatArray, row: IntArray) -> Outline:
    """Measure widths and harmonics again for the outline's centre and turn."""
    mass = np.asarray(np.bincount(row, weight, len(outline.area)), dtype=float)
    return _with_shape(outline, points, weight, row, mass)


def smooth_outline(outline: Outline, spacing: float, reach: float) -> Outline:
    """Smooth widths and harmonics along the cord and fill slices without cord from their neighbours.

    Parameters
    ----------
    outline : Outline
        One slice every ``spacing`` mm.
    spacing : float
        Distance between slices [mm].
    reach : float
        Standard deviation of the smoothing [mm]; 0 only fills.
    """
    present = outline.present.astype(float)
    sigma = max(reach / spacing, 0.0)

    def along(values: FloatArray) -> FloatArray:
        filled = _filled(values, outline.present)
        if sigma < 0.1:
            return filled
        blurred = gaussian_filter1d(filled, sigma, axis=0, mode="nearest")
        return np.asarray(blurred)

    harmonics = along(outline.harmonics.real) + 1j * along(outline.harmonics.imag)
    turn = _filled(outline.turn, outline.present)
    area = np.where(present > 0, outline.area, 0.0)
    return Outline(_filled(outline.centre, outline.present), turn, along(outline.width), harmonics, area)


def _filled(values: FloatArray, present: BoolArray) -> FloatArray:
    """Fill rows that are absent by linear interpolation, constant at the ends."""
    rows = np.arange(len(values))
    known = np.flatnonzero(present)
    flat = values.reshape(len(values), -1)
    columns = [np.interp(rows, known, flat[known, c]) for c in range(flat.shape[1])]
    return np.stack(columns, -1).reshape(values.shape)


def _with_shape(outline: Outline, points: FloatArray, weight: FloatArray, row: IntArray, mass: FloatArray) -> Outline:
    n_rows = len(outline.area)
    safe = np.where(mass > 0, mass, 1)
    local = points - outline.centre[row]
    c, s = np.cos(outline.turn)[row], np.sin(outline.turn)[row]
    turned = np.stack([c * local[:, 0] + s * local[:, 1], -s * local[:, 0] + c * local[:, 1]], -1)
    width = np.stack([np.sqrt(np.bincount(row, weight * turned[:, a] ** 2, n_rows) / safe) for a in (0, 1)], -1)
    width = np.where(width > 1e-3, width, 1.0)
    scaled = turned / width[row]
    angle = np.arctan2(scaled[:, 1], scaled[:, 0])
    cell = outline.area / (safe * width[:, 0] * width[:, 1])
    columns = []
    for n in range(HARMONICS + 1):
        wave = np.exp(-1j * n * angle)
        total = np.bincount(row, weight * wave.real, n_rows) + 1j * np.bincount(row, weight * wave.imag, n_rows)
        columns.append(total * cell / np.pi)
    return replace(outline, width=width, harmonics=np.stack(columns, -1))
