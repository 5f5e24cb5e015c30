"""Translation by the Fourier shift theorem: exactness, noise, borders, missing values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from qcord.preprocess.translate import translate_slices


def smooth_image(shape=(40, 33), seed=0):
    rough = np.random.default_rng(seed).standard_normal((shape[0] + 20, shape[1] + 20))
    return ndimage.gaussian_filter(rough, 2.5)[10:-10, 10:-10]


def test_whole_voxels_are_a_roll_and_what_comes_from_outside_is_nan():
    image = np.random.default_rng(0).random((9, 8))
    moved = translate_slices(image, np.array([2.0, -3.0]))
    assert np.isnan(moved[:2]).all()
    assert np.isnan(moved[:, 5:]).all()
    assert np.allclose(moved[2:, :5], image[:-2, 3:], atol=1e-6)


def test_no_shift_changes_no_bit():
    image = np.random.default_rng(0).random((7, 8, 9)).astype(np.float32)
    assert np.array_equal(translate_slices(image, np.zeros((9, 2))), image)


@settings(max_examples=25, deadline=None)
@given(st.floats(-2, 2), st.floats(-2, 2))
def test_there_and_back(dx, dy):
    image = smooth_image()
    moved = np.nan_to_num(translate_slices(image, np.array([dx, dy])))
    back = translate_slices(moved, np.array([-dx, -dy]))
    assert np.abs(back - image)[8:-8, 8:-8].max() < 0.05 * image.std()


@pytest.mark.parametrize("step", [(0.5, 0.5), (-0.3, 1.4)])
def test_against_the_image_sampled_elsewhere(step):
    x, y = np.meshgrid(np.arange(40.0), np.arange(33.0), indexing="ij")

    def wave(x, y):
        return np.sin(0.9 * x) * np.cos(1.3 * y) + np.cos(0.4 * x - 0.7 * y)

    moved = translate_slices(wave(x, y), np.array(step))
    truth = wave(x - step[0], y - step[1])
    assert np.abs(moved - truth)[10:-10, 10:-10].max() < 0.05
    spline = ndimage.shift(wave(x, y), step, order=3, mode="mirror")
    assert np.abs(moved - truth)[10:-10, 10:-10].std() < np.abs(spline - truth)[10:-10, 10:-10].std()


def test_noise_stays_as_white_and_as_strong():
    noise = np.random.default_rng(1).standard_normal((40, 41, 200))
    moved = translate_slices(noise, np.full((200, 2), 0.5))[4:-4, 4:-4]
    assert moved.var() == pytest.approx(1, abs=0.06)
    assert abs((moved[1:] * moved[:-1]).mean() / moved.var()) < 0.03


def test_each_slice_has_its_own_shift():
    image = np.random.default_rng(2).random((9, 8, 3))
    shift = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, -1.0]])
    moved = translate_slices(image, shift)
    assert np.array_equal(moved[..., 0], image[..., 0].astype(np.float32))
    assert np.allclose(moved[1:, :, 1], image[:-1, :, 1], atol=1e-6)
    assert np.allclose(moved[:, :-1, 2], image[:, 1:, 2], atol=1e-6)


def test_missing_values_stay_missing_and_do_not_spread():
    image = smooth_image().astype(float)
    image[20, 15] = np.nan
    moved = translate_slices(image, np.array([0.5, 0.0]))
    assert np.isnan(moved[20:22, 15]).all()
    assert np.isnan(moved[2:-2, 2:-2]).sum() == 2
    still = translate_slices(image, np.zeros(2))
    assert np.isnan(still).sum() == 1


def test_a_voxel_without_a_value_does_not_ring_into_others():
    """Around a hole in bright tissue the moved image is that of the whole one."""
    x, y = np.meshgrid(np.arange(32), np.arange(30), indexing="ij")
    whole = (900 + 60 * np.sin(x / 5) * np.cos(y / 6))[..., None].astype(np.float32)
    holed = whole.copy()
    holed[15, 14], holed[8, 20] = np.nan, np.inf
    shift = np.array([[0.4, -0.3]])
    expected, found = translate_slices(whole, shift), translate_slices(holed, shift)
    known = np.isfinite(found) & np.isfinite(expected)
    assert (~np.isfinite(found) & np.isfinite(expected)).sum() <= 8
    np.testing.assert_allclose(found[known], expected[known], atol=4)
