"""Collections of quantitative scans: volumes that differ in flip angle, echo, inversion or repetition time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from qcord.core.arrays import AnyArray
from qcord.core.errors import ImplausibleValue, MissingMetadata
from qcord.core.image import Image
from qcord.core.protocol import Protocol
from qcord.core.units import require_plausible
from qcord.ingest.bids import Scan
from qcord.ingest.nifti import read_image
from qcord.ingest.series import Group, require_degrees, transfer_state

FIELDS = MappingProxyType(
    {
        "FlipAngle": ("FlipAngle",),
        "EchoTime": ("EchoTime", "EchoTimes"),
        "InversionTime": ("InversionTime", "InversionTimes"),
        "RepetitionTimeExcitation": ("RepetitionTimeExcitation",),
        "RepetitionTimePreparation": ("RepetitionTimePreparation", "RepetitionTimeInversion"),
        "NumberShots": ("NumberShots",),
        "SliceThickness": ("SliceThickness",),
        "RefocusingFlipAngle": ("RefocusingFlipAngle",),
    }
)
"""Protocol column to the sidecar fields that may hold it; capitals, blanks and underscores do not matter.
``RepetitionTime`` is the time between inversions where there is an InversionTime and it is no shorter than that, else
the time between excitations."""

GRADIENT_ECHOES = ("VFA", "MEGRE", "MPM", "MP2RAGE")
"""Suffixes of spoiled gradient echoes."""

LATEST_GRADIENT_ECHO = 0.2
"""Echo time [s] by which gradient echoes of the cord are gone: three times the longest T2* of its tissue and more."""


@dataclass(frozen=True, eq=False)
class Collection:
    """Volumes of a collection, each on its own grid.

    Parameters
    ----------
    images : tuple of Image
        3-D magnitudes (or real parts), one a row of the protocol.
    protocol : Protocol
        Their settings, with the columns that any sidecar holds; NaN where one does not.
    phases : tuple of Image
        Phase images [rad] of the same volumes, in the same order; empty unless all have one.
    unified : Image or None
        Ratio image of the scanner (``UNIT1``), if there is one.
    """

    images: tuple[Image, ...]
    protocol: Protocol
    phases: tuple[Image, ...] = ()
    unified: Image | None = None


def load_collection(group: Group, needs: Sequence[str] = ()) -> Collection:
    """Load a quantitative collection.

    Parameters
    ----------
    group : Group
        Its files: 3-D volumes, or 4-D ones whose sidecars list one value a volume; a single value holds for all
        volumes of its file.
    needs : sequence of str
        Columns that must be known for all volumes.

    Returns
    -------
    Collection
        Columns of `FIELDS` and needed ones, and ``MTState`` where it is known for all volumes.

    Raises
    ------
    MissingMetadata
        If a needed column is absent from a sidecar; names file and field.
    ImplausibleValue
        If a field holds no number, a number out of range, or another number of values than the file has volumes.
    """
    magnitudes = [s for s in group.scans if s.entities.get("part") != "phase" and s.entities.suffix != "UNIT1"]
    if not magnitudes:
        raise MissingMetadata(f"{group.scans[0].name} comes without magnitude images, expected them beside it.")
    images: list[Image] = []
    rows: list[dict[str, AnyArray]] = []
    states: list[bool | None] = []
    for scan in magnitudes:
        image = _read(scan)
        rows.append(_columns(scan, image, needs))
        images += _volumes(image)
        states += [transfer_state(scan)] * image.n_volumes
    columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    known: dict[str, AnyArray] = {k: v for k, v in columns.items() if k in needs or not np.isnan(v).all()}
    if all(state is not None for state in states):
        known["MTState"] = np.array(states, dtype=bool)
    elif "MTState" in needs:
        raise MissingMetadata(
            f"MTState is absent for {magnitudes[states.index(None)].name}; add it to the sidecar, or mt-on / mt-off to "
            "the file name."
        )
    names = ", ".join(s.path.name for s in magnitudes)
    ratios = [s for s in group.scans if s.entities.suffix == "UNIT1"]
    return Collection(
        tuple(images), Protocol(known, names), _phases(group, magnitudes), _read(ratios[0]) if ratios else None
    )


def _read(scan: Scan) -> Image:
    image = read_image(scan.path, source=scan.name, metadata=scan.metadata)
    if image.data.dtype.kind == "f" and not np.isfinite(image.data).any():
        raise ImplausibleValue(f"{scan.name} holds no finite number, expected an image; convert it again.")
    return image


def _volumes(image: Image) -> list[Image]:
    return [image.volume(k) for k in range(image.n_volumes)]


def _columns(scan: Scan, image: Image, needs: Sequence[str]) -> dict[str, AnyArray]:
    """All columns of one file, one value a volume, NaN where unknown."""
    fields = {_plain(key): value for key, value in scan.metadata.items()}
    if fields.get("inversiontime") == 0:  # how some converters say that there is no inversion
        del fields["inversiontime"]
    repetition = "RepetitionTimePreparation" if _between_inversions(fields, scan) else "RepetitionTimeExcitation"
    columns: dict[str, AnyArray] = {}
    further = {name: (name,) for name in needs if name not in FIELDS and name != "MTState"}
    for name, spellings in {**FIELDS, **further}.items():
        wanted = (*spellings, "RepetitionTime") if name == repetition else spellings
        value = next((fields[_plain(w)] for w in wanted if fields.get(_plain(w)) is not None), None)
        if value is None and name in needs:
            raise MissingMetadata(f"{name} is absent from the sidecar of {scan.name}; add it there [{_unit(name)}].")
        columns[name] = _shots(value, scan, image) if name == "NumberShots" else _values(name, value, scan, image)
    _require_possible_echoes(columns["EchoTime"], columns["RepetitionTimeExcitation"], scan)
    return columns


def _between_inversions(fields: Mapping[str, Any], scan: Scan) -> bool:
    """Whether RepetitionTime is the time between inversions; some scanners give that between the echoes of a train."""
    inversion, repetition = fields.get("inversiontime"), fields.get("repetitiontime")
    if inversion is None or repetition is None:
        return inversion is not None
    longest = _numbers("InversionTime", inversion, scan).max()
    return bool(_numbers("RepetitionTime", repetition, scan).max() >= longest)


def _require_possible_echoes(echo: AnyArray, repetition: AnyArray, scan: Scan) -> None:
    """Raise `ImplausibleValue` if an echo comes later than it can: where milliseconds below 1 pass for seconds."""
    limit = np.fmin(repetition, LATEST_GRADIENT_ECHO if scan.entities.suffix in GRADIENT_ECHOES else np.inf)
    late = np.flatnonzero(echo >= limit)  # unknown ones are not
    if late.size:
        k = late[0]
        what = "its repetition time" if limit[k] == repetition[k] else "when gradient echoes of the cord are gone"
        raise ImplausibleValue(
            f"EchoTime of {scan.name} is {echo[k]:g} s, expected less than {limit[k]:g} s, {what} (often milliseconds "
            "given instead of seconds); correct the sidecar."
        )


def _plain(key: str) -> str:
    return "".join(c for c in key.lower() if c.isalnum())


def _unit(name: str) -> str:
    from qcord.core.units import QUANTITIES

    return QUANTITIES[name].unit if name in QUANTITIES and QUANTITIES[name].unit != "1" else "a number"


def _values(name: str, value: Any, scan: Scan, image: Image) -> AnyArray:
    """One value a volume."""
    n = image.n_volumes
    if value is None:
        return np.full(n, np.nan)
    numbers = _numbers(name, value, scan)
    if numbers.size not in {1, n}:
        raise ImplausibleValue(
            f"{name} of {scan.name} holds {numbers.size} values for {n} volumes, expected 1 or {n}; correct the "
            "sidecar."
        )
    require_plausible(name, numbers, scan.name)
    require_degrees(name, numbers, scan.name)
    return np.broadcast_to(numbers, (n,))


def _shots(value: Any, scan: Scan, image: Image) -> AnyArray:
    """Excitations of a train before its k-space centre and from there on, (volumes, 2)."""
    if value is None:
        return np.full((image.n_volumes, 2), np.nan)
    numbers = _numbers("NumberShots", value, scan)
    if numbers.size not in {1, 2}:
        raise ImplausibleValue(
            f"NumberShots of {scan.name} holds {numbers.size} values, expected one, or two: before the k-space centre "
            "and from there on; correct the sidecar."
        )
    pair = numbers if numbers.size == 2 else np.array([numbers[0] // 2, numbers[0] - numbers[0] // 2])
    require_plausible("NumberShots", pair, scan.name)
    return np.broadcast_to(pair, (image.n_volumes, 2))


def _numbers(name: str, value: Any, scan: Scan) -> AnyArray:
    try:
        numbers = np.array([float(v) for v in (value if isinstance(value, list) else [value])])
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    if not (numbers.size and np.isfinite(numbers).all()) or isinstance(value, bool):
        raise ImplausibleValue(f"{name} of {scan.name} is {value!r}, expected a number; correct the sidecar.")
    return numbers


def _phases(group: Group, magnitudes: Sequence[Scan]) -> tuple[Image, ...]:
    """Phase images of the same names as the magnitudes but ``part``; none unless all are there."""
    phases: Mapping[str, Scan] = {
        s.entities.replace(part=None).name: s for s in group.scans if s.entities.get("part") == "phase"
    }
    found = [phases.get(s.entities.replace(part=None).name) for s in magnitudes]
    if not all(found):
        return ()
    return tuple(volume for scan in found if scan is not None for volume in _volumes(_in_radians(_read(scan))))


def _in_radians(image: Image) -> Image:
    """Phase [rad]: as it is where no value exceeds a turn, else a turn is 4096 or 8192 steps, by its span."""
    data = np.asarray(image.data, dtype=np.float32)
    span = float(np.nanmax(data) - np.nanmin(data))
    if np.nanmax(np.abs(data)) <= 6.5:
        return image.derive(data)
    turn = 4096 if span <= 4200 else 8192
    if span > 8200:
        raise ImplausibleValue(
            f"{image.label} spans {span:g}, expected phases in radians or 4096 or 8192 steps a turn; convert it again."
        )
    return image.derive(np.asarray(data * (2 * np.pi / turn), dtype=np.float32))
