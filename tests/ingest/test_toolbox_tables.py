"""Tables of the toolbox as other sites write them: what tells subject, metric, tissue and contrast."""

import pandas as pd
import pytest

from qcord.core.errors import MissingMetadata, UnreadableFile
from qcord.ingest.norm_mapping import TableMapping
from qcord.ingest.norm_tables import read_observations, read_table, with_usual_names
from qcord.ingest.toolbox_tables import OF_SLICES

METRIC = "Timestamp,SCT Version,Filename,Slice (I->S),VertLevel,Label,Size [vox],{}(),STD()\n"
SHAPE = "SCT Version,Filename,Slice (I->S),VertLevel,DistancePMJ,MEAN(area),STD(area)\n"


def metric_table(folder, name, files, *, estimator="MAP", slices="0:12"):
    rows = [f"now,6.1,{f},{slices},2:5,white matter,904,0.6{k},0.14\n" for k, f in enumerate(files)]
    path = folder / name
    path.write_text(METRIC.format(estimator) + "".join(rows), encoding="utf-8")
    return path


def shape_table(folder, name, files):
    path = folder / name
    path.write_text(SHAPE + "".join(f"6.1,{f},0:12,2:3,,7{k}.5,1\n" for k, f in enumerate(files)), encoding="utf-8")
    return path


def read(path, mapping=None):
    return read_observations(path, mapping)


@pytest.mark.parametrize(
    ("file", "subject", "session"),
    [
        ("/data/sub-01/ses-002/dwi/sub-01_ses-002_FA.nii.gz", "01", "002"),
        ("C:\\data\\sub-zürich01\\sub-zürich01_dwi_FA.nii.gz", "zürich01", None),
        ("/data/sub-study/sub-abc-02_FA.nii.gz", "abc-02", None),
        ("sub-01/ses-001", "01", "001"),
    ],
)
def test_the_subject_is_the_whole_label_of_the_file(tmp_path, file, subject, session):
    frame = read(metric_table(tmp_path, "DWI_FA.csv", [file])).frame
    assert frame["participant_id"].tolist() == [subject]
    assert frame["session_id"].isna().iloc[0] if session is None else frame["session_id"].iloc[0] == session


def test_files_without_a_subject_are_named(tmp_path):
    with pytest.raises(MissingMetadata, match="person00_FA.*participant_id"):
        read(metric_table(tmp_path, "FA.csv", ["/d/person00_FA.nii.gz"]))
    table = metric_table(tmp_path, "FA.csv", ["/d/person00_FA.nii.gz"])
    pd.read_csv(table).assign(participant_id="p7", age=30).to_csv(table, index=False)
    assert read(table).frame[["participant_id", "age"]].to_numpy().tolist() == [["p7", "30"]]


@pytest.mark.parametrize("estimator", ["MAP", "WA", "BIN", "MEDIAN"])
def test_all_estimators_of_the_toolbox_are_read(tmp_path, estimator):
    frame = read(metric_table(tmp_path, "FA.csv", ["sub-01_FA.nii.gz"], estimator=estimator)).frame
    assert frame["software"].tolist() == [f"SCT 6.1 {estimator.lower()}"]
    assert frame["value"].tolist() == ["0.60"]


def test_a_metric_that_is_stated_in_two_ways_is_refused(tmp_path):
    with pytest.raises(MissingMetadata, match="FA and MTR"):
        read(metric_table(tmp_path, "FA_MTR.csv", ["sub-01/dwi.nii.gz"]))
    with pytest.raises(MissingMetadata, match="FA by its name, but MD"):
        read(metric_table(tmp_path, "DWI_FA.csv", ["sub-01_FA.nii.gz", "sub-02_MD.nii.gz"]))
    stated = TableMapping(constants={"metric": "MD"})
    frame = read(metric_table(tmp_path, "FA_MTR.csv", ["sub-01/dwi.nii.gz"]), stated).frame
    assert frame["metric"].tolist() == ["MD"]


@pytest.mark.parametrize(
    ("table", "file", "region", "metric"),
    [
        ("csa.csv", "/d/sub-01_T2star_gmseg.nii.gz", "gray matter", "area T2star"),
        ("csa_gm.csv", "sub-01/ses-001", "gray matter", "area"),
        ("csa-GM_T2s.csv", "sub-01/ses-001", "gray matter", "area T2star"),
        ("csa.csv", "/d/sub-01_T2star_label-WM_seg.nii.gz", "white matter", "area T2star"),
        ("csa-SC_T2w.csv", "sub-01/ses-001", "spinal cord", "area T2w"),
        ("csa.csv", "/T1w_project/sub-01_T2w_seg.nii.gz", "spinal cord", "area T2w"),
        ("csa.csv", "/T1w_project/sub-01/seg.nii.gz", "spinal cord", "area T1w"),
    ],
)
def test_tissue_and_contrast_are_those_of_the_image(tmp_path, table, file, region, metric):
    frame = read(shape_table(tmp_path, table, [file])).frame
    assert frame[["region", "metric", "quality"]].to_numpy().tolist() == [[region, metric, "ok"]]


def test_an_image_of_two_contrasts_has_none(tmp_path):
    frame = read(shape_table(tmp_path, "csa.csv", ["sub-01_T1w_space-T2w_seg.nii.gz"])).frame
    assert frame["quality"].tolist() == ["contrast is not clear, T1w or T2w"]


def test_rows_of_single_slices_are_said(tmp_path):
    table = metric_table(tmp_path, "FA.csv", ["sub-01_FA.nii.gz"])
    assert OF_SLICES not in read(table).notes
    table.write_text(table.read_text() + "now,6.1,sub-01_FA.nii.gz,13,2:5,white matter,9,0.7,0.1\n")
    assert OF_SLICES in read(table).notes


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "text",
    [
        "participant_id,site,value\np1,A,70,12\np2,A,71,50\n",  # decimal commas between commas
        "participant_id,site,value\np1,A,70\np2,A,71,50\n",
        "# exported today\nparticipant_id,site,value\np1,A,70\n",
        "sep=;\nparticipant_id;site;value\np1;A;70\n",
    ],
)
def test_rows_longer_than_the_header_are_refused_also_where_warnings_are_none(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(UnreadableFile, match="as many cells in each row"):
        read_table(path)


def test_blanks_around_cells_and_at_line_ends_do_not_matter(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('participant_id , age, sex,value,\np1 , 30, n/a ,"0.5",\np2, None ,F, 0.6,\n')
    table = read_table(path)
    assert table.columns[:4].tolist() == ["participant_id", "age", "sex", "value"]
    assert table["sex"].isna().tolist() == [True, False]
    assert table["age"].isna().tolist() == [False, True]
    assert table["value"].astype(float).tolist() == [0.5, 0.6]


def people(folder, columns, rows, units=None):
    path = folder / "participants.tsv"
    path.write_text("\n".join("\t".join(r) for r in [columns, *rows]) + "\n")
    if units:
        (folder / "participants.json").write_text(units)
    return path


def test_units_of_the_participants_are_those_of_the_json_beside_them(tmp_path):
    table = metric_table(tmp_path, "FA.csv", ["sub-01_FA.nii.gz", "sub-02_FA.nii.gz"])
    who = people(
        tmp_path,
        ["participant_id", "age", "gender"],
        [["sub-01", "60", "F"]],
        '{"age": {"Units": "months"}, "weight": {"Units": "pounds"}}',
    )
    raw = read_observations(table, None, None, who)
    assert dict(raw.units) == {"age": "month"}
    assert raw.frame["sex"].iloc[0] == "F"
    assert any("1 people of the table are not in participants.tsv: 02" in n for n in raw.notes)
    pd.read_csv(table).assign(age=30).to_csv(table, index=False)
    with pytest.raises(MissingMetadata, match=r"age is stated in the table \(in year\).*in month"):
        read_observations(table, None, None, who)


def test_people_with_sessions_are_joined_to_a_table_without(tmp_path):
    table = metric_table(tmp_path, "FA.csv", ["sub-01_FA.nii.gz"])
    who = people(tmp_path, ["participant_id", "session_id", "age"], [["sub-01", "ses-1", "30"]])
    assert read_observations(table, None, None, who).frame["age"].tolist() == ["30"]
    people(tmp_path, ["participant_id", "session_id", "age"], [["sub-01", "ses-1", "30"], ["sub-01", "ses-2", "34"]])
    with pytest.raises(UnreadableFile, match="state the session"):
        read_observations(table, None, None, who)


def test_decimal_commas_are_read_where_the_mapping_says_so(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("participant_id;metric;level;value;age\np1;FA;2,3;0,63;30,5\n")
    frame = read_observations(path, TableMapping(decimal=",")).frame
    assert frame[["level", "value", "age"]].to_numpy().tolist() == [["2,3", "0.63", "30.5"]]


def test_a_column_of_the_very_name_goes_before_one_alike(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("participant_id,Level,level,metric,value\np1,x,C3,FA,0.6\n")
    assert read_observations(path, None).frame["level"].tolist() == ["C3"]
    assert with_usual_names(read_table(path))["level"].tolist() == ["C3"]
