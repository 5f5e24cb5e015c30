"""Whether values may be pooled, and covariates told from sites."""

import warnings

import numpy as np
import pandas as pd
import pytest

from qcord.core.errors import ApproximationWarning, NotIdentifiable, NotPoolable
from qcord.normative.harmonise.combat import apply, fit_combat
from qcord.normative.harmonise.poolable import batch_differences, require_poolable, require_unconfounded
from simulated_sites import simulate


@pytest.fixture(scope="module")
def apart():
    """Manufacturer Beta lies 4 spreads above the others."""
    truth = simulate(21, n_features=1, maker=0.0, between=0.1, fewest=6, most=10)
    return truth.table.assign(f0=truth.table["f0"] + 4.0 * (truth.table["manufacturer"] == "Beta"))


def test_manufacturers_that_differ_are_refused_with_the_size_and_the_remedy(apart):
    with pytest.raises(NotPoolable, match="f0 of manufacturer Beta lies") as caught:
        require_poolable(apart, ["f0"], site="site", covariates=("age", "sex"))
    text = str(caught.value)
    assert all(part in text for part in ("eta squared", "keep one manufacturer", "fit_combat"))
    assert "\n" not in text
    row = batch_differences(apart, ["f0"], site="site", covariates=("age", "sex")).iloc[0]
    assert row["high"] == "Beta"
    assert row["ratio"] == pytest.approx(4.0, abs=2.5 * row["ratio_se"])
    assert row["difference"] == pytest.approx(row["ratio"] * row["spread"])


def test_harmonised_values_and_one_manufacturer_alone_pass(apart):
    done = apply(fit_combat(apart, features=["f0"], manufacturer="manufacturer", covariates=("age", "sex")), apart)
    found = require_poolable(done, ["f0"], site="site", covariates=("age", "sex"), largest=1.0)
    assert found["ratio"][0] < 0.5
    alone = apart[apart["manufacturer"] == "Gamma"]
    with pytest.raises(NotIdentifiable, match="nothing is pooled"):
        require_poolable(alone, ["f0"], site="site")


def test_a_difference_that_covariates_explain_is_no_reason_to_refuse():
    rng = np.random.default_rng(5)
    n = 400
    protocol = np.where(rng.random(n) < 0.5, "a", "b")
    age = rng.uniform(20, 50, n) + 20 * (protocol == "b")
    table = pd.DataFrame({"protocol": protocol, "age": age, "f": 0.1 * age + rng.standard_normal(n)})
    with pytest.raises(NotPoolable, match="protocol b"):
        require_poolable(table, ["f"], batch="protocol")
    assert require_poolable(table, ["f"], batch="protocol", covariates=("age",))["ratio"][0] < 0.5


def test_protocols_that_differ_are_refused_and_a_wider_limit_is_kept():
    rng = np.random.default_rng(6)
    table = pd.DataFrame({"protocol": np.repeat(["TR 35", "TR 57"], 40), "f": rng.standard_normal(80)})
    table["f"] += 1.5 * (table["protocol"] == "TR 57")
    with pytest.raises(NotPoolable, match="protocol TR 57"):
        require_poolable(table, ["f"], batch="protocol")
    require_poolable(table, ["f"], batch="protocol", largest=3.0)


def test_too_few_sites_to_tell_is_a_warning():
    truth = simulate(22, n_features=1, maker=0.0, between=1.5)
    with pytest.warns(ApproximationWarning, match="too few people or sites"):
        require_poolable(truth.table, ["f0"], site="site")


def test_equal_batches_are_rarely_refused():
    rng = np.random.default_rng(7)
    refused = 0
    for _ in range(100):
        table = pd.DataFrame({"site": rng.choice(list("abcdef"), 48), "f": rng.standard_normal(48)})
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ApproximationWarning)
                require_poolable(table, ["f"], batch="site")
        except NotPoolable:
            refused += 1
    assert refused <= 10


def test_covariates_that_are_sites_are_refused_or_warned_of():
    rng = np.random.default_rng(8)
    site = np.repeat(list("abcd"), 20)
    base = pd.DataFrame({"site": site, "age": rng.uniform(20, 80, 80)})
    assert require_unconfounded(base, ("age",))["inflation"][0] == pytest.approx(1.0, abs=0.3)
    old = base.assign(age=np.where(site == "a", 75.0, 25.0) + rng.standard_normal(80))
    with pytest.raises(NotIdentifiable, match="age varies by .* cannot be told from that of site"):
        require_unconfounded(old, ("age",))
    constant = base.assign(age=np.where(site == "a", 75.0, 25.0))
    with pytest.raises(NotIdentifiable, match="cannot be told"):
        require_unconfounded(constant, ("age",))
    part = base.assign(age=rng.uniform(20, 40, 80) + 25 * (site == "a"))
    with pytest.warns(ApproximationWarning, match="rests on few people"):
        require_unconfounded(part, ("age",))
    with pytest.raises(NotIdentifiable, match="complete rows at 1 site"):
        require_unconfounded(base[site == "a"], ("age",))
