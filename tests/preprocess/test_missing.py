"""Noise of images with missing voxels: as if they were there."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from painted_scans import image_of, scan, transfer
from qcord.preprocess.missing import filled, holes, without_holes
from qcord.preprocess.noise import estimate_noise


@pytest.fixture(scope="module")
def painted():
    return transfer((128, 128, 5))


def missing(shape, share, seed=5):
    return np.random.default_rng(seed).random(shape) < share


def middle(found):
    return np.median(found.sigma.data[54:74, 54:74])


@pytest.mark.parametrize("sigma", [0.1, 0.03, 0.015])
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(("share", "value"), [(0.02, np.nan), (0.1, np.nan), (0.1, 0.0), (0.3, np.nan)])
def test_noise_is_that_of_the_whole_image(painted, sigma, n, share, value):
    noisy, _, _ = scan(painted[..., 0] if n == 1 else painted[..., :n], sigma, seed=3)
    whole = estimate_noise(image_of(noisy))
    gone = missing(noisy.shape[:3], share)
    noisy[gone] = value
    found = estimate_noise(image_of(noisy))
    assert middle(found) == pytest.approx(middle(whole), rel=0.08)
    # What fills three voxels in ten goes with its neighbours as far as the factor can see.
    assert found.correlation.factor == pytest.approx(whole.correlation.factor, rel=0.15 if share < 0.2 else 0.25)
    assert np.isfinite(found.sigma.data).all()


@pytest.mark.parametrize("acquired", [(1.0, 0.6), (0.5, 0.5)])
def test_missing_voxels_do_not_hide_that_k_space_was_filled_with_zeros(painted, acquired):
    noisy, _, _ = scan(painted[..., :2], 0.05, acquired=acquired, seed=3)
    whole = estimate_noise(image_of(noisy))
    noisy[missing(noisy.shape[:3], 0.1)] = np.nan
    found = estimate_noise(image_of(noisy))
    assert middle(found) == pytest.approx(middle(whole), rel=0.08)
    assert found.correlation.factor == pytest.approx(whole.correlation.factor, rel=0.1)


def test_a_voxel_that_is_missing_in_one_volume_is_missing_in_all(painted):
    noisy, _, _ = scan(painted[..., :2], 0.05, seed=3)
    one, all_ = noisy.copy(), noisy.copy()
    gone = missing(noisy.shape[:3], 0.1)
    one[gone, 1], all_[gone] = np.nan, np.nan
    np.testing.assert_array_equal(estimate_noise(image_of(one)).sigma.data, estimate_noise(image_of(all_)).sigma.data)


@pytest.mark.parametrize("n", [1, 2])
def test_rows_slices_and_background_without_values(painted, n):
    noisy, _, _ = scan(painted[..., 0] if n == 1 else painted[..., :n], 0.05, seed=3)
    whole = middle(estimate_noise(image_of(noisy)))
    x = np.linspace(-1, 1, 128)
    outside = np.broadcast_to((x[:, None] ** 2 + x[None] ** 2 > 0.4)[..., None], noisy.shape[:3])
    rows, slices = np.zeros(noisy.shape[:3], bool), np.zeros(noisy.shape[:3], bool)
    rows[::10], slices[:, :, 2] = True, True
    for gone in (rows, slices, outside):
        spoilt = noisy.copy()
        spoilt[gone] = np.nan
        assert middle(estimate_noise(image_of(spoilt))) == pytest.approx(whole, rel=0.12)


def test_zeros_of_a_background_are_no_holes_and_change_nothing(painted):
    noisy, _, _ = scan(painted[..., 0], 0.05, seed=3)
    x = np.linspace(-1, 1, 128)
    outside = x[:, None] ** 2 + x[None] ** 2 > 0.4
    noisy[outside], noisy[:, :2] = 0, 0
    finite = np.ones(noisy.shape, bool)
    assert holes(noisy[..., None], finite).sum() == 0
    image = image_of(noisy)
    assert without_holes(image) is image
    noisy[60, 61, 2] = noisy[70, 71, 3] = 0
    assert [tuple(i) for i in np.argwhere(np.isnan(without_holes(image_of(noisy)).data))] == [(60, 61, 2), (70, 71, 3)]


def test_zeros_of_air_in_whole_numbers_are_no_holes(painted):
    noisy, clean, _ = scan(painted[..., 0], 0.03, seed=3)
    coarse = np.rint(noisy * 60)
    air = ndimage.maximum_filter(clean, (5, 5, 1)) < 0.01
    assert (coarse[air] == 0).sum() > 100
    assert (holes(coarse[..., None], np.ones(coarse.shape, bool)) & air).sum() == 0


def test_zeros_of_late_echoes_in_few_whole_numbers_are_values():
    generator = np.random.default_rng(2)
    echoes = np.hypot(5 + generator.normal(0, 2, (60, 61, 3)), generator.normal(0, 2, (60, 61, 3)))
    coarse = np.rint(echoes)[..., None]
    coarse[generator.random(echoes.shape) < 0.05] = 0
    assert holes(coarse, np.ones(echoes.shape, bool)).sum() == 0
    fine = echoes[..., None].copy()
    fine[30, 31, 1] = 0
    fine[5, 6, 0] = 1e-3  # a value, however small
    assert [tuple(i) for i in np.argwhere(holes(fine, np.ones(echoes.shape, bool)))] == [(30, 31, 1)]


def test_what_fills_a_voxel_lies_within_its_neighbours_and_nothing_is_made_up_far_away():
    generator = np.random.default_rng(0)
    volumes = generator.uniform(2, 3, (20, 21, 4, 2)).astype(np.float32)
    known = generator.random((20, 21, 4)) > 0.2
    known[:10] = False
    result = filled(volumes, known)
    np.testing.assert_array_equal(result[known], volumes[known])
    near = result[10:]
    assert ((near >= 2) & (near <= 3)).all()
    assert np.isnan(result[:7]).all()
    slope = np.broadcast_to(np.arange(20.0)[:, None, None, None], (20, 21, 4, 2)).astype(np.float32)
    known = np.ones((20, 21, 4), bool)
    known[8, 9] = False
    np.testing.assert_allclose(filled(slope, known)[8, 9], 8, rtol=1e-5)


@pytest.mark.real
@pytest.mark.parametrize(("name", "pattern"), [("sct019", "*_MTS"), ("HC003U", "*_MTS"), ("errsm30", "*_MTR")])
@pytest.mark.parametrize("value", [np.nan, 0])
def test_real_transfer_images_with_a_tenth_of_their_voxels_missing(data_dir, name, pattern, value):
    files = sorted((data_dir / "bids-cord" / f"sub-{name}" / "anat").glob(f"{pattern}.nii.gz"))
    volumes = np.stack([nib.as_closest_canonical(nib.load(f)).get_fdata(dtype=np.float32) for f in files], axis=-1)
    whole = estimate_noise(image_of(volumes))
    volumes[missing(volumes.shape[:3], 0.1)] = value
    found = estimate_noise(image_of(volumes))
    assert np.median(found.sigma.data) == pytest.approx(np.median(whole.sigma.data), rel=0.1)
    assert found.correlation.factor == pytest.approx(whole.correlation.factor, rel=0.1)
