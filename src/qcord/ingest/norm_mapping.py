"""Mapping files: which column of somebody's table is what."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qcord.core.errors import MissingMetadata, UnreadableFile


class Column(BaseModel):
    """A column and the unit of its numbers.

    Parameters
    ----------
    column : str
        Name in the table.
    unit : str
        Unit, if it is not that of the database (``cm``, ``in``, ``lb``, ``month``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str
    unit: str = ""


class Value(BaseModel):
    """One metric of a wide table: a column of values, and what they are values of.

    Parameters
    ----------
    column : str
        Column with the values.
    metric, unit, region, level : str
        What it holds; a missing one is taken from ``[columns]`` or ``[constants]``.
    se : str
        Column with their standard errors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str
    metric: str = ""
    unit: str = ""
    region: str = ""
    level: str = ""
    se: str = ""


class Participants(BaseModel):
    """A table with a row a person (or a person and session) to join.

    Parameters
    ----------
    file : str
        Its path, relative to the mapping file.
    columns : dict
        Column of observations to its column there; usual names are found without.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    columns: dict[str, str | Column] = Field(default_factory=dict)


class TableMapping(BaseModel):
    """How to read a table as observations.

    Parameters
    ----------
    columns : dict
        Column of observations to column of the table; usual names are found without.
    constants : dict
        Column of observations to the one text or number that holds for all rows without a value of their own.
    value : list of Value
        Metrics of a wide table; empty for a table with one value a row.
    participants : Participants, optional
        Table of persons to join.
    words : dict
        Column of observations to words of the table and what they mean (``[words.pathology]``, ``CN = "HC"``).
    separator, encoding : str
        How the text file is written; the separator is found in the header if it is not given.
    decimal : str
        ``,`` if numbers have a decimal comma.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: dict[str, str | Column] = Field(default_factory=dict)
    constants: dict[str, str | float] = Field(default_factory=dict)
    value: list[Value] = Field(default_factory=list)
    participants: Participants | None = None
    words: dict[str, dict[str, str]] = Field(default_factory=dict)
    separator: str = ""
    encoding: str = "utf-8-sig"
    decimal: Literal[".", ","] = "."


def read_mapping(path: Path, known: tuple[str, ...]) -> TableMapping:
    """Read a mapping from TOML.

    Parameters
    ----------
    path : path
        The file.
    known : tuple of str
        Columns that observations have.

    Raises
    ------
    UnreadableFile
        If the file is absent, not TOML, or holds what a mapping does not know.
    MissingMetadata
        If it names a column that observations do not have.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UnreadableFile(f"{path.name} cannot be read as TOML ({error}); correct it.") from error
    try:
        mapping = TableMapping(**content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        parts = ", ".join(TableMapping.model_fields)
        raise UnreadableFile(
            f"'{where}' in {path.name}: {first['msg'].lower()}; a mapping has the parts {parts}."
        ) from None
    joined = mapping.participants.columns if mapping.participants else {}
    for name in (*mapping.columns, *mapping.constants, *mapping.words, *joined):
        if name not in known:
            raise MissingMetadata(
                f"{path.name} maps '{name}', which observations do not have; expected one of {', '.join(known)}."
            )
    return mapping
