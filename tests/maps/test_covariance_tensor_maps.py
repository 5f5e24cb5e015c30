import numpy as np
import pytest

from qcord.core.errors import NotIdentifiable, UnknownName
from qcord.core.flags import Flag
from qcord.core.image import Image
from qcord.core.noise import Gaussian, Rician
from qcord.core.series import Series
from qcord.estimate.bound import crlb
from qcord.estimate.propagate import delta
from qcord.maps.covariance_tensor import fit_covariance_tensor
from qcord.maps.fit import fit
from qcord.maps.recipe import recipe
from qcord.models.covariance_tensor import INVARIANTS, QTI, distribution, example
from tensor_ensembles import (
    elements,
    full_b_tensors,
    gray_matter,
    judge,
    linear_and_spherical,
    series_of,
    summed_signal,
    truth_of,
    white_matter,
)

PROTOCOL = example()


def theta_of(tensors):
    return distribution(elements(tensors), 1000.0)


def noisy(theta, snr, count, seed=1, noise=Rician):
    exact = QTI.signal(theta, PROTOCOL, np.empty(0))
    sigma = 1000 / snr
    values = noise(sigma).sample(np.broadcast_to(exact, (count, len(PROTOCOL))), np.random.default_rng(seed))
    return series_of(values, PROTOCOL), sigma


@pytest.mark.parametrize("method", ["wls", "iwls", "irls"])
def test_noise_free_values_are_recovered(method):
    theta = np.array([theta_of(t()) for t in (white_matter, gray_matter)])
    series = series_of(QTI.signal(theta, PROTOCOL, np.empty(0)), PROTOCOL)
    result = fit_covariance_tensor(series, method=method)
    for derived in QTI.derived:
        np.testing.assert_allclose(result[derived.name].data.ravel(), derived.formula(theta), rtol=2e-4)
    np.testing.assert_allclose(result["covariance"].data.reshape(2, 21), theta[:, 7:], atol=1e-13)
    np.testing.assert_allclose(result["tensor"].data.reshape(2, 6), theta[:, 1:7], rtol=1e-5, atol=1e-9)


def test_summed_ensembles_up_to_2000():
    """Without noise, b up to 2000 s/mm2: what the missing third cumulant costs muFA."""
    for make, low, high in ((white_matter, -0.01, 0.01), (gray_matter, -0.07, -0.04)):
        tensors = make()
        result = fit_covariance_tensor(series_of(summed_signal(tensors, PROTOCOL)[None], PROTOCOL))
        assert low < result["muFA"].data.item() - truth_of(tensors)["muFA"] < high


@pytest.mark.parametrize("noise", [Gaussian, Rician])
@pytest.mark.parametrize(
    ("make", "snr"), [(white_matter, 20), (white_matter, 50), (gray_matter, 20), (gray_matter, 100)]
)
def test_intervals_cover_the_truth(make, snr, noise):
    truth = truth_of(make())
    series, sigma = noisy(theta_of(make()), snr, 2500, noise=noise)
    result = fit_covariance_tensor(series, sigma=sigma, rician=noise is Rician)
    faint = ("FA", "OP") if make is gray_matter and snr < 50 else ()
    for name, value in truth.items():
        if name in faint:  # their error is more than half their value
            continue
        covered, ratio, error = judge(result, name, value)
        assert 0.92 < covered < 0.975, name
        assert (0.75 if name == "OP" else 0.85) < ratio < 1.15, name
        if name != "V_I":  # its error is ten times its value
            assert abs(error) < 0.02 * value, name


def test_spread_meets_the_bound():
    theta = theta_of(white_matter())
    for snr in (30, 100):
        series, sigma = noisy(theta, snr, 3000, seed=2, noise=Gaussian)
        result = fit_covariance_tensor(series, sigma=sigma, rician=False)
        bound = crlb(QTI, theta, PROTOCOL, Gaussian(sigma))
        for derived in QTI.derived:
            ratio = result[derived.name].data.std() / delta(derived, theta, bound)[1]
            assert 0.9 < ratio < 1.15, derived.name


def test_noise_from_the_residuals_is_the_given_one():
    series, sigma = noisy(theta_of(gray_matter()), 60, 500)
    given, found = fit_covariance_tensor(series, sigma=sigma), fit_covariance_tensor(series)
    assert np.median(found.std["muFA"].data / given.std["muFA"].data) == pytest.approx(1, abs=0.03)


@pytest.fixture(scope="module")
def dipy_pair():
    """Our fit and DIPY's of noisy signals of white and gray matter."""
    qti = pytest.importorskip("dipy.reconst.qti")
    from dipy.core.gradients import gradient_table

    theta = np.repeat([theta_of(white_matter()), theta_of(gray_matter())], 150, axis=0)
    exact = QTI.signal(theta, PROTOCOL, np.empty(0))
    data = Rician(20.0).sample(exact, np.random.default_rng(4))
    q = PROTOCOL["Direction"].copy()
    q[~q.any(axis=1)] = [0, 0, 1]
    table = gradient_table(PROTOCOL["BValue"], bvecs=q, btens=full_b_tensors(PROTOCOL))
    peer = qti.QtiModel(table, fit_method="WLS").fit(data)
    return fit_covariance_tensor(series_of(data, PROTOCOL)), peer


NAMES = {
    **{"FA": "fa", "MD": "md", "muFA": "ufa", "C_mu": "c_mu", "C_c": "c_c", "C_MD": "c_md"},
    **{"V_I": "v_md", "K_bulk": "k_bulk", "K_shear": "k_shear", "K_mu": "k_mu"},
}


@pytest.mark.parametrize("name", NAMES)
def test_maps_are_those_of_dipy(dipy_pair, name):
    """The same weights, from an unweighted fit; what differs is the single precision of the maps."""
    mine, theirs = dipy_pair[0][name].data.ravel(), np.ravel(getattr(dipy_pair[1], NAMES[name]))
    good = np.isfinite(mine) & np.isfinite(theirs)
    assert good.mean() > 0.97
    assert np.median(np.abs(mine - theirs)[good] / np.abs(theirs[good])) < 1e-6


def test_flags_and_missing_values():
    exact = QTI.signal(theta_of(white_matter()), PROTOCOL, np.empty(0))
    values = np.stack([exact, exact, np.full_like(exact, 5.0), 1000 * np.exp(-PROTOCOL["BValue"] * 1.5e-3), exact])
    values[1, 5] = np.nan
    values[3, (PROTOCOL["BDelta"] == 1) & (PROTOCOL["BValue"] > 0)] *= 0.97
    noise = np.full((5, 1, 1), 10.0)
    noise[4] = np.nan
    series = series_of(values, PROTOCOL)
    result = fit_covariance_tensor(series, sigma=Image(noise, series.image.grid))
    assert result.flag.data.ravel().tolist() == [Flag.OK, Flag.NOT_FINITE, Flag.NO_SIGNAL, Flag.NO_VALUE, Flag.OK]
    assert np.isnan(result["muFA"].data.ravel()).tolist() == [False, True, True, True, False]
    assert np.isnan(result.std["muFA"].data.ravel()).tolist() == [False, True, True, True, False]
    assert result["C_mu"].data.ravel()[3] < 0


def test_threads_do_not_change_a_bit():
    series, sigma = noisy(theta_of(gray_matter()), 25, 1500)
    first, second = (fit_covariance_tensor(series, sigma=sigma, n_jobs=n) for n in (1, 3))
    for group in ("maps", "std", "bias"):
        for name, image in getattr(first, group).items():
            assert getattr(second, group)[name].data.tobytes() == image.data.tobytes()


def test_maps_have_units_and_errors():
    series, sigma = noisy(theta_of(white_matter()), 50, 3)
    result = fit_covariance_tensor(series, sigma=sigma)
    assert set(result.maps) == {"S0", *INVARIANTS, "tensor", "covariance"} == set(result.std)
    assert set(result.bias) == {"S0", *INVARIANTS}
    assert result["covariance"].data.shape == (3, 1, 1, 21)
    assert result["V_A"].unit == "mm4/s2"
    assert any("10.1016/j.neuroimage.2016.02.039" in r for r in result["FA"].history[-1].references)


def test_fit_by_name_and_recipe():
    series, sigma = noisy(theta_of(white_matter()), 50, 4)
    own = fit_covariance_tensor(series, sigma=sigma)
    np.testing.assert_array_equal(fit("qti", series, noise=sigma)["muFA"].data, own["muFA"].data)
    planned = {p.model: p for p in recipe([series])}
    assert planned["qti"].possible
    assert planned["mufa"].possible


def test_mistakes_are_named():
    series, _ = noisy(theta_of(white_matter()), 50, 2)
    with pytest.raises(UnknownName, match="no method 'magic'"):
        fit_covariance_tensor(series, method="magic")
    protocol = linear_and_spherical()
    with pytest.raises(NotIdentifiable, match="23 of the 28"):
        fit_covariance_tensor(Series(series_of(np.ones((2, 102)), protocol).image, protocol))
