import numpy as np
import pandas as pd

from norm_cohort import cohort
from qcord.normative.compare_stored import compared
from qcord.normative.observations import checked


def stored(frame):
    table = checked(frame).accepted
    return table.assign(row_id=np.arange(100, 100 + len(table)))


def fresh(frame):
    entry = checked(frame)
    return pd.concat([entry.accepted, entry.reference], ignore_index=True)


def test_same_rows_are_stored_already():
    result = compared(fresh(cohort(10)), stored(cohort(10)))
    assert result.n_stored == 10
    assert result.new.empty
    assert result.refused.empty


def test_new_people_are_new():
    result = compared(fresh(cohort(10)), stored(cohort(10).iloc[:6]))
    assert result.n_stored == 6
    assert result.new["participant_id"].tolist() == ["p006", "p007", "p008", "p009"]
    assert result.new["supersedes"].isna().all()


def test_another_value_needs_leave_to_replace():
    base = cohort(10)
    other = base.copy()
    other.loc[4, "value"] += 0.02
    result = compared(fresh(other), stored(base))
    assert result.n_stored == 9
    assert result.refused["participant_id"].tolist() == ["p004"]
    assert "another value is stored" in result.refused["reason"].iloc[0]
    result = compared(fresh(other), stored(base), supersede=True)
    assert result.refused.empty
    assert result.new["supersedes"].tolist() == [104]


def test_other_protocol_or_software_is_no_conflict():
    base = cohort(10)
    result = compared(fresh(base.assign(software="other 2", value=base["value"] + 0.1)), stored(base))
    assert len(result.new) == 10


def test_person_with_another_sex_than_stored():
    base = cohort(10)
    more = cohort(10, metric="MD", unit="mm2/s", mean=1e-3, sd=5e-5)
    more[["age", "sex"]] = base[["age", "sex"]]
    more.loc[2, "sex"] = "F" if base.loc[2, "sex"] == "M" else "M"
    more.loc[3, "age"] += 2
    result = compared(fresh(more), stored(base), supersede=True)
    assert result.refused["participant_id"].tolist() == ["p002", "p003"]
    assert result.refused["reason"].str.contains("beside what is stored").all()
    assert len(result.new) == 8


def test_wrong_age_can_be_corrected_by_replacing_all_rows_of_the_person():
    base = cohort(10)
    right = base.copy()
    right.loc[3, "age"] += 5
    result = compared(fresh(right), stored(base), supersede=True)
    assert result.new["participant_id"].tolist() == ["p003"]
    assert result.n_stored == 9
    both = pd.concat([base, base.assign(metric="MD", unit="mm2/s", value=base["value"] * 1e-3)])
    result = compared(fresh(right), stored(both), supersede=True)
    assert result.new.empty
    assert result.refused["participant_id"].tolist() == ["p003"]


def test_person_found_ill_moves_to_the_reference():
    base = cohort(10)
    ill = base.copy()
    ill.loc[6, "pathology"] = "MS"
    result = compared(fresh(ill), stored(base), supersede=True)
    assert result.new["pathology"].tolist() == ["MS"]
    assert result.new["supersedes"].tolist() == [106]


def test_metric_that_the_database_holds_in_another_unit():
    base = cohort(10, metric="novel index", unit="ppm")
    other = cohort(10, metric="novel index", unit="Hz", site="there", seed=3)
    result = compared(fresh(other), stored(base), {"novel index": "ppm"})
    assert len(result.refused) == 10
    assert result.new.empty
