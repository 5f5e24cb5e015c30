"""Sources of the database: mapped tables, those of the Spinal Cord Toolbox, output folders of a run."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from norm_cohort import cohort
from qcord.api import norm_add, norm_query
from qcord.core.errors import ImplausibleValue, MissingMetadata, UnitMismatch, UnreadableFile

PAGE = Path(__file__).resolve().parents[2] / "docs" / "normative-database.md"


def mapping_of_page():
    return re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def wide(n=12):
    frame = cohort(n)
    return pd.DataFrame(
        {
            "Subject": "sub-" + frame["participant_id"],
            "fa": frame["value"],
            "fa_error": frame["se"],
            "t1": 900 + 1000 * (frame["value"] - 0.69),
            "age_months": frame["age"] * 12,
            "gender": np.where(frame["sex"] == "F", "w", "m"),
            "feet": frame["height"] / 0.0254,
        }
    )


MAPPING = """
[columns]
participant_id = "Subject"
age = { column = "age_months", unit = "month" }
sex = "gender"
height = { column = "feet", unit = "in" }
[constants]
site = "here"
pathology = "HC"
region = "white matter"
level = "C3"
[words.sex]
w = "F"
m = "M"
[[value]]
column = "fa"
metric = "FA"
unit = "1"
se = "fa_error"
[[value]]
column = "t1"
metric = "T1"
unit = "ms"
"""


def test_wide_table_through_a_mapping(tmp_path):
    table = tmp_path / "wide.csv"
    wide().to_csv(table, index=False)
    added = norm_add(table, tmp_path / "norms", mapping=write(tmp_path / "m.toml", MAPPING))
    assert (added.accepted, added.cells, added.persons) == (24, 2, 12)
    rows, truth = norm_query(tmp_path / "norms", metric="FA"), cohort(12)
    np.testing.assert_allclose(rows["value"], truth["value"])
    np.testing.assert_allclose(rows["se"], truth["se"])
    np.testing.assert_allclose(rows["age"], truth["age"])
    np.testing.assert_allclose(rows["height"], truth["height"])
    assert rows["sex"].tolist() == truth["sex"].tolist()
    rows = norm_query(tmp_path / "norms", metric="T1")
    np.testing.assert_allclose(rows["value"], 0.9 + truth["value"] - 0.69)
    assert rows["se"].isna().all()


@pytest.mark.parametrize(
    ("old", "new", "error", "text"),
    [
        ('column = "fa"', 'column = "fractional"', MissingMetadata, "no column 'fractional'"),
        ("[columns]", "[colums]", UnreadableFile, "'colums' in m.toml"),
        ("[columns]", "[columns", UnreadableFile, "cannot be read as TOML"),
        ("sex =", "gender =", MissingMetadata, "maps 'gender', which observations do not have"),
        ('unit = "ms"', 'unit = "s"', ImplausibleValue, "these look like 'ms'"),
        ('unit = "ms"', 'unit = "mm2"', UnitMismatch, "T1 comes in 'mm2'"),
        ('unit = "month"', 'unit = "moon"', UnitMismatch, "age comes in 'moon'"),
        ('site = "here"', "", MissingMetadata, "No site is stated"),
    ],
)
def test_mappings_that_are_wrong(old, new, error, text, tmp_path):
    table = tmp_path / "wide.csv"
    wide().to_csv(table, index=False)
    mapping = write(tmp_path / "m.toml", MAPPING.replace(old, new, 1))
    with pytest.raises(error, match=re.escape(text)):
        norm_add(table, tmp_path / "norms", mapping=mapping)
    assert not (tmp_path / "norms").exists()


def test_wide_table_without_a_mapping_says_what_it_needs(tmp_path):
    table = tmp_path / "wide.csv"
    wide().to_csv(table, index=False)
    with pytest.raises(MissingMetadata, match="say in a mapping which column is what"):
        norm_add(table, tmp_path / "norms", site="here")


def test_participants_are_joined_by_person_and_session(tmp_path):
    frame = pd.concat([cohort(8, session_id="1"), cohort(8, session_id="2", seed=2)], ignore_index=True)
    people = frame[["participant_id", "session_id", "age", "sex", "pathology"]].copy()
    people[["sex", "age"]] = people[["sex", "age"]].iloc[np.tile(np.arange(8), 2)].to_numpy()
    people.loc[8:, "age"] = people.loc[8:, "age"] + 6
    people["participant_id"] = "sub-" + people["participant_id"]
    people["session_id"] = "ses-" + people["session_id"]
    people.to_csv(tmp_path / "participants.tsv", sep="\t", index=False)
    frame.drop(columns=["age", "sex", "pathology"]).to_csv(tmp_path / "t.csv", index=False)
    added = norm_add(tmp_path / "t.csv", tmp_path / "norms", participants=tmp_path / "participants.tsv")
    assert added.accepted == 16
    rows = norm_query(tmp_path / "norms").pivot_table(index="participant_id", columns="session_id", values="age")
    np.testing.assert_allclose(rows["2"] - rows["1"], 6)
    people.loc[0, "age"] += 1
    pd.concat([people, people.iloc[[0]].assign(age=99)]).to_csv(tmp_path / "twice.tsv", sep="\t", index=False)
    with pytest.raises(UnreadableFile, match="twice, not alike"):
        norm_add(tmp_path / "t.csv", tmp_path / "norms", participants=tmp_path / "twice.tsv")
    people.iloc[[0]].assign(participant_id="x").to_csv(tmp_path / "others.tsv", sep="\t", index=False)
    with pytest.raises(UnreadableFile, match="No person of the table"):
        norm_add(tmp_path / "t.csv", tmp_path / "norms", participants=tmp_path / "others.tsv")


TOOLBOX = "Timestamp,SCT Version,Filename,Slice (I->S),VertLevel,Label,Size [vox],WA(),STD()\n"
PEOPLE = "participant_id\tage\tsex\tpathology\nsub-01\t30\tF\tHC\nsub-02\t41\tM\tHC\n"


def test_tables_of_the_toolbox(tmp_path):
    rows = ["2021,5.3,/d/sub-01/dwi/fa.nii.gz,0:12,2:5,white matter,904,0.63,0.14"]
    rows += ["2021,5.3,/d/sub-02/dwi/fa.nii.gz,0:12,2:5,white matter,904,0.66,0.14"]
    table = write(tmp_path / "DWI_FA.csv", TOOLBOX + "\n".join(rows) + "\n")
    people = write(tmp_path / "participants.tsv", PEOPLE)
    assert norm_add(table, tmp_path / "norms", participants=people, site="here").accepted == 2
    found = norm_query(tmp_path / "norms")
    assert found["value"].tolist() == [0.63, 0.66]
    assert found["se"].isna().all()
    assert found[["metric", "region", "level", "software"]].iloc[0].tolist() == [
        "FA",
        "white matter",
        "C2:C5",
        "SCT 5.3 wa",
    ]
    with pytest.raises(MissingMetadata, match="does not say its metric"):
        norm_add(write(tmp_path / "table.csv", table.read_text()), tmp_path / "norms", participants=people, site="here")


def test_shape_tables_of_the_toolbox(tmp_path):
    text = "VertLevel,scan,MEAN(area),MEAN(diameter_AP)\n2,sub-01_ses-3_T2w,71.5,7.8\n3,sub-02_ses-3_T2w,74.5,7.7\n"
    people = write(tmp_path / "participants.tsv", PEOPLE)
    added = norm_add(write(tmp_path / "shape.csv", text), tmp_path / "norms", participants=people, site="here")
    assert added.accepted == 4
    found = norm_query(tmp_path / "norms", metric="area T2w")
    assert found["value"].tolist() == [71.5, 74.5]
    assert found["level"].tolist() == ["C2", "C3"]
    assert set(found["session_id"]) == {"3"}
    assert set(found["region"]) == {"spinal cord"}


def test_levels_that_are_cut_off(tmp_path):
    text = "VertLevel,scan,MEAN(area),n_slices\n2,sub-01_T1w,71.5,30\n2,sub-02_T1w,74.5,28\n3,sub-01_T1w,72,28\n"
    table = write(tmp_path / "shape.csv", text + "3,sub-02_T1w,99,4\n")
    people = write(tmp_path / "participants.tsv", PEOPLE)
    added = norm_add(table, tmp_path / "norms", participants=people, site="here")
    assert added.accepted == 3
    assert dict(added.quarantined) == {"quality: level partly in the image": 1}


@pytest.fixture
def outputs(tmp_path):
    """Output folder of a run as far as the database reads it, and the raw data set beside it."""
    raw, out = tmp_path / "raw", tmp_path / "qcord"
    (raw / "sub-01" / "dwi").mkdir(parents=True)
    (out / "sub-01" / "anat").mkdir(parents=True)
    write(raw / "participants.tsv", PEOPLE)
    scan = {"Manufacturer": "SIEMENS", "ManufacturersModelName": "Prisma", "EchoTime": 0.06, "FlipAngle": 90}
    write(raw / "sub-01" / "dwi" / "sub-01_dwi.json", json.dumps(scan))
    write(raw / "sub-01" / "dwi" / "sub-01_dwi.bval", "0 800 800")
    write(raw / "sub-01" / "dwi" / "sub-01_dwi.nii.gz", "")
    made = {"GeneratedBy": [{"Name": "qcord", "Version": "0.1.0"}], "DatasetLinks": {"raw": str(raw)}}
    write(out / "dataset_description.json", json.dumps(made))
    mask = {"Sources": ["bids:raw:sub-01/dwi/sub-01_dwi.nii.gz"]}
    write(out / "sub-01" / "anat" / "sub-01_space-orig_label-SC_desc-dwi_mask.json", json.dumps(mask))
    head = "participant_id session_id metric unit region level slice estimator value se ci_low ci_high n_eff n_vox"
    rows = [
        ("01", "n/a", "FA", "1", "white matter", "C3", "n/a", "wa", "0.61", "0.01", 0, 1, 9, 9, "ok", "dwi"),
        ("01", "n/a", "FA", "1", "white matter", "C3", "n/a", "map", "0.62", "0.02", 0, 1, 9, 9, "ok", "dwi"),
        ("01", "n/a", "FA", "1", "white matter", "C4", "n/a", "map", "0.64", "n/a", 0, 1, 9, 9, "ok", "dwi"),
        ("01", "n/a", "FA", "1", "gray matter", "C4", "n/a", "map", "0.5", "0.1", 0, 1, 1, 1, "few_voxels", "dwi"),
        ("01", "n/a", "FA", "1", "white matter", "C4", "3", "map", "0.65", "0.02", 0, 1, 9, 9, "ok", "dwi"),
        ("01", "n/a", "FA", "1", "white matter", "n/a", "n/a", "map", "0.63", "0.02", 0, 1, 9, 9, "ok", "dwi"),
        ("01", "n/a", "FA", "1", "CSF contour", "C3", "n/a", "map", "0.1", "0.02", 0, 1, 9, 9, "ok", "dwi"),
    ]
    lines = [[*head.split(), "flag", "source"], *rows]
    text = "\n".join("\t".join(map(str, r)) for r in lines) + "\n"
    write(out / "sub-01" / "sub-01_desc-atlas_metrics.tsv", text)
    shape = ["participant_id", "session_id", "source", "metric", "unit", "level", "slice", "value", "se"]
    lines = [[*shape, "n_slices", "flag"], ("01", "n/a", "dwi", "area", "mm2", "C3", "n/a", "71", "0.5", 3, "ok")]
    text = "\n".join("\t".join(map(str, r)) for r in lines) + "\n"
    write(out / "sub-01" / "sub-01_desc-morphometry_metrics.tsv", text)
    return out


def test_output_folder_of_a_run(outputs, tmp_path):
    added = norm_add(outputs, tmp_path / "norms", site="here")
    assert added.accepted == 3
    assert dict(added.quarantined) == {"quality: few_voxels": 1}
    found = norm_query(tmp_path / "norms")
    assert found["metric"].tolist() == ["FA", "FA", "area dwi"]
    assert found["level"].tolist() == ["C3", "C4", "C3"]
    assert found["value"].tolist() == [0.62, 0.64, 71]
    assert found["software"].tolist() == ["qcord 0.1.0 map", "qcord 0.1.0 map", "qcord 0.1.0"]
    assert set(found["manufacturer"]) == {"Siemens"}
    assert set(found["scanner"]) == {"Prisma"}
    assert found["protocol"].str.startswith("Siemens Prisma, TE 0.06, FA 90, b 0/800 #").all()
    assert found["age"].tolist() == [30] * 3
    assert norm_add(outputs, tmp_path / "norms", site="here").stored == 3


def test_output_folder_whose_raw_data_is_gone(outputs, tmp_path):
    (tmp_path / "raw").rename(tmp_path / "elsewhere")
    people = tmp_path / "elsewhere" / "participants.tsv"
    added = norm_add(outputs, tmp_path / "norms", site="here", participants=people)
    assert added.accepted == 3
    assert any("the protocol of 1 series: it is left empty" in n for n in added.notes)
    assert norm_query(tmp_path / "norms")["protocol"].isna().all()


def test_without_raw_data_the_tables_of_a_run_tell_the_protocol(outputs, tmp_path):
    (tmp_path / "raw").rename(tmp_path / "elsewhere")
    stated = {
        "manufacturer": "Siemens",
        "scanner": "Prisma",
        "site": "",
        "protocol": "Siemens Prisma, b 0/800 #12345678",
    }
    facts = outputs / "sub-01" / "sub-01_desc-atlas_metrics.json"
    write(facts, json.dumps({"Scanners": {"dwi": stated}}))
    people = tmp_path / "elsewhere" / "participants.tsv"
    added = norm_add(outputs, tmp_path / "norms", site="here", participants=people)
    assert not any("protocol" in n for n in added.notes)
    found = norm_query(tmp_path / "norms")
    assert set(found["protocol"]) == {stated["protocol"]}
    assert set(found["manufacturer"]) == {"Siemens"}
    assert set(found["scanner"]) == {"Prisma"}


@pytest.mark.real
def test_spine_generic_through_the_mapping_of_the_page(data_dir, tmp_path):
    """Means and deviations are those that the study's own table gives; failed fits of T1 are kept out."""
    table = data_dir / "tables" / "spine_generic_qmri.csv"
    mapping = write(tmp_path / "spine.toml", mapping_of_page()[0])
    added = norm_add(table, tmp_path / "norms", mapping=mapping)
    own = pd.read_csv(table)
    healthy = own[own["pathology"] == "HC"]
    assert added.persons == len(healthy)
    assert added.reference > 0
    assert any("impossible in cord tissue: T1" in r for r in added.quarantined)
    for column, metric, region in (
        ("DWI_FA", "FA", "white matter"),
        ("DWI_FA_LCST", "FA", "lateral corticospinal tract"),
        ("DWI_MD", "MD", "white matter"),
        ("csa-SC_T2w", "area T2w", "spinal cord"),
    ):
        rows = norm_query(tmp_path / "norms", metric=metric, region=region)
        assert len(rows) == healthy[column].notna().sum()
        assert rows["value"].mean() == pytest.approx(healthy[column].mean(), rel=1e-12)
        assert rows["value"].std() == pytest.approx(healthy[column].std(), rel=1e-9)
    times = norm_query(tmp_path / "norms", metric="T1")["value"]
    assert times.max() < 4
    assert len(times) < healthy["T1"].notna().sum()
    sizes = norm_query(tmp_path / "norms")["height"].dropna()
    assert sizes.between(1.4, 2.1).all()


@pytest.mark.real
def test_morphometry_of_five_studies(data_dir, tmp_path):
    """Healthy people by their own words (HC, CN), patients apart."""
    for name, site in (("AOMIC", "A"), ("DLBS", "D"), ("MASiVar", "M"), ("UCLA_LA5c", "U")):
        table = data_dir / "tables" / f"morphometry_{name}.csv.gz"
        people = data_dir / "tables" / f"participants_{name}.tsv"
        assert norm_add(table, tmp_path / "norms", participants=people, site=site).accepted > 2000
    rows = norm_query(tmp_path / "norms", metric="area T1w", level="C2")
    assert set(rows["site"]) == {"A", "D", "M", "U"}
    assert 60 < rows["value"].mean() < 75
    apart = norm_query(tmp_path / "norms", sql="SELECT DISTINCT pathology FROM reference")
    assert {"SCHZ", "ADHD", "bipolar"} <= set(apart["pathology"])


@pytest.mark.real
def test_retest_t1_a_thousandfold_too_small(data_dir, tmp_path):
    table = data_dir / "tables" / "retest_T1.csv"
    with pytest.raises(ImplausibleValue, match="look like 'ks'"):
        norm_add(table, tmp_path / "norms", site="montreal")
    mapping = write(tmp_path / "m.toml", '[constants]\nunit = "ks"\npathology = "HC"\nage = 30\nsex = "M"\n')
    added = norm_add(table, tmp_path / "norms", site="montreal", mapping=mapping)
    assert added.accepted > 5
    assert norm_query(tmp_path / "norms")["value"].between(0.8, 1.8).all()
