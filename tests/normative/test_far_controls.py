"""One control that lies far away hardly moves the shift of a new site, is named, and clean controls count as before."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from healthy_people import people
from qcord.core.errors import SetApartWarning
from qcord.normative.adapt import adapt, adapt_norm
from qcord.normative.centiles import without_sites
from qcord.normative.deviating import Deviating, assumed
from qcord.normative.far_controls import FAR, SHARE, WIDTH, Belief, belief, far_ones, sentence
from qcord.normative.fit import fit_norm, fit_norms
from qcord.normative.norm import Cell, Norms
from qcord.normative.score import score
from qcord.normative.shape import NORMAL, Shape
from qcord.normative.terms import Terms

STRAIGHT = Terms(knots=())
WITHIN = 6.0


def learnt(residual, *, prior=0.25, share=None, deviating=None, shape=NORMAL, variance=None):
    n = len(residual)
    return belief(
        np.asarray(residual, dtype=float),
        np.ones(n) if variance is None else variance,
        np.ones(n) if share is None else share,
        prior=prior,
        deviating=deviating or assumed(20),
        shape=shape,
    )


def shift(found: Belief, prior=0.25):
    """Mean and standard deviation of the shift of a site like most."""
    known = found.weight.sum()
    return found.shift * known / (known + 1 / prior), 1 / np.sqrt(known + 1 / prior)


@pytest.fixture(scope="module")
def table():
    return people(24, 8, seed=3)


@pytest.fixture(scope="module")
def norm(table):
    return fit_norm(table, STRAIGHT)


def controls(n, seed, *, moved=0.0, away=0.0):
    """Of a new site; the first one lies some spreads of people away."""
    own = people(1, n + 1, seed=seed, site=0.0, manufacturer=0.0).assign(site="new", manufacturer="m0")
    own = own.iloc[:n].assign(value=lambda t: t["value"] + moved)
    own.loc[own.index[0], "value"] += WITHIN * away
    return own


@pytest.mark.parametrize("residual", [[0.3, -0.2, 0.8], [5.0, 0.1, -0.3], [3.0, 0.2, -0.4, 0.9, -1.2]])
def test_shift_is_that_of_all_choices_of_who_is_far(residual):
    """Where no site deviates to speak of, mean and spread are those of the integral over the shift."""
    prior = 0.25

    def density(u):
        d = np.array(residual) - u
        either = (1 - SHARE) * stats.norm.pdf(d) + SHARE * stats.cauchy.pdf(d, scale=WIDTH)
        return stats.norm.pdf(u, scale=np.sqrt(prior)) * either.prod()

    moments = [integrate.quad(lambda u, k=k: u**k * density(u), -4, 4, epsabs=1e-14)[0] for k in range(3)]
    mean = moments[1] / moments[0]
    spread = np.sqrt(moments[2] / moments[0] - mean**2)
    found = shift(learnt(residual, prior=prior, deviating=Deviating(1e-12, 3.0)), prior)
    np.testing.assert_allclose(found, (mean, spread), rtol=1e-3)


@pytest.mark.parametrize("n", [3, 5, 10, 20])
@pytest.mark.parametrize("tau", [0.4, 1.0])
def test_clean_controls_lose_little_and_one_far_control_is_as_good_as_absent(n, tau):
    rng = np.random.default_rng(n)
    errors, doubts = {0.0: [], 6.0: [], 10.0: []}, {0.0: [], 6.0: [], 10.0: []}
    plain, fewer = [], []
    for _ in range(400):
        u = tau * rng.standard_normal()
        values = u + rng.standard_normal(n)
        plain.append(values.sum() / (n + tau**-2) - u)
        fewer.append(values[1:].sum() / (n - 1 + tau**-2) - u)
        for away, error in errors.items():
            mean, doubt = shift(learnt(values + away * (np.arange(n) == 0), prior=tau**2), tau**2)
            error.append(mean - u)
            doubts[away].append(doubt)
    size = {away: np.sqrt(np.mean(np.square(e))) for away, e in errors.items()}
    assert size[0.0] < 1.03 * np.sqrt(np.mean(np.square(plain)))
    assert size[10.0] < 1.06 * np.sqrt(np.mean(np.square(fewer)))
    assert size[6.0] < 1.15 * np.sqrt(np.mean(np.square(fewer)))
    for away, e in errors.items():
        assert 0.88 < np.sqrt(np.mean(np.square(e) / np.square(doubts[away]))) < 1.12


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=7), st.floats(0.05, 2.0), st.randoms(use_true_random=False))
def test_order_side_and_unit_do_not_matter(residual, prior, random):
    base = learnt(residual, prior=prior)
    assert (base.weight > 0).all()
    assert min(residual) - 1e-9 <= base.shift <= max(residual) + 1e-9
    assert base.weight.sum() < len(residual) * 1.01
    order = random.sample(range(len(residual)), len(residual))
    mixed = learnt(np.array(residual)[order], prior=prior)
    np.testing.assert_allclose(mixed.weight, base.weight[order], rtol=1e-8)
    np.testing.assert_allclose(mixed.shift, base.shift, atol=1e-8)
    turned = learnt(-np.array(residual), prior=prior)
    np.testing.assert_allclose(turned.weight, base.weight, rtol=1e-6)
    np.testing.assert_allclose(turned.shift, -base.shift, atol=1e-6)
    wide = assumed(20)
    larger = learnt(
        7 * np.array(residual),
        prior=49 * prior,
        variance=np.full(len(residual), 49.0),
        deviating=Deviating(wide.share, 7 * wide.width),
    )
    np.testing.assert_allclose(49 * larger.weight, base.weight, rtol=1e-6)
    np.testing.assert_allclose(larger.shift, 7 * base.shift, atol=1e-6)


def test_the_farther_a_control_the_less_it_moves_the_shift():
    pulled = [shift(learnt([away, 0.2, -0.4, 0.9, -0.7]))[0] for away in (0.0, 2.0, 4.0, 6.0, 10.0, 1e4)]
    assert pulled[1] > pulled[0]
    assert (np.diff(pulled[2:]) < 1e-12).all()
    without = shift(learnt([0.2, -0.4, 0.9, -0.7]))[0]
    assert pulled[-1] == pytest.approx(without, abs=0.01)


def test_two_far_controls_and_a_near_one_tell_little_unless_many_sites_deviate():
    clean = shift(learnt([0.0, 0.4, -0.4]))
    torn = shift(learnt([6.0, 6.4, 0.0]))
    assert torn[1] > 1.2 * clean[1]
    assert torn[1] > 0.93 * 0.5  # nearly what is known without controls
    alike = learnt([6.0, 6.4, 5.8])
    assert alike.shift == pytest.approx(6.07, abs=0.1)
    assert alike.weight.sum() == pytest.approx(3.0, rel=0.03)
    assert (alike.far < 0.1).all()
    often = learnt([6.0, 6.4, 0.0], deviating=Deviating(0.3, 6.0))
    assert often.far[2] > 0.9
    assert often.shift > 5.5
    rarely = learnt([6.0, 6.4, 0.0], deviating=Deviating(0.001, 6.0))
    assert (rarely.far[:2] > 0.9).all()


def test_sessions_of_one_person_count_as_one():
    several = learnt([6.0] * 4 + [0.1, -0.5], share=np.array([0.25] * 4 + [1.0, 1.0]))
    once = learnt([6.0, 0.1, -0.5])
    assert several.shift == pytest.approx(once.shift, abs=1e-9)
    assert several.weight.sum() == pytest.approx(once.weight.sum())
    assert several.weight[:4].sum() == pytest.approx(once.weight[0])
    np.testing.assert_allclose(several.far[3:], once.far, rtol=1e-9)


def test_heavy_tails_of_people_are_not_far():
    heavy = Shape(tail=0.5, width=0.5)
    residual = [4.0, 0.2, -0.4, 0.5, -0.1]
    assert learnt(residual).far[0] > 0.5
    assert learnt(residual, shape=heavy).far[0] < 0.3


def test_many_controls_are_as_few_are():
    rng = np.random.default_rng(5)
    values = 0.7 + rng.standard_normal(1500)
    values[:60] += 8.0
    found = learnt(values)
    assert found.shift == pytest.approx(values[60:].mean(), abs=0.02)
    assert 0.93 * 1440 < found.weight.sum() < 1440  # some near ones may be of another kind
    assert (found.far[:60] > 0.5).all()
    assert learnt(values[:201]).shift == pytest.approx(learnt(values[:200]).shift, abs=0.02)


@pytest.mark.parametrize("n", [3, 5, 10, 20])
def test_other_people_are_scored_as_if_the_far_control_were_not_there(n):
    table = people(54, 40, seed=3)
    known = table["site"] < "s024"
    norm = fit_norm(table[known].groupby("site").head(8), STRAIGHT)
    found, kept = [], []
    for site, own in table[~known].groupby("site"):
        few, others = own.iloc[:n].copy(), own.iloc[n : n + 20]
        few.loc[few.index[0], "value"] += 8.0 * WITHIN
        found.append(score(adapt_norm(norm, few, site=str(site)), others)["z"])
        kept.append(score(adapt_norm(norm, few.iloc[1:], site=str(site)), others)["z"])
    z, without = np.array(found), np.array(kept)
    assert np.abs((z - without).mean(axis=1)).max() < 0.3
    assert np.abs((z - without).mean()) < 0.05
    assert 0.9 < z.std() < 1.1
    assert 0.02 < (np.abs(z) > 1.96).mean() < 0.08


def test_people_far_away_are_named_in_one_sentence_and_on_the_card(table):
    cells = [table, table.assign(level="C4"), table.assign(metric="area T1w")]
    norms = fit_norms(pd.concat(cells), STRAIGHT)
    five = controls(5, 8, away=9.0)
    second = five.assign(level="C4")
    clean = controls(5, 8).assign(metric="area T1w")
    with pytest.warns(SetApartWarning) as told:
        adapted = adapt(norms, pd.concat([five, second, clean]), site="new")
    assert len(told) == 1
    words = str(told[0].message)
    assert words.startswith("Controls of new hardly count where they lie far")
    assert "p0 in area T2w of spinal cord at C3 (" in words
    assert "spinal cord at C4 (" in words
    assert "p1" not in words
    assert "area T1w" not in words
    card = adapted["area T2w", "spinal cord", "C3"].card[FAR]["new"]
    assert list(card) == ["p0"]
    assert card["p0"].endswith("spreads of people above")
    assert float(card["p0"].split()[0]) == pytest.approx(9.0, abs=2.0)
    assert FAR not in adapted["area T1w", "spinal cord", "C3"].card
    # others are drawn anew, the card of another site stays, and what is given away names nobody
    again = adapt(adapted, pd.concat([clean.assign(metric="area T2w"), clean]), site="new")
    assert FAR not in again["area T2w", "spinal cord", "C3"].card
    with pytest.warns(SetApartWarning):
        both = adapt(adapted, five, site="newer")
    one = both["area T2w", "spinal cord", "C3"]
    assert set(one.card[FAR]) == {"new", "newer"}
    assert "p0" not in str(without_sites(one).to_dict())


def test_files_and_the_order_of_rows_change_nothing(norm):
    five = controls(5, 8, away=6.0)
    adapted = adapt_norm(norm, five, site="new")
    mixed = adapt_norm(norm, five.sample(frac=1, random_state=2), site="new")
    assert mixed.to_dict() == adapted.to_dict()
    read = next(iter(Norms.from_json(Norms.of([adapted]).to_json())))
    others = controls(9, 9)
    np.testing.assert_allclose(score(read, others)["z"], score(adapted, others)["z"], atol=1e-6)
    assert read.card[FAR] == adapted.card[FAR]


def test_a_study_lends_its_shift_before_controls_are_judged(table):
    """Controls of a far study are near each other and near what their study lets expect."""
    moved = 50.0 * (table["site"].str[1:].astype(int) // 3 % 2 == 1)
    study = np.where(moved > 0, "far study", "near study")
    norm = fit_norm(table.assign(value=table["value"] + moved, study=study), STRAIGHT)
    three = controls(3, 8, moved=50.0).assign(study="far study")
    assert FAR not in adapt_norm(norm, three, site="new").card
    three.loc[three.index[0], "value"] -= 50.0
    adapted = adapt_norm(norm, three, site="new")
    assert list(adapted.card[FAR]["new"]) == ["p0"]
    assert "below" in adapted.card[FAR]["new"]["p0"]


def test_names_of_rows_people_and_sessions():
    far, departure = np.array([0.9, 0.8, 0.1, 0.6]), np.array([-7.04, -6.0, 5.0, 3.5])
    found = Belief(0.0, np.ones(4), far, departure)
    place = np.arange(4)[::-1]
    who = far_ones(found, ["d", "a", "a", "a"], place)
    assert who == {"a": "7.0 spreads of people below, 2 of 3 values", "d": "3.5 spreads of people above"}
    cells = {Cell("MTR", "white matter", f"C{k}"): {"x": "5.0 spreads of people below"} for k in range(2, 7)}
    cells[Cell("FA", "white matter", "C3")] = {f"y{k}": "4.0 spreads of people above" for k in range(6)}
    words = sentence("our scanner", cells)
    assert words.count(".") == 3 + 4 + 1
    assert "x in MTR of white matter at C2 (5.0 spreads of people below)" in words
    assert "and 2 more cells" in words
    assert "y3 in FA of white matter" in words
    assert "and 2 more people" in words


def test_rows_without_a_name_are_called_by_their_place(norm):
    five = controls(5, 8, away=9.0)
    nameless = adapt_norm(norm, five.drop(columns="participant_id"), site="new")
    assert list(nameless.card[FAR]["new"]) == ["row 1"]
    some = five.assign(participant_id=[None, "b", "c", "d", "e"])
    assert list(adapt_norm(norm, some, site="new").card[FAR]["new"]) == ["row 1"]
