import numpy as np
import pytest

from cord_kurtosis import compartments, truth, typical
from qcord.core.errors import MissingMetadata, NotIdentifiable
from qcord.core.noise import Gaussian
from qcord.core.protocol import Protocol
from qcord.estimate.bound import crlb
from qcord.models.kurtosis import (
    ELEMENTS,
    KURTOSIS,
    distinct_axes,
    even_directions,
    example,
    fourth_order,
    log_design,
)
from qcord.models.kurtosis_metrics import INDICES
from qcord.models.tensor import TENSOR

NONE = np.empty(0)


def test_signal_is_the_cumulant_expansion_written_out():
    theta = compartments(12, 0)
    protocol = example()
    b, q = protocol["BValue"], protocol["Direction"]
    for row in theta:
        tensor = row[1:7][np.array([[0, 3, 4], [3, 1, 5], [4, 5, 2]])]
        whole = np.zeros((3, 3, 3, 3))
        for index in np.ndindex(3, 3, 3, 3):
            whole[index] = row[7 + INDICES.index(tuple(sorted(index)))]
        second = np.einsum("na,nb,ab->n", q, q, tensor)
        fourth = np.einsum("na,nb,nc,nd,abcd->n", q, q, q, q, whole)
        expected = row[0] * np.exp(-b * second + b**2 / 6 * fourth)
        np.testing.assert_allclose(KURTOSIS.signal(row, protocol, NONE), expected, rtol=1e-12)


def test_small_b_is_the_mean_of_the_compartments():
    """Two Gaussian compartments: the expansion is right up to the third order in b."""
    fast, slow = np.array([1.6, 0.7, 0.5, 0.2, 0.1, 0.0]) * 1e-3, np.array([0.6, 1.1, 0.3, 0.0, -0.1, 0.2]) * 1e-3
    pairs = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
    mean, apart = (fast + slow) / 2, (fast - slow) / 2
    full = apart[np.array([[0, 3, 4], [3, 1, 5], [4, 5, 2]])]
    fourth = [full[i, j] * full[k, m] + full[i, k] * full[j, m] + full[i, m] * full[j, k] for i, j, k, m in INDICES]
    theta = np.array([1.0, *mean, *fourth])
    assert len(pairs) == len(mean)
    errors = []
    for b in (100.0, 200.0):
        protocol = Protocol({"BValue": np.full(30, b), "Direction": even_directions(30)})
        mixed = sum(TENSOR.signal(np.array([0.5, *d]), protocol, NONE) for d in (fast, slow))
        errors.append(np.abs(KURTOSIS.signal(theta, protocol, NONE) - mixed).max())
    assert errors[0] < 1e-6
    assert 7 < errors[1] / errors[0] < 17


def test_without_kurtosis_it_is_the_tensor():
    theta = compartments(6, 1)
    theta[:, 7:] = 0
    tensor = TENSOR.signal(theta[:, :7], example(), NONE)
    np.testing.assert_allclose(KURTOSIS.signal(theta, example(), NONE), tensor, rtol=1e-13)
    values = truth(theta)
    for derived in TENSOR.derived:
        np.testing.assert_allclose(values[derived.name], derived.formula(theta[:, :7]), rtol=1e-13)


def test_start_recovers_noise_free_parameters_and_never_raises():
    theta = compartments(20, 2)
    assert KURTOSIS.start is not None
    found = KURTOSIS.start(KURTOSIS.signal(theta, example(), NONE), example(), NONE)
    np.testing.assert_allclose(found, theta, rtol=1e-7, atol=1e-15)
    poor = Protocol({"BValue": [0.0, 800.0], "Direction": [[0, 0, 0], [0, 0, 1.0]]})
    assert np.isfinite(KURTOSIS.start(np.array([[0.0, -1.0], [2.0, 1.0]]), poor, NONE)).all()


def test_weighted_volume_without_direction_is_the_mean_over_directions():
    even = fourth_order(np.zeros((1, 3)))[0]
    height, weight = np.polynomial.legendre.leggauss(8)
    angle = np.arange(16) * np.pi / 8
    z, turn = np.meshgrid(height, angle, indexing="ij")
    directions = np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], axis=-1)
    mean = np.repeat(weight, 16) / 32 @ fourth_order(directions.reshape(-1, 3))
    np.testing.assert_allclose(even, mean, atol=1e-14)


def test_derived_values_have_the_gradients_of_their_formulas():
    theta = compartments(8, 3)
    for derived in KURTOSIS.derived:
        if derived.gradient is None:
            continue
        gradient = derived.gradient(theta)
        assert gradient.shape == theta.shape
        for k in range(22):
            step = np.zeros(22)
            step[k] = 1e-5 * (1e3 if k == 0 else 1e-3 if k < 7 else 1e-6)
            slope = (derived.formula(theta + step) - derived.formula(theta - step)) / (2 * step[k])
            size = np.abs(slope).max() + np.abs(derived.formula(theta)).max() / (step[k] * 1e5)
            np.testing.assert_allclose(gradient[:, k], slope, atol=1e-5 * size)


def test_example_determines_the_typical_tissues():
    for tissue in KURTOSIS.typical:
        theta = KURTOSIS.theta(tissue.values)
        error = np.sqrt(np.diag(crlb(KURTOSIS, theta, example(), Gaussian(1 / 30))))
        assert np.isfinite(error).all()
    white = {name: float(v[0]) for name, v in truth(typical("white", 1)).items()}
    assert white["MK"] == pytest.approx(0.95, abs=0.01)
    assert white["AK"] == pytest.approx(0.65, abs=0.01)
    assert white["RK"] == pytest.approx(1.3, abs=0.01)


def test_what_is_missing_is_named():
    protocol = example()
    with pytest.raises(NotIdentifiable, match="has one b-value above 0"):
        log_design(protocol.take(protocol["BValue"] < 1000))
    with pytest.raises(NotIdentifiable, match="no b-value above 0"):
        log_design(protocol.take(protocol["BValue"] < 100))
    with pytest.raises(NotIdentifiable, match="determine .. of the 22 unknowns"):
        log_design(protocol.take(protocol["BValue"] > 0).take(np.arange(60)))
    q = protocol["Direction"].copy()
    q[:, 2] = 0
    q /= np.maximum(np.linalg.norm(q, axis=1, keepdims=True), 1e-12)
    with pytest.raises(NotIdentifiable, match="volumes of flat.bvec determine 9 of the 22 unknowns"):
        log_design(Protocol({"BValue": protocol["BValue"], "Direction": q}, "flat.bvec"))
    few = np.r_[0:20, 31:45]
    with pytest.raises(NotIdentifiable, match="directions, expected at least 15"):
        log_design(Protocol({"BValue": protocol["BValue"], "Direction": protocol["Direction"][np.arange(67) % 14]}))
    assert len(log_design(protocol.take(few))) == 34
    with pytest.raises(MissingMetadata, match="Direction is absent"):
        log_design(Protocol({"BValue": protocol["BValue"]}))


def test_axes_are_counted_once():
    q = even_directions(20)
    assert len(distinct_axes(np.concatenate([np.zeros((2, 3)), q, -q, q[3:5]]))) == 20
    assert len(distinct_axes(np.zeros((4, 3)))) == 0
    assert len(ELEMENTS) == 15
