"""Which template: the built-in one, a folder, or what was installed before."""

from functools import lru_cache
from pathlib import Path

from qcord.core.errors import UnknownName
from qcord.core.template import Template
from qcord.ingest.pam50 import read_template
from qcord.pipeline.assets import installed
from qcord.template.parametric import parametric_template

BUILT_IN = "qcord"


def load_template(name: str | Path | None = None) -> Template:
    """Load a template.

    Parameters
    ----------
    name : str or path, optional
        ``qcord`` for the built-in parametric template, a folder laid out as PAM50, or the name of an installed
        asset. By default PAM50 if it is installed, else the built-in one.

    Raises
    ------
    UnknownName
        If it is none of these.
    UnreadableFile
        If the folder lacks a file.
    """
    if name is None:
        found = installed("pam50")
        return _read(found) if found else _built_in()
    if str(name) == BUILT_IN:
        return _built_in()
    folder = Path(name)
    if folder.is_dir():
        return _read(folder.resolve())
    found = installed(str(name).lower())
    if found:
        return _read(found)
    raise UnknownName(
        f"Template '{name}' is neither '{BUILT_IN}', a folder, nor installed; "
        "give a folder, or install PAM50 with 'qcord assets get pam50 --from FOLDER'."
    )


@lru_cache(maxsize=1)
def _built_in() -> Template:
    return parametric_template()


@lru_cache(maxsize=1)
def _read(folder: Path) -> Template:
    return read_template(folder)
