"""Diffusion in compartments: dispersed sticks, the hindered space around them, and free water.

This is what the cord of a phantom is made of where a protocol has several shells or b-tensor shapes, so that every
model that is fitted to such a scan meets the same truth, and a truth that is not its own formula.
"""

from collections.abc import Mapping

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.core.protocol import Protocol
from qcord.models.tensor import b_matrix

FREE_WATER = 3.0e-3
"""Diffusivity [mm2/s] of free water at body temperature."""

_POLAR, _TURNS = 24, 24
_FALL = 18.0
_SMALLEST_ODI = 1e-3

Values = Mapping[str, FloatArray]


def watson_axes(odi: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Cosines (..., q) to the mean axis, and weights (..., q) that add up to 1, of a Watson distribution.

    Parameters
    ----------
    odi : (...) array
        Orientation dispersion index, two over pi times the arc cotangent of the concentration.

    Notes
    -----
    Gauss-Legendre nodes on the part of the half sphere where the density is above exp(-36) of its top, drawn towards
    the axis by a square.
    """
    node, weight = np.polynomial.legendre.leggauss(_POLAR)
    node, weight = (node + 1) / 2, weight / 2
    kappa = 1 / np.tan(np.pi / 2 * np.clip(odi, _SMALLEST_ODI, 1 - 1e-12))[..., None]
    reach = np.minimum(1.0, _FALL / np.maximum(kappa, 1e-6))
    cosine = 1 - reach * node**2
    density = np.exp(kappa * (cosine**2 - 1)) * reach * 2 * node * weight
    return cosine, density / density.sum(axis=-1, keepdims=True)


def alignment(odi: FloatArray) -> FloatArray:
    """Mean square cosine (...) between neurites and their mean axis."""
    cosine, weight = watson_axes(odi)
    return np.asarray((weight * cosine**2).sum(axis=-1))


def compartment_signal(values: Values, protocol: Protocol, tangent: FloatArray) -> FloatArray:
    """Signal of tissues, 1 without diffusion weighting.

    Parameters
    ----------
    values : mapping of str to (h, t) array
        ICVF, ODI, ISOVF, and DPAR [mm2/s] of t tissues at h heights.
    protocol : Protocol
        BValue [s/mm2], Direction; BDelta and SecondDirection where encoding is not linear.
    tangent : (h, 3) array
        Mean direction of the neurites in the world.

    Returns
    -------
    (h, t, n) array
        Signal. Diffusivities of the hindered space are those of the tortuosity limit, averaged as a tensor over the
        neurites; there is no diffusion across sticks.

    References
    ----------
    Zhang et al. 2012, doi:10.1016/j.neuroimage.2012.03.072 (the three compartments);
    Panagiotaki et al. 2012, doi:10.1016/j.neuroimage.2011.09.081 (sticks, zeppelins, balls).
    """
    weights = b_matrix(protocol)
    inside, outside, free = (values[m][..., None] for m in ("ICVF", "ODI", "ISOVF"))
    hindered = np.exp(-np.einsum("htk,nk->htn", hindered_tensor(values, tangent[:, None]), weights))
    sticks = np.empty_like(hindered)
    for tissue in range(outside.shape[1]):
        sticks[:, tissue] = _sticks(values["ODI"][:, tissue], values["DPAR"][:, tissue], weights, tangent)
    trace = weights[:, :3].sum(axis=1)
    return np.asarray((1 - free) * (inside * sticks + (1 - inside) * hindered) + free * np.exp(-FREE_WATER * trace))


def _sticks(odi: FloatArray, diffusivity: FloatArray, weights: FloatArray, tangent: FloatArray) -> FloatArray:
    """Signal (h, n) of dispersed sticks by quadrature over their axes."""
    cosine, share = watson_axes(odi)
    turn = 2 * np.pi * (np.arange(_TURNS) + 0.5) / _TURNS
    side = np.cross(tangent, np.array([1.0, 0.0, 0.0]))
    side /= np.linalg.norm(side, axis=-1, keepdims=True)
    other = np.cross(tangent, side)
    total = np.zeros((len(odi), len(weights)))
    sine = np.sqrt(1 - cosine**2)
    for angle in turn:
        across = np.cos(angle) * side + np.sin(angle) * other
        axis = cosine[..., None] * tangent[:, None] + sine[..., None] * across[:, None]
        exponent = np.einsum("hqk,nk->hqn", _dyads(axis), weights) * diffusivity[:, None, None]
        total += np.einsum("hq,hqn->hn", share, np.exp(-exponent)) / _TURNS
    return total


def hindered_tensor(values: Values, tangent: FloatArray) -> FloatArray:
    """Tensors (..., 6) [mm2/s] of the space around neurites: xx, yy, zz, xy, xz, yz."""
    spread, inside, along = alignment(values["ODI"]), values["ICVF"], values["DPAR"]
    return _symmetric(along * (1 - inside * (1 - spread)), along * (1 - inside * (1 + spread) / 2), tangent)


def mean_tensor(values: Values, tangent: FloatArray) -> FloatArray:
    """Mean diffusion tensors (..., 6) [mm2/s]: what the signal shows at vanishing b-value."""
    spread, along = alignment(values["ODI"]), values["DPAR"]
    inside, free = values["ICVF"][..., None], values["ISOVF"][..., None]
    sticks = _symmetric(along * spread, along * (1 - spread) / 2, tangent)
    tissue = inside * sticks + (1 - inside) * hindered_tensor(values, tangent)
    water = FREE_WATER * np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    return np.asarray((1 - free) * tissue + free * water)


def _symmetric(along: FloatArray, across: FloatArray, tangent: FloatArray) -> FloatArray:
    unit = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    return np.asarray(across[..., None] * unit + (along - across)[..., None] * _dyads(tangent))


def _dyads(axis: FloatArray) -> FloatArray:
    x, y, z = np.moveaxis(axis, -1, 0)
    return np.stack([x * x, y * y, z * z, x * y, x * z, y * z], axis=-1)
