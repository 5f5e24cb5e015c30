"""A template of the cord: masks, levels and a partial-volume atlas in one straight space."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from qcord.core.arrays import FloatArray, IntArray
from qcord.core.errors import GridMismatch, UnknownName
from qcord.core.grid import Grid
from qcord.core.labels import Region


@dataclass(frozen=True, eq=False)
class Template:
    """A straight cord: its axis runs along the third voxel axis.

    Parameters
    ----------
    name : str
        Name in file names, such as ``PAM50``.
    version : str
        Release, for provenance.
    grid : Grid
        Grid of all arrays; a crop around the cord and its fluid.
    cord, white, gray : (x, y, z) float32 arrays
        Fraction of the voxel that is cord, white matter, gray matter.
    fluid : (x, y, z) float32 array
        Fraction that is cerebrospinal fluid between cord and dura.
    vertebrae : (x, y, z) uint8 array
        Number of the vertebral level (C1 = 1) in cord and fluid, 0 elsewhere.
    discs : mapping of str to float
        Name of a disc to its z [mm] on the cord's axis.
    vertebra_middles : mapping of str to float
        Name of a vertebra to the z [mm] of its middle.
    regions : tuple of Region
        Fields of the atlas.
    weights : (x * y * z, r) sparse CSR array
        Fraction of each voxel (C order) that belongs to each region.
    """

    name: str
    version: str
    grid: Grid
    cord: FloatArray
    white: FloatArray
    gray: FloatArray
    fluid: FloatArray
    vertebrae: IntArray
    discs: Mapping[str, float]
    vertebra_middles: Mapping[str, float]
    regions: tuple[Region, ...]
    weights: sparse.csr_array

    def __post_init__(self) -> None:
        for name in ("cord", "white", "gray", "fluid", "vertebrae"):
            array = getattr(self, name)
            if array.shape != self.grid.shape:
                raise GridMismatch(f"Template {self.name}: {name} has shape {array.shape}, expected {self.grid.shape}.")
        expected = (int(np.prod(self.grid.shape)), len(self.regions))
        if self.weights.shape != expected:
            raise GridMismatch(f"Template {self.name}: atlas has shape {self.weights.shape}, expected {expected}.")

    @property
    def region_names(self) -> tuple[str, ...]:
        """Names of the fields of the atlas."""
        return tuple(r.name for r in self.regions)

    def region_field(self, name: str) -> FloatArray:
        """Fraction of each voxel that belongs to one region, (x, y, z).

        Raises
        ------
        UnknownName
            If the atlas has no such region.
        """
        if name not in self.region_names:
            raise UnknownName(f"Template {self.name} has no region '{name}'.")
        column = self.weights[:, [self.region_names.index(name)]]
        return np.asarray(column.toarray(), dtype=np.float32).reshape(self.grid.shape)

    @property
    def slice_heights(self) -> FloatArray:
        """World z [mm] of each slice."""
        k = np.arange(self.grid.shape[2])
        return np.asarray(self.grid.world(np.stack([0 * k, 0 * k, k], axis=-1))[:, 2])
