"""Kurtosis, mean-signal kurtosis and intravoxel incoherent motion against DIPY's, on the same signals."""

import warnings

import numpy as np
import pytest

from cord_kurtosis import compartments, scan, typical
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Gaussian
from qcord.core.series import Series
from qcord.estimate.simulate import simulate
from qcord.maps.fit import fit
from qcord.maps.kurtosis import fit_kurtosis
from qcord.maps.mean_signal_kurtosis import fit_mean_signal_kurtosis
from qcord.models.ivim import IVIM
from qcord.models.ivim import example as ivim_example
from qcord.models.kurtosis import example

gradients = pytest.importorskip("dipy.core.gradients")


def flat(image):
    return image.data.reshape(-1).astype(float)


def table(protocol):
    return gradients.gradient_table(protocol["BValue"], bvecs=protocol["Direction"], b0_threshold=50)


@pytest.fixture(scope="module")
def pair():
    """Our maps and DIPY's of 200 tissues at a signal-to-noise ratio of 40."""
    from dipy.reconst.dki import DiffusionKurtosisModel

    series, sigma = scan(compartments(200, 0), 40, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = DiffusionKurtosisModel(table(example()), fit_method="WLS").fit(series.data.reshape(200, -1))
        theirs = {name.upper(): getattr(peer, name) for name in ("fa", "md", "ad", "rd")}
        theirs |= {name.upper(): getattr(peer, name)(analytical=True) for name in ("mk", "ak", "rk")}
        theirs["MKT"] = peer.mkt()
    return fit_kurtosis(series, sigma=sigma), theirs


@pytest.mark.parametrize("name", ["FA", "MD", "AD", "RD", "MK", "AK", "RK", "MKT"])
def test_kurtosis_maps_agree(pair, name):
    """The same weighted fit and the same definitions: equal to single precision, but where a limit cuts."""
    ours, theirs = pair
    free = ours.flag.data.ravel() == 0
    assert free.mean() > 0.9
    difference = np.abs(flat(ours[name]) - theirs[name])[free] / np.maximum(np.abs(theirs[name][free]), 1e-9)
    assert np.median(difference) < 1e-5
    assert np.quantile(difference, 0.95) < 1e-3


def test_mean_signal_kurtosis_agrees_on_even_directions():
    """Equal weights there, ours exact to fourth order: the directions of the protocol differ from even by little."""
    from dipy.reconst.msdki import MeanDiffusionKurtosisModel

    series, sigma = scan(typical("white", 500), 40, 1)
    ours = fit_mean_signal_kurtosis(series, sigma=sigma)
    peer = MeanDiffusionKurtosisModel(table(example())).fit(series.data.reshape(500, -1))
    for name, theirs in (("MSD", peer.msd), ("MSK", peer.msk)):
        assert np.median(np.abs(flat(ours[name]) / theirs - 1)) < 0.01
        assert np.corrcoef(flat(ours[name]), theirs)[0, 1] > 0.99


def test_incoherent_motion_agrees():
    """Both are bounded least squares of the same model; DIPY's stops earlier."""
    from dipy.reconst.ivim import IvimModel

    theta = np.tile(IVIM.theta({"S0": 1000.0, "f": 0.15, "Dstar": 0.015, "D": 0.85e-3}), (40, 1))
    measured = simulate(IVIM, theta, ivim_example(), Gaussian(1000 / 60), 2)
    series = Series(Image(measured.reshape(40, 1, 1, -1), Grid((40, 1, 1), np.eye(4))), ivim_example())
    ours = fit("ivim", series)
    b = ivim_example()["BValue"]
    scheme = gradients.gradient_table(b, bvecs=np.tile([0, 0, 1.0], (len(b), 1)) * (b > 0)[:, None], b0_threshold=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = IvimModel(scheme, fit_method="trr").fit(measured)
    pairs = (("S0", peer.S0_predicted), ("f", peer.perfusion_fraction), ("Dstar", peer.D_star), ("D", peer.D))
    for name, theirs in pairs:
        assert np.median(np.abs(flat(ours[name]) / theirs - 1)) < 0.01, name
    cost = np.array(
        [
            np.sum((IVIM.signal(p, ivim_example(), np.empty(0)) - measured) ** 2, axis=1)
            for p in (np.stack([flat(ours[n]) for n, _ in pairs], axis=1), np.stack([v for _, v in pairs], axis=1))
        ]
    )
    assert np.all(cost[0] <= cost[1] * (1 + 1e-6))
