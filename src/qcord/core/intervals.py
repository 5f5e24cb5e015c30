"""Intervals of the values of a fit."""

from collections.abc import Mapping
from dataclasses import dataclass

from qcord.core.image import Image


@dataclass(frozen=True, eq=False)
class Intervals:
    """Ranges that hold the truth with a given chance.

    Parameters
    ----------
    model : str
        Name of the model.
    level : float
        Chance, such as .95.
    lower, upper : mapping of str to Image
        Metric name to the ends, in the unit of the metric. An end of the metric's range, where the measurements rule
        nothing out on that side; NaN where `flag` says that there is no value, or no error.
    flag : Image
        `qcord.core.flags.Flag` of each voxel.
    """

    model: str
    level: float
    lower: Mapping[str, Image]
    upper: Mapping[str, Image]
    flag: Image
