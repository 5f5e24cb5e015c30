"""Quantitative collections: joined files, columns from sidecars in all spellings, errors of one sentence."""

import json
import tarfile

import nibabel as nib
import numpy as np
import pytest

from qcord.core.entities import Entities
from qcord.core.errors import ImplausibleValue, MissingMetadata
from qcord.core.grid import Grid
from qcord.core.image import Image
from qcord.ingest import collection
from qcord.ingest.bids import Scan, find_scans, find_visits
from qcord.ingest.collection import load_collection
from qcord.ingest.series import Group, group_scans, load_image


def save(path, shape=(7, 8, 9), value=None, **sidecar):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(3).integers(1, 90, shape).astype(np.int16) if value is None else value
    nib.save(nib.Nifti1Image(data, np.diag([-0.9, 1.1, 5.0, 1])), path)
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))


def groups_of(root):
    groups, skipped = group_scans(find_scans(root, find_visits(root)[0]))
    return {g.token: g for g in groups}, dict(skipped)


@pytest.fixture
def anat(tmp_path):
    return tmp_path / "sub-01" / "anat"


def test_files_are_joined_by_their_linking_entities(anat, tmp_path):
    for k in (1, 2, 3):
        save(anat / f"sub-01_flip-{k}_VFA.nii.gz", FlipAngle=5 * k, RepetitionTimeExcitation=0.02)
        save(anat / f"sub-01_inv-{k}_IRT1.nii.gz", InversionTime=0.4 * k, RepetitionTime=3.5)
        save(anat / f"sub-01_acq-low_echo-{k}_MESE.nii.gz", EchoTime=0.01 * k)
        save(anat / f"sub-01_echo-{k}_MEGRE.nii.gz", EchoTime=0.004 * k)
        save(
            anat / f"sub-01_run-1_echo-{k}_flip-1_mt-on_MPM.nii.gz",
            EchoTime=0.002 * k,
            FlipAngle=6,
            RepetitionTime=0.025,
        )
    for k in (1, 2):
        save(anat / f"sub-01_inv-{k}_part-mag_MP2RAGE.nii.gz", InversionTime=0.9 * k)
        save(anat / f"sub-01_inv-{k}_part-phase_MP2RAGE.nii.gz", InversionTime=0.9 * k)
        save(tmp_path / "sub-01" / "fmap" / f"sub-01_flip-{k}_TB1DAM.nii.gz", FlipAngle=60 * k)
        save(tmp_path / "sub-01" / "fmap" / f"sub-01_acq-tr{k}_TB1AFI.nii.gz", FlipAngle=60, RepetitionTime=0.02 * k)
    save(anat / "sub-01_UNIT1.nii.gz")
    save(anat / "sub-01_part-phase_T2star.nii.gz")
    groups, skipped = groups_of(tmp_path)
    names = {token: (g.kind, len(g.scans), g.entities.name) for token, g in groups.items()}
    assert names == {
        "VFA": ("qmri", 3, "sub-01_VFA.nii.gz"),
        "IRT1": ("qmri", 3, "sub-01_IRT1.nii.gz"),
        "MESELow": ("qmri", 3, "sub-01_acq-low_MESE.nii.gz"),
        "MEGRE": ("qmri", 3, "sub-01_MEGRE.nii.gz"),
        "MPMRun1": ("qmri", 3, "sub-01_run-1_MPM.nii.gz"),
        "MP2RAGE": ("qmri", 5, "sub-01_MP2RAGE.nii.gz"),
        "TB1DAM": ("field", 2, "sub-01_TB1DAM.nii.gz"),
        "TB1AFI": ("field", 2, "sub-01_TB1AFI.nii.gz"),
    }
    assert list(skipped) == ["sub-01/anat/sub-01_part-phase_T2star.nii.gz"]
    vfa = load_collection(groups["VFA"])
    assert vfa.protocol["FlipAngle"].tolist() == [5, 10, 15]
    assert vfa.protocol["RepetitionTimeExcitation"].tolist() == [0.02] * 3
    assert "InversionTime" not in vfa.protocol
    inversions = load_collection(groups["IRT1"]).protocol
    assert inversions["RepetitionTimePreparation"].tolist() == [3.5] * 3
    assert "RepetitionTimeExcitation" not in inversions
    mapping = load_collection(groups["MPMRun1"]).protocol
    assert mapping["MTState"].tolist() == [True] * 3
    assert mapping["RepetitionTimeExcitation"].tolist() == [0.025] * 3
    field = load_collection(groups["TB1AFI"]).protocol
    assert field["RepetitionTimeExcitation"].tolist() == [0.02, 0.04]
    pair = load_collection(groups["MP2RAGE"])
    assert len(pair.images) == len(pair.phases) == 2
    assert pair.unified is not None


def test_several_gradient_echoes_remain_an_image_and_one_echo_stays_anatomy(anat, tmp_path):
    for k in (1, 2):
        save(anat / f"sub-01_echo-{k}_MEGRE.nii.gz", value=np.full((7, 8, 9), float(k), np.float32), EchoTime=0.005 * k)
    save(anat / "sub-01_run-2_MEGRE.nii.gz", EchoTime=0.005)
    save(anat / "sub-01_acq-ratio_UNIT1.nii.gz")
    groups, _ = groups_of(tmp_path)
    assert groups["MEGRE"].kind == "qmri"
    np.testing.assert_allclose(load_image(groups["MEGRE"]).data, 1.5)
    assert groups["MEGRERun2"].kind == "anat"
    assert groups["UNIT1Ratio"].kind == "anat"
    assert groups["UNIT1Ratio"].entities.suffix == "UNIT1"


def test_volumes_of_one_file_take_lists_and_single_values(anat, tmp_path):
    save(anat / "sub-01_MEGRE.nii.gz", (7, 8, 9, 4), EchoTime=[0.004, 0.008, 0.012, 0.016], SliceThickness=5)
    save(anat / "sub-01_acq-rep_flip-1_VFA.nii.gz", (7, 8, 9, 2), FlipAngle=[4], RepetitionTime=0.02)
    save(anat / "sub-01_acq-rep_flip-2_VFA.nii.gz", (7, 8, 9, 3), FlipAngle="18", RepetitionTime=0.02)
    groups, _ = groups_of(tmp_path)
    echoes = load_collection(groups["MEGRE"])
    assert groups["MEGRE"].kind == "qmri"
    assert echoes.protocol["EchoTime"].tolist() == [0.004, 0.008, 0.012, 0.016]
    assert echoes.protocol["SliceThickness"].tolist() == [5] * 4
    assert [i.data.ndim for i in echoes.images] == [3] * 4
    assert load_collection(groups["VFARep"]).protocol["FlipAngle"].tolist() == [4, 4, 18, 18, 18]


@pytest.mark.parametrize(
    ("sidecar", "column", "value"),
    [
        ({"flipAngle": 12}, "FlipAngle", 12),
        ({"Flip_Angle": "12.5"}, "FlipAngle", 12.5),
        ({"EchoTimes": [0.003]}, "EchoTime", 0.003),
        ({"InversionTime": 0.8, "RepetitionTimeInversion": 5}, "RepetitionTimePreparation", 5),
        ({"InversionTime": 0.8, "RepetitionTime": 5}, "RepetitionTimePreparation", 5),
        ({"RepetitionTime": 0.03, "RepetitionTimeExcitation": None}, "RepetitionTimeExcitation", 0.03),
        ({"RepetitionTime": 0.5, "RepetitionTimeExcitation": 0.03}, "RepetitionTimeExcitation", 0.03),
        ({"RepetitionTime": 0.03, "InversionTime": 0}, "RepetitionTimeExcitation", 0.03),
        ({"NumberShots": 81}, "NumberShots", [40, 41]),
        ({"NumberShots": [32, 48]}, "NumberShots", [32, 48]),
        ({"MTState": "Off"}, "MTState", False),
    ],
)
def test_spellings(anat, tmp_path, sidecar, column, value):
    save(anat / "sub-01_flip-1_VFA.nii.gz", **sidecar)
    groups, _ = groups_of(tmp_path)
    found = load_collection(groups["VFA"]).protocol[column]
    np.testing.assert_array_equal(found[0], value)


@pytest.mark.parametrize(
    ("sidecar", "error", "words"),
    [
        ({"FlipAngle": "ten"}, ImplausibleValue, r"FlipAngle of .*flip-1_VFA.nii.gz is 'ten', expected a number"),
        ({"FlipAngle": True}, ImplausibleValue, "is True, expected a number"),
        ({"FlipAngle": []}, ImplausibleValue, "expected a number"),
        ({"FlipAngle": [5, 10]}, ImplausibleValue, "holds 2 values for 1 volumes, expected 1 or 1"),
        ({"FlipAngle": 5, "RepetitionTime": 20}, ImplausibleValue, "RepetitionTimeExcitation .* milliseconds"),
        ({"FlipAngle": 5, "EchoTime": 4.6}, ImplausibleValue, "EchoTime .* milliseconds"),
        ({"FlipAngle": 5, "InversionTime": 800}, ImplausibleValue, "InversionTime .* milliseconds"),
        (
            {"FlipAngle": 5, "RepetitionTime": 0.02, "NumberShots": [1, 2, 3]},
            ImplausibleValue,
            "NumberShots .* holds 3 values, expected one",
        ),
        ({"FlipAngle": 5}, MissingMetadata, "RepetitionTimeExcitation is absent from the sidecar of .*flip-1_VFA"),
        ({"RepetitionTime": 0.02}, MissingMetadata, r"FlipAngle is absent .*add it there \[deg\]"),
    ],
)
def test_what_is_wrong_or_missing_is_named(anat, tmp_path, sidecar, error, words):
    save(anat / "sub-01_flip-1_VFA.nii.gz", **sidecar)
    save(anat / "sub-01_flip-2_VFA.nii.gz", FlipAngle=20, RepetitionTimeExcitation=0.02)
    groups, _ = groups_of(tmp_path)
    with pytest.raises(error, match=words) as caught:
        load_collection(groups["VFA"], ("FlipAngle", "RepetitionTimeExcitation"))
    assert "\n" not in str(caught.value)


def test_what_one_file_lacks_is_not_a_number_unless_it_is_needed(anat, tmp_path):
    save(anat / "sub-01_flip-1_VFA.nii.gz", FlipAngle=5, EchoTime=0.003)
    save(anat / "sub-01_flip-2_VFA.nii.gz", FlipAngle=20)
    groups, _ = groups_of(tmp_path)
    protocol = load_collection(groups["VFA"]).protocol
    assert not protocol.has("EchoTime")
    with pytest.raises(MissingMetadata, match="EchoTime is absent from .*flip-1_VFA.nii.gz, .*flip-2_VFA"):
        _ = protocol["EchoTime"]
    with pytest.raises(MissingMetadata, match="MTState is absent for .*flip-1_VFA"):
        load_collection(groups["VFA"], ("MTState",))


@pytest.mark.parametrize(
    ("values", "factor"),
    [
        (np.linspace(-3.1, 3.1, 504), 1),
        (np.linspace(0, 4095, 504), 2 * np.pi / 4096),
        (np.linspace(-4096, 4094, 504), 2 * np.pi / 8192),
    ],
)
def test_phases_come_in_radians_or_steps(anat, tmp_path, values, factor):
    for k in (1, 2):
        save(anat / f"sub-01_inv-{k}_part-mag_MP2RAGE.nii.gz", InversionTime=k)
        data = np.asarray(values, dtype=np.float32).reshape(7, 8, 9)
        save(anat / f"sub-01_inv-{k}_part-phase_MP2RAGE.nii.gz", value=data, InversionTime=k)
    groups, _ = groups_of(tmp_path)
    phase = load_collection(groups["MP2RAGE"]).phases[0].data
    assert np.ptp(phase) == pytest.approx(np.ptp(values) * factor, rel=1e-5)
    assert np.ptp(phase) <= 2 * np.pi


def test_phases_alone_and_phases_of_some_are_not_enough(anat, tmp_path):
    for k in (1, 2):
        save(anat / f"sub-01_inv-{k}_part-mag_MP2RAGE.nii.gz", InversionTime=k)
    save(anat / "sub-01_inv-1_part-phase_MP2RAGE.nii.gz", InversionTime=1)
    groups, _ = groups_of(tmp_path)
    assert load_collection(groups["MP2RAGE"]).phases == ()
    for file in anat.glob("*part-mag*"):
        file.unlink()
    with pytest.raises(MissingMetadata, match="without magnitude images"):
        load_collection(groups_of(tmp_path)[0]["MP2RAGE"])


def test_an_empty_volume_is_named(anat, tmp_path):
    save(anat / "sub-01_flip-1_VFA.nii.gz", value=np.full((7, 8, 9), np.nan, np.float32), FlipAngle=5)
    with pytest.raises(ImplausibleValue, match="holds no finite number"):
        load_collection(groups_of(tmp_path)[0]["VFA"])


@pytest.mark.parametrize(
    ("suffix", "sidecar", "words"),
    [
        ("MESE", {"EchoTime": 0.9}, r"EchoTime in .*MESE.nii.gz is 0.9, expected 1e-05 to 0.5 s \(often milliseconds"),
        ("MESE", {"EchoTime": [0.1, 0.9], "n": 2}, "EchoTime in .* is 0.9, expected 1e-05 to 0.5 s"),
        ("MESE", {"EchoTime": 12}, "EchoTime in .* is 12, expected 1e-05 to 0.5 s"),
        ("MEGRE", {"EchoTime": 0.4}, "is 0.4 s, expected less than 0.2 s, when gradient echoes of the cord are gone"),
        ("MEGRE", {"EchoTime": [0.07, 0.15, 0.45], "n": 3}, "is 0.45 s, expected less than 0.2 s"),
        (
            "VFA",
            {"EchoTime": 0.15, "RepetitionTime": 0.02},
            "is 0.15 s, expected less than 0.02 s, its repetition time",
        ),
        ("MESE", {"EchoTime": [0.1, 0.4], "RepetitionTime": 0.3, "n": 2}, "is 0.4 s, expected less than 0.3 s"),
    ],
)
def test_echo_times_in_milliseconds_below_one(anat, tmp_path, suffix, sidecar, words):
    volumes = sidecar.pop("n", 1)
    save(anat / f"sub-01_{suffix}.nii.gz", shape=(7, 8, 9, volumes)[: 3 + (volumes > 1)], FlipAngle=9, **sidecar)
    save(anat / f"sub-01_run-2_{suffix}.nii.gz", FlipAngle=20, EchoTime=0.01)
    scan = next(s for s in find_scans(tmp_path, find_visits(tmp_path)[0]) if "run-2" not in s.path.name)
    with pytest.raises(ImplausibleValue, match=words) as caught:
        load_collection(Group("qmri", suffix, (scan,)))
    assert "\n" not in str(caught.value)
    assert "milliseconds" in str(caught.value)


def test_late_echoes_that_are_possible(anat, tmp_path):
    late = {"MESE": {"EchoTime": 0.48, "RepetitionTime": 3.0}, "MEGRE": {"EchoTime": 0.06}}
    late["MP2RAGE"] = {"EchoTime": 0.003, "InversionTime": 0.7, "RepetitionTime": 5.0}
    for suffix, sidecar in late.items():
        save(anat / f"sub-01_{suffix}.nii.gz", **sidecar)
    for scan in find_scans(tmp_path, find_visits(tmp_path)[0]):
        suffix = scan.entities.suffix
        found = load_collection(Group("qmri", suffix, (scan,))).protocol
        assert found["EchoTime"].tolist() == [late[suffix]["EchoTime"]]


def test_a_repetition_time_below_the_inversion_time_is_that_of_the_excitations(anat, tmp_path):
    """As two manufacturers write it: the time between the echoes of the train that follows an inversion."""
    for k, repetition in enumerate((0.0068, 0.8, 3.5)):
        save(anat / f"sub-01_run-{k}_inv-1_MP2RAGE.nii.gz", InversionTime=0.9, RepetitionTime=repetition)
    groups, _ = groups_of(tmp_path)
    found = [load_collection(groups[f"MP2RAGERun{k}"]).protocol for k in range(3)]
    for protocol, repetition in zip(found, (0.0068, 0.8), strict=False):
        assert protocol["RepetitionTimeExcitation"].tolist() == [repetition]
        assert "RepetitionTimePreparation" not in protocol
    assert found[2]["RepetitionTimePreparation"].tolist() == [3.5]
    assert "RepetitionTimeExcitation" not in found[2]


@pytest.mark.real
def test_no_sidecar_of_real_scans_is_refused(data_dir, tmp_path):
    """Settings of some 1600 scans, taken for those of collections of all kinds."""
    sidecars = [json.loads(p.read_text()) for p in (data_dir / "bids-cord").rglob("*.json")]
    for archive in sorted(data_dir.glob("sidecars_*.tar.gz")):
        with tarfile.open(archive) as opened:
            members = [m for m in opened.getmembers() if m.name.endswith(".json")]
            sidecars += [json.loads(opened.extractfile(m).read().decode("utf-8-sig")) for m in members]
    kinds = {k: s for k, s in ((str(sorted(s.items())), s) for s in sidecars if isinstance(s, dict)) if "EchoTime" in s}
    assert len(kinds) > 500
    image = Image(np.ones((2, 3, 4), np.float32), Grid((2, 3, 4), np.eye(4)))
    for sidecar in kinds.values():
        spin = sidecar["EchoTime"] > 0.03
        path = tmp_path / f"sub-01_{'MESE' if spin else 'MEGRE'}.nii.gz"
        scan = Scan(path, tmp_path, Entities.parse(path.name), sidecar)
        assert collection._columns(scan, image, ())["EchoTime"].tolist() == [sidecar["EchoTime"]]
