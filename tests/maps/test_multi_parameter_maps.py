import numpy as np
import pytest

from qcord.core.errors import GridMismatch, MissingMetadata
from qcord.core.flags import Flag
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Gaussian, Rician
from qcord.core.series import Series
from qcord.estimate.simulate import simulate
from qcord.maps.fit import fit
from qcord.maps.multi_parameter_mapping import multi_parameter_maps
from qcord.maps.recipe import recipe
from qcord.models.multi_parameter_mapping import MPM

PROTOCOL = MPM.example()


def series_of(measured, protocol=PROTOCOL):
    measured = np.asarray(measured, dtype=float)
    return Series(Image(measured.reshape(-1, 1, 1, len(protocol)), Grid((len(measured), 1, 1), np.eye(4))), protocol)


def flat(image):
    return image.data.ravel().astype(float)


def tissue(n, seed):
    g = np.random.default_rng(seed)
    return np.stack([g.uniform(800, 1200, n), g.uniform(0.7, 1.3, n), g.uniform(2, 6, n), g.uniform(15, 45, n)], axis=1)


def test_truth_comes_back_without_noise():
    theta, b1 = tissue(300, 0), np.random.default_rng(1).uniform(0.8, 1.2, 300)
    series = series_of(simulate(MPM, theta, PROTOCOL, given=b1[:, None]))
    fitted = multi_parameter_maps(series, b1=Image(b1.reshape(-1, 1, 1), series.image.grid))
    for k, name in enumerate(("A", "R1", "MTsat", "R2star")):
        np.testing.assert_allclose(flat(fitted[name]), theta[:, k], rtol=2e-5)
    np.testing.assert_allclose(flat(fitted["T1"]), 1 / theta[:, 1], rtol=2e-5)
    np.testing.assert_allclose(flat(fitted["T2star"]), 1 / theta[:, 3], rtol=2e-5)
    assert "apparent" in multi_parameter_maps(series)["R1"].history[-1].settings["B1"]


@pytest.mark.parametrize("snr", [20, 50, 100])
@pytest.mark.parametrize("known", [True, False], ids=["noise known", "noise from residuals"])
def test_intervals_cover_the_truth(snr, known):
    """SNR is that of the first proton-density weighted echo."""
    theta = tissue(12_000, snr)
    clean = simulate(MPM, theta, PROTOCOL)
    sigma = float(clean[:, 0].mean()) / snr
    series = series_of(Rician(sigma).sample(clean, np.random.default_rng(snr)))
    fitted = multi_parameter_maps(series, sigma=sigma if known else None)
    usable = flat(fitted.flag) == Flag.OK
    assert usable.mean() > 0.97
    truth = {"A": theta[:, 0], "R1": theta[:, 1], "MTsat": theta[:, 2], "R2star": theta[:, 3], "T1": 1 / theta[:, 1]}
    for name, exact in truth.items():
        error = (flat(fitted[name]) - flat(fitted.bias[name]) - exact)[usable]
        std = flat(fitted.std[name])[usable]
        low = 0.92 if known else 0.9
        assert low <= (np.abs(error) < 1.96 * std).mean() <= 0.975, name
        assert 0.9 < error.std() / np.sqrt((std**2).mean()) < 1.15, name
        assert abs(error.mean()) < 0.1 * error.std(), name


def test_it_is_as_precise_as_the_joint_fit():
    theta = np.tile(MPM.theta(MPM.typical[0].values), (3000, 1))
    sigma = 1.0
    series = series_of(simulate(MPM, theta, PROTOCOL, Gaussian(sigma), seed=4))
    fast, joint = (
        fit("mpm", series, noise=Gaussian(sigma)),
        fit("mpm", series, method="nonlinear", noise=Gaussian(sigma)),
    )
    for name in ("R1", "MTsat", "R2star"):
        assert flat(fast[name]).std() < 1.05 * flat(joint[name]).std()
        gap = (flat(fast[name]) - flat(fast.bias[name])) - (flat(joint[name]) - flat(joint.bias[name]))
        assert np.abs(gap).mean() < 0.25 * flat(joint.std[name]).mean()
        np.testing.assert_allclose(np.median(flat(fast.std[name])), np.median(flat(joint.std[name])), rtol=0.03)


def test_bad_voxels_are_flagged_and_never_zero():
    good = simulate(MPM, tissue(1, 5)[0], PROTOCOL)
    spoilt = good.copy()
    spoilt[3] = np.nan
    hole = good.copy()
    hole[3] = 0
    inverted = good * np.repeat([1.0, 8.0, 1.0], [6, 6, 4])
    fitted = multi_parameter_maps(series_of([good, spoilt, 0 * good, inverted, hole]), sigma=0.5)
    flags = [Flag.OK, Flag.NOT_FINITE, Flag.NO_SIGNAL, Flag.UNPHYSICAL, Flag.OK]
    assert flat(fitted.flag).tolist() == flags
    for group in (fitted.maps, fitted.std, fitted.bias):
        values = np.stack([flat(m) for m in group.values()])
        assert np.array_equal(np.isnan(values).all(axis=0), np.array(flags) != Flag.OK)
    np.testing.assert_allclose(flat(fitted["R1"])[4], flat(fitted["R1"])[0], rtol=1e-3)


def test_recipe_and_errors():
    series = series_of(np.ones((2, 16)))
    assert {p.model for p in recipe([series]) if p.possible} == {"mpm"}
    assert "mpm" not in {p.model for p in recipe([series_of(np.ones((2, 3)), PROTOCOL.take([0, 6, 12]))]) if p.possible}
    with pytest.raises(MissingMetadata, match="one echo time a weighting"):
        multi_parameter_maps(series_of(np.ones((2, 3)), PROTOCOL.take([0, 6, 12])))
    with pytest.raises(GridMismatch, match="B1 map"):
        multi_parameter_maps(series, b1=Image(np.ones((2, 3, 4)), Grid((2, 3, 4), np.eye(4))))
