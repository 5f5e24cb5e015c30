"""Position along the cord: from landmarks, a level map or another image to the height in the template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from qcord.anatomy.centerline import Centerline
from qcord.core.arrays import ArrayLike, FloatArray, IntArray
from qcord.core.errors import EmptyRegion, ImplausibleValue, UnknownName
from qcord.core.image import Image
from qcord.core.labels import VERTEBRAE
from qcord.core.template import Template

FAR_OFF = 100.0
"""Distance [mm] from the axis of the cord beyond which a landmark is none of this spine."""

FAR_BEYOND = 300.0
"""Distance [mm] beyond the ends of the imaged cord to which its axis cannot be continued: half a spine."""

STRETCH = (0.5, 2.0)
"""Plausible ratio of template length to body length between two landmarks; adults differ by a factor below 1.5."""

CENTRE = "C3/C4"
"""Disc on which cervical protocols centre their slices (spine-generic consensus, doi:10.1038/s41596-021-00588-0)."""


@dataclass(frozen=True, eq=False)
class Levels:
    """Height in the template as a function of the distance along a person's cord.

    Parameters
    ----------
    centerline : Centerline
        Axis that distances refer to.
    length : (n,) array
        Distances along it [mm], increasing.
    height : (n,) array
        z in the template [mm], increasing; linear in between and beyond.
    source : str
        Where it comes from: ``landmarks``, ``level map``, ``another image`` or ``assumed``.
    """

    centerline: Centerline
    length: FloatArray
    height: FloatArray
    source: str

    def height_at(self, length: ArrayLike) -> FloatArray:
        """Template z [mm] at distances along the cord [mm]."""
        return _extrapolated(np.asarray(length, dtype=float), self.length, self.height)

    def length_at(self, height: ArrayLike) -> FloatArray:
        """Distance along the cord [mm] at template z [mm]; inverse of `height_at`."""
        return _extrapolated(np.asarray(height, dtype=float), self.height, self.length)

    def height_of(self, world: ArrayLike) -> FloatArray:
        """Template z [mm] of world points (..., 3)."""
        return self.height_at(self.centerline.project(world)[..., 2])

    @property
    def assumed(self) -> bool:
        """Whether no landmark fixes the position."""
        return self.source == "assumed"


def levels_from_landmarks(
    centerline: Centerline, landmarks: Mapping[str, Sequence[float]], template: Template
) -> Levels:
    """Fix the position along the cord by named points.

    Parameters
    ----------
    centerline : Centerline
        Axis of the cord.
    landmarks : mapping of str to (3,) sequence
        Disc (``C2/C3``) or vertebra (``C3``, its middle) to world coordinates [mm]. One is enough: lengths are
        then those of the template.
    template : Template
        Whose heights are meant.

    Raises
    ------
    EmptyRegion
        Without landmarks.
    UnknownName
        If the template does not know a landmark.
    ImplausibleValue
        If landmarks lie in the wrong order or at impossible distances.
    """
    if not landmarks:
        raise EmptyRegion("No landmark is given, expected at least one disc or vertebra.")
    rows = []
    for name, point in landmarks.items():
        known = template.discs.get(name, template.vertebra_middles.get(name))
        if known is None:
            raise UnknownName(f"Template {template.name} has no landmark '{name}'; it knows discs and vertebrae to L1.")
        rows.append((float(centerline.project(np.asarray(point, dtype=float))[2]), known, name))
    rows.sort()
    length, height = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    for lower, upper in pairwise(rows):
        ratio = (upper[1] - lower[1]) / max(upper[0] - lower[0], 1e-6)
        if not STRETCH[0] <= ratio <= STRETCH[1]:
            raise ImplausibleValue(
                f"Landmarks {lower[2]} and {upper[2]} lie {upper[0] - lower[0]:.1f} mm apart along the cord, "
                f"expected about {upper[1] - lower[1]:.0f} mm with {upper[2]} above; check their names and places."
            )
    if len(rows) == 1:
        length, height = np.append(length, length[0] + 1), np.append(height, height[0] + 1)
    return Levels(centerline, length, height, "landmarks")


def require_near(centerline: Centerline, landmarks: Mapping[str, Sequence[float]]) -> None:
    """Raise `ImplausibleValue` if a landmark that a person gave lies nowhere near the imaged cord."""
    for name, point in landmarks.items():
        right, front, along = (float(v) for v in centerline.project(np.asarray(point, dtype=float)))
        off, beyond = float(np.hypot(right, front)), max(-along, along - float(centerline.length[-1]), 0.0)
        if not (off <= FAR_OFF and beyond <= FAR_BEYOND):
            raise ImplausibleValue(
                f"Landmark {name} at {', '.join(f'{v:g}' for v in point)} lies {off:.0f} mm from the axis of the cord "
                f"and {beyond:.0f} mm beyond its ends, expected at most {FAR_OFF:g} and {FAR_BEYOND:g} mm; check that "
                "the coordinates are world millimetres (right, anterior, superior) of this person."
            )


def levels_from_map(labels: Image, centerline: Centerline, template: Template) -> Levels:
    """Fix the position along the cord by a map of vertebral levels (C1 = 1).

    The borders between levels are taken where the most frequent label changes along the axis.

    Raises
    ------
    EmptyRegion
        If the map shows fewer than two neighbouring levels near the axis.
    """
    data = np.asarray(labels.data)
    index = np.argwhere((data >= 1) & (data <= len(VERTEBRAE)))
    if not len(index):
        raise EmptyRegion(f"{labels.label} holds no vertebral level (1 to {len(VERTEBRAE)}); check the file.")
    values = np.rint(data[tuple(index.T)]).astype(int)
    along = centerline.project(labels.grid.world(index))[:, 2]
    top = {i + 1: f"{VERTEBRAE[i - 1]}/{VERTEBRAE[i]}" for i in range(1, len(VERTEBRAE))}
    pairs = []
    for number in np.unique(values):
        border = top.get(int(number), "")
        if number - 1 in values and border in template.discs:
            pairs.append((_border(along, values, int(number)), template.discs[border]))
    if len(pairs) < 1:
        raise EmptyRegion(f"{labels.label} shows no border between two vertebral levels, expected at least one.")
    pairs.sort()
    length, height = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    if len(pairs) == 1:
        length, height = np.append(length, length[0] + 1), np.append(height, height[0] + 1)
    if (np.diff(length) <= 0).any() or (np.diff(height) <= 0).any():
        raise ImplausibleValue(f"The levels of {labels.label} do not ascend along the cord; check their numbers.")
    return Levels(centerline, length, height, "level map")


def levels_carried(reference: Levels, centerline: Centerline) -> Levels:
    """Carry levels over to another image of the same person, through world coordinates."""
    height = reference.height_of(centerline.points)
    keep = np.concatenate([[True], np.diff(np.maximum.accumulate(height)) > 1e-6])
    source = "assumed" if reference.assumed else "another image"
    return Levels(centerline, centerline.length[keep], height[keep], source)


def levels_assumed(centerline: Centerline, template: Template, centre: str = CENTRE) -> Levels:
    """Assume that the middle of the imaged cord is a given disc; lengths are those of the template."""
    if centre not in template.discs:
        raise UnknownName(f"Template {template.name} has no disc '{centre}'; it has {', '.join(template.discs)}.")
    middle = float(centerline.length[-1] / 2)
    z = template.discs[centre]
    return Levels(centerline, np.array([middle, middle + 1]), np.array([z, z + 1]), "assumed")


def vertebra_at(template: Template, height: ArrayLike) -> IntArray:
    """Number of the vertebral level (C1 = 1) at template heights [mm]; 0 outside the template."""
    z = np.asarray(height, dtype=float)
    names = [n for n in template.discs if n == "C1 top" or n.split("/")[1] in VERTEBRAE]
    tops = np.array([template.discs[n] for n in names])
    numbers = np.array([1 if n == "C1 top" else VERTEBRAE.index(n.split("/")[1]) + 1 for n in names])
    order = np.argsort(tops)
    place = np.searchsorted(tops[order], z, side="left")
    found = np.append(numbers[order], 0)[place]
    lowest = tops.min()
    return np.where(z <= lowest, 0, found).astype(np.int16)


def _border(along: FloatArray, values: IntArray, lower: int) -> float:
    """Distance along the axis at which label ``lower`` gives way to the one above it, halfway between their ends."""
    below, above = along[values == lower], along[values == lower - 1]
    return float((np.percentile(below, 98) + np.percentile(above, 2)) / 2)


def _extrapolated(x: FloatArray, knots: FloatArray, values: FloatArray) -> FloatArray:
    """Linear interpolation; beyond the ends with the mean slope."""
    slope = (values[-1] - values[0]) / (knots[-1] - knots[0])
    inside = np.interp(x, knots, values)
    return np.asarray(inside + slope * (np.minimum(x - knots[0], 0) + np.maximum(x - knots[-1], 0)))
