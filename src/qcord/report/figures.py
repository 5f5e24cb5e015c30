"""Pictures: the cord on each contrast, slice by slice, as a radiologist reads it.

Axial slices are shown from below: the patient's right is on the left of the picture, anterior on top.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke

from qcord.core.arrays import FloatArray, IntArray
from qcord.core.image import Image
from qcord.core.labels import COMBINED
from qcord.report.findings import Located

OUTLINED = [withStroke(linewidth=1.6, foreground="black")]
"""Dark edge around white letters, legible on any gray."""

HALF_FIELD = 16.0
"""Half width of an axial panel [mm]; the canal is some 22 mm wide."""

COLUMNS = 8
MOST_SLICES = 24
CORD_COLOUR = "#ff4d4d"
OUTLINES = {
    "dorsal columns": "#4cc9f0",
    "lateral funiculi": "#f9c74f",
    "ventral funiculi": "#90be6d",
    "gray matter": "#f072b6",
}
"""Colours of the combined regions, told apart also by those who do not see red or green."""


@dataclass(frozen=True)
class Panel:
    """One axial panel.

    Parameters
    ----------
    slice : int
        Slice number.
    x, y : tuple of float
        Limits [mm]; x runs to the patient's left.
    """

    slice: int
    x: tuple[float, float]
    y: tuple[float, float]


def shown_slices(present: Sequence[int], most: int = MOST_SLICES) -> list[int]:
    """At most ``most`` slices, evenly spread over those that show cord, from the head down."""
    rows = np.asarray(sorted(present, reverse=True))
    if len(rows) <= most:
        return [int(r) for r in rows]
    return [int(r) for r in rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]]


def cord_figure(place: Located) -> bytes:
    """Axial slices with the cord's outline (left of each pair) and the atlas (right of each pair)."""
    slices = _cord_slices(place)
    figure, axes = _mosaic(2 * len(slices), COLUMNS, 1.55)
    atlas = {name: _region_field(place, name) for name in OUTLINES}
    for n, k in enumerate(slices):
        panel = _panel(place, k)
        plain, overlaid = axes[2 * n], axes[2 * n + 1]
        for axis in (plain, overlaid):
            _show(axis, place.image, panel)
        _contour(plain, np.asarray(place.cord.data, dtype=float), place.image, panel, CORD_COLOUR)
        for name, colour in OUTLINES.items():
            _contour(overlaid, atlas[name], place.image, panel, colour)
        _caption(plain, place, k)
    return _png(figure)


def map_figure(place: Located, value: Image, name: str, unit: str) -> bytes:
    """One map on axial slices, in colour inside the cord and its surround, with a common scale."""
    slices = _cord_slices(place, COLUMNS * 2)
    cord = np.asarray(place.cord.data, dtype=float) >= 0.5
    inside = np.asarray(value.data, dtype=float)[cord]
    low, high = _usual(inside[np.isfinite(inside)])
    figure, axes = _mosaic(len(slices), COLUMNS, 1.55)
    drawn = None
    for axis, k in zip(axes, slices, strict=False):
        panel = _panel(place, k)
        _show(axis, place.image, panel)
        shown = np.ma.masked_invalid(np.where(_near(cord[:, :, k]), value.data[:, :, k], np.nan).astype(float))
        drawn = axis.imshow(
            _oriented(shown),
            cmap="viridis",
            vmin=low,
            vmax=high,
            extent=_extent(value),
            origin="lower",
            interpolation="nearest",
        )
        _contour(axis, cord.astype(float), value, panel, "white")
        _caption(axis, place, k)
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=list(axes), fraction=0.012, pad=0.01)
        bar.set_label(f"{name} [{unit}]" if unit != "1" else name, color="white")
        bar.ax.tick_params(colors="white", labelsize=7)
    return _png(figure)


def sagittal_figure(place: Located) -> bytes:
    """Slice through the middle of the cord with its outline and the borders of the vertebral levels."""
    image, cord = place.image, np.asarray(place.cord.data, dtype=float)
    column = _straightened(np.asarray(image.data, dtype=float), cord)
    outline = _straightened(cord, cord)
    figure = Figure(figsize=(4.2, 6.0), facecolor="black")
    axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    dy, dz = image.grid.spacing[1], image.grid.spacing[2]
    rows = np.flatnonzero(outline.any(axis=1))
    middle = (np.arange(outline.shape[1]) * outline[rows].sum(axis=0)).sum() / outline[rows].sum()
    low, high = _range(column[np.isfinite(column)], 1, 99.7)
    axis.imshow(column[:, ::-1], cmap="gray", vmin=low, vmax=high, origin="lower", aspect=dz / dy)
    axis.contour(outline[:, ::-1], [0.5], colors=CORD_COLOUR, linewidths=0.8)
    centre = outline.shape[1] - 1 - middle
    half = 45 / dy
    axis.set_xlim(centre - half, centre + half)
    for k in _level_borders(place):
        axis.axhline(k, color="white", linewidth=0.4, alpha=0.6)
    for k, name in _level_marks(place):
        axis.text(centre + 0.7 * half, k, name, color="white", fontsize=8, va="center")
    axis.text(centre - 0.97 * half, 1, "A", color="white", fontsize=9)
    axis.text(centre + 0.9 * half, 1, "P", color="white", fontsize=9)
    axis.axis("off")
    return _png(figure)


def profile_figure(place: Located) -> bytes:
    """Area and diameters along the cord."""
    shape = place.shape.metrics
    n = len(shape["area"])
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = np.arange(n)
    left.plot(rows, shape["area"], ".-", color="#1d3557", linewidth=1, markersize=4)
    left.set_ylabel("area [mm²]")
    right.plot(rows, shape["diameter_RL"], ".-", color="#457b9d", linewidth=1, markersize=4, label="right-left")
    right.plot(rows, shape["diameter_AP"], ".-", color="#e76f51", linewidth=1, markersize=4, label="anterior-posterior")
    right.set_ylabel("diameter [mm]")
    right.legend(fontsize=7, frameon=False)
    for axis in (left, right):
        axis.invert_xaxis()
        axis.set_xlabel("slice, head on the left")
        for k in _level_borders(place):
            axis.axvline(k, color="0.85", linewidth=0.8, zorder=0)
        for k, name in _level_marks(place):
            axis.text(k, axis.get_ylim()[0], name, fontsize=6, color="0.45", ha="center", va="bottom")
    return _png(figure)


def _cord_slices(place: Located, most: int = MOST_SLICES) -> list[int]:
    cord = np.asarray(place.cord.data, dtype=float)
    return shown_slices([int(k) for k in np.flatnonzero((cord >= 0.5).any(axis=(0, 1)))], most)


def _mosaic(n: int, columns: int, size: float) -> tuple[Figure, list[Axes]]:
    rows = max(1, -(-n // columns))
    figure = Figure(
        figsize=(columns * size, rows * size),
        layout=ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0),
        facecolor="black",
    )
    axes = list(np.atleast_1d(figure.subplots(rows, columns)).ravel())
    for axis in axes:
        axis.axis("off")
    for axis in axes[n:]:
        axis.set_visible(False)
    return figure, axes


def _oriented(plane: FloatArray) -> FloatArray:
    """Rows run up to anterior, columns to the patient's left (x reversed)."""
    return plane.T[:, ::-1]


def _extent(image: Image) -> tuple[float, float, float, float]:
    """Extent in mm with x running to the patient's left."""
    nx, ny, _ = image.grid.shape
    dx, dy, _ = image.grid.spacing
    return -(nx - 0.5) * dx, 0.5 * dx, -0.5 * dy, (ny - 0.5) * dy


def _panel(place: Located, k: int) -> Panel:
    """Panel around the cord of a slice."""
    weight = np.asarray(place.cord.data[:, :, k], dtype=float)
    i, j = (weight.sum(axis=1 - a) @ np.arange(weight.shape[a]) / weight.sum() for a in (0, 1))
    x, y = -i * place.image.grid.spacing[0], j * place.image.grid.spacing[1]
    return Panel(k, (x - HALF_FIELD, x + HALF_FIELD), (y - HALF_FIELD, y + HALF_FIELD))


def _show(axis: Axes, image: Image, panel: Panel) -> None:
    plane = np.asarray(image.data[:, :, panel.slice], dtype=float)
    dx, dy, _ = image.grid.spacing
    i = slice(max(0, int(-panel.x[1] / dx)), int(-panel.x[0] / dx) + 1)
    j = slice(max(0, int(panel.y[0] / dy)), int(panel.y[1] / dy) + 1)
    low, high = _range(plane[i, j][np.isfinite(plane[i, j])], 1, 99.5)
    axis.imshow(
        _oriented(plane),
        cmap="gray",
        vmin=low,
        vmax=high,
        extent=_extent(image),
        origin="lower",
        interpolation="nearest",
    )
    axis.set_xlim(panel.x)
    axis.set_ylim(panel.y)
    axis.set_facecolor("black")


def _contour(axis: Axes, field: FloatArray, image: Image, panel: Panel, colour: str) -> None:
    plane = field[:, :, panel.slice]
    if not ((plane >= 0.5).any() and (plane < 0.5).any()):
        return
    dx, dy, _ = image.grid.spacing
    x, y = -np.arange(plane.shape[0]) * dx, np.arange(plane.shape[1]) * dy
    axis.contour(x[::-1], y, plane[::-1].T, [0.5], colors=colour, linewidths=0.9)
    axis.set_xlim(panel.x)
    axis.set_ylim(panel.y)


def _caption(axis: Axes, place: Located, k: int) -> None:
    level = place.atlas.levels[k]
    text = f"{level} · {k}" if level else f"{k}"
    for x, y, words, side in ((0.03, 0.97, text, "top"), (0.03, 0.03, "R", "bottom")):
        axis.text(x, y, words, color="white", fontsize=7, va=side, transform=axis.transAxes, path_effects=OUTLINED)


def _region_field(place: Located, name: str) -> FloatArray:
    columns = [place.atlas.regions.index(m) for m in COMBINED[name] if m in place.atlas.regions]
    field = np.zeros(place.atlas.grid.shape)
    field[tuple(place.atlas.index.T)] = place.atlas.weights[:, columns].sum(axis=1)
    return field


def _near(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    from scipy.ndimage import binary_dilation

    return np.asarray(binary_dilation(mask, iterations=2))


def _range(values: FloatArray, low: float = 2, high: float = 98) -> tuple[float, float]:
    if not values.size:
        return 0.0, 1.0
    a, b = np.percentile(values, [low, high])
    return float(a), float(b if b > a else a + 1)


def _usual(values: FloatArray) -> tuple[float, float]:
    """Range of most values: the middle nine tenths, at most four robust deviations from the median."""
    if not values.size:
        return 0.0, 1.0
    middle = float(np.median(values))
    spread = 4 * 1.4826 * float(np.median(np.abs(values - middle)))
    low, high = _range(values, 5, 95)
    return max(low, middle - spread), max(min(high, middle + spread), max(low, middle - spread) + 1e-9)


def _straightened(volume: FloatArray, cord: FloatArray) -> FloatArray:
    """Sagittal picture (slices, anterior axis) that follows the cord from left to right."""
    mass = (cord >= 0.5).sum(axis=1)
    rows = np.flatnonzero(mass.sum(axis=0))
    centre = (np.arange(cord.shape[0])[:, None] * mass).sum(axis=0)[rows] / mass.sum(axis=0)[rows]
    column: IntArray = np.rint(np.interp(np.arange(cord.shape[2]), rows, centre)).astype(int)
    return np.stack([volume[column[k], :, k] for k in range(volume.shape[2])])


def _level_marks(place: Located) -> list[tuple[float, str]]:
    """Middle slice and name of each level."""
    levels = np.array(place.atlas.levels)
    return [(float(np.flatnonzero(levels == n).mean()), str(n)) for n in dict.fromkeys(levels) if n]


def _level_borders(place: Located) -> list[float]:
    """Heights, in slices, at which the level changes."""
    levels = place.atlas.levels
    return [k + 0.5 for k in range(len(levels) - 1) if levels[k] != levels[k + 1]]


def _png(figure: Figure, dpi: int = 100) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context({"savefig.facecolor": figure.get_facecolor()}):
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
