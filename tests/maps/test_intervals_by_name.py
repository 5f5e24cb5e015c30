import numpy as np
import pytest

from qcord.core.errors import UnknownName
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Gaussian, Rician
from qcord.core.series import Series
from qcord.estimate.simulate import simulate
from qcord.maps.fit import fit
from qcord.maps.intervals import intervals, with_given_errors
from qcord.models.noddi import NODDI
from qcord.models.registry import get


def scan(name, n, sigma, seed=0, protocol=None, theta=None):
    model = get(name)
    protocol = model.example() if protocol is None else protocol
    theta = model.theta(model.typical[0].values) if theta is None else theta
    clean = simulate(model, np.broadcast_to(theta, (n, theta.shape[-1])), protocol)
    noise = Gaussian(sigma) if (clean < 0).any() else Rician(sigma)
    measured = noise.sample(clean, np.random.default_rng(seed))
    return Series(Image(measured.reshape(n, 1, 1, -1), Grid((n, 1, 1), np.eye(4))), protocol), noise, theta


def covers(found, name, truth):
    return (found.lower[name].data <= truth) & (found.upper[name].data >= truth)


@pytest.mark.parametrize(("name", "sigma", "metric"), [("smt-mc", 0.05, "NeuriteFraction"), ("ivim", 0.05, "Dstar")])
def test_intervals_hold_the_truth_where_a_fit_is_hardly_determined(name, sigma, metric):
    series, noise, theta = scan(name, 1000, sigma)
    found = intervals(name, series, noise=noise, metrics=[metric])
    truth = theta[get(name).index(metric)]
    # three standard deviations of 1,000 draws about 92 to 97 %
    assert 0.915 < covers(found, metric, truth).mean() < 0.975
    low, high = get(name).free[get(name).index(metric)].bounds
    assert found.lower[metric].data.min() >= np.float32(low)
    assert found.upper[metric].data.max() <= np.float32(high)


@pytest.mark.parametrize(("name", "metric"), [("smt", "MicroRD"), ("smt-mc", "ExtraRD")])
def test_small_derived_values_are_covered_in_mixed_tissues(name, metric):
    """Their likelihood has two tops, or ends where no parameter does; truths are the lowest quarter of many."""
    model, count = get(name), 1200
    typical, (low, high) = model.theta(model.typical[0].values), np.array([p.bounds for p in model.free]).T
    spread = np.random.default_rng(8).uniform(0.5, 1.5, (count, len(typical)))
    theta = np.clip(typical * spread, low, high)
    truth = next(d for d in model.derived if d.name == metric).formula(theta)
    small = truth <= np.quantile(truth, 0.25)
    series, noise, _ = scan(name, int(small.sum()), 0.033, theta=theta[small])
    found = intervals(name, series, noise=noise, metrics=[metric])
    assert 0.92 < covers(found, metric, truth[small].reshape(-1, 1, 1)).mean() < 0.99


def test_where_noise_is_small_intervals_are_twice_the_standard_error():
    series, noise, _ = scan("mtsat", 300, 2e-4)
    found, fitted = intervals("mtsat", series, noise=noise), fit("mtsat", series, noise=noise)
    for name in found.lower:
        value = fitted.maps[name].data - fitted.bias[name].data
        lower, upper = found.lower[name].data, found.upper[name].data
        np.testing.assert_allclose((value - lower) / fitted.std[name].data, 1.96, atol=0.06)
        np.testing.assert_allclose((upper - value) / fitted.std[name].data, 1.96, atol=0.06)


def test_the_interval_of_a_rate_is_that_of_its_time():
    series, noise, _ = scan("t2", 100, 50.0)
    found = intervals("t2", series, noise=noise)
    np.testing.assert_allclose(found.lower["T2"].data, 1 / found.upper["R2"].data, rtol=1e-5)
    np.testing.assert_allclose(found.upper["T2"].data, 1 / found.lower["R2"].data, rtol=1e-5)


def test_a_series_of_directions_is_averaged_for_models_of_averages():
    protocol = NODDI.example()
    square = protocol["Direction"][:, 2] ** 2
    b, fraction, along = protocol["BValue"], 0.6, 1.9e-3
    around = np.exp(-b * along * (1 - fraction + fraction * square))
    clean = fraction * np.exp(-b * along * square) + (1 - fraction) * around
    noise = Rician(0.02)
    measured = noise.sample(np.broadcast_to(clean, (200, len(b))), np.random.default_rng(1))
    series = Series(Image(measured.reshape(200, 1, 1, -1), Grid((200, 1, 1), np.eye(4))), protocol)
    found = intervals("smt-mc", series, noise=noise)
    assert covers(found, "NeuriteFraction", fraction).mean() > 0.9
    assert covers(found, "NeuriteDiffusivity", along).mean() > 0.9
    assert np.median(found.upper["NeuriteFraction"].data - found.lower["NeuriteFraction"].data) < 0.3


def test_a_given_map_counts():
    series, noise, _ = scan("vfa", 50, 1.0)
    plain = intervals("vfa", series, noise=noise, metrics=["T1"])
    b1 = series.image.derive(np.full(series.image.grid.shape, 1.1), unit="1")
    moved = intervals("vfa", series, noise=noise, metrics=["T1"], given={"B1": b1})
    assert np.all(moved.upper["T1"].data < plain.lower["T1"].data)


def test_the_error_of_a_given_map_widens_intervals_as_it_widens_standard_errors():
    series, noise, _ = scan("vfa", 50, 1.0)
    exact = intervals("vfa", series, noise=noise)
    plain, fitted = (fit("vfa", series, noise=noise, given_std=s) for s in (None, {"B1": 0.03}))
    wide = with_given_errors(exact, fitted)
    for name in ("R1", "T1"):
        ratio = (wide.upper[name].data - wide.lower[name].data) / (exact.upper[name].data - exact.lower[name].data)
        np.testing.assert_allclose(ratio, fitted.std[name].data / plain.std[name].data, rtol=0.05)
    assert np.median(ratio) > 2
    same = with_given_errors(exact, plain)
    np.testing.assert_array_equal(same.upper["T1"].data, exact.upper["T1"].data)


def test_noise_alone_rules_no_rate_out():
    protocol = get("r2star").example()
    noise = np.random.default_rng(0).rayleigh(20.0, (200, 1, 1, len(protocol)))
    series = Series(Image(noise, Grid((200, 1, 1), np.eye(4))), protocol)
    found = intervals("r2star", series, noise=Rician(20.0), metrics=["R2star"])
    low, high = get("r2star").free[1].bounds
    wide = (found.upper["R2star"].data - found.lower["R2star"].data) > 0.05 * (high - low)
    assert wide.mean() > 0.9


def test_an_unknown_model_is_refused():
    series, _, _ = scan("t2", 1, 1.0)
    with pytest.raises(UnknownName):
        intervals("t3", series)
