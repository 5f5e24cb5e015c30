"""People measured on several scanners."""

import numpy as np
import pandas as pd
import pytest

from qcord.core.errors import MissingMetadata, NotIdentifiable
from qcord.normative.harmonise.travelling import agreement, travelling_people

SCANNERS = ("A", "B", "C")
BIAS = np.array([-1.0, 0.25, 0.75])


def travellers(seed, n=7, person_sd=2.0, residual=0.4, mean=50.0):
    rng = np.random.default_rng(seed)
    values = mean + person_sd * rng.standard_normal(n)[:, None] + BIAS + residual * rng.standard_normal((n, 3))
    return values, pd.DataFrame(
        [{"participant_id": f"p{i}", "scanner": s, "f": values[i, j]} for i in range(n) for j, s in enumerate(SCANNERS)]
    )


def test_correlations_are_those_of_the_published_example():
    """Six targets by four judges of Shrout and Fleiss 1979, doi:10.1037/0033-2909.86.2.420, table 2."""
    ratings = np.array(
        [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float
    )
    found = agreement(ratings)
    assert found.icc_agreement == pytest.approx(0.29, abs=0.005)
    assert found.icc_consistency == pytest.approx(0.71, abs=0.006)
    assert found.residual_variance == pytest.approx(1.02, abs=0.005)
    assert found.icc_low < found.icc_consistency < found.icc_high


def test_bias_of_each_scanner_is_recovered_and_its_error_covers_it():
    inside, residuals = [], []
    for seed in range(150):
        values, table = travellers(seed)
        found = travelling_people(table, features=["f"])
        np.testing.assert_allclose(found.bias["bias"], values.mean(axis=0) - values.mean(), atol=1e-9)
        inside.append((found.bias["low"] < BIAS) & (found.bias["high"] > BIAS))
        residuals.append(found.summary["residual_sd"][0])
    assert 0.92 <= np.mean(inside) <= 0.97
    assert np.sqrt(np.mean(np.square(residuals))) == pytest.approx(0.4, rel=0.05)


def test_spread_within_people_falls_when_the_biases_go():
    _, table = travellers(1)
    row = travelling_people(table, features=["f"]).summary.iloc[0]
    assert row["cov_after"] < 0.6 * row["cov_before"]
    assert row["icc_agreement"] < row["icc_consistency"]
    assert row["p"] < 0.001


def test_published_components_agree_with_each_other():
    """Seven people on three scanners: agreement follows from consistency, residual and scanner means (own computation).

    Cross-sectional area on T1w images: 59.89, 63.67 and 63.56 mm2, residual variation 1.22 %, consistency .990,
    agreement .918.
    """
    rng = np.random.default_rng(0)
    means, residual = np.array([59.889, 63.67, 63.56]), 0.0122 * 62.37
    person = residual * np.sqrt(0.9901 / (1 - 0.9901))
    values = means + person * rng.standard_normal((4000, 1)) + residual * rng.standard_normal((4000, 3))
    found = agreement(values)
    assert found.icc_consistency == pytest.approx(0.990, abs=0.002)
    assert found.icc_agreement == pytest.approx(0.918, abs=0.02)


def test_incomplete_tables_are_compared_within_people():
    """Low people alone were on scanner A: its bias is still that of the scanner."""
    values, table = travellers(2, n=40, residual=0.1)
    low = [f"p{i}" for i in np.argsort(values.mean(axis=1))[:15]]
    part = table[(table["scanner"] != "A") | table["participant_id"].isin(low)]
    found = travelling_people(part, features=["f"])
    np.testing.assert_allclose(found.bias["bias"], BIAS, atol=0.12)
    assert found.bias.set_index("scanner")["people"].to_dict() == {"A": 15, "B": 40, "C": 40}


def test_people_of_one_scanner_and_missing_values_change_nothing():
    _, table = travellers(3)
    more = pd.concat([table, pd.DataFrame([{"participant_id": "x", "scanner": "A", "f": 900.0}])])
    more = pd.concat([more, pd.DataFrame([{"participant_id": "y", "scanner": s, "f": np.nan} for s in SCANNERS])])
    one, two = (travelling_people(t, features=["f"]) for t in (table, more))
    pd.testing.assert_frame_equal(one.bias, two.bias)
    pd.testing.assert_frame_equal(one.summary, two.summary)


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_compared_is_refused():
    _, table = travellers(4)
    with pytest.raises(NotIdentifiable, match="at least 2 people on the same two"):
        travelling_people(table.assign(f=np.nan), features=["f"])
    with pytest.raises(NotIdentifiable, match="at least 2 people on the same two"):
        travelling_people(table[table["scanner"] == "A"], features=["f"])
    with pytest.raises(MissingMetadata, match="is empty in a row"):
        travelling_people(table.assign(scanner=None), features=["f"])
    apart = pd.concat(
        [
            table[table["participant_id"].isin(["p0", "p1", "p2"]) & table["scanner"].isin(["A", "B"])],
            table[table["participant_id"].isin(["p3", "p4", "p5"]) & (table["scanner"] == "C")],
            table[table["participant_id"].isin(["p3", "p4", "p5"]) & (table["scanner"] == "C")].assign(scanner="D"),
        ]
    )
    with pytest.raises(NotIdentifiable, match="nobody connects"):
        travelling_people(apart, features=["f"])
    with pytest.raises(NotIdentifiable, match="at least two of each"):
        agreement(np.ones((1, 3)))
