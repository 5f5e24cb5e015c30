"""Transfer series of files that are 0 where they have no value."""

import shutil

import nibabel as nib
import numpy as np
import pytest

from qcord.ingest.bids import find_scans, find_visits
from qcord.ingest.series import group_scans
from qcord.pipeline.collect import collect
from qcord.pipeline.prepare import prepare
from qcord.pipeline.settings import Settings

SUBJECT = "sub-healthy01"


@pytest.fixture
def files(raw, tmp_path):
    """The transfer series of the phantom alone."""
    folder = tmp_path / SUBJECT / "anat"
    folder.mkdir(parents=True)
    shutil.copy(raw / "dataset_description.json", tmp_path)
    for path in (raw / SUBJECT / "anat").glob("*MTS*"):
        shutil.copy(path, folder)
    return folder


def group_of(folder):
    groups, _ = group_scans(find_scans(folder.parents[1], find_visits(folder.parents[1])[0]))
    return next(g for g in groups if g.kind == "mt")


def spoil(folder, value, share=0.04):
    for k, path in enumerate(sorted(folder.glob("*_MTS.nii.gz"))):
        image = nib.load(path)
        data = image.get_fdata(dtype=np.float32)
        data[np.random.default_rng(k).random(data.shape) < share] = value
        nib.save(nib.Nifti1Image(data, image.affine), path)


def test_zeros_amidst_tissue_are_missing_as_nan_is(files):
    whole = collect(group_of(files))
    assert not any("no value" in note for note in whole.notes)
    spoil(files, 0)
    group = group_of(files)
    found = collect(group)
    bright = np.asarray(whole.series.data) > 0.5 * np.nanquantile(whole.series.data, 0.9)
    assert not (np.asarray(found.series.data)[bright] == 0).any()
    assert np.isnan(np.asarray(found.series.data)[bright]).mean() == pytest.approx(0.04, rel=0.15)
    assert sum("has no value in" in note for note in found.notes) == len(group.scans)
    assert np.median(found.sigma.data) == pytest.approx(np.median(whole.sigma.data), rel=0.08)
    moved = np.asarray(prepare(group, Settings()).series.data)[bright]
    assert (np.nan_to_num(moved, nan=1e9) > 0.3 * np.asarray(whole.series.data)[bright]).mean() > 0.999


def test_noise_and_note_of_a_series_with_nan(files):
    whole = collect(group_of(files))
    spoil(files, np.nan)
    found = collect(group_of(files))
    assert np.median(found.sigma.data) == pytest.approx(np.median(whole.sigma.data), rel=0.08)
    assert any(note.endswith("has no value in 4.0 % of its voxels.") for note in found.notes)


def test_what_the_files_hold_is_passed_on_to_the_last_bit(files):
    group = group_of(files)
    found = collect(group)
    for scan, image in zip(group.scans, found.images, strict=True):
        stored = nib.as_closest_canonical(nib.load(scan.path)).get_fdata(dtype=np.float32)
        gone = np.isnan(image.data)
        assert gone.mean() < 1e-4
        np.testing.assert_array_equal(np.asarray(image.data)[~gone], stored[~gone])
