import numpy as np
import pytest

from qcord.core.errors import GridMismatch, ImplausibleValue, MissingMetadata, NotIdentifiable, UnknownName
from qcord.core.flags import Flag
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Gaussian
from qcord.core.protocol import Protocol
from qcord.core.series import Series
from qcord.estimate.blocks import Output, noise_map, run_blocks
from qcord.estimate.fit import fit
from qcord.estimate.simulate import simulate
from qcord.models.registry import get

PROTOCOL = Protocol(
    {
        "FlipAngle": [9.0, 9.0, 15.0],
        "RepetitionTimeExcitation": [0.03, 0.03, 0.015],
        "MTState": np.array([True, False, False]),
    },
    "triplet.json",
)
SHAPE = (7, 8, 9)


@pytest.fixture(scope="module")
def truth():
    generator = np.random.default_rng(0)
    return np.stack(
        [
            generator.uniform(800, 1200, SHAPE),
            generator.uniform(0.7, 1.3, SHAPE),
            generator.uniform(2, 6, SHAPE),
        ],
        axis=-1,
    )


def series_of(theta, grid, sigma=0.2, given=None):
    measured = simulate(get("mtsat-ernst"), theta, PROTOCOL, Gaussian(sigma), seed=1, given=given)
    return Series(Image(measured, grid), PROTOCOL)


def test_maps_have_names_units_errors_and_history(truth, oblique_grid):
    result = fit(get("mtsat-ernst"), series_of(truth, oblique_grid), noise=0.2)
    assert {k: m.unit for k, m in result.maps.items()} == {"A": "1", "R1": "1/s", "MTsat": "percent", "T1": "s"}
    assert set(result.std) == set(result.bias) == set(result.maps)
    for name, exact in (("R1", truth[..., 1]), ("MTsat", truth[..., 2]), ("T1", 1 / truth[..., 1])):
        within = np.abs(result[name].data - exact) < 1.96 * result.std[name].data
        assert 0.9 < within.mean() < 0.99
    assert result["T1"].grid == oblique_grid
    assert result["T1"].history[-1].name == "fit"
    assert any("mrm.21732" in r for r in result["T1"].history[-1].references)
    assert np.isnan(result.rmse.data).all()


def test_given_map_enters_by_name(truth, oblique_grid):
    field = np.random.default_rng(2).uniform(0.8, 1.2, SHAPE)
    series = series_of(truth, oblique_grid, sigma=1e-6, given=field[..., None])
    b1 = Image(field, oblique_grid)
    result = fit(get("mtsat-ernst"), series, given={"B1": b1})
    np.testing.assert_allclose(result["R1"].data, truth[..., 1], rtol=1e-4)
    apparent = fit(get("mtsat-ernst"), series)
    assert np.abs(apparent["R1"].data / truth[..., 1] - 1).max() > 0.2


def test_fixed_maps_and_values(truth, oblique_grid):
    series = series_of(truth, oblique_grid, sigma=1e-6)
    result = fit(get("mtsat-ernst"), series, fixed={"R1": Image(truth[..., 1], oblique_grid)})
    np.testing.assert_allclose(result["MTsat"].data, truth[..., 2], rtol=1e-3)
    assert np.all(result.std["R1"].data == 0)
    assert np.isfinite(result.rmse.data).all()


def test_outside_the_mask_nothing_is_estimated(truth, oblique_grid):
    inside = np.zeros(SHAPE)
    inside[2:5, 3:6, 4] = 1
    result = fit(get("mtsat-ernst"), series_of(truth, oblique_grid), Image(inside, oblique_grid), noise=0.2)
    assert np.all((result.flag.data == Flag.OUTSIDE) == (inside == 0))
    assert np.all(np.isnan(result["T1"].data) == (inside == 0))


def test_result_does_not_depend_on_the_number_of_threads(truth, oblique_grid):
    series = series_of(truth, oblique_grid)
    one, three = (fit(get("mtsat-ernst"), series, noise=0.2, n_jobs=n) for n in (1, 3))
    for name in one.maps:
        assert one[name].data.tobytes() == three[name].data.tobytes()


def test_mistakes_are_named(truth, oblique_grid):
    series = series_of(truth, oblique_grid)
    model = get("mtsat-ernst")
    other = Image(np.ones((3, 4, 5)), Grid((3, 4, 5), np.eye(4)))
    with pytest.raises(GridMismatch, match="The B1 map"):
        fit(model, series, given={"B1": other})
    with pytest.raises(UnknownName, match="no given parameter 'B0'; it has B1"):
        fit(model, series, given={"B0": other})
    with pytest.raises(UnknownName, match="no parameter 'R2'"):
        fit(model, series, fixed={"R2": 3.0})
    with pytest.raises(ImplausibleValue, match="expected .*; give it on the grid"):
        fit(model, series, noise=np.ones((3, 4, 5)))
    with pytest.raises(NotIdentifiable, match="2 measurements for the 3 parameters"):
        fit(model, series.take([0, 1]), noise=1.0)
    with pytest.raises(MissingMetadata, match="BValue is absent"):
        fit(get("tensor"), series)
    with pytest.raises(ImplausibleValue, match="2 measurements, expected 1 or 3"):
        fit(model, series, noise=[1.0, 2.0])


@pytest.mark.parametrize("order", ["C", "F"])
def test_blocks_reach_every_voxel_once_in_any_memory_order(order):
    data = np.asarray(np.random.default_rng(3).normal(size=(31, 17, 13, 4)), order=order)
    mask = np.random.default_rng(4).random((31, 17, 13)) > 0.4
    extra = np.arange(mask.size, dtype=float).reshape(mask.shape)

    def work(signals, given):
        assert signals.shape[0] == 4
        return {
            "flag": np.zeros(signals.shape[1]),
            "sum": signals.sum(axis=0) + given["n"][0],
            "two": np.stack([signals[0], signals[3]]),
        }

    for where in (mask, np.ones_like(mask)):
        result = run_blocks(work, data, where, [Output("sum"), Output("two", 2)], extra={"n": extra}, n_jobs=3)
        np.testing.assert_allclose(result["sum"][where], (data.sum(-1) + extra)[where], rtol=1e-5)
        np.testing.assert_allclose(result["two"][where], data[where][:, [0, 3]], rtol=1e-5)
        assert np.isnan(result["sum"][~where]).all()


def test_noise_comes_as_value_values_or_map(oblique_grid):
    assert noise_map(None, oblique_grid, 3) is None
    assert noise_map(2.0, oblique_grid, 3).shape == (*SHAPE, 1)
    np.testing.assert_array_equal(noise_map([1.0, 2, 3], oblique_grid, 3)[1, 2, 3], [1, 2, 3])
    assert noise_map(Image(np.ones(SHAPE), oblique_grid), oblique_grid, 3).shape == (*SHAPE, 1)
    assert noise_map(Image(np.ones((*SHAPE, 3)), oblique_grid), oblique_grid, 3).shape == (*SHAPE, 3)
