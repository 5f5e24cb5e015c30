from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from qcord.core.errors import ImplausibleValue, NotIdentifiable, UnknownName
from qcord.normative.reliable_change import (
    expected_change,
    minimal_detectable_change,
    reliable_change,
    reliable_trend,
)
from qcord.normative.repeatability import NEUROMOD_DF, TABLE, joined, published, within_person
from qcord.normative.retest import WithinPerson, repeatability

PEOPLE, SESSIONS, DF = 3, 5, 12


def estimate(generator, within=1.0, noise=np.nan):
    """Standard deviation within people as three people of five sessions give it."""
    values = within * generator.standard_normal((PEOPLE, SESSIONS))
    return WithinPerson(float(np.sqrt(values.var(axis=1, ddof=1).mean())), DF, noise)


def alarms(draw, n=6000):
    """Share of changes called real; three standard errors of a share of 5 % are 0.8 % at 6000."""
    return np.mean([draw().changed for _ in range(n)])


def test_unchanged_people_are_called_changed_as_often_as_stated():
    generator = np.random.default_rng(1)

    def draw():
        before, after = 50 + generator.standard_normal(2)
        return reliable_change(before, after, estimate(generator))

    assert 0.04 < alarms(draw) < 0.06


def test_a_limit_from_few_sessions_taken_as_known_would_alarm_too_often():
    generator = np.random.default_rng(1)

    def draw():
        before, after = 50 + generator.standard_normal(2)
        return reliable_change(before, after, WithinPerson(estimate(generator).sd))

    assert alarms(draw) > 0.065


@pytest.mark.parametrize(("own", "session"), [(0.5, 1.0), (2.0, 1.0), (1.0, 0.1)])
def test_noise_of_the_values_replaces_that_of_the_repeated_sessions(own, session):
    generator = np.random.default_rng(2)
    noise = 1.0

    def draw():
        within = estimate(generator, np.hypot(session, noise), noise)
        before, after = np.hypot(session, own) * generator.standard_normal(2)
        return reliable_change(before, after, within, se_before=own, se_after=own)

    # where noise outweighs the sessions, their share cannot be told from 0, and limits are cautious
    rate = alarms(draw, 2500)
    assert rate < 0.06
    assert rate > (0.034 if session == 1.0 else 0.005)


def test_a_known_change_is_found_as_often_as_theory_says():
    generator = np.random.default_rng(3)
    shift = 4.0

    def draw():
        before, after = generator.standard_normal(2)
        return reliable_change(before, after + shift, estimate(generator))

    expected = stats.nct.sf(stats.t.ppf(0.975, DF), DF, shift / np.sqrt(2))
    assert alarms(draw, 3000) == pytest.approx(expected, abs=0.03)
    assert expected > 0.7


def test_interval_of_the_limit_covers_the_limit_of_a_known_spread():
    generator = np.random.default_rng(4)
    truth = stats.norm.ppf(0.975) * np.sqrt(2)
    limits = [minimal_detectable_change(estimate(generator)) for _ in range(3000)]
    covered = np.mean([limit.low <= truth <= limit.high for limit in limits])
    assert covered == pytest.approx(0.95, abs=0.012)
    assert np.mean([limit.value for limit in limits]) > truth


def test_limit_of_a_known_spread_is_the_textbook_one():
    assert minimal_detectable_change(WithinPerson(2.0)).value == pytest.approx(1.959964 * np.sqrt(2) * 2)
    limit = minimal_detectable_change(WithinPerson(2.0, 12))
    for df in (1, 2, 12, 300):
        exact = stats.t.ppf(0.975, df) * np.sqrt(2) * 2
        assert minimal_detectable_change(WithinPerson(2.0, df)).value == pytest.approx(exact, rel=1e-6)
    assert limit.low < 1.96 * np.sqrt(2) * 2 < limit.high
    unknown = minimal_detectable_change(WithinPerson(2.0, np.nan))
    assert np.isnan([unknown.low, unknown.high]).all()


@given(
    st.floats(0, 5), st.floats(1, 100), st.one_of(st.just(np.nan), st.floats(0, 5)), st.floats(0, 5), st.floats(0, 5)
)
def test_a_limit_is_never_below_that_of_the_standard_errors_alone(sd, df, noise, first, second):
    limit = minimal_detectable_change(WithinPerson(sd, df, noise), first, second)
    assert limit.value >= stats.norm.ppf(0.975) * np.hypot(first, second) * (1 - 1e-9) - 1e-99
    back = minimal_detectable_change(WithinPerson(sd, df, noise), second, first)
    assert back.value == pytest.approx(limit.value)


@given(st.floats(-100, 100), st.floats(-100, 100), st.floats(0.1, 5))
def test_there_and_back_are_judged_alike(before, after, sd):
    there, back = (reliable_change(*pair, WithinPerson(sd, 8)) for pair in ((before, after), (after, before)))
    assert there.changed == back.changed
    assert there.index == pytest.approx(-back.index)
    assert there.changed == (there.p < 0.05)
    assert there.low <= after - before <= there.high


def test_change_of_age_is_taken_off_with_its_error():
    within = WithinPerson(1.0, 20)
    plain = reliable_change(70, 66.5, within, name="area", unit="mm2")
    aged = reliable_change(70, 66.5, within, expected=-1.5, expected_se=0.3, name="area", unit="mm2")
    assert plain.changed
    assert not aged.changed
    assert aged.limit.value > plain.limit.value
    assert plain.sentence == (
        "area changed by -3.5 mm2 (70 to 66.5): more than sessions of an unchanged person differ by "
        "(within ±2.95 mm2 in 95 %)."
    )
    assert "once the -1.5 mm2 of age is taken off: no more than" in aged.sentence


def test_expected_change_is_that_of_the_median():
    centiles = pd.DataFrame(
        {"age": [20.0, 60.0, 20.0, 60.0], "probability": [0.5, 0.5, 0.9, 0.9], "value": [80.0, 72.0, 90.0, 80.0]}
    )
    assert expected_change(centiles, 30, 35) == pytest.approx(-1.0)
    assert expected_change(centiles, 35, 30) == pytest.approx(1.0)
    with pytest.raises(ImplausibleValue, match="outside the norm, 20 to 60"):
        expected_change(centiles, 30, 61)
    with pytest.raises(UnknownName, match=r"no probability 0\.5"):
        expected_change(centiles[centiles.probability > 0.5], 30, 35)


@pytest.mark.parametrize("times", [(0, 1), (0, 0.5, 3), (0, 1, 2, 3, 4, 5)])
def test_trends_of_unchanged_people_are_called_real_as_often_as_stated(times):
    generator = np.random.default_rng(5)
    own = np.linspace(0.5, 1.5, len(times))

    def draw():
        # noise of the values is larger than, and other than, that between sessions
        value = 50 + np.hypot(1.0, own) * generator.standard_normal(len(times))
        return reliable_trend(times, value, estimate(generator, np.sqrt(2), 1.0), se=own)

    assert 0.024 < alarms(draw, 1500) < 0.06


def test_a_trend_is_found_and_two_sessions_are_a_change_a_year():
    generator = np.random.default_rng(6)
    time = np.arange(7.0)
    found = reliable_trend(time, 70 - 1.5 * time + generator.standard_normal(7), WithinPerson(1.0, 30), unit="mm2")
    assert found.changed
    assert found.low < -1.5 < found.high
    assert "mm2 a year over 6 years (7 sessions)" in found.sentence
    within = WithinPerson(1.0, 12)
    slope, change = reliable_trend([0, 2], [5, 9], within), reliable_change(5, 9, within)
    assert slope.index == pytest.approx(change.index)
    assert 2 * slope.limit.value == pytest.approx(change.limit.value)


def test_an_unsteady_person_is_judged_by_their_own_scatter():
    value = [50, 58, 47, 57, 52, 62]
    calm = reliable_trend(range(6), np.linspace(50, 56, 6), WithinPerson(0.5, 50))
    wild = reliable_trend(range(6), value, WithinPerson(0.5, 50))
    assert calm.changed
    assert not wild.changed
    assert "own scatter" in wild.sentence


def test_bad_input_is_refused_in_one_sentence():
    within = WithinPerson(1.0, 8)
    with pytest.raises(ImplausibleValue, match="needs two numbers"):
        reliable_change(np.nan, 1, within)
    with pytest.raises(ImplausibleValue, match="not negative"):
        reliable_change(1, 2, within, se_before=-1)
    with pytest.raises(ImplausibleValue, match="standard deviation within people of nan"):
        reliable_change(1, 2, WithinPerson(np.nan))
    with pytest.raises(ImplausibleValue, match="degrees of freedom"):
        reliable_change(1, 2, WithinPerson(1.0, 0))
    with pytest.raises(NotIdentifiable, match="two times"):
        reliable_trend([1, 1], [2, 3], within)
    with pytest.raises(ImplausibleValue, match="2 times, 3 values"):
        reliable_trend([1, 2], [2, 3, 4], within)


def test_published_limits_are_the_listed_ones():
    listed = {  # smallest detectable changes in percent that VALUES lists
        ("area T2w", "spinal cord"): 6.4,
        ("area T1w", "spinal cord"): 12.5,
        ("FA", "white matter"): 10.8,
        ("MTR", "white matter"): 14.1,
        ("MTsat", "white matter"): 21.9,
        ("T1", "white matter"): 19.1,
        ("MD", "white matter"): 25.0,
    }
    for (metric, region), percent in listed.items():
        found = within_person(metric, region, "C2:C3")
        assert minimal_detectable_change(found.at(100)).value == pytest.approx(percent, rel=0.05), metric
        assert found.source
    assert all(row.source and 0.01 < row.cov < 0.3 for row in TABLE)


def test_the_largest_published_variation_of_the_level_is_taken():
    rows = published("area T1w", "spinal cord")
    assert len(rows) == 3
    assert rows[0].cov == max(row.cov for row in rows)
    assert within_person("area T1w", "spinal cord", "C7").level == ""
    with pytest.raises(UnknownName, match="No published variation within people of QSM in white matter"):
        within_person("QSM", "white matter")


def test_what_repeated_sessions_give_judges_a_change():
    generator = np.random.default_rng(7)
    table = pd.DataFrame(
        {"participant_id": np.repeat(list("abc"), 5), "value": np.repeat([50, 60, 70], 5) + generator.normal(size=15)}
    )
    within = repeatability(table).within_person
    assert (within.df, within.source) == (12, "15 sessions of 3 people, anova")
    assert reliable_change(50, 60, within).changed
    assert not reliable_change(50, 50.5, within).changed


@pytest.mark.parametrize(("df", "factor"), [(4, 1.3), (8, 0.7), (20, 1.2)])
def test_own_sessions_and_published_ones_count_by_their_degrees_of_freedom(df, factor):
    known = within_person("FA", "white matter")
    own = WithinPerson(factor * 0.039 * 0.7, df, 0.01, "own")
    both = joined(own, known, 0.7)
    assert both.df == df + NEUROMOD_DF
    assert both.sd**2 * both.df == pytest.approx((0.039 * 0.7) ** 2 * (df * factor**2 + NEUROMOD_DF))
    assert both.noise_sd == 0.01
    assert "own, joined with Boudreau" in both.source


def test_own_sessions_that_differ_from_published_ones_stand_alone():
    known = within_person("FA", "white matter")
    for factor in (3.8, 0.25):
        own = WithinPerson(factor * 0.039, 12, np.nan, "own")
        both = joined(own, known, 1.0)
        assert (both.sd, both.df) == (own.sd, own.df)
        assert "alone: they vary" in both.source
    unknown = within_person("MWF", "white matter")
    own = WithinPerson(0.2, 5, np.nan, "own")
    assert joined(own, unknown, 1.0) == own
    assert joined(own, known, 0.0) == own


def test_joined_variation_is_nearer_the_truth_and_its_limit_holds_as_often():
    generator = np.random.default_rng(4)
    known = within_person("FA", "white matter")
    errors, alone, beyond = [], [], []
    for _ in range(800):
        own = WithinPerson(0.039 * np.sqrt(generator.chisquare(4) / 4), 4.0, np.nan, "own")
        table = replace(known, cov=0.039 * float(np.sqrt(generator.chisquare(NEUROMOD_DF) / NEUROMOD_DF)))
        both = joined(own, table, 1.0)
        errors.append(np.log(both.sd / 0.039))
        alone.append(np.log(own.sd / 0.039))
        beyond.append(abs(generator.standard_normal()) * 0.039 * np.sqrt(2) > minimal_detectable_change(both).value)
    assert np.sqrt(np.mean(np.square(errors))) < 0.6 * np.sqrt(np.mean(np.square(alone)))
    assert 0.03 < np.mean(beyond) < 0.08
