"""Relaxometry and transmit field: published values, Bloch simulations by single steps, limits, first guesses."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcord.core.errors import ImplausibleValue, MissingMetadata
from qcord.core.noise import Rician
from qcord.core.protocol import Protocol
from qcord.estimate.simulate import simulate
from qcord.models.inversion_recovery import inversion_rows, restore_polarity
from qcord.models.mp2rage import timing, two_inversions, unified
from qcord.models.registry import get
from qcord.models.transmit_field import angle_pair, repetition_pair
from qcord.models.transverse_relaxation import echo_rows
from qcord.models.variable_flip_angle import flip_angle_rows

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "relaxometry.json").read_text())
NAMES = ("vfa", "inversion-recovery", "inversion-recovery-tr", "mp2rage", "t2", "r2star", "double-angle")
ALL = (*NAMES, "actual-flip-angle")


def signal_of(name, theta, protocol, known=None):
    model = get(name)
    defaults = model.given_defaults() if known is None else np.asarray(known, dtype=float)
    return model.signal(np.asarray(theta, dtype=float), protocol, defaults)


@pytest.mark.parametrize("case", REFERENCE, ids=lambda c: c["model"])
def test_values_by_hand(case):
    protocol = Protocol({k: np.array(v) for k, v in case["protocol"].items()})
    found = signal_of(case["model"], case["theta"], protocol, case["given"])
    np.testing.assert_allclose(found, case["signal"], atol=case["tolerance"])


def spoiled_train(m, flip, tr, r1, count):
    """Longitudinal magnetisation before each of ``count`` excitations, rotated and spoiled one by one."""
    before = []
    for _ in range(count):
        before.append(m)
        x, z = m * np.sin(flip), m * np.cos(flip)
        assert np.hypot(x, z) == pytest.approx(abs(m))
        m = 1 + (z - 1) * np.exp(-tr * r1)  # what lies in the plane is spoiled
    return np.array(before), m


@pytest.mark.parametrize(("flip", "tr", "t1", "b1"), [(5, 0.02, 0.9, 1.0), (28, 0.02, 0.9, 0.8), (60, 0.3, 4.0, 1.2)])
def test_steady_state_of_flip_angles_is_reached_pulse_by_pulse(flip, tr, t1, b1):
    before, _ = spoiled_train(1.0, np.deg2rad(b1 * flip), tr, 1 / t1, 3000)
    protocol = Protocol({"FlipAngle": np.array([flip]), "RepetitionTimeExcitation": np.array([tr])})
    expected = 700 * before[-1] * np.sin(np.deg2rad(b1 * flip))
    np.testing.assert_allclose(signal_of("vfa", [700.0, 1 / t1], protocol, [b1]), [expected], rtol=1e-9)


def mp2rage_by_steps(protocol, t1, b1, efficiency):
    """The whole sequence, pulse by pulse, until it repeats itself."""
    times, flips = protocol["InversionTime"], np.deg2rad(protocol["FlipAngle"]) * b1
    tr, shots, r1 = protocol["RepetitionTimeExcitation"], protocol["NumberShots"], 1 / t1
    period, m = protocol["RepetitionTimePreparation"][0], 1.0
    for _ in range(40):
        m, clock, seen = -efficiency * m, 0.0, []
        for k in range(len(times)):
            begin = times[k] - shots[k, 0] * tr[k]
            m = 1 + (m - 1) * np.exp(-(begin - clock) * r1)
            before, m = spoiled_train(m, flips[k], tr[k], r1, int(shots[k].sum()))
            seen.append(np.sin(flips[k]) * before[int(shots[k, 0])])
            clock = begin + shots[k].sum() * tr[k]
        m = 1 + (m - 1) * np.exp(-(period - clock) * r1)
    return np.array(seen)


@pytest.mark.parametrize(
    ("t1", "b1", "efficiency"), [(0.9, 1.0, 0.96), (1.4, 0.7, 0.9), (4.5, 1.2, 1.0), (0.3, 1, 0.96)]
)
def test_mp2rage_is_the_sequence_pulse_by_pulse(t1, b1, efficiency):
    protocol = get("mp2rage").example()
    expected = 500 * mp2rage_by_steps(protocol, t1, b1, efficiency)
    np.testing.assert_allclose(signal_of("mp2rage", [500, 1 / t1], protocol, [b1, efficiency]), expected, rtol=1e-9)
    swapped = protocol.take([1, 0])
    np.testing.assert_allclose(
        signal_of("mp2rage", [500, 1 / t1], swapped, [b1, efficiency]), expected[::-1], rtol=1e-9
    )


def marques(protocol, r1, efficiency):
    """Equations of Marques 2010 for two trains, in the paper's terms (the k-space centre after ``n_before`` pulses)."""
    (ti1, ti2), (a1, a2) = protocol["InversionTime"], np.deg2rad(protocol["FlipAngle"])
    tr, (before, after) = protocol["RepetitionTimeExcitation"][0], protocol["NumberShots"][0]
    n, e1 = before + after, np.exp(-tr * r1)
    ea = np.exp(-(ti1 - before * tr) * r1)
    eb = np.exp(-(ti2 - ti1 - n * tr) * r1)
    ec = np.exp(-(protocol["RepetitionTimePreparation"][0] - ti2 - after * tr) * r1)
    c1, c2 = np.cos(a1) * e1, np.cos(a2) * e1
    inner = (1 - ea) * c1**n + (1 - e1) * (1 - c1**n) / (1 - c1)
    inner = (inner * eb + 1 - eb) * c2**n + (1 - e1) * (1 - c2**n) / (1 - c2)
    steady = (inner * ec + 1 - ec) / (1 + efficiency * (c1 * c2) ** n * ea * eb * ec)
    first = (-efficiency * steady * ea + 1 - ea) * c1**before + (1 - e1) * (1 - c1**before) / (1 - c1)
    second = (steady - (1 - ec)) / (ec * c2**after) - (1 - e1) * (c2**-after - 1) / (1 - c2)
    return np.array([np.sin(a1) * first, np.sin(a2) * second])


@settings(max_examples=50, deadline=None)
@given(st.floats(0.2, 4), st.floats(0.5, 1))
def test_mp2rage_is_the_published_formula(rate, efficiency):
    protocol = get("mp2rage").example()
    found = signal_of("mp2rage", [1.0, rate], protocol, [1.0, efficiency])
    np.testing.assert_allclose(found, marques(protocol, rate, efficiency), rtol=1e-9, atol=1e-12)


def test_mp2rage_without_excitation_angle_is_an_inversion_recovery():
    """Tiny angles leave the recovery alone: the signal per angle is that of inversion recovery in its steady state."""
    protocol = get("mp2rage").example().replace(FlipAngle=[0.01, 0.01])
    rate, times = 1.1, protocol["InversionTime"]
    steady = (1 - np.exp(-5.0 * rate)) / (1 + 0.96 * np.exp(-5.0 * rate))
    expected = 1 - np.exp(-times * rate) * (1 + 0.96 * steady)
    found = signal_of("mp2rage", [1.0, rate], protocol) / np.deg2rad(0.01)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.floats(-50, 50), st.floats(0.1, 50))
def test_ratio_of_the_images_is_bounded_and_knows_no_scale(first, second):
    value = float(unified(np.array(first), np.array(second)))
    assert abs(value) <= 0.5
    assert value == pytest.approx(float(unified(np.array(7 * first), np.array(7 * second))), abs=1e-12)
    assert value == pytest.approx(float(unified(np.array(second), np.array(first))), abs=1e-12)


def test_inversion_recovery_by_small_steps():
    """Euler steps of the longitudinal Bloch equation, read out by 90 degrees, inverted again and again."""
    protocol = Protocol({"InversionTime": np.array([0.3, 1.1]), "RepetitionTimePreparation": np.array([1.5, 2.0])})
    t1, efficiency, steps, expected = 0.9, 0.93, 20_000, []
    for inversion, period in zip(*(protocol[k] for k in ("InversionTime", "RepetitionTimePreparation")), strict=True):
        m = 1.0
        for _ in range(6):
            m = -efficiency * m
            for _ in range(steps):
                m += (1 - m) / t1 * inversion / steps
            read, m = m, 0.0
            for _ in range(steps):
                m += (1 - m) / t1 * (period - inversion) / steps
        expected.append(read)
    found = signal_of("inversion-recovery-tr", [1.0, 1 / t1], protocol, [efficiency])
    np.testing.assert_allclose(found, expected, atol=2e-4)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.3, 3), st.floats(0.5, 1), st.floats(1.5, 6))
def test_general_form_holds_the_form_with_repetition_time(rate, efficiency, period):
    protocol = get("inversion-recovery").example().replace(RepetitionTimePreparation=period)
    general = [1 + efficiency * np.exp(-period * rate), -(1 + efficiency), rate]
    special = signal_of("inversion-recovery-tr", [1.0, rate], protocol, [efficiency])
    np.testing.assert_allclose(signal_of("inversion-recovery", general, protocol), special, atol=1e-12)


@pytest.mark.parametrize("gradient", [0.0, 4.0, -9.0, 25.0])
def test_dephasing_is_the_sum_over_the_slice(gradient):
    """Gradient in Hz/mm over a slice of 5 mm."""
    protocol = get("r2star").example()
    place = (np.arange(20_000) + 0.5) / 20_000 * 5.0 - 2.5
    turn = np.exp(2j * np.pi * gradient * place * protocol["EchoTime"][:, None]).mean(axis=1)
    expected = 900 * np.exp(-25 * protocol["EchoTime"]) * turn.real
    assert np.abs(turn.imag).max() < 1e-9
    np.testing.assert_allclose(signal_of("r2star", [900.0, 25.0], protocol, [5 * gradient]), expected, atol=1e-4)


def test_interleaved_repetition_times_by_single_pulses():
    protocol = Protocol({"FlipAngle": np.array([55.0, 55.0]), "RepetitionTimeExcitation": np.array([0.02, 0.1])})
    flip, m = np.deg2rad(55.0) * 0.9, 1.0
    for _ in range(400):
        seen = []
        for tr in protocol["RepetitionTimeExcitation"]:
            seen.append(m * np.sin(flip))
            _, m = spoiled_train(m, flip, tr, 1 / 0.9, 1)
    found = signal_of("actual-flip-angle", [1.0, 0.9], protocol, [1 / 0.9])
    np.testing.assert_allclose(found, seen, rtol=1e-9)


def test_interleaved_repetition_times_meet_the_published_formula_where_they_are_short():
    """cos a = (r n - 1) / (n - r) with r the ratio of the signals, n that of the times, both times far below T1."""
    protocol = get("actual-flip-angle").example()
    for rate, tolerance in ((1.1e-3, 1e-4), (1.1, 0.02)):
        first, second = signal_of("actual-flip-angle", [1.0, 0.85], protocol, [rate])
        cosine = (second / first * 5 - 1) / (5 - second / first)
        assert np.rad2deg(np.arccos(cosine)) / 60 == pytest.approx(0.85, rel=tolerance)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.4, 1.4), st.floats(10, 2000))
def test_double_angle_inverts_by_the_arc_cosine(field, amplitude):
    one, two = signal_of("double-angle", [amplitude, field], get("double-angle").example())
    assert np.arccos(two / (2 * one)) / np.deg2rad(60) == pytest.approx(field, rel=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_amplitudes_scale_the_signal_and_b1_scales_angles(name):
    model = get(name)
    protocol, theta = model.example(), model.theta(model.typical[0].values)
    scaled = theta.copy()
    scaled[:-1] *= 3
    np.testing.assert_allclose(signal_of(name, scaled, protocol), 3 * signal_of(name, theta, protocol), rtol=1e-12)
    if "B1" in [p.name for p in model.given] and name != "mp2rage":
        wide = protocol.replace(FlipAngle=1.2 * protocol["FlipAngle"])
        np.testing.assert_allclose(signal_of(name, theta, protocol, [1.2]), signal_of(name, theta, wide), rtol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_signals_take_many_voxels_and_one_row_at_a_time(name):
    """Broadcasting over leading axes; models that are not coupled give each row on its own."""
    model = get(name)
    protocol = model.example()
    generator = np.random.default_rng(1)
    theta = model.theta(model.typical[0].values) * generator.uniform(0.9, 1.1, (4, 5, len(model.free)))
    whole = model.signal(theta, protocol, model.given_defaults())
    assert whole.shape == (4, 5, len(protocol))
    np.testing.assert_allclose(whole[2, 3], model.signal(theta[2, 3], protocol, model.given_defaults()), rtol=1e-12)
    if not model.coupled:
        for row in range(len(protocol)):
            one = model.signal(theta, protocol.take([row]), model.given_defaults())
            np.testing.assert_allclose(one[..., 0], whole[..., row], rtol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_first_guess_is_near_the_truth_and_finite_for_anything(name):
    model = get(name)
    protocol = model.example()
    generator = np.random.default_rng(2)
    theta = model.theta(model.typical[0].values) * generator.uniform(0.75, 1.3, (300, 1))
    theta[:, :-1] = model.theta(model.typical[0].values)[:-1]
    known = np.broadcast_to(model.given_defaults(), (300, len(model.given)))
    exact = simulate(model, theta, protocol)
    near = {"inversion-recovery-tr": 0.12, "inversion-recovery": 0.08, "mp2rage": 0.05, "actual-flip-angle": 0.02}
    guess = model.start(exact, protocol, known)
    np.testing.assert_allclose(guess[:, -1], theta[:, -1], rtol=near.get(name, 1e-6))
    rough = Rician(np.abs(exact).max() / 15).sample(np.abs(exact), generator)
    for measured in (rough, np.zeros_like(exact), -exact, np.full_like(exact, np.nan), np.full_like(exact, 1e-300)):
        found = model.start(measured, protocol, known)
        assert found.shape == theta.shape
        assert np.isfinite(found).all()


@pytest.mark.parametrize("t1", [0.3, 0.9, 1.6, 5.0])
def test_polarity_is_restored_where_it_can_be_told(t1):
    protocol = get("inversion-recovery").example()
    shuffled = protocol.take([3, 0, 6, 1, 5, 2, 4])
    signed = simulate(get("inversion-recovery"), [1000.0, -1950.0, 1 / t1], shuffled)
    rate, sign = restore_polarity(np.abs(signed)[None], shuffled["InversionTime"])
    clear = np.abs(signed) > 20
    np.testing.assert_array_equal(sign[0][clear], np.sign(signed)[clear])
    assert rate[0] == pytest.approx(1 / t1, rel=0.05)
    _, kept = restore_polarity(signed[None], shuffled["InversionTime"])
    assert (kept == 1).all() or t1 == 0.3


def test_flip_angles_of_equal_repetition_time_start_exactly_and_of_unequal_nearly():
    model = get("vfa")
    protocol = Protocol({"FlipAngle": np.array([6.0, 20.0]), "RepetitionTimeExcitation": np.array([0.05, 0.05])})
    theta = np.array([[800.0, 1 / 0.4], [800.0, 1 / 3.0]])
    known = np.array([[0.8], [1.2]])
    exact = model.signal(theta, protocol, known)
    np.testing.assert_allclose(model.start(exact, protocol, known), theta, rtol=1e-9)
    unequal = protocol.replace(RepetitionTimeExcitation=[0.05, 0.03])
    exact = model.signal(theta, unequal, known)
    np.testing.assert_allclose(model.start(exact, unequal, known), theta, rtol=0.01)


@pytest.mark.parametrize(
    ("check", "name", "change", "words"),
    [
        (flip_angle_rows, "vfa", {"FlipAngle": [12.0, 12.0, 12.0]}, "at least two of different flip angle"),
        (flip_angle_rows, "vfa", {"FlipAngle": [np.nan, 12.0, 12.0]}, "FlipAngle is absent"),
        (
            inversion_rows,
            "inversion-recovery",
            {"InversionTime": [0.1, 0.1, 0.1, 0.1, 1, 1, 2]},
            "3 different inversion",
        ),
        (
            inversion_rows,
            "inversion-recovery",
            {"RepetitionTimePreparation": [2, 3, 3, 3, 3, 3, 3.0]},
            "use model inversion-recovery-tr",
        ),
        (echo_rows, "t2", {"EchoTime": np.full(8, 0.01)}, "1 different echo times, expected at least 3"),
        (angle_pair, "double-angle", {"FlipAngle": [60.0, 90.0]}, "one twice the other"),
        (repetition_pair, "actual-flip-angle", {"RepetitionTimeExcitation": [0.1, 0.1]}, "expected two repetition"),
        (two_inversions, "mp2rage", {"InversionTime": [np.nan, 2.5]}, "InversionTime is absent"),
    ],
)
def test_what_a_protocol_lacks_is_said_in_one_sentence(check, name, change, words):
    protocol = get(name).example()
    assert check(protocol) is not None
    with pytest.raises(MissingMetadata, match=words):
        check(protocol.replace(**change))


def test_trains_that_do_not_fit_are_refused():
    protocol = get("mp2rage").example()
    with pytest.raises(ImplausibleValue, match=r"do not fit .* before the first train"):
        timing(protocol.replace(InversionTime=[0.1, 2.5]))
    with pytest.raises(ImplausibleValue, match="between trains"):
        timing(protocol.replace(InversionTime=[2.3, 2.5]))
    with pytest.raises(ImplausibleValue, match="after the last train"):
        timing(protocol.replace(RepetitionTimePreparation=2.6))
    with pytest.raises(ImplausibleValue, match="3 inversion images, expected 2"):
        two_inversions(protocol.take([0, 1, 1]).replace(InversionTime=[0.7, 2.5, 3.9]))
    halves = protocol.replace(NumberShots=[80.0, 80.0])
    np.testing.assert_array_equal(timing(halves).before, [40, 40])


def test_volumes_with_transfer_pulse_are_left_out():
    columns = {
        "FlipAngle": np.array([9.0, 9.0, 15.0]),
        "RepetitionTimeExcitation": np.array([0.03, 0.03, 0.015]),
        "MTState": np.array([True, False, False]),
    }
    assert flip_angle_rows(Protocol(columns)) == (1, 2)
