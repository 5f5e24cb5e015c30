"""Quantitative magnetisation transfer: two pools, spoiled gradient echo with an off-resonant pulse each repetition.

Free water and the macromolecular (bound) pool relax and exchange all the time. The transfer pulse is taken as a
rectangle of equal power around its middle (Sled and Pike's rectangular-pulse approximation), during which it
saturates either pool at a constant rate: a super-Lorentzian for the bound pool; for the free pool the loss along the
effective field, which is the Lorentzian line where the offset is large against the field of the pulse. The excitation
follows the pulse at once and turns the free pool only. The steady state over one repetition is exact. Ramani's
continuous-wave form is its limit for short repetition times and small excitation angles.

Beside the Bloch-McConnell equations with the shaped pulse in small steps, signals of the example are off by up to .7 %
of the unsaturated signal at 600 Hz and 1200 degrees, and by less than .4 % from 2 kHz on (cord tissue).
"""

from functools import lru_cache

import numpy as np
from scipy import special

from qcord.core.arrays import AnyArray, FloatArray
from qcord.core.errors import NotIdentifiable
from qcord.core.model import Derived, SignalModel, Typical
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol


def signal(theta: AnyArray, protocol: Protocol, given: AnyArray) -> AnyArray:
    """Steady state of two exchanging pools with excitation and transfer pulse.

    Parameters
    ----------
    theta : (..., 5) array
        A [1], F (bound over all magnetisation) [1], Residence (mean time in the bound pool, the inverse of the exchange
        rate k) [s], R2f (transverse relaxation rate of the free pool) [1/s], T2b (transverse relaxation time of the
        bound pool) [s].
    protocol : Protocol
        FlipAngle [deg], RepetitionTimeExcitation [s], and of the transfer pulse MTFlipAngle [deg; 0 without pulse],
        MTOffsetFrequency [Hz], MTPulseDuration [s], MTPulseBandwidth [Hz] (`envelope`; 0 for a rectangle).
    given : (..., 4) array
        R1 [1/s] as observed without transfer pulse, B1 [1] actual over nominal flip angle, B0 [Hz] local minus
        nominal resonance frequency, R1b [1/s] of the bound pool.

    Returns
    -------
    (..., n) array
        Signal, unit of A.

    References
    ----------
    Sled and Pike 2001, doi:10.1002/mrm.1278 (rectangular-pulse approximation);
    Ramani et al. 2002, doi:10.1016/S0730-725X(02)00598-2 (rates, observed R1);
    Henkelman et al. 1993, doi:10.1002/mrm.1910290607 (two pools);
    Morrison and Henkelman 1995, doi:10.1002/mrm.1910330404 (super-Lorentzian).
    """
    amplitude, fraction, residence, r2_free, t2_bound = (theta[..., k : k + 1] for k in range(5))
    back = 1 / residence
    observed, b1, shift, bound_rate = (given[..., k : k + 1] for k in range(4))
    offset = protocol["MTOffsetFrequency"] - shift
    mean, square, part = envelope(protocol)
    duration, width = protocol["MTPulseDuration"], part * protocol["MTPulseDuration"]
    power = (b1 * np.deg2rad(protocol["MTFlipAngle"]) / mean) ** 2 * square / (duration * width)
    free = power * r2_free / (r2_free * r2_free + (2 * np.pi * offset) ** 2 + power)
    bound = np.pi * power * super_lorentzian(offset, t2_bound)
    forth = back * fraction / (1 - fraction)
    rates = free_rate(observed, bound_rate, forth, back), bound_rate
    before = protocol["RepetitionTimeExcitation"] - (duration + width) / 2
    stages = [
        _evolve(rates, (forth, back), fraction, (0 * free, 0 * bound), before),
        _evolve(rates, (forth, back), fraction, (free, bound), width),
        _evolve(rates, (forth, back), fraction, (0 * free, 0 * bound), (duration - width) / 2),
    ]
    angle = b1 * np.deg2rad(protocol["FlipAngle"])
    left = _steady_state(stages, np.cos(angle))
    return np.asarray(amplitude * np.sin(angle) * left)


def super_lorentzian(offset: AnyArray, t2: AnyArray) -> AnyArray:
    """Absorption line [s] of the bound pool; complex t2 is accepted.

    Parameters
    ----------
    offset : array
        Frequency from resonance [Hz].
    t2 : array
        Transverse relaxation time [s].

    Notes
    -----
    By quadrature over the angle between the axis of the membrane and the field, with nodes that crowd towards the magic
    angle. It diverges, as the logarithm, towards resonance; the quadrature is right within 1e-5 where
    2 pi offset t2 lies between .002 (32 Hz at 10 us) and 4, and finite elsewhere.

    References
    ----------
    Morrison and Henkelman 1995, doi:10.1002/mrm.1910330404.
    """
    if np.iscomplexobj(t2) and not t2.imag.any():
        t2 = t2.real
    turns = 2 * np.pi * offset * t2
    square = -2 * turns * turns
    total = 0.0 * square
    for inverse, weight in zip(*_angles(), strict=True):
        total = total + weight * np.exp(square * inverse)
    return np.asarray(np.sqrt(2 / np.pi) * t2 * total)


@lru_cache(maxsize=1)
def _angles() -> tuple[FloatArray, FloatArray]:
    """1 / (3 u^2 - 1)^2 at the nodes u in 0..1, and weights over |3 u^2 - 1|."""
    magic, grading = np.sqrt(1 / 3), 7.0
    nodes, weights = np.polynomial.legendre.leggauss(24)
    distance = np.expm1(grading * (nodes + 1) / 2) / np.expm1(grading)
    size = grading / 2 * weights * np.exp(grading * (nodes + 1) / 2) / np.expm1(grading)
    u = np.concatenate([magic * (1 - distance), magic + (1 - magic) * distance])
    step = np.concatenate([magic * size, (1 - magic) * size])
    shape = 3 * u * u - 1
    return 1 / shape**2, step / np.abs(shape)


def free_rate(observed: AnyArray, bound: AnyArray, forth: AnyArray, back: AnyArray) -> AnyArray:
    """Relaxation rate of the free pool from the observed one, both [1/s]: the slow root of exchange without pulse."""
    apart = bound - observed
    return np.asarray(observed - forth * apart / (apart + back))


def _evolve(
    rates: tuple[AnyArray, AnyArray],
    exchange: tuple[AnyArray, AnyArray],
    fraction: AnyArray,
    saturation: tuple[AnyArray, AnyArray],
    time: AnyArray,
) -> tuple[AnyArray, ...]:
    """Matrix (aa, ab, ba, bb) and constant (a, b) that take both pools over a time at constant saturation."""
    forth, back = exchange
    out_free, out_bound = rates[0] + forth + saturation[0], rates[1] + back + saturation[1]
    middle, half = (out_free + out_bound) / 2, (out_free - out_bound) / 2
    apart = np.sqrt(half * half + forth * back)
    slow, fast = np.exp(-(middle - apart) * time), np.exp(-(middle + apart) * time)
    even, odd = (slow + fast) / 2, (slow - fast) / (2 * apart)
    aa, bb, ab, ba = even - half * odd, even + half * odd, back * odd, forth * odd
    determinant = out_free * out_bound - forth * back
    source_free, source_bound = rates[0] * (1 - fraction), rates[1] * fraction
    rest_free = (out_bound * source_free + back * source_bound) / determinant
    rest_bound = (forth * source_free + out_free * source_bound) / determinant
    return (
        *(aa, ab, ba, bb),
        rest_free - aa * rest_free - ab * rest_bound,
        rest_bound - ba * rest_free - bb * rest_bound,
    )


def _steady_state(stages: list[tuple[AnyArray, ...]], cosine: AnyArray) -> AnyArray:
    """Free magnetisation before the excitation that repeats itself, given what the stages do after it."""
    aa, ab, ba, bb, a, b = stages[0]
    for xaa, xab, xba, xbb, xa, xb in stages[1:]:
        a, b = xaa * a + xab * b + xa, xba * a + xbb * b + xb
        aa, ba = xaa * aa + xab * ba, xba * aa + xbb * ba
        ab, bb = xaa * ab + xab * bb, xba * ab + xbb * bb
    return np.asarray((a * (1 - bb) + ab * b) / ((1 - aa * cosine) * (1 - bb) - ab * ba * cosine))


def envelope(protocol: Protocol) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean (n,) and mean square of the envelopes, and width over duration of the rectangles of equal power.

    An envelope is a Gaussian, cut at the ends of the pulse, whose spectrum without the cut has the full width at half
    maximum MTPulseBandwidth; at a bandwidth of 0 it is a rectangle. The width is that of the squared envelope: its
    integral squared over the integral of its square.
    """
    ends = np.pi * protocol["MTPulseBandwidth"] * protocol["MTPulseDuration"] / np.sqrt(8 * np.log(2))
    mean, square, fourth = (_gaussian_mean(np.sqrt(k / 2) * ends) for k in (1, 2, 4))
    return mean, square, square**2 / fourth


def _gaussian_mean(end: FloatArray) -> FloatArray:
    """Mean of exp(-t^2) from 0 to ``end``."""
    safe = np.maximum(end, 1e-6)
    return np.asarray(np.sqrt(np.pi) / 2 * special.erf(safe) / safe)


def require_pulses(protocol: Protocol) -> None:
    """Whether a protocol determines the model: pulses at enough offsets and powers.

    Raises
    ------
    MissingMetadata
        If a column is absent.
    NotIdentifiable
        If there are fewer than four combinations of offset and flip angle of the pulse, or no image without pulse.
    """
    angles, offsets = protocol["MTFlipAngle"], protocol["MTOffsetFrequency"]
    for name in QUANTITATIVE_MT.needs:
        _ = protocol[name]
    on = angles > 0
    kinds = {(float(a), abs(float(f))) for a, f in zip(angles[on], offsets[on], strict=True)}
    if len(kinds) < 4 or on.all():
        raise NotIdentifiable(
            f"{protocol.source or 'The series'} holds {len(kinds)} combinations of MTFlipAngle and MTOffsetFrequency "
            f"and {int((~on).sum())} images without pulse, expected four or more and at least one; add measurements."
        )


def start(measured: FloatArray, protocol: Protocol, given: FloatArray) -> FloatArray:
    """First guess (..., 5): the best of a small table of tissues, with the amplitude that fits it."""
    table = np.array([[1.0, f, k, t, 1.1e-5] for f in (0.03, 0.08, 0.15) for k in (0.015, 0.06) for t in (20.0, 50.0)])
    defaults = np.array([p.start for p in QUANTITATIVE_MT.given])
    with np.errstate(all="ignore"):
        shapes = signal(table, protocol, np.where(np.isfinite(given), given, defaults)[..., None, :])
        size = np.einsum("...tn,...tn->...t", shapes, shapes)
        overlap = np.einsum("...tn,...n->...t", shapes, measured)
        gain = np.nan_to_num(overlap * np.abs(overlap) / size, nan=-np.inf)
        best = np.argmax(gain, axis=-1)
        amplitude = np.take_along_axis(overlap / size, best[..., None], axis=-1)
    theta = table[best]
    theta[..., :1] = np.where(np.isfinite(amplitude) & (amplitude > 0), amplitude, 1.0)
    return np.asarray(theta)


def _ratio(theta: AnyArray) -> AnyArray:
    return np.asarray(theta[..., 1] / (1 - theta[..., 1]))


def _forward_rate(theta: AnyArray) -> AnyArray:
    return np.asarray(theta[..., 1] / (1 - theta[..., 1]) / theta[..., 2])


def _exchange_rate(theta: AnyArray) -> AnyArray:
    return np.asarray(1 / theta[..., 2])


def _free_time(theta: AnyArray) -> AnyArray:
    return np.asarray(1 / theta[..., 3])


def example() -> Protocol:
    """A cord protocol: three pulse powers at seven offsets each, and two images without pulse."""
    offsets = [600.0, 1000.0, 2000.0, 4000.0, 8000.0, 16000.0, 32000.0]
    n = 2 + 3 * len(offsets)
    return Protocol(
        {
            "FlipAngle": np.full(n, 7.0),
            "RepetitionTimeExcitation": np.full(n, 0.04),
            "MTFlipAngle": np.array([0.0, 0.0, *[300.0] * 7, *[600.0] * 7, *[1200.0] * 7]),
            "MTOffsetFrequency": np.array([1000.0, 1000.0, *offsets * 3]),
            "MTPulseDuration": np.full(n, 0.015),
            "MTPulseBandwidth": np.full(n, 150.0),
        },
        "example",
    )


_SMITH = "Smith 2009, PMC2632947 (F, T2b, k of 56 and 67/s; 1.5 T); R2f assumed, T2 of 30 to 50 ms"

QUANTITATIVE_MT = SignalModel(
    name="qmt",
    free=(
        Parameter("A", "1", (0.0, np.inf), 1.0, "signal amplitude: density, receive field, transverse decay"),
        Parameter("F", "1", (0.0, 0.6), 0.1, "bound pool fraction: bound over all magnetisation"),
        Parameter("Residence", "s", (2e-3, 2.0), 0.025, "mean time in the bound pool: inverse of the exchange rate k"),
        Parameter("R2f", "1/s", (1.0, 1000.0), 30.0, "transverse relaxation rate of the free pool"),
        Parameter("T2b", "s", (2e-6, 5e-5), 1.1e-5, "transverse relaxation time of the bound pool"),
    ),
    needs=(
        "FlipAngle",
        "RepetitionTimeExcitation",
        "MTFlipAngle",
        "MTOffsetFrequency",
        "MTPulseDuration",
        "MTPulseBandwidth",
    ),
    signal=signal,
    references=(
        "Sled and Pike 2001, doi:10.1002/mrm.1278",
        "Ramani et al. 2002, doi:10.1016/S0730-725X(02)00598-2",
        "Henkelman et al. 1993, doi:10.1002/mrm.1910290607",
        "Morrison and Henkelman 1995, doi:10.1002/mrm.1910330404",
    ),
    given=(
        Parameter("R1", "1/s", (0.05, 20.0), 1.1, "observed longitudinal relaxation rate"),
        Parameter("B1", "1", (0.1, 3.0), 1.0, "actual over nominal flip angle"),
        Parameter("B0", "Hz", (-2000.0, 2000.0), 0.0, "local minus nominal resonance frequency"),
        Parameter("R1b", "1/s", (0.1, 20.0), 1.0, "longitudinal relaxation rate of the bound pool; 1/s by custom"),
    ),
    derived=(
        Derived("PSR", "1", _ratio),
        Derived("k", "1/s", _exchange_rate),
        Derived("kf", "1/s", _forward_rate),
        Derived("T2f", "s", _free_time),
    ),
    start=start,
    title="Quantitative magnetisation transfer: bound pool fraction, exchange and relaxation of two pools",
    example=example,
    typical=(
        Typical(
            "white matter", {"A": 1000.0, "F": 0.139, "Residence": 0.018, "R2f": 29.0, "T2b": 9e-6}, _SMITH, "assumed"
        ),
        Typical(
            "gray matter", {"A": 1100.0, "F": 0.079, "Residence": 0.015, "R2f": 20.0, "T2b": 9e-6}, _SMITH, "assumed"
        ),
    ),
)
"""Two-pool magnetisation transfer."""
