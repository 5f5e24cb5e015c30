"""Files of a series as BIDS has them: which volumes lie in one file, its name, and its sidecar."""

from typing import Any

import numpy as np

from qcord.core.arrays import AnyArray
from qcord.core.entities import Entities
from qcord.core.image import Image
from qcord.core.protocol import Protocol
from qcord.core.series import Series

LINKING = (("InversionTime", "inv"), ("EchoTime", "echo"), ("FlipAngle", "flip"))
"""Columns whose values are numbered by an entity."""

ALWAYS = {"MTS": ("flip", "mt"), "MPM": ("flip", "mt"), "MTR": ("mt",), "VFA": ("flip",), "IRT1": ("inv",)}
ALWAYS |= {"MP2RAGE": ("inv",), "MESE": ("echo",), "MEGRE": ("echo",), "TB1DAM": ("flip",), "TB1AFI": ()}
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
            entities=_named(image.entities, names[row]),
            metadata={**image.metadata, **row_metadata(protocol, row), **_state(protocol, suffix, row)},
        )
        for row in range(len(protocol))
    )


def _named(entities: Entities, own: dict[str, str]) -> Entities:
    """Entities of a file; what tells it apart by ``acq`` is added to that of the series."""
    joined = {**own, "acq": entities.get("acq", "") + own["acq"]} if "acq" in own else own
    return entities.replace(**joined)


def _state(protocol: Protocol, suffix: str, row: int) -> dict[str, Any]:
    """Whether the transfer pulse was on, which BIDS asks of every file of some suffixes."""
    return {"MTState": bool(_saturated(protocol)[row])} if "mt" in ALWAYS.get(suffix, ()) else {}


def row_metadata(protocol: Protocol, row: int) -> dict[str, Any]:
    """Settings of one measurement for its sidecar."""
    settings = {name: column[row].tolist() for name, column in protocol.columns.items() if name not in _NOT_IN_SIDECARS}
    if "RepetitionTimeExcitation" in settings:
        settings.setdefault("RepetitionTime", settings["RepetitionTimeExcitation"])
    return settings


def _entities(protocol: Protocol, suffix: str) -> list[dict[str, str]]:
    """Entities of each row; rows that they do not tell apart are numbered by ``run``."""
    rows: list[dict[str, str]] = [{} for _ in range(len(protocol))]
    for entity, numbers in _numbered(protocol, suffix).items():
        for row, number in zip(rows, numbers, strict=True):
            row[entity] = str(number)
    if "mt" in ALWAYS.get(suffix, ()):
        for row, on in zip(rows, _saturated(protocol), strict=True):
            row["mt"] = "on" if on else "off"
    keys = [tuple(sorted(row.items())) for row in rows]
    for k, row in enumerate(rows):
        if keys.count(keys[k]) > 1:
            row["run"] = str(keys[: k + 1].count(keys[k]))
    return rows


def _numbered(protocol: Protocol, suffix: str) -> dict[str, AnyArray]:
    """Number of each row within the settings that an entity stands for, for each entity of a suffix."""
    needed = ALWAYS.get(suffix, ())
    found = {}
    for column, entity in LINKING:
        if column in protocol and entity in (*needed, *ALLOWED.get(suffix, ())):
            numbers = _numbers(protocol[column] if column != "FlipAngle" else _flip_settings(protocol))
            if numbers.max() > 1 or entity in needed:
                found[entity] = numbers
    if suffix == "TB1AFI":
        found["acq"] = np.char.add("tr", _numbers(protocol["RepetitionTimeExcitation"]).astype(str))
    return found


def _saturated(protocol: Protocol) -> AnyArray:
    """Whether a transfer pulse was on, (n,)."""
    for name in ("MTState", "MTFrequencies", "MTFlipAngle"):
        if name in protocol:
            return np.asarray(protocol[name] > 0)
    return np.ones(len(protocol), dtype=bool)


def _flip_settings(protocol: Protocol) -> AnyArray:
    """What the number of a flip angle stands for: the angle, and the repetition time that goes with it."""
    if "RepetitionTimeExcitation" not in protocol:
        return protocol["FlipAngle"]
    return np.asarray(protocol["FlipAngle"] + 1e-6 * protocol["RepetitionTimeExcitation"])


def _numbers(values: AnyArray) -> AnyArray:
    """Rank of each value among those that differ, from 1."""
    return np.asarray(np.unique(values, return_inverse=True)[1].reshape(-1) + 1)
