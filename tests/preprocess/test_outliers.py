"""Outlying slices: dropouts and corruption are found, all else is let be."""

import numpy as np
import pytest

from painted_scans import diffusion, image_of, rician
from qcord.core.series import Series
from qcord.preprocess.outliers import volume_outliers

SHAPE = (44, 32, 8)


@pytest.fixture(scope="module")
def clean():
    painted = diffusion(SHAPE, seed=6)
    return rician(painted.series.data, 0.08, 1), painted.series.protocol


def test_dropout_and_corruption_are_flagged(clean):
    data, protocol = clean
    spoilt = data.copy()
    spoilt[:, :, 3, 11] *= 0.4
    spoilt[:, :, 5, 20] += 0.5 * np.random.default_rng(2).random(SHAPE[:2])
    table = volume_outliers(Series(image_of(spoilt), protocol)).set_index(["volume", "slice"])
    assert table.loc[(11, 3), "outlier"]
    assert table.loc[(11, 3), "gain"] == pytest.approx(0.45, abs=0.1)
    assert table.loc[(20, 5), "outlier"]
    assert table["outlier"].sum() <= 4


def test_clean_series_has_hardly_any(clean):
    data, protocol = clean
    table = volume_outliers(Series(image_of(data), protocol))
    assert len(table) == 35 * SHAPE[2]
    assert table["outlier"].mean() < 0.01


def test_kinds_with_few_volumes_have_no_verdict(clean):
    data, protocol = clean
    rows = [0, 33, 34, *range(1, 20)]
    table = volume_outliers(Series(image_of(data[..., rows]), protocol.take(rows)))
    few = table[table["volume"] < 3]
    assert few["gain"].isna().all()
    assert not few["outlier"].any()
