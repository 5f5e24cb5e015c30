"""``qcord run``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from qcord.cli.progress import plain, progress_bars

Many = Parameter(consume_multiple=True, negative="")


def command(
    bids_dir: Path,
    out_dir: Path,
    level: Literal["participant", "group"] = "participant",
    *,
    participant_label: Annotated[Sequence[str] | None, Many] = None,
    session_label: Annotated[Sequence[str] | None, Many] = None,
    derivatives: Annotated[Sequence[Path], Many] = (),
    template: str | None = None,
    disc: Annotated[Sequence[str], Many] = (),
    n_jobs: int = 1,
    n_threads: int | None = None,
    executor: Literal["local"] = "local",
    config: Path | None = None,
    norms: Path | None = None,
) -> int:
    """Process a BIDS data set: maps, masks, levels, atlas, tables and one report a visit.

    Parameters
    ----------
    bids_dir
        Raw BIDS data set.
    out_dir
        Derivative data set; made if need be.
    level
        participant: process visits. group: gather their tables into metrics.parquet.
    participant_label
        Subjects to process, with or without sub-; all by default.
    session_label
        Sessions to process, with or without ses-; all by default.
    derivatives
        Folders with masks, levels and landmarks that are used instead of computed ones.
    template
        Folder laid out as PAM50, name of an installed one, or qcord for the built-in one.
    disc
        A disc given by hand, C2/C3=x,y,z in world millimetres.
    n_jobs
        People processed at a time.
    n_threads
        Threads of each; results do not depend on it.
    executor
        Where the work is done.
    config
        TOML file with settings.
    norms
        JSON file of norms that values are compared with; those of the package by default.
    """
    from qcord.pipeline.run import run

    with progress_bars() as notify:
        outcomes = run(
            bids_dir,
            out_dir,
            level,
            participant_label=participant_label,
            session_label=session_label,
            derivatives=derivatives,
            template=template,
            disc=disc,
            n_jobs=n_jobs,
            n_threads=n_threads,
            executor=executor,
            config=config,
            norms=norms,
            notify=notify,
        )
    for outcome in outcomes:
        if outcome.error:
            plain(error=True).print(f"qcord: {outcome.visit}: {outcome.error}")
        else:
            plain().print(f"{outcome.visit}: {outcome.report}")
    if level == "group":
        plain().print(f"{out_dir / 'metrics.parquet'}")
    return int(any(o.error for o in outcomes))
