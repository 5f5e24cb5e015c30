"""Standard errors of sums over a spectrum of T2, and of the refocusing efficiency."""

from dataclasses import replace

import numpy as np
from scipy import special

from qcord.core.arrays import AnyArray, BoolArray, FloatArray
from qcord.estimate.non_negative import active_gram
from qcord.estimate.second_order import errors
from qcord.maps.t2_spectrum import (
    FREE_PENALTY,
    PENALTIES,
    Dictionary,
    Spectrum,
    angle_slope,
    angle_turn,
    solve_amplitudes,
)

_ROUNDS = 5
"""Rounds that make chances and errors of amplitudes agree, to a thirtieth."""

_STEP = 4
"""Angles, by their place in the dictionary, over which the error of the efficiency is followed: 2 degrees."""


_SLOWEST = 1.0
"""Least change of the logarithm of the excess of squared residuals with that of the penalty, which it follows as its
square where it is small: where amplitudes hardly follow either, first derivatives would let the penalty run away."""


def chances(dictionary: Dictionary, found: Spectrum, noise: FloatArray) -> FloatArray:
    """Chance (v, j) that noise (v,) leaves an amplitude above zero; 0 or 1, as found, where the noise is not known.

    An amplitude follows the measurements where it is above zero and stays put where it is not. Where its own error
    leaves that open, this chance is its mean derivative over the noise (statistical linearisation). Errors depend on
    these chances in turn, so both are found together.
    """
    basis, project, mu = dictionary.compressed[found.level], dictionary.project[found.level], found.penalty[:, None]
    free = _times(np.swapaxes(basis, 1, 2), _times(project, found.residual)) / mu
    share = (found.amplitudes > 0).astype(float)
    known = np.isfinite(noise) & (noise > 0)
    size = np.where(known, noise, 1.0)[:, None]
    for _ in range(_ROUNDS):
        follow = np.linalg.solve(active_gram(basis, share, found.penalty), basis)
        own = np.sqrt((follow**2).sum(axis=1)) * size
        share = np.where(known[:, None], (special.ndtr(free / own) + share) / 2, share)
    return share


def unpenalised(dictionary: Dictionary, found: Spectrum) -> Spectrum:
    """The same spectra without a penalty, by which the angles were found."""
    basis, back = dictionary.compressed[found.level], np.swapaxes(dictionary.project[found.level], 1, 2)
    residual = found.residual + _times(back, _times(basis, found.amplitudes - found.least))
    penalty = np.full(len(residual), FREE_PENALTY)
    return replace(found, amplitudes=found.least, residual=residual, penalty=penalty)


def angle_response(dictionary: Dictionary, free: Spectrum, share: FloatArray | BoolArray, step: int = 0) -> FloatArray:
    """Change (v, n) of the efficiency with the measurements, at angles so many places off.

    Parameters
    ----------
    dictionary : Dictionary
        Echo trains.
    free : Spectrum
        Spectra without a penalty.
    share : (v, j) array
        Part of each amplitude that follows the measurements.
    step : int
        Places in the dictionary.
    """
    level = _place(dictionary, free, step)
    return angle_turn(dictionary, level, share, free.penalty, angle_slope(dictionary, level, free.amplitudes))


def penalty_response(
    dictionary: Dictionary, found: Spectrum, share: FloatArray | BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Change (v, j) of the amplitudes with the logarithm of the penalty, and (v, n) of that with the measurements.

    The penalty is the one whose squared residuals lie a given part above their least, so noise moves it: by the
    derivatives of both with respect to the measurements, the amplitudes following by their shares. At either end of its
    range it stays.
    """
    basis, project, mu = dictionary.compressed[found.level], dictionary.project[found.level], found.penalty[:, None]
    back = np.swapaxes(project, 1, 2)
    inner = _times(project, found.residual)
    left = mu * np.linalg.solve(active_gram(basis, share, found.penalty), inner[..., None])[..., 0]
    least = unpenalised(dictionary, found).residual
    least_square = (least**2).sum(axis=1)
    excess = (found.residual**2).sum(axis=1) - least_square
    grade = np.maximum((inner * (inner - left)).sum(axis=1), _SLOWEST / 2 * excess)
    with np.errstate(all="ignore"):
        change = (1 + excess / least_square)[:, None] * least - found.residual - _times(back, left - inner)
        change = change / grade[:, None]
    moves = (found.penalty > PENALTIES[0]) & (found.penalty < PENALTIES[1]) & np.isfinite(change).all(axis=1)
    fall = share * _times(np.swapaxes(basis, 1, 2), -left) / mu
    return fall, np.where(moves[:, None], change, 0.0)


def spread_of_sum(
    dictionary: Dictionary,
    found: Spectrum,
    weights: FloatArray,
    share: FloatArray | BoolArray,
    responses: tuple[FloatArray, tuple[FloatArray, FloatArray]],
) -> FloatArray:
    """Length (v,) of the derivative, with respect to the measurements, of amplitudes summed with weights (v, j).

    Parameters
    ----------
    dictionary : Dictionary
        Echo trains.
    found : Spectrum
        Spectra.
    weights : (v, j) array
        Derivatives of a value with respect to the amplitudes; NaN counts as zero.
    share : (v, j) array
        Part of each amplitude that follows the measurements.
    responses : (v, n) array and two arrays
        See `angle_response` and `penalty_response`.
    """
    turn, penalty = responses
    basis, project = dictionary.compressed[found.level], dictionary.project[found.level]
    known = np.nan_to_num(weights)
    pull = _times(basis, known * share)
    inner = np.linalg.solve(active_gram(basis, share, found.penalty), pull[..., None])[..., 0]
    direct = _times(np.swapaxes(project, 1, 2), inner)
    slope = angle_slope(dictionary, found.level, found.amplitudes)
    through = direct - (direct * slope).sum(axis=1, keepdims=True) * turn
    through = through + (known * penalty[0]).sum(axis=1, keepdims=True) * penalty[1]
    return np.asarray(np.sqrt((through**2).sum(axis=1)))


def of_narrow_pools(
    dictionary: Dictionary, found: Spectrum, pools: tuple[BoolArray, BoolArray], means: tuple[FloatArray, FloatArray]
) -> FloatArray:
    """Amplitudes (v, j) that the same penalty makes of echoes without noise if pools were of a single T2 each.

    Parameters
    ----------
    dictionary : Dictionary
        Echo trains.
    found : Spectrum
        Spectra; what belongs to no pool stays as it is.
    pools : two (j,) arrays of bool
        T2 values of each pool.
    means : two (v,) arrays
        Logarithm of the T2 of each pool; finite where it has any amplitude.
    """
    logs = np.log(dictionary.times)
    spectra = found.amplitudes * ~(pools[0] | pools[1])
    row = np.arange(len(spectra))
    for pool, mean in zip(pools, means, strict=True):
        signal = (found.amplitudes * pool).sum(axis=1)
        place = np.where(signal > 0, (mean - logs[0]) / (logs[1] - logs[0]), 0.0)
        below = np.clip(place.astype(int), 0, len(logs) - 2)
        part = place - below
        spectra[row, below] += (1 - part) * signal
        spectra[row, below + 1] += part * signal
    echoes = _times(dictionary.trains[found.level], spectra)
    return solve_amplitudes(dictionary, echoes, found.level, found.penalty, found.residual)[0]


def efficiency_errors(
    dictionary: Dictionary, free: Spectrum, share: FloatArray | BoolArray, noise: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Standard error (v,) and bias of the refocusing efficiency, to second order.

    The echoes tell high efficiencies better than low ones: the error changes along the estimate, and the bias follows
    from that (see `qcord.estimate.second_order.errors`). Parameters as those of `angle_response`.
    """
    low, std, high = (
        noise * np.sqrt((angle_response(dictionary, free, share, step) ** 2).sum(axis=1)) for step in (-_STEP, 0, _STEP)
    )
    apart = dictionary.efficiency[_place(dictionary, free, _STEP)]
    apart = apart - dictionary.efficiency[_place(dictionary, free, -_STEP)]
    with np.errstate(all="ignore"):
        growth = np.log(high / low) / apart
    bend = np.where(np.isfinite(growth), growth, 0.0) * std**2
    return errors(std[None], bend[None, None])


def _place(dictionary: Dictionary, found: Spectrum, step: int) -> AnyArray:
    return np.clip(found.level + step, 0, len(dictionary.angles) - 1)


def _times(matrix: AnyArray, vector: AnyArray) -> FloatArray:
    return np.asarray(np.matmul(matrix, vector[..., None])[..., 0])
