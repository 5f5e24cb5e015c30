import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcord.core.errors import MissingMetadata
from qcord.core.protocol import Protocol
from qcord.models.spoiled_gradient_echo import MTSAT, MTSAT_ERNST, helms_inverse, saturation, triplet_rows

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "spoiled_gradient_echo.json").read_text())
ANGLES = np.deg2rad([9.0, 9.0, 15.0])
TIMES = np.array([0.03, 0.03, 0.015])


def triplet(order=(0, 1, 2)):
    rows = np.array(order)
    return Protocol(
        {
            "FlipAngle": np.rad2deg(ANGLES)[rows],
            "RepetitionTimeExcitation": TIMES[rows],
            "MTState": np.array([True, False, False])[rows],
        },
        "triplet",
    )


def test_exact_steady_state_at_the_ernst_angle():
    case = REFERENCE[0]
    protocol = Protocol(
        {
            "FlipAngle": [case["flip_angle_deg"]],
            "RepetitionTimeExcitation": [case["repetition_time_s"]],
            "MTState": np.array([False]),
        }
    )
    signal = MTSAT_ERNST.signal(np.array([1.0, case["R1_per_s"], 3.0]), protocol, np.array([1.0]))
    assert float(signal[0]) == pytest.approx(case["signal_over_amplitude"], abs=case["tolerance"])


def test_rational_form_at_half_saturation():
    case = REFERENCE[1]
    protocol = Protocol(
        {
            "FlipAngle": [case["flip_angle_deg"]],
            "RepetitionTimeExcitation": [case["repetition_time_s"]],
            "MTState": np.array([False]),
        }
    )
    signal = MTSAT.signal(np.array([1.0, case["R1_per_s"], 3.0]), protocol, np.array([1.0]))
    assert float(signal[0]) == pytest.approx(case["signal_over_amplitude"], rel=case["tolerance"])


@settings(max_examples=80, deadline=None)
@given(st.floats(10, 5000), st.floats(0.2, 5), st.floats(-1, 15), st.floats(0.5, 1.5))
def test_closed_form_inverts_the_rational_signal(amplitude, rate, mtsat, b1):
    theta = np.array([amplitude, rate, mtsat])
    signal = MTSAT.signal(theta, triplet(), np.array([b1]))
    np.testing.assert_allclose(helms_inverse(signal, ANGLES, TIMES, b1), theta, rtol=1e-8, atol=1e-8)


def independent_mtsat(s_mt, s_pd, s_t1):
    """Helms 2008 with the erratum, written from the paper's R1app, Aapp and delta, in other terms."""
    a_mt, a_pd, a_t1 = ANGLES
    t_mt, t_pd, t_t1 = TIMES
    r1 = 0.5 * ((a_t1 / t_t1) * s_t1 - (a_pd / t_pd) * s_pd) / (s_pd / a_pd - s_t1 / a_t1)
    # the amplitude from the proton-density weighted signal, S = A a R1 TR / (R1 TR + a^2 / 2)
    amplitude = s_pd * (r1 * t_pd + a_pd**2 / 2) / (a_pd * r1 * t_pd)
    return r1, 100 * ((amplitude * a_mt / s_mt - 1) * r1 * t_mt - a_mt**2 / 2)


def test_closed_form_agrees_with_an_independent_formula():
    generator = np.random.default_rng(0)
    s_pd = generator.uniform(80, 120, 1000)
    s_mt, s_t1 = s_pd * generator.uniform(0.4, 0.9, 1000), s_pd * generator.uniform(0.6, 0.9, 1000)
    _, rate, mtsat = helms_inverse(np.stack([s_mt, s_pd, s_t1]), ANGLES[:, None], TIMES)
    rate2, mtsat2 = independent_mtsat(s_mt, s_pd, s_t1)
    np.testing.assert_allclose(rate, rate2, rtol=1e-12)
    np.testing.assert_allclose(mtsat, mtsat2, rtol=1e-9)


@pytest.mark.parametrize(("rate", "low", "high"), [(0.4, 0.010, 0.013), (0.8, 0.007, 0.010), (1.2, 0.006, 0.008)])
def test_error_of_the_small_angle_form_is_as_stated(rate, low, high):
    """T1 comes out about 1 % too long from the exact signal; with half tangents it is right within .01 %."""
    signal = MTSAT_ERNST.signal(np.array([1000.0, rate, 4.0]), triplet(), np.array([1.0]))
    small = helms_inverse(signal, ANGLES, TIMES)
    assert low < rate / small[1] - 1 < high
    assert 0.019 < 1 - small[2] / 4 < 0.035
    exact = helms_inverse(signal, 2 * np.tan(ANGLES / 2), TIMES)
    assert abs(rate / exact[1] - 1) < 1e-4


def test_forms_agree_for_small_angles_and_short_times():
    protocol = Protocol(
        {"FlipAngle": [1.0, 1.0], "RepetitionTimeExcitation": [1e-3, 1e-3], "MTState": np.array([True, False])}
    )
    theta = np.array([100.0, 1.0, 0.01])
    exact = MTSAT_ERNST.signal(theta, protocol, np.array([1.0]))
    np.testing.assert_allclose(MTSAT.signal(theta, protocol, np.array([1.0])), exact, rtol=6e-4)


def test_saturation_is_nominal_at_nominal_field():
    assert saturation(np.array(4.0), np.array(1.0)) == pytest.approx(0.04)


def test_uncorrected_maps_depend_on_the_transmit_field_as_published():
    """Without correction R1 scales with the inverse square of B1, MTsat with (1 - .4 B1) / (1 - .4)."""
    theta, b1 = np.array([1000.0, 1.0, 4.0]), 0.8
    signal = MTSAT.signal(theta, triplet(), np.array([b1]))
    amplitude, rate, mtsat = helms_inverse(signal, ANGLES, TIMES)
    assert rate == pytest.approx(1 / b1**2, rel=1e-9)
    assert amplitude == pytest.approx(1000 * b1, rel=1e-9)
    assert mtsat == pytest.approx(4 * (1 - 0.4 * b1) / 0.6, rel=1e-9)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_rows_are_told_by_their_settings(order):
    rows = triplet_rows(triplet(order))
    assert [order[r] for r in rows] == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"FlipAngle": [9, 9, np.nan]}, "FlipAngle of some volumes are absent from triplet"),
        ({"RepetitionTimeExcitation": np.full(3, np.nan), "FlipAngle": np.full(3, np.nan)}, "FlipAngle and Repet"),
        ({"MTState": np.array([False, False, False])}, "0 volumes with and 3 without"),
        ({"FlipAngle": [9, 9, 9], "RepetitionTimeExcitation": [0.03, 0.03, 0.03]}, "different flip angle"),
    ],
)
def test_incomplete_triplets_are_named(change, words):
    with pytest.raises(MissingMetadata, match=words):
        triplet_rows(triplet().replace(**change))


def test_start_is_the_closed_form_for_a_triplet_and_finite_otherwise():
    theta = np.array([[1000.0, 1.2, 4.0], [500.0, 0.5, 1.0]])
    given_b1 = np.ones((2, 1))
    signal = MTSAT.signal(theta, triplet(), given_b1)
    assert MTSAT.start is not None
    np.testing.assert_allclose(MTSAT.start(signal, triplet(), given_b1), theta, rtol=1e-9)
    pair = triplet().take([0, 1])
    assert np.isfinite(MTSAT.start(signal[:, :2], pair, given_b1)).all()
    assert np.isfinite(MTSAT.start(np.zeros((2, 3)), triplet(), given_b1)).all()
