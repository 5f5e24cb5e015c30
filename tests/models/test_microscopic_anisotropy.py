import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.spatial.transform import Rotation

from qcord.core.errors import NotIdentifiable
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Gaussian
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.bound import crlb
from qcord.estimate.fit import fit as fit_nonlinear
from qcord.estimate.jacobian import jacobian
from qcord.estimate.simulate import simulate
from qcord.models.microscopic_anisotropy import (
    CUMULANT,
    GAMMA,
    microscopic_anisotropy,
    order_parameter,
    powder_design,
    squared_anisotropy,
)
from tensor_ensembles import axisymmetric, full_b_tensors, gray_matter, spiral, truth_of, white_matter

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "microscopic_anisotropy.json").read_text())
FORMS = (GAMMA, CUMULANT)
PROTOCOL = GAMMA.example()
NOTHING = np.empty(0)


def theta_of(tensors, s0=1000.0):
    truth = truth_of(tensors)
    return np.array([s0, truth["MD"], truth["V_I"], truth["V_A"]])


def powder_signal(tensors, b, delta, directions=200):
    """Mean over many directions of the summed signal of an ensemble."""
    q = spiral(directions)
    protocol = Protocol({"BValue": np.full(directions, b), "Direction": q, "BDelta": np.full(directions, delta)})
    return np.exp(-np.einsum("nij,kij->nk", full_b_tensors(protocol), tensors)).mean()


@pytest.mark.parametrize("case", REFERENCE, ids=lambda c: c["what"])
@pytest.mark.parametrize("model", FORMS, ids=lambda m: m.name)
def test_reference_values(model, case):
    theta = np.array([1.0, case["MD"], case["V_I"], case["V_A"]])
    for derived in model.derived:
        assert float(derived.formula(theta)) == pytest.approx(case[derived.name], rel=1e-9, abs=1e-12)


def test_relation_to_the_definition_of_2014():
    """muFA_2014^2 = 3/2 / (1 + 2/5 MD^2 / V_A), with no V_I; the docstring says how the two are related."""
    theta = np.array([1.0, 0.8e-3, 1e-7, 2e-7])
    older = 1.5 / (1 + 0.4 * 0.8e-3**2 / 2e-7)
    assert 1 / older == pytest.approx(1 / squared_anisotropy(theta) - 2 * 1e-7 / (3 * 2.5 * 2e-7))
    theta[2] = 0
    assert older == pytest.approx(squared_anisotropy(theta))


def test_gamma_signal_is_the_transform_of_a_gamma_distribution():
    mean, isotropic, anisotropic = 0.9e-3, 1e-7, 3e-7
    signal = GAMMA.signal(np.array([1.0, mean, isotropic, anisotropic]), PROTOCOL, NOTHING)
    for b, delta, value in zip(PROTOCOL["BValue"], PROTOCOL["BDelta"], signal, strict=True):
        variance = isotropic + anisotropic * delta**2
        density = stats.gamma(a=mean**2 / variance, scale=variance / mean)
        direct, _ = integrate.quad(lambda d: density.pdf(d) * np.exp(-b * d), 0, 0.02, limit=400, points=[mean])  # noqa: B023
        assert value == pytest.approx(direct, rel=1e-6)


@pytest.mark.parametrize("ratio", [-0.6, -1e-9, 0.0, 1e-12, 1e-6, 0.3, 3.0, 10.0])
def test_gamma_signal_without_quadrature(ratio):
    """The closed form (1 + b V / MD)^(-MD^2 / V), and the exponential where V is zero."""
    b, mean = 2000.0, 1e-3
    variance = ratio * mean / b
    protocol = Protocol({"BValue": [b], "BDelta": [0.0]})
    expected = np.exp(-b * mean) if ratio == 0 else np.exp(-(mean**2) / variance * np.log1p(ratio))
    signal = GAMMA.signal(np.array([1.0, mean, variance, 0.0]), protocol, NOTHING)
    np.testing.assert_allclose(signal, expected, rtol=1e-11)


def test_cumulant_signal_is_the_second_order_expansion():
    b, delta = PROTOCOL["BValue"], PROTOCOL["BDelta"]
    signal = CUMULANT.signal(np.array([7.0, 0.9e-3, 1e-7, 3e-7]), PROTOCOL, NOTHING)
    np.testing.assert_allclose(
        np.log(signal), np.log(7.0) - b * 0.9e-3 + 0.5 * b**2 * (1e-7 + 3e-7 * delta**2), rtol=1e-12
    )


@pytest.mark.parametrize("model", FORMS, ids=lambda m: m.name)
def test_both_forms_share_their_first_two_cumulants(model):
    theta = np.array([1.0, 0.9e-3, 1e-7, 3e-7])
    protocol = Protocol({"BValue": np.full(3, 5.0), "BDelta": [1.0, 0.0, -0.5]})
    logs = np.log(model.signal(theta, protocol, NOTHING))
    variance = 1e-7 + 3e-7 * np.array([1, 0, 0.25])
    np.testing.assert_allclose((logs + 5 * 0.9e-3) / 12.5, variance, rtol=5e-3)


@pytest.mark.parametrize("model", FORMS, ids=lambda m: m.name)
def test_derivatives_are_those_of_finite_differences(model):
    scale = np.array([1.0, 1e-3, 1e-7, 1e-7])
    for theta in (np.array([1.0, 0.9e-3, 1e-7, 3e-7]), np.array([1.0, 0.9e-3, 0.0, 0.0])):
        slope = jacobian(model, theta, PROTOCOL)
        for k in range(4):
            step = np.zeros(4)
            step[k] = 1e-5 * scale[k]
            up, down = (model.signal(theta + s * step, PROTOCOL, NOTHING) for s in (1, -1))
            np.testing.assert_allclose(slope[:, k] * scale[k], (up - down) / 2e-5, atol=1e-8)


@pytest.mark.parametrize("model", FORMS, ids=lambda m: m.name)
def test_start_is_finite_and_near(model):
    theta = np.array([model.theta(t.values) for t in model.typical]) * [900, 1, 1, 1]
    guess = model.start(model.signal(theta, PROTOCOL, NOTHING), PROTOCOL, NOTHING)
    np.testing.assert_allclose(guess[:, :2], theta[:, :2], rtol=0.06)
    assert np.isfinite(model.start(np.zeros((3, 9)), PROTOCOL, NOTHING)[:, 1:]).all()
    lacking = PROTOCOL.take([0, 1])
    assert model.start(np.ones((2, 2)), lacking, NOTHING).shape == (2, 4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_values_of_any_ensemble_follow_from_its_variances_and_do_not_turn(seed):
    generator = np.random.default_rng(seed)
    root = generator.normal(size=(generator.integers(1, 6), 3, 3))
    tensors = 1e-3 * root @ np.swapaxes(root, 1, 2)
    truth = truth_of(tensors)
    theta = theta_of(tensors)
    assert microscopic_anisotropy(theta) == pytest.approx(truth["muFA"], rel=1e-9)
    turn = Rotation.random(random_state=generator).as_matrix()
    turned = truth_of(turn @ tensors @ turn.T)
    for name, value in truth.items():
        assert turned[name] == pytest.approx(value, rel=1e-7)
    assert 0 < truth["muFA"] <= 1
    assert truth["OP"] <= 1 + 1e-9
    if len(tensors) == 1:
        assert truth["muFA"] == pytest.approx(truth["FA"], rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 0.95), st.integers(0, 2**31), st.floats(0.05, 3.0))
def test_order_parameter_is_that_of_aligned_axes(fa, seed, tilt):
    """Equal axisymmetric tensors: OP is the mean second Legendre polynomial about the axis of the mean tensor."""
    part = fa / np.sqrt(3 - 2 * fa**2)
    turn = np.arange(7) * 2 * np.pi / 7
    axes = np.stack([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.full(7, np.cos(tilt))], axis=1)
    tensors = axisymmetric(1e-3 * (1 + 2 * part), 1e-3 * (1 - part), axes)
    truth = truth_of(tensors)
    assert truth["muFA"] == pytest.approx(fa, rel=1e-9)
    expected = abs(1.5 * np.cos(tilt) ** 2 - 0.5)
    kurtosis = 3 * truth["V_A"] / truth["MD"] ** 2
    assert order_parameter(truth["FA"], kurtosis) == pytest.approx(expected, abs=1e-7)
    assert truth["OP"] == pytest.approx(expected, abs=1e-7)


def test_sticks_have_one_and_isotropic_mixtures_zero():
    sticks = truth_of(axisymmetric(np.linspace(0.5e-3, 3e-3, 50), 0.0, spiral(50)))
    assert sticks["muFA"] == pytest.approx(1, rel=1e-9)
    balls = truth_of(np.linspace(0.5e-3, 3e-3, 50)[:, None, None] * np.eye(3))
    assert balls["muFA"] == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("make", [white_matter, gray_matter])
@pytest.mark.parametrize("model", FORMS, ids=lambda m: m.name)
def test_low_b_values_of_summed_signals_give_the_truth(model, make):
    """Brute force: signals of an ensemble, averaged over directions, at b-values so low that third order vanishes."""
    tensors = make()
    b = np.array([0.0, 30, 60, 90, 30, 60, 90, 60])
    delta = np.array([0, 0, 0, 0, 1, 1, 1, -0.5])
    protocol = Protocol({"BValue": b, "BDelta": delta})
    measured = np.array([powder_signal(tensors, *row) for row in zip(b, delta, strict=True)])
    theta = model.start(measured, protocol, NOTHING)
    for _ in range(20):  # Gauss-Newton from the start
        slope = jacobian(model, theta, protocol)
        scale = np.abs(theta)
        step = np.linalg.lstsq(slope * scale, measured - model.signal(theta, protocol, NOTHING), rcond=None)[0]
        theta = theta + step * scale
    truth = truth_of(tensors)
    np.testing.assert_allclose(theta[1], truth["MD"], rtol=1e-3)
    assert microscopic_anisotropy(theta) == pytest.approx(truth["muFA"], rel=0.01)


def test_protocols_that_do_not_separate_the_variances_are_refused():
    for b, delta in (([0, 1000, 2000, 2000], [0, 1, 1, 1]), ([0, 1000, 1000, 1000], [0, 1, 0, 1]), ([0, 1000], [0, 1])):
        with pytest.raises(NotIdentifiable, match="muFA takes b = 0, two other b-values and two shapes"):
            powder_design(Protocol({"BValue": np.array(b, float), "BDelta": np.array(delta, float)}))
    assert powder_design(Protocol({"BValue": [0.0, 1000, 2000, 2000], "BDelta": [0, 0.0, 0, 1]})).shape == (4, 4)


def test_spherical_encoding_is_worth_more_than_planar():
    """Bound of muFA with the same number of averages: spherical encoding is further from linear than planar is."""
    theta = GAMMA.theta(GAMMA.typical[0].values)
    b = np.array([0.0, 700, 1400, 2000, 700, 1400, 2000])
    least = {}
    for other in (0.0, -0.5):
        delta = np.array([0, 1, 1, 1, other, other, other])
        covariance = crlb(GAMMA, theta, Protocol({"BValue": b, "BDelta": delta}), Gaussian(0.01))
        least[other] = np.sqrt(covariance[3, 3])
    assert least[0.0] < 0.85 * least[-0.5]


@pytest.mark.parametrize("values", [(1.0, 0.85e-3, 1.1e-7, 1.31e-7), (1.0, 0.8e-3, 2e-7, 2.6e-7)])
def test_root_has_an_error_where_it_has_a_value_and_less_its_bias_is_right_on_average(values):
    theta = np.array(values)
    measured = simulate(GAMMA, np.broadcast_to(theta, (30, 50, 1, 4)), PROTOCOL, Gaussian(0.04), seed=2)
    found = fit_nonlinear(GAMMA, Series(Image(measured, Grid((30, 50, 1), np.eye(4))), PROTOCOL), noise=Gaussian(0.04))
    value, std, bias = (np.asarray(m["muFA"].data, dtype=float) for m in (found.maps, found.std, found.bias))
    has = np.isfinite(value)
    assert 0.7 < has.mean() < 0.98
    assert np.isfinite(std[has]).mean() > 0.998
    corrected = (value - bias)[np.isfinite(bias)]
    assert abs(corrected.mean() - microscopic_anisotropy(theta)) < 0.2 * corrected.std()
