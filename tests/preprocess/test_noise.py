"""Noise of single images and pairs: simulated truth, correlation, real repeats."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from painted_scans import image_of, scan, transfer
from qcord.core.errors import EmptyRegion
from qcord.preprocess.noise import estimate_noise
from qcord.preprocess.noise_correlation import WHITE, NoiseCorrelation, noise_correlation
from qcord.preprocess.noise_spectrum import noise_part


@pytest.fixture(scope="module")
def painted():
    return transfer((128, 128, 5))


@pytest.mark.parametrize(
    ("acquired", "factor"), [((1.0, 1.0), 1.0), ((1.0, 0.7), 1.43), ((0.75, 0.75), 1.78), ((0.5, 0.5), 4.0)]
)
def test_pair_of_contrasts_with_and_without_zero_filling(painted, acquired, factor):
    noisy, _, sigma = scan(painted[..., :2], 0.05, acquired=acquired, seed=1)
    found = estimate_noise(image_of(noisy))
    middle = found.sigma.data[54:74, 54:74]
    assert np.median(middle) == pytest.approx(sigma, rel=0.2)
    assert found.correlation.factor == pytest.approx(factor, rel=0.25)


def test_naive_high_pass_would_miss_the_noise_of_a_zero_filled_image(painted):
    noisy, _, sigma = scan(painted[..., 0], 0.05, acquired=(0.5, 0.5), seed=1)
    laplace = ndimage.convolve(noisy, np.outer([1, -2, 1], [1, -2, 1])[..., None] / 6.0)
    naive = np.median(np.abs(laplace[40:88, 40:88])) / 0.6745
    assert naive < 0.5 * sigma
    assert estimate_noise(image_of(noisy)).sigma.data[64, 64, 2] > 0.9 * sigma


def test_single_image_at_moderate_snr_and_upper_bound_at_high(painted):
    for level, high in ((0.1, 1.2), (0.03, 2.2)):
        noisy, _, sigma = scan(painted[..., 0], level, seed=2)
        ratio = estimate_noise(image_of(noisy)).sigma.data[64, 64, 2] / sigma
        assert 0.9 < ratio < high


def test_triplet_is_no_worse_than_pair(painted):
    noisy, _, sigma = scan(painted, 0.03, seed=3)
    pair = estimate_noise(image_of(noisy[..., :2])).sigma.data[64, 64, 2] / sigma
    three = estimate_noise(image_of(noisy)).sigma.data[64, 64, 2] / sigma
    assert 0.85 < three < 1.35
    assert 0.85 < pair < 1.35


def test_half_a_voxel_of_motion_between_the_two_is_mostly_taken_out(painted):
    shift = np.zeros((3, 5, 2))
    shift[1] = [0.45, -0.45]
    noisy, _, sigma = scan(transfer((128, 128, 5), shift=shift)[..., :2], 0.03, seed=3)
    assert 0.9 < np.median(estimate_noise(image_of(noisy)).sigma.data[54:74, 54:74]) / sigma < 1.7


def test_noise_that_grows_towards_the_middle_is_mapped(painted):
    x = np.linspace(-1, 1, 128)
    coil = 1 + np.exp(-(x[:, None] ** 2 + x[None] ** 2) / 0.3)
    noisy, _, _ = scan(painted[..., :2], 0.05, coil=coil, seed=4)
    found = estimate_noise(image_of(noisy)).sigma.data[:, :, 2]
    assert found[64, 64] == pytest.approx(0.1, rel=0.2)
    assert found[64, 64] > 1.08 * found[64, 20]


def test_smoothed_noise_is_an_underestimate_not_nonsense(painted):
    noisy, _, sigma = scan(painted[..., :2], 0.05, seed=5)
    smooth = ndimage.gaussian_filter(noisy, (0.6, 0.6, 0, 0))
    truth = sigma * np.sqrt((_kernel(0.6) ** 2).sum())
    found = estimate_noise(image_of(smooth))
    assert 0.5 < found.sigma.data[64, 64, 2] / truth < 1.3
    assert found.correlation.factor > 1.5


def test_mask_narrower_than_a_tile_reads_the_noise_there(painted):
    x = np.linspace(-1, 1, 128)
    coil = 1 + np.exp(-(x[:, None] ** 2 + x[None] ** 2) / 0.3)
    noisy, _, _ = scan(painted[..., :2], 0.05, coil=coil, seed=4)
    mask = np.zeros((128, 128, 5))
    mask[60:68, 60:68] = 1
    assert estimate_noise(image_of(noisy), image_of(mask)).sigma.data[64, 64, 2] == pytest.approx(0.1, rel=0.25)


def test_hostile_images():
    with pytest.raises(EmptyRegion, match="no patch"):
        estimate_noise(image_of(np.zeros((40, 41, 3))))
    with pytest.raises(EmptyRegion, match="no patch"):
        estimate_noise(image_of(np.full((40, 41, 3), np.nan)))
    generator = np.random.default_rng(0)
    image = 100 + generator.standard_normal((40, 41, 3))
    image[:5] = np.nan
    assert estimate_noise(image_of(image)).sigma.data[0, 0, 0] == pytest.approx(1, rel=0.1)
    narrow = 100 + generator.standard_normal((60, 9, 12))
    assert estimate_noise(image_of(narrow)).sigma.data[0, 0, 0] == pytest.approx(1, rel=0.3)


def test_spectrum_of_white_noise_is_its_level():
    power = np.full((16, 16), 3.0)
    noise, level = noise_part(power)
    assert level == pytest.approx(3.0)
    assert np.allclose(noise, 3.0)


def test_correlation_of_white_and_of_averaged_noise():
    generator = np.random.default_rng(1)
    white = generator.standard_normal((40, 41, 6, 8))
    found = noise_correlation(image_of(white))
    assert found.factor == pytest.approx(1, abs=0.02)
    assert found.lags[4, 4, 1] == 1
    assert noise_correlation(image_of(white + np.arange(40.0)[:, None, None, None])).factor < 1.02
    twice = (white + np.roll(white, 1, axis=1)) / np.sqrt(2)
    found = noise_correlation(image_of(twice))
    assert found.lags[4, 5, 1] == pytest.approx(0.5, abs=0.02)
    assert found.factor == pytest.approx(2, abs=0.06)


def test_correlation_ignores_what_is_outside():
    generator = np.random.default_rng(1)
    white = generator.standard_normal((20, 21, 4))
    mask = np.zeros((20, 21, 4))
    mask[5:15] = 1
    spoilt = np.where(mask > 0, white, np.nan)
    assert noise_correlation(image_of(spoilt), image_of(mask)).factor < 1.5
    with pytest.raises(EmptyRegion):
        noise_correlation(image_of(np.full((7, 8, 9), np.nan)))


def test_variance_of_a_mean_against_samples():
    generator = np.random.default_rng(2)
    samples = generator.standard_normal((4000, 12, 13))
    samples = (samples + np.roll(samples, 1, axis=1)) / np.sqrt(2)
    weights = generator.random((12, 13, 1)) * (generator.random((12, 13, 1)) > 0.5)
    weights[0] = weights[-1] = 0  # the simulated noise wraps around
    means = (samples * weights[None, ..., 0]).sum(axis=(1, 2)) / weights.sum()
    lags = np.zeros((3, 1, 1))
    lags[:, 0, 0] = [0.5, 1, 0.5]
    correlated = NoiseCorrelation(lags, 2.0)
    assert correlated.variance_of_mean(weights) == pytest.approx(means.var(), rel=0.07)
    assert WHITE.variance_of_mean(np.ones((4, 5, 1))) == pytest.approx(1 / 20)
    with pytest.raises(EmptyRegion):
        WHITE.variance_of_mean(np.zeros((4, 5, 1)))


@pytest.mark.real
def test_two_runs_of_one_person_against_the_spread_of_their_difference(data_dir):
    folder = data_dir / "bids-cord" / "sub-gm9709" / "ses-1" / "anat"
    runs = [nib.as_closest_canonical(nib.load(f)).get_fdata() for f in sorted(folder.glob("*_run-*_T2star.nii.gz"))]
    found = estimate_noise(image_of(np.stack(runs, axis=-1)))
    first = estimate_noise(image_of(runs[0]))
    body = runs[0] > 0.5 * np.percentile(runs[0], 90)
    sharp = [run - ndimage.gaussian_filter(run, (1, 1, 0)) for run in runs]
    kernel = -_kernel(1.0)
    kernel[len(kernel) // 2, len(kernel) // 2] += 1
    difference = (sharp[0] - sharp[1])[body]
    # Both runs lie within half a voxel of each other: edges enlarge the spread of their difference, so it bounds.
    spread = 1.4826 * np.median(np.abs(difference)) / np.sqrt(2 * (kernel**2).sum())
    assert 0.5 * spread < np.median(found.sigma.data[body]) < 1.1 * spread
    assert np.median(first.sigma.data[body]) == pytest.approx(np.median(found.sigma.data[body]), rel=0.5)


def _kernel(sigma):
    unit = np.zeros((21, 21))
    unit[10, 10] = 1
    return ndimage.gaussian_filter(unit, sigma)


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 40, 2), (40, 4, 2)])
def test_images_too_small_to_read_noise_from(shape):
    data = np.random.default_rng(0).normal(100, 3, (*shape, 2)).astype(np.float32)
    with pytest.raises(EmptyRegion, match="give a larger mask, or the noise level itself"):
        estimate_noise(image_of(data))
