"""The subject's cord: sizes of living people, a naturally curved axis, and where both lie in the world."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage
from scipy.interpolate import PchipInterpolator

from qcord.core.arrays import ArrayLike, FloatArray
from qcord.phantom.spec import Compression, PhantomSpec
from qcord.template import tables
from qcord.template.shape import CordShape, by_level, cord_proportions, mean_preserving, template_shape

AREA = np.array(
    [
        73.9,
        71.7,
        72.5,
        77.3,
        76.4,
        69.1,
        56.8,
        46.8,
        42.4,
        38.8,
        36.3,
        35.1,
        34.9,
        35.6,
        37.3,
        39.3,
        42.5,
        49.3,
        49.3,
        23.7,
    ]
)
"""Cross-section [mm2] of the cord, C1 to L1, inside the outlines of the software that measured them: spine-generic T2w
of 203 healthy adults to T1, 58 whole spines below."""

AP = np.array([8.27, 7.76, 7.59, 7.62, 7.47, 7.07, 6.56, 6.29])
RL = np.array([11.35, 11.73, 12.14, 12.93, 13.03, 12.44, 10.94, 9.41])
"""Diameters [mm] of the cord, C1 to T1, of the same 203 adults, by the same outlines."""

HALF_LEVEL = 0.058
"""Logarithm of the area inside the half level between cord and fluid over that inside such outlines on T2w: mean of 4
people, standard deviation between people .030 (computed, ``benchmarks/segmentation.py agreement``).

The edge of the phantom is sharp, so that the half level of its scans is its edge. Drawn with the published sizes as
they stand, its cord would measure as that of a person whose published outline were smaller still: healthy people would
look thin beside norms of such outlines. `qcord.normative.outlines` divides by the same ratio."""

CANAL_AP = np.array([14.5, 13.1, 12.8, 12.8, 12.6, 12.8])
CANAL_RL = np.array([22.2, 20.8, 21.0, 21.2, 20.7, 19.7])
"""Diameters [mm] of the dural sac, C2 to C7, of the same adults."""

CANAL_AREA = np.array([252.0, 210.0, 206.0, 208.0, 200.0, 195.0, 182.0])
"""Cross-section [mm2] of the dural sac, C2 to T1, of the same adults; the template's proportions elsewhere."""

TILT = {
    "C1": -5.0,
    "C2": -5.0,
    "C4": 0.0,
    "C6": 12.0,
    "C7": 22.0,
    "T1": 30.0,
    "T2": 31.0,
    "T4": 22.0,
    "T8": 0.0,
    "L1": -8.0,
}
"""Angle [deg] of the cord against the vertical in the sagittal plane, positive where it runs backwards going down:
a common lordosis of the neck that passes into the kyphosis of the chest (assumed)."""

ORIGIN_DISC = "C4/C5"
LATTICE = 0.5
"""Distance [mm] of the lattice on which the curved coordinates are kept."""

LOWEST, HIGHEST = -220.0, 140.0
"""Extent [mm] of the lattice below and above the disc C4/C5: beyond the field of view of a neck."""

SPREAD_PER_LOSS = 0.25
"""Relative widening of a cord per relative loss of its depth (assumed: part of the tissue gives way sideways)."""

CONTACT = 1.06
"""Depth of the dural sac over that of the cord where the disc touches both sides."""


@dataclass(frozen=True, eq=False)
class Body:
    """Geometry of one subject.

    Parameters
    ----------
    shape : CordShape
        Sizes by height of the template, in which all levels are named.
    axis : (m, 4) array
        Height of the template, then anterior and upward position [mm] and tilt [rad] of the axis in the subject's
        sagittal plane; ascending.
    rotation : (3, 3) array
        From the subject's axes to the world's.
    position : (3,) array
        World coordinates [mm] of the disc C4/C5 on the axis.
    pinch : (m,) array
        Degree of compression at each height of the shape, 0 to 1.
    """

    shape: CordShape
    axis: FloatArray
    rotation: FloatArray
    position: FloatArray
    pinch: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "_lattice", _lattice(self.axis))

    def project(self, world: ArrayLike) -> FloatArray:
        """Cord coordinates (..., 3) of world points (..., 3).

        Right and anterior of the axis [mm], and height of the template [mm] at the foot of the perpendicular.
        """
        gap = np.moveaxis(np.asarray(world, dtype=float) - self.position, -1, 0)
        x, y, z = (np.asarray(sum(gap[i] * self.rotation[i, j] for i in range(3))) for j in range(3))
        corner, table = self._lattice  # type: ignore[attr-defined]
        index = np.stack([(y.ravel() - corner[0]) / LATTICE, (z.ravel() - corner[1]) / LATTICE])
        anterior, height = (ndimage.map_coordinates(t, index, order=1, mode="nearest").reshape(x.shape) for t in table)
        return np.stack([x, anterior, height], axis=-1)

    def place(self, cord: ArrayLike) -> FloatArray:
        """World points (..., 3) of cord coordinates (..., 3); inverse of `project`."""
        c = np.asarray(cord, dtype=float)
        y, z, tilt = (np.interp(c[..., 2], self.axis[:, 0], self.axis[:, k]) for k in (1, 2, 3))
        own = np.stack([c[..., 0], y + c[..., 1] * np.cos(tilt), z - c[..., 1] * np.sin(tilt)], axis=-1)
        return np.asarray(own @ self.rotation.T + self.position)

    def tangent(self, height: ArrayLike) -> FloatArray:
        """Unit vectors (..., 3) in the world that point up along the axis."""
        tilt = np.interp(np.asarray(height, dtype=float), self.axis[:, 0], self.axis[:, 3])
        own = np.stack([np.zeros_like(tilt), np.sin(tilt), np.cos(tilt)], axis=-1)
        return np.asarray(own @ self.rotation.T)

    def pinch_at(self, height: ArrayLike) -> FloatArray:
        """Degree of compression, 0 to 1."""
        return np.asarray(np.interp(np.asarray(height, dtype=float), self.shape.heights, self.pinch))


def make_body(spec: PhantomSpec) -> Body:
    """Geometry of a subject."""
    shape = _scaled(adult_shape(), spec.area_factor)
    pinch: FloatArray = np.zeros(len(shape.heights))
    if spec.compression is not None:
        pinch = _pinch(shape, spec.compression)
        shape = _compressed(shape, spec.compression, pinch)
    return Body(shape, _axis(spec), _rotation(spec.rotation), np.array(spec.position, dtype=float), pinch)


def adult_shape() -> CordShape:
    """Mean sizes of healthy adults: the cord to the half level, the dural sac as published."""
    template = template_shape()
    heights, edges = template.heights, tables.level_edges()[::-1]
    aspect, fill = cord_proportions(heights)
    living = np.append(AP / RL, tables.CORD_AP[8:] / tables.CORD_RL[8:])
    aspect = by_level(np.append(living, 0.75))(heights)
    known = np.append(AREA[:8] / (AP * RL), np.full(12, np.pi / 4))
    fill = by_level(known)(heights)
    area = mean_preserving(np.append(0, AREA[::-1]), np.append(2 * edges[0] - edges[1], edges))(heights)
    sac = tables.CORD_AREA + tables.FLUID_AREA
    sac[1:8] = CANAL_AREA
    canal = mean_preserving(sac[::-1], edges)(heights)
    canal_aspect = tables.CANAL_ASPECT.copy()
    canal_aspect[1:7] = CANAL_AP / CANAL_RL
    proportion = by_level(canal_aspect)(heights)
    canal_rl = np.sqrt(canal / (np.pi / 4 * proportion))
    ap, rl = _widened(np.sqrt(area * aspect / fill), np.sqrt(area / (aspect * fill)), np.exp(HALF_LEVEL))
    return CordShape(
        heights,
        area * np.exp(HALF_LEVEL),
        ap,
        rl,
        canal_rl * proportion,
        canal_rl,
        template.canal_shift,
    )


def _widened(ap: FloatArray, rl: FloatArray, factor: float) -> tuple[FloatArray, FloatArray]:
    """Diameters of an outline that is moved evenly outwards until their product is multiplied by a factor."""
    total = ap + rl
    more = (np.sqrt(total**2 + 4 * (factor - 1) * ap * rl) - total) / 2
    return ap + more, rl + more


def _scaled(shape: CordShape, factor: float) -> CordShape:
    edge = np.sqrt(factor)
    return replace(
        shape,
        area=shape.area * factor,
        ap=shape.ap * edge,
        rl=shape.rl * edge,
        canal_ap=shape.canal_ap * edge,
        canal_rl=shape.canal_rl * edge,
        canal_shift=shape.canal_shift * edge,
    )


def _pinch(shape: CordShape, compression: Compression) -> FloatArray:
    width = compression.extent / np.sqrt(8 * np.log(2))
    return np.asarray(np.exp(-(((shape.heights - tables.disc_heights()[compression.disc]) / width) ** 2) / 2))


def _compressed(shape: CordShape, compression: Compression, pinch: FloatArray) -> CordShape:
    """Flatten the cord, and narrow the dural sac so far that it touches the cord at the worst place."""
    loss = compression.severity * pinch
    ap, rl = shape.ap * (1 - loss), shape.rl * (1 + SPREAD_PER_LOSS * loss)
    narrow = CONTACT * ap * pinch + shape.canal_ap * (1 - pinch)
    return replace(
        shape,
        area=shape.area * (1 - loss) * (1 + SPREAD_PER_LOSS * loss),
        ap=ap,
        rl=rl,
        canal_ap=np.minimum(narrow, shape.canal_ap),
        canal_shift=shape.canal_shift * (1 - pinch),
    )


def _axis(spec: PhantomSpec) -> FloatArray:
    edges = tables.level_edges()
    middles = {name: (edges[i] + edges[i + 1]) / 2 for i, name in enumerate(tables.LEVELS)}
    names = sorted(TILT, key=lambda name: middles[name])
    curve = PchipInterpolator([middles[n] for n in names], [TILT[n] for n in names])
    heights = np.arange(edges[-1] - 60, edges[0] + 60, LATTICE)
    tilt = np.deg2rad(spec.curvature * curve(np.clip(heights, middles[names[0]], middles[names[-1]])))
    step = LATTICE * spec.length_factor
    # Midpoint rule; going up, a positive tilt leads forwards.
    forward = np.concatenate([[0], np.cumsum(np.sin((tilt[1:] + tilt[:-1]) / 2))]) * step
    upward = np.concatenate([[0], np.cumsum(np.cos((tilt[1:] + tilt[:-1]) / 2))]) * step
    origin = tables.disc_heights()[ORIGIN_DISC]
    forward = forward - np.interp(origin, heights, forward)
    upward = upward - np.interp(origin, heights, upward)
    return np.stack([heights, forward, upward, tilt], axis=1)


def _lattice(axis: FloatArray) -> tuple[FloatArray, tuple[FloatArray, FloatArray]]:
    """Cord coordinates of a lattice in the sagittal plane: its corner (y, z), and anterior and height tables."""
    height, y, z, tilt = axis.T
    rows = (z > LOWEST) & (z < HIGHEST)
    corner = np.array([y[rows].min() - 120, LOWEST])
    size = np.array([y[rows].max() + 140, HIGHEST]) - corner
    grid_y, grid_z = np.meshgrid(
        *(c + np.arange(0, s, LATTICE) for c, s in zip(corner, size, strict=True)), indexing="ij"
    )
    found = np.interp(grid_z, z, height)
    scale = float(np.hypot(np.diff(y), np.diff(z)).mean() / LATTICE)
    for _ in range(6):
        angle = np.interp(found, height, tilt)
        ahead = (grid_y - np.interp(found, height, y)) * np.sin(angle)
        ahead += (grid_z - np.interp(found, height, z)) * np.cos(angle)
        found = np.clip(found + np.clip(ahead / scale, -20, 20), height[0], height[-1])
    angle = np.interp(found, height, tilt)
    anterior = (grid_y - np.interp(found, height, y)) * np.cos(angle)
    anterior -= (grid_z - np.interp(found, height, z)) * np.sin(angle)
    return corner, (anterior, found)


def _rotation(degrees: tuple[float, float, float]) -> FloatArray:
    a, b, c = np.deg2rad(degrees)
    about_r = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_a = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_s = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(about_s @ about_a @ about_r)
