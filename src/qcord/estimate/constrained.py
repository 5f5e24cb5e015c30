"""Least squares under linear inequalities, for many voxels at once; the voxel axis comes last."""

import numpy as np

from qcord.core.arrays import BoolArray, FloatArray
from qcord.estimate.voxelwise import product

_SWEEPS = 200
_SLACK = 2e-3
"""Violation of a constraint, and move by it, in standard errors, that counts as none."""


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
    multiplier = np.zeros(variance.shape)
    result, here, left = theta.copy(), theta.copy(), np.arange(v)
    for _ in range(_SWEEPS):
        moved = np.zeros(len(left))
        for m, row in enumerate(rows):
            step = np.maximum(-np.einsum("p,pv->v", row, here) / variance[m], -multiplier[m])
            multiplier[m] += step
            here += step * pull[m]
            moved = np.maximum(moved, step * step * variance[m])
        result[:, left] = here
        going = moved > _SLACK**2
        if not going.any():
            break
        if going.mean() < 0.7:
            left, here, multiplier = left[going], here[:, going], multiplier[:, going]
            pull, variance = pull[:, :, going], variance[:, going]
    return result
