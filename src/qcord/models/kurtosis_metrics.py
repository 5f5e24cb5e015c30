"""What is read off a diffusion and a kurtosis tensor: mean, axial and radial kurtosis, with their gradients.

The kurtosis tensor enters as V = W MD^2, so that the apparent kurtosis along n is V(n, n, n, n) / D(n, n)^2. Tensors
are packed, elements first: D (6, ...) in the order of `qcord.models.tensor.ELEMENTS`, V (15, ...) in that of
`INDICES`. The formulas hold in any frame: they need no eigenvectors but the first and have no case of equal ones.
"""

from functools import lru_cache
from itertools import combinations_with_replacement
from math import factorial

import numpy as np
from scipy.special import roots_jacobi

from qcord.core.arrays import AnyArray, BoolArray, FloatArray
from qcord.models.tensor import eigenvalues, first_eigenvector

INDICES = tuple(combinations_with_replacement(range(3), 4))
"""The four axes of each element of a kurtosis tensor."""

COUNT = np.array([24 / np.prod([factorial(i.count(axis)) for axis in range(3)]) for i in INDICES])
"""How often each element occurs among the 81 of the full tensor."""

_PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
_ELEMENT = np.array([[INDICES.index(tuple(sorted((*a, *b)))) for b in _PAIRS] for a in _PAIRS])
_TWICE = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
_UNIT = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
_TRACE = np.bincount(_ELEMENT[:3, :3].ravel(), minlength=15).astype(float)
NODES = 10
"""Nodes of the mean over the sphere."""

LEAST = 0.05
"""Smallest eigenvalue of an estimated diffusion tensor, over the largest, by whose square a kurtosis is divided."""

_NARROWEST = 1e-3
"""Smallest gap between eigenvalues, over the first of them, with which the turn of the first axis is computed."""

Graded = tuple[FloatArray, FloatArray]
"""Values (...), and their gradient (21, ...) with respect to the elements of D, then of V."""


def mean_kurtosis(tensor: AnyArray, kurtosis: AnyArray, nodes: int = NODES) -> AnyArray:
    """Mean of the apparent kurtosis over all directions.

    Parameters
    ----------
    tensor : (6, ...) array
        Positive definite diffusion tensors.
    kurtosis : (15, ...) array
        V.
    nodes : int
        Nodes of the quadrature.

    Returns
    -------
    (...) array
        Analytic in both arguments.

    Notes
    -----
    The mean of V(n, n, n, n) / D(n, n)^2 over the sphere is a Gaussian integral once 1 / D^2 is written, by Feynman's
    parameter s, as an integral over M^(-7/2), M = D + s: MK = 3/4 int s^(1/2) det(M)^(-1/2) V : M^-1 M^-1 ds. These are
    the elliptic integrals of the closed form in the eigenvalues. They are taken by Gauss-Jacobi quadrature
    with s = m y / (1 - y), which is exact for isotropic diffusion; with 10 nodes the relative error is below 1e-8
    where the eigenvalues lie within a factor of 10, 6e-6 within one of 30 and 5e-4 within one of 100.

    References
    ----------
    Tabesh et al. 2011, doi:10.1002/mrm.22932 (the same mean in closed form).
    """
    inverse, weight, _ = _nodes(tensor, nodes)
    return _dot15(_weights(weight[:, None] * inverse, inverse), kurtosis)


def mean_kurtosis_gradient(tensor: FloatArray, kurtosis: FloatArray) -> Graded:
    """Mean kurtosis with its gradient."""
    inverse, weight, share = _nodes(tensor, NODES)
    by_kurtosis = _weights(weight[:, None] * inverse, inverse)
    contracted = np.einsum("ij...,kj...->ki...", _halves(kurtosis), inverse)
    full, inner = _matrix(np.moveaxis(inverse, 1, 0)), _matrix(np.moveaxis(contracted, 1, 0))
    half = np.einsum("abk...,bck...->ack...", full, inner)
    around = np.stack([np.einsum("bk...,bk...->k...", half[a], full[:, c]) for a, c in _PAIRS])
    total = np.einsum("i,ik...,ki...->k...", _TWICE, np.moveaxis(contracted, 1, 0), inverse)
    factor = weight * _wide(share, weight)
    by_tensor = np.einsum("k...,ki...->i...", -0.5 * factor * total, inverse)
    by_tensor -= 2 * np.einsum("k...,ik...->i...", factor, around)
    return _dot15(by_kurtosis, kurtosis), np.concatenate([_counted(by_tensor), by_kurtosis])


def mean_of_kurtosis_tensor(tensor: AnyArray, kurtosis: AnyArray) -> AnyArray:
    """Mean of V over all directions, over MD^2.

    References
    ----------
    Hansen et al. 2013, doi:10.1002/mrm.24743.
    """
    mean = (tensor[0] + tensor[1] + tensor[2]) / 3
    return np.asarray(np.einsum("i,i...->...", _TRACE / 5, kurtosis) / mean**2)


def mean_of_kurtosis_tensor_gradient(tensor: FloatArray, kurtosis: FloatArray) -> Graded:
    """Mean of the kurtosis tensor with its gradient."""
    mean = (tensor[0] + tensor[1] + tensor[2]) / 3
    value = mean_of_kurtosis_tensor(tensor, kurtosis)
    by_tensor = -2 / 3 * value / mean * _wide(_UNIT, tensor)
    return value, np.concatenate([by_tensor, _wide(_TRACE / 5, kurtosis) / mean**2])


def kurtosis_anisotropy(kurtosis: AnyArray) -> AnyArray:
    """Norm of the deviation of the kurtosis tensor from its mean, over its norm.

    References
    ----------
    Glenn et al. 2015, doi:10.1002/nbm.3271.
    """
    trace = np.einsum("i,i...->...", _TRACE, kurtosis)
    apart = kurtosis - np.multiply.outer(_TRACE / COUNT, trace / 5)
    square, whole = (np.einsum("i,i...->...", COUNT, v * v) for v in (apart, kurtosis))
    return np.asarray(np.sqrt(square / (whole + 1e-300)))


def axial_kurtosis(tensor: FloatArray, kurtosis: FloatArray, frame: "Frame | None" = None) -> FloatArray:
    """Apparent kurtosis along the first eigenvector.

    References
    ----------
    Tabesh et al. 2011, doi:10.1002/mrm.22932.
    """
    frame = frame or Frame(tensor)
    return np.asarray(_dot15(_weights1(frame.along, frame.along), kurtosis) / frame.first**2)


def axial_kurtosis_gradient(tensor: FloatArray, kurtosis: FloatArray, frame: "Frame | None" = None) -> Graded:
    """Axial kurtosis with its gradient."""
    frame = frame or Frame(tensor)
    by_kurtosis = _weights1(frame.along, frame.along) / frame.first**2
    value = _dot15(by_kurtosis, kurtosis)
    bent = 2 * _contract(kurtosis, frame.along) / frame.first**2
    by_tensor = frame.turn(bent) - 2 * value / frame.first * frame.along
    return value, np.concatenate([_counted(by_tensor), by_kurtosis])


def radial_kurtosis(tensor: FloatArray, kurtosis: FloatArray, frame: "Frame | None" = None) -> FloatArray:
    """Mean of the apparent kurtosis over the directions perpendicular to the first eigenvector.

    Notes
    -----
    With M the tensor within the plane, A its adjugate, d^2 its determinant, u = tr M + 2 d: the mean of nn over M(n, n)
    is N = (1 + A / d) / u, and that of nnnn over M(n, n)^2, as its derivative, is NN + AA / (2 d^3 u).

    References
    ----------
    Tabesh et al. 2011, doi:10.1002/mrm.22932 (the same mean in the eigenvalues).
    """
    frame = frame or Frame(tensor)
    return _dot15(frame.circle(), kurtosis)


def radial_kurtosis_gradient(tensor: FloatArray, kurtosis: FloatArray, frame: "Frame | None" = None) -> Graded:
    """Radial kurtosis with its gradient."""
    frame = frame or Frame(tensor)
    first, delta, size = frame.first, frame.delta, frame.size
    by_kurtosis = frame.circle()
    value = _dot15(by_kurtosis, kurtosis)
    by_mean, by_adjugate = _contract(kurtosis, frame.mean), _contract(kurtosis, frame.adjugate)
    second = _dot6(by_adjugate, frame.adjugate) * frame.factor
    bent = 2 / (size * delta) * by_mean + 2 * frame.factor * by_adjugate
    by_delta = 2 / (size * delta**2) * _dot6(by_mean, frame.adjugate) + 3 * second / delta
    by_size = (2 * value - second) / size
    slope = frame.turn((first - frame.trace) * bent - 2 / size * by_mean)
    slope += (_dot6(bent, frame.across) - by_size) * frame.across + _dot6(bent, frame.along) * frame.along - bent
    slope -= (by_delta / 2 + by_size) / delta * frame.adjugate
    return value, np.concatenate([_counted(slope), by_kurtosis])


def positive(tensor: FloatArray, least: float = LEAST) -> tuple[FloatArray, BoolArray]:
    """Tensors (6, ...) with eigenvalues of at least ``least`` times the largest, and which of them had to be raised."""
    values = eigenvalues(tensor)
    low: BoolArray = np.asarray((values[2] < least * values[0]) & (values[0] > 0) & np.isfinite(values[2]))
    if not low.any():
        return tensor, low
    inner, vectors = np.linalg.eigh(np.moveaxis(_matrix(tensor[:, low]), -1, 0))
    inner = np.maximum(inner, least * inner[:, 2:])
    matrix = np.einsum("vab,vb,vcb->acv", vectors, inner, vectors)
    result = np.array(tensor)
    result[:, low] = np.stack([matrix[a, b] for a, b in _PAIRS])
    return result, low


class Frame:
    """The first axis of tensors (6, ...), and what means over the circle across it are made of."""

    def __init__(self, tensor: FloatArray) -> None:
        self.first = eigenvalues(tensor)[0]
        self.axis = first_eigenvector(tensor, self.first)
        self.along = np.stack([self.axis[a] * self.axis[b] for a, b in _PAIRS])
        self.across = _wide(_UNIT, tensor) - self.along
        self.within = tensor - self.first * self.along
        self.trace = self.within[:3].sum(axis=0)
        self.adjugate = self.trace * self.across - self.within
        self.delta = np.sqrt(_dot6(self.adjugate, self.within) / 2)
        self.size = self.trace + 2 * self.delta
        self.mean = (self.across + self.adjugate / self.delta) / self.size
        self.factor = 1 / (2 * self.delta**3 * self.size)

    def circle(self) -> FloatArray:
        """Weights (15, ...) of the elements of V in its mean over the circle."""
        return np.asarray(_weights1(self.mean, self.mean) + self.factor * _weights1(self.adjugate, self.adjugate))

    def turn(self, slope: FloatArray) -> FloatArray:
        """Slope (6, ...) against the tensor of what has this slope against the square of its first axis."""
        gaps = self.first**2 - self.first * self.trace + self.delta**2
        gaps = np.maximum(gaps, (_NARROWEST * self.first) ** 2)
        vector = _times(slope, self.axis)
        vector = _times((self.first - self.trace) * self.across + self.within, vector) / gaps
        return np.stack([vector[a] * self.axis[b] + vector[b] * self.axis[a] for a, b in _PAIRS])


@lru_cache
def _quadrature(nodes: int) -> tuple[FloatArray, FloatArray]:
    """Nodes in (0, 1) and weights for the weight function y^(1/2) (1 - y)."""
    x, weights = roots_jacobi(nodes, 1.0, 0.5)
    return (1 + x) / 2, weights / 2**2.5


def _nodes(tensor: AnyArray, nodes: int) -> tuple[AnyArray, AnyArray, FloatArray]:
    """Inverses (k, 6, ...) of the tensors at the nodes, their weights (k, ...), and the part of D in them (k,)."""
    y, weights = _quadrature(nodes)
    inner, whole = _adjugate(np.real(tensor))
    # near the geometric mean of the outer eigenvalues, where the quadrature converges fastest; any m gives the integral
    middle = np.sqrt(np.real(tensor[:3]).sum(axis=0) * whole / (inner[0] + inner[1] + inner[2]))
    share = 1 - y
    mixed = np.multiply.outer(share, tensor)
    mixed[:, :3] += np.multiply.outer(y, middle)[:, None]
    adjugate, determinant = _adjugate(np.moveaxis(mixed, 1, 0))
    inverse = np.stack(adjugate, axis=1)
    inverse /= determinant[:, None]
    return inverse, 0.75 * np.multiply.outer(weights, middle**1.5) / np.sqrt(determinant), share


def _adjugate(tensor: AnyArray) -> tuple[list[AnyArray], AnyArray]:
    """Elements of the adjugate, and the determinant, of tensors (6, ...)."""
    xx, yy, zz, xy, xz, yz = tensor
    first, fourth, fifth = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    adjugate = [first, xx * zz - xz * xz, xx * yy - xy * xy, fourth, fifth, xy * xz - xx * yz]
    return adjugate, xx * first + xy * fourth + xz * fifth


def _weights(first: AnyArray, second: AnyArray) -> AnyArray:
    """Weights (15, ...) of the elements of V in the sum over k of V : first second, both (k, 6, ...)."""
    result = np.zeros((15, *first.shape[2:]), dtype=first.dtype)
    for i in range(6):
        for j in range(i + 1):
            times = _TWICE[i] * _TWICE[j] * (1 if i == j else 2)
            result[_ELEMENT[i, j]] += times * np.einsum("k...,k...->...", first[:, i], second[:, j])
    return result


def _weights1(first: FloatArray, second: FloatArray) -> FloatArray:
    return np.asarray(_weights(first[None], second[None]))


def _halves(kurtosis: FloatArray) -> FloatArray:
    """Matrix (6, 6, ...) that takes a symmetric tensor T (6, ...) to V : T (6, ...)."""
    return np.asarray(kurtosis[_ELEMENT] * _wide(_TWICE, kurtosis))


def _contract(kurtosis: FloatArray, tensor: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("ij...,j...->i...", _halves(kurtosis), tensor))


def _matrix(packed: FloatArray) -> FloatArray:
    """Matrices (3, 3, ...) from packed tensors (6, ...)."""
    return np.asarray(packed[np.array([[0, 3, 4], [3, 1, 5], [4, 5, 2]])])


def _times(packed: FloatArray, vector: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("ab...,b...->a...", _matrix(packed), vector))


def _counted(slope: FloatArray) -> FloatArray:
    """Gradient with respect to the six elements from the slope against a symmetric matrix."""
    return slope * _wide(_TWICE, slope)


def _dot6(first: FloatArray, second: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("i,i...,i...->...", _TWICE, first, second))


def _dot15(weights: AnyArray, kurtosis: AnyArray) -> AnyArray:
    return np.asarray(np.einsum("i...,i...->...", weights, kurtosis))


def _wide(values: FloatArray, like: AnyArray) -> FloatArray:
    """Values (k,) as (k, 1, ...), with as many axes as ``like``."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))
