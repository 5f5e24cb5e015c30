import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cord_diffusion import S0, cord_protocol, scan, tensors
from qcord.core.errors import GridMismatch, MissingMetadata, NotIdentifiable, UnknownName
from qcord.core.flags import Flag
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Rician
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.bound import crlb
from qcord.estimate.propagate import curvature_bias, delta
from qcord.estimate.simulate import simulate
from qcord.maps.tensor import METHODS, fit_tensor
from qcord.maps.tensor_errors import tensor_estimates
from qcord.models.tensor import TENSOR

METRICS = ("FA", "MD", "AD", "RD")


def flat(image):
    return image.data.reshape(-1).astype(float)


@pytest.mark.parametrize("method", METHODS)
def test_noise_free_truth_is_recovered(method):
    theta, truth = tensors(np.linspace(0.05, 0.95, 504), seed=0)
    series, _ = scan(theta, np.inf, 0, (7, 8, 9))
    fit = fit_tensor(series, method=method, sigma=1e-6)
    for name in METRICS:
        np.testing.assert_allclose(flat(fit[name]), truth[name], rtol=2e-6)
        assert np.abs(flat(fit.bias[name])).max() < 1e-6
    np.testing.assert_allclose(flat(fit["S0"]), S0, rtol=1e-6)
    agreement = np.abs((fit["V1"].data.reshape(-1, 3) * truth["V1"]).sum(axis=1))
    np.testing.assert_allclose(agreement, 1, atol=1e-6)
    np.testing.assert_allclose(fit["tensor"].data.reshape(-1, 6), theta[:, 1:], atol=1e-9)
    assert np.all(fit.flag.data == Flag.OK)


def test_maps_carry_units_shapes_and_history(oblique_grid):
    theta, _ = tensors(np.full(504, 0.7), seed=1)
    series = Series(Image(simulate(TENSOR, theta, cord_protocol()).reshape(7, 8, 9, 35), oblique_grid), cord_protocol())
    fit = fit_tensor(series, sigma=1.0)
    assert {k: m.unit for k, m in fit.maps.items()} == {
        **dict.fromkeys(("MD", "AD", "RD", "tensor"), "mm2/s"),
        **dict.fromkeys(("FA", "S0", "V1"), "1"),
    }
    assert set(fit.std) == set(fit.maps)
    assert set(fit.bias) == {*METRICS, "S0"}
    assert fit["V1"].data.shape == (7, 8, 9, 3)
    assert fit["tensor"].data.shape == (7, 8, 9, 6)
    assert fit["FA"].grid == oblique_grid
    step = fit["FA"].history[-1]
    assert step.name == "fit_tensor"
    assert step.settings["method"] == "wls"
    assert any("10.1006/jmrb.1994.1037" in r for r in step.references)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_turning_directions_turns_the_tensor_and_nothing_else(seed):
    turn = Rotation.random(random_state=np.random.default_rng(seed)).as_matrix()
    theta, _ = tensors(np.linspace(0.3, 0.9, 40), seed=2)
    series, sigma = scan(theta, 20, seed=2)
    protocol = cord_protocol()
    turned = Series(series.image, protocol.replace(Direction=protocol["Direction"] @ turn.T))
    one, other = fit_tensor(series, sigma=sigma), fit_tensor(turned, sigma=sigma)
    for name in METRICS:
        np.testing.assert_allclose(flat(one[name]), flat(other[name]), rtol=1e-5)
        np.testing.assert_allclose(flat(one.std[name]), flat(other.std[name]), rtol=1e-4)
        np.testing.assert_allclose(flat(one.bias[name]), flat(other.bias[name]), atol=1e-4 * flat(one.std[name]).max())
    v, w = one["V1"].data.reshape(-1, 3), other["V1"].data.reshape(-1, 3)
    np.testing.assert_allclose(np.abs(((v @ turn.T) * w).sum(axis=1)), 1, atol=1e-5)


def test_permuting_voxels_permutes_maps_and_masks_change_nothing():
    theta, _ = tensors(np.linspace(0.1, 0.9, 504), seed=3)
    series, _ = scan(theta, 15, 3, (7, 8, 9))
    order = np.random.default_rng(3).permutation(504)
    shuffled = series.data.reshape(504, -1)[order].reshape(series.data.shape)
    other = fit_tensor(Series(series.image.derive(shuffled), series.protocol))
    one = fit_tensor(series)
    for name in METRICS:
        np.testing.assert_allclose(flat(other[name]), flat(one[name])[order], rtol=1e-6)
    inside = np.random.default_rng(4).random((7, 8, 9)) > 0.6
    masked = fit_tensor(series, Image(inside.astype(float), series.image.grid))
    np.testing.assert_allclose(masked["FA"].data[inside], one["FA"].data[inside], rtol=1e-6)
    assert np.isnan(masked["FA"].data[~inside]).all()
    assert np.all(masked.flag.data[~inside] == Flag.OUTSIDE)


def test_threads_and_memory_order_do_not_change_a_bit():
    theta, _ = tensors(np.random.default_rng(5).uniform(0.1, 0.9, 21 * 20 * 19), seed=5)
    series, _ = scan(theta, 12, 5, (21, 20, 19))
    turned = Series(series.image.derive(np.asfortranarray(series.data)), series.protocol)
    first = fit_tensor(series, n_jobs=1)
    for other in (fit_tensor(series, n_jobs=2), fit_tensor(series, n_jobs=5), fit_tensor(turned, n_jobs=2)):
        for group in ("maps", "std", "bias"):
            for name, image in getattr(first, group).items():
                assert getattr(other, group)[name].data.tobytes() == image.data.tobytes()


def test_integer_scans_are_fitted_as_they_are():
    theta, _ = tensors(np.full(60, 0.7), seed=6)
    series, _ = scan(theta, 30, 6)
    stored = np.round(series.data).astype(np.int16)
    whole = fit_tensor(Series(series.image.derive(stored), series.protocol))
    same = fit_tensor(Series(series.image.derive(stored.astype(float)), series.protocol))
    np.testing.assert_array_equal(whole["FA"].data, same["FA"].data)


def test_spread_meets_the_bound():
    """Standard deviation over Cramer-Rao bound of the elements and of FA, by the delta method, .9 to 1.15."""
    theta, _ = tensors([0.75], seed=7)
    for snr in (20, 40, 80):
        series, sigma = scan(np.repeat(theta, 6000, axis=0), snr, 7)
        fit = fit_tensor(series, sigma=sigma)
        bound = crlb(TENSOR, theta[0], cord_protocol(), Rician(sigma))
        ratio = fit["tensor"].data.reshape(-1, 6).std(axis=0) / np.sqrt(np.diag(bound)[1:])
        assert np.all((ratio > 0.9) & (ratio < 1.15))
        for derived in TENSOR.derived:
            _, least = delta(derived, theta[0], bound)
            assert 0.9 < flat(fit[derived.name]).std() / float(least) < 1.15


@pytest.mark.parametrize(("snr", "low"), [(10, 0.45), (12, 0.45), (20, 0.3)])
@pytest.mark.parametrize("known", [True, False], ids=["noise given", "noise from residuals"])
def test_intervals_of_voxels_and_of_regional_means_cover_the_truth(snr, low, known):
    """95 % intervals of map - bias: single voxels, and means over 10 and 100 voxels."""
    fa = np.random.default_rng(8).uniform(low, 0.9, 20_000)
    theta, truth = tensors(fa, seed=8)
    series, sigma = scan(theta, snr, 8)
    fit = fit_tensor(series, sigma=sigma if known else None)
    for name in METRICS:
        error = flat(fit[name]) - flat(fit.bias[name]) - truth[name]
        for size in (1, 10, 100):
            mean = error.reshape(-1, size).mean(axis=1)
            std = np.sqrt((flat(fit.std[name]) ** 2).reshape(-1, size).mean(axis=1) / size)
            assert 0.90 <= np.mean(np.abs(mean) < 1.96 * std) <= 0.99, (name, size)


def test_without_its_bias_map_regional_fa_would_miss_the_truth():
    """What the bias map is for: at the noise of the cord, means over 100 voxels of gray matter."""
    theta, truth = tensors(np.full(20_000, 0.5), seed=9)
    series, sigma = scan(theta, 10, 9)
    fit = fit_tensor(series, sigma=sigma)
    raw, taken = flat(fit["FA"]) - truth["FA"], flat(fit["FA"]) - flat(fit.bias["FA"]) - truth["FA"]
    std = np.sqrt((flat(fit.std["FA"]) ** 2).reshape(-1, 100).mean(axis=1) / 100)
    assert np.mean(np.abs(raw.reshape(-1, 100).mean(axis=1)) < 1.96 * std) < 0.7
    assert np.mean(np.abs(taken.reshape(-1, 100).mean(axis=1)) < 1.96 * std) > 0.9
    assert abs(taken.mean()) < 0.15 * abs(raw.mean())


def test_repeated_weighting_removes_the_bias_of_the_mean_diffusivity():
    theta, truth = tensors(np.full(20_000, 0.8), seed=10)
    series, _ = scan(theta, 12, 10)
    once, twice = (flat(fit_tensor(series, method=m)["MD"]).mean() / truth["MD"].mean() - 1 for m in ("wls", "iwls"))
    assert once < -0.003
    assert abs(twice) < 0.3 * abs(once)


def test_closed_form_errors_agree_with_the_general_ones():
    """Standard error and curvature of FA against `delta` and `curvature_bias`, without the effect on its own error."""
    theta, _ = tensors(np.linspace(0.3, 0.9, 50), seed=11)
    covariance = np.stack([crlb(TENSOR, t, cord_protocol(), Rician(2.0)) for t in theta])
    estimates = tensor_estimates(theta[:, 1:].T, np.moveaxis(covariance[:, 1:, 1:], 0, -1), np.zeros((6, 50)))
    for derived in TENSOR.derived:
        value, std = delta(derived, theta, covariance)
        mine = estimates[derived.name]
        np.testing.assert_allclose(mine.value, value, rtol=1e-9)
        np.testing.assert_allclose(mine.std, std, rtol=2e-3)
        bias = curvature_bias(derived, theta, covariance)
        np.testing.assert_allclose(mine.bias, bias, rtol=0.02, atol=1e-3 * np.abs(std).max() * 0.01)


def test_cone_of_the_first_eigenvector():
    theta, truth = tensors([0.7], seed=12, tilt=0.5)
    series, sigma = scan(np.repeat(theta, 4000, axis=0), 20, 12)
    fit = fit_tensor(series, sigma=sigma)
    spread = (fit["V1"].data.reshape(-1, 3) - truth["V1"]).std(axis=0)
    stated = np.sqrt((fit.std["V1"].data.reshape(-1, 3) ** 2).mean(axis=0))
    np.testing.assert_allclose(stated, spread, rtol=0.08)


def test_bad_voxels_are_flagged_and_their_neighbours_are_not_touched():
    theta, _ = tensors(np.full(12, 0.7), seed=13)
    series, _ = scan(theta, 50, 13)
    data = series.data.reshape(12, -1).copy()
    clean = fit_tensor(series)
    data[1, 5] = np.nan
    data[2, 7] = np.inf
    data[3] = 0
    data[4] = -data[4]
    data[5] = Rician(20.0).sample(np.zeros(35), np.random.default_rng(0))
    data[6] = np.r_[np.full(5, 300.0), np.full(30, 600.0)]
    data[7, 9] = 0
    data[8, 20:32] *= 0.3
    spoilt = Series(series.image.derive(data.reshape(12, 1, 1, -1)), series.protocol)
    fit = fit_tensor(spoilt)
    expected = {1: Flag.NOT_FINITE, 2: Flag.NOT_FINITE, 3: Flag.NO_SIGNAL, 4: Flag.NO_SIGNAL, 5: Flag.NO_SIGNAL}
    expected |= {6: Flag.UNPHYSICAL, 7: Flag.OK, 0: Flag.OK, 11: Flag.OK}
    flags = fit.flag.data.ravel()
    assert {v: Flag(flags[v]) for v in expected} == expected
    without = np.isin(flags, [Flag.NOT_FINITE, Flag.NO_SIGNAL, Flag.UNPHYSICAL])
    for group in (fit.maps, fit.std, fit.bias):
        for image in group.values():
            assert np.array_equal(np.isnan(image.data.reshape(12, -1)).any(axis=1), without)
    np.testing.assert_allclose(flat(fit["FA"])[[0, 9, 10, 11]], flat(clean["FA"])[[0, 9, 10, 11]], rtol=1e-6)
    robust = fit_tensor(spoilt, method="irls")
    assert np.isfinite(flat(robust["FA"])[8])


def test_many_outliers_are_flagged():
    theta, _ = tensors(np.full(40, 0.6), seed=14)
    series, _ = scan(theta, 60, 14)
    data = series.data.reshape(40, -1).copy()
    data[:, 6:20] *= np.random.default_rng(1).choice([0.05, 3.0], size=(40, 14))
    fit = fit_tensor(Series(series.image.derive(data.reshape(40, 1, 1, -1)), series.protocol), method="irls")
    assert np.any(fit.flag.data == Flag.OUTLIERS)


def test_negative_eigenvalues_count_as_zero_and_are_flagged():
    theta, _ = tensors(np.full(3000, 0.93), seed=15)
    series, sigma = scan(theta, 8, 15)
    fit = fit_tensor(series, sigma=sigma)
    held = fit.flag.data.ravel() == Flag.AT_BOUND
    assert 0.02 < held.mean() < 0.7
    assert flat(fit["FA"]).max() <= 1
    assert min(flat(fit[n]).min() for n in ("MD", "AD", "RD")) >= 0
    assert np.isfinite(flat(fit["FA"])).all()


def test_unknown_noise_leaves_values_without_interval():
    protocol = cord_protocol().take(np.r_[0, 5:35:5])
    theta, _ = tensors(np.full(6, 0.7), seed=16)
    image = Image(simulate(TENSOR, theta, protocol).reshape(6, 1, 1, -1), Grid((6, 1, 1), np.eye(4)))
    fit = fit_tensor(Series(image, protocol))
    assert np.all(fit.flag.data == Flag.NO_ERROR)
    assert np.isfinite(fit["FA"].data).all()
    assert np.isnan(fit.std["FA"].data).all()


def test_holes_of_the_noise_map_are_filled_from_the_residuals():
    theta, _ = tensors(np.full(40, 0.7), seed=18)
    series, sigma = scan(theta, 30, 18)
    noise = np.full((40, 1, 1), sigma)
    noise[3], noise[7] = np.nan, 0
    fit = fit_tensor(series, sigma=Image(noise, series.image.grid))
    own, given_noise = fit_tensor(series), fit_tensor(series, sigma=sigma)
    for v, expected in ((3, own), (7, own), (5, given_noise)):
        assert fit.std["FA"].data[v, 0, 0] == expected.std["FA"].data[v, 0, 0]


def test_mistakes_are_named():
    theta, _ = tensors(np.full(6, 0.7), seed=17)
    series, _ = scan(theta, 30, 17)
    with pytest.raises(UnknownName, match="no method 'fancy' for the tensor; expected one of wls, iwls, irls"):
        fit_tensor(series, method="fancy")
    with pytest.raises(NotIdentifiable, match="of the 7 unknowns"):
        fit_tensor(series.take(np.arange(5)))
    with pytest.raises(MissingMetadata, match="BValue is absent"):
        fit_tensor(Series(series.image, Protocol({"Direction": series.protocol["Direction"]})))
    with pytest.raises(GridMismatch, match="noise map"):
        fit_tensor(series, sigma=Image(np.ones((2, 3, 4)), Grid((2, 3, 4), np.eye(4))))
