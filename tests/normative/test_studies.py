"""A spread of studies above the sites: truth, the dense model, what must not change anything, files."""

import json

import duckdb
import numpy as np
import pandas as pd
import pytest

from healthy_people import people
from norm_cohort import cohort
from qcord import api
from qcord.core.errors import ImplausibleValue
from qcord.normative.adapt import adapt_norm, expected_error
from qcord.normative.borrow import borrow
from qcord.normative.centiles import centiles, without_sites
from qcord.normative.fit import fit_norm, fit_statistics
from qcord.normative.hierarchical import PRIORS, _objective, _prepare, _standardised, spreads, study_spread
from qcord.normative.norm import Norms
from qcord.normative.score import score
from qcord.normative.statistics import UNKNOWN, rows, single, statistics
from qcord.normative.studies import Block, studies_of
from qcord.normative.terms import Terms

STRAIGHT = Terms(knots=())


def studied(sizes, *, per_site=6, kappa=3.0, seed=1, makers=2, **more):
    """People of `sizes` sites for each study; sites of a study are of several manufacturers."""
    table = people(sum(sizes), per_site, seed=seed, makers=makers, **more)
    study = np.repeat(np.arange(len(sizes)), np.multiply(sizes, per_site))
    shift = kappa * np.random.default_rng(1000 + seed).standard_normal(len(sizes))
    return table.assign(study=[f"study{k}" for k in study], value=table["value"] + shift[study])


def test_restricted_likelihood_is_that_of_the_dense_model():
    """Sites of two studies are of either manufacturer; one site has no study and is one of its own."""
    table = studied((3, 2, 2), per_site=4, error=2.0)
    table.loc[table["site"] == "s006", "study"] = None
    data = _prepare(_standardised(single(rows(table, STRAIGHT), STRAIGHT), 70.0, 6.0), None)
    assert data.studies.name == ("study0", "study1", "study2")
    variances = np.random.default_rng(3).normal(scale=0.3, size=(3, 9))
    found = _objective(data, variances)[0]
    s = data.stats
    x, y, site = s.xx[:, 0], s.xy[:, 0], np.array(s.site)
    study = np.where(np.array(s.study) == "unknown", site, np.array(s.study))
    names = ["within", "site", "manufacturer", "smooth", *["within of"] * 2, *["site of"] * 2, "study"]
    dense = []
    for v in variances:
        person, sites, maker, _ = spreads(v, 2)
        covariance = np.diag(person[data.maker_of_group] ** 2 + s.variance)
        covariance += np.equal.outer(site, site) * sites[data.maker_of_group] ** 2
        covariance += np.equal.outer(study, study) * study_spread(v, 2) ** 2
        covariance += np.equal.outer(data.maker_of_group, data.maker_of_group) * maker**2
        for k, name in enumerate(STRAIGHT.names):
            covariance += np.outer(x[:, k], x[:, k]) * (1e4 if name == "one" else np.exp(v[0])) ** 2
        penalty = sum((value - PRIORS[k][0]) ** 2 / PRIORS[k][1] ** 2 for value, k in zip(v, names, strict=True))
        dense.append((np.linalg.slogdet(covariance)[1] + y @ np.linalg.solve(covariance, y) + penalty) / 2)
    assert np.diff(found) == pytest.approx(np.diff(dense), rel=1e-5)


def test_a_vanishing_spread_of_studies_is_the_model_without():
    table = studied((3, 3, 1))
    variances = np.random.default_rng(2).normal(scale=0.3, size=(1, 8))
    with_, without = (
        _prepare(_standardised(statistics(t, STRAIGHT), 70.0, 6.0), None) for t in (table, table.drop(columns="study"))
    )
    narrow = np.append(variances, [[-12.0]], axis=1)
    prior = (-12.0 - PRIORS["study"][0]) ** 2 / 2 / PRIORS["study"][1] ** 2
    found, solved = _objective(with_, narrow)
    expected, (coefficients, _) = _objective(without, variances)
    assert found - prior == pytest.approx(expected, abs=1e-6)
    assert solved[0][:, :5] == pytest.approx(coefficients, abs=1e-6)


def test_spreads_of_studies_and_sites_are_found_within_their_errors():
    inside, found = [], []
    for seed in range(12):
        h = fit_norm(studied((4,) * 12, kappa=4.0, site=2.0, seed=seed), STRAIGHT).hierarchy
        assert h.studied
        study = float(study_spread(h.variances, 2)) * h.spread
        error = np.sqrt(h.variances_covariance[-1, -1])
        inside.append(abs(h.variances[-1] - np.log(4.0 / 6.0)) < 1.96 * error)
        found.append(study)
    assert np.mean(inside) > 0.7
    assert np.mean(found) == pytest.approx(4.0, rel=0.15)


@pytest.fixture(scope="module")
def new_cohorts():
    """z of people of studies that the norm does not know, beside one large study and some small ones: study, none."""
    found = {"study": [], "none": []}
    for seed in range(14):
        table = studied((16, 3, 2, 1, 1, *[1] * 4), kappa=4.5, site=2.0, makers=1, seed=seed, manufacturer=0.0)
        new = table["study"] >= "study5"
        for name, t in (("study", table), ("none", table.drop(columns="study"))):
            found[name].append(score(fit_norm(t[~new], STRAIGHT), t[new])["z"].to_numpy())
    return {name: np.concatenate(z) for name, z in found.items()}


def test_people_of_studies_that_were_not_seen_are_standard_normal(new_cohorts):
    """Each study has one shift, so that 56 of them tell the spread of z to a tenth."""
    z = new_cohorts["study"]
    assert 0.85 < np.sqrt(np.mean(z**2)) < 1.15
    assert (np.abs(z) > 1.96).mean() < 0.08


def test_without_studies_the_large_one_makes_all_look_alike(new_cohorts):
    assert np.mean(new_cohorts["none"] ** 2) > 1.25 * np.mean(new_cohorts["study"] ** 2)


def test_new_site_of_a_known_study_has_its_shift():
    table = studied((8, 8, 8), kappa=8.0, site=1.0, makers=1)
    new = table["site"].isin(["s000", "s008", "s016"])
    norm = fit_norm(table[~new], STRAIGHT)
    known, stranger = score(norm, table[new]), score(norm, table[new].assign(study="another"))
    blank = score(norm, table[new].drop(columns="study"))
    assert np.sqrt((known["z"] ** 2).mean()) == pytest.approx(1.0, abs=0.35)
    assert (known["expected_sd"] < 0.8 * stranger["expected_sd"]).all()
    assert stranger["z"].to_numpy() == pytest.approx(blank["z"].to_numpy(), abs=1e-12)
    expected = known.groupby("study")["expected"].mean()
    assert expected.to_numpy() == pytest.approx(table[new].groupby("study")["value"].mean().to_numpy(), abs=7.0)
    assert np.ptp(expected) > 4 * np.ptp(stranger.groupby("study")["expected"].mean())


def test_no_study_is_the_norm_of_before():
    table = people(12, 6)
    with_, blank = fit_norm(table), fit_norm(table.assign(study=None))
    assert json.dumps(with_.to_dict()) == json.dumps(blank.to_dict())
    assert "stud" not in json.dumps(with_.to_dict())
    assert len(with_.hierarchy.variances) == 10
    scored = [score(with_, t)["z"].to_numpy() for t in (table, table.assign(study="s"))]
    assert np.array_equal(*scored)
    assert json.loads(Norms.of([with_]).to_json())["format"] == 1


def test_names_and_order_do_not_matter():
    table = studied((4, 3, 2, 1))
    base = fit_norm(table, STRAIGHT)
    mixed = fit_norm(table.sample(frac=1, random_state=3), STRAIGHT)
    renamed = fit_norm(table.assign(study="z" + table["study"].str[::-1]), STRAIGHT)
    assert np.array_equal(base.hierarchy.variances, mixed.hierarchy.variances)
    assert base.hierarchy.variances == pytest.approx(renamed.hierarchy.variances, abs=1e-7)
    wider = fit_norm(table.assign(value=3 * table["value"] + 5), STRAIGHT)
    assert wider.hierarchy.variances == pytest.approx(base.hierarchy.variances, abs=1e-6)


def test_site_without_a_study_is_one_of_its_own():
    table = studied((4, 3, 1))
    blank = table.assign(study=table["study"].mask(table["study"] == "study2"))
    named, unnamed = fit_norm(table, STRAIGHT), fit_norm(blank, STRAIGHT)
    assert named.card["studies"] == unnamed.card["studies"] == 3
    assert unnamed.hierarchy.studies == ("study0", "study1")
    assert unnamed.hierarchy.variances == pytest.approx(named.hierarchy.variances, abs=1e-6)
    own = table[table["study"] == "study2"]
    z = [score(norm, t)["z"].to_numpy() for norm, t in ((named, own), (unnamed, own.drop(columns="study")))]
    assert z[0] == pytest.approx(z[1], abs=0.05)  # the doubt of the spread enters in two ways


def test_company_does_not_change_a_score():
    table = studied((5, 4, 3))
    norm = fit_norm(table, STRAIGHT)
    new = table.assign(site=table["site"].where(table["site"] < "s006", "new " + table["site"]))
    new.loc[new["site"] > "s005", "study"] = np.resize(["study1", "other", None], (new["site"] > "s005").sum())
    new = new.assign(manufacturer=new["manufacturer"].mask(new["site"].str.endswith("s010"), "m9"), site=new["site"])
    new = new.assign(site=new["site"] + new["study"].fillna("").where(new["site"] > "s005", ""))
    together = score(norm, new)["z"].to_numpy()
    alone = np.concatenate([score(norm, new.iloc[[k]])["z"].to_numpy() for k in range(len(new))])
    assert set(score(norm, new)["basis"]) == {"site", "manufacturer", "other"}
    foreign = ~new["manufacturer"].isin(norm.hierarchy.manufacturers).to_numpy()
    assert together[~foreign] == pytest.approx(alone[~foreign], abs=1e-12)
    assert together[foreign] == pytest.approx(alone[foreign], abs=1e-12)


def test_controls_bring_the_site_and_its_study():
    table = studied((6, 5, 4), kappa=8.0, makers=1)
    new = table["site"].isin(["s005", "s010"])
    norm = fit_norm(table[~new], STRAIGHT)
    one = table[table["site"] == "s010"]
    of_study = adapt_norm(norm, one[:2], site="s010")
    alone = adapt_norm(norm, one[:2].drop(columns="study"), site="s010")
    assert of_study.hierarchy.sites.study[-1] == "study1"
    assert alone.hierarchy.sites.study[-1] == "unknown"
    widths = [score(n, one[2:])["expected_sd"].mean() for n in (norm, alone, of_study)]
    assert widths[2] < widths[1]
    assert score(norm, one[2:].assign(study="new"))["expected_sd"].mean() > widths[1]
    left = expected_error(norm, "m0", np.array([0, 3, 1e9]))
    assert left[0] > expected_error(fit_norm(table[~new].drop(columns="study"), STRAIGHT), "m0", np.array([0]))[0]
    assert left[0] > left[1] > left[2]
    assert left[2] < 1e-3


@pytest.mark.parametrize("act", ["fit", "adapt"])
def test_a_site_of_two_studies_is_refused(act):
    table = studied((3, 3))
    norm = fit_norm(table, STRAIGHT)
    table.loc[0, "study"] = "study1"
    with pytest.raises(ImplausibleValue, match="belongs to the studies study0 and study1"):
        fit_norm(table, STRAIGHT) if act == "fit" else adapt_norm(norm, table[table["site"] == "s000"], site="s000")


def test_files_hold_studies():
    table = studied((4, 3, 2))
    norm = fit_norm(table, STRAIGHT)
    text = Norms.of([norm]).to_json()
    assert json.loads(text)["format"] == 2
    read = next(iter(Norms.from_json(text)))
    assert read.hierarchy.studies == ("study0", "study1", "study2")
    new = table.assign(site="new " + table["site"])
    assert score(read, new)["z"].to_numpy() == pytest.approx(score(norm, new)["z"].to_numpy(), abs=1e-6)
    given = without_sites(read)
    assert "study1" not in json.dumps(given.to_dict())
    stranger = new.assign(study="x")
    assert score(given, stranger)["z"].to_numpy() == pytest.approx(score(read, stranger)["z"].to_numpy(), abs=1e-12)
    assert given.card["studies"] == 3


def test_curves_are_those_of_the_study():
    table = studied((6, 6, 6), kappa=10.0, makers=1)
    norm = fit_norm(table, STRAIGHT)
    middle = {
        s: centiles(norm, [50.0], manufacturer="m0", study=s, probabilities=[0.5]).iloc[0]
        for s in ("study0", "study1", None)
    }
    scored = score(norm, table[:1].assign(site="new", age=50.0, sex="F", study="study1"))
    assert middle["study1"]["value"] == pytest.approx(scored["expected"][0], abs=1e-9)
    assert abs(middle["study0"]["value"] - middle["study1"]["value"]) > 1
    assert np.ptp(middle[None][["low", "high"]]) > 1.3 * np.ptp(middle["study0"][["low", "high"]])


def test_sums_that_sites_exchange_know_of_no_study():
    table = studied((4, 3))
    plain, own = statistics(table.drop(columns="study")), statistics(table)
    for name in ("count", "variance", "xx", "xy", "yy", "ages"):
        assert np.array_equal(getattr(plain, name), getattr(own, name))
    assert plain.study == ()
    assert own.choose(np.array([0, 4])).study == ("study0", "study1")
    cell = fit_norm(table).cell
    assert not fit_statistics(plain, cell=cell, unit="mm2").hierarchy.studied


def test_sites_that_deviate_stand_out_from_their_study():
    table = studied((12, 10), kappa=2.0, site=1.0, makers=1, seed=5)
    table.loc[table["site"] == "s003", "value"] += 60.0
    norm = fit_norm(table, STRAIGHT)
    assert not norm.hierarchy.deviating.none
    calm = fit_norm(table[table["site"] != "s003"], STRAIGHT)
    ratio = np.exp(norm.hierarchy.variances[-1] - calm.hierarchy.variances[-1])
    assert 0.5 < ratio < 2  # one site of a study does not move the others of it
    assert score(norm, table[table["site"] == "s003"])["z"].abs().mean() < 2


def test_cells_borrow_only_from_those_of_the_same_studies():
    tables = [studied((5, 4, 3), seed=k).assign(level=f"C{k}") for k in range(1, 5)]
    norms = [fit_norm(t, STRAIGHT) for t in tables]
    other = fit_norm(tables[0].drop(columns="study").assign(level="C7"), STRAIGHT)
    together = borrow(Norms.of([*norms, other]))
    assert together[other.cell].hierarchy is other.hierarchy
    widths = [np.exp(n.hierarchy.variances[-1]) for n in norms]
    drawn = [np.exp(together[n.cell].hierarchy.variances[-1]) for n in norms]
    assert np.std(drawn) < np.std(widths)


def test_the_database_keeps_studies_beside_older_parts(tmp_path):
    folder = tmp_path / "norms"
    api.norm_add(cohort(30), folder)
    for part in folder.rglob("*.parquet"):  # as before there was such a column
        older = part.with_suffix(".older")
        duckdb.sql(f"COPY (SELECT * EXCLUDE study FROM '{part}') TO '{older}' (FORMAT parquet)")
        older.replace(part)
    assert api.norm_query(folder)["study"].isna().all()
    api.norm_add(cohort(20, seed=2, site="there").assign(study="first "), folder)
    found = api.norm_query(folder)
    assert found[found["site"] == "here"]["study"].isna().all()
    assert (found[found["site"] == "there"]["study"] == "first").all()
    again = api.norm_add(cohort(20, seed=2, site="there").assign(study="first"), folder)
    assert (again.accepted, again.stored) == (0, 20)
    assert fit_norm(found, STRAIGHT).card["studies"] == 2


def test_spread_of_studies_is_assumed_as_that_of_sites():
    assert PRIORS["study"] == PRIORS["site"]
    h = fit_norm(studied((6,), per_site=20), STRAIGHT).hierarchy  # one study tells nothing of it
    assert h.variances[-1] == pytest.approx(PRIORS["study"][0], abs=0.1)
    assert np.sqrt(h.variances_covariance[-1, -1]) == pytest.approx(PRIORS["study"][1], rel=0.1)


@pytest.mark.parametrize("studies", [2, 40])
def test_shifts_put_back_solve_the_whole_equations(studies):
    rng = np.random.default_rng(studies)
    q = 4
    root = rng.normal(size=(2, q + studies, q + studies + 3))
    whole = np.einsum("bij,bkj->bik", root, root)
    whole[:, q:, q:] *= np.eye(studies)  # no two studies share a site
    whole += 60 * np.eye(q + studies)
    right = rng.normal(size=(2, q + studies))
    block = Block(np.einsum("bkk->bk", whole[:, q:, q:]), right[:, q:], whole[:, q:, :q])
    less, less_right, square = block.taken_out()
    inner = np.linalg.inv(whole[:, :q, :q] - less)
    inner_right = right[:, :q] - less_right
    first = np.einsum("bij,bj->bi", inner, inner_right)
    coefficients, covariance = block.put_back(first, inner)
    assert covariance == pytest.approx(np.linalg.inv(whole), abs=1e-12)
    assert coefficients == pytest.approx(np.linalg.solve(whole, right[..., None])[..., 0], abs=1e-12)
    total = np.einsum("bi,bi->b", right, coefficients)
    assert np.einsum("bi,bi->b", inner_right, first) + square == pytest.approx(total, abs=1e-12)


def test_studies_of_sites():
    found = studies_of(("b", UNKNOWN, "a", "b"))
    assert found.name == ("a", "b")
    assert found.of_site.tolist() == [1, -1, 0, 1]
    assert found.order.tolist() == [2, 0, 3]
    assert found.starts.tolist() == [0, 1]


def test_numbers_that_name_studies_are_names(tmp_path):
    parts = [
        cohort(15, site=f"s{k}", seed=k, mean=0.6 + 0.05 * (k // 2), study=1 + k // 2, manufacturer="Siemens")
        for k in range(6)
    ]
    table, new = tmp_path / "all.csv", tmp_path / "new.csv"
    pd.concat(parts).to_csv(table, index=False)
    parts[5].assign(site="new").to_csv(new, index=False)
    api.norm_add(table, tmp_path / "db")
    norms = api.norm_fit(tmp_path / "db")
    assert next(iter(norms)).hierarchy.studies == ("1", "2", "3")
    known = api.norm_score(new, norms=norms)
    stranger = api.norm_score(parts[5].assign(site="new", study="9"), norms=norms)
    assert (known["expected_sd"] < stranger["expected_sd"]).all()
    assert known["expected"].mean() > stranger["expected"].mean()
