"""Errors of what the benchmark of calibration prints."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def calibration(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("norm_calibration", "norm_tables"):
        sys.modules.pop(name, None)
    import norm_calibration

    return norm_calibration


def _scored(sizes, shifts):
    rng = np.random.default_rng(4)
    group = np.repeat(np.arange(len(sizes)), sizes)
    z = np.asarray(shifts)[group] + rng.standard_normal(len(group))
    columns = {
        "cohort": group,
        "kind": "a",
        "participant_id": np.arange(len(group)),
        "weight": 1.0,
        "z": z,
        "z_low": z - 1,
        "z_high": z + 1.5,
        "log score": z**2 / 2,
        "pooled": z**2 / 2 + np.asarray(shifts)[group],
        "manufacturer": z**2 / 2,
    }
    return pd.DataFrame(columns)


def test_error_over_equal_groups_is_that_of_the_mean_of_their_means(calibration):
    scored = _scored([40] * 6, [0.3, -0.2, 0.9, -1.1, 0.4, 0.1])
    of_groups = scored.groupby("cohort")["z"].mean()
    error = calibration.jackknife(scored, "cohort")
    assert error["mean"] == pytest.approx(of_groups.std(ddof=1) / np.sqrt(6), rel=1e-12)
    assert error["mean"] > 2 * scored["z"].std() / np.sqrt(len(scored))  # people of a group share its shift
    assert error["width"] == pytest.approx(0, abs=1e-12)
    assert np.isnan(error["people"])


def test_error_of_unequal_groups_counts_people_and_covers_the_truth(calibration):
    sizes = np.array([90, 60, 30, 10, 10])
    rng = np.random.default_rng(1)
    differences, errors = [], []
    for _ in range(60):
        error = calibration.jackknife(scored := _scored(sizes, rng.standard_normal(5)), "cohort")["pooled - it"]
        differences.append(calibration.summary(scored)["pooled - it"])
        errors.append(error)
    truth = np.sqrt((sizes**2).sum()) / sizes.sum()  # of a person-weighted mean of shifts of unit spread
    assert np.std(differences) == pytest.approx(truth, rel=0.25)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(truth, rel=0.25)


def test_lines_are_kinds_and_their_errors(calibration):
    scored = _scored([5, 7, 9], [0.0, 1.0, 2.0])
    both = pd.concat([scored, scored.assign(kind="b", z=scored["z"] + 1)])
    lines = calibration.with_errors(both, "cohort")
    assert list(lines.index) == ["a", "a +-", "b", "b +-"]
    assert lines.loc["b", "mean"] == pytest.approx(lines.loc["a", "mean"] + 1)
    assert lines.loc["b +-", "mean"] == pytest.approx(lines.loc["a +-", "mean"])
