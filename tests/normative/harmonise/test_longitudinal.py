"""People measured several times."""

import numpy as np
import pandas as pd
import pytest

from qcord.core.errors import MissingMetadata, NotIdentifiable
from qcord.normative.harmonise.combat import apply, fit_combat
from qcord.normative.harmonise.harmoniser import Harmoniser
from qcord.normative.harmonise.longitudinal import fit_longitudinal

SHIFTS = np.array([0.0, 1.0, -0.8, 0.4, 2.0, -0.3])


def visits(seed, n_people=60, person_sd=2.0, moving=0.5):
    """Three visits each, half of the people on changing scanners; spread within people 1, slope of time .5."""
    rng = np.random.default_rng(seed)
    people = person_sd * rng.standard_normal(n_people)
    rows = []
    for i in range(n_people):
        home, moves = i % len(SHIFTS), rng.random() < moving
        for time in range(3):
            site = (home + moves * time) % len(SHIFTS)
            value = 5 + 0.5 * time + people[i] + SHIFTS[site] + rng.standard_normal()
            rows.append({"participant_id": f"p{i}", "site": f"s{site}", "time": time + 0.1 * rng.random(), "f": value})
    return pd.DataFrame(rows), people


def test_shift_and_spreads_are_recovered_and_covered():
    shifts, slopes, persons, within = [], [], [], []
    for seed in range(15):
        table, _ = visits(seed)
        fit = fit_longitudinal(table, features=["f"], covariates=("time",))
        weight = fit.counts[:, 0] / fit.counts.sum()
        true = (SHIFTS - weight @ SHIFTS) / fit.sigma[0]
        shifts.append((fit.shift[:, 0] - true) / fit.shift_se[:, 0])
        unit = fit.design.scales[0]
        slopes.append((fit.slopes[0, 0] / unit - 0.5) / (np.sqrt(fit.slopes_variance[0, 0, 0]) / unit))
        persons.append(fit.person_sd[0])
        within.append(fit.sigma[0])
    assert 0.89 <= np.mean(np.abs(np.concatenate(shifts)) < 1.96) <= 0.99
    assert np.mean(np.abs(slopes) < np.array(2.6)) == 1.0
    assert np.mean(persons) == pytest.approx(2.0, rel=0.1)
    assert np.mean(within) == pytest.approx(1.0, rel=0.05)


def test_people_who_moved_tell_the_scanners_apart_better_than_strangers_do():
    table, _ = visits(3, person_sd=4.0)
    known = fit_longitudinal(table, features=["f"], covariates=("time",))
    strangers = fit_combat(table, features=["f"], covariates=("time",))
    true = SHIFTS - SHIFTS.mean()

    def wrong(fit):
        found = fit.shift[:, 0] * fit.sigma[0]
        return float(np.mean((found - found.mean() - true) ** 2))

    assert wrong(known) < 0.5 * wrong(strangers)


def test_differences_between_people_stay_and_visits_agree_better():
    table, people = visits(4)
    fit = fit_longitudinal(table, features=["f"], covariates=("time",))
    done = apply(fit, table)
    rest = done["f"] - 0.5 * table["time"]
    raw = table["f"] - 0.5 * table["time"]
    means = rest.groupby(table["participant_id"], sort=False).mean()
    assert np.corrcoef(means, people)[0, 1] > 0.94
    slope = np.polyfit(people, means, 1)[0]
    assert slope == pytest.approx(1.0, abs=0.1)

    def spread(values):
        return values.groupby(table["participant_id"]).std().pow(2).mean()

    assert spread(rest) < 0.8 * spread(raw)
    assert spread(rest) == pytest.approx(1.0, abs=0.25)


def test_a_harmoniser_of_visits_survives_json():
    table, _ = visits(5, n_people=20)
    fit = fit_longitudinal(table, features=["f"])
    pd.testing.assert_frame_equal(apply(Harmoniser.from_json(fit.to_json()), table), apply(fit, table))


def test_people_of_one_visit_or_without_a_name_are_refused():
    table, _ = visits(6, n_people=12)
    with pytest.raises(NotIdentifiable, match="use fit_combat"):
        fit_longitudinal(table.drop_duplicates("participant_id"), features=["f"])
    with pytest.raises(MissingMetadata, match="participant_id is empty in 1 rows"):
        fit_longitudinal(table.assign(participant_id=table["participant_id"].where(table.index > 0)), features=["f"])
    fit = fit_longitudinal(table, features=["f"])
    with pytest.raises(MissingMetadata, match="participant_id is empty"):
        apply(fit, table.assign(participant_id=None))
