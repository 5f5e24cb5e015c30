"""The design of a norm: smooth age, sex, height."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline

from qcord.core.errors import ImplausibleValue, MissingMetadata
from qcord.normative.terms import Terms, _basis, _curvature, _natural, smooth

KNOTS = Terms().knots


def test_the_spline_is_the_natural_one():
    values = np.random.default_rng(1).normal(size=len(KNOTS))
    age = np.linspace(20, 80, 101)
    expected = CubicSpline(KNOTS, values, bc_type="natural")(age)
    np.testing.assert_allclose(_natural(age, np.array(KNOTS)) @ values, expected, atol=1e-12)


def test_roughness_is_the_integral_of_the_squared_second_derivative():
    values = np.random.default_rng(2).normal(size=len(KNOTS))
    spline = CubicSpline(KNOTS, values, bc_type="natural")
    x = np.linspace(20, 80, 60_001)
    expected = np.trapezoid(spline(x, 2) ** 2, x)
    assert values @ _curvature(np.array(KNOTS))[1] @ values == pytest.approx(expected, rel=1e-6)


def test_smooth_columns_make_roughness_a_sum_of_squares():
    """Independent coefficients of equal variance stand for the prior of a smoothing spline."""
    _, transform = _basis(KNOTS)
    roughness = transform.T @ _curvature(np.array(KNOTS))[1] @ transform
    np.testing.assert_allclose(roughness, roughness[0, 0] * np.eye(len(roughness)), atol=1e-9 * roughness[0, 0])
    inner = smooth(np.linspace(20, 80, 201), KNOTS)
    assert (inner**2).sum(axis=1).mean() == pytest.approx(1)


@given(st.floats(0, 15), st.floats(85, 120))
def test_beyond_the_knots_effects_are_straight(low, high):
    for a, b in ((low, KNOTS[0]), (KNOTS[-1], high)):
        columns = smooth(np.array([a, (a + b) / 2, b]), KNOTS)
        np.testing.assert_allclose(columns[1], (columns[0] + columns[2]) / 2, atol=1e-9)


def test_columns_have_their_names_and_centres():
    terms = Terms(height=True)
    table = pd.DataFrame({"age": [50.0, 70.0], "sex": ["M", "F"], "height": [1.7, 1.8]})
    design = pd.DataFrame(terms.of(table), columns=list(terms.names))
    assert design["male"].tolist() == [0.5, -0.5]
    assert design["age"].tolist() == [0.0, 1.0]
    np.testing.assert_allclose(design["height"], [0, 1])
    assert "age 3" in terms.names


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [("age", None, "age"), ("age", 450.0, "450"), ("sex", "x", "'x'"), ("height", 170.0, "170"), ("height", None, "m")],
)
def test_impossible_people_are_refused_with_a_sentence(column, value, says):
    table = pd.DataFrame({"age": [50.0], "sex": ["M"], "height": [1.7]}).assign(**{column: [value]})
    with pytest.raises((ImplausibleValue, MissingMetadata), match=says):
        Terms(height=True).of(table)


def test_an_absent_column_is_named():
    with pytest.raises(MissingMetadata, match="sex"):
        Terms().of(pd.DataFrame({"age": [50.0]}))
