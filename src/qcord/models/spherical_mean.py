"""Spherical mean technique: what the mean over directions tells of the tissue, whatever the directions of its fibres.

The mean over all gradient directions of the signal of one shell does not depend on how fibres are oriented, only on
diffusion within and around each. Two models of that are here:

* ``smt``: all micro-environments have the same axisymmetric tensor. Its parameters are the mean diffusivity and the
  normalised anisotropy ``MicroDelta``, 0 for a sphere and 1 for a stick, which together cover what physics allows:
  diffusivities along the axis, ``MicroAD``, and across, ``MicroRD``, with the first the larger. Flat tensors, which two
  shells hardly tell from long ones, are left out as in the paper.
* ``smt-mc``: sticks, and the space around them with the same diffusivity along the axis and, across, that of the
  tortuosity limit. Unlike in NODDI, the diffusivity is estimated and no distribution of axes is assumed; there is no
  free water, so that a voxel with cerebrospinal fluid shows too few neurites and too high a diffusivity.

Rows of the protocol are powder averages (`qcord.maps.powder`).
"""

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import NotIdentifiable
from qcord.core.model import Derived, Signal, SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.models.encoding import UNWEIGHTED, require_linear

FASTEST = 5e-3
"""Largest diffusivity [mm2/s] that a fit may reach, above that of free water at body temperature."""

_ROUNDEST = 0.01
"""Least anisotropy of a fit: at 0 the signal does not change with it, so that no error could be stated."""

_FEW = 256
"""Voxels whose table fits the cache."""

_REACHES = ((1, 0), (6, 1), (9, 4), (12, 10), (15, 20))
"""Nodes of half the sphere, and the exponent up to which they are exact."""

_RULES = tuple((reach, np.polynomial.legendre.leggauss(2 * count)) for count, reach in _REACHES)
_LONGEST = np.polynomial.legendre.leggauss(40)


def mean_of_axis(along: AnyArray, across: AnyArray, b: FloatArray) -> AnyArray:
    """Spherical mean (..., n) of the signal of an axisymmetric tensor.

    The integral over the cosine between gradient and axis, by as many Gauss-Legendre nodes as make it exact to 1e-12 up
    to 40 times b-value and diffusivity, and without a special case where the tensor is a sphere.

    Parameters
    ----------
    along, across : (..., 1) array
        Diffusivity along the axis and across it [mm2/s].
    b : (n,) array
        b-values [s/mm2].
    """
    apart = along - across
    reach = float(np.max(np.abs(np.real(apart)), initial=0.0) * np.max(b, initial=0.0))
    nodes, weights = next((rule for limit, rule in _RULES if reach <= limit), _LONGEST)
    half = len(nodes) // 2  # the integrand is even
    around, spread = -b * across, -b * apart
    pairs = zip(nodes[half:], weights[half:], strict=True)
    return np.asarray(sum(w * np.exp(around + spread * x**2) for x, w in pairs))


def tensor_signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Spherical mean where all micro-environments have one tensor.

    Parameters
    ----------
    theta : (..., 3) array
        S0 [1], MicroMD [mm2/s], MicroDelta [1].
    protocol : Protocol
        BValue [s/mm2]; one row an average.
    given : (..., 0) array
        Nothing.

    Returns
    -------
    (..., n) array
        Signal, unit of S0.

    References
    ----------
    Kaden, Kruggel and Alexander 2016, doi:10.1002/mrm.25734.
    """
    mean, delta = theta[..., 1:2], theta[..., 2:3]
    return np.asarray(theta[..., :1] * mean_of_axis(mean * (1 + 2 * delta), mean * (1 - delta), protocol["BValue"]))


def compartment_signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Spherical mean of sticks and the space around them.

    Parameters
    ----------
    theta : (..., 3) array
        S0 [1], NeuriteFraction [1], NeuriteDiffusivity [mm2/s].
    protocol : Protocol
        BValue [s/mm2]; one row an average.
    given : (..., 0) array
        Nothing.

    Returns
    -------
    (..., n) array
        Signal, unit of S0.

    References
    ----------
    Kaden et al. 2016, doi:10.1016/j.neuroimage.2016.06.002.
    """
    fraction, along = theta[..., 1:2], theta[..., 2:3]
    b = protocol["BValue"]
    inside = mean_of_axis(along, 0 * along, b)
    around = mean_of_axis(along, (1 - fraction) * along, b)
    return np.asarray(theta[..., :1] * (fraction * inside + (1 - fraction) * around))


def axial(theta: AnyArray) -> AnyArray:
    """Diffusivity along the axis of micro-environments, from theta (..., 3)."""
    return np.asarray(theta[..., 1] * (1 + 2 * theta[..., 2]))


def radial(theta: AnyArray) -> AnyArray:
    """Diffusivity across the axis of micro-environments, from theta (..., 3)."""
    return np.asarray(theta[..., 1] * (1 - theta[..., 2]))


def anisotropy(theta: AnyArray) -> AnyArray:
    """Fractional anisotropy of micro-environments, from theta (..., 3).

    References
    ----------
    Kaden, Kruggel and Alexander 2016, doi:10.1002/mrm.25734.
    """
    delta = theta[..., 2]
    return np.asarray(delta * np.sqrt(3 / (1 + 2 * delta**2)))


def require_averages(protocol: Protocol) -> None:
    """Raise unless powder averages determine both models.

    Raises
    ------
    NotIdentifiable
        If there are not b = 0 and two other b-values, one of them of 1000 s/mm2 or more.
    ImplausibleValue
        If encoding is not linear.
    """
    require_linear(protocol, "smt")
    b = protocol["BValue"]
    shells = np.unique(b[b > UNWEIGHTED].round())
    apart = len(shells) > 1 and shells[-1] >= 950 and shells[-1] - shells[0] >= 300
    if not apart or not (b <= UNWEIGHTED).any():
        raise NotIdentifiable(
            f"{protocol.source or 'The series'} has b-values {np.unique(b.round()).tolist()} s/mm2; the spherical mean "
            "technique takes b = 0 and two others, 300 s/mm2 apart, the upper of 1000 s/mm2 or more."
        )


def start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 3) of ``smt`` from averages (..., n): the best of a table."""
    return _best(tensor_signal, np.linspace(0.2e-3, 3.2e-3, 49), np.linspace(0.05, 0.98, 14), measured, protocol)


def compartment_start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 3) of ``smt-mc`` from averages (..., n): the best of a table."""
    return _best(compartment_signal, np.linspace(0.05, 0.98, 14), np.linspace(0.4e-3, 4e-3, 37), measured, protocol)


def _best(
    signal: Signal, first: FloatArray, second: FloatArray, measured: FloatArray, protocol: Protocol
) -> FloatArray:
    table = np.stack([np.ones(first.size * second.size), *(g.ravel() for g in np.meshgrid(first, second))], axis=1)
    unit = signal(table, protocol, np.empty(0))
    unit /= np.sqrt((unit**2).sum(axis=1, keepdims=True))
    data = np.where(np.isfinite(measured), measured, 0.0).reshape(-1, len(protocol))
    theta = np.empty((len(data), 3))
    for k in range(0, len(data), _FEW):
        part = slice(k, k + _FEW)
        amount = np.einsum("vn,gn->vg", data[part], unit)
        best = np.argmax(amount, axis=-1)
        theta[part] = table[best]
        theta[part, 0] = data[part, np.argmin(protocol["BValue"])]
    return theta.reshape(*measured.shape[:-1], 3)


def example() -> Protocol:
    """Powder averages of two shells, as for NODDI."""
    columns = {"BValue": np.array([0.0, 700.0, 2000.0]), "Volumes": np.array([7, 24, 36])}
    return Protocol(columns, "powder averages of two shells")


_SOURCE = "no value of the cord is published; chosen to match its tensor"
_S0 = Parameter("S0", "1", (0.0, np.inf), 1.0, "signal without diffusion weighting")
_REFERENCES = (
    "Kaden, Kruggel and Alexander 2016, doi:10.1002/mrm.25734",
    "Kaden et al. 2016, doi:10.1016/j.neuroimage.2016.06.002",
)

_DERIVED = (
    Derived("MicroAD", "mm2/s", axial),
    Derived("MicroRD", "mm2/s", radial),
    Derived("MicroFA", "1", anisotropy),
)

SMT = SignalModel(
    "smt",
    (
        _S0,
        Parameter("MicroMD", "mm2/s", (1e-6, FASTEST), 1e-3, "mean diffusivity of micro-environments"),
        Parameter("MicroDelta", "1", (_ROUNDEST, 1.0), 0.6, "their normalised anisotropy, 0 sphere, 1 stick"),
    ),
    ("BValue",),
    tensor_signal,
    _REFERENCES[:1],
    derived=(
        Derived("MicroAD", "mm2/s", axial),
        Derived("MicroRD", "mm2/s", radial),
        Derived("MicroFA", "1", anisotropy),
    ),
    start=start,
    title="Spherical mean technique: diffusion tensor of micro-environments",
    example=example,
    typical=(
        Typical("white matter, 3 T", {"S0": 1.0, "MicroMD": 0.95e-3, "MicroDelta": 0.65}, _SOURCE, "assumed"),
        Typical("gray matter, 3 T", {"S0": 1.0, "MicroMD": 0.85e-3, "MicroDelta": 0.5}, _SOURCE, "assumed"),
    ),
)
"""One tensor for all micro-environments."""

SMT_MC = SignalModel(
    "smt-mc",
    (
        _S0,
        Parameter("NeuriteFraction", "1", (0.0, 1.0), 0.5, "part of the signal from inside neurites"),
        Parameter("NeuriteDiffusivity", "mm2/s", (1e-6, FASTEST), 1.7e-3, "diffusivity along neurites"),
    ),
    ("BValue",),
    compartment_signal,
    _REFERENCES[1:],
    derived=(Derived("ExtraRD", "mm2/s", lambda theta: np.asarray((1 - theta[..., 1]) * theta[..., 2])),),
    start=compartment_start,
    title="Spherical mean technique: neurites and the space around them",
    example=example,
    typical=(
        Typical(
            "white matter, 3 T", {"S0": 1.0, "NeuriteFraction": 0.6, "NeuriteDiffusivity": 1.9e-3}, _SOURCE, "assumed"
        ),
        Typical(
            "gray matter, 3 T", {"S0": 1.0, "NeuriteFraction": 0.4, "NeuriteDiffusivity": 1.5e-3}, _SOURCE, "assumed"
        ),
    ),
)
"""Neurites and the space around them; ExtraRD is the diffusivity across neurites outside them."""
