import numpy as np
import pandas as pd

from qcord.report.page import pooled, summary_rows


def rows(places, **columns):
    frame = pd.DataFrame(
        [("MTR", "white matter", "map", "MTS", level, place, 50.0, 1.0, 0.6, 10.0) for level, place in places],
        columns=["metric", "region", "estimator", "source", "level", "slice", "value", "se", "se_noise", "n_eff"],
    )
    return frame.assign(**columns)


def test_summary_takes_the_middle_of_the_neck_where_levels_are_known():
    table = rows([("C1", ""), ("C2", ""), ("C4", ""), ("C7", ""), ("C4", "5"), ("", "")])
    chosen, words = summary_rows(table)
    assert list(chosen["level"]) == ["C2", "C4"]
    assert words == "levels C2 to C4"


def test_summary_takes_the_middle_slices_where_levels_are_not_known():
    table = rows([("", str(k)) for k in range(9)] + [("", "")])
    chosen, words = summary_rows(table)
    assert sorted(chosen["slice"].astype(int)) == [2, 3, 4, 5, 6]
    assert "middle half" in words


def test_noise_averages_out_and_placement_does_not():
    table = rows([("C2", ""), ("C3", ""), ("C4", ""), ("C5", "")], value=[48.0, 50.0, 52.0, 50.0])
    value, error = pooled(table)
    np.testing.assert_allclose(value, 50)
    np.testing.assert_allclose(error, np.sqrt(0.6**2 / 4 + 0.8**2))
