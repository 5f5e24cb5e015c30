"""Masks, levels and landmarks that others made: found by BIDS names and by those in the wild."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcord.core.entities import Entities
from qcord.core.errors import UnknownName, UnreadableFile
from qcord.core.grid import Grid, require_same_grid
from qcord.core.image import Image
from qcord.ingest.bids import Scan, Visit
from qcord.ingest.landmarks import Landmark, landmarks_of_label_image, read_landmarks
from qcord.ingest.nifti import read_image, read_map
from qcord.ingest.series import Group, transfer_state

CORD_LABELS = ("SC", "cord", "spinalcord")
MASK_SUFFIXES = ("mask", "seg", "probseg", "softseg")
LEVEL_SUFFIXES = ("dseg",)
DISC_SUFFIXES = ("dlabel",)


@dataclass(frozen=True)
class Derivatives:
    """Files below the derivative folders that belong to one visit.

    Parameters
    ----------
    files : tuple of path
        All images and landmark tables of the visit.
    """

    files: tuple[Path, ...]


def find_derivatives(folders: Sequence[Path], visit: Visit) -> Derivatives:
    """Collect the derivative files of a visit.

    Raises
    ------
    UnreadableFile
        If a folder does not exist.
    """
    files: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise UnreadableFile(f"Derivatives folder {folder} does not exist; check the path.")
        for found in sorted(folder.rglob(f"{visit.prefix}_*")):
            other_session = visit.session is None and re.search(r"_ses-", found.name)
            if found.is_file() and not other_session and found.name.endswith((".nii.gz", ".nii", ".tsv")):
                files.append(found)
    return Derivatives(tuple(files))


def find_cord_mask(derivatives: Derivatives, group: Group, grid: Grid) -> Image | None:
    """Cord mask made for a series, if there is one.

    Raises
    ------
    GridMismatch
        If a mask is named after the series but lies on another grid.
    ImplausibleValue
        If it holds several volumes.
    """
    return _find(derivatives, group, grid, _is_cord_mask)


def find_levels(derivatives: Derivatives, group: Group, grid: Grid) -> Image | None:
    """Map of vertebral levels (C1 = 1) made for a series, if there is one."""
    return _find(derivatives, group, grid, _is_level_map)


def find_landmarks(derivatives: Derivatives) -> tuple[Landmark, ...]:
    """All landmarks of the visit: tables ``*_landmarks.tsv`` and disc label images."""
    found: list[Landmark] = []
    for path in derivatives.files:
        if path.name.endswith("_landmarks.tsv"):
            found += read_landmarks(path)
        elif (name := _parse(path)) is not None and _is_disc_image(name):
            found += landmarks_of_label_image(read_image(path))
    return tuple(found)


def _find(derivatives: Derivatives, group: Group, grid: Grid, wanted: Callable[[Entities], bool]) -> Image | None:
    named: list[Path] = []
    unnamed: list[Path] = []
    for path in derivatives.files:
        name = _parse(path)
        if name is None or not wanted(name):
            continue
        source = _source(name, path)
        if source is None:
            unnamed.append(path)
        elif source in _names_of(group):
            named.append(path)
    for path in named:
        image = read_map(path, unit="label")
        require_same_grid(image.grid, grid, path.name, group.scans[0].name)
        return _without_gaps(image)
    for path in unnamed:
        image = read_map(path, unit="label")
        if image.grid.matches(grid):
            return _without_gaps(image)
    return None


def _without_gaps(image: Image) -> Image:
    """A mask or label image with 0 where it has no value, as the outside of masks of some tools."""
    if image.data.dtype.kind != "f" or np.isfinite(image.data).all():
        return image
    return image.derive(np.where(np.isfinite(image.data), image.data, 0))


def _parse(path: Path) -> Entities | None:
    if not path.name.endswith((".nii.gz", ".nii")):
        return None
    *parts, last = path.name.split("_")
    pairs = [p for p in parts if "-" in p]  # other tools keep the suffix of their source: sub-01_T2w_label-SC_seg
    try:
        return Entities.parse("_".join([*pairs, last]))
    except UnknownName:
        return None


def _is_cord_mask(name: Entities) -> bool:
    labels = {c.lower() for c in CORD_LABELS}
    return name.suffix in MASK_SUFFIXES and name.get("label", "").lower() in labels and _native(name)


def _is_level_map(name: Entities) -> bool:
    return name.suffix in LEVEL_SUFFIXES and name.get("seg") == "vertebrae" and _native(name)


def _is_disc_image(name: Entities) -> bool:
    return name.suffix in DISC_SUFFIXES and name.get("label") == "discs"


def _native(name: Entities) -> bool:
    return name.get("space", "orig") == "orig"


def _source(name: Entities, path: Path) -> str | None:
    """Lower-case word that says which series the file was made for; None if it does not say."""
    if "desc" in name:
        return name["desc"].lower()
    stem = path.name.split("_label-")[0].split("_seg-")[0]
    last = stem.rsplit("_", 1)[-1]
    return None if "-" in last else _word(stem)


def _names_of(group: Group) -> set[str]:
    """Lower-case words that may stand for a series in a file name."""
    words = {group.token.lower()}
    for scan in group.scans:
        words |= _words_of(scan) if group.kind == "mt" else {_word(scan.path.name.split(".")[0])}
    if group.kind == "mt":
        words |= {"mts", "mtr"} if "run" not in group.scans[0].entities else set()
    return words


def _words_of(scan: Scan) -> set[str]:
    name = scan.entities
    words = {_word(scan.path.name.split(".")[0])}
    second = name.get("flip") == "2" or name.get("acq", "").lower() == "t1w"
    state = transfer_state(scan)
    if state is not None and not second:
        words.add("mton" if state else "mtoff")
    if second:
        words.add("t1w")
    return words


def _word(stem: str) -> str:
    """File name without subject and session, letters and digits only."""
    kept = [p for p in stem.split("_") if not p.startswith(("sub-", "ses-"))]
    return re.sub(r"[^a-z0-9]", "", "".join(kept).lower())
