import gzip

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcord.core.errors import ImplausibleValue, UnreadableFile
from qcord.ingest.nifti import read_image, read_map, read_sidecar
from qcord.ingest.series import stored_affine


def write(path, data, affine=None, qform=1, sform=1):
    nifti = nib.Nifti1Image(data, np.diag([0.9, 1.1, 5.0, 1]) if affine is None else affine)
    nifti.set_qform(nifti.affine, qform)
    nifti.set_sform(nifti.affine, sform)
    nib.save(nifti, path)
    return path


def values(shape=(7, 8, 9)):
    return np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)


@pytest.mark.parametrize("axes", ["RAS", "LAS", "PSR", "IPR", "SLA"])
def test_each_voxel_keeps_its_place_in_the_world(tmp_path, axes):
    data = values()
    letters = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    affine = np.zeros((4, 4))
    for column, (letter, size) in enumerate(zip(axes, (0.9, 1.1, 5.0), strict=True)):
        row, sign = letters[letter]
        affine[row, column] = sign * size
    affine[:, 3] = [3, -7, 11, 1]
    image = read_image(write(tmp_path / "sub-01_T2w.nii.gz", data, affine))
    assert image.grid.axes == "RAS"
    assert image.grid.stored == axes
    index = np.array([2, 5, 3])
    place = np.rint(image.grid.index((affine @ [*index, 1])[:3])).astype(int)
    assert image.data[tuple(place)] == data[tuple(index)]
    np.testing.assert_allclose(stored_affine(image), affine, atol=1e-5)


def test_scaled_integers_become_real_values(tmp_path):
    nifti = nib.Nifti1Image(values(), np.diag([0.9, 1.1, 5.0, 1]))
    nifti.set_data_dtype(np.int16)
    nib.save(nifti, tmp_path / "sub-01_T2w.nii.gz")
    image = read_image(tmp_path / "sub-01_T2w.nii.gz")
    assert image.data.dtype == np.float32
    np.testing.assert_allclose(image.data, values(), atol=0.01)


def test_series_of_length_one_is_a_volume(tmp_path):
    image = read_image(write(tmp_path / "sub-01_T2w.nii.gz", values((7, 8, 9, 1))))
    assert image.data.shape == (7, 8, 9)


def test_five_dimensions_are_refused(tmp_path):
    with pytest.raises(ImplausibleValue, match="three spatial axes"):
        read_image(write(tmp_path / "sub-01_T2w.nii.gz", values((7, 8, 9, 2, 3))))


def test_unknown_orientation_is_refused(tmp_path):
    with pytest.raises(ImplausibleValue, match="left and right are unknown"):
        read_image(write(tmp_path / "sub-01_T2w.nii.gz", values(), qform=0, sform=0))


def test_qform_alone_is_enough(tmp_path):
    image = read_image(write(tmp_path / "sub-01_T2w.nii.gz", values(), sform=0))
    np.testing.assert_allclose(image.grid.spacing, [0.9, 1.1, 5.0], rtol=1e-5)


@settings(max_examples=12, deadline=None)
@given(kept=st.floats(0.05, 0.95))
def test_truncated_file_is_one_sentence(tmp_path_factory, kept):
    path = tmp_path_factory.mktemp("t") / "sub-01_T2w.nii.gz"
    raw = write(path, values()).read_bytes()
    path.write_bytes(raw[: int(len(raw) * kept)])
    with pytest.raises(UnreadableFile) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    assert "sub-01_T2w.nii.gz" in str(caught.value)


def test_uncompressed_truncated_and_wrong_kinds(tmp_path):
    path = write(tmp_path / "sub-01_T2w.nii", values())
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(UnreadableFile, match="truncated"):
        read_image(path)
    other = tmp_path / "sub-02_T2w.nii.gz"
    other.write_bytes(gzip.compress(b"not an image"))
    with pytest.raises(UnreadableFile, match="not a readable"):
        read_image(other)
    with pytest.raises(UnreadableFile, match="does not exist"):
        read_image(tmp_path / "sub-03_T2w.nii.gz")
    with pytest.raises(UnreadableFile, match="complex"):
        read_image(write(tmp_path / "sub-04_T2w.nii.gz", values().astype(np.complex64)))


def test_image_cannot_be_changed_in_place(tmp_path):
    image = read_image(write(tmp_path / "sub-01_T2w.nii.gz", values()))
    with pytest.raises(ValueError, match="read-only"):
        image.data[0, 0, 0] = 1


def test_broken_sidecar(tmp_path):
    (tmp_path / "a.json").write_text("{broken")
    (tmp_path / "b.json").write_text("[1]")
    with pytest.raises(UnreadableFile, match=r"a\.json"):
        read_sidecar(tmp_path / "a.json")
    with pytest.raises(UnreadableFile, match="expected a JSON object"):
        read_sidecar(tmp_path / "b.json")


@pytest.mark.parametrize("turned", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_series_with_any_axes_are_turned_to_memory_order(tmp_path, turned):
    """Large enough to be turned in several parts; the values are those of nibabel's own reordering."""
    data = np.random.default_rng(0).uniform(0, 1, (41, 60, 11, 67)).astype(np.float32)
    affine = np.eye(4)
    affine[:3] = affine[list(turned)]
    path = tmp_path / "series.nii"
    nib.save(nib.Nifti1Image(data[::-1], affine @ np.diag([-2.0, 3, 4, 1])), path)
    image = read_image(path)
    assert image.data.flags.c_contiguous
    np.testing.assert_array_equal(image.data, np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj))


def test_matrices_of_one_space_that_contradict_each_other_are_refused(tmp_path):
    affine = np.diag([0.9, 1.1, 5.0, 1])
    nifti = nib.Nifti1Image(values(), affine)
    nifti.set_qform(affine @ np.diag([-1.0, 1, 1, 1]), 1)
    nifti.set_sform(affine, 1)
    nib.save(nifti, tmp_path / "sub-01_T2w.nii.gz")
    with pytest.raises(ImplausibleValue, match="run LAS by its qform and RAS by its sform"):
        read_image(tmp_path / "sub-01_T2w.nii.gz")
    nifti.set_sform(affine, 2)  # aligned to another image, where axes may run otherwise
    nib.save(nifti, tmp_path / "sub-01_T2w.nii.gz")
    np.testing.assert_allclose(read_image(tmp_path / "sub-01_T2w.nii.gz").grid.affine, affine, atol=1e-6)


@pytest.mark.parametrize(("kind", "name"), [(nib.AnalyzeImage, "a.img"), (nib.MGHImage, "a.mgz")])
def test_other_formats_are_refused(tmp_path, kind, name):
    """Analyze does not say which side is left."""
    nib.save(kind(values(), np.eye(4)), tmp_path / name)
    with pytest.raises(UnreadableFile, match="expected NIfTI"):
        read_image(tmp_path / name)


def test_folders_and_maps_of_several_volumes(tmp_path):
    with pytest.raises(UnreadableFile, match="is a folder, expected a file"):
        read_image(tmp_path)
    with pytest.raises(ImplausibleValue, match="holds 2 volumes, expected a map of one"):
        read_map(write(tmp_path / "sub-01_T1map.nii.gz", values((7, 8, 9, 2))))


def with_sizes(path, sizes, codes, kind=nib.Nifti1Image):
    """A file whose header holds these voxel sizes, which no library writes but scanners' exports do."""
    affine = np.diag([0.9, 1.1, 5.0, 1])
    nifti = kind(values(), affine)
    nifti.set_qform(affine, codes[0])
    nifti.set_sform(affine, codes[1])
    raw = bytearray(nifti.to_bytes())
    for axis, size in sizes.items():
        start, real = (76 + 4 * axis, np.float32) if kind is nib.Nifti1Image else (104 + 8 * axis, np.float64)
        raw[start : start + real().nbytes] = real(size).tobytes()
    path.write_bytes(gzip.compress(bytes(raw)) if path.suffix == ".gz" else bytes(raw))
    return path


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["sub-01_T2w.nii", "sub-01_T2w.nii.gz"])
@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({1: 0}, "0 x 1.1 x 5 mm"),
        ({3: 0}, "0.9 x 1.1 x 0 mm"),
        ({1: 0, 2: 0, 3: 0}, "0 x 0 x 0 mm"),
        ({2: np.nan}, "0.9 x nan x 5 mm"),
        ({3: np.inf}, "0.9 x 1.1 x inf mm"),
    ],
)
def test_a_qform_without_voxel_sizes_is_refused(tmp_path, kind, name, sizes, words):
    with pytest.raises(ImplausibleValue, match=rf"{name} has voxel sizes \(pixdim\) of {words} and no sform") as caught:
        read_image(with_sizes(tmp_path / name, sizes, (1, 0), kind))
    assert "\n" not in str(caught.value)


def test_a_pair_of_files_without_voxel_sizes_is_refused(tmp_path):
    pair = nib.Nifti1Pair(values(), np.diag([0.9, 1.1, 5.0, 1]))
    pair.set_sform(None, 0)
    pair.set_qform(pair.affine, 1)
    nib.save(pair, tmp_path / "a.img")
    np.testing.assert_allclose(read_image(tmp_path / "a.img").grid.spacing, [0.9, 1.1, 5.0], rtol=1e-5)
    header = bytearray((tmp_path / "a.hdr").read_bytes())
    header[80:84] = np.float32(0).tobytes()
    (tmp_path / "a.hdr").write_bytes(bytes(header))
    with pytest.raises(ImplausibleValue, match="a.img has voxel sizes"):
        read_image(tmp_path / "a.img")


@pytest.mark.parametrize("sizes", [{1: 0}, {2: np.nan}, {}])
@pytest.mark.parametrize("codes", [(0, 1), (1, 1), (1, 2)])
def test_an_sform_says_the_voxel_sizes_itself(tmp_path, sizes, codes):
    image = read_image(with_sizes(tmp_path / "sub-01_T2w.nii.gz", sizes, codes))
    np.testing.assert_allclose(image.grid.spacing, [0.9, 1.1, 5.0], rtol=1e-5)


def test_negative_voxel_sizes_are_sizes(tmp_path):
    image = read_image(with_sizes(tmp_path / "sub-01_T2w.nii.gz", {1: -0.9}, (1, 0)))
    np.testing.assert_allclose(image.grid.spacing, [0.9, 1.1, 5.0], rtol=1e-5)
