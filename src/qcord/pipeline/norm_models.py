"""Norms from a database, and a new scanner from a few of its own healthy people: files in, files out."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from qcord.core.errors import ImplausibleValue, UnreadableFile
from qcord.normative.adapt import adapt
from qcord.normative.borrow import borrow
from qcord.normative.fit import fit_norms
from qcord.normative.norm import Norms
from qcord.normative.shipped import shipped_norms
from qcord.normative.terms import Terms
from qcord.pipeline.norm_database import norm_query
from qcord.pipeline.store import write_text

STRAIGHT_BELOW = 30.0
"""Years that the people of a norm must span for a curve of age; a line otherwise."""


def norm_fit(
    database: pd.DataFrame | Path | str,
    out: Path | str | None = None,
    *,
    metric: Sequence[str] | None = None,
    height: bool = False,
    together: bool = True,
) -> Norms:
    """Make norms from a database of healthy values.

    Parameters
    ----------
    database : DataFrame or path
        Observations, or the folder of a database (`qcord.pipeline.norm_database.norm_add`).
    out : path, optional
        JSON file to write.
    metric : sequence of str, optional
        Metrics; all by default.
    height : bool
        Whether norms take body height [m].
    together : bool
        Whether levels and tracts of a metric borrow from each other.

    Returns
    -------
    Norms
        One of each metric, region and level with at least two people.

    Raises
    ------
    UnreadableFile, UnknownName, MissingMetadata, ImplausibleValue
        If the folder is no database, has no such metric, or its values make no norm.
    """
    table = database if isinstance(database, pd.DataFrame) else norm_query(database, metric=metric)
    if isinstance(database, pd.DataFrame) and metric is not None:
        table = table[table["metric"].isin(list(metric))]
    terms = {
        str(name): Terms(
            knots=Terms().knots if part["age"].max() - part["age"].min() >= STRAIGHT_BELOW else (), height=height
        )
        for name, part in table.groupby("metric", observed=True)
    }
    norms = fit_norms(table, terms)
    if together:
        norms = borrow(norms)
    if out is not None:
        write_text(Path(out), norms.to_json() + "\n")
    return norms


def norm_adapt(
    controls: pd.DataFrame | Path | str,
    out: Path | str | None = None,
    *,
    site: str,
    norms: Norms | Path | str | None = None,
) -> Norms:
    """Learn a new scanner from a few of its own healthy people.

    Parameters
    ----------
    controls : DataFrame or path
        Observations of healthy people, or the folder of a database that holds those of the site.
    out : path, optional
        JSON file to write.
    site : str
        Name of the scanner, by which it is scored from then on.
    norms : Norms or path, optional
        Norms, or a JSON file of them; those of the package by default.

    Returns
    -------
    Norms
        With the site.

    Raises
    ------
    UnreadableFile, UnknownName, ImplausibleValue
        If a file is not of its kind, the database does not know the site, or no cell has a norm.
    """
    known = norms if isinstance(norms, Norms) else read_norms(norms)
    table = controls if isinstance(controls, pd.DataFrame) else norm_query(controls, site=site)
    cells = {tuple(map(str, key)) for key in table[["metric", "region", "level"]].drop_duplicates().to_numpy()}
    if not cells & set(known.cells):
        raise ImplausibleValue(
            f"None of the {len(cells)} metric-region-level cells of the controls has a norm; "
            "expected cells such as " + " / ".join(next(iter(known.cells))) + "."
        )
    adapted = adapt(known, table, site=site)
    if out is not None:
        write_text(Path(out), adapted.to_json() + "\n")
    return adapted


def read_norms(path: Path | str | None) -> Norms:
    """Norms of a JSON file, or those of the package.

    Raises
    ------
    UnreadableFile, ImplausibleValue
        If it is absent, or holds no norms.
    """
    if path is None:
        return shipped_norms()
    place = Path(path)
    if not place.is_file():
        raise UnreadableFile(f"{place.name} is no file; expected the JSON that qcord norm fit wrote.")
    try:
        text = place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"Norms {place} cannot be read ({error}); expected JSON as qcord writes it.") from error
    return Norms.from_json(text)
