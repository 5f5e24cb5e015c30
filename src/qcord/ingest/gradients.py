"""Diffusion gradient tables in FSL's two-file format, either layout."""

from pathlib import Path

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.core.errors import ImplausibleValue, MissingMetadata, UnreadableFile
from qcord.core.grid import Grid
from qcord.core.protocol import Protocol

B0_LIMIT = 50.0
"""b-values [s/mm2] up to which a volume counts as not diffusion-weighted (vendors write 0 to 50)."""


def read_gradients(bval: Path, bvec: Path, affine: FloatArray, n_volumes: int) -> Protocol:
    """Read ``.bval`` and ``.bvec`` files.

    Parameters
    ----------
    bval, bvec : path
        Rows or columns, separated by blanks, tabs or commas.
    affine : (4, 4) array
        Voxel-to-world matrix of the image as stored in its file, since FSL's directions are relative to it.
    n_volumes : int
        Number of volumes of the image.

    Returns
    -------
    Protocol
        ``BValue`` (n,) [s/mm2] and ``Direction`` (n, 3), unit vectors in RAS+ world coordinates, zero at b = 0.

    Raises
    ------
    MissingMetadata
        If a file is absent.
    ImplausibleValue
        If numbers of volumes, b-values and directions differ, or a weighted volume has no direction.

    Notes
    -----
    FSL's directions are in voxel axes, with x reversed when the determinant of the affine is positive.
    """
    b = _table(bval).ravel()
    directions = _columns(_table(bvec), bvec.name)
    for found, what in ((len(b), bval.name), (len(directions), bvec.name)):
        if found != n_volumes:
            raise ImplausibleValue(
                f"{what} describes {found} volumes, the image has {n_volumes}; the numbers must be equal: "
                "find the gradient files of this very series."
            )
    weighted = b > B0_LIMIT
    length = np.linalg.norm(directions, axis=1)
    bad = np.flatnonzero(weighted & ~(length > 0.5))
    if bad.size:
        raise ImplausibleValue(
            f"{bvec.name} gives no direction for volume {bad[0]} with b = {b[bad[0]]:g} s/mm2, expected a unit "
            "vector; convert the series again."
        )
    unit = np.zeros_like(directions)
    unit[weighted] = directions[weighted] / length[weighted, None]
    return Protocol({"BValue": b, "Direction": to_world(unit, affine)}, f"{bval.name} and {bvec.name}")


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


def _table(path: Path) -> FloatArray:
    if not path.is_file():
        raise MissingMetadata(f"{path.name} does not exist; put the gradient table beside the image.")
    try:
        rows = [[float(v) for v in line.replace(",", " ").split()] for line in path.read_text().splitlines()]
        return np.array([r for r in rows if r])
    except (ValueError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{path.name} holds something other than rows of numbers ({error}); repair it.") from error


def _columns(table: FloatArray, name: str) -> FloatArray:
    if table.ndim == 2 and table.shape[0] == 3:
        return np.asarray(table.T)
    if table.ndim == 2 and table.shape[1] == 3:
        return table
    raise ImplausibleValue(f"{name} has shape {table.shape}, expected 3 x n or n x 3; convert the series again.")
