import numpy as np
import pandas as pd
import pytest

from qcord.normative.outlines import PARTS, RATIOS
from qcord.normative.score import score
from qcord.normative.shipped import shipped_norms
from qcord.phantom.body import AP, AREA, CANAL_AREA, HALF_LEVEL, RL, make_body
from qcord.phantom.spec import Compression, PhantomSpec
from qcord.template import tables


@pytest.fixture(scope="module")
def body():
    return make_body(PhantomSpec())


def _heights(level, n=200):
    edges = tables.level_edges()
    row = tables.LEVELS.index(level)
    return edges[row + 1] + (np.arange(n) + 0.5) / n * (edges[row] - edges[row + 1])


@pytest.mark.parametrize("level", ["C1", "C2", "C3", "C4", "C5", "C6", "C7", "T1", "T3"])
def test_sizes_are_those_of_healthy_adults(body, level):
    """Brought to published outlines, as norms do, cords are those that were published; the sac is as published."""
    row = tables.LEVELS.index(level)
    section = body.shape.at(_heights(level))
    ratio, _ = RATIOS["T2w"]
    assert section.area.mean() / np.exp(ratio) == pytest.approx(AREA[row], rel=0.01)
    if row < len(AP):
        assert section.ap.mean() / np.exp(ratio * PARTS["diameter_AP"]) == pytest.approx(AP[row], rel=0.02)
        assert section.rl.mean() / np.exp(ratio * PARTS["diameter_RL"]) == pytest.approx(RL[row], rel=0.02)
    if 1 <= row <= len(CANAL_AREA):
        canal = np.pi / 4 * section.canal_ap * section.canal_rl
        assert canal.mean() == pytest.approx(CANAL_AREA[row - 1], rel=0.02)


def test_the_ratio_of_outlines_is_that_of_the_norms():
    assert RATIOS["T2w"][0] == HALF_LEVEL


@pytest.mark.parametrize("metric", ["area", "diameter_AP", "diameter_RL"])
def test_a_cord_of_average_size_is_average_beside_the_shipped_norms(body, metric):
    """As a woman's and as a man's, measured by qcord on T2w; published sizes as they stand would give -.4 to -.7."""
    field = {"area": "area", "diameter_AP": "ap", "diameter_RL": "rl"}[metric]
    rows = [
        {"level": level, "value": getattr(body.shape.at(_heights(level)), field).mean(), "sex": sex}
        for level in tables.LEVELS[:8]
        for sex in "FM"
    ]
    person = {"metric": f"{metric} T2w", "region": "spinal cord", "age": 30.0, "se": 0.1, "software": "qcord"}
    person |= {"site": "", "manufacturer": "Siemens"}
    found = score(shipped_norms(), pd.DataFrame(rows).assign(**person))
    assert len(found) == found["z"].notna().sum() == 16
    assert abs(found["z"].mean()) < 0.2


def test_the_edge_lies_evenly_outside_published_outlines(monkeypatch):
    """Depth and width grow by the same length, the shape of the outline stays, and so does the sac."""
    outer = make_body(PhantomSpec()).shape
    monkeypatch.setattr("qcord.phantom.body.HALF_LEVEL", 0.0)
    inner = make_body(PhantomSpec()).shape
    np.testing.assert_allclose(outer.area, inner.area * np.exp(HALF_LEVEL))
    np.testing.assert_allclose(outer.ap - inner.ap, outer.rl - inner.rl, atol=1e-9)
    cord = inner.area > 0
    fill = [shape.area[cord] / (shape.ap * shape.rl)[cord] for shape in (outer, inner)]
    np.testing.assert_allclose(*fill)
    neck = (inner.heights > tables.level_edges()[8]) & (inner.heights < tables.level_edges()[0])
    apart = ((outer.ap - inner.ap) / 2)[neck]
    assert 0.1 < apart.min() < apart.max() < 0.2, "mm, as between masks of real scans"
    np.testing.assert_array_equal(outer.canal_ap, inner.canal_ap)
    np.testing.assert_array_equal(outer.canal_rl, inner.canal_rl)


def test_project_and_place_are_inverse(body):
    generator = np.random.default_rng(1)
    cord = generator.uniform([-15, -15, -250], [15, 15, -70], (500, 3))
    np.testing.assert_allclose(body.project(body.place(cord)), cord, atol=0.01)


def test_axis_bends_and_is_measured_in_mm(body):
    heights = np.arange(-250.0, -70, 0.5)
    points = body.place(np.stack([0 * heights, 0 * heights, heights], axis=-1))
    length = np.linalg.norm(np.diff(points, axis=0), axis=1)
    np.testing.assert_allclose(length, 0.5, rtol=1e-3)
    tangent = body.tangent(heights[:-1] + 0.25)
    np.testing.assert_allclose((np.diff(points, axis=0) / length[:, None] * tangent).sum(axis=1), 1, atol=1e-4)
    tilt = np.rad2deg(np.arccos(np.clip(tangent @ tangent[0], -1, 1)))
    assert tilt.max() > 20


def test_a_neck_without_curvature_is_straight():
    body = make_body(PhantomSpec(curvature=0.0, rotation=(0, 0, 0), position=(1.0, 2.0, 3.0), length_factor=1.1))
    origin = tables.disc_heights()["C4/C5"]
    np.testing.assert_allclose(body.place([0, 0, origin]), [1, 2, 3], atol=1e-6)
    np.testing.assert_allclose(body.place([2, -3, origin + 10]), [3, -1, 14], atol=1e-6)
    np.testing.assert_allclose(body.project([3, -1, 14]), [2, -3, origin + 10], atol=1e-3)


def test_compression_flattens_the_cord_and_closes_the_canal():
    healthy = make_body(PhantomSpec()).shape
    pinched = make_body(PhantomSpec(compression=Compression("C5/C6", 0.4, 12.0))).shape
    place = np.argmin(np.abs(healthy.heights - tables.disc_heights()["C5/C6"]))
    assert pinched.ap[place] == pytest.approx(0.6 * healthy.ap[place], rel=0.01)
    assert pinched.rl[place] > healthy.rl[place]
    assert pinched.canal_ap[place] == pytest.approx(1.06 * pinched.ap[place], rel=0.01)
    half = np.argmin(np.abs(healthy.heights - tables.disc_heights()["C5/C6"] - 6))
    assert pinched.ap[half] == pytest.approx(0.8 * healthy.ap[half], rel=0.02)
    far = np.abs(healthy.heights - tables.disc_heights()["C5/C6"]) > 25
    np.testing.assert_allclose(pinched.area[far], healthy.area[far], rtol=1e-3)


def test_larger_people():
    small, large = (make_body(PhantomSpec(area_factor=f)).shape for f in (0.9, 1.2))
    np.testing.assert_allclose(large.area, small.area * 1.2 / 0.9)
    np.testing.assert_allclose(large.at(-150.0).area, small.at(-150.0).area * 1.2 / 0.9, rtol=1e-3)


@pytest.mark.parametrize("spec", [PhantomSpec(), PhantomSpec(compression=Compression("C4/C5", 0.6, 10.0))])
def test_the_cord_stays_inside_the_dural_sac(spec):
    shape = make_body(spec).shape
    angle = np.linspace(0, 2 * np.pi, 181)
    section = shape.at(shape.heights[40:, None])
    n = section.exponent
    radius = (np.abs(np.cos(angle)) ** n + np.abs(np.sin(angle)) ** n) ** (-1 / n)
    share = np.where(np.sin(angle) > 0, 0.44, 0.56)
    x, y = section.rl / 2 * radius * np.cos(angle), section.ap * share * radius * np.sin(angle) + section.widest
    assert section.canal_radius(x, y).max() < 1.05
