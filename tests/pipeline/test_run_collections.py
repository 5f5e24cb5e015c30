"""The whole run on a data set with gradient echoes, flip angles and a transmit field."""

import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from qcord import api
from qcord.models.registry import get

SUBJECT = "sub-healthy01"
T1, R2STAR, FIELD = 0.95, 25.0, 1.1


def written(folder, name, data, like, **sidecar):
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(data, dtype=np.float32), like.affine), folder / f"{SUBJECT}_{name}.nii.gz")
    (folder / f"{SUBJECT}_{name}.json").write_text(json.dumps(sidecar))


def middle(path, step=1):
    """Middle half of the first volume in plane, smoothed, every ``step`` voxels, as an image."""
    image = nib.load(path)
    image = image.slicer[..., 0] if len(image.shape) == 4 else image
    quarter = [n // 4 for n in image.shape[:2]]
    image = image.slicer[quarter[0] : -quarter[0] : step, quarter[1] : -quarter[1] : step]
    data = gaussian_filter(np.asarray(image.dataobj, dtype=float), (1, 1, 0))
    return nib.Nifti1Image(data, image.affine)


def noisy(signal, sigma, generator):
    return np.hypot(
        signal + sigma * generator.standard_normal(signal.shape), sigma * generator.standard_normal(signal.shape)
    )


@pytest.fixture(scope="module")
def collections(raw, tmp_path_factory):
    """Raw data set with MEGRE, VFA, TB1DAM, MP2RAGE, and MP2RAGE without polarity; one tissue everywhere."""
    root = tmp_path_factory.mktemp("collections") / "raw"
    anat = root / SUBJECT / "anat"
    anat.mkdir(parents=True)
    shutil.copy(raw / "dataset_description.json", root)
    for file in (raw / SUBJECT / "anat").glob("*_T2w.*"):
        shutil.copy(file, anat)
    generator = np.random.default_rng(0)
    like = middle(raw / SUBJECT / "anat" / f"{SUBJECT}_T2star.nii.gz", 2)
    shape = like.get_fdata()
    level = np.quantile(shape, 0.9)
    for k, time in enumerate((0.004, 0.009, 0.014, 0.019, 0.024)):
        echo = noisy(shape * np.exp(-R2STAR * time), 0.02 * level, generator)
        written(anat, f"echo-{k + 1}_MEGRE", echo, like, EchoTime=time, FlipAngle=30, RepetitionTime=0.6)
    like = middle(raw / SUBJECT / "anat" / f"{SUBJECT}_flip-1_mt-on_MTS.nii.gz")
    shape = 20 * like.get_fdata()
    protocol = get("vfa").example()
    relative = get("vfa").signal(np.array([1.0, 1 / T1]), protocol, np.array([FIELD]))
    for k in range(3):
        volume = noisy(shape * relative[k], 0.002 * np.quantile(shape, 0.9), generator)
        angle = float(protocol["FlipAngle"][k])
        written(anat, f"flip-{k + 1}_VFA", volume, like, FlipAngle=angle, RepetitionTimeExcitation=0.02)
    angles = get("double-angle").signal(np.array([1.0, FIELD]), get("double-angle").example(), np.zeros(0))
    for k in range(2):
        coarse = nib.Nifti1Image(shape[::2, ::2], like.affine @ np.diag([2, 2, 1, 1]))
        volume = noisy(shape[::2, ::2] * angles[k], 0.01 * np.quantile(shape, 0.9), generator)
        written(root / SUBJECT / "fmap", f"flip-{k + 1}_TB1DAM", volume, coarse, FlipAngle=60.0 * (k + 1))
    protocol = get("mp2rage").example()
    shape, like = shape[::2, ::2], coarse
    signed = shape[..., None] * get("mp2rage").signal(np.array([1.0, 1 / T1]), protocol, np.array([FIELD, 0.96]))
    signed += 0.001 * np.quantile(shape, 0.9) * generator.standard_normal(signed.shape)
    written(anat, "UNIT1", signed.prod(axis=-1) / (signed**2).sum(axis=-1), like)
    for k in range(2):
        trains = {"InversionTime": 0.7 + 1.8 * k, "FlipAngle": 4 + k, "RepetitionTimeExcitation": 0.0068}
        for name in (f"inv-{k + 1}_MP2RAGE", f"run-2_inv-{k + 1}_MP2RAGE"):
            written(anat, name, np.abs(signed[..., k]), like, **trains, RepetitionTime=5.0, NumberShots=[32, 48])
    return root


@pytest.fixture(scope="module")
def results(collections, raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("collections") / "out"
    landmarks = [raw / "derivatives" / "landmarks"]
    outcomes = api.run(collections, out, derivatives=landmarks, template="qcord", n_threads=1)
    assert [o.error for o in outcomes] == [""]
    return out / SUBJECT


def inside(results, token):
    mask = nib.load(results / "anat" / f"{SUBJECT}_space-orig_label-SC_desc-{token}_mask.nii.gz")
    return np.asarray(mask.dataobj) > 0


@pytest.mark.slow
def test_maps_are_right_and_named_by_bids(results):
    rate = np.asarray(nib.load(results / "anat" / f"{SUBJECT}_R2starmap.nii.gz").dataobj)
    assert np.median(rate[inside(results, "MEGRE")]) == pytest.approx(R2STAR, rel=0.02)
    for source, name in (("MP2RAGE", "T1map"), ("VFA", "acq-VFA_T1map")):  # two series give one map
        time = np.asarray(nib.load(results / "anat" / f"{SUBJECT}_{name}.nii.gz").dataobj)
        assert np.nanmedian(time[inside(results, source)]) == pytest.approx(T1, rel=0.02)
    field = nib.load(results / "fmap" / f"{SUBJECT}_TB1map.nii.gz")
    assert np.nanmedian(np.asarray(field.dataobj)) == pytest.approx(100 * FIELD, rel=0.01)
    assert json.loads((results / "fmap" / f"{SUBJECT}_TB1map.json").read_text())["Units"] == "percent"
    for name in (
        "desc-se_R2starmap",
        "desc-bias_R2starmap",
        "desc-flag_R2starmap",
        "desc-se_T1map",
        "M0map",
        "T2starmap",
    ):
        assert (results / "anat" / f"{SUBJECT}_{name}.nii.gz").is_file(), name
    assert (results / "fmap" / f"{SUBJECT}_desc-se_TB1map.nii.gz").is_file()


@pytest.mark.slow
def test_the_error_of_the_transmit_field_is_in_maps_and_tables(results):
    cord, anat = inside(results, "VFA"), results / "anat"
    value, shift, error = (
        np.asarray(nib.load(anat / f"{SUBJECT}_acq-VFA_{name}.nii.gz").dataobj, dtype=float)[cord]
        for name in ("T1map", "desc-shiftB1_T1map", "desc-se_T1map")
    )
    field = np.asarray(nib.load(results / "fmap" / f"{SUBJECT}_desc-se_TB1map.nii.gz").dataobj, dtype=float)
    assert np.nanmedian(shift / value) < 0
    assert np.nanmax(np.abs(shift / value)) < 3 * np.nanmax(field) / (100 * FIELD)
    assert (np.abs(shift) < error)[np.isfinite(shift)].all()
    assert not list(anat.glob("*desc-shift*_R2starmap.nii.gz"))
    table = pd.read_csv(results / f"{SUBJECT}_desc-atlas_metrics.tsv", sep="\t")
    rows = table[(table["source"] == "VFA") & (table["metric"] == "T1") & (table["region"] == "white matter")]
    rows = rows[(rows["estimator"] == "wa") & rows["level"].isna() & rows["slice"].isna()]
    assert len(rows) == 1
    assert rows["se"].item() ** 2 - rows["se_noise"].item() ** 2 > (0.9 * np.nanmedian(np.abs(shift))) ** 2
    sidecar = json.loads((anat / f"{SUBJECT}_acq-VFA_desc-se_T1map.json").read_text())
    assert "given B1" in sidecar["Description"]


@pytest.mark.slow
def test_tables_hold_the_values_and_notes_say_what_was_done(results):
    table = pd.read_csv(results / f"{SUBJECT}_desc-atlas_metrics.tsv", sep="\t")
    whole = table[(table["region"] == "white matter") & (table["estimator"] == "wa") & table["slice"].isna()]
    found = whole.groupby(["source", "metric"])["value"].median()
    assert found["VFA", "T1"] == pytest.approx(T1, rel=0.02)
    assert found["MP2RAGE", "T1"] == pytest.approx(T1, rel=0.02)
    assert found["MEGRE", "R2star"] == pytest.approx(R2STAR, rel=0.02)
    assert found["MEGRE", "T2star"] == pytest.approx(1 / R2STAR, rel=0.03)
    notes = json.loads((results / f"{SUBJECT}_desc-atlas_metrics.json").read_text())["Notes"]
    assert "T1 of VFA: Corrected by the transmit field of TB1DAM." in notes
    assert any(n.startswith("MP2RAGERun2 could not be used in full: ") and "without polarity" in n for n in notes)
    page = (results / f"{SUBJECT}.html").read_text(encoding="utf-8")
    assert "doi:10.1006/jmra.1993.1133" in page or "10.1006/jmra.1993.1133" in page
