import json
from pathlib import Path

import numpy as np
import pytest

from qcord.core.errors import MissingMetadata, NotIdentifiable
from qcord.core.protocol import Protocol
from qcord.models.kurtosis import even_directions, example
from qcord.models.mean_signal_kurtosis import MEAN_SIGNAL_KURTOSIS, mean_weights, shells

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "mean_signal_kurtosis.json").read_text())
NONE = np.empty(0)


@pytest.mark.parametrize("case", REFERENCE, ids=lambda c: c["what"])
def test_reference_values(case):
    theta = MEAN_SIGNAL_KURTOSIS.theta(case["theta"])
    found = MEAN_SIGNAL_KURTOSIS.signal(theta, Protocol({"BValue": case["BValue"]}), NONE)
    np.testing.assert_allclose(found, case["signal"], atol=case["tolerance"])


def test_mean_of_sticks_has_their_published_kurtosis():
    """Sticks in all directions: MSD a third of their diffusivity, MSK 3 var / mean^2 = 12/5, from the expansion."""
    b = np.array([1.0, 2.0])
    height, weight = np.polynomial.legendre.leggauss(60)
    mean = np.exp(-np.multiply.outer(b, 2e-3 * height**2)) @ weight / 2
    slope = -np.log(mean) / b
    bend = 6 * (slope[0] - slope[1]) / (b[1] - b[0])
    diffusivity = slope[0] + bend * b[0] / 6
    assert diffusivity == pytest.approx(2e-3 / 3, rel=1e-5)
    assert bend / diffusivity**2 == pytest.approx(12 / 5, rel=5e-3)
    theta = np.array([1.0, 2e-3 / 3, 12 / 5])
    protocol = Protocol({"BValue": [50.0, 100.0]})
    exact = np.exp(-np.multiply.outer([50.0, 100.0], 2e-3 * height**2)) @ weight / 2
    np.testing.assert_allclose(MEAN_SIGNAL_KURTOSIS.signal(theta, protocol, NONE), exact, rtol=2e-4)


def test_start_recovers_noise_free_parameters_and_never_raises():
    theta = np.array([[900.0, 1e-3, 0.8], [500.0, 7e-4, 1.6], [10.0, 2e-3, 0.1]])
    start = MEAN_SIGNAL_KURTOSIS.start
    assert start is not None
    found = start(MEAN_SIGNAL_KURTOSIS.signal(theta, example(), NONE), example(), NONE)
    np.testing.assert_allclose(found, theta, rtol=1e-8)
    poor = Protocol({"BValue": [0.0, 800.0]})
    assert np.isfinite(start(np.array([[0.0, -1.0], [2.0, 1.0], [0.0, 0.0]]), poor, NONE)).all()


def test_shells_are_told_apart_and_scatter_within_one_is_not():
    b = [0.0, 5.0, 50.0, 700.0, 710.0, 2000.0, 690.0, 1950.0, 300.0]
    np.testing.assert_array_equal(shells(Protocol({"BValue": b})), [0, 0, 0, 2, 2, 3, 2, 3, 1])


def random_directions(count, seed):
    directions = np.random.default_rng(seed).normal(size=(count, 3))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def two_shells(first, second):
    b = np.repeat([0.0, 700.0, 2000.0], [4, len(first), len(second)])
    return Protocol({"BValue": b, "Direction": np.concatenate([np.zeros((4, 3)), first, second])}, "two.bval")


def test_weights_make_means_of_fourth_order_exact():
    q = random_directions(60, 0)
    weights, b = mean_weights(two_shells(even_directions(30), q))
    np.testing.assert_allclose(b, [0, 700, 2000])
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    moments = [(q[:, 2] ** 2, 1 / 3), (q[:, 0] ** 4, 1 / 5), (q[:, 0] ** 2 * q[:, 1] ** 2, 1 / 15)]
    for values, mean in moments:
        assert weights[2, 34:] @ values == pytest.approx(mean, abs=1e-6)
    assert max(abs(values.mean() - mean) for values, mean in moments) > 0.01
    equal = weights[1, 4:34] * 30
    assert np.abs(equal - 1).max() < 0.3
    assert 30 * (weights[1] ** 2).sum() < 1.03


def test_what_makes_no_mean_is_named():
    good = even_directions(20)
    with pytest.raises(NotIdentifiable, match="The 4 directions at 700 s/mm2 of two.bval are too few or too uneven"):
        mean_weights(two_shells(good[:4], good))
    cap = good[good[:, 2] > 0.5]
    with pytest.raises(NotIdentifiable, match="at 2000 s/mm2"):
        mean_weights(two_shells(good, cap))
    with pytest.raises(NotIdentifiable, match="has the b-values 0, 700 s/mm2, expected b = 0 and two more"):
        mean_weights(two_shells(good, good[:0]))
    with pytest.raises(NotIdentifiable, match="has the b-values 700, 2000"):
        mean_weights(two_shells(good, good).take(np.arange(4, 44)))
    with pytest.raises(MissingMetadata, match="Direction is absent"):
        mean_weights(Protocol({"BValue": [0.0, 700.0, 2000.0]}))


def test_trace_images_count_as_means():
    weights, _ = mean_weights(Protocol({"BValue": [0.0, 700.0, 700.0, 2000.0], "Direction": np.zeros((4, 3))}))
    np.testing.assert_allclose(weights, [[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1]])
