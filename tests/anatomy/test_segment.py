"""The cord on simulated sections of known truth, on real scans, and on input that cannot hold one."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from qcord.anatomy.segment import segment_cord
from qcord.core.entities import Entities
from qcord.core.errors import EmptyRegion, ImplausibleValue, UnknownName
from qcord.core.grid import Grid, reorient
from qcord.core.image import Image
from qcord.core.threads import limit_threads

# Brightness of air, muscle, bone, fluid, cord.
BRIGHTNESS = {
    "T2w": (0.0, 0.15, 0.2, 1.0, 0.4),
    "T2star": (0.0, 0.4, 0.15, 1.0, 0.55),
    "T1w": (0.0, 0.6, 0.4, 0.3, 0.8),
    "dwi": (0.0, 0.08, 0.05, 0.15, 1.0),
}


def ellipse(x, y, centre, axes):
    return np.hypot((x - centre[0]) / axes[0], (y - centre[1]) / axes[1]) - 1


def neck(kind, spacing=(0.8, 0.8, 4.0), size=(100.0, 90.0, 60.0), seed=0, *, cord_from=-1e9, affine=None, lean=0.15):
    """Draw a neck whose cord leans forward; return image and true share of cord, both from subsamples of voxels."""
    shape = tuple(round(s / d) for s, d in zip(size, spacing, strict=True))
    fine = 3
    u = ((np.arange(shape[0] * fine) + 0.5) / fine - shape[0] / 2) * spacing[0]
    v = ((np.arange(shape[1] * fine) + 0.5) / fine - shape[1] / 2) * spacing[1]
    z = (np.arange(shape[2]) - shape[2] / 2) * spacing[2]
    x, y = (a[:, :, None] for a in np.meshgrid(u, v, indexing="ij"))
    cy = lean * z[None, None]
    air, muscle, bone, fluid, cord = BRIGHTNESS[kind]
    image = np.where(ellipse(x, y, (0, 0), (46, 40)) < 0, muscle, air) + 0 * cy
    image = np.where(ellipse(x, y, (0, cy + 16), (12, 8)) < 0, bone, image)
    image = np.where(ellipse(x, y, (0, cy - 1), (14, 10)) < 0, bone, image)
    image = np.where(ellipse(x, y, (0, cy), (11, 7)) < 0, fluid, image)
    truth = (ellipse(x, y, (0.4, cy - 0.5), (6.3, 3.8)) < 0) & (z[None, None] >= cord_from)
    image = np.where(truth, cord, image)

    def mean(a):
        return a.reshape(shape[0], fine, shape[1], fine, shape[2]).mean(axis=(1, 3))

    rng = np.random.default_rng(seed)
    data = mean(image) * np.exp(0.01 * v[1::fine][None, :, None])  # a coil in front of the neck
    data = np.hypot(data + rng.normal(0, 0.03, shape), rng.normal(0, 0.03, shape))
    grid = Grid(shape, np.diag([*spacing, 1.0]) if affine is None else affine)
    return Image(data.astype(np.float32), grid), mean(truth.astype(float))


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("kind", list(BRIGHTNESS))
def test_simulated_neck_of_each_contrast(kind, told):
    image, truth = neck(kind)
    found = segment_cord(image, kind if told else None)
    assert dice(found.mask.data, truth >= 0.5) > 0.93
    assert found.probability.data.sum() == pytest.approx(truth.sum(), rel=0.05)
    assert (found.confidence > 0).all()
    np.testing.assert_array_equal(found.mask.data, found.probability.data >= 0.5)


@pytest.mark.parametrize(
    ("spacing", "size", "error"),
    [
        ((1.0, 1.0, 1.0), (50, 90, 40), 0.05),
        ((0.9, 0.9, 17.5), (80, 34, 88), 0.05),
        ((0.4, 0.4, 3.0), (90, 80, 45), 0.05),
        ((3.0, 0.8, 0.8), (40, 90, 30), 0.15),  # a sagittal scan: four voxels across the cord
    ],
)
def test_any_voxel_and_field_of_view(spacing, size, error):
    image, truth = neck("T2w", spacing, size, lean=0.05)
    found = segment_cord(image, "T2w")
    assert dice(found.mask.data, truth >= 0.5) > 0.88
    assert found.probability.data.sum() == pytest.approx(truth.sum(), rel=error)


@pytest.mark.parametrize("threads", [1, 3])
def test_number_of_threads_changes_nothing(threads):
    image, _ = neck("T2w", (1.0, 1.0, 1.0), (50, 60, 30))
    before = segment_cord(image, "T2w").probability.data
    try:
        limit_threads(threads)
        after = segment_cord(image, "T2w").probability.data
    finally:
        limit_threads(None)
    np.testing.assert_array_equal(before, after)


def test_axis_and_confidence_follow_the_cord():
    image, truth = neck("T2star")
    found = segment_cord(image, "T2star")
    for k in (2, 7, 12):
        want = image.grid.world([*ndimage.center_of_mass(truth[:, :, k]), k])
        across = found.centerline.project(want)[:2]
        assert np.hypot(*across) < 0.4


def test_slices_without_cord_stay_empty():
    image, truth = neck("T2w", (0.8, 0.8, 3.0), (100, 90, 90), cord_from=-10.0)
    found = segment_cord(image, "T2w")
    lowest = int(np.flatnonzero(truth.any(axis=(0, 1))).min())
    assert not found.mask.data[:, :, : lowest - 2].any()
    assert (found.confidence[: lowest - 2] == 0).all()
    assert dice(found.mask.data, truth >= 0.5) > 0.9


def test_one_connected_cord():
    image, _ = neck("T2w", (1.0, 1.0, 1.0), (50, 90, 40), seed=4)
    _, count = ndimage.label(segment_cord(image, "T2w").mask.data)
    assert count == 1


def test_oblique_grid_gives_the_same_voxels_as_a_straight_one():
    image, _ = neck("T2star")
    a = np.deg2rad(25)
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ image.grid.affine[:3, :3]
    affine[:3, 3] = [5, -3, 40]
    oblique = segment_cord(Image(image.data, Grid(image.grid.shape, affine)), "T2star")
    straight = segment_cord(image, "T2star")
    np.testing.assert_array_equal(oblique.mask.data, straight.mask.data)
    middle = oblique.centerline.points[len(oblique.centerline.points) // 2]
    index = np.rint(image.grid.shape[2] // 2)
    assert abs(oblique.mask.grid.index(middle)[2] - index) < 3


def test_scale_of_the_brightness_and_a_known_axis_do_not_matter():
    image, _ = neck("T2w")
    first = segment_cord(image, "T2w")
    scaled = segment_cord(image.derive((image.data * 3e4).astype(np.float32)), "T2w")
    assert dice(first.mask.data, scaled.mask.data) > 0.99
    given = segment_cord(image, "T2w", centerline=first.centerline)
    assert dice(first.mask.data, given.mask.data) > 0.98


def test_two_runs_agree_to_the_last_bit():
    image, _ = neck("dwi", (0.9, 0.9, 5.0), (86, 32, 75))
    first, second = segment_cord(image, "dwi"), segment_cord(image, "dwi")
    np.testing.assert_array_equal(first.probability.data, second.probability.data)
    np.testing.assert_array_equal(first.confidence, second.confidence)


def test_name_and_sidecar_tell_the_contrast():
    image, _ = neck("dwi", size=(60.0, 50.0, 24.0))
    named = image.derive(image.data, entities=Entities.parse("sub-1_dwi.nii.gz"))
    assert segment_cord(named).contrast == "dwi"
    assert segment_cord(image).contrast is None
    with pytest.raises(UnknownName, match="T9w"):
        segment_cord(image, "T9w")


def test_missing_voxels_count_as_outside():
    image, truth = neck("T2w")
    data = image.data.copy()
    data[:12] = np.nan
    data[:, :, 0] = np.nan
    found = segment_cord(image.derive(data), "T2w")
    assert not found.mask.data[:, :, 0].any()
    assert dice(found.mask.data[:, :, 1:], truth[:, :, 1:] >= 0.5) > 0.92


def test_empty_slices_stay_empty_and_negative_values_do_no_harm():
    image, _ = neck("T2star")
    whole = segment_cord(image, "T2star")
    data = image.data.copy()
    data[:, :, :4] = 0
    found = segment_cord(image.derive(data), "T2star")
    assert not found.mask.data[:, :, :4].any()
    assert found.mask.data[:, :, 4:].any(axis=(0, 1)).all()
    centred = segment_cord(image.derive(image.data - image.data.mean()), "T2star")
    assert dice(centred.mask.data, whole.mask.data) > 0.97


def test_a_single_slice_is_enough():
    image, truth = neck("T2star", size=(80.0, 70.0, 4.0))
    assert image.grid.shape[2] == 1
    found = segment_cord(image, "T2star")
    assert dice(found.mask.data, truth >= 0.5) > 0.92


@pytest.mark.parametrize(
    ("data", "error", "word"),
    [
        (np.full((40, 42, 5), np.nan), ImplausibleValue, "no finite value"),
        (np.full((40, 42, 5), 7.0), ImplausibleValue, "one constant value"),
        (np.arange(3 * 4 * 5).reshape(3, 4, 5), ImplausibleValue, "in plane"),
        (np.ones((40, 42, 5, 3)), ImplausibleValue, "3 volumes"),
        (np.random.default_rng(0).rayleigh(1.0, (60, 62, 9)), EmptyRegion, "No spinal cord"),
    ],
)
def test_what_holds_no_cord_is_refused_in_one_sentence(data, error, word):
    image = Image(data, Grid(data.shape[:3], np.eye(4)), source="sub-1_T2w.nii.gz")
    with pytest.raises(error, match=word) as caught:
        segment_cord(image)
    assert "sub-1_T2w.nii.gz" in str(caught.value)


def read(path):
    file = nib.load(path)
    data, grid = reorient(np.asarray(file.dataobj, dtype=np.float32), Grid(file.shape[:3], file.affine), "RAS")
    return Image(data, grid)


LABELS = "bids-cord/derivatives/labels"
REAL = [
    *(
        (
            f"bids-cord/{s}/anat/{s}_T2w.nii.gz",
            f"{LABELS}/{s}/anat/{s}_space-orig_label-SC_desc-T2w_mask.nii.gz",
            "T2w",
            0.90,
        )
        for s in ("sub-errsm11", "sub-errsm21")
    ),
    *(
        (
            f"bids-cord/{f}/anat/{n}_run-1_T2star.nii.gz",
            f"{LABELS}/{f}/anat/{n}_space-orig_label-SC_desc-T2starRun1_mask.nii.gz",
            "T2star",
            0.88,
        )
        for f, n in (
            ("sub-gm9584", "sub-gm9584"),
            ("sub-gm9604", "sub-gm9604"),
            ("sub-gm9709/ses-1", "sub-gm9709_ses-1"),
            ("sub-gm9709/ses-2", "sub-gm9709_ses-2"),
        )
    ),
    ("crops/t1_t1w.nii.gz", "crops/t1_t1w_seg-manual.nii.gz", "T1w", 0.88),
]


@pytest.mark.real
@pytest.mark.parametrize(("scan", "judge", "kind", "least"), REAL)
def test_agrees_with_manual_masks(data_dir, scan, judge, kind, least):
    found = segment_cord(read(data_dir / scan), kind)
    manual = read(data_dir / judge).data > 0.5
    assert dice(found.mask.data, manual) >= least
