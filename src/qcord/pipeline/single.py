"""Single files as input: their sidecars, their names, and one 3-D image of each."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from qcord.core.entities import Entities
from qcord.core.errors import MissingMetadata, UnknownName
from qcord.core.image import Image
from qcord.ingest.bids import Scan, inherited_metadata, stem_of
from qcord.ingest.gradients import B0_LIMIT
from qcord.ingest.nifti import read_image, read_sidecar, require_file
from qcord.ingest.series import FIELD, QUANTITATIVE, TRANSFER, Group, load_diffusion, transfer_state


def scan_of(path: Path) -> Scan:
    """A file with its sidecar, whatever its name.

    Raises
    ------
    UnreadableFile
        If there is no such file.
    """
    path = path.absolute()
    require_file(path, path.name)
    entities = _entities(path)
    metadata = inherited_metadata(path, path.parent, entities)
    own = path.with_name(stem_of(path) + ".json")
    if own.is_file() and not metadata:
        metadata = read_sidecar(own)
    return Scan(path, path.parent, entities, metadata)


def _entities(path: Path) -> Entities:
    try:
        return Entities.parse(path.name)
    except UnknownName:
        stem, dot, extension = path.name.partition(".")
        return Entities((), stem.replace("-", "").replace("_", ""), dot + extension)


def group_of(images: Sequence[Path | str]) -> Group:
    """Files as one series: diffusion if gradients lie beside the first, else what its name or transfer pulse says."""
    scans = tuple(scan_of(Path(p)) for p in images)
    if not scans:
        raise MissingMetadata("No image was given, expected a diffusion series or the volumes of a collection.")
    suffix = scans[0].entities.suffix
    if scans[0].path.with_name(stem_of(scans[0].path) + ".bval").is_file() or suffix == "dwi":
        return Group("dwi", suffix, scans)
    if suffix in FIELD:
        return Group("field", suffix, scans)
    transfer = suffix in TRANSFER or any(transfer_state(s) is not None for s in scans)
    return Group("mt" if transfer and suffix not in QUANTITATIVE else "qmri", suffix, scans)


def read_volume(path: Path) -> Image:
    """One 3-D image; of a series its mean over weighted volumes, or over all."""
    scan = scan_of(path)
    image = replace(read_image(scan.path, metadata=scan.metadata), entities=scan.entities)
    if image.n_volumes == 1:
        return image
    group = group_of((path,))
    if group.kind == "dwi":
        series = load_diffusion(group)
        weighted = series.protocol["BValue"] > B0_LIMIT
        return image.derive(np.asarray(series.data[..., weighted].mean(axis=-1, dtype=np.float32)))
    return image.derive(np.asarray(image.data.mean(axis=-1, dtype=np.float32)))


def single_group(volume: Image, path: Path) -> Group:
    """One file as a series of its own."""
    scan = scan_of(path)
    token = "".join(c for c in volume.entities.suffix if c.isalnum()) or "image"
    return Group("anat", token, (scan,))


def derived_name(volume: Image) -> Entities:
    """Name of what is derived from an image in its own space."""
    kept = {k: v for k, v in volume.entities.items() if k in {"sub", "ses"}}
    return Entities.of(**kept, space="orig", desc=volume.entities.suffix)
