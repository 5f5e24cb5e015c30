"""Least squares under linear inequalities, for many voxels at once; the voxel axis comes last."""

import numpy as np

from qcord.core.arrays import BoolArray, FloatArray
from qcord.estimate.voxelwise import product

_SWEEPS = 200
_SLACK = 1e-3
"""Violation, in standard errors, that counts as none."""


def constrain(theta: FloatArray, covariance: FloatArray, rows: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Nearest estimates, in the metric of their covariance, with ``rows @ theta >= 0``.

    Parameters
    ----------
    theta : (p, v) array
        Unconstrained estimates.
    covariance : (p, p, v) array
        Their covariance; voxels where it is not finite stay as they are.
    rows : (m, p) array
        Constraints.

    Returns
    -------
    theta : (p, v) array
        The weighted least-squares solution under the constraints.
    held : (v,) array of bool
        Where a constraint holds it.

    References
    ----------
    Hildreth 1957, doi:10.1002/nav.3800040113 (row by row on the dual).
    """
    known = np.isfinite(covariance).all(axis=(0, 1)) & np.isfinite(theta).all(axis=0)
    error = np.sqrt(np.einsum("mi,ijv,mj->mv", rows, covariance, rows, optimize=True))
    held: BoolArray = np.asarray(known & (product(rows, theta) < -_SLACK * error).any(axis=0))
    result = theta.copy()
    active = np.flatnonzero(held)
    if active.size:
        result[:, active] = _hildreth(theta[:, active], covariance[:, :, active], rows)
    return result, held


def _hildreth(theta: FloatArray, covariance: FloatArray, rows: FloatArray) -> FloatArray:
    p, v = theta.shape
    pull = product(rows, covariance.reshape(p, p * v)).reshape(len(rows), p, v)
    variance = np.einsum("mp,mpv->mv", rows, pull)
    slack = _SLACK * np.sqrt(variance)
    multiplier = np.zeros(variance.shape)
    result = theta.copy()
    left = np.arange(v)
    here = theta.copy()
    for _ in range(_SWEEPS):
        for m, row in enumerate(rows):
            step = np.maximum(-np.einsum("p,pv->v", row, here) / variance[m], -multiplier[m])
            multiplier[m] += step
            here += step * pull[m]
        open_ = (product(rows, here) < -slack).any(axis=0)
        result[:, left] = here
        if not open_.any():
            break
        if open_.mean() < 0.7:
            left, here, multiplier = left[open_], here[:, open_], multiplier[:, open_]
            pull, variance, slack = pull[:, :, open_], variance[:, open_], slack[:, open_]
    return result
