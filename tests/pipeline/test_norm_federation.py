import os
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from federation_sites import hospital, hospitals
from qcord.cli import norm_federation as cli
from qcord.cli.main import main
from qcord.core.errors import (
    ImplausibleValue,
    MissingMetadata,
    NotWritable,
    QcordError,
    SetApartWarning,
    UnknownName,
    UnreadableFile,
)
from qcord.normative.federation.cells import TooRevealing
from qcord.normative.federation.signature import WrongSignature
from qcord.normative.fit import fit_statistics
from qcord.normative.norm import Norms
from qcord.normative.statistics import statistics
from qcord.normative.terms import Terms
from qcord.pipeline.norm_federation import new_key_file, norm_export, norm_merge

TERMS = Terms((20.0, 50.0, 80.0))


@pytest.fixture
def key(tmp_path):
    new_key_file(tmp_path / "key")
    return tmp_path / "key"


def test_three_hospitals_export_and_one_merges(tmp_path, key):
    tables, files = hospitals((24, 30, 36)), []
    for k, (table, kind) in enumerate(zip(tables, ("csv", "tsv", "parquet"), strict=True)):
        path = tmp_path / f"table.{kind}"
        if kind == "parquet":
            import duckdb

            duckdb.from_df(table).write_parquet(str(path))
        else:
            table.to_csv(path, index=False, sep="," if kind == "csv" else "\t", na_rep="n/a")
        files.append(tmp_path / f"site{k}.json")
        summary = norm_export(path, files[-1], key=key, ledger=tmp_path / f"ledger{k}.json", terms=TERMS)
        assert summary["exported"].all()
    norms = norm_merge(files, tmp_path / "norms.json", key=key)
    read = Norms.from_json((tmp_path / "norms.json").read_text())
    rows = pd.concat(tables)
    for norm in norms:
        part = rows[rows["metric"] == norm.cell.metric]
        whole = fit_statistics(statistics(part, TERMS), cell=norm.cell, unit=norm.unit)
        np.testing.assert_allclose(norm.hierarchy.coefficients, whole.hierarchy.coefficients, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(read[norm.cell].hierarchy.coefficients, norm.hierarchy.coefficients, rtol=1e-8)
        assert norm.card["sites"] == 3


def test_the_second_export_of_almost_the_same_people_writes_nothing(tmp_path, key):
    table, ledger = hospital("a", 30, seed=1), tmp_path / "home" / "ledger.json"
    norm_export(table, tmp_path / "one.json", key=key, ledger=ledger, terms=TERMS)
    norm_export(table, tmp_path / "again.json", key=key, ledger=ledger, terms=TERMS)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "again.json").read_bytes()
    before = ledger.read_text()
    with pytest.raises(TooRevealing, match="differ in 1 people"):
        norm_export(
            table[table["participant_id"] != "a-003"], tmp_path / "two.json", key=key, ledger=ledger, terms=TERMS
        )
    assert not (tmp_path / "two.json").exists()
    assert ledger.read_text() == before
    assert "a-003" not in before


@pytest.mark.skipif(os.name == "nt", reason="rights of files are another thing on Windows")
def test_keys_and_ledgers_are_for_their_owner_alone(tmp_path, key):
    norm_export(hospital("a", 30, seed=1), tmp_path / "a.json", key=key, ledger=tmp_path / "ledger.json", terms=TERMS)
    for name in ("key", "ledger.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    with pytest.raises(NotWritable, match="never replaced"):
        new_key_file(key)


def test_documents_that_were_changed_or_signed_elsewhere_are_named(tmp_path, key):
    out, ledger = tmp_path / "a.json", tmp_path / "ledger.json"
    norm_export(hospital("a", 30, seed=1), out, key=key, ledger=ledger, terms=TERMS)
    new_key_file(tmp_path / "other")
    with pytest.raises(WrongSignature, match=r"a\.json was signed with key"):
        norm_merge([out], key=tmp_path / "other")
    out.write_bytes(out.read_bytes().replace(b'"count":30.0', b'"count":31.0'))
    with pytest.raises(WrongSignature, match=r"a\.json was changed"):
        norm_merge([out], tmp_path / "norms.json", key=key)
    assert not (tmp_path / "norms.json").exists()
    with pytest.raises(UnreadableFile, match="document"):
        norm_merge([tmp_path / "none.json"], key=key)
    with pytest.raises(UnreadableFile, match="key file"):
        norm_merge([out], key=tmp_path / "none")


def test_sites_and_metrics_are_chosen_by_name(tmp_path, key):
    tables = pd.concat(hospitals((30, 34)))
    more = {"key": key, "ledger": tmp_path / "ledger.json", "terms": TERMS}
    summary = norm_export(tables, tmp_path / "a.json", site="site1", metric=["FA"], **more)
    assert summary[["site", "metric", "people"]].to_numpy().tolist() == [["site1", "FA", 34]]
    with pytest.raises(UnknownName, match="site0, site1"):
        norm_export(tables, tmp_path / "b.json", site="site7", **more)
    with pytest.raises(UnknownName, match="Metric"):
        norm_export(tables, tmp_path / "b.json", metric=["T1"], **more)
    plain = hospital("a", 30, seed=1).drop(columns="site")
    assert norm_export(plain, tmp_path / "b.json", site="Chiba", **more)["site"].unique().tolist() == ["Chiba"]
    with pytest.raises(MissingMetadata, match="give one"):
        norm_export(plain, tmp_path / "c.json", site=["a", "b"], **more)
    with pytest.raises(UnreadableFile, match="no table"):
        norm_export(tmp_path / "a.json", tmp_path / "c.json", **more)


def test_noise_is_paid_from_the_budget_of_the_site(tmp_path, key):
    table, ledger = hospital("a", 60, seed=1), tmp_path / "ledger.json"
    more = {"key": key, "ledger": ledger, "terms": Terms(()), "metric": ["FA"], "bounds": {"FA": (0.4, 0.95)}}
    norm_export(table, tmp_path / "one.json", epsilon=2.0, budget=(3.0, 1e-5), **more)
    norm_export(table, tmp_path / "one.json", epsilon=2.0, budget=(3.0, 1e-5), **more)
    with pytest.raises(TooRevealing, match="more than the 3"):
        norm_export(table.tail(165), tmp_path / "two.json", epsilon=2.0, budget=(3.0, 1e-5), **more)
    assert not (tmp_path / "two.json").exists()


def test_the_commands_do_the_same(tmp_path, key, capsys):
    hospital("a", 30, seed=1).to_csv(tmp_path / "a.csv", index=False)
    cli.export(new_key=tmp_path / "second")
    assert (tmp_path / "second").exists()
    ledger = tmp_path / "ledger.json"
    cli.export(
        tmp_path / "a.csv", out=tmp_path / "a.json", key=key, ledger=ledger, straight=True, bounds=["FA=0.4:0.95"]
    )
    assert "3 of 3 groups" in capsys.readouterr().out
    cli.merge([tmp_path / "a.json"], out=tmp_path / "norms.json", key=key)
    assert "30 people, sites: 1" in capsys.readouterr().out
    assert Norms.from_json((tmp_path / "norms.json").read_text())
    with pytest.raises(QcordError, match="needs a table"):
        cli.export(tmp_path / "a.csv")
    with pytest.raises(QcordError, match="cannot be read"):
        cli.export(tmp_path / "a.csv", out=tmp_path / "b.json", key=key, bounds=["FA"])


def command(words):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 0


def test_a_database_exports_what_its_table_exports(tmp_path, key, capsys):
    table = hospital("a", 30, seed=1)
    table.to_csv(tmp_path / "a.csv", index=False)
    command(["norm", "add", str(tmp_path / "a.csv"), str(tmp_path / "database")])
    for source, name in (("database", "one"), ("a.csv", "two")):
        files = ["--out", str(tmp_path / name), "--key", str(key), "--ledger", str(tmp_path / f"ledger {name}")]
        command(["norm", "export", str(tmp_path / source), *files, "--straight"])
        assert "3 of 3 groups" in capsys.readouterr().out
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    command(["norm", "merge", str(tmp_path / "one"), "--out", str(tmp_path / "norms.json"), "--key", str(key)])
    assert len(Norms.from_json((tmp_path / "norms.json").read_text())) == 3


@pytest.mark.real
def test_manufacturers_of_a_real_table_merged_are_the_whole_table(data_dir, tmp_path, key):
    """Sites of this table have six people; its manufacturers stand for sites."""
    table = pd.read_csv(Path(data_dir) / "tables" / "spine_generic_qmri.csv")
    table = table[(table["pathology"] == "HC") & table["age"].notna() & table["sex"].isin(["M", "F"])]
    columns = ["DWI_FA", "MTR", "csa-SC_T2w"]
    long = table.dropna(subset=columns).melt(["participant_id", "sex", "age", "manufacturer"], columns, "metric")
    long = long.assign(region="white matter", level="C2:C5", unit="1", site=lambda t: t["manufacturer"])
    files, terms = [], Terms(())
    for site in sorted(long["site"].unique()):
        files.append(tmp_path / f"{site}.json")
        summary = norm_export(long, files[-1], site=site, key=key, ledger=tmp_path / f"{site}-ledger.json", terms=terms)
        assert summary["exported"].all()
    norms = norm_merge(files[::-1], key=key)
    assert len(norms) == 3
    for norm in norms:
        part = long[long["metric"] == norm.cell.metric]
        whole = fit_statistics(statistics(part, terms), cell=norm.cell, unit="1")
        for name in ("coefficients", "variances", "covariance"):
            np.testing.assert_allclose(
                getattr(norm.hierarchy, name), getattr(whole.hierarchy, name), rtol=1e-8, atol=1e-12
            )


def test_rows_of_a_table_pass_the_checks_of_a_database(tmp_path, key):
    table = hospital("a", 40, seed=1)
    words = table.assign(sex=table["sex"].map({"F": "female", "M": "male"}), pathology="control")
    words.to_csv(tmp_path / "words.csv", index=False, sep=";")
    table.to_csv(tmp_path / "plain.csv", index=False)
    for name in ("words", "plain"):
        norm_export(tmp_path / f"{name}.csv", tmp_path / name, key=key, ledger=tmp_path / f"l {name}", terms=TERMS)
    assert (tmp_path / "words").read_bytes() == (tmp_path / "plain").read_bytes()
    wrong = table.copy()
    wrong.loc[3, "value"] = 65.0
    wrong.to_csv(tmp_path / "wrong.csv", index=False)
    with pytest.warns(SetApartWarning, match="1 of 120 values of wrong.csv are left out: 1 x impossible"):
        summary = norm_export(tmp_path / "wrong.csv", tmp_path / "w", key=key, ledger=tmp_path / "l", terms=TERMS)
    assert set(summary["people"]) == {39}


def test_text_among_values_is_not_dropped(tmp_path, key):
    table = hospital("a", 40, seed=1).astype({"value": object})
    table.loc[3, "value"] = "0,65"
    with pytest.raises(ImplausibleValue, match="'0,65'"):
        norm_export(table, tmp_path / "out", key=key, ledger=tmp_path / "l", terms=TERMS)
    assert not (tmp_path / "out").exists()
