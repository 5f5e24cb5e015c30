import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norm_cohort import cohort
from qcord.core.errors import ImplausibleValue, MissingMetadata, QcordError, UnitMismatch, UnknownName
from qcord.normative.observations import COLUMNS, checked
from qcord.normative.plausible import FACTORS, PLAUSIBLE, conversion, plausible


def refused(frame):
    return checked(frame).reasons


def test_good_rows_pass_unchanged():
    frame = cohort(40)
    entry = checked(frame)
    assert list(entry.accepted.columns) == list(COLUMNS)
    assert entry.reasons == {}
    assert entry.reference.empty
    np.testing.assert_array_equal(entry.accepted["value"], frame["value"])
    np.testing.assert_array_equal(entry.accepted["age"], frame["age"])


def test_three_people_are_enough_for_a_database():
    assert len(checked(cohort(3)).accepted) == 3


def test_other_words_for_the_same_thing():
    frame = cohort(2, metric="fa", region="WM", level=["2:5", "C5-C2"], manufacturer="SIEMENS Healthineers")
    frame["participant_id"] = ["sub-a", "b"]
    frame["session_id"] = ["ses-1", None]
    frame["sex"] = ["Female", "male"]
    frame["pathology"] = ["CN", "healthy"]
    row = checked(frame).accepted
    assert row["level"].tolist() == ["C2:C5", "C2:C5"]
    assert row["participant_id"].tolist() == ["a", "b"]
    assert row["session_id"].iloc[0] == "1"
    assert pd.isna(row["session_id"].iloc[1])
    assert row["sex"].tolist() == ["F", "M"]
    assert set(row["pathology"]) == {"HC"}
    assert set(row["manufacturer"]) == {"Siemens"}
    assert set(row["metric"]) == {"FA"}
    assert set(row["region"]) == {"white matter"}


@pytest.mark.parametrize(
    ("metric", "unit", "value", "stored"),
    [
        ("T1", "ms", 900.0, 0.9),
        ("MD", "um2/ms", 0.95, 0.95e-3),
        ("MD", "10^-3 mm2/s", 0.95, 0.95e-3),
        ("MTR", "1", 0.47, 47.0),
        ("MTsat", "fraction", 0.042, 4.2),
        ("area T2w", "cm2", 0.75, 75.0),
    ],
)
def test_stated_units_are_converted_and_unstated_slips_refused(metric, unit, value, stored):
    frame = cohort(30, metric=metric, unit=unit, mean=value, sd=value / 20)
    entry = checked(frame)
    np.testing.assert_allclose(entry.accepted["value"], frame["value"] * stored / value, rtol=1e-12)
    np.testing.assert_allclose(entry.accepted["se"], frame["se"] * stored / value, rtol=1e-12)
    assert any("converted from" in n for n in entry.notes)
    assert set(entry.accepted["unit"]) == {plausible(metric).unit}
    with pytest.raises(ImplausibleValue, match="state that unit"):
        checked(frame.assign(unit=plausible(metric).unit))
    with pytest.raises(ImplausibleValue, match="state that unit"):
        checked(frame.drop(columns="unit"))


@given(st.sampled_from(sorted(FACTORS)), st.floats(0.1, 10))
def test_conversion_there_and_back(pair, value):
    unit, into = pair
    by = conversion(unit, into, "value")
    assert by > 0
    if (into, unit) in FACTORS:
        assert value * by * conversion(into, unit, "value") == pytest.approx(value)


def test_slips_named_in_the_table_can_be_converted_and_mended():
    for known in PLAUSIBLE.values():
        assert known.low < known.high
        middle = np.sqrt(max(known.low, 1e-9) * known.high)
        for slip in known.slips:
            wrong = middle / FACTORS[slip, known.unit]
            if not known.low <= wrong <= known.high:
                assert known.slip(wrong), (known.metric, slip)


def test_impossible_values_are_quarantined_and_the_rest_kept():
    frame = cohort(20, metric="T1", unit="s", mean=0.9, sd=0.05)
    frame.loc[3, "value"] = 12.0
    frame.loc[7, "value"] = np.inf
    entry = checked(frame)
    assert len(entry.accepted) == 18
    assert entry.refused["participant_id"].tolist() == ["p003", "p007"]
    assert entry.refused["reason"].str.contains("impossible in cord tissue: T1").all()
    frame = cohort(20, metric="MTsat", unit="percent", mean=4, sd=0.3)
    frame.loc[5, "value"] = -0.5
    assert sum(refused(frame).values()) == 1


def test_patients_are_kept_apart():
    frame = cohort(20)
    frame.loc[[2, 9], "pathology"] = "DCM"
    entry = checked(frame)
    assert entry.reference["participant_id"].tolist() == ["p002", "p009"]
    assert set(entry.accepted["pathology"]) == {"HC"}
    assert len(entry.accepted) == 18


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("quality", "motion", "quality: motion"),
        ("age", np.nan, "age is missing"),
        ("age", 190.0, "age must be 0 to 120 years"),
        ("sex", "unknown", "sex is missing"),
        ("sex", None, "sex is missing"),
        ("pathology", None, "pathology is not stated"),
        ("site", None, "site is missing"),
        ("level", None, "level is missing"),
        ("se", -0.1, "standard error"),
    ],
)
def test_rows_that_cannot_be_used_have_a_reason(column, value, reason):
    frame = cohort(12)
    frame.loc[4, column] = value
    entry = checked(frame)
    assert entry.refused["participant_id"].tolist() == ["p004"]
    assert reason in entry.refused["reason"].iloc[0]
    assert len(entry.accepted) == 11


def test_nothing_is_dropped_silently():
    frame = cohort(30)
    frame.loc[2, "value"] = np.nan
    frame.loc[3, "quality"] = "ghosts"
    frame.loc[4, "pathology"] = "MS"
    entry = checked(frame)
    assert len(entry.accepted) + len(entry.reference) + len(entry.refused) + entry.n_empty == 30
    assert entry.n_empty == 1


def test_duplicates_and_conflicts_within_a_table():
    frame = pd.concat([cohort(10), cohort(10).iloc[[3, 5]]], ignore_index=True)
    frame.loc[11, "value"] += 0.01
    entry = checked(frame)
    assert entry.refused["participant_id"].tolist() == ["p005", "p003", "p005"]
    assert entry.refused["reason"].tolist()[1] == "duplicate within the table"
    assert "several values" in entry.refused["reason"].iloc[0]
    assert len(entry.accepted) == 9


def test_two_sessions_are_no_duplicates_and_may_differ_in_age():
    first, second = cohort(6, session_id="1"), cohort(6, session_id="2", seed=2)
    second[["age", "sex"]] = first[["age", "sex"]]
    second["age"] += 4
    assert len(checked(pd.concat([first, second])).accepted) == 12


def test_one_id_with_two_ages_or_sexes():
    frame = pd.concat([cohort(6), cohort(6, metric="MD", unit="mm2/s", mean=1e-3, sd=5e-5)], ignore_index=True)
    frame.loc[6:, ["age", "sex"]] = frame.loc[:5, ["age", "sex"]].to_numpy()
    assert checked(frame).reasons == {}
    frame.loc[7, "age"] += 0.5
    assert checked(frame).reasons == {}
    frame.loc[8, "age"] += 3
    frame.loc[9, "sex"] = "F" if frame.loc[9, "sex"] == "M" else "M"
    entry = checked(frame)
    assert sorted(entry.refused["participant_id"]) == ["p002", "p002", "p003", "p003"]
    assert set(entry.reasons) == {"one id with two ages at one session of a site", "one id with two sexes at a site"}


def test_the_same_id_at_two_sites_is_two_people():
    frame = pd.concat([cohort(8), cohort(8, site="there", seed=5)])
    assert len(checked(frame).accepted) == 16


def test_metric_in_two_units_is_not_used():
    frame = cohort(20, metric="T1", unit="s", mean=0.9, sd=0.05)
    frame.loc[10:, "unit"] = "ms"
    frame.loc[10:, "value"] *= 1000
    both = pd.concat([frame, cohort(20)])
    entry = checked(both)
    assert entry.reasons == {"metric comes in several units": 20}
    assert set(entry.accepted["metric"]) == {"FA"}


def test_column_filled_with_one_number_is_not_used():
    entry = checked(pd.concat([cohort(20), cohort(20, metric="T1", unit="s").assign(value=0.9)]))
    assert entry.reasons == {"the same number in everybody": 20}
    assert set(entry.accepted["metric"]) == {"FA"}
    assert len(checked(cohort(3).assign(value=0.7)).accepted) == 3


def test_height_in_centimetres_and_what_is_neither():
    frame = cohort(5)
    frame.loc[0, "height"] = 171.0
    frame.loc[1, "height"] = 68.5
    frame.loc[2, "weight"] = 900.0
    row = checked(frame).accepted
    assert row["height"].iloc[0] == pytest.approx(1.71)
    assert np.isnan(row["height"].iloc[1])
    assert np.isnan(row["weight"].iloc[2])
    assert len(row) == 5


@pytest.mark.parametrize(
    ("spoil", "error", "text"),
    [
        (lambda f: f.drop(columns="metric"), MissingMetadata, "Column metric is absent"),
        (lambda f: f.drop(columns="site"), MissingMetadata, "Column site is absent"),
        (lambda f: f.iloc[:0], MissingMetadata, "holds no row"),
        (lambda f: f.assign(value=np.nan), MissingMetadata, "All 12 values are empty"),
        (lambda f: f.assign(value="0,69"), ImplausibleValue, "decimal comma"),
        (lambda f: f.assign(age=["x", *["30"] * 11]), ImplausibleValue, "Column age holds the text 'x' in row 1"),
        (lambda f: f.assign(unit="furlong"), UnitMismatch, "FA comes in 'furlong'"),
        (lambda f: f.assign(level="neck"), UnknownName, "'neck' is no vertebral level"),
    ],
)
def test_tables_that_are_not_what_they_say(spoil, error, text):
    with pytest.raises(error, match=text) as raised:
        checked(spoil(cohort(12)))
    assert isinstance(raised.value, QcordError)
    assert "\n" not in str(raised.value)


def test_unknown_metric_needs_its_unit():
    assert len(checked(cohort(9, metric="novel index", unit="ppm")).accepted) == 9
    reasons = refused(cohort(9, metric="novel index").drop(columns="unit"))
    assert reasons == {"unit is not stated and the metric is not known": 9}


@settings(max_examples=20)
@given(st.permutations(list(range(12))))
def test_order_of_rows_does_not_matter(order):
    frame = cohort(12)
    frame.loc[3, "quality"] = "motion"
    frame.loc[4, "pathology"] = "DCM"
    a, b = checked(frame), checked(frame.iloc[order])
    pd.testing.assert_frame_equal(
        a.accepted, b.accepted.sort_values("participant_id", ignore_index=True), check_dtype=False
    )
    assert a.reasons == b.reasons


def test_ages_of_dicom_are_years_and_other_text_is_refused():
    assert checked(cohort(2, age=["035Y", "30"])).accepted["age"].tolist() == [35, 30]
    with pytest.raises(ImplausibleValue, match="'89\\+'"):
        checked(cohort(2, age=["89+", "30"]))


def test_a_sex_that_is_stated_but_not_understood_is_quoted():
    reasons = refused(cohort(3, sex=["1", "W", "unknown"]))
    assert reasons == {
        "sex is '1', expected F or M (say what it means in a mapping: [words.sex])": 1,
        "sex is missing, F or M (join a table with --participants)": 1,
    }


def test_diagnoses_that_set_people_apart_are_named():
    entry = checked(cohort(4, pathology=["HC", "Healthy volunteers", "normal", "MS"]))
    assert len(entry.accepted) == 2
    assert any("other than HC: MS (1 rows), normal (1 rows)" in n for n in entry.notes)


def test_names_that_look_alike_are_equal():
    rows = checked(cohort(2, site=["Zu\u0308rich", "Z\u00fcrich "])).accepted
    assert set(rows["site"]) == {"Z\u00fcrich"}


def test_levels_of_a_list_are_a_range_if_there_is_no_gap():
    assert set(checked(cohort(2, level=["2;3;4;5", "2,3:5"])).accepted["level"]) == {"C2:C5"}
    with pytest.raises(UnknownName, match="without gaps"):
        checked(cohort(2, level=["2;5", "C2"]))


@pytest.mark.parametrize("value", [0.0, 1e300, -1e-300])
def test_numbers_that_no_map_gives_are_refused(value):
    frame = cohort(12)
    frame.loc[4, "value"] = value
    entry = checked(frame)
    assert entry.refused["participant_id"].tolist() == ["p004"]
    other = checked(frame.assign(metric="own", unit="1"))
    assert len(other.refused) == (0 if value == 0 else 1)


def test_the_same_value_of_one_id_at_two_sites_is_said():
    frame = cohort(3)
    twin = frame.head(1).assign(site="there")
    entry = checked(pd.concat([frame, twin], ignore_index=True))
    assert len(entry.accepted) == 4
    assert any("1 ids have the very same value at two sites (p000)" in n for n in entry.notes)
    other = checked(pd.concat([frame, twin.assign(value=0.7)], ignore_index=True))
    assert not any("two sites" in n for n in other.notes)
