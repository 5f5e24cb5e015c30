"""``qcord fit`` on files as other sites have them: the same numbers, or one sentence and nothing written."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from qcord import api
from qcord.core.errors import GridMismatch, ImplausibleValue, MissingMetadata, NotIdentifiable, QcordError
from qcord.core.protocol import Protocol
from qcord.estimate.simulate import simulate
from qcord.ingest.gradients import to_fsl
from qcord.models.registry import get

SHAPE = (11, 9, 3)
AFFINE = np.array([[-0.9, 0, 0, 4], [0, 0.88, -1.7, 3], [0, 0.3, 4.7, -9], [0, 0, 0, 1.0]])


def scan():
    """Noisy integers of two tensors side by side, and their protocol."""
    model, protocol = get("tensor"), get("tensor").example()
    theta = np.tile(model.theta(model.typical[0].values), (*SHAPE, 1))
    theta[..., 0] = 700
    theta[6:, :, :, 1:4] *= 1.2
    data = simulate(model, theta, protocol) + np.random.default_rng(4).normal(0, 12, (*SHAPE, len(protocol)))
    return np.clip(np.rint(data), 1, 3000).astype(np.int16), protocol


DATA, PROTOCOL = scan()


def write(path, data=DATA, affine=AFFINE, protocol=PROTOCOL, kind=nib.Nifti1Image, header=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = kind(data, affine, header)
    image.set_data_dtype(data.dtype)
    nib.save(image, path)
    stem = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii"))
    stem.with_name(stem.name + ".bval").write_text(" ".join(f"{b:g}" for b in protocol["BValue"]))
    directions = to_fsl(protocol["Direction"], affine)
    stem.with_name(stem.name + ".bvec").write_text("\n".join(" ".join(f"{v:.8f}" for v in row) for row in directions.T))
    return path


def canonical(path):
    image = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj), image.affine


def turned(axes):
    image = nib.Nifti1Image(DATA, AFFINE)
    way = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(axes))
    other = image.as_reoriented(way)
    return {"data": np.asarray(other.dataobj), "affine": other.affine}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return api.fit("tensor", [write(folder / "sub-01_dwi.nii.gz")], folder / "out")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sub-01_dwi.nii", {}),
        ("sub-01_dwi.nii", {"kind": nib.Nifti2Image}),
        ("sub-01_dwi.nii.gz", {"header": nib.Nifti1Header(endianness=">")}),
        ("sub-01_dwi.nii", {"data": DATA.astype(">f8")}),
        ("sub-01_dwi.nii.gz", {"data": DATA.astype(np.uint16)}),
        *(("sub-01_dwi.nii", turned(axes)) for axes in ("RAS", "PIR", "SLA", "LPS")),
        ("subj_01_dwi.nii.gz", {}),
        ("my scan [2].nii.gz", {}),
        ("Rückenmark_1.nii", {}),
    ],
)
def test_the_same_maps_whatever_the_file(plain, tmp_path, name, changes):
    maps = api.fit("tensor", [write(tmp_path / "a b ü" / name, **changes)], tmp_path / "out")
    assert set(maps) == set(plain)
    for metric, path in maps.items():
        assert path.name.endswith(".nii.gz")
        value, affine = canonical(path)
        expected, at = canonical(plain[metric])
        np.testing.assert_allclose(affine, at, atol=1e-5)
        np.testing.assert_allclose(value, expected, rtol=2e-4, atol=1e-4 * np.nanmax(np.abs(expected)))


def refused(error, words, model, files, out, **settings):
    with pytest.raises(error, match=words) as caught:
        api.fit(model, files, out, **settings)
    assert isinstance(caught.value, QcordError)
    assert "\n" not in str(caught.value)
    assert not out.exists() or not list(out.iterdir())


def test_several_diffusion_files_are_not_one_series(tmp_path):
    files = [write(tmp_path / f"sub-01_dir-{d}_dwi.nii.gz") for d in ("AP", "PA")]
    refused(ImplausibleValue, "given as one diffusion series, expected one", "tensor", files, tmp_path / "out")


def test_blank_volumes_and_masks_of_several_volumes(tmp_path):
    data = DATA.copy()
    data[..., 5] = 0
    file = write(tmp_path / "sub-01_dwi.nii.gz", data)
    refused(ImplausibleValue, "Volume 5 of .* holds zeros alone", "tensor", [file], tmp_path / "out")
    file, mask = write(tmp_path / "sub-01_dwi.nii.gz"), tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((*SHAPE, 2), np.uint8), AFFINE), mask)
    refused(ImplausibleValue, "holds 2 volumes, expected", "tensor", [file], tmp_path / "out", mask=mask)
    moved = AFFINE.copy()
    moved[0, 3] += 2
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), moved), mask)
    refused(GridMismatch, "up to 2 mm apart", "tensor", [file], tmp_path / "out", mask=mask)


@pytest.mark.parametrize("noise", ["loud", "-1", "0", "nan", float("inf")])
def test_noise_that_is_none(tmp_path, noise):
    file = write(tmp_path / "sub-01_dwi.nii.gz")
    refused(ImplausibleValue, "expected a standard deviation above 0", "tensor", [file], tmp_path / "out", noise=noise)


def test_models_and_files_of_another_kind(tmp_path):
    file = write(tmp_path / "sub-01_dwi.nii.gz")
    refused(MissingMetadata, "is a diffusion series", "r2star", [file], tmp_path / "out")
    echoes = written(tmp_path, "MEGRE", [0.005, 0.02], "EchoTime")
    refused(MissingMetadata, r"has no \.bval file", "tensor", echoes, tmp_path / "out")


def written(folder, suffix, settings, field, values=None, **sidecar):
    rng = np.random.default_rng(2)
    files = []
    for k, setting in enumerate(settings):
        file = folder / f"sub-01_flip-{k + 1}_{suffix}.nii.gz"
        volume = rng.normal(100 + 20 * k, 1, (24, 26, 3)) if values is None else values[k]
        nib.save(nib.Nifti1Image(volume.astype(np.float32), AFFINE), file)
        file.with_name(file.name.replace(".nii.gz", ".json")).write_text(json.dumps({field: setting, **sidecar}))
        files.append(file)
    return files


def test_echoes_of_one_echo_time_determine_no_decay(tmp_path):
    """Converters write the sidecar of a 4-D series with the first echo time alone."""
    echoes = np.stack([np.full(SHAPE, 900.0 * np.exp(-30 * t)) for t in (0.005, 0.01, 0.02)], axis=-1)
    file = tmp_path / "sub-01_MEGRE.nii.gz"
    nib.save(nib.Nifti1Image(echoes.astype(np.float32), AFFINE), file)
    (tmp_path / "sub-01_MEGRE.json").write_text(json.dumps({"EchoTime": 0.005}))
    words = "3 measurements, of which 1 differ in EchoTime"
    refused(NotIdentifiable, words, "r2star", [file], tmp_path / "out", noise=1.0)
    (tmp_path / "sub-01_MEGRE.json").write_text(json.dumps({"EchoTime": ["0.005", "0.01", "0.02"]}))
    maps = api.fit("r2star", [file], tmp_path / "out", noise=1.0)
    np.testing.assert_allclose(np.asarray(nib.load(maps["R2star"]).dataobj), 30, rtol=1e-2)


def test_one_shell_determines_no_perfusion(tmp_path):
    protocol = Protocol({"BValue": np.where(PROTOCOL["BValue"] > 50, 800.0, 0), "Direction": PROTOCOL["Direction"]})
    file = write(tmp_path / "sub-01_dwi.nii.gz", protocol=protocol)
    refused(NotIdentifiable, "of which 2 differ in BValue", "ivim", [file], tmp_path / "out")


@pytest.mark.parametrize(
    ("angles", "repetition", "words"),
    [
        ([0.07, 0.35], 0.02, "expected degrees"),
        ([True, 20], 0.02, "expected a number"),
        ([4, 20], 3, "RepetitionTimeExcitation .* is 3 s, expected at most 1 s"),
    ],
)
def test_slips_of_units_within_the_range_of_others(tmp_path, angles, repetition, words):
    files = written(tmp_path, "VFA", angles, "FlipAngle", RepetitionTimeExcitation=repetition)
    refused(ImplausibleValue, words, "vfa", files, tmp_path / "out")


def test_transmit_fields_that_are_none(tmp_path):
    files = written(tmp_path, "VFA", [4, 20], "FlipAngle", RepetitionTimeExcitation=0.02)
    far = AFFINE.copy()
    far[2, 3] += 900
    cases = [
        (np.zeros((24, 26, 3)), AFFINE, "has no value above 0 where"),
        (np.full((24, 26, 3), 95.0), far, "has no value above 0 where"),
        (np.full((24, 26, 3), 950.0), AFFINE, "B1 in b1.nii.gz is 9.5, expected 0.1 to 3 "),
        (np.full((24, 26, 3, 2), 95.0), AFFINE, "holds 2 volumes, expected a map of one"),
    ]
    for values, affine, words in cases:
        nib.save(nib.Nifti1Image(values.astype(np.float32), affine), tmp_path / "b1.nii.gz")
        refused(ImplausibleValue, words, "vfa", files, tmp_path / "out", b1=tmp_path / "b1.nii.gz")


def test_volumes_of_different_places_and_maps_of_nothing(tmp_path):
    files = written(tmp_path, "VFA", [4, 20], "FlipAngle", RepetitionTimeExcitation=0.02)
    image = nib.load(files[1])
    far = AFFINE.copy()
    far[2, 3] += 900
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), far), files[1])
    refused(GridMismatch, "shares no place with", "vfa", files, tmp_path / "out", noise=1.0)
    nib.save(nib.Nifti1Image(np.full((24, 26, 3), np.nan, np.float32), AFFINE), files[1])
    refused(ImplausibleValue, "holds no finite number", "vfa", files, tmp_path / "out", noise=1.0)
    apart = np.full((2, 24, 26, 3), np.nan)
    apart[0, :12], apart[1, 12:] = 100, 120
    files = written(tmp_path, "VFA", [4, 20], "FlipAngle", apart, RepetitionTimeExcitation=0.02)
    words = "No voxel of .* carries a value of model vfa, most for this reason: A measurement is NaN"
    refused(NotIdentifiable, words, "vfa", files, tmp_path / "out", noise=1.0)


def test_transfer_state_as_text(tmp_path):
    for k, (name, state) in enumerate((("a b", "1"), ("c_d", "0"))):
        file = tmp_path / f"{name}.nii.gz"
        volume = np.random.default_rng(k).normal(80 + 40 * k, 2, (24, 26, 3)).astype(np.float32)
        nib.save(nib.Nifti1Image(volume, AFFINE), file)
        (tmp_path / f"{name}.json").write_text(json.dumps({"MTState": state}))
    maps = api.fit("mtr", [tmp_path / "a b.nii.gz", tmp_path / "c_d.nii.gz"], tmp_path / "out")
    assert np.nanmedian(np.asarray(nib.load(maps["MTR"]).dataobj)) == pytest.approx(100 / 3, rel=0.03)


def test_mean_of_weighted_volumes_of_any_name(tmp_path):
    """The cord is sought on the weighted mean where gradients lie beside the image, whatever it is called."""
    from qcord.pipeline.single import read_volume

    file = write(tmp_path / "subj_01_dti.nii.gz")
    expected = DATA[..., PROTOCOL["BValue"] > 50].mean(axis=-1)
    found = read_volume(file)
    np.testing.assert_allclose(np.sort(found.data.ravel()), np.sort(expected.ravel()), rtol=1e-6)
    shutil.copy(tmp_path / "subj_01_dti.nii.gz", tmp_path / "other.nii.gz")
    assert read_volume(tmp_path / "other.nii.gz").data.mean() == pytest.approx(DATA.mean(), rel=1e-6)
