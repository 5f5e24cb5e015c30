"""Attempts to get a person out of what a site sends: each is shown to work on sums that are not protected."""

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, least_squares, milp

from federation_sites import hospital
from qcord.normative.federation.cells import Limits, TooRevealing, reason_to_withhold, spread
from qcord.normative.federation.ledger import new_ledger
from qcord.normative.federation.prepare import prepare
from qcord.normative.statistics import rows, statistics
from qcord.normative.terms import Terms

FA = ("FA", "white matter", "C2:C5")
STRAIGHT = Terms(())


def people(n, *, seed=0, **more):
    table = hospital("a", n, seed=seed, **more)
    return table[table["metric"] == "FA"].reset_index(drop=True)


def export(table, ledger, terms=STRAIGHT, **limits):
    made = prepare(table, ledger, terms=terms, limits=Limits(**limits), software="test")
    return made.exchange.statistics[FA], ledger.add(made.entry, limits.get("cell_size", 10))


def test_a_small_group_is_solved_for_its_values_and_is_never_exported():
    """As many people as columns: the sums are a square system."""
    table = people(3, seed=3)
    sums = statistics(table, STRAIGHT)
    design = STRAIGHT.of(table)
    np.testing.assert_allclose(np.linalg.solve(design.T, sums.xy[0]), table["value"], rtol=1e-9)
    with pytest.raises(TooRevealing, match="3 people, fewer than 5"):
        export(table, new_ledger(), cell_size=5, small=True)
    table = people(7, seed=3)
    with pytest.raises(TooRevealing, match="standard deviations|of one sex"):
        export(table, new_ledger(), cell_size=5, small=True)


def difference(large, small):
    """Sex, age and value of the one person by whom two groups differ."""
    x, xy = large.xx[0][0] - small.xx[0][0], large.xy[0][0] - small.xy[0][0]
    return "M" if x[1] > 0 else "F", 50 + 20 * x[2], xy


def test_the_difference_of_two_exports_is_a_person_and_the_second_is_refused():
    table = people(30)
    victim = table.iloc[12]
    sex, age, value = difference(statistics(table, STRAIGHT), statistics(table.drop(index=12), STRAIGHT))
    assert sex == victim["sex"]
    assert age == pytest.approx(victim["age"], abs=1e-6)
    assert value == pytest.approx(victim["value"], rel=1e-9)
    sums, book = export(table, new_ledger())
    with pytest.raises(TooRevealing, match="differ in 1 people"):
        export(table.drop(index=12), book)
    again, _ = export(table, book)
    np.testing.assert_array_equal(again.xy, sums.xy)


def test_the_difference_of_two_cells_of_one_export_is_nobody():
    """A person without MD would show with age and sex in the difference of the cells of FA and MD."""
    table = hospital("a", 30, seed=1)
    gap = (table["participant_id"] == "a-012") & (table["metric"] == "MD")
    exact = [statistics(part, STRAIGHT) for _, part in table[~gap].groupby("metric")]
    assert difference(exact[0], exact[1])[1] == pytest.approx(float(table["age"][12]), abs=1e-6)
    made = prepare(table[~gap], new_ledger(), terms=STRAIGHT, limits=Limits(), software="test")
    sums = list(made.exchange.statistics.values())
    assert [float(s.count[0]) for s in sums] == [29.0] * 3
    assert np.array_equal(sums[0].xx, sums[1].xx)


def moments(unknown, male):
    """Sums of a group of people of known sex, by ages and values."""
    n = len(male)
    x, y = STRAIGHT.design(50 + 20 * unknown[:n], male), unknown[n:]
    return np.concatenate([(x.T @ x)[np.triu_indices(3)], x.T @ y, [y @ y]])


def solutions(male, target, *, starts, seed):
    """Value of the first person in all solutions of the moment equations that are found."""
    g, n, found = np.random.default_rng(seed), len(male), []
    for _ in range(starts):
        begin = np.concatenate([g.uniform(-1.5, 1.2, n), g.standard_normal(n)])
        fit = least_squares(lambda u: moments(u, male) - target, begin, xtol=1e-15, ftol=1e-15, gtol=1e-15)
        if np.abs(fit.fun).max() < 1e-9:
            found.append(fit.x[n])
    return np.array(found)


def test_the_moment_equations_have_one_answer_for_three_people_and_any_for_the_smallest_group():
    g = np.random.default_rng(2)
    few = np.array([1.0, 0.0, 0.0])  # one man: his age and value are the only answer, whatever the women are
    truth = np.concatenate([g.uniform(-1.5, 1.2, 3), g.standard_normal(3)])
    found = solutions(few, moments(truth, few), starts=20, seed=0)
    assert len(found) >= 5
    np.testing.assert_allclose(found, truth[3], atol=1e-5)
    male = np.arange(11) % 2.0
    age = np.array([22, 25, 30, 33, 38, 41, 47, 52, 58, 63, 70.0])
    truth = np.concatenate([(age - 50) / 20, g.standard_normal(11)])
    data = rows(
        hospital("a", 11, seed=0).head(11).assign(age=age, sex=np.where(male > 0, "M", "F"), value=truth[11:]), STRAIGHT
    )
    assert reason_to_withhold(data, STRAIGHT, Limits()) == ""
    found = solutions(male, moments(truth, male), starts=40, seed=1)
    assert len(found) >= 20
    assert np.ptp(found) > 2 * truth[11:].std()


def test_even_who_knows_all_ages_learns_less_of_a_value_than_the_norm_says():
    table = people(30, seed=6)
    sums, _ = export(table, new_ledger(), Terms())
    design = Terms().of(table)
    residual = np.sqrt((sums.yy[0] - sums.xy[0] @ np.linalg.solve(sums.xx[0], sums.xy[0])) / (30 - 6))
    open_by = spread(design, table["value"].to_numpy())
    assert open_by.min() >= 2 * residual


def test_the_only_man_and_the_only_old_person_stand_alone_in_a_column_and_are_not_exported():
    table = people(20, seed=5)
    table["sex"] = ["M", *"F" * 19]
    sums = statistics(table, STRAIGHT)
    assert sums.xy[0][1] + sums.xy[0][0] / 2 == pytest.approx(table["value"][0], rel=1e-9)
    with pytest.raises(TooRevealing, match="1 of one sex"):
        export(table, new_ledger())
    pointed = Terms((69.5, 70.0, 70.5))  # chosen to be zero for all but one
    table = people(30, seed=5, ages=(20, 60))
    table.loc[7, "age"] = 70.0
    table.loc[8, "age"] = 70.0 - 1e-9
    table = table.drop(index=8).reset_index(drop=True)
    design, sums = pointed.of(table), statistics(table, pointed)
    fitted = design @ np.linalg.lstsq(sums.xx[0], sums.xy[0], rcond=None)[0]
    assert fitted[7] == pytest.approx(table["value"][7], rel=1e-6)
    with pytest.raises(TooRevealing, match="leave someone's value open"):
        export(table, new_ledger(), pointed)


def test_further_columns_of_the_same_people_are_refused():
    """Exports with other knots are further equations: with enough of them every value follows."""
    table = people(30, seed=7)
    designs = [Terms((20.0 + k, 30.0 + 2 * k, 45.0 + k, 60.0 + k, 80.0)) for k in range(12)]
    x = np.concatenate([t.of(table) for t in designs], axis=1)
    xy = np.concatenate([statistics(table, t).xy[0] for t in designs])
    distinct = table.drop_duplicates(["age", "sex"]).index
    solved = np.linalg.lstsq(x.T, xy, rcond=1e-12)[0]
    alone = [k for k in distinct if ((table[["age", "sex"]] == table.loc[k, ["age", "sex"]]).all(axis=1)).sum() == 1]
    close = np.abs(solved - table["value"])[alone] < 0.1 * table["value"].std()
    assert close.mean() > 0.5
    _, book = export(table, new_ledger(), Terms(()))
    with pytest.raises(TooRevealing, match="other columns"):
        export(table, book, Terms((20.0, 50.0, 80.0)))


def test_rounded_values_are_whole_numbers_that_exact_sums_give_away_and_are_withheld():
    """More people than columns, yet only one set of whole numbers fits."""
    g = np.random.default_rng(1)
    n, terms = 10, Terms()
    table = people(n).assign(
        age=g.choice(np.arange(20, 76.0), n, replace=False), value=np.round(74 + 7 * g.standard_normal(n))
    )
    design, sums = terms.of(table), statistics(table, terms)
    fits = LinearConstraint(1e3 * design.T, 1e3 * sums.xy[0] - 1e-6, 1e3 * sums.xy[0] + 1e-6)
    found = milp(np.zeros(n), constraints=fits, integrality=np.ones(n), bounds=Bounds(50, 100))
    np.testing.assert_allclose(found.x, table["value"], atol=1e-4)
    many = people(40, seed=8)
    many["value"] = np.round(many["value"], 2)
    with pytest.raises(TooRevealing, match="bits"):
        export(many, new_ledger(), terms)


@pytest.mark.slow
def test_a_table_of_whole_ages_and_sexes_is_not_secret_as_the_document_says():
    """Known limit: exact sums of smooth columns give the number of people of each age and sex, without values."""
    table, terms = people(26, seed=0), Terms()
    made = prepare(table, new_ledger(), terms=terms, limits=Limits(), software="test")
    sums = made.exchange.statistics[FA]
    age, male = np.repeat(np.arange(20, 80.0), 2), np.tile([0.0, 1.0], 60)
    design = terms.design(age, male)
    i, j = np.triu_indices(6)
    target = sums.xx[0][i, j]
    fits = LinearConstraint((design[:, i] * design[:, j]).T, target - 1e-7, target + 1e-7)
    found = milp(np.zeros(120), constraints=fits, integrality=np.ones(120), bounds=Bounds(0, 26))
    truth = [((table["age"] == a) & ((table["sex"] == "M") == m)).sum() for a, m in zip(age, male, strict=True)]
    np.testing.assert_allclose(found.x, truth, atol=1e-4)
    assert "ages in whole years and of sexes may be" in made.exchange.declaration.statement
