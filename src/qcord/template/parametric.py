"""The parametric template: a straight cord in closed form, drawn onto a grid."""

from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from scipy import sparse

from qcord.core.arrays import FloatArray, IntArray
from qcord.core.errors import ImplausibleValue
from qcord.core.grid import Grid
from qcord.core.labels import CSF, TRACTS, Region
from qcord.core.template import Template
from qcord.template import tables
from qcord.template.layout import TractLayout, tract_layout
from qcord.template.shape import CordShape, template_shape

NAME = "qcord"

HALF_WIDTH, HALF_DEPTH = 12.0, 11.5
"""Extent of the grid [mm] to either side of the cord; the widest dural sac is 23 mm wide and 18 mm deep."""

N_PARTS = 4
"""Points along each edge of a voxel that stand for it."""

RING = 1.0
"""Thickness [mm] of the ring of fluid that takes part in the unmixing: PAM50's ring in the cervical cord."""

SMALLEST_FRACTION = 0.002
"""Smaller fractions of a voxel are left out of the atlas and shared among the others."""


def parametric_template(*, spacing: float = 0.5) -> Template:
    """Draw the parametric template.

    Parameters
    ----------
    spacing : float
        Voxel size [mm].

    Returns
    -------
    Template
        Straight cord from the top of C1 to the end of the conus, its centroid at x = y = 0. Sizes, areas and
        positions are those of `qcord.template.tables`; left is the patient's left (negative x).

    Raises
    ------
    ImplausibleValue
        If the voxel size is not between 0.2 and 2 mm.
    """
    if not 0.2 <= spacing <= 2.0:
        raise ImplausibleValue(f"The spacing of the template is {spacing:g} mm, expected 0.2 to 2 mm.")
    grid = _grid(spacing)
    shape, layout = template_shape(), tract_layout()
    discs = tables.disc_heights()
    heights = grid.world(np.stack([np.zeros(grid.shape[2])] * 2 + [np.arange(grid.shape[2])], axis=-1))[:, 2]
    cord, fluid, weights = _draw(shape, layout, grid, heights)
    levels = _level_numbers(heights)
    white = np.asarray(weights[:, :30].sum(axis=1), dtype=np.float32).reshape(grid.shape)
    gray = np.asarray(weights[:, 30:36].sum(axis=1), dtype=np.float32).reshape(grid.shape)
    inside = (cord + fluid) >= 0.5
    return Template(
        name=NAME,
        version=version("qcord"),
        grid=grid,
        cord=cord,
        white=white,
        gray=gray,
        fluid=fluid,
        vertebrae=np.where(inside, levels, 0).astype(np.uint8),
        discs=discs,
        vertebra_middles=_middles(discs),
        regions=tuple(Region(name, number) for number, name in enumerate((*TRACTS, CSF))),
        weights=weights,
    )


def _grid(spacing: float) -> Grid:
    edges = tables.level_edges()
    nx, ny = (2 * int(np.ceil(half / spacing)) + 1 for half in (HALF_WIDTH, HALF_DEPTH))
    nz = int(np.ceil((edges[0] - edges[-1]) / spacing - 1e-9))
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = [-(nx // 2) * spacing, -(ny // 2) * spacing, edges[-1]]
    return Grid((nx, ny, nz), affine)


def _middles(discs: dict[str, float]) -> dict[str, float]:
    heights = list(discs.values())
    return {name: (heights[i] + heights[i + 1]) / 2 for i, name in enumerate(tables.LEVELS)}


def _level_numbers(heights: FloatArray) -> IntArray:
    """Number of the vertebral level at some heights; a level reaches from its lower disc up to its upper one."""
    edges = tables.level_edges()
    return np.clip(len(edges) - np.searchsorted(edges[::-1], heights + 1e-6), 1, len(edges) - 1)


def _draw(
    shape: CordShape, layout: TractLayout, grid: Grid, heights: FloatArray
) -> tuple[FloatArray, FloatArray, sparse.csr_array]:
    """Fractions of cord and fluid (x, y, z), and of all regions (voxels, 37)."""
    nx, ny, nz = grid.shape
    points = _HalfPlane.of(nx, ny, grid.spacing[0])
    cord, fluid = (np.zeros((nx, ny, nz), dtype=np.float32) for _ in range(2))
    voxels, columns, values = [], [], []
    plane = np.arange(nx * ny).reshape(nx, ny) * nz
    for k, z in enumerate(heights):
        right, sac = _half_slice(shape, layout, float(z), points)
        left = right[::-1]
        tracts = np.stack([left[..., :18], right[..., :18]], axis=-1).reshape(nx, ny, 36)
        fractions = np.concatenate([tracts, (left + right)[..., 18:]], axis=-1)
        cord[..., k] = np.minimum(tracts.sum(axis=-1), 1)
        fluid[..., k] = sac + sac[::-1]
        i, j, region, value = _significant(fractions)
        voxels.append(plane[i, j] + k)
        columns.append(region)
        values.append(value)
    entries = (np.concatenate(values), (np.concatenate(voxels), np.concatenate(columns)))
    return cord, fluid, sparse.csr_array(entries, shape=(nx * ny * nz, len(TRACTS) + 1))


@dataclass(frozen=True, eq=False)
class _HalfPlane:
    """Points that stand for the voxels right of the midline, `N_PARTS` squared a voxel."""

    shape: tuple[int, int]
    x: FloatArray
    y: FloatArray
    voxel: IntArray

    @classmethod
    def of(cls, nx: int, ny: int, spacing: float) -> "_HalfPlane":
        i, j = np.arange(nx * N_PARTS), np.arange(ny * N_PARTS)
        i = i[len(i) // 2 :]
        x, y = (((n - (size * N_PARTS - 1) / 2) * spacing / N_PARTS) for n, size in ((i, nx), (j, ny)))
        xx, yy = np.meshgrid(x, y, indexing="ij")
        voxel = (i[:, None] // N_PARTS) * ny + j // N_PARTS
        return cls((nx, ny), xx.ravel(), yy.ravel(), voxel.ravel())

    def average(self, chosen: IntArray, values: FloatArray) -> FloatArray:
        """Means over the points of each voxel of values (points, n) at the chosen points, 0 at the others."""
        ones = np.full(len(chosen), 1 / N_PARTS**2, dtype=np.float32)
        size = (self.shape[0] * self.shape[1], len(chosen))
        gather = sparse.csc_array((ones, self.voxel[chosen], np.arange(len(chosen) + 1)), shape=size)
        return np.asarray(gather @ values).reshape(*self.shape, -1)


def _half_slice(shape: CordShape, layout: TractLayout, z: float, points: _HalfPlane) -> tuple[FloatArray, FloatArray]:
    """Fractions (x, y, 19) of the half regions and the ring, and (x, y) of the fluid, in the right half of a slice."""
    section = shape.at(z)
    in_sac = np.flatnonzero(section.canal_radius(points.x, points.y) <= 1)
    u, v = section.disc(points.x[in_sac], points.y[in_sac])
    inside = np.hypot(u, v) <= 1
    ring = ~inside & (np.hypot(*section.grown(RING).disc(points.x[in_sac], points.y[in_sac])) <= 1)
    values = np.zeros((len(in_sac), len(tables.HALF_TRACTS) + 2), dtype=np.float32)
    values[:, -2] = ring
    values[:, -1] = ~inside
    if inside.any():
        values[inside, :-2] = layout.at_row(u[inside], v[inside], int(layout.row(z)))
    means = points.average(in_sac, values)
    return means[..., :-1], means[..., -1]


def _significant(fractions: FloatArray) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
    """Entries of a slice (x, y, region) above `SMALLEST_FRACTION`, scaled so that the cord's share is kept."""
    i, j = np.nonzero(fractions.any(axis=-1))
    rows = fractions[i, j]
    kept = np.where(rows >= SMALLEST_FRACTION, rows, 0)
    before, after = rows[:, :36].sum(axis=-1), kept[:, :36].sum(axis=-1)
    kept[:, :36] *= (before / np.where(after > 0, after, 1))[:, None]
    entry, region = np.nonzero(kept)
    return i[entry], j[entry], region, np.minimum(kept[entry, region], 1)
