import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from qcord.template.outline import Section, exponent_of, fill_of, widest_row
from qcord.template.shape import mean_preserving, template_shape


def _section(ap=7.0, rl=12.0, n=1.8):
    one = np.asarray(1.0)
    return Section(ap * one, rl * one, n * one, widest_row(ap, n), 13 * one, 20 * one, 1 * one)


def _points(step=0.02):
    axis = np.arange(-9, 9, step) + step / 2
    return np.meshgrid(axis, axis, indexing="ij"), step**2


@pytest.mark.parametrize("n", [1.4, 2.0, 3.1])
def test_fill_is_the_area_under_the_curve(n):
    area, _ = quad(lambda x: (1 - x**n) ** (1 / n), 0, 1)
    assert float(fill_of(n)) == pytest.approx(area, rel=1e-6)
    assert float(exponent_of(fill_of(n))) == pytest.approx(n, rel=1e-4)


@pytest.mark.parametrize("n", [1.5, 2.0, 2.6])
def test_section_has_its_sizes_and_its_centroid_at_zero(n):
    section = _section(n=n)
    (x, y), pixel = _points()
    inside = np.hypot(*section.disc(x, y)) <= 1
    assert inside.sum() * pixel == pytest.approx(float(section.area), rel=2e-3)
    assert np.ptp(x[inside]) == pytest.approx(12, abs=0.1)
    assert np.ptp(y[inside]) == pytest.approx(7, abs=0.1)
    assert abs(x[inside].mean()) < 1e-3
    assert abs(y[inside].mean()) < 5e-3


def test_area_element_of_the_disc():
    section = _section(n=1.7)
    (x, y), pixel = _points()
    u, v = section.disc(x, y)
    part = (np.hypot(u, v) <= 1) & (u > 0.3) & (v < -0.1)
    grid = np.linspace(-1, 1, 1201)
    uu, vv = np.meshgrid(grid, grid, indexing="ij")
    chosen = (np.hypot(uu, vv) <= 1) & (uu > 0.3) & (vv < -0.1)
    area = section.cord_area_at(uu[chosen], vv[chosen]).sum() * (grid[1] - grid[0]) ** 2
    assert part.sum() * pixel == pytest.approx(area, rel=0.01)


@given(
    st.lists(st.one_of(st.just(0.0), st.floats(0.01, 100.0)), min_size=2, max_size=8),
    st.lists(st.floats(5.0, 30.0), min_size=8, max_size=8),
)
def test_mean_preserving_curve_keeps_every_mean(values, widths):
    edges = np.concatenate([[0.0], np.cumsum(widths[: len(values)])])
    curve = mean_preserving(np.array(values), edges)
    for value, low, high in zip(values, edges[:-1], edges[1:], strict=True):
        mean = np.mean(curve(low + (np.arange(400) + 0.5) / 400 * (high - low)))
        assert mean == pytest.approx(value, rel=1e-3, abs=1e-3)
    assert (curve(np.linspace(-5, edges[-1] + 5, 200)) >= 0).all()


def test_the_cord_lies_inside_the_dural_sac():
    shape = template_shape()
    section = shape.at(shape.heights)
    assert (section.canal_ap / 2 - np.abs(section.canal_shift) > section.ap * 0.56).all()
    assert (section.canal_rl > section.rl).all()
