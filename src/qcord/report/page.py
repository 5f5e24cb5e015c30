"""One HTML page per visit that opens from disk with no network: pictures, tables and script are inside."""

import base64
import json
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined

from qcord.atlas.pool import pooled
from qcord.core.flags import Flag
from qcord.core.labels import COMBINED, TRACTS
from qcord.report import figures
from qcord.report.findings import Findings, Located
from qcord.report.norm_section import norm_section
from qcord.report.scale import SCALE

SHOWN_FIRST = ("white matter", "gray matter", "dorsal columns", TRACTS[4], TRACTS[5])
"""Regions of the summary: the compartments, and the tracts that clinical studies report."""

SUMMARY_LEVELS = ("C2", "C3", "C4", "C5")

SHAPE_COLUMNS = ("area", "diameter_AP", "diameter_RL", "eccentricity", "solidity", "angle_AP", "angle_RL", "length")


def render_html(findings: Findings, *, version: str, sources: tuple[str, ...], made: str = "") -> str:
    """Render the report of one visit.

    Parameters
    ----------
    findings : Findings
        What was found.
    version : str
        Version of qcord.
    sources : tuple of str
        Files that were read, relative to the data set.
    made : str
        Date and time, as text.

    Returns
    -------
    str
        A complete HTML document.
    """
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
        files("qcord.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    )
    places = [_place(p, findings) for p in findings.located.values()]
    tables = _tract_data(findings.metrics)
    contents = [("summary", "Summary"), ("quality", "Quality"), *((p["id"], p["title"]) for p in places)]
    norms = "" if findings.comparison is None else norm_section(findings.comparison)
    contents += [("norms", "Healthy people")] if norms else []
    contents += [("tracts", "Tracts by level"), ("shape", "Shape"), ("methods", "What was done")]
    return page.render(
        title=findings.prefix.replace("_", " "),
        subtitle=f"Quantitative spinal cord MRI · qcord {version} · template {findings.template}"
        + (f" · {made}" if made else ""),
        contents=[{"id": i, "title": t} for i, t in contents],
        notes=findings.notes,
        summary=_summary_table(findings.metrics),
        summary_of=summary_rows(findings.metrics)[1],
        quality=_quality_table(findings.quality),
        places=places,
        legend=[("cord", figures.CORD_COLOUR), *figures.OUTLINES.items()],
        norms=norms,
        metrics=list(tables["values"]),
        data=_script(tables),
        flags=_script({f.word: f.sentence for f in Flag}),
        shape=_shape_table(findings.morphometry),
        steps=_steps_table(findings),
        settings=json.dumps(dict(findings.settings), indent=1),
        references=findings.references,
        sources="\n".join(sources),
    )


def _place(place: Located, findings: Findings) -> dict[str, Any]:
    spacing = place.image.grid.spacing
    tall = place.image.grid.shape[2] * spacing[2] > 60 and spacing[2] <= 2
    maps = []
    for fit in findings.fits.get(place.token, ()):
        for metric in fit.maps:
            if metric in SCALE:
                factor, unit = SCALE[metric]
                shown = fit.maps[metric].derive(np.asarray(fit.maps[metric].data, dtype=float) * factor)
                picture = figures.map_figure(place, shown, metric, unit or "1")
                maps.append({"title": f"{metric} {f'[{unit}]' if unit else ''}".strip(), "picture": _encoded(picture)})
    summary = place.quality.summary
    caption = (
        f"{place.image.grid!r}. Cord: {place.cord_source}. Position along the cord: {place.levels.source}. "
        f"Template over mask: Dice {summary['dice_median']:.3f} (median slice), {summary['dice_min']:.3f} (worst), "
        f"mean distance of the outlines {summary['distance_median_mm']:.2f} mm."
    )
    return {
        "id": f"series-{place.token}",
        "title": place.token,
        "caption": caption,
        "sagittal": _encoded(figures.sagittal_figure(place)) if tall else "",
        "cord": _encoded(figures.cord_figure(place)),
        "profile": _encoded(figures.profile_figure(place)) if place.kind in {"anat", "qmri"} else "",
        "maps": maps,
    }


def _encoded(picture: bytes) -> str:
    return base64.b64encode(picture).decode("ascii")


def _script(content: Mapping[str, Any]) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(content, allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _tract_data(metrics: pd.DataFrame) -> dict[str, Any]:
    """Values for the interactive table: metric, estimator, place, then a matrix of regions and places."""
    values: dict[str, Any] = {}
    for (metric, estimator), part in metrics.groupby(["metric", "estimator"], sort=False):
        by_level = part[(part["level"] != "") & (part["slice"] == "")]
        by_slice = part[part["slice"] != ""]
        values.setdefault(str(metric), {})[str(estimator)] = {
            "level": _matrix(by_level, "level"),
            "slice": _matrix(by_slice, "slice"),
        }
    scale = {
        m: {"factor": SCALE.get(m, (1.0, ""))[0], "label": " ".join((m, SCALE.get(m, (1, ""))[1]))} for m in values
    }
    return {"values": values, "scale": scale}


def _matrix(part: pd.DataFrame, column: str) -> dict[str, Any]:
    places = [str(p) for p in dict.fromkeys(part[column])]
    if column == "slice":
        places = sorted(places, key=int, reverse=True)
    regions = [str(r) for r in dict.fromkeys(part["region"])]
    order = [r for r in COMBINED if r in regions] + [r for r in regions if r not in COMBINED]
    lookup = {
        (str(r), str(p)): [_number(v), _number(s), f]
        for r, p, v, s, f in zip(part["region"], part[column], part["value"], part["se"], part["flag"], strict=True)
    }
    return {"columns": places, "regions": order, "cells": [[lookup.get((r, p)) for p in places] for r in order]}


def _summary_table(metrics: pd.DataFrame) -> str:
    chosen, _ = summary_rows(metrics)
    if chosen.empty:
        return "<p class='hint'>No map was fitted.</p>"
    rows = []
    for metric, part in chosen.groupby("metric", sort=False):
        factor, unit = SCALE.get(str(metric), (1.0, ""))
        row: dict[str, str] = {"": f"{metric} {f'[{unit}]' if unit else ''}".strip()}
        for region in SHOWN_FIRST:
            found = part[part["region"] == region]
            row[region.removeprefix("WM ")] = _with_interval(pooled(found), factor) if len(found) else "–"
        rows.append(row)
    return _html(pd.DataFrame(rows))


def summary_rows(metrics: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Rows of the table that the summary pools, and the words for them.

    C2 to C5 where levels are known, as multi-centre studies report; else the middle half of the slices of each
    series, since the outer slices of a slab are excited unevenly.
    """
    best = metrics[(metrics["estimator"] == "map") & metrics["region"].isin(SHOWN_FIRST) & metrics["value"].notna()]
    levels = best[(best["slice"] == "") & best["level"].isin(SUMMARY_LEVELS)]
    if len(levels):
        present = [v for v in SUMMARY_LEVELS if (levels["level"] == v).any()]
        return levels, f"levels {present[0]} to {present[-1]}" if len(present) > 1 else f"level {present[0]}"
    parts = []
    for _, part in best[best["slice"] != ""].groupby("source", sort=False):
        number = part["slice"].astype(int)
        first, last = number.min(), number.max()
        quarter = (last - first) / 4
        parts.append(part[(number >= first + quarter) & (number <= last - quarter)])
    return (pd.concat(parts) if parts else best[:0]), "the middle half of the slices of each series"


def _with_interval(result: tuple[float, float], factor: float) -> str:
    value, se = result[0] * factor, result[1] * factor
    if not np.isfinite(value):
        return "–"
    digits = int(np.clip(1 - np.floor(np.log10(se)), 0, 4)) if np.isfinite(se) and se > 0 else 3
    if not np.isfinite(se):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} <small>{value - 1.96 * se:.{digits}f} – {value + 1.96 * se:.{digits}f}</small>"


def _quality_table(quality: pd.DataFrame) -> str:
    """One row a quantity, one column a series."""
    sources = list(dict.fromkeys(quality["source"]))
    rows = []
    for (metric, unit), part in quality.groupby(["metric", "unit"], sort=False):
        found = dict(zip(part["source"], part["value"], strict=True))
        name = f"{str(metric).replace('_', ' ')}{f' [{unit}]' if unit != '1' else ''}"
        rows.append({"": name, **{s: f"{found[s]:.3g}" if s in found else "" for s in sources}})
    return _html(pd.DataFrame(rows)) if rows else ""


def _shape_table(morphometry: pd.DataFrame) -> str:
    part = morphometry[(morphometry["level"] != "") & (morphometry["slice"] == "")]
    if part.empty:
        return "<p class='hint'>No level is known; values per slice are in the morphometry table.</p>"
    rows = []
    for (source, level), group in part.groupby(["source", "level"], sort=False):
        found = group.set_index("metric")
        row = {"level": str(level), "series": str(source)}
        for metric in SHAPE_COLUMNS:
            value, se = float(found.loc[metric, "value"]), float(found.loc[metric, "se"])  # type: ignore[arg-type]
            unit = str(found.loc[metric, "unit"])
            text = (
                "–"
                if not np.isfinite(value)
                else f"{value:.3g}" + (f" <small>± {se:.2g}</small>" if np.isfinite(se) else "")
            )
            row[f"{metric.replace('_', ' ')}{f' [{unit}]' if unit != '1' else ''}"] = text
        rows.append(row)
    return _html(pd.DataFrame(rows))


def _steps_table(findings: Findings) -> str:
    rows = [
        {
            "step": step.name,
            "series": token,
            "settings": escape(", ".join(f"{k}: {v}" for k, v in step.settings.items())),
        }
        for token, step in findings.steps
    ]
    return _html(pd.DataFrame(rows)) if rows else ""


def _html(table: pd.DataFrame) -> str:
    return str(table.to_html(index=False, escape=False, border=0, na_rep="–"))
