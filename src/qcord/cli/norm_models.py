"""``qcord norm fit`` and ``qcord norm adapt``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from qcord.cli.progress import plain

Many = Parameter(consume_multiple=True, negative="")


def fit(
    database: Path,
    out: Path,
    *,
    metric: Annotated[Sequence[str] | None, Many] = None,
    height: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Make norms from a database of healthy values.

    Parameters
    ----------
    database
        Folder of the database.
    out
        JSON file to write.
    metric
        Metrics; all by default.
    height
        Whether norms take body height.
    """
    from qcord.pipeline.norm_models import norm_fit

    norms = norm_fit(database, out, metric=metric, height=height)
    screen = plain()
    for norm in norms:
        young, old = norm.ages
        screen.print(
            f"{norm.cell.metric:14} {norm.cell.region:30} {norm.cell.level:6} {norm.count:5d} people, "
            f"{norm.card['sites']} sites, {young:.0f}-{old:.0f} years, {norm.card['shape']}"
            + (f"; deviating: {norm.card['deviating sites']}" if "deviating sites" in norm.card else "")
        )
        for site, why in norm.card.get("set apart", {}).items():
            screen.print(f"{'':14} set apart: {site}, {why}")
    screen.print(f"{len(norms)} norms in {out}")


def adapt(
    controls: Path,
    out: Path,
    *,
    site: str,
    norms: Path | None = None,
) -> None:
    """Learn a new scanner from a few of its own healthy people.

    Parameters
    ----------
    controls
        Folder of a database that holds healthy people of the site.
    out
        JSON file to write: the norms, with the site.
    site
        Name of the scanner, as the database has it.
    norms
        JSON file of norms; those of the package by default.
    """
    from qcord.pipeline.norm_models import norm_adapt

    adapted = norm_adapt(controls, out, site=site, norms=norms)
    with_site = sum(site in norm.hierarchy.sites.name for norm in adapted)
    plain().print(f"{site} is known to {with_site} of {len(adapted)} norms in {out}")
