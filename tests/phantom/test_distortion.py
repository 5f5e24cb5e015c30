"""Displacement, conservation and brightening along the phase-encoding axis, against what geometry says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcord.core.errors import UnknownName
from qcord.core.grid import Grid
from qcord.core.protocol import Protocol
from qcord.phantom.distortion import displacement, phase_axis, push
from qcord.phantom.eddy import OFFSET, REACH, eddy_field, eddy_terms

LINE = np.zeros((1, 24, 1, 1))


def test_shift_of_the_zoomed_protocol():
    """36 lines, 0.94 ms apart: 29.6 Hz a pixel."""
    assert displacement(np.array(29.55), 0.00094, 36) == pytest.approx(1.0, rel=1e-3)
    assert displacement(np.array(50.0), 0.00094, 36, -1) == pytest.approx(-1.69, rel=2e-3)


@pytest.mark.parametrize(
    ("direction", "stored", "expected"),
    [
        ("j", "RAS", (1, 1)),
        ("j-", "LAS", (1, -1)),
        ("j", "LPS", (1, -1)),
        ("j-", "LPS", (1, 1)),
        ("i", "LAS", (0, -1)),
        ("i", "PSR", (1, -1)),
        ("k-", "PSR", (0, -1)),
    ],
)
def test_direction_of_phase_encoding_counts_axes_of_the_file(direction, stored, expected):
    assert phase_axis(direction, Grid((7, 8, 9), np.diag([1.0, 1, 5, 1]), stored)) == expected


def test_unknown_direction():
    with pytest.raises(UnknownName, match="'y' is not a phase-encoding direction"):
        phase_axis("y", Grid((7, 8, 9), np.eye(4)))


def test_no_shift_changes_nothing():
    data = np.random.default_rng(1).uniform(0, 9, (5, 6, 4, 3)).astype(np.float32)
    np.testing.assert_array_equal(push(data, np.zeros((5, 6, 4, 1)), 1), data)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_whole_voxels_move_as_a_whole(axis):
    data = np.random.default_rng(2).uniform(0, 9, (7, 8, 9, 2)).astype(np.float32)
    found = push(data, np.full((7, 8, 9, 1), 2.0), axis)
    np.testing.assert_allclose(
        np.take(found, range(2, data.shape[axis]), axis), np.take(data, range(data.shape[axis] - 2), axis)
    )
    assert not np.take(found, [0, 1], axis).any()


def test_half_a_voxel_is_shared_by_two():
    data = LINE.copy()
    data[0, 10] = 1
    found = push(data, np.full(LINE.shape, -0.25), 1)[0, :, 0, 0]
    assert found[10] == pytest.approx(0.75)
    assert found[9] == pytest.approx(0.25)


@given(st.floats(-0.6, 0.9))
@settings(max_examples=40, deadline=None)
def test_squeezed_signal_brightens_by_the_jacobian(slope):
    """Shift slope * y: a uniform object keeps its signal and changes its density by 1 / (1 + slope)."""
    y = np.arange(60) - 29.5
    found = push(np.ones((1, 60, 1, 1)), (slope * y).reshape(1, 60, 1, 1), 1)[0, :, 0, 0]
    reach = int(29 * min(1, 1 + slope)) - 2
    inside = np.abs(y) < reach
    np.testing.assert_allclose(found[inside], 1 / (1 + slope), rtol=1e-4)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_signal_is_neither_made_nor_lost_even_where_it_folds(seed):
    generator = np.random.default_rng(seed)
    data = np.zeros((3, 40, 2, 2))
    data[:, 12:28] = generator.uniform(0, 5, (3, 16, 2, 2))
    shift = generator.uniform(-8, 8, (3, 40, 2, 2))
    found = push(data, shift, 1)
    np.testing.assert_allclose(found.sum(axis=1), data.sum(axis=1), rtol=1e-4, atol=1e-4)
    assert found.min() >= 0


def test_opposite_polarities_mirror_each_other():
    data = np.random.default_rng(3).uniform(0, 9, (1, 20, 1, 1))
    shift = np.random.default_rng(4).normal(0, 1, (1, 20, 1, 1))
    forth = push(data, shift, 1)
    back = push(data[:, ::-1], -shift[:, ::-1], 1)
    np.testing.assert_allclose(forth, back[:, ::-1], atol=1e-5)


def test_eddy_currents_are_linear_in_space_and_follow_the_gradient():
    protocol = Protocol({"BValue": [0.0, 800, 800, 200], "Direction": [[0, 0, 0], [1, 0, 0], [-1, 0, 0], [1, 0, 0]]})
    points = np.random.default_rng(5).normal(0, 30, (11, 3))
    field = eddy_field(protocol, points, 20.0, seed=2)
    assert field.shape == (11, 4)
    assert not field[:, 0].any()
    np.testing.assert_allclose(field[:, 1], -field[:, 2])
    np.testing.assert_allclose(field[:, 3], field[:, 1] / 2)
    np.testing.assert_allclose(
        eddy_field(protocol, (points[:1] + points[1:2]) / 2, 20.0, 2), field[:2].mean(axis=0, keepdims=True)
    )
    along = eddy_field(protocol, np.array([[REACH, 0, 0], [0.0, 0, 0]]), 20.0, 2)[:, 1]
    assert along[0] - along[1] == pytest.approx(20.0)
    matrix, offset = eddy_terms(20.0, 2)
    assert along[1] == pytest.approx(offset[0])
    assert np.abs(offset).max() < 4 * OFFSET * 20
    assert (np.diag(matrix) == 20).all()


def test_eddy_currents_of_the_read_gradient_shear_and_of_the_phase_gradient_stretch():
    """Moments of a distorted square: x-gradients move rows against each other, y-gradients change its height."""
    x, y = np.meshgrid(np.arange(21) - 10.0, np.arange(41) - 20.0, indexing="ij")
    data = ((np.abs(x) < 8) & (np.abs(y) < 10)).astype(float)[:, :, None, None]
    sheared = push(data, (0.2 * x)[:, :, None, None], 1)[:, :, 0, 0]
    centre = (sheared * y).sum(axis=1) / np.maximum(sheared.sum(axis=1), 1e-9)
    np.testing.assert_allclose(centre[3:18], 0.2 * x[3:18, 0], atol=0.02)
    stretched = push(data, (0.2 * y)[:, :, None, None], 1)[10, :, 0, 0]
    spread = np.sqrt((stretched * y[10] ** 2).sum() / stretched.sum())
    before = np.sqrt((data[10, :, 0, 0] * y[10] ** 2).sum() / data[10].sum())
    assert spread == pytest.approx(1.2 * before, rel=0.01)
