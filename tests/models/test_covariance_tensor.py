import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from qcord.core.errors import NotIdentifiable
from qcord.core.protocol import Protocol
from qcord.models.covariance_tensor import (
    COVARIANCES,
    INVARIANTS,
    QTI,
    ROOTS,
    covariance_design,
    distribution,
    example,
    moments,
    ratios,
)
from qcord.models.encoding import b_tensors
from qcord.models.tensor import TENSOR
from tensor_ensembles import (
    axisymmetric,
    elements,
    full_b_tensors,
    gray_matter,
    linear_and_spherical,
    spiral,
    summed_signal,
    truth_of,
)

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "covariance_tensor.json").read_text())
NOTHING = np.empty(0)
PROTOCOL = example()


def values_of(theta):
    found = ratios(moments(theta))
    return {name: np.sqrt(v) if name in ROOTS else v for name, v in found.items()}


def random_ensemble(seed):
    generator = np.random.default_rng(seed)
    root = generator.normal(size=(generator.integers(1, 8), 3, 3))
    return 1e-3 * root @ np.swapaxes(root, 1, 2), generator


@pytest.mark.parametrize("case", REFERENCE, ids=lambda c: c["what"])
def test_reference_values(case):
    theta = distribution(1e-3 * np.array(case["tensors_um2_per_ms"]))
    for derived in QTI.derived:
        if derived.name in case:
            with np.errstate(invalid="ignore"):
                assert float(derived.formula(theta)) == pytest.approx(case[derived.name], rel=1e-9, abs=1e-7)


def test_names_of_parameters_are_those_of_the_elements():
    assert [p.name for p in QTI.free[:3]] == ["S0", "Dxx", "Dyy"]
    assert len(set(COVARIANCES)) == 21
    assert COVARIANCES[0] == "Cxx_xx"
    assert COVARIANCES[-1] == "Cyz_yz"
    assert set(INVARIANTS) == {d.name for d in QTI.derived} == set(ratios(np.ones(4) + np.arange(4)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_values_are_those_of_the_ensemble_and_do_not_turn(seed):
    tensors, generator = random_ensemble(seed)
    found = values_of(distribution(elements(tensors)))
    truth = truth_of(tensors)
    for name, value in truth.items():
        assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-12), name
    turn = Rotation.random(random_state=generator).as_matrix()
    turned = values_of(distribution(elements(turn @ tensors @ turn.T)))
    for name, value in found.items():
        assert turned[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name
    assert found["K_bulk"] + found["K_shear"] >= -1e-12


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_signal_is_the_double_contraction(seed):
    """Full 3 x 3 x 3 x 3 tensors, written out."""
    tensors, _ = random_ensemble(seed)
    mean = tensors.mean(axis=0)
    apart = tensors - mean
    covariance = np.einsum("kab,kcd->abcd", apart, apart) / len(tensors)
    b = full_b_tensors(PROTOCOL)
    logs = -np.einsum("nab,ab->n", b, mean) + np.einsum("nab,ncd,abcd->n", b, b, covariance) / 2
    signal = QTI.signal(distribution(elements(tensors), 5.0), PROTOCOL, NOTHING)
    np.testing.assert_allclose(np.log(signal / 5.0), logs, rtol=1e-8, atol=1e-10)


def test_one_tensor_is_the_tensor_model():
    tensor = elements(np.diag([1.5e-3, 0.7e-3, 0.4e-3])[None])
    theta = distribution(tensor, 800.0)
    np.testing.assert_allclose(
        QTI.signal(theta, PROTOCOL, NOTHING), TENSOR.signal(theta[:7], PROTOCOL, NOTHING), rtol=1e-12
    )


def test_signals_of_summed_ensembles_agree_at_low_b_values():
    protocol = PROTOCOL.replace(BValue=PROTOCOL["BValue"] / 20)
    tensors = gray_matter()
    signal = QTI.signal(distribution(elements(tensors), 1000.0), protocol, NOTHING)
    np.testing.assert_allclose(signal, summed_signal(tensors, protocol), rtol=2e-5)


def test_start_recovers_noise_free_parameters():
    theta = np.array([QTI.theta(t.values) for t in QTI.typical])
    guess = QTI.start(QTI.signal(theta, PROTOCOL, NOTHING), PROTOCOL, NOTHING)
    np.testing.assert_allclose(guess, theta, rtol=1e-6, atol=1e-14)
    assert np.isnan(QTI.start(np.ones((2, 3)), PROTOCOL.take([0, 9, 19]), NOTHING)).all()


def test_linear_and_spherical_encoding_leave_five_unknowns():
    with pytest.raises(NotIdentifiable, match=r"shapes \[0.0, 1.0\]\) determine 23 of the 28"):
        covariance_design(linear_and_spherical())
    linear = linear_and_spherical().take(np.arange(64))
    with pytest.raises(NotIdentifiable, match="determine 22 of the 28"):
        covariance_design(linear)


def unit(n):
    rows = np.random.default_rng(n).normal(size=(n, 3))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_fifteen_linear_and_six_planar_directions_are_enough():
    q, few = unit(15), unit(6)
    b = np.repeat([0.0, 1000, 2000, 2000], [1, 15, 15, 6])
    columns = {
        "BValue": b,
        "Direction": np.r_[np.zeros((1, 3)), q, q, few],
        "BDelta": np.repeat([1.0, -0.5], [31, 6]),
    }
    assert covariance_design(Protocol(columns)).shape == (37, 28)
    with pytest.raises(NotIdentifiable, match="of the 28"):
        covariance_design(Protocol(columns).take(np.arange(36)))


def test_signals_are_those_of_dipy():
    qti = pytest.importorskip("dipy.reconst.qti")
    from dipy.core.gradients import gradient_table

    tensors = axisymmetric(np.linspace(1e-3, 2e-3, 30), 0.3e-3, spiral(30))
    q = PROTOCOL["Direction"].copy()
    q[~q.any(axis=1)] = [0, 0, 1]
    table = gradient_table(PROTOCOL["BValue"], bvecs=q, btens=full_b_tensors(PROTOCOL))
    mean = qti.from_3x3_to_6x1(tensors.mean(axis=0))
    covariance = qti.from_6x6_to_21x1(qti.dtd_covariance(tensors))
    theirs = qti.qti_signal(table, mean, covariance, S0=700.0)
    mine = QTI.signal(distribution(elements(tensors), 700.0), PROTOCOL, NOTHING)
    np.testing.assert_allclose(mine, np.ravel(theirs), rtol=1e-10)
    np.testing.assert_allclose(elements(full_b_tensors(PROTOCOL)), b_tensors(PROTOCOL), atol=1e-9)
