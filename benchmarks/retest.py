"""Variation within people from repeated sessions, beside the published one, and the limits that follow.

Run ``python benchmarks/retest.py [limits] [table] [estimators] [possible] [choices] [sessions] [joined] [cohort]
[simulation]``; the tables are looked for in QCORD_TEST_DATA.

- limits: those used without sessions of one's own, beside the published ones.
- table: the 11 sessions of three people beside the published study of six; estimators: by every usual estimator;
  possible: could any weighting of the three agree with it, each metric alone; choices: could any choice of sessions and
  weighting of people agree in all metrics at once; sessions: which of them carry the variation.
- joined: the limits of a laboratory that has these sessions and the published variation.
- cohort: the area of 463 people over several waves.
- simulation: how often the chances of so few sessions alone lead to a ratio within 20 %.
"""

import sys
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import optimize, stats

import norm_tables
from qcord.core.errors import UnknownName
from qcord.normative.reliable_change import minimal_detectable_change
from qcord.normative.repeatability import joined, within_person
from qcord.normative.retest import deviations, repeatabilities, repeatability

FREE_WATER = 3.1e-3  # mm2/s, at 37 degrees
COHORT_SD, COHORT_SLOPE = 1.70, -0.20  # mm2, mm2/year: longitudinal T1w area at C2-C3 of DLBS, as published

LIMITS = {  # percent: 1.96 sqrt(2) of the variation within people of the published study of six
    ("area T2w", "spinal cord"): 6.4,
    ("area T1w", "spinal cord"): 12.5,
    ("FA", "white matter"): 10.8,
    ("MTR", "white matter"): 14.1,
    ("MTsat", "white matter"): 21.9,
    ("T1", "white matter"): 19.1,
    ("MD", "white matter"): 25.0,
    ("RD", "white matter"): 25.0,
}


def main() -> None:
    jobs = {
        "limits": limits,
        "table": table,
        "estimators": estimators,
        "possible": possible,
        "choices": choices,
        "sessions": sessions,
        "joined": both,
        "cohort": cohort,
        "simulation": simulation,
    }
    wanted = sys.argv[1:] or list(jobs)
    for name, job in jobs.items():
        if name in wanted:
            print(f"\n{name}")
            job()


def limits() -> None:
    """Smallest change that is one, in percent of a person's mean, by the variation that the package holds."""
    for (metric, region), known in LIMITS.items():
        limit = minimal_detectable_change(within_person(metric, region).at(100.0))
        print(f"{metric} {region}: {limit.value:.1f} %; published {known}; ratio {limit.value / known:.2f}")


def table() -> None:
    """Measured against published; the limits are in percent of the mean."""
    observations = norm_tables.retest().observations
    robust = repeatabilities(observations, method="robust").set_index(["metric", "region"])
    print(
        "metric        region        n people   wCV [95 %]        mean COV robust   MDC [95 %] used        ICC [95 %]"
    )
    print("              published wCV, MDC; ratio of the limits (wCV, mean COV); inside the interval")
    met = []
    for row in repeatabilities(observations).itertuples():
        found = repeatability(observations[(observations.metric == row.metric) & (observations.region == row.region)])
        limit = minimal_detectable_change(found.within_person)
        percent = 100 / found.mean
        print(
            f"{row.metric:13s} {row.region:13s} {found.n_values:2d} {found.n_people}     "
            f"{100 * found.cov:5.2f} [{100 * found.cov_low:5.2f} {100 * found.cov_high:5.2f}] "
            f"{100 * found.cov_mean:5.2f}    {100 * robust['cov'][row.metric, row.region]:5.2f}   "
            f"[{percent * limit.low:5.1f} {percent * limit.high:5.1f}] {percent * limit.value:5.1f}   "
            f"{found.icc:5.2f} [{found.icc_low:5.2f} {found.icc_high:5.2f}]"
        )
        try:
            known = within_person(row.metric, row.region)
        except UnknownName:
            continue
        ratios = np.array([found.cov, found.cov_mean]) / known.cov
        met.append(bool(abs(ratios[0] - 1) < 0.2))
        inside = found.cov_low <= known.cov <= found.cov_high
        print(
            f"              {100 * known.cov:5.2f}, {100 * known.cov * stats.norm.ppf(0.975) * np.sqrt(2):5.1f};   "
            f"{ratios[0]:.2f}, {ratios[1]:.2f};   {'inside' if inside else 'OUTSIDE'}; within 20 %: {met[-1]}"
        )
    print(f"within 20 %: {sum(met)} of {len(met)}")


def possible() -> None:
    """Variation of each person, and how much one of them must count for their weighted mean square to agree.

    Of three people with two or three degrees of freedom each, none should count more than a half.
    """
    every = norm_tables.retest().observations
    for what, rows in (("all sessions", every), ("without failed", without_failed(every))):
        print(what)
        for (metric, region), part in rows.groupby(["metric", "region"]):
            known = 100 * within_person(str(metric), str(region)).cov
            each = part.groupby("participant_id")["value"].agg(lambda v: 100 * v.std() / v.mean()).dropna()
            low, high = 0.8 * known, 1.2 * known
            square, n = each.to_numpy() ** 2, len(each)
            found = optimize.linprog(
                np.append(np.zeros(n), 1.0),
                A_ub=np.vstack([np.append(square, 0), np.append(-square, 0), np.c_[np.eye(n), -np.ones(n)]]),
                b_ub=[high**2, -(low**2), *np.zeros(n)],
                A_eq=np.append(np.ones(n), 0)[None],
                b_eq=[1.0],
            )
            share = f"one person must count {found.x[-1]:.0%}" if found.success else "NO WEIGHTING OF THEM AGREES"
            print(
                f"  {metric} {region}: {', '.join(f'{c:.2f}' for c in each)} %; within 20 % of the published "
                f"{known:.1f} %: {low:.2f} to {high:.2f}; {share}"
            )


def choices() -> None:
    """For every choice of sessions, whether a weighting of people has limits within 20 % of the published ones.

    A weighted mean over people of squared variations; the sessions and the weights are the same for all metrics.
    """
    observations = norm_tables.retest().observations
    rows = observations[[(m, r) in LIMITS for m, r in zip(observations.metric, observations.region, strict=True)]]
    values = rows.pivot_table(index=["participant_id", "session_id"], columns="metric", values="value")
    regions = dict(LIMITS.keys())
    published = np.array([LIMITS[m, regions[m]] for m in values.columns]) / 1.96 / np.sqrt(2)
    low, high = (0.8 * published) ** 2, (1.2 * published) ** 2
    tried, best, all_metrics = 0, 0, 0
    for size in range(2, len(values) + 1):
        for chosen in combinations(range(len(values)), size):
            people = [v for _, v in values.iloc[list(chosen)].groupby("participant_id") if len(v) > 1]
            if not people:
                continue
            squares = np.array([(100 * v.std() / v.mean()) ** 2 for v in people])
            tried += 1
            agree = (low <= mixtures(squares)) & (mixtures(squares) <= high)
            best = max(best, int(agree.sum(axis=1).max()))
            found = optimize.linprog(
                np.zeros(len(squares)),
                A_ub=np.vstack([squares.T, -squares.T]),
                b_ub=[*high, *-low],
                A_eq=np.ones((1, len(squares))),
                b_eq=[1.0],
            )
            all_metrics += found.status == 0
    print(
        f"{tried} choices of sessions: a weighting with all {len(published)} limits within 20 % exists in "
        f"{all_metrics}; most that agree at once (weights in steps of a twentieth): {best}"
    )


def mixtures(squares: np.ndarray) -> np.ndarray:
    """Weighted means of up to three rows, weights in steps of a twentieth."""
    steps = np.linspace(0, 1, 21)
    if len(squares) == 1:
        return squares
    if len(squares) == 2:
        weights = np.column_stack([steps, 1 - steps])
    else:
        a, b = np.meshgrid(steps, steps)
        inside = a + b <= 1 + 1e-9
        weights = np.column_stack([a[inside], b[inside], 1 - a[inside] - b[inside]])
    return np.asarray(weights @ squares)


def sessions() -> None:
    """Which sessions carry the variation, and what is left without those that cannot be right."""
    observations = norm_tables.retest().observations
    for metric, part in observations.groupby("metric"):
        far = deviations(part).sort_values("share", ascending=False).head(3)
        print(
            metric,
            *(f"{r.participant_id} {r.session_id} {r.share:.0%} of squares, z {r.z:.1f};" for r in far.itertuples()),
        )
    axial = observations[observations.metric == "AD"]
    wrong = axial[axial.value > FREE_WATER]
    for row in wrong.itertuples():
        print(f"AD {1e3 * row.value:.2f} 10^-3 mm2/s in {row.participant_id} {row.session_id}: above free water")
    scatter = norm_tables.retest_scatter()
    usual = scatter.groupby("metric").scatter.transform("median")
    torn = scatter[scatter.scatter > 2 * usual]
    for row in torn.itertuples():
        print(
            f"{row.metric} of {row.participant_id} {row.session_id}: spread over voxels {100 * row.scatter:.0f} % "
            f"of the mean, usual {100 * usual[row.Index]:.0f} %"
        )
    left = without_failed(observations)
    print("without these:")
    for row in repeatabilities(left).itertuples():
        try:
            known = 100 * within_person(row.metric, row.region).cov
        except UnknownName:
            known = np.nan
        print(
            f"  {row.metric} {row.n_values} sessions, {100 * row.cov:.1f} % [{100 * row.cov_low:.1f} "
            f"{100 * row.cov_high:.1f}], published {known:.1f} %, ratio {100 * row.cov / known:.2f}"
        )


def without_failed(observations: pd.DataFrame) -> pd.DataFrame:
    """Observations without those of images whose values scatter twice as much over the region as is usual."""
    scatter = norm_tables.retest_scatter()
    torn = scatter[scatter.scatter > 2 * scatter.groupby("metric").scatter.transform("median")]
    torn = torn.assign(metric=torn.metric.replace({"MD": "diffusion", "FA": "diffusion", "RD": "diffusion"}))
    bad = set(zip(torn.participant_id, torn.session_id, torn.metric, strict=True))
    family = observations.metric.where(~observations.metric.isin(["FA", "MD", "RD", "AD"]), "diffusion")
    names = zip(observations.participant_id, observations.session_id, family, strict=True)
    return observations[[name not in bad for name in names]]


def estimators() -> None:
    """Limits by every usual estimator, with and without failed scans, over those published."""
    every = norm_tables.retest().observations
    found = {}
    for what, rows in (("all sessions", every), ("without failed", without_failed(every))):
        for method in ("anova", "reml", "robust"):
            table = repeatabilities(rows, method=method).set_index(["metric", "region"])
            found[what, method] = {m: 100 * table["cov"][m, r] for m, r in LIMITS}
        table = repeatabilities(rows).set_index(["metric", "region"])
        found[what, "mean of people"] = {m: 100 * table["cov_mean"][m, r] for m, r in LIMITS}
        parts = rows.groupby(["metric", "region", "participant_id"])["value"]
        middle = parts.agg(lambda v: 100 * v.std() / v.mean()).groupby(["metric", "region"]).median()
        found[what, "median of people"] = {m: middle[m, r] for m, r in LIMITS}
    ratios = pd.DataFrame(found).T * 1.96 * np.sqrt(2) / pd.Series({m: known for (m, _), known in LIMITS.items()})
    ratios["within 20 %"] = ((ratios - 1).abs() <= 0.2).sum(axis=1)
    print(ratios.round(2).to_string())


def both() -> None:
    """Limits from these sessions without failed scans, joined with the published variation."""
    rows = without_failed(norm_tables.retest().observations)
    for (metric, region), known in LIMITS.items():
        part = rows[(rows.metric == metric) & (rows.region == region)]
        found = repeatability(part)
        within = joined(found.within_person, within_person(metric, region), found.mean)
        limit = minimal_detectable_change(within)
        percent = 100 / abs(found.mean)
        print(
            f"{metric} {region}: 1.96 sqrt(2) sd {1.96 * np.sqrt(2) * percent * within.sd:.1f} %, limit used "
            f"{percent * limit.value:.1f} %, published {known} %; ratios "
            f"{1.96 * np.sqrt(2) * percent * within.sd / known:.2f}, {percent * limit.value / known:.2f} "
            f"({within.df:.0f} degrees of freedom{', ALONE' if 'alone' in within.source else ''})"
        )


def cohort() -> None:
    """Area at C2 and C3 (mean by number of slices) of one cohort over waves, years apart, trend removed."""
    observations = norm_tables.lifespan().observations
    area = observations[(observations.site == "DLBS") & (observations.metric == "area T1w")]
    area = area[area.level.isin(["C2", "C3"]) & (area.quality == "ok")]
    keys = ["participant_id", "session_id", "age"]
    both = area.groupby(keys).filter(lambda rows: len(rows) == 2).groupby(keys, as_index=False).value.mean()
    both = both.assign(metric="area T1w", region="spinal cord", level="C2:C3")
    for method, trend in (
        ("anova", "none"),
        ("anova", "common"),
        ("reml", "common"),
        ("anova", "own"),
        ("robust", "none"),
    ):
        found = repeatability(both, method=method, trend=trend)
        print(
            f"{method} trend {trend}: {found.n_values} sessions, {found.n_people} people "
            f"({found.n_repeated} repeated), SD {found.within_sd:.2f} [{found.within_low:.2f} {found.within_high:.2f}] "
            f"mm2 (published {COHORT_SD:.2f}: ratio {found.within_sd / COHORT_SD:.2f}), COV {100 * found.cov:.2f} %, "
            f"mean COV {100 * found.cov_mean:.2f} %, slope {found.slope:.3f} mm2/year (published {COHORT_SLOPE:.2f}), "
            f"ICC {found.icc:.3f} [{found.icc_low:.3f} {found.icc_high:.3f}]"
        )


def simulation() -> None:
    """Chance that a standard deviation from so many sessions lies within 20 % of the truth that it comes from."""
    for df in (8, 12, 40, 100):
        chance = stats.chi2.cdf(1.44 * df, df) - stats.chi2.cdf(0.64 * df, df)
        several = "".join(f"  {k} metrics {chance**k:.3f}" for k in (3, 8))
        print(f"{df} degrees of freedom: {chance:.2f} for one metric;{several}")


if __name__ == "__main__":
    pd.set_option("display.width", 200)
    main()
