"""From scans to series: which files belong together, and their protocols."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qcord.core.arrays import ArrayLike
from qcord.core.entities import Entities
from qcord.core.errors import ImplausibleValue, MissingMetadata
from qcord.core.grid import require_same_grid
from qcord.core.image import Image
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.core.units import require_plausible
from qcord.ingest.bids import Scan, inherited_files, stem_of
from qcord.ingest.gradients import read_gradients
from qcord.ingest.nifti import read_image

ANATOMICAL = ("T2w", "T1w", "T2star", "T2starw", "PDw")
TRANSFER = ("MTS", "MTR")
QUANTITATIVE = ("VFA", "IRT1", "MP2RAGE", "UNIT1", "MESE", "MEGRE", "MPM")
FIELD = ("TB1DAM", "TB1AFI")
LEAST_ANGLE = 0.5
"""Flip angle [degrees] below which no image is made; as radians it would be 29 degrees."""

LINKING = ("echo", "flip", "inv", "mt", "part")
"""Entities that tell apart the files of one series."""

STATE_WORDS = {"mton": True, "mt1": True, "mtoff": False, "mt0": False, "t1w": False}
"""What ``acq-`` says of the transfer pulse in names from before BIDS had ``mt-``."""


@dataclass(frozen=True)
class Group:
    """Files that form one series.

    Parameters
    ----------
    kind : str
        ``dwi``, ``mt``, ``anat``, ``qmri`` (a collection of `qcord.ingest.collection`) or ``field`` (one for the
        transmit field).
    token : str
        Short alphanumeric name, unique within a visit, used as ``desc-<token>``: ``T2w``, ``T2starRun1``.
    scans : tuple of Scan
        The files, in the order of their names.
    """

    kind: str
    token: str
    scans: tuple[Scan, ...]

    @property
    def entities(self) -> Entities:
        """Name of the series: that of its first file without the entities that tell its files apart, compressed."""
        first = self.scans[0].entities
        plain: dict[str, str | None] = dict.fromkeys(LINKING)
        if _acq_links(self.kind, first):
            plain["acq"] = None
        suffix = "MP2RAGE" if self.kind == "qmri" and first.suffix == "UNIT1" else None
        return first.replace(suffix, ".nii.gz", **plain)


def group_scans(scans: Sequence[Scan]) -> tuple[tuple[Group, ...], tuple[tuple[str, str], ...]]:
    """Sort scans into series.

    Returns
    -------
    groups : tuple of Group
        Diffusion, magnetisation transfer, anatomical and quantitative series.
    skipped : tuple of (str, str)
        Name of each file that is not used, and the reason in one sentence.
    """
    members: dict[tuple[str, str], list[Scan]] = {}
    skipped: list[tuple[str, str]] = []
    for scan in scans:
        kind, reason = _kind(scan)
        if reason:
            skipped.append((scan.name, reason))
        else:
            key = Group(kind, "", (scan,)).entities.name
            members.setdefault((kind, key), []).append(scan)
    return tuple(_group(kind, files) for (kind, _), files in members.items()), tuple(skipped)


def _group(kind: str, files: list[Scan]) -> Group:
    if kind == "qmri" and _one_image(files):
        kind = "anat"
    return Group(kind, _token(kind, Group(kind, "", tuple(files)).entities), tuple(files))


def _one_image(files: list[Scan]) -> bool:
    """Whether a collection is one image to look at, from which nothing can be fitted: a ratio image, or one echo."""
    suffixes = {f.entities.suffix for f in files}
    return suffixes <= {"UNIT1"} or (
        suffixes == {"MEGRE"} and len(files) == 1 and not isinstance(files[0].metadata.get("EchoTime"), list)
    )


def load_image(group: Group) -> Image:
    """Load an anatomical group as one 3-D image; several echoes or volumes are averaged.

    Raises
    ------
    GridMismatch
        If echoes lie on different grids.
    """
    images = [_read(s) for s in group.scans]
    for other in images[1:]:
        require_same_grid(images[0].grid, other.grid, images[0].label, other.label)
    stack = [i.data if i.data.ndim == 3 else i.data.mean(axis=3, dtype=np.float32) for i in images]
    data = stack[0] if len(stack) == 1 else np.asarray(np.mean(np.stack(stack), axis=0, dtype=np.float32))
    return images[0].derive(data, entities=group.entities)


def load_diffusion(group: Group) -> Series:
    """Load a diffusion series with its gradients: ``.bval``, ``.bvec`` and, if present, ``.bdelta`` and ``.bvec2``.

    Raises
    ------
    MissingMetadata
        If bval or bvec are absent.
    ImplausibleValue
        If there are several files, the numbers of volumes and gradients differ, or a volume holds no finite number.
    """
    scan = group.scans[0]
    if len(group.scans) > 1:
        raise ImplausibleValue(
            f"{scan.name} and {group.scans[1].name} are given as one diffusion series, expected one 4-D file; join the "
            "files and their gradients, or process them one by one."
        )
    image = _read(scan)
    tables: dict[str, Path | None] = {}
    for extension in (".bval", ".bvec", ".bdelta", ".bvec2"):
        files = inherited_files(scan.path, scan.root, scan.entities, extension)
        beside = scan.path.with_name(stem_of(scan.path) + extension)
        tables[extension] = beside if beside.is_file() else files[-1] if files else None
    bval, bvec = tables[".bval"], tables[".bvec"]
    if bval is None or bvec is None:
        raise MissingMetadata(
            f"{scan.name} has no {'.bval' if bval is None else '.bvec'} file, expected one of the same name; put it "
            "beside the image."
        )
    _require_volumes(image)
    protocol = read_gradients(
        bval, bvec, stored_affine(image), image.n_volumes, bdelta=tables[".bdelta"], bvec2=tables[".bvec2"]
    )
    return Series(image, protocol)


def load_transfer(group: Group) -> tuple[tuple[Image, ...], Protocol]:
    """Load magnetisation transfer volumes, each on its own grid, with one protocol row each.

    Returns
    -------
    images : tuple of Image
        3-D, in the order of the rows.
    protocol : Protocol
        ``MTState``, ``FlipIndex`` (of the file name; 1 where it has none), ``FlipAngle`` and
        ``RepetitionTimeExcitation`` (NaN where a sidecar does not say).
    """
    images, rows = [], []
    for scan in group.scans:
        image = _read(scan)
        _require_volumes(image)
        data = image.data if image.data.ndim == 3 else image.data.mean(axis=3, dtype=np.float32)
        images.append(image.derive(data))
        rows.append(_transfer_row(scan))
    names = ", ".join(s.path.name for s in group.scans)
    columns = {k: np.array([r[k] for r in rows]) for k in rows[0]}
    return tuple(images), Protocol(columns, names)


def stored_affine(image: Image) -> np.ndarray[Any, np.dtype[np.floating[Any]]]:
    """Voxel-to-world matrix of an image in the axis order of its file."""
    from qcord.core.grid import reorient

    _, stored = reorient(np.empty(image.grid.shape, dtype=bool), image.grid, image.grid.stored)
    return stored.affine


def _read(scan: Scan) -> Image:
    return read_image(scan.path, source=scan.name, metadata=scan.metadata)


def _kind(scan: Scan) -> tuple[str, str]:
    """Kind of series, or the reason why the file is not used."""
    name, suffix = scan.entities, scan.entities.suffix
    modality = scan.path.parent.name
    phase = name.get("part") == "phase" and suffix == "MP2RAGE"  # it tells the polarity
    if name.get("part") in {"phase", "real", "imag"} and not phase:
        return "", "Only magnitude images are used so far."
    if "rec" in name or "GeneratedBy" in scan.metadata:
        return "", "The file was computed from others, which are used instead."
    if modality == "dwi" and suffix == "dwi":
        if name.get("acq", "").lower() == "b0":
            return "", "A series without diffusion weighting carries no tensor."
        return "dwi", ""
    if modality == "anat" and suffix in TRANSFER:
        return "mt", ""
    if modality == "anat" and suffix in ANATOMICAL:
        return "anat", ""
    if modality == "anat" and suffix in QUANTITATIVE:
        return "qmri", ""
    if modality == "fmap" and suffix in FIELD:
        return "field", ""
    return "", f"No part of qcord uses {modality}/*_{suffix} so far."


def _token(kind: str, name: Entities) -> str:
    parts = [name.suffix]
    for key in ("task", "acq", "ce", "rec", "dir", "run"):
        if key in name and not (key == "acq" and _acq_links(kind, name)):
            value = name[key].replace("+", "")
            parts.append(value.capitalize() if key in {"acq", "task"} else f"{key.capitalize()}{value}")
    return "".join(parts)


def _acq_links(kind: str, name: Entities) -> bool:
    """Whether ``acq-`` tells apart files of one series: the transfer pulse, or the repetition time of TB1AFI."""
    if kind == "mt":
        return _state_of_acq(name) is not None
    return kind == "field" and name.get("acq", "").lower() in {"tr1", "tr2"}


def _state_of_acq(name: Entities) -> bool | None:
    return STATE_WORDS.get(name.get("acq", "").lower())


def _transfer_row(scan: Scan) -> dict[str, float | bool]:
    name, meta = scan.entities, scan.metadata
    state = transfer_state(scan)
    if state is None:
        raise MissingMetadata(
            f"MTState is absent for {scan.name}; add it to the sidecar, or mt-on / mt-off to the file name."
        )
    repetition = meta.get("RepetitionTimeExcitation", meta.get("RepetitionTime"))
    return {
        "MTState": state,
        "FlipIndex": _flip_index(name),
        "FlipAngle": _number("FlipAngle", meta.get("FlipAngle"), scan),
        "RepetitionTimeExcitation": _number("RepetitionTimeExcitation", repetition, scan),
    }


def transfer_state(scan: Scan) -> bool | None:
    """Whether the transfer pulse was on: by the sidecar, else by ``mt-``, else by ``acq-``; None if unknown."""
    stated = scan.metadata.get("MTState")
    if stated is not None:
        return _truth(stated, scan)
    if "mt" in scan.entities:
        return scan.entities["mt"] == "on"
    return _state_of_acq(scan.entities)


def _flip_index(name: Entities) -> float:
    """Number of the flip angle within its series; the T1-weighted one of older names is the second."""
    default = "2" if name.get("acq", "").lower() == "t1w" else "1"
    return float(name.get("flip", default)) if name.get("flip", default).isdigit() else float("nan")


def _truth(value: Any, scan: Scan) -> bool:
    word = str(value).strip().lower()
    if word in {"true", "on", "yes", "1", "1.0", "false", "off", "no", "0", "0.0"}:
        return word in {"true", "on", "yes", "1", "1.0"}
    raise ImplausibleValue(f"MTState of {scan.name} is {value!r}, expected true or false; correct the sidecar.")


def _number(field: str, value: Any, scan: Scan) -> float:
    if value is None:
        return float("nan")
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or not np.isfinite(number):
        raise ImplausibleValue(f"{field} of {scan.name} is {value!r}, expected a number; correct the sidecar.")
    require_plausible(field, number, scan.name)
    require_degrees(field, number, scan.name)
    return number


def require_degrees(field: str, values: ArrayLike, source: str) -> None:
    """Raise if flip angles of a sidecar are smaller than any in use, as they are in radians."""
    largest = float(np.max(values))
    if field in {"FlipAngle", "RefocusingFlipAngle"} and largest < LEAST_ANGLE:
        raise ImplausibleValue(
            f"{field} in {source} is {largest:g}, expected degrees, {LEAST_ANGLE:g} or more (often radians given "
            "instead); correct the sidecar."
        )


def _require_volumes(image: Image) -> None:
    """Raise if a volume holds no image: no finite number, or zeros alone."""
    volumes = image.data.reshape(-1, image.n_volumes)
    blank = np.flatnonzero(~volumes.any(axis=0))
    if blank.size:
        raise ImplausibleValue(
            f"Volume {blank[0]} of {image.label} holds zeros alone, expected an image; remove the volume and what "
            "describes it, or convert the series again."
        )
    if image.data.dtype.kind != "f":
        return
    empty = np.flatnonzero(~np.isfinite(volumes).any(axis=0))
    if empty.size:
        raise ImplausibleValue(
            f"Volume {empty[0]} of {image.label} holds no finite number, expected an image; "
            "remove the volume and its gradient, or convert the series again."
        )


def protocol_table(protocol: Protocol) -> Mapping[str, list[float]]:
    """Columns of a protocol as plain lists, for sidecars."""
    return {k: np.asarray(v).tolist() for k, v in protocol.columns.items()}
