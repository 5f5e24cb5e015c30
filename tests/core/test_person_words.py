import math

import pytest

from qcord.core.person_words import dicom_age, maker_name, sex_name


@pytest.mark.parametrize(
    ("text", "years"),
    [("035Y", 35), ("420M", 35), (" 18m ", 1.5), ("0700D", 700 / 365.25), ("35 y", 35)],
)
def test_age_strings_of_dicom_are_years(text, years):
    assert dicom_age(text) == pytest.approx(years)


@pytest.mark.parametrize("text", ["35", "89+", "thirty", "", "Y", "35X", "-3Y"])
def test_other_text_is_no_age(text):
    assert math.isnan(dicom_age(text))


def test_words_for_sex_are_understood_and_numbers_are_not():
    assert [sex_name(w) for w in ("W", "Female", " male ", "m")] == ["F", "F", "M", "M"]
    assert [sex_name(w) for w in ("1", "2", "O", "")] == [""] * 4


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("General Electric", "GE"),
        ("UIH", "United Imaging"),
        ("TOSHIBA_MEC", "Canon"),
        ("Hitachi Medical Corporation", "Hitachi"),
        ("Bridge Imaging", "Bridge Imaging"),
    ],
)
def test_makers_have_one_name_everywhere(text, name):
    assert maker_name(text) == name
