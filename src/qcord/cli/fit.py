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
    b1_std: str | None = None,
    b1_width: float = 0.0,
    field_map: Path | None = None,
    given: list[str] | None = None,
    given_std: list[str] | None = None,
    fixed: list[str] | None = None,
    noise: str | None = None,
    method: str | None = None,
    intervals: bool = False,
    n_threads: int | None = None,
) -> None:
    """Fit one model to files: each map with its standard error beside it.

    Parameters
    ----------
    model
        Such as tensor, mtr, mtsat, vfa, inversion-recovery, mp2rage, t2, r2star, double-angle.
    images
        A diffusion series with bval and bvec beside it, or the volumes of a collection with their sidecars.
    out
        Folder for the maps.
    mask
        Voxels to fit; all by default.
    b1
        Transmit field, as a factor or in percent, on any grid.
    b1_std
        Its standard error, a map or a number in the same unit, which goes into the errors of all maps; by default that
        which qcord wrote beside it, 0 for none.
    b1_width
        Full width at half maximum in mm of the Gaussian that smooths the transmit field.
    field_map
        Map of the proton frequency in Hz on any grid, for the dephasing of gradient echoes across slices.
    given
        NAME=VALUE or NAME=MAP of other given parameters, such as InversionEfficiency=0.96; may be repeated.
    given_std
        NAME=VALUE or NAME=MAP of the standard error of a given parameter; may be repeated.
    fixed
        NAME=VALUE or NAME=MAP of a free parameter that is held; may be repeated.
    noise
        Standard deviation of the noise, or "residuals"; by default it is estimated.
    method
        Estimator of the model.
    intervals
        Find 95 % intervals by the likelihood too; each map takes as long as some ten fits.
    n_threads
        Threads; the result does not depend on it.
    """
    from qcord.pipeline.fit import fit

    files: Sequence[Path] = images
    maps = fit(
        model,
        files,
        out,
        mask=mask,
        b1=b1,
        b1_std=b1_std,
        b1_width=b1_width,
        field_map=field_map,
        given=_pairs("given", given),
        given_std=_pairs("given-std", given_std),
        fixed=_pairs("fixed", fixed),
        noise=noise,
        method=method,
        intervals=intervals,
        n_threads=n_threads,
    )
    for metric, path in maps.items():
        plain().print(f"{metric}: {path}")


def _pairs(option: str, values: list[str] | None) -> dict[str, Path | str | float]:
    """Names and values of ``NAME=VALUE``.

    Raises
    ------
    ImplausibleValue
        If a text has no equals sign.
    """
    from qcord.core.errors import ImplausibleValue

    pairs: dict[str, Path | str | float] = {}
    for text in values or []:
        name, sign, value = text.partition("=")
        if not (name and sign and value):
            raise ImplausibleValue(f"--{option} {text} has no value, expected NAME=VALUE or NAME=MAP; add it.")
        pairs[name] = value
    return pairs
