import numpy as np
import pytest

from qcord.core.protocol import Protocol
from qcord.models.spoiled_gradient_echo import helms_inverse
from qcord.phantom.acquisition import acquisition
from qcord.phantom.body import make_body
from qcord.phantom.contrast import signal, surrounding_signals
from qcord.phantom.scan import half_sphere
from qcord.phantom.spec import PhantomSpec
from qcord.phantom.tissue import SURROUNDINGS, axial_radial, default_tissues, tissue_table
from qcord.phantom.values import around_tissue
from qcord.template import tables

UP = np.array([0.0, 0.0, 1.0])


@pytest.fixture(scope="module")
def body():
    return make_body(PhantomSpec())


@pytest.fixture(scope="module")
def cord():
    table = tissue_table(default_tissues())
    return {metric: table.cord(metric) for metric in table.values}


def test_transfer_images_give_back_their_values(body, cord):
    protocol = acquisition("MTS", body).protocol
    images = signal("MTS", cord, protocol, tangent=UP, gradient_echo="mtsat")
    decay = np.exp(-0.00313 / cord["T2star"])
    angles = np.deg2rad([9.0, 9.0, 15.0])[:, None]
    amplitude, rate, mtsat = helms_inverse(images.T, angles, np.array([0.03, 0.03, 0.015]))
    np.testing.assert_allclose(amplitude, cord["PD"] * decay)
    np.testing.assert_allclose(1 / rate, cord["T1"])
    np.testing.assert_allclose(mtsat, cord["MTsat"])


def test_exact_steady_state_differs_by_a_few_percent(body, cord):
    protocol = acquisition("MTS", body).protocol
    near, exact = (signal("MTS", cord, protocol, tangent=UP, gradient_echo=m) for m in ("mtsat", "mtsat-ernst"))
    ratio = exact / near
    assert 0.005 < np.abs(ratio - 1).max() < 0.05


def test_diffusion_signal_by_hand(cord):
    tangent = np.array([0.0, 0.6, 0.8])
    g = np.array([[0, 0, 0], [0, 0.6, 0.8], [1, 0, 0], [0, 0, 1.0]])
    protocol = Protocol(
        {
            "BValue": np.array([0.0, 800, 800, 500]),
            "Direction": g,
            "EchoTime": np.full(4, 0.06),
            "RepetitionTime": np.full(4, 3.0),
        }
    )
    images = signal("dwi", cord, protocol, tangent=tangent, gradient_echo="mtsat")
    first = cord["PD"] * (1 - np.exp(-3 / cord["T1"])) * np.exp(-0.06 / cord["T2"])
    along, across = axial_radial(cord["FA"], cord["MD"])
    np.testing.assert_allclose(images[:, 0], first)
    np.testing.assert_allclose(images[:, 1], first * np.exp(-800 * along))
    np.testing.assert_allclose(images[:, 2], first * np.exp(-800 * across))
    np.testing.assert_allclose(images[:, 3], first * np.exp(-500 * (across + (along - across) * 0.64)))


def test_contrasts_are_those_of_real_scans(body, cord):
    """Signs that every radiologist knows: fluid bright and muscle dark on T2w, gray matter brighter on T2*."""
    table = tissue_table(default_tissues())
    around = {name: around_tissue(table, name) for name in SURROUNDINGS}
    level = {}
    for name in ("T2w", "T2star", "MTS", "dwi"):
        plan = acquisition(name, body)
        pure = signal(name, cord, plan.protocol, tangent=UP, gradient_echo="mtsat")
        others = surrounding_signals(around, plan, "mtsat")
        level[name] = {"white": pure[:30].mean(axis=0), "gray": pure[30:].mean(axis=0), **others}
    t2, star, mt, dwi = (level[n] for n in ("T2w", "T2star", "MTS", "dwi"))
    assert 2.5 < t2["fluid"][0] / t2["white"][0] < 8
    assert t2["muscle"][0] < 0.5 * t2["white"][0]
    assert 1.1 < star["gray"][0] / star["white"][0] < 1.3
    assert 1.1 < star["fluid"][0] / star["white"][0] < 2.5
    assert mt["fluid"][0] > mt["white"][0]
    assert mt["fluid"][1] < mt["white"][1]
    assert mt["fluid"][2] < 0.7 * mt["white"][2]
    assert dwi["fluid"][0] > dwi["white"][0]
    weighted = slice(1, 31)
    assert dwi["fluid"][weighted].mean() < 0.5 * dwi["white"][weighted].mean()
    assert all(values["air"].max() == 0 for values in level.values())


def test_directions_are_spread_evenly():
    g = half_sphere(30)
    np.testing.assert_allclose(np.linalg.norm(g, axis=1), 1)
    x, y, z = g.T
    design = np.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], axis=1)
    assert np.linalg.cond(design) < 2.2, "the best schemes reach 1.58"


@pytest.mark.parametrize("name", ["T2star", "dwi", "MTS"])
def test_axial_slices_stand_perpendicular_to_the_cord(body, name):
    grid = acquisition(name, body).grid
    height = tables.disc_heights()["C3/C4"]
    normal = grid.affine[:3, 2] / np.linalg.norm(grid.affine[:3, 2])
    np.testing.assert_allclose(normal, body.tangent(height), atol=1e-9)
    np.testing.assert_allclose(grid.index(body.place([0, 0, height])), (np.array(grid.shape) - 1) / 2, atol=1e-6)
    assert grid.axes == "RAS"
    assert np.linalg.det(grid.affine[:3, :3]) > 0


def test_sagittal_field_of_view_reaches_from_c1_to_t4(body):
    grid = acquisition("T2w", body).grid
    assert grid.spacing == (1, 1, 1)
    discs = tables.disc_heights()
    for name in ("C1 top", "C4/C5", "C7/T1", "T3/T4", "T4/T5"):
        index = grid.index(body.place([0, 0, discs[name]]))
        assert (index > 8).all() or name == "T4/T5"
        assert (index > 0).all()
        assert (index < np.array(grid.shape) - 1).all()
