"""The protocols of a table's values, from the sidecars of the raw scans that they were measured on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qcord.core.entities import Entities
from qcord.core.errors import UnknownName, UnreadableFile
from qcord.core.text_column import as_text
from qcord.ingest.bids import inherited_files, inherited_metadata
from qcord.normative.plausible import metric_name

SUFFIXES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("MTR", "MTsat", "ihMTR"), ("MTS", "MTR")),
    **dict.fromkeys(("T1", "R1"), ("MTS", "VFA", "MP2RAGE", "IRT1")),
    **dict.fromkeys(("T2", "R2", "MWF"), ("MESE",)),
    **dict.fromkeys(("T2star", "R2star"), ("MEGRE", "T2starw")),
    **dict.fromkeys(("FA", "MD", "AD", "RD", "MK", "AK", "RK", "MSD"), ("dwi",)),
}
"""BIDS suffixes of the images that a metric may come from; the first one that a person has counts."""


def raw_sidecars(frame: pd.DataFrame, folder: Path | str) -> tuple["pd.Series[str]", dict[str, list[dict[str, Any]]]]:
    """Sidecars of the images behind each row, for tables that do not state a protocol.

    Parameters
    ----------
    frame : DataFrame
        Columns participant_id, metric and, where there are sessions, session_id.
    folder : path
        Raw data set (BIDS); the sidecars alone are enough.

    Returns
    -------
    images : (n,) Series of str
        Key of each row; rows of one person, session and kind of image share it. Missing where there is none.
    sidecars : dict
        Metadata of the images of each key.

    Raises
    ------
    UnreadableFile
        If there is no such folder, or a sidecar is no JSON.
    UnknownName
        If it knows none of the people of the table.
    """
    root = Path(folder).absolute()
    if not root.is_dir():
        raise UnreadableFile(f"{folder} is no folder; expected the raw data set (BIDS) whose sidecars tell protocols.")
    words = [as_text(frame[c]).fillna("") if c in frame else pd.Series("", index=frame.index) for c in _KEY]
    code, kinds = pd.factorize(pd.MultiIndex.from_arrays(words))
    names: list[str | None] = []
    sidecars: dict[str, list[dict[str, Any]]] = {}
    known = False
    for participant, session, metric in kinds:
        home = root / f"sub-{str(participant).strip().removeprefix('sub-')}"
        if session:
            home /= f"ses-{str(session).strip().removeprefix('ses-')}"
        known |= home.is_dir()
        names.append(_found(home, root, str(metric), sidecars))
    if not known:
        raise UnknownName(
            f"{root.name} has no folder of any of the people of the table (such as sub-{_bare(kinds[0][0])}); "
            "give the raw data set that the values were measured on."
        )
    images = pd.Series(np.array(names, dtype=object)[code], index=frame.index, dtype=object)
    return images, sidecars


_KEY = ("participant_id", "session_id", "metric")


def _bare(participant: Any) -> str:
    return str(participant).strip().removeprefix("sub-")


def _found(home: Path, root: Path, metric: str, sidecars: dict[str, list[dict[str, Any]]]) -> str | None:
    """Key of the images of a metric of a visit, whose metadata are read once."""
    for suffix in SUFFIXES.get(metric_name(metric), ()):
        key = f"{home.relative_to(root).as_posix()}|{suffix}"
        if key not in sidecars:
            sidecars[key] = [_metadata(path, root) for path in sorted(home.glob(f"*/*_{suffix}.json"))]
        if sidecars[key]:
            return key
    return None


def _metadata(path: Path, root: Path) -> dict[str, Any]:
    entities = Entities.parse(path.name)
    metadata = inherited_metadata(path, root, entities)
    tables = inherited_files(path, root, entities, ".bval")
    if tables:
        metadata["BValue"] = tables[-1].read_text(encoding="utf-8").split()
    return metadata
