"""Diffusion tensor: Gaussian diffusion, one tensor a voxel."""

import numpy as np

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import NotIdentifiable
from qcord.core.model import Derived, SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.models.encoding import b_tensors

ELEMENTS = ("Dxx", "Dyy", "Dzz", "Dxy", "Dxz", "Dyz")
"""Order of the elements of a tensor; x, y, z point right, anterior and up in the world."""

_COUNT = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
_FAST = 0.02
"""Largest diffusivity [mm2/s] that a fit may reach: seven times that of free water at body temperature, so
that flow and pulsation, which mimic fast diffusion, are reported and not clipped."""


def b_matrix(protocol: Protocol) -> FloatArray:
    """Weights (n, 6) of the tensor elements in the exponent [s/mm2].

    Linear, planar and spherical b-tensors and double encoding alike; see `qcord.models.encoding`.
    """
    return np.asarray(b_tensors(protocol) * _COUNT)


def signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Signal of a voxel with Gaussian diffusion.

    Parameters
    ----------
    theta : (..., 7) array
        S0 [1], then Dxx, Dyy, Dzz, Dxy, Dxz, Dyz [mm2/s] in world axes.
    protocol : Protocol
        BValue [s/mm2], Direction (unit vectors in world axes); BDelta and SecondDirection where encoding is not
        linear (`qcord.models.encoding`).
    given : (..., 0) array
        Nothing.

    Returns
    -------
    (..., n) array
        Signal, unit of S0.

    References
    ----------
    Basser, Mattiello and LeBihan 1994, doi:10.1006/jmrb.1994.1037.
    """
    # einsum, not @: a BLAS product would start threads below the threads that run over blocks of voxels
    exponent = np.einsum("...k,nk->...n", theta[..., 1:], b_matrix(protocol))
    return np.asarray(theta[..., :1] * np.exp(-exponent))


def start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 7) from signals (..., n): unweighted straight line through their logarithms."""
    columns = log_design(protocol)
    top = np.nanmax(measured, axis=-1, keepdims=True)
    logs = np.log(np.clip(measured, np.maximum(1e-3 * top, 1e-300), None))
    theta = logs @ np.linalg.pinv(columns).T
    return np.concatenate([np.exp(theta[..., :1]), theta[..., 1:]], axis=-1)


def log_design(protocol: Protocol) -> FloatArray:
    """Matrix (n, 7) that takes (ln S0, Dxx, ..., Dyz) to the logarithm of the signal.

    Raises
    ------
    NotIdentifiable
        If the volumes do not determine a tensor.
    """
    columns = np.concatenate([np.ones((len(protocol), 1)), -b_matrix(protocol)], axis=1)
    scaled = columns / np.maximum(np.abs(columns).max(axis=0), 1e-12)
    rank = np.linalg.matrix_rank(scaled, tol=1e-3 * np.sqrt(len(scaled)))
    if rank < 7:
        raise NotIdentifiable(
            f"The {len(protocol)} volumes of {protocol.source or 'the series'} determine {rank} of the 7 unknowns of "
            "a tensor; it takes six directions that do not lie in a plane and a second b-value (as b = 0)."
        )
    return columns


def mean_diffusivity(elements: AnyArray) -> AnyArray:
    """Mean diffusivity from elements (6, ...)."""
    return np.asarray((elements[0] + elements[1] + elements[2]) / 3)


def fractional_anisotropy(elements: AnyArray) -> AnyArray:
    """Fractional anisotropy from elements (6, ...), without eigenvalues; above 1 if the tensor is indefinite.

    References
    ----------
    Basser and Pierpaoli 1996, doi:10.1006/jmrb.1996.0086.
    """
    xx, yy, zz, xy, xz, yz = elements
    apart = 2 * (xy * xy + xz * xz + yz * yz)
    square = xx * xx + yy * yy + zz * zz + apart
    deviation = square - (xx + yy + zz) ** 2 / 3
    return np.asarray(np.sqrt(1.5 * deviation / square))


def eigenvalues(elements: FloatArray) -> FloatArray:
    """Eigenvalues (3, ...), largest first, of tensors (6, ...): the trigonometric root of the cubic.

    References
    ----------
    Smith 1961, doi:10.1145/355578.366316.
    """
    xx, yy, zz, xy, xz, yz = elements
    mean = (xx + yy + zz) / 3
    a, b, c = xx - mean, yy - mean, zz - mean
    spread = np.sqrt((a * a + b * b + c * c + 2 * (xy * xy + xz * xz + yz * yz)) / 6)
    determinant = a * (b * c - yz * yz) - xy * (xy * c - yz * xz) + xz * (xy * yz - b * xz)
    safe = np.where(spread > 0, spread, 1)
    angle = np.arccos(np.clip(determinant / (2 * safe**3), -1, 1)) / 3
    first = mean + 2 * spread * np.cos(angle)
    last = mean + 2 * spread * np.cos(angle + 2 * np.pi / 3)
    return np.stack([first, 3 * mean - first - last, last])


def first_eigenvector(elements: FloatArray, first: FloatArray) -> FloatArray:
    """Unit vectors (3, ...) along the largest diffusivity, pointing up (superior component not negative).

    Parameters
    ----------
    elements : (6, ...) array
        Tensors.
    first : (...) array
        Their largest eigenvalue.
    """
    xx, yy, zz, xy, xz, yz = elements
    a, b, c = xx - first, yy - first, zz - first
    candidates = np.stack(
        [
            np.stack([b * c - yz * yz, xz * yz - xy * c, xy * yz - xz * b]),
            np.stack([xz * yz - xy * c, a * c - xz * xz, xy * xz - a * yz]),
            np.stack([xy * yz - xz * b, xy * xz - a * yz, a * b - xy * xy]),
        ]
    )
    length = (candidates**2).sum(axis=1)
    best = np.argmax(length, axis=0)
    vector = np.take_along_axis(candidates, best[None, None], axis=0)[0]
    norm = np.sqrt(np.take_along_axis(length, best[None], axis=0)[0])
    isotropic = norm <= 1e-12 * np.maximum(first * first, 1e-300)
    sign = np.where(vector[2] < 0, -1.0, 1.0) / np.where(isotropic, 1.0, norm)
    up = np.zeros_like(vector)
    up[2] = 1.0
    return np.asarray(np.where(isotropic, up, vector * sign))


def _elements(theta: AnyArray) -> AnyArray:
    return np.moveaxis(theta, -1, 0)[1:]


def _first_direction(theta: FloatArray) -> FloatArray:
    elements = _elements(theta)
    x, y, z = first_eigenvector(elements, eigenvalues(elements)[0])
    return np.asarray(np.stack([x * x, y * y, z * z, x * y, x * z, y * z], axis=-1) * _COUNT)


def _with_s0(gradient: FloatArray) -> FloatArray:
    return np.concatenate([np.zeros_like(gradient[..., :1]), gradient], axis=-1)


def _axial_gradient(theta: AnyArray) -> AnyArray:
    return np.asarray(_with_s0(_first_direction(theta)))


def _radial_gradient(theta: AnyArray) -> AnyArray:
    return _with_s0((np.array([1.0, 1, 1, 0, 0, 0]) - _first_direction(theta)) / 2)


def _axial(theta: AnyArray) -> AnyArray:
    return np.asarray(eigenvalues(_elements(theta))[0])


def _radial(theta: AnyArray) -> AnyArray:
    return np.asarray(eigenvalues(_elements(theta))[1:].mean(axis=0))


def example() -> Protocol:
    """Protocol of the spine-generic kind: five volumes without weighting, 30 directions at 800 s/mm2."""
    n = 30
    z = (np.arange(n) + 0.5) / n
    angle, radius = np.arange(n) * np.pi * (3 - np.sqrt(5)), np.sqrt(1 - z**2)
    around = np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)
    b = np.concatenate([np.zeros(5), np.full(n, 800.0)])
    return Protocol({"BValue": b, "Direction": np.concatenate([np.zeros((5, 3)), around])})


def _along_cord(axial: float, radial: float) -> dict[str, float]:
    return {"S0": 1.0, "Dxx": radial, "Dyy": radial, "Dzz": axial, "Dxy": 0.0, "Dxz": 0.0, "Dyz": 0.0}


_SOURCE = "FA and MD of the spine-generic multi-subject data, Siemens 3 T, C2-C5; S0 is arbitrary"

TENSOR = SignalModel(
    name="tensor",
    title="Diffusion tensor: fractional anisotropy and mean, axial, radial diffusivity",
    example=example,
    typical=(
        Typical("lateral corticospinal tract, 3 T", _along_cord(1.912e-3, 0.481e-3), _SOURCE, "computed"),
        Typical("gray matter, 3 T", _along_cord(1.584e-3, 0.549e-3), _SOURCE, "computed"),
    ),
    free=(
        Parameter("S0", "1", (0.0, np.inf), 1.0, "signal without diffusion weighting"),
        *(Parameter(n, "mm2/s", (0.0, _FAST), 1e-3, "diffusivity along an axis") for n in ELEMENTS[:3]),
        *(Parameter(n, "mm2/s", (-_FAST, _FAST), 0.0, "off-diagonal element") for n in ELEMENTS[3:]),
    ),
    needs=("BValue", "Direction"),
    signal=signal,
    references=(
        "Basser, Mattiello and LeBihan 1994, doi:10.1006/jmrb.1994.1037",
        "Basser and Pierpaoli 1996, doi:10.1006/jmrb.1996.0086",
    ),
    derived=(
        Derived("FA", "1", lambda theta: fractional_anisotropy(_elements(theta))),
        Derived("MD", "mm2/s", lambda theta: mean_diffusivity(_elements(theta))),
        Derived("AD", "mm2/s", _axial, _axial_gradient),
        Derived("RD", "mm2/s", _radial, _radial_gradient),
    ),
    start=start,
)
"""The tensor model; S0 and six elements in world axes, FA, MD, AD and RD from them."""
