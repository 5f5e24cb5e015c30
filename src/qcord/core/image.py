"""Images: values on a grid, with unit, name and history."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from qcord.core.arrays import AnyArray, BoolArray
from qcord.core.entities import Entities
from qcord.core.errors import EmptyRegion, GridMismatch, ImplausibleValue
from qcord.core.grid import Grid, require_same_grid


@dataclass(frozen=True)
class Step:
    """One line of an image's history.

    Parameters
    ----------
    name : str
        The function that made the image.
    settings : mapping
        Its settings, as JSON can hold them.
    references : tuple of str
        Citations (authors, year, DOI) of the method.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    references: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Image:
    """Values on a grid.

    Parameters
    ----------
    data : (x, y, z) or (x, y, z, n) array
        Read-only from here on; axes run closest to right, anterior, superior.
    grid : Grid
        Where the voxels lie.
    unit : str
        Key of `qcord.core.units.UNITS`.
    entities : Entities
        BIDS name of the image.
    history : tuple of Step
        What was done to it, oldest first.
    metadata : mapping
        Content of the BIDS sidecar.
    source : str
        File that it was read from, for messages and ``Sources``; relative to the data set where there is one.

    Raises
    ------
    GridMismatch
        If the shape of the data is not that of the grid.
    """

    data: AnyArray
    grid: Grid
    unit: str = "1"
    entities: Entities = field(default_factory=Entities)
    history: tuple[Step, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        if self.data.shape[:3] != self.grid.shape or self.data.ndim not in {3, 4}:
            raise GridMismatch(
                f"{self.label} holds an array of shape {self.data.shape}, expected {self.grid.shape} "
                "with at most one more axis."
            )
        view = self.data.view()
        view.flags.writeable = False
        object.__setattr__(self, "data", view)

    @property
    def label(self) -> str:
        """Name for messages: the file, else the BIDS name, else ``image``."""
        return self.source or (self.entities.name if self.entities.suffix else "") or "image"

    @property
    def n_volumes(self) -> int:
        """Number of volumes; 1 for a single one."""
        return 1 if self.data.ndim == 3 else int(self.data.shape[3])

    def derive(self, data: AnyArray, step: Step | None = None, **changes: Any) -> "Image":
        """Return an image on the same grid with other data, and the step added to the history."""
        history = self.history if step is None else (*self.history, step)
        return replace(self, data=data, **{"history": history, **changes})

    def volume(self, index: int) -> "Image":
        """Return one volume of a series as a 3-D image."""
        return self if self.data.ndim == 3 else self.derive(self.data[..., index])


def mask_of(image: Image | None, grid: Grid, what: str = "the mask") -> BoolArray:
    """Return a mask as booleans on ``grid``; without a mask, all voxels.

    Raises
    ------
    GridMismatch
        If the mask lies on another grid.
    ImplausibleValue
        If it holds several volumes.
    EmptyRegion
        If it holds no voxel.
    """
    if image is None:
        return np.ones(grid.shape, dtype=bool)
    require_same_grid(image.grid, grid, image.label, "the image it is used for")
    if image.n_volumes > 1:
        raise ImplausibleValue(
            f"{image.label} ({what}) holds {image.n_volumes} volumes, expected one; choose one or join them."
        )
    with np.errstate(invalid="ignore"):
        mask = np.asarray(image.data.reshape(grid.shape) > 0.5)
    if not mask.any():
        raise EmptyRegion(f"{image.label} ({what}) holds no voxel above 0.5, expected at least one; check the file.")
    return mask
