"""Centile charts and profiles of z as pictures (SVG whose bytes repeat)."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qcord.atlas.pool import levels_of, without_side
from qcord.core.labels import COMBINED, VERTEBRAE
from qcord.report.comparison import USUAL, Comparison, Curves, cell_of
from qcord.report.scale import shown_unit
from qcord.report.z_colours import ink_on, z_colour

INK, SOFT = "#1b2430", "#5b6775"
PALETTE = ("#1b2430", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#8c6d1f")
"""Colours of regions in profiles, told apart also by those who do not see red or green (after Okabe and Ito)."""

MARKERS = ("o", "s", "^", "D", "v", "P")
WIDTHS = {0.5: 1.6, 0.25: 1.0, 0.75: 1.0}

BASIS = {
    "site": "this site",
    "manufacturer": "this manufacturer",
    "other": "other manufacturers",
}


@dataclass(frozen=True)
class Point:
    """A value of the person.

    Parameters
    ----------
    label : str
        Session, or ``this visit``.
    age : float
        Age [years].
    value, se : float
        In the unit of the metric.
    z, z_low, z_high, centile : float
        Score with its 95 % interval; NaN where there is none.
    """

    label: str
    age: float
    value: float
    se: float
    z: float
    z_low: float
    z_high: float
    centile: float


@dataclass(frozen=True, eq=False)
class Chart:
    """What a centile chart shows.

    Parameters
    ----------
    metric, region, level, unit : str
        The cell, and the unit of its values.
    curves : Curves
        Centiles.
    sex, basis, maker : str
        ``F`` or ``M``; ``site``, ``manufacturer`` or ``other``; name of the manufacturer.
    points : tuple of Point
        Earlier visits in order, then this one.
    """

    metric: str
    region: str
    level: str
    unit: str
    curves: Curves
    sex: str
    basis: str
    maker: str
    points: tuple[Point, ...]

    @property
    def title(self) -> str:
        """Metric, region and level."""
        return f"{self.metric} · {self.region} · {self.level.replace(':', ' to ')}"

    @property
    def subtitle(self) -> str:
        """Whom the curves describe."""
        sex = {"F": "women", "M": "men"}.get(self.sex, "people")
        maker = f" ({self.maker})" if self.maker else ""
        where = "this site" if self.basis == "site" else "this manufacturer"
        near = "none" if self.basis == "other" else self.curves.near
        part = f", {near} of {where}{maker}" if near else ""
        return f"centiles of healthy {sex}; norm of {self.curves.n} people{part}"

    @property
    def extrapolated(self) -> bool:
        """Whether the person's age lies outside those of the norm."""
        low, high = self.curves.ages
        return not low <= self.points[-1].age <= high


def charts_of(comparison: Comparison) -> list[Chart]:
    """Charts of the scores that have curves, the largest |z| first."""
    charts = []
    earlier = comparison.previous
    for _, row in comparison.scored.iterrows():
        cell = cell_of(row)
        if cell not in comparison.curves:
            continue
        same = earlier[
            (earlier["metric"] == cell[0])
            & (earlier["region"] == cell[1])
            & (earlier["level"] == cell[2])
            & (earlier["source"] == row["source"])
            & earlier["value"].notna()
        ]
        points = [_point(r, f"ses-{r['session_id']}") for _, r in same.iterrows()]
        own = str(row["session_id"]) if isinstance(row["session_id"], str) and row["session_id"] else ""
        points.append(_point(row, f"ses-{own}" if own else "this visit"))
        maker = row["manufacturer"] if isinstance(row["manufacturer"], str) else ""
        charts.append(
            Chart(
                *cell,
                str(row["unit"]),
                comparison.curves[cell],
                str(row["sex"]),
                str(row["basis"]),
                maker,
                tuple(points),
            )
        )
    return charts


def _point(row: pd.Series, label: str) -> Point:
    numbers = (float(row[c]) for c in ("age", "value", "se", "z", "z_low", "z_high", "centile"))
    return Point(label, *numbers)


def centile_chart(chart: Chart) -> bytes:
    """Centile curves with their confidence bands, and the person's values with 95 % intervals.

    Beyond the ages of the norm the background is hatched and says so.
    """
    factor, unit = shown_unit(chart.metric, chart.unit)
    figure = Figure(figsize=(6.4, 3.9), layout="constrained")
    axis = figure.subplots()
    table = chart.curves.table
    for probability, part in table.sort_values("age").groupby("probability", sort=True):
        age, value = part["age"].to_numpy(), part["value"].to_numpy() * factor
        p = float(probability)  # type: ignore[arg-type]
        axis.fill_between(age, part["low"] * factor, part["high"] * factor, color="#7fa6c9", alpha=0.22, linewidth=0)
        axis.plot(age, value, color="#2e5f8a", linewidth=WIDTHS.get(p, 0.8), linestyle="-" if p == 0.5 else (0, (4, 2)))
    low, high = float(table["age"].min()), float(table["age"].max())
    _ends(axis, table, factor, high)
    _extrapolated(axis, chart.curves.ages, (low, high))
    _person(axis, chart.points, factor, high - low)
    axis.set_xlim(low, high + 0.085 * (high - low))
    axis.set_xlabel("age [years]")
    axis.set_ylabel(f"{chart.metric} [{unit}]" if unit else chart.metric)
    axis.set_title(f"{chart.title}\n{chart.subtitle}", fontsize=9, loc="left", color=INK)
    axis.spines[["top", "right"]].set_visible(False)
    return svg(figure)


def _ends(axis: Axes, table: pd.DataFrame, factor: float, at: float) -> None:
    """Names of the centiles at the right ends of their curves; those too near to another are left out."""
    ends = table[table["age"] == at].sort_values("value")
    shown = float(table["high"].max() - table["low"].min()) * factor
    taken: list[float] = []
    for p in sorted(ends["probability"], key=lambda q: (q != 0.5, -abs(q - 0.5))):
        height = float(ends.loc[ends["probability"] == p, "value"].iloc[0]) * factor
        if all(abs(height - t) > 0.045 * shown for t in taken):
            taken.append(height)
            axis.annotate(
                f"{100 * p:g} %", (at, height), (4, 0), textcoords="offset points", fontsize=7, va="center", color=SOFT
            )


def _extrapolated(axis: Axes, ages: tuple[float, float], shown: tuple[float, float]) -> None:
    for start, end in ((shown[0], ages[0]), (ages[1], shown[1])):
        if end - start >= 0.5:
            axis.axvspan(start, end, facecolor="#f2efe6", edgecolor="#b9b09a", hatch="///", linewidth=0, zorder=0)
            axis.annotate(
                "no data:\nextrapolated",
                ((start + end) / 2, 0.02),
                xycoords=("data", "axes fraction"),
                fontsize=7,
                ha="center",
                va="bottom",
                color="#6b5b2b",
                rotation=0 if end - start > 0.16 * (shown[1] - shown[0]) else 90,
                backgroundcolor="#f2efe6",
            )


def _person(axis: Axes, points: Sequence[Point], factor: float, shown: float) -> None:
    age = [p.age for p in points]
    value = [p.value * factor for p in points]
    if len(points) > 1:
        axis.plot(age, value, color=INK, linewidth=1, zorder=4)
    labelled, spacing = -np.inf, 0.075 * shown
    for n, point in enumerate(points):
        error = 1.96 * point.se * factor if np.isfinite(point.se) else None
        last = n == len(points) - 1
        axis.errorbar(
            point.age,
            point.value * factor,
            yerr=error,
            fmt="o" if last else "s",
            markersize=7 if last else 5,
            markerfacecolor=z_colour(point.z),
            markeredgecolor=INK,
            ecolor=INK,
            elinewidth=1.2,
            capsize=3,
            zorder=5,
        )
        _label(axis, point, factor, last=last, near=n > 0 and abs(point.age - labelled) < spacing)
        labelled = labelled if n > 0 and abs(point.age - labelled) < spacing else point.age


def _label(axis: Axes, point: Point, factor: float, *, last: bool, near: bool) -> None:
    """Name of a visit: this one above its interval, earlier ones below theirs unless too near to the one before."""
    if near and not last:
        return
    text = point.label + (f", z {point.z:+.2f}" if last and np.isfinite(point.z) else "")
    reach = 1.96 * point.se if np.isfinite(point.se) else 0.0
    axis.annotate(
        text,
        (point.age, (point.value + (reach if last else -reach)) * factor),
        (0, 6 if last else -6),
        textcoords="offset points",
        fontsize=7.5,
        color=INK,
        ha="center",
        va="bottom" if last else "top",
        zorder=6,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
    )


def profile_chart(scored: pd.DataFrame, metrics: Sequence[str]) -> bytes:
    """Draw z by level, head on top, one panel a metric, with the band that holds 95 % of healthy people.

    A point has its 95 % interval; a value over several levels has a bar along them. The regions shown are the combined
    ones, then those that deviate most.
    """
    scored = scored[scored["metric"].isin(list(metrics))]
    regions = _profile_regions(scored)
    levels = _profile_levels(scored)
    columns = min(4, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(2.45 * columns + 0.5, rows * (0.9 + 0.34 * len(levels)) + 0.5), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns, sharey=True)).ravel()
    limit = float(np.clip(np.nanmax(np.abs(scored[["z_low", "z_high", "z"]].to_numpy(dtype=float))), 3, 8)) + 0.3
    for axis, metric in zip(axes, metrics, strict=False):
        axis.axvspan(-USUAL, USUAL, color="#e9eff5", zorder=0)
        axis.axvline(0, color="#9fb0c0", linewidth=0.8, zorder=1)
        for n, region in enumerate(regions):
            part = scored[(scored["metric"] == metric) & (scored["region"] == region)]
            offset = (n - (len(regions) - 1) / 2) * 0.62 / max(len(regions), 1)
            for _, row in part.iterrows():
                _profile_point(axis, row, _places(row, levels, offset), n, limit)
        axis.set_title(metric, fontsize=9, loc="left", color=INK)
        axis.set_xlim(-limit, limit)
        axis.set_ylim(len(levels) - 0.5, -0.5)
        axis.set_yticks(range(len(levels)), levels)
        axis.tick_params(labelsize=7.5, length=2)
        axis.set_xlabel("z", fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(metrics) :]:
        axis.set_visible(False)
    handles = [
        matplotlib.lines.Line2D(
            [], [], marker=MARKERS[n], color=PALETTE[n], linestyle="", markersize=5, label=named(region)
        )
        for n, region in enumerate(regions)
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=3, fontsize=7.5, frameon=False)
    return svg(figure)


def _places(row: pd.Series, levels: list[str], offset: float) -> list[float]:
    return [levels.index(v) + offset for v in levels_of(str(row["level"]))]


def _profile_point(axis: Axes, row: pd.Series, places: list[float], n: int, limit: float) -> None:
    y, z = float(np.mean(places)), float(row["z"])
    colour = PALETTE[n]
    if len(places) > 1:
        axis.plot([z, z], [min(places) - 0.4, max(places) + 0.4], color=colour, linewidth=0.9, alpha=0.6, zorder=2)
    axis.plot([row["z_low"], row["z_high"]], [y, y], color=colour, linewidth=1.3, zorder=3)
    axis.plot([float(np.clip(z, -limit, limit))], [y], MARKERS[n], color=colour, markersize=4.5, zorder=4)


def _profile_regions(scored: pd.DataFrame) -> list[str]:
    present = list(dict.fromkeys(scored["region"].astype(str)))
    first = [r for r in COMBINED if r in present]
    return [*first, *(r for r in present if r not in first)][: len(PALETTE)]


def _profile_levels(scored: pd.DataFrame) -> list[str]:
    found = [v for level in scored["level"].astype(str) for v in levels_of(level)]
    numbers = [VERTEBRAE.index(v) for v in found]
    return list(VERTEBRAE[min(numbers) : max(numbers) + 1])


def named(region: str) -> str:
    """Region as a chart names it: the side after the tract."""
    short = without_side(region)
    return region if short == region else f"{short}, {region.split(' ')[1]}"


def marked(z: float) -> str:
    """Style of a table cell: its colour, and ink that reads on it."""
    return f"background: {z_colour(z)}; color: {ink_on(z_colour(z))}"


def svg(figure: Figure) -> bytes:
    """A figure as SVG with letters as text and identifiers that do not change."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "qcord", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
