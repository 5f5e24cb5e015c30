"""Compartments, against sampled neurites, closed forms of limits, and the tensor at small b-values."""

import numpy as np
import pytest
from scipy import special

from qcord.core.protocol import Protocol
from qcord.models.tensor import fractional_anisotropy
from qcord.phantom.facts import compartment_values
from qcord.phantom.microstructure import (
    FREE_WATER,
    alignment,
    compartment_signal,
    hindered_tensor,
    mean_tensor,
    watson_axes,
)
from qcord.phantom.scan import half_sphere
from qcord.phantom.tissue import default_tissues, tissue_table
from qcord.phantom.values import Tissue

UP = np.array([[0.0, 0.0, 1.0]])


def _values(icvf, odi, isovf, dpar=1.7e-3):
    return {k: np.array([[v]]) for k, v in zip(("ICVF", "ODI", "ISOVF", "DPAR"), (icvf, odi, isovf, dpar), strict=True)}


def _protocol(b, directions, **more):
    return Protocol({"BValue": np.asarray(b, dtype=float), "Direction": np.asarray(directions, dtype=float), **more})


@pytest.mark.parametrize("odi", [0.01, 0.04, 0.2, 0.5, 0.9])
def test_watson_distribution_has_its_mean_square_cosine(odi):
    """Against the closed form with Dawson's integral."""
    kappa = 1 / np.tan(np.pi * odi / 2)
    root = np.sqrt(kappa)
    expected = -1 / (2 * kappa) + 1 / (2 * special.dawsn(root) * root)
    assert alignment(np.array(odi)) == pytest.approx(expected, rel=1e-6)
    cosine, weight = watson_axes(np.array(odi))
    assert weight.sum() == pytest.approx(1)
    assert ((cosine > 0) & (cosine <= 1)).all()


def test_parallel_sticks_and_isotropic_ones():
    """One direction along and one across parallel sticks; and the powder average of a stick."""
    protocol = _protocol([0, 2000, 2000], [[0, 0, 0], [0, 0, 1], [1, 0, 0]])
    parallel = compartment_signal(_values(1.0, 1e-3, 0.0), protocol, UP)[0, 0]
    np.testing.assert_allclose(parallel, [1, np.exp(-3.4), 1.0], atol=0.006)
    even = compartment_signal(_values(1.0, 1.0, 0.0), protocol, UP)[0, 0]
    powder = np.sqrt(np.pi / 4 / 3.4) * special.erf(np.sqrt(3.4))
    np.testing.assert_allclose(even, [1, powder, powder], rtol=1e-5)


def test_signal_is_that_of_sampled_neurites():
    """Monte Carlo: axes drawn from the Watson distribution, each with its stick; tensors averaged by hand."""
    generator = np.random.default_rng(1)
    tangent = np.array([0.0, 0.6, 0.8])
    odi, icvf, isovf, along = 0.15, 0.6, 0.1, 1.7e-3
    kappa = 1 / np.tan(np.pi * odi / 2)
    u = generator.normal(size=(4_000_000, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    u = u[generator.random(len(u)) < np.exp(kappa * ((u @ tangent) ** 2 - 1))]
    g = half_sphere(7)
    protocol = _protocol(np.full(7, 2000.0), g)
    sticks = np.array([np.exp(-2000 * along * (u @ d) ** 2).mean() for d in g])
    spread = np.einsum("ni,nj->ij", u, u) / len(u)
    tensor = along * spread + along * (1 - icvf) * (np.eye(3) - spread)
    hindered = np.exp(-2000 * np.einsum("ni,ij,nj->n", g, tensor, g))
    expected = (1 - isovf) * (icvf * sticks + (1 - icvf) * hindered) + isovf * np.exp(-2000 * FREE_WATER)
    found = compartment_signal(_values(icvf, odi, isovf), protocol, tangent[None])[0, 0]
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_the_slope_at_small_b_is_the_mean_tensor():
    values = _values(0.55, 0.08, 0.07)
    tangent = np.array([[0.1, 0.5, 0.8]]) / np.linalg.norm([0.1, 0.5, 0.8])
    g = half_sphere(9)
    signal = compartment_signal(values, _protocol(np.full(9, 0.5), g), tangent)[0, 0]
    x, y, z = g.T
    design = np.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], axis=1)
    elements = mean_tensor(values, tangent[:, None])[0, 0]
    np.testing.assert_allclose(-np.log(signal) / 0.5, design @ elements, rtol=2e-3)


def test_tortuosity():
    across = hindered_tensor(_values(0.6, 1e-3, 0.0), UP[:, None])[0, 0]
    np.testing.assert_allclose(across[:3], [0.4 * 1.7e-3, 0.4 * 1.7e-3, 1.7e-3], rtol=2e-3)


def test_spherical_encoding_does_not_see_the_direction():
    b = np.full(6, 1500.0)
    g = half_sphere(6)
    sphere = compartment_signal(_values(0.5, 0.1, 0.05), _protocol(b, g, BDelta=np.zeros(6)), UP)[0, 0]
    linear = compartment_signal(_values(0.5, 0.1, 0.05), _protocol(b, g, BDelta=np.ones(6)), UP)[0, 0]
    assert np.ptp(sphere) < 1e-9
    assert np.ptp(linear) > 0.1
    assert linear.mean() > sphere[0], "variance of diffusivities raises the powder average"
    trace = 0.95 * (0.5 * np.exp(-1500 * 1.7e-3 / 3) + 0.5 * np.exp(-1500 * 1.7e-3 * (1 + 2 * 0.5) / 3))
    assert sphere[0] == pytest.approx(trace + 0.05 * np.exp(-4.5), rel=1e-3)


def test_compartments_of_the_tracts_look_like_the_tensors_of_living_cords():
    table = tissue_table(default_tissues())
    rows = [0, 4, 30]
    tissue = Tissue({m: v[None, rows] for m, v in table.values.items()}, ("white matter",) * 3, {})
    found = compartment_values(tissue)
    assert ((found["FA"][0, :2] > 0.55) & (found["FA"][0, :2] < 0.75)).all()
    assert ((found["MD"][0] > 0.8e-3) & (found["MD"][0] < 1.1e-3)).all()
    assert found["FA"][0, 2] < found["FA"][0, 0] - 0.15
    elements = np.moveaxis(mean_tensor(tissue.values, np.array([0, 0, 1.0])), -1, 0)
    np.testing.assert_allclose(found["FA"], fractional_anisotropy(elements))
    np.testing.assert_allclose(found["MD"], (found["AD"] + 2 * found["RD"]) / 3)
