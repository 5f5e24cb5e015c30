"""Observations as they were found in an output folder, a table or memory."""

from pathlib import Path

import pandas as pd

from qcord.core.errors import UnreadableFile
from qcord.ingest.norm_mapping import TableMapping, read_mapping
from qcord.ingest.norm_outputs import is_output_folder, read_outputs
from qcord.ingest.norm_tables import RawTable, read_observations
from qcord.normative.observations import COLUMNS
from qcord.normative.plausible import conversion

_OWN_UNIT = {"age": "year", "height": "m", "weight": "kg"}


def read_source(
    source: Path | str | pd.DataFrame, mapping: Path | str | None, participants: Path | str | None
) -> RawTable:
    """Observations as they were found: those of an output folder, a table or memory; see `norm_add`.

    Raises
    ------
    UnreadableFile, MissingMetadata
        If it cannot be read, or is not what the mapping says.
    """
    if isinstance(source, pd.DataFrame):
        return RawTable(source)
    path = Path(source)
    how: TableMapping | None = None if mapping is None else read_mapping(Path(mapping), COLUMNS)
    home = None if mapping is None else Path(mapping).absolute().parent
    people = None if participants is None else Path(participants)
    if not path.exists():
        raise UnreadableFile(f"{path} does not exist; check the path.")
    if not path.is_dir():
        return read_observations(path, how, home, people)
    if not is_output_folder(path):
        raise UnreadableFile(f"{path.name} holds no tables of `qcord run`; give its output folder, or a table file.")
    return read_outputs(path, how, home, people)


def in_units_of_persons(raw: RawTable) -> pd.DataFrame:
    """Observations with age, height and weight in years, m and kg, where their units are stated.

    Raises
    ------
    UnitMismatch
        If a unit cannot be turned into that.
    """
    frame = raw.frame.copy(deep=False)
    for name, unit in raw.units.items():
        if name not in _OWN_UNIT or name not in frame.columns:
            continue
        numbers = pd.to_numeric(frame[name], errors="coerce")
        by = conversion(unit, _OWN_UNIT[name], name)
        frame[name] = (numbers * by).astype(object).where(numbers.notna(), frame[name])
    return frame
