"""``qcord phantom``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from qcord.cli.progress import plain

Many = Parameter(consume_multiple=True, negative="")


def command(
    out_dir: Path,
    *,
    preset: Literal["healthy", "dcm", "ms", "compression", "lesion"] = "healthy",
    subjects: int = 1,
    seed: int = 0,
    motion_mm: float = 0.0,
    contrasts: Annotated[Sequence[str], Many] = (),
    effects: Annotated[Sequence[str], Many] = (),
    tesla: float = 3.0,
    sites: int = 3,
    n_jobs: int = 1,
) -> None:
    """Write phantom subjects as a BIDS data set, with every truth beside them.

    Parameters
    ----------
    out_dir
        Folder of the data set.
    preset
        Kind of subject; compression and lesion are the single parts of dcm and ms.
    subjects
        Number of subjects; several differ in age, sex, size, tissue, disease and scanner.
    seed
        Seed of all that is random.
    motion_mm
        Standard deviation of the shift of each slice of each volume in mm.
    contrasts
        Series: T2w, T2star, dwi, MTS (these by default), multishell, epi (reversed phase encoding), and names of
        models, which are scanned with their example protocol.
    effects
        motion, pulsation, susceptibility, eddy, ringing, transmit, coils, or all.
    tesla
        Field strength: 1.5, 3 or 7.
    sites
        Number of scanners that several subjects are spread over.
    n_jobs
        Subjects made at a time.
    """
    from qcord.pipeline.phantom import phantom

    out = phantom(
        out_dir,
        kind=preset,
        subjects=subjects,
        seed=seed,
        motion_mm=motion_mm,
        contrasts=contrasts,
        effects=effects,
        tesla=tesla,
        sites=sites,
        n_jobs=n_jobs,
    )
    plain().print(f"{out}")
