"""What happens when a series shows no cord, or no landmark is known."""

import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from qcord.pipeline.run import run

SUBJECT = "sub-healthy01"


@pytest.fixture(scope="module")
def spoilt(raw, tmp_path_factory):
    """Phantom whose transfer series is pure noise, without landmarks."""
    root = tmp_path_factory.mktemp("spoilt") / "raw"
    (root / SUBJECT / "anat").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for file in sorted((raw / SUBJECT / "anat").glob("*MTS*")):
        shutil.copy(file, root / SUBJECT / "anat")
        if file.name.endswith(".nii.gz"):
            image = nib.load(file)
            noise = np.abs(generator.normal(0, 50, image.shape)).astype(np.int16)
            nib.save(nib.Nifti1Image(noise, image.affine, image.header), root / SUBJECT / "anat" / file.name)
    for file in (raw / SUBJECT / "anat").glob("*T2star*"):
        shutil.copy(file, root / SUBJECT / "anat")
    return root


def test_cord_is_carried_over_and_the_report_says_so(spoilt, tmp_path):
    outcome = run(spoilt, tmp_path, template="qcord")[0]
    assert outcome.error == ""
    page = outcome.report.read_text()
    assert "No cord was found in MTS; it was carried over from T2star" in page
    assert "No landmark or level map is known" in page
    home = tmp_path / SUBJECT
    sidecar = json.loads((home / "anat" / f"{SUBJECT}_space-orig_label-SC_desc-MTS_mask.json").read_text())
    assert sidecar["CordSource"] == "carried over from T2star"
    table = pd.read_csv(home / f"{SUBJECT}_desc-atlas_metrics.tsv", sep="\t")
    assert table["level"].isna().all()
    assert set(table["flag"]) == {"no_data"}  # noise has no ratio
    assert table["value"].isna().all()


def test_no_cord_anywhere_is_one_sentence(spoilt, tmp_path):
    root = tmp_path / "raw"
    shutil.copytree(spoilt, root)
    for file in (root / SUBJECT / "anat").glob("*T2star*"):
        file.unlink()
    outcome = run(root, tmp_path / "out", template="qcord")[0]
    assert outcome.report is None
    assert "No cord was found" in outcome.error
    assert not (tmp_path / "out" / SUBJECT).exists()


def test_one_disc_by_hand_fixes_the_levels(raw, spoilt, tmp_path):
    root = tmp_path / "raw"
    (root / SUBJECT / "anat").mkdir(parents=True)
    for file in (raw / SUBJECT / "anat").glob("*T2star*"):
        shutil.copy(file, root / SUBJECT / "anat")
    marks = pd.read_csv(next((raw / "derivatives" / "landmarks").rglob("*_landmarks.tsv")), sep="\t").set_index("name")
    x, y, z = marks.loc["C3/C4", ["x", "y", "z"]]
    outcome = run(root, tmp_path / "out", template="qcord", disc=[f"C3/C4={x},{y},{z}"])[0]
    assert outcome.error == ""
    name = f"{SUBJECT}_space-orig_seg-vertebrae_desc-T2star_dseg.nii.gz"
    own = np.asarray(nib.load(tmp_path / "out" / SUBJECT / "anat" / name).dataobj)
    true = np.asarray(nib.load(raw / "derivatives" / "truth" / SUBJECT / "anat" / name).dataobj)
    both = (own > 0) & (true > 0)
    assert (own[both] == true[both]).mean() > 0.9
