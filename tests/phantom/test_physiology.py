"""Heart, breath and drift, against what their formulas promise."""

import numpy as np
import pytest

from qcord.core.protocol import Protocol
from qcord.phantom import physiology as p
from qcord.phantom.motion import drift, shift_slices, slice_jitter
from qcord.template import tables


def _middle(level):
    edges = tables.level_edges()
    row = tables.LEVELS.index(level)
    return (edges[row] + edges[row + 1]) / 2


def test_cord_velocity_peaks_as_published_and_brings_the_cord_back():
    time = np.linspace(0, p.HEART_PERIOD, 9001)
    velocity = p.cord_velocity(time)
    assert velocity.min() == pytest.approx(-7.0, abs=1e-3)
    assert time[velocity.argmin()] == pytest.approx(0.109, abs=1e-3)
    assert np.trapezoid(velocity, time) == pytest.approx(0, abs=1e-3)
    np.testing.assert_allclose(p.cord_velocity(time + p.HEART_PERIOD), velocity, atol=1e-9)


def test_cord_swings_most_at_c5():
    heights = np.array([_middle(level) for level in ("C2", "C5", "T2")])
    swing = p.cord_swing(np.array([[p.SWING_TIME], [0.8]]), heights, 1.2)
    assert swing[0, 1] == pytest.approx(1.2)
    assert swing[0, 1] > swing[0, 0] > 0
    assert swing[0, 1] > swing[0, 2]
    assert swing[1].max() < 0.01


def test_pulsation_takes_signal_by_the_spread_of_phases():
    """Against a Monte Carlo of spins whose velocities differ."""
    protocol = Protocol({"BValue": [0.0, 800, 800, 200], "Direction": [[0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]]})
    velocity = np.full((4, 2), -7.0)
    left = p.pulsation_loss(protocol, velocity, np.array([[0, 0, 1.0], [0, 0.6, 0.8]]), 0.03)
    assert (left[0] == 1).all()
    assert (left[2] == 1).all()
    q = np.sqrt(800 * p.ENCODING_TIME)
    spins = -7.0 * (1 + 0.03 * np.random.default_rng(1).standard_normal(200_000))
    assert left[1, 0] == pytest.approx(abs(np.exp(1j * q * spins).mean()), abs=0.005)
    assert np.log(left[3, 0]) == pytest.approx(np.log(left[1, 0]) / 4)
    assert np.log(left[1, 1]) == pytest.approx(np.log(left[1, 0]) * 0.64)


def test_breathing_is_strongest_near_the_lungs():
    heights = np.array([_middle("C3"), _middle("C7")])
    field = p.breathing_field(np.random.default_rng(2), 4000, heights, 5.0)
    assert field.shape == (4000, 2)
    assert field[:, 1].std() == pytest.approx(5.0, rel=0.04)
    expected = 5 * np.exp(-(heights[0] - heights[1]) / p.LUNG_REACH)
    assert field[:, 0].std() == pytest.approx(expected, rel=0.04)


def test_slices_are_excited_at_any_time_of_the_beat():
    time = p.heart_times(np.random.default_rng(3), 200, 11)
    assert time.shape == (200, 11)
    assert time.mean() == pytest.approx(p.HEART_PERIOD / 2, rel=0.05)
    assert 0 <= time.min() < time.max() < p.HEART_PERIOD


def test_drift_walks_as_far_as_asked_and_moves_all_slices_alike():
    ends = np.array([drift(np.random.default_rng(seed), 30, 4, 1.5)[-1] for seed in range(800)])
    assert ends.std() == pytest.approx(1.5, rel=0.06)
    walk = drift(np.random.default_rng(1), 30, 4, 1.5)
    assert (walk[0] == 0).all()
    np.testing.assert_array_equal(walk[:, 0], walk[:, 3])
    assert np.abs(np.diff(walk[:, 0], axis=0)).max() < 1.5


def test_jitter_and_shift():
    shift = slice_jitter(np.random.default_rng(4), 50, 20, 0.7)
    assert shift.std() == pytest.approx(0.7, rel=0.05)
    data = np.zeros((20, 18, 2, 2))
    data[8:12, 8:12] = 1.0
    moved = shift_slices(data, np.array([[[0, 0], [0, 0]], [[3.0, 0], [0, -2.0]]]))
    np.testing.assert_array_equal(moved[..., 0], data[..., 0])
    np.testing.assert_allclose(moved[11:15, 8:12, 0, 1], 1, atol=1e-9)
    np.testing.assert_allclose(moved[8:12, 6:10, 1, 1], 1, atol=1e-9)
