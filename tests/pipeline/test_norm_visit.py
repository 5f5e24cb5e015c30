"""Norms in a run, with a visit that needs no images."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from healthy_people import people
from qcord.core.errors import ImplausibleValue, UnknownName, UnreadableFile
from qcord.ingest.bids import Visit
from qcord.ingest.people import Person
from qcord.normative.fit import fit_norms
from qcord.normative.norm import Norms, with_card
from qcord.normative.score import score
from qcord.normative.shipped import shipped_norms
from qcord.pipeline import norm_score as norm_score_module
from qcord.pipeline import run as run_module
from qcord.pipeline.norm_score import norm_score
from qcord.pipeline.norm_visit import _data, compare, earlier_scores
from qcord.pipeline.outputs import write_findings
from qcord.pipeline.run import run
from qcord.pipeline.visit import ATLAS_COLUMNS
from qcord.report.comparison import SCORE_COLUMNS
from qcord.report.findings import Findings
from qcord.report.page import SHAPE_COLUMNS, render_html
from straight_template import straight_template

TRACT = "lateral corticospinal tract"


@pytest.fixture(scope="module")
def norms():
    table = people(8, 8, makers=2)
    relative = table["value"] / 70
    fa = table.assign(metric="FA", unit="1", region=TRACT, level="C3:C4", value=0.7 * relative)
    ratio = table.assign(metric="MTR", unit="%", region="white matter", level="C3", value=48 * relative)
    return fit_norms(pd.concat([table, fa, ratio], ignore_index=True))


def findings(session=None, factor=1.0):
    rows = [
        ("FA", "1", f"WM {side} {TRACT}", level, 0.7 * factor, 0.01, "dwi")
        for side in ("left", "right")
        for level in ("C3", "C4")
    ]
    rows.append(("MTR", "percent", "white matter", "C3", 48 * factor, 0.3, "MTS"))
    rows.append(("OD", "1", "white matter", "C3", 0.2, 0.01, "dwi"))
    names = ["metric", "unit", "region", "level", "value", "se", "source"]
    metrics = pd.DataFrame(rows, columns=names).assign(
        participant_id="X", session_id=session or "", slice="", estimator="map", flag="ok", n_eff=10.0, n_vox=12
    )
    metrics = metrics.assign(se_noise=metrics["se"], ci_low=0.0, ci_high=1.0)[list(ATLAS_COLUMNS)]
    shape = pd.DataFrame({"metric": SHAPE_COLUMNS}).assign(
        participant_id="X", session_id=session or "", source="T2w", unit="mm2", level="C3", slice="", flag="ok"
    )
    shape = shape.assign(value=70.0 * factor, se=0.5, n_slices=20)
    quality = pd.DataFrame(columns=["participant_id", "session_id", "source", "metric", "unit", "value"])
    return Findings("X", session, {}, {}, metrics, shape, quality, (), "straight 1", {})


WOMAN = Person(50.0, "F", site="new")


def test_a_visit_gets_scores_where_metric_region_and_level_agree(norms):
    found = compare(findings(), WOMAN, norms, straight_template())
    rows = found.scores.set_index("metric")
    assert list(found.scores.columns) == list(SCORE_COLUMNS)
    assert set(rows.index) == {"FA", "MTR"}  # the series of the area is not known here
    assert rows.loc["FA", "region"] == TRACT
    assert rows.loc["FA", "level"] == "C3:C4"
    assert rows["z"].between(-3, 3).all()
    assert rows.loc["MTR", "note"] != "unit percent, the norm has %"
    assert "OD" in found.without
    alone = score(norms, found.scores.drop(columns=["z", "note"]))
    np.testing.assert_allclose(alone["z"], found.scores["z"])
    assert set(found.curves) == {("FA", TRACT, "C3:C4"), ("MTR", "white matter", "C3")}


@pytest.mark.parametrize(
    ("person", "words"), [(Person(None, "F"), "age of the"), (Person(50, None), "sex"), (Person(), "are not known")]
)
def test_without_age_or_sex_there_is_one_sentence_and_no_z(norms, tmp_path, person, words):
    found = compare(findings(), person, norms, straight_template())
    assert found.scores.empty
    assert len(found.notes) == 1
    assert words in found.notes[0]
    from dataclasses import replace

    done = replace(findings(), comparison=found)
    page = render_html(done, version="1", sources=())
    assert "Compared with healthy people" in page
    assert "normCharts" not in page
    write_findings(done, tmp_path)
    assert not list(tmp_path.rglob("*desc-norm*"))


def test_without_norms_the_page_has_no_section(tmp_path):
    page = render_html(findings(), version="1", sources=())
    assert 'id="norms"' not in page
    assert "No reference range is applied" in page
    write_findings(findings(), tmp_path)
    assert not list(tmp_path.rglob("*desc-norm*"))


@pytest.fixture
def dataset(tmp_path, norms, monkeypatch):
    """Data set of two sessions whose visits are processed to made-up values."""
    raw = tmp_path / "raw"
    for session in ("01", "02"):
        (raw / "sub-X" / f"ses-{session}" / "anat").mkdir(parents=True)
    (raw / "participants.tsv").write_text("participant_id\tage\tsex\nsub-X\t50\tF\n")
    (raw / "sub-X" / "sub-X_sessions.tsv").write_text("session_id\tage\nses-01\t50\nses-02\t53\n")
    (tmp_path / "norms.json").write_text(norms.to_json())

    def process(request, progress):
        return findings(request.visit.session, 1.0 if request.visit.session == "01" else 0.7)

    monkeypatch.setattr(run_module, "process", process)
    return tmp_path


def table(folder, session):
    return pd.read_csv(folder / "sub-X" / f"ses-{session}" / f"sub-X_ses-{session}_desc-norm_metrics.tsv", sep="\t")


def test_a_run_writes_scores_and_shows_earlier_visits(dataset):
    out = dataset / "out"
    outcomes = run(dataset / "raw", out, template="qcord", norms=dataset / "norms.json")
    assert [o.error for o in outcomes] == ["", ""]
    first, second = table(out, "01"), table(out, "02")
    assert list(first.columns) == list(SCORE_COLUMNS)
    assert set(first["age"]) == {50}
    assert set(second["age"]) == {53}
    assert (second["z"] < -2).any()
    pages = [(out / "sub-X" / f"ses-{s}" / f"sub-X_ses-{s}.html").read_text() for s in ("01", "02")]
    points = [json.loads(re.search(r"const normCharts = (.*);\n", p).group(1))[0]["points"] for p in pages]
    assert [[p["label"] for p in chart] for chart in points] == [["ses-01"], ["ses-01", "ses-02"]]
    assert "No reference range is applied" not in pages[0]
    meaning = json.loads((out / "sub-X" / "ses-01" / "sub-X_ses-01_desc-norm_metrics.json").read_text())
    assert meaning["z"]["Description"]
    assert meaning["Norms"]
    again = run(dataset / "raw", out, template="qcord", norms=dataset / "norms.json", session_label=["01"])
    assert again[0].error == ""
    page = (out / "sub-X" / "ses-01" / "sub-X_ses-01.html").read_text()
    chart = json.loads(re.search(r"const normCharts = (.*);\n", page).group(1))[0]
    assert [p["label"] for p in chart["points"]] == ["ses-01"]  # a later visit is not an earlier one


def test_norms_that_are_none_stop_a_run_before_it_writes(dataset):
    (dataset / "bad.json").write_text("{}")
    with pytest.raises(ImplausibleValue, match="no norms"):
        run(dataset / "raw", dataset / "out", template="qcord", norms=dataset / "bad.json")
    with pytest.raises(UnreadableFile, match=r"absent\.json"):
        run(dataset / "raw", dataset / "out", template="qcord", norms=dataset / "absent.json")
    assert not list((dataset / "out").glob("sub-*"))


def test_a_folder_of_outputs_scores_as_the_run_did(dataset, norms):
    out = dataset / "out"
    run(dataset / "raw", out, template="qcord", norms=dataset / "norms.json")
    scored = norm_score(out, norms)
    for session in ("01", "02"):
        own = scored[scored["session_id"] == session]
        np.testing.assert_allclose(own["z"], table(out, session)["z"], rtol=1e-5)
    known = norms[("MTR", "white matter", "C3")].hierarchy.sites.name[0]
    assert set(norm_score(out, norms, site=known)["basis"]) == {"site"}
    with pytest.raises(UnknownName, match="qcord run"):
        norm_score(dataset / "raw", norms)


def test_earlier_means_younger_or_an_earlier_label(dataset):
    out = dataset / "out"
    run(dataset / "raw", out, template="qcord", norms=dataset / "norms.json")
    assert set(earlier_scores(out, Visit("X", "02", out), 53.0)["session_id"]) == {"01"}
    assert earlier_scores(out, Visit("X", "01", out), 50.0).empty
    assert set(earlier_scores(out, Visit("X", "00", out), 60.0)["session_id"]) == {"01", "02"}
    assert earlier_scores(out, Visit("X", None, out), 60.0).empty
    assert earlier_scores(out, Visit("X", "02", out), None).empty


def test_a_table_scores_row_by_row_with_a_note_where_it_cannot(norms, tmp_path):
    rows = people(3, 4, makers=1, seed=5).assign(manufacturer="m0", site="elsewhere")
    rows = pd.concat([rows, rows.assign(metric="nothing")], ignore_index=True)
    rows.loc[0, "value"] = np.nan
    rows.loc[1, "age"] = np.nan
    rows.loc[2, "sex"] = "O"
    rows.loc[3, "unit"] = "cm2"
    rows.loc[4, "se"] = np.nan
    path = tmp_path / "table.csv"
    rows.to_csv(path, index=False)
    scored = norm_score(path, norms, tmp_path / "scores.tsv")
    assert scored["note"].tolist()[:5] == ["no value", "no age", "no sex", "unit cm2, the norm has mm2", ""]
    assert set(scored["note"][12:]) == {"no norm"}
    assert scored["z"].isna().sum() == 4 + 12
    np.testing.assert_allclose(scored["z"][4:12], score(norms, rows[4:12].assign(se=rows["se"].fillna(0)))["z"])
    written = pd.read_csv(tmp_path / "scores.tsv", sep="\t")
    np.testing.assert_allclose(written["z"], scored["z"], rtol=1e-6)


def test_other_healthy_people_of_the_same_sites_have_a_standard_normal_z():
    everyone = people(8, 120, makers=2, seed=7)
    own = norm_score(everyone[1::2], fit_norms(everyone[::2]))
    assert set(own["basis"]) == {"site"}
    assert abs(own["z"].mean()) < 0.15  # 480 people: the mean scatters by .05, the spread by .03
    assert own["z"].std() == pytest.approx(1.0, abs=0.1)
    assert (own["z"].abs() > 1.96).mean() == pytest.approx(0.05, abs=0.03)


def test_a_site_with_another_scanner_is_not_the_one_that_the_norm_knows(norms):
    known = norms[("MTR", "white matter", "C3")].hierarchy.sites
    other = next(m for m in known.manufacturer if m != known.manufacturer[0])
    rows = people(1, 2, makers=1).assign(site=known.name[0], manufacturer=[known.manufacturer[0], other])
    assert norm_score(rows, norms)["basis"].tolist() == ["site", "manufacturer"]
    assert norm_score(rows, norms)["site"].tolist() == [known.name[0]] * 2


def test_badly_calibrated_norms_are_named(norms):
    norm = norms[("MTR", "white matter", "C3")]
    for spread, words in ((0.6, "too small"), (1.5, "too large"), (1.05, None)):
        told = _data([with_card(norm, calibration={"z SD": spread}, limits="young people.", source="here")])
        assert told[0].startswith(f"The norms rest on {norm.count} healthy people at 8 sites")
        assert told[-2:] == ("Limits of the norms: young people.", "Sources of the norms: here.")
        assert [words in t for t in told[1:-2]] == ([True] if words else [])


def test_norms_of_the_package_score_a_visit():
    found = compare(findings(), WOMAN, shipped_norms(), straight_template())
    assert found.scores.empty  # C2:C5 is not imaged
    assert any("no norm exists of the values and levels" in n for n in found.notes)
    whole = people(4, 4).assign(level="C3", manufacturer="Siemens", site="new", value=70.0)
    scored = norm_score(whole)
    assert set(scored["basis"]) <= {"manufacturer", "other"}
    assert scored["z"].abs().max() < 3


def test_bad_tables_get_a_sentence(norms, tmp_path):
    with pytest.raises(UnreadableFile, match=r"absent\.csv"):
        norm_score(tmp_path / "absent.csv", norms)
    from qcord.core.errors import MissingMetadata

    with pytest.raises(MissingMetadata, match="region"):
        norm_score(pd.DataFrame({"metric": ["FA"], "value": [1.0]}), norms)


def test_without_norms_of_the_package_a_file_is_asked_for(monkeypatch):
    monkeypatch.setattr(norm_score_module, "shipped_norms", lambda: Norms.of([]))
    with pytest.raises(UnknownName, match="no norms"):
        norm_score(pd.DataFrame({"metric": []}))
