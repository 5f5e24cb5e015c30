"""Zeros in maps of other software, in ``qcord extract``."""

import json
import warnings

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from qcord import api
from qcord.core.errors import ApproximationWarning, GridMismatch, SetApartWarning

SHAPE = (9, 8, 3)
AFFINE = np.diag([-0.9, 0.9, 5.0, 1])
LEFT, RIGHT = np.s_[2:4, 2:6], np.s_[5:7, 2:6]
TRUTH = {"left": 40.0, "right": 45.0}


def save(path, data, affine=AFFINE):
    nib.save(nib.Nifti1Image(np.asarray(data, dtype=np.float32), affine), path)
    return path


@pytest.fixture
def atlas(tmp_path):
    fields = np.zeros((*SHAPE, 2))
    fields[(*LEFT, slice(None), 0)], fields[(*RIGHT, slice(None), 1)] = 1, 1
    names = pd.DataFrame({"index": [0, 1], "name": ["left", "right"], "mapping": [1, 2]})
    names.to_csv(tmp_path / "atlas.tsv", sep="\t", index=False)
    return save(tmp_path / "atlas.nii.gz", fields)


@pytest.fixture
def value():
    data = np.full(SHAPE, TRUTH["left"])
    data[5:] = TRUTH["right"]
    return data + np.random.default_rng(0).normal(0, 0.5, SHAPE)


def with_failures(value, filler, share=0.3):
    """The map as programs leave it: a share of its voxels failed, and everything outside the cord."""
    failed = np.random.default_rng(1).random(SHAPE) < share
    failed[:2] = failed[7:] = True
    return np.where(failed, filler, value), failed


@pytest.mark.parametrize("name", ["sub-01_MTRmap", "mtr", "dti_FA", "sub-01_param-fa_dwimap", "T2starmap"])
def test_zeros_of_a_metric_that_cannot_be_zero_are_missing(tmp_path, atlas, value, name):
    filled, failed = with_failures(value, 0)
    path, out = tmp_path / f"{name}.nii.gz", tmp_path / "out.tsv"
    save(path, filled)
    count = int(failed[LEFT].sum() + failed[RIGHT].sum())
    assert count > 5
    with pytest.warns(SetApartWarning, match=rf"{name}.nii.gz is 0 in {count} of 48 voxels.*taken as missing\.$"):
        table = api.extract(path, atlas, out, metric="MTR" if "T2" in name else "")
    assert json.loads(out.with_suffix(".json").read_text())["Notes"][0].count("taken as missing") == 1
    whole = table[(table["level"] == "") & (table["slice"] == "") & (table["estimator"] == "wa")].set_index("region")
    for region, truth in TRUTH.items():
        assert whole.loc[region, "value"] == pytest.approx(truth, abs=4 * 0.5 / np.sqrt(12))
    save(path, with_failures(value, np.nan)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pd.testing.assert_frame_equal(table, api.extract(path, atlas, out, metric="MTR" if "T2" in name else ""))
    assert "Notes" not in json.loads(out.with_suffix(".json").read_text())


def test_a_region_of_zeros_has_no_value_and_a_flag(tmp_path, atlas, value):
    value[LEFT] = 0
    value[(*RIGHT, 1)] = 0
    with pytest.warns(SetApartWarning, match="32 of 48"):
        table = api.extract(save(tmp_path / "MTR.nii.gz", value), atlas, by=["slice", "all"], estimator=["wa", "map"])
    gone = (table["region"] == "left") & (table["estimator"] == "wa") | (table["slice"] == "1")
    assert table.loc[gone, ["value", "se", "ci_low"]].isna().all(axis=None)
    assert set(table.loc[gone, "flag"]) == {"no_data"}
    kept = (table["region"] == "right") & (table["slice"] == "")
    assert table.loc[kept, "value"].to_numpy() == pytest.approx(TRUTH["right"], abs=0.5)


def test_integer_maps_and_maps_of_zeros_alone(tmp_path, atlas, value):
    filled, _ = with_failures(value, 0)
    path = tmp_path / "MTRmap.nii.gz"
    nib.save(nib.Nifti1Image(np.rint(filled).astype(np.int16), AFFINE), path)
    with pytest.warns(SetApartWarning):
        table = api.extract(path, atlas, by=["all"], estimator=["wa"])
    assert table["value"].min() > 39
    save(path, np.zeros(SHAPE))
    with pytest.warns(SetApartWarning, match="48 of 48"):
        table = api.extract(path, atlas, by=["all"])
    assert table["value"].isna().all()
    assert set(table["flag"]) == {"no_data"}


@pytest.mark.parametrize("metric", ["MWF", "ICVF", "MK", "lesion"])
def test_zeros_that_may_be_values_count_and_are_told(tmp_path, atlas, value, metric):
    filled, failed = with_failures(value, 0)
    path = save(tmp_path / "map.nii.gz", filled)
    with pytest.warns(ApproximationWarning, match=f"{metric} may be 0: they count as values; give NaN"):
        table = api.extract(path, atlas, metric=metric, by=["all"], estimator=["wa"]).set_index("region")
    share = 1 - failed[LEFT].mean()
    assert table.loc["left", "value"] == pytest.approx(share * TRUTH["left"], rel=0.02)


def test_maps_of_qcord_are_taken_as_they_are(tmp_path, atlas, value):
    filled, _ = with_failures(value, 0)
    path = save(tmp_path / "sub-01_MTRmap.nii.gz", filled)
    (tmp_path / "sub-01_MTRmap.json").write_text(json.dumps({"GeneratedBy": [{"Name": "qcord", "Version": "0"}]}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = api.extract(path, atlas, by=["all"], estimator=["wa"]).set_index("region")
    assert table.loc["left", "value"] == pytest.approx(filled[LEFT].mean(), rel=1e-6)
    (tmp_path / "sub-01_MTRmap.json").write_text(json.dumps({"GeneratedBy": [{"Name": "another"}]}))
    with pytest.warns(SetApartWarning):
        api.extract(path, atlas, by=["all"], estimator=["wa"])


def test_a_map_on_another_grid_is_refused_before_its_voxels_are_looked_up(tmp_path, atlas):
    small = save(tmp_path / "MTR.nii.gz", np.ones((3, 4, 2)))
    with pytest.raises(GridMismatch, match="MTR.nii.gz"):
        api.extract(small, atlas)


@pytest.mark.real
def test_a_real_map_cut_out_with_its_cord_mask(data_dir, tmp_path):
    crops = data_dir / "crops"
    image, mask = nib.load(crops / "mt_mtr.nii.gz"), nib.load(crops / "mt_mt1_seg.nii.gz").get_fdata() > 0.5
    whole = save(tmp_path / "whole_mtr.nii.gz", image.get_fdata(), image.affine)
    cut = save(tmp_path / "cut_mtr.nii.gz", np.where(mask, image.get_fdata(), 0), image.affine)
    how = {"by": ["all"], "estimator": ["map"], "region": ["white matter", "gray matter"]}
    expected = api.extract(whole, crops / "mt_label", **how)
    with pytest.warns(SetApartWarning, match="of tissue cannot be"):
        table = api.extract(cut, crops / "mt_label", **how)
    assert np.abs(table["value"] - expected["value"]).max() < 0.5
    assert (table["se"] < 1.1 * expected["se"]).all()
