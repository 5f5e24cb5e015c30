from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import nnls

from qcord.core.errors import ImplausibleValue, NotIdentifiable
from qcord.core.flags import Flag
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Gaussian, Rician
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.simulate import simulate
from qcord.maps.fit import fit
from qcord.maps.myelin_water import myelin_water
from qcord.maps.recipe import recipe
from qcord.maps.t2_spectrum import FREE_PENALTY, find_angle, make_dictionary, spectrum
from qcord.maps.t2_spectrum_errors import of_narrow_pools, penalty_response, spread_of_sum
from qcord.models.myelin_water import MYELIN_WATER

TRAIN = MYELIN_WATER.example()


def series_of(measured, protocol=TRAIN):
    measured = np.asarray(measured, dtype=float)
    return Series(Image(measured.reshape(-1, 1, 1, len(protocol)), Grid((len(measured), 1, 1), np.eye(4))), protocol)


def flat(image):
    return image.data.ravel().astype(float)


def tissue(n, seed=0, **fixed):
    g = np.random.default_rng(seed)
    theta = np.stack(
        [
            np.full(n, 1000.0),
            g.uniform(0.08, 0.32, n),
            g.uniform(0.013, 0.02, n),
            g.uniform(0.065, 0.085, n),
            np.sin(np.deg2rad(g.uniform(130, 178, n)) / 2) ** 2,
        ],
        axis=1,
    )
    for name, value in fixed.items():
        theta[:, MYELIN_WATER.index(name)] = value
    return theta


def test_nearly_noiseless_spectra_give_the_truth():
    theta = tissue(200)
    measured = Gaussian(0.01).sample(simulate(MYELIN_WATER, theta, TRAIN), np.random.default_rng(0))
    fitted = myelin_water(series_of(measured), sigma=0.01, rician=False)
    assert np.abs(flat(fitted["MWF"]) - theta[:, 1]).max() < 0.03
    assert np.abs(flat(fitted["T2ie"]) / theta[:, 3] - 1).max() < 0.03
    assert np.abs(flat(fitted["S0"]) / theta[:, 0] - 1).max() < 0.02
    angle = np.rad2deg(2 * np.arcsin(np.sqrt(theta[:, 4])))
    assert np.abs(flat(fitted["RefocusingAngle"]) - angle).max() < 1.0


@pytest.mark.parametrize(("snr", "bias", "spread"), [(100, 0.025, 0.045), (200, 0.017, 0.028)])
@pytest.mark.parametrize("fraction", [0.1, 0.29])
def test_bias_spread_and_standard_error_at_the_ratios_of_such_scans(snr, bias, spread, fraction):
    theta = tissue(700, MWF=fraction, T2my=0.015, T2ie=0.075, Efficiency=0.97)
    clean = simulate(MYELIN_WATER, theta, TRAIN)
    sigma = clean[0, 0] / snr
    fitted = myelin_water(series_of(Rician(sigma).sample(clean, np.random.default_rng(1))), sigma=sigma)
    error, std = flat(fitted["MWF"]) - fraction, flat(fitted.std["MWF"])
    assert abs(error.mean()) < bias
    assert error.std() < spread
    assert 0.7 < np.sqrt((error**2).mean() / (std**2).mean()) < 1.1
    assert 0.92 < (np.abs(error) < 1.96 * std).mean() < 0.985
    turn = flat(fitted["Efficiency"]) - 0.97
    assert abs(turn.mean()) < 0.3 * turn.std()
    assert 0.9 < turn.std() / np.sqrt((flat(fitted.std["Efficiency"]) ** 2).mean()) < 1.15
    assert "MWF" not in fitted.bias


@pytest.mark.parametrize(("snr", "efficiency"), [(50, 0.97), (70, 0.85), (150, 0.9)])
def test_intervals_of_efficiency_and_amplitude_hold_the_truth(snr, efficiency):
    theta = tissue(1000, MWF=0.29, T2my=0.015, T2ie=0.075, Efficiency=efficiency)
    clean = simulate(MYELIN_WATER, theta, TRAIN)
    sigma = clean[0, 0] / snr
    fitted = myelin_water(series_of(Rician(sigma).sample(clean, np.random.default_rng(8))), sigma=sigma)
    turn = flat(fitted["Efficiency"]) - flat(fitted.bias["Efficiency"]) - efficiency
    assert 0.92 < (np.abs(turn) < 1.96 * flat(fitted.std["Efficiency"])).mean() < 0.97
    assert abs(turn.mean()) < 0.2 * turn.std()
    whole = flat(fitted["S0"]) - theta[:, 0]
    assert 0.91 < (np.abs(whole) < 1.96 * flat(fitted.std["S0"])).mean() < 0.98


@pytest.mark.parametrize(("tissue_time", "snr"), [(0.075, 100), (0.09, 70), (0.1, 150)])
def test_half_the_bias_of_a_single_tissue_time_is_stated_and_its_intervals_hold_it(tissue_time, snr):
    theta = tissue(1000, MWF=0.2, T2my=0.015, T2ie=tissue_time, Efficiency=0.95)
    clean = simulate(MYELIN_WATER, theta, TRAIN)
    sigma = clean[0, 0] / snr
    fitted = myelin_water(series_of(Rician(sigma).sample(clean, np.random.default_rng(9))), sigma=sigma)
    raw, less = flat(fitted["T2ie"]) - tissue_time, flat(fitted["T2ie"]) - flat(fitted.bias["T2ie"]) - tissue_time
    assert raw.mean() < 0
    assert 0.35 < less.mean() / raw.mean() < 0.7
    assert 0.92 < (np.abs(less) < 1.96 * flat(fitted.std["T2ie"])).mean() < 0.99


def test_penalty_makes_little_of_narrow_pools_where_there_is_none_and_loses_no_signal():
    theta = tissue(50, 10)
    measured = Gaussian(0.002).sample(simulate(MYELIN_WATER, theta, TRAIN) / 1000, np.random.default_rng(11))
    dictionary = make_dictionary(TRAIN)
    found = spectrum(dictionary, measured, find_angle(dictionary, measured, np.full(50, 150)))
    short = dictionary.times < 0.04
    logs = np.log(dictionary.times)
    means = tuple(
        (found.amplitudes * p * logs).sum(axis=1) / (found.amplitudes * p).sum(axis=1) for p in (short, ~short)
    )
    free = of_narrow_pools(dictionary, replace(found, penalty=np.full(50, FREE_PENALTY)), (short, ~short), means)
    for pool, mean in zip((short, ~short), means, strict=True):
        signal = (found.amplitudes * pool).sum(axis=1)
        np.testing.assert_allclose((free * pool).sum(axis=1), signal, rtol=0.08)
        # most of it lies at the two values beside the mean
        near = np.abs(logs - mean[:, None]) < 2 * (logs[1] - logs[0])
        assert ((free * pool * near).sum(axis=1) / signal).mean() > 0.8
    broad = of_narrow_pools(dictionary, found, (short, ~short), means)
    assert (np.count_nonzero(broad > 0.01, axis=1) > np.count_nonzero(free > 0.01, axis=1)).mean() > 0.9


def test_noise_from_the_residuals_is_that_of_the_measurements():
    theta = tissue(600, 2)
    clean = simulate(MYELIN_WATER, theta, TRAIN)
    sigma = clean[:, 0].mean() / 150
    series = series_of(Gaussian(sigma).sample(clean, np.random.default_rng(3)))
    known, own = myelin_water(series, sigma=sigma, rician=False), myelin_water(series, rician=False)
    np.testing.assert_array_equal(known["MWF"].data, own["MWF"].data)
    ratio = flat(own.std["MWF"]) / flat(known.std["MWF"])
    assert np.sqrt((ratio**2).mean()) == pytest.approx(1, abs=0.04)


def test_floor_of_magnitudes_is_taken_off():
    theta = tissue(500, 4, T2ie=0.06)
    clean = simulate(MYELIN_WATER, theta, TRAIN)
    sigma = clean[:, 0].mean() / 60
    magnitudes = series_of(Rician(sigma).sample(clean, np.random.default_rng(5)))
    signed = series_of(Gaussian(sigma).sample(clean, np.random.default_rng(5)))
    exact = myelin_water(signed, sigma=sigma, rician=False)
    corrected, raw = myelin_water(magnitudes, sigma=sigma), myelin_water(magnitudes, sigma=sigma, rician=False)
    shift = [abs(np.nanmean(flat(one["S0"])) - np.nanmean(flat(exact["S0"]))) for one in (corrected, raw)]
    late = [abs(np.nanmean(flat(one["T2ie"])) - np.nanmean(flat(exact["T2ie"]))) for one in (corrected, raw)]
    assert late[0] < 0.4 * late[1]
    assert shift[0] < max(shift[1], 2.0)


def test_penalty_raises_the_residuals_as_asked_and_the_least_is_that_of_an_active_set_method():
    theta = tissue(60, 6)
    clean = simulate(MYELIN_WATER, theta, TRAIN) / 1000
    measured = Gaussian(0.01).sample(clean, np.random.default_rng(7))
    dictionary = make_dictionary(TRAIN)
    first = np.full(60, 150)
    for rise in (0.01, 0.05):
        found = spectrum(dictionary, measured, first, rise)
        least = np.array(
            [nnls(dictionary.trains[k], m, maxiter=2000)[1] ** 2 for k, m in zip(found.level, measured, strict=True)]
        )
        grown = (found.residual**2).sum(axis=1) / least - 1
        assert np.median(grown) == pytest.approx(rise, rel=0.15)
        inner = (found.penalty > 2e-6) & (found.penalty < 0.9)
        assert inner.mean() > 0.9
        assert np.abs(grown[inner] / rise - 1).max() < 0.6


def test_no_myelin_water_has_an_error_and_a_flag():
    theta = tissue(300, 8, MWF=0.0)
    clean = simulate(MYELIN_WATER, theta, TRAIN)
    sigma = clean[:, 0].mean() / 150
    fitted = myelin_water(series_of(Rician(sigma).sample(clean, np.random.default_rng(9))), sigma=sigma)
    none = flat(fitted["MWF"]) == 0
    assert none.mean() > 0.3
    assert np.all(flat(fitted.flag)[none] == Flag.AT_BOUND)
    assert np.all(flat(fitted.std["MWF"])[none] > 0.005)
    assert (flat(fitted["MWF"]) < 2.5 * flat(fitted.std["MWF"]) + 0.01).mean() > 0.9


def test_bad_voxels_are_flagged_and_never_zero():
    good = simulate(MYELIN_WATER, tissue(1)[0], TRAIN)
    spoilt = good.copy()
    spoilt[4] = np.inf
    dim = np.full(32, 0.5)
    rows = [good, spoilt, 0 * good, -good, dim]
    fitted = myelin_water(series_of(rows), sigma=1.0)
    flags = flat(fitted.flag)
    assert flags.tolist() == [Flag.OK, Flag.NOT_FINITE, *[Flag.NO_SIGNAL] * 3]
    for group in (fitted.maps, fitted.std):
        for image in group.values():
            assert np.array_equal(np.isnan(flat(image)), flags != Flag.OK)
    assert np.isnan(flat(fitted.criterion)).all()


def test_result_depends_neither_on_threads_nor_on_the_order_of_echoes_nor_on_the_gain():
    theta = tissue(700, 10)
    clean = simulate(MYELIN_WATER, theta, TRAIN)
    measured = Rician(5.0).sample(clean, np.random.default_rng(11))
    one = myelin_water(series_of(measured), sigma=5.0, n_jobs=1)
    two = myelin_water(series_of(measured), sigma=5.0, n_jobs=2)
    order = np.random.default_rng(12).permutation(32)
    mixed = myelin_water(series_of(measured[:, order], TRAIN.take(order)), sigma=5.0)
    loud = myelin_water(series_of(1e4 * measured), sigma=5e4)
    for name, image in one.maps.items():
        np.testing.assert_array_equal(image.data, two[name].data)
        gain = 1e4 if name == "S0" else 1.0
        for other, factor in ((mixed, 1.0), (loud, gain)):
            near = np.isclose(flat(other[name]), factor * flat(image), rtol=1e-2, atol=1e-3)
            assert near.mean() > 0.97, name


def test_by_name_recipe_and_refusals():
    series = series_of(simulate(MYELIN_WATER, tissue(3), TRAIN))
    assert {p.model for p in recipe([series]) if p.possible} == {"myelin-water"}
    assert np.isfinite(fit("myelin-water", series, given={"R1": 1.1})["MWF"].data).all()
    with pytest.raises(ImplausibleValue, match="R1 was given as a map"):
        fit("myelin-water", series, given={"R1": Image(np.ones((3, 1, 1)), series.image.grid)})
    with pytest.raises(NotIdentifiable, match="8 spin echoes"):
        myelin_water(series.take(np.arange(8)))
    plain = Protocol({"EchoTime": TRAIN["EchoTime"]})
    assert "myelin-water" not in {p.model for p in recipe([series_of(series.data.reshape(3, 32), plain)])}


def test_penalty_moves_with_the_noise_as_its_derivatives_say():
    theta = tissue(20, 4)
    clean = simulate(MYELIN_WATER, theta, TRAIN)
    measured = clean / clean.max() + 0.01 * np.random.default_rng(5).standard_normal(clean.shape)
    dictionary = make_dictionary(TRAIN)
    level = find_angle(dictionary, measured, np.full(20, 140))
    found = spectrum(dictionary, measured, level)
    share = (found.amplitudes > 0).astype(float)
    still = np.zeros_like(measured)
    predicted = spread_of_sum(
        dictionary, found, np.ones_like(share), share, (still, penalty_response(dictionary, found, share))
    )
    step = 2e-5 * np.eye(measured.shape[1])
    slopes = [
        (spectrum(dictionary, measured + s, level).amplitudes - spectrum(dictionary, measured - s, level).amplitudes)
        for s in step
    ]
    direct = np.sqrt(((np.array(slopes).sum(axis=-1) / 4e-5) ** 2).sum(axis=0))
    assert np.median(np.abs(predicted / direct - 1)) < 0.02
