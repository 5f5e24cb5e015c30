import numpy as np
import pytest
from scipy.stats import chi2

from decay_model import REFERENCE
from qcord.core.model import SignalModel
from qcord.core.parameter import Parameter
from qcord.core.protocol import Protocol
from qcord.estimate.near_bounds import NEAR, Truth, bound_distances, is_near, simulated_ratio
from qcord.estimate.nonlinear import as_problem
from qcord.estimate.profile import as_metric, point

TIMES = np.array([-1.0, 0.0, 2.0, 3.0])
PROTOCOL = Protocol({"EchoTime": (TIMES + 2) / 100})
DESIGN = np.stack([np.ones(4), TIMES], axis=1)
USUAL = chi2.ppf(0.95, 1)


def line(heights, slopes, centre=0.0):
    return SignalModel(
        "line",
        (Parameter("Height", "1", heights, 0.0, "at the centre"), Parameter("Slope", "1/s", slopes, 0.0, "rise")),
        ("EchoTime",),
        lambda theta, protocol, given: theta[..., :1] + theta[..., 1:2] * (100 * protocol["EchoTime"] - 2 - centre),
        REFERENCE,
    )


def problem_of(model, sigma, free=(True, True), size=320):
    return as_problem(
        model,
        np.ones((size, 4)),
        PROTOCOL,
        sigma=sigma,
        given=None,
        free=np.array(free),
        rician=False,
    )[0]


def ratio_of(model, name, theta, sigma, *, free=(True, True), tail=0.05, size=320, noise=None):
    """Mean threshold over that without bounds, of voxels that are all alike."""
    problem, at = problem_of(model, sigma, free, size), np.repeat(np.array(theta)[:, None], size, axis=1)
    metric, scale = as_metric(model, name), np.full(size, 1.0 if noise is None else noise**2)
    distances = bound_distances(problem, metric, at, scale)
    truth = Truth(problem, metric, point(problem, metric, at), np.full(size, 0.3))
    apart = np.linspace(0.0, 0.01, size)  # so that voxels have other neighbours
    return simulated_ratio(truth, at, scale, np.concatenate([distances, apart[None]]), tail)


@pytest.mark.parametrize(("low", "high"), [(-0.5, 1.0), (0.0, np.inf), (-1.5, np.inf), (-1.0, 2.0)])
def test_one_parameter_between_bounds_has_the_quantile_of_its_clipped_estimate(low, high):
    x = np.random.default_rng(0).standard_normal(400_000)
    expected = np.quantile(x**2 - (x - np.clip(x, low, high)) ** 2, 0.95) / USUAL
    error = 0.8 / np.sqrt((TIMES**2).sum())
    model = line((-np.inf, np.inf), (low * error, high * error))
    found = ratio_of(model, "Slope", [0.0, 0.0], 0.8, free=(False, True))
    assert found.mean() == pytest.approx(expected, abs=0.08)


def test_another_parameter_near_its_bounds_counts():
    noise = np.random.default_rng(1).standard_normal((200_000, 4))
    alone = np.clip(noise @ TIMES / (TIMES**2).sum(), -0.1, 0.3)
    beside = np.clip(noise @ np.linalg.pinv(DESIGN)[1], -0.1, 0.3)
    held = ((noise - alone[:, None] * TIMES) ** 2).sum(axis=1)
    free = 4 * (noise - beside[:, None] * TIMES).var(axis=1)
    expected = np.quantile(held - free, 0.95) / USUAL
    assert expected < 0.96
    found = ratio_of(line((-np.inf, np.inf), (-0.1, 0.3)), "Height", [0.0, 0.0], 1.0)
    assert found.mean() == pytest.approx(expected, abs=0.09)


def test_the_noise_may_be_in_the_weights_or_beside_them():
    model = line((-np.inf, np.inf), (0.0, np.inf))
    known = ratio_of(model, "Height", [1.0, 0.1], 0.5)
    beside = ratio_of(model, "Height", [1.0, 0.1], None, noise=0.5)
    np.testing.assert_allclose(beside, known, rtol=0.02)


def test_a_rarer_miss_has_more_simulations_and_the_quantile_of_its_own():
    model = line((-np.inf, np.inf), (-NEAR, np.inf))
    found = ratio_of(model, "Slope", [0.0, 0.0], np.sqrt((TIMES**2).sum()), free=(False, True), tail=0.01, size=96)
    assert found.mean() == pytest.approx(1.0, abs=0.12)


def test_bounds_are_told_in_standard_errors():
    model = line((-1.0, 4.0), (0.0, np.inf), centre=1.0)  # the centre of the times: nothing correlates
    problem, metric = problem_of(model, 0.5, size=2), as_metric(model, "Height")
    at = np.array([[0.0, -1.0], [0.0, 5.0]])
    distances = bound_distances(problem, metric, at, np.ones(2))
    error = 0.5 / 2
    np.testing.assert_allclose(distances[0], [NEAR, 0.0])
    np.testing.assert_allclose(distances[[1, 2, 3]], NEAR)  # the slope has nothing to do with the height
    assert is_near(distances).tolist() == [False, True]
    closer = bound_distances(problem, metric, at + np.array([[-1 + 2 * error], [0.0]]), np.full(2, 4.0))
    assert closer[0, 0] == pytest.approx(1.0)


def test_a_parameter_that_is_not_determined_is_at_its_bounds():
    model = SignalModel(
        "product",
        (Parameter("Part", "1", (0.0, 1.0), 0.5, "how much"), Parameter("Rate", "1/s", (0.1, 9.0), 1.0, "how fast")),
        ("EchoTime",),
        lambda theta, protocol, given: theta[..., :1] * np.exp(-theta[..., 1:2] * 100 * protocol["EchoTime"]),
        REFERENCE,
    )
    problem = problem_of(model, 0.01, size=1)
    distances = bound_distances(problem, as_metric(model, "Rate"), np.array([[0.0], [1.0]]), np.ones(1))
    assert is_near(distances).all()


def test_voxels_alike_share_and_others_do_not():
    model = line((-np.inf, np.inf), (0.0, np.inf))
    error = 0.8 / np.sqrt((TIMES**2).sum())
    problem, size = problem_of(model, 0.8, (False, True), 640), 640
    at = np.stack([np.zeros(size), np.repeat([0.0, 3 * error], size // 2)])
    metric, scale = as_metric(model, "Slope"), np.ones(size)
    truth = Truth(problem, metric, point(problem, metric, at), np.full(size, error))
    distances, apart = bound_distances(problem, metric, at, scale), np.linspace(0.0, 0.01, size)[None]
    found = simulated_ratio(truth, at, scale, np.concatenate([distances, apart]), 0.05)
    assert found[: size // 2].mean() == pytest.approx(2.71 / USUAL, abs=0.07)  # of half of all draws nothing is left
    assert found[size // 2 :].mean() == pytest.approx(1.0, abs=0.1)
