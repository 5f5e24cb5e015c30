"""Covariance tensor model of q-space trajectory imaging: mean and covariance of a distribution of diffusion tensors."""

from itertools import combinations_with_replacement

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import NotIdentifiable
from qcord.core.model import Derived, SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.models.encoding import LINEAR, PLANAR, SPHERICAL, shape
from qcord.models.tensor import ELEMENTS, b_matrix

PAIRS = tuple(combinations_with_replacement(range(6), 2))
"""Elements of the tensor whose covariance each of the 21 parameters is."""

COVARIANCES = tuple(f"C{ELEMENTS[i][1:]}_{ELEMENTS[j][1:]}" for i, j in PAIRS)

_FIRST, _SECOND = np.array(PAIRS).T
_TWICE = np.where(_FIRST == _SECOND, 1.0, 2.0)
_COUNT = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
_DIAGONAL = np.array([COVARIANCES.index(f"C{e[1:]}_{e[1:]}") for e in ELEMENTS])

TRACE = np.zeros(28)
"""Weights of theta in the mean diffusivity."""
TRACE[1:4] = 1 / 3

BULK = np.zeros(28)
"""Weights of theta in the variance of the mean diffusivity."""
BULK[7:] = np.where((_FIRST < 3) & (_SECOND < 3), _TWICE, 0) / 9

SPREAD = np.zeros(28)
"""Weights of theta in the variance of the elements, summed over all nine and divided by three."""
SPREAD[7 + _DIAGONAL] = _COUNT / 3

_FAST = 0.02
_WIDE = 1e-4


def signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Signal of a distribution of tensors, to second order in the b-value.

    Parameters
    ----------
    theta : (..., 28) array
        S0 [1]; the mean tensor Dxx, Dyy, Dzz, Dxy, Dxz, Dyz [mm2/s] in world axes; the covariances of its elements
        [mm4/s2] Cxx_xx, Cxx_yy, Cxx_zz, Cxx_xy, Cxx_xz, Cxx_yz, Cyy_yy, Cyy_zz, Cyy_xy, Cyy_xz, Cyy_yz, Czz_zz, Czz_xy,
        Czz_xz, Czz_yz, Cxy_xy, Cxy_xz, Cxy_yz, Cxz_xz, Cxz_yz, Cyz_yz.
    protocol : Protocol
        BValue [s/mm2], Direction (unit vectors in world axes), BDelta; SecondDirection for double encoding
        (`qcord.models.encoding`).
    given : (..., 0) array
        Nothing.

    Returns
    -------
    (..., n) array
        Signal, unit of S0.

    References
    ----------
    Westin et al. 2016, doi:10.1016/j.neuroimage.2016.02.039.
    """
    return np.asarray(theta[..., :1] * np.exp(np.einsum("...k,nk->...n", theta[..., 1:], exponents(protocol))))


def exponents(protocol: Protocol) -> FloatArray:
    """Weights (n, 27) of mean tensor and covariances in the logarithm of the signal."""
    linear = b_matrix(protocol)
    return np.concatenate([-linear, linear[:, _FIRST] * linear[:, _SECOND] * _TWICE / 2], axis=1)


def covariance_design(protocol: Protocol) -> FloatArray:
    """Matrix (n, 28) that takes ln S0, mean tensor and covariances to the logarithm of the signal.

    Raises
    ------
    NotIdentifiable
        If the volumes do not determine them.
    """
    columns = np.concatenate([np.ones((len(protocol), 1)), exponents(protocol)], axis=1)
    scaled = columns / np.maximum(np.abs(columns).max(axis=0), 1e-12)
    rank = np.linalg.matrix_rank(scaled, tol=1e-3 * np.sqrt(len(scaled)))
    if rank < 28:
        shapes = np.unique(shape(protocol)[protocol["BValue"] > 0].round(2))
        raise NotIdentifiable(
            f"The {len(protocol)} volumes of {protocol.source or 'the series'} (b-tensor shapes {shapes.tolist()}) "
            f"determine {rank} of the 28 unknowns of a covariance tensor; it takes b = 0, two other b-values, and at "
            "least 15 directions of linear (1) and 6 of planar (-0.5) encoding."
        )
    return columns


def moments(theta: AnyArray) -> AnyArray:
    """What all derived values follow from, (4, ...), from theta (..., 28).

    Mean diffusivity; mean square of the eigenvalues of the mean tensor; variance of the mean diffusivity; variance of
    the elements, summed over all nine and divided by three.
    """
    mean, bulk, spread = (np.einsum("...k,k->...", theta, w) for w in (TRACE, BULK, SPREAD))
    square = np.einsum("...k,k->...", theta[..., 1:7] ** 2, _COUNT) / 3
    return np.stack([mean, square, bulk, spread])


def ratios(values: AnyArray) -> dict[str, AnyArray]:
    """Derived values by name, from `moments` (4, ...); of FA, muFA and OP their squares (`ROOTS`).

    The names are Westin's; V_I, V_A, muFA and C_mu are defined as in `qcord.models.microscopic_anisotropy`, and K_bulk
    and K_mu are MK_I and MK_A there.

    References
    ----------
    Westin et al. 2016, doi:10.1016/j.neuroimage.2016.02.039;
    Lasic et al. 2014, doi:10.3389/fphy.2014.00011 (order parameter).
    """
    mean, square, bulk, spread = values
    macroscopic = square - mean**2
    microscopic = square + spread - bulk - mean**2
    c_mu = 1.5 * microscopic / (square + spread)
    c_m = 1.5 * macroscopic / square
    return {
        "FA": c_m,
        "MD": mean,
        "muFA": c_mu,
        "C_mu": c_mu,
        "C_c": c_m / c_mu,
        "C_MD": bulk / (bulk + mean**2),
        "OP": macroscopic / microscopic,
        "V_I": bulk,
        "V_A": 0.4 * microscopic,
        "K_bulk": 3 * bulk / mean**2,
        "K_shear": 1.2 * (spread - bulk) / mean**2,
        "K_mu": 1.2 * microscopic / mean**2,
    }


ROOTS = ("FA", "muFA", "OP")
"""Names of `ratios` that stand for the root of what is there."""

INVARIANTS = {
    **dict.fromkeys(("FA", "muFA", "C_mu", "C_c", "C_MD", "OP", "K_bulk", "K_shear", "K_mu"), "1"),
    **{"MD": "mm2/s", "V_I": "mm4/s2", "V_A": "mm4/s2"},
}
"""Derived values, with their units."""


def start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 28) from signals (..., n): unweighted second-order fit of their logarithms."""
    try:
        columns = covariance_design(protocol)
    except NotIdentifiable:
        return np.full((*measured.shape[:-1], 28), np.nan)
    top = np.nanmax(measured, axis=-1, keepdims=True)
    logs = np.log(np.clip(measured, np.maximum(1e-3 * top, 1e-300), None))
    scale = np.abs(columns).max(axis=0)
    theta = np.einsum("...n,kn->...k", logs, np.linalg.pinv(columns / scale)) / scale
    return np.concatenate([np.exp(theta[..., :1]), theta[..., 1:]], axis=-1)


def example() -> Protocol:
    """Linear and planar encoding in 21 directions and spherical encoding, at 700, 1400 and 2000 s/mm2."""
    k = np.arange(21) + 0.5
    height, turn = 1 - 2 * k / 21, np.pi * (1 + 5**0.5) * k
    radius = np.sqrt(1 - height**2)
    even = np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)
    b, q, delta = [np.zeros(5)], [np.zeros((5, 3))], [np.full(5, LINEAR)]
    for value in (700.0, 1400.0, 2000.0):
        for form in (LINEAR, PLANAR):
            b.append(np.full(21, value))
            q.append(even)
            delta.append(np.full(21, form))
        b.append(np.full(6, value))
        q.append(np.zeros((6, 3)))
        delta.append(np.full(6, SPHERICAL))
    columns = {"BValue": np.concatenate(b), "Direction": np.concatenate(q), "BDelta": np.concatenate(delta)}
    return Protocol(columns, "linear, planar and spherical encoding")


def distribution(tensors: FloatArray, s0: float = 1.0) -> FloatArray:
    """Theta (28,) of an ensemble of tensors (k, 6), each of equal weight: their mean and covariance."""
    mean = tensors.mean(axis=0)
    apart = tensors - mean
    return np.concatenate([[s0], mean, (apart[:, _FIRST] * apart[:, _SECOND]).mean(axis=0)])


def _derived(name: str) -> Derived:
    power = 0.5 if name in ROOTS else 1.0
    return Derived(name, INVARIANTS[name], lambda theta: np.asarray(ratios(moments(theta))[name] ** power))


def _tissue(tissue: str, axial: float, radial: float, tilt: float, spread: float) -> Typical:
    """Axisymmetric tensors whose axes lie on a cone about the vertical, in two sizes."""
    turn = np.arange(12) * np.pi / 6
    axis = np.stack([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.full(12, np.cos(tilt))], axis=1)
    x, y, z = axis.T
    dyads = np.stack([x * x, y * y, z * z, x * y, x * z, y * z], axis=1)
    tensors = radial * np.array([1.0, 1, 1, 0, 0, 0]) + (axial - radial) * dyads
    theta = distribution(np.concatenate([(1 - spread) * tensors, (1 + spread) * tensors]))
    theta = np.where(np.abs(theta) < 1e-15, 0.0, theta)  # what symmetry makes zero, to rounding
    names = ("S0", *ELEMENTS, *COVARIANCES)
    source = "no value of the human cord is published; tensors on a cone about the vertical, in two sizes"
    return Typical(tissue, dict(zip(names, theta.tolist(), strict=True)), source, "assumed")


QTI = SignalModel(
    "qti",
    (
        Parameter("S0", "1", (0.0, np.inf), 1.0, "signal without diffusion weighting"),
        *(Parameter(n, "mm2/s", (0.0, _FAST), 1e-3, "mean diffusivity along an axis") for n in ELEMENTS[:3]),
        *(Parameter(n, "mm2/s", (-_FAST, _FAST), 0.0, "off-diagonal element of the mean") for n in ELEMENTS[3:]),
        *(Parameter(n, "mm4/s2", (-_WIDE, _WIDE), 0.0, "covariance of two elements") for n in COVARIANCES),
    ),
    ("BValue", "Direction", "BDelta"),
    signal,
    ("Westin et al. 2016, doi:10.1016/j.neuroimage.2016.02.039",),
    derived=tuple(_derived(name) for name in INVARIANTS),
    start=start,
    title="Covariance tensor of q-space trajectory imaging",
    example=example,
    typical=(
        _tissue("white matter, 3 T", 1.9e-3, 0.35e-3, 0.3, 0.15),
        _tissue("gray matter, 3 T", 1.4e-3, 0.55e-3, 0.8, 0.15),
    ),
)
"""Mean tensor and covariances of its elements; the derived values do not turn with the head."""
