"""Tables beside the sidecars of their scans: values of protocols of another kind are quarantined with the reason."""

import json

import numpy as np
import pandas as pd
import pytest

from norm_cohort import cohort
from qcord.core.errors import UnknownName, UnreadableFile
from qcord.normative.adapt import adapt
from qcord.pipeline.norm_database import norm_add, norm_query
from qcord.pipeline.norm_models import norm_fit
from qcord.pipeline.norm_raw import raw_sidecars
from qcord.pipeline.norm_score import norm_score

TIMES = {"a": 0.035, "b": 0.037, "c": 0.035, "d": 0.105}


def table():
    parts = []
    for k, site in enumerate(TIMES):
        for metric, unit, mean in (("MTR", "percent", 47.0), ("FA", "1", 0.7)):
            part = cohort(8, metric, unit, mean, 0.03 * mean, seed=10 * k + len(metric), site=site)
            people = [f"{site}{n}" for n in range(8)]
            parts.append(part.assign(participant_id=people, age=np.arange(30, 38), sex=list("FM" * 4)))
    return pd.concat(parts, ignore_index=True)


def raw(folder, times=TIMES):
    for site, time in times.items():
        for n in range(8):
            home = folder / f"sub-{site}{n}" / "anat"
            home.mkdir(parents=True)
            for name, angle, tr in (("flip-1_mt-on", 9, time), ("flip-2_mt-off", 15, 0.015)):
                content = {"Manufacturer": "SIEMENS", "FlipAngle": angle, "RepetitionTime": tr, "EchoTime": 0.003}
                (home / f"sub-{site}{n}_{name}_MTS.json").write_text(json.dumps(content))
    return folder


def test_sidecars_give_protocols_and_odd_ones_are_quarantined(tmp_path):
    added = norm_add(table(), tmp_path / "norms", sidecars=raw(tmp_path / "raw"))
    assert added.quarantined == {"protocol of another kind: TR 0.1, that of Siemens is usually 0.015 and 0.035": 8}
    rows = norm_query(tmp_path / "norms")
    assert set(rows[rows["metric"] == "MTR"]["site"]) == {"a", "b", "c"}
    assert rows[rows["metric"] == "MTR"]["protocol"].str.contains("TR 0.015/0.03").all()
    assert set(rows[rows["metric"] == "FA"]["site"]) == set(TIMES)
    assert rows[rows["metric"] == "FA"]["protocol"].isna().all()


def test_stored_sites_tell_what_is_usual(tmp_path):
    folder, scans = tmp_path / "norms", raw(tmp_path / "raw")
    whole = table()
    for site in "abc":
        assert not norm_add(whole[whole["site"] == site], folder, sidecars=scans).quarantined
    assert sum(norm_add(whole[whole["site"] == "d"], folder, sidecars=scans).quarantined.values()) == 8


def test_one_that_came_first_is_set_apart_by_fit_score_and_adapt(tmp_path):
    folder, scans = tmp_path / "norms", raw(tmp_path / "raw")
    whole = table()
    for site in "dabc":
        assert not norm_add(whole[whole["site"] == site], folder, sidecars=scans).quarantined
    with pytest.warns(UserWarning, match=r"MTR of d: protocol of another kind: TR 0\.1,"):
        norms = norm_fit(folder)
    mtr, fa = norms["MTR", "white matter", "C3"], norms["FA", "white matter", "C3"]
    assert (set(mtr.hierarchy.sites.name), set(fa.hierarchy.sites.name)) == ({"a", "b", "c"}, set(TIMES))
    rows = norm_query(folder, metric="MTR")
    scored = norm_score(rows, norms)
    assert set(scored["site"][scored["z"].isna()]) == {"d"}
    assert scored["note"][scored["site"] == "d"].str.startswith("protocol of another kind").all()
    with pytest.warns(UserWarning, match="Controls of d set apart"):
        adapted = adapt(norms, norm_query(folder, site="d"), site="d")
    assert "d" not in adapted["MTR", "white matter", "C3"].hierarchy.sites.name


def test_without_sidecars_nothing_is_judged(tmp_path):
    assert not norm_add(table(), tmp_path / "norms").quarantined


def test_sessions_and_inherited_sidecars(tmp_path):
    home = tmp_path / "raw" / "sub-a0" / "ses-1" / "dwi"
    home.mkdir(parents=True)
    (tmp_path / "raw" / "dwi.json").write_text(json.dumps({"Manufacturer": "GE", "EchoTime": 0.06}))
    (home / "sub-a0_ses-1_dwi.json").write_text(json.dumps({"EchoTime": 0.07}))
    (home / "sub-a0_ses-1_dwi.bval").write_text("0 800 805")
    rows = pd.DataFrame({"participant_id": ["sub-a0"] * 2, "session_id": ["ses-1", None], "metric": ["fa", "FA"]})
    images, found = raw_sidecars(rows, tmp_path / "raw")
    assert images.isna().tolist() == [False, True]
    assert found[images[0]] == [{"Manufacturer": "GE", "EchoTime": 0.07, "BValue": ["0", "800", "805"]}]


def test_wrong_folders_are_refused_with_nothing_written(tmp_path):
    with pytest.raises(UnreadableFile, match="no folder"):
        norm_add(table(), tmp_path / "norms", sidecars=tmp_path / "absent")
    (tmp_path / "other" / "sub-x").mkdir(parents=True)
    with pytest.raises(UnknownName, match="such as sub-a0"):
        norm_add(table(), tmp_path / "norms", sidecars=tmp_path / "other")
    assert not (tmp_path / "norms").exists()
