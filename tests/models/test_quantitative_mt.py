import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.linalg import expm

from qcord.core.errors import MissingMetadata, NotIdentifiable
from qcord.core.protocol import Protocol
from qcord.models.quantitative_mt import (
    QUANTITATIVE_MT,
    envelope,
    free_rate,
    require_pulses,
    super_lorentzian,
)

REFERENCE = {
    c["what"].split(",")[0]: c
    for c in json.loads((Path(__file__).parents[1] / "reference" / "quantitative_mt.json").read_text())
}
WHITE = QUANTITATIVE_MT.theta(QUANTITATIVE_MT.typical[0].values)
GIVEN = QUANTITATIVE_MT.given_defaults()


def pulses(flip, repetition, angle, offset, duration, bandwidth):
    n = len(angle)
    return Protocol(
        {
            "FlipAngle": np.full(n, float(flip)),
            "RepetitionTimeExcitation": np.full(n, repetition),
            "MTFlipAngle": np.array(angle, dtype=float),
            "MTOffsetFrequency": np.array(offset, dtype=float),
            "MTPulseDuration": np.full(n, duration),
            "MTPulseBandwidth": np.full(n, float(bandwidth)),
        },
        "pulses",
    )


def line_by_adaptive_quadrature(offset, t2):
    """Super-Lorentzian in the angle itself, on pieces towards the magic angle."""

    def part(angle):
        shape = abs(3 * np.cos(angle) ** 2 - 1)
        return np.sin(angle) * np.sqrt(2 / np.pi) * t2 / shape * np.exp(-2 * (2 * np.pi * offset * t2 / shape) ** 2)

    magic = np.arccos(np.sqrt(1 / 3))
    edges = [
        *(magic * (1 - 2.0**-k) for k in range(24)),
        *(magic + (np.pi / 2 - magic) * 2.0**-k for k in range(23, -1, -1)),
    ]
    pieces = [(a, b) for a, b in pairwise(edges) if not a < magic < b]
    return sum(quad(part, a, b, epsabs=0, epsrel=1e-10)[0] for a, b in pieces)


@pytest.mark.parametrize("offset", [60.0, 300.0, 1e3, 4e3, 3e4])
@pytest.mark.parametrize("t2", [6e-6, 1e-5, 2e-5])
def test_super_lorentzian_is_the_integral_over_angles(offset, t2):
    expected = line_by_adaptive_quadrature(offset, t2)
    assert float(super_lorentzian(np.array(offset), np.array(t2))) == pytest.approx(expected, rel=1e-5)


def test_super_lorentzian_has_unit_area_and_is_analytic():
    """The area over angular frequency is one; on a logarithmic scale, the axis of which begins at the peak."""
    logs = np.linspace(np.log(1e-3), np.log(1e6), 4001)
    line = super_lorentzian(np.exp(logs), np.array(1e-5))
    area = 2 * 2 * np.pi * np.trapezoid(line * np.exp(logs), logs)
    assert area == pytest.approx(1, rel=2e-4)
    slope = super_lorentzian(np.array(1500.0), np.array(1e-5 + 1e-35j)).imag / 1e-35
    lower, upper = (float(super_lorentzian(np.array(1500.0), np.array(1e-5 * (1 + h)))) for h in (-1e-4, 1e-4))
    assert slope == pytest.approx((upper - lower) / 2e-9, rel=1e-6)


def test_envelopes():
    case = REFERENCE["mean"]
    protocol = pulses(7, 0.05, [300.0], [1000.0], case["duration_s"], case["bandwidth_hz"])
    for value, name in zip(envelope(protocol), ("mean", "square", "width"), strict=True):
        assert float(value[0]) == pytest.approx(case[name], abs=case["tolerance"])
    t = np.linspace(-1, 1, 20_001)
    for bandwidth in (0.0, 40.0, 400.0):
        sd = np.inf if bandwidth == 0 else np.sqrt(2 * np.log(2)) / (np.pi * bandwidth)
        shape = np.exp(-((0.0075 * t / sd) ** 2) / 2)
        mean, square, fourth = (np.trapezoid(shape**k, t) / 2 for k in (1, 2, 4))
        found = envelope(pulses(7, 0.05, [300.0], [1000.0], 0.015, bandwidth))
        np.testing.assert_allclose(np.ravel(found), [mean, square, square**2 / fourth], rtol=1e-6)


def test_free_rate_is_that_which_gives_the_observed_one():
    case = REFERENCE["observed and free relaxation rate"]
    arguments = (case["observed"], case["bound"], case["forth"], case["back"])
    assert float(free_rate(*map(np.array, arguments))) == pytest.approx(case["free"], abs=case["tolerance"])
    for observed, bound, forth, back in ((1.1, 1.0, 6.0, 40.0), (0.9, 3.0, 4.0, 20.0), (2.0, 1.0, 9.0, 70.0)):
        free = float(free_rate(np.array(observed), np.array(bound), np.array(forth), np.array(back)))
        rates = np.linalg.eigvals([[free + forth, -back], [-forth, bound + back]])
        assert rates.min() == pytest.approx(observed, rel=1e-12)


def bloch_mcconnell(theta, row, given, steps=300):
    """Steady state by matrix exponentials of the Bloch-McConnell equations, the shaped pulse in short steps."""
    amplitude, fraction, residence, r2, t2b = theta
    observed, b1, shift, r1b = given
    back = 1 / residence
    forth = back * fraction / (1 - fraction)
    r1 = observed - forth * (r1b - observed) / (r1b - observed + back)
    offset = float(row["MTOffsetFrequency"][0]) - shift
    line = line_by_adaptive_quadrature(abs(offset), t2b)
    duration, bandwidth = float(row["MTPulseDuration"][0]), float(row["MTPulseBandwidth"][0])
    t = ((np.arange(steps) + 0.5) / steps - 0.5) * duration
    shape = np.exp(-((np.pi * bandwidth * t) ** 2) / (4 * np.log(2)))
    field = b1 * np.deg2rad(float(row["MTFlipAngle"][0])) * shape / (shape.sum() * duration / steps)

    def generator(w1):
        w = 2 * np.pi * offset
        saturation = np.pi * w1**2 * line
        return np.array(
            [
                [-r2, -w, 0, 0, 0],
                [w, -r2, w1, 0, 0],
                [0, -w1, -r1 - forth, back, r1 * (1 - fraction)],
                [0, 0, forth, -r1b - back - saturation, r1b * fraction],
                [0, 0, 0, 0, 0],
            ]
        )

    flip = b1 * np.deg2rad(float(row["FlipAngle"][0]))
    period = expm(generator(0.0) * (float(row["RepetitionTimeExcitation"][0]) - duration))
    period = period @ np.diag([0, 0, np.cos(flip), 1, 1])
    for w1 in field:
        period = expm(generator(w1) * duration / steps) @ period
    matrix, constant = period[2:4, 2:4], period[2:4, 4]
    return amplitude * np.sin(flip) * np.linalg.solve(np.eye(2) - matrix, constant)[0]


@pytest.mark.parametrize(
    ("theta", "given_values"),
    [
        (WHITE, GIVEN),
        (np.array([1000.0, 0.06, 0.05, 20.0, 1.2e-5]), np.array([0.8, 0.85, 60.0, 2.0])),
    ],
    ids=["white matter", "other tissue, fields off"],
)
def test_signal_is_that_of_the_bloch_mcconnell_equations(theta, given_values):
    protocol = QUANTITATIVE_MT.example().take([0, 9, 11, 13, 16, 17, 18, 20])
    exact = np.array([bloch_mcconnell(theta, protocol.take([k]), given_values) for k in range(len(protocol))])
    error = np.abs(QUANTITATIVE_MT.signal(theta, protocol, given_values) - exact) / exact[0]
    assert error[0] < 1e-9
    near = protocol["MTOffsetFrequency"] < 1900
    assert error[near].max() < 0.007
    assert error[~near].max() < 0.004


def test_continuous_waves_give_the_form_of_ramani():
    """Short repetition, pulse all the time, hardly any excitation: Ramani 2002, equation for the pool-wise rates."""
    flip, repetition = 0.01, 1e-3
    power = (2 * np.pi * 100) ** 2
    angle = np.rad2deg(np.sqrt(power) * repetition)
    offsets = np.array([1000.0, 3000.0, 10_000.0])
    protocol = pulses(flip, repetition, [angle] * 3, offsets, repetition, 0.0)
    amplitude, fraction, residence, r2, t2b = WHITE
    ratio = fraction / (1 - fraction)
    line = np.array([line_by_adaptive_quadrature(f, t2b) for f in offsets])
    bound = np.pi * power * line
    back, r1b = 1 / residence, 1.0
    r1 = GIVEN[0] - back * ratio * (r1b - GIVEN[0]) / (r1b - GIVEN[0] + back)
    exchanged = back * ratio / r1
    direct = power * r2 / ((2 * np.pi * offsets) ** 2 * r1)
    left = (r1b * exchanged + bound + r1b + back) / (exchanged * (r1b + bound) + (1 + direct) * (bound + r1b + back))
    signal = QUANTITATIVE_MT.signal(WHITE, protocol, GIVEN) / (amplitude * np.sin(np.deg2rad(flip)) * (1 - fraction))
    np.testing.assert_allclose(signal, left, rtol=0.012)  # it takes the offset for large against field and rates
    np.testing.assert_allclose(signal[2], left[2], rtol=2e-4)


@settings(max_examples=30, deadline=None)
@given(st.floats(2, 40), st.floats(0.01, 0.1), st.floats(0.3, 3))
def test_without_pulse_and_bound_pool_it_is_the_ernst_formula(flip, repetition, rate):
    protocol = pulses(flip, repetition, [0.0], [1000.0], 0.005, 150.0)
    theta, known = np.array([100.0, 0.0, 0.02, 25.0, 1e-5]), np.array([rate, 1.0, 0.0, 1.0])
    alpha, left = np.deg2rad(flip), np.exp(-rate * repetition)
    expected = 100 * np.sin(alpha) * (1 - left) / (1 - np.cos(alpha) * left)
    np.testing.assert_allclose(QUANTITATIVE_MT.signal(theta, protocol, known), expected, rtol=1e-9)


def test_signal_rises_with_offset_and_falls_with_power_and_bound_pool():
    protocol = pulses(7, 0.04, [400.0] * 3 + [800.0] * 3, [1000.0, 4000.0, 16_000.0] * 2, 0.015, 150.0)
    signal = QUANTITATIVE_MT.signal(WHITE, protocol, GIVEN).reshape(2, 3)
    assert np.all(np.diff(signal, axis=1) > 0)
    assert np.all(signal[1] < signal[0])
    more = QUANTITATIVE_MT.signal(WHITE + np.array([0, 0.05, 0, 0, 0]), protocol, GIVEN).reshape(2, 3) / (1 - 0.189)
    assert np.all(more[:, :2] < signal[:, :2] / (1 - 0.139))


def test_offsets_count_from_the_local_resonance():
    at = pulses(7, 0.04, [400.0], [1100.0], 0.015, 150.0)
    moved = pulses(7, 0.04, [400.0], [1000.0], 0.015, 150.0)
    np.testing.assert_allclose(
        QUANTITATIVE_MT.signal(WHITE, moved, np.array([1.1, 1.0, -100.0, 1.0])),
        QUANTITATIVE_MT.signal(WHITE, at, GIVEN),
        rtol=1e-12,
    )


def test_too_few_pulses_are_named():
    require_pulses(QUANTITATIVE_MT.example())
    with pytest.raises(NotIdentifiable, match="pulses holds 2 combinations of MTFlipAngle and MTOffsetFrequency and 1"):
        require_pulses(pulses(7, 0.04, [0.0, 400.0, 400.0, 400.0], [1e3, 1e3, -1e3, 2e3], 0.015, 150.0))
    with pytest.raises(NotIdentifiable, match="and 0 images without pulse"):
        require_pulses(QUANTITATIVE_MT.example().take(np.arange(2, 23)))
    columns = {k: v for k, v in QUANTITATIVE_MT.example().columns.items() if k != "MTPulseDuration"}
    with pytest.raises(MissingMetadata, match="MTPulseDuration is absent"):
        require_pulses(Protocol(columns))


def test_start_is_finite_for_any_measurement():
    protocol = QUANTITATIVE_MT.example()
    known = np.tile(GIVEN, (3, 1))
    known[2] = np.nan
    measured = np.stack([np.zeros(23), -np.ones(23), np.full(23, 50.0)])
    guess = QUANTITATIVE_MT.start(measured, protocol, known)
    assert guess.shape == (3, 5)
    assert np.isfinite(guess).all()
