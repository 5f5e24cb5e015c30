import numpy as np
import pytest

from cord_kurtosis import S0, scan, typical
from qcord.core.errors import ImplausibleValue, MissingMetadata, NotIdentifiable
from qcord.core.flags import Flag
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Gaussian
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.bound import crlb
from qcord.estimate.simulate import simulate
from qcord.maps.fit import fit
from qcord.maps.mean_signal_kurtosis import fit_mean_signal_kurtosis, mean_weights
from qcord.models.kurtosis import KURTOSIS, even_directions, example
from qcord.models.mean_signal_kurtosis import MEAN_SIGNAL_KURTOSIS

B = (0.0, 700.0, 2000.0)


def flat(image):
    return image.data.reshape(-1).astype(float)


def mean_truth(theta):
    """MSD and MSK of the mean over 3200 directions of the signals of one tissue."""
    height, weight = np.polynomial.legendre.leggauss(40)
    angle = np.arange(80) * np.pi / 40
    z, turn = np.meshgrid(height, angle, indexing="ij")
    directions = np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], axis=-1)
    means = []
    for b in B:
        protocol = Protocol({"BValue": np.full(3200, b), "Direction": directions.reshape(-1, 3)})
        means.append(np.repeat(weight, 80) / 160 @ simulate(KURTOSIS, theta, protocol))
    columns = np.stack([np.ones(3), -np.array(B), np.array(B) ** 2 / 6], axis=1)
    _, slope, bend = np.linalg.solve(columns, np.log(means))
    return {"MSD": slope, "MSK": bend / slope**2}


def isotropic(theta, sigma, seed, count, protocol=None):
    protocol = protocol or example()
    noise = Gaussian(sigma) if sigma else None
    measured = simulate(MEAN_SIGNAL_KURTOSIS, np.tile(theta, (count, 1)), protocol, noise, seed)
    return Series(Image(measured.reshape(count, 1, 1, -1), Grid((count, 1, 1), np.eye(4))), protocol)


def test_noise_free_truth_is_recovered():
    result = fit("mean-signal-kurtosis", isotropic([S0, 9e-4, 1.1], 0.0, 0, 5), noise=1e-6)
    np.testing.assert_allclose(flat(result["MSD"]), 9e-4, rtol=1e-6)
    np.testing.assert_allclose(flat(result["MSK"]), 1.1, rtol=1e-6)
    np.testing.assert_allclose(flat(result["S0"]), S0, rtol=1e-6)
    assert np.all(result.flag.data == Flag.OK)
    assert {k: m.unit for k, m in result.maps.items()} == {"MSD": "mm2/s", "MSK": "1", "S0": "1"}
    assert result["MSK"].history[-1].name == "fit_mean_signal_kurtosis"
    assert set(result.std) == set(result.bias) == set(result.maps)


@pytest.mark.parametrize("tissue", ["white", "gray"])
def test_mean_over_the_directions_of_a_scan_is_that_over_all(tissue):
    theta = typical(tissue, 1)
    series, _ = scan(theta, np.inf, 0)
    result = fit_mean_signal_kurtosis(series, sigma=1e-6)
    for name, value in mean_truth(theta[0]).items():
        assert flat(result[name])[0] == pytest.approx(value, rel=1e-3)


def test_uneven_directions_bias_the_mean_less_than_with_equal_weights():
    """Twenty tables of random directions: what is left is of sixth order in the direction."""
    theta = typical("white", 1)
    expected = mean_truth(theta[0])["MSD"]
    errors = []
    for seed in range(20):
        q = np.random.default_rng(seed).normal(size=(135, 3))
        q /= np.linalg.norm(q, axis=1, keepdims=True)
        q[:5] = 0
        protocol = Protocol({"BValue": np.repeat(B, [5, 60, 70]), "Direction": q})
        measured = simulate(KURTOSIS, theta, protocol)
        image = Image(measured.reshape(1, 1, 1, -1), Grid((1, 1, 1), np.eye(4)))
        found = float(flat(fit_mean_signal_kurtosis(Series(image, protocol), sigma=1e-6)["MSD"])[0])
        low, high = -np.log(measured[0, 5:65].mean() / S0) / 700, -np.log(measured[0, 65:].mean() / S0) / 2000
        plain = low + 700 * (low - high) / 1300
        errors.append([found / expected - 1, plain / expected - 1])
    own, equal = np.sqrt(np.mean(np.square(errors), axis=0))
    assert equal > 0.02
    assert own < 0.2 * equal


@pytest.mark.parametrize("snr", [20, 40, 100])
def test_spread_meets_the_bound_and_intervals_cover_the_truth(snr):
    theta, sigma = np.array([S0, 9e-4, 1.1]), S0 / snr
    bound = np.sqrt(np.diag(crlb(MEAN_SIGNAL_KURTOSIS, theta, example(), Gaussian(sigma))))
    for known in (True, False):
        result = fit_mean_signal_kurtosis(
            isotropic(theta, sigma, 1, 5000), sigma=sigma if known else None, rician=False
        )
        for k, name in enumerate(("S0", "MSD", "MSK")):
            error = flat(result[name]) - flat(result.bias[name]) - theta[k]
            assert 0.9 < flat(result[name]).std() / bound[k] < 1.15
            assert 0.925 < np.mean(np.abs(error) < 1.96 * flat(result.std[name])) < 0.97


@pytest.mark.parametrize("tissue", ["white", "gray"])
@pytest.mark.parametrize("snr", [15, 20, 30])
def test_intervals_of_anisotropic_tissue_with_rician_noise_cover_the_truth(tissue, snr):
    theta = typical(tissue, 5000)
    series, sigma = scan(theta, snr, 2)
    expected = mean_truth(theta[0])
    for known in (True, False):
        result = fit_mean_signal_kurtosis(series, sigma=sigma if known else None)
        for name, value in expected.items():
            error = flat(result[name]) - flat(result.bias[name]) - value
            assert (0.895 if snr == 15 else 0.91) < np.mean(np.abs(error) < 1.96 * flat(result.std[name])) < 0.97
            assert abs(error.mean()) < 0.05 * np.median(flat(result.std[name]))


def test_noise_raises_kurtosis_and_the_bias_map_says_so():
    series, sigma = scan(typical("white", 8000), 15, 3)
    result = fit_mean_signal_kurtosis(series, sigma=sigma)
    rise = (flat(result["MSK"]) - mean_truth(typical("white", 1)[0])["MSK"]).mean()
    assert rise > 0.02
    assert flat(result.bias["MSK"]).mean() == pytest.approx(rise, abs=0.008)


def test_threads_change_nothing_and_more_shells_leave_a_residual():
    b = np.repeat([0.0, 500.0, 1000.0, 2000.0], [4, 20, 20, 20])
    directions = np.concatenate([np.zeros((4, 3)), *[even_directions(20)] * 3])
    protocol = Protocol({"BValue": b, "Direction": directions})
    series = isotropic([S0, 9e-4, 1.1], 20.0, 4, 9000, protocol)
    one, two = (fit_mean_signal_kurtosis(series, n_jobs=n) for n in (1, 3))
    for group in ("maps", "std", "bias"):
        for name, image in getattr(one, group).items():
            assert getattr(two, group)[name].data.tobytes() == image.data.tobytes()
    assert 0 < np.nanmean(one.rmse.data) < 10
    assert np.isnan(fit_mean_signal_kurtosis(isotropic([S0, 9e-4, 1.1], 20.0, 4, 3)).rmse.data).all()


def test_bad_voxels_are_flagged():
    series = isotropic([S0, 9e-4, 1.1], 10.0, 5, 8)
    data = series.data.reshape(8, -1).copy()
    data[1, 5] = np.nan
    data[2] = 0
    data[3] = -data[3]
    data[4] = np.r_[np.full(7, 300.0), np.full(24, 400.0), np.full(36, 700.0)]
    data[5] = np.random.default_rng(0).normal(size=67)
    data[6] = np.r_[np.full(7, 1000.0), np.full(24, 800.0), np.full(36, 790.0)]
    spoilt = Series(series.image.derive(data.reshape(8, 1, 1, -1)), series.protocol)
    result = fit_mean_signal_kurtosis(spoilt, sigma=10.0)
    flags = [Flag(f) for f in result.flag.data.ravel()]
    assert flags[0] == flags[7] == Flag.OK
    assert flags[1:7] == [
        *(Flag.NOT_FINITE, Flag.NO_SIGNAL, Flag.NO_SIGNAL, Flag.UNPHYSICAL, Flag.NO_SIGNAL, Flag.OK),
    ]
    assert np.array_equal(np.isnan(flat(result["MSK"])), np.isin(result.flag.data.ravel(), [2, 3, 4]))


def test_unknown_noise_leaves_values_without_interval():
    protocol = Protocol({"BValue": [0.0, 700.0, 2000.0], "Direction": np.zeros((3, 3))})
    result = fit_mean_signal_kurtosis(isotropic([S0, 9e-4, 1.1], 0.0, 0, 3, protocol))
    np.testing.assert_allclose(flat(result["MSK"]), 1.1, rtol=1e-6)
    assert np.all(result.flag.data == Flag.NO_ERROR)
    assert np.isnan(result.std["MSK"].data).all()


def test_one_shell_is_not_enough():
    with pytest.raises(NotIdentifiable, match="expected b = 0 and two more"):
        fit_mean_signal_kurtosis(isotropic([S0, 9e-4, 1.1], 0.0, 0, 3).take(np.arange(31)))


def random_directions(count, seed):
    directions = np.random.default_rng(seed).normal(size=(count, 3))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def two_shells(first, second):
    b = np.repeat([0.0, 700.0, 2000.0], [4, len(first), len(second)])
    return Protocol({"BValue": b, "Direction": np.concatenate([np.zeros((4, 3)), first, second])}, "two.bval")


def test_weights_make_means_of_fourth_order_exact():
    q = random_directions(60, 0)
    weights, b = mean_weights(two_shells(even_directions(30), q))
    np.testing.assert_allclose(b, [0, 700, 2000])
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    moments = [(q[:, 2] ** 2, 1 / 3), (q[:, 0] ** 4, 1 / 5), (q[:, 0] ** 2 * q[:, 1] ** 2, 1 / 15)]
    for values, mean in moments:
        assert weights[2, 34:] @ values == pytest.approx(mean, abs=1e-6)
    assert max(abs(values.mean() - mean) for values, mean in moments) > 0.01
    equal = weights[1, 4:34] * 30
    assert np.abs(equal - 1).max() < 0.3
    assert 30 * (weights[1] ** 2).sum() < 1.03


def test_what_makes_no_mean_is_named():
    good = even_directions(20)
    with pytest.raises(NotIdentifiable, match="The 4 directions at 700 s/mm2 of two.bval are too few or too uneven"):
        mean_weights(two_shells(good[:4], good))
    cap = good[good[:, 2] > 0.5]
    with pytest.raises(NotIdentifiable, match="at 2000 s/mm2"):
        mean_weights(two_shells(good, cap))
    with pytest.raises(NotIdentifiable, match="has the b-values 0, 700 s/mm2, expected b = 0 and two more"):
        mean_weights(two_shells(good, good[:0]))
    with pytest.raises(NotIdentifiable, match="has the b-values 700, 2000"):
        mean_weights(two_shells(good, good).take(np.arange(4, 44)))
    shaped = two_shells(good, good).replace(BDelta=np.r_[np.ones(24), np.zeros(20)])
    with pytest.raises(ImplausibleValue, match="knows linear encoding"):
        mean_weights(shaped)
    with pytest.raises(MissingMetadata, match="Direction is absent"):
        mean_weights(Protocol({"BValue": [0.0, 700.0, 2000.0]}))


def test_trace_images_count_as_means():
    weights, _ = mean_weights(Protocol({"BValue": [0.0, 700.0, 700.0, 2000.0], "Direction": np.zeros((4, 3))}))
    np.testing.assert_allclose(weights, [[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1]])
