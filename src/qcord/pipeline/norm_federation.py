"""Pooling between hospitals: a site writes its sums, one of the members makes norms of all of them."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from qcord.core.errors import MissingMetadata, NotWritable, SetApartWarning, UnknownName, UnreadableFile
from qcord.core.text_column import as_text
from qcord.ingest.norm_tables import read_table, with_usual_names
from qcord.normative.federation.cells import CELL_SIZE, Limits, TooRevealing
from qcord.normative.federation.exchange import Exchange
from qcord.normative.federation.ledger import Ledger, new_ledger
from qcord.normative.federation.merge import fit_merged, merge
from qcord.normative.federation.prepare import Budget, prepare
from qcord.normative.federation.privacy import Bounds
from qcord.normative.federation.signature import Key, new_key
from qcord.normative.names import HEALTHY
from qcord.normative.norm import Norms
from qcord.normative.observations import checked
from qcord.normative.terms import Terms
from qcord.pipeline.norm_database import norm_query
from qcord.pipeline.store import package_version, write_bytes, write_text

TABLES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz", ".parquet")
"""Endings of tables of observations."""

LEDGER = Path("~/.qcord/ledger.json")
"""Where a site keeps account of its exports, unless told otherwise."""

DELTA = 1e-6


def norm_export(  # noqa: PLR0913
    data: Path | str | pd.DataFrame,
    out: Path | str,
    *,
    key: Path | str,
    site: str | Sequence[str] | None = None,
    metric: Sequence[str] | None = None,
    ledger: Path | str = LEDGER,
    cell_size: int = CELL_SIZE,
    small: bool = False,
    terms: Terms = Terms(),  # noqa: B008
    leave_out_alone: bool = False,
    epsilon: float | None = None,
    delta: float = DELTA,
    budget: tuple[float, float] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    ages: tuple[int, int] = (20, 80),
) -> pd.DataFrame:
    """Write the signed sums of a site, which other hospitals can pool without rows of people.

    Parameters
    ----------
    data : path or DataFrame
        Observations: a database of healthy values, a table (.parquet, .csv, .tsv) or a DataFrame.
    out : path
        Document to write (JSON).
    key : path
        Key file of the federation, see `new_key_file`.
    site : str or sequence of str, optional
        Sites to export, or the name of the site where the table has no column site; all by default.
    metric : sequence of str, optional
        Metrics to export; all by default.
    ledger : path
        The site's own account of its exports. It holds a secret and never leaves; keep a backup.
    cell_size : int
        Fewest people of a group.
    small : bool
        Allows a cell size below 10, down to 5.
    terms : Terms
        Covariates; equal at all sites. Fewer knots of age allow smaller groups.
    leave_out_alone : bool
        Whether people who are alone at their age (up to a tenth) are left out, who would else withhold the group.
    epsilon, delta : float
        Adds noise that hides the presence of each person to this degree; exact sums if epsilon is not given.
    budget : (epsilon, delta), optional
        Most that the site spends in all exports with noise; by default that of this export.
    bounds : mapping of str to (low, high)
        With noise: bounds of each metric that do not come from the data.
    ages : (low, high)
        With noise: bounds of age [years].

    Returns
    -------
    DataFrame
        One row a cell and site: people, how many were left out, whether exported, or why not. It stays at the site.

    Raises
    ------
    TooRevealing
        If nothing may leave, or this and earlier exports together would show single people.

    Warns
    -----
    SetApartWarning
        If rows of a table are left out, as a database would not take them.
    """
    limits = Limits(cell_size, small)
    secret = read_key(key)
    book = Path(ledger).expanduser()
    account = Ledger.from_json(_read(book, "ledger").decode()) if book.exists() else new_ledger()
    total = (epsilon or 0.0, delta) if budget is None else budget
    noise = None if epsilon is None else Budget(epsilon, delta, total, Bounds(bounds or {}, ages))
    prepared = prepare(
        _choose(_observations(data, site), site, metric),
        account,
        terms=terms,
        limits=limits,
        software=f"qcord {package_version()}",
        budget=noise,
        leave_out_alone=leave_out_alone,
    )
    account = account.add(prepared.entry, cell_size, None if noise is None else total)
    document = prepared.exchange.to_bytes(secret)
    _write_secret(book, account.to_json(), replace=True)  # before the document: an export is never forgotten
    write_bytes(Path(out), document)
    return prepared.summary


def norm_merge(files: Sequence[Path | str], out: Path | str | None = None, *, key: Path | str) -> Norms:
    """Norms of all sites from the documents that they sent.

    Parameters
    ----------
    files : sequence of paths
        Documents of `norm_export`, in any order.
    out : path, optional
        Norms to write (JSON).
    key : path
        Key file of the federation.

    Returns
    -------
    Norms
        As the rows of all sites in one table would give them, by sums.

    Raises
    ------
    WrongSignature, UnreadableExchange, CannotMerge
        If a document is not of a member, not whole, or does not fit the others.
    """
    secret = read_key(key)
    names = [Path(f) for f in files]
    found = [Exchange.from_bytes(_read(p, "document"), secret, p.name) for p in names]
    norms = fit_merged(merge(found))
    if out is not None:
        write_text(Path(out), norms.to_json())
    return norms


def new_key_file(path: Path | str) -> str:
    """Make a key for a federation; give the file to its members over a safe way.

    Parameters
    ----------
    path : path
        File to write; only its owner can read it.

    Returns
    -------
    str
        Public name of the key.

    Raises
    ------
    NotWritable
        If the file exists: a key is never replaced.
    """
    key = new_key()
    _write_secret(Path(path), key.to_text(), replace=False)
    return key.name


def read_key(path: Path | str) -> Key:
    """Key of a federation from its file."""
    return Key.from_text(_read(Path(path).expanduser(), "key file").decode(errors="replace"))


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"The {what} {path} cannot be read ({error.strerror}); give its path.") from error


def _write_secret(path: Path, text: str, *, replace: bool) -> None:
    """Write a file that only its owner can read, completely or not at all."""
    if path.exists() and not replace:
        raise NotWritable(f"{path} exists; a key is never replaced, so choose another name.")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise NotWritable(f"{path} cannot be written ({error.strerror}); choose another place.") from error


def _observations(data: Path | str | pd.DataFrame, site: str | Sequence[str] | None) -> pd.DataFrame:
    """Observations of a database, a table or memory; rows of a table pass the checks of a database."""
    if isinstance(data, pd.DataFrame):
        return _with_site(data, site)
    path = Path(data)
    if path.is_dir():
        return norm_query(path)
    if not path.name.endswith(TABLES):
        raise UnreadableFile(f"{path.name} is no table of observations; expected a database, .parquet, .csv or .tsv.")
    return _usable(_with_site(with_usual_names(read_table(path)), site), path.name)


def _usable(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Rows of a table that a norm may use, with a warning of what is left out and why."""
    stated = table if "pathology" in table else table.assign(pathology=HEALTHY)
    # ids stay as they are: the ledger knows people by them
    ids = as_text(stated["participant_id"]) if "participant_id" in stated else pd.Series(dtype=str)
    entry = checked(stated.assign(scanner=np.arange(len(stated)).astype(str)))
    reasons = dict(entry.reasons)
    if len(entry.reference):
        reasons[f"pathology is not {HEALTHY}"] = len(entry.reference)
    if reasons:
        words = "; ".join(f"{n} x {reason}" for reason, n in reasons.items())
        warnings.warn(
            f"{sum(reasons.values())} of {len(table)} values of {name} are left out: {words}.",
            SetApartWarning,
            stacklevel=4,
        )
    found = entry.accepted
    return found.assign(participant_id=ids.to_numpy()[found["scanner"].astype(int)])


def _with_site(found: pd.DataFrame, site: str | Sequence[str] | None) -> pd.DataFrame:
    """Observations with the site that was given, where they state none."""
    if site is None or ("site" in found and found["site"].notna().any()):
        return found
    sites = [site] if isinstance(site, str) else list(site)
    if len(sites) != 1:
        raise MissingMetadata(f"The table has no column site, so {len(sites)} names do not fit; give one.")
    return found.assign(site=sites[0])


def _choose(observations: pd.DataFrame, site: str | Sequence[str] | None, metric: Sequence[str] | None) -> pd.DataFrame:
    found = observations
    if site is not None:
        sites = [site] if isinstance(site, str) else list(site)
        unknown = sorted(set(sites) - set(found["site"].astype(str)))
        if unknown:
            raise UnknownName(f"Site {unknown[0]} is not in the table; it has {_some(found['site'])}.")
        found = found[found["site"].astype(str).isin(sites)]
    if metric is not None:
        unknown = sorted(set(metric) - set(found["metric"].astype(str)))
        if unknown:
            raise UnknownName(f"Metric {unknown[0]} is not in the table; it has {_some(found['metric'])}.")
        found = found[found["metric"].isin(list(metric))]
    if not len(found):
        raise TooRevealing("The table has no rows; nothing was exported.")
    return found


def _some(column: "pd.Series[str]") -> str:
    names = sorted(column.dropna().astype(str).unique())
    return ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
