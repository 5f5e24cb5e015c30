"""The cord in an image: mask, share of each voxel, axis, and how sure each slice is."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy import ndimage

from qcord.anatomy.boundary import centres_of, cover, level, only_cord, radii_of, smooth_surface
from qcord.anatomy.centerline import Centerline, curve_through
from qcord.anatomy.contrast import POLARITY, contrast_of
from qcord.anatomy.detect import find_axis
from qcord.anatomy.edge import half_level_offset, half_level_shift
from qcord.anatomy.network import FINE, cord_share, normalize
from qcord.anatomy.sampling import sections
from qcord.core.arrays import BoolArray, FloatArray
from qcord.core.errors import EmptyRegion, ImplausibleValue, UnknownName
from qcord.core.image import Image, Step

REFERENCES = (
    "Ronneberger 2015, doi:10.1007/978-3-319-24574-4_28",
    "Billot 2023, doi:10.1016/j.media.2023.102789",
)
ALIGNED_MEAN = 1.2
"""Standard deviation [mm] of the mean over aligned slices: thin slices gain signal, thick ones stay as they are."""
SURFACE = 2.0
"""Standard deviation [mm] along the cord within which its edge is smoothed: a tenth of a vertebral level."""
SURE = 0.5
"""Least mean share of cord inside the edge of a slice that counts."""
AGREED = 0.25
"""Least mean evidence of the far view along a stretch: what looks like a cord only from near is something else."""
GAP = 12.0
"""Longest stretch [mm] without evidence that is bridged between slices that have it: below a vertebral level."""
SMALLEST = 8.0
"""Area [mm2] below which the tip of the conus is no longer told from a root."""
FAR_OFF = 3.0
"""Distance [mm] from the middle of its section at which a cord is looked at again, centred."""
BLACK = 0.5
"""Percentile of an image with negative values that counts as black."""
SMALLEST_FIELD = 12.0
"""Field of view [mm] in plane below which no section of a cord fits."""


@dataclass(frozen=True, eq=False)
class CordSegmentation:
    """The cord in one image.

    Parameters
    ----------
    mask : Image
        Boolean, on the grid of the image, unit ``label``: voxels of which at least half is cord. One connected
        part along the slices.
    probability : Image
        float32, 0 to 1, unit ``probability``: share of each voxel that is cord. Its sum over a slice times the
        pixel area is the area of the section.
    centerline : Centerline
        Axis through the centres of the sections.
    confidence : (z,) array
        For each slice 0 (no cord drawn) to 1: mean likelihood of cord inside the drawn edge.
    contrast : str or None
        Kind of contrast that was assumed.
    """

    mask: Image
    probability: Image
    centerline: Centerline
    confidence: FloatArray
    contrast: str | None = None


def segment_cord(
    image: Image, contrast: str | None = None, *, centerline: Centerline | None = None
) -> CordSegmentation:
    """Find the spinal cord in a three-dimensional image of any contrast.

    A small network finds likely places in coarse sections, dynamic programming joins them to an axis, a second
    network draws the cord on 0.5 mm pixels around it, and a tube of smooth closed curves is fitted to that. Both
    networks were trained on painted sections only (docs/cord-network.md).

    Parameters
    ----------
    image : Image
        One volume; the slices are its planes of constant third index. Voxels that are not finite count as outside
        the field of view.
    contrast : str, optional
        Key of `qcord.anatomy.contrast.POLARITY`; by default read from the name and sidecar of the image. It only
        tells whether cord or fluid is the brighter one, and may be unknown.
    centerline : Centerline, optional
        Axis of the cord in world coordinates, if known from elsewhere; it replaces the search.

    Raises
    ------
    EmptyRegion
        If no cord is found.
    ImplausibleValue
        If the image holds several volumes, no finite or only one value, or too few pixels.
    UnknownName
        If ``contrast`` is not known.
    """
    volume = _volume(image)
    spacing = image.grid.spacing
    kind = contrast_of(image) if contrast is None else contrast
    if kind is not None and kind not in POLARITY:
        raise UnknownName(f"Contrast '{kind}' is not known; expected one of {', '.join(POLARITY)}, or none.")
    hint = float(POLARITY[kind]) if kind is not None else 0.0
    if centerline is None:
        places, evidence = find_axis(volume, spacing, hint)
    else:
        places, evidence = _places_on(centerline, image), np.ones(len(volume))
    share, places = _near_share(volume, spacing, places, hint)
    tube = _fit_tube(share, places, spacing)
    keep = _stretch(tube, evidence, spacing[2]) & np.isfinite(volume).any(axis=(1, 2))
    tube = _at_half_level(volume, spacing, tube, keep)
    if not keep.any():
        raise EmptyRegion(
            f"No spinal cord was found in {image.label}, expected one in at least one slice; check the image, "
            "or give a mask of the cord."
        )
    return _result(image, tube, keep, kind)


@dataclass(frozen=True, eq=False)
class _Tube:
    """Smooth edge of the cord in each slice."""

    radii: FloatArray
    places: FloatArray
    sure: FloatArray
    offset: float = 0.0

    @property
    def area(self) -> FloatArray:
        """Area of each section [mm2]."""
        return np.asarray(np.pi * (self.radii**2).mean(axis=1))


def _volume(image: Image) -> FloatArray:
    """Return the image as float32 (z, x, y), NaN where not finite; refuse what cannot hold a cord."""
    if image.n_volumes != 1:
        raise ImplausibleValue(
            f"{image.label} holds {image.n_volumes} volumes, expected one; average them or select one first."
        )
    volume = np.array(np.moveaxis(image.data.reshape(image.grid.shape), 2, 0), dtype=np.float32, order="C")
    finite = np.isfinite(volume)
    low, high = (float(f(volume, where=finite, initial=start)) for f, start in ((np.min, np.inf), (np.max, -np.inf)))
    if not low < high:
        raise ImplausibleValue(
            f"{image.label} holds {'one constant value' if low == high else 'no finite value'}, expected an image; "
            "check how it was made."
        )
    volume[~finite] = np.nan
    with np.errstate(invalid="ignore"):
        volume[volume.min(axis=(1, 2)) == volume.max(axis=(1, 2))] = np.nan  # an empty slice says nothing
    if low < 0:  # centred on 0, or real parts: black is at the low end, not at 0
        volume -= min(np.float32(0), np.nanpercentile(volume, BLACK))
    extent = [n * s for n, s in zip(image.grid.shape[:2], image.grid.spacing[:2], strict=True)]
    if min(extent) < SMALLEST_FIELD or min(image.grid.shape[:2]) < 4:
        raise ImplausibleValue(
            f"{image.label} covers {extent[0]:.0f} x {extent[1]:.0f} mm in plane, expected at least "
            f"{SMALLEST_FIELD:.0f} mm and 4 voxels each way; give an image that shows the cord and what surrounds it."
        )
    volume /= np.float32(max(abs(low), abs(high)))
    return volume


def _places_on(centerline: Centerline, image: Image) -> FloatArray:
    """Voxel index (z, 2) at which a curve crosses each slice, straight beyond its ends."""
    reach = np.linspace(-50, centerline.length[-1] + 50, 400)
    dense = image.grid.index(np.concatenate([centerline.points, centerline.at(reach)]))
    dense = dense[np.argsort(dense[:, 2], kind="stable")]
    slices = np.arange(image.grid.shape[2])
    return np.stack([np.interp(slices, dense[:, 2], dense[:, a]) for a in (0, 1)], axis=1)


def _near_share(
    volume: FloatArray, spacing: tuple[float, float, float], places: FloatArray, hint: float
) -> tuple[FloatArray, FloatArray]:
    """Share of cord on fine sections about the axis, and the axis moved onto the cord where it was off it."""
    share = _look(volume, spacing, places, hint)
    moved, area = centres_of(share)
    off = np.hypot(*(moved.T * FINE.spacing)) > FAR_OFF
    again = off & (area * FINE.spacing**2 > SMALLEST)
    if again.any():
        places = places + np.where(again[:, None], moved * FINE.spacing / np.array(spacing[:2]), 0)
        share = _look(volume, spacing, places, hint)
    return share, places


def _aligned(
    volume: FloatArray, spacing: tuple[float, float, float], places: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Fine sections about given places, averaged along the cord, and where they lie in the field of view."""
    planes, inside = sections(volume, spacing, places, (FINE.size, FINE.size), FINE.spacing)
    spread = ALIGNED_MEAN / spacing[2]
    if spread > 0.25:
        seen = ndimage.gaussian_filter1d(inside, spread, axis=0, mode="constant")
        planes = ndimage.gaussian_filter1d(planes, spread, axis=0, mode="constant") / np.maximum(seen, 1e-6)
    return planes * inside, inside


def _look(volume: FloatArray, spacing: tuple[float, float, float], places: FloatArray, hint: float) -> FloatArray:
    """Share of cord on fine sections about given places, one connected part in each."""
    planes, inside = _aligned(volume, spacing, places)
    return only_cord(cord_share(normalize(planes, inside, FINE), FINE, hint) * inside)


def _fit_tube(share: FloatArray, places: FloatArray, spacing: tuple[float, float, float]) -> _Tube:
    """Smooth closed curves through the shares."""
    centres, area = centres_of(share)
    radii = radii_of(level(share), centres, FINE.spacing)
    weight = area / max(float(area.max()), 1e-6)
    spread = SURFACE / spacing[2]
    radii = smooth_surface(radii, weight, spread)
    places = places + centres * FINE.spacing / np.array(spacing[:2])
    if spread > 0.2:
        total = np.maximum(ndimage.gaussian_filter1d(weight, spread, mode="constant"), 1e-6)
        places = np.stack(
            [ndimage.gaussian_filter1d(places[:, a] * weight, spread, mode="constant") / total for a in (0, 1)], axis=1
        )
    return _Tube(radii, places, _certainty(share, centres, radii))


def _at_half_level(volume: FloatArray, spacing: tuple[float, float, float], tube: _Tube, keep: BoolArray) -> _Tube:
    """Move the whole edge to the half level between cord and fluid: in or out, then to one side."""
    planes = _aligned(volume, spacing, tube.places)[0]
    offset = half_level_offset(planes[keep], tube.radii[keep], FINE.spacing)
    radii = np.maximum(tube.radii + offset, 0)
    shift = half_level_shift(planes[keep], radii[keep], FINE.spacing)
    return replace(tube, radii=np.maximum(radii + shift, 0), offset=offset + float(shift.mean()))


def _certainty(share: FloatArray, centres: FloatArray, radii: FloatArray) -> FloatArray:
    """Mean share inside 80 % of the edge, (z,): away from the partial volume of the edge itself."""
    n = radii.shape[1]
    angle = 2 * np.pi * np.arange(n) / n
    part = np.sqrt((np.arange(5) + 0.5) / 5) * 0.8
    middle = (np.array(share.shape[1:]) - 1) / 2
    out = np.zeros(len(share))
    for k, plane in enumerate(share):
        reach = radii[k] / FINE.spacing
        place = np.stack([np.cos(angle) * reach, np.sin(angle) * reach])[:, :, None] * part
        place = place + (middle + centres[k])[:, None, None]
        out[k] = ndimage.map_coordinates(plane, place, order=1, mode="constant").mean()
    return out


def _stretch(tube: _Tube, evidence: FloatArray, height: float) -> BoolArray:
    """Slices of the one stretch that both views call cord, short gaps between longer parts of it included."""
    good = (tube.sure >= SURE) & (tube.area >= SMALLEST)
    labels, count = ndimage.label(good)
    runs = [np.flatnonzero(labels == i) for i in range(1, count + 1)]
    joined = _bridged([(int(run[0]), int(run[-1]) + 1) for run in runs], GAP / height)
    keep = np.zeros(len(good), dtype=bool)
    joined = [run for run in joined if evidence[slice(*run)].mean() >= AGREED]
    if joined:
        keep[slice(*max(joined, key=lambda run: float((tube.sure * evidence)[slice(*run)].sum())))] = True
    return keep


def _bridged(runs: list[tuple[int, int]], longest: float) -> list[tuple[int, int]]:
    """Join runs (start, stop) over gaps no longer than ``longest`` nor than either of them, the smallest gap first."""
    runs = list(runs)
    while True:
        gaps = [
            (right[0] - left[1], i)
            for i, (left, right) in enumerate(pairwise(runs))
            if right[0] - left[1] <= min(longest, left[1] - left[0], right[1] - right[0])
        ]
        if not gaps:
            return runs
        _, i = min(gaps)
        runs[i : i + 2] = [(runs[i][0], runs[i + 1][1])]


def _result(image: Image, tube: _Tube, keep: BoolArray, kind: str | None) -> CordSegmentation:
    """Draw the tube on the grid of the image."""
    grid = image.grid
    share = cover(tube.radii, tube.places, grid.shape, grid.spacing, keep)
    rows = np.flatnonzero(keep)
    settings = {
        "contrast": kind or "not known",
        "slices": f"{rows[0]}-{rows[-1]}",
        "edge_shift_mm": round(tube.offset, 3),
    }
    step = Step("segment_cord", settings, REFERENCES)
    points = grid.world(np.concatenate([tube.places[rows], rows[:, None]], axis=1))
    if len(rows) == 1:
        points = grid.world(np.concatenate([np.repeat(tube.places[rows], 2, 0), rows[0] + [[-0.5], [0.5]]], axis=1))
    name = image.entities
    return CordSegmentation(
        mask=image.derive(share >= 0.5, step, unit="label", entities=name),
        probability=image.derive(share, step, unit="probability", entities=name),
        centerline=curve_through(points, weights=np.maximum(tube.sure[rows], 0.05) if len(rows) > 1 else None),
        confidence=np.where(keep, np.clip(tube.sure, 0.01, 1), 0.0),
        contrast=kind,
    )
