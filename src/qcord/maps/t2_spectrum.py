"""Spectra of T2 of spin echo trains: non-negative amplitudes with a penalty, and the refocusing angle."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcord.core.arrays import BoolArray, FloatArray, IntArray
from qcord.core.protocol import Protocol
from qcord.estimate.non_negative import active_gram, non_negative_ridge
from qcord.models.extended_phase_graph import echo_numbers, echo_train

TIMES = (0.01, 2.0, 40)
"""Range of T2 [s] and number of values, evenly spaced on a logarithmic scale."""

RISE = 0.02
"""Part by which the penalty may raise the squared residuals above their least."""

_LOWEST_ANGLE, _ANGLES = 90.0, 181
_RANK = 1e-5
"""Singular values, relative to the largest, that are left out."""

FREE_PENALTY = 1e-6
"""Penalty that is as good as none where there is noise; without noise it lowers MWF by .008, and 1e-5 by .013."""

_SEARCH = (1e-2, 1e-3, 1e-4, 1e-4, 1e-5, FREE_PENALTY, FREE_PENALTY)
REFINE = (1e-4, FREE_PENALTY)
"""Penalties of the rounds that find the angle from a table, and from a good guess."""

PENALTIES = (FREE_PENALTY, 1.0)
"""Range of the penalty."""

MIDDLE_PENALTY = 1e-3
"""Penalty of about the size that is found at signal-to-noise ratios of 100 to 200."""

_SECANTS = 5


@dataclass(frozen=True, eq=False)
class Dictionary:
    """Echo trains of single T2 values for a ladder of refocusing angles.

    Parameters
    ----------
    times : (j,) array
        T2 [s].
    angles : (l,) array
        Refocusing angles [deg], rising to 180.
    efficiency : (l,) array
        sin^2 of half of them.
    trains : (l, n, j) array
        Echoes, in the order of the protocol.
    project : (l, r, n) array
        Orthonormal rows that hold all that the trains of an angle span.
    compressed : (l, r, j) array
        Trains in these coordinates.
    """

    times: FloatArray
    angles: FloatArray
    efficiency: FloatArray
    trains: FloatArray
    project: FloatArray
    compressed: FloatArray


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Spectra of v voxels.

    Parameters
    ----------
    amplitudes : (v, j) array
        Signal of each T2 right after the excitation, relative to `scale`.
    level : (v,) array of int
        Refocusing angle, by its place in the dictionary.
    penalty : (v,) array
        Weight of the squared amplitudes.
    residual : (v, n) array
        Measurements minus echoes of the spectrum, relative to `scale`.
    settled : (v,) array of bool
        Whether the iterations came to rest.
    least : (v, j) array
        Amplitudes without a penalty.
    """

    amplitudes: FloatArray
    level: IntArray
    penalty: FloatArray
    residual: FloatArray
    settled: BoolArray
    least: FloatArray


def make_dictionary(protocol: Protocol, r1: float = 1.0) -> Dictionary:
    """Dictionary of the echoes of a protocol for a longitudinal relaxation rate [1/s]."""
    numbers, spacing = echo_numbers(protocol)
    times = np.geomspace(*TIMES)
    angles = np.linspace(_LOWEST_ANGLE, 180.0, _ANGLES)
    efficiency = np.sin(np.deg2rad(angles) / 2) ** 2
    trains = echo_train(int(numbers.max()), spacing, 1 / times, np.array(r1), efficiency[:, None])
    trains = np.ascontiguousarray(np.moveaxis(trains[numbers - 1], 0, 1))
    left, size, _ = np.linalg.svd(trains, full_matrices=False)
    rank = int((size > _RANK * size[:, :1]).sum(axis=1).max())
    project = np.ascontiguousarray(np.swapaxes(left[:, :, :rank], 1, 2))
    return Dictionary(times, angles, efficiency, trains, project, np.matmul(project, trains))


def find_angle(
    dictionary: Dictionary, measured: FloatArray, level: IntArray, search: Sequence[float] = _SEARCH
) -> IntArray:
    """Refocusing angles, by their place in the dictionary, of measurements (v, n) of the order of 1.

    Parameters
    ----------
    dictionary : Dictionary
        Echo trains.
    measured : (v, n) array
        Finite measurements.
    level : (v,) array of int
        First guess of the angle.
    search : sequence of float
        Penalties of the rounds.

    References
    ----------
    Golub and Pereyra 1973, doi:10.1137/0710036 (the amplitudes follow each change of the angle).
    """
    residual = measured
    for weight in search:
        penalty = np.full(len(measured), weight)
        amplitudes, residual, _ = solve_amplitudes(dictionary, measured, level, penalty, residual)
        slope = angle_slope(dictionary, level, amplitudes)
        turn = angle_turn(dictionary, level, amplitudes > 0, penalty, slope)
        level = nearest_level(dictionary, dictionary.efficiency[level] + (turn * residual).sum(axis=1))
    return level


def spectrum(dictionary: Dictionary, measured: FloatArray, level: IntArray, rise: float = RISE) -> Spectrum:
    """Spectra of measurements (v, n) of the order of 1 at known refocusing angles (v,), regularised by ``rise``."""
    residual = measured
    for weight in (1e-2, 1e-4, FREE_PENALTY):
        least = solve_amplitudes(dictionary, measured, level, np.full(len(measured), weight), residual)
        residual = least[1]
    return _penalised(dictionary, measured, level, least, rise)


def _penalised(
    dictionary: Dictionary,
    measured: FloatArray,
    level: IntArray,
    least: tuple[FloatArray, FloatArray, BoolArray],
    rise: float,
) -> Spectrum:
    """Spectra whose squared residuals lie ``rise`` above the least, by secants in the logarithms of both."""
    low, high = np.log(PENALTIES)
    floor = (least[1] ** 2).sum(axis=1)
    goal = np.log(rise)
    x = np.full(len(measured), np.log(MIDDLE_PENALTY))
    before = after = None
    residual = least[1]
    for _ in range(_SECANTS):
        amplitudes, residual, settled = solve_amplitudes(dictionary, measured, level, np.exp(x), residual)
        excess = (residual**2).sum(axis=1) / np.where(floor > 0, floor, 1) - 1
        after = np.log(np.maximum(excess, 1e-8)) - goal
        penalty = np.exp(x)
        grade = np.ones_like(x)
        if before is not None:
            with np.errstate(all="ignore"):
                grade = (after - before[1]) / (x - before[0])
        grade = np.clip(np.nan_to_num(grade, nan=1.0), 0.5, 4.0)
        before = (x, after)
        x = np.clip(x - np.clip(after / grade, -3.0, 3.0), low, high)
    return Spectrum(amplitudes, level, penalty, residual, settled & least[2], least[0])


def solve_amplitudes(
    dictionary: Dictionary, measured: FloatArray, level: IntArray, penalty: FloatArray, residual: FloatArray
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Amplitudes (v, j), residuals (v, n) and whether each voxel settled; begins at ``residual``."""
    project, basis = dictionary.project[level], dictionary.compressed[level]
    found = non_negative_ridge(
        basis,
        np.matmul(project, measured[..., None])[..., 0],
        penalty,
        np.matmul(project, residual[..., None])[..., 0],
    )
    echoes = np.matmul(np.swapaxes(project, 1, 2), np.matmul(basis, found.amplitudes[..., None]))[..., 0]
    return found.amplitudes, measured - echoes, found.settled


def angle_slope(dictionary: Dictionary, level: IntArray, amplitudes: FloatArray) -> FloatArray:
    """Derivative (v, n) of the echoes with respect to the refocusing efficiency."""
    below, above = np.maximum(level - 1, 0), np.minimum(level + 1, len(dictionary.angles) - 1)
    rise = np.matmul(dictionary.trains[above] - dictionary.trains[below], amplitudes[..., None])[..., 0]
    return np.asarray(rise / (dictionary.efficiency[above] - dictionary.efficiency[below])[:, None])


def angle_turn(
    dictionary: Dictionary, level: IntArray, share: FloatArray | BoolArray, penalty: FloatArray, slope: FloatArray
) -> FloatArray:
    """Change (v, n) of the efficiency with the measurements, a share of each amplitude following; zero if not seen."""
    project = dictionary.project[level]
    gram = active_gram(dictionary.compressed[level], share, penalty)
    inner = np.matmul(project, slope[..., None])
    left = penalty[:, None, None] * np.linalg.solve(gram, inner) - inner
    apart = slope + np.matmul(np.swapaxes(project, 1, 2), left)[..., 0]
    size = (slope * apart).sum(axis=1)
    size = np.where(size > 0, size, np.inf)
    return np.asarray(apart / size[:, None])


def nearest_level(dictionary: Dictionary, efficiency: FloatArray) -> IntArray:
    """Place in the dictionary (v,) of the angle nearest to an efficiency."""
    angle = np.rad2deg(2 * np.arcsin(np.sqrt(np.clip(efficiency, 0.0, 1.0))))
    step = dictionary.angles[1] - dictionary.angles[0]
    place = np.clip(np.round((angle - dictionary.angles[0]) / step), 0, len(dictionary.angles) - 1)
    return np.asarray(place, dtype=int)
