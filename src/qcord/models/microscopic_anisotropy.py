"""Microscopic anisotropy from powder averages: two forms of one model of a distribution of diffusion tensors.

An average over directions no longer knows how tensors are oriented; what is left at second order is the mean of
their diffusivities and two variances: V_I, of the mean diffusivity from one micro-environment to the next, and V_A,
which anisotropy within each adds to linear encoding. A b-tensor of shape b_delta sees V_I + b_delta^2 V_A, so two
shapes tell them apart. V_A is 2/5 of V_L, the variance of the three eigenvalues of a micro-environment, averaged.

Both forms have the same parameters and definitions and the same first two cumulants; they differ in what they assume
of higher ones: the gamma form takes those of a gamma distribution of diffusivities, the cumulant form none.

One definition of muFA holds throughout, also in the covariance tensor model:

    muFA^2 = 3/2 V_L / (V_L + V_I + MD^2),

the mean variance of the eigenvalues over their mean square, both averaged over all micro-environments (C_mu of q-space
trajectory imaging; Szczepankiewicz 2016). It is 1 for sticks, 0 for any mixture of isotropic tensors, and FA for a
voxel with one tensor. Lasic's form of 2014 leaves V_I out of the denominator, as if all micro-environments had the
same mean diffusivity: muFA_2014^-2 = muFA^-2 - 2 V_I / (3 V_L). The two are equal where V_I is zero; where it is not,
that of 2014 is larger, and exceeds 1 for sticks of unequal length.
"""

from functools import partial

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import NotIdentifiable
from qcord.core.model import Derived, SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.models.encoding import LINEAR, SPHERICAL, UNWEIGHTED, shape

_NODES, _WEIGHTS = (half[12:] for half in np.polynomial.legendre.leggauss(24))
_FAST = 0.02
"""Largest mean diffusivity [mm2/s] that a fit may reach, as for the tensor."""

_NEGATIVE = 1e-7
"""How far noise may push V_A below zero [mm4/s2], and V_I twice as far: a tenth of the squared mean diffusivity of
tissue. Further down the gamma form has no value at 2000 s/mm2."""


def gamma_signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Powder-averaged signal of gamma-distributed diffusivities.

    Parameters
    ----------
    theta : (..., 4) array
        S0 [1], MD [mm2/s], V_I and V_A [mm4/s2].
    protocol : Protocol
        BValue [s/mm2], BDelta [1]; one row an average.
    given : (..., 0) array
        Nothing.

    Returns
    -------
    (..., n) array
        Signal, unit of S0.

    References
    ----------
    Lasic et al. 2014, doi:10.3389/fphy.2014.00011;
    Szczepankiewicz et al. 2016, doi:10.1016/j.neuroimage.2016.07.038.
    """
    mean = theta[..., 1:2]
    b = protocol["BValue"]
    spread = b * _variance(theta, protocol) / mean
    return np.asarray(theta[..., :1] * np.exp(-b * mean * _log_ratio(spread)))


def cumulant_signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Powder-averaged signal to second order in the b-value.

    Parameters
    ----------
    theta : (..., 4) array
        S0 [1], MD [mm2/s], V_I and V_A [mm4/s2].
    protocol : Protocol
        BValue [s/mm2], BDelta [1]; one row an average.
    given : (..., 0) array
        Nothing.

    Returns
    -------
    (..., n) array
        Signal, unit of S0.

    References
    ----------
    Lasic et al. 2014, doi:10.3389/fphy.2014.00011.
    """
    b = protocol["BValue"]
    return np.asarray(theta[..., :1] * np.exp(-b * theta[..., 1:2] + b**2 * _variance(theta, protocol) / 2))


def _variance(theta: AnyArray, protocol: Protocol) -> AnyArray:
    """Variance (..., n) of the diffusivities that each average sees."""
    return np.asarray(theta[..., 2:3] + theta[..., 3:4] * shape(protocol) ** 2)


def _log_ratio(x: AnyArray) -> AnyArray:
    """ln(1 + x) / x to 1e-12 for x from -.9 to 10.

    The integral of 1 / (1 + x t) over t from 0 to 1, which is not 0 / 0, brought to an even one for Gauss nodes.
    """
    half = x / (2 + x)
    square = half * half
    total = sum(weight / (1 - square * node**2) for node, weight in zip(_NODES, _WEIGHTS, strict=True))
    return np.asarray(2 / (2 + x) * total)


def squared_anisotropy(theta: AnyArray) -> AnyArray:
    """Square of muFA from theta (..., 4); the definition is that of the module."""
    _, mean, isotropic, anisotropic = np.moveaxis(theta, -1, 0)
    within = 2.5 * anisotropic
    return np.asarray(1.5 * within / (within + isotropic + mean**2))


def microscopic_anisotropy(theta: AnyArray) -> AnyArray:
    """MuFA from theta (..., 4); NaN where noise makes V_A negative."""
    return np.asarray(np.sqrt(squared_anisotropy(theta)))


def order_parameter(fa: AnyArray, anisotropic_kurtosis: AnyArray) -> AnyArray:
    """Order parameter of the micro-environments: 1 aligned, 0 evenly dispersed.

    Parameters
    ----------
    fa : (...) array
        FA of the voxel's tensor.
    anisotropic_kurtosis : (...) array
        MK_A.

    Returns
    -------
    (...) array
        Root of the ratio of the eigenvalue variances, each over its squared mean diffusivity, of the voxel's tensor and
        of the micro-environments.

    References
    ----------
    Lasic et al. 2014, doi:10.3389/fphy.2014.00011.
    """
    square = fa * fa
    return np.asarray(np.sqrt(2 * square / (3 - 2 * square) * 6 / (5 * anisotropic_kurtosis)))


def powder_design(protocol: Protocol) -> FloatArray:
    """Matrix (n, 4) that takes (ln S0, MD, V_I, V_A) to the logarithm of powder averages, to second order.

    Raises
    ------
    NotIdentifiable
        If the averages do not tell the two variances apart.
    """
    b, delta = protocol["BValue"], shape(protocol)
    columns = np.stack([np.ones_like(b), -b, b**2 / 2, b**2 * delta**2 / 2], axis=1)
    scaled = columns / np.maximum(np.abs(columns).max(axis=0), 1e-12)
    if len(scaled) < 4 or np.linalg.svd(scaled, compute_uv=False)[-1] < 1e-2:
        weighted = b > UNWEIGHTED
        values, shapes = np.unique(b[weighted].round()), np.unique(delta[weighted].round(2))
        raise NotIdentifiable(
            f"{protocol.source or 'The series'} has b-values {values.tolist()} s/mm2 and b-tensor shapes "
            f"{shapes.tolist()}; muFA takes b = 0, two other b-values and two shapes, as linear (1) and spherical (0)."
        )
    return columns


def start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 4) from averages (..., n): unweighted second-order fit of their logarithms."""
    try:
        columns = powder_design(protocol)
    except NotIdentifiable:
        return np.broadcast_to([np.nan, *(p.start for p in _FREE[1:])], (*measured.shape[:-1], 4)).copy()
    top = np.nanmax(measured, axis=-1, keepdims=True)
    logs = np.log(np.clip(measured, np.maximum(1e-3 * top, 1e-300), None))
    theta = np.einsum("...n,kn->...k", logs, np.linalg.pinv(columns))
    return np.concatenate([np.exp(theta[..., :1]), theta[..., 1:]], axis=-1)


def example(top: float = 2000.0) -> Protocol:
    """Powder averages of linear and spherical encoding up to 2000 s/mm2, within reach of a clinical scanner."""
    b = np.concatenate([[0.0], np.tile([100.0, 0.35 * top, 0.7 * top, top], 2)])
    delta = np.array([SPHERICAL] * 5 + [LINEAR] * 4)
    return Protocol({"BValue": b, "BDelta": delta}, "linear and spherical encoding")


_FREE = (
    Parameter("S0", "1", (0.0, np.inf), 1.0, "signal without diffusion weighting"),
    Parameter("MD", "mm2/s", (1e-6, _FAST), 1e-3, "mean diffusivity"),
    Parameter("V_I", "mm4/s2", (-2 * _NEGATIVE, 1e-4), 1e-7, "variance of mean diffusivities"),
    Parameter("V_A", "mm4/s2", (-_NEGATIVE, 1e-4), 3e-7, "variance by anisotropy, of linear encoding"),
)
_DERIVED = (
    Derived("muFA", "1", microscopic_anisotropy, square=squared_anisotropy),
    Derived("C_mu", "1", squared_anisotropy),
    Derived("MK_I", "1", lambda theta: np.asarray(3 * theta[..., 2] / theta[..., 1] ** 2)),
    Derived("MK_A", "1", lambda theta: np.asarray(3 * theta[..., 3] / theta[..., 1] ** 2)),
)
_REFERENCES = (
    "Lasic et al. 2014, doi:10.3389/fphy.2014.00011",
    "Szczepankiewicz et al. 2016, doi:10.1016/j.neuroimage.2016.07.038",
)
_GUESS = "no value of the human cord is published; chosen for muFA of .85 and .65"
_TYPICAL = (
    Typical("white matter, 3 T", {"S0": 1.0, "MD": 0.95e-3, "V_I": 0.9e-7, "V_A": 3.69e-7}, _GUESS, "assumed"),
    Typical("gray matter, 3 T", {"S0": 1.0, "MD": 0.85e-3, "V_I": 1.1e-7, "V_A": 1.31e-7}, _GUESS, "assumed"),
)

GAMMA = SignalModel(
    "mufa",
    _FREE,
    ("BValue", "BDelta"),
    gamma_signal,
    _REFERENCES,
    derived=_DERIVED,
    start=start,
    title="Microscopic anisotropy from powder averages, gamma-distributed diffusivities",
    example=example,
    typical=_TYPICAL,
)
"""Gamma form: the default, as its signal falls at all b-values."""

CUMULANT = SignalModel(
    "mufa-cumulant",
    _FREE,
    ("BValue", "BDelta"),
    cumulant_signal,
    _REFERENCES,
    derived=_DERIVED,
    start=start,
    title="Microscopic anisotropy from powder averages, second-order cumulants",
    example=partial(example, 1500.0),
    typical=_TYPICAL,
)
"""Cumulant form; its signal rises again beyond b = MD / (V_I + V_A), 2000 s/mm2 in white matter."""
