import numpy as np
import pandas as pd
import pytest

from qcord.core.errors import UnknownName
from qcord.normative.changes import changes
from qcord.normative.retest import repeatabilities

CELLS = (("FA", "white matter", "C2:C5"), ("area T2w", "spinal cord", "C2:C3"), ("QSM", "white matter", "C2:C5"))


def visits(generator, n_people, n_visits, *, metric="FA", region="white matter", level="C2:C5", sd=1.0, slope=0.0):
    person = np.repeat(np.arange(n_people), n_visits)
    time = np.tile(np.arange(n_visits, dtype=float), n_people)
    value = 50 + 3 * generator.standard_normal(n_people)[person] + slope * time
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{i}" for i in person],
            "session_id": [f"ses-{int(t)}" for t in time],
            "age": 40 + time,
            "metric": metric,
            "region": region,
            "level": level,
            "unit": "1",
            "value": value + sd * generator.standard_normal(len(time)),
        }
    )


def test_unchanged_people_are_rarely_called_changed_and_changed_ones_are_found():
    generator = np.random.default_rng(1)
    own = repeatabilities(visits(generator, 6, 4))
    still = changes(visits(generator, 600, 3), own)
    assert still.changed.mean() < 0.08
    assert (still.changed == (still.p < 0.05)).all()
    assert still.basis.str.contains("own sessions: 24 of 6 people").all()
    assert changes(visits(generator, 100, 3, slope=4.0), own).changed.mean() > 0.9


def test_published_variation_serves_where_there_is_no_own_and_its_absence_is_told():
    generator = np.random.default_rng(2)
    table = pd.concat(
        [visits(generator, 1, 2, metric=metric, region=region, level=level) for metric, region, level in CELLS]
    )
    found = changes(table, repeatabilities(visits(generator, 5, 4))).set_index("metric")
    assert found.basis["FA"].startswith("own sessions: 20 of 5 people, joined with Boudreau")
    assert "imag_a_00409" in found.basis["area T2w"]
    mean = table[table.metric == "area T2w"].value.mean()
    assert found.limit["area T2w"] == pytest.approx(1.96 * np.sqrt(2) * 0.024 * mean, rel=1e-3)
    assert "No published variation" in found.basis["QSM"]
    assert np.isnan(found.p["QSM"])
    assert not found.changed["QSM"]


def test_chances_are_corrected_for_the_number_of_cells():
    generator = np.random.default_rng(3)
    table = pd.concat([visits(generator, 2, 2, level=f"C{i}") for i in range(2, 7)])
    found = changes(table)
    one = found[found.participant_id == "sub-0"].sort_values("p")
    assert one.p_all.iloc[0] == pytest.approx(min(1, 5 * one.p.iloc[0]))
    assert (one.p_all >= one.p).all()
    assert one.p_all.is_monotonic_increasing


def test_people_with_one_visit_and_bad_values_take_no_part():
    generator = np.random.default_rng(4)
    table = visits(generator, 3, 3).assign(quality="ok")
    table.loc[table.participant_id == "sub-1", "quality"] = "moved"
    table.loc[(table.participant_id == "sub-2") & (table.age > 40), "value"] = np.nan
    found = changes(table)
    assert list(found.participant_id) == ["sub-0"]
    assert found.n_sessions[0] == 3
    assert changes(table[table.age == 40]).empty
    whole = changes(table.assign(age=40))
    assert list(whole.participant_id) == ["sub-0"]
    assert "two times" in whole.basis[0]
    assert np.isnan(whole.slope[0])
    timed = changes(table.assign(age=40, time=table.age))
    assert timed.slope[0] == found.slope[0]
    with pytest.raises(UnknownName, match="'age'"):
        changes(table.drop(columns="age"))


def test_what_age_brings_is_expected():
    generator = np.random.default_rng(5)
    table = visits(generator, 200, 4, slope=-2.0)
    own = repeatabilities(visits(generator, 40, 4))
    aged = pd.DataFrame(
        [dict(zip(("metric", "region", "level"), CELLS[0], strict=True), expected=-2.0, expected_se=0.0)]
    )
    assert changes(table, own).changed.mean() > 0.9
    assert changes(table, own, expected=aged).changed.mean() < 0.09
