"""Registration to a straight template: along the cord by levels, across it by the outline of each slice."""

from dataclasses import dataclass, replace

import numpy as np

from qcord.anatomy.centerline import Centerline, centerline_of
from qcord.anatomy.levels import Levels
from qcord.anatomy.outline import Outline, measure_outline, remeasure, smooth_outline, steady_turn
from qcord.anatomy.sample import interpolation_matrix, neighbourhood, subdivisions, subvoxel_offsets
from qcord.core.arrays import ArrayLike, FloatArray, IntArray
from qcord.core.errors import EmptyRegion
from qcord.core.image import Image, mask_of
from qcord.core.template import Template

REACH = 3.0
"""Smoothing of the outline along the cord [mm]; its section changes over half a vertebra, some 8 mm."""

TURN_REACH = 15.0
"""Smoothing of the turn along the cord [mm]: the neck turns as a whole, over several vertebrae."""

MARGIN = 4.0
"""Distance [mm] from the mask to which voxels are compared with the template."""


@dataclass(frozen=True, eq=False)
class Registration:
    """Map between an image and a template, exact in both directions.

    Parameters
    ----------
    template : Template
        The template.
    levels : Levels
        Height in the template along the cord.
    subject : Outline
        Outline of each slice of the image, in cord coordinates.
    subject_length : (n,) array
        Distance along the cord [mm] of each slice of `subject`.
    reference : Outline
        Outline of each slice of the template.
    reference_height : (m,) array
        z [mm] of each slice of `reference`.
    """

    template: Template
    levels: Levels
    subject: Outline
    subject_length: FloatArray
    reference: Outline
    reference_height: FloatArray

    def to_template(self, world: ArrayLike) -> FloatArray:
        """Template coordinates [mm] of world points (..., 3)."""
        points = np.asarray(world, dtype=float)
        flat = points.reshape(-1, 3)
        cord = self.levels.centerline.project(flat)
        height = self.levels.height_at(cord[:, 2])
        across = self._move(cord[:, :2], self._subject_row(cord[:, 2]), self._reference_row(height), forward=True)
        return np.concatenate([across, height[:, None]], axis=1).reshape(points.shape)

    def to_subject(self, template: ArrayLike) -> FloatArray:
        """World coordinates [mm] of template points (..., 3); inverse of `to_template`."""
        points = np.asarray(template, dtype=float)
        flat = points.reshape(-1, 3)
        length = self.levels.length_at(flat[:, 2])
        across = self._move(flat[:, :2], self._subject_row(length), self._reference_row(flat[:, 2]), forward=False)
        cord = np.concatenate([across, length[:, None]], axis=1)
        return self.levels.centerline.place(cord).reshape(points.shape)

    def _subject_row(self, length: FloatArray) -> FloatArray:
        return np.interp(length, self.subject_length, np.arange(len(self.subject_length)))

    def _reference_row(self, height: FloatArray) -> FloatArray:
        return np.interp(height, self.reference_height, np.arange(len(self.reference_height)))

    def _move(self, across: FloatArray, row: FloatArray, reference_row: FloatArray, *, forward: bool) -> FloatArray:
        first, second = (self.subject, self.reference) if forward else (self.reference, self.subject)
        row_1, row_2 = (row, reference_row) if forward else (reference_row, row)
        normal = _normalise(first, row_1, across)
        angle = np.arctan2(normal[:, 1], normal[:, 0])
        scale = second.radius(row_2, angle) / first.radius(row_1, angle)
        return _restore(second, row_2, normal * scale[:, None])


@dataclass(frozen=True)
class PlacementError:
    """How far the outline of the cord may be off, as standard deviations.

    Parameters
    ----------
    edge : float
        Offset of the edge along its normal, all around [mm].
    shift : float
        Shift of the whole outline along each axis [mm].
    turn : float
        Turn about the axis of the cord [rad].
    """

    edge: float = 0.12
    shift: float = 0.10
    turn: float = 0.03

    def displaced(self, registration: Registration) -> tuple[Registration, ...]:
        """Registrations with the outline off by one standard deviation in each of the four ways."""
        own = registration.subject
        outlines = (
            replace(own, width=own.width + self.edge / 2),  # a width is a quarter of the diameter
            replace(own, centre=own.centre + np.array([self.shift, 0.0])),
            replace(own, centre=own.centre + np.array([0.0, self.shift])),
            replace(own, turn=own.turn + self.turn),
        )
        return tuple(replace(registration, subject=o) for o in outlines)


PLACEMENT = PlacementError()
"""More than computed outlines of diffusion and transfer phantoms are off by, root mean square over healthy, compressed
and damaged cords (0.07 mm at the edge, 0.05 mm in place, 0.01 rad in turn; `benchmarks/coverage.py placement`): the
tissue of real cords varies more beside the edge. With it intervals cover the truth of phantom people in .91 to .99,
of MD of combined regions in .86 to .89 (``people``). Masks drawn by hand lie inside the half level between cord and
fluid (`benchmarks/segmentation.py agreement`), a convention that is not in here."""


@dataclass(frozen=True, eq=False)
class RegistrationQuality:
    """How well the template's cord covers the mask.

    Parameters
    ----------
    dice : (n,) array
        Overlap of each slice, both cut at one half; NaN without cord, and beyond the ends of the template.
    distance : (n,) array
        Mean distance [mm] between the two outlines: area in disagreement, in fractions of voxels, over perimeter.
    """

    dice: FloatArray
    distance: FloatArray

    @property
    def summary(self) -> dict[str, float]:
        """Medians over slices and the worst slice."""
        if not np.isfinite(self.dice).any():
            return {"dice_median": np.nan, "dice_min": np.nan, "distance_median_mm": np.nan}
        return {
            "dice_median": float(np.nanmedian(self.dice)),
            "dice_min": float(np.nanmin(self.dice)),
            "distance_median_mm": float(np.nanmedian(self.distance)),
        }


def register(cord: Image, template: Template, levels: Levels) -> Registration:
    """Register an image to a template by the outline of its cord.

    Each slice's outline (centre, turn, widths and low harmonics of its radius) is matched to that of the
    template at the height that ``levels`` gives. The map is closed-form, smooth along the cord and the same in
    both directions; nothing is optimised, so nothing can fail to converge.

    Parameters
    ----------
    cord : Image
        Mask or fraction of cord, axes closest to R, A, S.
    template : Template
        Straight template.
    levels : Levels
        Position along the cord; its centerline must be that of this image.

    Raises
    ------
    EmptyRegion
        If the mask is empty or no slice of it lies within the template.
    """
    mask_of(cord, cord.grid, "cord")
    subject, length = _subject_outline(cord, levels.centerline)
    reference, height = _template_outline(template)
    shown = levels.height_at(length[subject.present])
    if not ((shown >= height[0]) & (shown <= height[-1])).any():
        raise EmptyRegion(
            f"No slice of {cord.label} lies within template {template.name}; check the levels or landmarks."
        )
    spacing = float(np.median(np.diff(length))) if len(length) > 1 else 1.0
    return Registration(template, levels, smooth_outline(subject, spacing, REACH), length, reference, height)


def registration_quality(registration: Registration, cord: Image) -> RegistrationQuality:
    """Compare the warped template cord with the mask that it was registered to."""
    fraction = np.clip(np.nan_to_num(np.asarray(cord.data, dtype=float)), 0, 1)
    index = neighbourhood(fraction >= 0.5, cord.grid, MARGIN)
    warped = warp_to_image(registration, registration.template.cord, cord, index)
    own = fraction[tuple(index.T)]
    n = cord.grid.shape[2]
    both = np.bincount(index[:, 2], (own >= 0.5) & (warped >= 0.5), n)
    total = np.bincount(index[:, 2], own >= 0.5, n) + np.bincount(index[:, 2], warped >= 0.5, n)
    apart = np.bincount(index[:, 2], np.abs(own - warped), n)
    heights = registration.levels.height_at(registration.subject_length)
    shown = (heights >= registration.reference_height[0]) & (heights <= registration.reference_height[-1])
    area = np.where(shown, np.bincount(index[:, 2], own, n), 0.0)
    cell = cord.grid.spacing[0] * cord.grid.spacing[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        dice = np.where(area > 0, 2 * both / total, np.nan)
        distance = np.where(area > 0, apart * cell / (2 * np.sqrt(np.pi * area * cell)), np.nan)
    return RegistrationQuality(dice, distance)


def warp_to_image(registration: Registration, field: FloatArray, image: Image, index: ArrayLike) -> FloatArray:
    """Mean of a template field over voxels of an image.

    Parameters
    ----------
    field : (x, y, z) array
        On the template's grid.
    index : (n, 3) int array
        Voxels of ``image``.

    Returns
    -------
    (n,) array
        Averaged over sub-voxel samples, so partial volume is kept.
    """
    counts = subdivisions(image.grid)
    voxels = np.asarray(index, dtype=float)
    total = np.zeros(len(voxels))
    offsets = subvoxel_offsets(counts)
    for offset in offsets:
        places = registration.to_template(image.grid.world(voxels + offset))
        matrix = interpolation_matrix(registration.template.grid, registration.template.grid.index(places))
        total += matrix @ field.ravel()
    return np.asarray(total / len(offsets))


def _subject_outline(cord: Image, centerline: Centerline) -> tuple[Outline, FloatArray]:
    fraction = np.clip(np.nan_to_num(np.asarray(cord.data, dtype=float)), 0, 1)
    n = cord.grid.shape[2]
    index = np.argwhere(fraction > 0).astype(float)
    counts = subdivisions(cord.grid)
    offsets = subvoxel_offsets((counts[0], counts[1], 1))
    samples = (index[:, None, :] + offsets).reshape(-1, 3)
    weight = np.repeat(fraction[fraction > 0], len(offsets))
    place = centerline.project(cord.grid.world(samples))
    row = samples[:, 2].astype(int)
    cell = abs(float(np.linalg.det(_plane(cord, centerline)))) / len(offsets)
    outline = measure_outline(place[:, :2], weight, row, n, cell)
    length = _slice_lengths(cord, centerline, place[:, 2], weight, row)
    spacing = float(np.median(np.diff(length))) if n > 1 else 1.0
    outline = steady_turn(outline, spacing, TURN_REACH)
    return remeasure(outline, place[:, :2], weight, row), length


def _plane(cord: Image, centerline: Centerline) -> FloatArray:
    """From voxel steps in the slice to steps across the cord, at the middle of the axis."""
    frame = centerline.frame(np.asarray(centerline.length[-1] / 2))
    return np.asarray(frame[:2] @ cord.grid.affine[:3, :2])


def _slice_lengths(
    cord: Image, centerline: Centerline, along: FloatArray, weight: FloatArray, row: IntArray
) -> FloatArray:
    """Distance along the axis of each slice; slices without cord are placed by the axis alone."""
    n = cord.grid.shape[2]
    mass = np.bincount(row, weight, n)
    mean = np.bincount(row, weight * along, n) / np.where(mass > 0, mass, 1)
    known = np.flatnonzero(mass > 0)
    step = float(np.median(np.diff(mean[known]) / np.diff(known))) if len(known) > 1 else cord.grid.spacing[2]
    rows = np.arange(n, dtype=float)
    inside = np.interp(rows, known, mean[known])
    return np.asarray(inside + step * (np.minimum(rows - known[0], 0) + np.maximum(rows - known[-1], 0)))


def _template_outline(template: Template) -> tuple[Outline, FloatArray]:
    index = np.argwhere(template.cord > 0)
    weight = template.cord[tuple(index.T)].astype(float)
    world = template.grid.world(index)
    n = template.grid.shape[2]
    cell = template.grid.spacing[0] * template.grid.spacing[1]
    outline = measure_outline(world[:, :2], weight, index[:, 2], n, cell)
    spacing = template.grid.spacing[2]
    outline = remeasure(steady_turn(outline, spacing, TURN_REACH), world[:, :2], weight, index[:, 2])
    return smooth_outline(outline, spacing, REACH / 2), template.slice_heights


def _normalise(outline: Outline, row: FloatArray, across: FloatArray) -> FloatArray:
    centre, turn, width = _at(outline, row)
    local = across - centre
    c, s = np.cos(turn), np.sin(turn)
    turned = np.stack([c * local[:, 0] + s * local[:, 1], -s * local[:, 0] + c * local[:, 1]], -1)
    return np.asarray(turned / width)


def _restore(outline: Outline, row: FloatArray, normal: FloatArray) -> FloatArray:
    centre, turn, width = _at(outline, row)
    scaled = normal * width
    c, s = np.cos(turn), np.sin(turn)
    return np.asarray(centre + np.stack([c * scaled[:, 0] - s * scaled[:, 1], s * scaled[:, 0] + c * scaled[:, 1]], -1))


def _at(outline: Outline, row: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    rows = np.arange(len(outline.area))
    centre = np.stack([np.interp(row, rows, outline.centre[:, a]) for a in (0, 1)], -1)
    width = np.stack([np.interp(row, rows, outline.width[:, a]) for a in (0, 1)], -1)
    return centre, np.interp(row, rows, outline.turn), width


def centerline_of_cord(cord: Image) -> Centerline:
    """Axis of a mask or fraction of cord."""
    return centerline_of(mask_of(cord, cord.grid, "cord"), cord.grid)
