import numpy as np
import pytest

from decay_model import DECAY
from qcord.core.flags import Flag
from qcord.core.noise import Gaussian
from qcord.core.protocol import Protocol
from qcord.estimate.nonlinear import fit_nonlinear
from qcord.estimate.robust import kept, robust_weights
from qcord.estimate.simulate import simulate

ECHOES = Protocol({"EchoTime": np.arange(1, 17) * 3e-3})
TRUTH = np.broadcast_to([600.0, 40.0], (2000, 2))


def measured(outliers):
    signal = simulate(DECAY, TRUTH, ECHOES, Gaussian(10.0), seed=3)
    return signal + _spikes(outliers)


def _spikes(count):
    spikes = np.zeros((len(TRUTH), 16))
    rows = np.random.default_rng(4).permuted(np.tile(np.arange(16), (len(TRUTH), 1)), axis=1)[:, :count]
    np.put_along_axis(spikes, rows, 300.0 * (-1.0) ** np.arange(count), axis=1)
    return spikes


@pytest.mark.parametrize(("sigma", "least"), [(10.0, 0.92), (None, 0.88)])
def test_outliers_are_left_out_and_the_interval_still_covers(sigma, least):
    plain = fit_nonlinear(DECAY, measured(2), ECHOES, sigma=sigma)
    robust = fit_nonlinear(DECAY, measured(2), ECHOES, sigma=sigma, robust=True)
    error = [np.abs(np.median(s.theta[:, 1]) - 40.0) for s in (plain, robust)]
    assert error[1] < 0.5
    assert np.abs(plain.theta[:, 1] - 40).mean() > 3 * np.abs(robust.theta[:, 1] - 40).mean()
    std = np.sqrt(robust.covariance[:, 1, 1])
    covered = np.abs(robust.theta[:, 1] - robust.bias[:, 1] - 40) < 1.96 * std
    assert least < covered.mean() < 0.97


def test_without_outliers_little_is_lost():
    plain = fit_nonlinear(DECAY, measured(0), ECHOES, sigma=10.0)
    robust = fit_nonlinear(DECAY, measured(0), ECHOES, sigma=10.0, robust=True)
    assert robust.theta[:, 1].std() < 1.08 * plain.theta[:, 1].std()
    assert np.all(robust.flag == Flag.OK)


def test_many_outliers_are_flagged():
    robust = fit_nonlinear(DECAY, measured(6), ECHOES, sigma=10.0, robust=True)
    assert np.mean(robust.flag == Flag.OUTLIERS) > 0.3


def test_weights_fall_from_one_to_zero():
    relative = np.concatenate([np.full((9, 1), 0.5), [[30.0]]])
    weights = robust_weights(relative, 1, known_noise=True)[:, 0]
    assert weights[-1] == 0
    assert np.all((weights[:-1] > 0.9) & (weights[:-1] < 1))
    assert kept(relative, 1, known_noise=True)[:, 0].tolist() == [True] * 9 + [False]
