import numpy as np
import pytest
from dipy.reconst.msdki import msk_from_awf
from scipy import special

from qcord.core.errors import ImplausibleValue, NotIdentifiable
from qcord.core.protocol import Protocol
from qcord.models.noddi import NODDI
from qcord.models.spherical_mean import SMT, SMT_MC, compartment_start, mean_of_axis, require_averages, start
from qcord.testing import check_model

NOTHING = np.empty(0)
PROTOCOL = Protocol({"BValue": np.array([0.0, 300.0, 700.0, 1500.0, 2500.0, 6000.0])})


def closed(along, across, b):
    """Error function form of the papers."""
    x = np.sqrt(np.maximum(b * (along - across), 1e-14))
    return np.exp(-b * across) * np.sqrt(np.pi) * special.erf(x) / (2 * x)


def tensor_oracle(theta, protocol, given):
    s0, mean, delta = np.moveaxis(np.asarray(theta)[..., None], -2, 0)
    return s0 * closed(mean * (1 + 2 * delta), mean * (1 - delta), protocol["BValue"])


def compartment_oracle(theta, protocol, given):
    s0, fraction, along = np.moveaxis(np.asarray(theta)[..., None], -2, 0)
    b = protocol["BValue"]
    around = closed(along, (1 - fraction) * along, b)
    return s0 * (fraction * closed(along, 0 * along, b) + (1 - fraction) * around)


@pytest.mark.parametrize(("model", "oracle"), [(SMT, tensor_oracle), (SMT_MC, compartment_oracle)])
def test_the_contract_of_models_with_the_error_function_as_second_formula(model, oracle):
    check_model(model, oracle=oracle, snr=200.0, draws=1000)


@pytest.mark.parametrize("delta", [0.0, 0.02, 0.4, 0.9, 1.0])
def test_signal_is_the_mean_over_the_sphere(delta):
    """One tensor along any axis, summed over evenly spaced directions."""
    mean, k = 0.9e-3, np.arange(4000) + 0.5
    height = 1 - 2 * k / 4000
    square = height**2
    along, across = mean * (1 + 2 * delta), mean * (1 - delta)
    exact = [np.exp(-b * (across + (along - across) * square)).mean() for b in PROTOCOL["BValue"]]
    np.testing.assert_allclose(SMT.signal(np.array([1.0, mean, delta]), PROTOCOL, NOTHING), exact, atol=1e-6)


def test_quadrature_is_exact_for_strong_weighting_and_flat_tensors():
    b = np.array([0.0, 1000.0, 8000.0, 20_000.0])
    np.testing.assert_allclose(mean_of_axis(np.array([2e-3]), np.array([0.0]), b), closed(2e-3, 0.0, b), atol=1e-12)
    x = np.sqrt(b[1:3] * 1e-3)
    flat = np.exp(-b[1:3] * 1e-3) * special.erfi(x) * np.sqrt(np.pi) / (2 * x)
    np.testing.assert_allclose(mean_of_axis(np.array([0.0]), np.array([1e-3]), b[1:3]), flat, rtol=1e-9)


def test_limits_of_the_fraction():
    b = PROTOCOL["BValue"]
    sticks = SMT_MC.signal(np.array([1.0, 1.0, 1.9e-3]), PROTOCOL, NOTHING)
    np.testing.assert_allclose(sticks, closed(1.9e-3, 0.0, b), atol=1e-12)
    np.testing.assert_allclose(SMT_MC.signal(np.array([1.0, 0.0, 1.9e-3]), PROTOCOL, NOTHING), np.exp(-b * 1.9e-3))
    np.testing.assert_allclose(SMT.signal(np.array([1.0, 1e-3, 0.0]), PROTOCOL, NOTHING), np.exp(-b * 1e-3))


@pytest.mark.parametrize("odi", [0.02, 0.3, 0.95])
def test_fibre_directions_do_not_matter(odi):
    """NODDI's sticks alone, averaged over many directions, are the sticks of smt-mc however they are dispersed."""
    k = np.arange(3000) + 0.5
    height, turn = 1 - 2 * k / 3000, np.pi * (1 + 5**0.5) * k
    radius = np.sqrt(1 - height**2)
    q = np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)
    protocol = Protocol({"BValue": np.full(3000, 2000.0), "Direction": q})
    noddi = NODDI.signal(np.array([1.0, 1.0, odi, 0.0, 20.0, -40.0]), protocol, NODDI.given_defaults()).mean()
    averaged = Protocol({"BValue": [2000.0]})
    np.testing.assert_allclose(SMT_MC.signal(np.array([1.0, 1.0, 1.7e-3]), averaged, NOTHING), noddi, rtol=1e-4)


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
def test_kurtosis_of_the_mean_signal_is_that_of_dipy(fraction):
    """Second cumulant of the mean signal at b = 0, by differences, over the squared first: DIPY's relation."""
    step = 10.0
    b = Protocol({"BValue": step * np.arange(5)})
    log = np.log(SMT_MC.signal(np.array([1.0, fraction, 1.9e-3]), b, NOTHING))
    second = (35 * log[0] - 104 * log[1] + 114 * log[2] - 56 * log[3] + 11 * log[4]) / (12 * step**2)
    first = (-25 * log[0] + 48 * log[1] - 36 * log[2] + 16 * log[3] - 3 * log[4]) / (12 * step)
    assert 3 * second / first**2 == pytest.approx(float(msk_from_awf(np.array([fraction]))[0]), rel=2e-3)


def test_anisotropy_is_that_of_the_eigenvalues():
    theta = np.array([1.0, 0.9e-3, 0.55])
    values = {d.name: float(d.formula(theta)) for d in SMT.derived}
    eigenvalues = np.array([values["MicroAD"], values["MicroRD"], values["MicroRD"]])
    apart = eigenvalues - eigenvalues.mean()
    assert values["MicroFA"] == pytest.approx(np.sqrt(1.5 * (apart**2).sum() / (eigenvalues**2).sum()), rel=1e-12)
    assert eigenvalues.mean() == pytest.approx(0.9e-3)


@pytest.mark.parametrize(("model", "first"), [(SMT, start), (SMT_MC, compartment_start)])
def test_starts_are_near_the_truth(model, first):
    theta = np.array([[800.0, 0.9e-3, 0.6], [800.0, 0.7e-3, 0.3]])
    if model is SMT_MC:
        theta = np.array([[800.0, 0.6, 1.9e-3], [800.0, 0.3, 1.4e-3]])
    protocol = model.example()
    guess = first(model.signal(theta, protocol, NOTHING), protocol, NOTHING)
    np.testing.assert_allclose(guess, theta, rtol=0.3)
    assert np.isfinite(first(np.full((2, 3), np.nan), protocol, NOTHING)).all()


def test_what_averages_lack_is_named():
    require_averages(SMT.example())
    for b in ([0.0, 2000.0], [700.0, 2000.0], [0.0, 300.0, 700.0], [0.0, 1900.0, 2000.0]):
        with pytest.raises(NotIdentifiable, match="takes b = 0 and two others"):
            require_averages(Protocol({"BValue": b}))
    with pytest.raises(ImplausibleValue, match="model smt knows linear encoding"):
        require_averages(Protocol({"BValue": [0.0, 700.0, 2000.0], "BDelta": [1.0, 1.0, 0.0]}))
