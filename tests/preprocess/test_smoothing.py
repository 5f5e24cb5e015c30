import numpy as np
import pytest

from qcord.core.errors import EmptyRegion, GridMismatch, ImplausibleValue
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.preprocess.smoothing import smooth


def field_on(grid, slope=(0.004, -0.003, 0.002)):
    """A field that is linear in the world."""
    index = np.moveaxis(np.indices(grid.shape), 0, -1)
    return 1 + grid.world(index) @ np.array(slope)


def by_hand(data, used, weight, grid, width, voxel):
    """Weighted mean over all voxels, by their distance in the world."""
    index = np.moveaxis(np.indices(grid.shape), 0, -1)
    distance = np.linalg.norm(grid.world(index) - grid.world(voxel), axis=-1)
    k = np.exp(-4 * np.log(2) * (distance / width) ** 2) * np.where(used, weight, 0)
    return (k * np.where(used, data, 0)).sum() / k.sum(), k


def test_mean_over_the_world_on_oblique_anisotropic_voxels_with_weights_and_holes(oblique_grid):
    generator = np.random.default_rng(0)
    data = field_on(oblique_grid) + 0.05 * generator.standard_normal(oblique_grid.shape)
    std = generator.uniform(0.02, 0.2, oblique_grid.shape)
    used = generator.random(oblique_grid.shape) > 0.3
    data[~used] = np.nan
    found = smooth(Image(data, oblique_grid), 6.0, std=Image(std, oblique_grid), reach=50.0)
    for voxel in ((0, 0, 0), (3, 4, 4), (6, 7, 8), (2, 5, 1)):
        value, k = by_hand(data, used, 1 / std**2, oblique_grid, 6.0, np.array(voxel))
        assert float(found.image.data[voxel]) == pytest.approx(value, rel=2e-4)  # kernels end at 3.5 sigma
        spread = np.sqrt((k**2 * std**2).sum()) / k.sum()
        assert float(found.std.data[voxel]) == pytest.approx(spread, rel=2e-3)


def test_a_constant_stays_and_gaps_are_filled_up_to_the_reach():
    grid = Grid((30, 9, 5), np.diag([1.0, 2.0, 5.0, 1]))
    data = np.full(grid.shape, np.nan)
    data[:10] = 0.9
    data[4:6, 3:5, 2] = np.nan  # a hole of 2 x 4 mm
    found = smooth(Image(data, grid), 8.0).image.data
    np.testing.assert_allclose(found[:10], 0.9, rtol=1e-6)
    assert np.isfinite(found[:14]).all()  # 4 mm beyond the last voxel, half the width
    assert np.isnan(found[14:]).all()
    assert np.isnan(smooth(Image(data, grid), 8.0, reach=0.0).image.data[4:6, 3:5, 2]).all()


def test_the_mask_keeps_what_lies_outside_from_the_mean():
    grid = Grid((20, 20, 3), np.eye(4))
    data = np.ones(grid.shape)
    data[10:] = 5.0
    mask = np.zeros(grid.shape, dtype=np.uint8)
    mask[:10] = 1
    found = smooth(Image(data, grid), 4.0, mask=Image(mask, grid)).image.data
    np.testing.assert_allclose(found[:12], 1.0, rtol=1e-6)
    assert smooth(Image(data, grid), 4.0).image.data[9, 10, 1] > 1.5


def test_standard_error_is_that_of_repeated_noise():
    grid = Grid((24, 24, 6), np.diag([1.0, 1.0, 3.0, 1]))
    generator = np.random.default_rng(1)
    std = np.where(np.arange(24)[:, None, None] < 12, 0.02, 0.2) * np.ones(grid.shape)
    repeats = []
    for _ in range(60):
        noisy = Image(1 + std * generator.standard_normal(grid.shape), grid)
        found = smooth(noisy, 5.0, std=Image(std, grid))
        repeats.append(found.image.data)
    ratio = np.std(repeats, axis=0) / found.std.data
    assert np.median(ratio) == pytest.approx(1, abs=0.03)
    assert 0.8 < np.quantile(ratio, 0.02) < np.quantile(ratio, 0.98) < 1.25
    assert found.std.data[6, 12, 3] < found.std.data[20, 12, 3] / 5


def test_a_slow_field_is_kept_inside(oblique_grid):
    truth = field_on(oblique_grid)
    found = smooth(Image(truth, oblique_grid), 3.0).image.data
    np.testing.assert_allclose(found[2:-2, 2:-2, 2:-2], truth[2:-2, 2:-2, 2:-2], atol=2e-3)


def test_voxels_without_error_do_not_count_and_mistakes_are_named(oblique_grid):
    data, std = np.ones(oblique_grid.shape), np.full(oblique_grid.shape, 0.1)
    data[3], std[3] = 9.0, np.nan
    found = smooth(Image(data, oblique_grid), 5.0, std=Image(std, oblique_grid))
    np.testing.assert_allclose(found.image.data[2:5], 1.0, rtol=1e-6)
    with pytest.raises(ImplausibleValue, match="positive width"):
        smooth(Image(data, oblique_grid), 0.0)
    with pytest.raises(EmptyRegion, match="no voxel with a value"):
        smooth(Image(np.full(oblique_grid.shape, np.nan), oblique_grid), 5.0)
    with pytest.raises(GridMismatch):
        smooth(Image(data, oblique_grid), 5.0, std=Image(np.ones((2, 2, 2)), Grid((2, 2, 2), np.eye(4))))
