"""The section "Compared with healthy people" of a report."""

import base64
import json
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined

from qcord.core.labels import COMBINED, TRACTS
from qcord.report.comparison import FALSE_DISCOVERY_RATE, PROBABILITIES, USUAL, Comparison, cell_of
from qcord.report.norm_charts import BASIS, Chart, Point, centile_chart, charts_of, marked, named, profile_chart
from qcord.report.scale import shown_unit
from qcord.report.z_map import DOTS, level_order, z_map

STATIC_CHARTS = 4
"""Charts that are pictures and show without a script: of the metrics that deviate most, one each."""

MOST_CHARTS = 150
"""Charts that the page carries as numbers, the largest deviations first, so that it stays light."""

LISTED = 60
"""Rows of the list, the largest deviations first; the file has them all."""

LIMITS = {
    "T1": "T1 is apparent: of two flip angles and not corrected for the transmit field.",
    "MTsat": "MTsat is not corrected for the transmit field.",
    "MD": "Diffusivities depend on the b-values and on fluid in the voxels of the cord's rim (partial volume).",
    "area": "Areas depend on the software that draws the outline: that of qcord lies further out than what raters and "
    "other software draw. Norms made with such outlines, and their curves, are raised by what that was in a few scans "
    "(T2w 7 %, T2*w 9 %, T1w 17 %); that a person may differ from it by 4 to 5 % is in z and its interval.",
}
"""What must be known of a metric before its z is read."""


def norm_section(comparison: Comparison) -> str:
    """HTML of the section; all numbers are in it without any script."""
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
        _resource("norms.html.j2")
    )
    scored = comparison.scored
    charts = charts_of(comparison)
    if scored.empty:
        return page.render(empty=True, sentences=list(comparison.notes))
    metrics = list(dict.fromkeys(scored["metric"].astype(str)))
    static: dict[str, Chart] = {}
    for c in charts:
        static.setdefault(c.metric, c)
    mapped = [m for m in metrics if _has_tracts(scored, m)]
    profiled = [m for m in metrics if len(set(scored.loc[scored["metric"] == m, "level"])) > 1]
    drawn = z_map(comparison.template, scored, mapped) if comparison.template is not None and mapped else None
    return page.render(
        empty=False,
        sentences=sentences(comparison),
        background=background(comparison),
        chance=chance(scored),
        listed=_list(scored.head(LISTED), comparison),
        more=max(0, len(scored) - LISTED),
        matrices=[{"title": _with_unit(scored, m), "table": _matrix(scored, m)} for m in metrics],
        z_map=None if drawn is None else {"picture": _encoded(drawn), "width": _width(drawn)},
        profile=_encoded(profile_chart(scored, profiled)) if profiled else "",
        static=[
            {"title": f"{c.title}: {c.subtitle}", "picture": _encoded(centile_chart(c)), "words": words_of(c)}
            for c in list(static.values())[:STATIC_CHARTS]
        ],
        charts=bool(charts),
        data=_script([chart_numbers(c) for c in charts[:MOST_CHARTS]]),
        script=_resource("norms.js"),
    )


def sentences(comparison: Comparison) -> list[str]:
    """What was compared with whom, and what was not."""
    scored = comparison.scored
    found = []
    for basis in ("site", "manufacturer", "other"):
        part = scored[scored["basis"] == basis]
        if len(part):
            makers = " and ".join(sorted({str(m) for m in part["manufacturer"] if isinstance(m, str) and m}))
            found.append(_basis_sentence(basis, len(part), len(scored), makers, _people(comparison, part)))
    ages = part_note(scored, "age outside")
    if ages:
        found.append(f"{ages} values lie at an age beyond those of the norm's people: extrapolated, read with caution.")
    if comparison.without:
        found.append(f"No norm exists of {', '.join(comparison.without)}: nothing is said about them here.")
    return [*found, *comparison.notes]


def background(comparison: Comparison) -> list[str]:
    """What the norms rest on, and what must be known of the metrics."""
    metrics = [str(m) for m in dict.fromkeys(comparison.scored["metric"])]
    found = list(comparison.data)
    for key, sentence in LIMITS.items():
        if any(m == key or m.startswith(f"{key} ") or (key == "MD" and m in {"AD", "RD"}) for m in metrics):
            found.append(sentence)
    return found


def _basis_sentence(basis: str, n: int, total: int, makers: str, people: str) -> str:
    share = f"{n} of {total} values" if n < total else f"All {n} values" if n > 1 else "The one value"
    named_makers = f" ({makers})" if makers else ""
    near = f" ({', '.join(t for t in (makers, people) if t)})" if makers or people else ""
    here = f" ({people})" if people else ""
    return {
        "site": f"{share}: compared with healthy people of this site{here}, helped by those of other sites.",
        "manufacturer": f"{share}: compared with healthy people of this manufacturer only{near}; this "
        "site is not in the norm, and how much sites differ widens what counts as usual. A few controls measured here "
        "would sharpen it.",
        "other": f"{share}: the norm holds no scanner of this manufacturer{named_makers}, or does not say whose they "
        "are; compared with all of them, with the spread between manufacturers added. Such a z is weak evidence.",
    }[basis]


def _people(comparison: Comparison, part: pd.DataFrame) -> str:
    """How many people of the site or manufacturer the norms of some rows hold."""
    found = {comparison.curves[c].near for _, r in part.iterrows() if (c := cell_of(r)) in comparison.curves}
    counts = sorted(int(t.split()[0]) for t in found if t)
    if not counts:
        return ""
    what = next(t for t in sorted(found) if t).split()[1]
    return f"{counts[0]} {what}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} {what}"


def part_note(scored: pd.DataFrame, words: str) -> int:
    """Rows whose note begins with some words."""
    return int(scored["note"].fillna("").astype(str).str.startswith(words).sum())


def chance(scored: pd.DataFrame) -> str:
    """How many of the comparisons a healthy person fails by chance, and how many are failed."""
    n = len(scored)
    beyond = int((scored["z"].abs() > USUAL).sum())
    expected = 0.05 * n
    left = int(scored["discovery"].sum())
    return (
        f"{n} comparison{'s' if n > 1 else ''}: of a healthy person about {expected:.1f} lie beyond ±1.96 by chance "
        f"alone; here {beyond} {'does' if beyond == 1 else 'do'}. "
        f"{left if left else 'None'} {'stands' if left <= 1 else 'stand'} out (marked ●) when all comparisons are "
        f"taken together (Benjamini-Hochberg, false discovery rate {100 * FALSE_DISCOVERY_RATE:.0f} %). "
        "Values of one person go along with each other, so that chance findings come in groups."
    )


def words_of(chart: Chart) -> str:
    """The numbers of a chart in words, for those who do not see it."""
    point = chart.points[-1]
    factor, unit = shown_unit(chart.metric, chart.unit)
    extra = " The age lies beyond those of the norm: extrapolated." if chart.extrapolated else ""
    value = _value(point.value * factor, point.se * factor) + (f" {unit}" if unit else "")
    interval = f"{signed(point.z_low, 2)} to {signed(point.z_high, 2)}"
    return (
        f"{point.label}: {value}, z {signed(point.z, 2)} (95 % interval {interval}), "
        f"centile {_centile(point.centile)}.{extra}"
    )


def chart_numbers(chart: Chart) -> dict[str, Any]:
    """A chart as numbers for the script, in the unit that is printed."""
    factor, unit = shown_unit(chart.metric, chart.unit)
    table = chart.curves.table.sort_values(["probability", "age"])
    lines = []
    for p in PROBABILITIES:
        part = table[np.isclose(table["probability"], p)]
        lines.append({"p": p, **{c: [_short(v * factor, 4) for v in part[c]] for c in ("value", "low", "high")}})
    return {
        "metric": chart.metric,
        "region": chart.region,
        "name": named(chart.region),
        "level": chart.level,
        "order": _order_number(chart.level),
        "unit": unit,
        "title": chart.title,
        "subtitle": chart.subtitle,
        "ages": [_short(v) for v in sorted(set(table["age"]))],
        "known": list(chart.curves.ages),
        "curves": lines,
        "points": [_point_numbers(p, factor) for p in chart.points],
    }


def _order_number(level: str) -> int:
    single, first, length = level_order(level)
    return 10000 * single + 100 * first + length


def _point_numbers(point: Point, factor: float) -> dict[str, Any]:
    return {
        "label": point.label,
        "age": _short(point.age),
        "value": _short(point.value * factor),
        "se": _short(point.se * factor),
        "text": _value(point.value * factor, point.se * factor),
        **{k: _short(getattr(point, k)) for k in ("z", "z_low", "z_high", "centile")},
        "standing": _centile(point.centile),
        "style": marked(point.z),
    }


def _list(scored: pd.DataFrame, comparison: Comparison) -> list[dict[str, str]]:
    rows = []
    for _, row in scored.iterrows():
        factor, unit = shown_unit(str(row["metric"]), str(row["unit"]))
        value, se = float(row["value"]) * factor, float(row["se"]) * factor
        curves = comparison.curves.get(cell_of(row))
        usual = "–"
        if curves is not None:
            low, high = (curves.at(float(row["age"]), p) * factor for p in (PROBABILITIES[0], PROBABILITIES[-1]))
            digits = _digits((high - low) / 4)
            usual = f"{low:.{digits}f} to {high:.{digits}f}"
        basis = BASIS.get(str(row["basis"]), str(row["basis"]))
        rows.append(
            {
                "metric": f"{row['metric']} [{unit}]" if unit else str(row["metric"]),
                "region": named(str(row["region"])),
                "level": str(row["level"]).replace(":", " to "),
                "value": _value(value, se),
                "usual": usual,
                "z": signed(row["z"], 2),
                "interval": f"{signed(row['z_low'])} to {signed(row['z_high'])}",
                "style": marked(float(row["z"])),
                "centile": _centile(float(row["centile"])),
                "discovery": "●" if row["discovery"] else "",
                "basis": "; ".join(t for t in (basis, _remark(row["note"])) if t),
            }
        )
    return rows


def _remark(note: object) -> str:
    """A note without what the basis says anyway."""
    parts = note.split("; ") if isinstance(note, str) else []
    return "; ".join(p for p in parts if p != "manufacturer unknown to the norm")


def _matrix(scored: pd.DataFrame, metric: str) -> str:
    """Regions by levels of one metric; each cell has its z printed and as its colour, and the interval to point at."""
    part = scored[scored["metric"] == metric].drop_duplicates(["region", "level"])
    levels = sorted(dict.fromkeys(part["level"].astype(str)), key=level_order)
    present = list(dict.fromkeys(part["region"].astype(str)))
    known = [*COMBINED, *TRACTS]
    regions = sorted(present, key=lambda r: known.index(r) if r in known else len(known))
    cells = {(str(r["region"]), str(r["level"])): r for _, r in part.iterrows()}
    head = "".join(f"<th scope='col'>{escape(v.replace(':', ' to '))}</th>" for v in levels)
    body = ""
    for region in regions:
        body += f"<tr><th scope='row'>{escape(named(region))}</th>"
        for level in levels:
            row = cells.get((region, level))
            if row is None:
                body += "<td class='none'>–</td>"
                continue
            interval = f"{signed(row['z_low'])} to {signed(row['z_high'])}"
            title = f"95 % interval {interval}, centile {_centile(float(row['centile']))}"
            mark = " ●" if row["discovery"] else ""
            body += f"<td style='{marked(float(row['z']))}' title='{title}'>{signed(row['z'])}{mark}</td>"
        body += "</tr>"
    return f"<table class='z'><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"


def _with_unit(scored: pd.DataFrame, metric: str) -> str:
    unit = shown_unit(metric, str(scored.loc[scored["metric"] == metric, "unit"].iloc[0]))[1]
    return f"{metric} [{unit}]" if unit else metric


def _has_tracts(scored: pd.DataFrame, metric: str) -> bool:
    part = scored.loc[scored["metric"] == metric, "region"]
    return bool((part != "spinal cord").any())


def _value(value: float, spread: float) -> str:
    if not np.isfinite(value):
        return "–"
    if not (np.isfinite(spread) and spread > 0):
        return f"{value:.3g}"
    digits = _digits(spread)
    return f"{value:.{digits}f} ± {spread:.{digits}f}"


def _digits(spread: float) -> int:
    """Digits after the point that show two of a spread."""
    return int(np.clip(1 - np.floor(np.log10(spread)), 0, 5)) if np.isfinite(spread) and spread > 0 else 3


def signed(z: float, digits: int = 1) -> str:
    """A z with its sign; no sign at 0.

    >>> signed(-2.04), signed(-0.04)
    ('−2.0', '0.0')
    """
    text = f"{abs(z):.{digits}f}"
    return text if float(text) == 0 else ("−" if z < 0 else "+") + text


def _centile(centile: float) -> str:
    if not np.isfinite(centile):
        return "–"
    if centile < 1:
        return "below 1" if centile < 0.1 else f"{centile:.1f}"
    return f"{centile:.0f}" if centile <= 99 else (f"{centile:.1f}" if centile < 99.9 else "above 99.9")


def _short(value: float, digits: int = 5) -> float | None:
    return float(f"{value:.{digits}g}") if np.isfinite(value) else None


def _encoded(picture: bytes) -> str:
    return base64.b64encode(picture).decode("ascii")


def _width(png: bytes) -> int:
    """Width at which a picture of the z-map is shown: its size in inches, as if of 100 dots each."""
    return int.from_bytes(png[16:20], "big") * 100 // DOTS


def _resource(name: str) -> str:
    return files("qcord.report").joinpath(name).read_text(encoding="utf-8")


def _script(content: Any) -> str:
    """JSON that may stand inside a script element."""
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
