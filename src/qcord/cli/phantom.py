"""``qcord phantom``."""

from pathlib import Path
from typing import Literal

from qcord.cli.progress import plain


def command(
    out_dir: Path,
    *,
    preset: Literal["healthy", "compression", "lesion"] = "healthy",
    subjects: int = 1,
    seed: int = 0,
    motion_mm: float = 0.0,
) -> None:
    """Write phantom subjects as a BIDS data set, with every truth beside them.

    Parameters
    ----------
    out_dir
        Folder of the data set.
    preset
        Kind of subject.
    subjects
        Number of subjects; several differ in size and curvature.
    seed
        Seed of size, noise and motion.
    motion_mm
        Standard deviation of the shift of each slice of each volume in mm.
    """
    from qcord.pipeline.phantom import phantom

    plain().print(f"{phantom(out_dir, kind=preset, subjects=subjects, seed=seed, motion_mm=motion_mm)}")
