"""Healthy people of 31 sites and three manufacturers."""

import numpy as np
import pandas as pd
import pytest

from qcord.core.errors import NotPoolable
from qcord.normative.harmonise.combat import apply, fit_combat
from qcord.normative.harmonise.effects import covariate_effects, effects
from qcord.normative.harmonise.poolable import require_poolable

FEATURES = ["DWI_FA", "DWI_MD", "DWI_RD", "MTR", "MTsat", "T1", "csa-GM_T2s", "csa-SC_T1w", "csa-SC_T2w"]
COVARIATES = ("age", "sex")

pytestmark = pytest.mark.real


@pytest.fixture
def table(data_dir):
    found = pd.read_csv(data_dir / "tables" / "spine_generic_qmri.csv").rename(columns={"institution_id": "site"})
    found = found[found["pathology"] == "HC"].copy()
    found.loc[found["T1"] > 3, ["T1", "MTsat"]] = np.nan
    found.loc[~(found["MTsat"] > 0), "MTsat"] = np.nan
    found.loc[~(found["MTR"] > 20), "MTR"] = np.nan
    return found


def test_manufacturers_vanish_and_the_effects_of_age_and_sex_stay(table):
    harmoniser = fit_combat(table, features=FEATURES, manufacturer="manufacturer", covariates=COVARIATES)
    done = apply(harmoniser, table)
    before, after = (
        effects(t, FEATURES, ("manufacturer",), COVARIATES).set_index("feature")["eta_squared"] for t in (table, done)
    )
    assert before["MTsat"] > 0.3
    assert before["DWI_MD"] > 0.3
    assert (after < 0.02).all()
    was = covariate_effects(table, FEATURES, COVARIATES, batch="site")
    now = covariate_effects(done, FEATURES, COVARIATES)
    assert ((now["effect"] - was["effect"]).abs() < was["se"]).all()
    assert (done[FEATURES].isna() == table[FEATURES].isna()).all(axis=None)


def test_raw_values_of_three_manufacturers_are_not_pooled(table):
    with pytest.raises(NotPoolable, match=r"MTsat of manufacturer (Philips|GE) lies 5\.\d spreads"):
        require_poolable(table, ["MTsat"], site="site", covariates=COVARIATES)
