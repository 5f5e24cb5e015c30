import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcord.core.errors import MissingMetadata, NotIdentifiable
from qcord.core.noise import Rician
from qcord.core.protocol import Protocol
from qcord.estimate.nonlinear import fit_nonlinear
from qcord.estimate.simulate import simulate
from qcord.models.myelin_water import (
    MYELIN_WATER,
    MYELIN_WATER_CSF,
    refocusing_angle,
    require_echo_train,
)

TRAIN = MYELIN_WATER.example()
ONE = np.array([1.0])


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1), st.floats(0.006, 0.03), st.floats(0.05, 0.2), st.floats(10, 5000))
def test_perfect_refocusing_is_a_sum_of_exponentials(fraction, short, long, amplitude):
    times = TRAIN["EchoTime"]
    expected = amplitude * (fraction * np.exp(-times / short) + (1 - fraction) * np.exp(-times / long))
    found = MYELIN_WATER.signal(np.array([amplitude, fraction, short, long, 1.0]), TRAIN, ONE)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_imperfect_refocusing_alternates_and_mixes_pools_linearly():
    def echoes(fraction):
        return MYELIN_WATER.signal(np.array([100.0, fraction, 0.015, 0.08, 0.85]), TRAIN, ONE)

    np.testing.assert_allclose(echoes(0.3), 0.3 * echoes(1.0) + 0.7 * echoes(0.0), rtol=1e-12)
    assert echoes(0.0)[1] > echoes(0.0)[0] * np.exp(-0.01 / 0.08)


def test_fluid_is_a_third_pool():
    theta = np.array([100.0, 0.2, 0.015, 0.08, 0.95])
    given_fluid = np.array([1.0, 5.0, 1.5])
    none = MYELIN_WATER_CSF.signal(np.r_[theta, 0.0], TRAIN, given_fluid)
    np.testing.assert_allclose(none, MYELIN_WATER.signal(theta, TRAIN, ONE), rtol=1e-12)
    only = MYELIN_WATER_CSF.signal(np.array([100.0, 0.0, 0.015, 0.08, 1.0, 1.0]), TRAIN, given_fluid)
    np.testing.assert_allclose(only, 100 * np.exp(-TRAIN["EchoTime"] / 1.5), rtol=1e-10)


def test_echoes_belong_to_their_times_in_any_order_and_some_may_be_left_out():
    theta = np.array([[100.0, 0.2, 0.015, 0.08, 0.9], [50.0, 0.1, 0.02, 0.06, 0.95]])
    whole = MYELIN_WATER.signal(theta, TRAIN, np.ones((2, 1)))
    rows = np.array([7, 0, 30, 3])
    np.testing.assert_allclose(
        MYELIN_WATER.signal(theta, TRAIN.take(rows), np.ones((2, 1))), whole[:, rows], rtol=1e-12
    )


def test_parameters_and_given_values_broadcast():
    theta = MYELIN_WATER.theta({"MWF": 0.2})
    rates = np.linspace(0.5, 2, 5)[:, None]
    found = simulate(MYELIN_WATER, theta, TRAIN, given=rates)
    assert found.shape == (5, 32)
    assert np.all(np.diff(found[:, 1]) < 0)  # faster recovery leaves less for stimulated echoes
    np.testing.assert_allclose(found[3], simulate(MYELIN_WATER, theta, TRAIN, given=rates[3]), rtol=1e-13)


def test_refocusing_angle_of_its_efficiency():
    theta = np.array([[1, 0, 0.01, 0.1, np.sin(np.deg2rad(a) / 2) ** 2] for a in (90, 150, 180)])
    np.testing.assert_allclose(refocusing_angle(theta), [90, 150, 180], rtol=1e-12)


@pytest.mark.parametrize("model", [MYELIN_WATER, MYELIN_WATER_CSF], ids=lambda m: m.name)
def test_start_is_near_and_never_fails(model):
    theta = model.theta(model.typical[0].values)
    clean = simulate(model, theta, TRAIN)
    guess = model.start(clean[None], TRAIN, model.given_defaults()[None])
    assert np.abs(simulate(model, guess[0], TRAIN) - clean).max() < 0.04 * clean.max()
    bad = np.stack([np.zeros(32), -np.ones(32), np.full(32, 7.0)])
    assert np.isfinite(model.start(bad, TRAIN, np.ones((3, len(model.given))))).all()


@pytest.mark.parametrize(("snr", "bias", "spread"), [(100, 0.03, 0.055), (200, 0.008, 0.02)])
def test_two_pools_recover_the_fraction_with_honest_intervals(snr, bias, spread):
    theta = MYELIN_WATER.theta({"S0": 1000.0, "MWF": 0.2, "T2my": 0.016, "T2ie": 0.075, "Efficiency": 0.95})
    clean = simulate(MYELIN_WATER, np.tile(theta, (1500, 1)), TRAIN)
    sigma = clean[0, 0] / snr
    measured = Rician(sigma).sample(clean, np.random.default_rng(0))
    found = fit_nonlinear(MYELIN_WATER, measured, TRAIN, sigma=sigma, rician=True)
    error, std = found.theta[:, 1] - 0.2, np.sqrt(found.covariance[:, 1, 1])
    assert abs(error.mean()) < bias
    assert error.std() < spread
    assert 0.92 < (np.abs(error) < 1.96 * std).mean() < 0.98


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        (Protocol({"EchoTime": 0.01 * np.arange(1, 9)}, "short"), "short has 8 spin echoes from 10 to 80 ms"),
        (Protocol({"EchoTime": 0.02 * np.arange(1, 21)}, "late"), "late has 20 spin echoes from 20 to 400 ms"),
        (Protocol({"EchoTime": 0.008 * np.arange(1, 15)}), "14 spin echoes from 8 to 112 ms"),
    ],
)
def test_trains_that_do_not_show_myelin_water_are_named(protocol, words):
    with pytest.raises(NotIdentifiable, match=words):
        require_echo_train(protocol)
    require_echo_train(TRAIN)
    with pytest.raises(MissingMetadata, match="EchoTime is absent"):
        require_echo_train(Protocol({"FlipAngle": [90.0]}))
