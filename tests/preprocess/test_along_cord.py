"""Smoothing of displacements along the cord: rest, shrinkage, recovery, calibration."""

import numpy as np
import pytest

from qcord.preprocess.along_cord import AVERAGED, SNAPSHOTS, Spread, known, smooth_displacements

HEIGHT = np.arange(12) * 5.0


def draw(whole, bend, single, noise, seed, n=40):
    generator = np.random.default_rng(seed)
    covariance = bend**2 * np.exp(-((HEIGHT[:, None] - HEIGHT) ** 2) / (2 * 30.0**2)) + 1e-9 * np.eye(12)
    true = whole * generator.standard_normal((n, 1)) + single * generator.standard_normal((n, 12))
    true = true + generator.standard_normal((n, 12)) @ np.linalg.cholesky(covariance).T
    return true, true + noise * generator.standard_normal((n, 12))


def test_values_within_their_error_become_rest():
    _, measured = draw(0, 0, 0, 0.2, 1)
    found = smooth_displacements(measured, np.full_like(measured, 0.04), HEIGHT, SNAPSHOTS)
    assert np.abs(found.value).max() < 0.05
    assert np.sqrt((found.value**2).mean()) < 0.02


@pytest.mark.parametrize("parts", [(0.5, 0.0, 0.0), (0.3, 0.5, 0.0), (0.3, 0.2, 0.3)])
def test_error_falls_and_is_as_large_as_stated(parts):
    true, measured = draw(*parts, 0.2, 2)
    found = smooth_displacements(measured, np.full_like(measured, 0.04), HEIGHT, SNAPSHOTS)
    error = found.value - true
    assert np.sqrt((error**2).mean()) < 0.2
    assert np.sqrt((error**2 / found.variance).mean()) == pytest.approx(1, abs=0.2)


def test_uncertain_slices_follow_certain_ones():
    true, measured = draw(0.5, 0.1, 0.0, 0.05, 3)
    variance = np.full_like(measured, 0.0025)
    measured[:, 5], variance[:, 5] = 7.0, np.inf
    found = smooth_displacements(measured, variance, HEIGHT, SNAPSHOTS)
    assert np.sqrt(((found.value - true)[:, 5] ** 2).mean()) < 0.1


def test_a_failed_slice_is_left_out():
    true, measured = draw(0.5, 0.1, 0.0, 0.05, 4)
    measured[7, 3] += 4.0
    found = smooth_displacements(measured, np.full_like(measured, 0.0025), HEIGHT, SNAPSHOTS)
    assert abs(found.value[7, 3] - true[7, 3]) < 0.2


def test_unexplained_scatter_counts_as_error_where_slices_move_together():
    generator = np.random.default_rng(5)
    measured = 0.4 + 0.3 * generator.standard_normal((1, 12))
    found = smooth_displacements(measured, np.full_like(measured, 1e-4), HEIGHT, AVERAGED)
    assert found.value.std() < 0.15
    assert found.value.mean() == pytest.approx(measured.mean(), abs=0.1)


def test_known_spread_holds_volumes_that_are_measured_badly():
    generator = np.random.default_rng(6)
    measured = 0.6 * generator.standard_normal((5, 12))
    found = smooth_displacements(measured, np.full_like(measured, 0.0025), HEIGHT, known(Spread(0.1, 0.0, 0.0)))
    assert np.abs(found.value).max() < 0.15
    assert found.spread.misfit > 0.2
