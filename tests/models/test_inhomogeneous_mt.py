import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcord.core.errors import MissingMetadata
from qcord.core.protocol import Protocol
from qcord.models.inhomogeneous_mt import IHMTR, IHMTSAT, dual_inverse, frequencies, ratio_rows, saturation_rows
from qcord.models.magnetisation_transfer_ratio import MTR
from qcord.models.spoiled_gradient_echo import MTSAT

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "inhomogeneous_mt.json").read_text())
NONE = np.empty(0)
ONE = np.array([1.0])


def series(counts, angles=None, times=None, **more):
    n = len(counts)
    columns = {
        "MTFrequencies": np.array(counts, dtype=float),
        "FlipAngle": angles or [9.0] * n,
        "RepetitionTimeExcitation": times or [0.03] * n,
    }
    return Protocol({**columns, **more}, "series")


@pytest.mark.parametrize("case", REFERENCE, ids=lambda c: c["what"])
def test_reference_values(case):
    protocol = series([0, 1, 1, 2, 2])
    signal = IHMTR.signal(np.array([case["plain"], case["MTR"], case["ihMTR"]]), protocol, NONE)
    means = [case["plain"], *[np.mean(case["single"])] * 2, *[np.mean(case["dual"])] * 2]
    np.testing.assert_allclose(signal, means, atol=case["tolerance"])
    measured = np.array([case["plain"], *case["single"], *case["dual"]])
    guess = IHMTR.start(measured, protocol, NONE)
    np.testing.assert_allclose(guess, [case["plain"], case["MTR"], case["ihMTR"]], atol=case["tolerance"])


def test_single_frequency_images_are_those_of_the_plain_ratio_and_saturation():
    protocol = series([1, 0, 0], [9.0, 9.0, 15.0], [0.03, 0.03, 0.015], MTState=np.array([True, False, False]))
    np.testing.assert_allclose(
        IHMTR.signal(np.array([900.0, 45.0, 9.0]), protocol, NONE),
        MTR.signal(np.array([900.0, 45.0]), protocol, NONE),
        rtol=1e-14,
    )
    for b1 in (0.8, 1.0, 1.2):
        np.testing.assert_allclose(
            IHMTSAT.signal(np.array([900.0, 1.1, 4.0, 0.8]), protocol, b1 * ONE),
            MTSAT.signal(np.array([900.0, 1.1, 4.0]), protocol, b1 * ONE),
            rtol=1e-14,
        )


@settings(max_examples=60, deadline=None)
@given(st.floats(10, 5000), st.floats(0.2, 5), st.floats(-1, 15), st.floats(-1, 5), st.floats(0.5, 1.5))
def test_closed_form_inverts_the_signal(amplitude, rate, mtsat, more, b1):
    theta = np.array([amplitude, rate, mtsat, more])
    protocol = series([1, 2, 0, 0], [9.0, 9.0, 9.0, 15.0], [0.03, 0.03, 0.03, 0.015])
    signal = IHMTSAT.signal(theta, protocol, np.array([b1]))
    angles, times = np.deg2rad(protocol["FlipAngle"]), protocol["RepetitionTimeExcitation"]
    np.testing.assert_allclose(dual_inverse(signal, angles, times, b1, dependence=0.4), theta, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(IHMTSAT.start(signal, protocol, np.array([b1])), theta, rtol=1e-8, atol=1e-8)


def independent_saturation(s, s_pd, s_t1):
    """MTsat [percent] from Helms 2008 with numbers in place of settings, amplitude from the density-weighted image."""
    a, a1 = 0.15707963267948966, 0.2617993877991494
    r1 = 0.5 * (a1 / 0.015 * s_t1 - a / 0.03 * s_pd) / (s_pd / a - s_t1 / a1)
    amplitude = s_pd * (r1 * 0.03 + a**2 / 2) / (a * r1 * 0.03)
    return 100 * ((amplitude * a / s - 1) * r1 * 0.03 - a**2 / 2)


def test_difference_of_two_saturations_by_an_independent_formula():
    generator = np.random.default_rng(0)
    pd = generator.uniform(80, 120, 500)
    single, t1w = pd * generator.uniform(0.4, 0.8, 500), pd * generator.uniform(0.6, 0.9, 500)
    dual = single * generator.uniform(0.85, 1, 500)
    angles = np.deg2rad([9.0, 9.0, 9.0, 15.0])[:, None]
    found = dual_inverse(
        np.stack([single, dual, pd, t1w]), angles, np.array([0.03, 0.03, 0.03, 0.015]), 1.0, dependence=0.4
    )
    expected = independent_saturation(dual, pd, t1w) - independent_saturation(single, pd, t1w)
    np.testing.assert_allclose(found[3], expected, rtol=1e-8, atol=1e-9)


def test_rows_are_told_by_their_settings():
    protocol = series([2, 0, 1, 0, 2], [9.0, 15.0, 9.0, 9.0, 9.0], [0.03, 0.015, 0.03, 0.03, 0.03])
    assert ratio_rows(protocol) == ([3], [2], [0, 4])
    assert saturation_rows(protocol) == ([2], [0, 4], [3], [1])


@pytest.mark.parametrize(
    ("protocol", "check", "words"),
    [
        (series([0, 1, 1]), ratio_rows, "holds 0, 0, 0 volumes"),
        (series([0, 1, 2], [15.0, 9.0, 9.0]), ratio_rows, "holds 0, 1, 1 volumes"),
        (series([0, 1, 3 / 2]), ratio_rows, r"MTFrequencies of series is \[0.0, 1.0, 1.5\], expected 0"),
        (series([0, 1, 2], MTState=np.array([False, True, False])), frequencies, "contradicts MTState"),
        (series([0, 1, 2]), saturation_rows, "1 proton-density and 0 T1-weighted"),
        (series([0, 0, 1, 1, 2], [9.0, 15.0, 9.0, 12.0, 9.0]), saturation_rows, "one flip angle and repetition time"),
        (Protocol({"MTFrequencies": [0.0, 1.0, 2.0]}, "x"), saturation_rows, "FlipAngle and RepetitionTimeExcitation"),
    ],
)
def test_incomplete_series_are_named(protocol, check, words):
    with pytest.raises(MissingMetadata, match=words):
        check(protocol)


def test_start_is_finite_for_any_measurement():
    for model in (IHMTR, IHMTSAT):
        protocol = model.example()
        for measured in (np.zeros((2, len(protocol))), -np.ones((2, len(protocol)))):
            guess = model.start(measured, protocol, np.ones((2, len(model.given))))
            assert guess.shape == (2, len(model.free))
            if model is IHMTSAT:
                assert np.isfinite(guess).all()
