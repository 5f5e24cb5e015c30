"""The static field, against the fields of a sphere and of a cylinder."""

import numpy as np
import pytest

from qcord.phantom.body import make_body
from qcord.phantom.spec import PhantomSpec
from qcord.phantom.susceptibility import HZ_PER_PPM, SUSCEPTIBILITY, FieldMap, dipole_field, neck_field
from qcord.template import tables


def _axes(shape, spacing):
    return np.meshgrid(*[s * (np.arange(n) - n // 2) for n, s in zip(shape, spacing, strict=True)], indexing="ij")


def test_field_of_a_sphere():
    """Outside chi / 3 (a / r)^3 (3 cos^2 - 1), inside none (with the sphere of Lorentz)."""
    x, y, z = _axes((96, 100, 104), (1.0, 1.0, 1.0))
    r = np.sqrt(x**2 + y**2 + z**2)
    radius = 10.0
    chi = np.clip(radius + 0.5 - r, 0, 1)
    found = dipole_field(chi, (1.0, 1.0, 1.0))
    shell = (r > 13) & (r < 30)
    expected = (radius / r[shell]) ** 3 * (3 * z[shell] ** 2 / r[shell] ** 2 - 1) / 3
    np.testing.assert_allclose(found[shell], expected, atol=0.012)
    assert found[shell] @ expected / (expected @ expected) == pytest.approx(1.0, abs=0.02)
    assert np.abs(found[r < 7]).max() < 0.02


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 2.0), (2.0, 1.0, 1.0)])
def test_field_of_a_cylinder_across_the_main_field(spacing):
    """Along x: outside chi / 2 (a / r)^2 cos 2 theta, inside -chi / 6 (with the sphere of Lorentz)."""
    x, y, z = _axes((16, 192, 192), spacing)
    r = np.hypot(y, z)
    chi = (r < 12).astype(float) + 0 * x
    found = dipole_field(chi, spacing)
    shell = (r > 18) & (r < 30)
    expected = (12 / r[shell]) ** 2 * (z[shell] ** 2 - y[shell] ** 2) / r[shell] ** 2 / 2
    assert found[shell] @ expected / (expected @ expected) == pytest.approx(1.0, abs=0.06)
    assert found[r < 8].mean() == pytest.approx(-1 / 6, abs=0.015)


def test_field_of_a_cylinder_along_the_main_field():
    x, y, z = _axes((64, 64, 12), (1.0, 1.0, 1.0))
    chi = (np.hypot(x, y) < 8).astype(float) + 0 * z
    found = dipole_field(chi, (1.0, 1.0, 1.0))
    assert found[np.hypot(x, y) < 6].mean() - found[np.hypot(x, y) > 12].mean() == pytest.approx(1 / 3, abs=0.01)


def test_maps_are_linear_between_their_points():
    values = np.arange(24, dtype=float).reshape(2, 3, 4)
    field = FieldMap(np.array([1.0, 2, 3]), 2.0, values)
    assert field.at(np.array([1.0, 2, 3])) == 0
    assert field.at(np.array([2.0, 2, 4])) == pytest.approx((0 + 1 + 12 + 13) / 4)
    assert field.gradient(np.array([2.0, 4, 5]), np.array([0, 0, 1.0]), 1.0) == pytest.approx(0.5)


@pytest.fixture(scope="module")
def neck():
    body = make_body(PhantomSpec())
    return body, neck_field(body, 3.0)


def test_the_neck_is_shimmed_and_the_lungs_spoil_what_lies_below(neck):
    body, field = neck
    heights = tables.disc_heights()
    middle = np.arange(heights["C5/C6"], heights["C2/C3"], 1.0)
    at = field.at(body.place(np.stack([0 * middle, 0 * middle, middle], axis=-1)))
    assert np.abs(at).max() < 60
    assert at.std() < 15
    low = np.arange(heights["T2/T3"], heights["T1/T2"], 1.0)
    below = field.at(body.place(np.stack([0 * low, 0 * low, low], axis=-1)))
    assert np.abs(below).mean() > 3 * np.abs(at).mean()


def test_discs_and_vertebrae_leave_a_ripple(neck):
    """Bone is more diamagnetic than discs: the field along the canal follows their period."""
    body, field = neck
    heights = tables.disc_heights()
    z = np.arange(heights["C6/C7"], heights["C3/C4"], 0.5)
    edge = body.shape.at(z)
    front = edge.canal_shift + edge.canal_ap / 2 - 0.5
    line = field.at(body.place(np.stack([0 * z, front, z], axis=-1)))
    smooth = np.polyval(np.polyfit(z, line, 3), z)
    discs = [heights[n] for n in ("C4/C5", "C5/C6")]
    bodies = [(heights["C3/C4"] + heights["C4/C5"]) / 2, (heights["C4/C5"] + heights["C5/C6"]) / 2]
    ripple = np.interp(discs, z, line - smooth).mean() - np.interp(bodies, z, line - smooth).mean()
    assert abs(ripple) > 3, "Hz at 3 T"


def test_field_grows_with_the_magnet():
    body = make_body(PhantomSpec())
    points = body.place(np.array([[0, 0, -120.0], [5, 3, -150.0], [0, 0, -180.0]]))
    np.testing.assert_allclose(
        neck_field(body, 1.5).at(points), neck_field(body, 3.0).at(points) / 2, rtol=1e-3, atol=0.01
    )
    assert pytest.approx(42.58, abs=0.01) == HZ_PER_PPM
    assert SUSCEPTIBILITY["bone"] < SUSCEPTIBILITY["marrow"] < SUSCEPTIBILITY["disc"] < SUSCEPTIBILITY["air"]
