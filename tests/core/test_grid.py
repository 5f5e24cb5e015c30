from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcord.core.errors import GridMismatch, ImplausibleValue
from qcord.core.grid import Grid, axes_of, reorient, require_same_grid

AXES = ["".join(p) for base in permutations(("RL", "AP", "SI")) for p in [tuple(x[0] for x in base)]]


def test_world_and_index_are_inverse(oblique_grid):
    index = np.random.default_rng(0).uniform(-2, 9, (20, 3))
    np.testing.assert_allclose(oblique_grid.index(oblique_grid.world(index)), index, atol=1e-10)


def test_spacing_volume_and_rotation(oblique_grid):
    np.testing.assert_allclose(oblique_grid.spacing, (0.9, 1.1, 5.0))
    np.testing.assert_allclose(oblique_grid.voxel_volume, 0.9 * 1.1 * 5)
    np.testing.assert_allclose(oblique_grid.rotation @ oblique_grid.rotation.T, np.eye(3), atol=1e-12)
    assert oblique_grid.axes == "RAS"


@given(
    axes=st.sampled_from(AXES),
    flips=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    tilt=st.floats(-0.5, 0.5),
)
def test_reorienting_there_and_back_changes_nothing(axes, flips, tilt):
    opposite = {"R": "L", "A": "P", "S": "I"}
    axes = "".join(opposite[a] if f else a for a, f in zip(axes, flips, strict=True))
    c, s = np.cos(tilt), np.sin(tilt)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.diag([0.9, 1.1, 5])
    grid = Grid((4, 5, 6), affine)
    data = np.arange(4 * 5 * 6 * 2).reshape(4, 5, 6, 2)
    moved, other = reorient(data, grid, axes)
    assert other.axes == axes
    index = np.array([1, 3, 2])
    place = np.rint(other.index(grid.world(index))).astype(int)
    assert (moved[tuple(place)] == data[tuple(index)]).all()
    back, same = reorient(moved, other, "RAS")
    np.testing.assert_array_equal(back, data)
    assert same.matches(grid)


def test_each_world_axis_is_used_once_when_oblique_by_half_a_right_angle():
    a = np.deg2rad(45.0)
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    assert sorted(axes_of(np.pad(turn, (0, 1)))) == ["A", "R", "S"] or sorted(axes_of(np.pad(turn, (0, 1)))) == [
        "P",
        "R",
        "S",
    ]


def test_grids_match_within_a_twentieth_of_a_voxel(oblique_grid):
    near = oblique_grid.affine.copy()
    near[0, 3] += 0.02
    far = oblique_grid.affine.copy()
    far[0, 3] += 0.2
    assert oblique_grid == Grid(oblique_grid.shape, near)
    assert oblique_grid != Grid(oblique_grid.shape, far)
    assert oblique_grid != Grid((7, 8, 8), oblique_grid.affine)
    with pytest.raises(GridMismatch, match="mask.nii lies on .* and image.nii on"):
        require_same_grid(oblique_grid, Grid(oblique_grid.shape, far), "mask.nii", "image.nii")


def test_crop_keeps_places(oblique_grid):
    cut = oblique_grid.crop((1, 2, 3), (5, 6, 8))
    assert cut.shape == (4, 4, 5)
    np.testing.assert_allclose(cut.world([0, 0, 0]), oblique_grid.world([1, 2, 3]))


def test_impossible_grids_are_refused():
    with pytest.raises(ImplausibleValue, match="singular"):
        Grid((3, 3, 3), np.zeros((4, 4)))
    with pytest.raises(ImplausibleValue, match="three positive sizes"):
        Grid((3, 0, 3), np.eye(4))
    broken = np.eye(4)
    broken[0, 0] = np.nan
    with pytest.raises(ImplausibleValue, match="not finite"):
        Grid((3, 3, 3), broken)
