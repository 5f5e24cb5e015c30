"""Denoising: truth by simulation, the other tool's numbers on real data, hostile inputs."""

import nibabel as nib
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from painted_scans import diffusion, grid_of, image_of, protocol_of, rician
from qcord.core.errors import EmptyRegion, ImplausibleValue, NotIdentifiable
from qcord.core.image import Image
from qcord.core.noise import Rician
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.preprocess import denoise as module
from qcord.preprocess.denoise import denoise
from qcord.preprocess.marchenko_pastur import split_spectrum
from qcord.preprocess.noise_floor import remove_noise_floor, signal_of_mean, variance_fraction


def noisy_series(painted, sigma, seed):
    data = rician(painted.series.data, sigma, seed)
    return Series(image_of(data), painted.series.protocol)


@pytest.fixture(scope="module")
def painted():
    return diffusion()


@pytest.fixture(scope="module")
def sigma():
    """Noise that doubles across the field."""
    x = np.linspace(0, 1, 48)[:, None, None]
    return np.broadcast_to(0.07 * (1 + x), (48, 32, 9))


@pytest.fixture(scope="module")
def cleaned(painted, sigma):
    return denoise(noisy_series(painted, sigma, 1))


def test_spectrum_of_pure_noise_and_of_known_rank():
    generator = np.random.default_rng(3)
    noise = 2.0 * generator.standard_normal((200, 125, 35))
    signal = 60 * generator.standard_normal((200, 125, 3)) @ generator.standard_normal((200, 3, 35))
    for patches, rank in ((noise, 0), (noise + signal, 3)):
        values = np.linalg.eigvalsh(patches.swapaxes(1, 2) @ patches)
        found, variance = split_spectrum(values, np.full(200, 125.0))
        assert np.abs(found - rank).mean() < 0.3
        assert np.sqrt(variance.mean()) == pytest.approx(2.0, rel=0.01)


def test_spectrum_with_fewer_rows_than_columns_and_empty_rows():
    generator = np.random.default_rng(4)
    patches = generator.standard_normal((300, 40, 30))
    patches[:, 20:] = 0
    values = np.linalg.eigvalsh(patches.swapaxes(1, 2) @ patches)
    found, variance = split_spectrum(values, np.full(300, 20.0))
    assert found.mean() < 1.5
    assert np.sqrt(variance.mean()) == pytest.approx(1.0, rel=0.03)


def test_noise_map_is_near_the_truth_where_it_varies(painted, sigma, cleaned):
    ratio = cleaned.sigma.data / sigma
    cord = painted.cord > 0.9
    assert np.median(ratio[cord]) == pytest.approx(1, abs=0.04)
    assert np.std(ratio[cord]) < 0.05
    left, right = ratio[:16], ratio[-16:]
    assert np.median(left) == pytest.approx(np.median(right), abs=0.08)
    assert np.median(ratio) == pytest.approx(1, abs=0.07)


def test_error_of_the_signal_falls_and_means_stay(painted, sigma, cleaned):
    cord = painted.cord > 0.9
    expected = Rician(sigma[..., None]).expectation(painted.series.data)
    noisy = rician(painted.series.data, sigma, 1)
    before, after = noisy[cord] - expected[cord], cleaned.series.data[cord] - expected[cord]
    assert np.sqrt((after**2).mean()) < 0.5 * np.sqrt((before**2).mean())
    # the mean of a region keeps its own noise, so the two differ by much less than that
    change = cleaned.series.data[cord].mean(axis=0) - noisy[cord].mean(axis=0)
    error_of_mean = sigma[cord].mean() / np.sqrt(cord.sum())
    assert np.sqrt((change**2).mean()) < 1.5 * error_of_mean
    assert abs(change.mean()) < error_of_mean


def test_same_result_for_any_number_of_threads(painted, sigma):
    series = noisy_series(painted, sigma, 2)
    one, three = denoise(series, threads=1), denoise(series, threads=3)
    assert np.array_equal(one.series.data, three.series.data)
    assert np.array_equal(one.sigma.data, three.sigma.data)


def test_threads_of_the_linear_algebra_library_do_not_matter():
    data = 10 + np.random.default_rng(0).standard_normal((20, 19, 4, 110))
    series = Series(image_of(data), protocol_of(100, 10))
    with threadpool_limits(1):
        one = denoise(series)
    with threadpool_limits(2):
        two = denoise(series)
    assert np.array_equal(one.series.data, two.series.data)


def test_same_result_whatever_batches_hold(painted, sigma, monkeypatch):
    series = noisy_series(painted, sigma, 2)
    whole = denoise(series, threads=1)
    monkeypatch.setattr(module, "BATCH_BYTES", 300_000)
    assert np.allclose(denoise(series, threads=1).series.data, whole.series.data, rtol=1e-5)


def test_scales_with_the_unit(painted, sigma):
    series = noisy_series(painted, sigma, 2)
    scaled = Series(series.image.derive(series.data * 1000), series.protocol)
    one, thousand = denoise(series), denoise(scaled)
    assert np.allclose(thousand.series.data, 1000 * one.series.data, rtol=1e-3, atol=0.1)
    assert np.allclose(thousand.sigma.data, 1000 * one.sigma.data, rtol=1e-3)


def test_integers_zero_air_and_missing_voxels(painted, sigma):
    data = np.round(1000 * rician(painted.series.data, sigma, 2))
    data[:8] = 0
    whole = denoise(Series(image_of(data.astype(np.int16)), painted.series.protocol))
    assert (whole.series.data[:8] == 0).all()
    assert np.isnan(whole.sigma.data[:8]).all()
    assert np.isfinite(whole.sigma.data[8:]).all()
    assert np.median(whole.sigma.data[8:]) == pytest.approx(1000 * np.median(sigma[8:]), rel=0.07)
    data[30, 10, 4, 7] = np.nan
    part = denoise(Series(image_of(data), painted.series.protocol))
    assert np.isnan(part.sigma.data[30, 10, 4])
    assert np.isnan(part.series.data[30, 10, 4, 7])
    assert np.isfinite(part.series.data).sum() == data.size - 1
    assert part.series.data[30, 10, 4, 3] == data[30, 10, 4, 3]


def test_mask_of_few_voxels_is_left_as_it_is():
    data = np.zeros((9, 8, 7, 12), dtype=np.float32)
    data[4, 4, 3] = 5.0
    kept = denoise(Series(image_of(data), protocol_of(10, 2)))
    assert np.array_equal(kept.series.data, data)
    assert np.isnan(kept.sigma.data).all()


def test_normal_noise_is_told_from_magnitudes():
    generator = np.random.default_rng(0)
    data = generator.standard_normal((16, 15, 4, 14))
    result = denoise(Series(image_of(data), protocol_of(12, 2)))
    assert result.series.image.history[-1].settings["magnitude"] is False
    assert np.median(result.sigma.data) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(
    ("shape", "volumes", "window"),
    [
        ((96, 36, 15), 35, (5, 5, 3)),
        ((208, 42, 5), 52, (5, 5, 3)),
        ((96, 36, 15), 100, (5, 5, 5)),
        ((60, 50, 1), 35, (7, 7, 1)),
        ((40, 6, 2), 90, (11, 6, 2)),
        ((3, 3, 2), 90, (3, 3, 2)),
    ],
)
def test_default_window(shape, volumes, window):
    assert module._window_for(shape, volumes) == window


def test_narrow_field_and_single_slice():
    generator = np.random.default_rng(0)
    for shape in ((30, 4, 3), (40, 41, 1)):
        data = 10 + generator.standard_normal((*shape, 20))
        result = denoise(Series(image_of(data), protocol_of(18, 2)))
        assert np.median(result.sigma.data) == pytest.approx(1, abs=0.08)


def test_too_few_volumes_names_the_way_out():
    series = Series(image_of(np.ones((9, 8, 7, 5))), Protocol({"BValue": np.zeros(5)}))
    with pytest.raises(NotIdentifiable, match=r"5 volumes.*at least 8.*estimate_noise"):
        denoise(series)


def test_volume_without_values_is_named():
    data = np.random.default_rng(0).random((9, 8, 7, 12))
    data[..., 3] = np.nan
    with pytest.raises(ImplausibleValue, match=r"Volume 3 .*no finite value"):
        denoise(Series(image_of(data), protocol_of(10, 2)))


def test_empty_image_and_bad_window():
    protocol = protocol_of(10, 2)
    with pytest.raises(EmptyRegion, match="no voxel with finite values other than zero"):
        denoise(Series(image_of(np.zeros((9, 8, 7, 12))), protocol))
    with pytest.raises(ImplausibleValue, match="window"):
        denoise(Series(image_of(np.ones((9, 8, 7, 12))), protocol), window=(11, 5, 3))


def test_history_names_the_method(cleaned):
    step = cleaned.series.image.history[-1]
    assert step.name == "denoise"
    assert any("10.1016/j.neuroimage.2016.08.016" in r for r in step.references)
    assert cleaned.components.unit == "1"
    assert cleaned.components.data.max() < 35


def test_oblique_grid_is_kept(oblique_grid):
    data = np.random.default_rng(0).random((7, 8, 9, 12)) + 5
    result = denoise(Series(Image(data, oblique_grid), protocol_of(10, 2)))
    assert result.series.image.grid == oblique_grid
    assert result.sigma.data.shape == (7, 8, 9)


def test_floor_of_magnitudes_against_samples():
    generator = np.random.default_rng(5)
    for snr in (0.0, 0.7, 1.5, 3.0, 8.0, 40.0):
        samples = Rician(2.0).sample(np.full(400_000, 2.0 * snr), generator)
        assert float(variance_fraction(samples.mean() / 2.0)) == pytest.approx(samples.var() / 4.0, abs=0.01)
    for snr in (1.5, 3.0, 8.0, 29.0, 100.0):
        mean = Rician(2.0).expectation(np.array(2.0 * snr))
        assert float(signal_of_mean(mean, 2.0)) == pytest.approx(2.0 * snr, rel=2e-4)
    assert float(signal_of_mean(2.0, 2.0)) == 0


def test_removing_the_floor_brings_denoised_values_to_the_truth(painted, sigma, cleaned):
    bare = remove_noise_floor(cleaned.series, cleaned.sigma)
    weak = (painted.cord > 0.9)[..., None] & (painted.series.data < 3 * sigma[..., None])
    before = (cleaned.series.data - painted.series.data)[weak].mean()
    after = (bare.data - painted.series.data)[weak].mean()
    assert abs(after) < 0.4 * abs(before)


@pytest.mark.real
def test_noise_of_a_zoomed_scan_against_its_air_and_another_tool(data_dir):
    localpca = pytest.importorskip("dipy.denoise.localpca")
    folder = data_dir / "bids-cord" / "sub-sct019" / "dwi"
    file = nib.as_closest_canonical(nib.load(folder / "sub-sct019_dwi.nii.gz"))
    data = file.get_fdata()[20:76]
    series = Series(
        Image(data, grid_of(data.shape[:3])), Protocol({"BValue": np.loadtxt(folder / "sub-sct019_dwi.bval")})
    )
    plain, corrected = denoise(series, magnitude=False), denoise(series)
    _, theirs = localpca.mppca(data[:, :, 5:10], patch_radius=2, return_sigma=True)
    measured = np.isfinite(plain.sigma.data[:, :, 5:10]) & (theirs > 0)
    ratio = plain.sigma.data[:, :, 5:10][measured] / theirs[measured]
    assert np.median(ratio) == pytest.approx(1, abs=0.05)
    # Air of this scan follows Rayleigh's law (mean over spread 1.91), which gives sigma without any patches.
    weighted = data[..., 1:31]
    dark = np.isfinite(corrected.sigma.data) & (weighted.mean(-1) < np.percentile(weighted.mean(-1), 30))
    from_air = weighted[dark].mean() / np.sqrt(np.pi / 2)
    assert np.median(corrected.sigma.data[dark]) == pytest.approx(from_air, rel=0.08)
