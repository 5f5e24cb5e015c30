import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from qcord import api
from qcord.core.errors import MissingMetadata, UnknownName, UnreadableFile
from qcord.core.labels import CSF, TRACTS
from qcord.pipeline.settings import Settings, read_settings

SUBJECT = "sub-healthy01"


def test_functions_are_found_by_the_names_of_the_verbs():
    for name in ("run", "demo", "phantom", "fit", "segment", "register", "extract", "assets", "doctor"):
        assert callable(getattr(api, name))
        assert name in dir(api)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = api.nonsense


def test_fit_writes_each_map_with_its_error(raw, output, tmp_path):
    maps = api.fit("tensor", [raw / SUBJECT / "dwi" / f"{SUBJECT}_dwi.nii.gz"], tmp_path)
    assert {"FA", "MD", "AD", "RD"} <= set(maps)
    value = np.asarray(nib.load(maps["FA"]).dataobj)
    error = np.asarray(nib.load(str(maps["FA"]).replace("_dwimap", "_desc-se_dwimap")).dataobj)
    assert value.shape == error.shape
    mask = nib.load(output / SUBJECT / "anat" / f"{SUBJECT}_space-orig_label-SC_desc-dwi_mask.nii.gz")
    inside = np.asarray(mask.dataobj) > 0
    assert np.isfinite(value[inside]).mean() > 0.97
    assert 0.02 < np.nanmedian(error[inside]) < 0.3


def test_transmit_field_enters_in_percent_or_as_a_factor(raw, tmp_path):
    images = sorted((raw / SUBJECT / "anat").glob("*MTS.nii.gz"))
    like = nib.load(images[0])
    found = {}
    for name, value in (("factor", 1.1), ("percent", 110.0), ("none", None)):
        field = None
        if value is not None:
            field = tmp_path / f"{name}.nii.gz"
            nib.save(nib.Nifti1Image(np.full(like.shape, value, np.float32), like.affine), field)
        maps = api.fit("mtsat", images, tmp_path / name, b1=field)
        found[name] = np.asarray(nib.load(maps["T1"]).dataobj)
    np.testing.assert_allclose(found["factor"], found["percent"], rtol=1e-4)
    ratio = np.nanmedian(found["factor"] / found["none"])
    np.testing.assert_allclose(ratio, 1 / 1.1**2, rtol=0.01)  # R1 grows with the square of the field


def test_segment_takes_a_series_or_a_volume(raw, output, tmp_path):
    paths = api.segment(raw / SUBJECT / "dwi" / f"{SUBJECT}_dwi.nii.gz", tmp_path)
    mask = np.asarray(nib.load(paths["mask"]).dataobj) > 0
    other = nib.load(output / SUBJECT / "anat" / f"{SUBJECT}_space-orig_label-SC_desc-dwi_mask.nii.gz")
    other = np.asarray(other.dataobj) > 0
    assert 2 * (mask & other).sum() / (mask.sum() + other.sum()) > 0.95
    with pytest.raises(UnreadableFile, match="does not exist"):
        api.segment(raw / "nothing.nii.gz", tmp_path)


def test_register_and_extract_agree_with_the_whole_run(raw, output, tmp_path):
    image = raw / SUBJECT / "anat" / f"{SUBJECT}_flip-1_mt-on_MTS.nii.gz"
    anat = output / SUBJECT / "anat"
    score = api.register(
        image,
        tmp_path,
        mask=anat / f"{SUBJECT}_space-orig_label-SC_desc-MTS_probseg.nii.gz",
        levels=anat / f"{SUBJECT}_space-orig_seg-vertebrae_desc-MTS_dseg.nii.gz",
        template="qcord",
    )
    assert score["dice_median"] > 0.95
    atlas = next(tmp_path.rglob("*_seg-qcord_*probseg.nii.gz"))
    names = pd.read_csv(str(atlas).replace(".nii.gz", ".tsv"), sep="\t")
    assert list(names["name"])[:36] == list(TRACTS)
    table = api.extract(anat / f"{SUBJECT}_MTRmap.nii.gz", atlas, by=["level"], estimator=["map"])
    whole = pd.read_csv(output / SUBJECT / f"{SUBJECT}_desc-atlas_metrics.tsv", sep="\t")
    chosen = (whole["metric"] == "MTR") & (whole["estimator"] == "map") & whole["slice"].isna()
    both = table.merge(whole[chosen], on=["region", "level"], suffixes=("", "_whole"))
    big = (both["n_eff"] > 20) & (both["region"] != CSF)  # voxels that are mostly cord tell little of fluid
    np.testing.assert_allclose(both.loc[big, "value"], both.loc[big, "value_whole"], atol=1.5)
    atlas.with_name(atlas.name.replace(".nii.gz", ".tsv")).unlink()
    with pytest.raises(MissingMetadata, match="no table of names"):
        api.extract(anat / f"{SUBJECT}_MTRmap.nii.gz", atlas)


def test_extract_writes_tables_in_both_forms(output, tmp_path, raw):
    anat = output / SUBJECT / "anat"
    mask = anat / f"{SUBJECT}_space-orig_label-SC_desc-MTS_mask.nii.gz"
    api.register(anat / f"{SUBJECT}_MTRmap.nii.gz", tmp_path, mask=mask, disc=["C4/C5=-3,8,12"], template="qcord")
    atlas = next(tmp_path.rglob("*_seg-qcord_*probseg.nii.gz"))
    std = anat / f"{SUBJECT}_desc-se_MTRmap.nii.gz"
    for name, sep in (("a.tsv", "\t"), ("a.csv", ",")):
        api.extract(
            anat / f"{SUBJECT}_MTRmap.nii.gz", atlas, tmp_path / name, std=std, region=["white matter"], by=["all"]
        )
        table = pd.read_csv(tmp_path / name, sep=sep)
        assert list(table["estimator"]) == ["wa", "ml", "map"]
        assert (table["metric"] == "MTR").all()
        assert (table["se"] > 0).all()
    assert "flag" in json.loads((tmp_path / "a.json").read_text())


def test_doctor_finds_this_machine_fit():
    findings = api.doctor()
    assert {f.name for f in findings} >= {"python", "numpy", "cache", "template", "cord network"}
    assert all(f.good for f in findings), [f for f in findings if not f.good]


def test_settings_are_checked(tmp_path):
    assert read_settings(None) == Settings()
    path = tmp_path / "a.toml"
    path.write_text('motion = false\ntensor_method = "irls"\n')
    assert read_settings(path).tensor_method == "irls"
    path.write_text("motion = [")
    with pytest.raises(UnreadableFile, match="TOML"):
        read_settings(path)


def test_phantom_cohort_differs_by_subject_and_not_by_run(tmp_path):
    from qcord.phantom.spec import preset
    from qcord.pipeline.phantom import cohort

    first, again = cohort(preset("healthy"), 3, 5), cohort(preset("healthy"), 3, 5)
    assert [s.area_factor for s in first] == [s.area_factor for s in again]
    assert len({s.area_factor for s in first}) == 3
    assert [s.label for s in first] == ["healthy01", "healthy02", "healthy03"]
    with pytest.raises(UnknownName, match="preset"):
        api.phantom(tmp_path, kind="unheard")
