"""Extended phase graph of a spin echo train whose refocusing pulses all have the same angle.

The pulse enters by its refocusing efficiency, sin^2(angle / 2): the fraction of the transverse magnetisation that it
refocuses. Echoes are polynomials in it, so that nothing degenerates at 180 degrees, where echoes are stationary in the
angle; angles beyond 180 degrees have the same echoes as those as far below.
"""

import numpy as np

from qcord.core.arrays import AnyArray, IntArray
from qcord.core.errors import ImplausibleValue
from qcord.core.protocol import Protocol

_ROUNDED = 0.05
"""Largest distance of an echo time from its place in the train, in spacings."""


def echo_numbers(protocol: Protocol) -> tuple[IntArray, float]:
    """Number of each echo in its train, from 1, and the spacing [s].

    Raises
    ------
    MissingMetadata
        If EchoTime is absent.
    ImplausibleValue
        If the echo times are not multiples of the first.
    """
    times = np.asarray(protocol["EchoTime"], dtype=float)
    numbers = np.round(times / times.min())
    spacing = float((times * numbers).sum() / (numbers * numbers).sum())  # times are often rounded to a millisecond
    if np.abs(times / spacing - numbers).max() > _ROUNDED:
        raise ImplausibleValue(
            f"EchoTime of {protocol.source or 'the series'} is {np.round(times, 5).tolist()} s, expected multiples of "
            "the first, as in a train of evenly spaced spin echoes; check EchoTime, and keep the first echo."
        )
    return numbers.astype(int), spacing


def echo_train(
    count: int, spacing: float, transverse: AnyArray, longitudinal: AnyArray, efficiency: AnyArray
) -> AnyArray:
    """Echoes of a train with the Carr-Purcell-Meiboom-Gill phases and crushed free induction decays.

    Parameters
    ----------
    count : int
        Number of echoes.
    spacing : float
        Time between refocusing pulses [s].
    transverse, longitudinal : (...) array
        Relaxation rates R2 and R1 [1/s].
    efficiency : (...) array
        sin^2(refocusing angle / 2).

    Returns
    -------
    (count, ...) array
        Echoes relative to the magnetisation that the excitation turned into the transverse plane.

    Notes
    -----
    States are kept as they are at the pulses, where only odd dephasing orders (in units of half an interval) can come
    back to an echo; longitudinal states are scaled by the sine of the angle, which makes all coefficients polynomials
    of the efficiency. Orders that cannot return before the end of the train are dropped.

    References
    ----------
    Hennig 1988, doi:10.1016/0022-2364(88)90128-X; Prasloski et al. 2012, doi:10.1002/mrm.23157.
    """
    shape = np.broadcast_shapes(np.shape(transverse), np.shape(longitudinal), np.shape(efficiency))
    kind = np.result_type(transverse, longitudinal, efficiency, float)
    orders = (count + 1) // 2 + 1
    ahead, behind, stored = (np.zeros((orders + 1, *shape), dtype=kind) for _ in range(3))
    half = np.exp(-0.5 * spacing * transverse)
    decay, recovery = half * half, np.exp(-spacing * longitudinal)
    turned = recovery * 2 * efficiency * (1 - efficiency)
    through = recovery * (1 - 2 * efficiency)
    echoes = np.empty((count, *shape), dtype=kind)
    ahead[0] = half
    for echo in range(count):
        m = min(echo + 1, count - echo, orders)
        a, b, z = ahead[:m], behind[:m], stored[:m]
        apart = b - a
        forward = a + efficiency * apart + z
        backward = b - efficiency * apart - z
        echoes[echo] = half * backward[0]
        stored[:m] = turned * apart + through * z
        ahead[0] = decay * backward[0]
        ahead[1 : m + 1] = decay * forward
        behind[: m - 1] = decay * backward[1:]
        behind[m - 1] = 0
    return echoes
