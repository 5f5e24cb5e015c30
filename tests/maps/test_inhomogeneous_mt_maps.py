import numpy as np
import pytest

from qcord.core.errors import MissingMetadata
from qcord.core.flags import Flag
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Gaussian, Rician
from qcord.core.series import Series
from qcord.estimate.simulate import simulate
from qcord.maps.fit import fit
from qcord.maps.inhomogeneous_mt import ihmtr, ihmtsat
from qcord.maps.recipe import recipe
from qcord.models.inhomogeneous_mt import IHMTR, IHMTSAT

PROTOCOL = IHMTSAT.example()


def series_of(measured, protocol=PROTOCOL):
    measured = np.asarray(measured, dtype=float)
    return Series(Image(measured.reshape(-1, 1, 1, len(protocol)), Grid((len(measured), 1, 1), np.eye(4))), protocol)


def flat(image):
    return image.data.ravel().astype(float)


def tissue(n, seed):
    generator = np.random.default_rng(seed)
    rate, single = 1 / generator.uniform(0.8, 1.4, n), generator.uniform(2, 6, n)
    return np.stack([np.full(n, 1000.0), rate, single, generator.uniform(0, 1.5, n)], axis=1)


def test_ratio_is_the_definition_and_t1_weighted_images_are_left_out():
    fitted = ihmtr(series_of([[100.0, 56.0, 52.0, 50.0, 48.0, 777.0]]), sigma=2.0)
    assert flat(fitted["ihMTR"])[0] == pytest.approx(10)
    assert flat(fitted["MTR"])[0] == pytest.approx(46)
    se = 200 * 2 / 100 * np.sqrt(0.5 + 0.5 + 0.05**2)  # each mean of two, and the reference times 5 %
    assert flat(fitted.std["ihMTR"])[0] == pytest.approx(se, rel=1e-6)
    assert fitted["ihMTR"].unit == "percent"


def test_truth_comes_back_and_equals_the_joint_fit():
    theta = tissue(300, 1)
    b1 = np.random.default_rng(2).uniform(0.8, 1.2, 300)
    measured = simulate(IHMTSAT, theta, PROTOCOL, given=b1[:, None])
    series = series_of(measured)
    field = Image(b1.reshape(-1, 1, 1), series.image.grid)
    fitted = ihmtsat(series, b1=field)
    np.testing.assert_allclose(flat(fitted["ihMTsat"]), theta[:, 3], atol=1e-5)
    np.testing.assert_allclose(flat(fitted["MTsatDual"]), theta[:, 2] + theta[:, 3], rtol=1e-5)
    assert "apparent" in ihmtsat(series)["ihMTsat"].history[-1].settings["B1"]
    noisy = series_of(simulate(IHMTSAT, theta, PROTOCOL, Gaussian(0.5), seed=3))
    closed, joint = fit("ihmtsat", noisy, noise=Gaussian(0.5)), fit("ihmtsat", noisy, method="nonlinear", noise=0.5)
    gap = np.abs(flat(closed["ihMTsat"]) - flat(joint["ihMTsat"])) / flat(joint.std["ihMTsat"])
    assert np.percentile(gap, 99) < 0.1  # they weight images of one kind alike
    np.testing.assert_allclose(flat(closed.std["ihMTsat"]), flat(joint.std["ihMTsat"]), rtol=0.05)


@pytest.mark.parametrize("snr", [20, 50, 100])
def test_intervals_cover_the_truth(snr):
    theta = tissue(12_000, seed=snr)
    sigma = float(simulate(IHMTSAT, theta, PROTOCOL)[:, 0].mean()) / snr
    fitted = ihmtsat(series_of(simulate(IHMTSAT, theta, PROTOCOL, Rician(sigma), seed=snr)), sigma=sigma)
    ratio = np.stack([theta[:, 0], np.full(12_000, 45.0), np.linspace(0, 15, 12_000)], axis=1)
    pair = series_of(simulate(IHMTR, ratio, PROTOCOL, Rician(1000 / snr), seed=snr))
    for one, name, truth in ((fitted, "ihMTsat", theta[:, 3]), (ihmtr(pair, sigma=1000 / snr), "ihMTR", ratio[:, 2])):
        usable = flat(one.flag) == Flag.OK
        assert usable.mean() > 0.95
        error = (flat(one[name]) - flat(one.bias[name]) - truth)[usable]
        std = flat(one.std[name])[usable]
        assert 0.92 <= (np.abs(error) < 1.96 * std).mean() <= 0.975
        assert 0.9 < error.std() / np.sqrt((std**2).mean()) < 1.15
        assert abs(error.mean()) < 0.05 * error.std()


def test_bad_voxels_are_flagged_and_never_zero():
    good = simulate(IHMTSAT, tissue(1, 0)[0], PROTOCOL)
    rows = [good, good * [1, 1, 1, 1, 1, 0], good * [1, np.nan, 1, 1, 1, 1], good * [1, 1, 1, 1, 1, 5]]
    fitted = ihmtsat(series_of(rows), sigma=0.5)
    assert flat(fitted.flag).tolist() == [Flag.OK, Flag.NO_SIGNAL, Flag.NOT_FINITE, Flag.UNPHYSICAL]
    for group in (fitted.maps, fitted.std, fitted.bias):
        assert np.isnan(np.stack([flat(m) for m in group.values()])[:, 1:]).all()


def test_recipe_offers_what_the_images_allow():
    planned = {p.model: p for p in recipe([series_of(np.ones((1, 6)))])}
    assert planned["ihmtr"].possible
    assert planned["ihmtsat"].possible
    without = {p.model: p for p in recipe([series_of(np.ones((1, 5)), PROTOCOL.take([0, 1, 2, 3, 4]))])}
    assert without["ihmtr"].possible
    assert "0 T1-weighted" in without["ihmtsat"].reason
    with pytest.raises(MissingMetadata, match="holds 0, 0, 0 volumes"):
        ihmtr(series_of(np.ones((1, 3)), PROTOCOL.take([0, 1, 2])))
