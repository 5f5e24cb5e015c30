import json

import nibabel as nib
import numpy as np
import pytest

from qcord.core.errors import (
    GridMismatch,
    ImplausibleValue,
    MissingMetadata,
    UnknownName,
    UnreadableFile,
)
from qcord.ingest.bids import find_scans, find_visits, misnamed
from qcord.ingest.derivatives import find_cord_mask, find_derivatives, find_landmarks, find_levels
from qcord.ingest.landmarks import canonical_name, landmarks_of_label_image, parse_disc, read_landmarks
from qcord.ingest.nifti import read_image
from qcord.ingest.series import group_scans, load_diffusion, load_image, load_transfer


def save(path, shape=(7, 8, 9), value=None, offset=0.0, **sidecar):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(3).integers(1, 90, shape).astype(np.int16) if value is None else value
    affine = np.diag([-0.9, 1.1, 5.0, 1])
    affine[0, 3] = offset
    nib.save(nib.Nifti1Image(data, affine), path)
    if sidecar:
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))


@pytest.fixture
def study(tmp_path):
    root = tmp_path / "raw"
    anat = root / "sub-01" / "ses-a" / "anat"
    save(anat / "sub-01_ses-a_T2w.nii.gz")
    save(anat / "sub-01_ses-a_acq-MTon_MTS.nii.gz", FlipAngle=9, RepetitionTime=0.035)
    save(anat / "sub-01_ses-a_acq-MToff_MTS.nii.gz", FlipAngle=9, RepetitionTime=0.035)
    save(anat / "sub-01_ses-a_acq-T1w_MTS.nii.gz", FlipAngle=15, RepetitionTimeExcitation=0.015)
    save(anat / "sub-01_ses-a_run-2_T2star.nii.gz")
    save(root / "sub-01" / "ses-a" / "dwi" / "sub-01_ses-a_rec-average_dwi.nii.gz")
    dwi = root / "sub-02" / "dwi" / "sub-02_dwi.nii.gz"
    save(dwi, shape=(7, 8, 9, 3))
    (root / "dwi.bval").write_text("0 800 800")
    dwi.with_name("sub-02_dwi.bvec").write_text("0 1 0\n0 0 1\n0 0 0")
    (root / "dwi.json").write_text(json.dumps({"EchoTime": 0.06, "Manufacturer": "A"}))
    (root / "sub-02" / "sub-02_dwi.json").write_text(json.dumps({"EchoTime": 0.07}))
    return root


def groups_of(root, subject):
    visit = find_visits(root, [subject])[0]
    groups, skipped = group_scans(find_scans(root, visit))
    return visit, {g.token: g for g in groups}, skipped


def test_visits_and_selection(study):
    assert [v.prefix for v in find_visits(study)] == ["sub-01_ses-a", "sub-02"]
    assert [v.prefix for v in find_visits(study, ["sub-02"])] == ["sub-02"]
    with pytest.raises(UnknownName, match="sub-09 is not in the data set"):
        find_visits(study, ["09"])
    with pytest.raises(UnreadableFile, match="no sub-"):
        find_visits(study / "sub-01")


def test_older_names_form_one_triplet(study):
    _, groups, skipped = groups_of(study, "01")
    assert set(groups) == {"T2w", "MTS", "T2starRun2"}
    assert groups["MTS"].entities.name == "sub-01_ses-a_MTS.nii.gz"
    assert len(skipped) == 1
    assert "rec-average" in skipped[0][0]
    images, protocol = load_transfer(groups["MTS"])
    by_name = {i.label: row for i, row in zip(images, protocol["RepetitionTimeExcitation"], strict=True)}
    assert by_name["sub-01/ses-a/anat/sub-01_ses-a_acq-T1w_MTS.nii.gz"] == 0.015
    assert protocol["MTState"].tolist() == [False, True, False]
    assert protocol["FlipIndex"].tolist() == [1, 1, 2]


def test_sidecars_and_gradients_are_inherited(study):
    _, groups, _ = groups_of(study, "02")
    series = load_diffusion(groups["dwi"])
    assert series.image.metadata == {"EchoTime": 0.07, "Manufacturer": "A"}
    assert series.protocol["BValue"].tolist() == [0, 800, 800]


def test_shapes_and_second_directions_lie_beside_or_above(study):
    (study / "dwi.bdelta").write_text("LTE STE PTE")
    protocol = load_diffusion(groups_of(study, "02")[1]["dwi"]).protocol
    assert protocol["BDelta"].tolist() == [1, 0, -0.5]
    assert "SecondDirection" not in protocol
    (study / "sub-02" / "dwi" / "sub-02_dwi.bvec2").write_text("0 0 0\n0 0 0\n0 0 1")
    protocol = load_diffusion(groups_of(study, "02")[1]["dwi"]).protocol
    assert np.abs(protocol["SecondDirection"]).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_repetition_time_in_milliseconds_is_refused(study):
    path = study / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_acq-MTon_MTS.json"
    path.write_text(json.dumps({"FlipAngle": 9, "RepetitionTime": 35}))
    with pytest.raises(ImplausibleValue, match="milliseconds"):
        load_transfer(groups_of(study, "01")[1]["MTS"])


def test_unknown_transfer_state_is_named(study):
    anat = study / "sub-01" / "ses-a" / "anat"
    save(anat / "sub-01_ses-a_flip-1_MTR.nii.gz")
    with pytest.raises(MissingMetadata, match=r"MTState is absent for .*flip-1_MTR"):
        load_transfer(groups_of(study, "01")[1]["MTR"])


def test_empty_volume_is_named(study):
    data = np.ones((7, 8, 9, 3), np.float32)
    data[..., 2] = np.nan
    save(study / "sub-02" / "dwi" / "sub-02_dwi.nii.gz", value=data)
    with pytest.raises(ImplausibleValue, match="Volume 2 of sub-02/dwi"):
        load_diffusion(groups_of(study, "02")[1]["dwi"])


def test_missing_gradients_are_named(study):
    (study / "dwi.bval").unlink()
    with pytest.raises(MissingMetadata, match=r"has no \.bval file"):
        load_diffusion(groups_of(study, "02")[1]["dwi"])


def test_derivatives_by_both_kinds_of_names(study, tmp_path):
    visit, groups, _ = groups_of(study, "01")
    mask = np.zeros((7, 8, 9), np.uint8)
    mask[3, 4] = 1
    labels = tmp_path / "labels" / "sub-01" / "ses-a" / "anat"
    save(labels / "sub-01_ses-a_T2w_label-SC_seg.nii.gz", value=mask)
    save(labels / "sub-01_ses-a_space-orig_label-SC_desc-MTon_mask.nii.gz", value=mask)
    save(labels / "sub-01_ses-a_space-orig_seg-vertebrae_desc-MTS_dseg.nii.gz", value=mask * 3)
    (labels / "sub-01_ses-a_desc-T2wDiscs_landmarks.tsv").write_text("name\tx\ty\tz\nC2-C3\t1\t2\t3\n")
    found = find_derivatives([tmp_path / "labels"], visit)
    grid = load_image(groups["T2w"]).grid
    assert find_cord_mask(found, groups["T2w"], grid).label.endswith("T2w_label-SC_seg.nii.gz")
    assert find_cord_mask(found, groups["MTS"], grid).label.endswith("desc-MTon_mask.nii.gz")
    assert find_cord_mask(found, groups["T2starRun2"], grid) is None
    assert find_levels(found, groups["MTS"], grid).data.max() == 3
    assert find_landmarks(found)[0].name == "C2/C3"


def test_mask_on_another_grid_is_refused(study, tmp_path):
    visit, groups, _ = groups_of(study, "01")
    labels = tmp_path / "labels"
    mask = np.ones((7, 8, 9), np.uint8)
    save(labels / "sub-01_ses-a_space-orig_label-SC_desc-T2w_mask.nii.gz", value=mask, offset=4.0)
    found = find_derivatives([labels], visit)
    with pytest.raises(GridMismatch, match="expected the same grid"):
        find_cord_mask(found, groups["T2w"], load_image(groups["T2w"]).grid)


def test_other_session_is_left_alone(study, tmp_path):
    save(tmp_path / "labels" / "sub-02_ses-b_space-orig_label-SC_mask.nii.gz")
    visit, _, _ = groups_of(study, "02")
    assert find_derivatives([tmp_path / "labels"], visit).files == ()


def test_landmark_tables(tmp_path):
    assert canonical_name("c2-c3") == "C2/C3"
    assert canonical_name("T1") == "T1"
    with pytest.raises(UnknownName, match="X9"):
        canonical_name("X9")
    (tmp_path / "a.tsv").write_text("name\tx\ty\nC3\t1\t2\n")
    with pytest.raises(MissingMetadata, match="no column z"):
        read_landmarks(tmp_path / "a.tsv")
    (tmp_path / "b.tsv").write_text("name\tx\ty\tz\nC3\t1\t2\tfoo\n")
    with pytest.raises(ImplausibleValue, match="not a number"):
        read_landmarks(tmp_path / "b.tsv")
    assert parse_disc("C2/C3=1,2.5,-3").world == (1, 2.5, -3)
    with pytest.raises(ImplausibleValue, match="expected C2/C3=x,y,z"):
        parse_disc("C2/C3=1,2")


def test_sessions_without_their_prefix_do_not_vanish(tmp_path):
    save(tmp_path / "sub-01" / "02" / "anat" / "sub-01_T2w.nii.gz")
    save(tmp_path / "sub-02" / "anat" / "sub-02_T2w.nii.gz")
    visits = find_visits(tmp_path)
    assert [v.prefix for v in visits] == ["sub-01", "sub-02"]
    with pytest.raises(UnknownName, match="holds a folder '02' with scans, expected the name ses-02"):
        find_scans(tmp_path, visits[0])
    assert len(find_scans(tmp_path, visits[1])) == 1


def test_files_of_others_and_files_twice_are_refused(tmp_path):
    save(tmp_path / "sub-01" / "anat" / "sub-07_T2w.nii.gz")
    with pytest.raises(ImplausibleValue, match=r"sub-07_T2w.nii.gz lies in the folder of sub-01, .* this subject"):
        find_scans(tmp_path, find_visits(tmp_path)[0])
    save(tmp_path / "sub-02" / "ses-a" / "anat" / "sub-02_ses-b_T2w.nii.gz")
    with pytest.raises(ImplausibleValue, match=r"lies in the folder of sub-02/ses-a, .* this session"):
        find_scans(tmp_path, find_visits(tmp_path)[1])
    save(tmp_path / "sub-03" / "anat" / "sub-03_T2w.nii.gz")
    save(tmp_path / "sub-03" / "anat" / "sub-03_T2w.nii")
    with pytest.raises(ImplausibleValue, match="is there as .nii and as .nii.gz"):
        find_scans(tmp_path, find_visits(tmp_path)[2])


def test_files_that_are_not_bids_are_named(tmp_path):
    save(tmp_path / "sub-01" / "anat" / "sub-01_acq-low-res_T2w.nii.gz")
    visit = find_visits(tmp_path)[0]
    assert find_scans(tmp_path, visit) == ()
    ((name, reason),) = misnamed(tmp_path, visit)
    assert name == "sub-01/anat/sub-01_acq-low-res_T2w.nii.gz"
    assert "'acq-low-res'" in reason


def test_compressed_and_uncompressed_files_are_one_series(tmp_path):
    save(tmp_path / "sub-01" / "anat" / "sub-01_mt-on_MTR.nii")
    save(tmp_path / "sub-01" / "anat" / "sub-01_mt-off_MTR.nii.gz")
    groups, _ = group_scans(find_scans(tmp_path, find_visits(tmp_path)[0]))
    assert [g.entities.name for g in groups] == ["sub-01_MTR.nii.gz"]
    assert len(groups[0].scans) == 2


def test_landmarks_that_are_none(tmp_path):
    with pytest.raises(ImplausibleValue, match="does not give a disc"):
        parse_disc("C2/C3=nan,1,2")
    save(tmp_path / "picture.nii.gz", value=np.arange(504).reshape(7, 8, 9).astype(np.int16))
    with pytest.raises(ImplausibleValue, match="expected the whole numbers of discs"):
        landmarks_of_label_image(read_image(tmp_path / "picture.nii.gz"))
    (tmp_path / "points.csv").write_text("name,x,y,z\nC3,1,2,3\n")
    assert read_landmarks(tmp_path / "points.csv")[0].world == (1, 2, 3)
