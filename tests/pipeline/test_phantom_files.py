"""Phantom cohorts on disk: BIDS names, tables of people, truth beside them, and the same bytes whatever the machine."""

import hashlib
import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from qcord import api
from qcord.core.errors import ImplausibleValue, UnknownName
from qcord.core.protocol import Protocol
from qcord.ingest.bids import find_scans, find_visits
from qcord.ingest.series import group_scans, load_diffusion
from qcord.phantom.cohort import cohort
from qcord.phantom.effects import usual_effects
from qcord.phantom.scan import Scan, half_sphere
from qcord.phantom.spec import preset
from qcord.pipeline.phantom import write_phantoms

SHELLS = Protocol(
    {
        "BValue": [0.0] * 2 + [700.0] * 6 + [2000.0] * 6,
        "Direction": np.concatenate([np.zeros((2, 3)), *[half_sphere(6)] * 2]),
    }
)


def _specs(subjects=2):
    scans = (
        Scan("tensor", SHELLS, name="shells", matrix=(40, 30, 4)),
        Scan("mtsat", matrix=(40, 40, 4)),
        Scan(
            "mtsat-ernst",
            Protocol({"FlipAngle": [4.0, 20], "RepetitionTimeExcitation": [0.02] * 2, "MTState": [0, 0]}),
            name="vfa",
            matrix=(40, 40, 4),
        ),
    )
    base = preset("dcm").replace(scans=scans, series=("shells", "mtsat", "vfa"), effects=usual_effects("all"))
    return cohort(base, subjects, 7)


def _hashes(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_phantoms(_specs(), tmp_path_factory.mktemp("cohort") / "raw")


def test_same_seed_same_bytes_on_any_number_of_threads_and_processes(written, tmp_path):
    with threadpool_limits(2):
        other = write_phantoms(_specs(), tmp_path / "other", n_jobs=2)
    first = _hashes(written)
    assert first == _hashes(other)
    assert len(first) > 60


def test_people_and_what_is_true_of_them(written):
    people = pd.read_csv(written / "participants.tsv", sep="\t")
    assert list(people["participant_id"]) == ["sub-dcm01", "sub-dcm02"]
    assert set(people["sex"]) <= {"F", "M"}
    assert people["age"].between(18, 90).all()
    described = json.loads((written / "participants.json").read_text())
    assert set(described) == set(people.columns) - {"participant_id"}
    truth = pd.read_csv(written / "derivatives" / "truth" / "people.tsv", sep="\t")
    assert list(truth["seed"]) == [7000, 7001]
    regions = pd.read_csv(written / "derivatives/truth/sub-dcm01/sub-dcm01_desc-regions_truth.tsv", sep="\t")
    assert {"FA", "ICVF", "MTsat", "T1"} <= set(regions["metric"])


def test_subjects_join_those_that_are_there(tmp_path):
    small = (Scan("mtsat", matrix=(30, 30, 3)),)
    for kind in ("healthy", "lesion"):
        spec = cohort(preset(kind).replace(scans=small, series=("mtsat",)), 1, 1)
        write_phantoms(spec, tmp_path)
    assert list(pd.read_csv(tmp_path / "participants.tsv", sep="\t")["participant_id"]) == [
        "sub-healthy01",
        "sub-lesion01",
    ]


def test_series_are_read_back(written):
    visit = find_visits(written)[0]
    groups, _ = group_scans(find_scans(written, visit))
    (shells,) = [g for g in groups if g.kind == "dwi"]
    assert shells.token == "dwiShells"
    series = load_diffusion(shells)
    np.testing.assert_allclose(series.protocol["BValue"], SHELLS["BValue"])
    np.testing.assert_allclose(series.protocol["Direction"], SHELLS["Direction"], atol=1e-5)
    truth = written / "derivatives" / "truth" / "sub-dcm01"
    assert (truth / "anat" / "sub-dcm01_space-orig_label-SC_desc-dwiShells_mask.nii.gz").is_file()
    assert (truth / "dwi" / "sub-dcm01_acq-shells_model-tensor_param-fa_dwimap.nii.gz").is_file()
    assert (truth / "dwi" / "sub-dcm01_acq-shells_model-truth_param-icvf_dwimap.nii.gz").is_file()
    field = nib.load(truth / "dwi" / "sub-dcm01_acq-shells_fieldmap.nii.gz")
    assert field.shape == (40, 30, 4)
    assert json.loads((truth / "dwi" / "sub-dcm01_acq-shells_fieldmap.json").read_text())["Units"] == "hertz"


def test_files_of_other_contrasts_carry_their_settings(written):
    anat = written / "sub-dcm01" / "anat"
    assert sorted(p.name for p in anat.glob("*VFA.nii.gz")) == [
        "sub-dcm01_acq-vfa_flip-1_VFA.nii.gz",
        "sub-dcm01_acq-vfa_flip-2_VFA.nii.gz",
    ]
    sidecar = json.loads((anat / "sub-dcm01_acq-vfa_flip-2_VFA.json").read_text())
    assert (sidecar["FlipAngle"], sidecar["RepetitionTimeExcitation"]) == (20.0, 0.02)
    assert sidecar["InstitutionName"] == "site01"
    assert len(list(anat.glob("*acq-mtsat_*MTS.nii.gz"))) == 3
    states = [json.loads(p.read_text())["MTState"] for p in sorted(anat.glob("*acq-mtsat_*MTS.json"))]
    assert states == [False, True, False]
    percent = nib.load(written / "sub-dcm01" / "fmap" / "sub-dcm01_TB1map.nii.gz").get_fdata()
    assert 60 < percent.mean() < 140


def test_verb_takes_contrasts_and_effects(tmp_path):
    out = api.phantom(tmp_path / "a", kind="ms", contrasts=["dwi", "epi"], effects=["susceptibility"], tesla=1.5)
    fmap = json.loads((out / "sub-ms01" / "fmap" / "sub-ms01_dir-PA_epi.json").read_text())
    dwi = json.loads((out / "sub-ms01" / "dwi" / "sub-ms01_dwi.json").read_text())
    assert (fmap["PhaseEncodingDirection"], dwi["PhaseEncodingDirection"]) == ("j", "j-")
    assert fmap["IntendedFor"] == ["bids::sub-ms01/dwi/sub-ms01_dwi.nii.gz"]
    assert dwi["MagneticFieldStrength"] == 1.5
    assert not (out / "sub-ms01" / "anat").exists()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"subjects": 0}, ImplausibleValue, "number of subjects is 0"),
        ({"sites": 0}, ImplausibleValue, "number of sites is 0"),
        ({"kind": "unheard"}, UnknownName, "healthy, dcm, ms"),
        ({"contrasts": ["T3w"]}, UnknownName, "'T3w' is not a series"),
        ({"effects": ["ghosts"]}, UnknownName, "'ghosts' is not an effect"),
        ({"tesla": 4.0}, ImplausibleValue, "field strength is 4"),
    ],
)
def test_impossible_wishes(tmp_path, settings, error, message):
    with pytest.raises(error, match=message):
        api.phantom(tmp_path / "a", **settings)
    assert not (tmp_path / "a").exists(), "nothing is written"
