import numpy as np
import pytest

from qcord.core.labels import TRACTS
from qcord.template import tables
from qcord.template.layout import tract_layout
from qcord.template.shape import half_areas, template_shape


@pytest.mark.parametrize("height_of", ["C2", "C6", "T7", "T11"])
def test_each_region_has_its_share_of_the_area(height_of):
    row = tables.LEVELS.index(height_of)
    z = float(tables.level_edges()[row : row + 2].mean())
    axis = np.arange(-7, 7, 0.04) + 0.02
    x, y = (a.ravel() for a in np.meshgrid(axis, axis, indexing="ij"))
    section = template_shape().at(z)
    u, v = section.disc(x, y)
    inside = np.hypot(u, v) <= 1
    fractions = tract_layout().fractions(u[inside], v[inside], np.full(inside.sum(), z))
    np.testing.assert_allclose(fractions.sum(axis=1), 1, atol=1e-5)
    share = fractions.sum(axis=0, dtype=float) / inside.sum()
    wanted = half_areas()(np.array([z]))[0]
    np.testing.assert_allclose(share, np.repeat(wanted / wanted.sum() / 2, 2), rtol=0.1, atol=2e-4)


def test_points_belong_to_the_half_they_lie_in():
    u = np.array([-0.5, 0.5, -0.1, 0.1])
    v = np.array([-0.3, -0.3, -0.6, -0.6])
    fractions = tract_layout().fractions(u, v, np.full(4, -130.0))
    best = [TRACTS[i] for i in fractions.argmax(axis=1)]
    assert best[0].replace("left", "right") == best[1]
    assert best[2] == "WM left fasciculus gracilis"
    assert best[3] == "WM right fasciculus gracilis"


def test_most_points_belong_to_one_region_only():
    axis = np.linspace(-1, 1, 301)
    u, v = (a.ravel() for a in np.meshgrid(axis, axis, indexing="ij"))
    inside = np.hypot(u, v) <= 1
    fractions = tract_layout().fractions(u[inside], v[inside], np.full(inside.sum(), -120.0))
    assert (fractions.max(axis=1) > 0.9).mean() > 0.85


def test_table_of_positions_is_complete():
    levels, centres, covariances = tables.tract_positions()
    assert centres.shape == (len(levels), 18, 2)
    assert set(levels) <= set(tables.LEVELS)
    assert (np.linalg.det(covariances) > 0).all()
    assert (np.hypot(centres[..., 0], centres[..., 1]) < 1.1).all()
    assert tables.tract_areas().shape == (20, 18)
