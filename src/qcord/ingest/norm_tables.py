"""Tables of values of many people: any through a mapping, and those of the Spinal Cord Toolbox."""

import gzip
import hashlib
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from qcord.core.errors import MissingMetadata, UnreadableFile
from qcord.core.text_column import as_text
from qcord.ingest.norm_mapping import Column, TableMapping
from qcord.ingest.people import column_units
from qcord.ingest.toolbox_tables import is_toolbox, toolbox_observations

MISSING = ("", "n/a", "N/A", "NA", "NaN", "nan", "null", "None", "NULL", "-")
"""What stands for no value in tables of the field."""

USUAL: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "participant_id": ("participant", "subject", "subject_id", "id"),
        "sex": ("gender",),
        "session_id": ("session",),
        "site": ("institution_id", "center", "centre", "institution"),
        "manufacturer": ("vendor",),
        "scanner": ("manufacturers_model_name", "model"),
        "pathology": ("diagnosis", "group"),
        "region": ("label",),
        "level": ("vertlevel",),
    }
)
"""Other names of columns that are understood without a mapping, the likeliest first; case does not matter."""

PERSONAL = ("study", "site", "manufacturer", "scanner", "pathology", "age", "sex", "height", "weight")
"""Columns that a table of participants may give."""

_OF_VALUES = ("metric", "unit", "region", "level", "value", "se", "quality")

SEPARATORS = (",", "\t", ";", "|")


@dataclass(frozen=True, eq=False)
class RawTable:
    """A table in the columns of observations, its words and numbers still as they were found.

    Parameters
    ----------
    frame : DataFrame
        Some of the columns of observations, and ``images``: key into `sidecars`.
    units : mapping
        Units of age, height and weight where they are not those of the database.
    notes : tuple of str
        What was assumed or left out.
    sidecars : mapping
        Metadata of the images that values come from.
    digest : str
        SHA-256 of the files read, as hexadecimal text.
    """

    frame: pd.DataFrame
    units: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sidecars: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    digest: str = ""


def read_table(path: Path, mapping: TableMapping | None = None) -> pd.DataFrame:
    """Read a table as text (Parquet as stored).

    Parameters
    ----------
    path : path
        ``.csv``, ``.tsv``, ``.txt``, each also with ``.gz``, or ``.parquet``.
    mapping : TableMapping, optional
        Says separator and encoding.

    Raises
    ------
    UnreadableFile
        If it is absent, empty, damaged, not text in the encoding, or its rows have more cells than its header.
    """
    how = mapping or TableMapping()
    if not path.is_file():
        raise UnreadableFile(f"{path.name} does not exist; check the path.")
    if path.suffix == ".parquet":
        return _parquet(path)
    text_of = gzip.open if path.suffix == ".gz" else open
    try:
        with text_of(path, "rt", encoding=how.encoding) as file:
            header = file.readline()
    except UnicodeDecodeError as error:
        raise _not_text(path, how, error) from error
    except (OSError, EOFError, zlib.error, LookupError) as error:
        raise UnreadableFile(f"{path.name} cannot be read ({error}); copy or export it again.") from error
    if not header.strip():
        raise UnreadableFile(f"{path.name} is empty; expected a table with a header.")
    separator = how.separator or max(SEPARATORS, key=header.count)
    try:
        with warnings.catch_warnings():
            # a row that is longer than the header would lose its last cells, as with decimal commas beside commas
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                sep=separator,
                dtype=str,
                encoding=how.encoding,
                keep_default_na=False,
                na_values=[word + blank for word in MISSING for blank in ("", " ")],
                skipinitialspace=True,
                index_col=False,
            )
    except UnicodeDecodeError as error:
        raise _not_text(path, how, error) from error
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError, EOFError, zlib.error) as error:
        reason = str(error).strip().split("\n")[0].split(". ")[0]
        raise UnreadableFile(
            f"{path.name} is no table separated by {separator!r} ({reason}); expected a header in the first line and "
            "as many cells in each row (no decimal comma between commas) - export it again or state its separator."
        ) from error
    table.columns = table.columns.str.strip()
    return table


def with_points(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Numbers of a column whose decimals are behind a comma, with a point; other text stays as it is.

    >>> with_points(pd.Series(["0,63", "1.234,5", "70"])).tolist()
    ['0.63', '1.234,5', '70']
    """
    return as_text(column).str.replace(r"^\s*([+-]?\d*),(\d+(?:[eE][+-]?\d+)?)\s*$", r"\1.\2", regex=True)


def _not_text(path: Path, how: TableMapping, error: UnicodeDecodeError) -> UnreadableFile:
    encoding = "UTF-8" if how.encoding.startswith("utf-8") else how.encoding
    return UnreadableFile(
        f"{path.name} is not text in {encoding} (byte 0x{error.object[error.start]:02x}); save it as UTF-8, or state "
        'the encoding in a mapping (encoding = "latin-1").'
    )


def _parquet(path: Path) -> pd.DataFrame:
    try:
        with duckdb.connect() as base:
            return base.execute("SELECT * FROM read_parquet(?)", [str(path)]).df()
    except duckdb.Error as error:
        reason = str(error).split("\n")[0]
        raise UnreadableFile(f"{path.name} is no readable Parquet file ({reason}); copy it again.") from error


def read_observations(
    path: Path, mapping: TableMapping | None, folder: Path | None = None, participants: Path | None = None
) -> RawTable:
    """Read a table of values as observations.

    Parameters
    ----------
    path : path
        The table; one of the Spinal Cord Toolbox is known by its header.
    mapping : TableMapping, optional
        Which column is what; not needed for usual names.
    folder : path, optional
        Folder that paths in the mapping are relative to.
    participants : path, optional
        Table of persons to join, instead of the one that the mapping names.

    Returns
    -------
    RawTable
        One row a value.

    Raises
    ------
    MissingMetadata
        If a column that the mapping names is absent, or the metric of a table is not stated.
    UnreadableFile
        If a file cannot be read, or no person of the table is in the table of participants.
    """
    how = mapping or TableMapping()
    table = read_table(path, how)
    notes: list[str] = []
    if is_toolbox(table):
        stated = _columns(
            table, path.name, how.columns, ("participant_id", "session_id", *PERSONAL, "protocol", "quality")
        )
        frame = toolbox_observations(table, path.name, how, stated, notes)
    else:
        frame = _mapped(table, path.name, how)
    frame, units, files = completed(frame, how, folder, participants, notes)
    return RawTable(frame, {**units_of(how.columns), **units}, tuple(notes), {}, digest_of([path, *files]))


def digest_of(files: Sequence[Path]) -> str:
    """SHA-256 of the content of files, in order."""
    found = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            found.update(hashlib.file_digest(content, "sha256").digest())
    return found.hexdigest()


def units_of(columns: Mapping[str, str | Column]) -> dict[str, str]:
    """Units that a mapping states for columns."""
    return {name: c.unit for name, c in columns.items() if isinstance(c, Column) and c.unit}


def _mapped(table: pd.DataFrame, source: str, how: TableMapping) -> pd.DataFrame:
    """Rows of a table under the names of observations; a wide table becomes one row a value."""
    names = ("participant_id", "session_id", *PERSONAL, "protocol", "software", *_OF_VALUES)
    base = _columns(table, source, how.columns, names)
    if not how.value:
        absent = [c for c in ("metric", "value") if c not in base.columns and c not in how.constants]
        if absent:
            have = ", ".join(str(c) for c in list(table.columns)[:16])
            more = " ..." if len(table.columns) > 16 else ""
            raise MissingMetadata(
                f"{source} has no column {absent[0]} (it has {have}{more}); say in a mapping which column is what "
                "(docs/normative-database.md), with a [[value]] for each column of values if there are several."
            )
        return base
    base = base.drop(columns=["value", "se"], errors="ignore")
    parts = []
    for value in how.value:
        part = base.assign(value=_column(table, value.column, source))
        stated = {n: getattr(value, n) for n in ("metric", "unit", "region", "level") if getattr(value, n)}
        parts.append(part.assign(**stated, se=_column(table, value.se, source) if value.se else np.nan))
    return pd.concat(parts, ignore_index=True)


def with_usual_names(table: pd.DataFrame) -> pd.DataFrame:
    """Table whose columns of the usual other names have those of observations; all others stay."""
    names = ("participant_id", "session_id", *PERSONAL, "protocol", "software", *_OF_VALUES)
    usual = {own: name for name in names if (own := _usual(table, name)) is not None}
    return table.rename(columns=usual)


def _usual(table: pd.DataFrame, name: str) -> str | None:
    """Column of a table that is what a column of observations is, by its name."""
    if name in table.columns:
        return name
    lower = {str(c).lower(): str(c) for c in reversed(table.columns)}
    return next((lower[n] for n in (name, *USUAL.get(name, ())) if n in lower), None)


def _columns(
    table: pd.DataFrame, source: str, mapped: Mapping[str, str | Column], names: Sequence[str]
) -> pd.DataFrame:
    found: dict[str, Any] = {}
    for name in names:
        if name in mapped:
            column = mapped[name]
            found[name] = _column(table, column.column if isinstance(column, Column) else column, source)
            continue
        usual = _usual(table, name)
        if usual is not None:
            found[name] = table[usual]
    return pd.DataFrame(found, index=table.index, copy=False)


def _column(table: pd.DataFrame, name: str, source: str) -> "pd.Series[Any]":
    if name not in table.columns:
        have = ", ".join(str(c) for c in list(table.columns)[:12])
        more = " ..." if len(table.columns) > 12 else ""
        raise MissingMetadata(f"{source} has no column '{name}' (it has {have}{more}); correct the mapping.")
    return table[name]


def _with_constants(frame: pd.DataFrame, how: TableMapping) -> pd.DataFrame:
    result = frame.copy(deep=False)
    for name, words in how.words.items():
        if name in result.columns:
            result[name] = result[name].replace(words)
    for name in ("value", "se", "age", "height", "weight") if how.decimal == "," else ():
        if name in result.columns:
            result[name] = with_points(result[name])
    for name, constant in how.constants.items():
        result[name] = result[name].fillna(str(constant)) if name in result.columns else str(constant)
    return result


def completed(
    frame: pd.DataFrame, how: TableMapping, folder: Path | None, participants: Path | None, notes: list[str]
) -> tuple[pd.DataFrame, dict[str, str], list[Path]]:
    """Complete rows: what the table itself says goes first, then the table of participants, then constants.

    Units of age, height and weight of the participants are those of the mapping, else of the JSON beside their table.

    Returns
    -------
    frame, units, files
        Observations, units of joined columns, files read. Who is not among the participants is added to ``notes``.
    """
    mapped = how.participants.columns if how.participants else {}
    path = participants
    if path is None and how.participants is not None:
        path = (folder or Path()) / how.participants.file
    if path is None or "participant_id" not in frame.columns:
        return _with_constants(frame, how), {}, []
    people, keys = _people(path, mapped, frame)
    joined = frame.merge(people, how="left", on=keys, suffixes=("", " joined"), indicator=True)
    absent = joined.loc[joined["_merge"].eq("left_only"), "participant_id"]
    if len(absent) == len(joined):
        raise UnreadableFile(
            f"No person of the table is in {path.name}: it has {_some(people, keys)}, the table {_some(frame, keys)}; "
            "use the same ids."
        )
    if len(absent):
        notes.append(
            f"{absent.nunique()} people of the table are not in {path.name}: {_some(joined.loc[absent.index], keys)}"
        )
    stated = {**{n: u for n, u in column_units(path).items() if n in people.columns}, **units_of(mapped)}
    for name in PERSONAL:
        if f"{name} joined" in joined.columns:
            _refuse_two_units(joined, name, stated.get(name, ""), units_of(how.columns).get(name, ""), path.name)
            joined[name] = joined[name].fillna(joined[f"{name} joined"])
    extra = [c for c in joined.columns if c.endswith(" joined") or c == "_merge"]
    return _with_constants(joined.drop(columns=extra), how), stated, [path]


def _some(table: pd.DataFrame, keys: Sequence[str]) -> str:
    """Some of the persons of a table, in words."""
    rows = table[list(keys)].dropna(subset=["participant_id"]).drop_duplicates().astype(object).fillna("n/a")
    return ", ".join(" ".join(map(str, r)) for r in rows.head(3).to_numpy()) + (" ..." if len(rows) > 3 else "")


def _refuse_two_units(joined: pd.DataFrame, name: str, theirs: str, own: str, people: str) -> None:
    """Raise if a column comes from both tables, in two units."""
    usual = {"age": "year", "height": "m", "weight": "kg"}.get(name, "")
    if (theirs or usual) != (own or usual) and joined[name].notna().any():
        raise MissingMetadata(
            f"The {name} is stated in the table (in {own or usual}) and in {people} (in {theirs or usual}); "
            "leave one of the columns out."
        )


def _people(path: Path, mapped: Mapping[str, str | Column], frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Table of persons with one row a key, and the key; ids lose their prefix in both tables."""
    people = _columns(read_table(path), path.name, mapped, ("participant_id", "session_id", *PERSONAL))
    if "participant_id" not in people.columns:
        raise MissingMetadata(f"{path.name} has no column participant_id; name it in [participants.columns].")
    for name, prefix in (("participant_id", "sub-"), ("session_id", "ses-")):
        for table in (frame, people):
            if name in table.columns:
                table[name] = as_text(table[name]).str.strip().str.removeprefix(prefix)
    keys = ["participant_id"]
    if "session_id" in people.columns:
        if people["session_id"].notna().any() and "session_id" in frame.columns and frame["session_id"].notna().any():
            keys.append("session_id")
        else:
            people = people.drop(columns="session_id")
    people = people[people["participant_id"].notna()].drop_duplicates()
    twice = people.duplicated(keys)
    if twice.any():
        who = people.loc[twice, "participant_id"].iloc[0]
        raise UnreadableFile(
            f"{path.name} describes {who} twice, not alike; keep one row a person, or state the session in both tables."
        )
    return people, keys
