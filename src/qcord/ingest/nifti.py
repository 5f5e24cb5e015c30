"""NIfTI images, as they occur in the wild, to canonical axes."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from qcord.core.arrays import AnyArray
from qcord.core.entities import Entities
from qcord.core.errors import ImplausibleValue, UnknownName, UnreadableFile
from qcord.core.grid import Grid, axes_of, reorient
from qcord.core.image import Image

_TURNED = 131_072
"""Values whose axes are turned at a time: half a megabyte, well within a core's second cache."""


def read_image(
    path: Path | str, *, unit: str = "1", source: str | None = None, metadata: Mapping[str, Any] | None = None
) -> Image:
    """Read a NIfTI file.

    Values are scaled by the header's slope and intercept; axes are permuted and flipped (never resampled) to
    the order closest to right, anterior, superior; trailing axes of length one are dropped.

    Parameters
    ----------
    path : path
        ``.nii`` or ``.nii.gz``.
    unit : str
        Unit of the values.
    source : str, optional
        Name used in messages and provenance; the file name by default.
    metadata : mapping, optional
        Content of its sidecar.

    Returns
    -------
    Image
        float32, or integers where the file holds unscaled integers of at most 16 bits.

    Raises
    ------
    UnreadableFile
        If the file is absent, truncated, not NIfTI, complex or RGB.
    ImplausibleValue
        If it has more than four dimensions, fewer than three, no orientation, two that contradict each other, or one
        without voxel sizes.
    """
    path = Path(path)
    name = source or path.name
    nifti = _open(path, name)
    data = _spatial(_values(nifti, name), name)
    grid = Grid((data.shape[0], data.shape[1], data.shape[2]), _affine(nifti, name))
    grid = Grid(grid.shape, grid.affine, stored=grid.axes)
    data, grid = reorient(data, grid, "RAS")
    return Image(_contiguous(data), grid, unit, _entities(path), (), dict(metadata or {}), name)


def read_map(path: Path | str, *, unit: str = "1") -> Image:
    """Read a map of one value a voxel.

    Raises
    ------
    ImplausibleValue
        If the file holds several volumes.
    """
    image = read_image(path, unit=unit)
    if image.n_volumes > 1:
        raise ImplausibleValue(
            f"{image.label} holds {image.n_volumes} volumes, expected a map of one; take out the one that is meant."
        )
    return image


def read_sidecar(path: Path | str) -> dict[str, Any]:
    """Read one JSON sidecar.

    Raises
    ------
    UnreadableFile
        If it is not a JSON object.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UnreadableFile(f"{path.name} cannot be read as JSON ({error}); repair or remove it.") from error
    if not isinstance(content, dict):
        raise UnreadableFile(f"{path.name} holds a {type(content).__name__}, expected a JSON object; repair it.")
    return content


def require_file(path: Path, name: str) -> None:
    """Raise `UnreadableFile` unless there is a file of this path; ``name`` stands in the message."""
    if path.is_dir():
        raise UnreadableFile(f"{name} is a folder, expected a file; give the path of the file in it.")
    if not path.is_file():
        raise UnreadableFile(f"{name} does not exist; check the path.")


def _open(path: Path, name: str) -> Any:
    require_file(path, name)
    try:
        with np.errstate(invalid="ignore"):  # voxel sizes that are no numbers, of which `_affine` tells
            nifti = nib.load(path)
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, OSError, EOFError) as error:
        reason = str(error).split("\n")[0]
        raise UnreadableFile(f"{name} is not a readable NIfTI file ({reason}); convert or copy it again.") from error
    if not isinstance(nifti, nib.Nifti1Pair):  # Analyze files do not say what is left, others hold no units or codes
        raise UnreadableFile(
            f"{name} is a file of the kind {type(nifti).__name__.removesuffix('Image')}, expected NIfTI; convert it."
        )
    return nifti


def _values(nifti: Any, name: str) -> AnyArray:
    kind = nifti.get_data_dtype()
    if kind.fields or kind.kind not in "iufb":
        what = "RGB" if kind.fields else str(kind)
        raise UnreadableFile(f"{name} holds {what} values, expected real numbers; convert it to a magnitude image.")
    slope, inter = float(nifti.dataobj.slope), float(nifti.dataobj.inter)
    plain = slope == 1 and inter == 0
    try:
        if plain and kind.kind in "iu" and kind.itemsize <= 2:
            return np.asarray(nifti.dataobj)
        return np.asarray(nifti.dataobj, dtype=np.float32)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UnreadableFile(f"{name} is truncated or damaged ({error}); copy or convert it again.") from error


def _contiguous(data: AnyArray) -> AnyArray:
    """The array with its last axis contiguous; series, which files hold volume by volume, are turned part by part."""
    if data.ndim < 4 or data.flags.c_contiguous:
        return np.ascontiguousarray(data)
    result = np.empty(data.shape, dtype=data.dtype)
    rows = max(1, _TURNED // (data.shape[0] * data.shape[3]))
    for k in range(data.shape[2]):
        for j in range(0, data.shape[1], rows):
            result[:, j : j + rows, k] = data[:, j : j + rows, k]
    return result


def _spatial(data: AnyArray, name: str) -> AnyArray:
    shape = data.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    data = data.reshape(shape if len(shape) > 2 else (*shape, 1))
    if data.ndim not in {3, 4} or 0 in data.shape:
        raise ImplausibleValue(
            f"{name} has shape {data.shape}, expected three spatial axes and at most one for the measurements; "
            "split or squeeze it."
        )
    return data


def _affine(nifti: Any, name: str) -> AnyArray:
    header = nifti.header
    codes = [int(header[c]) for c in ("qform_code", "sform_code")]
    if codes == [0, 0]:
        raise ImplausibleValue(
            f"{name} has neither a qform nor an sform, so left and right are unknown; expected one of them; "
            "convert it from DICOM again or set the orientation."
        )
    if codes[1] <= 0:
        _require_voxel_sizes(nifti, name)
    if codes[0] == codes[1]:  # of one and the same space; an sform of another space may be turned against the qform
        with np.errstate(invalid="ignore"):
            qform = header.get_qform()
        _require_agreement(qform, header.get_sform(), name)
    return np.asarray(nifti.affine, dtype=float)


def _require_voxel_sizes(nifti: Any, name: str) -> None:
    """Raise `ImplausibleValue` if a voxel size of the file itself is 0 or no number; on loading 0 becomes 1 mm."""
    files = nifti.file_map
    with files.get("header", files["image"]).get_prepare_fileobj("rb") as opened:
        sizes = type(nifti.header).from_fileobj(opened, check=False)["pixdim"][1:4]
    if not (np.isfinite(sizes).all() and sizes.all()):
        raise ImplausibleValue(
            f"{name} has voxel sizes (pixdim) of {' x '.join(f'{v:g}' for v in sizes)} mm and no sform, expected three "
            "sizes that are not 0; set them in the header or convert it from DICOM again."
        )


def _require_agreement(qform: AnyArray, sform: AnyArray, name: str) -> None:
    """Raise `ImplausibleValue` if the two matrices of a header say that an axis runs another way."""
    if not all(np.isfinite(m).all() and abs(np.linalg.det(m[:3, :3])) > 1e-9 for m in (qform, sform)):
        return
    axes = axes_of(qform), axes_of(sform)
    ways = [m[:3, :3] / np.linalg.norm(m[:3, :3], axis=0) for m in (qform, sform)]
    if (np.sum(ways[0] * ways[1], axis=0) < 0.5).any():  # 60 degrees: no rounding, and no turn of the patient
        raise ImplausibleValue(
            f"The axes of {name} run {axes[0]} by its qform and {axes[1]} by its sform, both of the same space, "
            "expected the same; find out which is right and copy it to the other."
        )


def _entities(path: Path) -> Entities:
    try:
        return Entities.parse(path.name)
    except UnknownName:
        stem, dot, extension = path.name.partition(".")
        return Entities((), stem.split("_")[-1], dot + extension)
