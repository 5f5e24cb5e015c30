"""Shares of variation and effects of covariates against second formulas."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import f_oneway, linregress

from qcord.core.errors import MissingMetadata, NotIdentifiable
from qcord.normative.harmonise.effects import covariate_effects, effects, eta_squared


@pytest.fixture
def table():
    rng = np.random.default_rng(3)
    group = rng.choice(list("abc"), 90)
    age = rng.uniform(20, 60, 90)
    f = 0.05 * age + (group == "b") + rng.standard_normal(90)
    return pd.DataFrame({"site": group, "age": age, "sex": rng.choice(["F", "M"], 90), "f": f})


def test_shares_are_those_of_one_way_analysis(table):
    found = eta_squared(table["f"].to_numpy(), table["site"])
    groups = [g.to_numpy() for _, g in table.groupby("site")["f"]]
    between = sum(len(g) * (g.mean() - table["f"].mean()) ** 2 for g in groups)
    assert found.eta_squared == pytest.approx(between / np.sum((table["f"] - table["f"].mean()) ** 2))
    assert found.p == pytest.approx(f_oneway(*groups).pvalue)
    assert (found.n, found.groups) == (90, 3)


def test_groups_that_differ_in_nothing_have_no_omega_squared():
    rng = np.random.default_rng(4)
    site = pd.Series(np.repeat(np.arange(20).astype(str), 5))
    found = [eta_squared(rng.standard_normal(100), site) for _ in range(200)]
    assert np.mean([e.omega_squared for e in found]) == pytest.approx(0.0, abs=0.02)
    assert np.mean([e.eta_squared for e in found]) == pytest.approx(19 / 99, abs=0.02)


def test_slopes_are_those_of_simple_regression(table):
    row = covariate_effects(table, ["f"], ("age",)).iloc[0]
    line = linregress(table["age"], table["f"])
    assert row["effect"] == pytest.approx(line.slope)
    assert row["se"] == pytest.approx(line.stderr)


def test_effects_within_sites_ignore_differences_between_them(table):
    one = covariate_effects(table, ["f"], ("age", "sex"), batch="site")
    moved = table.assign(f=table["f"] + 100 * (table["site"] == "c"))
    two = covariate_effects(moved, ["f"], ("age", "sex"), batch="site")
    pd.testing.assert_frame_equal(one, two)
    assert list(one["term"]) == ["age", "sex M"]


def test_table_of_effects(table):
    found = effects(table, ["f"], ("site", "sex"), ("age",)).set_index("group")
    assert found.loc["site", "eta_squared"] > found.loc["sex", "eta_squared"]


def test_too_little_is_refused(table):
    with pytest.raises(NotIdentifiable, match="do not tell groups apart"):
        eta_squared(table["f"].to_numpy(), pd.Series(["a"] * 90))
    with pytest.raises(NotIdentifiable, match="too few for its sites"):
        covariate_effects(table.head(4), ["f"], ("age", "sex"), batch="site")
    with pytest.raises(MissingMetadata, match="no column 'height'"):
        covariate_effects(table, ["f"], ("height",))
    assert np.isnan(eta_squared(np.ones(90), table["site"]).eta_squared)
