import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcord.core.errors import ImplausibleValue, NotIdentifiable, UnknownName
from qcord.normative.retest import deviations, repeatabilities, repeatability
from qcord.normative.robust_spread import median_difference, sampling_of_median_difference
from qcord.normative.variance_components import (
    Repeated,
    between_people,
    chi_square_interval,
    equivalent_df,
    restricted_likelihood,
    within_people,
)

UNEQUAL = (6, 2, 1, 4, 3, 2, 5)


def sessions(generator, counts, *, within=1.0, between=3.0, mean=50.0, slope=0.0, se=None):
    person = np.repeat(np.arange(len(counts)), counts)
    n = len(person)
    time = np.concatenate([np.arange(c) * 1.5 for c in counts])
    value = mean + between * generator.standard_normal(len(counts))[person]
    value = value + slope * time + within * generator.standard_normal(n)
    table = pd.DataFrame(
        {
            "participant_id": [f"sub-{i}" for i in person],
            "session_id": [f"ses-{int(t / 1.5)}" for t in time],
            "age": 40 + 7.0 * person + time,
            "value": value,
            "metric": "FA",
            "region": "white matter",
            "level": "C2:C5",
        }
    )
    if se is not None:
        table["se"] = se
        table["value"] += se * generator.standard_normal(n)
    return table


def repeated(generator, counts, within=1.0, between=3.0):
    person = np.repeat(np.arange(len(counts)), counts)
    value = between * generator.standard_normal(len(counts))[person] + within * generator.standard_normal(len(person))
    return Repeated(value, person, np.zeros((len(person), 0)))


def test_published_example_of_the_intraclass_correlation():
    # Shrout and Fleiss 1979, table 2: ICC(1,1) = .17; interval as other statistics packages print it
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    table = pd.DataFrame({"participant_id": np.repeat(list("abcdef"), 4), "value": np.ravel(ratings).astype(float)})
    for method in ("anova", "reml"):
        found = repeatability(table, method=method)
        assert found.icc == pytest.approx(0.166, abs=5e-4)
        assert (found.icc_low, found.icc_high) == pytest.approx((-0.133, 0.723), abs=5e-4)
        assert found.within_sd**2 == pytest.approx(6.264, abs=1e-3)


def test_two_sessions_each_is_the_standard_deviation_of_differences_over_root_two():
    generator = np.random.default_rng(4)
    table = sessions(generator, (2,) * 9)
    difference = table.groupby("participant_id").value.agg(lambda v: v.iloc[1] - v.iloc[0])
    found = repeatability(table)
    assert found.within_sd == pytest.approx(np.sqrt((difference**2).mean() / 2))
    assert found.df == 9


@pytest.mark.parametrize("counts", [(5, 5, 5), UNEQUAL, (11,), (2, 1, 1)])
def test_within_variance_is_unbiased_and_its_interval_covers(counts):
    generator = np.random.default_rng(1)
    squares, covered = [], 0
    for _ in range(4000):
        left = within_people(repeated(generator, counts, within=2.0))
        sd = float(np.sqrt(left.residual @ left.residual / left.df))
        low, high = chi_square_interval(sd, left.df, 0.95)
        squares.append(sd**2)
        covered += low <= 2.0 <= high
    assert np.mean(squares) == pytest.approx(4.0, abs=5 * np.std(squares) / np.sqrt(4000))
    assert covered / 4000 == pytest.approx(0.95, abs=0.014)


@pytest.mark.parametrize("between", [0.0, 0.7, 3.0])
def test_interval_of_the_intraclass_correlation_covers_with_unequal_sessions(between):
    generator = np.random.default_rng(2)
    truth, covered = between**2 / (between**2 + 1), 0
    for _ in range(1500):
        data = repeated(generator, UNEQUAL, between=between)
        left = within_people(data)
        _, _, low, high = between_people(data, left.residual @ left.residual / left.df, left.df, 0.95)
        covered += low <= truth <= high
    assert covered / 1500 == pytest.approx(0.95, abs=0.023)


def test_restricted_likelihood_recovers_both_components_with_a_trend():
    generator = np.random.default_rng(3)
    counts = (4, 3, 2, 1, 5) * 6
    found = []
    for _ in range(60):
        data = repeated(generator, counts, within=2.0, between=3.0)
        time = generator.standard_normal(len(data.value))
        within, between, effect = restricted_likelihood(
            Repeated(data.value + 1.5 * time, data.person, time[:, np.newaxis])
        )
        found.append((within**2, between**2, effect[0]))
    assert np.mean(found, axis=0) == pytest.approx([4.0, 9.0, 1.5], rel=0.11)


def test_trend_is_taken_off():
    generator = np.random.default_rng(5)
    table = sessions(generator, (5,) * 30, within=0.5, slope=-1.0)
    assert repeatability(table).within_sd > 1.5
    common = repeatability(table, trend="common")
    assert common.slope == pytest.approx(-1.0, abs=0.1)
    assert (common.within_sd, common.df) == (pytest.approx(0.5, abs=0.1), 119)
    assert repeatability(table, trend="common", method="reml").within_sd == pytest.approx(common.within_sd, rel=0.02)
    assert repeatability(table, trend="own").df == 90


def test_offset_of_a_scanner_is_taken_off_and_otherwise_told():
    generator = np.random.default_rng(6)
    table = sessions(generator, (4,) * 20)
    table["software"] = np.tile(["old", "old", "new", "new"], 20)
    table.loc[table.software == "new", "value"] += 5
    told, off = repeatability(table), repeatability(table, by=("software",))
    assert "software" in told.note
    assert told.within_sd > 2.5
    assert (off.within_sd, off.df) == (pytest.approx(1, abs=0.25), 59)


def test_noise_is_told_from_sessions():
    generator = np.random.default_rng(7)
    found = [repeatability(sessions(generator, (4,) * 60, se=generator.uniform(0.5, 2.0, 240))) for _ in range(80)]
    assert np.mean([f.noise_sd**2 for f in found]) == pytest.approx(1.75, rel=0.03)
    assert np.mean([f.within_sd**2 - f.noise_sd**2 for f in found]) == pytest.approx(1.0, abs=0.12)
    assert np.mean([f.session_low < 1 < f.session_high for f in found]) > 0.85
    assert found[0].within_person.noise_sd == found[0].noise_sd
    claimed = repeatability(sessions(generator, (4,) * 30).assign(se=3.0))
    assert claimed.session_sd == 0
    assert "standard errors" in claimed.note


def test_outlying_sessions_do_not_carry_the_robust_spread_and_are_found():
    generator = np.random.default_rng(8)
    table = sessions(generator, (5,) * 12)
    table.loc[[3, 17, 40], "value"] += [30, -25, 40]
    robust = repeatability(table, method="robust")
    assert repeatability(table).within_sd > 5
    assert robust.within_high / robust.within_low < 2
    assert robust.within_sd < 1.6
    far = deviations(table).sort_values("z", key=abs).index[-3:]
    assert set(far) == {3, 17, 40}
    assert deviations(table).share.sum() == pytest.approx(1)


def test_robust_spread_is_consistent_and_its_interval_covers():
    generator = np.random.default_rng(9)
    sampling = sampling_of_median_difference((5, 5, 5))
    assert sampling is sampling_of_median_difference((5, 5, 5))
    high, low = np.quantile(sampling, (0.025, 0.975))
    found = []
    for _ in range(1500):
        data = repeated(generator, (5, 5, 5))
        found.append(median_difference(data.value, data.person))
    found = np.array(found)
    assert (found / sampling.mean()).mean() == pytest.approx(1, abs=0.03)
    assert np.mean((found / low <= 1) & (found / high >= 1)) == pytest.approx(0.95, abs=0.025)
    assert 4 < equivalent_df(sampling) < 12
    large = repeated(generator, (40,) * 10)
    assert median_difference(large.value, large.person) == pytest.approx(1, abs=0.1)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 100), st.floats(-50, 50), st.integers(0, 1000))
def test_units_and_order_do_not_matter(scale, shift, seed):
    generator = np.random.default_rng(seed)
    table = sessions(generator, UNEQUAL, se=0.3)
    other = table.assign(value=table.value * scale + shift, se=table.se * scale).sample(frac=1, random_state=seed)
    for method in ("anova", "robust"):
        a, b = repeatability(table, method=method), repeatability(other, method=method)
        assert b.within_sd == pytest.approx(scale * a.within_sd, rel=1e-6)
        assert b.icc == pytest.approx(a.icc, rel=1e-6, nan_ok=True)
        assert b.session_sd == pytest.approx(scale * a.session_sd, rel=1e-6, abs=1e-6 * scale)


def test_one_person_and_two_sessions_widen_honestly():
    one = repeatability(sessions(np.random.default_rng(10), (2,)))
    assert one.df == 1
    assert one.within_high / one.within_low > 50
    assert np.isnan([one.icc, one.between_sd]).all()
    assert "one person" in one.note


def test_what_tells_nothing_is_refused_in_one_sentence():
    table = sessions(np.random.default_rng(11), (3, 3))
    with pytest.raises(NotIdentifiable, match="None of 2 people"):
        repeatability(table.drop_duplicates("participant_id"))
    with pytest.raises(NotIdentifiable, match="None of 0 people"):
        repeatability(table.assign(value=np.nan))
    with pytest.raises(NotIdentifiable, match="leave nothing"):
        repeatability(table.assign(run=list("abcdef")), by=("run",))
    with pytest.raises(ImplausibleValue, match="are equal"):
        repeatability(table.assign(value=table.participant_id.str[-1].astype(float)))
    with pytest.raises(ImplausibleValue, match="not negative"):
        repeatability(table.assign(se=-1.0))
    with pytest.raises(ImplausibleValue, match="given twice"):
        repeatability(table.assign(session_id="ses-1"))
    with pytest.raises(ImplausibleValue, match="use repeatabilities"):
        repeatability(table.assign(metric=["FA", "MD"] * 3))
    with pytest.raises(ImplausibleValue, match="no age"):
        repeatability(table.assign(age=np.nan), trend="common")
    with pytest.raises(UnknownName, match="'age'"):
        repeatability(table.drop(columns="age"), trend="common")
    with pytest.raises(UnknownName, match="choose one of anova"):
        repeatability(table, method="mean")
    with pytest.raises(UnknownName, match="no trend"):
        repeatability(table, method="robust", trend="common")
    with pytest.raises(UnknownName, match="'level'"):
        repeatabilities(table.drop(columns="level"))


def test_values_that_are_not_ok_are_left_out_and_counted():
    table = sessions(np.random.default_rng(12), (4, 4)).assign(quality="ok")
    clean = repeatability(table)
    spoilt = pd.concat(
        [table, table.iloc[[0]].assign(session_id="ses-9", value=1e6, quality="outside what physics allows")]
    )
    assert repeatability(spoilt).within_sd == clean.within_sd
    assert "1 of 9 values left out" in repeatability(spoilt).note
    text = table.assign(value=[*table.value[:-1], "n/a"])
    assert "1 of 8 values left out" in repeatability(text).note


def test_values_about_zero_have_no_coefficient_of_variation():
    table = pd.DataFrame({"participant_id": list("aabb"), "value": [-1.0, 1.0, 2.0, -2.0]})
    found = repeatability(table)
    assert np.isnan([found.cov, found.cov_mean]).all()
    assert found.within_sd == pytest.approx(np.sqrt(5))


def test_a_table_of_cells_keeps_those_that_tell_nothing():
    generator = np.random.default_rng(13)
    table = pd.concat([sessions(generator, (3, 4)), sessions(generator, (1, 1)).assign(metric="MD")])
    found = repeatabilities(table).set_index("metric")
    assert np.isfinite(found.within_sd["FA"])
    assert np.isnan(found.within_sd["MD"])
    assert "two usable sessions" in found.note["MD"]
    # people of very unequal spread are told
    table.loc[(table.metric == "FA") & (table.participant_id == "sub-1"), "value"] *= 1e3
    assert "differ in how much they vary" in repeatabilities(table).note[0]


def test_restricted_likelihood_is_at_the_top_of_the_one_written_with_whole_matrices():
    generator = np.random.default_rng(14)
    data = repeated(generator, UNEQUAL, within=2.0, between=1.5)
    time = generator.standard_normal((len(data.value), 1))
    within, between, effect = restricted_likelihood(Repeated(data.value + time[:, 0], data.person, time))
    x = np.column_stack([time, np.ones(len(time))])
    same = (data.person[:, np.newaxis] == data.person).astype(float)

    def likelihood(w, b):
        v = w**2 * np.eye(len(same)) + b**2 * same
        inverse = np.linalg.inv(v)
        slope = np.linalg.solve(x.T @ inverse @ x, x.T @ inverse @ (data.value + time[:, 0]))
        left = data.value + time[:, 0] - x @ slope
        determinants = np.linalg.slogdet(v)[1] + np.linalg.slogdet(x.T @ inverse @ x)[1]
        return -(determinants + left @ inverse @ left) / 2, slope[0]

    best, slope = likelihood(within, between)
    assert effect[0] == pytest.approx(slope)
    for w, b in ((1.02, 1), (0.98, 1), (1, 1.03), (1, 0.97), (1.01, 0.98), (0.99, 1.02)):
        assert likelihood(within * w, between * b)[0] < best
