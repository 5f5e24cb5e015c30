"""Truncation of k-space, against the Wilbraham-Gibbs constant and a sum of sines."""

import numpy as np
import pytest
from scipy import special

from qcord.phantom.ringing import truncate


def test_edges_overshoot_by_nine_percent():
    """(Si(pi) / pi - 1 / 2) of the step, beside a step that the fine grid resolves far better than the image."""
    fine = np.zeros((1024, 1, 1))
    fine[256:768] = 1.0
    found = [truncate(np.roll(fine, shift, axis=0), 8, (0,))[:, 0, 0] for shift in range(8)]
    constant = special.sici(np.pi)[0] / np.pi - 0.5
    assert max(f.max() for f in found) - 1 == pytest.approx(constant, rel=0.05)
    assert -min(f.min() for f in found) == pytest.approx(constant, rel=0.05)


def test_image_is_the_band_limited_object_at_the_centres_of_its_voxels():
    generator = np.random.default_rng(1)
    fine = generator.normal(size=(30, 4, 2))
    found = truncate(fine, 2, (0,))
    m = np.arange(30)
    centre = 2 * np.arange(15) + 0.5
    k = np.arange(-7, 8)
    spectrum = (fine[None] * np.exp(-2j * np.pi * k[:, None] * m / 30)[:, :, None, None]).sum(axis=1)
    waves = np.exp(2j * np.pi * centre[:, None] * k / 30)
    expected = (waves[:, :, None, None] * spectrum).sum(axis=1).real / 30
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(24, 20, 3), (24, 20, 3, 2)])
def test_uniform_objects_and_means_stay(shape):
    np.testing.assert_allclose(truncate(np.full(shape, 3.0), 2, (0, 1)), 3.0)
    data = np.random.default_rng(2).uniform(1, 2, shape)
    found = truncate(data, 2, (0, 1))
    assert found.shape == (12, 10, *shape[2:])
    assert found.mean() == pytest.approx(data.mean())


def test_a_factor_of_one_changes_nothing():
    data = np.random.default_rng(3).normal(size=(7, 9, 4))
    np.testing.assert_allclose(truncate(data, 1, (0, 1)), data, atol=1e-12)
