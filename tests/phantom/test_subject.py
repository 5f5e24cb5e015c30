import numpy as np
import pytest

from qcord.core.labels import COMBINED, CSF, TRACTS
from qcord.models.tensor import b_matrix
from qcord.phantom.spec import SERIES, Lesion, PhantomSpec
from qcord.phantom.subject import bids_images, make_subject, redraw
from qcord.template import tables


def test_series_have_the_protocol_that_was_asked_for(healthy):
    assert tuple(healthy.series) == SERIES
    shapes = {name: series.data.shape for name, series in healthy.series.items()}
    assert shapes["dwi"] == (96, 36, 15, 35)
    assert shapes["MTS"] == (192, 192, 22, 3)
    assert shapes["T2star"][2:] == (15, 1)
    assert (healthy.series["dwi"].protocol["BValue"] == 0).sum() == 5
    for name, series in healthy.series.items():
        assert series.data.dtype == np.float32
        assert np.isfinite(series.data).all()
        assert (series.data >= 0).all()
        assert series.image.entities["sub"] == "healthy"
        assert series.image.entities.suffix == name


def test_files_of_bids(healthy):
    images = bids_images(healthy)
    assert [i.entities.name for i in images] == [
        "sub-healthy_T2w.nii.gz",
        "sub-healthy_T2star.nii.gz",
        "sub-healthy_dwi.nii.gz",
        "sub-healthy_flip-1_mt-on_MTS.nii.gz",
        "sub-healthy_flip-1_mt-off_MTS.nii.gz",
        "sub-healthy_flip-2_mt-off_MTS.nii.gz",
    ]
    assert [i.metadata["MTState"] for i in images[3:]] == [True, False, False]
    assert [i.metadata["FlipAngle"] for i in images[3:]] == [9, 9, 15]
    assert [i.metadata["RepetitionTimeExcitation"] for i in images[3:]] == [0.03, 0.03, 0.015]
    assert images[2].metadata["PhaseEncodingDirection"] == "j-"
    assert all(i.data.ndim == 3 for i in images[3:])


@pytest.mark.parametrize("name", SERIES)
def test_fractions_are_consistent(healthy, name):
    truth = healthy.truth[name]
    weights = truth.weights
    assert weights.shape == (truth.cord.data.size, 37)
    assert [r.name for r in truth.regions] == [*TRACTS, CSF]
    assert weights.data.min() >= 0
    assert weights.data.max() <= 1 + 1e-5
    cord = np.asarray(weights[:, :36].sum(axis=1)).reshape(truth.cord.data.shape)
    np.testing.assert_allclose(cord, truth.cord.data, atol=1e-5)
    np.testing.assert_allclose(truth.white.data + truth.gray.data, truth.cord.data, atol=1e-5)
    assert (truth.cord.data + truth.fluid.data).max() <= 1 + 1e-5
    np.testing.assert_array_equal(truth.mask.data, truth.cord.data >= 0.5)
    ring = np.asarray(weights[:, [36]].todense()).reshape(truth.cord.data.shape)
    assert (ring <= truth.fluid.data + 1e-5).all()


@pytest.mark.parametrize("name", SERIES)
def test_cross_sections_on_the_grid_are_those_of_the_body(healthy, name):
    """Volume of the cord in each level over its length: oblique slices and partial volume change nothing."""
    truth = healthy.truth[name]
    levels = truth.vertebrae.data
    sizes = healthy.sizes.set_index("level")
    volume_of_voxel = truth.cord.grid.voxel_volume
    complete = {"T2w": ("C1", "C3", "C6", "T1", "T3"), "T2star": ("C3", "C4"), "dwi": ("C3", "C4"), "MTS": ("C3", "C5")}
    edges = tables.level_edges()
    for level in complete[name]:
        row = tables.LEVELS.index(level)
        area = truth.cord.data[levels == row + 1].sum() * volume_of_voxel / (edges[row] - edges[row + 1])
        slices = 5.0 if name != "T2w" else 1.0
        tolerance = 0.02 + 0.5 * slices / (edges[row] - edges[row + 1])
        assert area == pytest.approx(sizes.loc[level, "area"], rel=tolerance), level


def test_landmarks_lie_on_their_levels(healthy):
    truth = healthy.truth["T2w"]
    marks = healthy.landmarks
    for mark in marks[marks["kind"] == "vertebra_axis"].itertuples():
        i, j, k = np.round(truth.cord.grid.index([mark.x, mark.y, mark.z])).astype(int)
        assert truth.vertebrae.data[i, j, k] == tables.LEVELS.index(mark.name) + 1
        assert truth.cord.data[i, j, k] > 0.9
    for mark in marks[marks["kind"] == "disc"].itertuples():
        i, j, k = np.round(truth.cord.grid.index([mark.x, mark.y, mark.z])).astype(int)
        assert truth.cord.data[i, j, k] + truth.fluid.data[i, j, k] < 0.5, "discs lie in front of the dural sac"


def test_noise_has_the_level_that_was_asked_for(healthy):
    for name, series in healthy.series.items():
        truth = healthy.truth[name]
        spread = series.data - truth.noise_free.data
        strong = truth.noise_free.data > 8 * truth.sigma
        if strong.sum() > 500:
            assert spread[strong].std() == pytest.approx(truth.sigma, rel=0.05), name
        empty = truth.noise_free.data == 0
        if empty.sum() > 500:
            assert series.data[empty].mean() == pytest.approx(truth.sigma * np.sqrt(np.pi / 2), rel=0.02), name
    truth = healthy.truth["dwi"]
    grid = truth.cord.grid
    level = np.round(grid.index(healthy.body.place([0, 0, tables.disc_heights()["C3/C4"]]))).astype(int)[2]
    white = truth.white.data[:, :, level] > 0.99
    snr = truth.noise_free.data[:, :, level, 0][white].mean() / truth.sigma
    assert snr == pytest.approx(healthy.spec.snr["dwi"], rel=0.1)


def test_pure_voxels_follow_the_tensor_of_their_tract(healthy):
    truth, series = healthy.truth["dwi"], healthy.series["dwi"]
    pure = truth.white.data > 0.999
    assert pure.sum() > 200
    signals = truth.noise_free.data[pure].astype(float)
    design = np.concatenate([np.ones((len(series.protocol), 1)), -b_matrix(series.protocol)], axis=1)
    fitted = np.linalg.lstsq(design, np.log(signals).T, rcond=None)[0][1:].T
    # Voxels that hold several tracts mix exponentials; the tracts differ by few percent only.
    np.testing.assert_allclose(fitted, truth.maps["tensor"].data[pure], atol=2e-5)
    matrix = np.moveaxis(fitted[:, [0, 3, 4, 3, 1, 5, 4, 5, 2]].reshape(-1, 3, 3), 0, 0)
    values, vectors = np.linalg.eigh(matrix)
    places = truth.cord.grid.world(np.argwhere(pure))
    tangent = healthy.body.tangent(healthy.body.project(places)[:, 2])
    assert (np.abs((vectors[:, :, 2] * tangent).sum(axis=1)) > 0.999).all()
    np.testing.assert_allclose(values.mean(axis=1), truth.maps["MD"].data[pure], rtol=0.01)


def test_maps_hold_the_assigned_values(healthy):
    truth = healthy.truth["MTS"]
    fraction = truth.weights[:, [TRACTS.index("WM left lateral corticospinal tract")]].toarray().ravel()
    pure = (fraction > 0.97).reshape(truth.cord.data.shape)
    assert pure.sum() > 5
    assert truth.maps["T1"].data[pure] == pytest.approx(0.863, abs=0.003)
    assert truth.maps["MTsat"].data[pure] == pytest.approx(3.63, abs=0.02)
    np.testing.assert_allclose(truth.maps["R1"].data[pure] * truth.maps["T1"].data[pure], 1, rtol=1e-3)
    # maps are means over the cord's part of a voxel, images are not: a voxel of 2 % fluid has .75 % less MTR
    whole = pure & (truth.fluid.data == 0)
    assert whole.sum() > 30
    images = truth.noise_free.data[whole]
    ratio = 100 * (1 - images[:, 0] / images[:, 1])
    np.testing.assert_allclose(ratio, truth.maps["MTR"].data[whole], atol=0.01)
    assert np.isnan(truth.maps["MTR"].data[truth.cord.data == 0]).all()


def test_region_table_holds_the_assigned_values(healthy):
    table = healthy.regions.set_index(["region", "level", "metric"])["value"]
    assert table["WM left lateral corticospinal tract", "C4", "FA"] == pytest.approx(0.705)
    assert table["WM right fasciculus cuneatus", "C2", "MD"] == pytest.approx(1.023e-3)
    assert table["GM left dorsal horn", "T1", "T1"] == pytest.approx(0.973)
    assert table["gray matter", "C5", "FA"] == pytest.approx(0.587)
    assert table["white matter", "C3", "FA"] == pytest.approx(0.689, abs=0.005)
    assert 40 < table["white matter", "C3", "MTR"] < 50
    assert set(healthy.regions["region"]) == {*TRACTS, *COMBINED}
    assert healthy.regions["value"].notna().all()


def test_weighted_means_of_the_maps_agree_with_the_table(injured):
    """Two ways to the same truth: voxels of the grid, and points of the closed form."""
    truth = injured.truth["MTS"]
    table = injured.regions.set_index(["region", "level", "metric"])["value"]
    levels = truth.vertebrae.data.ravel()
    cord = truth.cord.data.ravel()
    values = truth.maps["MTsat"].data.ravel()
    white = truth.white.data.ravel()
    pure = np.isfinite(values) & (white > 0.98 * cord) & (cord > 0)
    everywhere = np.isfinite(values)
    for number, level in ((3, "C3"), (4, "C4"), (5, "C5"), (6, "C6")):
        rows = everywhere & (levels == number)
        mean = np.average(values[rows], weights=cord[rows])
        assert mean == pytest.approx(table["spinal cord", level, "MTsat"], rel=0.015), level
        rows = pure & (levels == number)
        assert np.average(values[rows], weights=cord[rows]) == pytest.approx(
            table["white matter", level, "MTsat"], rel=0.02
        )


def test_lesion_and_compression_change_what_they_should(healthy, injured):
    well = healthy.regions.set_index(["region", "level", "metric"])["value"]
    ill = injured.regions.set_index(["region", "level", "metric"])["value"]
    right, left = "WM right fasciculus gracilis", "WM left fasciculus gracilis"
    assert ill[right, "C3", "FA"] < 0.95 * well[right, "C3", "FA"]
    assert ill[right, "C3", "MTsat"] < 0.95 * well[right, "C3", "MTsat"]
    assert ill[left, "C3", "FA"] > ill[right, "C3", "FA"]
    assert ill["GM left ventral horn", "C3", "FA"] == pytest.approx(well["GM left ventral horn", "C3", "FA"])
    assert ill[left, "C1", "FA"] == pytest.approx(well[left, "C1", "FA"])
    assert ill[left, "C6", "FA"] < 0.95 * well[left, "C6", "FA"]
    area = injured.sizes.set_index("level")["area"] / healthy.sizes.set_index("level")["area"]
    assert area["C5"] < 0.93
    assert area["C6"] < 0.93
    assert area["C3"] == pytest.approx(1, abs=1e-3)
    truth = injured.truth["MTS"]
    height = (tables.level_edges()[2] + tables.level_edges()[3]) / 2
    low = np.nanargmin(np.where(truth.vertebrae.data == 3, truth.maps["MTsat"].data, np.nan))
    place = injured.body.project(truth.cord.grid.world(np.unravel_index(low, truth.cord.data.shape)))
    assert -1.0 < place[0] < 2.5, "a right-sided lesion of the gracile fasciculus lies right of the midline"
    assert place[1] < 0
    assert abs(place[2] - height) < 8


def test_same_seed_same_arrays(injured):
    spec = injured.spec.replace(series=("dwi",))
    again = make_subject(spec)
    np.testing.assert_array_equal(again.series["dwi"].data, injured.series["dwi"].data)
    np.testing.assert_array_equal(again.truth["dwi"].weights.data, injured.truth["dwi"].weights.data)


def test_redraw_changes_the_noise_only(injured):
    other = redraw(injured, 99)
    same = redraw(injured, injured.spec.seed)
    only = redraw(injured, 99, series=("dwi",))
    assert other.truth["dwi"] is injured.truth["dwi"]
    np.testing.assert_array_equal(same.series["dwi"].data, injured.series["dwi"].data)
    np.testing.assert_array_equal(only.series["dwi"].data, other.series["dwi"].data)
    assert tuple(only.series) == ("dwi",)
    difference = other.series["MTS"].data - injured.series["MTS"].data
    strong = injured.truth["MTS"].noise_free.data > 8 * injured.truth["MTS"].sigma
    assert difference[strong].std() == pytest.approx(np.sqrt(2) * injured.truth["MTS"].sigma, rel=0.03)
    correlation = np.corrcoef(
        (other.series["MTS"].data - injured.truth["MTS"].noise_free.data)[strong],
        (injured.series["MTS"].data - injured.truth["MTS"].noise_free.data)[strong],
    )[0, 1]
    assert abs(correlation) < 0.02


def test_motion_moves_slices_by_what_the_truth_says():
    spec = PhantomSpec(seed=5, motion_mm=1.0, series=("dwi",), snr={"dwi": 1e5})
    moved, still = make_subject(spec), make_subject(spec.replace(motion_mm=0.0))
    shift = moved.truth["dwi"].motion
    assert shift.shape == (35, 15, 2)
    assert (shift[0] == 0).all()
    assert shift[1:].std() == pytest.approx(1.0, rel=0.1)
    np.testing.assert_array_equal(moved.series["dwi"].data[..., 0], still.series["dwi"].data[..., 0])
    mask = still.truth["dwi"].mask.data > 0
    v, k = 7, 6
    planes = [s.series["dwi"].data[:, :, k, v] * (s.series["dwi"].data[:, :, k, v] > 0) for s in (moved, still)]
    bright = [np.where(p > 0.5 * np.percentile(planes[1][mask[:, :, k]], 50), p, 0) for p in planes]
    window = np.zeros_like(planes[1])
    i, j = np.round(np.argwhere(mask[:, :, k]).mean(axis=0)).astype(int)
    window[i - 12 : i + 13, j - 9 : j + 10] = 1
    index = np.indices(window.shape)
    centres = [(index * b * window).sum(axis=(1, 2)) / (b * window).sum() for b in bright]
    np.testing.assert_allclose((centres[0] - centres[1]) * 0.9, shift[v, k], atol=0.35)


def test_sides_are_those_of_the_patient():
    spec = PhantomSpec(lesions=(Lesion("C4", side="left"),), series=("MTS",), rotation=(0.0, 0.0, 0.0))
    subject = make_subject(spec)
    truth = subject.truth["MTS"]
    hurt = np.argwhere(truth.maps["MTsat"].data < 2.7)
    assert len(hurt) > 5
    axis = subject.body.place([0, 0, (tables.level_edges()[3] + tables.level_edges()[4]) / 2])
    assert (truth.cord.grid.world(hurt)[:, 0] < axis[0]).all()


def test_background_is_dark_and_the_neck_is_not(healthy):
    data = healthy.truth["MTS"].noise_free.data[..., 1]
    assert (data[:10, -10:] == 0).all()
    assert (data[70:120, 60:80] > 0).mean() > 0.95
