import json

import pytest

from qcord.ingest.bids import Visit
from qcord.ingest.people import manufacturer, read_person


def visit(session="02"):
    return Visit("X", session, None)


def tell(root, people, sessions="", units=None):
    (root / "sub-X").mkdir(exist_ok=True)
    (root / "participants.tsv").write_text(people)
    if sessions:
        (root / "sub-X" / "sub-X_sessions.tsv").write_text(sessions)
    if units:
        (root / "participants.json").write_text(json.dumps({k: {"Units": u} for k, u in units.items()}))


def test_age_moves_with_the_time_since_the_first_session(tmp_path):
    tell(
        tmp_path,
        "participant_id\tage\tsex\tsite\nsub-X\t40\tfemale\tzurich\n",
        "session_id\tacq_time\nses-01\t2020-01-01T08:00:00\nses-02\t2022-01-01T08:00:00\n",
    )
    person = read_person(tmp_path, visit())
    assert person.age == pytest.approx(42.0, abs=0.01)
    assert person.sex == "F"
    assert person.site == "zurich"
    assert person.lacking == ""
    assert read_person(tmp_path, visit("01")).age == 40


def test_what_the_session_says_comes_first(tmp_path):
    tell(tmp_path, "participant_id\tage\tsex\nX\t40\tM\n", "session_id\tage\nses-02\t55.5\n")
    assert read_person(tmp_path, visit()).age == 55.5
    assert read_person(tmp_path, visit("01")).age == 40


def test_other_units_are_converted(tmp_path):
    tell(
        tmp_path,
        "participant_id\tage\tsex\theight\tweight\nsub-X\t120\t1\t180\t70\n",
        units={"age": "months", "height": "cm"},
    )
    person = read_person(tmp_path, visit(None))
    assert (person.age, person.height, person.weight) == (10, 1.8, 70)


@pytest.mark.parametrize("age", ["n/a", "89+", "", "-3", "400", "inf"])
def test_an_age_that_is_none_is_not_known(tmp_path, age):
    tell(tmp_path, f"participant_id\tage\tsex\nsub-X\t{age}\tO\n")
    person = read_person(tmp_path, visit(None))
    assert person.age is None
    assert person.sex is None
    assert person.lacking == "age and sex (F or M)"


def test_without_a_table_nothing_is_known(tmp_path):
    assert read_person(tmp_path, visit()).lacking == "age and sex (F or M)"
    (tmp_path / "participants.tsv").write_bytes(b"\xff\xfe\x00bad")
    assert read_person(tmp_path, visit()).age is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SIEMENS", "Siemens"),
        ("Siemens Healthineers", "Siemens"),
        ("Philips Medical Systems", "Philips"),
        ("GE MEDICAL SYSTEMS", "GE"),
        ("GE", "GE"),
        ("Bridge", "Bridge"),
        ("", ""),
        (None, ""),
    ],
)
def test_makers_have_one_name(text, name):
    assert manufacturer(text) == name
