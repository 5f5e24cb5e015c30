"""Norms against simulated truth: effects, spreads, small samples, measurement errors, shape."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from healthy_people import people
from qcord.core.errors import ExtrapolationWarning, ImplausibleValue, SetApartWarning
from qcord.normative.adapt import adapt, expected_error
from qcord.normative.centiles import centiles
from qcord.normative.fit import fit_norm, fit_norms, fit_statistics, joined
from qcord.normative.hierarchical import _COVARIATE, PRIORS, _objective, _prepare, _standardised, spreads
from qcord.normative.norm import Cell, Norms
from qcord.normative.score import score
from qcord.normative.shape import Shape, fit_shape
from qcord.normative.statistics import from_summaries, rows, single, statistics
from qcord.normative.terms import Terms


def effects(norm):
    h = norm.hierarchy
    error = np.sqrt(np.diag(h.covariance)) * h.spread
    return {name: (h.coefficients[k] * h.spread, error[k]) for k, name in enumerate(norm.terms.names)}


def test_restricted_likelihood_is_that_of_the_dense_model():
    """All people at once: marginal normal density with flat intercept, integrated over all coefficients."""
    table = people(6, 4, error=2.0, makers=2)
    terms = Terms()
    data = _prepare(_standardised(single(rows(table, terms), terms), 70.0, 6.0), None)
    generator = np.random.default_rng(3)
    variances = generator.normal(scale=0.3, size=(2, 8))
    found = _objective(data, variances)[0]
    s = data.stats
    x = s.xx[:, 0]
    y = s.xy[:, 0]
    dense = []
    for v in variances:
        person, site, maker, bend = spreads(v, 2)
        n, width = len(y), 1e4
        covariance = np.diag(person[data.maker_of_group] ** 2 + s.variance)
        same_site = np.equal.outer(np.array(s.site), np.array(s.site))
        covariance += same_site * site[data.maker_of_group] ** 2
        covariance += np.equal.outer(data.maker_of_group, data.maker_of_group) * maker**2
        for k, name in enumerate(terms.names):
            size = width if name == "one" else bend if name.startswith("age ") else _COVARIATE * np.exp(v[0])
            covariance += np.outer(x[:, k], x[:, k]) * size**2
        sign, logdet = np.linalg.slogdet(covariance)
        assert sign == 1
        names = ["within", "site", "manufacturer", "smooth", "within of", "within of", "site of", "site of"]
        penalty = sum((value - PRIORS[k][0]) ** 2 / PRIORS[k][1] ** 2 for value, k in zip(v, names, strict=True))
        dense.append((logdet + y @ np.linalg.solve(covariance, y) + penalty) / 2)
        assert n == 24
    assert found[1] - found[0] == pytest.approx(dense[1] - dense[0], rel=1e-5)


def test_what_people_of_one_manufacturer_cannot_tell_apart_is_known_as_well_as_assumed():
    hierarchy = fit_norm(people(n_sites=20, per_site=200, makers=1, seed=4)).hierarchy
    covariance = hierarchy.variances_covariance
    assert np.all(np.linalg.eigvalsh(covariance) > 0)
    assert np.sqrt(covariance[0, 0] + covariance[4, 4] + 2 * covariance[0, 4]) == pytest.approx(
        1 / np.sqrt(8000), rel=0.1
    )
    assert np.sqrt(covariance[4, 4]) == pytest.approx(PRIORS["within of"][1], rel=0.2)


def test_effects_are_found_within_their_errors():
    inside = []
    for seed in range(40):
        found = effects(fit_norm(people(seed=seed)))
        inside.append(
            [abs(found["male"][0] - 4) < 1.96 * found["male"][1], abs(found["age"][0] + 2) < 1.96 * found["age"][1]]
        )
    assert 0.86 < np.mean(inside) <= 1.0


def test_people_of_sites_that_were_not_seen_are_standard_normal():
    z = []
    for seed in range(12):
        table = people(40, 6, seed=seed)
        new = table["site"] >= "s030"
        z.append(score(fit_norm(table[~new]), table[new])["z"])
    z = np.concatenate(z)
    assert abs(z.mean()) < 0.15
    assert 0.9 < z.std() < 1.1
    assert 0.01 < (z < -1.96).mean() < 0.05
    assert 0.01 < (z > 1.96).mean() < 0.05


@pytest.mark.parametrize("n", [5, 10, 15, 20, 30, 60])
def test_limits_of_few_people_are_those_of_a_prediction(n):
    """Published: 3.04, 2.37, 2.22, 2.15, 2.08, 2.02 standard deviations (Student's t, and the error of the mean)."""
    y = np.random.default_rng(n).normal(size=n)
    y = (y - y.mean()) / y.std(ddof=1)
    table = pd.DataFrame({"value": y, "age": 50.0, "sex": "F", "site": "A", "manufacturer": "X"})
    norm = fit_norm(table)
    grid = pd.DataFrame({"value": np.linspace(0, 8, 4001), "age": 50.0, "sex": "F", "site": "A", "manufacturer": "X"})
    limit = np.interp(1.96, score(norm, grid)["z"], grid["value"])
    assert limit == pytest.approx(stats.t.ppf(0.975, n - 1) * np.sqrt(1 + 1 / n), rel=0.04)


def test_a_noisy_value_is_not_a_deviant_one():
    norm = fit_norm(people(40, 10))
    one = people(1, 1).assign(site="s000", value=norm.hierarchy.centre + 20.0)
    exact, noisy = (score(norm, one.assign(se=se)).iloc[0] for se in (0.0, 20.0))
    assert exact["z"] > 2.5
    assert 0 < noisy["z"] < 1.2
    assert noisy["z_high"] - noisy["z_low"] > 2 * (exact["z_high"] - exact["z_low"])


def test_measurement_errors_do_not_widen_the_spread_of_people():
    h = fit_norm(people(60, 10, error=6.0, seed=3)).hierarchy
    spread = spreads(h.variances, 3)[0].mean() * h.spread
    assert spread == pytest.approx(6.0, rel=0.12)
    ignored = fit_norm(people(60, 10, error=6.0, seed=3).drop(columns="se")).hierarchy
    assert spreads(ignored.variances, 3)[0].mean() * ignored.spread > 7.5


def test_adapting_brings_a_far_site_home_and_narrows_its_intervals():
    table = people(30, 8, seed=5)
    new = table["site"] == "s007"
    table.loc[new, "value"] += 15.0
    norms = fit_norms(table[~new])
    few, rest = table[new].iloc[:4], table[new].iloc[4:]
    before, after = score(norms, rest), score(adapt(norms, few, site="s007"), rest)
    assert before["z"].mean() > 1.0
    assert abs(after["z"].mean()) < abs(before["z"].mean()) / 2
    assert (after["z_high"] - after["z_low"]).mean() < 0.8 * (before["z_high"] - before["z_low"]).mean()
    assert set(before["basis"]) == {"manufacturer"}
    assert set(after["basis"]) == {"site"}


def test_expected_error_of_few_controls_is_what_simulation_shows():
    table = people(60, 12, seed=6, manufacturer=0.0)
    norm = fit_norm(table)
    expected = expected_error(norm, "m0", np.array([0.0, 3.0, 12.0]))
    h = norm.hierarchy
    person, site, _, _ = (x * h.spread for x in spreads(h.variances, 3))
    tau, sigma = site[0], person[0]
    np.testing.assert_allclose(expected[0], tau / sigma, rtol=1e-9)
    np.testing.assert_allclose(expected[1], np.sqrt(1 / (3 / sigma**2 + 1 / tau**2)) / sigma, rtol=1e-9)
    assert expected[0] > expected[1] > expected[2]


def test_half_the_people_are_below_the_median_and_centiles_do_not_cross():
    table = people(40, 25, seed=7)
    norm = fit_norm(table)
    curves = centiles(norm, [30.0, 60.0, 85.0], "M", site="s003").pivot_table(
        index="age", columns="probability", values="value"
    )
    assert (np.diff(curves.to_numpy(), axis=1) > 0).all()
    below = []
    for _, one in table.groupby("site"):
        middle = centiles(norm, one["age"], site=one["site"].iloc[0], probabilities=[0.5])["value"].to_numpy()
        man = effects(norm)["male"][0] * (one["sex"] == "M").to_numpy()
        below.append(one["value"].to_numpy() < middle + man)
    assert np.mean(np.concatenate(below)) == pytest.approx(0.5, abs=0.04)


def test_confidence_bands_hold_the_true_median():
    inside = []
    for seed in range(25):
        norm = fit_norm(people(30, 10, seed=100 + seed, manufacturer=0.0, site=0.0))
        for age in (25.0, 50.0, 80.0):
            row = centiles(norm, [age], "F", site="s001", probabilities=[0.5]).iloc[0]
            inside.append(row["low"] < 68 - 0.1 * (age - 50) < row["high"])
    assert 0.88 < np.mean(inside) <= 1.0


@pytest.mark.parametrize("true", [Shape(0.0, 1.0, 0.5, 1.0), Shape(0.0, 0.6, 0.0, 0.6)])
def test_skew_and_heavy_tails_are_found_and_calibrated(true):
    departure = true.departure(np.random.default_rng(8).normal(size=4000))
    departure = (departure - departure.mean()) / departure.std()
    table = people(200, 20, departure=departure, site=1.0, seed=9)
    norm = fit_norm(table)
    assert not norm.shape.normal
    z = score(norm, table)["z"].to_numpy()
    for p in (0.01, 0.025, 0.25, 0.75, 0.975, 0.99):
        assert (z < stats.norm.ppf(p)).mean() == pytest.approx(p, abs=0.25 * min(p, 1 - p) + 0.004)


def test_normal_people_keep_a_normal_shape():
    generator = np.random.default_rng(10)
    assert np.mean([fit_shape(generator.normal(size=200)).normal for _ in range(50)]) >= 0.94


def test_one_far_value_moves_nothing_much():
    table = people(30, 10, seed=11)
    spoilt = table.copy()
    spoilt.loc[5, "value"] = 140.0
    clean, dirty = (centiles(fit_norm(t), [50.0], manufacturer="m0") for t in (table, spoilt))
    shift = np.abs(clean["value"] - dirty["value"])
    assert shift[clean["probability"].between(0.2, 0.8)].max() < 1.2
    assert shift.max() < 5.0


def test_a_norm_is_the_same_from_sums_and_from_rows():
    table = people(25, 12, seed=12)
    cell = Cell("area T2w", "spinal cord", "C3")
    parts = [statistics(part) for _, part in table.groupby("site")]
    summed = fit_statistics(joined(reversed(parts)), cell=cell, unit="mm2")
    whole = fit_statistics(statistics(table), cell=cell, unit="mm2")
    np.testing.assert_allclose(summed.hierarchy.coefficients, whole.hierarchy.coefficients, rtol=1e-9, atol=1e-12)
    a, b = (score(n, table)["z"] for n in (summed, whole))
    np.testing.assert_allclose(a, b, atol=1e-9)


def test_repeated_visits_count_as_one_person():
    table = people(20, 6, seed=13)
    twice = pd.concat([table, table])
    one, two = (fit_norm(t).hierarchy for t in (table, twice))
    np.testing.assert_allclose(one.sites.count, two.sites.count)
    np.testing.assert_allclose(one.covariance, two.covariance, rtol=1e-4)


def test_json_keeps_scores():
    table = people(20, 6, seed=14)
    norms = fit_norms(table)
    text = norms.to_json()
    back = Norms.from_json(text)
    np.testing.assert_allclose(score(back, table)["z"], score(norms, table)["z"], atol=1e-7)
    assert back.to_json() == text
    assert json.loads(text)["norms"][0]["card"]["people"] == 120


@pytest.mark.parametrize("text", ["{}", "nonsense", '{"format": 99, "norms": []}'])
def test_other_files_are_refused(text):
    with pytest.raises(ImplausibleValue, match="format|holds no norms"):
        Norms.from_json(text)


def test_order_of_rows_and_unit_change_nothing():
    table = people(15, 6, seed=15)
    shuffled = table.sample(frac=1, random_state=1)
    a, b = score(fit_norm(table), table), score(fit_norm(shuffled), table)
    np.testing.assert_allclose(a["z"], b["z"], atol=1e-8)
    metres = table.assign(value=table["value"] * 1e-6, se=table["se"] * 1e-6)
    np.testing.assert_allclose(score(fit_norm(metres), metres)["z"], a["z"], atol=1e-5)


def test_what_cannot_be_scored_is_named():
    table = people(10, 6, seed=16)
    norms = fit_norms(table)
    odd = table.iloc[:4].copy()
    odd["level"] = ["C9", "C3", "C3", "C3"]
    odd.loc[1, "value"] = np.nan
    odd.loc[2, ["manufacturer", "site"]] = ["elsewhere", "new"]
    odd.loc[3, "age"] = 110.0
    with pytest.warns(ExtrapolationWarning, match="1 of 4"):
        found = score(norms, odd)
    assert found["note"].str.contains("no norm|no value|manufacturer unknown|age outside").all()
    assert found["z"].isna().tolist() == [True, True, False, False]
    assert found["basis"][2] == "other"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pathology": "DCM"}, "no healthy person"),
        ({"value": np.nan}, "not numbers"),
        ({"unit": ["mm2", "cm2"] * 20}, "2 units"),
        ({"manufacturer": ["a", "b"] * 20, "site": "one"}, "two manufacturers"),
    ],
)
def test_tables_that_make_no_norm_are_refused(change, says):
    with pytest.raises(ImplausibleValue, match=says):
        fit_norms(people(10, 4).assign(**change))


def test_constant_values_are_refused_and_three_people_give_wide_limits():
    with pytest.raises(ImplausibleValue, match="values that differ"):
        fit_norms(people(5, 4).assign(value=3.0))
    three = people(1, 3)
    assert np.isfinite(score(fit_norms(three), three)["z"]).all()
    wide = score(fit_norms(three), three.assign(value=three["value"].mean() + 3 * three["value"].std()))
    assert (wide["z"] < 2.0).all()


def test_published_bands_stand_for_their_people():
    """Means and spreads by sex and decade, against the rows they were made from."""
    table = people(1, 4000, seed=17, makers=1, ages=(20.0, 80.0))
    band = (table["age"] // 10 * 10 + 5).rename("band")
    bands = table.groupby(["site", "manufacturer", "sex", band])["value"].agg(count="size", mean="mean", sd="std")
    bands = bands.reset_index().rename(columns={"band": "age"})
    a, b = statistics(table), from_summaries(bands)
    assert b.count[0] == 4000
    assert b.yy[0] == pytest.approx(a.yy[0], rel=1e-9)
    np.testing.assert_allclose(b.xy[0, :2], a.xy[0, :2], rtol=1e-9)
    own = people(10, 6, seed=18, makers=1)
    alone, helped = fit_norm(own), fit_norm(own, summaries=from_summaries(bands.assign(site="published")))
    assert effects(helped)["male"][1] < 0.4 * effects(alone)["male"][1]
    assert effects(helped)["male"][0] == pytest.approx(4.0, abs=0.8)
    assert "published" in helped.hierarchy.sites.name


def test_curves_beyond_the_ages_of_the_people_warn():
    norm = fit_norm(people(10, 10, seed=19, ages=(20.0, 40.0)), Terms(knots=()))
    with pytest.warns(ExtrapolationWarning, match="to 80 years"):
        centiles(norm, [30.0, 80.0], manufacturer="m0")
    assert len(centiles(norm, [30.0], manufacturer="m0")) == 7


def test_cells_without_a_spread_of_people_are_named_and_do_not_stop_the_others():
    table = people(4, 6)
    constant = table.head(4).assign(level="C7", value=3.0)
    one = pd.concat([table.head(1)] * 2).assign(level="T1", session_id=["1", "2"], value=[70.0, 71.0])
    with pytest.warns(SetApartWarning, match="2 of 3 cells have no norm: All 4 values .* at T1 is of one healthy"):
        norms = fit_norms(pd.concat([table, constant, one], ignore_index=True))
    assert [norm.cell.level for norm in norms] == [table["level"].iloc[0]]
    with pytest.raises(ImplausibleValue, match="one healthy person"):
        fit_norms(one)


@pytest.mark.parametrize("wrong", [-1.0, np.inf])
def test_standard_errors_that_are_none_are_refused(wrong):
    table = people(4, 6)
    norms = fit_norms(table)
    bad = table.assign(se=[wrong, *[0.1] * (len(table) - 1)])
    for learn in (fit_norms, lambda rows: score(norms, rows)):
        with pytest.raises(ImplausibleValue, match="1 of 24 standard errors"):
            learn(bad)
