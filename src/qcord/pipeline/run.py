"""The main job: a BIDS data set in, a BIDS derivative data set out."""

import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from qcord.core.errors import NotWritable, QcordError, UnknownName
from qcord.core.template import Template
from qcord.core.threads import limit_threads
from qcord.ingest.bids import Visit, find_visits
from qcord.ingest.landmarks import parse_disc
from qcord.ingest.people import read_person
from qcord.normative.norm import Norms
from qcord.normative.shipped import shipped_norms
from qcord.pipeline.norm_score import read_norms
from qcord.pipeline.norm_visit import compare, earlier_scores
from qcord.pipeline.outputs import write_findings
from qcord.pipeline.settings import Settings, read_settings
from qcord.pipeline.store import package_version, require_writable, staged, write_dataset_description, write_text
from qcord.pipeline.templates import load_template
from qcord.pipeline.visit import Request, process
from qcord.report.comparison import Comparison
from qcord.report.findings import Findings
from qcord.report.page import render_html

LEVELS = ("participant", "group")
EXECUTORS = ("local",)

Notify = Callable[[str, str], None]

logger = logging.getLogger("qcord")
logger.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Outcome:
    """What became of one visit.

    Parameters
    ----------
    visit : str
        ``sub-X[_ses-Y]``.
    report : path or None
        Its page; None if it failed.
    error : str
        Why it failed, one sentence; empty if it did not.
    """

    visit: str
    report: Path | None
    error: str = ""


def run(
    bids_dir: Path | str,
    out_dir: Path | str,
    analysis_level: str = "participant",
    *,
    participant_label: Sequence[str] | None = None,
    session_label: Sequence[str] | None = None,
    derivatives: Sequence[Path | str] = (),
    template: Path | str | None = None,
    disc: Sequence[str] = (),
    n_jobs: int = 1,
    n_threads: int | None = None,
    executor: str = "local",
    config: Path | str | None = None,
    norms: Path | str | None = None,
    notify: Notify = lambda visit, stage: None,
) -> tuple[Outcome, ...]:
    """Process a data set.

    Parameters
    ----------
    bids_dir : path
        Raw BIDS data set.
    out_dir : path
        Folder of the derivative data set; made if need be. Files appear in it only when a visit is complete.
    analysis_level : str
        ``participant`` processes visits, ``group`` gathers their tables into ``metrics.parquet``.
    participant_label, session_label : sequence of str, optional
        Subjects and sessions to process; all by default.
    derivatives : sequence of path
        Folders with masks, levels and landmarks that are used instead of computed ones.
    template : path or str, optional
        See `qcord.pipeline.templates.load_template`.
    disc : sequence of str
        Discs as ``C2/C3=x,y,z`` in world millimetres, for all visits of this call.
    n_jobs : int
        People processed at a time.
    n_threads : int, optional
        Threads of each; results do not depend on it.
    executor : str
        ``local``.
    config : path, optional
        TOML file with `qcord.pipeline.settings.Settings`.
    norms : path, optional
        JSON file of norms that values are compared with; those of the package by default.
    notify : callable
        Told visit and stage as work goes on.

    Returns
    -------
    tuple of Outcome
        One a visit; a visit that fails leaves no file and does not stop the others.

    Raises
    ------
    QcordError
        If the call itself cannot be met: no data set, unknown subject or template, folder not writable.
    """
    if analysis_level not in LEVELS:
        raise UnknownName(f"'{analysis_level}' is not an analysis level, expected participant or group.")
    if executor not in EXECUTORS:
        raise UnknownName(f"Executor '{executor}' is not available, expected one of {', '.join(EXECUTORS)}.")
    out = Path(out_dir).absolute()
    if analysis_level == "group":
        gather(out)
        return ()
    root = Path(bids_dir).absolute()
    if out.resolve() == root.resolve():
        raise NotWritable(
            f"Output folder {out} is the data set itself, expected another one, as raw data are never written to; give "
            "a folder such as derivatives/qcord."
        )
    visits = find_visits(root, participant_label, session_label)
    settings = read_settings(None if config is None else Path(config))
    discs = tuple(parse_disc(d) for d in disc)
    require_writable(out)
    loaded = load_template(template)
    healthy = shipped_norms() if norms is None else read_norms(Path(norms))
    write_dataset_description(out, {"raw": str(root)})
    requests = [
        Request(root, v, loaded, settings, tuple(Path(d).absolute() for d in derivatives), discs, healthy)
        for v in visits
    ]
    outcomes = _all(requests, out, n_jobs, n_threads, notify)
    _log(out, outcomes, settings, loaded)
    return tuple(outcomes)


def run_visit(request: Request, out: Path, notify: Notify = lambda visit, stage: None) -> Outcome:
    """Process one visit and put its files in place, all or none."""
    name = request.visit.prefix
    try:
        findings = process(request, lambda stage: notify(name, stage))
        if request.norms:
            notify(name, "compare")
            findings = replace(findings, comparison=_compared(findings, request, request.norms, out))
        notify(name, "write")
        with staged(out) as folder:
            write_findings(findings, folder)
            notify(name, "report")
            page = _page(findings)
            home = folder / request.visit.relative
            write_text(home / f"{name}.html", page)
        return Outcome(name, out / request.visit.relative / f"{name}.html")
    except QcordError as error:
        logger.debug("%s failed", name, exc_info=True)
        return Outcome(name, None, str(error))


def _compared(findings: Findings, request: Request, norms: Norms, out: Path) -> Comparison:
    person = read_person(request.root, request.visit)
    earlier = earlier_scores(out, request.visit, person.age)
    return compare(findings, person, norms, request.template, previous=earlier, site=request.settings.site)


def gather(out: Path) -> Path:
    """Gather the tables of all visits into one Parquet file.

    Parameters
    ----------
    out : path
        Derivative data set.

    Returns
    -------
    path
        ``metrics.parquet``: the columns of the atlas table, all visits in order.

    Raises
    ------
    UnknownName
        If there is no table.
    """
    tables = sorted(out.glob("sub-*/**/*_desc-atlas_metrics.tsv"))
    if not tables:
        raise UnknownName(f"{out} holds no *_desc-atlas_metrics.tsv; run the participant level first.")
    require_writable(out)
    final, partial = out / "metrics.parquet", out / ".metrics.parquet.partial"
    text = ("participant_id", "session_id", "metric", "unit", "region", "level", "slice", "estimator", "flag", "source")
    types = ", ".join(f"'{name}': 'VARCHAR'" for name in text)
    with duckdb.connect() as base:
        base.execute(
            f"COPY (SELECT * FROM read_csv(?, delim='\t', nullstr='n/a', header=true, types={{{types}}})"
            f" ORDER BY participant_id, session_id) TO '{str(partial).replace(chr(39), chr(39) * 2)}' (FORMAT parquet)",
            [[str(t) for t in tables]],
        )
    partial.replace(final)
    return final


def _all(requests: Sequence[Request], out: Path, n_jobs: int, n_threads: int | None, notify: Notify) -> list[Outcome]:
    if n_jobs <= 1 or len(requests) <= 1:
        limit_threads(n_threads)
        return [_reported(run_visit(r, out, notify), notify) for r in requests]
    people: dict[str, list[Request]] = {}
    for r in requests:
        people.setdefault(r.visit.subject, []).append(r)
    found: dict[str, Outcome] = {}
    with ProcessPoolExecutor(min(n_jobs, len(people)), initializer=limit_threads, initargs=(n_threads or 1,)) as pool:
        for done in as_completed([pool.submit(_run_person, own, out) for own in people.values()]):
            found |= {o.visit: _reported(o, notify) for o in done.result()}
    return [found[r.visit.prefix] for r in requests]


def _run_person(requests: Sequence[Request], out: Path) -> list[Outcome]:
    """Visits of one person one after the other: the charts of each hold those before it."""
    return [run_visit(r, out) for r in requests]


def _reported(outcome: Outcome, notify: Notify) -> Outcome:
    notify(outcome.visit, "failed" if outcome.error else "done")
    return outcome


def _page(findings: Findings) -> str:
    sources = tuple(s for p in findings.located.values() for s in p.sources)
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return render_html(findings, version=package_version(), sources=sources, made=made)


def _log(out: Path, outcomes: Sequence[Outcome], settings: Settings, template: Template) -> None:
    """Keep what was run, with which settings, and what became of it; no name or path of a person's file."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    content = {
        "qcord": package_version(),
        "template": f"{template.name} {template.version}",
        "settings": settings.model_dump(),
        "outcomes": {o.visit: o.error or "done" for o in outcomes},
    }
    write_text(out / "logs" / f"run-{stamp}.json", json.dumps(content, indent=1) + "\n")


def visits_of(bids_dir: Path | str, subjects: Sequence[str] | None = None) -> tuple[Visit, ...]:
    """List the visits of a data set."""
    return find_visits(Path(bids_dir).absolute(), subjects)
