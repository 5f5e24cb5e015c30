"""Generalised least squares against dense matrices."""

import numpy as np
import pytest

from qcord.normative.harmonise.mean_model import fit_mean_model


def dense(y, site, x, variance, person, person_variance):
    """Second formula: the covariance of all values written out."""
    design = np.column_stack([(site[:, None] == np.unique(site)[None]).astype(float), x])
    v = np.diag(variance) + person_variance * (person[:, None] == person[None])
    inverse = np.linalg.inv(v)
    covariance = np.linalg.inv(design.T @ inverse @ design)
    b = covariance @ design.T @ inverse @ y
    projection = inverse - inverse @ design @ covariance @ design.T @ inverse
    sign = np.linalg.slogdet(v)[1] + np.linalg.slogdet(design.T @ inverse @ design)[1]
    return (
        b,
        covariance,
        variance * (inverse @ (y - design @ b)),
        variance * np.diag(projection),
        (sign + y @ projection @ y),
    )


@pytest.fixture
def repeated():
    rng = np.random.default_rng(8)
    person = np.repeat(np.arange(25), 3)
    site = rng.integers(0, 5, 75)
    x = rng.standard_normal((75, 2))
    variance = rng.uniform(0.5, 1.5, 75)
    y = site + x @ [0.3, -0.2] + 1.5 * rng.standard_normal(25)[person] + np.sqrt(variance) * rng.standard_normal(75)
    return y, site, x, variance, person


def test_persons_and_sites_are_those_of_the_dense_formula(repeated):
    y, site, x, variance, person = repeated
    model = fit_mean_model(y, site, 6, x, variance, person=person)
    b, covariance, residual, freedom, deviance = dense(y, site, x, variance, person, model.person_variance)
    np.testing.assert_allclose([*model.shift[:5], *model.slopes], b, rtol=1e-9)
    np.testing.assert_allclose(model.shift_covariance[:5, :5], covariance[:5, :5], rtol=1e-8)
    np.testing.assert_allclose(model.slopes_covariance, covariance[5:, 5:], rtol=1e-8)
    np.testing.assert_allclose(model.residual, residual, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(model.freedom, freedom, rtol=1e-8)
    assert np.isnan(model.shift[5])
    for other in (0.8, 1.25):
        assert dense(y, site, x, variance, person, other * model.person_variance)[4] > deviance
    assert model.person_variance == pytest.approx(1.5**2, rel=0.6)


def test_without_persons_it_is_weighted_least_squares(repeated):
    y, site, x, variance, _ = repeated
    model = fit_mean_model(y, site, 5, x, variance)
    design = np.column_stack([np.eye(5)[site], x]) / np.sqrt(variance)[:, None]
    b = np.linalg.lstsq(design, y / np.sqrt(variance), rcond=None)[0]
    np.testing.assert_allclose([*model.shift, *model.slopes], b, rtol=1e-9)
    assert model.freedom.sum() == pytest.approx(75 - 7)
    assert model.person_variance == 0
