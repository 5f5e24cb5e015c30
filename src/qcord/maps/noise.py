"""Noise as estimators are given it."""

from collections.abc import Sequence

from qcord.core.image import Image
from qcord.core.noise import Gaussian
from qcord.core.series import Series
from qcord.estimate.blocks import noise_map


def gaussian_noise(sigma: Image | float | Sequence[float] | None, series: Series) -> Gaussian | None:
    """Normal noise of a series from its standard deviation; None where that is not known.

    Raises
    ------
    GridMismatch
        If a map lies on another grid.
    """
    level = noise_map(sigma, series.image.grid, len(series.protocol))
    return None if level is None else Gaussian(level)
