"""``qcord norm``: one function a verb."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from qcord.cli import norm_federation, norm_models, norm_score
from qcord.cli.progress import plain

Many = Parameter(consume_multiple=True, negative="")

app = App(name="norm", help="Healthy values: a database, and norms by age, sex, site and scanner.")


@app.command(name="add")
def add(
    source: Path,
    database: Path,
    *,
    mapping: Path | None = None,
    participants: Path | None = None,
    site: str | None = None,
    sidecars: Path | None = None,
    supersede: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Add values to a database of healthy values, which is made if need be.

    Parameters
    ----------
    source
        Output folder of qcord run, or a table: CSV, TSV, Parquet, or one of the Spinal Cord Toolbox.
    database
        Folder of the database.
    mapping
        TOML file that says which column is what.
    participants
        Table with age and sex of each person, if the source does not hold them.
    site
        Site of rows that do not state one.
    sidecars
        Raw data set (BIDS) whose sidecars tell the protocols of a table's values.
    supersede
        Let new values replace those stored for the same person, session, cell, protocol and software.
    """
    from qcord.pipeline.norm_database import norm_add

    added = norm_add(
        source,
        database,
        mapping=mapping,
        participants=participants,
        site=site,
        sidecars=sidecars,
        supersede=supersede,
    )
    out = plain()
    out.print(f"added       {added.accepted} values of {added.persons} healthy persons in {added.cells} cells")
    if added.superseded:
        out.print(f"            {added.superseded} of the new values replace stored ones")
    if added.reference:
        out.print(f"reference   {added.reference} values of persons who are not HC: kept apart, never part of a norm")
    if added.stored:
        out.print(f"unchanged   {added.stored} values were there already")
    if added.quarantined:
        out.print(f"quarantine  {sum(added.quarantined.values())} values, not used:")
        for reason, count in added.quarantined.items():
            out.print(f"            {count:7d}  {reason}")
    if added.empty:
        out.print(f"empty       {added.empty} cells without a value")
    for note in added.notes:
        out.print(f"note        {note}")


@app.command(name="query")
def query(
    database: Path,
    *,
    metric: Annotated[Sequence[str] | None, Many] = None,
    region: Annotated[Sequence[str] | None, Many] = None,
    level: Annotated[Sequence[str] | None, Many] = None,
    site: Annotated[Sequence[str] | None, Many] = None,
    manufacturer: Annotated[Sequence[str] | None, Many] = None,
    pathology: Annotated[Sequence[str], Many] = ("HC",),
    sql: str | None = None,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
) -> None:
    """Read values of a database: a summary of each cell, or with --out all rows, or what a SELECT gives.

    Parameters
    ----------
    database
        Folder of the database.
    metric, region, level, site, manufacturer
        What to keep; all by default.
    pathology
        HC is healthy; any gives everybody.
    sql
        A SELECT over observations, reference, quarantine or history, instead of the other options.
    out
        Table to write with all rows: tab-separated, .csv or .parquet.
    """
    from qcord.pipeline.norm_database import norm_query, summary_of_cells, write_rows

    rows = norm_query(
        database,
        metric=metric,
        region=region,
        level=level,
        site=site,
        manufacturer=manufacturer,
        pathology=pathology,
        sql=sql,
    )
    if out is not None:
        write_rows(rows, out)
        plain().print(f"{out}: {len(rows)} rows")
        return
    table = rows if sql is not None else summary_of_cells(rows)
    plain().print(
        "no row" if table.empty else table.to_string(index=False, max_rows=60, na_rep="", float_format="{:.4g}".format)
    )


app.command(norm_models.fit, name="fit")
app.command(norm_models.adapt, name="adapt")
app.command(norm_score.command, name="score")
app.command(norm_federation.export, name="export")
app.command(norm_federation.merge, name="merge")
