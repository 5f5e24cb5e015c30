"""Norms from tables and databases, adapted to a scanner: files in, files out."""

import numpy as np
import pandas as pd
import pytest

from healthy_people import people
from qcord.cli.main import main
from qcord.core.errors import ImplausibleValue, UnknownName, UnreadableFile
from qcord.normative.norm import Norms
from qcord.normative.score import score
from qcord.pipeline.norm_database import norm_add
from qcord.pipeline.norm_models import norm_adapt, norm_fit


@pytest.fixture(scope="module")
def table():
    one = people(8, 6)
    noise = np.random.default_rng(1).normal(size=(3, len(one)))
    levels = [one.assign(level=f"C{k + 2}", value=one["value"] + noise[k]) for k in range(3)]
    return pd.concat(levels, ignore_index=True)


@pytest.fixture(scope="module")
def database(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("norms") / "database"
    norm_add(table.assign(software="test 1", quality="ok"), folder)
    return folder


def test_norms_of_a_database_are_those_of_its_rows(table, database, tmp_path):
    norms = norm_fit(database, tmp_path / "norms.json")
    again = Norms.from_json((tmp_path / "norms.json").read_text())
    a, b = score(norm_fit(table), table), score(again, table)
    np.testing.assert_allclose(a["z"], b["z"], atol=1e-4)
    assert {norm.cell.level for norm in norms} == {"C2", "C3", "C4"}


def test_commands_fit_adapt_and_score(table, database, tmp_path, capsys):
    fitted, adapted, scored = tmp_path / "norms.json", tmp_path / "adapted.json", tmp_path / "scored.tsv"
    rows = tmp_path / "rows.csv"
    table.to_csv(rows, index=False)
    for words in (
        ["fit", str(database), str(fitted)],
        ["adapt", str(database), str(adapted), "--site", "s003", "--norms", str(fitted)],
        ["score", str(rows), "--norms", str(adapted), "--out", str(scored)],
    ):
        with pytest.raises(SystemExit) as end:
            main(["norm", *words])
        assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "48 people, 8 sites" in shown
    assert "s003 is known to 3 of 3 norms" in shown
    z = pd.read_csv(scored, sep="\t")["z"]
    assert abs(z.mean()) < 0.3
    assert 0.7 < z.std() < 1.2


def test_few_ages_make_a_straight_line_and_many_a_curve(table):
    assert norm_fit(table)["area T2w", "spinal cord", "C3"].terms.bends > 0
    young = table[table["age"] < 40]
    assert norm_fit(young)["area T2w", "spinal cord", "C3"].terms.bends == 0


def test_what_cannot_be_done_is_said_and_nothing_is_written(table, database, tmp_path):
    out = tmp_path / "out.json"
    with pytest.raises(UnreadableFile, match="database"):
        norm_fit(tmp_path / "absent", out)
    with pytest.raises(UnknownName, match="elsewhere"):
        norm_adapt(database, out, site="elsewhere")
    with pytest.raises(ImplausibleValue, match="has a norm"):
        norm_adapt(table.assign(metric="FA"), out, site="x", norms=norm_fit(table))
    with pytest.raises(UnreadableFile, match="no file"):
        norm_adapt(table, out, site="x", norms=tmp_path / "absent.json")
    assert not out.exists()
