import numpy as np
import pytest

from cord_diffusion import scan, tensors
from decay_model import DECAY
from qcord.core.errors import UnknownName
from qcord.core.image import Image
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.simulate import simulate
from qcord.maps.fit import fit, methods
from qcord.maps.mtsat import mtsat
from qcord.maps.tensor import fit_tensor
from qcord.models.registry import MODELS, get

TRIPLET = Protocol(
    {
        "FlipAngle": [9.0, 15.0, 9.0],
        "RepetitionTimeExcitation": [0.03, 0.015, 0.03],
        "MTState": np.array([False, False, True]),
    }
)


@pytest.fixture
def diffusion():
    theta, _ = tensors(np.linspace(0.3, 0.9, 30), seed=0)
    return scan(theta, 40, 0)


@pytest.fixture
def triplet(oblique_grid):
    measured = simulate(get("mtsat"), np.broadcast_to([1000.0, 1.0, 4.0], (7, 8, 9, 3)), TRIPLET)
    return Series(Image(measured, oblique_grid), TRIPLET)


def test_default_is_the_models_own_estimator(diffusion, triplet):
    series, sigma = diffusion
    np.testing.assert_array_equal(fit("tensor", series)["FA"].data, fit_tensor(series)["FA"].data)
    np.testing.assert_array_equal(
        fit("tensor", series, method="irls", noise=sigma)["FA"].data,
        fit_tensor(series, method="irls", sigma=sigma)["FA"].data,
    )
    np.testing.assert_array_equal(fit("mtsat", triplet)["T1"].data, mtsat(triplet)["T1"].data)
    np.testing.assert_allclose(fit("mtr", triplet)["MTR"].data, 100 * (1 - triplet.data[..., 2] / triplet.data[..., 0]))


@pytest.mark.parametrize("method", ["nonlinear", "robust"])
def test_nonlinear_tensor_agrees_with_the_linear_one_at_high_signal(diffusion, method):
    series, sigma = diffusion
    linear, other = fit("tensor", series, noise=sigma), fit("tensor", series, method=method, noise=sigma)
    gap = np.abs(linear["FA"].data - other["FA"].data) / linear.std["FA"].data
    assert np.median(gap) < 0.3
    ratio = other.std["MD"].data / linear.std["MD"].data
    assert np.all((ratio > 0.85) & (ratio < 1.15))


def test_given_maps_reach_the_closed_form_by_name(triplet, oblique_grid):
    b1 = Image(np.full((7, 8, 9), 0.9), oblique_grid)
    np.testing.assert_array_equal(fit("mtsat", triplet, given={"B1": b1})["T1"].data, mtsat(triplet, b1=b1)["T1"].data)
    half = fit("mtsat", triplet, method="half-tangent")
    assert half["T1"].history[-1].settings["angle"] == "half tangent"


def test_fixed_parameters_choose_the_nonlinear_fit(triplet):
    result = fit("mtsat", triplet, fixed={"R1": 1.0})
    np.testing.assert_allclose(result["MTsat"].data, 4.0, rtol=1e-5)
    assert result["MTsat"].history[-1].settings["method"] == "nonlinear least squares"


def test_a_model_of_ones_own_is_fitted_without_registration(oblique_grid):
    echoes = Protocol({"EchoTime": np.arange(1, 7) * 5e-3})
    measured = simulate(DECAY, np.broadcast_to([800.0, 25.0], (7, 8, 9, 2)), echoes)
    result = fit(DECAY, Series(Image(measured, oblique_grid), echoes))
    np.testing.assert_allclose(result["R2star"].data, 25.0, rtol=1e-5)
    assert methods(DECAY) == ("nonlinear", "robust")


def test_methods_are_listed_and_mistakes_named(diffusion, triplet):
    assert methods(get("tensor")) == ("wls", "iwls", "irls", "nonlinear", "robust")
    assert all(methods(m)[-2:] == ("nonlinear", "robust") for m in MODELS.values())
    with pytest.raises(UnknownName, match="no model 'nodi'"):
        fit("nodi", diffusion[0])
    with pytest.raises(UnknownName, match="no method 'magic' for model tensor; expected one of wls"):
        fit("tensor", diffusion[0], method="magic")
    with pytest.raises(UnknownName, match="with fixed parameters; expected one of nonlinear, robust"):
        fit("tensor", diffusion[0], method="wls", fixed={"S0": 1.0})
    with pytest.raises(UnknownName, match="no given parameter 'B0'"):
        fit("mtsat", triplet, given={"B0": triplet.image.volume(0)})
