"""The atlas on the grid of an image: which fraction of each voxel belongs to which region."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from qcord.anatomy.levels import vertebra_at
from qcord.anatomy.register import PlacementError, Registration
from qcord.anatomy.sample import FINEST, interpolation_matrix, neighbourhood, subdivisions, subvoxel_offsets
from qcord.core.arrays import BoolArray, FloatArray, IntArray
from qcord.core.errors import EmptyRegion, ImplausibleValue
from qcord.core.grid import Grid, require_same_grid
from qcord.core.image import Image, mask_of
from qcord.core.labels import CSF, Region, vertebra_name

MARGIN = 5.0
"""Distance [mm] from the cord mask to which the atlas is projected; the fluid ring takes part in the unmixing."""

FRACTION_MARGIN = 0.5
"""How far interpolation may take a fraction beyond 0 and 1; percentages and labels lie further off."""

BLURRED = 2.0
"""Voxels of a template over which these, and interpolation between them, blur the edge of the cord. Where that is more
than the distance of the points at which it is looked up, voxels inside the edge seem to hold fluid: MD came out 2 %
low."""

NEGLIGIBLE = 1e-3
"""Fractions below this are interpolation residue."""


@dataclass(frozen=True, eq=False)
class Atlas:
    """Fractions of regions in the voxels of an image.

    Parameters
    ----------
    grid : Grid
        Grid of the image.
    index : (n, 3) int array
        Voxels that any region touches.
    weights : (n, r) array
        Fraction of each voxel that belongs to each region.
    regions : tuple of str
        Names of the r regions.
    levels : tuple of str
        Vertebral level of each slice; empty where unknown or outside the template.
    template : str
        Name and version of the template.
    assumed_level : bool
        Whether the position along the cord was assumed.
    displaced : (p, n, r) array
        Change of the weights when the outline of the cord is off by one standard deviation, in p ways; none if the
        placement is taken as exact.
    """

    grid: Grid
    index: IntArray
    weights: FloatArray
    regions: tuple[str, ...]
    levels: tuple[str, ...]
    template: str = ""
    assumed_level: bool = False
    displaced: FloatArray | None = None

    def field(self, region: str) -> FloatArray:
        """Fraction of one region in each voxel of the grid."""
        volume = np.zeros(self.grid.shape, dtype=np.float32)
        volume[tuple(self.index.T)] = self.weights[:, self.regions.index(region)]
        return volume


def project_atlas(registration: Registration, cord: Image, placement: PlacementError | None = None) -> Atlas:
    """Bring the template's atlas to the grid of an image.

    Parameters
    ----------
    registration : Registration
        Of this image.
    cord : Image
        The mask or fraction of cord that was registered.
    placement : PlacementError, optional
        How far the outline may be off; enters the errors of regional values.

    Returns
    -------
    Atlas
        Each fraction is a mean over sub-voxel samples, across the slice too, so that partial volume is that of
        the image.
    """
    template = registration.template
    index = neighbourhood(mask_of(cord, cord.grid, "cord"), cord.grid, MARGIN)
    weights = _fractions(registration, cord.grid, index)
    touched = weights.any(axis=1)
    displaced = None
    if placement is not None:
        others = placement.displaced(registration)
        displaced = np.stack([_fractions(o, cord.grid, index[touched]) - weights[touched] for o in others])
    return Atlas(
        grid=cord.grid,
        index=index[touched],
        weights=weights[touched],
        regions=template.region_names,
        levels=slice_levels(registration),
        template=f"{template.name} {template.version}",
        assumed_level=registration.levels.assumed,
        displaced=displaced,
    )


def _fractions(registration: Registration, grid: Grid, index: IntArray) -> FloatArray:
    """Fractions (n, r) of the regions in voxels of an image."""
    template = registration.template
    voxels = index.astype(float)
    offsets = subvoxel_offsets(subdivisions(grid))
    total = np.zeros((len(index), len(template.regions)))
    fluid = np.array([name == CSF for name in template.region_names])
    steep = max(1.0, BLURRED * template.grid.spacing[0] / FINEST[0])
    for offset in offsets:
        places = registration.to_template(grid.world(voxels + offset))
        there = (interpolation_matrix(template.grid, template.grid.index(places)) @ template.weights).toarray()
        total += _sharpened(there, fluid, steep)
    weights = total / len(offsets)
    weights[weights < NEGLIGIBLE] = 0
    return weights


def _sharpened(weights: FloatArray, fluid: BoolArray, steep: float) -> FloatArray:
    """Fractions (n, r) around points, with an edge between cord and fluid that is so many times as steep.

    What is fluid is told by ``fluid`` (r,). Cord and fluid together stay as they are, as do the shares of the regions
    of the cord among each other.
    """
    cord, outer = (weights[:, part].sum(axis=1) for part in (~fluid, fluid))
    both = cord + outer
    share = np.clip(0.5 + steep * (_ratio(cord, both) - 0.5), 0, 1)
    scale = _ratio(share * both, cord), _ratio((1 - share) * both, outer)
    return np.asarray(weights * np.where(fluid, scale[1][:, None], scale[0][:, None]))


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def slice_levels(registration: Registration) -> tuple[str, ...]:
    """Vertebral level at the axis of each slice; empty outside the template, and where the position is assumed."""
    heights = registration.levels.height_at(registration.subject_length)
    numbers = vertebra_at(registration.template, heights)
    if registration.levels.assumed:
        numbers = np.zeros_like(numbers)
    present = registration.subject.present
    return tuple(vertebra_name(int(n)) if n and p else "" for n, p in zip(numbers, present, strict=True))


def native_atlas(
    grid: Grid, regions: Sequence[Region], weights: sparse.csr_array, levels: Image | None = None
) -> Atlas:
    """Use atlas fields that other software brought to the grid of an image.

    Parameters
    ----------
    grid : Grid
        Grid of the fields.
    regions : sequence of Region
        Their names.
    weights : (n_voxels, r) sparse array
        Their values, voxels in C order.
    levels : Image, optional
        Map of vertebral levels; a slice has the level that most of its voxels carry.

    Raises
    ------
    ImplausibleValue
        If the fields are no fractions.
    EmptyRegion
        If they are zero everywhere.
    """
    dense = np.asarray(weights.toarray(), dtype=float)
    odd = dense[~((dense > -FRACTION_MARGIN) & (dense < 1 + FRACTION_MARGIN))]
    if odd.size:
        raise ImplausibleValue(
            f"A field of the atlas holds {odd[0]:g}, expected fractions of voxels from 0 to 1; check how the fields "
            "were brought to the image."
        )
    if not (dense > 0).any():
        raise EmptyRegion("The fields of the atlas are 0 everywhere; check that they lie on the image.")
    rows = np.flatnonzero(dense.any(axis=1))
    index = np.stack(np.unravel_index(rows, grid.shape), axis=-1)
    names = [""] * grid.shape[2]
    if levels is not None:
        require_same_grid(levels.grid, grid, levels.label, "the atlas")
        for k in range(grid.shape[2]):
            values = np.rint(levels.data[:, :, k][levels.data[:, :, k] > 0]).astype(int)
            names[k] = vertebra_name(int(np.bincount(values).argmax())) if values.size else ""
    return Atlas(grid, index, dense[rows], tuple(r.name for r in regions), tuple(names))
