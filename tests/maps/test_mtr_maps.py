import numpy as np
import pytest

from qcord.core.errors import MissingMetadata
from qcord.core.flags import Flag
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Rician
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.simulate import simulate
from qcord.maps.mtr import mtr
from qcord.models.registry import get

PAIR = Protocol({"MTState": np.array([False, True])}, "pair")


def series_of(measured, protocol=PAIR):
    measured = np.asarray(measured, dtype=float)
    return Series(Image(measured.reshape(-1, 1, 1, len(protocol)), Grid((len(measured), 1, 1), np.eye(4))), protocol)


def test_ratio_is_the_definition_and_the_order_of_volumes_does_not_matter():
    without, saturated = np.array([100.0, 250.0, 80.0]), np.array([46.0, 200.0, 80.0])
    expected = 100 * (without - saturated) / without
    fit = mtr(series_of(np.stack([without, saturated], axis=1)))
    np.testing.assert_allclose(fit["MTR"].data.ravel(), expected, rtol=1e-6)
    swapped = Protocol({"MTState": np.array([True, False])})
    np.testing.assert_array_equal(
        mtr(series_of(np.stack([saturated, without], axis=1), swapped))["MTR"].data, fit["MTR"].data
    )
    assert fit["MTR"].unit == "percent"
    assert np.all(fit.flag.data == Flag.NO_ERROR)
    assert np.isnan(fit.std["MTR"].data).all()


@pytest.mark.parametrize("snr", [12, 20, 40])
def test_intervals_cover_the_truth(snr):
    generator = np.random.default_rng(snr)
    truth = np.stack([np.full(20_000, 500.0), generator.uniform(20, 55, 20_000)], axis=1)
    measured = simulate(get("mtr"), truth, PAIR, Rician(500 / snr), seed=snr)
    fit = mtr(series_of(measured), sigma=500 / snr)
    error = fit["MTR"].data.ravel().astype(float) - fit.bias["MTR"].data.ravel() - truth[:, 1]
    std = fit.std["MTR"].data.ravel().astype(float)
    for size in (1, 20, 100):
        mean = error.reshape(-1, size).mean(axis=1)
        covered = np.abs(mean) < 1.96 * np.sqrt((std**2).reshape(-1, size).mean(axis=1) / size)
        assert 0.9 <= covered.mean() <= 0.99


def test_noise_may_differ_between_the_volumes():
    fit = mtr(series_of([[100.0, 50.0]]), sigma=[3.0, 4.0])
    assert float(fit.std["MTR"].data[0, 0, 0]) == pytest.approx(100 * np.hypot(4 / 100, 0.5 * 3 / 100), rel=1e-6)
    maps = Image(np.array([3.0, 4.0]).reshape(1, 1, 1, 2), Grid((1, 1, 1), np.eye(4)))
    np.testing.assert_array_equal(mtr(series_of([[100.0, 50.0]]), sigma=maps).std["MTR"].data, fit.std["MTR"].data)


def test_bad_voxels_are_flagged():
    rows = [[100.0, 50], [0, 50], [100, -1], [np.nan, 3], [2, 1.5], [100, 290]]
    fit = mtr(series_of(rows), sigma=1.0)
    flags = [Flag.OK, Flag.NO_SIGNAL, Flag.NO_SIGNAL, Flag.NOT_FINITE, Flag.NO_SIGNAL, Flag.UNPHYSICAL]
    assert fit.flag.data.ravel().tolist() == flags
    assert np.array_equal(np.isnan(fit["MTR"].data.ravel()), np.array(flags) != Flag.OK)


def test_pair_of_a_triplet_is_found_and_an_ambiguous_one_is_refused():
    triplet = Protocol(
        {
            "MTState": np.array([False, True, False]),
            "FlipAngle": [15.0, 9, 9],
            "RepetitionTimeExcitation": [0.015, 0.03, 0.03],
        }
    )
    fit = mtr(series_of([[300.0, 60.0, 120.0]], triplet), sigma=[9.0, 1.0, 2.0])
    assert float(fit["MTR"].data[0, 0, 0]) == pytest.approx(50)
    assert float(fit.std["MTR"].data[0, 0, 0]) == pytest.approx(100 * np.hypot(1 / 120, 0.5 * 2 / 120), rel=1e-6)
    unknown = triplet.replace(FlipAngle=np.full(3, np.nan), RepetitionTimeExcitation=np.full(3, np.nan))
    with pytest.raises(MissingMetadata, match="2 pairs"):
        mtr(series_of([[300.0, 60.0, 120.0]], unknown))
