import numpy as np
import pytest

from qcord.core.errors import EmptyRegion
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.noise import Rician
from qcord.core.series import Series
from qcord.estimate.simulate import simulate
from qcord.maps.fit import fit
from qcord.maps.transmit_field import transmit_field
from qcord.models.registry import get


@pytest.mark.parametrize("name", ["double-angle", "actual-flip-angle"])
def test_a_slow_field_is_found_to_within_a_percent_and_air_does_not_count(name):
    model, grid = get(name), Grid((40, 36, 8), np.diag([1.5, 1.5, 5.0, 1]))
    world = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1))
    truth = 1 + 0.003 * (world[..., 0] - 30) - 0.002 * (world[..., 1] - 27)
    theta = np.stack([np.full(grid.shape, 1000.0), truth], axis=-1)
    theta[:, 30:, :, 0] = 0  # air
    theta[18:20, 10:12, 4, 0] = 0  # a small gap
    exact = simulate(model, theta, model.example())
    sigma = float(exact.max()) / 40
    series = Series(Image(Rician(sigma).sample(exact, np.random.default_rng(0)), grid), model.example())
    result = fit(name, series, noise=sigma)
    level = series.image.derive(np.full(grid.shape, sigma))
    found = transmit_field(series, level, model=name)
    tissue = np.zeros(grid.shape, dtype=bool)
    tissue[3:-3, 3:27, 1:-1] = True
    error = (found.image.data - truth)[tissue]
    assert np.sqrt(np.mean(error**2)) < 0.01
    raw = (result["B1"].data - truth)[tissue & (theta[..., 0] > 0)]
    assert np.median(np.abs(error)) < np.median(np.abs(raw)) / 3
    assert np.isfinite(found.image.data[18:20, 10:12, 4]).all()
    assert np.isnan(found.image.data[:, 33:]).mean() > 0.9
    spread = np.median(np.abs(error)) / np.median(found.std.data[tissue])
    assert 0.4 < spread < 2.5  # .67 without what smoothing takes off the slope at edges


def test_nothing_to_smooth_is_said():
    model, grid = get("double-angle"), Grid((4, 4, 4), np.eye(4))
    series = Series(Image(np.zeros((4, 4, 4, 2)), grid), model.example())
    with pytest.raises(EmptyRegion, match="holds no voxel above"):
        transmit_field(series, series.image.derive(np.ones((4, 4, 4))), model="double-angle")


@pytest.mark.parametrize("name", ["double-angle", "actual-flip-angle"])
@pytest.mark.parametrize("contrast", [0.0, 0.6])
def test_errors_that_go_with_the_estimate_do_not_raise_the_field(name, contrast):
    """Uniform or unequal tissue, at a signal-to-noise ratio of 20."""
    model, grid = get(name), Grid((10, 12, 7), np.diag([2.0, 2.0, 5.0, 1]))
    world = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1))
    truth = 0.95 + 0.001 * (world @ [2.0, -1.5, 1.0] - 15)
    amplitude = 1000 * np.exp(np.random.default_rng(5).normal(0, contrast, grid.shape))
    signal = model.signal(np.stack([amplitude, truth], axis=-1), model.example(), np.full((*grid.shape, 1), 1.1))
    sigma, generator = float(np.median(signal.max(axis=-1))) / 20, np.random.default_rng(6)
    middle = (slice(3, 7), slice(3, 9), slice(2, 5))
    gaps, errors = [], []
    for _ in range(30):
        series = Series(Image(Rician(sigma).sample(signal, generator), grid), model.example())
        found = transmit_field(series, Image(np.full(grid.shape, sigma), grid), model=name, n_jobs=1)
        gaps.append((found.image.data - truth)[middle])
        errors.append(found.std.data[middle])
    assert abs(np.mean(gaps)) < 0.5 * np.median(errors)
    assert np.std(gaps, axis=0).mean() == pytest.approx(np.median(errors), rel=0.15)
    assert 0.9 < np.mean(np.abs(gaps) < 1.96 * np.array(errors)) < 0.99
