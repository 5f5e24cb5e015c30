import numpy as np
import pytest

from cord_diffusion import cord_protocol, tensors
from decay_model import DECAY
from qcord.core.flags import Flag
from qcord.core.noise import Gaussian, Rician
from qcord.core.protocol import Protocol
from qcord.estimate.bound import crlb
from qcord.estimate.nonlinear import fit_nonlinear
from qcord.estimate.simulate import simulate
from qcord.models.registry import get
from qcord.models.tensor import TENSOR

ECHOES = Protocol({"EchoTime": np.arange(1, 7) * 5e-3})
TRIPLET = Protocol(
    {
        "FlipAngle": [9.0, 9.0, 15.0],
        "RepetitionTimeExcitation": [0.03, 0.03, 0.015],
        "MTState": np.array([True, False, False]),
    }
)


def theta_of(name, n):
    generator = np.random.default_rng(0)
    if name == "tensor":
        return tensors(generator.uniform(0.2, 0.9, n), seed=1)[0]
    if name == "mtr":
        return np.stack([generator.uniform(100, 900, n), generator.uniform(5, 60, n)], axis=1)
    return np.stack([generator.uniform(500, 2000, n), generator.uniform(0.3, 2, n), generator.uniform(0, 8, n)], axis=1)


@pytest.mark.parametrize("name", ["tensor", "mtr", "mtsat", "mtsat-ernst"])
def test_noise_free_parameters_are_recovered_from_the_models_start(name):
    protocol = cord_protocol() if name == "tensor" else TRIPLET
    theta = theta_of(name, 60)
    solution = fit_nonlinear(get(name), simulate(get(name), theta, protocol), protocol, sigma=1.0)
    assert np.all(solution.flag == Flag.OK)
    np.testing.assert_allclose(solution.theta, theta, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("noise", [Gaussian(20.0), Rician(20.0)], ids=["gaussian", "rician"])
def test_spread_meets_the_bound_and_bias_is_as_predicted(noise):
    truth = np.broadcast_to([600.0, 40.0], (20_000, 2))
    measured = simulate(DECAY, truth, ECHOES, noise, seed=2)
    solution = fit_nonlinear(DECAY, measured, ECHOES, sigma=20.0, rician=isinstance(noise, Rician))
    spread = solution.theta.std(axis=0)
    ratio = spread / np.sqrt(np.diag(crlb(DECAY, [600.0, 40.0], ECHOES, noise)))
    assert np.all((ratio > 0.95) & (ratio < 1.1))
    stated = np.sqrt(np.einsum("vpp->vp", solution.covariance))
    covered = np.abs(solution.theta - solution.bias - truth) < 1.96 * stated
    assert np.all((covered.mean(axis=0) > 0.94) & (covered.mean(axis=0) < 0.965))
    left = (solution.theta - solution.bias).mean(axis=0) - truth[0]
    assert np.all(np.abs(left) < 4 * spread / np.sqrt(len(truth)) + 0.1 * np.abs(solution.bias.mean(axis=0)))


def test_noise_from_residuals_gives_the_same_errors_on_average():
    truth = np.broadcast_to([600.0, 40.0], (5000, 2))
    measured = simulate(DECAY, truth, ECHOES, Gaussian(10.0), seed=3)
    known = fit_nonlinear(DECAY, measured, ECHOES, sigma=10.0)
    unknown = fit_nonlinear(DECAY, measured, ECHOES)
    np.testing.assert_allclose(unknown.theta, known.theta, rtol=1e-5)
    assert unknown.covariance[:, 1, 1].mean() == pytest.approx(known.covariance[:, 1, 1].mean(), rel=0.05)


def test_parameters_can_be_fixed_to_one_value_or_one_a_voxel():
    truth = np.stack([np.linspace(300, 900, 9), np.linspace(10, 60, 9)], axis=1)
    measured = simulate(DECAY, truth, ECHOES, Gaussian(1.0), seed=4)
    solution = fit_nonlinear(DECAY, measured, ECHOES, sigma=1.0, fixed={"R2star": truth[:, 1]})
    np.testing.assert_array_equal(solution.theta[:, 1], truth[:, 1])
    assert np.all(solution.covariance[:, 1] == 0)
    np.testing.assert_allclose(solution.theta[:, 0], truth[:, 0], atol=5)


def test_every_kind_of_bad_voxel_is_flagged_and_the_good_one_is_untouched():
    good = simulate(DECAY, [600.0, 40.0], ECHOES, Gaussian(1.0), seed=5)
    rising = 100 * np.exp(10 * ECHOES["EchoTime"])
    rows = [good, np.full(6, np.nan), np.zeros(6), rising, np.where(np.arange(6) == 2, np.inf, good)]
    solution = fit_nonlinear(DECAY, np.stack(rows), ECHOES, sigma=1.0)
    assert solution.flag.tolist() == [Flag.OK, Flag.NOT_FINITE, Flag.NO_SIGNAL, Flag.AT_BOUND, Flag.NOT_FINITE]
    assert solution.theta[3, 1] == 0
    assert np.isnan(solution.theta[[1, 2, 4]]).all()
    np.testing.assert_allclose(solution.theta[0], fit_nonlinear(DECAY, good[None], ECHOES, sigma=1.0).theta[0])


def test_noise_alone_never_raises():
    measured = Rician(1.0).sample(np.zeros((400, 35)), np.random.default_rng(6))
    solution = fit_nonlinear(TENSOR, measured, cord_protocol(), sigma=1.0, rician=True)
    assert solution.flag.shape == (400,)


def test_floor_aware_fit_removes_the_bias_of_the_floor():
    theta, truth = tensors(np.full(1500, 0.8), seed=7)
    measured = simulate(TENSOR, theta, cord_protocol(), Rician(125.0), seed=7)
    plain = fit_nonlinear(TENSOR, measured, cord_protocol(), sigma=125.0)
    aware = fit_nonlinear(TENSOR, measured, cord_protocol(), sigma=125.0, rician=True)
    error = [float((s.theta[:, 3] / theta[:, 3] - 1).mean()) for s in (plain, aware)]
    assert error[0] < -0.04
    assert abs(error[1]) < 0.02
    assert truth["FA"][0] == 0.8


def test_optional_columns_count_with_few_measurements_as_with_many():
    few = cord_protocol().take(np.arange(20))
    shaped = few.replace(BDelta=np.where(np.arange(20) % 3 == 0, 0.0, 1.0))
    theta = tensors(np.full(30, 0.7), seed=2)[0]
    solution = fit_nonlinear(TENSOR, simulate(TENSOR, theta, shaped), shaped)
    np.testing.assert_allclose(solution.theta, theta, rtol=1e-6, atol=1e-9)
