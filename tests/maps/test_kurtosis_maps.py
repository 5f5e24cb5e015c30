import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cord_kurtosis import S0, compartments, scan, truth, typical
from qcord.core.errors import NotIdentifiable, UnknownName
from qcord.core.flags import Flag
from qcord.core.image import Image
from qcord.core.noise import Rician
from qcord.core.series import Series
from qcord.estimate.bound import crlb
from qcord.estimate.propagate import curvature_bias, delta
from qcord.maps.fit import fit
from qcord.maps.kurtosis import METHODS, fit_kurtosis, limit_rows
from qcord.maps.kurtosis_errors import LIMITS, kurtosis_estimates
from qcord.maps.tensor import fit_tensor
from qcord.models.kurtosis import KURTOSIS, example

METRICS = ("FA", "MD", "AD", "RD", "MK", "AK", "RK", "MKT")


def flat(image):
    return image.data.reshape(-1).astype(float)


@pytest.mark.parametrize("method", METHODS)
def test_noise_free_truth_is_recovered(method):
    theta = compartments(260, 0)
    possible = (theta @ limit_rows(example()).T >= 0).all(axis=1)  # the expansion of some tissues rises before b = 2000
    theta = theta[possible][:210]
    series, _ = scan(theta, np.inf, 0, (7, 6, 5))
    result = fit_kurtosis(series, method=method, sigma=1e-6)
    expected = truth(theta)
    for name in METRICS:
        np.testing.assert_allclose(flat(result[name]), expected[name], rtol=2e-5, atol=2e-6)
        assert np.abs(flat(result.bias[name])).max() < 1e-6
    np.testing.assert_allclose(flat(result["S0"]), S0, rtol=1e-6)
    np.testing.assert_allclose(result["tensor"].data.reshape(-1, 6), theta[:, 1:7], atol=1e-9)
    np.testing.assert_allclose(result["kurtosis"].data.reshape(-1, 15), theta[:, 7:], atol=1e-12)
    assert np.all(result.flag.data == Flag.OK)


def test_maps_carry_units_errors_and_history(oblique_grid):
    series, _ = scan(compartments(504, 1), np.inf, 1, (7, 8, 9))
    result = fit("kurtosis", Series(Image(series.data, oblique_grid), series.protocol), noise=1.0)
    assert {k: m.unit for k, m in result.maps.items()} == {
        **dict.fromkeys(("FA", "MK", "AK", "RK", "MKT", "S0"), "1"),
        **dict.fromkeys(("MD", "AD", "RD", "tensor"), "mm2/s"),
        "kurtosis": "mm4/s2",
    }
    assert set(result.std) == set(result.maps)
    assert set(result.bias) == {*METRICS, "S0"}
    assert result["kurtosis"].data.shape == (7, 8, 9, 15)
    step = result["MK"].history[-1]
    assert step.settings["method"] == "wls"
    assert any("10.1002/mrm.22932" in r for r in step.references)
    assert fit("kurtosis", series, method="constrained")["MK"].history[-1].settings["method"] == "constrained"


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_turning_directions_changes_no_metric(seed):
    turn = Rotation.random(random_state=np.random.default_rng(seed)).as_matrix()
    series, sigma = scan(compartments(30, 2), 30, 2)
    other = Series(series.image, series.protocol.replace(Direction=series.protocol["Direction"] @ turn.T))
    for method in ("wls", "constrained"):
        one, two = (fit_kurtosis(s, sigma=sigma, method=method) for s in (series, other))
        for name in METRICS:
            np.testing.assert_allclose(flat(one[name]), flat(two[name]), rtol=2e-4, atol=2e-5)
            np.testing.assert_allclose(flat(one.std[name]), flat(two.std[name]), rtol=2e-3)


def test_threads_masks_and_order_of_voxels_change_nothing():
    series, _ = scan(compartments(7 * 30 * 9, 3), 25, 3, (7, 30, 9))
    first = fit_kurtosis(series, n_jobs=1)
    second = fit_kurtosis(Series(series.image.derive(np.asfortranarray(series.data)), series.protocol), n_jobs=3)
    for group in ("maps", "std", "bias"):
        for name, image in getattr(first, group).items():
            assert getattr(second, group)[name].data.tobytes() == image.data.tobytes()
    inside = np.random.default_rng(3).random((7, 30, 9)) > 0.7
    masked = fit_kurtosis(series, Image(inside.astype(float), series.image.grid))
    np.testing.assert_allclose(masked["MK"].data[inside], first["MK"].data[inside], rtol=1e-5)
    assert np.isnan(masked["MK"].data[~inside]).all()
    assert np.all(masked.flag.data[~inside] == Flag.OUTSIDE)


@pytest.mark.parametrize("snr", [40, 100])
def test_spread_meets_the_bound(snr):
    """Standard deviation over Cramer-Rao bound of the elements and of the metrics, .9 to 1.15."""
    theta = typical("white", 4000)
    series, sigma = scan(theta, snr, 4)
    result = fit_kurtosis(series, sigma=sigma)
    bound = crlb(KURTOSIS, theta[0], example(), Rician(sigma))
    found = np.concatenate([result[n].data.reshape(4000, -1) for n in ("S0", "tensor", "kurtosis")], axis=1)
    ratio = found.std(axis=0) / np.sqrt(np.diag(bound))
    assert np.all((ratio > 0.9) & (ratio < 1.15))
    for derived in KURTOSIS.derived:
        if derived.name in METRICS and (snr > 40 or derived.name != "RK"):
            _, least = delta(derived, theta[0], bound)
            assert 0.9 < flat(result[derived.name]).std() / float(least) < 1.15, derived.name


@pytest.mark.parametrize("snr", [20, 30, 60])
@pytest.mark.parametrize("tissue", ["white", "gray"])
@pytest.mark.parametrize("known", [True, False], ids=["noise given", "noise from residuals"])
def test_intervals_cover_the_truth(snr, tissue, known):
    theta = typical(tissue, 4000)
    series, sigma = scan(theta, snr, 5)
    result = fit_kurtosis(series, sigma=sigma if known else None)
    expected = truth(theta[:1])
    for name in METRICS:
        error = flat(result[name]) - flat(result.bias[name]) - expected[name]
        covered = np.mean(np.abs(error) < 1.96 * flat(result.std[name]))
        assert 0.905 < covered < 0.97, (name, covered)


def test_bias_is_what_the_mean_is_off():
    """At the signal of a cord scan the bias is tens of per cent of a standard error, and the map of it right."""
    theta = typical("white", 12_000)
    series, sigma = scan(theta, 30, 6)
    result = fit_kurtosis(series, sigma=sigma)
    expected = truth(theta[:1])
    for name in ("MK", "AK", "RK", "MKT"):
        raw = flat(result[name]) - expected[name]
        left = (raw - flat(result.bias[name])).mean()
        noise = np.median(flat(result.std[name]))
        assert abs(left) < 0.06 * noise, name
    assert abs((flat(result["MK"]) - expected["MK"]).mean()) > 0.1 * np.median(flat(result.std["MK"]))


def test_bias_and_error_are_those_of_general_propagation():
    theta = compartments(6, 7)
    covariance = crlb(KURTOSIS, theta, example(), Rician(S0 / 200))
    elements = theta[:, 1:].T
    found, _ = kurtosis_estimates(elements, np.moveaxis(covariance[:, 1:, 1:], 0, -1), np.zeros_like(elements))
    for derived in KURTOSIS.derived:
        if derived.name in found:
            value, std = delta(derived, theta, covariance)
            np.testing.assert_allclose(found[derived.name].value, value, rtol=1e-9)
            np.testing.assert_allclose(found[derived.name].std, std, rtol=1e-6)
            bias = curvature_bias(derived, theta, covariance)
            np.testing.assert_allclose(found[derived.name].bias, bias, rtol=0.02, atol=2e-3 * std.max())


def test_constraints_bring_the_map_nearer_to_the_truth_and_leave_the_corrected_value():
    theta = compartments(1500, 8)
    series, sigma = scan(theta, 25, 8)
    plain, bound = (fit_kurtosis(series, sigma=sigma, method=m) for m in ("wls", "constrained"))
    expected = truth(theta)
    for name in ("MK", "RK"):
        errors = [np.sqrt(np.mean((flat(r[name]) - expected[name]) ** 2)) for r in (plain, bound)]
        assert errors[1] < 0.85 * errors[0]
    for name in ("FA", "MK", "AK"):
        corrected = [flat(r[name]) - flat(r.bias[name]) for r in (plain, bound)]
        np.testing.assert_allclose(corrected[0], corrected[1], atol=2e-5)
        np.testing.assert_array_equal(flat(plain.std[name]), flat(bound.std[name]))
    elements = [bound[n].data.reshape(1500, -1) for n in ("tensor", "kurtosis")]
    kurtosis = np.concatenate([np.zeros((1500, 1)), *elements], axis=1) @ limit_rows(example()).T
    assert np.mean(kurtosis.min(axis=1) > -2e-9) > 0.98
    held = bound.flag.data.ravel() == Flag.AT_BOUND
    changed = np.abs(flat(plain["MD"]) - flat(bound["MD"])) > 1e-9
    assert 0.3 < held.mean() < 1
    assert np.all(held[changed])


def test_limits_are_those_of_apparent_values():
    rows = limit_rows(example())
    theta = compartments(5, 9)
    theta[:, 7:] *= 8
    values = theta @ rows.T
    protocol = example()
    assert rows.shape == (2 * 60, 22)
    q = protocol["Direction"][protocol["BValue"] > 0]
    along = np.einsum(
        "vk,nk->vn", theta[:, 1:7] * [1, 1, 1, 2, 2, 2], q[:, [0, 1, 2, 0, 0, 1]] * q[:, [0, 1, 2, 1, 2, 2]]
    )
    fourth = values[:, :60]
    np.testing.assert_allclose(values[:, 60:], 3 / 2000 * along - fourth, atol=1e-12)
    low = fourth > 3 / 2000 * along
    b = np.array([1990.0, 2000.0])[:, None, None]
    rising = np.diff(-b * along + b**2 / 6 * fourth, axis=0)[0] > 0
    assert np.mean(low == rising) > 0.97
    assert low.any()
    assert not low.all()


def test_bad_voxels_are_flagged_and_their_neighbours_are_not_touched():
    series, _ = scan(typical("white", 12), 60, 10)
    data = series.data.reshape(12, -1).copy()
    clean = fit_kurtosis(series)
    data[1, 5] = np.nan
    data[2, 7] = np.inf
    data[3] = 0
    data[4] = -data[4]
    data[5] = Rician(20.0).sample(np.zeros(67), np.random.default_rng(0))
    data[6] = np.r_[np.full(7, 300.0), np.full(60, 700.0)]
    data[7, 9] = 0
    data[8] = np.r_[np.full(7, 900.0), np.full(24, 10.0), np.full(36, 5.0)]
    result = fit_kurtosis(Series(series.image.derive(data.reshape(12, 1, 1, -1)), series.protocol))
    flags = result.flag.data.ravel()
    expected = {1: Flag.NOT_FINITE, 2: Flag.NOT_FINITE, 3: Flag.NO_SIGNAL, 4: Flag.NO_SIGNAL, 5: Flag.NO_SIGNAL}
    expected |= {6: Flag.UNPHYSICAL, 7: Flag.OK, 0: Flag.OK, 11: Flag.OK}
    assert {v: Flag(flags[v]) for v in expected} == expected
    without = np.isin(flags, [Flag.NOT_FINITE, Flag.NO_SIGNAL, Flag.UNPHYSICAL])
    for group in (result.maps, result.std, result.bias):
        for name, image in group.items():
            assert np.array_equal(np.isnan(image.data.reshape(12, -1)).any(axis=1), without), name
    rows = [0, 9, 10, 11]
    np.testing.assert_allclose(flat(result["MK"])[rows], flat(clean["MK"])[rows], rtol=1e-5)


def test_kurtosis_outside_its_range_is_held_and_flagged():
    series, sigma = scan(compartments(3000, 11), 8, 11)
    result = fit_kurtosis(series, sigma=sigma)
    for name in ("MK", "AK", "RK", "MKT"):
        value = flat(result[name])
        kept = np.isfinite(value)
        assert value[kept].min() >= LIMITS[0] - 1e-6
        assert value[kept].max() <= LIMITS[1]
        at_limit = kept & ((value < LIMITS[0] + 1e-6) | (value > LIMITS[1] - 1e-6))
        assert np.all(result.flag.data.ravel()[at_limit] == Flag.AT_BOUND)
    assert 0.05 < np.mean(result.flag.data == Flag.AT_BOUND) < 0.9


def test_tensor_of_low_b_values_is_biased_without_kurtosis():
    """What kurtosis is for: a tensor fitted to both shells has too low a diffusivity."""
    theta = typical("white", 5)
    series, _ = scan(theta, np.inf, 12)
    assert flat(fit_tensor(series)["MD"])[0] < 0.9 * flat(fit_kurtosis(series)["MD"])[0]


def test_unknown_noise_leaves_values_without_interval():
    rows = np.r_[0, 7:31:2, 31:40]
    series, _ = scan(compartments(4, 13), np.inf, 13)
    result = fit_kurtosis(series.take(rows), method="constrained")
    assert len(rows) == 22
    assert np.isfinite(result["MK"].data).all()
    assert np.isnan(result.std["MK"].data).all()
    assert np.isin(result.flag.data, [Flag.NO_ERROR, Flag.AT_BOUND]).all()


def test_mistakes_are_named():
    series, _ = scan(compartments(3, 14), 30, 14)
    with pytest.raises(
        UnknownName, match="no method 'fancy' for kurtosis; expected one of wls, iwls, irls, constrained"
    ):
        fit_kurtosis(series, method="fancy")
    with pytest.raises(NotIdentifiable, match="one b-value above 0"):
        fit_kurtosis(series.take(np.arange(31)))
