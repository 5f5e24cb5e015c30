"""Voxel grids in RAS+ millimetres."""

from dataclasses import dataclass
from itertools import product

import numpy as np

from qcord.core.arrays import AnyArray, ArrayLike, FloatArray
from qcord.core.errors import GridMismatch, ImplausibleValue

TOLERANCE = 0.05
"""Largest distance, in voxels, by which the corners of equal grids may differ."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of an image lie.

    Parameters
    ----------
    shape : tuple of int
        Number of voxels along the three spatial axes.
    affine : (4, 4) array
        From voxel index to RAS+ world coordinates [mm]; centre of voxel (0, 0, 0) at ``affine[:3, 3]``.
    stored : str
        Axis directions of the file that the image came from, such as ``PSR``. In memory all images have
        the axes closest to R, A, S; writing restores the stored ones, so no voxel is ever resampled by it.

    Raises
    ------
    ImplausibleValue
        If the affine is singular or not finite, or a dimension is not positive.
    """

    shape: tuple[int, int, int]
    affine: FloatArray
    stored: str = "RAS"

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=float)
        shape = tuple(int(n) for n in self.shape)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-9:
            raise ImplausibleValue(
                "The voxel-to-world matrix is singular or not finite, expected an invertible 4 x 4 matrix; "
                "repair the header of the image."
            )
        if len(shape) != 3 or min(shape) < 1:
            raise ImplausibleValue(f"The grid has shape {shape}, expected three positive sizes.")
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", shape)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size [mm] along the three axes."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(x), float(y), float(z)

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel [mm3]."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def rotation(self) -> FloatArray:
        """(3, 3) orthogonal matrix nearest to the axes' directions (polar decomposition)."""
        u, _, vt = np.linalg.svd(self.affine[:3, :3] / np.array(self.spacing))
        return np.asarray(u @ vt)

    @property
    def axes(self) -> str:
        """Closest world direction of each voxel axis, such as ``RAS``."""
        return axes_of(self.affine)

    def world(self, index: ArrayLike) -> FloatArray:
        """World coordinates [mm] of voxel indices, shape (..., 3) to (..., 3)."""
        points = np.asarray(index, dtype=float)
        return np.asarray(points @ self.affine[:3, :3].T + self.affine[:3, 3])

    def index(self, world: ArrayLike) -> FloatArray:
        """Voxel indices (not rounded) of world coordinates [mm], shape (..., 3) to (..., 3)."""
        points = np.asarray(world, dtype=float)
        inverse = np.linalg.inv(self.affine)
        return np.asarray(points @ inverse[:3, :3].T + inverse[:3, 3])

    def matches(self, other: "Grid") -> bool:
        """Whether both have the same shape and their corners agree within `TOLERANCE` voxels."""
        return self.shape == other.shape and self.distance(other) <= TOLERANCE * min(self.spacing)

    def distance(self, other: "Grid") -> float:
        """Largest distance [mm] between the corners of two grids of the same shape."""
        corners = np.array(list(product(*[(0, n - 1) for n in self.shape])), dtype=float)
        return float(np.linalg.norm(self.world(corners) - other.world(corners), axis=-1).max())

    def crop(self, start: ArrayLike, stop: ArrayLike) -> "Grid":
        """Grid of the block of voxels from ``start`` up to, not including, ``stop``."""
        low = np.asarray(start, dtype=int)
        size = np.asarray(stop, dtype=int) - low
        affine = np.array(self.affine)
        affine[:3, 3] = self.world(low)
        return Grid((int(size[0]), int(size[1]), int(size[2])), affine, self.stored)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and self.matches(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        size = " x ".join(f"{s:.3g}" for s in self.spacing)
        return f"Grid({' x '.join(map(str, self.shape))}, {size} mm, {self.axes})"


def require_same_grid(first: Grid, second: Grid, what: str, other: str) -> None:
    """Raise `GridMismatch` unless both grids agree; ``what`` and ``other`` name the two images."""
    if not first.matches(second):
        apart = f", up to {first.distance(second):.3g} mm apart" if first.shape == second.shape else ""
        raise GridMismatch(
            f"{what} lies on {first!r} and {other} on {second!r}{apart}, expected the same grid; "
            "resample one of them to the other first."
        )


def axes_of(affine: FloatArray) -> str:
    """Closest world direction of each voxel axis; each world axis is used once, the strongest first."""
    unit = np.asarray(affine, dtype=float)[:3, :3]
    unit = unit / np.sqrt((unit**2).sum(axis=0))
    names = [("L", "R"), ("P", "A"), ("I", "S")]
    codes = ["", "", ""]
    strength = np.abs(unit)
    for _ in range(3):
        row, column = np.unravel_index(int(np.argmax(strength)), (3, 3))
        codes[column] = names[row][int(unit[row, column] > 0)]
        strength[row, :] = -1
        strength[:, column] = -1
    return "".join(codes)


def reorient(data: AnyArray, grid: Grid, axes: str) -> tuple[AnyArray, Grid]:
    """Permute and flip voxel axes so that they run along ``axes``; no resampling.

    Parameters
    ----------
    data : (x, y, z, ...) array
        Values on ``grid``.
    grid : Grid
        Their grid.
    axes : str
        Three letters such as ``RAS`` or ``PSR``, each world axis once.

    Returns
    -------
    data : array
        A view where possible.
    grid : Grid
        The same places in the world, in the new order; ``stored`` is kept.
    """
    current = grid.axes
    pairs = {"R": "RL", "L": "RL", "A": "AP", "P": "AP", "S": "SI", "I": "SI"}
    kinds = [pairs[a] for a in current]
    order = [kinds.index(pairs[a]) for a in axes]
    moved = np.transpose(data, order + list(range(3, data.ndim)))
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    shape = tuple(grid.shape[o] for o in order)
    for new, old in enumerate(order):
        flipped = current[old] != axes[new]
        matrix[old, new] = -1 if flipped else 1
        matrix[old, 3] = shape[new] - 1 if flipped else 0
        if flipped:
            moved = np.flip(moved, axis=new)
    return moved, Grid((shape[0], shape[1], shape[2]), grid.affine @ matrix, grid.stored)
