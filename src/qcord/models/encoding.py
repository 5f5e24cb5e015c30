"""Diffusion encoding: the b-tensor of each measurement, from the columns of a protocol.

The columns, one row a measurement:

* ``BValue`` [s/mm2]: trace of the b-tensor.
* ``Direction`` (n, 3): unit vector along the symmetry axis of the b-tensor, in world axes: the gradient direction of
  a linear tensor, the normal of the plane of a planar one. It does not matter for a spherical one.
* ``BDelta``: shape of an axisymmetric b-tensor, 1 linear, 0 spherical, -1/2 planar, or between. Without the column
  all are linear.
* ``SecondDirection`` (n, 3): direction of the second block of double diffusion encoding, zero for rows of single
  encoding; without the column there is none. Both blocks have the same b-value, half of ``BValue``, and the mixing
  time is long, so that the b-tensors of the blocks add up: a parallel or antiparallel pair is a linear tensor of
  ``BValue`` along ``Direction``, a perpendicular pair a planar one with the normal of both directions. ``BDelta`` of
  such a row is not read.
"""

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.core.errors import ImplausibleValue
from qcord.core.protocol import Protocol

LINEAR, SPHERICAL, PLANAR = 1.0, 0.0, -0.5

UNWEIGHTED = 50.0
"""b-value [s/mm2] up to which a measurement counts as one without diffusion weighting."""

_TRACE = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]) / 3


def b_tensors(protocol: Protocol) -> FloatArray:
    """B-tensors (n, 6) [s/mm2]: elements xx, yy, zz, xy, xz, yz in world axes.

    A weighted measurement whose direction is zero (a trace image, or a low b-value whose direction was not kept)
    counts as equally weighted in all directions.

    Raises
    ------
    MissingMetadata
        If there are no b-values, or no directions where the shape needs them.

    References
    ----------
    Westin et al. 2016, doi:10.1016/j.neuroimage.2016.02.039;
    Eriksson et al. 2015, doi:10.1063/1.4913502 (axisymmetric parametrisation).
    """
    b = protocol["BValue"]
    if "Direction" not in protocol and not shape(protocol)[np.asarray(b > 0)].any():
        return np.asarray(b[:, None] * _TRACE)
    direction = protocol["Direction"]
    shapes = _dyads(direction)
    if "BDelta" in protocol:
        delta = protocol["BDelta"][:, None]
        shapes = (1 - delta) * _TRACE + delta * shapes
    if "SecondDirection" in protocol:
        second = protocol["SecondDirection"]
        shapes = np.where(second.any(axis=1, keepdims=True), (_dyads(direction) + _dyads(second)) / 2, shapes)
    shapes[~direction.any(axis=1)] = _TRACE
    return np.asarray(b[:, None] * shapes)


def shape(protocol: Protocol) -> FloatArray:
    """Shape (n,) of the b-tensors: ``BDelta``, 1 without it, that of the pair where there is a second direction.

    A pair at an angle that is neither 0 nor 90 degrees has a b-tensor without symmetry axis; it gets the shape of the
    axisymmetric one with the same second invariant, which has the same weight in the variance of the signal.

    Raises
    ------
    MissingMetadata
        If a column holds gaps.
    """
    n = len(protocol)
    delta = protocol["BDelta"] if "BDelta" in protocol else np.full(n, LINEAR)
    if "SecondDirection" not in protocol:
        return np.asarray(delta)
    second = protocol["SecondDirection"]
    squared = (protocol["Direction"] * second).sum(axis=1) ** 2
    size = np.sqrt((1 + 3 * squared) / 4)
    paired = np.where(squared > 1 / 9, size, -size)  # the sign is that of the third invariant
    return np.asarray(np.where(second.any(axis=1), paired, delta))


def require_linear(protocol: Protocol, model: str) -> None:
    """For models that know linear encoding only.

    Raises
    ------
    ImplausibleValue
        If a weighted measurement has a b-tensor of another shape.
    """
    delta = shape(protocol)
    odd = np.flatnonzero((protocol["BValue"] > UNWEIGHTED) & (np.abs(delta - LINEAR) > 1e-3))
    if odd.size:
        raise ImplausibleValue(
            f"Volume {odd[0]} of {protocol.source or 'the series'} has a b-tensor of shape {delta[odd[0]]:g}, model "
            f"{model} knows linear encoding (1) only; leave out the {odd.size} volumes of other shapes."
        )


def _dyads(direction: FloatArray) -> FloatArray:
    """Products (n, 6) of the components of vectors (n, 3)."""
    x, y, z = direction.T
    return np.stack([x * x, y * y, z * z, x * y, x * z, y * z], axis=1)
