"""Variable projection beside the joint fit, and against measurements that no tissue makes."""

import numpy as np
import pytest

from qcord.core.errors import MissingMetadata, NotIdentifiable
from qcord.core.flags import Flag
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Gaussian, Rician
from qcord.core.series import Series
from qcord.estimate.fit import fit as fit_general
from qcord.estimate.simulate import simulate
from qcord.maps.magnitude import restored
from qcord.maps.relaxation import fit_relaxation
from qcord.models.registry import get

NAMES = ("vfa", "inversion-recovery", "inversion-recovery-tr", "t2", "r2star", "double-angle", "actual-flip-angle")


def series_of(measured, protocol):
    measured = np.asarray(measured)
    return Series(Image(measured.reshape(-1, 1, 1, len(protocol)), Grid((len(measured), 1, 1), np.eye(4))), protocol)


def column(image):
    return image.data.ravel().astype(float)


def noisy(name, n, snr, *, signed, seed=0):
    model = get(name)
    theta = np.tile(model.theta(model.typical[0].values), (n, 1))
    theta[:, -1] *= np.random.default_rng(seed).uniform(0.9, 1.1, n)
    exact = simulate(model, theta, model.example())
    sigma = float(np.abs(exact).max()) / snr
    noise = Gaussian(sigma) if signed else Rician(sigma)
    return series_of(noise.sample(exact, np.random.default_rng(seed)), model.example()), sigma


@pytest.mark.parametrize("name", [*NAMES, "mp2rage"])
@pytest.mark.parametrize("known", [True, False])
def test_signed_measurements_give_what_the_joint_fit_gives(name, known):
    series, sigma = noisy(name, 400, 60, signed=True)
    mine = fit_relaxation(name, series, sigma=sigma if known else None, rician=False)
    other = fit_general(get(name), series, noise=Gaussian(sigma) if known else None)
    scale = fit_general(get(name), series, noise=Gaussian(sigma))
    for metric in get(name).units:
        gap = np.abs(column(mine[metric]) - column(other[metric])) / column(scale.std[metric])
        assert gap.max() < 0.02, metric
        wider = column(other.std[metric]) / column(mine.std[metric])  # by terms of second order, of the general fit
        without = np.isnan(wider)  # as many parameters as measurements
        assert not (without.any() and known)
        assert np.all(without | (wider > 0.98) & (wider < 1.06))
        shift = np.abs(column(mine.bias[metric]) - column(other.bias[metric])) / column(scale.std[metric])
        assert not known or shift.max() < 0.02, metric


@pytest.mark.parametrize("name", ["vfa", "t2", "r2star", "double-angle"])
def test_magnitudes_give_what_the_joint_fit_gives(name):
    series, sigma = noisy(name, 400, 40, signed=False)
    mine, other = fit_relaxation(name, series, sigma=sigma), fit_general(get(name), series, noise=Rician(sigma))
    for metric in get(name).units:
        gap = np.abs(column(mine[metric]) - column(other[metric])) / column(other.std[metric])
        assert gap.max() < 0.03, metric
        np.testing.assert_allclose(column(mine.std[metric]), column(other.std[metric]), rtol=0.02)


@pytest.mark.parametrize("snr", [0.3, 1.0, 3.0, 15.99, 16.01, 50.0])
def test_restored_magnitudes_have_the_signal_for_their_mean_and_weights_for_their_spread(snr):
    sigma = 2.0
    draws = Rician(sigma).sample(np.full(400_000, snr * sigma), np.random.default_rng(1))
    value, weight = restored(draws, np.full(draws.shape, snr * sigma), np.full(draws.shape, sigma))
    assert value.mean() == pytest.approx(snr * sigma, abs=5 * value.std() / np.sqrt(draws.size))
    assert value.std() == pytest.approx(weight[0] ** -0.5, rel=0.01)
    mirrored, same = restored(draws, np.full(draws.shape, -snr * sigma), np.full(draws.shape, sigma))
    np.testing.assert_array_equal(mirrored, -value)
    np.testing.assert_array_equal(same, weight)


@pytest.mark.parametrize("name", [*NAMES, "mp2rage"])
@pytest.mark.parametrize("settings", [{}, {"sigma": 1.0}, {"sigma": 1.0, "rician": False}])
def test_hostile_measurements_never_raise_and_good_voxels_do_not_notice(name, settings):
    model = get(name)
    n = len(model.example())
    generator = np.random.default_rng(1)
    good = simulate(model, model.theta(model.typical[0].values), model.example(), Gaussian(1.0), seed=2)
    rows = [
        good,
        np.zeros(n),
        np.full(n, np.nan),
        np.where(np.arange(n) == 1, np.inf, 1.0),
        *(np.full(n, v) for v in (1e30, 1e-30, -5.0, 7.0)),
        *generator.standard_normal((8, n)),
        *np.abs(generator.standard_cauchy((8, n))),
        *(generator.random((8, n)) < 0.2).astype(float),
        *(30 * generator.random((30, n))),
    ]
    many = fit_relaxation(name, series_of(rows, model.example()), **settings)
    alone = fit_relaxation(name, series_of(rows[:1], model.example()), **settings)
    metric = model.free[-1].name
    np.testing.assert_array_equal(column(many[metric])[0], column(alone[metric])[0])
    flags = column(many.flag)
    assert flags[1:4].tolist() == [Flag.NO_SIGNAL, Flag.NOT_FINITE, Flag.NOT_FINITE]
    value, std = column(many[metric]), column(many.std[metric])
    low, high = model.free[-1].bounds
    held = np.isfinite(value)
    assert np.all((value[held] >= low * 0.999999) & (value[held] <= high * 1.000001))
    assert held[flags == Flag.OK].all()
    assert np.isfinite(std[flags == Flag.OK]).all()
    assert np.isnan(value[np.isin(flags, [Flag.NO_SIGNAL, Flag.NOT_FINITE, Flag.UNPHYSICAL])]).all()


def test_residuals_stand_in_where_the_noise_is_not_known():
    series, sigma = noisy("t2", 5, 50, signed=False)
    level = series.image.derive(np.array([sigma, np.nan, 0.0, sigma, sigma]).reshape(5, 1, 1))
    found = fit_relaxation("t2", series, sigma=level)
    whole, residual = fit_relaxation("t2", series, sigma=sigma), fit_relaxation("t2", series)
    assert (column(found.flag) == Flag.OK).all()
    for maps in ("maps", "std"):
        mixed, known, unknown = (column(getattr(f, maps)["T2"]) for f in (found, whole, residual))
        np.testing.assert_allclose(mixed[[0, 3, 4]], known[[0, 3, 4]], rtol=1e-6)
        np.testing.assert_allclose(mixed[[1, 2]], unknown[[1, 2]], rtol=1e-3)


def test_what_is_missing_is_named():
    series, _ = noisy("vfa", 5, 50, signed=False)
    with pytest.raises(MissingMetadata, match="EchoTime is absent"):
        fit_relaxation("t2", series)
    with pytest.raises(NotIdentifiable, match="1 measurements for the 2 parameters of model vfa"):
        fit_relaxation("vfa", series.take([0]))
