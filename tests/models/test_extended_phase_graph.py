import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcord.core.errors import ImplausibleValue
from qcord.core.protocol import Protocol
from qcord.models.extended_phase_graph import echo_numbers, echo_train

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "extended_phase_graph.json").read_text())
NONE = np.array(0.0)


def isochromats(count, spacing, r2, r1, angle):
    """Echoes by the Bloch equations of many isochromats, turned and relaxed one step after the other.

    Crushers turn isochromat j of n by 2 pi j / n in each half of a spacing; the excitation leaves all along the axis of
    the refocusing pulses. Relaxation towards equilibrium adds magnetisation that the crushers keep from the echoes.
    """
    n = 4 * count + 4
    turn = 2 * np.pi * np.arange(n) / n
    m = np.stack([np.ones(n), np.zeros(n), np.zeros(n)])
    pulse = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    half = np.array([np.exp(-r2 * spacing / 2)] * 2 + [np.exp(-r1 * spacing / 2)])[:, None]

    def wait(m):
        m = half * m
        x = np.cos(turn) * m[0] - np.sin(turn) * m[1]
        y = np.sin(turn) * m[0] + np.cos(turn) * m[1]
        return np.stack([x, y, m[2] + (1 - half[2])])

    echoes = []
    for _ in range(count):
        m = wait(pulse @ wait(m))
        echoes.append(m[0].mean())
    return np.array(echoes)


@pytest.mark.parametrize("case", REFERENCE, ids=lambda c: c["what"])
def test_reference_values(case):
    efficiency = np.sin(np.deg2rad(case["angle_deg"]) / 2) ** 2
    found = echo_train(len(case["echoes"]), 0.01, NONE, NONE, np.array(efficiency))
    np.testing.assert_allclose(found, case["echoes"], atol=case["tolerance"])


@pytest.mark.parametrize("angle", [180, 165, 120, 60])
@pytest.mark.parametrize("count", [1, 2, 9, 32])
def test_echoes_are_those_of_isochromats(angle, count):
    angle = np.deg2rad(angle)
    for t2, t1 in ((0.015, 1.0), (0.08, 0.5), (2.0, 5.0)):
        found = echo_train(count, 0.01, np.array(1 / t2), np.array(1 / t1), np.array(np.sin(angle / 2) ** 2))
        np.testing.assert_allclose(found, isochromats(count, 0.01, 1 / t2, 1 / t1, angle), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.002, 3), st.floats(0.1, 10), st.integers(1, 40))
def test_perfect_refocusing_is_exponential(t2, t1, count):
    found = echo_train(count, 0.008, np.array(1 / t2), np.array(1 / t1), np.array(1.0))
    np.testing.assert_allclose(found, np.exp(-0.008 * np.arange(1, count + 1) / t2), rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.005, 1), st.floats(0.3, 5), st.floats(0.05, 1), st.integers(2, 32))
def test_a_shorter_train_is_the_beginning_of_a_longer_one_and_none_exceeds_its_start(t2, t1, efficiency, count):
    rates = np.array(1 / t2), np.array(1 / t1), np.array(efficiency)
    found = echo_train(count, 0.01, *rates)
    np.testing.assert_allclose(echo_train(count + 3, 0.01, *rates)[:count], found, rtol=1e-12)
    assert np.all(np.abs(found) <= 1)


def test_voxels_and_pools_broadcast():
    rates = 1 / np.linspace(0.01, 0.1, 6).reshape(3, 2, 1)
    efficiency = np.linspace(0.7, 1, 5)
    together = echo_train(8, 0.01, rates, np.array(1.0), efficiency)
    assert together.shape == (8, 3, 2, 5)
    alone = echo_train(8, 0.01, rates[2, 1, 0], np.array(1.0), efficiency[3])
    np.testing.assert_allclose(together[:, 2, 1, 3], alone, rtol=1e-13)


def test_echo_numbers():
    numbers, spacing = echo_numbers(Protocol({"EchoTime": [0.034, 0.011, 0.023]}))
    assert numbers.tolist() == [3, 1, 2]
    assert spacing == pytest.approx(0.0113, abs=1e-4)
    with pytest.raises(ImplausibleValue, match=r"EchoTime of train is \[0.01, 0.025\] s, expected multiples"):
        echo_numbers(Protocol({"EchoTime": [0.01, 0.025]}, "train"))
