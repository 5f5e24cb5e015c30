"""No measurement, however bad, makes the fit of any registered model fail; what it cannot fit, it flags."""

import numpy as np
import pytest

from qcord.core.flags import Flag
from qcord.core.noise import Gaussian, Rician
from qcord.estimate.nonlinear import fit_nonlinear
from qcord.estimate.simulate import simulate
from qcord.models.registry import MODELS


def hostile(n):
    """Measurements that no tissue makes: (v, n)."""
    generator = np.random.default_rng(1)
    rows = [
        np.zeros(n),
        np.full(n, np.nan),
        np.full(n, 1e30),
        np.full(n, 1e-30),
        np.full(n, -5.0),
        np.arange(n) * 1e6,
        np.where(np.arange(n) == 1, np.inf, 1.0),
        *generator.standard_normal((2, n)),
        *np.abs(generator.standard_cauchy((2, n))),
        *(generator.random((2, n)) < 0.2).astype(float),
    ]
    return np.stack(rows)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("settings", [{}, {"sigma": 1.0, "rician": True}, {"sigma": 1.0, "robust": True}])
def test_hostile_measurements_never_raise_and_good_voxels_do_not_notice(name, settings):
    model = MODELS[name]
    protocol, theta = model.example(), model.theta(model.typical[0].values)
    good = simulate(model, theta, protocol, Gaussian(0.01 * np.abs(simulate(model, theta, protocol)).max()), 2)
    rows = np.concatenate([good[None], hostile(len(protocol))])
    many, alone = (fit_nonlinear(model, r, protocol, **settings) for r in (rows, rows[:1]))
    np.testing.assert_allclose(many.theta[0], alone.theta[0], rtol=1e-9, atol=1e-15)
    assert many.flag[1] == Flag.NO_SIGNAL
    assert many.flag[2] == many.flag[7] == Flag.NOT_FINITE
    low, high = np.array([p.bounds for p in model.free]).T
    held = np.isfinite(many.theta)
    assert np.all((many.theta >= low) | ~held)
    assert np.all((many.theta <= high) | ~held)
    assert np.isfinite(many.theta[many.flag == Flag.OK]).all()
    assert np.isfinite(many.covariance[many.flag == Flag.OK]).all()


@pytest.mark.parametrize("name", MODELS)
def test_a_fixed_parameter_keeps_its_value_and_the_others_get_surer(name):
    model = MODELS[name]
    protocol, theta = model.example(), model.theta(model.typical[0].values)
    exact = simulate(model, theta, protocol)
    sigma = 0.02 * np.abs(exact).max()
    noise = Rician(sigma) if (exact > 0).all() else Gaussian(sigma)
    rows = simulate(model, np.broadcast_to(theta, (20, len(theta))), protocol, noise, 3)
    held = model.free[-1].name
    free, fixed = (fit_nonlinear(model, rows, protocol, sigma=sigma, fixed=f) for f in ({}, {held: theta[-1]}))
    assert np.all(fixed.theta[:, -1] == theta[-1])
    assert np.all(fixed.covariance[:, -1] == 0)
    spread = [np.median(np.sqrt(s.covariance[:, 0, 0])) for s in (free, fixed)]
    assert spread[1] <= spread[0] * 1.05
