"""Tables of the Spinal Cord Toolbox: sct_extract_metric and sct_process_segmentation."""

import re
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from qcord.core.errors import MissingMetadata
from qcord.core.text_column import as_text
from qcord.ingest.norm_mapping import TableMapping

OF_SLICES = "there are rows of single slices, of which norms take none: run the toolbox with -perlevel 1 -perslice 0"

COVERED = 0.5
"""Share of the slices that a level has at most below which it counts as cut off (assumed)."""

_ESTIMATES = ("MAP()", "ML()", "WA()", "BIN()", "MEDIAN()")
"""Columns of values of sct_extract_metric, that which corrects most for partial volumes first."""

_METRICS = ("FA", "MD", "RD", "AD", "MTR", "MTsat", "T1", "T2", "T2star", "R2star", "MK", "ihMTR")
_CONTRASTS = (("T1w", "T1w"), ("T2star", "T2star"), ("T2s", "T2star"), ("T2w", "T2w"))
_SHAPE = ("area", "diameter_AP", "diameter_RL", "eccentricity", "solidity", "angle_AP", "angle_RL")
_TISSUES = {
    **dict.fromkeys(("gm", "gmseg", "graymatter", "greymatter"), "gray matter"),
    **dict.fromkeys(("wm", "wmseg", "whitematter"), "white matter"),
}


def is_toolbox(table: pd.DataFrame) -> bool:
    """Whether a table is one of the Spinal Cord Toolbox, by its columns."""
    columns = set(table.columns)
    return "VertLevel" in columns and bool(columns & {*_ESTIMATES, "MEAN(area)"})


def toolbox_observations(
    table: pd.DataFrame, source: str, how: TableMapping, stated: pd.DataFrame, notes: list[str]
) -> pd.DataFrame:
    """Observations of a table of sct_extract_metric or sct_process_segmentation.

    The spread over voxels or slices that these tables state (``STD()``) is no standard error and is left out.

    Parameters
    ----------
    table : DataFrame
        As read.
    source : str
        Name of its file.
    how : TableMapping
        May state the metric as a constant.
    stated : DataFrame
        Columns of observations that somebody added to the table, such as participant_id; they go before what the names
        of the files say.
    notes : list of str
        What was left out is added.

    Raises
    ------
    MissingMetadata
        If no file name tells the subject, or the metric is not stated, or in two ways.
    """
    names = as_text(table["Filename"] if "Filename" in table.columns else table.get("scan", pd.Series(dtype=str)))
    if names.empty:
        raise MissingMetadata(f"{source} has neither a column Filename nor scan; expected one that names the subject.")
    version = ("SCT " + as_text(table["SCT Version"])) if "SCT Version" in table.columns else "SCT"
    base = pd.DataFrame(
        {
            # the last one: the folder of a study may begin with sub-, too
            "participant_id": names.str.extract(r".*sub-([^/\\_.\s]+)", expand=False),
            "session_id": names.str.extract(r".*ses-([^/\\_.\s]+)", expand=False),
            "level": table["VertLevel"],
            "software": version,
        }
    ).assign(**{str(c): stated[c] for c in stated})
    if base["participant_id"].isna().all():
        raise MissingMetadata(
            f"No file name in {source} holds a subject (such as '{names.iloc[0]}'); expected sub-<label> in each, or "
            "add a column participant_id."
        )
    notes.append("STD() of the toolbox is a spread over voxels or slices, no standard error: se is left empty")
    _note_slices(table, names, notes)
    if "MEAN(area)" in table.columns:
        return _shape_observations(table, base, names, source)
    column = next(c for c in _ESTIMATES if c in table.columns)
    software = base["software"] + " " + column.removesuffix("()").lower()
    metric = how.constants.get("metric") or _metric(names, source)
    return base.assign(region=table["Label"], metric=metric, value=table[column], software=software)


def _note_slices(table: pd.DataFrame, names: "pd.Series[str]", notes: list[str]) -> None:
    """Say so where each slice has a row: a norm is of levels."""
    slices = next((c for c in table.columns if str(c).startswith("Slice")), None)
    if slices is None:
        return
    keys = [c for c in ("VertLevel", "Label") if c in table.columns]
    rows = table[[*keys, slices]].assign(image=names).drop_duplicates()
    if rows.duplicated([*keys, "image"]).any():
        notes.append(OF_SLICES)


def _words(text: str, sign: str) -> list[str]:
    return [w for w in re.split(sign, text) if w]


def _metric(names: "pd.Series[str]", source: str) -> str:
    """Metric that the name of the table states, if no name of an image states another one."""

    def named(text: str) -> list[str]:
        tokens = {w.lower() for w in _words(re.sub(r"(?:sub|ses)-[^/\\_.\s]+", "", text), r"[^A-Za-z0-9]+")}
        return [m for m in _METRICS if m.lower() in tokens]

    remedy = 'state the metric in a mapping ([constants] metric = "FA")'
    found = named(source.partition(".")[0])
    if len(found) != 1:
        what = f"holds the metrics {' and '.join(found)} in its name" if found else "does not say its metric"
        raise MissingMetadata(f"{source} {what}, expected one; {remedy} or in the name of the table.")
    for name in names.dropna().unique():
        own = named(_last(name))
        if len(own) == 1 and own != found:
            raise MissingMetadata(
                f"{source} holds {found[0]} by its name, but {own[0]} by that of an image ('{_last(name)}'); {remedy}."
            )
    return found[0]


def _last(path: str) -> str:
    """Name of a file without its folders, of either kind of system."""
    return re.split(r"[/\\]", path)[-1]


def _translated(names: "pd.Series[str]", translate: Any) -> "pd.Series[Any]":
    """Column with each distinct text translated once."""
    codes, found = pd.factorize(names, use_na_sentinel=False)
    words = np.empty(len(found), dtype=object)
    words[:] = [translate(n) for n in found]
    return pd.Series(words[codes], index=names.index, dtype=object)


def _coverage(table: pd.DataFrame) -> "pd.Series[Any]":
    """``ok``, or that a level lies only partly in the image, so that its mean is that of another place."""
    quality = pd.Series("ok", index=table.index)
    if "n_slices" in table.columns:
        slices = pd.to_numeric(table["n_slices"], errors="coerce")
        quality[slices < COVERED * slices.groupby(table["VertLevel"]).transform("max")] = "level partly in the image"
    return quality


def _contrasts(text: str) -> list[str]:
    return list(dict.fromkeys(meaning for word, meaning in _CONTRASTS if word in text))


def _shape_observations(table: pd.DataFrame, base: pd.DataFrame, names: "pd.Series[str]", source: str) -> pd.DataFrame:
    contrasts = _translated(names, lambda name: _contrasts_of(name, source))
    region = _translated(names, lambda name: _tissue_of(name, source))
    contrast = contrasts.map(lambda found: found[0] if len(found) == 1 else "")
    quality = base.get("quality", _coverage(table)).copy()
    unclear = contrasts.map(len) > 1
    quality[unclear] = contrasts[unclear].map(lambda found: f"contrast is not clear, {' or '.join(found)}")
    base = base.assign(quality=quality)
    parts = []
    for shape in _SHAPE:
        if f"MEAN({shape})" in table.columns:
            metric = (shape + " " + contrast).str.strip()
            parts.append(base.assign(region=region, metric=metric, value=table[f"MEAN({shape})"]))
    return pd.concat(parts, ignore_index=True)


def _places(name: Any, source: str) -> tuple[str, ...]:
    """Where to look, the closest first: name of the image, name of the table, folders of the image."""
    path = "" if pd.isna(name) else str(name)
    return _last(path), source, path


def _contrasts_of(name: Any, source: str) -> list[str]:
    return next((found for text in _places(name, source) if (found := _contrasts(text))), [])


def _tissue_of(name: Any, source: str) -> str:
    def tissues(text: str) -> Collection[str]:
        return {_TISSUES[w] for w in _words(text.lower(), r"[^a-z]+") if w in _TISSUES}

    for text in _places(name, source)[:2]:
        if len(found := tissues(text)) == 1:
            return next(iter(found))
    return "spinal cord"
