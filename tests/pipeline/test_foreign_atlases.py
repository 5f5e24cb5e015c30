"""``qcord extract`` and ``qcord register`` with atlases, standard errors and landmarks of other software."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from qcord import api
from qcord.anatomy.centerline import curve_through
from qcord.anatomy.levels import levels_assumed, require_near
from qcord.core.errors import EmptyRegion, ImplausibleValue, NotWritable, QcordError, UnknownName, UnreadableFile
from qcord.pipeline.extract import extract
from qcord.pipeline.store import write_bytes
from qcord.pipeline.templates import load_template

SHAPE = (9, 8, 3)
AFFINE = np.diag([-0.9, 0.9, 5.0, 1])


def save(path, data):
    nib.save(nib.Nifti1Image(np.asarray(data, dtype=np.float32), AFFINE), path)
    return path


@pytest.fixture
def files(tmp_path):
    """A map of two halves, its standard error, and an atlas of both halves."""
    rng = np.random.default_rng(0)
    fields = np.zeros((*SHAPE, 2))
    fields[2:4, 2:6, :, 0], fields[5:7, 2:6, :, 1] = 1, 1
    value = 40 + 5 * fields[..., 1] + rng.normal(0, 0.5, SHAPE)
    save(tmp_path / "atlas.nii.gz", fields)
    pd.DataFrame({"index": [0, 1], "name": ["left", "right"], "mapping": [1, 2]}).to_csv(
        tmp_path / "atlas.tsv", sep="\t", index=False
    )
    (tmp_path / "atlas.json").write_text(json.dumps({"Levels": ["C2", "C3", "C3"]}))
    save(tmp_path / "sub-01_MTRmap.nii.gz", value)
    save(tmp_path / "se.nii.gz", np.full(SHAPE, 0.5))
    return tmp_path


def read(files, **more):
    return extract(files / "sub-01_MTRmap.nii.gz", files / "atlas.nii.gz", files / "out.tsv", **more)


def test_zeros_of_a_standard_error_stand_for_none(files):
    table = read(files, std=files / "se.nii.gz")
    assert (table["se"] > 0).all()
    save(files / "se.nii.gz", np.zeros(SHAPE))
    filled = read(files, std=files / "se.nii.gz")
    save(files / "se.nii.gz", np.full(SHAPE, np.nan))
    pd.testing.assert_frame_equal(filled, read(files, std=files / "se.nii.gz"))
    assert not (filled["se"] == 0).any()


@pytest.mark.parametrize(
    ("name", "data", "error", "words"),
    [
        ("se.nii.gz", np.full(SHAPE, -0.5), ImplausibleValue, "holds -0.5, expected standard errors"),
        ("se.nii.gz", np.ones((*SHAPE, 2)), ImplausibleValue, "holds 2 volumes, expected a map of one"),
        ("sub-01_MTRmap.nii.gz", np.ones((*SHAPE, 2)), ImplausibleValue, "holds 2 volumes, expected a map of one"),
        ("atlas.nii.gz", np.full((*SHAPE, 2), 50.0), ImplausibleValue, "holds 50, expected fractions"),
        ("atlas.nii.gz", np.full((*SHAPE, 2), np.nan), ImplausibleValue, "holds nan, expected fractions"),
        ("atlas.nii.gz", np.zeros((*SHAPE, 2)), EmptyRegion, "are 0 everywhere"),
    ],
)
def test_images_that_are_not_what_they_stand_for(files, name, data, error, words):
    save(files / name, data)
    with pytest.raises(error, match=words):
        read(files, std=files / "se.nii.gz")
    assert not (files / "out.tsv").exists()


@pytest.mark.parametrize(
    "text",
    ["", "index\tname\n0\tleft\n1\tright\n", "name\tmapping\nleft\tx\nright\t2\n", "name\tmapping\n\t1\nright\t2\n"],
)
def test_tables_of_names_that_are_none(files, text):
    (files / "atlas.tsv").write_text(text)
    with pytest.raises(UnreadableFile, match="register the image again") as caught:
        read(files)
    assert "\n" not in str(caught.value)


def test_levels_of_other_slices_ratios_and_places_that_cannot_be(files):
    for ratio in (0.0, -1.0, float("nan")):
        with pytest.raises(ImplausibleValue, match="expected a number above 0"):
            read(files, map_ratio=ratio)
    (files / "atlas.json").write_text(json.dumps({"Levels": ["C2"]}))
    with pytest.raises(ImplausibleValue, match="gives Levels of 1 slices, atlas.nii.gz has 3"):
        read(files)
    with pytest.raises(NotWritable, match="cannot be written"):
        write_bytes(files / "atlas.tsv" / "below" / "a.tsv", b"")


def test_landmarks_nowhere_near_the_cord():
    axis = curve_through(np.array([[0.0, 0, z] for z in range(0, 60, 3)]))
    require_near(axis, {"C3/C4": (5.0, 15.0, 250.0)})
    np.testing.assert_allclose(axis.project(np.array([0, 0, 1000.0])), [0, 0, 1000], atol=1e-6)
    for point in ((0.0, 150.0, 20.0), (0.0, 0.0, 400.0), (0.0, 0.0, -400.0)):
        with pytest.raises(ImplausibleValue, match="check that the coordinates are world millimetres"):
            require_near(axis, {"C3/C4": point})
    with pytest.raises(UnknownName, match="has no disc 'X1'"):
        levels_assumed(axis, load_template("qcord"), "X1")


def test_a_single_slice_is_registered_and_masks_may_have_gaps(raw, output, tmp_path):
    folder, subject = output / "sub-healthy01" / "anat", "sub-healthy01"
    mask = nib.load(folder / f"{subject}_space-orig_label-SC_desc-MTS_mask.nii.gz")
    image = nib.load(folder / f"{subject}_MTRmap.nii.gz")
    for name, one in (("mask", mask), ("image", image)):
        nib.save(one.slicer[:, :, 2:3], tmp_path / f"{name}.nii.gz")
    gaps = np.asarray(mask.dataobj, dtype=np.float32)
    gaps[gaps == 0] = np.nan
    nib.save(nib.Nifti1Image(gaps, mask.affine), tmp_path / "gaps.nii.gz")
    paths = [folder / f"{subject}_MTRmap.nii.gz", tmp_path / "gaps.nii.gz"]
    score = api.register(paths[0], tmp_path / "out", mask=paths[1], template="qcord")
    assert score["dice_median"] > 0.9
    with pytest.raises(QcordError, match="The cord appears in 1 slices"):
        api.register(tmp_path / "image.nii.gz", tmp_path / "one", mask=tmp_path / "mask.nii.gz", template="qcord")
    api.register(tmp_path / "image.nii.gz", tmp_path / "one", template="qcord")
    field = nib.load(next((tmp_path / "one" / "xfm").glob("*to-qcord*.nii.gz")))
    assert field.shape[2:] == (1, 1, 3)
    (tmp_path / "none.tsv").write_text("name\tx\ty\tz\n")
    with pytest.raises(QcordError, match="holds no landmark"):
        api.register(*paths[:1], tmp_path / "lm", mask=paths[1], landmarks=tmp_path / "none.tsv", template="qcord")
