"""``qcord register``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from qcord.cli.progress import plain


def command(
    image: Path,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    mask: Path | None = None,
    landmarks: Path | None = None,
    levels: Path | None = None,
    disc: Annotated[Sequence[str], Parameter(consume_multiple=True, negative="")] = (),
    template: str | None = None,
    contrast: str | None = None,
    centre: str = "C3/C4",
) -> None:
    """Register one image to the template: transforms both ways, warped fields, levels and the atlas.

    Parameters
    ----------
    image
        3-D image, or a series whose mean is used.
    out
        Folder for the results.
    mask
        Cord mask; computed by default.
    landmarks
        Table with columns name, x, y, z of discs and vertebrae, or a disc label image.
    levels
        Map of vertebral levels.
    disc
        A disc given by hand, C2/C3=x,y,z in world millimetres.
    template
        Folder laid out as PAM50, name of an installed one, or qcord for the built-in one.
    contrast
        Kind of contrast, for the search of the cord.
    centre
        Disc at which the middle of the cord is assumed without any landmark.
    """
    from qcord.pipeline.register import register

    score = register(
        image,
        out,
        mask=mask,
        landmarks=landmarks,
        levels=levels,
        disc=disc,
        template=template,
        contrast=contrast,
        centre=centre,
    )
    for name, value in score.items():
        plain().print(f"{name}: {value:.3f}")
    plain().print(f"{out}")
