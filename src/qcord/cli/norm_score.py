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
) -> None:
    """Compare values with norms: z with its 95 % interval, centile, and with whom it was compared.

    Parameters
    ----------
    table
        Observations (.csv, .tsv, .parquet: metric, region, level, value, and se, age, sex, site, manufacturer), or a
        folder that qcord run wrote.
    norms
        JSON file of norms; those of the package by default.
    out
        Table to write, tab-separated, or comma-separated if it ends in .csv; printed if not given.
    site
        Site of all rows, as the norms name it.
    """
    from qcord.pipeline.norm_score import norm_score

    scored = norm_score(table, norms, out, site=site)
    plain().print(f"{out}" if out is not None else scored.to_string(index=False, max_rows=None))
