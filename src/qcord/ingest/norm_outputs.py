"""The tables of a folder that ``qcord run`` wrote, as observations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from qcord.core.entities import Entities
from qcord.core.errors import UnknownName, UnreadableFile
from qcord.core.labels import CSF
from qcord.core.text_column import as_text
from qcord.ingest.bids import inherited_files, inherited_metadata
from qcord.ingest.nifti import read_sidecar
from qcord.ingest.norm_mapping import TableMapping
from qcord.ingest.norm_tables import RawTable, completed, digest_of, units_of

ESTIMATOR = "map"
"""Estimator whose values enter a database: it shrinks noisy small tracts towards their tissue."""

_ATLAS, _SHAPE = "sub-*/**/*_desc-atlas_metrics.tsv", "sub-*/**/*_desc-morphometry_metrics.tsv"


def is_output_folder(folder: Path) -> bool:
    """Whether a folder holds tables of ``qcord run``."""
    return (folder / "metrics.parquet").is_file() or any(folder.glob(_ATLAS)) or any(folder.glob(_SHAPE))


def read_outputs(
    folder: Path, mapping: TableMapping | None, base: Path | None = None, participants: Path | None = None
) -> RawTable:
    """Read the values per vertebral level of all visits.

    Parameters
    ----------
    folder : path
        Output folder of ``qcord run``.
    mapping : TableMapping, optional
        Its constants, words and participants are used.
    base : path, optional
        Folder that paths in the mapping are relative to.
    participants : path, optional
        Table of persons; by default ``participants.tsv`` of the folder, or of the raw data set that it names.

    Returns
    -------
    RawTable
        One row per metric, region and level; values of slices, and of all levels together, are left out, because
        what they cover differs from scan to scan.

    Raises
    ------
    UnknownName
        If the folder holds no table.
    UnreadableFile
        If a table cannot be read.
    """
    how = mapping or TableMapping()
    atlas, shape = sorted(folder.glob(_ATLAS)), sorted(folder.glob(_SHAPE))
    if not atlas and (folder / "metrics.parquet").is_file():
        atlas = [folder / "metrics.parquet"]
    if not atlas and not shape:
        raise UnknownName(f"{folder.name} holds no *_desc-atlas_metrics.tsv or metrics.parquet; run `qcord run` first.")
    version = _version(folder)
    parts = []
    if atlas:
        found = _levels(atlas, f"estimator = '{ESTIMATOR}' AND region <> '{CSF}'")
        parts.append(found.assign(software=f"qcord {version} {ESTIMATOR}".replace("  ", " ")))
    if shape:
        found = _levels(shape, "true")
        contrast = as_text(found["source"])
        metric = as_text(found["metric"]) + " " + contrast
        parts.append(found.assign(metric=metric, region="spinal cord", software=f"qcord {version}".strip()))
    frame = pd.concat(parts, ignore_index=True)
    keys = as_text(frame["participant_id"]) + "|" + frame["session_id"].fillna("") + "|" + frame["source"]
    raw = _raw_folder(folder)
    sidecars = {
        str(key): _sidecars(folder, raw, *str(key).split("|")) for key in keys.drop_duplicates() if isinstance(key, str)
    }
    stated = _stated(folder)
    unknown = sum(not found and key not in stated for key, found in sidecars.items())
    notes = [f"neither raw scans nor tables tell the protocol of {unknown} series: it is left empty"] if unknown else []
    kept = ["participant_id", "session_id", "metric", "unit", "region", "level", "value", "se", "software"]
    frame = frame[kept].assign(quality=frame["flag"], images=keys)
    for name in ("protocol", "manufacturer", "scanner"):  # the raw scans go first
        words = {k: own.get(name) or None for k, own in stated.items() if not sidecars.get(k)}
        frame[name] = as_text(keys.map(words))
    if participants is None and how.participants is None:
        places = [p / "participants.tsv" for p in (folder, raw) if p is not None]
        participants = next((p for p in places if p.is_file()), None)
    frame, units, files = completed(frame, how, base, participants, notes)
    return RawTable(
        frame, {**units_of(how.columns), **units}, tuple(notes), sidecars, digest_of([*atlas, *shape, *files])
    )


def _levels(files: Sequence[Path], where: str) -> pd.DataFrame:
    """Rows of single levels, as text."""
    if files[0].suffix == ".parquet":
        table = "(SELECT * FROM read_parquet($1))"
    else:
        table = "read_csv($1, delim='\t', header=true, all_varchar=true, nullstr=['n/a', ''], union_by_name=true)"
    query = (
        "SELECT participant_id, session_id, metric, unit, region, level, value, se, flag, source"
        f" FROM {table} WHERE level IS NOT NULL AND level <> '' AND slice IS NULL AND {where}"
    )
    if "estimator" not in where:
        query = query.replace("unit, region,", "unit, 'spinal cord' AS region,", 1)
    try:
        with duckdb.connect() as base:
            return base.execute(query, [[str(f) for f in files]]).df()
    except duckdb.Error as error:
        reason = str(error).split("\n")[0]
        raise UnreadableFile(
            f"A table of {files[0].parent.name} is not as `qcord run` writes it ({reason}); run it again."
        ) from error


def _description(folder: Path) -> Mapping[str, Any]:
    path = folder / "dataset_description.json"
    return read_sidecar(path) if path.is_file() else {}


def _version(folder: Path) -> str:
    made = _description(folder).get("GeneratedBy") or [{}]
    return str(made[0].get("Version", "")) if isinstance(made, list) and isinstance(made[0], dict) else ""


def _raw_folder(folder: Path) -> Path | None:
    links = _description(folder).get("DatasetLinks")
    raw = links.get("raw") if isinstance(links, dict) else None
    place = folder / str(raw) if raw else None
    return place if place is not None and place.is_dir() else None


def _stated(folder: Path) -> dict[str, Mapping[str, Any]]:
    """What the tables of each visit state of the scanner and protocol of each series, by its key."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(folder.glob(_ATLAS)):
        facts = path.with_suffix(".json")
        scanners = read_sidecar(facts).get("Scanners") if facts.is_file() else None
        subject, _, session = path.name.removesuffix("_desc-atlas_metrics.tsv").removeprefix("sub-").partition("_ses-")
        if isinstance(scanners, dict):
            found |= {f"{subject}|{session}|{token}": own for token, own in scanners.items() if isinstance(own, dict)}
    return found


def _sidecars(folder: Path, raw: Path | None, subject: str, session: str, source: str) -> list[dict[str, Any]]:
    """Metadata of the raw images that a series of a visit was made from."""
    home = folder / f"sub-{subject}" / (f"ses-{session}" if session else "")
    mask = next(iter(sorted(home.glob(f"anat/*_label-SC_desc-{source}_mask.json"))), None)
    if mask is None or raw is None:
        return []
    found = []
    for uri in read_sidecar(mask).get("Sources", []):
        path = raw / str(uri).removeprefix("bids:raw:")
        if not path.is_file():
            continue
        entities = Entities.parse(path.name)
        metadata = inherited_metadata(path, raw, entities)
        tables = inherited_files(path, raw, entities, ".bval")
        if tables:
            metadata["BValue"] = tables[-1].read_text(encoding="utf-8").split()
        found.append(metadata)
    return found
