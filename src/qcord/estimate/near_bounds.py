"""How large a likelihood ratio becomes by chance where parameters end at bounds nearby."""

from functools import lru_cache

import numpy as np

from qcord.core.arrays import FloatArray
from qcord.estimate.voxelwise import form, lower_root, multiply, solve

NEAR = 3.5
"""Standard errors from which a bound no longer counts."""

_DRAWS = 256
_NUMBERS = 1 << 20
"""Numbers of one array of matrices that are held at a time."""

_ROUNDS = 40
_SINGLE = 8
"""Rounds after which one parameter at a time changes sides, which must end."""

_PINNED = 1e-4
"""Error that is left to a pinned value, relative to its standard error."""

_EDGE = 1e-9


def bounded_ratio(
    covariance: FloatArray, slope: FloatArray, limits: tuple[FloatArray, FloatArray], tail: float
) -> FloatArray:
    """Quantile of the likelihood ratio of a value, relative to that without bounds.

    Signals are taken as linear in the parameters and estimates as normal about the truth, held within the bounds by
    the least loss of likelihood; the ratio is between the best with the true value and the best. The truth has the
    value of the point; its other parameters scatter about those of the point, within the bounds, by what the value
    leaves open: at the point they often are at a bound, where the truth seldom is.

    Parameters
    ----------
    covariance : (p, p, v) array
        Of the estimates without bounds.
    slope : (p, v) array
        Derivative of the value.
    limits : pair of (p, v) array
        Bounds less the point: low, at most 0, and high, at least 0.
    tail : float
        Chance of a larger ratio, such as .05.

    Returns
    -------
    (v,) array
        1 where no bound is within `NEAR` standard errors or the covariance is not known.

    References
    ----------
    Feldman and Cousins 1998, doi:10.1103/PhysRevD.57.3873 (intervals of bounded values by the ratio);
    Cousins and Highland 1992, doi:10.1016/0168-9002(92)90794-5 (means over what else is not known);
    Self and Liang 1987, doi:10.1080/01621459.1987.10478472 (its distribution where parameters lie on bounds).
    """
    low, high = limits
    std = np.sqrt(np.einsum("ppv->pv", covariance))
    result = np.ones(covariance.shape[2])
    with np.errstate(invalid="ignore", divide="ignore"):
        near = ((-low < NEAR * std) | (high < NEAR * std)).any(axis=0)
        near &= np.isfinite(covariance).all(axis=(0, 1)) & (std > 0).all(axis=0)
        near &= form(slope, covariance, slope) > 0
    chosen = np.flatnonzero(near)
    block = max(1, _NUMBERS // (_DRAWS * len(slope) ** 2))
    for first in range(0, chosen.size, block):
        part = chosen[first : first + block]
        size = std[:, part]
        scaled = covariance[:, :, part] / (size[:, None] * size[None, :])
        ends = (low[:, part] / size, high[:, part] / size)
        result[part] = _ratio(scaled, slope[:, part] * size, ends, tail)
    return result


def _ratio(covariance: FloatArray, slope: FloatArray, limits: tuple[FloatArray, FloatArray], tail: float) -> FloatArray:
    root = lower_root(covariance)
    noise, others = np.split(_normals(2 * len(slope)), 2)
    draws, moves = (np.einsum("ijv,jk->ikv", root, x) for x in (noise, others))
    slope = slope / np.sqrt(form(slope, covariance, slope))
    along = multiply(covariance, slope)
    plain = np.einsum("iv,ikv->kv", slope, draws)
    low, high = _about(moves - along[:, None] * np.einsum("iv,ikv->kv", slope, moves), limits)
    inverse = _inverse(covariance)
    pinned = inverse + slope[:, None] * slope[None, :] / _PINNED**2
    ratio = plain**2
    held = draws - along[:, None] * plain
    out = ((draws < low) | (draws > high) | (held < low) | (held > high)).any(axis=0)
    k, v = np.nonzero(out & np.isfinite(inverse).all(axis=(0, 1)))
    centre, ends = draws[:, k, v], (low[:, k, v], high[:, k, v])
    pull = multiply(inverse[:, :, v], centre)
    free = _nearest(inverse[:, :, v], pull, centre, ends)
    fixed = _nearest(pinned[:, :, v], pull, held[:, k, v], ends)
    losses = [form(x - centre, inverse[:, :, v], x - centre) for x in (fixed, free)]
    ratio[k, v] = np.maximum(losses[0] - losses[1], 0.0)
    found, usual = (np.quantile(x, 1 - tail, axis=0) for x in (ratio, plain**2))
    return np.asarray(np.where(np.isfinite(found), found / usual, 1.0))


def _about(moves: FloatArray, limits: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Bounds (p, k, v) less a truth that is moved from the point, and turned back where it would leave the bounds."""
    low, high = (x[:, None] for x in limits)
    truth = np.where(moves < low, 2 * low - moves, np.where(moves > high, 2 * high - moves, moves))
    truth = np.clip(truth, low, high)
    return low - truth, high - truth


def _nearest(
    normal: FloatArray, pull: FloatArray, start: FloatArray, limits: tuple[FloatArray, FloatArray]
) -> FloatArray:
    """Least ``x' normal x / 2 - pull' x`` (p, m) within limits; which parameters are held is mended in rounds."""
    low, high = limits
    side = np.where(start < low, -1, np.where(start > high, 1, 0))
    result = np.clip(start, low, high)
    active = np.arange(start.shape[1])
    for turn in range(_ROUNDS):
        here, least, most = side[:, active], low[:, active], high[:, active]
        at = np.where(here < 0, least, np.where(here > 0, most, 0.0))
        idle = here != 0
        matrix, wanted = normal[:, :, active], pull[:, active]
        rest = wanted - multiply(matrix, np.where(idle, at, 0.0))
        reduced = np.where(idle[:, None] | idle[None, :], 0.0, matrix)
        np.einsum("ppv->pv", reduced)[...] += idle
        x = np.where(idle, at, solve(reduced, np.where(idle, 0.0, rest)))
        force = wanted - multiply(matrix, x)
        scale = _EDGE * np.sqrt(np.einsum("ppv->pv", matrix))
        wrong = np.where(idle, force * here < -scale, (x < least - _EDGE) | (x > most + _EDGE))
        if turn >= _SINGLE:
            wrong &= np.cumsum(wrong, axis=0) == 1
        changed = np.where(idle, 0, np.where(x < least, -1, 1))
        side[:, active] = np.where(wrong, changed, here)
        result[:, active] = np.clip(x, least, most)
        active = active[wrong.any(axis=0)]
        if not active.size:
            break
    return result


def _inverse(covariance: FloatArray) -> FloatArray:
    size = len(covariance)
    unit = np.eye(size)
    columns = [solve(covariance, np.broadcast_to(unit[i][:, None], covariance.shape[1:])) for i in range(size)]
    return np.stack(columns, axis=1)


@lru_cache(maxsize=8)
def _normals(size: int) -> FloatArray:
    """Standard normal points (size, draws) that fill space evenly."""
    from scipy.special import ndtri
    from scipy.stats import qmc

    return np.ascontiguousarray(ndtri(qmc.Sobol(size, seed=20).random(_DRAWS)).T)
