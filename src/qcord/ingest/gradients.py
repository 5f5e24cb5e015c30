"""Diffusion gradient tables in FSL's two-file format, either layout, and what describes b-tensors beside them."""

from pathlib import Path

import numpy as np

from qcord.core.arrays import BoolArray, FloatArray
from qcord.core.errors import ImplausibleValue, MissingMetadata, UnreadableFile
from qcord.core.grid import Grid
from qcord.core.protocol import Protocol

B0_LIMIT = 50.0
"""b-values [s/mm2] up to which a volume counts as not diffusion-weighted (vendors write 0 to 50)."""

LEAST_WEIGHTED = 20.0
"""Highest b-value [s/mm2] of a series below which its b-values are taken for ms/um2."""

EVEN = 1.1
"""Ratio of lengths of directions up to which they differ by rounding; b-values by their squares differ by 20 %."""

SHAPES = {"lte": 1.0, "ste": 0.0, "pte": -0.5, "linear": 1.0, "spherical": 0.0, "planar": -0.5}
"""Words for the shape of a b-tensor (linear, spherical, planar tensor encoding)."""


def read_gradients(
    bval: Path,
    bvec: Path,
    affine: FloatArray,
    n_volumes: int,
    *,
    bdelta: Path | None = None,
    bvec2: Path | None = None,
) -> Protocol:
    """Read ``.bval`` and ``.bvec`` files, and those that describe other than linear encoding.

    Parameters
    ----------
    bval, bvec : path
        Rows or columns, separated by blanks, tabs or commas.
    affine : (4, 4) array
        Voxel-to-world matrix of the image as stored in its file, since FSL's directions are relative to it.
    n_volumes : int
        Number of volumes of the image.
    bdelta : path, optional
        Shape of each b-tensor: numbers from -0.5 to 1, or words (`SHAPES`); all linear without it.
    bvec2 : path, optional
        Directions of the second block of double diffusion encoding, laid out as ``bvec``; zero where there is none.

    Returns
    -------
    Protocol
        ``BValue`` (n,) [s/mm2] and ``Direction`` (n, 3), unit vectors in RAS+ world coordinates, zero at b = 0 and
        where none is given to a spherical b-tensor; ``BDelta`` (n,) and ``SecondDirection`` (n, 3) if there are files
        of them (with the second alone, single encoding is linear).

    Raises
    ------
    MissingMetadata
        If a file is absent.
    UnreadableFile
        If a file holds something else.
    ImplausibleValue
        If numbers of volumes, b-values, shapes and directions differ, a weighted volume has no direction, directions
        of the same b-value differ in length, or a b-value or shape is none.

    Notes
    -----
    FSL's directions are in voxel axes, with x reversed when the determinant of the affine is positive.
    """
    b = _b_values(bval, n_volumes)
    weighted = b > B0_LIMIT
    columns: dict[str, FloatArray] = {"BValue": b}
    needed = weighted
    if bdelta is not None:
        columns["BDelta"] = _of_volumes(_shapes(bdelta), bdelta.name, n_volumes)
        needed = weighted & (columns["BDelta"] != 0)
    directions = _of_volumes(_columns(_table(bvec), bvec.name), bvec.name, n_volumes)
    unit, found = _unit_vectors(directions, weighted)
    used = needed & found
    _require_even(np.linalg.norm(directions[used], axis=1), b[used], bvec.name)
    bad = np.flatnonzero(needed & ~found)
    if bad.size:
        raise ImplausibleValue(
            f"{bvec.name} gives no direction for volume {bad[0]} with b = {b[bad[0]]:g} s/mm2, expected a unit "
            "vector; convert the series again."
        )
    columns["Direction"] = to_world(unit, affine)
    if bvec2 is not None:
        further = _of_volumes(_columns(_table(bvec2), bvec2.name), bvec2.name, n_volumes)
        second, paired = _unit_vectors(further, weighted)
        alone = np.flatnonzero(paired & ~found)
        if alone.size:
            raise ImplausibleValue(
                f"{bvec2.name} gives volume {alone[0]} a second direction, {bvec.name} gives it no first one; "
                "double diffusion encoding takes both: correct the files."
            )
        columns["SecondDirection"] = to_world(second, affine)
        columns.setdefault("BDelta", np.ones(n_volumes))
    names = [path.name for path in (bval, bvec, bdelta, bvec2) if path is not None]
    return Protocol(columns, f"{', '.join(names[:-1])} and {names[-1]}")


def to_world(directions: FloatArray, affine: FloatArray) -> FloatArray:
    """Turn FSL's voxel-axis directions (n, 3) into RAS+ world directions."""
    rotation = Grid((1, 1, 1), affine).rotation
    flip = np.array([-1.0 if np.linalg.det(affine[:3, :3]) > 0 else 1.0, 1.0, 1.0])
    return np.asarray((directions * flip) @ rotation.T)


def to_fsl(directions: FloatArray, affine: FloatArray) -> FloatArray:
    """Turn world directions (n, 3) into FSL's voxel-axis directions; inverse of `to_world`."""
    rotation = Grid((1, 1, 1), affine).rotation
    flip = np.array([-1.0 if np.linalg.det(affine[:3, :3]) > 0 else 1.0, 1.0, 1.0])
    return np.asarray((directions @ rotation) * flip)


def _b_values(path: Path, n_volumes: int) -> FloatArray:
    """b-values (n,) [s/mm2] of a file."""
    b = _of_volumes(_table(path).ravel(), path.name, n_volumes)
    bad = np.flatnonzero(~np.isfinite(b))
    if bad.size:
        raise ImplausibleValue(
            f"{path.name} gives volume {bad[0]} the b-value {b[bad[0]]:g}, expected a number in s/mm2; correct it."
        )
    top = b.max(initial=0)
    if 0 < top < LEAST_WEIGHTED and len(np.unique(b)) > 1:
        raise ImplausibleValue(
            f"The highest b-value in {path.name} is {top:g}, expected hundreds of s/mm2 (often ms/um2 given instead of "
            "s/mm2); give the values in s/mm2."
        )
    return b


def _require_even(length: FloatArray, b: FloatArray, name: str) -> None:
    """Raise unless directions of the same b-value have the same length.

    Some scanners write one b-value for all shells and scale the directions by the square root of its share, others
    write directions that were never made unit vectors; which of both cannot be told.
    """
    if not len(length):
        return
    same = np.abs(b[:, None] - b) <= 0.05 * np.maximum(b[:, None], b)
    ratio = np.where(same, length[:, None] / length, 1.0)
    first, second = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    if ratio[first, second] > EVEN:
        raise ImplausibleValue(
            f"{name} holds directions of length {length[second]:.3g} and {length[first]:.3g} at b = {b[first]:g} "
            "s/mm2, expected unit vectors; make them unit vectors, and where the square of the length is the share of "
            "the b-value, correct that in the bval file."
        )


def _of_volumes(values: FloatArray, name: str, n_volumes: int) -> FloatArray:
    if len(values) != n_volumes:
        raise ImplausibleValue(
            f"{name} describes {len(values)} volumes, the image has {n_volumes}; the numbers must be equal: "
            "find the gradient files of this very series."
        )
    return values


def _unit_vectors(directions: FloatArray, weighted: BoolArray) -> tuple[FloatArray, BoolArray]:
    """Directions (n, 3) of length one, zero where there is no weighting or no direction; and where there is one."""
    length = np.linalg.norm(directions, axis=1)
    found = np.asarray(weighted & (length > 1e-3) & np.isfinite(length))
    unit = np.zeros_like(directions)
    unit[found] = directions[found] / length[found, None]
    return unit, found


def _shapes(path: Path) -> FloatArray:
    words = " ".join(_lines(path)).lower().split()
    try:
        return np.array([SHAPES[w] if w in SHAPES else float(w) for w in words])
    except ValueError as error:
        raise UnreadableFile(
            f"{path.name} holds something other than numbers and the words LTE, STE and PTE ({error}); repair it."
        ) from error


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise MissingMetadata(f"{path.name} does not exist; put the gradient table beside the image.")
    try:
        return path.read_text(encoding="utf-8-sig").replace(",", " ").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{path.name} holds something other than rows of numbers ({error}); repair it.") from error


def _table(path: Path) -> FloatArray:
    lines = _lines(path)
    try:
        rows = [r for r in ([float(v) for v in line.split()] for line in lines) if r]
    except ValueError as error:
        raise UnreadableFile(f"{path.name} holds something other than rows of numbers ({error}); repair it.") from error
    sizes = sorted({len(r) for r in rows})
    if len(sizes) > 1:
        raise ImplausibleValue(
            f"{path.name} has rows of {sizes[0]} and of {sizes[-1]} numbers, expected rows of one length; convert the "
            "series again."
        )
    return np.array(rows)


def _columns(table: FloatArray, name: str) -> FloatArray:
    if table.ndim == 2 and table.shape[0] == 3:
        return np.asarray(table.T)
    if table.ndim == 2 and table.shape[1] == 3:
        return table
    raise ImplausibleValue(f"{name} has shape {table.shape}, expected 3 x n or n x 3; convert the series again.")
