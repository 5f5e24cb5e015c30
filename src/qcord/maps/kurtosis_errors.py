"""Values, standard errors and noise bias of kurtosis metrics; the voxel axis comes last."""

import numpy as np

from qcord.core.arrays import BoolArray, FloatArray
from qcord.estimate.voxelwise import form
from qcord.maps.tensor_errors import Estimate
from qcord.models.kurtosis_metrics import (
    Frame,
    Graded,
    axial_kurtosis,
    axial_kurtosis_gradient,
    mean_kurtosis,
    mean_kurtosis_gradient,
    mean_of_kurtosis_tensor,
    mean_of_kurtosis_tensor_gradient,
    positive,
    radial_kurtosis,
    radial_kurtosis_gradient,
)

LIMITS = (-3 / 7, 10.0)
"""Range of the maps. The lower end is the kurtosis of water inside impermeable spheres; what lies outside is noise
divided by a diffusivity near zero."""

_STEEPEST = 0.5
"""Largest part of a standard error that the curvature may make up; beyond it, below a signal-to-noise ratio of about
20, the expansion in powers of the noise no longer holds."""

_COARSE = 5
"""Nodes of the mean over the sphere where only its curvature is sought."""

_STEP = 0.03
"""Step of second differences, in standard deviations."""

_CORNERS = np.sqrt(7 / 6) * np.linalg.svd(np.eye(7) - 1 / 7)[0][:, :6]
"""Corners (7, 6) of a regular simplex of radius 1 about zero: the fewest points whose second differences add up to
a trace; third derivatives cancel but for the step."""


def kurtosis_estimates(
    elements: FloatArray, covariance: FloatArray, bias: FloatArray, shown: FloatArray | None = None
) -> tuple[dict[str, Estimate], BoolArray]:
    """MK, AK, RK and MKT with errors.

    Parameters
    ----------
    elements : (21, v) array
        Estimates of D and V.
    covariance : (21, 21, v) array
        Their covariance.
    bias : (21, v) array
        Expected error of the elements themselves.
    shown : (21, v) array, optional
        Elements that the maps show, where these are others (constrained ones).

    Returns
    -------
    estimates : dict of str to Estimate
        MK, AK, RK (v,), and MKT, the mean of the kurtosis tensor. ``value - bias`` is what the unconstrained elements
        give once their bias is taken off, and the standard error is that of it.
    held : (v,) array of bool
        Where an eigenvalue or a kurtosis of the map was held at its limit.

    Notes
    -----
    Standard errors are those of the delta method. The bias is that of the elements and half the trace of second
    derivative times covariance. As all values are linear in V, it takes second differences in six dimensions only:
    the first columns of the Cholesky root of the covariance, in which D changes and V follows.
    """
    raised, low = positive(elements[:6] if shown is None else shown[:6])
    plain = _values(raised, (elements if shown is None else shown)[6:])
    middle = elements - bias
    middle[:6], _ = positive(middle[:6])
    graded = _graded(middle)
    curved = _curvature(middle, covariance)
    estimates, held = {}, low
    for name, (value, gradient) in graded.items():
        std = np.sqrt(form(gradient, covariance, gradient))
        rise = np.nan_to_num(np.clip(curved[name], -_STEEPEST * std, _STEEPEST * std))
        cut = np.clip(plain[name], *LIMITS)
        held = held | (cut != plain[name])
        better = np.clip(value - rise, LIMITS[0] - 2 * std, LIMITS[1])
        estimates[name] = Estimate(cut, std, np.where(np.isfinite(std), cut - better, np.nan))
    return estimates, np.asarray(held)


def _values(tensor: FloatArray, kurtosis: FloatArray, nodes: int | None = None) -> dict[str, FloatArray]:
    frame = Frame(tensor)
    return {
        "MK": np.asarray(mean_kurtosis(tensor, kurtosis) if nodes is None else mean_kurtosis(tensor, kurtosis, nodes)),
        "AK": axial_kurtosis(tensor, kurtosis, frame),
        "RK": radial_kurtosis(tensor, kurtosis, frame),
        "MKT": np.asarray(mean_of_kurtosis_tensor(tensor, kurtosis)),
    }


def _graded(elements: FloatArray) -> dict[str, Graded]:
    tensor, kurtosis = elements[:6], elements[6:]
    frame = Frame(tensor)
    return {
        "MK": mean_kurtosis_gradient(tensor, kurtosis),
        "AK": axial_kurtosis_gradient(tensor, kurtosis, frame),
        "RK": radial_kurtosis_gradient(tensor, kurtosis, frame),
        "MKT": mean_of_kurtosis_tensor_gradient(tensor, kurtosis),
    }


def _curvature(middle: FloatArray, covariance: FloatArray) -> dict[str, FloatArray]:
    """Half the trace of second derivative times covariance."""
    points = middle[:, None] + _STEP * np.einsum("kd,dpv->pkv", _CORNERS, _first_columns(covariance))
    values = _values(points[:6], points[6:], _COARSE)
    here = _values(middle[:6], middle[6:], _COARSE)
    return {name: 6 / 7 * (v - here[name]).sum(axis=0) / _STEP**2 for name, v in values.items()}


def _first_columns(covariance: FloatArray) -> FloatArray:
    """First six columns (6, p, v) of the Cholesky root of covariances (p, p, v)."""
    root = np.zeros((6, *covariance.shape[1:]))
    for j in range(6):
        column = covariance[j:, j] - np.einsum("kiv,kv->iv", root[:j, j:], root[:j, j])
        root[j, j:] = column / np.sqrt(column[0])
    return root
