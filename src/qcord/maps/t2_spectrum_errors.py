"""Standard errors of sums over a spectrum of T2: of the amplitudes, the penalty and the refocusing angle."""

from dataclasses import dataclass

import numpy as np
from scipy import special

from qcord.core.arrays import AnyArray, FloatArray
from qcord.estimate.non_negative import active_gram
from qcord.estimate.second_order import errors
from qcord.maps.t2_spectrum import FREE_PENALTY, Dictionary, Spectrum, angle_slope, angle_turn

_STEP = 4
"""Angles, by their place in the dictionary, over which the error of the efficiency is followed: 2 degrees."""


@dataclass(frozen=True, eq=False)
class Response:
    """How spectra of v voxels follow their measurements.

    Parameters
    ----------
    share : (v, j) array
        Part of each amplitude that follows: the chance that noise leaves it above zero.
    fall : (v, r, j) array
        Change of the amplitudes before their share with compressed measurements, at known penalty and angle.
    penalty : (v, n) array
        Change of the logarithm of the penalty with the measurements.
    turn : (v, n) array
        Change of the refocusing efficiency with the measurements.
    slope : (v, n) array
        Change of the echoes with the efficiency.
    """

    share: FloatArray
    fall: FloatArray
    penalty: FloatArray
    turn: FloatArray
    slope: FloatArray


def response(dictionary: Dictionary, found: Spectrum, noise: FloatArray) -> Response:
    """Response of spectra to noise (v,).

    An amplitude follows the measurements where it is above zero and stays put where it is not. Where its own error
    leaves that open, its mean derivative over the noise counts (statistical linearisation): the chance that it is above
    zero. The penalty is the one that raises the squared residuals by a given part, so it has a derivative, too. The
    angle is found without a penalty, and so is its error.
    """
    basis, project, mu = dictionary.compressed[found.level], dictionary.project[found.level], found.penalty[:, None]
    pull = _times(np.swapaxes(basis, 1, 2), _times(project, found.residual))
    fall = np.linalg.solve(active_gram(basis, found.amplitudes > 0, found.penalty), basis)
    with np.errstate(all="ignore"):
        own = np.sqrt((fall**2).sum(axis=1)) * noise[:, None]
        share = np.nan_to_num(special.ndtr(pull / mu / own), nan=0.0)
    share = np.where(np.isfinite(noise)[:, None], share, found.amplitudes > 0)
    fall = np.linalg.solve(active_gram(basis, share, found.penalty), basis)
    free = np.full(len(mu), FREE_PENALTY)
    turn = angle_turn(
        dictionary, found.level, found.amplitudes, free, angle_slope(dictionary, found.level, found.least)
    )
    slope = angle_slope(dictionary, found.level, found.amplitudes)
    return Response(share, fall, _penalty_change(dictionary, found, share), turn, slope)


def spread_of_sum(dictionary: Dictionary, found: Spectrum, response: Response, weights: FloatArray) -> FloatArray:
    """Length (v,) of the derivative, with respect to the measurements, of amplitudes summed with weights (v, j)."""
    project, basis = dictionary.project[found.level], dictionary.compressed[found.level]
    inner = _times(response.fall, np.nan_to_num(weights) * response.share)
    direct = _times(np.swapaxes(project, 1, 2), inner)
    by_angle = (direct * response.slope).sum(axis=1, keepdims=True)
    echoes = _times(basis, found.amplitudes)
    by_penalty = ((inner * echoes).sum(axis=1) - (np.nan_to_num(weights) * found.amplitudes).sum(axis=1))[:, None]
    total = direct - by_angle * response.turn + by_penalty * response.penalty
    return np.asarray(np.sqrt((total**2).sum(axis=1)))


def _penalty_change(dictionary: Dictionary, found: Spectrum, share: FloatArray) -> FloatArray:
    """Change (v, n) of the logarithm of the penalty with the measurements.

    Squared residuals with penalty stay a given part above those without; the derivatives of both are known, and so is
    that of the former with the penalty.
    """
    project, basis, mu = dictionary.project[found.level], dictionary.compressed[found.level], found.penalty[:, None]
    inner = _times(project, found.residual)
    outside = found.residual - _times(np.swapaxes(project, 1, 2), inner)
    damped = mu * np.linalg.solve(active_gram(basis, share, found.penalty), inner[..., None])[..., 0]
    size, least = ((r**2).sum(axis=1, keepdims=True) for r in (found.residual, found.least_residual))
    with np.errstate(all="ignore"):
        by_noise = (_times(np.swapaxes(project, 1, 2), damped) + outside) / size - found.least_residual / least
        by_penalty = (inner * (inner - damped)).sum(axis=1, keepdims=True) / size
        return np.asarray(np.where(by_penalty > 0, -by_noise / by_penalty, 0.0))


def efficiency_errors(
    dictionary: Dictionary, found: Spectrum, response: Response, noise: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Standard error and bias (v,) of the refocusing efficiency.

    The echoes tell high efficiencies better than low ones: the error changes along the estimate, and the bias follows
    from that (see `qcord.estimate.second_order.errors`).
    """
    std = np.sqrt((response.turn**2).sum(axis=1)) * noise
    last = len(dictionary.angles) - 1
    places = np.clip(found.level - _STEP, 0, last), np.clip(found.level + _STEP, 0, last)
    free = np.full(len(noise), FREE_PENALTY)
    low, high = (
        np.sqrt((angle_turn(dictionary, p, found.amplitudes, free, angle_slope(dictionary, p, found.least)) ** 2).sum(1))
        for p in places
    )
    with np.errstate(all="ignore"):
        growth = np.log(high / low) / (dictionary.efficiency[places[1]] - dictionary.efficiency[places[0]])
    bend = np.where(np.isfinite(growth), growth, 0.0) * std**2
    return errors(std[None], bend[None, None])


def _times(matrix: AnyArray, vector: AnyArray) -> FloatArray:
    return np.asarray(np.matmul(matrix, vector[..., None])[..., 0])
