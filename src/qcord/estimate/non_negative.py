"""Regularised non-negative least squares for many voxels at once.

The least of |y - B x|^2 + mu |x|^2 over x >= 0 is x = max(0, B' r) / mu, where r is the residual at the solution. The
residual has as many numbers as there are (compressed) measurements, fewer than there are amplitudes, and minimises a
convex function without constraints, by Newton's method in a handful of steps.
"""

from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import BoolArray, FloatArray, IntArray

_ROUNDS = 60
_SMALL = 1e-9
"""Gradient, relative to the measurements, at which a voxel has settled."""

_HALVINGS = 40
_SUFFICIENT = 1e-4
_SHARP = 0.1
"""Relative width of the bracket in which the least along a step is sought."""


@dataclass(frozen=True, eq=False)
class NonNegative:
    """Solution for v voxels.

    Parameters
    ----------
    amplitudes : (v, j) array
        Not negative.
    residual : (v, r) array
        Of the measurements.
    settled : (v,) array of bool
        Whether the iteration has come to rest.
    """

    amplitudes: FloatArray
    residual: FloatArray
    settled: BoolArray


def non_negative_ridge(
    basis: FloatArray, measured: FloatArray, penalty: FloatArray, residual: FloatArray | None = None
) -> NonNegative:
    """Amplitudes that are not negative and fit the measurements, with a penalty on their squares.

    Parameters
    ----------
    basis : (v, r, j) array
        Measurements of unit amplitudes.
    measured : (v, r) array
        Finite measurements.
    penalty : (v,) array
        Positive weight of the squared amplitudes.
    residual : (v, r) array, optional
        Where to begin, such as the residual of a similar problem.

    References
    ----------
    Butler, Reeds and Dawson 1981, doi:10.1137/0718025.
    """
    here = measured.copy() if residual is None else residual.copy()
    settled = np.zeros(len(measured), dtype=bool)
    active = np.arange(len(measured))
    b, y, mu = basis, measured, penalty[:, None]
    rounding = 1e-16 * (basis**2).sum(axis=(1, 2)) / penalty
    limit = (_SMALL + rounding) * np.sqrt((measured**2).sum(axis=1))
    for _ in range(_ROUNDS):
        r = here[active]
        pull = np.matmul(r[:, None, :], b)[:, 0]
        inside = pull > 0
        gradient = r - y + np.matmul(b, (np.where(inside, pull, 0.0))[..., None])[..., 0] / mu
        done = np.abs(gradient).max(axis=1) <= limit[active]
        settled[active[done]] = True
        if done.sum() * 4 >= len(active):
            rest = ~done
            active, b, y, mu = active[rest], b[rest], y[rest], mu[rest]
            r, pull, inside, gradient = r[rest], pull[rest], inside[rest], gradient[rest]
            done = done[rest]
        if not active.size:
            break
        curvature = active_gram(b, inside, mu[:, 0])
        step = -np.linalg.solve(curvature, gradient[..., None])[..., 0] * mu
        along = np.matmul(step[:, None, :], b)[:, 0]
        length = _length(y, mu, (r, pull), (step, along))
        moved = r + length[:, None] * step
        here[active] = np.where(done[:, None], r, moved)
    amplitudes = np.maximum(np.matmul(here[:, None, :], basis)[:, 0], 0) / penalty[:, None]
    return NonNegative(amplitudes, here, settled)


def active_gram(basis: FloatArray, inside: BoolArray | FloatArray, penalty: FloatArray) -> FloatArray:
    """Products (v, r, r) of the rows of the basis, each amplitude by its share, with the penalty on the diagonal.

    The share is 1 of amplitudes that are not zero, and 0 of others; or a part.
    """
    gram = np.matmul(basis * inside[:, None, :], np.swapaxes(basis, 1, 2))
    row = np.arange(basis.shape[1])
    gram[:, row, row] += penalty[:, None]
    return np.asarray(gram)


def _length(
    y: FloatArray,
    mu: FloatArray,
    start: tuple[FloatArray, FloatArray],
    step: tuple[FloatArray, FloatArray],
) -> FloatArray:
    """Part of a step (of residual and pull): all of it if that lowers the function enough, else what lowers it most.

    Halving the step until it is good enough would not do where the penalty is small: the function then has valleys with
    steep walls, in which only its least along the step makes progress.
    """

    def value_and_slope(rows: IntArray | slice, length: FloatArray) -> tuple[FloatArray, FloatArray]:
        force = np.maximum(start[1][rows] + length[:, None] * step[1][rows], 0) / mu[rows]
        there = start[0][rows] + length[:, None] * step[0][rows]
        value = np.einsum("vr,vr->v", there, there / 2 - y[rows]) + 0.5 * np.einsum(
            "vj,vj,v->v", force, force, mu[rows, 0]
        )
        return value, np.einsum("vr,vr->v", there - y[rows], step[0][rows]) + np.einsum(
            "vj,vj->v", force, step[1][rows]
        )

    length = np.ones(len(y))
    first, fall = value_and_slope(slice(None), 0 * length)
    whole, _ = value_and_slope(slice(None), length)
    short = np.flatnonzero(whole > first + _SUFFICIENT * fall + 1e-15 * np.abs(first))
    low, high = np.zeros(short.size), np.ones(short.size)
    for _ in range(_HALVINGS if short.size else 0):
        middle = (low + high) / 2
        beyond = value_and_slope(short, middle)[1] > 0
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
        if np.all(high - low <= _SHARP * high):
            break
    length[short] = (low + high) / 2
    return length
