"""``qcord fit``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from qcord.cli.progress import plain


def command(
    model: str,
    /,
    *images: Path,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    mask: Path | None = None,
    b1: Path | None = None,
    method: str | None = None,
    n_threads: int | None = None,
) -> None:
    """Fit one model to files: each map with its standard error beside it.

    Parameters
    ----------
    model
        tensor, mtr, mtsat or mtsat-ernst.
    images
        A diffusion series with bval and bvec beside it, or the volumes of a transfer series with their sidecars.
    out
        Folder for the maps.
    mask
        Voxels to fit; all by default.
    b1
        Transmit field, as a factor or in percent, on any grid.
    method
        Estimator of the model.
    n_threads
        Threads; the result does not depend on it.
    """
    from qcord.pipeline.fit import fit

    files: Sequence[Path] = images
    for metric, path in fit(model, files, out, mask=mask, b1=b1, method=method, n_threads=n_threads).items():
        plain().print(f"{metric}: {path}")
