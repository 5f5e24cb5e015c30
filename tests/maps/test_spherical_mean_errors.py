import numpy as np
from scipy.optimize import least_squares

from qcord.core.noise import Gaussian
from qcord.core.protocol import Protocol
from qcord.estimate.bound import crlb
from qcord.maps.spherical_mean_errors import curve
from qcord.models.spherical_mean import SMT

PROTOCOL = Protocol({"BValue": np.array([0.0, 500.0, 1200.0, 2400.0])})
NOTHING = np.empty(0)
LEVELS = np.array([0.005, 0.01, 0.015, 0.02])


def test_curve_is_the_best_of_the_other_parameters():
    """Against a general optimiser, whose start is far off."""
    measured = SMT.signal(np.array([0.9, 0.8e-3, 0.6]), PROTOCOL, NOTHING) + LEVELS * [1.0, -0.5, 0.7, -1.2]
    nodes = np.array([[0.0001], [0.2], [0.55], [0.95]])
    found = curve(
        measured[:, None], LEVELS[:, None] ** -2.0, PROTOCOL["BValue"], nodes, np.full((4, 1), 1e-3), rounds=8
    )
    for k, delta in enumerate(nodes[:, 0]):

        def residual(x, delta=delta):
            return (SMT.signal(np.array([x[0], x[1] * 1e-3, delta]), PROTOCOL, NOTHING) - measured) / LEVELS

        best = least_squares(residual, [1.0, 2.0], xtol=1e-14, ftol=1e-14, gtol=1e-14)
        np.testing.assert_allclose(found.theta[:2, k, 0], best.x * [1, 1e-3], rtol=1e-6)
        np.testing.assert_allclose(found.misfit[k, 0], 2 * best.cost, rtol=1e-9)
        np.testing.assert_allclose(
            found.spread[:, k, 0], np.diag(np.linalg.inv(best.jac.T @ best.jac)) * [1, 1e-6], rtol=1e-4
        )


def test_information_is_that_of_the_bound():
    theta = np.array([1.1, 0.9e-3, 0.5])
    clean = SMT.signal(theta, PROTOCOL, NOTHING)
    found = curve(
        clean[:, None], LEVELS[:, None] ** -2.0, PROTOCOL["BValue"], theta[2:, None], theta[1:2, None], rounds=0
    )
    covariance = crlb(SMT, theta, PROTOCOL, Gaussian(LEVELS))
    np.testing.assert_allclose(found.information[0, 0], 1 / covariance[2, 2], rtol=1e-6)
    np.testing.assert_allclose(found.theta[0, 0, 0], 1.1, rtol=1e-12)
    assert found.misfit[0, 0] < 1e-20
