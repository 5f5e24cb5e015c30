import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcord.atlas.estimators import (
    maximum_a_posteriori,
    maximum_likelihood,
    merge,
    weighted_mean,
)
from qcord.atlas.extract import cluster_of, extract, region_groups
from qcord.atlas.project import Atlas, native_atlas
from qcord.core.errors import GridMismatch, UnknownName
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.core.labels import CSF, TRACTS
from qcord.ingest.nifti import read_image
from qcord.ingest.pam50 import read_warped_atlas
from qcord.preprocess.noise_correlation import NoiseCorrelation

NAMES = (TRACTS[0], TRACTS[4], TRACTS[30], CSF)


def atlas(generator, n_slices=6, per_slice=60, levels=("C5", "C5", "C4", "C4", "C3", "C3")):
    grid = Grid((10, 6, n_slices), np.diag([0.9, 0.9, 5, 1]))
    index = np.stack(np.unravel_index(np.arange(10 * 6 * n_slices), grid.shape), -1)
    weights = generator.dirichlet([0.4] * len(NAMES), len(index))
    return Atlas(grid, index, weights, NAMES, levels)


def mixture(a, truth, sigma=0.0, generator=None):
    x = a.weights @ truth
    if sigma:
        x = x + sigma * generator.standard_normal(len(x))
    data = np.full(a.grid.shape, np.nan)
    data[tuple(a.index.T)] = x
    return Image(data, a.grid, "percent")


def pick(table, region, estimator, level="C4", place=""):
    found = table[(table.region == region) & (table.estimator == estimator) & (table.level == level)]
    return found[found.slice == place].iloc[0]


@settings(max_examples=20, deadline=None)
@given(value=st.floats(-50, 50), seed=st.integers(0, 100))
def test_a_constant_is_returned_by_all_estimators(value, seed):
    a = atlas(np.random.default_rng(seed))
    table = extract(mixture(a, np.full(4, value)), a)
    np.testing.assert_allclose(table["value"], value, atol=1e-7)


def test_mixtures_are_unmixed_exactly():
    a = atlas(np.random.default_rng(1))
    truth = np.array([50.0, 46.0, 40.0, 10.0])
    table = extract(mixture(a, truth), a)
    for name, value in zip(NAMES[:3], truth, strict=False):
        np.testing.assert_allclose(pick(table, name, "ml").value, value, atol=1e-8)
    assert abs(pick(table, NAMES[0], "wa").value - 50) > 1  # the plain mean is pulled by its neighbours


def test_intervals_cover_the_truth():
    generator = np.random.default_rng(7)
    a = atlas(generator)
    truth = np.array([50.0, 46.0, 40.0, 10.0])
    std = Image(np.full(a.grid.shape, 3.0), a.grid, "percent")
    hits = {"ml": [], "map": []}
    for _ in range(150):
        table = extract(mixture(a, truth, 3.0, generator), a, std=std, by=["level"], regions=NAMES[:3])
        for name, value in zip(NAMES[:3], truth, strict=False):
            for estimator, covered in hits.items():
                row = pick(table, name, estimator)
                covered.append(row.ci_low <= value <= row.ci_high)
    assert 0.92 <= np.mean(hits["ml"]) <= 0.98
    assert 0.90 <= np.mean(hits["map"]) <= 0.995


def test_missing_values_take_no_part():
    a = atlas(np.random.default_rng(3))
    truth = np.array([50.0, 46.0, 40.0, 10.0])
    image = mixture(a, truth)
    data = image.data.copy()
    data[:, :3, :] = np.nan
    data[:, :, 2:4] = np.nan
    table = extract(image.derive(data), a)
    np.testing.assert_allclose(pick(table, NAMES[1], "ml", "C5").value, 46, atol=1e-8)
    gone = pick(table, NAMES[1], "ml", "C4")
    assert np.isnan(gone.value)
    assert np.isnan(gone.se)
    assert gone.flag == "no_data"
    assert gone.n_eff == 0


def test_voxels_of_unknown_content_take_no_part():
    a = atlas(np.random.default_rng(4))
    half = Atlas(a.grid, a.index, a.weights * np.where(a.index[:, :1] < 5, 1.0, 0.5), NAMES, a.levels)
    image = mixture(a, np.array([50.0, 46.0, 40.0, 10.0]))
    data = image.data.copy()
    data[5:] = 1e6
    np.testing.assert_allclose(pick(extract(image.derive(data), half), NAMES[0], "ml").value, 50, atol=1e-7)


def test_regions_that_cannot_be_told_apart_are_flagged():
    generator = np.random.default_rng(5)
    a = atlas(generator)
    weights = a.weights.copy()
    weights[:, 1] = weights[:, 0]  # the same voxels in the same shares
    weights /= weights.sum(axis=1, keepdims=True)
    twins = Atlas(a.grid, a.index, weights, NAMES, a.levels)
    table = extract(mixture(twins, np.array([50.0, 46.0, 40.0, 10.0])), twins)
    row = pick(table, NAMES[0], "ml")
    assert row.flag == "not_separable"
    assert np.isnan(row.value)
    np.testing.assert_allclose(pick(table, "dorsal columns", "wa").n_eff, pick(table, NAMES[0], "wa").n_eff)
    assert np.isfinite(pick(table, NAMES[0], "map").value)


def test_correlated_noise_widens_the_error():
    generator = np.random.default_rng(6)
    a = atlas(generator)
    image = mixture(a, np.array([50.0, 46.0, 40.0, 10.0]))
    std = Image(np.full(a.grid.shape, 2.0), a.grid, "percent")
    plain = extract(image, a, std=std, by=["level"], regions=NAMES[:2])
    n = a.weights[np.isin(a.index[:, 2], [2, 3]), 0]
    np.testing.assert_allclose(pick(plain, NAMES[0], "wa").se, 2 * np.sqrt((n**2).sum()) / n.sum())
    draws = []
    chain = np.exp(-0.5 * (np.abs(np.subtract.outer(np.arange(30), np.arange(30)))) ** 2)  # any stationary noise
    lags = np.outer(chain[15, 11:20], chain[15, 11:20])[..., None]
    noise = NoiseCorrelation(lags, float(lags.sum()))
    wide = extract(image, a, std=std, by=["level"], regions=NAMES[:2], correlation=noise)
    root = np.linalg.cholesky(chain + 1e-9 * np.eye(30))
    for _ in range(300):
        white = generator.standard_normal((30, 30, 6))
        field = 2 * np.einsum("ai,bj,ijk->abk", root, root, white)[5:15, 5:11]
        noisy = image.derive(image.data + field)
        draws.append(extract(noisy, a, by=["level"], regions=NAMES[:2])["value"].to_numpy())
    seen = np.std(draws, axis=0)
    np.testing.assert_allclose(wide["se"][wide.estimator == "wa"], seen[wide.estimator == "wa"], rtol=0.15)
    np.testing.assert_allclose(wide["se"][wide.estimator == "ml"], seen[wide.estimator == "ml"], rtol=0.15)
    assert (wide["se"] > 1.2 * plain["se"])[wide.estimator == "wa"].all()


def test_order_of_voxels_does_not_matter():
    generator = np.random.default_rng(8)
    a = atlas(generator)
    image = mixture(a, np.array([50.0, 46.0, 40.0, 10.0]), 1.0, generator)
    order = generator.permutation(len(a.index))
    shuffled = Atlas(a.grid, a.index[order], a.weights[order], NAMES, a.levels)
    one, two = extract(image, a), extract(image, shuffled)
    np.testing.assert_allclose(one["value"], two["value"], rtol=1e-9)


def test_merging_regions_keeps_their_sum():
    generator = np.random.default_rng(9)
    w = generator.dirichlet([1, 1, 1, 1], 50)
    merged, groups = merge(w, np.array([0, 0, 1, 2]), np.array([1, 2]))
    np.testing.assert_allclose(merged[:, 0], w[:, 1] + w[:, 2])
    assert merged.shape == (50, 3)
    assert groups.tolist()[1:] == [0, 2]


def test_strong_prior_gives_the_cluster_and_weak_prior_the_likelihood():
    generator = np.random.default_rng(10)
    w = generator.dirichlet([1, 1, 1], 80)
    x = w @ np.array([50.0, 40.0, 10.0]) + generator.standard_normal(80)
    groups = np.array([0, 0, 1])
    common = maximum_likelihood(np.stack([w[:, 0] + w[:, 1], w[:, 2]], -1)).value(x)
    np.testing.assert_allclose(maximum_a_posteriori(w, groups, 1e5).value(x)[:2], common[0], rtol=1e-5)
    np.testing.assert_allclose(
        maximum_a_posteriori(w, groups, 1e-5).value(x), maximum_likelihood(w).value(x), rtol=1e-5
    )
    np.testing.assert_allclose(weighted_mean(w).value(np.ones(80)), 1)


def test_names_and_grids_are_checked():
    a = atlas(np.random.default_rng(11))
    image = mixture(a, np.ones(4))
    with pytest.raises(UnknownName, match="'left foot'"):
        extract(image, a, regions=["left foot"])
    with pytest.raises(UnknownName, match="estimator"):
        extract(image, a, estimators=["median"])
    with pytest.raises(UnknownName, match="way to group"):
        extract(image, a, by=["lobe"])
    other = Image(np.ones((10, 6, 6)), Grid((10, 6, 6), np.diag([1.0, 1, 5, 1])))
    with pytest.raises(GridMismatch):
        extract(other, a)
    assert list(region_groups(NAMES, ["White Matter"])["White Matter"]) == [0, 1]
    assert cluster_of(NAMES).tolist() == [0, 0, 1, 2]


@pytest.mark.real
@pytest.mark.parametrize(("estimator", "tolerance"), [("wa", 0.1), ("map", 0.5)])
def test_against_another_tool(data_dir, estimator, tolerance):
    # Same atlas fields, same map. That tool uses voxels of which the atlas describes only a part; here they take no
    # part, which moves single small regions; the median over all rows stays well inside the tolerance.
    grid, regions, weights, levels = read_warped_atlas(data_dir / "crops" / "mt_label")
    a = native_atlas(grid, regions, weights, levels)
    table = extract(read_image(data_dir / "crops" / "mt_mtr.nii.gz", unit="percent"), a, by=["slice"], least_cord=0)
    table = table[table.estimator == estimator]
    other = pd.read_csv(data_dir / "reference" / f"extract_metric_testing_mtr_{estimator}.csv")
    other = other.rename(columns={"Label": "region", "Slice (I->S)": "slice", f"{estimator.upper()}()": "other"})
    other["slice"] = other["slice"].astype(str)
    both = other.merge(table, on=["region", "slice"])
    assert len(both) == len(other)
    empty = both["other"].isna()
    assert both.loc[empty, "value"].isna().all()
    assert (both.loc[empty, "flag"] == "no_data").all()
    gap = (both["value"] - both["other"]).abs()[~empty]
    assert gap.median() < tolerance
    assert gap[both["Size [vox]"] >= 4].quantile(0.9) < tolerance


def test_what_voxels_err_by_together_is_not_diminished():
    generator = np.random.default_rng(3)
    a = atlas(generator)
    truth = np.array([50.0, 46.0, 40.0, 10.0])
    image, std = mixture(a, truth), Image(np.full(a.grid.shape, 3.0), a.grid, "percent")
    parts = (mixture(a, np.array([2.0, -1.0, 0.5, 4.0])), mixture(a, np.array([1.0, 1.0, 1.0, 1.0])))
    plain = extract(image, a, std=std)
    shared = extract(image, a, std=std, shifts=parts)
    moved = [extract(image.derive(image.data + p.data), a, std=std)["value"] - plain["value"] for p in parts]
    expected = np.sqrt(plain["se"] ** 2 + moved[0] ** 2 + moved[1] ** 2)
    np.testing.assert_allclose(shared["se"], expected, rtol=1e-9)
    for same in ("value", "se_noise", "flag", "n_eff"):
        pd.testing.assert_series_equal(shared[same], plain[same])
    assert (shared["se"] > 0.99).all()  # of the second alone: 1 everywhere
    by_name = extract({"MTR": image}, a, std={"MTR": std}, shifts={"MTR": parts})
    np.testing.assert_array_equal(by_name["se"], shared["se"])
    pd.testing.assert_frame_equal(extract({"MTR": image}, a, shifts={"MTR": ()}), extract({"MTR": image}, a))


def test_a_voxel_without_a_shift_takes_that_of_the_others():
    a = atlas(np.random.default_rng(4))
    image = mixture(a, np.array([50.0, 46.0, 40.0, 10.0]))
    std = image.derive(np.ones(a.grid.shape))
    whole = image.derive(np.full(a.grid.shape, 2.0))
    holes, none = np.array(whole.data), np.array(whole.data)
    holes[::3], none[:] = np.nan, np.nan
    expected = extract(image, a, std=std, shifts=[whole])
    pd.testing.assert_frame_equal(extract(image, a, std=std, shifts=[image.derive(holes)]), expected)
    lost = extract(image, a, std=std, shifts=[image.derive(none)])
    assert lost["se"].isna().all()
    assert set(lost["flag"]) <= {"no_error", "no_data", "not_separable", "few_voxels"}
    np.testing.assert_array_equal(lost["value"], expected["value"])
    with pytest.raises(GridMismatch):
        extract(image, a, shifts=[Image(np.ones((2, 2, 2)), Grid((2, 2, 2), np.eye(4)))])
