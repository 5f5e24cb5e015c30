"""Tables of other sites beside norms: a right number, a note, or one sentence; never a number that looks right."""

import unicodedata

import numpy as np
import pytest

from healthy_people import people
from qcord.cli.main import main
from qcord.core.errors import ImplausibleValue, UnreadableFile
from qcord.normative.fit import fit_norms
from qcord.pipeline.norm_score import norm_score

CELL = {"metric": "FA", "unit": "1", "region": "white matter", "level": "C3"}


@pytest.fixture(scope="module")
def norms():
    one = people(3, 40, makers=1, seed=3, error=1.0)
    return fit_norms(one.assign(value=one["value"] / 100, se=one["se"] / 100, manufacturer="GE", **CELL))


@pytest.fixture
def table():
    one = people(2, 4, makers=1, seed=4)
    return one.assign(value=one["value"] / 100, se=0.01, manufacturer="GE", site="elsewhere", **CELL)


def test_other_words_and_layouts_give_the_same_z(norms, table, tmp_path):
    truth = norm_score(table, norms)["z"]
    words = table.assign(
        metric="fa",
        region="WM",
        level="3",
        manufacturer="GENERAL ELECTRIC",
        unit="fraction",
        sex=table["sex"].map({"F": "female", "M": " Male"}),
    )
    np.testing.assert_array_equal(norm_score(words, norms)["z"], truth)
    layouts = {
        "semicolon.csv": {"sep": ";"},
        "bom.csv": {"encoding": "utf-8-sig"},
        "packed.csv.gz": {},
        "windows.txt": {"sep": "\t", "lineterminator": "\r\n"},
        "quoted.csv": {"quoting": 1},
    }
    for name, how in layouts.items():
        words.rename(columns={"region": " Label ", "sex": "Gender"}).to_csv(tmp_path / name, index=False, **how)
        np.testing.assert_allclose(norm_score(tmp_path / name, norms)["z"], truth, rtol=1e-12)


def test_what_is_not_known_of_a_table_is_stated_by_a_mapping_and_participants(norms, table, tmp_path):
    truth = norm_score(table, norms)["z"]
    table.assign(age=table["age"] * 12).to_csv(tmp_path / "t.csv", index=False, sep=";", decimal=",")
    with pytest.raises(ImplausibleValue, match='decimal = ","'):
        norm_score(tmp_path / "t.csv", norms)
    mapping = tmp_path / "m.toml"
    mapping.write_text('decimal = ","\n[columns]\nage = { column = "age", unit = "month" }\n')
    np.testing.assert_allclose(norm_score(tmp_path / "t.csv", norms, mapping=mapping)["z"], truth, rtol=1e-9)
    rows = "".join(
        f"6.1,sub-{p}_FA.nii.gz,3,WM,{v}\n" for p, v in zip(table["participant_id"], table["value"], strict=True)
    )
    (tmp_path / "FA.csv").write_text("SCT Version,Filename,VertLevel,Label,MAP()\n" + rows)
    who = table[["participant_id", "age", "sex", "manufacturer"]].assign(site="elsewhere")
    who.to_csv(tmp_path / "participants.tsv", index=False, sep="\t")
    found = norm_score(tmp_path / "FA.csv", norms, participants=tmp_path / "participants.tsv")
    np.testing.assert_allclose(found["z"], norm_score(table.assign(se=0.0), norms)["z"], rtol=1e-9)


def test_units_that_a_mapping_states_are_converted(norms, table, tmp_path):
    truth = norm_score(table, norms)
    per_cent = table.drop(columns="unit").assign(value=table["value"] * 100, se=table["se"] * 100, site="Z\u00fcrich")
    per_cent.to_csv(tmp_path / "t.csv", index=False, encoding="latin-1")
    (tmp_path / "m.toml").write_text('encoding = "latin-1"\n[constants]\nunit = "%"\n')
    found = norm_score(tmp_path / "t.csv", norms, mapping=tmp_path / "m.toml")
    np.testing.assert_allclose(found[["value", "se", "z"]], truth[["value", "se", "z"]], rtol=1e-9)
    assert set(found["unit"]) == {"1"}


def test_a_site_is_the_same_however_its_accents_are_written(norms):
    own = people(1, 5, makers=1, seed=5).assign(value=0.7, se=0.0, manufacturer="GE", **CELL)
    known = norms[("FA", "white matter", "C3")].hierarchy.sites.name[0]
    assert set(norm_score(own.assign(site=f" {known}"), norms)["basis"]) == {"site"}
    zurich = [unicodedata.normalize(form, "Zürich") for form in ("NFC", "NFD")]
    assert norm_score(own.assign(site=zurich[1]), norms)["site"].tolist() == [zurich[0]] * 5


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"value": -0.2}, "impossible in cord tissue: FA must be 0.001 to 1"),
        ({"value": 0.0}, "impossible in cord tissue: FA must be 0.001 to 1"),
        (
            {"value": 65.0},
            "impossible in cord tissue: FA must be 0.001 to 1 (in 'percent'? convert it, or state it in a mapping)",
        ),
        ({"value": np.inf}, "no value"),
        ({"se": -0.1}, "standard error is no number >= 0"),
        ({"se": np.inf}, "standard error is no number >= 0"),
        ({"quality": "failed"}, "quality: failed"),
        ({"unit": "percent"}, "unit percent, the norm has 1"),
        ({"age": 420.0}, "age is not 0 to 120 years (in months? state its unit in a mapping)"),
        ({"sex": "1"}, "no sex"),
        ({"level": "C33"}, "no norm"),
    ],
)
def test_a_row_that_cannot_be_compared_has_a_note_and_no_z(norms, table, change, note):
    found = norm_score(table.assign(**change), norms)
    assert set(found["note"]) == {note}
    assert found[["z", "z_low", "centile", "expected"]].isna().all(axis=None)


def test_people_of_unknown_makers_and_other_ages_are_named_and_patients_are_scored(norms, table):
    assert set(norm_score(table.assign(manufacturer="Zeiss"), norms)["note"]) == {"manufacturer unknown to the norm"}
    old = norm_score(table.assign(age=110.0), norms)
    assert old["note"].str.startswith("age outside").all()
    sick = norm_score(table.assign(pathology="MS"), norms)
    np.testing.assert_array_equal(sick["z"], norm_score(table, norms)["z"])


@pytest.mark.parametrize("text", ["0,65", "<0.3", "1 2", "0x10"])
def test_text_among_numbers_is_no_missing_value(norms, table, text, tmp_path):
    wrong = table.astype(object)
    wrong.loc[2, "value"] = text
    wrong.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ImplausibleValue, match="Column value holds the text"):
        norm_score(tmp_path / "t.csv", norms, tmp_path / "out.tsv")
    assert not (tmp_path / "out.tsv").exists()


def test_the_command_counts_who_has_no_z(norms, table, tmp_path, capsys):
    (tmp_path / "n.json").write_text(norms.to_json())
    table.loc[0, "age"] = np.nan
    table.loc[1, "level"] = "C7"
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(SystemExit):
        main(["norm", "score", str(tmp_path / "t.csv"), "--norms", str(tmp_path / "n.json"), "-o", str(tmp_path / "s")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "6 of 8 values have a z"
    assert sorted(line.split(maxsplit=1)[1] for line in lines[2:]) == ["no age", "no norm"]


@pytest.mark.parametrize("content", ['{"format":1,"norms":[{}]}', '{"format":1,"norms":[7]}', "[]"])
def test_a_file_that_holds_no_whole_norm_is_refused(table, tmp_path, content):
    (tmp_path / "n.json").write_text(content)
    with pytest.raises(ImplausibleValue, match="qcord norm fit"):
        norm_score(table, tmp_path / "n.json")
    (tmp_path / "n.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UnreadableFile, match="cannot be read"):
        norm_score(table, tmp_path / "n.json")
