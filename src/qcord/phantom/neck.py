"""The neck around the dural sac: bone, discs, muscles, fat, vessels and airway as simple closed shapes.

All numbers of this file are plain anatomy (assumed, in mm) and only make the picture around the cord lifelike: what
a detector must not take for the cord. No truth depends on them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import ArrayLike, FloatArray
from qcord.template import tables
from qcord.template.shape import CordShape

_PROFILE_LEVELS = ("C1", "C2", "C3", "C4", "C5", "C6", "C7", "T1", "T2", "T3", "T4")
_HALF_WIDTH = (74, 70, 64, 60, 59, 62, 76, 105, 135, 155, 165)
_DORSAL = (62, 58, 53, 50, 50, 53, 57, 62, 66, 70, 72)
_VENTRAL = (84, 82, 72, 60, 55, 54, 56, 62, 76, 92, 100)
_SPINE_TIP = (8, 24, 16, 16, 19, 27, 36, 36, 33, 31, 31)
_BODY_DEPTH = (15, 15, 15, 15, 15.5, 16, 16, 16.5, 17, 18, 19)
_BODY_WIDTH = (20, 20, 21, 22, 23, 25, 27, 27, 26, 25, 25)
_LUNG_LEVELS = (6.6, 7.5, 8.5, 10.5)
_LUNG = {"beside": (46, 52, 62, 78), "wide": (1, 18, 33, 50), "before": (12, 12, 18, 24), "deep": (1, 20, 42, 62)}


@dataclass(frozen=True, eq=False)
class Place:
    """Points in the neck, all arrays (n,).

    Parameters
    ----------
    x, y : array
        Right and anterior of the cord's axis [mm].
    height : array
        Height of the template [mm].
    ventral, dorsal : array
        Anterior coordinate of the dura in front of and behind the cord [mm].
    outside : array
        Distance [mm] outside the dura, negative inside.
    level : array
        Position along the spine: 0 at the top of C1, 1 at the disc C1/C2, and so on.
    from_disc : array
        Distance [mm] above the nearest disc.
    """

    x: FloatArray
    y: FloatArray
    height: FloatArray
    ventral: FloatArray
    dorsal: FloatArray
    outside: FloatArray
    level: FloatArray
    from_disc: FloatArray

    @classmethod
    def of(cls, coordinates: FloatArray, level: FloatArray, shape: CordShape) -> "Place":
        """Points from cord coordinates (n, 3), their positions along the spine and the sizes of the dural sac."""
        x, y, height = coordinates.T
        section = shape.at(height)
        edges = tables.level_edges()
        nearest = edges[np.clip(np.round(level).astype(int), 0, len(edges) - 1)]
        fields = (
            x,
            y,
            height,
            section.canal_shift + section.canal_ap / 2,
            section.canal_shift - section.canal_ap / 2,
            (section.canal_radius(x, y) - 1) * (section.canal_ap + section.canal_rl) / 4,
            level,
            height - nearest,
        )
        return cls(*(np.asarray(f, dtype=np.float32) for f in fields))

    def profile(self, values: ArrayLike) -> FloatArray:
        """Value of a quantity that is given at the middles of C1 to T4."""
        return _profile(self.level, values)

    @property
    def vertebra(self) -> FloatArray:
        """Number of the level, 0 for C1."""
        return np.asarray(np.floor(self.level))

    @property
    def in_level(self) -> FloatArray:
        """Distance [mm] above the middle of the level."""
        edges = tables.level_edges()
        row = np.clip(self.vertebra.astype(int), 0, len(edges) - 2)
        return np.asarray(self.height - (edges[row] + edges[row + 1]) / 2, dtype=np.float32)


class Canvas:
    """Signal of points, painted over from the far to the near.

    Parameters
    ----------
    place : Place
        The points.
    signals : mapping of str to (n,) array
        Signal of each tissue in each volume.
    blur : float
        Width [mm] over which an edge passes from one tissue to the next: the voxel.
    """

    def __init__(self, place: Place, signals: Mapping[str, FloatArray], blur: float) -> None:
        self.place = place
        self.signals = {name: s.astype(np.float32) for name, s in signals.items()}
        self.blur = blur
        self.values = np.zeros((len(place.x), len(self.signals["air"])), dtype=np.float32)

    def paint(self, tissue: str, distance: FloatArray, share: float = 1.0) -> None:
        """Cover the points inside a shape, whose distance [mm] is negative there."""
        cover = np.clip(0.5 - distance / self.blur, 0, 1) * share
        rows = np.flatnonzero(cover > 0)
        part = cover[rows, None].astype(np.float32)
        self.values[rows] += part * (self.signals[tissue] - self.values[rows])


def paint_neck(coordinates: FloatArray, shape: CordShape, signals: Mapping[str, FloatArray], blur: float) -> FloatArray:
    """Signal (n, volumes) of all that surrounds the dural sac.

    Parameters
    ----------
    coordinates : (n, 3) array
        Cord coordinates of points.
    shape : CordShape
        Sizes of the dural sac.
    signals : mapping of str to (volumes,) array
        Signal of each tissue.
    blur : float
        Width of an edge [mm].
    """
    values = np.zeros((len(coordinates), len(signals["air"])), dtype=np.float32)
    edges = tables.level_edges()
    level = np.interp(-coordinates[:, 2], -edges, np.arange(len(edges))).astype(np.float32)
    x, y = coordinates[:, 0].astype(np.float32), coordinates[:, 1].astype(np.float32)
    skin = _skin(x, y, level)
    body = np.flatnonzero(skin < blur)
    canvas = Canvas(Place.of(coordinates[body], level[body], shape), signals, blur)
    canvas.paint("fat", skin[body])
    canvas.paint("muscle", skin[body] + 5.5 - 1.5 * np.tanh(canvas.place.y / 15))
    _paint_lungs(canvas)
    _paint_soft_tissue(canvas)
    _paint_vertebra(canvas)
    _paint_arch(canvas)
    _paint_epidural(canvas)
    _paint_roots(canvas)
    values[body] = canvas.values
    return values


def _skin(x: FloatArray, y: FloatArray, level: FloatArray) -> FloatArray:
    """Distance outside the skin."""
    depth = np.where(y > 0, _profile(level, _VENTRAL), _profile(level, _DORSAL))
    return _oval(x / _profile(level, _HALF_WIDTH), y / depth, np.hypot(x, y), 2.4)


def _profile(level: FloatArray, values: ArrayLike) -> FloatArray:
    middles = np.arange(len(_PROFILE_LEVELS)) + 0.5
    return np.asarray(np.interp(level, middles, np.asarray(values, dtype=float)), dtype=np.float32)


def _oval(a: FloatArray, b: FloatArray, distance: FloatArray, exponent: float) -> FloatArray:
    """Distance outside a superellipse around the origin, along the ray from it."""
    radius = (np.abs(a) ** exponent + np.abs(b) ** exponent) ** (1 / exponent)
    return np.asarray(distance * (1 - 1 / np.maximum(radius, 1e-3)))


def _ellipse(place: Place, x: FloatArray | float, y: FloatArray | float, wide: float, deep: float) -> FloatArray:
    dx, dy = place.x - x, place.y - y
    return _oval(dx / wide, dy / deep, np.hypot(dx, dy), 2.0)


def _box(*distances: FloatArray) -> FloatArray:
    """Distance outside an intersection."""
    return np.asarray(np.maximum.reduce(distances))


def _paint_soft_tissue(canvas: Canvas) -> None:
    """Fat between muscles, airway, and the vessels beside it."""
    p = canvas.place
    behind = p.y - p.dorsal + 6
    centre = np.hypot(p.x, p.y - p.dorsal)
    for radius in (19.0, 30.0, 41.0):
        canvas.paint("fat", _box(np.abs(centre - radius - 2 * np.sin(3 * np.arctan2(p.x, -p.y))) - 0.6, behind), 0.7)
    canvas.paint("ligament", _box(np.abs(p.x) - 0.8, behind), 0.7)
    canvas.paint("fat", _box(np.abs(np.abs(p.x) - 1.8) - 0.7, behind), 0.35)
    for side in (-1, 1):
        canvas.paint("fat", _ellipse(p, side * 29, p.ventral + 13, 13, 9), 0.6)
        canvas.paint("blood", _ellipse(p, side * 25, p.ventral + 15, 3.3, 3.3))
        canvas.paint("blood", _ellipse(p, side * 33, p.ventral + 12, 5.5, 4.5))
    middle = p.ventral + p.profile(_BODY_DEPTH) + 15
    wall = _ellipse(p, 0.0, middle, 12, 9)
    canvas.paint("ligament", _box(wall, p.level - 20, 1.2 - p.level))
    canvas.paint("air", wall + 3.0)


def _paint_lungs(canvas: Canvas) -> None:
    """The apices of the lungs, from the lower end of C7 down."""
    p = canvas.place
    beside, wide, before, deep = (
        np.interp(p.level, _LUNG_LEVELS, _LUNG[k]) for k in ("beside", "wide", "before", "deep")
    )
    for side in (-1, 1):
        dx, dy = p.x - side * beside, p.y - p.ventral - before
        outline = _oval(dx / wide, dy / deep, np.hypot(dx, dy), 2.0)
        canvas.paint("lung", _box(outline, _LUNG_LEVELS[0] - p.level))


def _paint_vertebra(canvas: Canvas) -> None:
    """Bodies with their cortical shell, discs, the dens, and the anterior arch of C1."""
    p = canvas.place
    depth, width = p.profile(_BODY_DEPTH), p.profile(_BODY_WIDTH)
    dx, dy = p.x, p.y - p.ventral - 1.2 - depth / 2
    outline = _oval(dx / (width / 2), dy / (depth / 2), np.hypot(dx, dy), 2.6)
    below_c1 = 1.0 - p.level
    canvas.paint("bone", _box(outline, below_c1))
    canvas.paint("marrow", _box(outline + 1.1, below_c1))
    has_disc = 1.5 - p.level
    canvas.paint("bone", _box(outline, np.abs(p.from_disc) - 3.0, has_disc))
    canvas.paint("ligament", _box(outline - 0.8, np.abs(p.from_disc) - 2.3, has_disc))
    canvas.paint("disc", _box(outline + 2.5, np.abs(p.from_disc) - 2.0, has_disc))
    dens = _box(_ellipse(p, 0.0, p.ventral + 7.5, 5.2, 5.2), p.level - 1.0, 0.25 - p.level)
    arch = _box(np.abs(p.x) - 11, np.abs(p.y - p.ventral - 16.5) - 3, np.abs(p.in_level) - 5, p.level - 1.0)
    for shape in (dens, arch):
        canvas.paint("bone", shape)
        canvas.paint("marrow", shape + 1.0)


def _paint_arch(canvas: Canvas) -> None:
    """Pillars beside the canal, vertebral arteries, laminae and spinous processes."""
    p = canvas.place
    half = np.interp(p.vertebra, [0, 1, 6, 10], [8, 6.5, 7, 9])
    for side in (-1, 1):
        pillar = _ellipse(p, side * (p.profile(_BODY_WIDTH) / 2 + 8), p.ventral - 7, 6.5, 7.5)
        pillar = _box(pillar, np.abs(p.in_level) - half)
        canvas.paint("bone", pillar)
        canvas.paint("marrow", pillar + 1.2)
        artery = _ellipse(p, side * (p.profile(_BODY_WIDTH) / 2 + 4), p.ventral + 3, 2.1, 2.1)
        canvas.paint("blood", _box(artery, p.level - 6.0))
    low = p.in_level + 3.0
    roof = _roof(p)
    wide = np.abs(p.x) - 15
    lamina = _box(np.abs(roof + 2.6) - 2.4, np.abs(low) - 6, wide)
    canvas.paint("ligament", _box(np.abs(roof + 0.9) - 0.9, wide))
    canvas.paint("bone", lamina)
    canvas.paint("marrow", lamina + 1.1)
    along = p.dorsal - 4 - p.y
    slope = np.interp(p.vertebra, [0, 2, 6, 10], [0.0, 0.35, 0.35, 0.6])
    tip = p.profile(_SPINE_TIP)
    thick = 4.5 - 0.5 * np.clip(along / tip, 0, 1)
    spinous = _box(np.abs(p.x) - 3.2, np.abs(low + slope * along) - thick, along - tip, -along)
    canvas.paint("bone", spinous)
    canvas.paint("marrow", spinous + 1.1)


def _roof(place: Place) -> FloatArray:
    """Distance [mm] ventral of the inner surface of the laminae, two planes that meet behind the dura."""
    slope = np.deg2rad(33.0)
    return np.asarray((place.y - place.dorsal + 3.5) * np.cos(slope) - np.abs(place.x) * np.sin(slope))


def _paint_epidural(canvas: Canvas) -> None:
    """Fat and veins between dura and bone, most of it behind in the midline."""
    p = canvas.place
    behind = _box(-_roof(p), p.outside - 4.0, p.y - p.dorsal - 4)
    canvas.paint("fat", behind, 0.7)
    canvas.paint("fat", p.outside - 1.0, 0.6)
    canvas.paint("ligament", p.outside - 0.6)


def _paint_roots(canvas: Canvas) -> None:
    """Nerve roots with their ganglia, which leave through the foramina at the height of the discs."""
    p = canvas.place
    side = np.abs(p.x)
    forward = 0.45 * (side - 11) - 1
    root = np.hypot(p.y - forward, p.from_disc - 1.0) - 1.3 - 1.3 * np.exp(-(((side - 17) / 4) ** 2))
    canvas.paint("fat", _box(root - 1.6, 10 - side, side - 24), 0.6)
    canvas.paint("nerve", _box(root, 10.5 - side, side - 30))
