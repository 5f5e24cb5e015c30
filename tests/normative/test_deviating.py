"""Sites that deviate: the share is found where it is, and nowhere else; scores stay honest for both kinds of sites."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcord.normative.adapt import adapt_norm, expected_error
from qcord.normative.centiles import centiles
from qcord.normative.deviating import Deviating, fit_deviating, from_median, membership, predictive
from qcord.normative.fit import fit_norm, fit_norms, fit_statistics
from qcord.normative.norm import Cell, Norms
from qcord.normative.score import score
from qcord.normative.statistics import statistics


def people(seed, share=0.1, width=10.0, tau=0.3, counts=(6, 8, 18), each=5):
    """Sites of three makes; spread between people 1; column ``far`` tells the sites that deviate."""
    rng = np.random.default_rng(seed)
    rows = []
    for maker, count in zip("ABC", counts, strict=True):
        centre = 20 + 2 * rng.standard_normal()
        for k in range(count):
            far = rng.random() < share
            middle = centre + tau * rng.standard_normal() + far * width * rng.choice([-1, 1])
            rows += [
                (
                    f"{maker}{k:02d}",
                    maker,
                    far,
                    rng.uniform(20, 45),
                    "MF"[rng.integers(2)],
                    middle + rng.standard_normal(),
                )
                for _ in range(each)
            ]
    table = pd.DataFrame(rows, columns=["site", "manufacturer", "far", "age", "sex", "value"])
    return table.assign(metric="MTR", region="white matter", level="C3", unit="percent")


def test_share_is_found_where_it_is():
    found = people(3)
    norm = fit_norm(found)
    truth = found.groupby("site")["far"].first()
    assert 2 <= truth.sum() <= 6
    d = norm.hierarchy.deviating
    assert d.share == pytest.approx((truth.sum() + 1) / (len(truth) + 10), abs=0.02)
    within = np.exp(norm.hierarchy.variances[0])
    assert d.width == pytest.approx(10.0, rel=0.5)
    assert np.exp(norm.hierarchy.variances[1]) < 0.7  # that of the others: .3
    assert within * norm.hierarchy.spread == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("seed", range(6))
def test_normal_sites_have_none_and_their_norm_is_that_of_before(seed):
    norm = fit_norm(people(seed, share=0.0, tau=0.6))
    assert norm.hierarchy.deviating.none
    assert norm.to_dict()["deviating"] == [0.0, 0.0, 0.0]


def test_few_sites_have_none():
    found = people(1, share=0.0, counts=(3, 3, 3))
    found.loc[found["site"] == "A00", "value"] += 12
    assert fit_norm(found).hierarchy.deviating.none


def test_unseen_sites_of_both_kinds_are_scored_honestly():
    found, plain = [], []
    for seed in range(12):
        table = people(seed, counts=(10, 12, 34))
        unseen = table["site"].str[1:].astype(int) % 2 == 1
        found.append(score(fit_norm(table[~unseen]), table[unseen]))
        kept = table.drop(columns="far")[~unseen & ~table["far"]]
        plain.append(score(fit_norm(kept), table[unseen]))
    z, blind = (pd.concat(x) for x in (found, plain))
    assert 0.85 < z["z"].std() < 1.15
    assert 0.75 < z["z"][~z["far"]].std() < 1.0  # a tenth of what is expected lies far away, where they are not
    assert 1.5 < np.abs(z["z"][z["far"]]).median() < 3.0  # rare, not impossible
    assert np.abs(blind["z"][blind["far"]]).median() > 5.0


def test_a_far_site_is_hardly_drawn_and_a_near_one_is():
    norm = fit_norm(people(3))
    others = people(3)
    middle = others["value"][(others["manufacturer"] == "C") & ~others["far"]].mean()
    three = pd.DataFrame({"manufacturer": "C", "age": 30.0, "sex": "F", "value": middle + np.array([-0.5, 0.0, 0.5])})
    one = three.iloc[[1]].assign(site="new")
    for shift, least, most in ((0.0, -0.3, 0.3), (-9.0, -9.5, -8.0)):
        adapted = adapt_norm(norm, three.assign(value=three["value"] + shift), site="new")
        expected = score(adapted, one)["expected"].iloc[0]
        assert least < expected - middle < most
    far = score(norm, one.assign(value=middle - 9.0))
    assert -3.5 < far["z"].iloc[0] < -1.5
    known = adapt_norm(norm, three.assign(value=three["value"] - 9.0), site="new")
    assert abs(score(known, one.assign(value=middle - 9.0))["z"].iloc[0]) < 1.0


def test_scores_rise_with_the_value_and_lie_between_those_of_both_kinds():
    norm = fit_norm(people(3))
    values = norm.hierarchy.centre + np.linspace(-30, 30, 241)
    rows = pd.DataFrame({"manufacturer": "C", "age": 30.0, "sex": "F", "value": values})
    found = score(norm, rows)
    assert (np.diff(found["z"]) > 0).all()
    assert np.isfinite(found[["z", "z_low", "z_high", "expected_sd"]]).all(axis=None)
    near = found.iloc[(found["z"].abs()).argmin()]
    assert near["expected"] == pytest.approx(near["value"], abs=0.3)


def test_json_keeps_it_and_reads_norms_of_before():
    norms = Norms.of([fit_norm(people(3))])
    again = Norms.from_json(norms.to_json())
    rows = people(4)
    np.testing.assert_allclose(score(again, rows)["z"], score(norms, rows)["z"], rtol=1e-7)
    content = json.loads(norms.to_json())
    del content["norms"][0]["deviating"]
    old = Norms.from_json(json.dumps(content))
    assert next(iter(old)).hierarchy.deviating.none
    assert np.isfinite(score(old, rows)["z"]).all()


def test_sums_of_sites_give_the_same_share():
    found = people(3)
    cell = Cell("MTR", "white matter", "C3")
    by_sums = fit_statistics(statistics(found, fit_norm(found).terms), cell=cell, unit="percent").hierarchy
    by_rows = fit_norms(found)[cell].hierarchy
    assert not by_sums.deviating.none
    assert by_sums.deviating.share == pytest.approx(by_rows.deviating.share, rel=1e-6)
    assert by_sums.deviating.width == pytest.approx(by_rows.deviating.width, rel=1e-5)


def test_order_of_sites_and_unit_do_not_matter():
    found = people(3)
    base = fit_norm(found).hierarchy.deviating
    mixed = fit_norm(found.sample(frac=1, random_state=1)).hierarchy.deviating
    scaled = fit_norm(found.assign(value=found["value"] * 1e-3)).hierarchy.deviating
    assert mixed == base
    assert scaled.share == pytest.approx(base.share, rel=1e-5)
    assert scaled.width == pytest.approx(base.width, rel=1e-4)


def test_error_of_a_new_site_falls_with_controls():
    norm = fit_norm(people(3))
    errors = expected_error(norm, "C", np.array([0, 3, 10, 30]))
    assert (np.diff(errors) < 0).all()
    assert errors[0] > 2  # sites that deviate are part of it
    assert errors[2] < 0.6


def test_curves_of_a_known_site_are_not_widened():
    found = people(3)
    norm = fit_norm(found)
    near = found["site"][~found["far"]].iloc[-1]
    band = {s: centiles(norm, [30.0], "F", site=s, manufacturer="C", probabilities=[0.5]) for s in (near, "new")}
    width = {s: float((b["high"] - b["low"]).iloc[0]) for s, b in band.items()}
    assert width[near] < 2.5
    assert width["new"] > 2 * width[near]


@given(st.floats(0.02, 0.3), st.floats(2.0, 30.0), st.floats(0.05, 2.0))
def test_chance_rises_with_the_distance_and_does_not_depend_on_the_unit(share, width, spread):
    d = Deviating(share, width)
    residual = np.linspace(0, 20, 50)
    chance = membership(d, residual, np.full(50, spread**2), within=1.0)
    assert ((chance >= 0) & (chance <= 1)).all()
    assert (np.diff(chance) >= 0).all()
    assert chance[0] < share
    scaled = membership(d, 7 * residual, np.full(50, (7 * spread) ** 2), within=7.0)
    np.testing.assert_allclose(scaled, chance, rtol=1e-9, atol=1e-12)


def test_share_and_width_of_residuals():
    rng = np.random.default_rng(5)
    far = rng.random(400) < 0.15
    residual = np.where(far, 8.0, 0.3) * rng.standard_normal(400) + 0.4 * rng.standard_normal(400)
    found = fit_deviating(residual, np.full(400, 0.16), 0.5)
    assert found.share == pytest.approx(far.mean(), abs=0.04)
    assert found.width == pytest.approx(8.0, rel=0.2)
    chance = membership(found, residual, np.full(400, 0.09 + 0.16), within=1.0)
    known = predictive(found, chance)
    assert known.share == pytest.approx((chance.sum() + 1) / 410)
    assert known.doubt == pytest.approx(1 / (1 + 2 * chance.sum()))


def test_median_site_is_not_moved():
    usual, enough, tau2 = from_median(np.array([0.0, 1.0, 90.0, 5.0, 7.0]), np.array([0, 0, 0, 1, 1]))
    assert usual.tolist() == [-1, 0, 89, -1, 1]
    assert enough.tolist() == [True] * 3 + [False] * 2
    assert tau2 == pytest.approx((1 / 0.6745) ** 2)
