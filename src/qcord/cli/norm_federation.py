"""``qcord norm export`` and ``qcord norm merge``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from qcord.cli.progress import plain
from qcord.core.errors import QcordError

Many = Parameter(consume_multiple=True, negative="")


def export(  # noqa: PLR0913
    data: Path | None = None,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    key: Path | None = None,
    new_key: Path | None = None,
    site: Annotated[Sequence[str] | None, Many] = None,
    metric: Annotated[Sequence[str] | None, Many] = None,
    ledger: Path = Path("~/.qcord/ledger.json"),
    cell_size: int = 10,
    small: Annotated[bool, Parameter(negative="")] = False,
    knots: Annotated[Sequence[float] | None, Many] = None,
    straight: Annotated[bool, Parameter(negative="")] = False,
    height: Annotated[bool, Parameter(negative="")] = False,
    leave_out_alone: Annotated[bool, Parameter(negative="")] = False,
    epsilon: float | None = None,
    delta: float = 1e-6,
    budget: tuple[float, float] | None = None,
    bounds: Annotated[Sequence[str] | None, Many] = None,
    ages: tuple[int, int] = (20, 80),
) -> None:
    """Write the signed sums of a site, which other hospitals can pool without rows of people.

    Parameters
    ----------
    data
        Database of healthy values, or a table of observations (.parquet, .csv or .tsv).
    out
        Document to write (JSON).
    key
        Key file of the federation.
    new_key
        Make a key file for a new federation, and nothing else.
    site
        Sites to export, or the name of the site where the table has no column site; all by default.
    metric
        Metrics to export; all by default.
    ledger
        The site's own account of its exports; it holds a secret and never leaves.
    cell_size
        Fewest people of a group.
    small
        Allow a cell size below 10, down to 5.
    knots
        Ages between which the effect of age bends; equal at all sites.
    straight
        No bend: the effect of age is a straight line, which allows smaller groups.
    height
        Body height is a term.
    leave_out_alone
        Leave people out who are alone at their age (up to a tenth) and would else withhold the group.
    epsilon
        Add noise of this privacy budget.
    delta
        Second number of the privacy budget.
    budget
        Most that the site spends in all, epsilon and delta.
    bounds
        With noise: bounds of each metric, as FA=0.3:0.95.
    ages
        With noise: bounds of age.
    """
    from qcord.normative.terms import Terms
    from qcord.pipeline.norm_federation import new_key_file, norm_export

    if new_key is not None:
        plain().print(f"{new_key}: key {new_key_file(new_key)}; give it to the members over a safe way")
        return
    if data is None or out is None or key is None:
        raise QcordError("An export needs a table, --out and --key; 'qcord norm export --new-key FILE' makes a key.")
    bends = () if straight else Terms().knots if knots is None else tuple(map(float, knots))
    terms = Terms(bends, height=height)
    summary = norm_export(
        data,
        out,
        key=key,
        site=site,
        metric=metric,
        ledger=ledger,
        cell_size=cell_size,
        small=small,
        terms=terms,
        leave_out_alone=leave_out_alone,
        epsilon=epsilon,
        delta=delta,
        budget=budget,
        bounds=dict(map(_bounds, bounds or ())),
        ages=ages,
    )
    plain().print(summary.to_string(index=False, max_rows=None))
    plain().print(f"{out}: {int(summary['exported'].sum())} of {len(summary)} groups")


def merge(
    files: Annotated[Sequence[Path], Many],
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    key: Path,
) -> None:
    """Make norms of the documents of several sites.

    Parameters
    ----------
    files
        Documents that sites exported.
    out
        Norms to write (JSON).
    key
        Key file of the federation.
    """
    from qcord.pipeline.norm_federation import norm_merge

    norms = norm_merge(files, out, key=key)
    for norm in norms:
        plain().print(f"{' / '.join(norm.cell)}: {norm.count} people, sites: {norm.card['sites']}")
    plain().print(f"{out}")


def _bounds(text: str) -> tuple[str, tuple[float, float]]:
    name, _, span = text.rpartition("=")
    low, _, high = span.partition(":")
    try:
        return name, (float(low), float(high))
    except ValueError:
        raise QcordError(f"Bounds {text!r} cannot be read; write them as FA=0.3:0.95.") from None
