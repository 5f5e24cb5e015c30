"""What the receive coil sees: a smooth field, strongest at the back of the neck."""

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.template import tables

COIL_DEPTH, COIL_RADIUS = 55.0, 50.0
"""Distance [mm] of the coil behind the cord, and over which its sensitivity halves (assumed)."""

REACH_BELOW, REACH_ABOVE = 120.0, 160.0
"""Distances [mm] along the cord over which the sensitivity falls to 1/e (assumed)."""


def receive_field(coordinates: FloatArray) -> FloatArray:
    """Sensitivity (n,) of a coil behind the neck, 1 in the cord at the middle of C4 (assumed).

    Parameters
    ----------
    coordinates : (n, 3) array
        Cord coordinates: right, anterior and height [mm].
    """
    edges = tables.level_edges()
    middle = (edges[3] + edges[4]) / 2
    depth = np.maximum(coordinates[:, 1] + COIL_DEPTH, 0)
    across = (1 + (COIL_DEPTH / COIL_RADIUS) ** 2) / (1 + (depth / COIL_RADIUS) ** 2)
    below = np.minimum(coordinates[:, 2] - middle, 0)
    above = np.maximum(coordinates[:, 2] - middle, 0)
    along = np.exp(-((below / REACH_BELOW) ** 2) - (above / REACH_ABOVE) ** 2)
    return np.asarray(across * along, dtype=np.float32)
