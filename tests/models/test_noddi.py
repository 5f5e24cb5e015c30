import json
from pathlib import Path

import numpy as np
import pytest
from dipy.core.gradients import gradient_table
from dipy.sims.voxel import single_tensor
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from scipy.spatial.transform import Rotation

from qcord.core.errors import ImplausibleValue, NotIdentifiable
from qcord.core.protocol import Protocol
from qcord.estimate.jacobian import jacobian
from qcord.models.noddi import (
    NODDI,
    axis_of,
    legendre,
    require_shells,
    shells_of,
    start,
    stick_coefficients,
    tilt_of,
    watson_moments,
)
from qcord.testing import check_model

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "noddi.json").read_text())
PROTOCOL = NODDI.example()
GIVEN = NODDI.given_defaults()
D, FREE = GIVEN


def theta_of(icvf=0.6, odi=0.1, isovf=0.1, right=10.0, anterior=25.0, s0=1000.0):
    return np.array([s0, icvf, odi, isovf, right, anterior])


def sphere_integral(theta, protocol, given):
    """The same signal as a sum over many axes, with the second moment matrix of their distribution."""
    s0, icvf, odi, isovf, right, anterior = theta
    parallel, free = given
    axis = axis_of(right, anterior)
    across = np.cross(axis, [1.0, 0, 0] if abs(axis[0]) < 0.9 else [0, 1.0, 0])
    across /= np.linalg.norm(across)
    third = np.cross(axis, across)
    x, weight = np.polynomial.legendre.leggauss(200)
    kappa = 1 / np.tan(np.pi / 2 * odi)
    turn = 2 * np.pi * (np.arange(48) + 0.5) / 48
    density = np.repeat(weight * np.exp(kappa * (x**2 - 1)), 48)
    density /= density.sum()
    height, angle = np.repeat(x, 48), np.tile(turn, 200)
    radius = np.sqrt(1 - height**2)
    axes = np.outer(height, axis) + np.outer(radius * np.cos(angle), across) + np.outer(radius * np.sin(angle), third)
    b, q = protocol["BValue"], protocol["Direction"]
    stick = density @ np.exp(-b * parallel * (axes @ q.T) ** 2)
    perpendicular = parallel * (1 - icvf)
    moment = np.einsum("k,ki,kj->ij", density, axes, axes)
    tensor = perpendicular * np.eye(3) + (parallel - perpendicular) * moment
    hindered = np.exp(-b * np.einsum("ni,ij,nj->n", q, tensor, q))
    return s0 * (isovf * np.exp(-b * free) + (1 - isovf) * (icvf * stick + (1 - icvf) * hindered))


def many_of(theta, protocol, given):
    rows = np.atleast_2d(theta)
    return np.stack([sphere_integral(t, protocol, given) for t in rows]).reshape(*np.shape(theta)[:-1], -1)


def test_the_contract_of_models_with_an_integral_over_the_sphere_as_second_formula():
    check_model(NODDI, oracle=many_of, draws=300)


@pytest.mark.parametrize("odi", [0.004, 0.03, 0.1, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("icvf", [0.0, 0.35, 0.8, 1.0])
def test_signal_is_the_integral_over_the_sphere(icvf, odi):
    theta = theta_of(icvf, odi, 0.15, right=-70.0, anterior=160.0)
    exact = sphere_integral(theta, PROTOCOL, GIVEN)
    np.testing.assert_allclose(NODDI.signal(theta, PROTOCOL, GIVEN), exact, atol=1e-7)


@pytest.mark.parametrize("b", [300.0, 3000.0, 10_000.0])
def test_the_expansion_goes_far_enough_for_any_b_value(b):
    protocol = PROTOCOL.replace(BValue=np.where(PROTOCOL["BValue"] > 0, b, 0))
    for odi in (0.01, 0.2):
        exact = sphere_integral(theta_of(0.7, odi, 0.0), protocol, GIVEN)
        np.testing.assert_allclose(NODDI.signal(theta_of(0.7, odi, 0.0), protocol, GIVEN), exact, atol=1e-6)


@pytest.mark.parametrize("case", REFERENCE["signals"], ids=str)
def test_reference_signals(case):
    angle = np.deg2rad(case["angle_deg"])
    q = [[np.sin(angle) * np.cos(0.7), np.sin(angle) * np.sin(0.7), np.cos(angle)]]
    theta = theta_of(case["ICVF"], case["ODI"], case["ISOVF"], 0.0, 0.0, 1.0)
    signal = NODDI.signal(theta, Protocol({"BValue": [case["BValue"]], "Direction": np.array(q)}), GIVEN)
    assert float(signal[0]) == pytest.approx(case["signal"], rel=1e-9)


@pytest.mark.parametrize("case", REFERENCE["moments"], ids=str)
def test_reference_moments(case):
    second = float(watson_moments(np.array(case["ODI"]), 2)[1])
    assert (1 + 2 * second) / 3 == pytest.approx(case["mean_squared_cosine"], rel=1e-12)


def test_moments_are_those_of_the_density_and_have_their_limits():
    x, weight = np.polynomial.legendre.leggauss(200)
    odi = np.array([0.003, 0.02, 0.15, 0.5, 0.97])
    density = weight * np.exp((x**2 - 1) / np.tan(np.pi / 2 * odi[:, None]))
    exact = [(density * p).sum(axis=1) / density.sum(axis=1) for p in legendre(x, 20)]
    np.testing.assert_allclose(watson_moments(odi, 20), exact, atol=1e-11)
    np.testing.assert_allclose(watson_moments(np.array([0.0, 1.0]), 20)[:, 0], 1, atol=1e-12)
    np.testing.assert_allclose(watson_moments(np.array([0.0, 1.0]), 20)[1:, 1], 0, atol=1e-12)


def test_moments_are_smooth_down_to_parallel_axes():
    """Near ODI 0 the mean of the polynomial of order l falls as 1 - l (l + 1) / (4 kappa)."""
    odi = 1e-7
    order = np.arange(0, 13, 2)
    np.testing.assert_allclose(
        1 - watson_moments(np.array(odi), 12), order * (order + 1) / 4 * np.pi / 2 * odi, rtol=1e-4, atol=1e-14
    )


def test_stick_coefficients_rebuild_the_stick():
    x = np.linspace(-1, 1, 41)
    for exponent in (0.0, 1.2, 5.1):
        rebuilt = sum(c * p for c, p in zip(stick_coefficients(np.array(exponent), 30), legendre(x, 30), strict=True))
        np.testing.assert_allclose(rebuilt, np.exp(-exponent * x**2), atol=1e-9)


def test_parallel_axes_give_a_stick_and_isotropic_ones_its_powder_average():
    b, q = PROTOCOL["BValue"], PROTOCOL["Direction"]
    stick = np.exp(-b * D * (q @ axis_of(10.0, 25.0)) ** 2)
    np.testing.assert_allclose(NODDI.signal(theta_of(1, 1e-9, 0, s0=1.0), PROTOCOL, GIVEN), stick, atol=1e-8)
    size = np.sqrt(np.maximum(b * D, 1e-12))
    powder = np.sqrt(np.pi) * special.erf(size) / (2 * size)
    np.testing.assert_allclose(NODDI.signal(theta_of(1, 1.0, 0, s0=1.0), PROTOCOL, GIVEN), powder, atol=1e-9)


def test_no_neurites_leave_isotropic_diffusion_and_free_water_is_alone_at_one():
    b = PROTOCOL["BValue"]
    np.testing.assert_allclose(NODDI.signal(theta_of(0.0, 0.2, 0.0), PROTOCOL, GIVEN), 1000 * np.exp(-b * D))
    np.testing.assert_allclose(NODDI.signal(theta_of(0.7, 0.2, 1.0), PROTOCOL, GIVEN), 1000 * np.exp(-b * FREE))


@pytest.mark.parametrize("isovf", [0.0, 0.2])
def test_hindered_space_is_the_tensor_of_the_paper(isovf):
    """ICVF weighs the stick; what is left is one tensor with the effective diffusivities of Zhang 2012, by DIPY."""
    theta = theta_of(0.55, 0.12, isovf, 0.0, 0.0, 1.0)
    kappa = 1 / np.tan(np.pi / 2 * 0.12)
    tau = -1 / (2 * kappa) + 1 / (2 * special.dawsn(np.sqrt(kappa)) * np.sqrt(kappa))
    along, across = D - D * 0.55 * (1 - tau), D - D * 0.55 * (1 + tau) / 2
    table = gradient_table(PROTOCOL["BValue"], bvecs=PROTOCOL["Direction"])
    hindered = single_tensor(table, 1.0, evals=np.array([across, across, along]), evecs=np.eye(3), snr=None)
    sticks = NODDI.signal(theta_of(1.0, 0.12, 0.0, 0.0, 0.0, 1.0), PROTOCOL, GIVEN)
    tissue = 0.55 * sticks + 0.45 * hindered
    expected = (1 - isovf) * tissue + isovf * np.exp(-PROTOCOL["BValue"] * FREE)
    np.testing.assert_allclose(NODDI.signal(theta, PROTOCOL, GIVEN), expected, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_turning_scanner_and_tissue_together_changes_nothing(seed):
    generator = np.random.default_rng(seed)
    turn = Rotation.random(random_state=generator).as_matrix()
    theta = theta_of(*generator.uniform(0.02, 0.98, 3), generator.uniform(-85, 85), generator.uniform(-180, 180))
    tilted = theta.copy()
    tilted[4:] = tilt_of(turn @ axis_of(theta[4], theta[5]))
    turned = PROTOCOL.replace(Direction=PROTOCOL["Direction"] @ turn.T)
    before = NODDI.signal(theta, PROTOCOL, GIVEN)
    np.testing.assert_allclose(NODDI.signal(tilted, turned, GIVEN), before, atol=1e-7)
    opposite = PROTOCOL.replace(Direction=-PROTOCOL["Direction"])
    np.testing.assert_allclose(NODDI.signal(theta, opposite, GIVEN), before, rtol=1e-12)


@pytest.mark.parametrize("odi", [1e-6, 1e-4, 0.01, 0.5, 0.99, 1 - 1e-6])
def test_derivatives_hold_for_every_dispersion(odi):
    theta = theta_of(0.5, odi, 0.2)
    exact = jacobian(NODDI, theta, PROTOCOL)
    assert np.isfinite(exact).all()
    for k in range(6):
        step = np.zeros(6)
        step[k] = min(1e-5 * max(abs(theta[k]), 0.1), odi / 4, (1 - odi) / 4) if k == 2 else 1e-5 * max(theta[k], 0.1)
        rise = NODDI.signal(theta + step, PROTOCOL, GIVEN) - NODDI.signal(theta - step, PROTOCOL, GIVEN)
        tolerance = 1e-5 * np.abs(exact[:, k]).max() + 1e-9 / step[k]
        np.testing.assert_allclose(exact[:, k], rise / (2 * step[k]), atol=tolerance)


def test_given_diffusivities_broadcast_and_matter():
    given = np.stack([np.full(5, 1.7e-3), np.linspace(2.5e-3, 3e-3, 5)], axis=1)
    given[2, 0] = 2.2e-3
    together = NODDI.signal(theta_of(), PROTOCOL, given)
    alone = np.stack([NODDI.signal(theta_of(), PROTOCOL, row) for row in given])
    np.testing.assert_allclose(together, alone, rtol=1e-9)
    assert np.abs(together[2] - together[3]).max() > 5


def test_start_is_near_the_truth_of_exact_signals():
    generator = np.random.default_rng(0)
    axis = generator.normal(size=(400, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    fractions = generator.uniform([0.2, 0.03, 0.0], [0.9, 0.5, 0.5], (400, 3))
    theta = np.column_stack([np.full(400, 700.0), fractions, *tilt_of(axis.T)])
    guess = start(NODDI.signal(theta, PROTOCOL, GIVEN), PROTOCOL, GIVEN)
    assert np.sqrt(((guess - theta)[:, 1:4] ** 2).mean(axis=0)).max() < 0.05
    turn = np.abs((axis_of(guess[:, 4], guess[:, 5]) * axis).sum(axis=1))
    assert np.rad2deg(np.arccos(np.minimum(turn, 1))).max() < 3


def test_shells_are_told_apart_by_b_value():
    b = np.array([0, 5, 690, 700, 710, 1990.0, 2000, 2010, 0])
    groups = shells_of(Protocol({"BValue": b}))
    assert [sorted(g.tolist()) for g in groups] == [[0, 1, 8], [2, 3, 4], [5, 6, 7]]


def test_what_a_protocol_lacks_is_named():
    b = PROTOCOL["BValue"]
    require_shells(PROTOCOL)
    with pytest.raises(NotIdentifiable, match=r"7 volumes at b = 0 .* 24 at 700 s/mm2; NODDI takes b = 0 and two"):
        require_shells(PROTOCOL.take(b < 1000))
    with pytest.raises(NotIdentifiable, match="0 volumes at b = 0"):
        require_shells(PROTOCOL.take(b > 0))
    with pytest.raises(NotIdentifiable, match="24 at 700, 36 at 1200"):
        require_shells(PROTOCOL.replace(BValue=np.where(b > 1000, 1200.0, b)))
    with pytest.raises(ImplausibleValue, match="model noddi knows linear encoding"):
        require_shells(PROTOCOL.replace(BDelta=np.where(b > 1000, 0.0, 1.0)))
