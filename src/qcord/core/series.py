"""Series: an image whose last axis runs over the rows of a protocol."""

from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import AnyArray, ArrayLike
from qcord.core.errors import GridMismatch
from qcord.core.image import Image
from qcord.core.protocol import Protocol


@dataclass(frozen=True, eq=False)
class Series:
    """Measurements of one volume under several settings.

    Parameters
    ----------
    image : Image
        Data of shape (x, y, z, n).
    protocol : Protocol
        n rows.

    Raises
    ------
    GridMismatch
        If volumes and rows differ in number.
    """

    image: Image
    protocol: Protocol

    def __post_init__(self) -> None:
        if self.image.n_volumes != len(self.protocol):
            raise GridMismatch(
                f"{self.image.label} has {self.image.n_volumes} volumes, {self.protocol.source or 'its protocol'} "
                f"describes {len(self.protocol)}; the numbers must be equal: check the gradient or sidecar files."
            )

    @property
    def data(self) -> AnyArray:
        """Data of shape (x, y, z, n)."""
        data = self.image.data
        return data if data.ndim == 4 else data[..., None]

    def take(self, rows: ArrayLike) -> "Series":
        """Return the selected measurements."""
        index = np.asarray(rows)
        return Series(self.image.derive(self.data[..., index]), self.protocol.take(index))
