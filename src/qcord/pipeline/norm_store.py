"""Files of a database of healthy values: Parquet parts to which rows are only ever added.

``observations`` holds healthy persons, ``reference`` those who are not, ``quarantine`` rows that cannot be used, each
with its reason. An addition counts once ``database.json`` names its parts; until then its files are as good as absent.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from qcord.core.errors import NotWritable, UnreadableFile
from qcord.normative.observations import COLUMNS, NUMBERS
from qcord.pipeline.store import package_version, write_json

SCHEMA = 1
"""Version of the layout of files and columns."""

KINDS = ("observations", "reference", "quarantine")

_PART_ROWS = 1 << 32
"""Numbers of rows kept free for each addition, so that a row's number is unique in its database."""


def require_database(folder: Path, *, or_new: bool = False) -> None:
    """Raise `UnreadableFile` unless a folder is a database of this version, or one can be made there."""
    if (folder / "database.json").is_file():
        read_facts(folder)
        return
    if or_new and not folder.exists():
        return
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UnreadableFile(f"{folder} {what}; expected the folder of a database - `qcord norm add` makes one.")
    if or_new and not [p for p in folder.iterdir() if p.name not in {".lock", *KINDS}]:
        return
    raise UnreadableFile(f"{folder} is no database (it has no database.json); give another folder, or a new name.")


def read_facts(folder: Path) -> dict[str, Any]:
    """Content of ``database.json``; of a new database where there is none."""
    path = folder / "database.json"
    if not path.is_file():
        return {"schema": SCHEMA, "created_with": f"qcord {package_version()}", "created": _now(), "additions": []}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        schema, additions = facts["schema"], facts["additions"]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise UnreadableFile(f"{path} is damaged ({error}); restore it from a copy.") from error
    if schema != SCHEMA:
        raise UnreadableFile(
            f"{folder.name} is a database of version {schema}, this qcord reads version {SCHEMA}; use the qcord that "
            f"made it ({facts.get('created_with', 'unknown')}), or add its sources to a new one."
        )
    absent = [p for a in additions for p in a["parts"] if not (folder / p).is_file()]
    if absent:
        raise UnreadableFile(f"{folder.name} lacks {absent[0]}, which database.json names; restore it from a copy.")
    return dict(facts)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parts(folder: Path, facts: Mapping[str, Any], kind: str) -> list[str]:
    return [str(folder / p) for a in facts["additions"] for p in a["parts"] if p.startswith(f"{kind}/")]


@contextmanager
def views(folder: Path, facts: Mapping[str, Any]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Connection with a view of each kind of rows."""
    with duckdb.connect() as base:
        for kind, every in (("observations", "history"), ("reference", "all_reference"), ("quarantine", "quarantine")):
            files = _parts(folder, facts, kind)
            if files:
                names = ", ".join("'" + f.replace("'", "''") + "'" for f in files)
                # parts that were written before a column came up do not have it
                parts = f"SELECT * FROM read_parquet([{names}], union_by_name=true)"
                base.execute(f"CREATE VIEW {every} AS (SELECT {_empty(kind)} LIMIT 0) UNION ALL BY NAME {parts}")
            else:
                base.execute(f"CREATE VIEW {every} AS SELECT {_empty(kind)} LIMIT 0")
        base.execute(
            "CREATE VIEW replaced AS SELECT supersedes FROM history WHERE supersedes IS NOT NULL"
            " UNION ALL SELECT supersedes FROM all_reference WHERE supersedes IS NOT NULL"
        )
        # A join with the few replaced rows costs less than it saves to be clever: none where nothing was ever replaced.
        any_replaced = any(a["counts"]["superseded"] for a in facts["additions"])
        where = "WHERE row_id NOT IN (SELECT supersedes FROM replaced)" if any_replaced else ""
        base.execute(f"CREATE VIEW observations AS SELECT * FROM history {where}")
        base.execute(f"CREATE VIEW reference AS SELECT * FROM all_reference {where}")
        yield base


def _empty(kind: str) -> str:
    columns = [f"NULL::{'DOUBLE' if c in NUMBERS else 'VARCHAR'} AS {c}" for c in COLUMNS]
    own = ["NULL::VARCHAR AS reason"] if kind == "quarantine" else ["NULL::BIGINT AS supersedes"]
    return ", ".join(["NULL::BIGINT AS row_id", *columns, *own])


def write_addition(
    folder: Path, facts: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], log: Mapping[str, Any]
) -> None:
    """Write the parts of an addition, then the description that makes them count.

    Parameters
    ----------
    folder : path
        The database, whose lock is held.
    facts : mapping
        See `read_facts`.
    tables : mapping
        Rows by kind, see `KINDS`.
    log : mapping
        What ``database.json`` keeps of the addition: ``counts``, digest of its source and so on.
    """
    taken = [int(p.stem.removeprefix("part-")) for kind in KINDS for p in (folder / kind).glob("part-*.parquet")]
    number = 1 + max((*taken, *(int(a["number"]) for a in facts["additions"])), default=0)
    parts, first = [], number * _PART_ROWS
    for kind, table in tables.items():
        if table.empty:
            continue
        path = folder / kind / f"part-{number:06d}.parquet"
        numbered = table.assign(row_id=np.arange(first, first + len(table), dtype=np.int64))
        write_parquet(path, numbered, _stored_as(table), "metric, region, level, site, row_id")
        parts.append(path.relative_to(folder).as_posix())
        first += len(table)
    content = {"number": number, "added": _now(), "with": f"qcord {package_version()}", **log, "parts": parts}
    described = {**facts, "columns": list(COLUMNS), "additions": [*facts["additions"], content]}
    write_json(folder / "database.json", described)


def write_parquet(path: Path, table: pd.DataFrame, select: str = "*", order: str = "") -> None:
    """Write a Parquet file completely or not at all.

    Raises
    ------
    NotWritable
        With the reason.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with duckdb.connect() as base:
            base.register("rows_to_write", table)
            target = str(partial).replace("'", "''")
            query = f"SELECT {select} FROM rows_to_write" + (f" ORDER BY {order}" if order else "")
            base.execute(f"COPY ({query}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")
        partial.replace(path)
    except (OSError, duckdb.Error) as error:
        partial.unlink(missing_ok=True)
        raise NotWritable(f"{path.name} cannot be written ({error}); free space or rights.") from error


def _stored_as(table: pd.DataFrame) -> str:
    """Columns of a part with their types, which an empty column of a table does not show."""
    types = dict.fromkeys(COLUMNS, "VARCHAR") | dict.fromkeys(NUMBERS, "DOUBLE")
    types |= {"supersedes": "BIGINT", "reason": "VARCHAR"}
    return ", ".join(["row_id", *(f"CAST({c} AS {t}) AS {c}" for c, t in types.items() if c in table.columns)])
