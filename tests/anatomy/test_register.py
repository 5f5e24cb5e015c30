import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcord.anatomy.centerline import curve_through
from qcord.anatomy.levels import (
    levels_assumed,
    levels_carried,
    levels_from_landmarks,
    levels_from_map,
    vertebra_at,
)
from qcord.anatomy.register import centerline_of_cord, register, registration_quality
from qcord.anatomy.sample import interpolation_matrix, subvoxel_offsets
from qcord.core.errors import EmptyRegion, ImplausibleValue, UnknownName
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.labels import VERTEBRAE
from straight_template import bent_subject, straight_template


@pytest.fixture(scope="module")
def template():
    return straight_template()


def subject(template, spacing=(0.9, 0.9, 5.0), shape=(29, 31, 15), binary=True, **shape_changes):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [4, -60, 20]
    grid = Grid(shape, affine)
    to_template, marks = bent_subject(template, grid, **shape_changes)
    index = np.moveaxis(np.indices(shape), 0, -1).reshape(-1, 3)
    cord = np.zeros(len(index))
    offsets = subvoxel_offsets((3, 3, 3))
    for offset in offsets:
        matrix = interpolation_matrix(template.grid, template.grid.index(to_template(grid.world(index + offset))))
        cord += matrix @ template.cord.ravel() / len(offsets)
    cord = cord.reshape(shape)
    return Image((cord >= 0.5).astype(np.uint8) if binary else cord, grid), to_template, marks


@pytest.mark.parametrize("spacing", [(0.9, 0.9, 5.0), (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("turn", [0.0, 0.2])
def test_places_are_found_within_a_fraction_of_a_voxel(template, spacing, turn):
    shape = (29, 31, 15) if spacing[2] == 5 else (29, 31, 71)
    cord, truth, marks = subject(template, spacing, shape, turn=turn)
    levels = levels_from_landmarks(centerline_of_cord(cord), marks, template)
    found = register(cord, template, levels)
    index = np.argwhere(cord.data > 0)
    index = index[(index[:, 2] > 1) & (index[:, 2] < shape[2] - 2)]
    world = cord.grid.world(index)
    gap = np.linalg.norm((found.to_template(world) - truth(world))[:, :2], axis=1)
    assert np.median(gap) < 0.3
    assert np.percentile(gap, 95) < 0.7
    assert registration_quality(found, cord).summary["dice_median"] > 0.95


def test_both_directions_are_inverse(template):
    cord, _, marks = subject(template)
    found = register(cord, template, levels_from_landmarks(centerline_of_cord(cord), marks, template))
    generator = np.random.default_rng(5)
    world = cord.grid.world(np.argwhere(cord.data > 0) + generator.uniform(-3, 3, (int((cord.data > 0).sum()), 3)))
    np.testing.assert_allclose(found.to_subject(found.to_template(world)), world, atol=1e-3)


def test_missing_slices_are_bridged(template):
    cord, truth, marks = subject(template)
    data = cord.data.copy()
    data[:, :, 6:8] = 0
    holed = cord.derive(data)
    found = register(holed, template, levels_from_landmarks(centerline_of_cord(holed), marks, template))
    index = np.argwhere(cord.data > 0)
    world = cord.grid.world(index[(index[:, 2] == 6) | (index[:, 2] == 7)])
    gap = np.linalg.norm((found.to_template(world) - truth(world))[:, :2], axis=1)
    assert np.median(gap) < 0.6


def test_landmarks_give_heights(template):
    cord, truth, marks = subject(template, (1.0, 1.0, 1.0), (29, 31, 71))
    axis = centerline_of_cord(cord)
    levels = levels_from_landmarks(axis, marks, template)
    world = axis.at(np.linspace(5, axis.length[-1] - 5, 20))
    np.testing.assert_allclose(levels.height_of(world), truth(world)[:, 2], atol=1.2)
    one = dict(list(marks.items())[:1])
    near = levels_from_landmarks(axis, one, template)
    name, place = next(iter(one.items()))
    np.testing.assert_allclose(near.height_of(place), template.discs[name], atol=0.5)
    np.testing.assert_allclose(levels.length_at(levels.height_at([3.0, 40.0])), [3.0, 40.0])


def test_carrying_over_keeps_heights(template):
    cord, _, marks = subject(template, (1.0, 1.0, 1.0), (29, 31, 71))
    other, _, _ = subject(template)
    levels = levels_from_landmarks(centerline_of_cord(cord), marks, template)
    carried = levels_carried(levels, centerline_of_cord(other))
    place = carried.centerline.at(30.0)
    np.testing.assert_allclose(carried.height_of(place), levels.height_of(place), atol=0.6)


def test_level_map_gives_the_same_heights_as_landmarks(template):
    cord, truth, _ = subject(template)
    index = np.argwhere(cord.data > 0)
    labels = np.zeros(cord.grid.shape)
    labels[tuple(index.T)] = vertebra_at(template, truth(cord.grid.world(index))[:, 2])
    axis = centerline_of_cord(cord)
    levels = levels_from_map(Image(labels, cord.grid), axis, template)
    world = axis.at(np.linspace(10, axis.length[-1] - 10, 9))
    np.testing.assert_allclose(levels.height_of(world), truth(world)[:, 2], atol=3.0)  # slices are 5 mm apart


def test_vertebra_numbers_change_at_discs(template):
    top = template.discs["C4/C5"]
    assert VERTEBRAE[vertebra_at(template, top - 0.1) - 1] == "C5"
    assert VERTEBRAE[vertebra_at(template, top + 0.1) - 1] == "C4"
    assert vertebra_at(template, [1e4, -1e4]).tolist() == [0, 0]


def test_wrong_landmarks_are_refused(template):
    axis = curve_through([[0, 0, 0], [0, 0, 40], [0, 0, 80.0]])
    with pytest.raises(ImplausibleValue, match="check their names and places"):
        levels_from_landmarks(axis, {"C3/C4": [0, 0, 10], "C4/C5": [0, 0, 40]}, template)
    with pytest.raises(UnknownName, match="L4/L5"):
        levels_from_landmarks(axis, {"L4/L5": [0, 0, 10]}, template)
    with pytest.raises(EmptyRegion, match="No landmark"):
        levels_from_landmarks(axis, {}, template)
    assert levels_assumed(axis, template, "C4/C5").assumed


def test_cord_outside_the_template_is_refused(template):
    cord, _, _ = subject(template)
    axis = centerline_of_cord(cord)
    levels = levels_from_landmarks(axis, {"C3/C4": [4, -60, 1000]}, template)
    with pytest.raises(EmptyRegion, match="within template"):
        register(cord, template, levels)


@settings(max_examples=25, deadline=None)
@given(
    lean=st.floats(-0.4, 0.4),
    bend=st.floats(-0.002, 0.002),
    point=st.tuples(st.floats(-8, 8), st.floats(-8, 8), st.floats(5, 95)),
)
def test_cord_coordinates_are_invertible(lean, bend, point):
    z = np.linspace(0, 100, 21)
    axis = curve_through(np.stack([lean * z / 4, lean * z + bend * z**2, z], -1))
    np.testing.assert_allclose(axis.place(axis.project(point)), point, atol=1e-5)


def test_interpolation_matrix_reproduces_linear_functions():
    grid = Grid((7, 8, 9), np.eye(4))
    index = np.random.default_rng(2).uniform(0, 6, (40, 3))
    i, j, k = np.indices(grid.shape)
    values = interpolation_matrix(grid, index) @ (2 * i - j + 3 * k + 1.0).ravel()
    np.testing.assert_allclose(values, index @ [2, -1, 3] + 1)
