import numpy as np
import pytest

from qcord.core.errors import NotIdentifiable, UnknownName
from qcord.core.flags import Flag
from qcord.core.image import Image
from qcord.core.noise import Gaussian, Rician
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.bound import crlb
from qcord.estimate.propagate import delta
from qcord.maps.fit import fit
from qcord.maps.microscopic_anisotropy import FORMS, fit_microscopic_anisotropy, tensor_rows
from qcord.maps.powder import averaged_protocol, powder_weights
from qcord.maps.recipe import recipe
from qcord.models.microscopic_anisotropy import GAMMA
from tensor_ensembles import (
    axisymmetric,
    gray_matter,
    judge,
    linear_and_spherical,
    series_of,
    spiral,
    summed_signal,
    truth_of,
    white_matter,
)

PROTOCOL = linear_and_spherical()
VALUES = ("MD", "V_A", "muFA", "C_mu", "OP")


def noisy(tensors, snr, count, seed=1, protocol=PROTOCOL, noise=Rician):
    exact = summed_signal(tensors, protocol)
    sigma = 1000 / snr
    return series_of(
        noise(sigma).sample(np.broadcast_to(exact, (count, len(protocol))), np.random.default_rng(seed)), protocol
    ), sigma


def exact_fit(tensors, form="gamma", protocol=PROTOCOL):
    """What the form makes of signals without noise."""
    result = fit_microscopic_anisotropy(series_of(summed_signal(tensors, protocol)[None], protocol), form=form)
    return {name: float(image.data.item()) for name, image in result.maps.items()}


@pytest.mark.parametrize("form", FORMS)
def test_powder_averages_of_the_model_are_recovered(form):
    model = FORMS[form]
    theta = np.array([model.theta(t.values) for t in model.typical])
    protocol = linear_and_spherical()
    signal = model.signal(theta, protocol, np.empty(0))  # the same in all directions
    result = fit_microscopic_anisotropy(series_of(1000 * signal, protocol), form=form, sigma=1e-3, rician=False)
    for k, parameter in enumerate(model.free[1:], start=1):
        np.testing.assert_allclose(result[parameter.name].data.ravel(), theta[:, k], rtol=1e-5)
    for derived in model.derived:
        np.testing.assert_allclose(result[derived.name].data.ravel(), derived.formula(theta), rtol=1e-5)


def test_one_tensor_has_its_own_anisotropy_and_order_one():
    """MuFA against FA of a coherent tract at b-values so low that the forms hold."""
    tensors = axisymmetric([1.5e-3], [0.5e-3], [[0.6, 0.0, 0.8]])
    protocol = linear_and_spherical(b=(60.0, 110.0, 160.0, 210.0))
    result = exact_fit(tensors, protocol=protocol)
    assert result["FA"] == pytest.approx(truth_of(tensors)["FA"], rel=1e-4)
    assert result["muFA"] == pytest.approx(result["FA"], rel=0.01)
    assert result["OP"] == pytest.approx(1, rel=0.02)


def test_even_orientations_have_no_tensor_anisotropy_but_a_microscopic_one():
    result = exact_fit(axisymmetric(1.8e-3, 0.2e-3, spiral(300)))
    assert result["FA"] < 0.02
    assert result["muFA"] > 0.85
    assert result["OP"] < 0.02


@pytest.mark.parametrize(
    ("make", "form", "low", "high"),
    [
        (white_matter, "gamma", 0.035, 0.055),
        (white_matter, "cumulant", -0.03, -0.01),
        (gray_matter, "gamma", -0.015, 0.005),
        (gray_matter, "cumulant", -0.055, -0.035),
    ],
)
def test_bias_of_the_forms_up_to_2000(make, form, low, high):
    """Without noise at b up to 2000 s/mm2: what each form's assumption about higher cumulants costs muFA."""
    tensors = make()
    assert low < exact_fit(tensors, form)["muFA"] - truth_of(tensors)["muFA"] < high


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", [white_matter, gray_matter])
@pytest.mark.parametrize("snr", [20, 30, 100])
def test_intervals_cover_what_the_form_says_without_noise(form, make, snr):
    """SNR 20 is below what OP and FA of gray matter can be seen at (their error is half their value)."""
    tensors = make()
    reference = exact_fit(tensors, form)
    series, sigma = noisy(tensors, snr, 2500)
    result = fit_microscopic_anisotropy(series, form=form, sigma=sigma)
    names = [n for n in VALUES if not (n == "OP" and make is gray_matter and snr < 50)]
    for name in names:
        covered, ratio, error = judge(result, name, reference[name])
        assert 0.92 < covered < 0.985, name
        assert (0.8 if snr == 20 else 0.85) < ratio < 1.15, name
        assert abs(error) < (0.015 if snr == 20 else 0.01) * abs(reference[name]), name


def test_spread_meets_the_bound():
    """Standard deviation over the Cramer-Rao bound of the averages."""
    theta = GAMMA.theta({**GAMMA.typical[0].values, "S0": 1000.0})
    averages = averaged_protocol(PROTOCOL)
    gain = np.sqrt((powder_weights(PROTOCOL) ** 2).sum(axis=1))
    signal = np.broadcast_to(GAMMA.signal(theta, PROTOCOL, np.empty(0)), (4000, len(PROTOCOL)))
    for snr in (20, 50, 100):
        series = series_of(Gaussian(1000 / snr).sample(signal, np.random.default_rng(3)), PROTOCOL)
        result = fit_microscopic_anisotropy(series, sigma=1000 / snr, rician=False)
        bound = crlb(GAMMA, theta, averages, Gaussian(1000 / snr * gain))
        for k, parameter in enumerate(GAMMA.free):
            assert 0.9 < result[parameter.name].data.std() / np.sqrt(bound[k, k]) < 1.15
        for derived in GAMMA.derived:
            assert 0.9 < result[derived.name].data.std() / delta(derived, theta, bound)[1] < 1.15


def test_noise_from_the_scatter_serves_as_the_given_one():
    series, sigma = noisy(white_matter(), 30, 1000)
    given, found = fit_microscopic_anisotropy(series, sigma=sigma), fit_microscopic_anisotropy(series)
    ratio = found.std["muFA"].data / given.std["muFA"].data
    assert 0.95 < np.median(ratio) < 1.15
    assert abs((found["muFA"].data - given["muFA"].data).mean()) < 0.01
    assert found.flag.history[-1].settings["noise"] == "scatter"


def test_pairs_of_blocks_give_what_linear_and_planar_encoding_give():
    """Double encoding with long mixing time: parallel and perpendicular pairs."""
    q = spiral(24)
    across = np.cross(q, np.roll(q, 5, axis=0))
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    b = np.repeat([0.0, 700, 700, 1800, 1800], [2, 24, 24, 24, 24])
    none = np.zeros((2, 3))
    pairs = Protocol(
        {
            "BValue": b,
            "Direction": np.r_[none, q, q, q, q],
            "SecondDirection": np.r_[none, q, across, -q, across],
            "BDelta": np.ones(98),
        }
    )
    normal = np.cross(q, across)
    single = Protocol(
        {
            "BValue": b,
            "Direction": np.r_[none, q, normal, q, normal],
            "BDelta": np.repeat([1.0, 1, -0.5, 1, -0.5], [2, 24, 24, 24, 24]),
        }
    )
    tensors = gray_matter()
    signal = summed_signal(tensors, pairs)
    np.testing.assert_allclose(signal, summed_signal(tensors, single), rtol=1e-9)
    one, other = (
        fit_microscopic_anisotropy(series_of(signal[None], p), sigma=1e-3, rician=False) for p in (pairs, single)
    )
    for name, image in one.maps.items():
        assert image.data.item() == pytest.approx(other[name].data.item(), rel=1e-5), name
    assert one["muFA"].data.item() == pytest.approx(truth_of(tensors)["muFA"], abs=0.05)


def test_flags_and_missing_values():
    exact = summed_signal(white_matter(), PROTOCOL)
    free_water = 1000 * np.exp(-PROTOCOL["BValue"] * 1.5e-3)
    values = np.stack([exact, exact, np.zeros_like(exact), free_water, exact])
    values[1, 5] = np.nan
    values[3, (PROTOCOL["BDelta"] == 1) & (PROTOCOL["BValue"] > 0)] *= 0.97  # less linear signal than spherical
    noise = np.full((5, 1, 1), 10.0)
    noise[4] = np.nan
    series = series_of(values, PROTOCOL)
    result = fit_microscopic_anisotropy(series, sigma=Image(noise, series.image.grid))
    expected = [Flag.OK, Flag.NOT_FINITE, Flag.NO_SIGNAL, Flag.NO_VALUE, Flag.NO_ERROR]
    assert result.flag.data.ravel().tolist() == expected
    assert np.isnan(result["muFA"].data.ravel()).tolist() == [False, True, True, True, False]
    assert np.isnan(result["C_mu"].data.ravel()).tolist() == [False, True, True, False, False]
    assert np.isnan(result.std["muFA"].data.ravel()).tolist() == [False, True, True, True, True]
    assert result["C_mu"].data.ravel()[3] < 0


def test_maps_carry_units_and_history():
    series, sigma = noisy(white_matter(), 50, 3)
    result = fit_microscopic_anisotropy(series, sigma=sigma)
    assert {n: i.unit for n, i in result.maps.items()}.items() >= {"V_A": "mm4/s2", "OP": "1", "FA": "1"}.items()
    assert set(result.maps) == set(result.std) == set(result.bias)
    step = result["OP"].history[-1]
    assert step.settings["tensor"].startswith("30 volumes up to 700")
    assert result.measurements == 9
    assert any("10.3389/fphy.2014.00011" in r for r in step.references)


def test_threads_do_not_change_a_bit():
    series, sigma = noisy(gray_matter(), 25, 6000)
    first, second = (fit_microscopic_anisotropy(series, sigma=sigma, n_jobs=n) for n in (1, 3))
    for group in ("maps", "std", "bias"):
        for name, image in getattr(first, group).items():
            assert getattr(second, group)[name].data.tobytes() == image.data.tobytes()


def test_tensor_takes_low_b_values_where_they_suffice():
    assert PROTOCOL["BValue"][tensor_rows(PROTOCOL)].max() == 700
    high = PROTOCOL.take(PROTOCOL["BValue"] != 700)
    assert len(tensor_rows(high.take(high["BValue"] != 100))) == len(high) - 12


def test_fit_by_name_and_recipe():
    series, sigma = noisy(white_matter(), 50, 4)
    by_name = fit("mufa", series, noise=sigma)
    np.testing.assert_array_equal(by_name["muFA"].data, fit_microscopic_anisotropy(series, sigma=sigma)["muFA"].data)
    assert fit("mufa-cumulant", series, noise=sigma).model == "mufa-cumulant"
    planned = {p.model: p for p in recipe([series])}
    assert planned["mufa"].possible
    assert planned["tensor"].possible
    assert "determine 23 of the 28" in planned["qti"].reason
    linear = PROTOCOL.take(PROTOCOL["BDelta"] == 1)
    planned = {p.model: p for p in recipe([Series(series.image.derive(series.data[..., :64]), linear)])}
    assert "shapes [1.0]; muFA takes" in planned["mufa"].reason


def test_mistakes_are_named():
    series, _ = noisy(white_matter(), 50, 2)
    with pytest.raises(UnknownName, match="no form 'beta'"):
        fit_microscopic_anisotropy(series, form="beta")
    with pytest.raises(NotIdentifiable, match="two shapes"):
        fit_microscopic_anisotropy(series.take(np.flatnonzero(PROTOCOL["BDelta"] == 1)))
