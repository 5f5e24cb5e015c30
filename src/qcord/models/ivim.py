"""Intravoxel incoherent motion: diffusion, and blood that moves through capillaries in all directions."""

import numpy as np

from qcord.core.arrays import AnyArray, BoolArray, FloatArray
from qcord.core.errors import NotIdentifiable
from qcord.core.model import SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol

LOW = 200.0
"""b-value [s/mm2] from which on hardly any signal of moving blood is left."""

_FASTEST = 0.2
_SLOWEST = 5e-3
_GRID = np.geomspace(_SLOWEST, 0.15, 12)


def signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Signal of tissue and of moving blood.

    Parameters
    ----------
    theta : (..., 4) array
        S0 [1], f [1], Dstar [mm2/s], D [mm2/s].
    protocol : Protocol
        BValue [s/mm2].
    given : (..., 0) array
        Nothing.

    Returns
    -------
    (..., n) array
        Signal, unit of S0.

    Notes
    -----
    D is one number: average the directions, or fit volumes of one direction.

    References
    ----------
    Le Bihan et al. 1988, doi:10.1148/radiology.168.2.3393671.
    """
    b, fraction = protocol["BValue"], theta[..., 1:2]
    blood, tissue = np.exp(-b * theta[..., 2:3]), np.exp(-b * theta[..., 3:4])
    return np.asarray(theta[..., :1] * (fraction * blood + (1 - fraction) * tissue))


def start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 4) in segments: D from b >= 200 s/mm2, then the fastest fit of f over a grid of Dstar."""
    b = protocol["BValue"]
    top = np.fmax(np.fmax.reduce(measured, axis=-1, keepdims=True), 1e-300)
    relative = np.fmax(measured, 1e-3 * top) / top
    high = b >= LOW if np.unique(b[b >= LOW]).size > 1 else b >= np.median(b)
    diffusivity = np.clip(_slope(np.log(relative[..., high]), b[high]), 1e-5, 4.5e-3)
    tissue = np.exp(-b * diffusivity[..., None])
    blood = np.exp(-np.multiply.outer(_GRID, b))
    # amplitudes of both by least squares for each Dstar of the grid; blood's only where it is not negative
    tt, bb = np.einsum("...n,...n->...", tissue, tissue)[..., None], np.einsum("gn,gn->g", blood, blood)
    tb, ty = np.einsum("...n,gn->...g", tissue, blood), np.einsum("...n,...n->...", tissue, relative)[..., None]
    by = np.einsum("...n,gn->...g", relative, blood)
    both = np.maximum(tt * bb - tb * tb, 1e-12 * tt * bb)
    moving = np.maximum((by * tt - ty * tb) / both, 0)
    still = np.maximum((ty - moving * tb) / tt, 1e-3)
    gain = 2 * (moving * by + still * ty - moving * still * tb) - moving**2 * bb - still**2 * tt
    best = np.argmax(gain, axis=-1)[..., None]
    moving, still = (np.take_along_axis(a, best, axis=-1)[..., 0] for a in (moving, still))
    fraction = np.clip(moving / (moving + still), 0.01, 0.6)
    return np.stack([top[..., 0] * (moving + still), fraction, _GRID[best[..., 0]], diffusivity], axis=-1)


def _slope(logs: FloatArray, b: FloatArray) -> FloatArray:
    """Decay [mm2/s] of logarithms (..., k) with b (k,), each weighted by its squared signal."""
    weight = np.exp(2 * logs)
    total = weight.sum(axis=-1)
    middle = (weight * b).sum(axis=-1) / total
    apart = weight * (b - middle[..., None])
    return np.asarray(-(apart * logs).sum(axis=-1) / np.maximum((apart * b).sum(axis=-1), 1e-300))


def require_segments(protocol: Protocol) -> None:
    """Raise unless there are b-values for both the moving blood and the tissue.

    Raises
    ------
    NotIdentifiable
        If there are fewer than three b-values between 0 and 200 s/mm2, fewer than two from there on, or none at 0.
    """
    b = protocol["BValue"]
    levels = np.unique(np.round(b))
    low: BoolArray = np.asarray((levels > 0) & (levels < LOW))
    high: BoolArray = np.asarray(levels >= LOW)
    if low.sum() < 3 or high.sum() < 2 or levels.max() < 2 * LOW or len(levels) < 6:
        raise NotIdentifiable(
            f"{protocol.source or 'The series'} has {low.sum()} b-values between 0 and {LOW:g} and {high.sum()} from "
            f"there on, expected at least 3 and 2 (up to {2 * LOW:g} s/mm2 or more) besides b = 0 for intravoxel "
            "incoherent motion; it needs another acquisition."
        )


def example() -> Protocol:
    """Protocol of 13 b-values from 0 to 800 s/mm2, six volumes each."""
    levels = [0.0, 10.0, 20.0, 30.0, 50.0, 75.0, 100.0, 150.0, 200.0, 300.0, 400.0, 600.0, 800.0]
    return Protocol({"BValue": np.repeat(levels, 6)})


IVIM = SignalModel(
    name="ivim",
    free=(
        Parameter("S0", "1", (0.0, np.inf), 1.0, "signal without diffusion weighting"),
        Parameter("f", "1", (0.0, 1.0), 0.1, "part of the signal from moving blood"),
        Parameter("Dstar", "mm2/s", (_SLOWEST, _FASTEST), 0.015, "pseudo-diffusivity of moving blood"),
        Parameter("D", "mm2/s", (0.0, _SLOWEST), 1e-3, "diffusivity of tissue"),
    ),
    needs=("BValue",),
    signal=signal,
    references=("Le Bihan et al. 1988, doi:10.1148/radiology.168.2.3393671",),
    start=start,
    title="Intravoxel incoherent motion: blood fraction, pseudo-diffusivity and diffusivity",
    example=example,
    typical=(
        Typical(
            "white matter, 3 T",
            {"S0": 1.0, "f": 0.08, "Dstar": 0.015, "D": 0.9e-3},
            "plausible values; blood volume is lower than in gray matter",
            "assumed",
        ),
        Typical(
            "gray matter, 3 T",
            {"S0": 1.0, "f": 0.15, "Dstar": 0.015, "D": 0.85e-3},
            "plausible values; blood volume is higher than in white matter",
            "assumed",
        ),
    ),
)
"""The two-compartment model of intravoxel incoherent motion."""
