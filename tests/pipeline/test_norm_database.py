"""The database on disk: add, replace, query; nothing lost, nothing half-written, nothing damaged."""

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import duckdb
import numpy as np
import pandas as pd
import pytest

from norm_cohort import cohort
from qcord import api
from qcord.cli.main import main
from qcord.core.errors import QcordError, UnknownName, UnreadableFile
from qcord.pipeline import norm_store


def norm_add(*arguments, **options):
    return api.norm_add(*arguments, **options)


def norm_query(*arguments, **options):
    return api.norm_query(*arguments, **options)


def content(folder):
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def call(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["norm", *map(str, words)])
    shown = capsys.readouterr()
    return ended.value.code, shown.out, [x for x in shown.err.splitlines() if x.strip()]


@pytest.fixture
def database(tmp_path):
    folder = tmp_path / "norms"
    norm_add(cohort(30), folder)
    return folder


def test_what_goes_in_comes_out(tmp_path):
    frame = pd.concat([cohort(30), cohort(20, metric="MTR", unit="percent", mean=47, sd=2, site="there", seed=4)])
    added = norm_add(frame, tmp_path / "new" / "norms")
    assert (added.accepted, added.persons, added.cells) == (50, 50, 2)
    back = norm_query(tmp_path / "new" / "norms")
    merged = back.merge(frame, on=["participant_id", "site", "metric"], suffixes=("", " put in"))
    assert len(merged) == 50
    for name in ("value", "se", "age", "height", "weight"):
        np.testing.assert_array_equal(merged[name], merged[f"{name} put in"])
    assert norm_query(tmp_path / "new" / "norms", metric="mtr")["site"].unique().tolist() == ["there"]
    assert len(norm_query(tmp_path / "new" / "norms", site=["here", "there"], region="white matter", level="C3")) == 50
    assert norm_query(tmp_path / "new" / "norms", metric="MTR", site="here").empty


def test_files_are_only_ever_added(database):
    before = content(database)
    again = norm_add(cohort(30), database)
    assert (again.accepted, again.stored) == (0, 30)
    assert len(norm_query(database)) == 30
    norm_add(cohort(12, site="there", seed=2), database)
    changed = {k for k, v in content(database).items() if before.get(k) not in (None, v)}
    assert changed == {"database.json"}
    assert len(norm_query(database)) == 42
    log = json.loads((database / "database.json").read_text())
    assert [a["counts"]["accepted"] for a in log["additions"]] == [30, 0, 12]
    assert log["schema"] == norm_store.SCHEMA
    assert all(len(a["digest"]) >= 16 for a in log["additions"])


def test_replacing_keeps_the_replaced_row(database):
    other = cohort(30)
    other.loc[4, "value"] = 0.777
    refused = norm_add(other, database)
    assert (refused.stored, sum(refused.quarantined.values()), refused.accepted) == (29, 1, 0)
    assert 0.777 not in norm_query(database)["value"].to_numpy()
    done = norm_add(other, database, supersede=True)
    assert (done.accepted, done.superseded, done.stored) == (1, 1, 29)
    rows = norm_query(database)
    assert len(rows) == 30
    assert rows.set_index("participant_id").loc["p004", "value"] == 0.777
    history = norm_query(database, sql="SELECT * FROM history WHERE participant_id = 'p004' ORDER BY row_id")
    assert len(history) == 2
    assert history["supersedes"].iloc[1] == history["row_id"].iloc[0]
    back = norm_add(cohort(30), database, supersede=True)
    assert back.superseded == 1
    assert len(norm_query(database)) == 30
    assert 0.777 not in norm_query(database)["value"].to_numpy()


def test_patients_are_kept_apart_and_found_when_asked(database):
    frame = cohort(10, site="there", seed=6)
    frame.loc[:3, "pathology"] = "DCM"
    added = norm_add(frame, database)
    assert (added.accepted, added.reference) == (6, 4)
    assert set(norm_query(database)["pathology"]) == {"HC"}
    assert len(norm_query(database, pathology="DCM")) == 4
    assert len(norm_query(database, pathology="any")) == 40
    assert len(norm_query(database, sql="SELECT * FROM reference")) == 4


def test_person_found_ill_leaves_the_norm(database):
    frame = cohort(30)
    frame.loc[7, "pathology"] = "MS"
    added = norm_add(frame, database, supersede=True)
    assert (added.reference, added.superseded, added.stored) == (1, 1, 29)
    assert "p007" not in set(norm_query(database)["participant_id"])
    assert len(norm_query(database)) == 29


def test_quarantine_holds_rows_with_reasons(database):
    frame = cohort(9, site="there", seed=8)
    frame.loc[2, "quality"] = "motion"
    frame.loc[5, "age"] = np.nan
    added = norm_add(frame, database)
    assert added.accepted == 7
    kept = norm_query(database, sql="SELECT participant_id, reason FROM quarantine ORDER BY 1")
    assert kept["participant_id"].tolist() == ["p002", "p005"]
    assert kept["reason"].tolist()[0] == "quality: motion"
    assert dict(added.quarantined) == kept["reason"].value_counts().to_dict()
    again = norm_add(frame, database)
    assert dict(again.quarantined) == dict(added.quarantined)
    assert len(norm_query(database, sql="SELECT * FROM quarantine")) == 2
    frame.loc[2, "quality"] = "ghosts"
    norm_add(frame, database)
    assert len(norm_query(database, sql="SELECT * FROM quarantine")) == 3


def test_additions_at_the_same_time_lose_nothing(tmp_path):
    """Processes of their own, as on a cluster."""
    files = []
    for i in range(4):
        files.append(tmp_path / f"{i}.csv")
        cohort(25, site=f"site {i}", seed=i).to_csv(files[-1], index=False)
    words = [[sys.executable, "-m", "qcord", "norm", "add", str(f), str(tmp_path / "norms")] for f in files]
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(lambda w: subprocess.run(w, capture_output=True, text=True, check=False), words))
    assert [e.returncode for e in ended] == [0] * 4, [e.stderr for e in ended]
    rows = norm_query(tmp_path / "norms")
    assert rows["site"].value_counts().to_dict() == {f"site {i}": 25 for i in range(4)}
    ids = norm_query(tmp_path / "norms", sql="SELECT row_id FROM observations")
    assert ids["row_id"].is_unique


def test_addition_that_was_cut_off_does_not_count(database, monkeypatch):
    def power_fails(*arguments):
        raise KeyboardInterrupt

    before = content(database)
    with monkeypatch.context() as patch:
        patch.setattr(norm_store, "write_json", power_fails)
        with pytest.raises(KeyboardInterrupt):
            norm_add(cohort(12, site="there", seed=2), database)
    assert {k: v for k, v in content(database).items() if k in before} == before
    assert len(norm_query(database)) == 30
    assert norm_add(cohort(12, site="there", seed=2), database).accepted == 12
    assert len(norm_query(database)) == 42


HOSTILE = {
    "missing column": lambda f: f.drop(columns=["value"]).to_csv(index=False).encode(),
    "empty": lambda f: b"",
    "header only": lambda f: f.iloc[:0].to_csv(index=False).encode(),
    "text in numbers": lambda f: f.assign(value=["much", *f["value"].iloc[1:]]).to_csv(index=False).encode(),
    "decimal comma": lambda f: f.to_csv(index=False, sep=";", decimal=",").encode(),
    "milliseconds": lambda f: f.assign(metric="T1", unit="s", value=f["value"] * 1000).to_csv(index=False).encode(),
    "wrong separators": lambda f: f.to_csv(index=False, sep=":").encode(),
    "ragged": lambda f: f.to_csv(index=False).encode() + b"a,b" + b",c" * 40 + b"\n",
    "not UTF-8": lambda f: f.assign(site="Zürich").to_csv(index=False).encode("latin-1"),
    "not text": lambda f: bytes(range(256)) * 20,
    "mixed units": lambda f: (
        f.assign(metric="T1", unit=["s", "ms"] * 6, value=f["value"] * ([1, 1000] * 6)).to_csv(index=False).encode()
    ),
    "constant metric": lambda f: f.assign(value=0.7).to_csv(index=False).encode(),
    "no ages": lambda f: f.drop(columns="age").to_csv(index=False).encode(),
    "no diagnosis": lambda f: f.drop(columns="pathology").to_csv(index=False).encode(),
    "one person twice": lambda f: (
        f.assign(participant_id="p", age=range(20, 32), level=[f"T{i}" for i in range(1, 13)])
        .to_csv(index=False)
        .encode()
    ),
    "unknown unit": lambda f: f.assign(unit="furlong").to_csv(index=False).encode(),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_tables_are_one_sentence_and_change_nothing(kind, database, tmp_path, capsys):
    table = tmp_path / "table.csv"
    table.write_bytes(HOSTILE[kind](cohort(12, site="there")))
    before = content(database)
    code, out, lines = call(capsys, "add", table, database)
    assert code == 1, out
    assert len(lines) == 1, lines
    assert lines[0].startswith("qcord: ")
    assert lines[0].rstrip().endswith((".", ")"))
    assert content(database) == before
    code, _, lines = call(capsys, "add", table, tmp_path / "new")
    assert code == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["csv", "tsv", "semicolon", "gz", "parquet", "latin-1"])
def test_tables_of_every_kind(kind, tmp_path):
    frame = cohort(12, site="Zürich")
    path = tmp_path / {"semicolon": "t.csv", "gz": "t.csv.gz", "latin-1": "t.csv"}.get(kind, f"t.{kind}")
    options = {}
    if kind == "parquet":
        duckdb.from_df(frame).write_parquet(str(path))
    elif kind == "latin-1":
        frame.to_csv(path, index=False, encoding="latin-1")
        options["mapping"] = tmp_path / "m.toml"
        options["mapping"].write_text('encoding = "latin-1"')
    else:
        frame.to_csv(path, index=False, sep={"tsv": "\t", "semicolon": ";"}.get(kind, ","))
    assert norm_add(path, tmp_path / "norms", **options).accepted == 12
    np.testing.assert_allclose(np.sort(norm_query(tmp_path / "norms")["value"]), np.sort(frame["value"]), rtol=1e-15)
    assert set(norm_query(tmp_path / "norms")["site"]) == {"Zürich"}


def test_other_folders_are_left_alone(database, tmp_path, capsys):
    table = tmp_path / "t.csv"
    cohort(12, site="there").to_csv(table, index=False)
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").write_bytes(b"miaow")
    before = content(other)
    for words in (("add", table, other), ("query", other)):
        code, _, lines = call(capsys, *words)
        assert code == 1
        assert len(lines) == 1
        assert "is no database" in lines[0]
    assert content(other) == before
    assert "does not exist" in call(capsys, "query", tmp_path / "nowhere")[2][0]
    assert "is a file" in call(capsys, "add", table, table)[2][0]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert norm_add(table, empty).accepted == 12


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda t: t.replace('"schema": 1', '"schema": 2'), "database of version 2"),
        (lambda t: t[: len(t) // 2], "is damaged"),
        (lambda t: "[]", "is damaged"),
        (lambda t: t.replace("part-000001", "part-000009"), "lacks observations/part-000009.parquet"),
    ],
)
def test_database_of_another_version_or_damaged(spoil, text, database, tmp_path, capsys):
    file = database / "database.json"
    file.write_text(spoil(file.read_text()))
    table = tmp_path / "t.csv"
    cohort(12, site="there").to_csv(table, index=False)
    before = content(database)
    for words in (("add", table, database), ("query", database)):
        code, _, lines = call(capsys, *words)
        assert code == 1
        assert len(lines) == 1
        assert text in lines[0]
    assert content(database) == before


def test_queries_only_read(database):
    for sql in (
        "DROP VIEW observations",
        "COPY observations TO 'x.csv'",
        "SELECT 1; SELECT 2",
        "SELECT nothing FROM x",
    ):
        with pytest.raises(UnknownName):
            norm_query(database, sql=sql)
    with pytest.raises(UnknownName, match="no site 'nowhere'; it has here"):
        norm_query(database, site="nowhere")
    with pytest.raises(UnknownName, match="Both sql and filters"):
        norm_query(database, sql="SELECT 1", site="here")
    assert norm_query(database, sql="SELECT count(*) AS n FROM observations")["n"].tolist() == [30]


def test_words_in_filters_are_no_sql(database):
    with pytest.raises(UnknownName):
        norm_query(database, site="here' OR '1'='1")


def test_command_line(tmp_path, capsys):
    frame = cohort(20)
    frame.loc[3, "pathology"] = "DCM"
    frame.loc[4, "quality"] = "ghosts"
    frame.to_csv(tmp_path / "t.csv", index=False)
    code, out, _ = call(capsys, "add", tmp_path / "t.csv", tmp_path / "norms")
    assert code == 0
    assert "added       18 values of 18 healthy persons in 1 cells" in out
    assert "reference   1 values" in out
    assert "quality: ghosts" in out
    code, out, _ = call(capsys, "query", tmp_path / "norms", "--metric", "FA")
    assert code == 0
    assert "white matter" in out
    assert "18" in out
    for name in ("q.csv", "q.tsv", "q.parquet"):
        assert call(capsys, "query", tmp_path / "norms", "-o", tmp_path / name)[0] == 0
    np.testing.assert_allclose(pd.read_csv(tmp_path / "q.csv")["value"], norm_query(tmp_path / "norms")["value"])
    assert len(pd.read_csv(tmp_path / "q.tsv", sep="\t")) == 18
    assert len(duckdb.read_parquet(str(tmp_path / "q.parquet")).df()) == 18


def test_errors_are_those_of_users(database, tmp_path):
    for source in (tmp_path / "nothing.csv", tmp_path):
        with pytest.raises(UnreadableFile) as raised:
            norm_add(source, database)
        assert isinstance(raised.value, QcordError)
