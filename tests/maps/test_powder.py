import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cord_diffusion import cord_protocol
from qcord.core.errors import ImplausibleValue, MissingMetadata
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Rician
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.simulate import simulate
from qcord.maps.powder import groups, orientation_weights, powder_average, scatter
from qcord.models.encoding import b_tensors
from qcord.models.tensor import TENSOR


def series_of(values, protocol):
    grid = Grid((*values.shape[:-1], *([1] * (4 - values.ndim))), np.eye(4))
    return Series(Image(values.reshape(*grid.shape, -1), grid), protocol)


def spiral(n):
    """Directions over the whole sphere."""
    k = np.arange(n) + 0.5
    height, turn = 1 - 2 * k / n, np.pi * (1 + 5**0.5) * k
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)


def two_shapes(n=20):
    b = np.r_[0, 0, np.full(n, 1000.0), np.full(n, 2000.0), np.full(5, 1000.0), np.full(6, 2000.0)]
    q = np.r_[np.zeros((2, 3)), spiral(n), spiral(n), np.zeros((11, 3))]
    return Protocol({"BValue": b, "Direction": q, "BDelta": np.r_[np.ones(2 + 2 * n), np.zeros(11)]})


def test_groups_are_told_by_b_value_and_shape():
    averages = powder_average(series_of(np.ones((2, 3, 53)), two_shapes()))
    protocol = averages.series.protocol
    np.testing.assert_allclose(protocol["BValue"], [0, 1000, 1000, 2000, 2000])
    np.testing.assert_allclose(protocol["BDelta"], [0, 0, 1, 0, 1])
    np.testing.assert_array_equal(protocol["Volumes"], [2, 5, 20, 6, 20])
    np.testing.assert_allclose(averages.weights.sum(axis=1), 1)
    assert averages.series.data.shape == (2, 3, 1, 5)


def test_close_b_values_are_one_shell_and_others_are_not():
    b = np.array([0, 5.0, 990, 1000, 1010, 1200, 2940, 2995, 3000])
    q = np.where(b[:, None] > 0, [0, 0, 1.0], 0)
    assert groups(Protocol({"BValue": b, "Direction": q})).tolist() == [0, 0, 1, 1, 1, 2, 3, 3, 3]
    b = np.array([200, 0, 60.0, 40, 70, 80, 100])
    q = np.where(b[:, None] > 0, [0, 0, 1.0], 0)
    assert groups(Protocol({"BValue": b, "Direction": q})).tolist() == [5, 0, 1, 0, 2, 3, 4]


def test_other_settings_keep_averages_apart():
    protocol = two_shapes().replace(EchoTime=np.r_[np.full(30, 0.06), np.full(23, 0.08)])
    averaged = powder_average(series_of(np.ones((2, 53)), protocol)).series.protocol
    assert averaged["EchoTime"].tolist() == [0.06] * 3 + [0.08] * 3
    assert averaged["Volumes"].tolist() == [2, 20, 8, 5, 6, 12]


@pytest.mark.parametrize(("delta", "count"), [(1.0, 30), (-0.5, 30), (0.6, 40)])
def test_weighted_averages_do_not_turn_with_the_tissue(delta, count):
    """A coherent tract seen at b = 1000 s/mm2: equal weights leave an error that depends on its axis."""
    q = spiral(count)[: count - 3]  # a gap on the sphere
    protocol = Protocol({"BValue": np.full(len(q), 1000.0), "Direction": q, "BDelta": np.full(len(q), delta)})
    weights = orientation_weights(b_tensors(protocol))
    turns = Rotation.random(50, random_state=1).as_matrix()
    tensor = np.einsum("vij,j,vkj->vik", turns, [1.7e-3, 0.3e-3, 0.3e-3], turns)
    elements = np.stack([tensor[:, i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))], axis=1)
    signal = simulate(TENSOR, np.c_[np.ones(50), elements], protocol)
    spread, plain = (signal @ weights).std(), signal.mean(axis=1).std()
    assert spread < plain / 8
    assert spread < 2e-3


def test_weights_are_equal_where_directions_are_even_or_too_few():
    icosahedron = np.array([[0, 1, 1.618033988749895], [0, 1, -1.618033988749895]])
    q = np.concatenate([np.roll(icosahedron, k, axis=1) for k in range(3)])
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    even = b_tensors(Protocol({"BValue": np.full(6, 700.0), "Direction": q}))
    np.testing.assert_allclose(orientation_weights(even), 1 / 6, atol=1e-12)
    np.testing.assert_allclose(orientation_weights(even[:2]), 1 / 2)


def test_noise_of_averages_is_that_of_repeats():
    protocol = two_shapes()
    generator = np.random.default_rng(3)
    series = series_of(1.0 + 0.1 * generator.standard_normal((20000, 53)), protocol)
    averages = powder_average(series, sigma=0.1, rician=False)
    expected = averages.sigma.data[0, 0, 0]
    np.testing.assert_allclose(averages.series.data.std(axis=(0, 1, 2)), expected, rtol=0.03)
    np.testing.assert_allclose(expected[[0, 1, 3]], 0.1 / np.sqrt([2, 5, 6]))
    np.testing.assert_allclose(expected, 0.1 * averages.gain)
    each = powder_average(series, sigma=np.full(53, 0.1), rician=False)
    np.testing.assert_allclose(each.sigma.data[0, 0, 0], expected)
    with pytest.raises(ImplausibleValue, match="2 measurements"):
        powder_average(series, sigma=[0.1, 0.2])


def test_noise_floor_is_taken_off_the_averages():
    """White matter along the z-axis at 2000 s/mm2 and a ratio of 15: the plain average is 9 % too high."""
    protocol = Protocol({"BValue": np.full(30, 2000.0), "Direction": spiral(30)})
    theta = np.array([1.0, 0.4e-3, 0.4e-3, 1.9e-3, 0, 0, 0])
    exact = simulate(TENSOR, theta, protocol)
    noisy = series_of(Rician(1 / 15).sample(np.broadcast_to(exact, (20000, 30)), np.random.default_rng(4)), protocol)
    truth = float(powder_average(series_of(exact[None], protocol)).series.data.item())
    plain, clean = powder_average(noisy), powder_average(noisy, sigma=1 / 15)
    assert 1.08 < plain.series.data.mean() / truth < 1.09
    assert abs(clean.series.data.mean() / truth - 1) < 0.01
    np.testing.assert_allclose(clean.series.data.std(), clean.sigma.data.mean(), rtol=0.03)


def test_scatter_is_the_noise_whatever_the_tissue():
    protocol = two_shapes(28)
    theta = np.array([1.0, 0.4e-3, 0.6e-3, 1.4e-3, 0.1e-3, 0, 0])
    exact = np.broadcast_to(simulate(TENSOR, theta, protocol), (3000, len(protocol)))
    noisy = exact + 0.02 * np.random.default_rng(5).standard_normal(exact.shape)
    np.testing.assert_allclose(np.sqrt((scatter(series_of(noisy, protocol)).data ** 2).mean()), 0.02, rtol=0.02)
    assert scatter(series_of(exact, protocol)).data.max() < 3e-3
    lonely = protocol.take([0, 2, 3])
    assert np.isnan(scatter(series_of(exact[:, :3], lonely)).data).all()


def test_double_encoding_is_averaged_by_angle():
    q = spiral(24)
    across = np.cross(q, q[:, [1, 2, 0]])
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    protocol = Protocol(
        {"BValue": np.full(72, 1000.0), "Direction": np.r_[q, q, q], "SecondDirection": np.r_[q, -q, across]}
    )
    averaged = powder_average(series_of(np.ones((2, 72)), protocol)).series.protocol
    np.testing.assert_allclose(averaged["BDelta"], [-0.5, 1])
    np.testing.assert_array_equal(averaged["Volumes"], [24, 48])


def test_holes_stay_holes_and_lack_is_named():
    values = np.ones((3, 35))
    values[1, 20] = np.nan
    averaged = powder_average(series_of(values, cord_protocol()))
    assert np.isnan(averaged.series.data[:, 0, 0]).tolist() == [[False, False], [False, True], [False, False]]
    with pytest.raises(MissingMetadata, match="Direction is absent"):
        powder_average(series_of(values, Protocol({"BValue": np.full(35, 800.0)})))
