"""Signal of the NODDI model with first and second derivatives, for many voxels at once; the voxel axis comes last.

The mean axis is a unit vector; its derivatives are those of two small turns, so that no direction is special. Order of
the six parameters: S0, ICVF, ODI, ISOVF, turns to the right and to the front.
"""

from dataclasses import dataclass, replace

import numpy as np

from qcord.core.arrays import FloatArray, IntArray
from qcord.core.protocol import Protocol
from qcord.estimate.voxelwise import product
from qcord.models.noddi import expansion_order, stick_coefficients, watson_moments

PARAMETERS = 6
S0, ICVF, ODI, ISOVF, X, Y, Z = range(7)
"""Rows of a state (7, v)."""

_NEGLIGIBLE = 1e-6
"""Part of the signal from which on terms of the expansion are left out."""

_NODES = 16


@dataclass(frozen=True, eq=False)
class Shell:
    """Measurements of one b-value.

    Parameters
    ----------
    rows : (r,) array of int
        Their rows in the protocol.
    directions : (r, 3) array
        Unit vectors.
    hindered, free : float or (v,) array
        b-value times parallel and isotropic diffusivity.
    sticks : (k, 1) or (k, v) array
        Legendre coefficients of a stick.
    """

    rows: IntArray
    directions: FloatArray
    hindered: FloatArray
    free: FloatArray
    sticks: FloatArray


@dataclass(frozen=True, eq=False)
class Design:
    """A protocol, prepared for many voxels.

    Parameters
    ----------
    shells : tuple of Shell
        All measurements, by b-value.
    series : (3, k, k) array
        From Legendre coefficients to those of cos(2 m angle), and of its first and second derivative with respect
        to cos(2 angle).
    """

    shells: tuple[Shell, ...]
    series: FloatArray

    def take(self, voxels: IntArray | slice) -> "Design":
        """For some of the voxels."""
        if self.shells[0].sticks.shape[1] == 1:
            return self
        chosen = (
            replace(s, hindered=s.hindered[voxels], free=s.free[voxels], sticks=s.sticks[:, voxels])
            for s in self.shells
        )
        return Design(tuple(chosen), self.series)


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments (k, v) of the distribution of axes, with first and second derivative with respect to ODI."""

    value: FloatArray
    slope: FloatArray
    bend: FloatArray


def prepare(protocol: Protocol, parallel: FloatArray, isotropic: FloatArray) -> Design:
    """Prepare a protocol; diffusivities [mm2/s] are one number or (v,) each."""
    b = protocol["BValue"]
    order = expansion_order(float(b.max(initial=0) * np.max(parallel)), _NEGLIGIBLE)
    shells = []
    for value in np.unique(b):
        rows = np.flatnonzero(b == value)
        sticks = stick_coefficients(np.atleast_1d(value * parallel), order)
        needed = 1 + int(np.flatnonzero(np.abs(sticks).max(axis=1) > _NEGLIGIBLE)[-1])
        shells.append(
            Shell(rows, protocol["Direction"][rows], value * parallel, value * isotropic, sticks[: max(2, needed)])
        )
    return Design(tuple(shells), _cosine_series(order // 2 + 1))


def _cosine_series(size: int) -> FloatArray:
    """Expansion of even Legendre polynomials in cos(2 m angle), all terms positive; and its derivatives."""
    half = np.cumprod(np.concatenate([[1.0], 1 - 0.5 / np.arange(1, 2 * size)]))
    value = np.zeros((size, size))
    for k in range(size):
        for j in range(2 * k + 1):
            value[abs(k - j), k] += half[j] * half[2 * k - j]
    slope = np.zeros((size, size))
    slope[: size - 1] = np.polynomial.chebyshev.chebder(value)
    bend = np.zeros((size, size))
    bend[: size - 1] = np.polynomial.chebyshev.chebder(slope)
    return np.stack([value, slope, bend])


def moments_of(odi: FloatArray, size: int) -> Moments:
    """Moments and derivatives; these follow from the moments of neighbouring order.

    The derivative with respect to kappa is the covariance of the polynomial and the squared cosine, whose product
    with a Legendre polynomial is a sum of three others.
    """
    w = watson_moments(odi, 2 * size + 2, _NODES)
    order = 2.0 * np.arange(size + 2)
    up = (order + 1) * (order + 2) / ((2 * order + 1) * (2 * order + 3))
    down = order * (order - 1) / ((2 * order + 1) * (2 * order - 1))
    up, down, middle = up[:, None], down[:, None], (1 - up - down)[:, None]
    square = (1 + 2 * w[1]) / 3

    def spread(m: FloatArray) -> FloatArray:
        """Mean of squared cosine times each polynomial; the last is not complete."""
        total = middle * m
        total[:-1] += up[:-1] * m[1:]
        total[1:] += down[1:] * m[:-1]
        return total

    first = spread(w) - square * w
    second = spread(first) - square * first - 2 / 3 * first[1] * w
    sine, cosine = np.sin(np.pi / 2 * odi), np.cos(np.pi / 2 * odi)
    turn = -np.pi / 2 / sine**2
    bend = np.pi**2 / 2 * cosine / sine**3
    return Moments(w[:size], (first * turn)[:size], (second * turn**2 + first * bend)[:size])


def frame(axis: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Unit vectors (3, v) along which the axis moves when it is tilted to the right, and to the front."""
    x, y, z = axis
    across = np.hypot(y, z)
    known = across > 1e-9
    safe = np.where(known, across, 1.0)
    front, up = np.where(known, y / safe, 0.0), np.where(known, z / safe, 1.0)
    return np.stack([across, -x * front, -x * up]), np.stack([np.zeros_like(x), up, -front])


def moved(state: FloatArray, step: FloatArray) -> FloatArray:
    """State (7, v) after a step (6, v)."""
    right, front = frame(state[X:])
    axis = state[X:] + np.tan(np.clip(step[4], -1, 1)) * right + np.tan(np.clip(step[5], -1, 1)) * front
    return np.concatenate([state[:X] + step[:X], axis / np.sqrt((axis * axis).sum(axis=0))])


@dataclass(frozen=True, eq=False)
class Terms:
    """Parts of the signal of one shell; arrays (r, v) unless noted.

    Parameters
    ----------
    shell : Shell
        The shell.
    series : (3, k, k) array
        As in `Design`, as far as this shell needs it.
    moments : Moments
        Of the distributions of axes.
    cosine, turns : (r, v), (2, r, v) array
        Cosine between direction and mean axis, and its change as the axis turns.
    stick, stick_odi, stick_y : array
        Signal inside neurites, its derivatives by ODI and by the cosine of twice the angle.
    hindered, rise : array
        Signal around neurites, derivative of its logarithm by ICVF.
    legendre : array
        Second Legendre polynomial of the cosine.
    strength, free : float or (v,) array
        Two thirds of b-value times diffusivity; signal of free water.
    """

    shell: Shell
    series: FloatArray
    moments: Moments
    cosine: FloatArray
    turns: FloatArray
    stick: FloatArray
    stick_odi: FloatArray
    stick_y: FloatArray
    hindered: FloatArray
    rise: FloatArray
    legendre: FloatArray
    strength: FloatArray
    free: FloatArray


def terms(design: Design, shell: Shell, state: FloatArray, moments: Moments) -> Terms:
    """Parts of the signal of a shell at a state (7, v)."""
    axis = state[X:]
    cosine = product(shell.directions, axis)
    turns = np.stack([product(shell.directions, e) for e in frame(axis)])
    square = cosine * cosine
    size = len(shell.sticks)
    coefficients = shell.sticks * moments.value[:size]
    series = design.series[:, :size, :size]
    double = 4 * square - 2
    legendre = 1.5 * square - 0.5
    strength = np.asarray(2 / 3 * shell.hindered)
    rise = strength * (1 - moments.value[1] * legendre)
    return Terms(
        shell,
        series,
        moments,
        cosine,
        turns,
        _clenshaw(product(series[0], coefficients), double),
        _clenshaw(product(series[0], shell.sticks * moments.slope[:size]), double),
        _clenshaw(product(series[1], coefficients), double),
        np.exp(state[ICVF] * rise - shell.hindered),
        rise,
        legendre,
        strength,
        np.exp(-np.asarray(shell.free)),
    )


def _clenshaw(coefficients: FloatArray, double: FloatArray) -> FloatArray:
    """Sum of coefficients (k, v) times cos(m angle), from twice the cosine of the angle (r, v)."""
    last = np.broadcast_to(coefficients[-1], double.shape)
    if len(coefficients) == 1:
        return last
    now = double * last
    now += coefficients[-2]
    for c in coefficients[-3::-1]:
        following = double * now
        following -= last
        following += c
        last, now = now, following
    now -= 0.5 * double * last
    return np.asarray(now)


def slopes(t: Terms, state: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Signal (r, v) of a shell and its derivatives (6, r, v)."""
    s0, icvf, _, isovf = state[:X]
    moments = t.moments
    outside = (1 - icvf) * t.hindered
    tissue = icvf * t.stick + outside
    amount = s0 * (1 - isovf)
    slope = np.empty((PARAMETERS, *tissue.shape))
    slope[0] = isovf * t.free + (1 - isovf) * tissue
    slope[1] = amount * (t.stick - t.hindered + outside * t.rise)
    outside *= t.strength
    slope[2] = amount * icvf * (t.stick_odi - moments.slope[1] * outside * t.legendre)
    slope[3] = s0 * (t.free - tissue)
    turn = amount * icvf * t.cosine * (4 * t.stick_y - 3 * moments.value[1] * outside)
    slope[4:] = turn * t.turns
    return s0 * slope[0], slope


def turning(t: Terms, state: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Second derivative (r, v) of the signal by the cosine, and what the turn of a unit vector adds, (r, v).

    The second derivative by turns i and j is the first times both changes of the cosine, and for i = j the second.
    """
    amount, icvf = state[S0] * (1 - state[ISOVF]), state[ICVF]
    size, moments = len(t.shell.sticks), t.moments
    stick_yy = _clenshaw(product(t.series[2], t.shell.sticks * moments.value[:size]), 4 * t.cosine**2 - 2)
    by_cosine = -3 * t.strength * moments.value[1]
    hindered = (1 - icvf) * t.hindered * by_cosine
    curve = 4 * t.stick_y + 16 * t.cosine**2 * stick_yy + hindered * (1 + icvf * by_cosine * t.cosine**2)
    first = 4 * t.stick_y + hindered
    return amount * icvf * curve, -amount * icvf * t.cosine**2 * first


def bent(t: Terms, state: FloatArray, slope: FloatArray, covariance: FloatArray) -> FloatArray:
    """Sum of the second derivatives of the signal (r, v) of a shell times a covariance (6, 6, v).

    Parameters
    ----------
    t : Terms
        Parts of the signal.
    state : (7, v) array
        Where.
    slope : (6, r, v) array
        First derivatives, from `slopes`.
    covariance : (6, 6, v) array
        Weights of the second derivatives.
    """
    s0, icvf, _, isovf = state[:X]
    shell, series, moments = t.shell, t.series, t.moments
    size, double = len(shell.sticks), 4 * t.cosine**2 - 2
    tilt = np.einsum("irv,ijv,jrv->rv", t.turns, covariance[4:, 4:], t.turns)
    back = t.cosine * (covariance[4, 4] + covariance[5, 5])
    with_icvf, with_odi = (np.einsum("irv,iv->rv", t.turns, covariance[k, 4:]) for k in (1, 2))
    bend = moments.bend[:size] * covariance[2, 2]
    stick = _clenshaw(product(series[0], shell.sticks * bend), double)
    stick_odi_y = _clenshaw(product(series[1], shell.sticks * moments.slope[:size]), double)
    stick_yy = _clenshaw(product(series[2], shell.sticks * moments.value[:size]), double)
    stick_c, stick_cc = 4 * t.cosine * t.stick_y, 4 * t.stick_y + 16 * t.cosine**2 * stick_yy
    stick += 8 * t.cosine * stick_odi_y * with_odi + stick_cc * tilt - stick_c * back
    # the exponent of the hindered signal is linear in ICVF: its first (by ICVF, ODI, angle) and second derivatives
    w, dw = moments.value[1], moments.slope[1]
    by_odi, by_c = -t.strength * icvf * dw * t.legendre, -3 * t.strength * icvf * w * t.cosine
    mixed = -t.strength * (dw * t.legendre * covariance[1, 2] + 3 * w * t.cosine * with_icvf)
    exponent = 2 * mixed - t.strength * icvf * (moments.bend[1] * t.legendre * covariance[2, 2] + 3 * w * tilt)
    exponent += -6 * t.strength * icvf * dw * t.cosine * with_odi - by_c * back
    squared = t.rise**2 * covariance[1, 1] + by_odi**2 * covariance[2, 2] + by_c**2 * tilt
    squared += 2 * (t.rise * (by_odi * covariance[1, 2] + by_c * with_icvf) + by_odi * by_c * with_odi)
    tissue = icvf * stick + (1 - icvf) * t.hindered * (exponent + squared)
    tissue += 2 * (t.stick_odi * covariance[1, 2] + stick_c * with_icvf)
    tissue -= 2 * t.hindered * (t.rise * covariance[1, 1] + by_odi * covariance[1, 2] + by_c * with_icvf)
    across = np.einsum("irv,iv->rv", slope[1:], covariance[0, 1:]) / s0
    water = np.einsum("irv,iv->rv", slope[[1, 2, 4, 5]], covariance[3, [1, 2, 4, 5]]) / (1 - isovf)
    return np.asarray(2 * across - 2 * water + s0 * (1 - isovf) * tissue)
