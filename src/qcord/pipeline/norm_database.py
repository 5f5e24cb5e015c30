"""The database of healthy values: add what was measured, read what is there."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from qcord.core.errors import ImplausibleValue, MissingMetadata, UnknownName
from qcord.core.person_words import maker_name
from qcord.core.text_column import as_text
from qcord.ingest.norm_tables import RawTable
from qcord.ingest.toolbox_tables import OF_SLICES
from qcord.normative.compare_stored import Compared, compared
from qcord.normative.fingerprint import fingerprint
from qcord.normative.names import HEALTHY, level_name, pathology_name, region_name
from qcord.normative.observations import COLUMNS, KEY, NUMBERS, Entry, sorted_out, with_text
from qcord.normative.plausible import metric_name
from qcord.normative.protocols import DECISIVE, deviations, usual_protocols
from qcord.pipeline.lock_folder import locked
from qcord.pipeline.norm_raw import raw_sidecars
from qcord.pipeline.norm_source import in_units_of_persons, read_source
from qcord.pipeline.norm_store import read_facts, require_database, views, write_addition, write_parquet
from qcord.pipeline.store import require_writable, write_bytes

ANY = "any"
"""Pathology that stands for all persons in a query."""


@dataclass(frozen=True)
class Added:
    """What became of an addition.

    Parameters
    ----------
    accepted, reference, superseded, stored, empty : int
        Rows of healthy persons added; of others, kept apart; that replaced a stored row; that the database held
        already; without a value.
    quarantined : mapping
        Reason to number of rows.
    notes : tuple of str
        What was converted, assumed or left out.
    persons, cells : int
        Healthy persons, and metric-region-level cells, among the accepted rows.
    """

    accepted: int
    reference: int
    superseded: int
    stored: int
    empty: int
    quarantined: Mapping[str, int]
    notes: tuple[str, ...]
    persons: int
    cells: int


def norm_add(
    source: Path | str | pd.DataFrame,
    database: Path | str,
    *,
    mapping: Path | str | None = None,
    participants: Path | str | None = None,
    site: str | None = None,
    sidecars: Path | str | None = None,
    supersede: bool = False,
) -> Added:
    """Add values to a database of healthy values, which is made if need be.

    Parameters
    ----------
    source : path or DataFrame
        Output folder of ``qcord run``, a table (CSV, TSV, Parquet; also of the Spinal Cord Toolbox), or observations.
    database : path
        Folder of the database.
    mapping : path, optional
        TOML file that says which column is what; see docs/normative-database.md.
    participants : path, optional
        Table with age and sex of each person, if the source does not hold them.
    site : str, optional
        Site of rows that do not state one.
    sidecars : path, optional
        Raw data set (BIDS) whose sidecars tell the protocols of a table's values.
    supersede : bool
        Whether a new value replaces another one stored for the same person, session, cell, protocol and software; the
        replaced row stays in the files.

    Returns
    -------
    Added
        What was accepted, and what was not and why.

    Raises
    ------
    QcordError
        If the table cannot be read, is not what it says, or no row of it can be used; then nothing is written.
    """
    folder = Path(database).absolute()
    require_database(folder, or_new=True)
    raw = read_source(source, mapping, participants)
    if sidecars is not None:
        images, found = raw_sidecars(raw.frame, sidecars)
        raw = replace(raw, frame=raw.frame.assign(images=images), sidecars=found)
    entry = sorted_out(_prepared(raw, site))
    notes = raw.notes + entry.notes
    name = "the table" if isinstance(source, pd.DataFrame) else Path(source).name
    _require_use(entry, name, raw.notes)
    require_writable(folder)
    with locked(folder):
        facts = read_facts(folder)
        table = _joined(entry.accepted, entry.reference)
        table, other = _of_usual_protocol(folder, facts, table)
        entry = replace(entry, refused=pd.concat([with_text(entry.refused), with_text(other)], ignore_index=True))
        stored, units = _stored(folder, facts, table)
        result = compared(table if stored.empty else with_text(table), stored, units, supersede=supersede)
        added = _summary(entry, result, notes)
        healthy = result.new["pathology"].eq(HEALTHY)
        refused = pd.concat([with_text(entry.refused), with_text(result.refused)], ignore_index=True)
        unseen = _not_in_quarantine(folder, facts, refused)
        tables = {"observations": result.new[healthy], "reference": result.new[~healthy], "quarantine": unseen}
        write_addition(
            folder, facts, tables, {"source": name, "digest": raw.digest or _digest(table), **_counts(added)}
        )
    return added


def norm_query(
    database: Path | str,
    *,
    metric: str | Sequence[str] | None = None,
    region: str | Sequence[str] | None = None,
    level: str | Sequence[str] | None = None,
    site: str | Sequence[str] | None = None,
    manufacturer: str | Sequence[str] | None = None,
    pathology: str | Sequence[str] | None = HEALTHY,
    sql: str | None = None,
) -> pd.DataFrame:
    """Read current rows of a database: replaced ones are left out.

    Parameters
    ----------
    database : path
        Folder of the database.
    metric, region, level, site, manufacturer : str or sequence of str, optional
        Values to keep; all by default.
    pathology : str or sequence of str, optional
        ``HC`` by default; ``any`` or None also gives the persons who are kept apart.
    sql : str, optional
        A SELECT of your own over the views ``observations`` (healthy, current), ``reference`` (others, current),
        ``quarantine`` and ``history`` (healthy, with replaced rows), instead of the other arguments.

    Returns
    -------
    DataFrame
        Columns of `qcord.normative.observations.COLUMNS`, or those of the SELECT; sorted by cell, site and person.

    Raises
    ------
    UnreadableFile
        If the folder is no database, or one of another version.
    UnknownName
        If the database holds no such metric, region, level, site or manufacturer, or the SELECT cannot be carried out.
    """
    folder = Path(database).absolute()
    require_database(folder)
    facts = read_facts(folder)
    wanted = {"metric": metric, "region": region, "level": level, "site": site, "manufacturer": manufacturer}
    filters = {k: [v] if isinstance(v, str) else list(v) for k, v in wanted.items() if v is not None}
    with views(folder, facts) as base:
        if sql is not None:
            if filters:
                raise UnknownName("Both sql and filters are given; put the filters into the WHERE of the sql.")
            return _select(base, sql)
        return _filtered(base, filters, [pathology] if isinstance(pathology, str) else pathology)


def _require_use(entry: Entry, name: str, notes: tuple[str, ...]) -> None:
    """Raise if no row can be used: the fault then lies in the table or its mapping, not in single rows."""
    if entry.accepted.empty and entry.reference.empty:
        reasons = list(entry.reasons.items())
        why = "; ".join(f"{n} x {reason}" for reason, n in reasons[:3]) + (" ..." if len(reasons) > 3 else "")
        slices = "; ".join(n for n in notes if n == OF_SLICES)
        remedy = slices or "mend this and add it again"
        raise ImplausibleValue(f"None of the {len(entry.refused)} values of {name} can be used ({why}); {remedy}.")


def _joined(accepted: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Healthy and other observations, whose categories are the same, in one table."""
    return accepted if reference.empty else pd.concat([accepted, reference], ignore_index=True)


def _of_usual_protocol(
    folder: Path, facts: Mapping[str, Any], table: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows whose protocol is that of the others of their manufacturer, stored ones among them; the rest with why."""
    columns = ["metric", "manufacturer", "site", "protocol"]
    own = table.loc[table["protocol"].notna().to_numpy() & table["metric"].isin(list(DECISIVE)).to_numpy(), columns]
    if own.empty:
        return table, table[:0].assign(reason="")
    with views(folder, facts) as base:
        base.register("metrics", own[["metric"]].drop_duplicates())
        query = f"SELECT {', '.join(columns)} FROM observations SEMI JOIN metrics USING (metric)"
        stored = base.execute(f"{query} WHERE protocol IS NOT NULL").df()
    why = deviations(table, usual_protocols(pd.concat([stored, own.astype(object)], ignore_index=True)))
    apart = why != ""
    kept = table[~apart].reset_index(drop=True) if apart.any() else table
    return kept, table[apart].assign(reason=why[apart])


def _digest(table: pd.DataFrame) -> str:
    """SHA-256 of the values of observations that come from memory."""
    return hashlib.sha256(np.ascontiguousarray(table["value"].to_numpy()).tobytes()).hexdigest()


def _prepared(raw: RawTable, site: str | None) -> pd.DataFrame:
    """Observations with units of persons, site and what the sidecars say."""
    frame = in_units_of_persons(raw)
    if site is not None:
        frame["site"] = frame["site"].fillna(site) if "site" in frame.columns else site
    if "site" not in frame.columns or frame["site"].isna().all():
        raise MissingMetadata("No site is stated; give one (--site), or name its column in a mapping.")
    if "images" in frame.columns:
        prints = {k: fingerprint(s) for k, s in raw.sidecars.items()}
        facts = {
            "protocol": {k: str(p) for k, p in prints.items() if p is not None},
            "manufacturer": {k: maker_name(str(s[0].get("Manufacturer", ""))) for k, s in raw.sidecars.items() if s},
            "scanner": {k: str(s[0].get("ManufacturersModelName", "")) for k, s in raw.sidecars.items() if s},
        }
        for name, words in facts.items():
            found = as_text(frame["images"].map(words)).replace("", np.nan)
            frame[name] = frame[name].fillna(found) if name in frame.columns else found
        frame = frame.drop(columns="images")
    return frame


def _select(base: duckdb.DuckDBPyConnection, sql: str) -> pd.DataFrame:
    try:
        statements = base.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise UnknownName("The sql is not one SELECT; a query only reads.")
        return base.execute(sql).df()
    except duckdb.Error as error:
        reason = " ".join(str(error).split("\n\n")[0].split())
        raise UnknownName(
            f"The sql cannot be carried out ({reason}); it may read the views observations, reference, quarantine, "
            f"history with the columns row_id, {', '.join(COLUMNS)}."
        ) from error


def _filtered(
    base: duckdb.DuckDBPyConnection, filters: Mapping[str, Sequence[str]], pathology: Sequence[str] | None
) -> pd.DataFrame:
    diagnoses = None if pathology is None or ANY in pathology else [pathology_name(p) for p in pathology]
    healthy_only = diagnoses == [HEALTHY]
    source = "observations"
    if not healthy_only:
        source = "(SELECT * FROM observations UNION ALL BY NAME SELECT * FROM reference)"
    conditions: list[str] = []
    values: list[str] = []
    words = dict(filters)
    for name, spelt in (
        ("metric", metric_name),
        ("region", region_name),
        ("level", level_name),
        ("manufacturer", maker_name),
    ):
        if name in words:
            words[name] = [spelt(w) for w in words[name]]
    if diagnoses is not None and not healthy_only:
        words["pathology"] = diagnoses
    for name, found in words.items():
        conditions.append(f"{name} IN ({', '.join('?' * len(found))})")
        values += found
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    order = "metric, region, level, site, participant_id, session_id, row_id"
    result = base.execute(f"SELECT row_id, {', '.join(COLUMNS)} FROM {source} {where} ORDER BY {order}", values).df()
    if result.empty:
        _explain_nothing(base, source, words)
    for name in COLUMNS:
        if name not in NUMBERS:
            result[name] = as_text(result[name])
    return result[list(COLUMNS)]


def _explain_nothing(base: duckdb.DuckDBPyConnection, source: str, words: Mapping[str, Sequence[str]]) -> None:
    """Raise if a wanted word is nowhere in the database; a combination that does not occur is an empty table."""
    for name, found in words.items():
        known = [str(r[0]) for r in base.execute(f"SELECT DISTINCT {name} FROM {source} ORDER BY 1").fetchall() if r[0]]
        absent = [w for w in found if w not in known]
        if absent:
            some = ", ".join(known[:12]) + (" ..." if len(known) > 12 else "")
            raise UnknownName(f"The database holds no {name} '{absent[0]}'; it has {some or 'none'}.")


def _stored(folder: Path, facts: Mapping[str, Any], table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """Current rows, healthy and not, of the persons of a table, and the unit of each metric."""
    with views(folder, facts) as base:
        base.register("wanted", table[["site", "participant_id"]].drop_duplicates())
        base.register("metrics", table[["metric"]].drop_duplicates())
        everything = "(SELECT * FROM observations UNION ALL BY NAME SELECT * FROM reference)"
        found = base.execute(
            f"SELECT row_id, {', '.join(COLUMNS)} FROM {everything} SEMI JOIN wanted USING (site, participant_id)"
        ).df()
        units = base.execute(
            f"SELECT metric, any_value(unit) AS unit FROM {everything} SEMI JOIN metrics USING (metric) GROUP BY metric"
        ).df()
    for name in COLUMNS:
        if name not in NUMBERS:
            found[name] = as_text(found[name])
    return found, dict(zip(units["metric"], units["unit"], strict=True))


def _not_in_quarantine(folder: Path, facts: Mapping[str, Any], refused: pd.DataFrame) -> pd.DataFrame:
    """Refused rows that no earlier addition has put there, with the same value and for the same reason."""
    if refused.empty:
        return refused
    alike = " AND ".join(f"q.{c} IS NOT DISTINCT FROM CAST(r.{c} AS VARCHAR)" for c in (*KEY, "reason"))
    with views(folder, facts) as base:
        base.register("refused", refused[[*KEY, "value", "reason"]].assign(place=np.arange(len(refused))))
        known = f"SELECT 1 FROM quarantine q WHERE q.value = r.value AND {alike}"
        found = base.execute(f"SELECT place FROM refused r WHERE NOT EXISTS ({known}) ORDER BY place").df()
    return refused.iloc[found["place"].to_numpy()]


def _summary(entry: Entry, result: Compared, notes: tuple[str, ...]) -> Added:
    healthy = result.new["pathology"].eq(HEALTHY)
    accepted = result.new[healthy]
    refused = pd.concat([entry.refused["reason"], result.refused["reason"]]).value_counts()
    return Added(
        accepted=len(accepted),
        reference=int((~healthy).sum()),
        superseded=int(result.new["supersedes"].notna().sum()),
        stored=result.n_stored,
        empty=entry.n_empty,
        quarantined={str(k): int(v) for k, v in refused.items()},
        notes=notes,
        persons=len(accepted[["participant_id", "site"]].drop_duplicates()),
        cells=len(accepted[["metric", "region", "level"]].drop_duplicates()),
    )


def _counts(added: Added) -> dict[str, Any]:
    counts = ("accepted", "reference", "superseded", "stored", "empty", "persons", "cells")
    return {"counts": {n: getattr(added, n) for n in counts}, "quarantined": dict(added.quarantined)}


def summary_of_cells(rows: pd.DataFrame) -> pd.DataFrame:
    """Persons, sites, ages, mean and standard deviation (over values) of each cell of observations."""
    cells = rows.groupby(["metric", "unit", "region", "level"], sort=True, dropna=False)
    return cells.agg(
        values=("value", "size"),
        persons=("participant_id", "nunique"),
        sites=("site", "nunique"),
        youngest=("age", "min"),
        oldest=("age", "max"),
        mean=("value", "mean"),
        sd=("value", "std"),
    ).reset_index()


def write_rows(rows: pd.DataFrame, path: Path) -> None:
    """Write a table: Parquet or comma-separated by its ending, else tab-separated.

    Raises
    ------
    NotWritable
        If it cannot be written.
    """
    if path.suffix == ".parquet":
        write_parquet(path, rows)
    elif path.suffix == ".csv":
        write_bytes(path, rows.to_csv(index=False).encode())
    else:
        write_bytes(path, rows.to_csv(index=False, sep="\t", na_rep="n/a").encode())
