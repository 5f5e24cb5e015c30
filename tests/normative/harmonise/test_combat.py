"""Shift and scale of sites: against a second formula, simulated truth, algebra and hostile input."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcord.core.errors import MissingMetadata, NotIdentifiable, QcordError, UnknownName
from qcord.normative.harmonise.combat import Harmoniser, apply, fit_combat
from qcord.normative.harmonise.effects import covariate_effects, eta_squared
from simulated_sites import error_columns, simulate

COMMON = {"manufacturer": "manufacturer", "covariates": ("age", "sex")}


@pytest.fixture(scope="module")
def truth():
    return simulate(1)


@pytest.fixture(scope="module")
def fitted(truth):
    return fit_combat(truth.table, features=truth.features, **COMMON)


def johnson(table, features):
    """Second formula: Johnson 2007 with explicit matrices and loops."""
    sites = sorted(table["site"].unique())
    x = np.column_stack(
        [*[(table["site"] == s) * 1.0 for s in sites], table["age"] - table["age"].mean(), (table["sex"] == "M") * 1.0]
    )
    y = table[features].to_numpy()
    b = np.linalg.solve(x.T @ x, x.T @ y)
    counts = x[:, : len(sites)].sum(axis=0)
    alpha = counts @ b[: len(sites)] / len(y)
    sigma = np.sqrt(np.mean((y - x @ b) ** 2, axis=0))
    mean = alpha + x[:, len(sites) :] @ b[len(sites) :]
    z = (y - mean) / sigma
    out = np.empty_like(z)
    for i in range(len(sites)):
        rows = x[:, i] == 1
        own = z[rows]
        g_hat, d_hat = own.mean(axis=0), own.var(axis=0, ddof=1)
        g_bar, t2, v, s2 = g_hat.mean(), g_hat.var(ddof=1), d_hat.mean(), d_hat.var(ddof=1)
        lam, theta = v**2 / s2 + 2, v * (v**2 / s2 + 1)
        for g in range(len(features)):
            gamma, delta2 = g_hat[g], d_hat[g]
            for _ in range(500):
                gamma = (t2 * len(own) * g_hat[g] + delta2 * g_bar) / (t2 * len(own) + delta2)
                delta2 = (theta + 0.5 * np.sum((own[:, g] - gamma) ** 2)) / (len(own) / 2 + lam - 1)
            out[rows, g] = (own[:, g] - gamma) / np.sqrt(delta2)
    return out * sigma + mean


def test_shrinkage_by_features_is_that_of_johnson(truth):
    table = simulate(2, fewest=3).table
    found = apply(fit_combat(table, features=truth.features, covariates=("age", "sex"), shrinkage="features"), table)
    np.testing.assert_allclose(found[truth.features], johnson(table, truth.features), rtol=0, atol=1e-7)


def test_no_shrinkage_takes_off_the_mean_of_each_site_exactly(truth):
    table = truth.table
    done = apply(fit_combat(table, features=truth.features, shrinkage="none", **COMMON), table)
    x = np.column_stack([table["age"], table["sex"] == "M"]).astype(float)
    for f in truth.features:
        slopes = covariate_effects(done, [f], ("age", "sex"))["effect"].to_numpy()
        assert eta_squared(done[f].to_numpy() - x @ slopes, table["site"]).eta_squared < 0.02


def test_manufacturers_vanish_and_covariates_stay(truth, fitted):
    table = truth.table
    done = apply(fitted, table)
    before = covariate_effects(table, truth.features, ("age", "sex"), batch="site")
    after = covariate_effects(done, truth.features, ("age", "sex"))
    assert ((after["effect"] - before["effect"]).abs() < 2 * before["se"]).all()
    x = np.column_stack([table["age"], table["sex"] == "M"]).astype(float)
    for f in truth.features:
        assert eta_squared(table[f].to_numpy(), table["manufacturer"], x).eta_squared > 0.1
        assert eta_squared(done[f].to_numpy(), table["manufacturer"], x).eta_squared < 0.02


def reference_of(truth, harmoniser):
    weight = harmoniser.counts / harmoniser.counts.sum(axis=0)
    return (weight * truth.shift).sum(axis=0), (weight * truth.log_scale).sum(axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("errors", [False, True])
def test_stated_errors_cover_the_truth(errors):
    shifts, scales, slopes, values = [], [], [], []
    for seed in range(30):
        truth = simulate(100 + seed, errors=errors)
        table, features = truth.table, truth.features
        fit = fit_combat(table, features=features, se=error_columns(truth) if errors else None, **COMMON)
        shift, log_scale = reference_of(truth, fit)
        spread = np.exp(log_scale)
        shifts.append((fit.shift - (truth.shift - shift) / fit.sigma) / fit.shift_se)
        scales.append((fit.log_scale - truth.log_scale + log_scale) / fit.log_scale_se)
        unit = fit.design.scales[:, None]
        slope_se = np.sqrt(np.einsum("iig->ig", fit.slopes_variance)) / unit
        slopes.append((fit.slopes / unit - np.array([[0.02], [0.5]])) / slope_se)
        mean = (10 + 0.02 * table["age"] + 0.5 * (table["sex"] == "M")).to_numpy()[:, None]
        target = mean + shift + spread * (truth.ideal.to_numpy() - mean)
        done = apply(fit, table)
        error = done[[f"{f}_se" if errors else f"{f}_se_shift" for f in features]].to_numpy()
        values.append((done[features].to_numpy() - target) / error)
    for name, z in {"shift": shifts, "scale": scales, "slope": slopes, "value": values}.items():
        joined = np.concatenate([np.ravel(v) for v in z])
        inside = np.mean(np.abs(joined) < 1.96)
        assert 0.92 <= inside <= 0.97, (name, inside)
        assert abs(joined.mean()) < 0.15, name


def test_shrunk_sites_lie_nearer_the_truth_than_their_own_means():
    worse = better = 0.0
    for seed in range(8):
        truth = simulate(seed, between=0.3)
        own = fit_combat(truth.table, features=truth.features, shrinkage="none", **COMMON)
        drawn = fit_combat(truth.table, features=truth.features, **COMMON)
        true = truth.shift - reference_of(truth, drawn)[0]
        worse += float(np.mean((own.shift * own.sigma - true) ** 2))
        better += float(np.mean((drawn.shift * drawn.sigma - true) ** 2))
    assert better < 0.7 * worse


@settings(max_examples=15, deadline=None)
@given(shift=st.floats(-50, 50), factor=st.floats(0.01, 100), seed=st.integers(0, 1000))
def test_values_of_another_unit_are_harmonised_alike(shift, factor, seed):
    truth = simulate(seed % 7, n_features=2)
    table, (a, b) = truth.table, truth.features
    other = table.assign(**{a: shift + factor * table[a]})
    one = apply(fit_combat(table, features=(a, b), **COMMON), table)
    two = apply(fit_combat(other, features=(a, b), **COMMON), other)
    np.testing.assert_allclose(two[a], shift + factor * one[a], rtol=1e-6, atol=1e-6 * factor)
    np.testing.assert_allclose(two[f"{a}_se_shift"], factor * one[f"{a}_se_shift"], rtol=1e-5)
    np.testing.assert_allclose(two[b], one[b], rtol=1e-7)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_rows_does_not_matter(seed):
    truth = simulate(3, n_features=2)
    order = np.random.default_rng(seed).permutation(len(truth.table))
    one = apply(fit_combat(truth.table, features=truth.features, **COMMON), truth.table)
    shuffled = truth.table.iloc[order]
    two = apply(fit_combat(shuffled, features=truth.features, **COMMON), shuffled).loc[one.index]
    np.testing.assert_allclose(two[truth.features], one[truth.features], rtol=1e-9)


def test_adding_a_constant_to_a_site_changes_nothing_but_its_shift(truth):
    table = truth.table
    moved = table.assign(f0=table["f0"] + 0.001 * (table["site"] == "Beta02"))
    one, two = (fit_combat(t, features=["f0"], shrinkage="none", **COMMON) for t in (table, moved))
    change = (two.shift * two.sigma + two.intercept) - (one.shift * one.sigma + one.intercept)
    np.testing.assert_allclose(change[:, 0], 0.001 * np.array([s == "Beta02" for s in one.sites]), atol=1e-9)


def test_a_missing_value_stays_missing_and_disturbs_no_other_feature(truth, fitted):
    table = truth.table.copy()
    table.loc[[0, 5], "f1"] = np.nan
    one, two = apply(fitted, truth.table), apply(fitted, table)
    assert two.loc[[0, 5], "f1"].isna().all()
    pd.testing.assert_frame_equal(two.drop(index=[0, 5]), one.drop(index=[0, 5]))
    again = fit_combat(table, features=["f0", "f1"], shrinkage="none", **COMMON)
    alone = fit_combat(truth.table, features=["f0"], shrinkage="none", **COMMON)
    np.testing.assert_allclose(again.slopes[:, 0], alone.slopes[:, 0])


def test_a_site_without_a_value_gets_the_shift_of_its_manufacturer_and_a_wide_error(truth):
    table = truth.table.copy()
    table.loc[table["site"] == "Gamma03", "f0"] = np.nan
    fit = fit_combat(table, features=truth.features, **COMMON)
    place = fit.sites.index("Gamma03")
    mean = float(fit.family_weight[2, 0] @ fit.family_shift[2, 0])
    assert fit.shift[place, 0] == pytest.approx(mean, abs=0.05)
    assert fit.shift_se[place, 0] > 1.2 * np.median(fit.shift_se[:, 0])


def test_a_site_of_one_person_is_kept_with_a_wider_error(truth):
    lone = truth.table[truth.table["site"] == "Alpha00"].index[1:]
    table = truth.table.drop(index=lone)
    fit = fit_combat(table, features=truth.features, **COMMON)
    done = apply(fit, table)
    place = fit.sites.index("Alpha00")
    assert (fit.counts[place] == 1).all()
    assert done[truth.features].notna().all(axis=None)
    assert fit.shift_se[place].mean() > fit.shift_se.mean()


def test_a_reference_site_keeps_its_values(truth):
    fit = fit_combat(truth.table, features=truth.features, reference="Beta01", **COMMON)
    own = truth.table["site"] == "Beta01"
    done = apply(fit, truth.table)
    np.testing.assert_allclose(done.loc[own, truth.features], truth.table.loc[own, truth.features], rtol=1e-12)
    assert (done.loc[own, [f"{f}_se_shift" for f in truth.features]] < 1e-7).all(axis=None)


def test_a_reference_manufacturer_sets_the_scale(truth):
    fit = fit_combat(truth.table, features=truth.features, reference="Gamma", **COMMON)
    own = (truth.table["manufacturer"] == "Gamma").to_numpy()
    done = apply(fit, truth.table)
    moved = np.abs(done[truth.features].mean() - truth.table[truth.features][own].mean()) / fit.sigma
    assert (moved < 0.5).all()


def test_a_bend_in_age_is_kept():
    truth = simulate(4, n_features=1, fewest=5, most=9)
    table = truth.table
    bend = 0.01 * (table["age"] - 40) ** 2
    table = table.assign(f0=table["f0"] + bend)
    fit = fit_combat(table, features=["f0"], covariates=("sex",), smooth=("age",), manufacturer="manufacturer")
    design = fit.design.matrix(table)
    curve = design @ fit.slopes[:, 0] - 0.5 * (table["sex"] == "M").to_numpy()
    true = bend + 0.02 * table["age"]
    assert np.corrcoef(curve, true)[0, 1] > 0.93


def test_errors_of_values_are_no_spread_of_people():
    truth = simulate(5, errors=True, fewest=6, most=12)
    told = fit_combat(truth.table, features=truth.features, se=error_columns(truth), **COMMON)
    untold = fit_combat(truth.table, features=truth.features, **COMMON)
    true = np.exp(reference_of(truth, told)[1])
    assert np.mean(untold.sigma / true) > 1.08
    assert np.mean(told.sigma / true) == pytest.approx(1.0, abs=0.07)
    done = apply(told, truth.table)
    scale = np.exp(told.log_scale[[told.sites.index(s) for s in truth.table["site"]], 0])
    expected = np.sqrt((truth.table["f0_se"] / scale) ** 2 + done["f0_se_shift"] ** 2)
    np.testing.assert_allclose(done["f0_se"], expected)


def test_json_gives_the_same_harmoniser(truth, fitted):
    again = Harmoniser.from_json(fitted.to_json())
    pd.testing.assert_frame_equal(apply(again, truth.table), apply(fitted, truth.table), check_exact=True)
    assert again.to_json() == fitted.to_json()
    with pytest.raises(QcordError, match="not a harmoniser of this version"):
        Harmoniser.from_json('{"format": "other"}')


def test_two_fits_are_the_same(truth, fitted):
    assert fit_combat(truth.table, features=truth.features, **COMMON).to_json() == fitted.to_json()


def test_parameters_are_in_the_unit_of_the_feature(truth, fitted):
    table = fitted.parameters()
    assert len(table) == len(truth.features) * len(truth.sites)
    row = table[(table["site"] == "Alpha01") & (table["feature"] == "f2")].iloc[0]
    true = truth.shift - reference_of(truth, fitted)[0]
    assert abs(row["shift"] - true[1, 2]) < 4 * row["shift_se"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[t["site"] == "Alpha00"], "harmonisation needs at least 2"),
        (lambda t: t.assign(f0=np.nan), "f0 has no value"),
        (lambda t: t.assign(f0=3.0), "f0 is the same for all people of each site"),
        (lambda t: t.assign(f0=t["site"].str.len() * 1.0 + (t["site"] == "Beta01")), "f0 is the same for all people"),
        (lambda t: t.assign(f0=np.where(t["site"] == "Alpha00", t["f0"], np.nan)), "f0 has values at one site alone"),
        (lambda t: t.assign(f0="much"), "f0 holds text"),
        (lambda t: t.assign(f0=np.inf), "f0 is infinite"),
        (lambda t: t.assign(sex="F"), "sex is F in every row"),
        (lambda t: t.assign(age=t["site"].str[-2:].astype(float)), "age does not vary within sites"),
        (lambda t: t.drop(columns="age"), "no column 'age'"),
        (lambda t: t.groupby("site").head(1), "f0 has 23 values for 23 sites"),
        (
            lambda t: t.assign(manufacturer=np.where(t.index == 0, "Gamma", t["manufacturer"])),
            "Alpha00 has scanners of",
        ),
    ],
)
def test_what_cannot_be_harmonised_is_refused_in_a_sentence(truth, change, message):
    with pytest.raises(QcordError, match=message) as caught:
        fit_combat(change(truth.table.copy()), features=["f0", "f1"], **COMMON)
    assert "\n" not in str(caught.value)


def test_names_that_are_not_known_are_refused(truth, fitted):
    with pytest.raises(UnknownName, match="Shrinkage 'much'"):
        fit_combat(truth.table, features=["f0"], shrinkage="much")
    with pytest.raises(UnknownName, match="neither a site nor a manufacturer"):
        fit_combat(truth.table, features=["f0"], reference="Delta", **COMMON)
    with pytest.raises(UnknownName, match="Delta took no part in the fit"):
        apply(fitted, truth.table.assign(site="Delta"))
    with pytest.raises(MissingMetadata, match="sex is 'X'"):
        apply(fitted, truth.table.assign(sex="X"))
    with pytest.raises(QcordError, match="knows no standard errors"):
        fit_combat(truth.table, features=truth.features, shrinkage="features", **COMMON)
    with pytest.raises(NotIdentifiable, match="at least 3 features"):
        fit_combat(truth.table, features=["f0"], shrinkage="features")


def test_features_that_are_multiples_of_each_other_are_harmonised_alike():
    table = simulate(6, n_features=1, fewest=3).table
    table = table.assign(f1=2 * table["f0"], f2=5 - 3 * table["f0"])
    done = apply(fit_combat(table, features=["f0", "f1", "f2"], covariates=("age",), shrinkage="features"), table)
    np.testing.assert_allclose(done["f1"], 2 * done["f0"], atol=0.02)
    with pytest.raises(QcordError, match="named twice"):
        fit_combat(table, features=["f0", "f0"], **COMMON)


def test_negative_errors_are_refused():
    truth = simulate(1, errors=True)
    with pytest.raises(QcordError, match="f0_se is negative"):
        fit_combat(truth.table.assign(f0_se=-1.0), features=["f0"], se={"f0": "f0_se"}, **COMMON)


def test_rows_without_a_covariate_come_out_empty(truth, fitted):
    table = truth.table.copy()
    table.loc[3, "age"] = np.nan
    table.loc[4, "site"] = None
    done = apply(fitted, table)
    assert done.loc[[3, 4], truth.features].isna().all(axis=None)
    assert done.drop(index=[3, 4])[truth.features].notna().all(axis=None)
