import numpy as np
import pytest

from qcord.core.errors import ImplausibleValue
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.maps.frequency_spread import frequency_spread


def test_a_linear_field_gives_its_slope_across_the_slices(oblique_grid):
    """5 mm slices, turned; the map lies on a grid of its own."""
    slope = np.array([0.3, -0.7, 2.0])
    other = Grid((16, 18, 30), np.array([[0, 2, 0, -12], [2.5, 0, 0, -10], [0, 0, 3, 10], [0, 0, 0, 1.0]]))
    world = other.world(np.moveaxis(np.indices(other.shape), 0, -1))
    field = Image(world @ slope, other)
    normal = oblique_grid.affine[:3, 2] / np.linalg.norm(oblique_grid.affine[:3, 2])
    found = frequency_spread(field, oblique_grid)
    inside = np.isfinite(found.data)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(found.data[inside], 5.0 * slope @ normal, rtol=1e-4)
    thin = frequency_spread(field, oblique_grid, 2.0)
    np.testing.assert_allclose(thin.data[inside], 2.0 * slope @ normal, rtol=1e-4)
    assert found.unit == "1/s"


def test_a_single_slice_has_no_gradient():
    with pytest.raises(ImplausibleValue, match="at least two voxels"):
        frequency_spread(Image(np.ones((5, 6, 1)), Grid((5, 6, 1), np.eye(4))), Grid((5, 6, 1), np.eye(4)))
