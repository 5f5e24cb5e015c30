"""Sites that took no part in the fit."""

import numpy as np
import pytest

from qcord.core.errors import MissingMetadata, NotIdentifiable, UnknownName
from qcord.normative.harmonise.combat import apply, fit_combat
from qcord.normative.harmonise.leave_one_out import leave_one_site_out
from qcord.normative.harmonise.unseen import site_from_controls, site_from_manufacturer
from simulated_sites import error_columns, simulate

COMMON = {"manufacturer": "manufacturer", "covariates": ("age", "sex")}


@pytest.fixture(scope="module")
def truth():
    return simulate(11, fewest=6, most=9)


@pytest.fixture(scope="module")
def fitted(truth):
    others = truth.table[truth.table["site"] != "Gamma05"]
    return fit_combat(others, features=truth.features, **COMMON)


def test_the_manufacturer_alone_states_a_wide_error_and_controls_narrow_it(truth, fitted):
    own = truth.table[truth.table["site"] == "Gamma05"]
    alone = site_from_manufacturer(fitted, "Gamma05", "Gamma")
    few, all_of_them = (site_from_controls(fitted, own.iloc[:n]) for n in (3, len(own)))
    # a surprising site may widen the error of one feature, not of all
    assert few.shift_se[-1].mean() < 0.8 * alone.shift_se[-1].mean()
    assert all_of_them.shift_se[-1].mean() < 0.9 * few.shift_se[-1].mean()
    assert (few.log_scale_se[-1] <= alone.log_scale_se[-1] * 1.05).all()
    for harmoniser in (alone, few, all_of_them):
        assert harmoniser.sites[-1] == "Gamma05"
        error = apply(harmoniser, own)[[f"{f}_se_shift" for f in truth.features]]
        assert (error > 0).all(axis=None)


def test_controls_give_what_a_fit_with_them_gives(truth, fitted):
    own = truth.table[truth.table["site"] == "Gamma05"]
    added = site_from_controls(fitted, own)
    whole = fit_combat(truth.table, features=truth.features, **COMMON)
    place = whole.sites.index("Gamma05")
    np.testing.assert_allclose(
        added.shift[-1] * added.sigma + added.intercept,
        whole.shift[place] * whole.sigma + whole.intercept,
        atol=0.15,
    )
    np.testing.assert_allclose(added.shift_se[-1], whole.shift_se[place], rtol=0.25)


def test_a_site_far_from_its_manufacturer_is_believed(fitted, truth):
    own = truth.table[truth.table["site"] == "Gamma05"].assign(f0=lambda t: t["f0"] + 12)
    added = site_from_controls(fitted, own.iloc[:4])
    mean = fitted.intercept[0] + fitted.design.matrix(own.iloc[:4]) @ fitted.slopes[:, 0]
    seen = float(np.mean((own["f0"].iloc[:4] - mean) / fitted.sigma[0]))
    assert added.shift[-1, 0] == pytest.approx(seen, rel=0.15)


def test_errors_of_controls_count():
    truth = simulate(12, errors=True)
    se = error_columns(truth)
    fit = fit_combat(truth.table[truth.table["site"] != "Gamma05"], features=truth.features, se=se, **COMMON)
    own = truth.table[truth.table["site"] == "Gamma05"]
    sure = site_from_controls(fit, own.assign(**dict.fromkeys(se.values(), 0.01)))
    unsure = site_from_controls(fit, own.assign(**dict.fromkeys(se.values(), 3.0)))
    assert (unsure.shift_se[-1] > sure.shift_se[-1]).all()


def test_a_manufacturer_that_is_not_known_needs_controls(fitted, truth):
    own = truth.table[truth.table["site"] == "Gamma05"].assign(manufacturer="Delta")
    with pytest.raises(NotIdentifiable, match="'Delta' of Gamma05 took no part"):
        site_from_manufacturer(fitted, "Gamma05", "Delta")
    added = site_from_controls(fitted, own)
    known = site_from_controls(fitted, own.assign(manufacturer="Gamma"))
    assert added.makers[-1] == "Delta"
    assert (added.shift_se[-1] > 0.95 * known.shift_se[-1]).all()


def test_what_cannot_be_added_is_refused(fitted, truth):
    own = truth.table[truth.table["site"] == "Gamma05"]
    with pytest.raises(UnknownName, match="Alpha01 took part in the fit"):
        site_from_manufacturer(fitted, "Alpha01", "Alpha")
    with pytest.raises(MissingMetadata, match="manufacturer of Gamma05 is not given"):
        site_from_manufacturer(fitted, "Gamma05")
    with pytest.raises(NotIdentifiable, match="have 23 site"):
        site_from_controls(fitted, truth.table)
    with pytest.raises(MissingMetadata, match="No control of Gamma05 has a value"):
        site_from_controls(fitted, own.assign(age=np.nan))
    plain = fit_combat(truth.table, features=truth.features, covariates=("age", "sex"), shrinkage="features")
    with pytest.raises(NotIdentifiable, match="knows nothing of further sites"):
        site_from_manufacturer(plain, "Delta")


def test_without_manufacturers_a_site_is_one_of_all(truth):
    fit = fit_combat(truth.table, features=truth.features, covariates=("age", "sex"))
    added = site_from_manufacturer(fit, "new")
    np.testing.assert_allclose(added.shift_se[-1], np.std(fit.shift, axis=0), rtol=0.5)


@pytest.mark.slow
def test_stated_errors_of_left_out_sites_cover_their_bias():
    z, size = {"manufacturer": [], "controls": [], "raw": []}, {"manufacturer": 0.0, "controls": 0.0, "raw": 0.0}
    for seed in range(6):
        truth = simulate(200 + seed, n_features=4, fewest=5, most=8)
        found = leave_one_site_out(truth.table, features=truth.features, **COMMON)
        for method, rows in found.groupby("method"):
            z[method].append((rows["bias"] / rows["bias_se"]).to_numpy())
            size[method] += float((rows["bias"] ** 2).mean())
    for method in ("manufacturer", "controls"):
        assert 0.90 <= np.mean(np.abs(np.concatenate(z[method])) < 1.96) <= 0.98
    assert size["controls"] < size["manufacturer"] < size["raw"]


def test_leaving_out_needs_people(truth):
    with pytest.raises(NotIdentifiable, match="No site has 32 people"):
        leave_one_site_out(truth.table, features=["f0"], controls=30, **COMMON)
