"""Reader of template folders laid out as PAM50: ``template/`` masks and ``atlas/`` fields."""

import hashlib
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import sparse

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import UnreadableFile
from qcord.core.grid import Grid, reorient
from qcord.core.image import Image
from qcord.core.labels import DISCS, VERTEBRAE, Region, disc_name, vertebra_name
from qcord.core.template import Template
from qcord.ingest.nifti import read_image

MARGIN = 2
"""Voxels kept around cord and fluid."""

READERS = 2
"""Fields decompressed at a time; each needs about 160 MB while it is read."""

NEGLIGIBLE = 1e-4
"""Fractions of a voxel below this are interpolation residue and are dropped."""


def read_template(folder: Path | str) -> Template:
    """Read a template folder.

    Parameters
    ----------
    folder : path
        Holds ``template/PAM50_{cord,gm,wm,csf,levels,label_disc,label_body}.nii.gz`` and
        ``atlas/info_label.txt`` with the fields that it lists.

    Returns
    -------
    Template
        Cropped to cord and fluid; atlas fields sparse.

    Raises
    ------
    UnreadableFile
        If a file is absent or damaged, naming it.
    """
    folder = Path(folder)
    prefix = _prefix(folder)
    masks = {k: _template_image(folder, prefix, k) for k in ("cord", "csf", "gm", "wm", "levels")}
    grid = masks["cord"].grid
    inside = np.argwhere((masks["cord"].data > 0) | (masks["csf"].data > 0))
    start = np.maximum(inside.min(axis=0) - MARGIN, 0)
    stop = np.minimum(inside.max(axis=0) + 1 + MARGIN, grid.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    regions, files = _fields(folder / "atlas" / "info_label.txt")
    cut = {k: np.array(m.data[box], dtype=np.float32) for k, m in masks.items()}
    heights = {k: _heights(_template_image(folder, prefix, k)) for k in ("label_disc", "label_body")}
    return Template(
        name=prefix,
        version=_fingerprint(folder),
        grid=grid.crop(start, stop),
        cord=cut["cord"],
        white=cut["wm"],
        gray=cut["gm"],
        fluid=cut["csf"],
        vertebrae=cut["levels"].astype(np.uint8),
        discs={disc_name(n): z for n, z in heights["label_disc"].items() if n <= len(DISCS)},
        vertebra_middles={vertebra_name(n): z for n, z in heights["label_body"].items() if n <= len(VERTEBRAE)},
        regions=regions,
        weights=_weights([folder / "atlas" / f for f in files], grid, box),
    )


def read_warped_atlas(folder: Path | str) -> tuple[Grid, tuple[Region, ...], sparse.csr_array, Image | None]:
    """Read atlas fields that other software brought to the grid of an image.

    Parameters
    ----------
    folder : path
        Holds ``atlas/info_label.txt`` with its fields and, if known, ``template/*_levels.nii.gz``.

    Returns
    -------
    grid : Grid
        Grid of the fields.
    regions : tuple of Region
        Their names.
    weights : (n_voxels, r) sparse CSR array
        Their values, voxels in C order.
    levels : Image or None
        Map of vertebral levels.
    """
    folder = Path(folder)
    regions, files = _fields(folder / "atlas" / "info_label.txt")
    paths = [folder / "atlas" / f for f in files]
    grid = read_image(paths[0]).grid
    levels = sorted((folder / "template").glob("*_levels.nii.gz"))
    box = tuple(slice(0, n) for n in grid.shape)
    return grid, regions, _weights(paths, grid, box), read_image(levels[0]) if levels else None


def _prefix(folder: Path) -> str:
    found = sorted((folder / "template").glob("*_cord.nii.gz"))
    if not found:
        raise UnreadableFile(
            f"Template folder {folder.name} has no template/*_cord.nii.gz, expected the layout of PAM50 "
            "(template/ and atlas/); give the folder that holds both."
        )
    return found[0].name.removesuffix("_cord.nii.gz")


def _template_image(folder: Path, prefix: str, what: str) -> Image:
    return read_image(folder / "template" / f"{prefix}_{what}.nii.gz")


def _heights(labels: Image) -> dict[int, float]:
    points = np.argwhere(labels.data > 0)
    world = labels.grid.world(points)
    numbers = labels.data[tuple(points.T)].astype(int)
    return {int(n): float(world[numbers == n, 2].mean()) for n in np.unique(numbers)}


def _fields(info: Path) -> tuple[tuple[Region, ...], list[str]]:
    if not info.is_file():
        raise UnreadableFile(f"{info.name} is absent from the template's atlas folder; get the template again.")
    regions, files, active = [], [], False
    for line in info.read_text(encoding="utf-8").splitlines():
        keyword = re.match(r"#\s*Keyword=(\w+)", line)
        if keyword:
            active = keyword[1] == "IndivLabels"
        elif active and line.strip() and not line.startswith("#"):
            number, name, file = (part.strip() for part in line.split(",", 2))
            regions.append(Region(name, int(number)))
            files.append(file)
    return tuple(regions), files


def _weights(files: list[Path], grid: Grid, box: tuple[slice, ...]) -> sparse.csr_array:
    with ThreadPoolExecutor(max_workers=READERS) as pool:
        columns = list(pool.map(lambda f: _field(f, grid, box), files))
    shape = (int(np.prod([s.stop - s.start for s in box])), len(files))
    rows = np.concatenate([c[0] for c in columns])
    cols = np.concatenate([np.full(len(c[0]), i, dtype=np.int32) for i, c in enumerate(columns)])
    values = np.concatenate([c[1] for c in columns])
    return sparse.csr_array((values, (rows, cols)), shape=shape)


def _field(file: Path, grid: Grid, box: tuple[slice, ...]) -> tuple[AnyArray, FloatArray]:
    """Voxel numbers within the box, and values, of one field; one call decompresses it, so threads run side by side."""
    if not file.is_file():
        raise UnreadableFile(f"{file.name} is absent from the template's atlas folder; get the template again.")
    raw = file.read_bytes()
    try:
        content = zlib.decompress(raw, 31) if raw[:2] == b"\x1f\x8b" else raw
        nifti = nib.Nifti1Image.from_bytes(content)
        data = np.asanyarray(nifti.dataobj)
    except (zlib.error, ValueError, OSError, EOFError, nib.filebasedimages.ImageFileError) as error:
        raise UnreadableFile(f"{file.name} is damaged ({error}); get the template again.") from error
    own = Grid((data.shape[0], data.shape[1], data.shape[2]), nifti.affine)
    data, own = reorient(data, own, "RAS")
    if not own.matches(grid):
        raise UnreadableFile(f"{file.name} lies on {own!r}, expected {grid!r}; get the template again.")
    flat = np.asarray(data[box], dtype=np.float32).ravel()
    kept = np.flatnonzero(flat > NEGLIGIBLE)
    return kept.astype(np.int64), flat[kept]


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted([*(folder / "template").glob("*.nii.gz"), *(folder / "atlas").glob("*")]):
        digest.update(f"{file.name} {file.stat().st_size}".encode())
    return digest.hexdigest()[:12]
