"""``qcord segment``."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from qcord.cli.progress import plain


def command(
    image: Path,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    contrast: Literal["T2w", "T2star", "T1w", "dwi", "b0", "MTon", "MToff", "bold"] | None = None,
) -> None:
    """Find the cord in one image: mask and fraction of each voxel.

    Parameters
    ----------
    image
        3-D image, or a series whose mean is used.
    out
        Folder for the results.
    contrast
        Kind of contrast; by default told by name and sidecar.
    """
    from qcord.pipeline.segment import segment

    for kind, path in segment(image, out, contrast=contrast).items():
        plain().print(f"{kind}: {path}")
