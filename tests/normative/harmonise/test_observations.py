"""Long tables."""

import numpy as np
import pandas as pd
import pytest

from qcord.core.errors import NotIdentifiable
from qcord.normative.harmonise.combat import apply, fit_combat
from qcord.normative.harmonise.observations import apply_observations, feature_names, fit_observations, wide_table
from simulated_sites import simulate


def observations(errors=True):
    truth = simulate(31, n_features=2, errors=True)
    rows = []
    for _, person in truth.table.iterrows():
        for f, metric in (("f0", "FA"), ("f1", "MTsat")):
            rows.append(
                {
                    **person[["participant_id", "site", "manufacturer", "age", "sex"]].to_dict(),
                    "session_id": None,
                    "metric": metric,
                    "region": "white matter",
                    "level": "C2:C5",
                    "value": person[f],
                    "se": person[f"{f}_se"] if errors and f == "f0" else np.nan,
                    "quality": "ok",
                }
            )
    return truth, pd.DataFrame(rows)


def test_long_and_wide_tables_give_the_same():
    truth, long = observations()
    done = apply_observations(fit_observations(long), long)
    wide = fit_combat(
        truth.table,
        features=["f0", "f1"],
        manufacturer="manufacturer",
        covariates=("age", "sex"),
        se={"f0": "f0_se"},
    )
    expected = apply(wide, truth.table)
    fa = done[done["metric"] == "FA"]
    np.testing.assert_allclose(fa["value"], expected["f0"])
    np.testing.assert_allclose(fa["se"], expected["f0_se"])
    np.testing.assert_allclose(fa["se_shift"], expected["f0_se_shift"])
    assert done.loc[done["metric"] == "MTsat", "se"].isna().all()
    assert list(done.index) == list(long.index)
    assert done["session_id"].isna().all()


def test_values_of_bad_quality_take_no_part():
    _, long = observations()
    spoilt = long.copy()
    spoilt.loc[0, ["value", "quality"]] = [1e6, "motion"]
    without = long.drop(index=0)
    one, two = fit_observations(spoilt), fit_observations(without)
    np.testing.assert_allclose(one.shift, two.shift)
    assert np.isnan(apply_observations(one, spoilt).loc[0, "value"])


def test_cells_that_the_fit_did_not_see_come_out_empty():
    _, long = observations()
    harmoniser = fit_observations(long[long["metric"] == "FA"])
    done = apply_observations(harmoniser, long)
    assert done.loc[done["metric"] == "MTsat", "value"].isna().all()
    assert done.loc[done["metric"] == "FA", "value"].notna().all()
    other = apply_observations(fit_observations(long), long[long["metric"] == "FA"])
    assert other["value"].notna().all()


def test_several_visits_are_fitted_as_such():
    _, long = observations()
    second = long.assign(session_id="ses-2", value=long["value"] + 0.01 * np.arange(len(long)) / len(long))
    harmoniser = fit_observations(pd.concat([long.assign(session_id="ses-1"), second], ignore_index=True))
    assert harmoniser.participant == "participant_id"
    assert (harmoniser.person_sd > 0.5).all()


def test_a_cell_twice_in_a_visit_is_refused():
    _, long = observations()
    with pytest.raises(NotIdentifiable, match="occurs twice in a visit"):
        wide_table(pd.concat([long, long.head(1)]))
    with pytest.raises(NotIdentifiable, match="belongs to the whole visit"):
        wide_table(long.assign(age=np.arange(len(long))))
    assert feature_names(long)[0] == "FA | white matter | C2:C5"
