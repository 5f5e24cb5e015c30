"""Values, standard errors and noise bias of what is read off a tensor; the voxel axis comes last."""

from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.estimate.voxelwise import multiply
from qcord.models.tensor import eigenvalues, first_eigenvector, fractional_anisotropy

_COUNT = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])[:, None]
_STEP = 1e-3
"""Step, in standard errors, of the derivative of the bias."""

_STEEPEST = 0.5
"""Largest part of FA, and of its standard error, that the bias may make up. Beyond it, as beyond one standard
error of a diffusivity, the expansion in powers of the noise no longer holds: noise alone was fitted."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """A value with standard error and bias, each (v,) or (k, v); the standard error is that of value - bias."""

    value: FloatArray
    std: FloatArray
    bias: FloatArray


def tensor_estimates(elements: FloatArray, covariance: FloatArray, bias: FloatArray) -> dict[str, Estimate]:
    """FA, MD, AD, RD and first eigenvector with errors.

    Parameters
    ----------
    elements : (6, v) array
        Estimated tensors, in the order of `qcord.models.tensor.ELEMENTS`.
    covariance : (6, 6, v) array
        Their covariance.
    bias : (6, v) array
        Expected error of the elements themselves.

    Returns
    -------
    dict of str to Estimate
        FA, MD, AD, RD (v,), and V1 (3, v). Negative eigenvalues count as zero in the values; the bias takes
        that back, so that value - bias is the bias-reduced estimate without this cut.

    Notes
    -----
    Standard errors are those of the delta method. Noise pushes eigenvalues apart and so raises AD, lowers RD
    and, at low anisotropy, raises FA; the bias is the second-order term of the expansion, half the trace of
    second derivative times covariance, plus the effect of the bias of the elements.

    References
    ----------
    Anderson 2001, doi:10.1002/mrm.1315 (noise and eigenvalues);
    Koay et al. 2007, doi:10.1109/TMI.2007.897415 (error propagation).
    """
    values = eigenvalues(elements)
    direction = first_eigenvector(elements, values[0])
    cut = np.maximum(values, 0)
    result = _diffusivities(elements, covariance, bias, values[0], direction)
    anisotropy = _anisotropy(elements, covariance, bias)
    shown = {"FA": _anisotropy_of(cut), "MD": cut.mean(axis=0), "AD": cut[0], "RD": (cut[1] + cut[2]) / 2}
    shown["FA"] = np.where(values[2] < 0, shown["FA"], anisotropy.value)
    plain = {**result, "FA": anisotropy}
    estimates = {k: Estimate(v, plain[k].std, plain[k].bias + (v - plain[k].value)) for k, v in shown.items()}
    return {**estimates, "V1": result["V1"]}


def _anisotropy_of(values: FloatArray) -> FloatArray:
    square = (values**2).sum(axis=0)
    deviation = ((values - values.mean(axis=0)) ** 2).sum(axis=0)
    return np.asarray(np.sqrt(1.5 * deviation / square))


def _anisotropy(elements: FloatArray, covariance: FloatArray, bias: FloatArray) -> Estimate:
    """FA as a function of the elements, above 1 where the tensor is indefinite."""
    value, curvature, gradient = _anisotropy_expansion(elements, covariance)
    along = multiply(covariance, gradient)
    std = np.sqrt((gradient * along).sum(axis=0))
    _, further, _ = _anisotropy_expansion(elements + _STEP * along / std, covariance)
    slope = np.clip((further - curvature) / (_STEP * std), -_STEEPEST, _STEEPEST)
    total = curvature + value - fractional_anisotropy(elements - bias)
    limit = _STEEPEST * value
    return Estimate(value, std * (1 - slope), np.clip(total, -limit, limit))


def _anisotropy_expansion(elements: FloatArray, covariance: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """FA, half the trace of its second derivative times the covariance, and its gradient (6, v)."""
    squared = _COUNT * elements
    deviating = squared.copy()
    deviating[:3] -= elements[:3].mean(axis=0)
    square = (elements * squared).sum(axis=0)
    deviation = (elements * deviating).sum(axis=0)
    value = np.sqrt(1.5 * deviation / square)
    a, b = deviating / deviation, squared / square
    spread_a, spread_b = multiply(covariance, a), multiply(covariance, b)
    diagonal = np.einsum("iiv,i->v", covariance, _COUNT[:, 0])
    trace = covariance[:3, :3].sum(axis=(0, 1))
    curvature = (diagonal - trace / 3) / deviation - diagonal / square
    curvature += ((3 * b - 2 * a) * spread_b).sum(axis=0) - (a * spread_a).sum(axis=0)
    return value, value * curvature / 2, value * (a - b)


def _diffusivities(
    elements: FloatArray, covariance: FloatArray, bias: FloatArray, first: FloatArray, direction: FloatArray
) -> dict[str, Estimate]:
    """MD, AD, RD without cut, and V1."""
    second, third = _across(direction)
    along = _pair(direction, direction)
    spread = multiply(covariance, along)
    variance = (along * spread).sum(axis=0)
    variance_trace = covariance[:3, :3].sum(axis=(0, 1))
    variance_radial = (variance_trace - 2 * spread[:3].sum(axis=0) + variance) / 4
    turning = _turning(elements, covariance, first, (direction, second, third))
    trace, trace_bias = elements[:3].sum(axis=0), bias[:3].sum(axis=0)
    first_bias = (along * bias).sum(axis=0) + turning[0]
    std = {
        "MD": np.sqrt(variance_trace) / 3,
        "AD": np.sqrt(variance),
        "RD": np.sqrt(np.maximum(variance_radial, 0)),
    }
    axis = np.stack([turning[1] * second[i] ** 2 + turning[2] * third[i] ** 2 for i in range(3)])
    axis += 2 * turning[3] * second * third
    value = {"MD": trace / 3, "AD": first, "RD": (trace - first) / 2}
    shift = {"MD": trace_bias / 3, "AD": first_bias, "RD": (trace_bias - first_bias) / 2}
    result = {k: Estimate(v, std[k], np.clip(shift[k], -std[k], std[k])) for k, v in value.items()}
    return {**result, "V1": Estimate(direction, np.sqrt(np.clip(axis, 0, 1)), np.zeros_like(direction))}


def _turning(
    elements: FloatArray, covariance: FloatArray, first: FloatArray, frame: tuple[FloatArray, FloatArray, FloatArray]
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Rise of the first eigenvalue by its repulsion, and covariance of the turn of its axis towards the others."""
    direction, second, third = frame
    h2, h3 = _pair(second, direction), _pair(third, direction)
    s2, s3 = multiply(covariance, h2), multiply(covariance, h3)
    v22, v33, v23 = (h2 * s2).sum(axis=0), (h3 * s3).sum(axis=0), (h2 * s3).sum(axis=0)
    m22 = first - (_pair(second, second) * elements).sum(axis=0)
    m33 = first - (_pair(third, third) * elements).sum(axis=0)
    m23 = -(_pair(second, third) * elements).sum(axis=0)
    determinant = m22 * m33 - m23 * m23
    determinant = np.where(determinant > 0, determinant, np.nan)
    k22, k33, k23 = m33 / determinant, m22 / determinant, -m23 / determinant
    rise = np.fmin(k22 * v22 + k33 * v33 + 2 * k23 * v23, np.sqrt(v22 + v33))
    w22 = k22 * k22 * v22 + 2 * k22 * k23 * v23 + k23 * k23 * v33
    w33 = k33 * k33 * v33 + 2 * k33 * k23 * v23 + k23 * k23 * v22
    w23 = k22 * k23 * v22 + (k22 * k33 + k23 * k23) * v23 + k23 * k33 * v33
    return rise, w22, w33, w23


def _across(direction: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Two unit vectors that complete ``direction`` (not pointing down) to a frame.

    References
    ----------
    Duff et al. 2017, Building an orthonormal basis, revisited, Journal of Computer Graphics Techniques 6(1).
    """
    x, y, z = direction
    a = -1 / (1 + z)
    b = x * y * a
    return np.stack([1 + x * x * a, b, -x]), np.stack([b, 1 + y * y * a, -y])


def _pair(first: FloatArray, second: FloatArray) -> FloatArray:
    """Weights (6, v) of the elements in first' D second."""
    (a, b, c), (x, y, z) = first, second
    return np.stack([a * x, b * y, c * z, a * y + b * x, a * z + c * x, b * z + c * y])
