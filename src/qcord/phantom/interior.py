"""What lies inside the dura: cord, its regions, lesion and fluid, sampled at several points a voxel."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from qcord.core.arrays import BoolArray, FloatArray, IntArray
from qcord.core.grid import Grid
from qcord.core.labels import TRACTS
from qcord.phantom.body import Body
from qcord.phantom.spec import Lesion
from qcord.template import tables
from qcord.template.layout import tract_layout

RING = 1.0
"""Thickness [mm] of the ring of fluid around the cord that the atlas carries."""

DURA = 0.6
"""Thickness [mm] of the dura with the ligament that covers it (assumed)."""

CHUNK = 8000
"""Voxels worked on at a time; their points fit the cache of a processor."""

N_REGIONS = len(TRACTS)


@dataclass(frozen=True, eq=False)
class Interior:
    """Fractions of the voxels that touch the dural sac.

    Parameters
    ----------
    voxels : (m,) array
        Their positions in the flattened grid (C order).
    shares : tuple of (m, 36) float32 arrays
        Fraction of each region outside all lesions, then inside each of them.
    fluid, ring, dura : (m,) float32 arrays
        Fraction of fluid, of fluid within 1 mm of the cord, and of dura.
    coordinates : (m, 3) array
        Cord coordinates of the voxel's centre.
    """

    voxels: IntArray
    shares: tuple[FloatArray, ...]
    fluid: FloatArray
    ring: FloatArray
    dura: FloatArray
    coordinates: FloatArray

    @property
    def regions(self) -> FloatArray:
        """Fraction of each region (m, 36)."""
        return np.asarray(sum(self.shares[1:], self.shares[0]))

    @property
    def cord(self) -> FloatArray:
        """Fraction of cord (m,)."""
        return np.asarray(np.minimum(self.regions.sum(axis=1), 1))

    def weights(self, n_voxels: int) -> sparse.csr_array:
        """Fractions of regions and ring for the whole grid, (voxels, 37), columns as in a `Template`."""
        block = sparse.csr_array(np.concatenate([self.regions, self.ring[:, None]], axis=1))
        rows = np.repeat(self.voxels, np.diff(block.indptr))
        return sparse.csr_array((block.data, (rows, block.indices)), shape=(n_voxels, N_REGIONS + 1))


@dataclass(frozen=True)
class LesionPlace:
    """Where a lesion lies in cord coordinates.

    Parameters
    ----------
    centre : tuple of float
        Right, anterior [mm] and template height [mm].
    radius, half_length : float
        Across the cord [mm], and along it in template heights [mm].
    """

    centre: tuple[float, float, float]
    radius: float
    half_length: float

    def holds(self, cord: FloatArray) -> BoolArray:
        """Whether cord coordinates (..., 3) lie inside."""
        scaled = (cord - np.array(self.centre)) / np.array([self.radius, self.radius, self.half_length])
        return np.asarray((scaled**2).sum(axis=-1) <= 1)


def place_lesions(lesions: tuple[Lesion, ...], body: Body, length_factor: float) -> tuple[LesionPlace, ...]:
    """Centres of lesions: the centroid of their tract, so far above the middle of their level as they say."""
    edges = tables.level_edges()
    places = []
    for lesion in lesions:
        row = tables.LEVELS.index(lesion.level)
        height = float(edges[row] + edges[row + 1]) / 2 + lesion.offset / length_factor
        points, fractions, _ = cross_section(body, height)
        region = 2 * tables.HALF_TRACTS.index(lesion.tract) + (lesion.side == "right")
        weight = fractions[:, region]
        x, y = (points * weight[:, None]).sum(axis=0) / weight.sum()
        places.append(LesionPlace((float(x), float(y), height), lesion.radius, lesion.length / 2 / length_factor))
    return tuple(places)


def parts_of(lesions: tuple[LesionPlace, ...], cord: FloatArray) -> list[BoolArray]:
    """Which of some points (n, 3) lie in sound tissue, and in each lesion; where lesions overlap, in the first."""
    free = np.ones(len(cord), dtype=bool)
    parts = []
    for lesion in lesions:
        inside = free & lesion.holds(cord)
        parts.append(inside)
        free &= ~inside
    return [free, *parts]


def cross_section(body: Body, height: float, step: float = 0.1) -> tuple[FloatArray, FloatArray, float]:
    """Points (n, 2) [mm] inside the cord at one height, their regions (n, 36), and the area [mm2] of each."""
    axis = np.arange(-10, 10, step) + step / 2
    x, y = (a.ravel() for a in np.meshgrid(axis, axis, indexing="ij"))
    u, v = body.shape.at(height).disc(x, y)
    inside = np.hypot(u, v) <= 1
    fractions = tract_layout().fractions(u[inside], v[inside], np.full(int(inside.sum()), height))
    return np.stack([x[inside], y[inside]], axis=1), fractions, step**2


def sample_interior(
    body: Body, grid: Grid, parts: tuple[int, int, int], lesions: tuple[LesionPlace, ...], voxels: IntArray
) -> Interior:
    """Sample the voxels that may touch the dural sac.

    Parameters
    ----------
    body : Body
        Geometry.
    grid : Grid
        Grid of the series.
    parts : tuple of int
        Points along each edge of a voxel.
    lesions : tuple of LesionPlace
        Damaged ellipsoids.
    voxels : (m,) array
        Positions in the flattened grid, see `candidates`.
    """
    offsets = _offsets(grid, parts)
    pieces = []
    for start in range(0, len(voxels), CHUNK):
        centres = centres_of(grid, voxels[start : start + CHUNK])
        pieces.append((*_fractions(body, centres[:, None] + offsets, lesions), body.project(centres)))
    *shares, fluid, ring, dura, coordinates = (np.concatenate(p) for p in zip(*pieces, strict=True))
    touched = (sum(share.sum(axis=1) for share in shares) + fluid + dura) > 0
    fields = (fluid, ring, dura, coordinates)
    return Interior(voxels[touched], tuple(s[touched] for s in shares), *(f[touched] for f in fields))


def centres_of(grid: Grid, voxels: IntArray) -> FloatArray:
    """World coordinates (n, 3) of voxels given by their positions in the flattened grid."""
    index = np.unravel_index(voxels, grid.shape)
    return np.stack(
        [sum(grid.affine[r, c] * index[c] for c in range(3)) + grid.affine[r, 3] for r in range(3)], axis=-1
    )


def candidates(body: Body, grid: Grid, coordinates: FloatArray) -> BoolArray:
    """Whether voxels whose centres have these cord coordinates (n, 3) may touch the dural sac."""
    reach = np.linalg.norm(grid.affine[:3, :3], axis=0).sum() / 2 + DURA
    shape = body.shape
    x, y, height = coordinates.T
    wide = np.abs(x) < shape.canal_rl.max() / 2 + reach
    found = np.zeros(len(x), dtype=bool)
    section = shape.at(height[wide])
    deep = np.abs(y[wide] - section.canal_shift) < section.canal_ap / 2 + reach
    found[wide] = deep & (np.abs(x[wide]) < section.canal_rl / 2 + reach)
    return found


def _offsets(grid: Grid, parts: tuple[int, int, int]) -> FloatArray:
    """World vectors (p, 3) from the centre of a voxel to its points."""
    axes = [(np.arange(n) + 0.5) / n - 0.5 for n in parts]
    index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray(index @ grid.affine[:3, :3].T)


def _fractions(body: Body, points: FloatArray, lesions: tuple[LesionPlace, ...]) -> tuple[FloatArray, ...]:
    """Fractions of voxels from their points (m, p, 3)."""
    m, p, _ = points.shape
    cord = body.project(points.reshape(-1, 3))
    x, y, height = cord.T
    section = body.shape.at(height)
    u, v = section.disc(x, y)
    inside = np.hypot(u, v) <= 1
    sac = section.canal_radius(x, y)
    mean_radius = (section.canal_ap + section.canal_rl) / 4
    fluid = ~inside & (sac <= 1)
    dura = ~inside & (sac > 1) & ((sac - 1) * mean_radius <= DURA)
    ring = fluid & (np.hypot(*section.grown(RING).disc(x, y)) <= 1)
    rows = np.flatnonzero(inside)
    regions = tract_layout().fractions(u[rows], v[rows], height[rows])
    gather = sparse.csr_array(
        (np.full(len(rows), 1 / p, dtype=np.float32), (rows // p, np.arange(len(rows)))), shape=(m, len(rows))
    )
    if lesions:
        shares = [gather @ (regions * part[:, None]) for part in parts_of(lesions, cord[rows])]
    else:
        shares = [gather @ regions]
    means = (f.reshape(m, p).mean(axis=1, dtype=np.float32) for f in (fluid, ring, dura))
    return (*shares, *means)
