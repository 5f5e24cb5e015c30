"""Values beside norms: z with interval and centile for a table of observations or a folder of outputs."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from qcord.core.errors import ExtrapolationWarning, MissingMetadata, UnknownName, UnreadableFile
from qcord.ingest.bids import Visit
from qcord.ingest.people import Person, manufacturer, read_person
from qcord.normative.norm import Cell, Norm, Norms
from qcord.normative.score import COLUMNS, score
from qcord.normative.shipped import shipped_norms
from qcord.pipeline.norm_values import as_observations, observed
from qcord.pipeline.store import package_version, write_table, write_text

NEEDED = ("metric", "region", "level", "value")
SAME_UNIT = {"%": "percent", "mm^2": "mm2", "mm²": "mm2", "mm^2/s": "mm2/s", "mm²/s": "mm2/s", "": "1"}
"""Other spellings of units."""


def norm_score(
    table: pd.DataFrame | Path | str,
    norms: Norms | Path | str | None = None,
    out: Path | str | None = None,
    *,
    site: str | None = None,
) -> pd.DataFrame:
    """Compare values with norms.

    Parameters
    ----------
    table : DataFrame or path
        Observations (metric, region, level, value, and se, age, sex, site, manufacturer where known), one row a value,
        as .csv, .tsv or .parquet; or a folder that ``qcord run`` wrote.
    norms : Norms or path, optional
        Norms, or a JSON file of them; those of the package by default.
    out : path, optional
        Table to write: comma-separated if it ends in .csv, else tab-separated.
    site : str, optional
        Site of all rows, as the norms name it.

    Returns
    -------
    DataFrame
        The rows with z, z_low, z_high, centile, expected, expected_sd, basis, note. NaN and a note where there is no
        norm, value, age or sex, or where units differ.

    Raises
    ------
    UnreadableFile, MissingMetadata, UnknownName
        If a file is absent or not of its kind, or a column is missing.
    """
    loaded = _norms(norms)
    if isinstance(table, pd.DataFrame):
        observations = table
    elif Path(table).is_dir():
        observations = folder_observations(Path(table), loaded)
    else:
        observations = read_observations(Path(table))
    if site is not None:
        observations = observations.assign(site=site)
    scored = score_rows(observations, loaded)
    if out is not None:
        _write(Path(out), scored)
    return scored


def _norms(norms: Norms | Path | str | None) -> Norms:
    if isinstance(norms, Norms):
        return norms
    if norms is not None:
        return read_norms(Path(norms))
    shipped = shipped_norms()
    if not len(shipped):
        raise UnknownName("The package holds no norms; give a JSON file of them.")
    return shipped


def score_rows(observations: pd.DataFrame, norms: Norms) -> pd.DataFrame:
    """Scores of a table, with a note instead of a z where a row lacks what its norm needs.

    Raises
    ------
    MissingMetadata
        If a column that tells the cell is missing.
    """
    for name in NEEDED:
        if name not in observations:
            raise MissingMetadata(f"The table has no column {name}; expected {', '.join(NEEDED)}.")
    rows = observations.reset_index(drop=True)
    for name in ("se", "age", "height"):
        rows[name] = pd.to_numeric(rows[name], errors="coerce") if name in rows else np.nan
    for name in ("sex", "site", "manufacturer", "unit", "protocol"):
        rows[name] = rows.get(name)
    rows["manufacturer"] = [manufacturer(m) or None if isinstance(m, str) else None for m in rows["manufacturer"]]
    scored = rows.drop(columns=[c for c in COLUMNS if c in rows])
    for name in COLUMNS:
        scored[name] = "" if name in {"basis", "note"} else np.nan
    scored["note"] = "no norm"
    for key, part in rows.groupby(["metric", "region", "level"], sort=False):
        norm = norms.cells.get(Cell(*(str(v) for v in key)))
        if norm is None:
            continue
        notes = _obstacles(part, norm)
        scored.loc[part.index, "note"] = notes
        able = part[[not n for n in notes]]
        for _, own in _at_home(able, norm).groupby("manufacturer", dropna=False, sort=False):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExtrapolationWarning)  # the column note says it
                found = score(norm, own)
            for name in COLUMNS:
                scored.loc[own.index, name] = found[name].to_numpy()
    return scored


def _at_home(rows: pd.DataFrame, norm: Norm) -> pd.DataFrame:
    """Rows whose site counts as known only if its scanner is of the manufacturer that the norm knows it by."""
    sites = norm.hierarchy.sites
    maker = dict(zip(sites.name, sites.manufacturer, strict=True))
    other = [
        isinstance(m, str) and s in maker and maker[s] != m
        for s, m in zip(rows["site"], rows["manufacturer"], strict=True)
    ]
    return rows.assign(site=rows["site"].mask(pd.Series(other, index=rows.index, dtype=bool)))


def _obstacles(rows: pd.DataFrame, norm: Norm) -> list[str]:
    """Why each row cannot have a z; empty where it can."""
    value = np.isfinite(pd.to_numeric(rows["value"], errors="coerce"))
    lacking = {"age": ~rows["age"].between(0, 120)}
    if norm.terms.sex:
        lacking["sex"] = ~rows["sex"].isin(["F", "M"])
    if norm.terms.height:
        lacking["height"] = ~rows["height"].between(0.4, 2.6)
    notes = []
    for n, (good, unit) in enumerate(zip(value, rows["unit"], strict=True)):
        absent = [name for name, missing in lacking.items() if missing.iloc[n]]
        if not good:
            notes.append("no value")
        elif isinstance(unit, str) and unit and _unit(unit) != _unit(norm.unit):
            notes.append(f"unit {unit}, the norm has {norm.unit or '1'}")
        else:
            notes.append(f"no {' and '.join(absent)}" if absent else "")
    return notes


def _unit(text: str) -> str:
    return SAME_UNIT.get(text.strip(), text.strip())


def read_norms(path: Path) -> Norms:
    """Read norms.

    Raises
    ------
    UnreadableFile
        If there is no such file.
    QcordError
        If it holds no norms.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"Norms {path} cannot be read ({error}); expected JSON as qcord writes it.") from error
    return Norms.from_json(text)


def read_observations(path: Path) -> pd.DataFrame:
    """Read a table of observations; ``n/a`` and empty fields are missing.

    Raises
    ------
    UnreadableFile
        If there is no such file or it is no table.
    """
    try:
        if path.suffix == ".parquet":
            with duckdb.connect() as base:
                return base.execute("SELECT * FROM read_parquet(?)", [str(path)]).df()
        separator = "," if path.suffix == ".csv" else "\t"
        texts = dict.fromkeys(("participant_id", "session_id", "site", "region", "level", "sex"), str)
        return pd.read_csv(path, sep=separator, dtype=texts)
    except (OSError, ValueError, duckdb.Error) as error:
        raise UnreadableFile(f"{path} cannot be read as a table ({error}); expected .csv, .tsv or .parquet.") from error


def folder_observations(folder: Path, norms: Norms) -> pd.DataFrame:
    """Observations of all visits that ``qcord run`` wrote to a folder, for the cells that norms have.

    Ages and sexes come from ``participants.tsv`` and ``sessions.tsv`` of the folder, else of the raw data set that it
    names.

    Raises
    ------
    UnknownName
        If the folder holds no table.
    """
    tables = sorted(folder.glob("sub-*/**/*_desc-atlas_metrics.tsv"))
    if not tables:
        raise UnknownName(f"{folder} holds no *_desc-atlas_metrics.tsv; expected a folder that 'qcord run' wrote.")
    parts = []
    for path in tables:
        facts = _facts(path.with_suffix(".json"))
        atlas = read_metrics(path)
        shape = read_metrics(path.with_name(path.name.replace("_desc-atlas_", "_desc-morphometry_")))
        prefix = path.name.removesuffix("_desc-atlas_metrics.tsv")
        subject, _, session = prefix.removeprefix("sub-").partition("_ses-")
        visit = Visit(subject, session or None, path.parent)
        scanner = facts.get("Scanners", {})
        contrasts = {token: str(one.get("contrast", "")) for token, one in scanner.items()}
        values = observed(
            atlas,
            shape,
            norms.cells,
            differs=facts.get("Differs", {}),
            contrasts=contrasts,
        )
        identity = {"participant_id": subject, "session_id": session}
        software = f"qcord {facts.get('Version', package_version())}"
        parts.append(as_observations(values, _person(folder, visit), scanner, identity=identity, software=software))
    return pd.concat(parts, ignore_index=True)


def read_metrics(path: Path) -> pd.DataFrame:
    """Read a table of a visit as it was in memory: empty text for what is not given."""
    texts = (
        "participant_id",
        "session_id",
        "metric",
        "unit",
        "region",
        "level",
        "slice",
        "estimator",
        "flag",
        "source",
    )
    try:
        table = pd.read_csv(
            path, sep="\t", dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values=["n/a", ""]
        )
    except (OSError, ValueError) as error:
        raise UnreadableFile(f"{path.name} cannot be read as a table ({error}); run the visit again.") from error
    return table.fillna({c: "" for c in texts if c in table})


def _facts(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    version = next((g.get("Version") for g in content.get("GeneratedBy", [])), package_version())
    return {**content, "Version": version}


def _person(folder: Path, visit: Visit) -> Person:
    own = read_person(folder, visit)
    if not own.lacking:
        return own
    try:
        links = json.loads((folder / "dataset_description.json").read_text(encoding="utf-8"))["DatasetLinks"]
        return read_person(Path(links["raw"]), visit)
    except (OSError, ValueError, KeyError, TypeError):
        return own


def _write(path: Path, table: pd.DataFrame) -> None:
    if path.suffix == ".csv":
        write_text(path, table.to_csv(index=False, lineterminator="\n", float_format="%.9g"))
    else:
        write_table(path, table)
