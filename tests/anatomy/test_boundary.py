"""Sections, curves and shares against closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from qcord.anatomy.boundary import ANGLES, centres_of, cover, level, only_cord, radii_of, smooth_surface
from qcord.anatomy.detect import best_path
from qcord.anatomy.edge import half_level_offset, half_level_shift
from qcord.anatomy.network import COARSE
from qcord.anatomy.sampling import sections
from qcord.anatomy.segment import _bridged


def disc(size: int, centre: tuple[float, float], radius: float) -> np.ndarray:
    x, y = np.meshgrid(np.arange(size) - (size - 1) / 2, np.arange(size) - (size - 1) / 2, indexing="ij")
    return np.clip(0.5 + radius - np.hypot(x - centre[0], y - centre[1]), 0, 1)


def test_radius_of_a_disc_off_the_middle():
    share = disc(64, (3.2, -4.1), 9.0)[None].astype(np.float32)
    centres, area = centres_of(share)
    np.testing.assert_allclose(centres[0], [3.2, -4.1], atol=0.02)
    assert area[0] == pytest.approx(np.pi * 81, rel=0.01)
    radii = radii_of(share, centres, 0.5)
    np.testing.assert_allclose(radii, 4.5, rtol=0.02)


@pytest.mark.parametrize("spacing", [(0.4, 0.4, 3.0), (0.9, 1.1, 5.0), (1.0, 1.0, 1.0)])
def test_share_of_an_ellipse_sums_to_its_area_at_any_voxel_size(spacing):
    a, b = 6.3, 3.9
    angle = 2 * np.pi * np.arange(ANGLES) / ANGLES
    radii = np.tile(1 / np.hypot(np.cos(angle) / a, np.sin(angle) / b), (3, 1))
    places = np.array([[20.3, 17.8], [21.1, 18.2], [20.0, 18.0]])
    share = cover(radii, places, (60, 50, 3), spacing, np.array([True, True, False]))
    area = share.sum(axis=(0, 1)) * spacing[0] * spacing[1]
    assert area[:2] == pytest.approx(np.pi * a * b, rel=0.01)
    assert area[2] == 0
    assert share.max() == 1


def test_a_cord_cut_by_the_edge_of_the_image_is_drawn_as_far_as_it_goes():
    share = cover(np.full((1, ANGLES), 5.0), np.array([[0.0, 10.0]]), (20, 21, 1), (1.0, 1.0, 5.0), np.array([True]))
    assert share.sum() == pytest.approx(np.pi * 25 / 2 + 5, rel=0.03)  # half a disc and the half row of voxels at 0
    outside = cover(
        np.full((1, ANGLES), 5.0), np.array([[-30.0, 10.0]]), (20, 21, 1), (1.0, 1.0, 5.0), np.array([True])
    )
    assert not outside.any()


@given(st.floats(2.0, 8.0), st.floats(0.0, 3.0))
def test_smoothing_keeps_a_tube(radius, spread):
    out = smooth_surface(np.full((9, ANGLES), radius), np.linspace(0.1, 1, 9), spread)
    np.testing.assert_allclose(out, radius, rtol=1e-6)


def test_smoothing_keeps_the_area_and_weighs_by_trust():
    rng = np.random.default_rng(3)
    radii = 5 + rng.normal(0, 0.4, (1, ANGLES))
    out = smooth_surface(radii, np.ones(1), 0.0)
    assert (out**2).mean() == pytest.approx((radii**2).mean(), rel=1e-9)
    tube = np.full((9, ANGLES), 5.0)
    tube[4] = 0.0
    weight = np.ones(9)
    weight[4] = 0
    np.testing.assert_allclose(smooth_surface(tube, weight, 1.0), 5.0, rtol=1e-4)


def test_only_the_part_near_the_middle_is_kept():
    share = np.maximum(disc(64, (2, 1), 6), 0.9 * disc(64, (22, 20), 8))[None].astype(np.float32)
    kept = only_cord(share)
    assert kept[0, 34, 33] == 1
    assert kept[0, 53, 51] == 0
    assert not only_cord(np.zeros((2, 16, 16), dtype=np.float32)).any()


def test_path_is_the_best_of_all_paths():
    rng = np.random.default_rng(5)
    score = rng.random((4, 3, 4))
    step = 3.0
    path = best_path(score, step)

    def value(p):
        slope = np.linalg.norm(np.diff(p, axis=0), axis=1) * COARSE.spacing / step
        return score[np.arange(4), p[:, 0], p[:, 1]].sum() - (0.15 * slope**2).sum()

    cells = [(i, j) for i in range(3) for j in range(4)]
    every = (np.array([a, b, c, d]) for a in cells for b in cells for c in cells for d in cells)
    assert value(path) == pytest.approx(max(value(p) for p in every), rel=1e-9)


@given(st.floats(0.3, 1.4), st.floats(0.3, 1.4), st.floats(0.4, 1.6))
def test_sections_carry_a_linear_image(sx, sy, pixel):
    x, y = np.meshgrid(np.arange(60) * sx, np.arange(50) * sy, indexing="ij")
    volume = np.repeat((2 * x - 3 * y + 100)[None], 2, axis=0).astype(np.float32)
    centres = np.array([[29.5, 24.5], [30.2, 23.9]])
    planes, inside = sections(volume, (sx, sy, 4.0), centres, (8, 9), pixel)
    u = (np.arange(8) - 3.5) * pixel
    v = (np.arange(9) - 4.0) * pixel
    for k in (0, 1):
        want = 2 * (centres[k, 0] * sx + u)[:, None] - 3 * (centres[k, 1] * sy + v)[None] + 100
        exact = pixel <= min(sx, sy)  # else averaging whole voxels, off by a fraction of one
        np.testing.assert_allclose(planes[k], want, atol=0.02 if exact else 0.35 * (2 * sx + 3 * sy))
    assert inside.all()


def test_outside_the_field_of_view_is_marked():
    volume = np.ones((1, 10, 12), dtype=np.float32)
    volume[:, :, :4] = np.nan
    planes, inside = sections(volume, (1.0, 1.0, 1.0), np.array([[4.5, 5.5]]), (16, 16), 1.0)
    assert inside.sum() == 10 * 8
    assert planes[inside > 0] == pytest.approx(1.0)
    assert (planes[inside == 0] == 0).all()


@pytest.mark.parametrize("shift", [-0.3, 0.0, 0.25])
@pytest.mark.parametrize(("cord", "fluid"), [(0.4, 1.0), (0.8, 0.3), (1.0, 0.1)])
def test_half_level_finds_how_far_the_edge_is_off(cord, fluid, shift):
    x, y = np.meshgrid(*(2 * [(np.arange(96) - 47.5) * 0.5]), indexing="ij")
    image = np.where(np.hypot(x, y) < 5, cord, np.where(np.hypot(x, y) < 9, fluid, 0.2))
    image = ndimage.gaussian_filter(image, 1.0) + np.random.default_rng(1).normal(0, 0.03, image.shape)
    drawn = np.full((1, ANGLES), 5.0 - shift)
    assert half_level_offset(image[None], drawn, 0.5) == pytest.approx(shift, abs=0.06)


@pytest.mark.parametrize("blur", [0.5, 1.0])
@pytest.mark.parametrize("away", [(0.25, 0.0), (-0.1, 0.2), (0.0, 0.0)])
@pytest.mark.parametrize(("rim", "core", "fluid"), [(0.9, 1.1, 0.4), (0.6, 0.7, 1.2)])
def test_half_level_finds_where_a_cord_lies_whose_rim_differs_from_its_core(rim, core, fluid, away, blur):
    x, y = np.meshgrid(*(2 * [(np.arange(96) - 47.5) * 0.5]), indexing="ij")
    reach = np.hypot(x - away[0], y - away[1])
    image = np.where(reach < 5, np.where(reach < 2.8, core, rim), np.where(reach < 8, fluid, 0.8))
    image = ndimage.gaussian_filter(image, blur)[None] + np.random.default_rng(1).normal(0, 0.01, (4, 96, 96))
    drawn = np.full((4, ANGLES), 5.0)
    angle = 2 * np.pi * np.arange(ANGLES) / ANGLES
    found = half_level_shift(image, drawn, 0.5)
    assert abs(found.mean()) < 0.1
    np.testing.assert_allclose(found - found.mean(), away[0] * np.cos(angle) + away[1] * np.sin(angle), atol=0.08)


def test_half_level_tells_no_side_from_half_of_the_directions():
    x, y = np.meshgrid(*(2 * [(np.arange(96) - 47.5) * 0.5]), indexing="ij")
    image = ndimage.gaussian_filter(np.where((np.hypot(x - 0.2, y) < 5) | (x > 0), 0.4, 1.0), 1.0)[None]
    assert (half_level_shift(image, np.full((1, ANGLES), 5.0), 0.5) == 0).all()
    assert (half_level_shift(image[:0], np.empty((0, ANGLES)), 0.5) == 0).all()


def test_half_level_is_not_believed_without_contrast_or_far_away():
    rng = np.random.default_rng(2)
    flat = 1 + rng.normal(0, 0.02, (2, 96, 96))
    assert half_level_offset(flat, np.full((2, ANGLES), 5.0), 0.5) == 0
    x, y = np.meshgrid(*(2 * [(np.arange(96) - 47.5) * 0.5]), indexing="ij")
    far = np.where(np.hypot(x, y) < 7, 0.4, 1.0)[None]
    assert half_level_offset(far, np.full((1, ANGLES), 5.0), 0.5) == 0
    assert half_level_offset(far[:0], np.empty((0, ANGLES)), 0.5) == 0


def test_doubt_does_not_make_a_cord_thinner():
    share = disc(64, (0, 0), 9.0)[None].astype(np.float32)
    for doubt in (1.0, 0.8, 0.6):
        radii = radii_of(level(doubt * share), np.zeros((1, 2)), 0.5)
        assert (radii**2).mean() == pytest.approx(4.5**2, rel=0.04)


@pytest.mark.parametrize(
    ("runs", "longest", "want"),
    [
        ([], 5, []),
        ([(0, 17), (22, 23), (24, 99)], 15, [(0, 99)]),
        ([(0, 17), (22, 23)], 15, [(0, 17), (22, 23)]),
        ([(0, 10), (13, 20)], 2, [(0, 10), (13, 20)]),
        ([(0, 10), (13, 20)], 3, [(0, 20)]),
    ],
)
def test_gaps_are_bridged_between_longer_parts_only(runs, longest, want):
    assert _bridged(runs, longest) == want
