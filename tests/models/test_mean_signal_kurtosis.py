import json
from pathlib import Path

import numpy as np
import pytest

from qcord.core.protocol import Protocol
from qcord.models.kurtosis import example
from qcord.models.mean_signal_kurtosis import MEAN_SIGNAL_KURTOSIS

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
