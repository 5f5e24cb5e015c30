"""z painted on axial pictures of the template, level by level.

Seen from below as all axial pictures: the patient's right is on the left, anterior on top.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from scipy.ndimage import zoom

from qcord.atlas.pool import levels_of, without_side
from qcord.core.arrays import FloatArray, IntArray
from qcord.core.labels import COMBINED, CSF, VERTEBRAE
from qcord.core.template import Template
from qcord.report.figures import _oriented, _png
from qcord.report.z_colours import LIMIT, NO_NORM, z_colour

FINER = 6
"""Pixels of the picture a voxel of the template, along each axis."""

DOTS = 150
"""Dots per inch: lines of the atlas are fine."""

COLUMNS = 6
"""Panels in a line."""

UNSURE = 1.0
"""|z| from which a colour is seen, and is hatched if its interval includes 0."""

Painted = Mapping[str, tuple[float, float, float, bool]]
"""Region to z, z_low, z_high, and whether it stands out among all comparisons."""


@dataclass(frozen=True, eq=False)
class Section:
    """An axial section of the template, finely sampled.

    Parameters
    ----------
    owner : (x, y) array
        Region that fills each pixel most, as its place in the template's list; -1 outside the cord.
    spacing : float
        Side of a pixel [mm].
    """

    owner: IntArray
    spacing: float


def section(template: Template, level: str) -> Section:
    """Section at the middle of a level, or of a range such as ``C2:C5``."""
    names = levels_of(level)
    heights = [template.vertebra_middles[n] for n in (names[0], names[-1]) if n in template.vertebra_middles]
    height = float(np.mean(heights)) if heights else float(np.median(template.slice_heights))
    k = int(np.abs(template.slice_heights - height).argmin())
    nx, ny, nz = template.grid.shape
    rows = np.arange(nx * ny) * nz + k
    share = np.asarray(template.weights[rows].toarray()).reshape(nx, ny, -1)
    inside = [i for i, name in enumerate(template.region_names) if name != CSF]
    fine = np.stack([zoom(share[:, :, i], FINER, order=1, grid_mode=True, mode="nearest") for i in inside], axis=-1)
    owner = np.where(fine.sum(axis=-1) >= 0.5, np.asarray(inside)[fine.argmax(axis=-1)], -1)
    i, j = (np.flatnonzero((owner >= 0).any(axis=1 - a)) for a in (0, 1))
    edge = FINER
    if i.size:
        owner = owner[max(0, i[0] - edge) : i[-1] + edge + 1, max(0, j[0] - edge) : j[-1] + edge + 1]
    return Section(owner, float(template.grid.spacing[0]) / FINER)


def shown_by(region: str, present: Sequence[str]) -> str | None:
    """The smallest region with a score that a tract belongs to: itself, both sides, a funiculus, white or gray matter.

    >>> shown_by("WM left fasciculus gracilis", ["white matter", "dorsal columns"])
    'dorsal columns'
    """
    chain = [region, without_side(region), *sorted((c for c in COMBINED if region in COMBINED[c]), key=_size)]
    return next((name for name in chain if name in present), None)


def _size(name: str) -> int:
    return len(COMBINED[name])


def z_map(template: Template, scored: pd.DataFrame, metrics: Sequence[str]) -> bytes:
    """Sections of the template with their z, one of each metric at each level or range.

    Each point takes the z of the smallest region with a norm that it belongs to. Gray has no norm; hatched colours have
    an interval that includes 0; a thick line surrounds what stands out among all comparisons.

    Parameters
    ----------
    template : Template
        Whose sections are drawn.
    scored : DataFrame
        Columns metric, region, level, z, z_low, z_high, discovery.
    metrics : sequence of str
        What is drawn, in this order.
    """
    rows = map_rows(scored, metrics)
    columns = max(len(r) for r in rows)
    sections = {level: section(template, level) for level in dict.fromkeys(level for r in rows for _, level in r)}
    figure = Figure(figsize=(1.6 * columns + 1.0, 1.3 * len(rows) + 0.1), layout="constrained", facecolor="white")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, panels in zip(axes, rows, strict=True):
        for axis, (metric, level) in zip(line, panels, strict=False):
            part = scored[(scored["metric"] == metric) & (scored["level"] == level)]
            _draw(axis, template, sections[level], painted(part))
            axis.set_title(f"{metric} · {level.replace(':', ' to ')}", fontsize=8.5, color="#1b2430", pad=3)
        for axis in line[len(panels) :]:
            axis.set_visible(False)
    colours = LinearSegmentedColormap.from_list("z", [z_colour(z) for z in np.linspace(-LIMIT, LIMIT, 65)])
    bar = figure.colorbar(
        ScalarMappable(Normalize(-LIMIT, LIMIT), colours),
        ax=list(axes.ravel()),
        fraction=0.03,
        pad=0.02,
        aspect=18,
        shrink=min(1.0, 2.4 / len(rows) + 0.2),
    )
    bar.set_label("z", fontsize=8)
    bar.set_ticks([-4, -2, 0, 2, 4], labels=["≤ −4", "−2", "0", "2", "≥ 4"], fontsize=7)
    return _png(figure, dpi=DOTS)


def map_rows(scored: pd.DataFrame, metrics: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Panels (metric, level) in lines: levels of a metric from the head down, ranges last; short lines share one."""
    lines: list[list[tuple[str, str]]] = []
    for metric in metrics:
        found = dict.fromkeys(scored.loc[scored["metric"] == metric, "level"].astype(str))
        known = sorted((v for v in found if levels_of(v)), key=level_order)
        for start in range(0, len(known), COLUMNS):
            lines.append([(metric, v) for v in known[start : start + COLUMNS]])
    singles = [panel for line in lines if len(line) == 1 for panel in line]
    shared = [singles[i : i + COLUMNS] for i in range(0, len(singles), COLUMNS)]
    return [line for line in lines if len(line) > 1] + shared


def level_order(level: str) -> tuple[int, int, int]:
    """Key that sorts levels from the head down, with ranges after single ones."""
    names = levels_of(level)
    return (1, 0, 0) if not names else (int(len(names) > 1), VERTEBRAE.index(names[0]), len(names))


def painted(part: pd.DataFrame) -> Painted:
    """What is painted of one metric at one level: of several series the one listed first."""
    rows = part.drop_duplicates("region")
    numbers = (rows[c] for c in ("region", "z", "z_low", "z_high", "discovery"))
    return {str(r): (float(z), float(a), float(b), bool(d)) for r, z, a, b, d in zip(*numbers, strict=True)}


def picture(template: Template, cut: Section, scores: Painted) -> tuple[FloatArray, IntArray]:
    """Colours (x, y, 3) of a section, white outside, and the number of the score shown at each point.

    The number is the place of the region in ``scores``, -1 where there is no norm and -2 outside the cord.
    """
    names = list(scores)
    of_region = [shown_by(name, names) for name in template.region_names]
    shown = np.array([-1 if name is None else names.index(name) for name in of_region] + [-2])[cut.owner]
    colours = [to_rgb(z_colour(scores[n][0])) for n in names] + [to_rgb("white"), to_rgb(NO_NORM)]
    return np.asarray(colours, dtype=float)[shown], shown


def _draw(axis: Axes, template: Template, cut: Section, scores: Painted) -> None:
    colours, shown = picture(template, cut, scores)
    nx, ny = shown.shape
    extent = (-nx * cut.spacing, 0.0, 0.0, ny * cut.spacing)
    axis.imshow(np.swapaxes(colours, 0, 1)[:, ::-1], origin="lower", extent=extent, interpolation="nearest")
    x = (np.arange(nx) + 0.5) * cut.spacing - nx * cut.spacing
    y = (np.arange(ny) + 0.5) * cut.spacing

    def outline(mask: FloatArray, width: float, colour: str) -> None:
        if mask.any():
            axis.contour(x, y, _oriented(mask), [0.5], colors=colour, linewidths=width)

    for number, (z, low, high, stands_out) in enumerate(scores.values()):
        mask = (shown == number).astype(float)
        outline(mask, 0.4, "#6b7683")
        if mask.any() and abs(z) >= UNSURE and low <= 0 <= high:
            hatch = axis.contourf(x, y, _oriented(mask), [0.5, 1.5], colors="none", hatches=["/////"])
            hatch.set_edgecolor("#5b6775")
            hatch.set_linewidth(0)
        if stands_out:
            outline(mask, 1.8, "black")
    outline((shown > -2).astype(float), 0.9, "#3a4653")
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    axis.text(0.0, 0.0, "R", fontsize=7, transform=axis.transAxes, color="#3a4653")
