import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from scipy.special import elliprd, elliprf

from cord_kurtosis import PAIRS, compartments
from qcord.estimate.jacobian import complex_step
from qcord.models.kurtosis import KURTOSIS
from qcord.models.kurtosis_metrics import (
    COUNT,
    INDICES,
    axial_kurtosis,
    axial_kurtosis_gradient,
    kurtosis_anisotropy,
    mean_kurtosis,
    mean_kurtosis_gradient,
    mean_of_kurtosis_tensor,
    mean_of_kurtosis_tensor_gradient,
    positive,
    radial_kurtosis,
    radial_kurtosis_gradient,
)
from qcord.models.tensor import eigenvalues

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "kurtosis.json").read_text())
GRADED = {
    mean_kurtosis: mean_kurtosis_gradient,
    axial_kurtosis: axial_kurtosis_gradient,
    radial_kurtosis: radial_kurtosis_gradient,
    mean_of_kurtosis_tensor: mean_of_kurtosis_tensor_gradient,
}


def tissue(count, seed=0):
    theta = compartments(count, seed)
    return theta[:, 1:7].T, theta[:, 7:].T


def full(kurtosis):
    whole = np.zeros((3, 3, 3, 3, *kurtosis.shape[1:]))
    for index in np.ndindex(3, 3, 3, 3):
        whole[index] = kurtosis[INDICES.index(tuple(sorted(index)))]
    return whole


def matrix(tensor):
    return tensor[np.array([[0, 3, 4], [3, 1, 5], [4, 5, 2]])]


def turned(tensor, kurtosis, turn):
    other = np.einsum("ai,bj,ij...->ab...", turn, turn, matrix(tensor))
    fourth = np.einsum("ai,bj,ck,dm,ijkm...->abcd...", turn, turn, turn, turn, full(kurtosis), optimize=True)
    return np.stack([other[p] for p in PAIRS]), np.stack([fourth[i] for i in INDICES])


def apparent(tensor, kurtosis, directions):
    """Apparent kurtosis (q, ...) along directions (3, q)."""
    along = np.einsum("aq,bq,ab...->q...", directions, directions, matrix(tensor))
    fourth = np.einsum("aq,bq,cq,dq,abcd...->q...", *[directions] * 4, full(kurtosis), optimize=True)
    return fourth / along**2


def sphere(size=60):
    height, weight = np.polynomial.legendre.leggauss(size)
    angle = np.arange(2 * size) * np.pi / size
    z, turn = np.meshgrid(height, angle, indexing="ij")
    radius = np.sqrt(1 - z**2)
    directions = np.stack([radius * np.cos(turn), radius * np.sin(turn), z]).reshape(3, -1)
    return directions, np.repeat(weight, 2 * size) / (4 * size)


def published_mean(tensor, kurtosis):
    """Tabesh et al. 2011, doi:10.1002/mrm.22932: closed form in the eigenframe with Carlson's integrals."""
    values, vectors = np.linalg.eigh(matrix(tensor))
    _, rotated = turned(tensor, kurtosis, vectors.T)
    w = full(rotated) / values.mean() ** 2

    def first(a, b, c):
        rf, rd = elliprf(a / b, a / c, 1), elliprd(a / b, a / c, 1)
        inner = np.sqrt(b * c) / a * rf + (3 * a**2 - a * b - a * c - b * c) / (3 * a * np.sqrt(b * c)) * rd - 1
        return (a + b + c) ** 2 / (18 * (a - b) * (a - c)) * inner

    def second(a, b, c):
        rf, rd = elliprf(a / b, a / c, 1), elliprd(a / b, a / c, 1)
        inner = (b + c) / np.sqrt(b * c) * rf + (2 * a - b - c) / (3 * np.sqrt(b * c)) * rd - 2
        return (a + b + c) ** 2 / (3 * (b - c) ** 2) * inner

    a, b, c = values
    on_axes = first(a, b, c) * w[0, 0, 0, 0] + first(b, a, c) * w[1, 1, 1, 1] + first(c, b, a) * w[2, 2, 2, 2]
    mixed = second(a, b, c) * w[1, 1, 2, 2] + second(b, a, c) * w[0, 0, 2, 2] + second(c, b, a) * w[0, 0, 1, 1]
    return on_axes + mixed


@pytest.mark.parametrize("case", REFERENCE, ids=lambda c: c["what"])
def test_reference_values(case):
    values = dict(zip(("Dxx", "Dyy", "Dzz", "Dxy", "Dxz", "Dyz"), case["D_mm2_per_s"], strict=True))
    theta = KURTOSIS.theta({**values, **case["V_mm4_per_s2"]})
    for derived in KURTOSIS.derived:
        if derived.name in case:
            assert float(derived.formula(theta)) == pytest.approx(case[derived.name], abs=case["tolerance"])


def test_elements_count_to_81():
    assert COUNT.sum() == 81
    assert len(INDICES) == 15


def test_mean_kurtosis_is_the_published_closed_form():
    tensor, kurtosis = tissue(40)
    expected = [published_mean(tensor[:, v], kurtosis[:, v]) for v in range(40)]
    np.testing.assert_allclose(mean_kurtosis(tensor, kurtosis), expected, rtol=1e-7)


def test_mean_kurtosis_is_the_mean_over_directions():
    tensor, kurtosis = tissue(10, seed=1)
    directions, weight = sphere()
    expected = np.einsum("q,qv->v", weight, apparent(tensor, kurtosis, directions))
    np.testing.assert_allclose(mean_kurtosis(tensor, kurtosis), expected, rtol=1e-8)


@pytest.mark.parametrize(("ratio", "tolerance"), [(1.0, 1e-12), (10.0, 1e-8), (30.0, 1e-5), (100.0, 6e-4)])
def test_error_of_the_quadrature_is_as_stated(ratio, tolerance):
    kurtosis = np.abs(np.random.default_rng(2).normal(size=(15, 1)))
    for middle in (1.0, np.sqrt(ratio), ratio):
        tensor = np.array([ratio, middle, 1.0, 0, 0, 0])[:, None]
        exact = mean_kurtosis(tensor, kurtosis, 80)
        np.testing.assert_allclose(mean_kurtosis(tensor, kurtosis), exact, rtol=tolerance)


def test_axial_and_radial_kurtosis_are_those_of_the_directions():
    tensor, kurtosis = tissue(30, seed=3)
    axial, radial = axial_kurtosis(tensor, kurtosis), radial_kurtosis(tensor, kurtosis)
    angle = np.arange(720) * np.pi / 360
    for v in range(30):
        _, vectors = np.linalg.eigh(matrix(tensor[:, v]))
        one, two, first = vectors.T
        circle = np.outer(one, np.cos(angle)) + np.outer(two, np.sin(angle))
        assert axial[v] == pytest.approx(apparent(tensor[:, v], kurtosis[:, v], first[:, None])[0], rel=1e-9)
        assert radial[v] == pytest.approx(apparent(tensor[:, v], kurtosis[:, v], circle).mean(), rel=1e-9)


@pytest.mark.parametrize("values", [(1.0, 1.0, 1.0), (2.0, 0.5, 0.5), (1.5, 1.5, 0.5)], ids=["sphere", "rod", "disc"])
def test_equal_eigenvalues_are_no_special_case(values):
    """Isotropic V: K is V over D(n)^2 everywhere; the limit from unequal eigenvalues is reached smoothly."""
    tensor = 1e-3 * np.array([[*values, 0, 0, 0]]).T
    nudged = tensor + 1e-9 * np.array([[1.0, -1.0, 0.5, 0, 0, 0]]).T
    kurtosis = 1e-6 * np.array([[{4: 1.0, 2: 1 / 3}.get(max(i.count(a) for a in i), 0.0) for i in INDICES]]).T
    kurtosis[[any(i.count(a) % 2 for a in range(3)) for i in INDICES]] = 0
    for formula in GRADED:
        np.testing.assert_allclose(formula(tensor, kurtosis), formula(nudged, kurtosis), rtol=1e-4)
    if len(set(values)) == 1:
        for formula in GRADED:
            np.testing.assert_allclose(formula(tensor, kurtosis), 1.0, rtol=1e-10)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_invariants_do_not_turn(seed):
    turn = Rotation.random(random_state=np.random.default_rng(seed)).as_matrix()
    tensor, kurtosis = tissue(8, seed=seed % 1000)
    other = turned(tensor, kurtosis, turn)
    for formula in GRADED:
        np.testing.assert_allclose(formula(*other), formula(tensor, kurtosis), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(kurtosis_anisotropy(other[1]), kurtosis_anisotropy(kurtosis), rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.1, 10), st.floats(-3, 3))
def test_values_scale_with_v_and_not_with_units(size, factor):
    tensor, kurtosis = tissue(5, seed=4)
    for formula in GRADED:
        plain = formula(tensor, kurtosis)
        np.testing.assert_allclose(formula(size * tensor, size**2 * kurtosis), plain, rtol=1e-9)
        np.testing.assert_allclose(formula(tensor, factor * kurtosis), factor * plain, rtol=1e-9, atol=1e-12)


def test_gaussian_diffusion_has_no_kurtosis():
    tensor, kurtosis = tissue(5, seed=5)
    for formula in GRADED:
        np.testing.assert_array_equal(formula(tensor, 0 * kurtosis), 0)


@pytest.mark.parametrize("formula", GRADED, ids=lambda f: f.__name__)
def test_gradients_are_those_of_finite_differences(formula):
    tensor, kurtosis = tissue(20, seed=6)
    value, gradient = GRADED[formula](tensor, kurtosis)
    np.testing.assert_allclose(value, formula(tensor, kurtosis), rtol=1e-12)
    size = np.repeat([1e-3, 1e-6], [6, 15])
    for k in range(21):
        step = np.zeros((21, 1))
        step[k] = 1e-5 * size[k]
        up, down = (formula(tensor + s * step[:6], kurtosis + s * step[6:]) for s in (1, -1))
        np.testing.assert_allclose(gradient[k] * size[k], (up - down) / 2e-5, rtol=1e-5, atol=2e-7)


def test_mean_kurtosis_is_analytic():
    tensor, kurtosis = tissue(20, seed=7)
    both = np.concatenate([tensor, kurtosis]).T

    def formula(elements):
        return mean_kurtosis(np.moveaxis(elements, -1, 0)[:6], np.moveaxis(elements, -1, 0)[6:])

    _, gradient = mean_kurtosis_gradient(tensor, kurtosis)
    np.testing.assert_allclose(complex_step(formula, both).T, gradient, rtol=1e-6, atol=1e-6 * np.abs(gradient).max())


def test_tensors_are_raised_where_an_eigenvalue_is_low_and_nowhere_else():
    generator = np.random.default_rng(8)
    tensor, _ = tissue(50, seed=8)
    tensor[:, :20] += 6e-4 * generator.normal(size=(6, 20))
    raised, low = positive(tensor, 0.05)
    before, after = np.linalg.eigvalsh(matrix(tensor).T), np.linalg.eigvalsh(matrix(raised).T)
    np.testing.assert_array_equal(low, before[:, 0] < 0.05 * before[:, 2])
    assert 2 < low.sum() < 21
    np.testing.assert_array_equal(raised[:, ~low], tensor[:, ~low])
    np.testing.assert_allclose(after, np.maximum(before, 0.05 * before[:, 2:]), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(eigenvalues(raised)[0], eigenvalues(tensor)[0], rtol=1e-9)
