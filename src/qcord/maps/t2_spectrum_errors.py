"""Standard errors of sums over a spectrum of T2, and of the refocusing efficiency."""

import numpy as np
from scipy import special

from qcord.core.arrays import AnyArray, BoolArray, FloatArray
from qcord.estimate.non_negative import active_gram
from qcord.estimate.second_order import errors
from qcord.maps.t2_spectrum import FREE_PENALTY, Dictionary, Spectrum, angle_slope, angle_turn

_ROUNDS = 5
"""Rounds that make chances and errors of amplitudes agree, to a thirtieth."""

_STEP = 4
"""Angles, by their place in the dictionary, over which the error of the efficiency is followed: 2 degrees."""


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


def angle_response(dictionary: Dictionary, found: Spectrum) -> tuple[FloatArray, FloatArray]:
    """Change (v, n) of the echoes with the refocusing efficiency, and of the efficiency with the measurements.

    The angle is found without a penalty, and so its change is.
    """
    return angle_slope(dictionary, found.level, found.amplitudes), _turn_at(dictionary, found, 0)


def spread_of_sum(
    dictionary: Dictionary,
    found: Spectrum,
    weights: FloatArray,
    share: FloatArray | BoolArray,
    angle: tuple[FloatArray, FloatArray],
) -> FloatArray:
    """Length (v,) of the derivative, with respect to the measurements, of amplitudes summed with weights (v, j).

    Parameters
    ----------
    dictionary : Dictionary
        Echo trains.
    found : Spectrum
        Spectra, whose penalty stays.
    weights : (v, j) array
        Derivatives of a value with respect to the amplitudes; NaN counts as zero.
    share : (v, j) array
        Part of each amplitude that follows the measurements.
    angle : two (v, n) arrays
        See `angle_response`.
    """
    basis, project = dictionary.compressed[found.level], dictionary.project[found.level]
    pull = _times(basis, np.nan_to_num(weights) * share)
    inner = np.linalg.solve(active_gram(basis, share, found.penalty), pull[..., None])[..., 0]
    direct = _times(np.swapaxes(project, 1, 2), inner)
    through = direct - (direct * angle[0]).sum(axis=1, keepdims=True) * angle[1]
    return np.asarray(np.sqrt((through**2).sum(axis=1)))


def efficiency_errors(
    dictionary: Dictionary, found: Spectrum, turn: FloatArray, noise: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Standard error and bias (v,) of the refocusing efficiency, from its change (v, n) with the measurements.

    The echoes tell high efficiencies better than low ones: the error changes along the estimate, and the bias follows
    from that (see `qcord.estimate.second_order.errors`).
    """
    std = noise * np.sqrt((turn**2).sum(axis=1))
    low, high = (np.sqrt((_turn_at(dictionary, found, step) ** 2).sum(axis=1)) for step in (-_STEP, _STEP))
    apart = dictionary.efficiency[_place(dictionary, found, _STEP)]
    apart = apart - dictionary.efficiency[_place(dictionary, found, -_STEP)]
    with np.errstate(all="ignore"):
        growth = np.log(high / low) / apart
    bend = np.where(np.isfinite(growth), growth, 0.0) * std**2
    return errors(std[None], bend[None, None])


def _turn_at(dictionary: Dictionary, found: Spectrum, step: int) -> FloatArray:
    """Change (v, n) of the efficiency with the measurements, for the same spectra at angles so many places off."""
    level = _place(dictionary, found, step)
    free = np.full(len(level), FREE_PENALTY)
    return angle_turn(dictionary, level, found.amplitudes, free, angle_slope(dictionary, level, found.least))


def _place(dictionary: Dictionary, found: Spectrum, step: int) -> AnyArray:
    return np.clip(found.level + step, 0, len(dictionary.angles) - 1)


def _times(matrix: AnyArray, vector: AnyArray) -> FloatArray:
    return np.asarray(np.matmul(matrix, vector[..., None])[..., 0])
