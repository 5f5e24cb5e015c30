"""Climb to the maximum of the NODDI likelihood within bounds: Fisher scoring with damping, for many voxels at once."""

import numpy as np

from qcord.core.arrays import BoolArray, FloatArray
from qcord.estimate.voxelwise import solve, unpack
from qcord.maps.noddi_likelihood import evaluate
from qcord.maps.noddi_signal import PARAMETERS, Design, X, moved
from qcord.models.noddi import NODDI

LOW = np.array([1e-9, *(p.bounds[0] for p in NODDI.free[1:4])])[:, None]
HIGH = np.array([np.inf, *(p.bounds[1] for p in NODDI.free[1:3]), 0.999])[:, None]
"""Bounds of S0, ICVF, ODI, ISOVF; ISOVF stops short of 1, where nothing is left of the tissue to be described."""

PRIOR = np.array([0.0, 1.0, 1.0, 1.0, 1.0, 1.0])
"""Information that is added to that of the data in steps and standard errors: a fraction is known to lie between 0 and
1, a direction within a turn. It keeps a parameter that the data do not touch from taking the errors of the others."""

_ROUNDS = 30
GAIN = 1e-4
"""Gain of the log-likelihood promised by a step, 1/70 standard error long, from which it is the last."""

_ROUNDING = 1e-15
_FIRST_DAMPING, _STIFFEST = 1e-3, 1e8


def ascend(
    design: Design, measured: FloatArray, state: FloatArray, *, magnitude: bool, gain: float = GAIN
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Maximise the likelihood.

    Parameters
    ----------
    design : Design
        Protocol, prepared.
    measured : (n, v) array
        Measurements, in units of their noise.
    state : (7, v) array
        Where to start, within the bounds.
    magnitude : bool
        Whether the noise is Rician; else it is normal, and its size is that of the residuals.
    gain : float
        A step that promises less log-likelihood than this is the last.

    Returns
    -------
    state : (7, v) array
        Estimates.
    value : (31, v) array
        What `evaluate` gives before the last step.
    settled : (v,) array
        Whether each voxel came to rest.
    """
    state = state.copy()
    value = evaluate(design, measured, state, magnitude=magnitude)
    rounding = _ROUNDING * np.einsum("nv,nv->v", measured, measured)
    freedom = max(1, len(measured) - PARAMETERS)
    damping = np.full(state.shape[1], _FIRST_DAMPING)
    settled = np.zeros(state.shape[1], dtype=bool)
    active = np.arange(state.shape[1])
    for _ in range(_ROUNDS):
        step, promised = _step(state[:, active], value[:, active], damping[active])
        noise = 1.0 if magnitude else 2 * value[0, active] / freedom
        done = promised * (1 + damping[active]) <= gain * noise + rounding[active]
        last = active[done]
        state[:, last] = _within(moved(state[:, last], step[:, done]))
        settled[last] = True
        going = ~done & (damping[active] < _STIFFEST)
        active, step, promised = active[going], step[:, going], promised[going]
        if not active.size:
            break
        trial = _within(moved(state[:, active], step))
        part = measured if active.size == measured.shape[1] else measured[:, active]
        tried = evaluate(design.take(active), part, trial, magnitude=magnitude)
        kept = value[0, active] - tried[0]
        better = kept > 0
        ratio = kept / promised
        damping[active] = _next_damping(damping[active], ratio)
        state[:, active[better]] = trial[:, better]
        value[:, active[better]] = tried[:, better]
    return state, value, settled


def _within(state: FloatArray) -> FloatArray:
    state[:X] = np.clip(state[:X], LOW, HIGH)
    return state


def information(value: FloatArray) -> FloatArray:
    """Information (6, 6, v) from what `evaluate` gives: that of the data and `PRIOR`."""
    normal = unpack(value[7:28], PARAMETERS)
    normal[range(PARAMETERS), range(PARAMETERS)] += PRIOR[:, None]
    return normal


def outward(state: FloatArray, pull: FloatArray) -> BoolArray:
    """Which parameters (6, v) the data would move beyond the bound at which they are."""
    held = np.zeros(pull.shape, dtype=bool)
    held[:X] = ((state[:X] <= LOW) & (pull[:X] < 0)) | ((state[:X] >= HIGH) & (pull[:X] > 0))
    return held


def _step(state: FloatArray, value: FloatArray, damping: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Damped step (6, v) of the parameters that are free to move, and the gain that it promises."""
    pull = value[1:7]
    held = outward(state, pull)
    normal = information(value)
    size = np.sqrt(np.where(held, 1.0, np.einsum("iiv->iv", normal)))
    normal /= size[:, None] * size
    normal *= ~held[:, None] & ~held
    normal[range(PARAMETERS), range(PARAMETERS)] = 1 + damping
    pull = np.where(held, 0.0, pull) / size
    step = solve(_curved(normal, value[28:], size), pull)
    flat = np.flatnonzero(~np.isfinite(step).all(axis=0))
    if flat.size:
        step[:, flat] = solve(normal[:, :, flat], pull[:, flat])
    return step / size, (step * (pull + damping * step)).sum(axis=0) / 2


def _curved(normal: FloatArray, residual: FloatArray, size: FloatArray) -> FloatArray:
    """Information with the second derivatives by the axis as they are.

    Where axes are dispersed or the signal is low, the axis moves far, and the search would swing about its place.
    """
    result = normal.copy()
    for (i, j), row in zip(((4, 4), (5, 4), (5, 5)), residual, strict=True):
        result[i, j] += row / (size[i] * size[j])
        result[j, i] = result[i, j]
    return result


def _next_damping(damping: FloatArray, ratio: FloatArray) -> FloatArray:
    """Damping by the part of the promised gain that was kept: steps that overshoot are made shorter."""
    conditions = [ratio > 0.75, ratio > 0.5, ratio > 0]
    values = [0.2 * damping, damping, 3 * np.maximum(damping, 0.1)]
    return np.asarray(np.select(conditions, values, 10 * np.maximum(damping, 0.1)))
