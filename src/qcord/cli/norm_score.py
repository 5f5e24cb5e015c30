"""``qcord norm score``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from qcord.cli.progress import plain


def command(
    table: Path,
    *,
    norms: Path | None = None,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    site: str | None = None,
    mapping: Path | None = None,
    participants: Path | None = None,
) -> None:
    """Compare values with norms: z with its 95 % interval, centile, and with whom it was compared.

    Parameters
    ----------
    table
        Observations (metric, region, level, value, and se, age, sex, site, manufacturer), a table of the Spinal Cord
        Toolbox, or a folder that qcord run wrote.
    norms
        JSON file of norms; those of the package by default.
    out
        Table to write, tab-separated, or comma-separated if it ends in .csv; printed if not given.
    site
        Site of all rows, as the norms name it.
    mapping
        TOML file that says which column of a table is what.
    participants
        Table with age and sex of each person, if the table does not hold them.
    """
    from qcord.pipeline.norm_score import norm_score

    scored = norm_score(table, norms, out, site=site, mapping=mapping, participants=participants)
    screen = plain()
    screen.print(f"{out}" if out is not None else scored.to_string(index=False, max_rows=None))
    without = scored.loc[scored["z"].isna(), "note"].value_counts()
    screen.print(f"{len(scored) - int(without.sum())} of {len(scored)} values have a z")
    for note, count in without.items():
        screen.print(f"{count:7d}  {note}")
