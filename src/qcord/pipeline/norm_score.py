"""Values beside norms: z with interval and centile for a table of observations or a folder of outputs."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qcord.core.errors import ExtrapolationWarning, MissingMetadata, UnknownName, UnreadableFile
from qcord.core.person_words import maker_name, sex_name
from qcord.ingest.bids import Visit
from qcord.ingest.norm_tables import read_table, with_usual_names
from qcord.ingest.people import Person, read_person
from qcord.ingest.toolbox_tables import is_toolbox
from qcord.normative.names import level_name, numbers_of, plain_text, region_name, translated
from qcord.normative.norm import Cell, Norm, Norms
from qcord.normative.observations import OLDEST, SEX
from qcord.normative.plausible import FACTORS, metric_name, plausible, unit_name
from qcord.normative.score import COLUMNS, score
from qcord.normative.shipped import shipped_norms
from qcord.pipeline.norm_source import in_units_of_persons, read_source
from qcord.pipeline.norm_values import as_observations, observed
from qcord.pipeline.store import package_version, write_table, write_text

NEEDED = ("metric", "region", "level", "value")


def norm_score(
    table: pd.DataFrame | Path | str,
    norms: Norms | Path | str | None = None,
    out: Path | str | None = None,
    *,
    site: str | None = None,
    mapping: Path | str | None = None,
    participants: Path | str | None = None,
) -> pd.DataFrame:
    """Compare values with norms.

    Parameters
    ----------
    table : DataFrame or path
        Observations (metric, region, level, value, and se, age, sex, site, manufacturer where known), one row a value,
        as any table that ``qcord norm add`` reads, those of the Spinal Cord Toolbox among them; or a folder that
        ``qcord run`` wrote. Other words for the same thing are understood (``Female``, levels ``3``, ``WM``).
    norms : Norms or path, optional
        Norms, or a JSON file of them; those of the package by default.
    out : path, optional
        Table to write: comma-separated if it ends in .csv, else tab-separated.
    site : str, optional
        Site of all rows, as the norms name it.
    mapping : path, optional
        TOML file that says which column of a table is what; see docs/normative-database.md.
    participants : path, optional
        Table with age and sex of each person, if the table does not hold them.

    Returns
    -------
    DataFrame
        The rows with z, z_low, z_high, centile, expected, expected_sd, basis, note. NaN and a note where there is no
        norm, value, age or sex, where units differ, the value or its standard error cannot be one, or its quality is
        not ``ok``.

    Raises
    ------
    UnreadableFile, MissingMetadata, UnknownName, ImplausibleValue
        If a file is absent or not of its kind, a column is missing, or holds text among numbers.
    """
    loaded = _norms(norms)
    if isinstance(table, pd.DataFrame):
        observations = table
    elif Path(table).is_dir():
        observations = folder_observations(Path(table), loaded)
    else:
        observations = read_observations(Path(table), mapping, participants)
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
            have = ", ".join(map(str, list(observations.columns)[:12]))
            raise MissingMetadata(
                f"The table has no column {name} (it has {have}); "
                f"expected {', '.join(NEEDED)} - name them in a mapping."
            )
    rows = understood(observations.reset_index(drop=True))
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


def understood(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with numbers as numbers, and words as norms spell them; a word that is not known stays as it is.

    Raises
    ------
    ImplausibleValue
        If a column of numbers holds text.
    """
    found = rows.copy(deep=False)
    for name in ("value", "se", "age", "height"):
        found[name] = numbers_of(rows[name], name) if name in rows else np.nan
    functions = {
        **{"metric": metric_name, "region": region_name, "level": _level, "sex": lambda t: sex_name(t) or t.strip()},
        **{"site": plain_text, "manufacturer": maker_name, "unit": unit_name, "protocol": plain_text},
        **{"quality": plain_text, "study": plain_text},
    }
    for name, function in functions.items():
        words = translated(rows[name], function).astype(object) if name in rows else pd.Series(None, rows.index, object)
        found[name] = words.where(words.notna(), None)
    return found.drop(columns=[name for name in ("quality", "study") if name not in rows])


def _level(text: str) -> str:
    try:
        return level_name(text)
    except UnknownName:
        return text.strip()


def _at_home(rows: pd.DataFrame, norm: Norm) -> pd.DataFrame:
    """Rows whose site counts as known only if its scanner is of the manufacturer that the norm knows it by."""
    sites = norm.hierarchy.sites
    maker = dict(zip(sites.name, sites.manufacturer, strict=True))
    other = [
        isinstance(m, str) and s in maker and maker[s] != m
        for s, m in zip(rows["site"], rows["manufacturer"], strict=True)
    ]
    return rows.assign(site=rows["site"].mask(pd.Series(other, index=rows.index, dtype=bool)))


Reasons = np.ndarray[tuple[int], np.dtype[np.object_]]


def _obstacles(rows: pd.DataFrame, norm: Norm) -> list[str]:
    """Why each row cannot have a z; empty where it can."""
    value = np.isfinite(rows["value"].to_numpy(dtype=float))
    note = np.where(value, "", "no value").astype(object)
    for why in (_of_value(rows, norm), _of_person(rows, norm)):
        note = np.where(note == "", why, note)
    return [str(text) for text in note]


def _of_value(rows: pd.DataFrame, norm: Norm) -> Reasons:
    """What is wrong with the value of each row: its quality, its unit, its size, its error."""
    note = np.full(len(rows), "", dtype=object)
    value, se = rows["value"].to_numpy(dtype=float), rows["se"].to_numpy(dtype=float)
    note[~np.isnan(se) & ~(np.isfinite(se) & (se >= 0))] = "standard error is no number >= 0"
    known = plausible(norm.cell.metric)
    if known is not None and unit_name(norm.unit) == known.unit:
        for n in np.flatnonzero(~known.possible(value)):
            slip = known.slip(value[n])
            hint = f" (in '{slip}'? convert it, or state it in a mapping)" if slip else ""
            note[n] = f"impossible in cord tissue: {norm.cell.metric} must be {known.words}{hint}"
    for k, unit in enumerate(rows["unit"]):
        if unit and unit_name(unit) != (unit_name(norm.unit) or "1"):
            note[k] = f"unit {unit}, the norm has {norm.unit or '1'}"
    for k, quality in enumerate(rows.get("quality", ())):
        if quality and quality.lower() != "ok":
            note[k] = f"quality: {quality}"
    return note


def _of_person(rows: pd.DataFrame, norm: Norm) -> Reasons:
    """What a norm needs of the person of each row and is not known."""
    age = rows["age"].to_numpy(dtype=float)
    lacking = {"age": np.isnan(age)}
    if norm.terms.sex:
        lacking["sex"] = ~rows["sex"].isin(SEX).to_numpy()
    if norm.terms.height:
        lacking["height"] = ~rows["height"].between(0.4, 2.6).to_numpy()
    note = np.full(len(rows), "", dtype=object)
    for n in np.flatnonzero(np.any(list(lacking.values()), axis=0)):
        note[n] = f"no {' and '.join(name for name, missing in lacking.items() if missing[n])}"
    note[(age < 0) | (age > OLDEST)] = f"age is not 0 to {OLDEST} years (in months? state its unit in a mapping)"
    return note


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


def read_observations(
    path: Path, mapping: Path | str | None = None, participants: Path | str | None = None
) -> pd.DataFrame:
    """Read a table of observations as ``qcord norm add`` does.

    With a mapping, values whose unit is stated are converted to that of norms; without, further columns are kept.

    Raises
    ------
    UnreadableFile, MissingMetadata
        If there is no such file, it is no table, or not what the mapping says.
    """
    if mapping is None and participants is None:
        table = read_table(path)
        if not is_toolbox(table):
            return with_usual_names(table)
    return _in_own_units(in_units_of_persons(read_source(path, mapping, participants)))


def _in_own_units(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose unit a mapping states, in the unit that norms have of the metric."""
    if "unit" not in rows or "metric" not in rows or "value" not in rows:
        return rows
    found = rows.assign(**{c: numbers_of(rows[c], c) for c in ("value", "se") if c in rows})
    for metric, unit in rows[["metric", "unit"]].dropna().drop_duplicates().to_numpy():
        known = plausible(metric_name(str(metric)))
        by = FACTORS.get((unit_name(str(unit)), known.unit)) if known is not None else None
        if known is not None and by is not None:
            where = (rows["metric"] == metric) & (rows["unit"] == unit)
            for name in ("value", "se", "unit"):
                if name in found:
                    found.loc[where, name] = known.unit if name == "unit" else found.loc[where, name] * by
    return found


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
