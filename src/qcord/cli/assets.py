"""``qcord assets``."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from qcord.cli.progress import plain


def command(
    action: Literal["list", "get"] = "list",
    name: str = "pam50",
    *,
    source: Annotated[Path | None, Parameter(name="--from")] = None,
    any_version: bool = False,
) -> None:
    """List or install templates.

    Parameters
    ----------
    action
        list what is known and where it lies, or get one.
    name
        Asset to install.
    source
        A folder, an archive or an installation of another tool that holds it, instead of the download.
    any_version
        Install files even if their checksums are not those of the tested release.
    """
    from qcord.pipeline.assets import ASSETS, assets

    for asset, place in assets(action, name, source=source, any_version=any_version).items():
        plain().print(f"{asset}: {place}\n    {ASSETS[asset].description}")
