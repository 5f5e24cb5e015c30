import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcord.normative.federation.cells import (
    Limits,
    TooRevealing,
    design_numbers,
    reason_to_withhold,
    spread,
    step,
)
from qcord.normative.statistics import rows
from qcord.normative.terms import Terms

STRAIGHT = Terms(())


def group(n, terms, *, seed=0, men=None, ages=None, value=None):
    g = np.random.default_rng(seed)
    age = np.floor(g.uniform(20, 75, n)) if ages is None else np.asarray(ages, dtype=float)
    sex = np.where(np.arange(n) < (n // 2 if men is None else men), "M", "F")
    values = 0.7 + 0.04 * g.standard_normal(n) if value is None else value
    return rows(pd.DataFrame({"value": values, "age": age, "sex": sex, "site": "a", "manufacturer": "GE"}), terms)


def reason(people, terms, **limits):
    return reason_to_withhold(people, terms, Limits(**limits))


@settings(max_examples=60, deadline=None)
@given(n=st.integers(12, 40), seed=st.integers(0, 10**6), who=st.integers(0, 11))
def test_the_spread_is_the_largest_change_of_a_value_that_keeps_all_sums(n, seed, who):
    people = group(n, Terms((20.0, 50.0, 80.0)), seed=seed)
    x, y = people.design, people.value
    half = spread(x, y)[who]
    hat = x @ np.linalg.pinv(x)
    fitted, unit = hat @ y, np.eye(n)[who] - hat[who]
    rss = ((y - fitted) ** 2).sum()
    other = fitted + unit * np.sqrt(rss / (unit @ unit))
    np.testing.assert_allclose(x.T @ other, x.T @ y, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(other @ other, y @ y, rtol=1e-9)
    assert other[who] - fitted[who] == pytest.approx(half, rel=1e-6, abs=1e-9)
    free = np.random.default_rng(seed).standard_normal((200, n))
    free -= free @ hat
    free *= np.sqrt(rss) / np.linalg.norm(free, axis=1, keepdims=True)
    assert np.abs(free[:, who]).max() <= half * (1 + 1e-9)


def test_groups_below_the_cell_size_are_named_with_their_number():
    few = group(9, STRAIGHT)
    assert reason(few, STRAIGHT) == "9 people, fewer than 10"
    assert "fewer than 10" not in reason(few, STRAIGHT, cell_size=8, small=True)
    assert reason(group(30, STRAIGHT), STRAIGHT, cell_size=31) == "30 people, fewer than 31"
    assert reason(group(30, STRAIGHT), STRAIGHT) == ""
    with pytest.raises(TooRevealing, match="5 is the least"):
        Limits(4, small=True)
    with pytest.raises(TooRevealing, match="--small"):
        Limits(9)


@pytest.mark.parametrize("men", [0, 1, 4, 5, 15, 16, 19, 20])
def test_a_few_of_one_sex_are_withheld_and_none_is_allowed(men):
    found = reason(group(20, STRAIGHT, men=men), STRAIGHT)
    assert ("of one sex" in found) == (0 < min(men, 20 - men) < 5)


def test_one_person_far_from_all_others_in_age_or_value_is_not_exported():
    ages = [*range(20, 49), 79]
    assert "leave someone's value open" in reason(group(30, Terms(), ages=ages), Terms())
    value = group(30, STRAIGHT).value.copy()
    value[4] = 12.6
    assert "two thirds" in reason(group(30, STRAIGHT, value=value), STRAIGHT)


def test_constant_and_rounded_values_are_not_exported_unless_people_are_many():
    assert "follow from" in reason(group(30, STRAIGHT, value=np.full(30, 0.7)), STRAIGHT)
    g = np.random.default_rng(1)
    whole = np.round(74 + 7 * g.standard_normal(200))
    assert "bits" in reason(group(30, Terms(), value=whole[:30]), Terms())
    assert reason(group(200, Terms(), value=whole), Terms()) == ""
    assert reason(group(30, Terms(), value=whole[:30] + 1e-3 * g.standard_normal(30)), Terms()) == ""


def test_dates_of_birth_need_more_people_than_numbers():
    ages = np.random.default_rng(2).uniform(20, 75, 22)
    assert "exported sums of their age" in reason(group(22, Terms(), ages=ages), Terms())
    ages = np.random.default_rng(2).uniform(20, 75, 40)
    assert reason(group(40, Terms(), ages=ages), Terms()) == ""
    assert design_numbers(Terms()) == 19


def test_the_grid_of_values_is_found():
    g = np.random.default_rng(3)
    assert step(np.array([0.712, 0.7, 0.655])) == pytest.approx(1e-3)
    assert step(np.array([74.25, 74.5, 73.75, 80.0])) == pytest.approx(0.25)
    assert step(0.2734375 * np.arange(250.0, 270.0)) == pytest.approx(0.2734375)
    assert step(1e-3 * np.round(g.uniform(0.5, 1.5, 9), 3)) == pytest.approx(1e-6)
    assert step(g.uniform(0.5, 1, 20)) < 1e-14
    assert 1e-9 < step(g.uniform(0.5, 1, 20).astype(np.float32).astype(float)) < 1e-6
    assert step(np.zeros(5)) == 1.0
