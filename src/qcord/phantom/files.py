"""Files of a series as BIDS has them: which volumes lie in one file, its name, and its sidecar."""

from typing import Any

import numpy as np

from qcord.core.arrays import AnyArray
from qcord.core.image import Image
from qcord.core.protocol import Protocol
from qcord.core.series import Series

LINKING = (("InversionTime", "inv"), ("EchoTime", "echo"), ("FlipAngle", "flip"))
"""Columns whose values are numbered by an entity."""

ALWAYS = {"MTS": ("flip", "mt"), "MPM": ("flip", "mt"), "MTR": ("mt",), "VFA": ("flip",), "IRT1": ("inv",)}
ALWAYS |= {"MP2RAGE": ("inv",), "MESE": ("echo",), "MEGRE": ("echo",)}
"""Entities that files of a suffix must have, even where there is one value only."""

ALLOWED = {"MTS": ("echo",), "MPM": ("echo",), "VFA": ("echo",), "MP2RAGE": ("echo", "flip")}
"""Further entities that they may have."""

WHOLE = ("dwi", "epi")
"""Suffixes of which all volumes lie in one file."""

_NOT_IN_SIDECARS = {"FlipIndex", "BValue", "Direction", "BDelta", "SecondDirection"}


def split_series(series: Series) -> tuple[Image, ...]:
    """Images of a series, one a file, with entities and sidecar."""
    image, protocol = series.image, series.protocol
    suffix = image.entities.suffix
    if suffix in WHOLE or (image.n_volumes == 1 and suffix not in ALWAYS):
        return (image,)
    names = _entities(protocol, suffix)
    return tuple(
        image.derive(
            series.data[..., row],
            entities=image.entities.replace(**names[row]),
            metadata={**image.metadata, **row_metadata(protocol, row)},
        )
        for row in range(len(protocol))
    )


def row_metadata(protocol: Protocol, row: int) -> dict[str, Any]:
    """Settings of one measurement for its sidecar."""
    settings = {
        name: column[row].item()
        for name, column in protocol.columns.items()
        if column.ndim == 1 and name not in _NOT_IN_SIDECARS
    }
    if "RepetitionTimeExcitation" in settings:
        settings.setdefault("RepetitionTime", settings["RepetitionTimeExcitation"])
    return settings


def _entities(protocol: Protocol, suffix: str) -> list[dict[str, str]]:
    """Entities of each row; rows that they do not tell apart are numbered by ``run``."""
    allowed = (*ALWAYS.get(suffix, ()), *ALLOWED.get(suffix, ()))
    rows: list[dict[str, str]] = [{} for _ in range(len(protocol))]
    for column, entity in LINKING:
        if column not in protocol or entity not in allowed:
            continue
        numbers = _numbers(protocol[column] if column != "FlipAngle" else _flip_settings(protocol))
        if numbers.max() > 1 or entity in ALWAYS.get(suffix, ()):
            for row, number in zip(rows, numbers, strict=True):
                row[entity] = str(number)
    if "mt" in allowed:
        state = protocol["MTState"] if "MTState" in protocol else protocol["MTFrequencies"] > 0
        for row, on in zip(rows, state, strict=True):
            row["mt"] = "on" if on else "off"
    keys = [tuple(sorted(row.items())) for row in rows]
    for k, row in enumerate(rows):
        if keys.count(keys[k]) > 1:
            row["run"] = str(keys[: k + 1].count(keys[k]))
    return rows


def _flip_settings(protocol: Protocol) -> AnyArray:
    """What the number of a flip angle stands for: the angle, and the repetition time that goes with it."""
    if "RepetitionTimeExcitation" not in protocol:
        return protocol["FlipAngle"]
    return np.asarray(protocol["FlipAngle"] + 1e-6 * protocol["RepetitionTimeExcitation"])


def _numbers(values: AnyArray) -> AnyArray:
    """Rank of each value among those that differ, from 1."""
    return np.asarray(np.unique(values, return_inverse=True)[1].reshape(-1) + 1)
