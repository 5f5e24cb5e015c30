import numpy as np
import pytest

from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.preprocess.resample import resample


def smooth(grid):
    world = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1))
    return Image(np.sin(world[..., 0] / 4) + np.cos(world[..., 1] / 5) + world[..., 2] / 20, grid)


def test_same_grid_changes_nothing(oblique_grid):
    image = smooth(oblique_grid)
    assert resample(image, oblique_grid) is image


@pytest.mark.parametrize(("order", "tolerance"), [(1, 0.03), (3, 0.005)])
def test_smooth_fields_are_reproduced_between_voxels(order, tolerance):
    grid = Grid((21, 22, 23), np.eye(4))
    shifted = np.eye(4)
    shifted[:3, 3] = [0.4, -0.3, 0.5]
    other = Grid((21, 22, 23), shifted)
    found = resample(smooth(grid), other, order=order)
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(found.data[inner], smooth(other).data[inner], atol=tolerance)
    assert np.isnan(found.data[:, 0, :]).all()  # outside of what was measured
    assert found.history[-1].name == "resample"


def test_missing_values_stay_missing_and_do_not_spread_far():
    grid = Grid((9, 10, 11), np.eye(4))
    data = np.ones(grid.shape)
    data[4, 5, 6] = np.nan
    shifted = np.eye(4)
    shifted[0, 3] = 0.5
    found = resample(Image(data, grid), Grid(grid.shape, shifted)).data
    assert np.isnan(found[3:5, 5, 6]).all()
    np.testing.assert_allclose(found[6:8, 5, 6], 1, atol=1e-6)


def test_labels_keep_their_numbers():
    grid = Grid((9, 10, 11), np.eye(4))
    labels = np.zeros(grid.shape, np.uint8)
    labels[3:6] = 7
    shifted = np.eye(4)
    shifted[0, 3] = 0.4
    found = resample(Image(labels, grid), Grid(grid.shape, shifted), order=0)
    assert found.data.dtype == np.uint8
    assert set(np.unique(found.data)) == {0, 7}
